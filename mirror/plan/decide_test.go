package plan

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

var barKey = cache.NewObjectName("default", "bar-paris")

// steps are a plan's steps in short.
func steps(p Plan) (all []string) {
	names := map[Action]string{
		CreateNamespace: "create Namespace", CheckForeignEndpoints: "check foreign Endpoints", Create: "create", Update: "update", Delete: "delete",
		TryService: "try Service", AwaitSlices: "await slices", DeleteLeftover: "delete leftover", CheckSlices: "check slices", RestartMirroring: "restart mirroring",
	}
	for _, step := range p.Steps {
		text := names[step.Action]
		if step.Action.ofKind() {
			text += " " + step.Kind.Title()
		}
		all = append(all, text)
	}
	return all
}

func reasonsOf(p Plan) (all []string) {
	for _, problem := range p.Problems {
		all = append(all, string(problem.Reason)+" "+problem.Cluster)
	}
	return all
}

func TestDecide(t *testing.T) {
	bar, foreign := parisBar(), storedBar()
	bar.Watched = true
	foreign.Service.Labels = nil
	in := func(change ...func(*Snapshot)) Snapshot {
		s := Snapshot{Key: barKey, Live: storedBar(), Candidates: []Candidate{bar}}
		for _, f := range change {
			f(&s)
		}
		return s
	}
	live := func(objects Objects) func(*Snapshot) { return func(s *Snapshot) { s.Live = objects } }
	candidates := func(all ...Candidate) func(*Snapshot) { return func(s *Snapshot) { s.Candidates = all } }
	moved := parisBar()
	moved.Gateway = gatewayAt("192.0.2.9")
	ports := parisBar()
	ports.Service.Spec.Ports[0].Port = 81
	berlin := parisBar()
	berlin.Cluster, berlin.Watched = "berlin", true
	unexported := Candidate{Cluster: "paris", Watched: true}
	refused := parisBar()
	refused.Watched, refused.Service.Spec.ClusterIP = true, corev1.ClusterIPNone
	useSlices := Policy{EndpointsAPI: UseEndpointSlices}
	withSlice := storedBar()
	inSlices, _ := useSlices.Desired(bar, Objects{}, nil, nil)
	withSlice.IPv4 = inSlices.IPv4
	deleting := storedBar()
	deleting.Service.DeletionTimestamp = &metav1.Time{}
	relabelled := storedBar()
	relabelled.Service.Labels[ClusterLabel] = "rome"
	excluded := storedBar()
	excluded.Endpoints = Unmirrored(excluded.Endpoints)
	unmirrored := live(excluded)
	udp := parisBar()
	udp.Watched, udp.Gateway, udp.Service.Spec.Ports = true, nil, []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}
	known := func(c Candidate) Candidate { c.Gateway = parisGateway(); return c }
	rejected := Backoff{Problem: Problem{Reason: Rejected, Cluster: "paris"}, Only: storedBar().Service}
	for _, test := range []struct {
		name     string
		policy   Policy
		snapshot Snapshot
		steps    []string
		problems []string
		requeue  Requeue
	}{
		{name: "as it should be", snapshot: in()},
		{name: "a new mirror: the addresses first", snapshot: in(live(Objects{})), steps: []string{"create Endpoints", "create Service"}},
		{name: "a new mirror in slices", policy: useSlices, snapshot: in(live(Objects{})), steps: []string{"check foreign Endpoints", "create EndpointSlice IPv4", "create Service"}},
		{name: "half a mirror", snapshot: in(live(Objects{Endpoints: storedBar().Endpoints})), steps: []string{"create Service"}},
		{name: "the gateway moved", snapshot: in(candidates(moved)), steps: []string{"update Endpoints"}},
		{name: "ports changed", snapshot: in(candidates(ports)), steps: []string{"update Service"}},
		{name: "to slices: what replaces comes first", policy: useSlices, snapshot: in(), steps: []string{"create EndpointSlice IPv4", "delete Endpoints"}},
		{name: "back to Endpoints", snapshot: in(live(withSlice)), steps: []string{"await slices", "delete EndpointSlice IPv4"}},
		{name: "unexported: the Service first", snapshot: in(candidates(unexported)), steps: []string{"delete Service", "delete Endpoints"}},
		{name: "unexported, as far as is known", snapshot: in(candidates(Candidate{Cluster: "paris"}))},
		{name: "of a remote that nobody configures", snapshot: in(candidates())},
		{name: "refused", snapshot: in(candidates(refused)), steps: []string{"delete Service", "delete Endpoints"}, problems: []string{"Headless paris"}},
		{name: "a foreign Service", snapshot: in(live(foreign)), problems: []string{"Conflict paris"}},
		{name: "a foreign Service over what was left there", snapshot: in(live(foreign), func(s *Snapshot) { s.Memory.Stray.Endpoints = storedBar().Endpoints }),
			steps: []string{"delete Endpoints"}, problems: []string{"Conflict paris"}},
		{name: "foreign Endpoints", snapshot: in(live(Objects{Endpoints: &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}}})),
			problems: []string{"Conflict paris"}, requeue: RequeueForeign},
		{name: "two remotes want the name", snapshot: in(candidates(berlin, bar)), problems: []string{"Conflict berlin"}},
		{name: "and none has it", snapshot: in(live(Objects{}), candidates(berlin, bar)), steps: []string{"create Endpoints", "create Service"}, problems: []string{"Conflict paris"}},
		{name: "being deleted", snapshot: in(live(deleting)), problems: []string{"WriteFailed paris"}},
		{name: "of a cluster that someone wrote on it", snapshot: in(live(relabelled)), steps: []string{"update Service"}},
		{name: "UDP alone, and the gateway is unknown", snapshot: in(candidates(udp)), problems: []string{"NoAddress paris"}},
		{name: "UDP alone", snapshot: in(candidates(known(udp))), steps: []string{"delete Service", "delete Endpoints"}, problems: []string{"NoTCPPort paris"}},
		{name: "no namespace", snapshot: in(live(Objects{}), func(s *Snapshot) { s.Namespace = NamespaceAbsent }), problems: []string{"NamespaceMissing paris"}},
		{name: "a namespace to create", policy: Policy{CreateNamespaces: true}, snapshot: in(live(Objects{}), func(s *Snapshot) { s.Namespace = NamespaceAbsent }),
			steps: []string{"create Namespace", "create Endpoints", "create Service"}},
		{name: "a namespace that is being deleted", policy: Policy{CreateNamespaces: true}, snapshot: in(live(Objects{}), func(s *Snapshot) { s.Namespace = NamespaceDeleting }),
			problems: []string{"NamespaceTerminating paris"}},
		{name: "a rejected Service that is now another", snapshot: in(candidates(ports), func(s *Snapshot) { s.Memory.Backoffs[Service] = &rejected }), steps: []string{"update Service"}},
		{name: "an overwritten Service, and the gateway moved", snapshot: in(candidates(func() Candidate { c := ports; c.Gateway = moved.Gateway; return c }()), func(s *Snapshot) {
			s.Memory.Backoffs[Service] = &Backoff{Problem: Problem{Reason: Overwritten, Cluster: "paris"}}
		}), steps: []string{"update Endpoints"}, problems: []string{"Overwritten paris"}},
		{name: "a back-off of what is as it should be", snapshot: in(func(s *Snapshot) { s.Memory.Backoffs[Service] = &rejected })},
		{name: "a rejected Service does not exist: nothing is created", snapshot: in(live(Objects{}), func(s *Snapshot) {
			s.Memory.Backoffs[Service] = &Backoff{Problem: Problem{Reason: Rejected, Cluster: "paris"}}
		}), problems: []string{"Rejected paris"}},
		{name: "a rejected Service is retried: first without the addresses", snapshot: in(live(Objects{}), func(s *Snapshot) { s.Memory.Rejected = true }),
			steps: []string{"try Service", "create Endpoints", "create Service"}},
		{name: "a replacement that backs off", policy: useSlices, snapshot: in(func(s *Snapshot) {
			s.Memory.Backoffs[IPv4Slice] = &Backoff{Problem: Problem{Reason: Rejected, Cluster: "paris"}}
		}), problems: []string{"Rejected paris"}},
		{name: "slices to be looked for", snapshot: in(func(s *Snapshot) { s.Memory.SliceCheck = true }), steps: []string{"check slices"}},
		{name: "after refreshes in vain", snapshot: in(func(s *Snapshot) { s.Memory.SliceCheck, s.Memory.Refreshes = true, maxRefreshes }), steps: []string{"restart mirroring"}},
		{name: "not before they are due", snapshot: in(func(s *Snapshot) { s.Memory.Refreshes = maxRefreshes })},
		{name: "mirroring is paused", snapshot: in(unmirrored, func(s *Snapshot) { s.Memory.Paused = true })},
		{name: "mirroring was paused", snapshot: in(unmirrored), steps: []string{"update Endpoints"}},
		{name: "mirroring is paused, and the gateway moves", snapshot: in(unmirrored, candidates(moved), func(s *Snapshot) { s.Memory.Paused = true }), steps: []string{"update Endpoints"}},
		{name: "not while something is written", snapshot: in(candidates(moved), func(s *Snapshot) { s.Memory.SliceCheck = true }), steps: []string{"update Endpoints"}},
		{name: "a leftover slice", snapshot: in(func(s *Snapshot) { s.Leftovers = []*metav1.PartialObjectMetadata{leftover("service-uid")} }), steps: []string{"delete leftover"}},
		{name: "another Service's slice", snapshot: in(func(s *Snapshot) { s.Leftovers = []*metav1.PartialObjectMetadata{leftover("other")} })},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := test.policy.Decide(test.snapshot)
			if got := steps(p); strings.Join(got, ", ") != strings.Join(test.steps, ", ") {
				t.Errorf("got steps %q, want %q", got, test.steps)
			}
			if got := reasonsOf(p); strings.Join(got, ", ") != strings.Join(test.problems, ", ") {
				t.Errorf("got problems %q, want %q", got, test.problems)
			}
			if p.Requeue != test.requeue {
				t.Errorf("got requeue %d, want %d", p.Requeue, test.requeue)
			}
		})
	}
}

func leftover(owner string) *metav1.PartialObjectMetadata {
	controller := true
	return &metav1.PartialObjectMetadata{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "bar-paris-x7",
		OwnerReferences: []metav1.OwnerReference{{Kind: "Service", Name: "bar-paris", UID: types.UID(owner), Controller: &controller}},
	}}
}

// TestPlansEnd is the law: take the steps of a plan, as an API server takes them, and after a few plans there
// is nothing left to do, and nothing foreign was touched on the way.
func TestPlansEnd(t *testing.T) {
	wrote := 0
	for seed := range uint64(3000) {
		g := generator{rand.New(rand.NewPCG(seed, 3))}
		policy, families := g.policy(), pickOne(g, []corev1.IPFamily{ipv4}, []corev1.IPFamily{ipv6}, []corev1.IPFamily{ipv4, ipv6})
		source := g.source()
		source.Watched = true
		if g.IntN(4) == 0 {
			source.Service = nil
		}
		s := Snapshot{Key: barKey, Live: g.mostlyOurs(g.live()), Candidates: []Candidate{source}, Families: families}
		for round := 0; ; round++ {
			p := policy.Decide(s)
			if len(p.Steps) == 0 {
				break
			}
			if round == 4 {
				t.Fatalf("seed %d: still %q\nlive %s", seed, steps(p), text(s.Live))
			}
			for _, step := range p.Steps {
				if step.Action == Update || step.Action == Delete {
					if had := s.Live.Get(step.Kind); had == nil || s.Live.Owned(barKey).Get(step.Kind) == nil {
						t.Fatalf("seed %d: %q of what is not ours: %s", seed, steps(p), text(had))
					}
				}
			}
			s.Live = g.taken(s.Live, p.Steps, families)
			wrote++
		}
	}
	if wrote < 2000 {
		t.Errorf("only %d plans had steps: what is generated is too tame", wrote)
	}
}

// mostlyOurs has most of the objects carry what makes them ours.
func (g generator) mostlyOurs(live Objects) Objects {
	for _, k := range allKinds {
		if obj := live.Get(k); obj != nil && g.IntN(5) > 0 {
			basis{Candidate: parisBar(), key: barKey}.setOwner(obj)
		}
	}
	return live
}

// taken are the live objects after the steps, as an API server of these families makes them.
func (g generator) taken(live Objects, steps []Step, families []corev1.IPFamily) Objects {
	var changes Changes
	for _, step := range steps {
		switch step.Action {
		case Create:
			changes.Create.Set(step.Kind, step.Object)
		case Update:
			changes.Update.Set(step.Kind, step.Object)
		case Delete:
			changes.Delete.Set(step.Kind, step.Object)
		}
	}
	return g.applied(live, changes, families)
}

// A Snapshot is read, and nothing in it is changed: it comes from caches.
func TestDecideChangesNothingThatItIsGiven(t *testing.T) {
	for seed := range uint64(500) {
		g := generator{rand.New(rand.NewPCG(seed, 4))}
		s := Snapshot{Key: barKey, Live: g.live(), Candidates: []Candidate{g.source()}}
		s.Memory.Tombstone = &Tombstone{Cluster: "paris", ClusterIPs: []string{"10.96.0.9"}, Addresses: storedBar()}
		before := fmt.Sprint(text(s.Live), text(s.Candidates[0].Service), text(s.Memory.Tombstone))
		g.policy().Decide(s)
		if after := fmt.Sprint(text(s.Live), text(s.Candidates[0].Service), text(s.Memory.Tombstone)); after != before {
			t.Fatalf("seed %d: it was\n%s\nand is\n%s", seed, before, after)
		}
	}
}

func TestWithoutAnnotations(t *testing.T) {
	p := Policy{CopyAnnotations: []string{"note"}}.Decide(Snapshot{Key: barKey, Live: storedBar(), Candidates: []Candidate{parisBar()}})
	svc := p.Desired.Service
	svc.Annotations["a"], svc.Annotations["b"] = "1", "2"
	for _, test := range []struct{ named, removed []string }{{[]string{"a"}, []string{"a"}}, {nil, []string{"a", "b"}}, {[]string{MirrorAnnotation}, nil}, {[]string{"x"}, nil}} {
		without, removed := p.WithoutAnnotations(Service, svc, test.named)
		if !slices.Equal(removed, test.removed) || len(without.GetAnnotations()) != len(svc.Annotations)-len(removed) || svc.Annotations["a"] == "" {
			t.Errorf("without %q: removed %q of %q", test.named, removed, svc.Annotations)
		}
	}
}

// What is refused, or changed on its way, may be all that is known of the addresses.
func TestSliceOfAnUnknownGateway(t *testing.T) {
	policy, bar := Policy{EndpointsAPI: UseEndpointSlices}, parisBar()
	was := policy.Decide(Snapshot{Key: barKey, Candidates: []Candidate{bar}}).Desired
	was.IPv4.Annotations["a"] = "1"
	delete(was.IPv4.Annotations, MirrorAnnotation)
	for name, gw := range map[string]*gateway.Gateway{"unknown": nil, "partial": {Partial: true, Ports: bar.Gateway.Ports}} {
		bar.Gateway = gw
		p := policy.Decide(Snapshot{Key: barKey, Live: was, Candidates: []Candidate{bar}})
		if !p.Writes(IPv4Slice) {
			t.Fatalf("%s: nothing is written", name)
		}
		slice := p.Desired.IPv4
		for _, named := range [][]string{nil, {"a"}} {
			without, removed := p.WithoutAnnotations(IPv4Slice, slice, named)
			if !slices.Equal(removed, []string{"a"}) || without.GetAnnotations()[MirrorAnnotation] == "" {
				t.Errorf("%s: without %q it has %q", name, named, without.GetAnnotations())
			}
		}
		if p.Overwrites(IPv4Slice, slice) {
			t.Errorf("%s: it is as written", name)
		}
		slice = slice.DeepCopy()
		slice.Endpoints = nil
		if gw != nil && !p.Overwrites(IPv4Slice, slice) {
			t.Errorf("%s: its endpoints are gone", name)
		}
	}
}
