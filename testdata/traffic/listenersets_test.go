//go:build compat

package main

import (
	"fmt"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// byListenerSets is a gateway whose Gateway allows the publisher's ListenerSets, and has no listeners for plain TCP itself.
func byListenerSets(kind controllerKind) controllerKind {
	kind.name += "-listenersets"
	kind.check = (*scene).listenerSets
	return kind
}

// listenerSets takes the Gateway its listeners for TCP, and has it allow the publisher's: a Service keeps the port that it
// has. One that is exported then gets the next.
func (s *scene) listenerSets() {
	const url = "tcp://postgres-paris.default.svc.cluster.local:5432"
	s.serves(url)
	before := s.gatewayPorts("postgres")
	s.kubectl("patch", "gateway", "gateway", "-n", "gateway", "--type=json", "-p", `[{"op": "remove", "path": "/spec/listeners/5"},
		{"op": "remove", "path": "/spec/listeners/4"}, {"op": "remove", "path": "/spec/listeners/3"}, {"op": "add", "path": "/spec/allowedListeners",
		"value": {"namespaces": {"from": "Selector", "selector": {"matchLabels": {"kubernetes.io/metadata.name": "`+recordsNamespace+`"}}}}}]`)
	s.gets("the route attaches to the ListenerSet", "ListenerSet", "tcproute", "-n", "default", "postgres.5432.service-mirror", "-o", "jsonpath={.spec.parentRefs[*].kind}")
	s.gets("it is accepted", "True", "listenerset", "-n", recordsNamespace, "service-mirror-15000", "-o", `jsonpath={.status.conditions[?(@.type=="Accepted")].status}`)
	s.serves(url)
	if after := s.gatewayPorts("postgres"); fmt.Sprint(after) != fmt.Sprint(before) {
		s.Errorf("its ports were %v, and are %v", before, after)
	}
	s.must(s.world.paris.service("default", "orders", false, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "postgres"}
		svc.Spec.Ports = []corev1.ServicePort{port("postgres", 5432, tcpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, "orders", metav1.DeleteOptions{}))
	})
	begin := time.Now()
	s.must(s.world.paris.export("orders", true))
	s.serves("tcp://" + s.clusterIP("orders-paris") + ":5432")
	s.Logf("another Service answers %v after the label", time.Since(begin).Round(time.Millisecond))
	if ports := s.gatewayPorts("orders"); fmt.Sprint(ports) == fmt.Sprint(before) {
		s.Errorf("both have %v", ports)
	}
}

func (s *scene) kubectl(args ...string) string {
	s.Helper()
	out, err := s.world.paris.Kubectl(s.Context(), args...)
	s.must(err)
	return strings.TrimSpace(out)
}

// gets waits until kubectl get prints this.
func (s *scene) gets(what, want string, args ...string) {
	s.Helper()
	s.must(eventually(what, func() error {
		out, err := s.world.paris.Kubectl(s.Context(), append([]string{"get"}, args...)...)
		if err == nil && strings.TrimSpace(out) != want {
			err = fmt.Errorf("got %q, want %q", out, want)
		}
		return err
	}))
}
