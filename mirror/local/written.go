package local

import (
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Wrote notes an object as the API server answered a write of it. It is trimmed in place as the caches
// trim theirs, and returned.
func (c *Cluster) Wrote(obj metav1.Object) metav1.Object {
	switch obj := obj.(type) {
	case *corev1.Service:
		svc := plan.TrimLocal(obj)
		c.ownServices.add(svc)
		c.tombstones.seen(svc)
		c.learn(svc)
		return svc
	case *corev1.Endpoints:
		c.ownEndpoints.add(plan.TrimEndpoints(obj))
	case *discoveryv1.EndpointSlice:
		c.ownSlices.add(plan.TrimSlice(obj))
	}
	return obj
}

// Deleted notes an object that was deleted here.
func (c *Cluster) Deleted(obj metav1.Object) {
	switch obj := obj.(type) {
	case *corev1.Service:
		c.ownServices.delete(obj)
	case *corev1.Endpoints:
		c.tombstones.deletedHere(cache.MetaObjectToName(obj), plan.Endpoints, obj.UID)
		c.ownEndpoints.delete(obj)
	case *discoveryv1.EndpointSlice:
		key := plan.SliceKey(obj)
		for _, kind := range plan.SliceKinds {
			if kind.ObjectName(key).Name == obj.Name {
				c.tombstones.deletedHere(key, kind, obj.UID)
			}
		}
		c.ownSlices.delete(obj)
	case *metav1.PartialObjectMetadata:
		c.ownLeftovers.delete(obj)
	}
}

// written remembers what was written until the cache has caught up with it. A sync that saw the state
// before our own write would write again, in vain.
type written[T remote.Object] struct {
	informer *remote.Informer[T]
	objects  sync.Map // cache.ObjectName to T: created or changed
	deleted  sync.Map // cache.ObjectName to types.UID
	again    func(T)  // has the key of an object looked at again
}

// maxLag is how long a cache may take to see a deletion. An object that is there after that is there again:
// the cluster was restored from a backup.
const maxLag = 15 * time.Second

func (w *written[T]) add(obj T) {
	w.objects.Store(cache.MetaObjectToName(obj), obj)
	w.informer.Wrote(obj.GetResourceVersion())
}

func (w *written[T]) delete(obj T) {
	key, uid := cache.MetaObjectToName(obj), obj.GetUID()
	w.deleted.Store(key, uid)
	w.objects.Delete(key)
	time.AfterFunc(maxLag, func() {
		var none T
		if now := w.informer.Get(key); w.deleted.CompareAndDelete(key, uid) && now != none && now.GetUID() == uid {
			w.again(now)
		}
	})
}

// reset forgets everything: resourceVersions are no longer comparable with those of before. What was written
// may be lost, and what was deleted may exist.
func (w *written[T]) reset() {
	w.objects.Range(func(key, own any) bool {
		w.objects.Delete(key)
		w.again(own.(T))
		return true
	})
	w.deleted.Range(func(key, _ any) bool {
		w.deleted.Delete(key)
		var none T
		if now := w.informer.Get(key.(cache.ObjectName)); now != none {
			w.again(now)
		}
		return true
	})
}

// latest is what exists under a key now; the zero T if nothing does.
func (w *written[T]) latest(key cache.ObjectName) T {
	var none T
	if own, ok := w.objects.Load(key); ok {
		obj := own.(T)
		// resourceVersions of one resource can be compared (KEP-5504). From the one that we wrote
		// on, the cache knows better, an absence included.
		seen := w.informer.GetIndexer().LastStoreSyncResourceVersion()
		if order, err := resourceversion.CompareResourceVersion(seen, obj.GetResourceVersion()); err == nil && order < 0 {
			return obj
		}
		w.objects.CompareAndDelete(key, own)
	}
	uid, deleted := w.deleted.Load(key) // before the cache is read: with the event of the deletion it is forgotten
	obj := w.informer.Get(key)
	if deleted {
		if obj != none && obj.GetUID() == uid.(types.UID) && obj.GetDeletionTimestamp() == nil {
			return none
		}
		w.deleted.CompareAndDelete(key, uid)
	}
	return obj
}
