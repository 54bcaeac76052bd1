package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Decide says what is to be written for a key, and what is wrong with it.
func (p Policy) Decide(s Snapshot) Plan {
	d := decision{policy: p, snapshot: s, plan: Plan{Key: s.Key, Live: s.Live, policy: p, tombstone: s.Memory.Tombstone}}
	d.sift()
	if _, remote, part := PartOf(s.Key); part {
		d.decidePart(remote)
	} else {
		d.decide()
	}
	return d.plan
}

// decision is a Plan in the making.
type decision struct {
	policy   Policy
	snapshot Snapshot
	wanted   []Candidate // that have a Service to be mirrored
	known    []string    // remotes that would have it if they exported it
	merged   *merged     // nil: the mirror is not merged
	plan     Plan
}

// sift separates the candidates that are to be mirrored from those that are refused.
func (d *decision) sift() {
	for _, c := range d.snapshot.Candidates {
		known := c.Watched
		if c.Service != nil {
			if refusal := d.policy.Refuse(c); refusal != nil {
				if c.unsettled(*refusal) {
					known, *refusal = false, c.explain(*refusal)
				}
				d.plan.Problems = append(d.plan.Problems, *refusal)
			} else {
				d.wanted = append(d.wanted, c)
			}
		}
		if known {
			d.known = append(d.known, c.Cluster)
		}
	}
}

// explain is what an unsettled refusal is due to.
func (c Candidate) explain(refusal Problem) Problem {
	switch {
	case refusal.Reason != NoTCPPort:
		return refusal
	case c.Gateway == nil:
		return c.problem(NoAddress, "the gateway has not been read yet: see the problems of the remote")
	}
	return c.problem(NoAddress, "the records of the remote's publisher have not been read yet: see the problems of the remote")
}

func (d *decision) decide() {
	if d.policy.Merges() {
		d.plan.Problems = nil // they are those of the parts
	}
	if svc := d.snapshot.Live.Service; svc != nil {
		if _, ours := Owner(svc); !ours {
			// Endpoints included: of a mirror that a user made theirs they are, too.
			d.conflict(d.wanted, Service.Foreign(d.snapshot.Key))
			d.deleteAll(d.snapshot.Memory.Stray)
			d.plan.Forget, d.plan.DropTombstone = true, true
			return
		}
	}
	live, foreign := d.snapshot.Live.owned(d.snapshot.Key)
	d.plan.Live = live
	if foreign != "" && len(d.wanted) > 0 {
		d.conflict(d.wanted, foreign)
		d.plan.Requeue = RequeueForeign
		return
	}
	if finalized := live.deleting(); finalized != nil { // its end enqueues the key
		for _, c := range d.wanted {
			d.plan.Problems = append(d.plan.Problems, c.problem(WriteFailed, fmt.Sprintf("%s is being deleted and waits for its finalizers: remove them", finalized.GetName())))
		}
		return
	}
	if d.policy.Merges() && len(d.wanted) > 0 || IsMerged(live.Service) {
		d.decideMerged(live)
		return
	}
	source, fate := d.choose(live)
	switch fate {
	case Unknown:
	case Stays:
		d.update(live, *source)
	case Moves:
		d.rename(live, *source)
	case Gone:
		d.remove(live)
	}
}

// takenName is what two Services have in common whose mirrors are to have one name.
const takenName = " already has this name: stop exporting one of the two, or set another name template or namespace for one of them"

// choose says what becomes of the mirror and whose it is to be: that of the Service whose mirror exists already, else of
// the first one by name.
func (d *decision) choose(live Objects) (source *Candidate, fate Fate) {
	owner := d.owner(live)
	switch {
	case owner != "":
		source, fate = d.fate(live, owner)
	case len(d.wanted) == 0:
		return nil, Gone
	default:
		owner = d.wanted[0].Cluster
		source, fate = &d.wanted[0], Stays
	}
	mine := "the mirror of remote " + owner + takenName
	others := slices.DeleteFunc(slices.Clone(d.wanted), func(c Candidate) bool {
		return source != nil && c.Cluster == source.Cluster && c.name() == source.name()
	})
	if source != nil && slices.ContainsFunc(others, func(c Candidate) bool { return c.Cluster == owner }) {
		mine = fmt.Sprintf("the mirror of %v in remote %s", source.name(), owner) + takenName
	}
	d.conflict(others, mine)
	return source, fate
}

func (d *decision) conflict(candidates []Candidate, why string) {
	for _, c := range candidates {
		d.plan.Problems = append(d.plan.Problems, c.problem(Conflict, why))
	}
}

// remove deletes what is left of a mirror that is no longer wanted.
func (d *decision) remove(live Objects) {
	d.plan.Cluster = live.Cluster()
	d.deleteAll(live)
	d.plan.Forget = true
	had := d.snapshot.Memory.Tombstone
	d.plan.DropTombstone = had != nil && (had.Cluster == "" || slices.Contains(d.known, had.Cluster))
}

// deleteAll deletes the Service first: clients must not be sent to where nothing is.
func (d *decision) deleteAll(objects Objects) {
	for _, k := range allKinds {
		if obj := objects.Get(k); obj != nil {
			d.step(Step{Action: Delete, Kind: k, Object: obj, AfterAll: true})
		}
	}
}

func (d *decision) step(s Step) { d.plan.Steps = append(d.plan.Steps, s) }

// update creates or changes a mirror.
func (d *decision) update(live Objects, source Candidate) {
	s := d.snapshot
	d.plan.Cluster, d.plan.Source, d.plan.families = source.Cluster, &source, s.Families
	if problem := namespaceProblem(s.Key.Namespace, s.Namespace); problem != nil {
		if s.Namespace != NamespaceAbsent || !d.policy.CreateNamespaces {
			problem.Cluster, problem.Source = source.Cluster, source.name()
			d.plan.Problems = append(d.plan.Problems, *problem)
			d.plan.Source = nil
			return
		}
		d.step(Step{Action: CreateNamespace, AfterAll: true})
	}
	desired, problems := d.desired(basis{source, s.Key, live, s.Families, s.Memory.Tombstone, d.plan.merged})
	d.plan.Desired = desired
	d.plan.Problems = append(d.plan.Problems, problems...)
	d.reportReplaced(source)
	switch {
	case headless(live.Service): // it comes back with the ClusterIPs that it had
		d.step(Step{Action: Delete, Kind: Service, Object: live.Service})
		return
	case live.Service == nil:
		d.create(live, desired)
	default:
		d.change(live, desired)
	}
	d.checkSlices(live)
}

func (d *decision) desired(b basis) (Objects, []Problem) {
	if d.merged != nil {
		return d.merged.desired(b), nil
	}
	return d.policy.desiredOf(b)
}

// reportReplaced reports a mirror that someone recreated, so that it has other ClusterIPs now.
func (d *decision) reportReplaced(source Candidate) {
	had, live := d.snapshot.Memory.Tombstone, d.snapshot.Live.Service
	if had != nil && (had.Cluster == source.Cluster || had.Cluster == MergedCluster) && len(had.Replaced) > 0 && live != nil {
		d.plan.Replaced = true
		d.plan.Problems = append(d.plan.Problems, source.problem(ClusterIPLost, fmt.Sprintf("the mirror was recreated: its ClusterIPs changed from %s to %s. Restart clients that use the old ones",
			strings.Join(had.Replaced, ", "), strings.Join(live.Spec.ClusterIPs, ", "))))
	}
}

// create creates the addresses before the Service: one over foreign Endpoints would send traffic there.
func (d *decision) create(live, desired Objects) {
	if d.backedOff(live, desired, allKinds) {
		d.plan.Steps = nil
		return
	}
	if d.snapshot.Memory.Rejected { // else the addresses would be created and deleted with every retry
		d.step(Step{Action: TryService, Kind: Service, Object: desired.Service, AfterAll: true})
	}
	if desired.Endpoints == nil {
		d.step(Step{Action: CheckForeignEndpoints, Kind: Endpoints, AfterAll: true})
	}
	for _, k := range addressKinds {
		d.write(k, live.Get(k), desired.Get(k), true)
	}
	d.write(Service, nil, desired.Service, true)
	d.replace(live, desired)
}

// change updates the Service before the addresses: once it is not ours any more, they are not either.
func (d *decision) change(live, desired Objects) {
	for _, k := range allKinds {
		if !d.backedOff(live, desired, []Kind{k}) && !(k == Endpoints && d.paused(live, desired)) {
			d.write(k, live.Get(k), desired.Get(k), false)
		}
	}
	d.replace(live, desired)
	d.deleteLeftovers(live)
}

// write adds the step that creates or updates an object, if one is needed.
func (d *decision) write(k Kind, live, desired metav1.Object, afterAll bool) {
	switch {
	case desired == nil:
	case live == nil:
		d.step(Step{Action: Create, Kind: k, Object: desired, AfterAll: afterAll})
	case k.differs(live, desired):
		d.step(Step{Action: Update, Kind: k, Object: desired, Live: live, AfterAll: afterAll})
	}
}

// replace deletes what carried the addresses before, when its replacement is complete.
func (d *decision) replace(live, desired Objects) {
	if slices.ContainsFunc(addressKinds, func(k Kind) bool { return d.plan.BackedOff[k] }) {
		return
	}
	if desired.Endpoints != nil && (live.IPv4 != nil && desired.IPv4 == nil || live.IPv6 != nil && desired.IPv6 == nil) {
		d.step(Step{Action: AwaitSlices, Object: desired.Endpoints, AfterAll: true})
	}
	for _, k := range addressKinds {
		if obj := live.Get(k); obj != nil && desired.Get(k) == nil {
			d.step(Step{Action: Delete, Kind: k, Object: obj, AfterAll: true})
		}
	}
}

// backedOff notes which of the objects must not be written yet, and tells whether there is one.
func (d *decision) backedOff(live, desired Objects, which []Kind) (any bool) {
	for _, k := range which {
		backoff, want := d.snapshot.Memory.Backoffs[k], desired.Get(k)
		if backoff == nil || want == nil || backoff.Only != nil && k.differs(backoff.Only, want) {
			continue
		}
		if had := live.Get(k); had != nil && !k.differs(had, want) {
			continue
		}
		any, d.plan.BackedOff[k] = true, true
		d.plan.Problems = append(d.plan.Problems, backoff.Problem)
	}
	return any
}

// deleteLeftovers deletes the EndpointSlices that a selector, once set on the mirror, left behind: they
// would go on sending traffic to local pods.
func (d *decision) deleteLeftovers(live Objects) {
	if len(live.Service.Spec.Selector) > 0 {
		return
	}
	for _, slice := range d.snapshot.Leftovers {
		if owner := metav1.GetControllerOf(slice); owner != nil && owner.Kind == "Service" && owner.UID == live.Service.UID {
			d.step(Step{Action: DeleteLeftover, Object: slice})
		}
	}
}

// checkSlices looks for the EndpointSlices that Kubernetes makes of Endpoints, once those have addresses
// and nothing is to be written: what was written just now cannot have any yet.
func (d *decision) checkSlices(live Objects) {
	memory := d.snapshot.Memory
	switch {
	case !memory.SliceCheck || len(d.plan.Steps) > 0 || len(Objects{Endpoints: live.Endpoints}.Endpointed()) == 0:
	case memory.Refreshes < maxRefreshes:
		d.step(Step{Action: CheckSlices})
	default:
		d.step(Step{Action: RestartMirroring})
	}
}

// maxRefreshes are the updates of Endpoints until more of them are of no use. Kubernetes' controller makes no
// EndpointSlices while it waits for one that it believes to exist, and does so for ever if it was notified of the
// deletion before it noted what it had written, or if someone took one from it by its labels. It forgets them where
// Endpoints are not to be mirrored. Deleting these for it would risk their addresses, and it may not notice
// what is recreated at once.
const maxRefreshes = 3

// paused tells that the Endpoints are as desired but for the label that keeps Kubernetes from mirroring them, and
// that they are to have it for now.
func (d *decision) paused(live, desired Objects) bool {
	return d.snapshot.Memory.Paused && live.Endpoints != nil && desired.Endpoints != nil &&
		!Endpoints.differs(live.Endpoints, Unmirrored(desired.Endpoints))
}

// deleting is an object that is being deleted; nil if none is.
func (o Objects) deleting() metav1.Object {
	for _, k := range allKinds {
		if obj := o.Get(k); obj != nil && obj.GetDeletionTimestamp() != nil {
			return obj
		}
	}
	return nil
}
