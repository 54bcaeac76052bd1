package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// allowsOurs is what deploy/gateways/gateway-api has a Gateway say to allow the program's ListenerSets.
var allowsOurs = "allowedListeners: {namespaces: {from: Selector, selector: {matchLabels: {kubernetes.io/metadata.name: " + ours + "}}}}"

// classOf creates the test's GatewayClass, whose implementation says that it has these features, and returns its name.
func (e *env) classOf(features ...string) string {
	e.Helper()
	classes := gateway.GatewayV1().GatewayClasses()
	class, err := classes.Create(e.ctx, &gatewayv1.GatewayClass{ObjectMeta: metav1.ObjectMeta{Name: e.id}, Spec: gatewayv1.GatewayClassSpec{ControllerName: "example.com/gateway"}}, metav1.CreateOptions{})
	e.must(err)
	e.Cleanup(func() { classes.Delete(context.Background(), e.id, metav1.DeleteOptions{}) })
	for _, feature := range features {
		class.Status.SupportedFeatures = append(class.Status.SupportedFeatures, gatewayv1.SupportedFeature{Name: gatewayv1.FeatureName(feature)})
	}
	_, err = classes.UpdateStatus(e.ctx, class, metav1.UpdateOptions{})
	e.must(err)
	return e.id
}

// gatewayWith creates the test's Gateway, with more of its spec than listeners.
func (e *env) gatewayWith(class, more string) {
	e.Helper()
	e.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: public}\nspec:\n  gatewayClassName: " + class + "\n  " + more + "\n  listeners:\n  - " + http + "\n")
}

// listenersOf wants the listeners of a ListenerSet of the program's, each with its port; none: it does not exist.
func (e *env) listenersOf(name string, want ...string) func() error {
	return func() error {
		set, err := gateway.GatewayV1().ListenerSets(ours).Get(e.ctx, name, metav1.GetOptions{})
		if len(want) == 0 {
			return gone(err)
		}
		if err != nil {
			return err
		}
		var got []string
		for _, l := range set.Spec.Listeners {
			got = append(got, fmt.Sprintf("%s %d", l.Name, l.Port))
		}
		if !slices.Equal(got, want) || string(set.Spec.ParentRef.Name) != "public" || string(*set.Spec.ParentRef.Namespace) != e.id {
			return fmt.Errorf("listeners are %v, want %v: %+v", got, want, set.Spec)
		}
		return nil
	}
}

// setWrites are the program's writes of ListenerSets since a mark.
func (e *env) setWrites(since harness.Mark) (texts []string) {
	e.Helper()
	requests, err := paris.Requests(since, "listenersets", func(r harness.Request) bool {
		return r.Writes() && strings.HasPrefix(r.UserAgent, "service-mirror/")
	})
	e.must(err)
	for _, r := range requests {
		texts = append(texts, r.String())
	}
	return texts
}

// saySet has the implementation accept a ListenerSet, or refuse it.
func (e *env) saySet(name string, status metav1.ConditionStatus, reason string) {
	e.Helper()
	sets := gateway.GatewayV1().ListenerSets(ours)
	e.soon("its status is written", func() error {
		set, err := sets.Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		set.Status.Conditions = []metav1.Condition{{Type: "Accepted", Status: status, Reason: reason, Message: "said by hand", ObservedGeneration: set.Generation, LastTransitionTime: metav1.Now()}}
		_, err = sets.UpdateStatus(e.ctx, set, metav1.UpdateOptions{})
		return err
	})
}

const firstSet, ownTCP, ownUDP = "service-mirror-15000", "service-mirror-tcp-15000 15000", "service-mirror-udp-15000 15000"

// A Gateway that allows the program's ListenerSets gets its listeners by one, and is not changed itself. They stay over a
// restart, are repaired, and go when nothing needs them.
func TestListenerSets(t *testing.T) {
	e := newEnv(t)
	e.gatewayWith(e.classOf("ListenerSet"), allowsOurs)
	before, err := gateway.GatewayV1().Gateways(e.id).Get(e.ctx, "public", metav1.GetOptions{})
	e.must(err)
	e.export("db", port("postgres", 5432), udp("dns", 53))
	p := e.start()
	e.soon("record", e.recorded("db", 15000, 15000))
	e.soon("listeners", e.listenersOf(firstSet, ownTCP, ownUDP))
	e.saySet(firstSet, metav1.ConditionTrue, "Accepted")
	route, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
	e.must(err)
	if parent := route.Spec.ParentRefs[0]; *parent.Kind != "ListenerSet" || string(*parent.Namespace) != ours || parent.Name != firstSet || *parent.SectionName != "service-mirror-tcp-15000" {
		t.Errorf("the route attaches to %+v", parent)
	}
	mark, err := paris.Mark()
	e.must(err)
	e.must(p.Stop(10 * time.Second))
	p = e.start()
	e.soon("it is up", func() error {
		if p.Log.Count("Caches are synced") == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	e.export("more", port("postgres", 5432))
	e.soon("another one's record", e.recorded("more", 15001))
	if writes := e.setWrites(mark); len(writes) != 1 || !strings.Contains(writes[0], "update") {
		t.Errorf("written %v, want the one update", writes)
	}
	for _, write := range e.writes(mark) {
		if strings.Contains(write, "db") {
			t.Errorf("written without a change: %s", write)
		}
	}

	sets := gateway.GatewayV1().ListenerSets(ours)
	edited, err := sets.Get(e.ctx, firstSet, metav1.GetOptions{})
	e.must(err)
	edited.Spec.Listeners = edited.Spec.Listeners[:1]
	edited.Spec.Listeners[0].Protocol = "UDP"
	_, err = sets.Update(e.ctx, edited, metav1.UpdateOptions{})
	e.must(err)
	e.soon("the edit is undone", e.listenersOf(firstSet, ownTCP, ownUDP, "service-mirror-tcp-15001 15001"))
	e.must(sets.Delete(e.ctx, firstSet, metav1.DeleteOptions{}))
	e.soon("it is recreated", e.listenersOf(firstSet, ownTCP, ownUDP, "service-mirror-tcp-15001 15001"))
	e.saySet(firstSet, metav1.ConditionTrue, "Accepted")
	e.soon("its ports are the same", e.recorded("db", 15000, 15000))
	e.soon("the other one's, too", e.recorded("more", 15001))
	e.unexport("db")
	e.soon("listeners are removed", e.listenersOf(firstSet, "service-mirror-tcp-15001 15001"))
	e.unexport("more")
	e.soon("the ListenerSet is removed", e.listenersOf(firstSet))
	after, err := gateway.GatewayV1().Gateways(e.id).Get(e.ctx, "public", metav1.GetOptions{})
	e.must(err)
	if after.ResourceVersion != before.ResourceVersion {
		t.Errorf("the Gateway has changed: %+v", after)
	}
}

// A Gateway that allows no ListenerSets is named with the remedy, and one that its implementation refuses with its reason.
func TestRefusedListenerSet(t *testing.T) {
	e := newEnv(t)
	e.gatewayWith(e.classOf("ListenerSet"), "infrastructure: {}")
	e.export("db", port("postgres", 5432))
	p := e.start()
	logged := func(words ...string) func() error {
		return func() error {
			if p.Log.Count(words...) == 0 {
				return fmt.Errorf("it is not")
			}
			return nil
		}
	}
	e.soon("the remedy is logged", logged("PortNotServed", "allow ListenerSets of namespace "+ours))
	e.soon("record", e.recorded("db", 0))
	e.gatewayWith(e.id, allowsOurs)
	e.soon("it is allowed", e.recorded("db", 15000))
	e.saySet(firstSet, metav1.ConditionFalse, "NotAllowed")
	e.soon("the record says so", e.recorded("db", 0))
	e.soon("the refusal is logged", logged("NotAllowed", "said by hand", "allowedListeners"))
	e.soon("the route is closed", func() error {
		_, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
	e.saySet(firstSet, metav1.ConditionTrue, "Accepted")
	e.soon("and is opened again", e.recorded("db", 15000))
	e.gatewayWith(e.id, "allowedListeners: {namespaces: {from: None}}")
	e.soon("it is no longer allowed", e.listenersOf(firstSet))
	e.soon("the record says so", e.recorded("db", 0))
}

// Where nothing says what the implementation has, its word on the ListenerSet counts.
func TestListenerSetOfASilentImplementation(t *testing.T) {
	e := newEnv(t)
	e.gatewayWith(e.classOf(), "allowedListeners: {namespaces: {from: All}}")
	e.export("db", port("postgres", 5432))
	e.start()
	e.soon("listeners", e.listenersOf(firstSet, ownTCP))
	e.soon("record", func() error {
		r, err := e.record("db")
		if err != nil || len(r.Ports) != 1 || r.Ports[0].Gateway != 0 || !strings.Contains(r.Ports[0].Problem, "has not been accepted yet") {
			return fmt.Errorf("%+v, %v", r, err)
		}
		return nil
	})
	e.saySet(firstSet, metav1.ConditionTrue, "Accepted")
	e.soon("it is accepted", e.recorded("db", 15000))
}

// A foreign ListenerSet of the name is never changed, and nothing attaches to it.
func TestForeignListenerSet(t *testing.T) {
	e := newEnv(t)
	e.gatewayWith(e.classOf("ListenerSet"), allowsOurs)
	sets := gateway.GatewayV1().ListenerSets(ours)
	namespace := gatewayv1.Namespace(e.id)
	foreign, err := sets.Create(e.ctx, &gatewayv1.ListenerSet{ObjectMeta: metav1.ObjectMeta{Name: firstSet},
		Spec: gatewayv1.ListenerSetSpec{ParentRef: gatewayv1.ParentGatewayReference{Name: "public", Namespace: &namespace}, Listeners: []gatewayv1.ListenerEntry{{Name: "x", Port: 9999, Protocol: "TCP"}}}}, metav1.CreateOptions{})
	e.must(err)
	e.export("db", port("postgres", 5432))
	e.start()
	e.soon("record", e.recorded("db", 15032))
	e.soon("listeners", e.listenersOf("service-mirror-15032", "service-mirror-tcp-15032 15032"))
	e.saySet("service-mirror-15032", metav1.ConditionTrue, "Accepted")
	e.unexport("db")
	e.soon("listeners are removed", e.listenersOf("service-mirror-15032"))
	if got, err := sets.Get(e.ctx, firstSet, metav1.GetOptions{}); err != nil || got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("it has changed: %+v, %v", got, err)
	}
}

// An API server takes as many listeners in a ListenerSet as the program puts into one, and no more.
func TestFullListenerSet(t *testing.T) {
	set := &gatewayv1.ListenerSet{ObjectMeta: metav1.ObjectMeta{Name: "full"}, Spec: gatewayv1.ListenerSetSpec{ParentRef: gatewayv1.ParentGatewayReference{Name: "public"}}}
	for n := range gatewayv1.PortNumber(32) {
		for _, protocol := range []gatewayv1.ProtocolType{"TCP", "UDP"} {
			name := fmt.Sprintf("service-mirror-%s-%d", strings.ToLower(string(protocol)), 15000+n)
			set.Spec.Listeners = append(set.Spec.Listeners, gatewayv1.ListenerEntry{Name: gatewayv1.SectionName(name), Port: 15000 + n, Protocol: protocol})
		}
	}
	sets := gateway.GatewayV1().ListenerSets(ours)
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	if _, err := sets.Create(t.Context(), set, dryRun); err != nil {
		t.Error(err)
	}
	set.Spec.Listeners = append(set.Spec.Listeners, gatewayv1.ListenerEntry{Name: "one-more", Port: 15032, Protocol: "TCP"})
	if _, err := sets.Create(t.Context(), set, dryRun); !apierrors.IsInvalid(err) {
		t.Errorf("with one more: %v", err)
	}
}

// Pruning removes the program's ListenerSets, and those of others stay.
func TestPruneListenerSets(t *testing.T) {
	e := newEnv(t)
	e.gatewayWith(e.classOf("ListenerSet"), allowsOurs)
	e.export("db", port("postgres", 5432))
	p := e.start()
	e.soon("listeners", e.listenersOf(firstSet, ownTCP))
	e.must(p.Stop(10 * time.Second))
	sets := gateway.GatewayV1().ListenerSets(ours)
	twin, err := sets.Get(e.ctx, firstSet, metav1.GetOptions{})
	e.must(err)
	twin.Name, twin.ResourceVersion, twin.UID = "copy", "", ""
	_, err = sets.Create(e.ctx, twin, metav1.CreateOptions{})
	e.must(err)
	e.says(e.once(0, append(e.args(), "--prune")...), []string{"ListenerSet " + ours + "/" + firstSet + " in "})
	e.must(e.listenersOf(firstSet)())
	_, err = sets.Get(e.ctx, "copy", metav1.GetOptions{})
	e.must(err)
}
