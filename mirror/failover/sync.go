package failover

import (
	"context"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
)

// foreignPeriod is how long until a key is looked at again although nothing has changed: a foreign EndpointSlice that
// belongs to no Service that fails over is in no cache.
const foreignPeriod = 30 * time.Second

// work syncs a Service and reports what was found. It returns when it is synced again.
func (c *Controller) work(ctx context.Context, key cache.ObjectName) queue.Next {
	logger := klog.LoggerWithValues(c.options.Logger, "service", key)
	ctx = klog.NewContext(ctx, logger)
	now := time.Now()
	s := c.observe(key)
	c.memory.recall(&s, now)
	p := c.options.Policy().Decide(s)
	held, fight := c.memory.held(p, now)
	if held > 0 {
		p.Steps = nil
	}
	result := c.options.Writer.ApplyFailover(ctx, p)
	again := c.memory.commit(p, result, now)
	problems := slices.Concat(p.Problems, result.Problems, c.memory.lasting(key, result.Refused))
	if fight != nil {
		problems = append(problems, *fight)
	}
	c.problems.Set(key, problems, result.Stale)
	failed := func(remote string) bool { return slices.Contains(result.Failed, remote) }
	if was := serving(s.Live); was != p.Serving && held == 0 && !failed(was) && !failed(p.Serving) && p.State != "" {
		c.tell(logger, s.Service, was, p)
	}
	after := queue.Sooner(p.After, queue.Sooner(held, again))
	switch {
	case result.Retry:
		if after > 0 { // who serves must not wait for what cannot be written
			c.queue.AddAfter(key, after)
		}
		return queue.Next{Retry: true}
	case result.Foreign:
		after = queue.Sooner(after, foreignPeriod)
	}
	return queue.Next{After: after}
}

// tell logs that another one serves now than before, and has an Event say it.
func (c *Controller) tell(logger klog.Logger, svc *corev1.Service, was string, p plan.FailoverPlan) {
	switch {
	case was == "":
		logger.Info("Failed over: no local endpoint is ready", "remote", p.Serving)
		c.options.Events.OfService(svc, "FailedOver", "no local endpoint is ready: failed over to remote "+p.Serving)
	case p.Serving != "":
		logger.Info("Failed over to another remote", "remote", p.Serving, "before", was)
		c.options.Events.OfService(svc, "FailedOver", "failed over from remote "+was+" to remote "+p.Serving)
	case p.State == plan.FailoverLocal:
		logger.Info("Failed back: local endpoints are ready", "remote", was)
		c.options.Events.OfService(svc, "FailedBack", "local endpoints are ready: failed back from remote "+was)
	}
}

// serving is the remote that has a ready endpoint in these slices; empty: none has.
func serving(all []*discoveryv1.EndpointSlice) string {
	for _, slice := range all {
		for _, e := range slice.Endpoints {
			if e.Conditions.Ready == nil || *e.Conditions.Ready {
				of, _ := plan.RemoteSliceOf(slice)
				return of.Remote
			}
		}
	}
	return ""
}

// observe is everything that is known of a Service now, without what a replica that leads remembers. What the remotes
// say is read before what is live, which may come of it.
func (c *Controller) observe(key cache.ObjectName) plan.FailoverSnapshot {
	s := plan.FailoverSnapshot{Key: key, Service: c.options.Local.FailoverService(key), Foreign: map[string]bool{}}
	var names []string
	if s.Service != nil {
		names = plan.FailoverRemotes(s.Service)
	}
	for _, name := range names {
		s.Remotes = append(s.Remotes, c.options.Remote(name, key))
	}
	s.Live = c.options.Local.FailoverSlices(key, names)
	if s.Service == nil {
		return s
	}
	beside, known := c.watches.of(key)
	var own []*discoveryv1.EndpointSlice
	for _, slice := range beside {
		if of, ours := plan.RemoteSliceOf(slice); !ours || !of.Failover || of.Key != key {
			own = append(own, slice)
			s.Foreign[slice.Name] = true
		}
	}
	s.Local = plan.LocalEndpoints{Known: known, Ready: plan.LocallyReady(s.Service, own)}
	return s
}
