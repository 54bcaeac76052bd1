// Package mirror keeps, in the local cluster, a Service and an Endpoints object
// for every Service that a remote cluster exports. It knows names and
// ownership, what a mirror should look like, how that differs from what is
// live, and it makes the only writes of the program. It does not know how a
// remote is reached (package remote) or what a gateway is (package gateway).
//
// names.go, desired.go, diff.go and problem.go are pure. Everything else only
// decides when to look at a key again, and carries out what they say.
package mirror

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// Options are the operator's decisions.
type Options struct {
	Policy
	CreateNamespaces bool     // make a missing namespace instead of waiting for it
	Workers          int      // keys looked at in parallel
	Metrics          *Metrics // nil: nothing is counted
	Events           *Events  // nil: none are made
}

// Remote is what the controller sees of a remote cluster.
type Remote interface {
	Name() string
	// View is what is known of it; false where nothing may be concluded.
	View() (remote.View, bool)
	// Refilter looks at its gateways' addresses again.
	Refilter()
	// Status is how it fares.
	Status() remote.Status
}

// Controller mirrors the exported Services of remote clusters.
type Controller struct {
	options Options
	client  remote.Client // of one who leads
	local   *local
	ranges  *ranges
	remotes []Remote // sorted by name
	queue   *queue
	reports reports
	logger  klog.Logger

	families  atomic.Pointer[[]corev1.IPFamily] // of mirrors, learned from any of them
	keys      chan cache.ObjectName             // from the queue to one who leads
	leading   atomic.Bool
	ready     chan struct{} // closed when the local caches are filled
	working   sync.Map      // cache.ObjectName to time.Time: what is being worked on since when
	addresses sync.Map      // cache.ObjectName to serviceAddress: what Services under a key have or had
	leftUnder sync.Map      // cache.ObjectName to Objects: what we made under a stranger's Service and could not take away
	holds     holds
	doubts    doubts
	strangers *strangers
}

// How a remote's cache is indexed.
const (
	byNamespace = "namespace" // exported Services, by their namespace
	byClaim     = "claim"     // exported Services, by the gateway ports that they claim
)

// Clients are those of the local cluster. One who does not lead may read with
// the first two, and is refused by the third.
type Clients struct {
	Read     remote.Client
	Metadata metadata.Interface
	Write    remote.Client
}

// New makes a controller. Its remotes are added before it runs.
func New(clients Clients, options Options, logger klog.Logger) *Controller {
	c := &Controller{options: options, client: clients.Write, queue: newQueue(options.Metrics), keys: make(chan cache.ObjectName), ready: make(chan struct{}), holds: newHolds(), strangers: newStrangers(clients.Metadata), logger: logger}
	c.reports.logger, c.reports.events = logger, options.Events
	c.reports.service = func(key cache.ObjectName) *corev1.Service { return c.local.live(key).Service }
	c.local = newLocal(clients.Read, clients.Metadata, c.reports.local)
	c.ranges = newRanges(clients.Read, logger, c.reports.local, c.refilter)
	c.handleLocal()
	return c
}

// Add adds a remote cluster; no two may have one name.
func (c *Controller) Add(r Remote) {
	c.remotes = append(c.remotes, r)
	slices.SortFunc(c.remotes, func(a, b Remote) int { return strings.Compare(a.Name(), b.Name()) })
}

// Hooks is what a remote of this name must be given.
func (c *Controller) Hooks(cluster string) remote.Hooks {
	return remote.Hooks{
		Indexes:   indexes,
		Trim:      c.options.TrimExported,
		Changed:   c.exportChanged,
		Resync:    c.resync,
		Accept:    c.accept,
		OnProblem: c.options.Events.remote,
	}
}

// indexes are those over a remote's exported Services.
var indexes = map[string]func(*corev1.Service) []string{
	byNamespace: func(svc *corev1.Service) []string { return []string{svc.Namespace} },
	byClaim:     gateway.Claims,
}

// exportChanged enqueues the mirror of an exported Service, and of those that claim a
// gateway port which it had, or has now: they may have what they want, or must yield.
func (c *Controller) exportChanged(cluster string, before, after *corev1.Service) {
	self := cache.MetaObjectToName(cmp.Or(after, before))
	c.queue.add(cluster, KeyOf(cluster, self))
	had, has := claimsOf(before), claimsOf(after)
	if len(had)+len(has) == 0 {
		return
	}
	view, ok := c.remote(cluster).View()
	if !ok {
		return
	}
	if before != nil && after != nil && before.CreationTimestamp.Equal(&after.CreationTimestamp) {
		had, has = had.Difference(has), has.Difference(had)
	}
	for claim := range had.Union(has) {
		if !had.Has(claim) && view.Services.Oldest(byClaim, claim) != self {
			continue // whoever has it keeps it
		}
		for _, rival := range view.Services.NamesByIndex(byClaim, claim) {
			c.queue.add(cluster, KeyOf(cluster, rival))
		}
	}
}

// claimsOf are the gateway ports that an exported Service, or none, claims.
func claimsOf(exported *corev1.Service) sets.Set[string] {
	if exported == nil {
		return nil
	}
	return sets.New(gateway.Claims(exported)...)
}

// Run keeps the caches filled until the context ends. Only what leads writes.
func (c *Controller) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.queue.ShutDown()
	c.local.run(ctx, &wg)
	c.ranges.run(ctx, &wg)
	if !c.local.synced(ctx) || !c.ranges.settled(ctx) {
		return
	}
	c.logger.Info("Local caches are filled", "services", len(c.local.services.GetIndexer().ListKeys()))
	c.countOrphans()
	close(c.ready)
	wg.Go(func() {
		for {
			key, shutdown := c.queue.Get()
			if shutdown {
				return
			}
			select {
			case c.keys <- key: // to one who leads
			case <-ctx.Done():
				return
			}
		}
	})
	<-ctx.Done()
}

// Ready is closed when the local caches are filled.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Lead writes, until the context ends. A write under way is then finished, for
// which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	c.leading.Store(true)
	defer c.leading.Store(false)
	c.options.Events.lead(true)
	defer c.options.Events.lead(false)
	for _, r := range c.remotes { // of what came before
		for _, problem := range r.Status().Problems {
			c.options.Events.remote(r.Name(), problem)
		}
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	for range c.options.Workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case key := <-c.keys:
					c.work(working, key)
				}
			}
		})
	}
}

// maxSync is how long one sync may take before the controller counts as stuck.
const maxSync = 5 * time.Minute

// Stuck names a mirror whose sync does not end. That an API server is down is
// not such a thing: its requests fail in time.
func (c *Controller) Stuck() error {
	var stuck error
	c.working.Range(func(key, begin any) bool {
		if took := time.Since(begin.(time.Time)); took > maxSync {
			stuck = fmt.Errorf("the sync of mirror %v has not ended for %v", key, took.Round(time.Second))
		}
		return stuck == nil
	})
	return stuck
}

// countOrphans says what is left of remotes that the flags no longer name.
func (c *Controller) countOrphans() {
	for _, cluster := range slices.Sorted(slices.Values(c.local.services.GetIndexer().ListIndexFuncValues(byCluster))) {
		if c.remote(cluster) == nil {
			keys, _ := c.local.services.GetIndexer().IndexKeys(byCluster, cluster)
			c.logger.Info("Mirrors of a remote that the flags do not name stay as they are", "cluster", cluster, "mirrors", len(keys))
		}
	}
}

func (c *Controller) remote(name string) Remote {
	for _, r := range c.remotes {
		if r.Name() == name {
			return r
		}
	}
	return nil
}

// LocalRanges are the local cluster's own addresses, as far as they are known.
func (c *Controller) LocalRanges() []gateway.Range { return c.ranges.all() }

func (c *Controller) refilter() {
	for _, r := range c.remotes {
		r.Refilter()
	}
}

// handleLocal turns what happens in the local cluster into keys.
func (c *Controller) handleLocal() {
	c.local.services.Handle(remote.Handler[*corev1.Service]{
		Added: func(svc *corev1.Service) { c.localChanged(svc) },
		Updated: func(before, svc *corev1.Service) {
			if _, was := Owner(before); was || len(clusterOf(svc)) > 0 {
				if before.UID != svc.UID || len(before.Spec.Selector) > 0 && len(svc.Spec.Selector) == 0 {
					c.doubts.raise(cache.MetaObjectToName(svc))
				}
				c.localChanged(svc)
			}
		},
		Deleted: func(key cache.ObjectName, last *corev1.Service) {
			if last != nil && c.concerns(last) {
				c.addresses.Store(key, addressOf(last, time.Now()))
				c.doubts.raise(key)
			}
			c.queue.Add(key)
		},
	})
	c.local.endpoints.Handle(remote.Handler[*corev1.Endpoints]{
		Added: func(endpoints *corev1.Endpoints) { c.localChanged(endpoints) },
		Updated: func(before, endpoints *corev1.Endpoints) {
			if before.UID != endpoints.UID || !isMirrored(before) && isMirrored(endpoints) {
				c.doubts.raise(cache.MetaObjectToName(endpoints))
			}
			c.localChanged(endpoints)
		},
		Deleted: func(key cache.ObjectName, _ *corev1.Endpoints) {
			c.doubts.raise(key)
			c.queue.Add(key)
		},
	})
	c.local.slices.Handle(remote.Handler[*discoveryv1.EndpointSlice]{
		Added:   func(slice *discoveryv1.EndpointSlice) { c.sliceChanged(slice) },
		Updated: func(_, slice *discoveryv1.EndpointSlice) { c.sliceChanged(slice) },
		Deleted: func(name cache.ObjectName, _ *discoveryv1.EndpointSlice) { c.queue.Add(sliceKey(name)) },
	})
	c.local.namespaces.Handle(remote.Handler[*metav1.PartialObjectMetadata]{
		Added: func(ns *metav1.PartialObjectMetadata) { c.namespaceChanged(ns.Name) },
		Updated: func(before, ns *metav1.PartialObjectMetadata) {
			if before.UID != ns.UID || (before.DeletionTimestamp == nil) != (ns.DeletionTimestamp == nil) {
				c.namespaceChanged(ns.Name)
			}
		},
		Deleted: func(name cache.ObjectName, _ *metav1.PartialObjectMetadata) { c.namespaceChanged(name.Name) },
	})
	leftover := func(slice *metav1.PartialObjectMetadata) {
		c.queue.add(slice.Labels[ClusterLabel], serviceOf(slice))
	}
	c.local.leftovers.Handle(remote.Handler[*metav1.PartialObjectMetadata]{
		Added:   leftover,
		Updated: func(_, slice *metav1.PartialObjectMetadata) { leftover(slice) },
		Deleted: func(name cache.ObjectName, _ *metav1.PartialObjectMetadata) {
			c.local.ownLeftovers.latest(name) // forgets that it was deleted
		},
	})
}

func (c *Controller) localChanged(obj metav1.Object) {
	if c.concerns(obj) {
		cluster, _ := Owner(obj)
		c.queue.add(cluster, cache.MetaObjectToName(obj))
	}
}

func (c *Controller) sliceChanged(slice *discoveryv1.EndpointSlice) {
	cluster, _ := Owner(slice)
	c.queue.add(cluster, sliceKey(cache.MetaObjectToName(slice)))
}

// concerns tells whether a local object is ours, or has a name that an exported
// Service wants.
func (c *Controller) concerns(obj metav1.Object) bool {
	if _, ours := Owner(obj); ours {
		return true
	}
	claims := c.claims(cache.MetaObjectToName(obj))
	return len(claims.sources)+len(claims.refusals) > 0
}

func (c *Controller) namespaceChanged(namespace string) {
	for _, r := range c.remotes {
		view, ok := r.View()
		if !ok {
			continue // all of its keys are enqueued when it syncs
		}
		for _, name := range view.Services.NamesByIndex(byNamespace, namespace) {
			c.queue.add(r.Name(), KeyOf(r.Name(), name))
		}
	}
}

// resync enqueues all keys of a remote.
func (c *Controller) resync(cluster string) {
	for _, key := range c.keysOf(cluster) {
		c.queue.add(cluster, key)
	}
}

// keysOf are all keys of a remote, some of them twice: those that it exports, and
// those that stand in its name.
func (c *Controller) keysOf(cluster string) []cache.ObjectName {
	var keys []cache.ObjectName
	if r := c.remote(cluster); r != nil {
		if view, ok := r.View(); ok {
			for _, name := range view.Services.Names() {
				keys = append(keys, KeyOf(cluster, name))
			}
		}
	}
	for _, indexer := range []cache.Indexer{c.local.services.GetIndexer(), c.local.endpoints.GetIndexer()} {
		texts, _ := indexer.IndexKeys(byCluster, cluster)
		for _, text := range texts {
			if key, err := cache.ParseObjectName(text); err == nil {
				keys = append(keys, key)
			}
		}
	}
	for _, slice := range c.local.slices.ByIndex(byCluster, cluster) {
		keys = append(keys, sliceKey(cache.MetaObjectToName(slice)))
	}
	return keys
}

// accept tells whether a cluster is the one whose mirrors stand here under the
// name of a remote (its UID is on them), or is named by the flags. Where its UID
// may not be read, it is taken for the right one unless mirrors say that it was
// readable: such a change is most often another cluster, and its list of exports
// would delete them.
func (c *Controller) accept(ctx context.Context, spec remote.Spec, uid types.UID) error {
	if !c.local.synced(ctx) {
		return ctx.Err()
	}
	if uid != "" && uid == c.local.uid() {
		return errors.New("its kubeconfig leads to the local cluster itself: nothing is mirrored from it")
	}
	if spec.UID != "" {
		if uid != "" && uid != spec.UID {
			return fmt.Errorf("its kubeconfig leads to the cluster with UID %s, but the flags expect uid=%s: nothing is done for it", uid, spec.UID)
		}
		return nil
	}
	mirrors := c.local.services.ByIndex(byCluster, spec.Name)
	var other string
	for _, mirror := range mirrors {
		switch known := mirror.Annotations[ClusterUIDAnnotation]; {
		case known == "":
		case known == string(uid):
			return nil
		default:
			other = known
		}
	}
	switch {
	case other == "":
		return nil
	case uid == "":
		return fmt.Errorf("its kubeconfig may lead to another cluster than the one with UID %s, which its mirrors are of: nothing is done for it; "+
			"allow it to get namespace kube-system, or vouch for it with uid=%s in --remote %s", other, other, spec.Name)
	default:
		return fmt.Errorf("its kubeconfig leads to the cluster with UID %s, but its mirrors are of the one with UID %s: "+
			"nothing is done for it; if the other cluster is meant, add uid=%s to --remote %s", uid, other, uid, spec.Name)
	}
}
