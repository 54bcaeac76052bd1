package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// health has a daemon that probes, and a gateway with two addresses in each
// family, of which one dies and comes back, and then all do.
func (s *scene) health() {
	alive, mortal := parisAddresses, []string{parisSecond, parisSecond6}
	all := slices.Concat(alive, mortal)
	s.install(s.world.paris, "nginx", all)
	probe := []string{"--probe=tcp", "--probe-period=500ms", "--probe-timeout=500ms", "--probe-threshold=2"}
	s.must(s.world.startDaemon(probe...))
	s.Cleanup(func() { s.must(errors.Join(s.world.paris.silence(), s.world.startDaemon())) })
	s.await(all, nil)

	result := s.under(func() {
		s.servesBoth()
		s.must(s.world.paris.silence(mortal...))
		s.await(alive, mortal)
	}, "tcp4", "tcp6")
	s.Logf("one of the gateway's two addresses died: of %d requests, %d a second and family, %d failed, within %v",
		result.Sent, steady, result.Failed, result.FailedFor.Round(10*time.Millisecond))
	if result.FailedFor > 10*time.Second {
		s.Errorf("requests failed for %v", result.FailedFor)
	}
	s.none("it stayed dead, also for a daemon that was started again, and came back", s.under(func() {
		s.servesBoth()
		s.must(s.world.startDaemon(probe...))
		s.lives()
		s.await(alive, mortal)
		s.must(s.world.paris.silence())
		s.await(all, nil)
		s.servesBoth()
	}, "tcp4", "tcp6"))

	s.must(s.world.paris.silence(all...))
	s.await(nil, all)
	for _, over := range families {
		s.refused(over.network)
	}
	s.must(s.world.paris.silence())
	s.await(all, nil)
	s.servesBoth()
	s.must(s.gateway.remove())
}

// await waits until bar's Endpoints have these addresses, and London's kube-proxy
// routes to those that are ready and to no others.
func (s *scene) await(ready, notReady []string) {
	s.Helper()
	all := slices.Concat(ready, notReady)
	s.must(eventually(fmt.Sprintf("%q ready, %q not", ready, notReady), func() error {
		endpoints, err := s.world.london.CoreV1().Endpoints("default").Get(s.Context(), "bar-paris", metav1.GetOptions{})
		if err != nil {
			return err
		}
		var gotReady, gotNot []string
		for _, subset := range endpoints.Subsets {
			for _, address := range subset.Addresses {
				gotReady = append(gotReady, address.IP)
			}
			for _, address := range subset.NotReadyAddresses {
				gotNot = append(gotNot, address.IP)
			}
		}
		if !sameSet(gotReady, ready) || !sameSet(gotNot, notReady) {
			return fmt.Errorf("they have %q ready and %q not", gotReady, gotNot)
		}
		rules, err := s.world.london.rules()
		for _, address := range all {
			if leads := strings.Contains(rules, address); leads != slices.Contains(ready, address) {
				err = errors.Join(err, fmt.Errorf("kube-proxy routes to %s: %t", address, leads))
			}
		}
		return err
	}))
}

func sameSet(a, b []string) bool {
	a, b = slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b))
	return slices.Equal(a, b)
}
