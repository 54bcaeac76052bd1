package local

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Wrote notes an object as the API server answered a write of it. It is trimmed in place as the caches
// trim theirs, and returned.
func (c *Cluster) Wrote(obj metav1.Object) metav1.Object {
	switch obj := obj.(type) {
	case *corev1.Service:
		svc := plan.TrimLocal(obj)
		c.ownServices.Add(svc)
		c.tombstones.seen(svc)
		c.learn(svc)
		return svc
	case *corev1.Endpoints:
		c.ownEndpoints.Add(plan.TrimEndpoints(obj))
	case *discoveryv1.EndpointSlice:
		c.ownSlices.Add(plan.TrimSlice(obj))
	}
	return obj
}

// Deleted notes an object that was deleted here.
func (c *Cluster) Deleted(obj metav1.Object) {
	switch obj := obj.(type) {
	case *corev1.Service:
		c.ownServices.Delete(obj)
	case *corev1.Endpoints:
		c.tombstones.deletedHere(cache.MetaObjectToName(obj), plan.Endpoints, obj.UID)
		c.ownEndpoints.Delete(obj)
	case *discoveryv1.EndpointSlice:
		key := plan.SliceKey(obj)
		for _, kind := range plan.SliceKinds {
			if kind.ObjectName(key).Name == obj.Name {
				c.tombstones.deletedHere(key, kind, obj.UID)
			}
		}
		c.ownSlices.Delete(obj)
	case *metav1.PartialObjectMetadata:
		c.ownLeftovers.Delete(obj)
	}
}
