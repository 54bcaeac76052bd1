package publish

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// An export is one label: all of its ports are routed and recorded, nothing is written while nothing changes, and what
// is unexported is closed.
func TestExportIsPublished(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http, tls, tcp0, tcp1, udp0)
	e.export("bar", port("http", 80), port("https", 443), port("grpc", 50051), port("postgres", 5432), udp("dns", 53))
	e.start()
	e.soon("record", e.recorded("bar", 80, 443, 15000, 15001, 15000))
	routes := gateway.GatewayV1()
	route, err := routes.HTTPRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	if len(route.Spec.Hostnames) != 6 || string(route.Spec.Hostnames[2]) != "bar-paris."+e.id+".svc.cluster.local" {
		t.Errorf("the names are %v", route.Spec.Hostnames)
	}
	if owner := route.OwnerReferences; len(owner) != 1 || owner[0].Name != "bar" || owner[0].BlockOwnerDeletion == nil || *owner[0].BlockOwnerDeletion {
		t.Errorf("the owners are %+v", owner)
	}
	_, err = routes.TLSRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	_, err = routes.TCPRoutes(e.id).Get(e.ctx, "bar.5432.service-mirror", metav1.GetOptions{})
	e.must(err)
	_, err = routes.UDPRoutes(e.id).Get(e.ctx, "bar.53.service-mirror", metav1.GetOptions{})
	e.must(err)

	mark, err := paris.Mark()
	e.must(err)
	time.Sleep(5 * time.Second)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written while nothing changed: %v", writes)
	}

	e.unexport("bar")
	begin := time.Now()
	e.soon("the routes are gone", func() error {
		tcp, err := routes.TCPRoutes(e.id).List(e.ctx, metav1.ListOptions{})
		if err != nil || len(tcp.Items) > 0 {
			return fmt.Errorf("%d TCPRoutes, %v", len(tcp.Items), err)
		}
		_, err = routes.HTTPRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
	t.Logf("closed after %v", time.Since(begin).Round(time.Millisecond))
	e.soon("the record is released", func() error {
		configMap, err := paris.CoreV1().ConfigMaps(ours).Get(e.ctx, e.id+".bar", metav1.GetOptions{})
		if err != nil || configMap.Labels["service-mirror.io/record"] != "released" || len(configMap.Data) > 0 {
			return fmt.Errorf("%+v, %v", configMap, err)
		}
		return nil
	})
}

// What someone changes, deletes or has in the way.
func TestDriftAndForeignObjects(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	e.apply(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: foo.service-mirror, annotations: {mine: "yes"}}
spec: {hostnames: [foo.example.com]}
`)
	routes := gateway.GatewayV1().HTTPRoutes(e.id)
	foreign, err := routes.Get(e.ctx, "foo.service-mirror", metav1.GetOptions{})
	e.must(err)
	e.export("bar", port("http", 80))
	e.export("foo", port("http", 80))
	p := e.start()
	e.soon("bar's record", e.recorded("bar", 80))
	e.soon("foo's record", e.recorded("foo", 0))
	e.soon("the conflict is logged", func() error {
		if p.Log.Count("Conflict", "HTTPRoute foo.service-mirror already exists") == 0 {
			return fmt.Errorf("it is not")
		}
		return nil
	})
	want, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	// A copy, labels and all.
	twin := want.DeepCopy()
	twin.Name, twin.ResourceVersion, twin.UID = "copy", "", ""
	twin, err = routes.Create(e.ctx, twin, metav1.CreateOptions{})
	e.must(err)

	edited := want.DeepCopy()
	edited.Spec.Hostnames = edited.Spec.Hostnames[:1]
	edited.Labels["team"] = "blue"
	_, err = routes.Update(e.ctx, edited, metav1.UpdateOptions{})
	e.must(err)
	e.soon("the edit is undone", func() error {
		got, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		if err != nil || !equality.Semantic.DeepEqual(got.Spec, want.Spec) || got.Labels["team"] != "blue" {
			return fmt.Errorf("%+v, %v", got, err)
		}
		return nil
	})
	e.must(routes.Delete(e.ctx, "bar.service-mirror", metav1.DeleteOptions{}))
	e.soon("it is recreated", func() error {
		_, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		return err
	})
	e.must(paris.CoreV1().ConfigMaps(ours).Delete(e.ctx, e.id+".bar", metav1.DeleteOptions{}))
	e.soon("its record is recreated", e.recorded("bar", 80))
	e.unexport("foo")
	e.unexport("bar")
	e.soon("bar's route is gone", func() error {
		_, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
	for _, before := range []*gatewayv1.HTTPRoute{foreign, twin} {
		if got, err := routes.Get(e.ctx, before.Name, metav1.GetOptions{}); err != nil || got.ResourceVersion != before.ResourceVersion {
			t.Errorf("%s has changed: %+v, %v", before.Name, got, err)
		}
	}
}

// Over a restart everything stays, nothing is written, and what was deleted meanwhile is closed by Kubernetes itself.
func TestRestart(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http, tcp0, tcp1)
	e.export("db", port("postgres", 5432))
	p := e.start()
	e.soon("db's record", e.recorded("db", 15000))
	e.export("more", port("http", 80), port("postgres", 5432))
	e.soon("the other record", e.recorded("more", 80, 15001))
	e.unexport("db")
	e.soon("db's record is released", func() error {
		_, err := e.record("db")
		if err == nil {
			return fmt.Errorf("it is a record")
		}
		return nil
	})
	e.must(p.Stop(10 * time.Second))

	mark, err := paris.Mark()
	e.must(err)
	p = e.start()
	e.soon("it is up", func() error {
		if p.Log.Count("Caches are synced") == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	e.export("third", port("postgres", 5432))
	e.soon("there is no port for a third one", e.recorded("third", 0))
	e.patchService("db", map[string]any{"labels": map[string]any{exported: e.id}})
	e.soon("db has the port that it had", e.recorded("db", 15000))
	for _, write := range e.writes(mark) {
		if strings.Contains(write, "more") {
			t.Errorf("written without a change: %s", write)
		}
	}
	e.must(p.Stop(10 * time.Second))

	e.must(paris.CoreV1().Services(e.id).Delete(e.ctx, "db", metav1.DeleteOptions{}))
	// Its controller looks for new kinds every 30 s.
	e.must(harness.Eventually(time.Minute, "Kubernetes deletes the route", func() error {
		_, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
		return gone(err)
	}))
}

// What an implementation refuses is a problem, and the record does not say that it is reached.
func TestRefusedRoute(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	e.export("bar", port("http", 80))
	p := e.start()
	e.soon("record", e.recorded("bar", 80))
	routes := gateway.GatewayV1().HTTPRoutes(e.id)
	say := func(status metav1.ConditionStatus, reason string) {
		t.Helper()
		route, err := routes.Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		e.must(err)
		section := gatewayv1.SectionName("http")
		route.Status.Parents = []gatewayv1.RouteParentStatus{{ParentRef: gatewayv1.ParentReference{Name: "public", SectionName: &section}, ControllerName: "example.com/gateway",
			Conditions: []metav1.Condition{{Type: "Accepted", Status: status, Reason: reason, Message: "said by hand", ObservedGeneration: route.Generation, LastTransitionTime: metav1.Now()}}}}
		_, err = routes.UpdateStatus(e.ctx, route, metav1.UpdateOptions{})
		e.must(err)
	}
	say(metav1.ConditionFalse, "NotAllowedByListeners")
	e.soon("the record says so", e.recorded("bar", 0))
	e.soon("the log says so", func() error {
		if p.Log.Count("NotAccepted", "said by hand") == 0 {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	e.soon("an Event says so", func() error {
		events, err := paris.CoreV1().Events(e.id).List(e.ctx, metav1.ListOptions{FieldSelector: "reason=NotAccepted,involvedObject.name=bar"})
		if err != nil || len(events.Items) == 0 {
			return fmt.Errorf("%d Events, %v", len(events.Items), err)
		}
		return nil
	})
	say(metav1.ConditionTrue, "Accepted")
	e.soon("and is corrected", e.recorded("bar", 80))
}

// On a Gateway that is labelled for it, listeners are added and removed, and the others stay.
func TestManagedListeners(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	_, err := paris.Kubectl(e.ctx, "label", "-n", e.id, "gateway/public", "service-mirror.io/listeners=managed")
	e.must(err)
	e.export("db", port("postgres", 5432), udp("dns", 53))
	e.start()
	e.soon("record", e.recorded("db", 15000, 15000))
	listeners := func(want ...string) func() error {
		return func() error {
			gw, err := gateway.GatewayV1().Gateways(e.id).Get(e.ctx, "public", metav1.GetOptions{})
			if err != nil {
				return err
			}
			var got []string
			for _, l := range gw.Spec.Listeners {
				got = append(got, fmt.Sprintf("%s %d", l.Name, l.Port))
			}
			if !slices.Equal(slices.Sorted(slices.Values(got)), want) {
				return fmt.Errorf("listeners are %v, want %v", got, want)
			}
			return nil
		}
	}
	e.soon("listeners", listeners("http 80", "service-mirror-tcp-15000 15000", "service-mirror-udp-15000 15000"))
	mark, err := paris.Mark()
	e.must(err)
	time.Sleep(3 * time.Second)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written while nothing changed: %v", writes)
	}
	e.unexport("db")
	e.soon("they are removed", listeners("http 80"))
}

// Readiness is in the record, and costs at most one write a second.
func TestReadiness(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	e.export("bar", port("http", 80))
	// Kubernetes makes no EndpointSlices of pods on nodes that do not exist.
	_, err := paris.CoreV1().Nodes().Create(e.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: e.id}}, metav1.CreateOptions{})
	e.must(err)
	t.Cleanup(func() { paris.CoreV1().Nodes().Delete(context.Background(), e.id, metav1.DeleteOptions{}) })
	pods := paris.CoreV1().Pods(e.id)
	pod, err := pods.Create(e.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "bar", Labels: map[string]string{"app": "bar"}},
		Spec: corev1.PodSpec{NodeName: e.id, Containers: []corev1.Container{{Name: "c", Image: "none"}}}}, metav1.CreateOptions{})
	e.must(err)
	ready := func(status corev1.ConditionStatus) {
		t.Helper()
		pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: "10.1.2.3", PodIPs: []corev1.PodIP{{IP: "10.1.2.3"}}, Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: status}}}
		var err error
		pod, err = pods.UpdateStatus(e.ctx, pod, metav1.UpdateOptions{})
		e.must(err)
	}
	recorded := func(want bool) func() error {
		return func() error {
			if r, err := e.record("bar"); err != nil || r.Ready != want {
				return fmt.Errorf("%+v, %v", r, err)
			}
			return nil
		}
	}
	e.start()
	e.soon("record", recorded(false))
	ready(corev1.ConditionTrue)
	e.soon("it is ready", recorded(true))
	mark, err := paris.Mark()
	e.must(err)
	begin := time.Now()
	for time.Since(begin) < 4*time.Second {
		ready(corev1.ConditionFalse)
		time.Sleep(100 * time.Millisecond)
		ready(corev1.ConditionTrue)
		time.Sleep(100 * time.Millisecond)
	}
	e.soon("it is ready", recorded(true))
	if writes := e.writes(mark); len(writes) > 2+int(time.Since(begin).Seconds()) {
		t.Errorf("%d writes in %v: %v", len(writes), time.Since(begin), writes)
	}
	e.must(pods.Delete(e.ctx, "bar", metav1.DeleteOptions{GracePeriodSeconds: new(int64)}))
	e.soon("it is not", recorded(false))
}

// To Ingress, without a Gateway. A dry run prints the same and writes nothing.
func TestIngress(t *testing.T) {
	e := newEnv(t)
	e.export("bar", port("http", 80), port("https", 443))
	args := []string{"--to", "ingress", "--ingress-class", "none", "--tls-secret", "wildcard"}
	mark, err := paris.Mark()
	e.must(err)
	out, err := harness.Run(exec.Command(harness.Program("service-mirror-race"), e.args(append(args, "--dry-run")...)...))
	e.must(err)
	for _, want := range []string{"create Ingress bar.service-mirror for exported Service " + e.id + "/bar", "create ConfigMap " + e.id + ".bar", "bar-paris." + e.id + ".svc"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run does not print %q:\n%s", want, out)
		}
	}
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("the dry run wrote %v", writes)
	}
	e.start(args...)
	e.soon("record", e.recorded("bar", 80, 443))
	ingress, err := paris.NetworkingV1().Ingresses(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	if len(ingress.Spec.Rules) != 6 || len(ingress.Spec.TLS) != 1 {
		t.Errorf("the Ingress is %+v", ingress.Spec)
	}
	mark, err = paris.Mark()
	e.must(err)
	time.Sleep(2 * time.Second)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written while nothing changed: %v", writes)
	}
}

// A route is created in the moment of the export: that the policy may know of that a little later is no problem.
func TestExportIsNoProblemOfThePolicy(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	const n = 30
	for i := range n {
		e.export(fmt.Sprint("s", i), port("http", 80))
		e.unexport(fmt.Sprint("s", i))
	}
	p := e.start()
	e.soon("it is up", func() error {
		if p.Log.Count("Caches are synced") == 0 {
			return fmt.Errorf("not yet")
		}
		return nil
	})
	var slowest time.Duration
	for i := range n {
		name := fmt.Sprint("s", i)
		begin := time.Now()
		e.patchService(name, map[string]any{"labels": map[string]any{exported: e.id}})
		e.soon("record of "+name, e.recorded(name, 80))
		slowest = max(slowest, time.Since(begin))
	}
	t.Logf("the slowest export took %v", slowest.Round(time.Millisecond))
	// One refusal of each is no problem. The API server's cache of Services may be late by more now and then.
	e.soon("what was reported is over", func() error {
		if begun, over := p.Log.Count("has a problem"), p.Log.Count("no longer has this problem"); begun != over {
			return fmt.Errorf("%d problems were reported, and %d are over", begun, over)
		}
		return nil
	})
	if begun := p.Log.Count("has a problem"); begun > n/3 {
		t.Errorf("%d problems were reported", begun)
	}
}

// Gateway API 1.5 has TCPRoute as v1alpha2 alone: the version is discovered, and discovered again once it changes.
func TestServedVersions(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(tcp0)
	serve := func(v1, v1alpha2 bool) {
		t.Helper()
		patch := fmt.Sprintf(`[{"op":"replace","path":"/spec/versions/0/served","value":%t},{"op":"replace","path":"/spec/versions/1/served","value":%t}]`, v1, v1alpha2)
		_, err := paris.Kubectl(context.Background(), "patch", "crd", "tcproutes.gateway.networking.k8s.io", "--type=json", "-p", patch)
		e.must(err)
	}
	versions, err := paris.Kubectl(e.ctx, "get", "crd", "tcproutes.gateway.networking.k8s.io", "-o", "jsonpath={.spec.versions[*].name}")
	e.must(err)
	if versions != "v1 v1alpha2" {
		t.Fatalf("the versions are %q", versions)
	}
	// Where a policy of Gateway API protects its CustomResourceDefinitions, it is in the way here.
	_, err = paris.Kubectl(e.ctx, "delete", "validatingadmissionpolicybinding,validatingadmissionpolicy", "--all=false", "--ignore-not-found", "safe-upgrades.gateway.networking.k8s.io")
	e.must(err)
	t.Cleanup(func() { serve(true, false) })
	serve(false, true)
	e.export("db", port("postgres", 5432))
	e.start()
	e.soon("record", e.recorded("db", 15000))
	route, err := paris.Kubectl(e.ctx, "get", "tcproutes.v1alpha2.gateway.networking.k8s.io", "-n", e.id, "db.5432.service-mirror", "-o", "jsonpath={.spec.parentRefs[0].sectionName}")
	e.must(err)
	if route != "tcp-15000" {
		t.Errorf("it attaches to %q", route)
	}
	mark, err := paris.Mark()
	e.must(err)
	serve(true, false)
	e.must(harness.Eventually(time.Minute, "the new version is watched", func() error {
		watches, err := paris.Requests(mark, "tcproutes", func(r harness.Request) bool {
			return r.Verb == "watch" && strings.HasPrefix(r.UserAgent, "service-mirror/") && strings.Contains(r.RequestURI, "/v1/")
		})
		if err != nil || len(watches) == 0 {
			return fmt.Errorf("it is not (%v)", err)
		}
		return nil
	}))
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written: %v", writes)
	}
	e.unexport("db")
	e.soon("the route is gone", func() error {
		_, err := gateway.GatewayV1().TCPRoutes(e.id).Get(e.ctx, "db.5432.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
}

// What another program has changed of the publisher's own listener is left to it, and reported; the others are added. Once
// it lets go, the listener is set back.
func TestEditedListeners(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http)
	e.kubectl("label", "gateway/public", "service-mirror.io/listeners=managed")
	e.export("db", port("postgres", 5432))
	p := e.start()
	e.soon("record", e.recorded("db", 15000))
	e.gatewayOf(http, "{name: service-mirror-tcp-15000, protocol: TCP, port: 15000, allowedRoutes: {namespaces: {from: Selector, selector: {matchLabels: {no: body}}}}}")
	e.soon("the edit counts", e.recorded("db", 0))
	e.soon("it is reported", func() error {
		if p.Log.Count("service-mirror-tcp-15000 that another program changed") == 0 {
			return errors.New("it is not")
		}
		return nil
	})
	e.export("more", port("postgres", 5432))
	e.soon("another listener is added", e.recorded("more", 15001))
	e.gatewayOf(http)
	e.must(harness.Eventually(2*time.Minute, "the listener is set back", func() error {
		from, err := paris.Kubectl(e.ctx, "get", "gateway", "-n", e.id, "public", "-o", `jsonpath={.spec.listeners[?(@.name=="service-mirror-tcp-15000")].allowedRoutes.namespaces.from}`)
		if err == nil && from != "All" {
			err = fmt.Errorf("it admits %q", from)
		}
		return errors.Join(err, e.recorded("db", 15000)())
	}))
}
