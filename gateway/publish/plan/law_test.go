package plan

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// applied is a snapshot after the steps of a plan.
func applied(s Snapshot, p Plan) Snapshot {
	for _, step := range p.Steps {
		same := func(obj *unstructured.Unstructured) bool { return RefOf(obj) == step.Ref }
		switch {
		case step.Record != nil && step.Action == Delete:
			s.Record = nil
		case step.Record != nil:
			s.Record = step.Record
		default:
			s.Live = slices.DeleteFunc(slices.Clone(s.Live), same)
			if step.Action != Delete {
				obj := step.Object.DeepCopy()
				obj.SetUID(types.UID(fmt.Sprint(step.Ref)))
				s.Live = append(s.Live, obj)
			}
		}
	}
	return s
}

// Law: after the steps of a plan nothing is left to do, whatever is wrong, and readers accept the record; what is
// unexported then leaves no routes behind.
func TestNothingIsLeftToDo(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, input := range inputs {
		policy, s := readFixture(t, input)
		first := policy.Decide(s)
		if first.Record != nil && first.Record.Labels[record.Label] == record.Version {
			if _, err := record.Parse(first.Record); err != nil {
				t.Errorf("%s: no reader accepts its record: %v", input, err)
			}
		}
		s = applied(s, first)
		second := policy.Decide(s)
		if len(second.Steps) > 0 || !reflect.DeepEqual(first.Allocations, second.Allocations) {
			t.Errorf("%s: %v are left, %v became %v", input, second.Steps, first.Allocations, second.Allocations)
		}
		s.Service = nil
		s = applied(s, policy.Decide(s))
		for _, live := range s.Live {
			if Owned(live) {
				t.Errorf("%s: %s %s is left", input, live.GetKind(), live.GetName())
			}
		}
		if again := policy.Decide(s); len(again.Steps) > 0 {
			t.Errorf("%s: %v are left once it is unexported", input, again.Steps)
		}
		s.Now = s.Now.Add(ReleasedFor)
		if s = applied(s, policy.Decide(s)); s.Record != nil {
			t.Errorf("%s: an hour later its record is left", input)
		}
	}
}

// Law: whatever comes and goes in whatever order, no gateway port is given to two Services within an hour, and one
// that is exported keeps its own.
func TestNoPortIsGivenTwice(t *testing.T) {
	walkPorts(t, 50, func(w *portWorld) { w.step(w.any()) })
}

// Law: nor does any route that carries our labels take a port from a Service, whoever writes or edits it, and
// whichever replica leads.
func TestNoRouteTakesAPort(t *testing.T) {
	walkPorts(t, 20, func(w *portWorld) {
		s := w.any()
		w.forge(s)
		w.step(s)
		if w.pick(5) == 0 {
			w.takeOver()
		}
	})
}

func walkPorts(t *testing.T, seeds int, step func(*portWorld)) {
	for _, fixture := range []string{"managed", "sets"} {
		for seed := range seeds {
			w := newPortWorld(t, "testdata/"+fixture+".in.yaml", seed)
			for range 200 {
				step(w)
			}
			if w.given == 0 || w.refused == 0 {
				t.Errorf("%s, seed %d: %d ports were given, %d times there was none", fixture, seed, w.given, w.refused)
			}
		}
	}
}

// portWorld is a few Services that are exported and unexported while time passes.
type portWorld struct {
	*testing.T
	exported  *corev1.Service
	policy    Policy
	snapshots map[cache.ObjectName]*Snapshot
	ledger    Ledger
	last      map[gateway.PortNumber]use
	now       time.Time
	random    uint64

	given, refused int
}

type use struct {
	by    cache.ObjectName
	until time.Time
}

func newPortWorld(t *testing.T, fixture string, seed int) *portWorld {
	policy, s := readFixture(t, fixture)
	policy.Ports = PortRange{15000, 15004}
	w := &portWorld{T: t, exported: s.Service, policy: policy, snapshots: map[cache.ObjectName]*Snapshot{}, last: map[gateway.PortNumber]use{}, now: now, random: uint64(seed)*2 + 1}
	s.PortHolder = w.ledger.Holder
	for i := range 6 {
		one := s
		one.Key = cache.NewObjectName("default", fmt.Sprint("s", i))
		one.Service = nil
		w.snapshots[one.Key] = &one
	}
	return w
}

func (w *portWorld) pick(n int) int {
	w.random = w.random*6364136223846793005 + 1442695040888963407
	return int(w.random>>33) % n
}

func (w *portWorld) any() *Snapshot {
	return w.snapshots[cache.NewObjectName("default", fmt.Sprint("s", w.pick(6)))]
}

// forge has someone write a route that has the name, the labels and the owner of the Service's, and attaches to any listener
// of ours; or edit that one so.
func (w *portWorld) forge(s *Snapshot) {
	d := decision{policy: w.policy, snapshot: *s}
	d.snapshot.Service = w.exported.DeepCopy()
	d.snapshot.Service.Name = s.Key.Name
	port := gateway.PortNumber{Number: w.policy.Ports.First + int32(w.pick(5)), Protocol: corev1.ProtocolTCP}
	d.want(TCPRoute, s.Key.Name+".5432"+suffix, map[string]any{"parentRefs": d.parents(s.Gateway.ownListener(port))})
	*s = applied(*s, Plan{Steps: []Step{{Action: Update, Ref: RefOf(d.plan.Desired[0]), Object: d.plan.Desired[0]}}})
}

// takeOver has another replica lead, which knows what the records say.
func (w *portWorld) takeOver() {
	var records []*corev1.ConfigMap
	for _, key := range slices.SortedFunc(maps.Keys(w.snapshots), mirrors.CompareKeys) {
		if record := w.snapshots[key].Record; record != nil {
			records = append(records, record)
		}
	}
	w.ledger = Ledger{}
	w.ledger.Fill(records)
}

func (w *portWorld) step(s *Snapshot) {
	w.now = w.now.Add(time.Duration(w.pick(20)) * time.Minute)
	if w.pick(10) == 0 {
		s.Record = nil // someone deletes it
	}
	before := w.ledger.Of(s.Key)
	s.Allocated = before
	if w.pick(3) > 0 {
		s.Service = w.exported.DeepCopy()
		s.Service.Name = s.Key.Name
		s.Service.Spec.Ports = s.Service.Spec.Ports[:1+w.pick(2)]
	} else {
		s.Service = nil
	}
	s.Now = w.now
	p := w.policy.Decide(*s)
	*s = applied(*s, p)
	w.ledger.Set(s.Key, p.Allocations)
	for _, a := range p.Allocations {
		if !a.Released.IsZero() {
			continue
		}
		w.given++
		if last, found := w.last[a.Number()]; found && last.by != s.Key && w.now.Before(last.until) {
			w.Errorf("%v is given to %v, which %v had until %v", a.Number(), s.Key, last.by, last.until)
		}
		for _, had := range before {
			if had.Port == a.Port && had.Protocol == a.Protocol && had.Released.IsZero() && had.Gateway != a.Gateway {
				w.Errorf("%v had %v, and has %v now", s.Key, had, a)
			}
		}
	}
	for _, problem := range p.Problems {
		if problem.Message != "" {
			w.refused++
		}
	}
	w.note()
}

// note has what is in use now count for an hour from now.
func (w *portWorld) note() {
	for key := range w.snapshots {
		for _, a := range w.ledger.Of(key) {
			if a.Released.IsZero() {
				w.last[a.Number()] = use{key, w.now.Add(time.Hour - time.Second)}
			}
		}
	}
}

// Law: while it is not known whether the Gateway exists, what is published stays as it is; and what is not exported any more
// is closed.
func TestNothingChangesWithoutTheGateway(t *testing.T) {
	inputs, err := filepath.Glob("testdata/*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	closings := 0
	for _, input := range inputs {
		policy, s := readFixture(t, input)
		if !policy.To(ToGatewayAPI) || s.Service == nil {
			continue
		}
		first := policy.Decide(s)
		s = applied(s, first)
		for _, gw := range []Gateway{{}, {Known: true, Name: policy.Gateway}} {
			s.Gateway = gw
			if gw.Known && len(policy.Targets) > 1 {
				continue // another target serves a port
			}
			second := policy.Decide(s)
			if len(second.Steps) > 0 || !reflect.DeepEqual(first.Allocations, second.Allocations) {
				t.Errorf("%s, known %v: %v; %v became %v", input, gw.Known, second.Steps, first.Allocations, second.Allocations)
			}
			closed := s
			closed.Service = s.Service.DeepCopy()
			closed.Service.Spec.Ports = []corev1.ServicePort{{Name: "other", Port: 9999, Protocol: corev1.ProtocolTCP}}
			closed = applied(closed, policy.Decide(closed))
			for _, live := range closed.Live {
				kind := Kind(live.GetKind())
				if kind != Alias && Owned(live) && s.Served[kind].Known && !slices.Contains(backends(live), 9999) {
					t.Errorf("%s, known %v: %s %s is left", input, gw.Known, kind, live.GetName())
				}
			}
			if len(closed.Live) < len(s.Live) {
				closings++
			}
		}
	}
	if closings < 10 {
		t.Errorf("only %d times a route was to be closed", closings)
	}
}
