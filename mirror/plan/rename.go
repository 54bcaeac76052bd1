package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// Origin is the exported Service that a live mirror records: its source. What is known of that decides what becomes of
// the mirror, and until it goes, nobody else gets its name. So names may be chosen freely, and changed:
//
//	Unknown  the mirror stays as it is
//	Stays    the mirror is kept as it should be
//	Moves    it is kept as it should be, too, until the mirror with the name that its source gives now is complete
//	Gone     the mirror goes, or passes to another Service of its remote
type Origin struct {
	Candidate // without a Service if its remote exports none of this name
	Source    cache.ObjectName
	Known     bool // whether its remote exports it
	Successor *Successor
}

// Successor is the mirror that takes the place of one whose source moves: its name or its namespace was changed.
type Successor struct {
	Key       cache.ObjectName
	Complete  bool              // it is as it should be, and has endpoints if the old one has some
	Endpoints *corev1.Endpoints // that it has, if it has Endpoints: Kubernetes must have made slices of them
	// Circular tells that mirrors wait for each other's names, and that the old one is the first of them. It goes at
	// once: without that they would wait forever.
	Circular bool
}

// Fate is what becomes of a live mirror.
type Fate int

// The fates.
const (
	Unknown Fate = iota
	Stays
	Moves
	Gone
)

// Fate is that of the mirror under a key. to is the key that its source gives now, where that is known.
func (p Policy) Fate(o Origin, key cache.ObjectName) (fate Fate, to cache.ObjectName) {
	switch {
	case !o.Known:
		return Unknown, to
	case o.Service == nil || !p.Concerns(o.Service):
		return Gone, to
	}
	to = p.Names.Of(o.Cluster).Key(o.Service)
	switch refusal := p.Refuse(o.Candidate); {
	case refusal != nil && o.unsettled(*refusal):
		return Unknown, to
	case refusal != nil && refusal.Reason != InvalidName: // that name is never complete, so the old one stays
		return Gone, to
	case to != key:
		return Moves, to
	}
	return Stays, to
}

// unsettled tells that an exported Service is refused only for want of knowledge: a mirror that exists stays.
func (c Candidate) unsettled(refusal Problem) bool {
	switch refusal.Reason {
	case NoTCPPort: // the gateway, and the records, could tell that a port is reserved for it
		return c.Gateway == nil || c.unpublished()
	case NoClusterName:
		return true
	}
	return false
}

// fate is what becomes of the live mirror of a remote, and the Service that it is kept for.
func (d *decision) fate(live Objects, owner string) (*Candidate, Fate) {
	recorded, _ := live.Source()
	if source := d.wants(owner, recorded); source != nil {
		return source, Stays
	}
	if origin := d.snapshot.Origin; origin != nil && origin.Cluster == owner {
		switch fate, _ := d.policy.Fate(*origin, d.snapshot.Key); fate {
		case Moves:
			return &origin.Candidate, Moves
		case Unknown, Stays: // Stays: since the candidates were read, of which an event comes
			return nil, Unknown
		}
		return d.inherit(owner)
	}
	source, fate := d.inherit(owner)
	if fate == Gone && !slices.Contains(d.known, owner) {
		fate = Unknown // such as a mirror of a remote that the flags no longer name, which is kept until it is pruned
	}
	return source, fate
}

// inherit is the fate of a mirror without a source: another Service of its remote gets it, if one wants it.
func (d *decision) inherit(owner string) (*Candidate, Fate) {
	if i := slices.IndexFunc(d.wanted, func(c Candidate) bool { return c.Cluster == owner }); i >= 0 {
		return &d.wanted[i], Stays
	}
	return nil, Gone
}

// wants is the Service of a remote, if its mirror is to have the key.
func (d *decision) wants(cluster string, source cache.ObjectName) *Candidate {
	i := slices.IndexFunc(d.wanted, func(c Candidate) bool { return c.Cluster == cluster && c.name() == source })
	if i < 0 {
		return nil
	}
	return &d.wanted[i]
}

// owner is the remote that the live objects are of: the one that their label names, unless someone has edited that. The
// UID of the cluster, which mirrors record, says so; without one, the labels of its addresses do. If they do not, either, and
// the labelled remote cannot have a mirror with this name, the only remote that wants the name is the owner.
func (d *decision) owner(live Objects) string {
	labelled, uid := live.Cluster(), ""
	if live.Service != nil {
		uid = live.Service.Annotations[ClusterUIDAnnotation]
	}
	recorded, _ := live.Source()
	if d.wants(labelled, recorded) != nil && (uid == "" || uid == string(d.wants(labelled, recorded).UID)) {
		return labelled
	}
	for _, c := range d.wanted {
		if labelled != "" && uid != "" && uid == string(c.UID) && c.name() == recorded {
			return c.Cluster
		}
	}
	if uid == "" && (d.policy.Pending || live.labelledAlike()) {
		return labelled
	}
	origin := d.snapshot.Origin
	exported := origin != nil && origin.Cluster == labelled && origin.Service != nil
	if labelled == "" || exported || len(d.wanted) != 1 || d.policy.Names.Of(labelled).Makes(d.snapshot.Key) {
		return labelled
	}
	if one := d.wanted[0]; uid == "" || uid == string(one.UID) {
		return one.Cluster
	}
	return labelled
}

// rename keeps a mirror whose source moves, until its successor is complete.
func (d *decision) rename(live Objects, source Candidate) {
	successor := d.snapshot.Origin.Successor
	d.plan.Successor = successor
	switch {
	case successor == nil: // only what is under this key is of interest
	case successor.Complete || successor.Circular:
		if successor.Complete && successor.Endpoints != nil {
			d.step(Step{Action: AwaitSlices, Object: successor.Endpoints, AfterAll: true})
		}
		d.remove(live)
	default:
		d.update(live, source)
		d.plan.Problems = append(d.plan.Problems, source.problem(Renaming, Renamed(successor.Key)))
		d.plan.Requeue = RequeueWithDelay
	}
}

// Renamed says why a mirror exists under a name that its source does not give it any more.
func Renamed(to cache.ObjectName) string {
	return fmt.Sprintf("the mirror is being renamed to %.320s: it is deleted as soon as the new mirror is complete. If that takes long, fix the problems of the new one", to)
}
