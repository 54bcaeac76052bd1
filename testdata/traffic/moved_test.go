package main

import (
	"errors"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Mirrors of Paris's namespace depot are in London's namespace shop.
const depot, shop = "depot", "shop"

// moved has clients in London call a Service of Paris's depot by its mirror in shop: the publisher has the gateway route
// the names that it has there, and no other one of shop.
func (s *scene) moved(kind controllerKind) {
	s.must(errors.Join(s.world.paris.namespaceOf(depot), s.world.london.namespaceOf(shop)))
	s.must(s.world.paris.service(depot, "stock", false, func(svc *corev1.Service) {
		svc.Labels = map[string]string{exportLabel: "true"}
		svc.Spec.Selector, svc.Spec.Ports = nil, []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services(depot).Delete(background, "stock", metav1.DeleteOptions{}))
	})
	// It is that of the pod bar, in another namespace. Traefik takes only an endpoint that says so for ready.
	name, number, ready := "http", int32(httpPort), true
	_, err := s.world.paris.DiscoveryV1().EndpointSlices(depot).Create(s.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "stock", Labels: map[string]string{discoveryv1.LabelServiceName: "stock"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{s.podIPs(s.world.paris, "bar")[0].IP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &number}},
	}, metav1.CreateOptions{})
	s.must(err)
	s.Cleanup(func() {
		s.must(s.world.paris.DiscoveryV1().EndpointSlices(depot).Delete(background, "stock", metav1.DeleteOptions{}))
	})
	s.must(eventually("a mirror in "+shop, func() error {
		_, err := s.world.london.CoreV1().Services(shop).Get(s.Context(), "stock-paris", metav1.GetOptions{})
		return err
	}))
	for _, host := range []string{"stock-paris.shop", "stock-paris.shop.svc.cluster.local"} {
		s.answers([]string{"--network", "tcp4", "http://" + host + "/"}, seen{
			Backend: "bar of paris", Host: "stock.depot.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedFor: londonPlace.node, ForwardedProto: "http", ForwardedHost: host,
		}, s.gateway.address, "")
	}
	s.answers([]string{"--host", "bar-paris.shop", "http://stock-paris.shop/"}, seen{}, "", kind.can.unknown)
	if _, err := s.world.london.CoreV1().Services(depot).Get(s.Context(), "stock-paris", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		s.Errorf("a mirror in %s: %v", depot, err)
	}
}
