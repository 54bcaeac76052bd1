package mirror

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// verdict is what a sync found: what is wrong with the mirror, and whether to
// look at it again without being told of a change.
type verdict struct {
	problems []Problem
	soon     bool          // again, with back-off
	after    time.Duration // again, after so long; 0: not
}

// strangerPeriod is how often a name is tried that a stranger's lone Endpoints
// hold: those are in no cache.
const strangerPeriod = 30 * time.Second

// rejectedPeriod is how often the API server is asked again for what it has
// refused: the reason may be a policy of the local cluster.
const rejectedPeriod = 5 * time.Minute

func (v *verdict) add(p Problem) { v.problems = append(v.problems, p) }

// again has the mirror looked at after so long, if not earlier.
func (v *verdict) again(after time.Duration) {
	if v.after == 0 || after < v.after {
		v.after = after
	}
}

// work looks at a key and reports what was found.
func (c *Controller) work(ctx context.Context, key cache.ObjectName) {
	defer c.queue.Done(key)
	begin := time.Now()
	c.working.Store(key, begin)
	defer c.working.Delete(key)
	found := c.sync(klog.NewContext(ctx, klog.LoggerWithValues(c.logger, "mirror", key)), key)
	c.options.Metrics.synced(time.Since(begin), found)
	c.reports.set(key, found.problems)
	if found.soon {
		c.queue.AddRateLimited(key)
		return
	}
	c.queue.Forget(key)
	if found.after > 0 {
		c.queue.AddAfter(key, found.after)
	}
}

// sync makes one mirror right, whatever has happened before.
func (c *Controller) sync(ctx context.Context, key cache.ObjectName) verdict {
	found, j := c.decide(key)
	if j == nil {
		return found
	}
	if j.makeNamespace {
		if err := c.createNamespace(ctx, key.Namespace); err != nil {
			found.add(Problem{Reason: WriteFailed, Cluster: j.source.Cluster, Source: j.source.name(), Message: err.Error()})
			found.soon = true
			return found
		}
	}
	c.apply(ctx, &found, *j)
	if j.source != nil {
		c.removeLeftovers(ctx, &found, key, j.live.Service)
		c.remakeEndpoints(ctx, &found, *j)
	}
	return found
}

// The ways in which a stranger has a mirror's name.
const (
	serviceTaken   = "a Service of that name stands there that is not ours"
	endpointsTaken = "Endpoints of that name stand there that are not ours"
	sliceTaken     = "an EndpointSlice of the name that its own would have stands there and is not ours"
)

// decide tells what is to be written for a key, and what is wrong with it, from
// the caches alone. A nil job writes nothing.
func (c *Controller) decide(key cache.ObjectName) (found verdict, j *job) {
	claims := c.claims(key) // before live, which they may have led to
	live := c.local.live(key)
	for _, refusal := range claims.refusals {
		found.add(*refusal)
	}
	if live.Service != nil {
		if _, ours := Owner(live.Service); !ours {
			// A stranger's, or a mirror whose labels someone took off: the pair of
			// it, Endpoints included, is theirs.
			c.conflicts(&found, claims.sources, serviceTaken)
			c.addresses.Delete(key)
			c.doubts.clear(key)
			return found, c.removeLeftUnder(key)
		}
		c.leftUnder.Delete(key)
		// Now: that it was deleted may be told only after it has been seen.
		c.addresses.Store(key, addressOf(live.Service, time.Time{}))
		if families := live.Service.Spec.IPFamilies; len(families) > 0 {
			c.families.Store(&families)
		}
	}
	live, taken := withoutStrangers(live)
	if taken != "" && len(claims.sources) > 0 {
		c.conflicts(&found, claims.sources, taken)
		found.after = strangerPeriod
		return found, nil
	}
	if deleting(live) {
		return found, nil // its end brings the key back
	}
	source, keep := c.choose(&found, live, claims)
	switch {
	case keep:
	case source == nil:
		j = c.remove(key, live, claims)
	default:
		j = c.update(&found, key, live, *source)
	}
	return found, j
}

// removeLeftUnder takes away, as it was then, what createPair had to leave.
func (c *Controller) removeLeftUnder(key cache.ObjectName) *job {
	value, ok := c.leftUnder.Load(key)
	if !ok {
		return nil
	}
	left := value.(Objects)
	return &job{key: key, live: left, changes: Changes{Delete: left}}
}

// withoutStrangers is what is ours of what leads from a mirror to the gateway, and
// why the rest is not.
func withoutStrangers(live Objects) (own Objects, taken string) {
	own = live
	if live.Endpoints != nil {
		if _, ours := Owner(live.Endpoints); !ours {
			own.Endpoints, taken = nil, endpointsTaken
		}
	}
	for _, slice := range []**discoveryv1.EndpointSlice{&own.IPv4, &own.IPv6} {
		if *slice == nil {
			continue
		}
		if _, ours := Owner(*slice); !ours {
			*slice, taken = nil, cmp.Or(taken, sliceTaken)
		}
	}
	return own, taken
}

// remove takes away what is left of a mirror that is not wanted any more.
func (c *Controller) remove(key cache.ObjectName, live Objects, claims claims) *job {
	if value, ok := c.addresses.Load(key); ok {
		if cluster := value.(serviceAddress).cluster; c.remote(cluster) == nil || claims.knows(cluster) {
			c.addresses.Delete(key)
		}
	}
	c.holds.clear(key)
	c.doubts.clear(key)
	return &job{key: key, live: live, changes: Diff(live, Objects{})}
}

// update makes or changes a mirror.
func (c *Controller) update(found *verdict, key cache.ObjectName, live Objects, source Source) *job {
	missing := c.local.namespace(key.Namespace)
	makeNamespace := missing != nil && missing.Reason == NamespaceMissing && c.options.CreateNamespaces
	if missing != nil && !makeNamespace {
		missing.Cluster, missing.Source = source.Cluster, source.name()
		found.add(*missing)
		return nil
	}
	var families []corev1.IPFamily
	if known := c.families.Load(); known != nil {
		families = *known
	}
	desired, err := c.options.Desired(source, live, families)
	if err != nil {
		found.add(Problem{Reason: PortNotServed, Cluster: source.Cluster, Source: source.name(), Message: err.Error()})
	}
	if live.Service == nil {
		c.keepAddress(key, source.Cluster, desired.Service)
	}
	if held, wait := c.holds.standing(key, desired); held != nil {
		found.add(*held)
		found.after = wait
		return nil
	}
	return &job{key: key, source: &source, live: live, changes: Diff(live, desired), desired: desired, families: families, makeNamespace: makeNamespace}
}

// claims is what the remotes say of a key, all of it at one time: a remote that
// becomes known while a sync is under way must not look like one that exports
// nothing.
type claims struct {
	sources  []Source   // exported Services that make a mirror of this key, by remote
	refusals []*Problem // of those that are not mirrored
	known    []string   // the remotes whose exports are known
}

func (c claims) knows(cluster string) bool { return slices.Contains(c.known, cluster) }

func (c *Controller) claims(key cache.ObjectName) claims {
	var all claims
	for _, r := range c.remotes {
		view, ok := r.View()
		if !ok {
			continue
		}
		known := view.Knows(key.Namespace)
		if svc := view.Services.Get(exportedAs(r.Name(), key)); svc != nil {
			source := Source{Cluster: r.Name(), UID: view.UID, Service: svc, Holder: func(claim string) cache.ObjectName {
				return view.Services.Oldest(byClaim, claim)
			}}
			source.Gateway, source.NoGateway = view.Gateways.For(svc)
			if refusal := c.options.Refuse(source); refusal != nil {
				// Whether a port is reserved for it, the gateway would tell.
				known = known && (refusal.Reason != NoTCPPort || source.Gateway != nil)
				all.refusals = append(all.refusals, refusal)
			} else {
				all.sources = append(all.sources, source)
			}
		}
		if known {
			all.known = append(all.known, r.Name())
		}
	}
	return all
}

// choose picks the source of a mirror: that of the remote whose mirror stands
// there already, else the first by name. keep tells that the mirror must stay
// as it is; a nil source that it must go.
func (c *Controller) choose(found *verdict, live Objects, claims claims) (source *Source, keep bool) {
	owner, sources := ownerOf(live), claims.sources
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
	// Of a remote that is not in the flags any more, it is kept until it is pruned.
	return nil, !claims.knows(owner)
}

func (c *Controller) conflicts(found *verdict, sources []Source, why string) {
	for _, source := range sources {
		found.add(Problem{Reason: Conflict, Cluster: source.Cluster, Source: source.name(), Message: why})
	}
}

// ownerOf is the remote that live objects, all of them ours, are of. The
// Service counts before the Endpoints, and those before the slices.
func ownerOf(live Objects) string {
	var owner string
	switch {
	case live.Service != nil:
		owner, _ = Owner(live.Service)
	case live.Endpoints != nil:
		owner, _ = Owner(live.Endpoints)
	case live.IPv4 != nil:
		owner, _ = Owner(live.IPv4)
	case live.IPv6 != nil:
		owner, _ = Owner(live.IPv6)
	}
	return owner
}

func deleting(live Objects) bool {
	return live.Service != nil && live.Service.DeletionTimestamp != nil ||
		live.Endpoints != nil && live.Endpoints.DeletionTimestamp != nil ||
		live.IPv4 != nil && live.IPv4.DeletionTimestamp != nil ||
		live.IPv6 != nil && live.IPv6.DeletionTimestamp != nil
}

// serviceAddress is the ClusterIPs of a Service under a key that concerns us.
type serviceAddress struct {
	cluster    string // the remote whose mirror it is; empty: a stranger's
	clusterIPs []string
	families   []corev1.IPFamily
	gone       time.Time // when it was deleted; zero: it was not, as far as is known
}

func addressOf(svc *corev1.Service, gone time.Time) serviceAddress {
	cluster, _ := Owner(svc)
	return serviceAddress{cluster: cluster, clusterIPs: svc.Spec.ClusterIPs, families: svc.Spec.IPFamilies, gone: gone}
}

// freeing is how long the API server may take to let go of what a deleted
// Service had: its ClusterIP, and the Endpoints that the endpoints controller
// deletes after it.
const freeing = 3 * time.Second

// justFreed tells whether a Service went from under the key a moment ago.
func (c *Controller) justFreed(key cache.ObjectName) bool {
	value, ok := c.addresses.Load(key)
	return ok && time.Since(value.(serviceAddress).gone) < freeing
}

// keepAddress asks for the ClusterIPs that a mirror had before someone else
// deleted it: clients may have open connections to them.
func (c *Controller) keepAddress(key cache.ObjectName, cluster string, svc *corev1.Service) {
	value, ok := c.addresses.Load(key)
	if !ok {
		return
	}
	had := value.(serviceAddress)
	if had.gone.IsZero() {
		had.gone = time.Now()
		c.addresses.Store(key, had)
	}
	if had.cluster == cluster && len(had.clusterIPs) > 0 {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies = had.clusterIPs[0], had.clusterIPs, had.families
	}
}
