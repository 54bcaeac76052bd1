package mirror

import (
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// origin is what is known of the source of the live mirror under a key. follow has its successor looked at, too.
func (c *Controller) origin(s plan.Snapshot, source cache.ObjectName, follow bool) *plan.Origin {
	origin := c.remotes.origin(s.Live.Cluster(), source)
	if fate, to := c.options.Fate(origin, s.Key); follow && fate == plan.Moves {
		p := c.options.Decide(c.observed(to, false))
		origin.Successor = &plan.Successor{
			Key: to, Complete: p.Complete(origin.Cluster, source, len(s.Live.Endpointed()) > 0), Endpoints: p.Live.Endpoints,
			Circular: c.firstOfCircle(s.Key, to),
		}
	}
	return &origin
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
		fate, to := c.options.Fate(c.remotes.origin(live.Cluster(), source), next)
		if fate != plan.Moves {
			return false
		}
		next = to
	}
	return true
}

// enqueueOthers enqueues the mirrors that record the same source under another key: they go once this one is complete.
func (c *Controller) enqueueOthers(p plan.Plan) {
	if p.Source == nil || p.Successor != nil {
		return
	}
	for _, key := range c.local.MirrorsOf(p.Cluster, cache.MetaObjectToName(p.Source.Service)) {
		if key != p.Key {
			c.queue.AddFor(p.Cluster, key)
		}
	}
}
