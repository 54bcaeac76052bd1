//go:build bench

package main

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// straightAddress is an address of Paris's load balancer that goes to bar's pod without a gateway.
const straightAddress = "198.51.100.19"

// cost is what a gateway adds to the same request straight to the backend, both measured in turn.
type cost struct {
	Gateway                       string
	Straight, Through             measured // one request at a time
	StraightAtOnce, ThroughAtOnce measured // sixteen at once
	Kubernetes                    string
}

// TestLatency measures each gateway and writes the costs to the file in $LATENCY: make bench makes a table of them.
func TestLatency(t *testing.T) {
	w, err := newWorld(worldDir, "paris")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.startDaemon(); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, world: w}
	t.Cleanup(func() { s.logs() })
	s.straight()
	var costs []cost
	for _, g := range gateways {
		t.Run(g.kind, func(t *testing.T) {
			s := &scene{T: t, world: w}
			s.install(w.paris, g.kind, parisAddresses, g.withReserved()...)
			costs = append(costs, s.cost(g.kind))
		})
	}
	for _, kind := range []controllerKind{traefikGatewayAPI, contourGatewayAPI} {
		t.Run(kind.name, func(t *testing.T) {
			s := &scene{T: t, world: w}
			s.installController(kind)
			s.speaksH2C("hello")
			s.applyRoutes(kind)
			costs = append(costs, s.cost(kind.name))
		})
	}
	text, err := json.Marshal(costs)
	s.must(err)
	if file := os.Getenv("LATENCY"); file != "" {
		s.must(os.WriteFile(file, text, 0o644))
	}
}

// straight has bar reached at an address of its own, by the same wire and the same kube-proxy as the gateway.
func (s *scene) straight() {
	s.must(s.world.paris.service("default", "straight", false, func(svc *corev1.Service) {
		svc.Spec.Type, svc.Spec.Selector = corev1.ServiceTypeLoadBalancer, map[string]string{"app": "bar"}
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.must(s.world.paris.loadBalancer("default", "straight", straightAddress))
	s.serves("--network", "tcp4", "--to", straightAddress+":80", bar)
}

// cost measures the gateway that is installed, through London's ClusterIP.
func (s *scene) cost(gateway string) cost {
	s.serves("--network", "tcp4", bar)
	mirror := s.clusterIP("bar-paris") + ":80"
	c := cost{Gateway: gateway}
	one := s.measure("--slices", "24", "--slice", "100ms", bar, straightAddress+":80", bar, mirror)
	c.Straight, c.Through = one[0], one[1]
	many := s.measure("--slices", "8", "--slice", "250ms", "--connections", "16", bar, straightAddress+":80", bar, mirror)
	c.StraightAtOnce, c.ThroughAtOnce = many[0], many[1]
	version, err := s.world.paris.Discovery().ServerVersion()
	s.must(err)
	c.Kubernetes = version.GitVersion
	s.Logf("%s: p50 %v straight, %v through it; p99 %v, %v; requests a second, 16 at once, %.0f, %.0f", gateway, c.Straight.P50.Round(time.Microsecond),
		c.Through.P50.Round(time.Microsecond), c.Straight.P99.Round(time.Microsecond), c.Through.P99.Round(time.Microsecond), c.StraightAtOnce.Rate, c.ThroughAtOnce.Rate)
	for _, m := range []measured{c.Straight, c.Through, c.StraightAtOnce, c.ThroughAtOnce} {
		if m.Failed > 0 || m.Requests < 100 {
			s.Errorf("%s: %d requests, and %d failed: %s", gateway, m.Requests, m.Failed, m.Error)
		}
	}
	return c
}

// measure has foo compare two ways to bar.
func (s *scene) measure(args ...string) (ways []measured) {
	s.Helper()
	self, err := os.Executable()
	s.must(err)
	out, err := s.world.foo.command(self, append([]string{"measure"}, args...)...).Output()
	s.must(err)
	s.must(json.Unmarshal(out, &ways))
	return ways
}
