package publish

import (
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/remote"
)

// outside is the Service in front of the Gateway, and its EndpointSlices.
type outside struct {
	name     cache.ObjectName
	services *remote.Informer[*corev1.Service]
	slices   *remote.Informer[*discoveryv1.EndpointSlice]

	mu      sync.Mutex
	targets map[string]int32 // of its named ports, as they were last known; 0: no pod had the name
}

func newOutside(c *caches) *outside {
	o := &outside{name: c.policy.GatewayService}
	in := c.clients.Read
	o.services = informIn(c, in.CoreV1().Services(o.name.Namespace), o.name.Namespace, func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, o.name.Name).String()
	}, "gateway service", &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { svc.ManagedFields = nil; return svc })
	o.slices = informIn(c, in.DiscoveryV1().EndpointSlices(o.name.Namespace), o.name.Namespace, func(options *metav1.ListOptions) {
		options.LabelSelector = labels.Set{discoveryv1.LabelServiceName: o.name.Name}.String()
	}, "gateway service's endpointslices", &discoveryv1.EndpointSlice{}, func(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
		slice.ManagedFields, slice.Endpoints = nil, nil
		return slice
	})
	o.services.Handle(remote.Handler[*corev1.Service]{
		Added: func(*corev1.Service) { c.readGateway() }, Updated: func(_, _ *corev1.Service) { c.readGateway() },
		Deleted: func(cache.ObjectName, *corev1.Service) { c.readGateway() },
	})
	o.slices.Handle(remote.Handler[*discoveryv1.EndpointSlice]{
		Added: func(*discoveryv1.EndpointSlice) { c.readGateway() }, Updated: func(_, _ *discoveryv1.EndpointSlice) { c.readGateway() },
		Deleted: func(cache.ObjectName, *discoveryv1.EndpointSlice) {}, // what they said is remembered
	})
	return o
}

// read is how the Gateway is reached from outside. The error says why it is not known: what is published stays as it is.
func (o *outside) read() (*plan.Outside, error) {
	svc := o.services.Get(o.name)
	switch {
	case !o.services.HasSynced() || !o.slices.HasSynced():
		return nil, fmt.Errorf("Service %v has not been read yet", o.name)
	case svc == nil:
		return nil, fmt.Errorf("Service %v does not exist: create it, or set another one with --gateway-service", o.name)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	read, targets, known := plan.ReadOutside(svc, o.slices.All(), o.targets)
	if o.targets = targets; !known {
		return nil, fmt.Errorf("Service %v has named targetPorts, and no pod exposes ports of these names: wait for the gateway's pods, or correct the names", o.name)
	}
	return read, nil
}
