package mirror

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// enqueue enqueues a key on behalf of a remote and, of a merged mirror, its Service and all of its parts: which remote
// serves, and which ports, depends on all of them.
func (e *enqueuer) enqueue(cluster string, key cache.ObjectName) {
	e.queue.AddFor(cluster, key)
	mirror := plan.MirrorKey(key)
	if mirror != key {
		e.queue.AddFor(cluster, mirror)
	}
	for remote := range e.partsOf(mirror) {
		if part := plan.Part(mirror, remote); part != key {
			e.queue.AddFor(cluster, part)
		}
	}
}

// partsOf are the remotes that may have a part in a mirror.
func (e *enqueuer) partsOf(mirror cache.ObjectName) sets.Set[string] {
	all := sets.New(e.local.PartsOf(mirror)...)
	if e.remotes.policy().Merges() {
		for _, r := range e.remotes.all() {
			if e.remotes.policy().Names.Of(r.Name()).Makes(mirror) {
				all.Insert(r.Name())
			}
		}
	}
	return all
}

// parts are the live slices of each remote that may have a part in a mirror, whose live Service is given.
func (c *Controller) parts(mirror cache.ObjectName, svc *corev1.Service) map[string]plan.Objects {
	remotes := c.partsOf(mirror)
	for _, listed := range plan.Remotes(svc) {
		remotes.Insert(listed.Remote)
	}
	all := map[string]plan.Objects{}
	for remote := range remotes {
		if live := c.local.Live(plan.Part(mirror, remote)); !live.Empty() {
			all[remote] = live
		}
	}
	return all
}

// observeMerged adds what is known of the parts of a mirror to the snapshot of its Service.
func (c *Controller) observeMerged(s *plan.Snapshot) {
	if !c.remotes.policy().Merges() && !plan.IsMerged(s.Live.Service) {
		return
	}
	s.Parts, s.Refused = c.parts(s.Key, s.Live.Service), c.refused(s.Key)
	c.addOwners(s, s.Key, s.Live.Service)
	for _, remote := range slices.Sorted(maps.Keys(s.Parts)) {
		source, recorded := s.Parts[remote].Owned(plan.Part(s.Key, remote)).PartSource()
		origin := c.remotes.origin(remote, source)
		if fate, _ := c.remotes.policy().Fate(origin, s.Key); recorded && fate == plan.Moves {
			s.Moving = append(s.Moving, origin.Candidate)
		}
	}
	for _, listed := range plan.Remotes(s.Live.Service) {
		if !s.Parts[listed.Remote].Owned(plan.Part(s.Key, listed.Remote)).Empty() {
			continue // whose slices say where they move to
		}
		origin := c.remotes.origin(listed.Remote, listed.Source)
		if fate, to := c.remotes.policy().Fate(origin, s.Key); fate == plan.Moves && !slices.Contains(plan.MirrorOf(c.local.Live(to).Service), listed) {
			s.Moving = append(s.Moving, origin.Candidate)
		}
	}
}

// refused are the remotes whose slices of a mirror, of which a key may be a part, could not be written lately.
func (c *Controller) refused(key cache.ObjectName) map[string]bool {
	if c.remotes.policy().Merge != plan.MergeFirst {
		return nil
	}
	return c.memory.refused(plan.MirrorKey(key), c.remotes.all())
}

// addOwners adds the remotes that a merged mirror is of, as far as they are no candidates.
func (c *Controller) addOwners(s *plan.Snapshot, mirror cache.ObjectName, svc *corev1.Service) {
	owners := map[string]string{} // and the namespace in the remote
	for remote := range s.Parts {
		owners[remote] = mirror.Namespace
	}
	for _, listed := range plan.Remotes(svc) {
		owners[listed.Remote] = listed.Source.Namespace
	}
	for _, remote := range slices.Sorted(maps.Keys(owners)) {
		s.Candidates = c.remotes.owner(s.Candidates, mirror, remote, owners[remote])
	}
}

// observePart is what is known of a remote's part of a merged mirror. follow has its successor be looked for, too.
func (c *Controller) observePart(key cache.ObjectName, follow bool) plan.Snapshot {
	mirror, remote, _ := plan.PartOf(key)
	// A name with a dot is no Service's, but a remote may send one: that is refused under its key.
	s := plan.Snapshot{Key: key, Candidates: slices.DeleteFunc(c.remotes.candidates(key), func(one plan.Candidate) bool { return one.Service == nil })}
	s.Candidates = append(s.Candidates, c.remotes.candidates(mirror)...)
	s.Live = c.local.Live(key)
	s.Mirror = c.local.Live(mirror).Service
	s.Parts, s.Refused = c.parts(mirror, s.Mirror), c.refused(mirror)
	s.Memory.Tombstone = c.local.Tombstone(key, s.Live)
	s.Families = c.local.Families()
	s.Namespace = c.local.Namespace(key.Namespace)
	if s.Memory.Tombstone != nil && s.Live.Empty() {
		s.Candidates = c.remotes.owner(s.Candidates, mirror, remote, key.Namespace)
	}
	c.addOwners(&s, mirror, s.Mirror)
	if source, recorded := s.Live.PartSource(); recorded {
		s.Origin = c.partOrigin(mirror, remote, source, follow)
		if s.Origin.Successor != nil {
			s.Origin.Successor.Complete = s.Origin.Successor.Complete && c.othersComplete(s, mirror, remote)
		}
	}
	return s
}

// partOrigin is what is known of the source of a part. Its successor is the mirror that is not merged any more, too.
func (c *Controller) partOrigin(mirror cache.ObjectName, remote string, source cache.ObjectName, follow bool) *plan.Origin {
	origin, endpoints := c.remotes.origin(remote, source), len(c.local.Live(plan.Part(mirror, remote)).Endpointed()) > 0
	switch fate, to := c.remotes.policy().Fate(origin, mirror); {
	case !follow:
	case fate == plan.Moves:
		origin.Successor = c.successor(to, origin, endpoints)
	case fate == plan.Stays && !c.remotes.policy().Merges(): // it may be another remote's
		p := c.remotes.policy().Decide(c.observed(mirror, false))
		complete := p.Source != nil && p.Complete(p.Source.Cluster, cache.MetaObjectToName(p.Source.Service), endpoints)
		origin.Successor = &plan.Successor{Key: mirror, Complete: complete, Endpoints: p.Live.Endpoints}
	}
	return &origin
}

// othersComplete tells that nothing takes the place of the other parts of a mirror, or that what does is complete: the one
// that serves must not go before the others can.
func (c *Controller) othersComplete(s plan.Snapshot, mirror cache.ObjectName, remote string) bool {
	for other, objects := range s.Parts {
		source, recorded := objects.Owned(plan.Part(mirror, other)).PartSource()
		if other == remote || !recorded {
			continue
		}
		if successor := c.partOrigin(mirror, other, source, true).Successor; successor != nil && !successor.Complete {
			return false
		}
	}
	return true
}

// merged are the keys of the merged mirrors that list a remote.
func (e *enqueuer) merged(cluster string) (keys []cache.ObjectName) {
	for _, svc := range e.local.Mirrors(plan.MergedCluster) {
		if plan.Lists(svc, cluster) {
			keys = append(keys, cache.MetaObjectToName(svc))
		}
	}
	return keys
}

// reported are the keys of what is verified and reported of what a remote exports: of merged mirrors, its parts.
func (r *remotes) reported(cluster string) []cache.ObjectName {
	keys := r.keys(cluster)
	if r.policy().Merges() {
		for i, key := range keys {
			keys[i] = plan.Part(key, cluster)
		}
	}
	return keys
}

// serviceOf is the live Service of a mirror, of which a key may be a part.
func (c *Controller) serviceOf(key cache.ObjectName) *corev1.Service {
	if mirror, remote, part := plan.PartOf(key); part && c.remotes.has(remote) {
		key = mirror
	}
	return c.local.Live(key).Service
}

// mergedRow is the state of a remote's part of a merged mirror.
func mergedRow(c *Controller, key cache.ObjectName, of plan.Candidate) (_ status.Mirror, exists bool) {
	part, source := plan.Part(key, of.Cluster), cache.MetaObjectToName(of.Service)
	row := newRow(c, key, of)
	live := c.local.Live(key).Owned(key)
	slices := c.local.Live(part).Owned(part)
	merged := live.Service != nil && live.Cluster() == plan.MergedCluster
	state := plan.StateMirrored
	switch {
	case !merged:
		state = plan.StateWaiting
	case len(slices.Endpointed()) == 0:
		state = plan.StateIncomplete
	}
	add := func(problem plan.Problem) {
		state = state.Worse(problem.Reason.State())
		row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
	}
	for _, problem := range c.problems.Of(part) {
		if problem.Cluster == of.Cluster && (problem.Source == cache.ObjectName{} || problem.Source == source) {
			add(problem)
		}
	}
	for _, problem := range c.problems.Of(key) { // those of the Service are everyone's, a conflict is one Service's
		if problem.Reason != plan.Conflict || problem.Cluster == of.Cluster && problem.Source == source {
			add(problem)
		}
	}
	row.State = string(state)
	row.setVerified(c, part)
	if merged {
		row.Role = roleOf(slices)
		slices.Service = live.Service
		row.show(slices)
	}
	return status.Mirror(row), merged
}

// knows tells whether it is known what a configured remote that a merged mirror lists exports.
func (r *remotes) knows(listed plan.Listed) bool {
	one := r.get(listed.Remote)
	if one == nil {
		return true
	}
	view, ok := one.View()
	return ok && view.Knows(listed.Source.Namespace)
}

// roleOf is what a part does, as its live slices say.
func roleOf(slices plan.Objects) string {
	switch {
	case len(slices.Endpointed()) == 0:
		return ""
	case slices.Standby():
		return status.Standby
	}
	return status.Serving
}

// orphanParts are the parts of remotes that do not export the Service of a merged mirror, as far as is known.
func orphanParts(c *Controller, seen map[cache.ObjectName]bool) (rows []status.Mirror) {
	for _, key := range c.local.Parts() {
		if seen[key] {
			continue
		}
		mirror, remote, _ := plan.PartOf(key)
		live := c.local.Live(key).Owned(key)
		source, _ := live.PartSource()
		if live.Empty() {
			continue
		}
		row := row{Namespace: mirror.Namespace, Name: mirror.Name, Cluster: remote, Source: source.String(), State: status.Orphan, Role: roleOf(live)}
		switch fate, to := c.remotes.policy().Fate(c.remotes.origin(remote, source), mirror); {
		case !c.remotes.has(remote):
		case fate == plan.Moves:
			row.State = status.Mirrored
			row.Problems = []status.MirrorProblem{{Reason: string(plan.Renaming), Message: plan.Renamed(to)}}
		case fate != plan.Gone:
			row.State = status.Mirrored // as far as is known
		}
		for _, problem := range c.problems.Of(key) {
			if problem.Reason == plan.Renaming {
				continue
			}
			row.State = string(plan.State(row.State).Worse(problem.Reason.State()))
			row.Problems = append(row.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		}
		row.setVerified(c, key)
		live.Service = c.local.Live(mirror).Service
		row.show(live)
		rows = append(rows, status.Mirror(row))
	}
	return rows
}
