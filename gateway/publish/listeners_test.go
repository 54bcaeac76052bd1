package publish

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// managed labels the Gateway as the program's to change. It has an HTTP listener and others.
func (w *world) managed(others int) {
	listeners := []any{listener("http", "HTTP", 80)}
	for i := range others {
		listeners = append(listeners, listener(fmt.Sprint("other-", i), "TCP", int64(20000+i)))
	}
	w.gateway(listeners...)
	gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured)
	gw.SetLabels(map[string]string{plan.ListenersLabel: plan.Managed})
	w.server.put("gateways", gw)
}

// ours are the names of the program's listeners.
func (w *world) ours() (names []string) {
	listeners, _, _ := unstructured.NestedSlice(w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured).Object, "spec", "listeners")
	for _, l := range listeners {
		if name := l.(map[string]any)["name"].(string); strings.HasPrefix(name, "service-mirror-") {
			names = append(names, name)
		}
	}
	return names
}

func (w *world) refuse(refuse func(verb, resource string) error) {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	w.server.refuse = refuse
}

func (w *world) countPatches() int {
	n := 0
	for _, text := range w.server.wrote() {
		if strings.HasPrefix(text, "patch gateways") {
			n++
		}
	}
	return n
}

func forbidGateways(verb, resource string) error {
	if resource == "gateways" {
		return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, "public", nil)
	}
	return nil
}

// A listener is added with the first sync of a Service, and goes with it.
func TestControllerAddsListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		w.wrote(append([]string{"patch gateways ingress/public"}, created...)...)
		w.wantPort("bar", 15000)
		w.wait(time.Hour)
		w.wrote()
		w.server.drop("services", "default", "bar")
		w.wait(time.Second)
		if got := w.ours(); len(got) > 0 {
			t.Errorf("its listeners are %v", got)
		}
	})
}

// A listener that cannot be applied is tried again, and until then neither record nor problems say that it is reached.
func TestControllerRetriesListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.refuse(forbidGateways)
		w.start()
		w.wantPort("bar", 0)
		if !w.has(mirrors.WriteFailed) || w.record("bar").Of(5432, corev1.ProtocolTCP).Problem == "" {
			t.Errorf("its record is %+v\n%s", w.record("bar"), w.log)
		}
		w.server.wrote()
		w.wait(time.Hour)
		if n := w.countPatches(); n < 60 || n > 200 {
			t.Errorf("%d tries in an hour", n)
		}
		w.refuse(nil)
		w.wait(time.Minute)
		w.wantPort("bar", 15000)
		if w.has(mirrors.WriteFailed) || len(w.controller.problems.OfLocal()) > 0 {
			t.Errorf("problems are left: %v", w.controller.problems.OfLocal())
		}
	})
}

// A Gateway with fewer free listeners than are needed has as many as it can have, and the Services that have none say so.
func TestControllerFillsTheGateway(t *testing.T) {
	in(t, func(w *world) {
		w.managed(61) // two are free
		for i := range 5 {
			w.server.put("services", exportedService(fmt.Sprint("s", i), 5432))
		}
		w.start()
		given := func() (names []string) {
			for _, name := range []string{"bar", "s0", "s1", "s2", "s3", "s4"} {
				if w.record(name).Of(5432, corev1.ProtocolTCP).Gateway != 0 {
					names = append(names, name)
				}
			}
			return names
		}
		if got := given(); len(got) != 2 || len(w.ours()) != 2 {
			t.Errorf("%v have ports, listeners are %v\n%s", got, w.ours(), w.log)
		}
		w.managed(62) // which has lost ours
		w.wait(time.Minute)
		if got := given(); len(got) != 1 || len(w.ours()) != 1 {
			t.Errorf("%v have ports, listeners are %v\n%s", got, w.ours(), w.log)
		}
	})
}

// edit has a listener of the Gateway take routes of its own namespace alone.
func (w *world) edit(listener string) {
	gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured)
	listeners, _, _ := unstructured.NestedSlice(gw.Object, "spec", "listeners")
	for _, l := range listeners {
		if l.(map[string]any)["name"] == listener {
			w.must(unstructured.SetNestedField(l.(map[string]any), "Same", "allowedRoutes", "namespaces", "from"))
		}
	}
	w.must(unstructured.SetNestedSlice(gw.Object, listeners, "spec", "listeners"))
	w.server.put("gateways", gw)
}

// A listener of ours that someone edits is repaired.
func TestControllerRepairsListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		w.wantPort("bar", 15000)
		w.server.wrote()
		w.edit(tcp0)
		w.wait(time.Second)
		w.wantPort("bar", 15000)
		if n := w.countPatches(); n != 1 {
			t.Errorf("%d applications\n%s", n, w.log)
		}
		w.wait(time.Hour)
		w.wrote()
	})
}

// What another program owns of a listener of ours is left to it, and reported. The other listeners are added.
func TestControllerYieldsListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		w.server.mu.Lock()
		w.server.owned = map[string]bool{tcp0: true}
		w.server.mu.Unlock()
		w.edit(tcp0)
		w.wait(time.Minute)
		w.wantPort("bar", 0)
		if !w.has(mirrors.PortNotServed) || !strings.Contains(w.localProblem(listenersPart), tcp0) || !strings.Contains(w.localProblem(listenersPart), "kubectl-edit") {
			t.Errorf("problems: %v, %v", w.controller.problems.OfLocal(), w.controller.problems.Of(cache.NewObjectName("default", "bar")))
		}
		w.server.put("services", exportedService("new", 5432))
		w.wait(time.Second)
		w.wantPort("new", 15001)
		w.server.wrote()
		w.wait(time.Hour)
		if n := w.countPatches(); n < 30 || n > 120 {
			t.Errorf("%d tries in an hour", n)
		}
		w.server.mu.Lock()
		w.server.owned = nil
		w.server.mu.Unlock()
		w.wait(2 * time.Minute)
		w.wantPort("bar", 15000)
		w.wantPort("new", 15001)
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 {
			t.Errorf("problems are left: %v", problems)
		}
	})
}

// slowGateways answers no write of a Gateway, as where a webhook does not, until it is told to.
type slowGateways struct {
	dynamic.Interface
	answer chan struct{}
}

func (s slowGateways) Resource(resource schema.GroupVersionResource) dynamic.NamespaceableResourceInterface {
	if resource.Resource != "gateways" {
		return s.Interface.Resource(resource)
	}
	return slowResource{s.Interface.Resource(resource), s.answer}
}

type slowResource struct {
	dynamic.NamespaceableResourceInterface
	answer chan struct{}
}

func (s slowResource) Namespace(string) dynamic.ResourceInterface { return s }

func (s slowResource) Apply(ctx context.Context, _ string, _ *unstructured.Unstructured, _ metav1.ApplyOptions, _ ...string) (*unstructured.Unstructured, error) {
	select {
	case <-s.answer:
		return nil, apierrors.NewInternalError(fmt.Errorf("it timed out"))
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// A Gateway that takes long to write holds up neither what needs no listener nor, for long, what needs one.
func TestSlowGatewayHoldsNothingUp(t *testing.T) {
	in(t, func(w *world) {
		w.server.put("services", exportedService("web", 80))
		for i := range 2 * workers {
			w.server.put("services", exportedService(fmt.Sprint("s", i), 80, 5432))
		}
		w.managed(0)
		slow := slowGateways{w.server.dynamic, make(chan struct{})}
		w.standby()
		w.controller.clients.WriteDynamic = slow
		w.lead()
		w.wait(5 * patience)
		n := 0
		for i := range 2 * workers {
			if w.server.get("configmaps", "sm", fmt.Sprint("default.s", i)) != nil {
				n++
			}
		}
		if w.server.get("httproutes", "default", "web.service-mirror") == nil || n < 2*workers-1 { // one of them writes
			t.Errorf("web has no route, or only %d others are published\n%s", n, w.log)
		}
		close(slow.answer)
		w.wait(time.Second)
		if !w.has(mirrors.WriteFailed) {
			t.Errorf("no problem says so\n%s", w.log)
		}
	})
}

// What depends on the Gateway waits until it is read, not only cached.
func TestSettledHasReadTheGateway(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		c := w.controller.caches
		c.mu.Lock()
		c.current = plan.Gateway{}
		c.mu.Unlock()
		if c.settled() {
			t.Error("it is settled before the Gateway is read")
		}
		c.readGateway()
		if !c.settled() {
			t.Error("it is not settled")
		}
	})
}

// A dry run shows the listeners that would be added and removed, and writes none.
func TestDryRunShowsListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		w.stop()
		gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured)
		w.must(unstructured.SetNestedSlice(gw.Object, []any{listener("http", "HTTP", 80), listener("service-mirror-tcp-15009", "TCP", 15009)}, "spec", "listeners"))
		w.server.put("gateways", gw)
		w.server.wrote()
		out := w.dryRun()
		for _, want := range []string{"apply listeners of Gateway ingress/public in paris", "-  name: service-mirror-tcp-15009", "+  name: " + tcp0} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not print %q:\n%s", want, out)
			}
		}
		w.wrote()
		w.start()
		if n := w.countPatches(); n != 1 {
			t.Errorf("%d applications\n%s", n, w.log)
		}
		w.stop()
		if out := w.dryRun(); !strings.Contains(out, "no changes in") {
			t.Errorf("it prints %s", out)
		}
	})
}

// Another program that removes the listeners again is reported, and not fought at full speed.
func TestControllerDoesNotFightOverListeners(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.start()
		undo := func(d time.Duration, every time.Duration) {
			for range int(d / every) {
				if len(w.ours()) > 0 {
					w.managed(0)
				}
				w.wait(every)
			}
		}
		undo(10*time.Second, time.Second)
		if !w.has(mirrors.Overwritten) || !slices.ContainsFunc(w.controller.problems.OfLocal(), func(p status.Problem) bool { return p.Part == listenersPart }) {
			t.Errorf("no problem says so: %v\n%s", w.controller.problems.OfLocal(), w.log)
		}
		undo(30*time.Minute, time.Second)
		w.server.wrote()
		undo(time.Hour, time.Second)
		if n := w.countPatches(); n < 10 || n > 15 {
			t.Errorf("%d applications in an hour", n)
		}
		w.wait(time.Hour)
		w.wantPort("bar", 15000)
		if w.has(mirrors.Overwritten) || len(w.controller.problems.OfLocal()) > 0 {
			t.Errorf("problems are left: %v", w.controller.problems.OfLocal())
		}
		gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured)
		gw.SetLabels(nil)
		gw.SetCreationTimestamp(metav1.Now())
		w.server.put("gateways", gw)
		w.wait(time.Minute)
		if w.server.wrote(); len(w.controller.problems.OfLocal()) > 0 {
			t.Errorf("problems are left: %v", w.controller.problems.OfLocal())
		}
	})
}

// A replica that no longer leads knows nothing of the problems that the leader has.
func TestFormerLeaderForgetsProblemsOfTheCluster(t *testing.T) {
	in(t, func(w *world) {
		w.managed(0)
		w.refuse(forbidGateways)
		w.standby()
		ctx, cancel := context.WithCancel(w.Context())
		var running sync.WaitGroup
		running.Go(func() { w.controller.Lead(ctx, time.Second) })
		w.wait(time.Minute)
		cancel()
		running.Wait()
		w.wait(time.Hour)
		if p := w.controller.problems.OfLocal(); len(p) > 0 {
			t.Errorf("a standby says: %v", p)
		}
	})
}
