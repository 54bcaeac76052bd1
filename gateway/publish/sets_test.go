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
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// sets has the cluster serve ListenerSets, the Gateway allow them, and its class say that its implementation has these
// features: if any, it accepts ListenerSets.
func (w *world) sets(features ...any) {
	if len(features) > 0 {
		w.server.admit = acceptSets
	}
	w.server.mu.Lock()
	w.server.served["listenersets/v1"] = true
	w.server.mu.Unlock()
	var list []any
	for _, feature := range features {
		list = append(list, map[string]any{"name": feature})
	}
	w.server.put("gatewayclasses", &unstructured.Unstructured{Object: map[string]any{"apiVersion": plan.Group + "/v1", "kind": "GatewayClass",
		"metadata": map[string]any{"name": "none"}, "status": map[string]any{"supportedFeatures": list}}})
	w.gateway(listener("http", "HTTP", 80))
	w.allow("All")
}

// acceptSets has new ListenerSets accepted at once.
func acceptSets(obj *unstructured.Unstructured) {
	if _, found := obj.Object["status"]; obj.GetKind() == "ListenerSet" && !found {
		setAccepted(obj, "True", "Accepted")
	}
}

func setAccepted(set *unstructured.Unstructured, status, reason string) {
	set.Object["status"] = map[string]any{"conditions": []any{map[string]any{"type": "Accepted", "status": status, "reason": reason, "message": "said by hand", "lastTransitionTime": "2000-01-01T00:00:00Z"}}}
}

// allow has the Gateway allow ListenerSets from namespaces.
func (w *world) allow(from string) {
	gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured)
	if err := unstructured.SetNestedField(gw.Object, from, "spec", "allowedListeners", "namespaces", "from"); err != nil {
		w.Fatal(err)
	}
	w.server.put("gateways", gw)
}

// set is a ListenerSet; nil: it does not exist.
func (w *world) set(name string) *unstructured.Unstructured {
	obj, _ := w.server.get("listenersets", "sm", name).(*unstructured.Unstructured)
	return obj
}

// inSet are the names of its listeners.
func (w *world) inSet(name string) (names []string) {
	if set := w.set(name); set != nil {
		listeners, _, _ := unstructured.NestedSlice(set.Object, "spec", "listeners")
		names = plan.ListenerNames(listeners)
	}
	return names
}

func (w *world) wantInSet(name string, want ...string) {
	w.Helper()
	if got := w.inSet(name); !slices.Equal(got, want) {
		w.Errorf("ListenerSet %s has %v, want %v\n%s", name, got, want, w.log)
	}
}

// say sets the condition Accepted of a ListenerSet.
func (w *world) say(name, status, reason string) {
	set := w.set(name)
	setAccepted(set, status, reason)
	w.server.put("listenersets", set)
}

func (w *world) localProblem(part string) string {
	for _, problem := range w.controller.problems.OfLocal() {
		if problem.Part == part {
			return problem.Cause
		}
	}
	return ""
}

const firstSet, tcp0 = "service-mirror-15000", "service-mirror-tcp-15000"

// A listener is added by a ListenerSet with the first sync of a Service, stays over a restart, and goes with the Service.
func TestControllerAddsListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.start()
		w.wrote(append([]string{"create listenersets sm/" + firstSet}, created...)...)
		w.wantPort("bar", 15000)
		w.wantInSet(firstSet, tcp0)
		w.wait(time.Hour)
		w.stop()
		w.start()
		w.wait(time.Hour)
		w.wrote()
		w.server.put("services", exportedService("baz", 5432))
		w.wait(time.Second)
		w.wantPort("baz", 15001)
		w.wantInSet(firstSet, tcp0, "service-mirror-tcp-15001")
		w.server.drop("services", "default", "bar")
		w.wait(time.Second)
		w.wantInSet(firstSet, "service-mirror-tcp-15001")
		w.server.put("services", exportedService("new", 5432))
		w.wait(time.Second)
		w.wantPort("new", 15002) // bar's is not given to another one for an hour
		w.server.drop("services", "default", "baz")
		w.server.drop("services", "default", "new")
		w.wait(time.Second)
		if w.set(firstSet) != nil {
			t.Error("the ListenerSet is left")
		}
	})
}

// What is edited is repaired, what is deleted recreated, and one that is no longer ours is neither changed nor attached to.
func TestControllerRepairsListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.start()
		want := fmt.Sprint(w.set(firstSet).Object["spec"])
		edited := w.set(firstSet)
		edited.Object["spec"].(map[string]any)["parentRef"].(map[string]any)["name"] = "other"
		edited.SetAnnotations(map[string]string{plan.PublishedAnnotation: "sm/" + firstSet, "team": "blue"})
		w.server.put("listenersets", edited)
		w.wait(time.Second)
		if got := w.set(firstSet); fmt.Sprint(got.Object["spec"]) != want || got.GetAnnotations()["team"] != "blue" {
			t.Errorf("it is %v, want %v", got, want)
		}
		w.server.drop("listenersets", "sm", firstSet)
		w.wait(time.Second)
		w.wantInSet(firstSet, tcp0)
		w.wantPort("bar", 15000)

		foreign := w.set(firstSet)
		foreign.SetLabels(nil)
		w.server.put("listenersets", foreign)
		w.wait(time.Second)
		w.server.wrote()
		w.wait(time.Hour)
		w.server.put("services", exportedService("new", 5432))
		w.wait(time.Second)
		w.wantPort("bar", 0)
		w.wantPort("new", 15032)
		if problem := fmt.Sprint(w.controller.problems.Of(cache.NewObjectName("default", "bar"))); !strings.Contains(problem, "is not managed by service-mirror") || w.countWrites(firstSet) > 0 {
			t.Errorf("the problem is %q\n%s", problem, w.log)
		}
		setAccepted(foreign, "False", "Invalid") // it has no port any more, but the name
		w.server.put("listenersets", foreign)
		w.wait(time.Minute)
		w.wantPort("bar", 0)
		if problem := w.localProblem(listenersPart); !strings.Contains(problem, "already exists and is not managed by service-mirror") || w.countWrites(firstSet) > 0 {
			t.Errorf("the problem is %q\n%s", problem, w.log)
		}
		w.server.drop("listenersets", "sm", firstSet)
		w.wait(20 * time.Minute) // three times is a fight until it has been over for ten minutes
		w.wantPort("bar", 15000)
		w.wantPort("new", 15032)
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 {
			t.Errorf("problems are left: %v", problems)
		}
	})
}

// countWrites counts those of an object, by the end of its name.
func (w *world) countWrites(name string) (n int) {
	for _, text := range w.server.wrote() {
		if strings.HasSuffix(text, "/"+name) {
			n++
		}
	}
	return n
}

// Another program that deletes a ListenerSet again and again is reported, and not fought at full speed.
func TestControllerDoesNotFightOverListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.start()
		undo := func(d time.Duration) {
			for range int(d / time.Second) {
				if w.set(firstSet) != nil {
					w.server.drop("listenersets", "sm", firstSet)
				}
				w.wait(time.Second)
			}
		}
		undo(10 * time.Second)
		if !slices.ContainsFunc(w.controller.problems.OfLocal(), func(p status.Problem) bool { return p.Part == listenersPart }) {
			t.Errorf("no problem says so: %v\n%s", w.controller.problems.OfLocal(), w.log)
		}
		undo(30 * time.Minute)
		w.server.wrote()
		undo(time.Hour)
		if n := w.countWrites(firstSet); n < 10 || n > 15 {
			t.Errorf("%d writes in an hour", n)
		}
		w.wait(time.Hour)
		w.wantPort("bar", 15000)
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 || w.has(mirrors.Overwritten) {
			t.Errorf("problems are left: %v", problems)
		}
	})
}

// A ListenerSet that may not be written is tried again, and until then neither record nor problems say that it is reached.
func TestControllerRetriesListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.refuse(func(_, resource string) error {
			if resource == "listenersets" {
				return apierrors.NewForbidden(schema.GroupResource{Resource: resource}, firstSet, nil)
			}
			return nil
		})
		w.start()
		w.wantPort("bar", 0)
		if !w.has(mirrors.WriteFailed) || w.record("bar").Of(5432, corev1.ProtocolTCP).Problem == "" {
			t.Errorf("its record is %+v\n%s", w.record("bar"), w.log)
		}
		w.refuse(nil)
		w.wait(2 * time.Minute)
		w.wantPort("bar", 15000)
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 || w.has(mirrors.WriteFailed) {
			t.Errorf("problems are left: %v", problems)
		}
	})
}

// An implementation that says nothing of what it supports is believed once it accepts a ListenerSet. If it does not in a
// while, or refuses it, that is the reason.
func TestControllerWaitsForAcceptance(t *testing.T) {
	in(t, func(w *world) {
		w.server.admit = stampSets
		w.sets()
		w.start()
		w.wantPort("bar", 0)
		if w.has(mirrors.NotAccepted) {
			t.Error("it is a problem at once")
		}
		w.wait(2 * time.Minute)
		if w.wantPort("bar", 0); !w.has(mirrors.NotAccepted) {
			t.Errorf("it is no problem after a while\n%s", w.log)
		}
		w.say(firstSet, "True", "Accepted")
		w.wait(time.Second)
		if w.wantPort("bar", 15000); w.has(mirrors.NotAccepted) {
			t.Error("it is still a problem")
		}
		w.say(firstSet, "False", "NotAllowed")
		w.wait(time.Second)
		if w.wantPort("bar", 0); !w.has(mirrors.PortNotServed) || !strings.Contains(w.record("bar").Of(5432, corev1.ProtocolTCP).Problem, "NotAllowed: said by hand") {
			t.Errorf("its record is %+v\n%s", w.record("bar"), w.log)
		}
		w.wantInSet(firstSet, tcp0) // or it could never be accepted again
		w.say(firstSet, "True", "Accepted")
		w.wait(time.Second)
		w.wantPort("bar", 15000)
	})
}

// An implementation that says that it has ListenerSets is believed for a while, and no longer.
func TestControllerBelievesAnImplementationForAWhile(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.server.admit = stampSets
		w.start()
		w.wantPort("bar", 15000)
		w.wait(2 * time.Minute)
		if w.wantPort("bar", 0); !w.has(mirrors.NotAccepted) {
			t.Errorf("it is no problem after a while\n%s", w.log)
		}
		w.say(firstSet, "True", "Accepted")
		w.wait(time.Second)
		if w.wantPort("bar", 15000); w.has(mirrors.NotAccepted) {
			t.Error("it is still a problem")
		}
	})
}

// stampSets has new ListenerSets know when they were created, as an API server does.
func stampSets(obj *unstructured.Unstructured) {
	if created := obj.GetCreationTimestamp(); obj.GetKind() == "ListenerSet" && created.IsZero() {
		obj.SetCreationTimestamp(metav1.Now())
	}
}

// A labelled Gateway that comes to allow ListenerSets keeps its listeners for as long as they are needed, and new ones come
// by ListenerSets. If it no longer allows them, they come back to the Gateway, with their ports.
func TestControllerMovesToListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.managed(0)
		w.start()
		w.wantPort("bar", 15000)
		w.server.wrote()
		w.allow("All")
		w.wait(time.Second)
		w.wrote()
		w.server.put("services", exportedService("new", 5432))
		w.wait(time.Second)
		w.wantPort("bar", 15000)
		w.wantPort("new", 15001)
		w.wantInSet(firstSet, "service-mirror-tcp-15001")
		if got := w.ours(); !slices.Equal(got, []string{tcp0}) {
			t.Errorf("the Gateway has %v", got)
		}
		w.server.drop("services", "default", "bar")
		w.wait(time.Second)
		if got := w.ours(); len(got) > 0 {
			t.Errorf("the Gateway has %v", got)
		}
		w.allow("None")
		w.wait(time.Minute)
		w.wantPort("new", 15001)
		if got := w.ours(); !slices.Equal(got, []string{"service-mirror-tcp-15001"}) || w.set(firstSet) != nil {
			t.Errorf("the Gateway has %v, the ListenerSet is %v\n%s", got, w.set(firstSet), w.log)
		}
	})
}

// Services beyond one ListenerSet get further ones, and no port moves.
func TestControllerAddsFurtherListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		for i := range 70 {
			w.server.put("services", exportedService(fmt.Sprint("s", i), 5432))
		}
		w.start()
		ports := map[int32]string{}
		for i := range 70 {
			name := fmt.Sprint("s", i)
			ports[w.record(name).Of(5432, corev1.ProtocolTCP).Gateway] = name
		}
		if len(ports) != 70 || ports[0] != "" || len(w.inSet(firstSet)) != 32 || len(w.inSet("service-mirror-15032")) != 32 || len(w.inSet("service-mirror-15064")) != 7 {
			t.Errorf("the ports are %v\n%s", ports, w.log)
		}
		w.stop()
		w.server.wrote()
		w.start()
		w.wait(time.Minute)
		w.wrote()
	})
}

// While ListenerSets cannot be read, what needs them stays as it is, and where the Gateway allows none that is no problem.
func TestControllerKeepsListenerSetsThatItCannotRead(t *testing.T) {
	for name, set := range map[string]func(s *apiserver, resource string){
		"discovery": func(s *apiserver, resource string) { s.undiscovered = resource },
		"list":      func(s *apiserver, resource string) { s.unreadable = resource },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				fail := func(resource string) {
					w.server.mu.Lock()
					defer w.server.mu.Unlock()
					set(w.server, resource)
				}
				w.sets("ListenerSet")
				w.start()
				w.wantPort("bar", 15000)
				w.stop()
				w.server.wrote()
				fail("listenersets")
				w.server.put("services", exportedService("new", 80, 5432))
				w.start()
				w.wait(time.Hour)
				w.wrote("create configmaps sm/default.new", "create httproutes default/new.service-mirror")
				w.wantPort("bar", 15000)
				if problems := fmt.Sprint(w.controller.problems.Of(cache.NewObjectName("default", "new"))); !strings.Contains(problems, "ListenerSets cannot be read: ") || len(w.controller.problems.OfLocal()) == 0 {
					t.Errorf("the problems are %s", problems)
				}
				w.stop()
				w.gateway(listener("http", "HTTP", 80), listener("a", "TCP", 15000), listener("b", "TCP", 15001)) // it allows none
				w.start()
				w.wait(time.Minute)
				w.wantPort("bar", 15000)
				w.wantPort("new", 15001)
				if problems := w.controller.problems.OfLocal(); len(problems) > 0 {
					t.Errorf("problems: %v", problems)
				}
				fail("")
				w.wait(time.Hour)
				if w.wantPort("bar", 15000); w.set(firstSet) != nil {
					t.Error("the ListenerSet is left")
				}
			})
		})
	}
}

// dryRun is what a dry run prints with the options of the controller that was started last.
func (w *world) dryRun() string {
	w.Helper()
	dry := New(w.server.clients(), w.controller.options, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w.log))))
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() { dry.Run(ctx) })
	var out strings.Builder
	w.must(dry.DryRun(ctx, "paris", &out))
	cancel()
	running.Wait()
	return out.String()
}

// What is wrong with one ListenerSet holds up no other.
func TestListenerSetsHoldNoOthersUp(t *testing.T) {
	for name, spoil := range map[string]func(w *world){
		"fight": func(w *world) {
			w.start()
			w.wantPort("bar", 15000)
			for range 12 {
				if w.set(firstSet) != nil {
					w.server.drop("listenersets", "sm", firstSet)
				}
				w.wait(30 * time.Second)
			}
		},
		"refused": func(w *world) {
			w.server.dynamic.Fake.PrependReactor("create", "listenersets", func(a clienttesting.Action) (bool, runtime.Object, error) {
				if name := a.(clienttesting.CreateAction).GetObject().(*unstructured.Unstructured).GetName(); name == firstSet {
					return true, nil, apierrors.NewForbidden(schema.GroupResource{Resource: "listenersets"}, name, nil)
				}
				return false, nil, nil
			})
			w.start()
			w.wantPort("bar", 0)
			w.wait(10 * time.Minute)
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.sets("ListenerSet")
				spoil(w)
				other := exportedService("other", 5432)
				other.Annotations = map[string]string{"service-mirror.io/gateway-ports": "5432=15500"}
				w.server.put("services", other)
				w.wait(2 * time.Second)
				w.wantPort("other", 15500)
				if problem := w.localProblem(listenersPart); !strings.Contains(problem, "sm/"+firstSet) {
					t.Errorf("the problem is %q", problem)
				}
				if problems := w.controller.problems.Of(cache.NewObjectName("default", "other")); len(problems) > 0 {
					t.Errorf("other has %v", problems)
				}
			})
		})
	}
}

// ListenerSets of former flags are deleted, once no route needs them, and foreign ones stay.
func TestControllerDeletesListenerSetsOfOtherFlags(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.start()
		w.stop()
		foreign := w.set(firstSet)
		foreign.SetName("foreign")
		w.server.put("listenersets", foreign)
		w.server.wrote()
		w.start(toNames)
		w.wait(time.Minute)
		w.wrote("create "+alias, "delete httproutes default/bar.service-mirror", "delete listenersets sm/"+firstSet,
			"delete tcproutes default/bar.5432.service-mirror", "update configmaps sm/default.bar")
		if w.set("foreign") == nil {
			t.Error("the foreign one is gone")
		}
	})
}

// A dry run shows the ListenerSet that would be created, and creates none.
func TestDryRunShowsListenerSets(t *testing.T) {
	in(t, func(w *world) {
		w.sets("ListenerSet")
		w.start() // for the options
		w.stop()
		w.server.drop("listenersets", "sm", firstSet)
		w.server.wrote()
		out := w.dryRun()
		for _, want := range []string{"create ListenerSet sm/" + firstSet + " in paris", "+kind: ListenerSet", tcp0} {
			if !strings.Contains(out, want) {
				t.Errorf("it does not print %q:\n%s", want, out)
			}
		}
		w.wrote()
	})
}
