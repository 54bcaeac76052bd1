package mirror

import (
	"slices"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// origin is what is known of the source of the live mirror under a key; nil where the mirror stays, as most often. follow
// has its successor looked at, too.
func (c *Controller) origin(s plan.Snapshot, source cache.ObjectName, follow bool) *plan.Origin {
	for _, candidate := range s.Candidates {
		if svc := candidate.Service; svc != nil && candidate.Cluster == s.Live.Cluster() && cache.MetaObjectToName(svc) == source && c.remotes.policy().Refuse(candidate) == nil {
			return nil
		}
	}
	origin := c.remotes.origin(s.Live.Cluster(), source)
	if fate, to := c.remotes.policy().Fate(origin, s.Key); follow && fate == plan.Moves {
		origin.Successor = c.successor(to, origin, len(s.Live.Endpointed()) > 0)
		origin.Successor.Circular = c.firstOfCircle(s.Key, to)
	}
	return &origin
}

// successor is the mirror that the source of another one has under a key. endpoints tells that the other one has some.
func (c *Controller) successor(key cache.ObjectName, origin plan.Origin, endpoints bool) *plan.Successor {
	p := c.remotes.policy().Decide(c.observed(key, false))
	if !c.remotes.policy().Merges() {
		return &plan.Successor{Key: key, Complete: p.Complete(origin.Cluster, origin.Source, endpoints), Endpoints: p.Live.Endpoints}
	}
	part := c.remotes.policy().Decide(c.observed(plan.Part(key, origin.Cluster), false))
	return &plan.Successor{Key: key, Complete: p.Settled() && part.Complete(origin.Cluster, origin.Source, endpoints)}
}

// firstOfCircle tells that mirrors wait for each other's names, and that the first of them by its key is this one, which
// waits for the next one's.
func (c *Controller) firstOfCircle(key, next cache.ObjectName) bool {
	for seen := map[cache.ObjectName]bool{}; next != key; {
		if seen[next] || plan.CompareKeys(next, key) < 0 {
			return false
		}
		seen[next] = true
		live := c.local.Live(next)
		source, recorded := live.Source()
		if !recorded {
			return false
		}
		fate, to := c.remotes.policy().Fate(c.remotes.origin(live.Cluster(), source), next)
		if fate != plan.Moves {
			return false
		}
		next = to
	}
	return true
}

// enqueueMoving enqueues the mirrors of the same source under another key: they go once this one, which was synced, is
// complete.
func (c *Controller) enqueueMoving(p plan.Plan) {
	if p.Source == nil || p.Successor != nil {
		return
	}
	source, naming := cache.MetaObjectToName(p.Source.Service), c.remotes.policy().Names.Of(p.Cluster)
	if naming.Key(p.Source.Service) != plan.MirrorKey(p.Key) {
		return // a merged Service under a former name, which waits for others: two of these would enqueue each other forever
	}
	moving := c.local.Moving(p.Cluster, source)
	if naming.ObeyNames {
		key := naming.KeyByTemplate(source)
		// Two Services may choose each other's names: without this check, these would enqueue each other forever.
		if slices.Contains(plan.MirrorOf(c.local.Live(key).Service), plan.Listed{Remote: p.Cluster, Source: source}) {
			moving = append(moving, key)
		}
		part := plan.Part(key, p.Cluster)
		if of, recorded := c.local.Live(part).PartSource(); recorded && of == source {
			moving = append(moving, part)
		}
	}
	if !c.remotes.policy().Merges() { // parts go, too, once the mirror is one that is not merged
		for _, remote := range c.local.PartsOf(p.Key) {
			moving = append(moving, plan.Part(p.Key, remote))
		}
	}
	for _, key := range moving {
		if key != p.Key {
			c.queue.AddFor(p.Cluster, key)
		}
	}
}
