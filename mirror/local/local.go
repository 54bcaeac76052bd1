// Package local knows the local cluster: what is live under a key, what this program wrote that the
// caches have not seen yet, what a mirror had before someone deleted or changed it, and the cluster's own
// addresses. It reads and never writes; what is made of it is decided elsewhere.
//
// local.go has the caches, events.go turns their events into keys, written.go is read-your-writes,
// tombstones.go what was lost, ranges.go the cluster's own addresses, failover.go the Services that fail over.
package local

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// The indexes over the caches.
const (
	byCluster = "cluster" // mirrors' Services, labelled Endpoints and slices, by the remote cluster that they name
	bySource  = "source"  // mirrors' Services that have another key than a template makes, by the exported Service that they record
	byLabel   = "label"   // Services with a mirror's labels, ours or not, by the remote cluster that they name
	byService = "service" // EndpointSlices, by the key of their Service
	byRange   = "range"   // by the CIDRs or addresses that an object has
)

// Options are what a Cluster needs.
type Options struct {
	Client   remote.Client
	Metadata metadata.Interface
	Logger   klog.Logger
	Hooks    Hooks
	// Names and Template are those with which the program starts: mirrors are indexed by them. Hooks.Naming has those of now.
	Names    plan.Names
	Template string
}

// naming is the rule by which a remote's mirrors are indexed.
func (o *Options) naming(cluster string) plan.Naming {
	if _, special := o.Names[cluster]; special {
		return o.Names.Of(cluster)
	}
	return plan.Naming{Cluster: cluster, Template: o.Template}
}

// Hooks are called when something in the local cluster has changed; never under a lock.
type Hooks struct {
	// Changed: objects under a key. cluster is the remote that the mirror is of; empty: not known.
	Changed func(cluster string, key cache.ObjectName)
	// Wanted tells whether any remote exports a Service whose mirror has the key.
	Wanted func(key cache.ObjectName) bool
	// Configured tells whether a remote has this name.
	Configured func(cluster string) bool
	// Naming says what the mirrors of a remote are called now; nil: what Options say.
	Naming func(cluster string) plan.Naming
	// NamespaceChanged: a namespace was created, deleted, or began to be.
	NamespaceChanged func(namespace string)
	// RangesChanged: the cluster's own addresses.
	RangesChanged func()
	// Interrupted: for a moment, Kubernetes made no EndpointSlices for the mirror.
	Interrupted func(key cache.ObjectName)
	// FailoverChanged: a Service that fails over, or did, or an EndpointSlice of ours beside it; nil: it is not called.
	FailoverChanged func(key cache.ObjectName)
	// Report is called with the state of a part of the caches; nil is healthy.
	Report func(part string, err error)
}

// Cluster is what is cached of the local cluster: all Services, our Endpoints and EndpointSlices, the
// namespaces, and the EndpointSlices that a selector left behind on a mirror.
type Cluster struct {
	hooks      Hooks
	indexed    func(cluster string) plan.Naming // by which bySource is
	services   *remote.Informer[*corev1.Service]
	endpoints  *remote.Informer[*corev1.Endpoints]
	slices     *remote.Informer[*discoveryv1.EndpointSlice]
	namespaces *remote.Informer[*metav1.PartialObjectMetadata]
	leftovers  *remote.Informer[*metav1.PartialObjectMetadata]

	ownServices  remote.Written[*corev1.Service]
	ownEndpoints remote.Written[*corev1.Endpoints]
	ownSlices    remote.Written[*discoveryv1.EndpointSlice]
	ownLeftovers remote.Written[*metav1.PartialObjectMetadata]

	ranges     *ranges
	tombstones tombstones
	families   atomic.Pointer[[]corev1.IPFamily] // of mirrors, learned from any of them
}

// endpointSliceController manages the EndpointSlices of Services with a selector.
const endpointSliceController = "endpointslice-controller.k8s.io"

// New makes the caches; Run fills them.
func New(options Options) *Cluster {
	const ours = plan.ManagedByLabel + "=" + plan.ManagedBy
	const ourSlices = ours + "," + discoveryv1.LabelManagedBy + "=" + plan.SliceManager
	// The EndpointSlice controller copies a Service's labels onto its slices.
	leftovers := ours + "," + discoveryv1.LabelManagedBy + "=" + endpointSliceController
	client, meta := options.Client, options.Metadata
	core, discovery := client.CoreV1(), discoveryv1.SchemeGroupVersion
	c := &Cluster{hooks: options.Hooks, indexed: options.naming}
	if c.hooks.Naming == nil {
		c.hooks.Naming = options.naming
	}
	report := options.Hooks.Report
	c.services = inform(source[*corev1.ServiceList]{client, core.Services(metav1.NamespaceAll), "", "services", report, &c.ownServices}, &corev1.Service{}, plan.TrimLocal)
	c.endpoints = inform(source[*corev1.EndpointsList]{client, core.Endpoints(metav1.NamespaceAll), ours, "endpoints", report, &c.ownEndpoints}, &corev1.Endpoints{}, plan.TrimEndpoints)
	c.slices = inform(source[*discoveryv1.EndpointSliceList]{client, client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll), ourSlices, "endpointslices", report, &c.ownSlices}, &discoveryv1.EndpointSlice{}, plan.TrimSlice)
	c.namespaces = inform(source[*metav1.PartialObjectMetadataList]{meta, meta.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")), "", "namespaces", report, nil}, &metav1.PartialObjectMetadata{}, plan.TrimMetadata)
	c.leftovers = inform(source[*metav1.PartialObjectMetadataList]{meta, meta.Resource(discovery.WithResource("endpointslices")), leftovers, "endpointslices' metadata", report, &c.ownLeftovers}, &metav1.PartialObjectMetadata{}, plan.TrimMetadata)
	c.services.Index(byCluster, func(svc *corev1.Service) []string {
		if cluster, ours := plan.Owner(svc); ours {
			c.learn(svc) // before the cache is synced
			return []string{cluster}
		}
		return nil
	})
	c.services.Index(bySource, func(svc *corev1.Service) (texts []string) {
		for _, of := range plan.MirrorOf(svc) {
			if c.indexed(of.Remote).KeyByTemplate(of.Source) != cache.MetaObjectToName(svc) {
				texts = append(texts, sourceText(of.Remote, of.Source))
			}
		}
		return texts
	})
	c.services.Index(byLabel, func(svc *corev1.Service) []string { return labelled(svc) })
	c.endpoints.Index(byCluster, func(endpoints *corev1.Endpoints) []string { return labelled(endpoints) })
	c.slices.Index(byCluster, func(slice *discoveryv1.EndpointSlice) []string { return labelled(slice) })
	c.indexParts()
	c.leftovers.Index(byService, func(slice *metav1.PartialObjectMetadata) []string { return []string{serviceOf(slice).String()} })
	c.indexFailover()
	c.ownServices.Informer, c.ownEndpoints.Informer = c.services, c.endpoints
	c.ownSlices.Informer, c.ownLeftovers.Informer = c.slices, c.leftovers
	c.ownServices.Again = func(svc *corev1.Service) { c.changed(svc) }
	c.ownEndpoints.Again = func(endpoints *corev1.Endpoints) { c.changed(endpoints) }
	c.ownSlices.Again = c.sliceChanged
	c.ownLeftovers.Again = c.leftoverChanged
	c.ranges = newRanges(options, c.services)
	c.handle()
	return c
}

// source is where an informer reads from.
type source[L runtime.Object] struct {
	client   any
	objects  remote.Lister[L]
	selector string
	part     string
	report   func(part string, err error)
	own      written // nil: nothing of it is written here
}

// written is what is remembered of our own writes.
type written interface {
	Reset()
	Listed(version string, keys map[string]bool)
}

func inform[T remote.Object, L runtime.Object](from source[L], example T, trim func(T) T) *remote.Informer[T] {
	lw := remote.NewListWatch(from.objects, func(options *metav1.ListOptions) { options.LabelSelector = from.selector })
	lw.Client = from.client
	lw.Report = func(err error) { from.report(from.part, err) }
	if from.own != nil {
		lw.Reset, lw.Listed = from.own.Reset, from.own.Listed
	}
	return remote.NewInformer(lw, example, trim)
}

func labelled(obj metav1.Object) []string {
	if cluster, ok := plan.Labelled(obj); ok {
		return []string{cluster}
	}
	return nil
}

// serviceOf is the key of the Service that an EndpointSlice belongs to.
func serviceOf(slice metav1.Object) cache.ObjectName {
	return cache.NewObjectName(slice.GetNamespace(), slice.GetLabels()[discoveryv1.LabelServiceName])
}

// Run fills the caches and keeps them filled until the context ends, when it returns; synced is called
// once all are known. What may not be read of the cluster's own addresses holds nothing up.
func (c *Cluster) Run(ctx context.Context, synced func()) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for _, informer := range []cache.SharedIndexInformer{c.services, c.endpoints, c.slices, c.namespaces, c.leftovers} {
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
	c.ranges.run(ctx, &wg)
	if c.Synced(ctx) && c.ranges.settled(ctx) {
		synced()
	}
}

// Synced waits until mirrors may be judged; false if the context ends first.
func (c *Cluster) Synced(ctx context.Context) bool {
	return cache.WaitFor(ctx, "", c.services.HasSyncedChecker(), c.endpoints.HasSyncedChecker(), c.slices.HasSyncedChecker(), c.namespaces.HasSyncedChecker())
}

// Live is what exists under a key, as far as this program can know: what the caches hold, or what it
// wrote itself and they have not seen yet.
func (c *Cluster) Live(key cache.ObjectName) plan.Objects {
	live := plan.Objects{
		Service: c.ownServices.Latest(key), Endpoints: c.ownEndpoints.Latest(key),
		IPv4: c.ownSlices.Latest(plan.IPv4Slice.ObjectName(key)), IPv6: c.ownSlices.Latest(plan.IPv6Slice.ObjectName(key)),
	}
	if svc := live.Service; svc != nil {
		c.learn(svc)
	}
	return live
}

// learn notes which IP families the cluster gives to mirrors.
func (c *Cluster) learn(svc *corev1.Service) {
	// One with fewer may have been edited, or be older than the cluster's second family.
	if _, ours := plan.Owner(svc); ours && len(svc.Spec.IPFamilies) > len(c.Families()) {
		c.families.Store(&svc.Spec.IPFamilies)
	}
}

// Families are the IP families that the cluster gives to mirrors; none: not known yet.
func (c *Cluster) Families() []corev1.IPFamily {
	if families := c.families.Load(); families != nil {
		return *families
	}
	return nil
}

// Leftovers are the EndpointSlices that a selector, once set on a mirror, left behind.
func (c *Cluster) Leftovers(key cache.ObjectName) (left []*metav1.PartialObjectMetadata) {
	for _, slice := range c.leftovers.ByIndex(byService, key.String()) {
		if c.ownLeftovers.Latest(cache.MetaObjectToName(slice)) != nil { // else deleted before
			left = append(left, slice)
		}
	}
	return left
}

// Namespace is the state of a namespace.
func (c *Cluster) Namespace(name string) plan.NamespaceState {
	switch namespace := c.namespaces.Get(cache.NewObjectName("", name)); {
	case namespace == nil:
		return plan.NamespaceAbsent
	case namespace.DeletionTimestamp != nil:
		return plan.NamespaceDeleting
	}
	return plan.NamespaceActive
}

// UID is the UID by which the cluster is known; empty if it has none.
func (c *Cluster) UID() types.UID {
	if namespace := c.namespaces.Get(cache.NewObjectName("", metav1.NamespaceSystem)); namespace != nil {
		return namespace.UID
	}
	return ""
}

// Keys are the keys of a remote's mirrors, and of what is left of them; some may occur twice.
func (c *Cluster) Keys(cluster string) []cache.ObjectName {
	var keys []cache.ObjectName
	for _, indexer := range []cache.Indexer{c.services.GetIndexer(), c.endpoints.GetIndexer()} {
		texts, _ := indexer.IndexKeys(byCluster, cluster)
		for _, text := range texts {
			if key, err := cache.ParseObjectName(text); err == nil {
				keys = append(keys, key)
			}
		}
	}
	for _, slice := range c.slices.ByIndex(byCluster, cluster) {
		if !forFailover(slice) {
			keys = append(keys, plan.SliceKey(slice))
		}
	}
	return keys
}

// Mirrors are the Services that are mirrors of a remote.
func (c *Cluster) Mirrors(cluster string) []*corev1.Service {
	return c.services.ByIndex(byCluster, cluster)
}

func sourceText(cluster string, source cache.ObjectName) string {
	return cluster + " " + source.String()
}

// Moving are the keys of the mirrors, and of the parts of merged ones, that record a remote's Service as their source, but do not have the key that the
// template makes for it: most often none.
func (c *Cluster) Moving(cluster string, source cache.ObjectName) (keys []cache.ObjectName) {
	now, indexed := c.hooks.Naming(cluster).KeyByTemplate(source), c.indexed(cluster).KeyByTemplate(source)
	add := func(key cache.ObjectName) {
		if plan.MirrorKey(key) != now {
			keys = append(keys, key)
		}
	}
	texts, _ := c.services.GetIndexer().IndexKeys(bySource, sourceText(cluster, source))
	for _, text := range texts {
		if key, err := cache.ParseObjectName(text); err == nil {
			add(key)
		}
	}
	for _, slice := range c.slices.ByIndex(bySource, sourceText(cluster, source)) {
		add(plan.SliceKey(slice))
	}
	if now != indexed { // the index has none with that key
		if slices.Contains(plan.MirrorOf(c.Live(indexed).Service), plan.Listed{Remote: cluster, Source: source}) {
			add(indexed)
		}
		part := plan.Part(indexed, cluster)
		if of, recorded := c.Live(part).PartSource(); recorded && of == source {
			add(part)
		}
	}
	return keys
}

// Clusters are the remotes that there are mirrors of.
func (c *Cluster) Clusters() []string {
	return c.services.GetIndexer().ListIndexFuncValues(byCluster)
}

// Unknown is how many objects carry a mirror's labels and name a remote that is not configured, by that remote.
// They are left from one that was, or someone else's.
func (c *Cluster) Unknown() map[string]int {
	counts := map[string]int{}
	count := func(indexer cache.Indexer, index string) {
		for _, cluster := range indexer.ListIndexFuncValues(index) {
			if c.hooks.Configured(cluster) {
				continue
			}
			if keys, err := indexer.IndexKeys(index, cluster); err == nil && len(keys) > 0 {
				counts[cluster] += len(keys)
			}
		}
	}
	count(c.services.GetIndexer(), byLabel)
	count(c.endpoints.GetIndexer(), byCluster)
	count(c.slices.GetIndexer(), byCluster)
	return counts
}

// Services is how many Services there are, foreign ones included.
func (c *Cluster) Services() int { return len(c.services.GetIndexer().ListKeys()) }
