package plan

import (
	"testing"
	"time"
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
