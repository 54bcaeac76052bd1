package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

// What caches hold of an object: only what Refuse, Desired and Decide read, and what an update must send
// back.

// TrimExported cuts an exported Service down to what is mirrored.
func (p Policy) TrimExported(svc *corev1.Service) *corev1.Service {
	trimmed := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace:       svc.Namespace,
			Name:            svc.Name,
			UID:             svc.UID,
			ResourceVersion: svc.ResourceVersion,
			// Of claims to one gateway port the older one counts.
			CreationTimestamp: svc.CreationTimestamp,
			Labels:            pick(svc.Labels, append([]string{ClusterLabel}, p.CopyLabels...)),
			Annotations:       pick(svc.Annotations, slices.Concat(gateway.Annotations, []string{NameAnnotation, ExportToAnnotation}, p.CopyAnnotations)),
		},
		Spec: corev1.ServiceSpec{
			Type:                  svc.Spec.Type,
			Ports:                 mirrorPorts(svc.Spec.Ports),
			SessionAffinity:       svc.Spec.SessionAffinity,
			SessionAffinityConfig: svc.Spec.SessionAffinityConfig,
		},
	}
	for _, key := range gateway.Annotations {
		if value, ok := trimmed.Annotations[key]; ok {
			trimmed.Annotations[key] = gateway.TrimAnnotation(key, value)
		}
	}
	if svc.Spec.ClusterIP == corev1.ClusterIPNone {
		trimmed.Spec.ClusterIP = corev1.ClusterIPNone
	}
	return trimmed
}

// TrimLocal cuts a foreign Service down to its name, labels, UID and the addresses at which its load
// balancer is reached; of one that fails over, what that takes is kept, too. Of ours everything is kept that an update
// must send back.
func TrimLocal(svc *corev1.Service) *corev1.Service {
	if _, ours := Owner(svc); ours {
		svc.ManagedFields = nil
		return svc
	}
	trimmed := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
		Namespace:       svc.Namespace,
		Name:            svc.Name,
		UID:             svc.UID,
		ResourceVersion: svc.ResourceVersion,
		Labels:          svc.Labels,
	}}
	if FailsOver(svc) {
		trimmed.Annotations = pick(svc.Annotations, []string{FailoverAnnotation})
		trimmed.Spec = corev1.ServiceSpec{
			Type: svc.Spec.Type, ClusterIP: svc.Spec.ClusterIP, IPFamilies: svc.Spec.IPFamilies, Ports: svc.Spec.Ports,
			InternalTrafficPolicy: svc.Spec.InternalTrafficPolicy, PublishNotReadyAddresses: svc.Spec.PublishNotReadyAddresses,
		}
	}
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			trimmed.Status.LoadBalancer.Ingress = append(trimmed.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ingress.IP})
		}
	}
	return trimmed
}

// TrimEndpoints removes what an update need not send back.
func TrimEndpoints(endpoints *corev1.Endpoints) *corev1.Endpoints {
	endpoints.ManagedFields = nil
	return endpoints
}

// TrimSlice removes what an update need not send back.
func TrimSlice(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	slice.ManagedFields = nil
	return slice
}

// TrimBeside cuts an EndpointSlice of a Service that fails over down to what LocallyReady reads: of endpoints with the same
// conditions it keeps one, without its addresses.
func TrimBeside(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	trimmed := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: slice.Namespace, Name: slice.Name, UID: slice.UID, ResourceVersion: slice.ResourceVersion,
			Labels: slice.Labels, Annotations: pick(slice.Annotations, []string{MirrorAnnotation, FailoverAnnotation, RemoteServiceAnnotation}),
		},
		AddressType: slice.AddressType,
	}
	for _, e := range slice.Endpoints {
		one := discoveryv1.Endpoint{Conditions: discoveryv1.EndpointConditions{Ready: e.Conditions.Ready, Serving: e.Conditions.Serving}}
		if !slices.ContainsFunc(trimmed.Endpoints, func(other discoveryv1.Endpoint) bool { return same(one, other) }) {
			trimmed.Endpoints = append(trimmed.Endpoints, one)
		}
	}
	return trimmed
}

// TrimMetadata removes what nobody reads.
func TrimMetadata(obj *metav1.PartialObjectMetadata) *metav1.PartialObjectMetadata {
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
