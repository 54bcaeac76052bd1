package mirror

import (
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// verdict is what a sync found: what is wrong with the mirror, and whether to
// look at it again without being told of a change.
type verdict struct {
	problems []Problem
	retry    retry
}

type retry int

const (
	settled retry = iota // only a change brings the key back
	soon                 // with back-off
	later                // a change would not be seen: every strangerPeriod
	rarely               // nor that: every rejectedPeriod
)

// strangerPeriod is how often a name is tried that a stranger's lone Endpoints
// hold: those are in no cache.
const strangerPeriod = 30 * time.Second

// rejectedPeriod is how often the API server is asked again for what it has
// refused: the reason may be a policy of the local cluster.
const rejectedPeriod = 5 * time.Minute

func (v *verdict) add(p Problem) { v.problems = append(v.problems, p) }

// work looks at the next key; false when there will be no more.
func (c *Controller) work(ctx context.Context) bool {
	key, shutdown := c.queue.Get()
	if shutdown {
		return false
	}
	defer c.queue.Done(key)
	if wait := c.contest.remaining(key); wait > 0 {
		c.queue.AddAfter(key, wait)
		return true
	}
	found := c.sync(klog.NewContext(ctx, klog.LoggerWithValues(c.logger, "mirror", key)), key)
	c.reports.set(key, found.problems)
	overwritten := slices.ContainsFunc(found.problems, func(p Problem) bool { return p.Reason == Overwritten })
	c.contest.settle(key, overwritten)
	if overwritten {
		found.retry = soon
	}
	switch found.retry {
	case soon:
		c.queue.AddRateLimited(key)
		return true
	case later:
		c.queue.AddAfter(key, strangerPeriod)
	case rarely:
		c.queue.AddAfter(key, rejectedPeriod)
	}
	c.queue.Forget(key)
	return true
}

// The two ways in which a stranger has a mirror's name.
const (
	serviceTaken   = "a Service of that name stands there that is not ours"
	endpointsTaken = "Endpoints of that name stand there that are not ours"
)

// sync makes one mirror right, whatever has happened before.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) verdict {
	live := c.local.live(key)
	sources, refusals := c.sources(key)
	var found verdict
	for _, refusal := range refusals {
		found.add(*refusal)
	}
	if live.Service != nil {
		if _, ours := Owner(live.Service); !ours {
			// A stranger's, or a mirror whose labels someone took off: the pair of
			// it, Endpoints included, is theirs.
			c.conflicts(&found, sources, serviceTaken)
			c.lost.Delete(key)
			return found
		}
		if families := live.Service.Spec.IPFamilies; len(families) > 0 {
			c.families.Store(&families)
		}
		c.lost.Delete(key)
	}
	if live.Endpoints != nil {
		if _, ours := Owner(live.Endpoints); !ours {
			c.conflicts(&found, sources, endpointsTaken)
			found.retry = later
			return found
		}
	}
	if deleting(live) {
		return found // its end brings the key back
	}
	source, keep := c.choose(&found, live, sources)
	if keep {
		return found
	}
	if source == nil {
		c.forget(key)
		c.rejected.forget(key)
		c.apply(ctx, &found, job{key: key, live: live, changes: Diff(live, Objects{})})
		return found
	}
	if problem := c.ensureNamespace(ctx, key.Namespace); problem != nil {
		problem.Cluster, problem.Source = source.Cluster, source.name()
		found.add(*problem)
		if problem.Reason == WriteFailed {
			found.retry = soon
		}
		return found
	}
	var families []corev1.IPFamily
	if known := c.families.Load(); known != nil {
		families = *known
	}
	desired, err := c.options.Desired(*source, live, families)
	if err != nil {
		found.add(Problem{Reason: PortNotServed, Cluster: source.Cluster, Source: source.name(), Message: err.Error()})
	}
	if live.Service == nil {
		c.keepAddress(key, source.Cluster, desired.Service)
	}
	if rejection := c.rejected.standing(key, desired); rejection != nil {
		found.add(*rejection)
		return found
	}
	c.apply(ctx, &found, job{key: key, source: source, live: live, changes: Diff(live, desired), desired: desired, families: families})
	c.removeLeftovers(ctx, &found, key, live.Service)
	return found
}

// sources are the exported Services that make a mirror of this key, and the
// refusals of those that are not mirrored, by remote.
func (c *Controller) sources(key cache.ObjectName) (sources []Source, refusals []*Problem) {
	for _, r := range c.remotes {
		view, ok := r.View()
		if !ok {
			continue
		}
		exported, _ := view.Services.ByTypedIndex(byMirror, key.String())
		for _, svc := range exported {
			source := Source{Cluster: r.Name(), UID: view.UID, Service: svc, Gateway: view.Gateway}
			if refusal := c.options.Refuse(source); refusal != nil {
				refusals = append(refusals, refusal)
			} else {
				sources = append(sources, source)
			}
		}
	}
	return sources, refusals
}

// choose picks the source of a mirror: that of the remote whose mirror stands
// there already, else the first by name. keep tells that the mirror must stay
// as it is; a nil source that it must go.
func (c *Controller) choose(found *verdict, live Objects, sources []Source) (source *Source, keep bool) {
	owner := ownerOf(live)
	if owner == "" {
		if len(sources) == 0 {
			return nil, false
		}
		owner = sources[0].Cluster
	}
	if i := slices.IndexFunc(sources, func(s Source) bool { return s.Cluster == owner }); i >= 0 {
		source = &sources[i]
		sources = slices.Delete(slices.Clone(sources), i, i+1)
	}
	c.conflicts(found, sources, fmt.Sprintf("the mirror of remote %s has that name", owner))
	if source != nil {
		return source, false
	}
	r := c.remote(owner)
	if r == nil {
		return nil, true // no longer in the flags: kept until it is pruned
	}
	_, known := r.View()
	return nil, !known
}

func (c *Controller) conflicts(found *verdict, sources []Source, why string) {
	for _, source := range sources {
		found.add(Problem{Reason: Conflict, Cluster: source.Cluster, Source: source.name(), Message: why})
	}
}

// ownerOf is the remote that live objects, all of them ours, are of. The
// Service counts before the Endpoints.
func ownerOf(live Objects) string {
	var owner string
	if live.Service != nil {
		owner, _ = Owner(live.Service)
	} else if live.Endpoints != nil {
		owner, _ = Owner(live.Endpoints)
	}
	return owner
}

func deleting(live Objects) bool {
	return live.Service != nil && live.Service.DeletionTimestamp != nil ||
		live.Endpoints != nil && live.Endpoints.DeletionTimestamp != nil
}

// departed is a Service that was deleted from under a key that is still wanted.
type departed struct {
	cluster    string // the remote whose mirror it was; empty: a stranger's
	clusterIPs []string
	families   []corev1.IPFamily
	at         time.Time
}

// freeing is how long the API server may take to let go of what a deleted
// Service had: its ClusterIP, and the Endpoints that the endpoints controller
// deletes after it.
const freeing = 3 * time.Second

func leaving(svc *corev1.Service) departed {
	cluster, _ := Owner(svc)
	return departed{cluster: cluster, clusterIPs: svc.Spec.ClusterIPs, families: svc.Spec.IPFamilies, at: time.Now()}
}

// forget drops what was remembered of a departed Service, unless its remote is
// not known well enough to say that it is not wanted any more.
func (c *Controller) forget(key cache.ObjectName) {
	if value, ok := c.lost.Load(key); ok {
		if r := c.remote(value.(departed).cluster); r != nil {
			if _, known := r.View(); !known {
				return
			}
		}
		c.lost.Delete(key)
	}
}

// justFreed tells whether a Service went from under the key a moment ago.
func (c *Controller) justFreed(key cache.ObjectName) bool {
	value, ok := c.lost.Load(key)
	return ok && time.Since(value.(departed).at) < freeing
}

// keepAddress asks for the ClusterIPs that a mirror had before someone else
// deleted it: clients may have open connections to them.
func (c *Controller) keepAddress(key cache.ObjectName, cluster string, svc *corev1.Service) {
	value, ok := c.lost.Load(key)
	if !ok {
		return
	}
	if had := value.(departed); had.cluster == cluster && len(had.clusterIPs) > 0 {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies = had.clusterIPs[0], had.clusterIPs, had.families
	}
}
