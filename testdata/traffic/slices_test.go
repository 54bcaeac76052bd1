package main

import (
	"fmt"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// endpointsAPI has the daemon change the kind of object that carries the mirrors'
// addresses, and change back: nothing happens to requests.
func (s *scene) endpointsAPI() {
	s.install(s.world.paris, "nginx", parisAddresses, gateways[0].withReserved()...) // every mirror has addresses
	s.servesBoth()
	result := s.under(func() {
		s.must(eventually("Endpoints", s.endpoints))
		for _, api := range []struct {
			name  string
			check func() error
		}{{"endpointslices", s.endpointSlices}, {"endpoints", s.endpoints}} {
			s.must(s.world.startDaemon("--endpoints-api=" + api.name))
			s.must(eventually(api.name, api.check))
			s.lives() // and kube-proxy has seen all that was changed before
			s.must(api.check())
			s.servesBoth()
		}
	}, "tcp4", "tcp6")
	s.none("the daemon wrote Endpoints, EndpointSlices, Endpoints again", result)
	s.must(s.gateway.remove())
}

// endpoints checks that Paris's mirrors have Endpoints, and no EndpointSlices but
// those that Kubernetes makes of these.
func (s *scene) endpoints() error {
	return s.carried(func(mirror string) error {
		_, err := s.world.london.CoreV1().Endpoints("default").Get(s.Context(), mirror, metav1.GetOptions{})
		return err
	}, "endpointslicemirroring-controller.k8s.io")
}

// endpointSlices checks that Paris's mirrors have EndpointSlices of the daemon's
// own, and neither others nor Endpoints.
func (s *scene) endpointSlices() error {
	return s.carried(func(mirror string) error {
		_, err := s.world.london.CoreV1().Endpoints("default").Get(s.Context(), mirror, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return fmt.Errorf("Endpoints %s are there (%v)", mirror, err)
	}, "service-mirror.io")
}

// carried checks that each mirror of Paris's Services passes, and has one
// EndpointSlice for each family, with the gateway's address, all by one manager.
func (s *scene) carried(check func(mirror string) error, manager string) error {
	ours := "service-mirror.io/cluster=paris"
	mirrors, err := s.world.london.CoreV1().Services("default").List(s.Context(), metav1.ListOptions{LabelSelector: ours})
	if err != nil {
		return err
	}
	if len(mirrors.Items) < 5 {
		return fmt.Errorf("there are %d mirrors", len(mirrors.Items))
	}
	want := []string{"IPv4 " + parisAddress, "IPv6 " + parisAddress6}
	for _, mirror := range mirrors.Items {
		if err := check(mirror.Name); err != nil {
			return err
		}
		list, err := s.world.london.DiscoveryV1().EndpointSlices("default").List(s.Context(), metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + mirror.Name})
		if err != nil {
			return err
		}
		var got []string
		for _, slice := range list.Items {
			if by := slice.Labels[discoveryv1.LabelManagedBy]; by != manager {
				return fmt.Errorf("EndpointSlice %s is managed by %s, not %s", slice.Name, by, manager)
			}
			if slice.Labels["service-mirror.io/cluster"] != "paris" {
				return fmt.Errorf("EndpointSlice %s has labels %v", slice.Name, slice.Labels)
			}
			for _, endpoint := range slice.Endpoints {
				got = append(got, fmt.Sprintf("%s %s", slice.AddressType, endpoint.Addresses[0]))
			}
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			return fmt.Errorf("the EndpointSlices of %s have %q, want %q", mirror.Name, got, want)
		}
	}
	return nil
}
