package publish

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// routed has the leader before have created the TCPRoute of a Service, at a listener, and crashed before it wrote the record.
func (w *world) routed(service, listener string, change ...func(*unstructured.Unstructured)) {
	name := service + ".5432.service-mirror"
	parent := map[string]any{"group": plan.Group, "kind": "Gateway", "namespace": "ingress", "name": "public", "sectionName": listener}
	if set, section, found := strings.Cut(listener, "/"); found {
		parent = map[string]any{"group": plan.Group, "kind": "ListenerSet", "namespace": "sm", "name": set, "sectionName": section}
	}
	route := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": plan.Group + "/v1", "kind": "TCPRoute",
		"metadata": map[string]any{"namespace": "default", "name": name,
			"labels":      map[string]any{mirrors.ManagedByLabel: mirrors.ManagedBy, plan.ServiceLabel: service},
			"annotations": map[string]any{plan.PublishedAnnotation: "default/" + name}},
		"spec": map[string]any{"parentRefs": []any{parent}},
	}}
	for _, f := range change {
		f(route)
	}
	w.server.put("tcproutes", route)
}

// A replica that takes over lists from the server which gateway ports routes have, too, and which ports the Gateway's
// listeners have: the caches of routes and of the Gateway may be behind, and no record may say so.
func TestControllerKnowsTheRoutesBeforeItLeads(t *testing.T) {
	for name, test := range map[string]struct {
		managed  bool
		listener string
	}{
		"a listener of others":                    {false, "a"},
		"a listener that the cache does not have": {false, "late"},
		"a listener of its own ListenerSet":       {true, "service-mirror-15000/service-mirror-tcp-15000"},
		"a listener of its own":                   {true, plan.OwnListener(gatewayPort{Number: 15000, Protocol: corev1.ProtocolTCP})},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.gateway(listener("http", "HTTP", 80), listener("b", "TCP", 15001))
				if test.managed {
					w.managed(0)
				}
				w.server.drop("services", "default", "bar")
				w.standby()
				w.wait(time.Minute)
				w.server.stall("tcproutes", "gateways")
				switch {
				case test.managed:
				case test.listener == "a":
					w.gateway(listener("http", "HTTP", 80), listener("a", "TCP", 15000), listener("b", "TCP", 15001))
				default:
					w.gateway(listener("http", "HTTP", 80), listener("late", "TCP", 15000), listener("b", "TCP", 15001))
				}
				w.routed("first", test.listener)
				w.lead()
				w.wait(10 * time.Second)
				w.server.resume("gateways")
				w.server.put("services", exportedService("second", 5432))
				w.wait(10 * time.Second)
				w.wantPort("second", 15001)
				w.server.put("services", exportedService("first", 5432))
				w.wait(10 * time.Second)
				w.server.resume("tcproutes")
				w.wait(time.Minute)
				w.wantPort("first", 15000)
				w.wantPort("second", 15001)
			})
		})
	}
}

// A port that a route of no Service had is free an hour later, as ever.
func TestControllerReleasesThePortOfALostRoute(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.server.drop("services", "default", "bar")
		w.standby()
		w.wait(time.Minute)
		w.server.stall("tcproutes")
		w.routed("gone", "a")
		w.lead()
		w.wait(time.Second)
		w.server.drop("tcproutes", "default", "gone.5432.service-mirror") // its Service is, and the cache never hears of it
		w.server.put("services", exportedService("one", 5432))
		w.wait(time.Second)
		w.server.put("services", exportedService("two", 5432))
		w.wait(time.Minute)
		w.wantPort("one", 15001)
		w.wantPort("two", 0)
		w.wait(plan.ReleasedFor)
		w.wantPort("two", 15000)
	})
}

// A route that is edited to attach to the listener of another Service's gateway port does not take that, even if the record of
// its Service is listed first.
func TestControllerKeepsAPortThatAnEditedRouteNames(t *testing.T) {
	in(t, func(w *world) {
		w.gateway(listener("http", "HTTP", 80), listener("a", "TCP", 15000), listener("b", "TCP", 15001), listener("c", "TCP", 15002))
		w.start()
		w.wantPort("bar", 15000)
		w.server.put("services", exportedService("aaa", 5432))
		w.wait(time.Second)
		w.wantPort("aaa", 15001)
		for _, listener := range []string{"a", "c"} { // c is free
			route := w.server.get("tcproutes", "default", "aaa.5432.service-mirror").(*unstructured.Unstructured)
			w.must(unstructured.SetNestedSlice(route.Object, []any{map[string]any{"group": plan.Group, "kind": "Gateway", "namespace": "ingress", "name": "public", "sectionName": listener}}, "spec", "parentRefs"))
			w.server.put("tcproutes", route)
			w.wait(time.Second)
		}
		for range 2 {
			w.stop()
			w.start() // as another replica that takes over
			w.wantPort("bar", 15000)
			w.wantPort("aaa", 15001)
			for _, service := range []string{"aaa", "bar"} {
				w.server.put("services", w.server.get("services", "default", service)) // it is synced again
			}
			w.wait(time.Second)
			w.wantPort("bar", 15000)
			w.wantPort("aaa", 15001)
		}
	})
}

// Routes with our labels that belong to no exported Service reserve no gateway ports, not even while a finalizer keeps them.
func TestControllerGivesPortsThatLabelledRoutesName(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.start()
		w.wantPort("bar", 15000)
		w.routed("thief", "b")
		w.wait(time.Second)
		if w.server.get("tcproutes", "default", "thief.5432.service-mirror") != nil || w.server.get("configmaps", "sm", "default.thief") != nil {
			t.Errorf("the route or a record is left\n%s", w.log)
		}
		w.routed("thief", "b", func(route *unstructured.Unstructured) {
			route.SetFinalizers([]string{"example.com/never"})
			route.SetDeletionTimestamp(&metav1.Time{Time: time.Now()})
		})
		w.wait(time.Second)
		w.server.put("services", exportedService("late", 5432))
		w.wait(time.Second)
		w.wantPort("late", 15001)
	})
}

// Nor does a replica that takes over reserve the port of such a route of an exported Service.
func TestControllerTakesOverWithoutLabelledRoutes(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.server.put("services", exportedService("thief", 80))
		w.standby()
		w.wait(time.Minute)
		w.routed("thief", "a")
		w.wait(time.Second)
		w.lead()
		w.wait(10 * time.Second)
		w.wantPort("bar", 15000)
	})
}

// While the routes of the leader before cannot be listed, no gateway port of theirs is given, and everything else is
// published.
func TestControllerWaitsForTheRoutes(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.standby()
		w.wait(time.Minute)
		w.server.stall("tcproutes")
		w.routed("first", "a")
		w.server.mu.Lock()
		w.server.unreadable = "tcproutes"
		w.server.mu.Unlock()
		w.server.put("services", exportedService("bar", 80, 5432))
		w.lead()
		w.wait(time.Minute)
		w.wantPort("bar", 0)
		if got := w.record("bar").Of(80, corev1.ProtocolTCP).Gateway; got != 80 {
			t.Errorf("HTTP has port %d", got)
		}
		if problems := fmt.Sprint(w.controller.problems.Of(cache.NewObjectName("default", "bar"))); !strings.Contains(problems, "TCPRoute cannot be read: ") {
			t.Errorf("its problems are %s", problems)
		}
		w.server.mu.Lock()
		w.server.unreadable = ""
		w.server.mu.Unlock()
		w.wait(time.Minute)
		w.wantPort("bar", 15001)
		if w.has(mirrors.PortNotServed) || len(w.controller.problems.OfLocal()) > 0 {
			t.Errorf("problems are left: %v\n%s", w.controller.problems.OfLocal(), w.log)
		}
	})
}

// Listeners stay until it is known which routes attach to them: the leader before may have created one without a record.
func TestControllerKeepsListenersOfUnreadRoutes(t *testing.T) {
	for name, sets := range map[string]bool{"set": true, "gateway": false} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.server.drop("services", "default", "bar")
				w.server.put("services", exportedService("first", 5432))
				if sets {
					w.sets("ListenerSet")
				} else {
					w.managed(0)
				}
				w.start()
				w.wantPort("first", 15000)
				w.stop()
				route := w.server.get("tcproutes", "default", "first.5432.service-mirror")
				w.server.drop("tcproutes", "default", "first.5432.service-mirror")
				w.server.drop("configmaps", "sm", "default.first")
				w.standby()
				w.wait(time.Minute)
				w.server.stall("tcproutes")
				w.server.put("tcproutes", route)
				w.server.mu.Lock()
				w.server.unreadable = "tcproutes"
				w.server.mu.Unlock()
				w.server.wrote()
				w.lead()
				w.wait(time.Minute)
				if sets {
					w.wantInSet(firstSet, tcp0)
				} else if len(w.ours()) != 1 {
					t.Errorf("listeners: %v", w.ours())
				}
			})
		})
	}
}

// What cannot be read of the previous leader is a problem of the leader alone: it ends with leadership.
func TestControllerForgetsWhatItCouldNotRead(t *testing.T) {
	for resource, part := range map[string]string{
		"configmaps": formerRecords, "tcproutes": formerRoutes(plan.TCPRoute), "udproutes": formerRoutes(plan.UDPRoute),
	} {
		t.Run(resource, func(t *testing.T) {
			in(t, func(w *world) {
				w.twoListeners()
				w.standby()
				w.wait(time.Minute)
				w.server.mu.Lock()
				w.server.unreadable = resource
				w.server.mu.Unlock()
				leading, cancel := context.WithCancel(w.Context())
				var running sync.WaitGroup
				running.Go(func() { w.controller.Lead(leading, time.Second) })
				w.wait(time.Minute)
				if w.localProblem(part) == "" {
					t.Errorf("no problem is reported for the %s", part)
				}
				cancel()
				running.Wait()
				if cause := w.localProblem(part); cause != "" {
					t.Errorf("a standby reports for the %s: %s", part, cause)
				}
			})
		})
	}
}
