package plan

import (
	"fmt"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// A port that is reached otherwise than the record says keeps the object by which it was reached until the record says so: it
// goes last, and not at all where the record can never be written. What is not exported goes at once.
func TestRoutesGoAfterTheRecord(t *testing.T) {
	for kind, target := range map[Kind]Target{HTTPRoute: ToGatewayAPI, Ingress: ToIngress, Alias: ToNames} {
		policy, s := readFixture(t, "testdata/http.in.yaml")
		policy.Targets = []Target{target}
		s.Service.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
		s = applied(s, policy.Decide(s))
		if len(s.Live) != 1 || s.Live[0].GetKind() != string(kind) {
			t.Fatalf("%s: there are %v", kind, s.Live)
		}
		deletion := func(s Snapshot) (found, last bool) {
			p := policy.Decide(s)
			i := slices.IndexFunc(p.Steps, func(step Step) bool { return step.Action == Delete && step.Ref.Kind == kind })
			return i >= 0, i >= 0 && p.Steps[i].Last && slices.ContainsFunc(p.Steps[:i], func(step Step) bool { return step.Record != nil })
		}
		s.Service = s.Service.DeepCopy()
		s.Service.Spec.Ports[0].Name = "tcp"
		if found, last := deletion(s); !found || !last {
			t.Errorf("%s: it goes: %v, after the record: %v", kind, found, last)
		}
		record, name := s.Record, s.Record.Name
		s.Backoffs = map[Ref]Backoff{{Record, name}: {}}
		if found, _ := deletion(s); found {
			t.Errorf("%s: it goes while the record waits", kind)
		}
		s.Record, s.Foreign = nil, map[Ref]bool{{Record, name}: true}
		if found, _ := deletion(s); !found {
			t.Errorf("%s: it stays although no record announces it", kind)
		}
		s.Record, s.Foreign = record, nil
		s.Service.Spec.Ports = []corev1.ServicePort{{Name: "tcp", Port: 81, Protocol: corev1.ProtocolTCP}}
		if kind == Alias { // it is of all ports
			s.Service.Spec.Ports = append(s.Service.Spec.Ports, corev1.ServicePort{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP})
			s.Service.Annotations = map[string]string{gateway.SelectAnnotation: "81"}
		}
		if found, last := deletion(s); !found || last {
			t.Errorf("%s: its port is not exported, and it goes: %v, after the record: %v", kind, found, last)
		}
		s.Service.Spec.Type, s.Service.Annotations = corev1.ServiceTypeExternalName, nil
		if found, last := deletion(s); !found || last {
			t.Errorf("%s: it is refused, and it goes: %v, after the record: %v", kind, found, last)
		}
	}
}

// A record that is too large cannot replace the one before.
func TestRoutesStayWhileTheRecordIsTooLarge(t *testing.T) {
	policy, s := readFixture(t, "testdata/http.in.yaml")
	policy.Ports = PortRange{15000, 15009}
	s.Service.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
	s = applied(s, policy.Decide(s))
	s.Service = s.Service.DeepCopy()
	s.Service.Spec.Ports[0].Name = "tcp"
	for i := range int32(99) {
		s.Service.Spec.Ports = append(s.Service.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("tcp-", i), Port: 1000 + i, Protocol: corev1.ProtocolTCP})
	}
	p := policy.Decide(s)
	if p.Record != nil || len(p.Steps) > 0 || len(p.Problems) == 0 {
		t.Errorf("%v, problems %v", p.Steps, p.Problems)
	}
}

// backends finds the ports of all kinds of routes.
func TestBackends(t *testing.T) {
	policy, s := readFixture(t, "testdata/all-classes.in.yaml")
	s.PortHolder = func(gateway.PortNumber) cache.ObjectName { return cache.ObjectName{} }
	for _, targets := range [][]Target{{ToGatewayAPI}, {ToIngress}} {
		policy.Targets = targets
		desired := policy.Decide(s).Desired
		if len(desired) == 0 {
			t.Errorf("%v: there are no routes", targets)
		}
		for _, route := range desired {
			ports := backends(route)
			if len(ports) == 0 || slices.ContainsFunc(ports, func(number int32) bool {
				return !slices.ContainsFunc(s.Service.Spec.Ports, func(port corev1.ServicePort) bool { return port.Port == number })
			}) {
				t.Errorf("%s %s routes to %v", route.GetKind(), route.GetName(), ports)
			}
		}
	}
	if got := backends(&unstructured.Unstructured{Object: map[string]any{"spec": "malformed"}}); !slices.Equal(got, []int32{0}) {
		t.Errorf("of a malformed one: %v", got)
	}
}
