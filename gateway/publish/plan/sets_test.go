package plan

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// gatewayWith is ingress/public, which allows ListenerSets as given, of a class with these features; nil: it says none.
func gatewayWith(allowed map[string]any, features []any, sets Sets) Gateway {
	gw := &unstructured.Unstructured{Object: map[string]any{"metadata": map[string]any{"namespace": "ingress", "name": "public"}, "spec": map[string]any{}}}
	if allowed != nil {
		gw.Object["spec"] = map[string]any{"allowedListeners": map[string]any{"namespaces": allowed}}
	}
	class := &unstructured.Unstructured{Object: map[string]any{"status": map[string]any{"supportedFeatures": features}}}
	return ReadWithSets(cache.NewObjectName("ingress", "public"), gw, class, sets)
}

var hasSets = []any{map[string]any{"name": "ListenerSet"}}

// Which namespaces a Gateway allows follows the Gateway API: none, unless it says so.
func TestAllowedListeners(t *testing.T) {
	selector := func(labels map[string]any) map[string]any {
		return map[string]any{"from": "Selector", "selector": map[string]any{"matchLabels": labels}}
	}
	for _, test := range []struct {
		name      string
		namespace string
		allowed   map[string]any
		want      bool
	}{
		{"it says nothing", "sm", nil, false},
		{"nothing of namespaces", "sm", map[string]any{}, false},
		{"none", "sm", map[string]any{"from": "None"}, false},
		{"all", "sm", map[string]any{"from": "All"}, true},
		{"its own", "sm", map[string]any{"from": "Same"}, false},
		{"its own, which is ours", "ingress", map[string]any{"from": "Same"}, true},
		{"a selector of ours", "sm", selector(map[string]any{"team": "blue"}), true},
		{"a selector of others", "sm", selector(map[string]any{"team": "red"}), false},
		{"no selector", "sm", map[string]any{"from": "Selector"}, false},
		{"a malformed selector", "sm", map[string]any{"from": "Selector", "selector": map[string]any{"matchExpressions": []any{map[string]any{"key": "team", "operator": "Like"}}}}, false},
	} {
		sets := Sets{Served: true, Known: true, Namespace: test.namespace, Labels: map[string]string{"team": "blue"}}
		got := gatewayWith(test.allowed, hasSets, sets).Sets
		if got.Used != test.want || (got.Offer != "") == test.want {
			t.Errorf("%s: got %+v", test.name, got)
		}
	}
}

// What cannot be read matters only where it would be used, and an implementation that lacks the kind is offered none.
func TestUseOfListenerSets(t *testing.T) {
	all := map[string]any{"from": "All"}
	unread, absent, served := Sets{Err: "it is forbidden", Namespace: "sm"}, Sets{Known: true, Namespace: "sm"}, Sets{Served: true, Known: true, Namespace: "sm"}
	lacks := []any{map[string]any{"name": "HTTPRouteHostRewrite"}}
	for _, test := range []struct {
		name     string
		allowed  map[string]any
		features []any
		sets     Sets
		want     UseOfSets
	}{
		{"used", all, hasSets, served, UseOfSets{Used: true}},
		{"nothing is said", all, nil, served, UseOfSets{Used: true}},
		{"as text", all, []any{"ListenerSet"}, served, UseOfSets{Used: true}},
		{"not implemented", all, lacks, served, UseOfSets{}},
		{"not implemented nor allowed", nil, lacks, served, UseOfSets{}},
		{"not served", all, hasSets, absent, UseOfSets{}},
		{"not allowed", nil, hasSets, served, UseOfSets{Offer: "allow ListenerSets of namespace sm in its spec.allowedListeners"}},
		{"unread", all, hasSets, unread, UseOfSets{Unknown: "cannot be read: it is forbidden"}},
		{"not read yet", all, hasSets, Sets{Namespace: "sm"}, UseOfSets{Unknown: "have not been read yet"}},
		{"unread, but not allowed", nil, hasSets, unread, UseOfSets{}},
		{"unread, but not implemented", all, lacks, unread, UseOfSets{}},
	} {
		test.want.Namespace = "sm"
		if got := gatewayWith(test.allowed, test.features, test.sets).Sets; fmt.Sprint(got) != fmt.Sprint(test.want) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test.want)
		}
	}
}

// Each gateway port has its listener in one ListenerSet for ever, and none of these has more listeners than it can have.
func TestListenerSetsAreNeverFull(t *testing.T) {
	policy := Policy{Targets: []Target{ToGatewayAPI}, Gateway: cache.NewObjectName("ingress", "public"), Records: "sm"}
	var ports []gateway.PortNumber
	for n := int32(1); n <= 65535; n++ {
		ports = append(ports, gateway.PortNumber{Number: n, Protocol: corev1.ProtocolTCP}, gateway.PortNumber{Number: n, Protocol: corev1.ProtocolUDP})
	}
	g := gatewayWith(map[string]any{"from": "All"}, hasSets, Sets{Served: true, Known: true, Namespace: "sm"})
	steps, err := policy.PlanSets(g, nil, ports, nil)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[gateway.PortNumber]string{}
	for _, step := range steps {
		listeners, _, _ := unstructured.NestedSlice(step.Object.Object, "spec", "listeners")
		if len(listeners) > maxListeners {
			t.Errorf("%s has %d listeners", step.Ref.Name, len(listeners))
		}
		maps.Copy(seen, AttachableSets([]*unstructured.Unstructured{step.Object}, "sm"))
	}
	if len(seen) != len(ports) {
		t.Errorf("%d of %d ports have listeners", len(seen), len(ports))
	}
	if steps, _ := policy.PlanSets(g, nil, ports[2*15000-2:][:64], nil); len(steps) != 1 {
		t.Errorf("the first 32 ports of the default range are in %d ListenerSets", len(steps))
	}
	for _, port := range []gateway.PortNumber{ports[0], ports[30000], ports[len(ports)-1]} {
		d := Gateway{}
		if got := d.numberOf(seen[port], port.Protocol); got != port {
			t.Errorf("%s is %v, not %v", seen[port], got, port)
		}
	}
}

// Law: after what is planned for ListenerSets nothing is left to do, the Services' plans included; and once no port is
// in use, none is left.
func TestNothingIsLeftToDoForListenerSets(t *testing.T) {
	inputs, err := filepath.Glob("testdata/sets*.in.yaml")
	if err != nil || len(inputs) == 0 {
		t.Fatal(inputs, err)
	}
	for _, input := range inputs {
		policy, s, sets := readFixtureSets(t, input)
		policy.Ports = PortRange{15000, 15100}
		p := policy.Decide(s)
		s = applied(s, p)
		ports := inUse(p.Allocations)
		steps, _ := policy.PlanSets(s.Gateway, sets, ports, nil)
		sets = appliedSets(sets, steps)
		if again, _ := policy.PlanSets(s.Gateway, sets, ports, nil); len(again) > 0 {
			t.Errorf("%s: %v are left", input, again)
		}
		kept, _ := policy.PlanSets(s.Gateway, sets, nil, ports)
		for _, step := range kept {
			if step.Action == Delete && slices.ContainsFunc(ports, func(port gateway.PortNumber) bool { return setOf(port) == step.Ref.Name }) {
				t.Errorf("%s: %s goes while a route attaches to it", input, step.Ref.Name)
			}
		}
		steps, _ = policy.PlanSets(s.Gateway, sets, nil, nil)
		for _, obj := range appliedSets(sets, steps) {
			if OwnedSet(obj, policy.Records) && s.Gateway.Sets.Unknown == "" {
				t.Errorf("%s: ListenerSet %s is left", input, obj.GetName())
			}
		}
	}
}

func appliedSets(sets []*unstructured.Unstructured, steps []Step) []*unstructured.Unstructured {
	for _, step := range steps {
		sets = slices.DeleteFunc(slices.Clone(sets), func(obj *unstructured.Unstructured) bool {
			return cache.MetaObjectToName(obj) == cache.MetaObjectToName(step.Object)
		})
		if step.Action != Delete {
			sets = append(sets, step.Object)
		}
	}
	return sets
}

// Nothing attaches to a foreign ListenerSet that has a name of ours, nor does a copy of one of ours count.
func TestForeignListenerSets(t *testing.T) {
	policy, s, sets := readFixtureSets(t, "testdata/sets-foreign.in.yaml")
	for _, obj := range policy.Decide(s).Desired {
		for _, listener := range policy.Attached(obj) {
			if strings.HasPrefix(listener, "service-mirror-15000/") {
				t.Errorf("%s attaches to %s", obj.GetName(), listener)
			}
		}
	}
	copied := sets[1].DeepCopy()
	copied.SetLabels(map[string]string{"app.kubernetes.io/managed-by": "service-mirror"})
	for name, of := range map[string]string{"no record": "", "another name": "service-mirror/service-mirror-15032"} {
		copied.SetAnnotations(map[string]string{PublishedAnnotation: of})
		if OwnedSet(copied, "service-mirror") {
			t.Errorf("%s: it is ours", name)
		}
	}
	copied.SetAnnotations(map[string]string{PublishedAnnotation: "service-mirror/service-mirror-15000"})
	if !OwnedSet(copied, "service-mirror") || OwnedSet(copied, "ingress") {
		t.Error("ours are those of our namespace")
	}
	copied.SetDeletionTimestamp(&metav1.Time{Time: now})
	if steps, err := policy.PlanSets(s.Gateway, []*unstructured.Unstructured{copied}, []gateway.PortNumber{{Number: 15000, Protocol: corev1.ProtocolTCP}}, nil); len(steps) > 0 || err != nil {
		t.Errorf("while it is being deleted: %v, %v", steps, err)
	}
}

// A route of ours that an implementation refuses at a ListenerSet is known by that.
func TestRefusalAtAListenerSet(t *testing.T) {
	policy, s := readFixture(t, "testdata/sets-live.in.yaml")
	p := policy.Decide(s)
	s = applied(s, p)
	for _, live := range s.Live {
		if live.GetKind() != "TCPRoute" {
			continue
		}
		live.SetGeneration(3)
		live.Object["status"] = map[string]any{"parents": []any{map[string]any{
			"controllerName": "example.com/gateway",
			"parentRef":      map[string]any{"group": Group, "kind": "ListenerSet", "namespace": "service-mirror", "name": "service-mirror-15000", "sectionName": "service-mirror-tcp-15000"},
			"conditions": []any{map[string]any{"type": "Accepted", "status": "False", "reason": "NoMatchingParent", "message": "no",
				"observedGeneration": int64(3), "lastTransitionTime": "2026-11-26T19:00:00Z"}},
		}}}
	}
	p = policy.Decide(s)
	if !slices.ContainsFunc(p.Problems, func(problem mirrors.Problem) bool { return problem.Reason == mirrors.NotAccepted }) || !strings.Contains(p.Record.Data["record.json"], "NoMatchingParent") {
		t.Errorf("problems %v, record %v", p.Problems, p.Record.Data)
	}
}
