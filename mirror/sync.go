package mirror

import (
	"context"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/write"
)

// foreignPeriod is how long until a key is looked at again although nothing has changed: foreign Endpoints are
// in no cache.
const foreignPeriod = 30 * time.Second

// work syncs a key and reports what was found. It returns when the key is synced again.
func (c *Controller) work(ctx context.Context, key cache.ObjectName) queue.Next {
	begin := time.Now()
	p, result := c.sync(klog.NewContext(ctx, klog.LoggerWithValues(c.logger, "mirror", key)), key)
	after, problems := c.memory.commit(p, result)
	if p.DropTombstone {
		c.local.DropTombstone(key)
	}
	if p.Replaced {
		c.local.Replaced(p.Live.Service)
	}
	c.options.Metrics.Synced(time.Since(begin), problems)
	c.problems.Set(key, problems, result.Stale)
	switch max(p.Requeue, result.Requeue) {
	case plan.RequeueWithDelay:
		return queue.Next{Retry: true}
	case plan.RequeueForeign:
		after = queue.Sooner(after, foreignPeriod)
	}
	return queue.Next{After: after}
}

// sync makes one mirror as it should be, whatever has happened before.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) (plan.Plan, write.Result) {
	p := c.memory.deletes.admit(c.options.Decide(c.snapshot(key)))
	return p, c.writer.Apply(ctx, p)
}

// snapshot is everything that is known of a key now.
func (c *Controller) snapshot(key cache.ObjectName) plan.Snapshot {
	s := c.observe(key)
	tombstone := s.Memory.Tombstone
	s.Memory = c.memory.recall(key)
	s.Memory.Tombstone = tombstone
	return s
}

// observe is the same without what a replica that leads remembers.
func (c *Controller) observe(key cache.ObjectName) plan.Snapshot { return c.observed(key, true) }

func (c *Controller) observed(key cache.ObjectName, follow bool) plan.Snapshot {
	if _, _, part := plan.PartOf(key); part {
		return c.observePart(key, follow)
	}
	s := plan.Snapshot{Key: key, Candidates: c.remotes.candidates(key)}
	s.Live = c.local.Live(key)
	s.Leftovers = c.local.Leftovers(key)
	s.Memory.Tombstone = c.local.Tombstone(key, s.Live)
	s.Families = c.local.Families()
	s.Namespace = c.local.Namespace(key.Namespace)
	owner, namespace := s.Live.Cluster(), s.Key.Namespace
	if source, recorded := s.Live.Source(); recorded {
		namespace = source.Namespace
		s.Origin, s.Successor = c.origin(s, source, follow)
	}
	s.Candidates = c.remotes.owner(s.Candidates, key, owner, namespace)
	if t := s.Memory.Tombstone; t != nil && t.Cluster != owner {
		s.Candidates = c.remotes.owner(s.Candidates, key, t.Cluster, key.Namespace)
	}
	c.observeMerged(&s)
	return s
}

// origin is what is known of the source of a live mirror, and the mirror that it has now, if it has another one.
func (c *Controller) origin(s plan.Snapshot, source cache.ObjectName, follow bool) (*plan.Origin, *plan.Successor) {
	cluster := s.Live.Cluster()
	key, known, mirrored := c.remotes.mirrorOf(cluster, source)
	origin := &plan.Origin{Source: source, Known: known}
	if !follow || !mirrored || key == s.Key || c.circular(s.Key, key, cluster, source) {
		return origin, nil
	}
	return origin, c.successor(key, cluster, source, len(s.Live.Endpointed()) > 0)
}

// circular tells that mirrors wait for each other's names, this one's among them.
func (c *Controller) circular(begin, key cache.ObjectName, cluster string, source cache.ObjectName) bool {
	for seen := map[cache.ObjectName]bool{}; !seen[key]; {
		seen[key] = true
		live := c.local.Live(key)
		holds, recorded := live.Source()
		if !recorded || live.Cluster() == cluster && holds == source {
			return false
		}
		cluster, source = live.Cluster(), holds
		next, _, mirrored := c.remotes.mirrorOf(cluster, source)
		if !mirrored {
			return false
		}
		if next == begin {
			return true
		}
		key = next
	}
	return false
}

// planned is what would be written for a key by a replica that remembers nothing.
func (c *Controller) planned(key cache.ObjectName) plan.Plan { return c.options.Decide(c.observe(key)) }
