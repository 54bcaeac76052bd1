package plan

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// Law: whatever of the Gateway and of the routes can be read while a Service changes, nothing is left to do once a plan is carried
// out, and what the record announces is routed to that port.
func TestWhatIsAnnouncedIsRouted(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	seeds, steps := uint64(5), 8
	announced := 0
	for _, input := range inputs {
		policy, s := readFixture(t, input)
		unread := slices.ContainsFunc(Kinds, func(kind Kind) bool { return !s.Served[kind].Known })
		if s.Service == nil || unread || strings.HasPrefix(filepath.Base(input), "refused-") {
			continue // what implementations say would be of older routes
		}
		for seed := range seeds {
			w := &announcedWalk{T: t, policy: policy, first: s, now: s, random: rand.New(rand.NewPCG(seed, 0))}
			for range steps {
				w.step()
				announced += w.check(fmt.Sprintf("%s, seed %d: %v", input, seed, w.did))
				if t.Failed() {
					return
				}
			}
		}
	}
	if announced < 1000 {
		t.Errorf("only %d ports were announced", announced)
	}
}

// announcedWalk is a Service that changes while more or less of the cluster can be read.
type announcedWalk struct {
	*testing.T
	policy     Policy
	first, now Snapshot
	random     *rand.Rand
	did        []string
}

func (w *announcedWalk) step() {
	s, kinds := &w.now, []Kind{HTTPRoute, TLSRoute, TCPRoute}
	s.Service = s.Service.DeepCopy()
	ports := s.Service.Spec.Ports
	i := w.random.IntN(len(ports))
	var did string
	switch w.random.IntN(10) {
	case 0:
		s.Gateway, did = w.first.Gateway, "the Gateway is read"
		s.Served = w.first.Served
	case 1:
		s.Gateway = Gateway{Known: w.random.IntN(2) == 0, Name: w.policy.Gateway}
		did = fmt.Sprint("the Gateway does not exist, known: ", s.Gateway.Known)
	case 2:
		kind := kinds[w.random.IntN(len(kinds))]
		served := map[Kind]Served{}
		for kind, is := range s.Served {
			served[kind] = is
		}
		served[kind] = Served{Version: served[kind].Version, Err: "it is forbidden"}
		s.Served, did = served, fmt.Sprint(kind, " is not read")
	case 3:
		if s.Gateway.Exists {
			s.Gateway.Sets.Unknown = "cannot be read"
		}
		did = "ListenerSets are not read"
	case 4:
		name := []string{"http", "https", "tcp", "grpc", "x"}[w.random.IntN(5)]
		ports[i].Name, ports[i].AppProtocol, ports[i].Protocol = fmt.Sprint(name, "-", w.random.IntN(1000)), nil, corev1.ProtocolTCP
		did = fmt.Sprintf("%d is %s", ports[i].Port, ports[i].Name)
	case 5:
		number := int32(8000 + w.random.IntN(4))
		if slices.ContainsFunc(ports, func(port corev1.ServicePort) bool { return port.Port == number }) {
			return
		}
		did = fmt.Sprintf("%d becomes %d", ports[i].Port, number)
		ports[i].Port = number
	case 6:
		if len(ports) > 1 {
			did = fmt.Sprint(ports[i].Port, " is removed")
			s.Service.Spec.Ports = slices.Delete(ports, i, i+1)
		}
	case 7:
		port := corev1.ServicePort{Name: "http-9", Port: 9000, Protocol: corev1.ProtocolTCP}
		if w.random.IntN(2) == 0 {
			port.Name, port.Port = "https-9", 9443
		}
		if !slices.ContainsFunc(ports, func(other corev1.ServicePort) bool { return other.Port == port.Port }) {
			did = fmt.Sprint(port.Port, " comes first")
			s.Service.Spec.Ports = append([]corev1.ServicePort{port}, ports...)
		}
	case 8:
		s.Service.Annotations = map[string]string{gateway.SelectAnnotation: fmt.Sprint(ports[i].Port)}
		if w.random.IntN(2) == 0 {
			s.Service.Annotations = nil
		}
		did = fmt.Sprint("annotations ", s.Service.Annotations)
	case 9:
		if w.policy.To(ToNames) {
			return // what the alias reached is said once it is deleted
		}
		targets := [][]Target{{ToGatewayAPI}, {ToIngress, ToGatewayAPI}, {ToGatewayAPI, ToIngress}, {ToIngress}}
		w.policy.Targets = targets[w.random.IntN(len(targets))]
		w.policy.TLSSecret = []string{"", "bar-tls"}[w.random.IntN(2)]
		did = fmt.Sprint(w.policy.Targets, w.policy.TLSSecret)
	}
	w.did = append(w.did, did)
}

// check carries out the plan, and returns how many ports the record announces.
func (w *announcedWalk) check(what string) (count int) {
	w.now = applied(w.now, w.policy.Decide(w.read()))
	if again := w.policy.Decide(w.read()); len(again.Steps) > 0 {
		w.Errorf("%s: %v are left", what, again.Steps)
	}
	if w.now.Record == nil {
		return 0
	}
	r, err := record.Parse(w.now.Record)
	if err != nil {
		return 0
	}
	for _, port := range r.Ports {
		if port.Gateway == 0 {
			continue
		}
		count++
		if !w.routed(port) {
			w.Errorf("%s: nothing routes to %+v", what, port)
		}
		if other := w.other(port); other != nil {
			w.Errorf("%s: %s %s routes the names of %+v to %v", what, other.GetKind(), other.GetName(), port, backends(other))
		}
	}
	return count
}

// read is what can be read.
func (w *announcedWalk) read() Snapshot {
	s := w.now
	s.Live = slices.DeleteFunc(slices.Clone(s.Live), func(live *unstructured.Unstructured) bool { return !s.Served[Kind(live.GetKind())].Known })
	return s
}

func (w *announcedWalk) routed(port record.Port) bool {
	d := decision{policy: w.policy}
	return slices.ContainsFunc(w.now.Live, func(live *unstructured.Unstructured) bool {
		to := slices.Contains(backends(live), port.Port)
		switch kind := Kind(live.GetKind()); {
		case !Owned(live):
			return false
		case kind == TLSRoute:
			return to && port.Shared
		case kind == HTTPRoute || kind == Ingress:
			return port.Shared && (to || port.Class == string(gateway.HTTPS) && d.endsTLS(live))
		}
		return to && !port.Shared
	})
}

// other is what routes the names that a port is reached by to another port.
func (w *announcedWalk) other(port record.Port) *unstructured.Unstructured {
	tls := port.Class == string(gateway.HTTPS)
	for _, live := range w.read().Live {
		kind := Kind(live.GetKind())
		byName := !tls && (kind == HTTPRoute || kind == Ingress) || tls && kind == TLSRoute
		if port.Shared && byName && Owned(live) && !slices.Contains(backends(live), port.Port) {
			return live
		}
	}
	return nil
}
