package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// StandbyAnnotation with the value "true" is on the EndpointSlices of a part that does not serve, although its gateway
// may be healthy.
const StandbyAnnotation = "service-mirror.io/standby"

// decidePart decides a remote's part of a merged mirror: its EndpointSlices. What is wrong with the Service is a problem
// of the mirror's own key.
func (d *decision) decidePart(remote string) {
	s := d.snapshot
	d.plan.Cluster = remote
	d.plan.Problems = slices.DeleteFunc(d.plan.Problems, func(p Problem) bool { return p.Cluster != remote && !d.named(p) })
	if s.Mirror != nil {
		if _, ours := Owner(s.Mirror); !ours { // its slices are not ours any more
			d.plan.Forget, d.plan.DropTombstone = true, true
			return
		}
	}
	live, foreign := s.Live.owned(s.Key)
	d.plan.Live = live
	d.plan.Live.Service = s.Mirror
	m, _ := d.merge(s.Mirror)
	mine := m.export(remote)
	switch finalized := live.deleting(); {
	case foreign != "" && mine != nil:
		d.conflict([]Candidate{*mine}, foreign)
		d.plan.Requeue = RequeueForeign
	case finalized != nil:
		if mine != nil {
			d.plan.Problems = append(d.plan.Problems, mine.problem(WriteFailed, fmt.Sprintf("%s is being deleted and waits for its finalizers: remove them", finalized.GetName())))
		}
	case mine != nil:
		d.updatePart(live, m, *mine)
	case slices.Contains(d.known, remote):
		d.removePart(live, m, remote)
	}
}

// named tells a problem of a Service whose mirror would have the part's key as its name, with the dot.
func (d *decision) named(p Problem) bool {
	return slices.ContainsFunc(d.snapshot.Candidates, func(c Candidate) bool {
		return c.Service != nil && c.Cluster == p.Cluster && c.name() == p.Source && d.policy.Names.Of(c.Cluster).Key(c.Service) == d.snapshot.Key
	})
}

// removePart deletes the part of a remote that does not export the Service under this name any more. Until what takes its
// place is complete it goes on doing what it does.
func (d *decision) removePart(live Objects, m merged, remote string) {
	if origin := d.snapshot.Origin; origin != nil && origin.Cluster == remote {
		fate, to := d.policy.Fate(*origin, MirrorKey(d.snapshot.Key))
		d.plan.Successor = origin.Successor
		switch successor := origin.Successor; {
		case fate == Unknown, fate == Stays && successor == nil: // Stays: since the candidates were read
			return
		case fate == Gone:
		case successor == nil || !successor.Complete:
			d.keepPart(live, m, origin.Candidate)
			if fate == Moves {
				d.plan.Problems = append(d.plan.Problems, origin.problem(Renaming, Renamed(to)))
			}
			d.plan.Requeue = RequeueWithDelay
			return
		case successor.Endpoints != nil:
			d.step(Step{Action: AwaitSlices, Object: successor.Endpoints, AfterAll: true})
		}
	}
	cluster := d.plan.Cluster
	d.remove(live)
	d.plan.Cluster = cmp.Or(d.plan.Cluster, cluster)
	d.plan.DropTombstone = d.snapshot.Memory.Tombstone != nil
}

// keepPart has a part follow its gateway. Its ports, and whether it serves, stay.
func (d *decision) keepPart(live Objects, m merged, source Candidate) {
	if m.service == nil || m.service.Labels[ClusterLabel] != MergedCluster {
		return
	}
	b := d.partBasis(source)
	b.merged = &mergedBasis{part: source.Cluster, ports: m.service.Spec.Ports, standby: live.Standby()}
	var desired Objects
	problems := d.policy.addresses(b, &desired)
	desired.setStandby(b.merged.standby)
	d.writePart(b, live, desired, problems)
}

func (d *decision) partBasis(source Candidate) basis {
	return basis{Candidate: source, key: MirrorKey(d.snapshot.Key), live: d.plan.Live, families: d.snapshot.Families, tombstone: d.snapshot.Memory.Tombstone}
}

// writePart takes the steps that make a part as it is desired.
func (d *decision) writePart(b basis, live, desired Objects, problems []Problem) {
	d.plan.Source, d.plan.families, d.plan.merged, d.plan.Standby = &b.Candidate, b.families, b.merged, b.merged.standby
	d.plan.Desired = desired
	d.plan.Desired.Service = d.snapshot.Mirror
	d.plan.Problems = append(d.plan.Problems, problems...)
	for _, k := range SliceKinds {
		if !d.backedOff(live, desired, []Kind{k}) {
			d.write(k, live.Get(k), desired.Get(k), false)
		}
	}
	d.replace(live, desired)
}

// updatePart creates or changes a part. The Service comes first: slices without it would be another's, if that were
// created.
func (d *decision) updatePart(live Objects, m merged, source Candidate) {
	if m.service == nil || m.service.Labels[ClusterLabel] != MergedCluster || m.anothers() {
		return
	}
	b := d.partBasis(source)
	desired, standby, problems := m.desiredPart(b)
	b.merged = m.basis(b)
	b.merged.standby = standby
	d.writePart(b, live, desired, problems)
}

func (m *merged) basis(b basis) *mergedBasis {
	ports, _ := m.ports()
	return &mergedBasis{part: b.Cluster, ports: ports}
}

// part are the EndpointSlices of a remote as they are when it serves, and what is wrong with them.
func (m *merged) part(b basis) (Objects, []Problem) {
	b.merged = m.basis(b)
	b.live = m.parts[b.Cluster]
	b.live.Service = m.service
	var want Objects
	problems := m.policy.addresses(b, &want)
	if problem := m.portConflict(b.Candidate); problem != nil {
		problems = append(problems, *problem)
	}
	return want, problems
}

// desiredPart is the same, with the remote on standby if another one serves. One that serves goes on until the slices of
// the other one say so: they may be refused.
func (m *merged) desiredPart(b basis) (want Objects, standby bool, problems []Problem) {
	want, problems = m.part(b)
	if m.policy.Merge == MergeFirst {
		live, serving := m.parts[b.Cluster], m.serves(b)
		goesOn := live.ready() && !live.Standby() && serving != "" && !m.parts[serving].ready()
		standby = serving != b.Cluster && !goesOn
	}
	want.setStandby(standby)
	return want, standby, problems
}

// agrees tells whether a port of a remote is one of the mirror's: the same name, number and protocol.
func agrees(port corev1.ServicePort, all []corev1.ServicePort) bool {
	return slices.ContainsFunc(all, func(other corev1.ServicePort) bool {
		return port.Name == other.Name && port.Port == other.Port && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(other.Protocol, corev1.ProtocolTCP)
	})
}

// portConflict says which ports of a remote differ from those of the mirror; nil: none does.
func (m *merged) portConflict(c Candidate) *Problem {
	all, of := m.ports()
	own, _ := gateway.Selected(c.Service)
	list := func(ports, other []corev1.ServicePort) string {
		var texts []string
		for _, port := range ports {
			if !agrees(port, other) {
				texts = append(texts, strings.TrimSpace(fmt.Sprintf("%s %d/%s", port.Name, port.Port, cmp.Or(port.Protocol, corev1.ProtocolTCP))))
			}
		}
		if more := len(texts) - 5; more > 0 {
			texts = append(texts[:5], fmt.Sprintf("and %d more", more))
		}
		return strings.Join(texts, ", ")
	}
	lacks, extra := list(all, own), list(own, all)
	var difference string
	switch {
	case lacks == "" && extra == "":
		return nil
	case extra == "":
		difference = "it lacks " + lacks
	case lacks == "":
		difference = "it also has " + extra
	default:
		difference = "it lacks " + lacks + " and has " + extra
	}
	problem := c.problem(PortConflict, fmt.Sprintf("its ports differ from those of remote %s, which the merged mirror uses: %s. Only the ports in common are served: export the same names, numbers and protocols in both",
		of, difference))
	return &problem
}

// agreeing are the mappings of those ports of a remote that the mirror has.
func (b basis) agreeing(all []gateway.Mapping) []gateway.Mapping {
	if b.merged == nil {
		return all
	}
	return slices.DeleteFunc(all, func(m gateway.Mapping) bool { return !agrees(m.Port, b.merged.ports) })
}

// health is whether a remote can serve.
type health int

const (
	unhealthy health = iota
	healthUnknown
	healthy
)

// serves is the remote that serves where only one does: the first healthy one. One whose health is not known
// serves if it did; and if none is healthy, the first of these does. The same goes for one whose slices cannot be written.
func (m *merged) serves(b basis) (remote string) {
	all := m.remotes()
	for _, c := range m.exports {
		all = append(all, c.Cluster)
	}
	slices.SortFunc(all, m.policy.compareRemotes)
	for _, one := range slices.Compact(all) {
		h := healthUnknown
		c := m.export(one)
		switch {
		case c != nil:
			b.Candidate, b.tombstone = *c, nil
			h = m.health(b)
			if m.refused[one] {
				h = min(h, healthUnknown)
			}
		case !slices.Contains(m.unknown, one):
			h = unhealthy
		}
		switch {
		case h == healthy, h == healthUnknown && m.parts[one].ready():
			return one
		case h == healthUnknown && c != nil:
			remote = cmp.Or(remote, one)
		}
	}
	return remote
}

// health is that of the remote that the basis is of: of its gateway by the probes, and of the exported Service by its
// record.
func (m *merged) health(b basis) health {
	if b.Gateway == nil && b.NoGateway == nil || b.unpublished() {
		return healthUnknown
	}
	if published := b.Assigned.Published; published != nil && published.Record != nil && !published.Record.Ready {
		return unhealthy
	}
	want, _ := m.part(b)
	at := want.Endpointed()
	h := unhealthy
	if b.Gateway == nil {
		return h
	}
	for _, address := range b.Gateway.Addresses {
		ready := at[address.Addr]
		delete(at, address.Addr)
		switch {
		case ready && address.Health != gateway.Unprobed:
			return healthy
		case ready:
			h = healthUnknown
		}
	}
	for _, ready := range at { // kept, while not all of the gateway's addresses are known
		if ready {
			h = healthUnknown
		}
	}
	return h
}

// ready tells whether any endpoint is.
func (o Objects) ready() bool {
	for _, ready := range o.Endpointed() {
		if ready {
			return true
		}
	}
	return false
}

// Standby tells that the slices of a part say that it does not serve.
func (o Objects) Standby() bool {
	return slices.ContainsFunc([]*discoveryv1.EndpointSlice{o.IPv4, o.IPv6}, func(slice *discoveryv1.EndpointSlice) bool {
		return slice != nil && slice.Annotations[StandbyAnnotation] == "true"
	})
}

// setStandby has no endpoint be ready, and says why, or removes only that. The slices are copies.
func (o Objects) setStandby(standby bool) {
	for _, slice := range []*discoveryv1.EndpointSlice{o.IPv4, o.IPv6} {
		if slice == nil {
			continue
		}
		if !standby {
			delete(slice.Annotations, StandbyAnnotation)
			continue
		}
		slice.Annotations[StandbyAnnotation] = "true"
		endpoints := slices.Clone(slice.Endpoints)
		for i := range endpoints {
			endpoints[i].Conditions.Ready = new(bool)
		}
		slice.Endpoints = endpoints
	}
}

// awake are the objects that a part had, as if it had served: whether its addresses are healthy is not known then.
func (o Objects) awake() Objects {
	if !o.Standby() {
		return o
	}
	o = o.DeepCopy()
	for _, slice := range []*discoveryv1.EndpointSlice{o.IPv4, o.IPv6} {
		if slice != nil && slice.Annotations[StandbyAnnotation] == "true" {
			for i := range slice.Endpoints {
				ready := true
				slice.Endpoints[i].Conditions.Ready = &ready
			}
		}
	}
	return o
}

// setPartMeta sets what a part's slices record.
func (b basis) setPartMeta(slice *discoveryv1.EndpointSlice) {
	if b.merged == nil || b.merged.part == "" {
		return
	}
	slice.Annotations[RemoteServiceAnnotation] = b.name().String()
	if b.UID != "" {
		slice.Annotations[ClusterUIDAnnotation] = string(b.UID)
	}
	delete(slice.Annotations, ConfirmAnnotation)
	delete(slice.Annotations, StandbyAnnotation)
	delete(slice.Annotations, FailoverAnnotation)
	delete(slice.Labels, FailoverLabel)
}

// sliceKey is the key that the names of slices are made of.
func (b basis) sliceKey() cache.ObjectName {
	if b.merged != nil {
		return Part(b.key, b.merged.part)
	}
	return b.key
}
