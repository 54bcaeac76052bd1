package plan

import (
	"cmp"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
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

// A record has the first of more ports than it may hold, and the others are reported.
func TestPortsBeyondTheRecord(t *testing.T) {
	policy, s := readFixture(t, "testdata/sets.in.yaml")
	s.Service.Spec.Ports = nil
	for i := range int32(record.MaxPorts + 2) {
		s.Service.Spec.Ports = append(s.Service.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("tcp-", i), Port: 1000 + i, Protocol: corev1.ProtocolTCP})
	}
	p := policy.Decide(s)
	r, err := record.Parse(p.Record)
	if err != nil || len(r.Ports) != record.MaxPorts {
		t.Errorf("the record has %d ports: %v", len(r.Ports), err)
	}
	if !slices.ContainsFunc(p.Problems, func(problem mirrors.Problem) bool {
		return problem.Reason == mirrors.PortNotServed && strings.HasPrefix(problem.Message, "2 of its ports are not in its record, which holds 100: ")
	}) {
		t.Errorf("problems: %v", p.Problems)
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

// While a port stays as it is, so does its gateway port, which is in use: one that its Service chooses, or whose number it has
// chosen for another port, of those of the gateway Service.
func TestChosenPortsAreKept(t *testing.T) {
	for name, obstruct := range map[string]func(s *Snapshot){
		"the Gateway has not been read": func(s *Snapshot) { s.Gateway = Gateway{} },
		"the Gateway is gone":           func(s *Snapshot) { s.Gateway = Gateway{Known: true} },
		"TCPRoutes have not been read":  func(s *Snapshot) { s.Served[TCPRoute], s.Live = Served{}, nil },
	} {
		for fixture, chosen := range map[string]string{"annotation": "5432=15432", "outside": "6379=15001"} {
			if fixture == "outside" && name != "the Gateway has not been read" {
				continue // then it is known how it is reached
			}
			policy, s := readFixture(t, "testdata/"+fixture+".in.yaml")
			s.Service.Annotations[gateway.PortsAnnotation] = chosen
			first := policy.Decide(s)
			s = applied(s, first)
			if len(inUse(first.Allocations)) == 0 {
				t.Fatalf("%s: it has no gateway port: %v", fixture, first.Problems)
			}
			obstruct(&s)
			if second := policy.Decide(s); !reflect.DeepEqual(first.Allocations, second.Allocations) {
				t.Errorf("%s, %s: %v became %v", fixture, name, first.Allocations, second.Allocations)
			}
		}
	}
}

// As long as the Gateway has not been read, nothing is said of a Service of which there is no record: readers may reach it by what
// else they know. What another target serves is said.
func TestNothingIsSaidOfAnUnreadGateway(t *testing.T) {
	for _, test := range []struct {
		targets  []Target
		known    bool
		recorded bool
	}{
		{[]Target{ToGatewayAPI}, false, false},
		{[]Target{ToGatewayAPI}, true, false},
		{[]Target{ToGatewayAPI, ToIngress}, false, false},
		{[]Target{ToGatewayAPI, ToIngress}, true, true},
		{[]Target{ToIngress, ToGatewayAPI}, false, true},
		{[]Target{ToNames, ToGatewayAPI}, false, true},
	} {
		policy, s := readFixture(t, "testdata/http.in.yaml")
		policy.Targets, s.Gateway = test.targets, Gateway{Known: test.known}
		p := policy.Decide(s)
		recorded := slices.ContainsFunc(p.Steps, func(step Step) bool { return step.Record != nil })
		if recorded != test.recorded || len(p.Steps) > 0 != test.recorded {
			t.Errorf("%v, known %v: %v", test.targets, test.known, p.Steps)
		}
		if len(p.Problems) == 0 || p.Problems[0].Reason != mirrors.NoGateway {
			t.Errorf("%v, known %v: the problems are %v", test.targets, test.known, p.Problems)
		}
	}
}

// An alias that other flags have made is kept while the Gateway has not been read, and readers may go on to use it.
func TestAliasIsKeptForAnUnreadGateway(t *testing.T) {
	policy, s := readFixture(t, "testdata/names.in.yaml")
	s = applied(s, policy.Decide(s))
	policy.Targets, s.Gateway = []Target{ToGatewayAPI}, Gateway{}
	if p := policy.Decide(s); len(s.Live) != 1 || len(p.Steps) > 0 {
		t.Errorf("of %d aliases: %v", len(s.Live), p.Steps)
	}
}

// Where the gateway ends TLS and requests go to the HTTP port, both are closed once the latter is not exported, also while the
// Gateway is unknown: the record announces neither. TLS that is passed through does not depend on that port.
func TestEndedTLSIsClosedWithItsPort(t *testing.T) {
	only := func(ports string) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Annotations = map[string]string{gateway.SelectAnnotation: ports} }
	}
	rename := func(i int, name string) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Spec.Ports[i].Name = name }
	}
	removed := func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[1:] }
	both := map[int32]int32{80: 80, 443: 443}
	for name, test := range map[string]struct {
		passed  bool
		ingress bool
		unread  []Kind
		edit    func(*corev1.Service)
		want    map[int32]int32
	}{
		"nothing changes":                                   {edit: func(*corev1.Service) {}, want: both},
		"443 alone":                                         {edit: only("443"), want: map[int32]int32{443: 0}},
		"443 alone, passed through":                         {passed: true, edit: only("443"), want: map[int32]int32{443: 443}},
		"80 alone":                                          {edit: only("80"), want: map[int32]int32{80: 80}},
		"HTTP is removed":                                   {edit: removed, want: map[int32]int32{443: 0}},
		"HTTP is removed, passed through":                   {passed: true, edit: removed, want: map[int32]int32{443: 443}},
		"HTTP is renumbered":                                {edit: func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 8080 }, want: map[int32]int32{8080: 0, 443: 0}},
		"HTTP becomes TCP":                                  {edit: rename(0, "tcp"), want: both},
		"HTTP becomes TLS":                                  {edit: rename(0, "https-2"), want: both},
		"TLS becomes HTTP":                                  {edit: rename(1, "http-2"), want: both},
		"HTTP chooses a gateway port":                       {edit: func(svc *corev1.Service) { svc.Annotations = map[string]string{gateway.PortsAnnotation: "80=15080"} }, want: both},
		"443 alone, TLSRoutes are not read":                 {unread: []Kind{TLSRoute}, edit: only("443"), want: map[int32]int32{443: 0}},
		"nothing changes, by an Ingress":                    {ingress: true, edit: func(*corev1.Service) {}, want: both},
		"443 alone, by an Ingress":                          {ingress: true, edit: only("443"), want: map[int32]int32{443: 0}},
		"HTTP is renumbered, by an Ingress":                 {ingress: true, edit: func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 8080 }, want: map[int32]int32{8080: 80, 443: 443}},
		"443 alone, passed through, TLSRoutes are not read": {passed: true, unread: []Kind{TLSRoute}, edit: only("443"), want: map[int32]int32{443: 443}},
	} {
		for _, known := range []bool{false, true} {
			policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
			if test.passed {
				s.Gateway.Listeners[1].Protocol, s.Gateway.Listeners[1].Passthrough = "TLS", true
			}
			if test.ingress {
				policy.Targets, policy.TLSSecret = []Target{ToIngress, ToGatewayAPI}, "bar-tls"
			}
			s = applied(s, policy.Decide(s))
			old := s.Record
			if got := announcedPorts(t, old); !maps.Equal(got, both) {
				t.Fatalf("%s: the record announces %v", name, got)
			}
			s.Gateway = Gateway{Known: known, Name: policy.Gateway}
			for _, kind := range test.unread {
				s.Served[kind] = Served{Err: "it is forbidden"}
				s.Live = slices.DeleteFunc(slices.Clone(s.Live), func(live *unstructured.Unstructured) bool { return live.GetKind() == string(kind) })
			}
			s.Service = s.Service.DeepCopy()
			test.edit(s.Service)
			s = applied(s, policy.Decide(s))
			if got := announcedPorts(t, s.Record); !maps.Equal(got, test.want) {
				t.Errorf("%s, Gateway known %v: the record announces %v, not %v", name, known, got, test.want)
			}
			if again := policy.Decide(s); len(again.Steps) > 0 {
				t.Errorf("%s, Gateway known %v: %v are left", name, known, again.Steps)
			}
			if len(test.unread) > 0 {
				continue
			}
			s.Record = old // its update failed
			if got := announcedPorts(t, policy.Decide(s).Record); !maps.Equal(got, test.want) {
				t.Errorf("%s, Gateway known %v: once the routes are written, the record announces %v, not %v", name, known, got, test.want)
			}
		}
	}
}

// announcedPorts are the gateway ports in a record, by the ports of the Service. One that shares has host names.
func announcedPorts(t *testing.T, configMap *corev1.ConfigMap) map[int32]int32 {
	t.Helper()
	r, err := record.Parse(configMap)
	if err != nil {
		t.Fatal(err)
	}
	ports := map[int32]int32{}
	for _, port := range r.Ports {
		ports[port.Port] = port.Gateway
	}
	if shares := slices.ContainsFunc(r.Ports, func(port record.Port) bool { return port.Shared }); shares != (len(r.Hosts) > 0) {
		t.Errorf("of %v, the host names are %v", r.Ports, r.Hosts)
	}
	return ports
}

// An Ingress without TLS does not go on to end it in the place of an HTTPRoute that goes.
func TestEndedTLSIsClosedBesideAnIngress(t *testing.T) {
	policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
	s = applied(s, policy.Decide(s))
	policy.Targets, s.Gateway = []Target{ToIngress, ToGatewayAPI}, Gateway{Name: policy.Gateway}
	s = applied(s, policy.Decide(s))
	if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{80: 80, 443: 443}) {
		t.Fatalf("the record announces %v", got)
	}
	s.Service = s.Service.DeepCopy()
	s.Service.Spec.Ports = append([]corev1.ServicePort{{Name: "http-b", Port: 8080, Protocol: corev1.ProtocolTCP}}, s.Service.Spec.Ports...)
	s = applied(s, policy.Decide(s))
	if got := announcedPorts(t, s.Record); got[443] != 0 || len(s.Live) != 1 {
		t.Errorf("of %d routes, the record announces %v", len(s.Live), got)
	}
}

// A port that never depended on an alias stays unlisted when the flags change and the Gateway is not read.
func TestChosenPortStaysUnlisted(t *testing.T) {
	policy, s := readFixture(t, "testdata/names.in.yaml")
	policy.Targets = []Target{ToNames}
	s.Service = s.Service.DeepCopy()
	s.Service.Spec.Ports = []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "http-b", Port: 8080, Protocol: corev1.ProtocolTCP}}
	s.Service.Annotations = map[string]string{gateway.SelectAnnotation: "80", gateway.PortsAnnotation: "80=15080"}
	s = applied(s, policy.Decide(s))
	before := announcedPorts(t, s.Record)
	policy.Targets, s.Gateway = []Target{ToNames, ToGatewayAPI}, Gateway{}
	s = applied(s, policy.Decide(s))
	if got := announcedPorts(t, s.Record); !maps.Equal(got, before) {
		t.Errorf("the record announced %v, and announces %v", before, got)
	}
}

// While the update of a route is refused, the record announces what the route that exists routes.
func TestRefusedUpdateIsNotAnnounced(t *testing.T) {
	moreHosts := func(policy *Policy, _ *corev1.Service) { policy.Names = append(policy.Names, "lyon") }
	renumbered := func(_ *Policy, svc *corev1.Service) { svc.Spec.Ports[0].Port = 8080 }
	for name, test := range map[string]struct {
		ingress bool
		edit    func(*Policy, *corev1.Service)
		want    map[int32]int32
	}{
		"it has more hosts":             {false, moreHosts, map[int32]int32{80: 80, 443: 443}},
		"it has more hosts, Ingress":    {true, moreHosts, map[int32]int32{80: 80, 443: 443}},
		"a port is renumbered":          {false, renumbered, map[int32]int32{8080: 0, 443: 0}},
		"a port is renumbered, Ingress": {true, renumbered, map[int32]int32{8080: 0, 443: 0}},
	} {
		policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
		if test.ingress {
			policy.Targets, policy.TLSSecret = []Target{ToIngress}, "bar-tls"
		}
		s = applied(s, policy.Decide(s))
		s.Backoffs = map[Ref]Backoff{RefOf(s.Live[0]): {Problem: mirrors.Problem{Reason: mirrors.Rejected, Message: "a webhook refuses it"}}}
		s.Service = s.Service.DeepCopy()
		test.edit(&policy, s.Service)
		p := policy.Decide(s)
		if len(p.Problems) == 0 {
			t.Errorf("%s: no update is refused", name)
		}
		if got := announcedPorts(t, cmp.Or(p.Record, s.Record)); !maps.Equal(got, test.want) {
			t.Errorf("%s: the record announces %v, not %v", name, got, test.want)
		}
	}
}

// The HTTPRoute goes on to end TLS for a port that stays as it is, as it is not known by what it is to be reached.
func TestEndedTLSIsKept(t *testing.T) {
	for name, obstruct := range map[string]func(s *Snapshot){
		"TLSRoutes":    func(s *Snapshot) { s.Served[TLSRoute] = Served{Err: "it is forbidden"} },
		"TCPRoutes":    func(s *Snapshot) { s.Served[TCPRoute] = Served{Err: "it is forbidden"} },
		"ListenerSets": func(s *Snapshot) { s.Gateway.Sets.Unknown = "cannot be read" },
	} {
		policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
		s = applied(s, policy.Decide(s))
		before := s
		obstruct(&s)
		if p := policy.Decide(s); len(p.Steps) > 0 {
			t.Errorf("%s are not read: %v", name, p.Steps)
		}
		s.Service = s.Service.DeepCopy()
		s.Service.Spec.Ports[0].Port = 8080
		s = applied(s, policy.Decide(s))
		if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{8080: 80, 443: 443}) {
			t.Errorf("%s are not read, and the HTTP port is another one: the record announces %v", name, got)
		}
		if got, want := policy.Attached(s.Live[0]), policy.Attached(before.Live[0]); len(want) != 2 || !slices.Equal(got, want) {
			t.Errorf("%s are not read, and the HTTP port is another one: the HTTPRoute attaches to %v, not %v", name, got, want)
		}
		s.Gateway.Listeners = s.Gateway.Listeners[:1]
		s = applied(s, policy.Decide(s))
		if got := policy.Attached(s.Live[0]); !slices.Equal(got, []string{"http"}) {
			t.Errorf("%s are not read, and the HTTPS listener is gone: the HTTPRoute attaches to %v", name, got)
		}
		if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{8080: 80, 443: 0}) {
			t.Errorf("%s are not read, and the HTTPS listener is gone: the record announces %v", name, got)
		}
		if again := policy.Decide(s); len(again.Steps) > 0 {
			t.Errorf("%s are not read, and the HTTPS listener is gone: %v are left", name, again.Steps)
		}
	}
}

// An alias opens all ports: one is deleted once the Service excludes some, also while the Gateway is unknown. The record then says
// that nothing routes to what it reached, as readers would go by what else they know.
func TestRecordSaysThatAnAliasIsClosed(t *testing.T) {
	for _, targets := range [][]Target{{ToNames, ToGatewayAPI}, {ToGatewayAPI}} {
		for _, known := range []bool{false, true} {
			policy, s := readFixture(t, "testdata/names-and-gateway-api.in.yaml")
			s = applied(s, policy.Decide(s))
			policy.Targets, s.Gateway = targets, Gateway{Known: known, Name: policy.Gateway}
			s.Service = s.Service.DeepCopy()
			s.Service.Annotations = map[string]string{gateway.SelectAnnotation: "80"}
			s = applied(s, policy.Decide(s))
			if slices.ContainsFunc(s.Live, func(live *unstructured.Unstructured) bool { return live.GetKind() == string(Alias) }) {
				t.Errorf("%v, Gateway known %v: the alias is left", targets, known)
			}
			if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{80: 0}) {
				t.Errorf("%v, Gateway known %v: the record announces %v", targets, known, got)
			}
			if again := policy.Decide(s); len(again.Steps) > 0 {
				t.Errorf("%v, Gateway known %v: %v are left", targets, known, again.Steps)
			}
		}
	}
}

// The host names of a Service are routed to one of its HTTP ports, and to one of its HTTPS ports. Once these are others, the record
// does not announce the ones before, also while it is not known how they are to be reached: their clients would reach the others.
func TestPortWhoseNamesAreTakenIsClosed(t *testing.T) {
	port := func(name string, number int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolTCP}
	}
	noTCPRoutes := func(_ *Policy, s *Snapshot) { s.Served[TCPRoute] = Served{Err: "it is forbidden"} }
	noGateway := func(p *Policy, s *Snapshot) { p.Targets, s.Gateway = []Target{ToIngress, ToGatewayAPI}, Gateway{} }
	for name, test := range map[string]struct {
		targets       []Target
		before, after []corev1.ServicePort
		chosen        string
		obstruct      func(*Policy, *Snapshot)
		want          map[int32]int32
		routed        map[Kind]int32
	}{
		"HTTP": {before: []corev1.ServicePort{port("http-b", 8080)}, after: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080)},
			obstruct: noTCPRoutes, want: map[int32]int32{80: 80, 8080: 0}, routed: map[Kind]int32{HTTPRoute: 80}},
		"HTTP, the one before comes first": {before: []corev1.ServicePort{port("http-b", 8080)}, after: []corev1.ServicePort{port("http-b", 8080), port("http-a", 80)},
			obstruct: noTCPRoutes, want: map[int32]int32{8080: 80, 80: 0}, routed: map[Kind]int32{HTTPRoute: 8080}},
		"HTTP, the one before becomes TCP": {before: []corev1.ServicePort{port("http-b", 8080)}, after: []corev1.ServicePort{port("http-a", 80), port("tcp-b", 8080)},
			obstruct: noTCPRoutes, want: map[int32]int32{80: 80, 8080: 0}, routed: map[Kind]int32{HTTPRoute: 80}},
		"HTTP, one chooses a gateway port": {before: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080)}, after: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080)}, chosen: "80=15080",
			obstruct: noTCPRoutes, want: map[int32]int32{80: 0, 8080: 80}, routed: map[Kind]int32{HTTPRoute: 8080}},
		"HTTP, by an Ingress": {targets: []Target{ToIngress}, before: []corev1.ServicePort{port("http-b", 8080)}, after: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080)},
			obstruct: noGateway, want: map[int32]int32{80: 80, 8080: 0}, routed: map[Kind]int32{Ingress: 80}},
		"HTTP, by an Ingress instead": {before: []corev1.ServicePort{port("http-b", 8080)}, after: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080)},
			obstruct: noGateway, want: map[int32]int32{80: 80, 8080: 0}, routed: map[Kind]int32{Ingress: 80}},
		"HTTP and ended TLS, by an Ingress instead": {before: []corev1.ServicePort{port("http-b", 8080), port("https", 443)}, after: []corev1.ServicePort{port("http-a", 80), port("http-b", 8080), port("https", 443)},
			obstruct: noGateway, want: map[int32]int32{80: 80, 8080: 0, 443: 0}, routed: map[Kind]int32{Ingress: 80}},
		"ended TLS, by an Ingress instead": {before: []corev1.ServicePort{port("http-a", 80), port("https", 443)}, after: []corev1.ServicePort{port("http-a", 80), port("https", 443)},
			obstruct: noGateway, want: map[int32]int32{80: 80, 443: 443}, routed: map[Kind]int32{HTTPRoute: 80, Ingress: 80}},
		"TLS": {before: []corev1.ServicePort{port("https-b", 8443)}, after: []corev1.ServicePort{port("https-a", 443), port("https-b", 8443)},
			obstruct: noTCPRoutes, want: map[int32]int32{443: 443, 8443: 0}, routed: map[Kind]int32{TLSRoute: 443}},
	} {
		policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
		if test.targets != nil {
			policy.Targets = test.targets
		}
		if name == "TLS" {
			s.Gateway.Listeners[1].Protocol, s.Gateway.Listeners[1].Passthrough = "TLS", true
		}
		s.Service.Spec.Ports = test.before
		s = applied(s, policy.Decide(s))
		old := s.Record
		test.obstruct(&policy, &s)
		s.Service = s.Service.DeepCopy()
		s.Service.Spec.Ports = test.after
		s.Service.Annotations = map[string]string{gateway.PortsAnnotation: test.chosen}
		s = applied(s, policy.Decide(s))
		if got := announcedPorts(t, s.Record); !maps.Equal(got, test.want) {
			t.Errorf("%s: the record announces %v, not %v", name, got, test.want)
		}
		routed := map[Kind]int32{}
		for _, live := range s.Live {
			routed[Kind(live.GetKind())] = backends(live)[0]
		}
		if !maps.Equal(routed, test.routed) {
			t.Errorf("%s: there are routes to %v, not %v", name, routed, test.routed)
		}
		if again := policy.Decide(s); len(again.Steps) > 0 {
			t.Errorf("%s: %v are left", name, again.Steps)
		}
		s.Record = old // its update failed
		if got := announcedPorts(t, policy.Decide(s).Record); name != "HTTP and ended TLS, by an Ingress instead" && !maps.Equal(got, test.want) {
			t.Errorf("%s: once the routes are written, the record announces %v, not %v", name, got, test.want)
		}
	}
}

// An Ingress that no longer ends TLS closes the port for which it did, although it is not known what else may serve that.
func TestTLSIsClosedWithoutItsSecret(t *testing.T) {
	policy, s := readFixture(t, "testdata/ends-tls.in.yaml")
	policy.Targets, policy.TLSSecret = []Target{ToIngress}, "bar-tls"
	s = applied(s, policy.Decide(s))
	if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{80: 80, 443: 443}) {
		t.Fatalf("the record announces %v", got)
	}
	policy.Targets, policy.TLSSecret, s.Gateway = []Target{ToIngress, ToGatewayAPI}, "", Gateway{}
	s = applied(s, policy.Decide(s))
	if got := announcedPorts(t, s.Record); !maps.Equal(got, map[int32]int32{80: 80, 443: 0}) {
		t.Errorf("the record announces %v", got)
	}
	if again := policy.Decide(s); len(again.Steps) > 0 {
		t.Errorf("%v are left", again.Steps)
	}
}
