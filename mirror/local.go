package mirror

import (
	"context"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

// The indexes over the local caches.
const (
	byCluster = "cluster" // our objects, by the remote cluster they are of
	byService = "service" // EndpointSlices, by the key of their Service
)

// local is what is cached of the local cluster: all Services, our Endpoints and
// EndpointSlices, the namespaces, and the EndpointSlices that a selector left
// behind on a mirror.
type local struct {
	services   *remote.Informer[*corev1.Service]
	endpoints  *remote.Informer[*corev1.Endpoints]
	slices     *remote.Informer[*discoveryv1.EndpointSlice]
	namespaces *remote.Informer[*metav1.PartialObjectMetadata]
	leftovers  *remote.Informer[*metav1.PartialObjectMetadata]

	ownServices  written[*corev1.Service]
	ownEndpoints written[*corev1.Endpoints]
	ownSlices    written[*discoveryv1.EndpointSlice]
	ownLeftovers written[*metav1.PartialObjectMetadata]
}

func newLocal(client remote.Client, meta metadata.Interface, report func(part string, err error)) *local {
	const ours = ManagedByLabel + "=" + ManagedBy
	const ourSlices = ours + "," + discoveryv1.LabelManagedBy + "=" + sliceManager
	// The EndpointSlice controller copies a Service's labels onto its slices.
	leftovers := ours + "," + discoveryv1.LabelManagedBy + "=" + endpointSliceController
	core, discovery := client.CoreV1(), discoveryv1.SchemeGroupVersion
	l := &local{
		services:   inform(client, core.Services(metav1.NamespaceAll), "", &corev1.Service{}, trimLocal, reporter(report, "services")),
		endpoints:  inform(client, core.Endpoints(metav1.NamespaceAll), ours, &corev1.Endpoints{}, trimEndpoints, reporter(report, "endpoints")),
		slices:     inform(client, client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll), ourSlices, &discoveryv1.EndpointSlice{}, trimSlice, reporter(report, "endpointslices")),
		namespaces: inform(meta, meta.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")), "", &metav1.PartialObjectMetadata{}, trimMetadata, reporter(report, "namespaces")),
		leftovers:  inform(meta, meta.Resource(discovery.WithResource("endpointslices")), leftovers, &metav1.PartialObjectMetadata{}, trimMetadata, reporter(report, "endpointslices' metadata")),
	}
	l.services.Index(byCluster, func(svc *corev1.Service) []string { return clusterOf(svc) })
	l.endpoints.Index(byCluster, func(endpoints *corev1.Endpoints) []string { return clusterOf(endpoints) })
	l.slices.Index(byCluster, func(slice *discoveryv1.EndpointSlice) []string { return clusterOf(slice) })
	l.leftovers.Index(byService, func(slice *metav1.PartialObjectMetadata) []string { return []string{serviceOf(slice).String()} })
	l.ownServices.informer = l.services
	l.ownEndpoints.informer = l.endpoints
	l.ownSlices.informer = l.slices
	l.ownLeftovers.informer = l.leftovers
	return l
}

// inform makes an informer of what a client lists under a selector. report is told
// how the part named fares.
func inform[T remote.Object, L runtime.Object](client any, objects remote.Lister[L], selector string, example T, trim func(T) T, report func(error)) *remote.Informer[T] {
	lw := remote.NewListWatch(objects, func(options *metav1.ListOptions) { options.LabelSelector = selector })
	lw.Report, lw.Client = report, client
	return remote.NewInformer(lw, example, trim)
}

func reporter(report func(string, error), part string) func(error) {
	return func(err error) { report(part, err) }
}

func clusterOf(obj metav1.Object) []string {
	if cluster, ours := Owner(obj); ours {
		return []string{cluster}
	}
	return nil
}

// serviceOf is the key of the Service that an EndpointSlice belongs to.
func serviceOf(slice metav1.Object) cache.ObjectName {
	return cache.NewObjectName(slice.GetNamespace(), slice.GetLabels()[discoveryv1.LabelServiceName])
}

// run fills the caches and keeps them filled until the context ends.
func (l *local) run(ctx context.Context, wg *sync.WaitGroup) {
	for _, informer := range []cache.SharedIndexInformer{l.services, l.endpoints, l.slices, l.namespaces, l.leftovers} {
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
}

// synced waits until mirrors may be judged; false if the context ends first.
func (l *local) synced(ctx context.Context) bool {
	return cache.WaitFor(ctx, "", l.services.HasSyncedChecker(), l.endpoints.HasSyncedChecker(), l.slices.HasSyncedChecker(), l.namespaces.HasSyncedChecker())
}

// live is the mirror as it is, as far as this program can know: what the caches
// hold, or what we wrote ourselves and they have not seen yet.
func (l *local) live(key cache.ObjectName) Objects {
	slice := func(family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
		return l.ownSlices.latest(cache.NewObjectName(key.Namespace, sliceName(key, family)))
	}
	return Objects{
		Service: l.ownServices.latest(key), Endpoints: l.ownEndpoints.latest(key),
		IPv4: slice(discoveryv1.AddressTypeIPv4), IPv6: slice(discoveryv1.AddressTypeIPv6),
	}
}

// namespace tells whether mirrors can be made in a namespace now.
func (l *local) namespace(name string) *Problem {
	switch ns := l.namespaces.Get(cache.NewObjectName("", name)); {
	case ns == nil:
		return &Problem{Reason: NamespaceMissing, Message: "namespace " + name + " does not exist in the local cluster"}
	case ns.DeletionTimestamp != nil:
		return &Problem{Reason: NamespaceTerminating, Message: "namespace " + name + " is being deleted"}
	default:
		return nil
	}
}

// uid is the UID by which the local cluster is known; empty if it has none.
func (l *local) uid() types.UID {
	if ns := l.namespaces.Get(cache.NewObjectName("", metav1.NamespaceSystem)); ns != nil {
		return ns.UID
	}
	return ""
}

// written remembers what we wrote until the cache has caught up with it. A sync
// that saw the state before our own write would write again, in vain.
type written[T remote.Object] struct {
	informer *remote.Informer[T]
	objects  sync.Map // cache.ObjectName to T: made or changed
	deleted  sync.Map // cache.ObjectName to types.UID
}

func (w *written[T]) add(obj T) {
	w.objects.Store(cache.MetaObjectToName(obj), obj)
}

func (w *written[T]) delete(obj T) {
	w.deleted.Store(cache.MetaObjectToName(obj), obj.GetUID())
	w.objects.Delete(cache.MetaObjectToName(obj))
}

// latest is what stands under a key now; the zero T if nothing does.
func (w *written[T]) latest(key cache.ObjectName) T {
	var none T
	if own, ok := w.objects.Load(key); ok {
		obj := own.(T)
		// resourceVersions of one resource can be compared (KEP-5504). From the
		// one that we wrote on the cache knows better, an absence included.
		seen := w.informer.GetIndexer().LastStoreSyncResourceVersion()
		if order, err := resourceversion.CompareResourceVersion(seen, obj.GetResourceVersion()); err == nil && order < 0 {
			return obj
		}
		w.objects.CompareAndDelete(key, own)
	}
	obj := w.informer.Get(key)
	if uid, ok := w.deleted.Load(key); ok {
		if obj != none && obj.GetUID() == uid && obj.GetDeletionTimestamp() == nil {
			return none
		}
		w.deleted.CompareAndDelete(key, uid)
	}
	return obj
}
