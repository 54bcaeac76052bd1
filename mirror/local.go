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
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

// The indexes over the local caches.
const (
	byCluster = "cluster" // our objects, by the remote cluster they are of
	byService = "service" // EndpointSlices, by the key of their Service
)

// local is what is cached of the local cluster: all Services, our Endpoints, the
// namespaces, and the EndpointSlices that a selector left behind on a mirror.
type local struct {
	services   cache.TypedSharedIndexInformer[*corev1.Service]
	endpoints  cache.TypedSharedIndexInformer[*corev1.Endpoints]
	namespaces cache.TypedSharedIndexInformer[*metav1.PartialObjectMetadata]
	leftovers  cache.TypedSharedIndexInformer[*metav1.PartialObjectMetadata]

	ownServices  written[*corev1.Service]
	ownEndpoints written[*corev1.Endpoints]
	ownLeftovers written[*metav1.PartialObjectMetadata]
}

// lister is the part of a typed client that an informer needs.
type lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

func newLocal(client kubernetes.Interface, meta metadata.Interface, report func(part string, err error)) *local {
	const ours = ManagedByLabel + "=" + ManagedBy
	// The EndpointSlice controller copies a Service's labels onto its slices.
	leftovers := ours + "," + discoveryv1.LabelManagedBy + "=" + endpointSliceController
	l := &local{
		services:   remote.NewInformer(listWatch(client.CoreV1().Services(metav1.NamespaceAll), client, "", reporter(report, "services")), &corev1.Service{}, trimLocal),
		endpoints:  remote.NewInformer(listWatch(client.CoreV1().Endpoints(metav1.NamespaceAll), client, ours, reporter(report, "endpoints")), &corev1.Endpoints{}, trimEndpoints),
		namespaces: remote.NewInformer(listWatch(meta.Resource(corev1.SchemeGroupVersion.WithResource("namespaces")), meta, "", reporter(report, "namespaces")), &metav1.PartialObjectMetadata{}, trimMetadata),
		leftovers:  remote.NewInformer(listWatch(meta.Resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices")), meta, leftovers, reporter(report, "endpointslices")), &metav1.PartialObjectMetadata{}, trimMetadata),
	}
	addIndex(l.services, byCluster, func(svc *corev1.Service) ([]string, error) { return clusterOf(svc), nil })
	addIndex(l.endpoints, byCluster, func(endpoints *corev1.Endpoints) ([]string, error) { return clusterOf(endpoints), nil })
	addIndex(l.leftovers, byService, func(slice *metav1.PartialObjectMetadata) ([]string, error) {
		return []string{serviceOf(slice).String()}, nil
	})
	l.ownServices.informer = l.services
	l.ownEndpoints.informer = l.endpoints
	l.ownLeftovers.informer = l.leftovers
	return l
}

func listWatch[L runtime.Object](objects lister[L], client any, selector string, report func(error)) *remote.ListWatch {
	return &remote.ListWatch{
		ListFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			options.LabelSelector = selector
			return objects.List(ctx, options)
		},
		WatchFunc: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			options.LabelSelector = selector
			return objects.Watch(ctx, options)
		},
		Report: report,
		Client: client,
	}
}

func reporter(report func(string, error), part string) func(error) {
	return func(err error) { report(part, err) }
}

func addIndex[T cache.Object](informer cache.TypedSharedIndexInformer[T], name string, index cache.TypedIndexFunc[T]) {
	if err := informer.AddTypedIndexers(cache.TypedIndexers[T]{name: index}); err != nil {
		panic(err) // only once it has ended
	}
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
	for _, informer := range []cache.SharedIndexInformer{l.services, l.endpoints, l.namespaces, l.leftovers} {
		wg.Go(func() { informer.RunWithContext(ctx) })
	}
}

// synced waits until mirrors may be judged; false if the context ends first.
func (l *local) synced(ctx context.Context) bool {
	return cache.WaitFor(ctx, "", l.services.HasSyncedChecker(), l.endpoints.HasSyncedChecker(), l.namespaces.HasSyncedChecker())
}

// live is the mirror as it is, as far as this program can know: what the caches
// hold, or what we wrote ourselves and they have not seen yet.
func (l *local) live(key cache.ObjectName) Objects {
	return Objects{Service: l.ownServices.latest(key), Endpoints: l.ownEndpoints.latest(key)}
}

// namespace tells whether mirrors can be made in a namespace now.
func (l *local) namespace(name string) *Problem {
	switch ns := remote.Get(l.namespaces.GetTypedIndexer(), cache.NewObjectName("", name)); {
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
	if ns := remote.Get(l.namespaces.GetTypedIndexer(), cache.NewObjectName("", metav1.NamespaceSystem)); ns != nil {
		return ns.UID
	}
	return ""
}

// written remembers what we wrote until the cache has caught up with it. A sync
// that saw the state before our own write would write again, in vain.
type written[T interface {
	cache.Object
	metav1.Object
}] struct {
	informer cache.TypedSharedIndexInformer[T]
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
	obj := remote.Get(w.informer.GetTypedIndexer(), key)
	if uid, ok := w.deleted.Load(key); ok {
		if obj != none && obj.GetUID() == uid && obj.GetDeletionTimestamp() == nil {
			return none
		}
		w.deleted.CompareAndDelete(key, uid)
	}
	return obj
}
