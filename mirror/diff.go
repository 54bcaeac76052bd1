package mirror

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

// Changes are the writes that turn what is live into what is desired. Delete
// holds the live objects, for their UID and resourceVersion.
type Changes struct {
	Create, Update, Delete Objects
}

// Empty tells that there is nothing to write.
func (c Changes) Empty() bool { return c == Changes{} }

// Diff compares the live objects of a mirror, all of them ours, with the
// desired ones. It relies on the desired ones having been made from the live
// ones: any difference is then one that we want.
func Diff(live, desired Objects) Changes {
	var changes Changes
	switch {
	case desired.Service == nil:
		changes.Delete.Service = live.Service
	case live.Service == nil:
		changes.Create.Service = desired.Service
	case !sameMeta(live.Service, desired.Service) || !equality.Semantic.DeepEqual(live.Service.Spec, desired.Service.Spec):
		changes.Update.Service = desired.Service
	}
	switch {
	case desired.Endpoints == nil:
		changes.Delete.Endpoints = live.Endpoints
	case live.Endpoints == nil:
		changes.Create.Endpoints = desired.Endpoints
	case !sameMeta(live.Endpoints, desired.Endpoints) || !sameSubsets(live.Endpoints.Subsets, desired.Endpoints.Subsets):
		changes.Update.Endpoints = desired.Endpoints
	}
	diffSlice(&changes, live, desired, func(o *Objects) **discoveryv1.EndpointSlice { return &o.IPv4 })
	diffSlice(&changes, live, desired, func(o *Objects) **discoveryv1.EndpointSlice { return &o.IPv6 })
	return changes
}

func diffSlice(changes *Changes, live, desired Objects, of func(*Objects) **discoveryv1.EndpointSlice) {
	switch had, want := *of(&live), *of(&desired); {
	case want == nil:
		*of(&changes.Delete) = had
	case had == nil:
		*of(&changes.Create) = want
	case !sameMeta(had, want) || !sameSet(had.Endpoints, want.Endpoints, same) || !sameSet(had.Ports, want.Ports, same):
		*of(&changes.Update) = want
	}
}

func sameMeta(a, b metav1.Object) bool {
	return equality.Semantic.DeepEqual(a.GetLabels(), b.GetLabels()) &&
		equality.Semantic.DeepEqual(a.GetAnnotations(), b.GetAnnotations())
}

// What the caches hold of an object is decided here, at their door: only what
// Refuse, Desired and Diff read, and what an update must send back.

// TrimExported cuts an exported Service down to what is mirrored.
func (p Policy) TrimExported(svc *corev1.Service) *corev1.Service {
	trimmed := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       svc.Namespace,
			Name:            svc.Name,
			UID:             svc.UID,
			ResourceVersion: svc.ResourceVersion,
			Labels:          pick(svc.Labels, append([]string{ClusterLabel}, p.CopyLabels...)),
			Annotations:     pick(svc.Annotations, append([]string{gateway.Annotation, gateway.PortsAnnotation}, p.CopyAnnotations...)),
		},
		Spec: corev1.ServiceSpec{
			Type:                  svc.Spec.Type,
			Ports:                 mirrorPorts(svc.Spec.Ports),
			SessionAffinity:       svc.Spec.SessionAffinity,
			SessionAffinityConfig: svc.Spec.SessionAffinityConfig,
		},
	}
	if _, claims := trimmed.Annotations[gateway.PortsAnnotation]; claims {
		trimmed.CreationTimestamp = svc.CreationTimestamp // the older claim counts
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		trimmed.Spec.ClusterIP = corev1.ClusterIPNone
	}
	return trimmed
}

// trimLocal cuts a stranger's Service down to its name, labels and UID, and
// spares ours only what an update need not send back.
func trimLocal(svc *corev1.Service) *corev1.Service {
	if _, ours := Owner(svc); ours {
		svc.ManagedFields = nil
		return svc
	}
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace:       svc.Namespace,
		Name:            svc.Name,
		UID:             svc.UID,
		ResourceVersion: svc.ResourceVersion,
		Labels:          svc.Labels,
	}}
}

func trimEndpoints(endpoints *corev1.Endpoints) *corev1.Endpoints {
	endpoints.ManagedFields = nil
	return endpoints
}

func trimSlice(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	slice.ManagedFields = nil
	return slice
}

func trimMetadata(obj *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
	obj.ManagedFields = nil
	obj.Annotations = nil
	return obj
}

func pick(from map[string]string, keys []string) map[string]string {
	var out map[string]string
	for _, key := range keys {
		if value, ok := from[key]; ok {
			if out == nil {
				out = map[string]string{}
			}
			out[key] = value
		}
	}
	return out
}
