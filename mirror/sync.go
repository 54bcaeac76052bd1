package mirror

import (
	"context"
	"maps"
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
	refused := c.refused(key)
	after, problems := c.memory.commit(p, result)
	if !maps.Equal(refused, c.refused(key)) { // another remote may have to serve
		c.enqueue(p.Cluster, key)
	}
	if p.DropTombstone {
		c.local.DropTombstone(key)
	}
	if p.Replaced {
		c.local.Replaced(p.Live.Service)
	}
	c.options.Metrics.Synced(time.Since(begin), problems)
	c.problems.Set(key, problems, result.Stale)
	c.enqueueMoving(p)
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
	p := c.memory.deletes.admit(decided(c.remotes, func() plan.Plan { return c.remotes.policy().Decide(c.snapshot(key)) }))
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

// observed is the same; follow has the successor of a mirror whose source moves looked at, too.
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
		s.Origin = c.origin(s, source, follow)
	}
	s.Candidates = c.remotes.owner(s.Candidates, key, owner, namespace)
	if t := s.Memory.Tombstone; t != nil && t.Cluster != owner {
		s.Candidates = c.remotes.owner(s.Candidates, key, t.Cluster, key.Namespace)
	}
	c.observeMerged(&s)
	return s
}

// planned is what would be written for a key by a replica that remembers nothing.
func (c *Controller) planned(key cache.ObjectName) plan.Plan {
	return decided(c.remotes, func() plan.Plan { return c.remotes.policy().Decide(c.observe(key)) })
}
