package plan

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// The hour of a released port begins once no route has it.
func TestReleasedPortStaysWhileARouteHasIt(t *testing.T) {
	policy, s := readFixture(t, "testdata/managed.in.yaml")
	s = applied(s, policy.Decide(s))
	s.Service = nil
	p := policy.Decide(s)
	for range 3 { // the deletions fail
		s.Record, s.Allocated = p.Record, p.Allocations
		s.Now = s.Now.Add(ReleasedFor)
		if p = policy.Decide(s); len(p.Allocations) != 2 || p.After > time.Minute {
			t.Errorf("it has %v, and is looked at again after %v", p.Allocations, p.After)
		}
	}
	s = applied(s, p)
	s.Allocated = p.Allocations
	s.Now = s.Now.Add(ReleasedFor)
	if p = policy.Decide(s); len(p.Allocations) != 0 {
		t.Errorf("it has %v", p.Allocations)
	}
}

// A chosen port outside of --ports does not make a listener.
func TestChosenPortOutsideOfTheRangeAddsNoListener(t *testing.T) {
	policy, s := readFixture(t, "testdata/managed.in.yaml")
	for number, want := range map[string]int{"443": 1, "15003": 2} { // the UDP port has one
		s.Service.Annotations = map[string]string{"service-mirror.io/gateway-ports": "5432=" + number}
		if p := policy.Decide(s); len(p.Allocations) != want || (len(p.Problems) == 0) != (want == 2) {
			t.Errorf("%s: it has %v, %v", number, p.Allocations, p.Problems)
		}
	}
}

// A gateway port in two records is the Service's that uses it, whichever is listed first.
func TestLedgerGivesAPortToTheServiceThatUsesIt(t *testing.T) {
	inUse := Allocation{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000}
	released := inUse
	released.Released = now
	user, other := cache.NewObjectName("default", "bar"), cache.NewObjectName("aaa", "evil")
	recordOf := func(key cache.ObjectName, a Allocation) *corev1.ConfigMap {
		d := decision{policy: Policy{Records: "sm"}, snapshot: Snapshot{Key: key}, plan: Plan{Allocations: []Allocation{a}}}
		configMap, err := d.releasedRecord()
		if err != nil {
			t.Fatal(err)
		}
		return configMap
	}
	records := []*corev1.ConfigMap{recordOf(other, released), recordOf(user, inUse)}
	for range 2 {
		var ledger Ledger
		ledger.Fill(records)
		if got := ledger.Holder(inUse.Number()); got != user || len(ledger.Of(user)) != 1 || len(ledger.Of(other)) != 0 {
			t.Errorf("%v has the port: of the one it is %v, of the other %v", got, ledger.Of(user), ledger.Of(other))
		}
		slices.Reverse(records)
	}
}

// A route with our labels that does not belong to an exported Service reserves no gateway port, and one that does takes
// none that another Service has.
func TestLabelledRoutesReserveNoPort(t *testing.T) {
	for name, test := range map[string]struct {
		exported, owned bool
		holder          string
		want            bool // it is reserved
	}{
		"of no Service":                    {},
		"of no Service, although owned":    {owned: true},
		"of an exported Service":           {exported: true},
		"of an exported Service, by owner": {exported: true, owned: true, want: true},
		"of a Service that has the port":   {exported: true, owned: true, holder: "bar", want: true},
		"of another Service's port":        {exported: true, owned: true, holder: "other"},
	} {
		policy, s := readFixture(t, "testdata/managed.in.yaml")
		const number = 15009
		d := decision{policy: policy, snapshot: s}
		d.want(TCPRoute, "bar.9999"+suffix, map[string]any{"parentRefs": d.parents(OwnListener(gateway.PortNumber{Number: number, Protocol: corev1.ProtocolTCP}))})
		route := d.plan.Desired[0]
		if !test.owned {
			route.SetOwnerReferences([]metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "bar", UID: "another"}})
		}
		s.Live = []*unstructured.Unstructured{route}
		if !test.exported {
			s.Service = nil
		}
		s.PortHolder = func(port gateway.PortNumber) cache.ObjectName {
			if port.Number != number || test.holder == "" {
				return cache.ObjectName{}
			}
			return cache.NewObjectName("default", test.holder)
		}
		p := policy.Decide(s)
		if got := slices.ContainsFunc(p.Allocations, func(a Allocation) bool { return a.Gateway == number }); got != test.want {
			t.Errorf("%s: it has %v", name, p.Allocations)
		}
		if !slices.ContainsFunc(p.Steps, func(step Step) bool { return step.Action == Delete && step.Ref == RefOf(route) }) {
			t.Errorf("%s: the route is not deleted: %v", name, p.Steps)
		}
	}
}
