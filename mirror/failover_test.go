package mirror

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	published "service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
)

var failoverTimes = Options{FailoverAfter: time.Second, FailbackAfter: 10 * time.Second}

// ownBar is the local cluster's own default/bar, which fails over to remotes.
func ownBar(remotes string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar",
			Labels: map[string]string{plan.FailoverLabel: "true"}, Annotations: map[string]string{plan.FailoverAnnotation: remotes}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.7", ClusterIPs: []string{"10.0.0.7"},
			IPFamilies: []corev1.IPFamily{ipv4}, Selector: map[string]string{"app": "bar"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
}

// ownSlice is the slice that Kubernetes makes of its pods.
func ownSlice(ready bool) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-abc12", Labels: map[string]string{
			discoveryv1.LabelServiceName: "bar", discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.1.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready, Serving: &ready}}},
	}
}

// beside says what the slices of remotes beside default/bar are: their names, and + or - for each endpoint.
func (w *world) beside() string {
	var texts []string
	for _, remote := range []string{"berlin", "paris"} {
		for _, of := range plan.RemoteSlices(cache.NewObjectName("default", "bar"), remote, true) {
			if slice := w.server.slice("default", of.Name()); slice != nil {
				text := of.Name() + " "
				for _, e := range slice.Endpoints {
					if *e.Conditions.Ready {
						text += "+"
					} else {
						text += "-"
					}
				}
				texts = append(texts, text)
			}
		}
	}
	return strings.Join(texts, ", ")
}

// ready has the local endpoint be ready, or not.
func (w *world) ready(ready bool) {
	w.server.edit("endpointslices", cache.NewObjectName("default", "bar-abc12"), func(obj runtime.Object) bool {
		conditions := &obj.(*discoveryv1.EndpointSlice).Endpoints[0].Conditions
		conditions.Ready, conditions.Serving = &ready, &ready
		return true
	})
}

// hasBeside wants the slices of remotes to be so, and those writes alone since the last call.
func (w *world) hasBeside(want string, writes ...string) {
	w.Helper()
	if got := w.beside(); got != want {
		w.Errorf("beside default/bar are %q, want %q\nlog:\n%s", got, want, w.log)
	}
	for i := range writes {
		writes[i] = strings.Replace(writes[i], " ", " endpointslices default/", 1)
	}
	var got []string
	for _, write := range w.server.wrote() {
		if !strings.HasPrefix(write.what, "update endpoints default/bar-") { // of the mirrors
			got = append(got, write.what)
		}
	}
	slices.Sort(got)
	if slices.Sort(writes); !slices.Equal(got, writes) {
		w.Errorf("written: %q, want %q\nlog:\n%s", got, writes, w.log)
	}
}

// failsOver runs a test in which default/bar fails over to paris and berlin, which both export it. Nothing but what is
// beside default/bar is written after its start.
func failsOver(t *testing.T, remotes string, test func(w *world)) {
	run(t, failoverTimes, []string{"paris", "berlin"}, func(w *world) {
		w.remotes["berlin"].setGateway(gatewayAt("192.0.2.9"))
		for _, r := range w.remotes {
			r.export(exportedBar())
		}
		w.settle()
		w.server.wrote()
		w.server.put(ownSlice(true))
		w.server.put(ownBar(remotes))
		w.wait(time.Second)
		test(w)
	})
}

// TestFailover is the whole way: ready, not ready, failed over, ready again, both, failed back. Times are exact.
func TestFailover(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		slice := w.server.slice("default", "bar.paris.ipv4")
		if *slice.Ports[0].Name != "http" || *slice.Ports[0].Port != 8080 || len(slice.Ports) != 1 || slice.Endpoints[0].Addresses[0] != "192.0.2.1" {
			t.Errorf("got %s", text(slice))
		}
		w.ready(false)
		w.wait(990 * time.Millisecond)
		w.hasBeside("bar.paris.ipv4 -")
		w.wait(20 * time.Millisecond)
		w.hasBeside("bar.paris.ipv4 +", "update bar.paris.ipv4")
		w.logged(1, "Failed over")
		w.wait(time.Hour)
		w.hasBeside("bar.paris.ipv4 +")
		w.ready(true)
		w.wait(5 * time.Second)
		w.ready(false) // the time begins again
		w.wait(time.Second)
		w.ready(true)
		w.wait(9900 * time.Millisecond)
		w.hasBeside("bar.paris.ipv4 +")
		w.wait(200 * time.Millisecond)
		w.hasBeside("bar.paris.ipv4 -", "update bar.paris.ipv4")
		w.logged(1, "Failed back")
		w.wait(time.Hour)
		w.hasBeside("bar.paris.ipv4 -")
	})
}

// A blip that is shorter than --failover-after is no reason to fail over.
func TestFailoverNotOfABlip(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		for range 5 {
			w.ready(false)
			w.wait(900 * time.Millisecond)
			w.ready(true)
			w.wait(500 * time.Millisecond)
		}
		w.wait(time.Minute)
		w.hasBeside("bar.paris.ipv4 -")
	})
}

// The first healthy remote in the annotation's order serves, and no other.
func TestFailoverOrder(t *testing.T) {
	failsOver(t, "paris, berlin", func(w *world) {
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 -", "create bar.berlin.ipv4", "create bar.paris.ipv4")
		w.ready(false)
		w.wait(2 * time.Second)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 +", "update bar.paris.ipv4")
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1 dead"))
		w.wait(time.Second)
		w.hasBeside("bar.berlin.ipv4 +, bar.paris.ipv4 -", "update bar.berlin.ipv4", "update bar.paris.ipv4")
		w.remotes["berlin"].setGateway(gatewayAt("192.0.2.9 dead"))
		w.wait(time.Second)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 -", "update bar.berlin.ipv4")
		w.logged(1, "NoHealthyRemote")
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1", "192.0.2.2 dead"))
		w.wait(time.Second)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 +-", "update bar.paris.ipv4")
	})
}

// What is created is removed with the label, the annotation, the remote in it, or the Service; and nothing else is.
func TestFailoverEnds(t *testing.T) {
	key := cache.NewObjectName("default", "bar")
	for name, end := range map[string]func(w *world){
		"label": func(w *world) {
			w.server.edit("services", key, func(obj runtime.Object) bool { obj.(*corev1.Service).Labels = nil; return true })
		},
		"annotation": func(w *world) {
			w.server.edit("services", key, func(obj runtime.Object) bool { obj.(*corev1.Service).Annotations = nil; return true })
		},
		"remote": func(w *world) {
			w.server.edit("services", key, func(obj runtime.Object) bool {
				obj.(*corev1.Service).Annotations[plan.FailoverAnnotation] = "berlin"
				return true
			})
		},
		"Service":  func(w *world) { w.server.remove("services", "default", "bar") },
		"unexport": func(w *world) { w.remotes["paris"].unexport(exportedBar()); w.wait(time.Second); w.server.wrote() },
	} {
		t.Run(name, func(t *testing.T) {
			failsOver(t, "paris", func(w *world) {
				w.ready(false)
				w.wait(2 * time.Second)
				w.hasBeside("bar.paris.ipv4 +", "create bar.paris.ipv4", "update bar.paris.ipv4")
				end(w)
				w.wait(time.Minute)
				if got := w.beside(); strings.Contains(got, "paris") {
					t.Errorf("there is %s", got)
				}
				for _, write := range w.server.wrote() {
					if !strings.Contains(write.what, "endpointslices default/bar.") {
						t.Errorf("written: %s", write.what)
					}
				}
			})
		})
	}
}

// A restart changes nothing, whoever serves: what the slices say is the state. Neither the remote nor its
// configuration is needed to fail back.
func TestFailoverAfterRestart(t *testing.T) {
	for name, remotes := range map[string][]string{"as before": {"paris", "berlin"}, "without the remote": {"berlin"}, "remote unknown": {"paris", "berlin"}} {
		t.Run(name, func(t *testing.T) {
			failsOver(t, "paris", func(w *world) {
				w.ready(false)
				w.wait(2 * time.Second)
				w.hasBeside("bar.paris.ipv4 +", "create bar.paris.ipv4", "update bar.paris.ipv4")
				w.stop()
				if name == "remote unknown" {
					w.remotes["paris"].unknown = true
				}
				w.use(failoverTimes, remotes...)
				w.settle()
				w.wait(time.Minute)
				w.hasBeside("bar.paris.ipv4 +")
				w.ready(true)
				w.wait(11 * time.Second)
				w.hasBeside("bar.paris.ipv4 -", "update bar.paris.ipv4")
			})
		})
	}
}

// While the Service's own slices cannot be read, nothing is known of local endpoints, and all stays as it is.
func TestFailoverUnread(t *testing.T) {
	run(t, failoverTimes, []string{"paris"}, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.server.put(ownBar("paris"))
		w.settle()
		w.server.wrote()
		w.stop()
		w.server.put(ownSlice(true))
		w.server.refuseLists("kubernetes.io/service-name in (bar)")
		w.use(failoverTimes, "paris")
		w.settle()
		w.wait(time.Minute)
		w.hasBeside("bar.paris.ipv4 +")
		w.server.refuseLists("")
		w.wait(time.Minute)
		w.hasBeside("bar.paris.ipv4 -", "update bar.paris.ipv4")
	})
}

// Services that come and go change which slices are watched; what is known of the others meanwhile stays known.
func TestFailoverWatchesItsOwnAlone(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		for i := range 59 {
			svc := ownBar("paris")
			svc.Name, svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "bar"+strings.Repeat("x", i+1), "", nil
			w.server.put(svc)
		}
		w.wait(5 * time.Second)
		w.hasBeside("bar.paris.ipv4 -")
		selectors := w.server.watched("kubernetes.io/service-name in")
		names := 0
		for _, selector := range selectors {
			if len(selector) > 4000 {
				t.Errorf("a selector has %d characters", len(selector))
			}
			names += strings.Count(selector, ",") + 1
		}
		if len(selectors) != 2 || names != 60 {
			t.Errorf("%d watches of %d Services: %q", len(selectors), names, selectors)
		}
		for i := range 59 {
			w.server.remove("services", "default", "bar"+strings.Repeat("x", i+1))
		}
		w.wait(5 * time.Second)
		if selectors := w.server.watched("kubernetes.io/service-name in"); len(selectors) != 1 || !strings.HasSuffix(selectors[0], "(bar)") {
			t.Errorf("watched are %q", selectors)
		}
		w.ready(false)
		w.wait(2 * time.Second)
		w.hasBeside("bar.paris.ipv4 +", "update bar.paris.ipv4")
	})
}

// An edit by hand is undone, a foreign slice of the name is left alone, and a refused write is no reason to leave
// another remote's slice as it is.
func TestFailoverDrift(t *testing.T) {
	failsOver(t, "paris,berlin", func(w *world) {
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 -", "create bar.berlin.ipv4", "create bar.paris.ipv4")
		w.server.edit("endpointslices", cache.NewObjectName("default", "bar.paris.ipv4"), func(obj runtime.Object) bool {
			yes := true
			obj.(*discoveryv1.EndpointSlice).Endpoints[0].Conditions.Ready = &yes
			return true
		})
		w.wait(time.Second)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 -", "update bar.paris.ipv4")
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		foreign := ownSlice(false)
		foreign.Name = "bar.paris.ipv4"
		w.server.put(foreign)
		w.wait(time.Second)
		w.server.wrote()
		w.logged(1, "Conflict")
		w.ready(false)
		w.wait(2 * time.Second)
		w.hasBeside("bar.berlin.ipv4 +, bar.paris.ipv4 -", "update bar.berlin.ipv4")
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		w.wait(time.Second)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 +", "create bar.paris.ipv4", "update bar.berlin.ipv4")
	})
}

// A remote that cannot be written does not delay another one.
func TestFailoverRefusedWrite(t *testing.T) {
	failsOver(t, "paris,berlin", func(w *world) {
		w.server.wrote()
		w.server.setRefuse(func(action clienttesting.Action) error {
			if update, ok := action.(clienttesting.UpdateAction); ok && strings.HasPrefix(accessor(update.GetObject()).GetName(), "bar.paris") {
				return errForbidden
			}
			return nil
		})
		w.ready(false)
		w.wait(1100 * time.Millisecond)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1 dead"))
		w.wait(100 * time.Millisecond)
		if got := w.beside(); got != "bar.berlin.ipv4 +, bar.paris.ipv4 -" {
			t.Errorf("got %s", got)
		}
		w.server.wrote()
		w.server.setRefuse(nil)
		w.remotes["paris"].setGateway(&gateway.Gateway{})
		w.wait(time.Minute)
		w.hasBeside("bar.berlin.ipv4 +", "delete bar.paris.ipv4")
	})
}

// The remote that serves goes on until the one that is to replace it does: a write of that one may be refused for long.
func TestFailoverKeepsWhoServesUntilReplaced(t *testing.T) {
	failsOver(t, "paris,berlin", func(w *world) {
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1 dead"))
		w.ready(false)
		w.wait(2 * time.Second)
		w.server.wrote()
		w.server.setRefuse(func(action clienttesting.Action) error {
			if update, ok := action.(clienttesting.UpdateAction); ok && strings.HasPrefix(accessor(update.GetObject()).GetName(), "bar.paris") {
				return errForbidden
			}
			return nil
		})
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1"))
		w.wait(time.Minute)
		if got := w.beside(); got != "bar.berlin.ipv4 +, bar.paris.ipv4 -" {
			t.Errorf("got %s", got)
		}
		w.logged(1, "Rejected")
		w.server.wrote()
		w.server.setRefuse(nil)
		w.wait(10 * time.Minute)
		w.hasBeside("bar.berlin.ipv4 -, bar.paris.ipv4 +", "update bar.berlin.ipv4", "update bar.paris.ipv4")
	})
}

// Another remote serves while the API server refuses the slices of the preferred one, however long.
func TestFailoverOfARefusedRemote(t *testing.T) {
	foreign := ownSlice(false)
	foreign.Name, foreign.Labels = "bar.paris.ipv4", nil
	for name, refuse := range map[string]func(w *world){
		"denied": func(w *world) {
			w.server.setRefuse(func(action clienttesting.Action) error {
				if update, ok := action.(clienttesting.UpdateAction); ok && action.GetVerb() == "create" && strings.HasPrefix(accessor(update.GetObject()).GetName(), "bar.paris") {
					return errForbidden
				}
				return nil
			})
			w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		},
		"foreign, and in no cache": func(w *world) {
			w.server.remove("endpointslices", "default", "bar.paris.ipv4")
			w.server.put(foreign)
		},
		"changed on its way": func(w *world) {
			w.server.setAdmit(func(obj runtime.Object) {
				if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && slice.Name == "bar.paris.ipv4" {
					slice.Endpoints[0].Conditions.Ready = new(bool)
				}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			failsOver(t, "paris,berlin", func(w *world) {
				refuse(w)
				w.ready(false)
				for range 10 {
					w.wait(20 * time.Second)
					if got := w.beside(); !strings.Contains(got, "bar.berlin.ipv4 +") {
						t.Errorf("got %s", got)
					}
				}
				w.logged(1, `"Failed over: no local endpoint is ready" service="default/bar" remote="berlin"`)
				w.server.setRefuse(nil)
				w.server.setAdmit(nil)
				if w.server.slice("default", "bar.paris.ipv4") != nil {
					w.server.remove("endpointslices", "default", "bar.paris.ipv4")
				}
				w.wait(10 * time.Minute)
				if got := w.beside(); got != "bar.berlin.ipv4 -, bar.paris.ipv4 +" {
					t.Errorf("got %s", got)
				}
			})
		})
	}
}

// A foreign slice that is in no cache delays the retry of no other remote.
func TestFailoverConflictDelaysNoOther(t *testing.T) {
	failsOver(t, "paris,berlin", func(w *world) {
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		foreign := ownSlice(false)
		foreign.Name, foreign.Labels = "bar.paris.ipv4", nil
		w.server.put(foreign)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1 dead"))
		w.wait(time.Minute)
		w.logged(1, "Conflict")
		refused := 0
		w.server.setRefuse(func(action clienttesting.Action) error {
			update, ok := action.(clienttesting.UpdateAction)
			if ok && action.GetVerb() == "update" && strings.HasPrefix(accessor(update.GetObject()).GetName(), "bar.berlin") {
				if refused++; refused == 1 {
					return apierrors.NewInternalError(errors.New("once"))
				}
			}
			return nil
		})
		w.ready(false)
		w.wait(5 * time.Second)
		if got := w.beside(); got != "bar.berlin.ipv4 +, bar.paris.ipv4 -" {
			t.Errorf("got %s, %d refused", got, refused)
		}
	})
}

// A slice that the replica which led before created is not foreign, although no cache has it yet.
func TestFailoverSliceOfAnotherReplica(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		created := w.server.createdByAnother("endpointslices", cache.NewObjectName("default", "bar.paris.ipv4"))
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		w.wait(time.Minute)
		if got := w.beside(); got != "bar.paris.ipv4 -" || !created() {
			t.Errorf("got %s", got)
		}
		w.logged(0, "Conflict")
	})
}

// A standby writes nothing, and fails over once it leads.
func TestFailoverOfAStandby(t *testing.T) {
	run(t, failoverTimes, []string{"paris"}, func(w *world) {
		w.standby = true
		w.remotes["paris"].export(exportedBar())
		w.server.put(ownBar("paris"))
		w.settle()
		w.wait(time.Minute)
		w.hasBeside("")
		depose := w.lead()
		w.wait(2 * time.Second)
		if got := w.beside(); got != "bar.paris.ipv4 +" {
			t.Errorf("got %q", got)
		}
		depose()
		w.server.wrote()
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		w.wait(time.Minute)
		w.hasBeside("")
	})
}

var errForbidden = apierrors.NewForbidden(discoveryv1.Resource("endpointslices"), "", errors.New("no rule"))

// What a remote's publisher routes default/bar to is what it fails over to; the record's readiness counts, and so does
// whether it routes the name.
func TestFailoverByRecords(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		paris := w.remotes["paris"]
		w.stop()
		paris.publishes()
		w.use(failoverTimes, "paris")
		record := published.Record{Service: cache.NewObjectName("default", "bar"), UID: "remote-uid", Ready: true, Hosts: []string{"bar.default"}}
		paris.publish(record)
		w.server.wrote()
		w.ready(false)
		w.settle()
		w.wait(2 * time.Second)
		w.hasBeside("bar.paris.ipv4 +", "update bar.paris.ipv4")
		record.Ready = false
		paris.publish(record)
		w.wait(time.Second)
		w.hasBeside("bar.paris.ipv4 -", "update bar.paris.ipv4")

		// Another Service takes its place, and its name.
		paris.unpublish(record)
		paris.unexport(exportedBar())
		w.wait(time.Second)
		w.server.wrote()
		w.hasBeside("")
		pub := named("shop", "pub")
		pub.UID = "pub-uid"
		paris.export(pub)
		w.wait(time.Second)
		w.server.wrote()
		paris.publish(published.Record{Service: cache.NewObjectName("shop", "pub"), UID: "pub-uid", Ready: true, Hosts: []string{"pub.shop", "bar.default"}})
		w.wait(time.Second)
		w.hasBeside("bar.paris.ipv4 +", "create bar.paris.ipv4")
		paris.publish(published.Record{Service: cache.NewObjectName("shop", "pub"), UID: "pub-uid", Ready: true, Hosts: []string{"pub.shop"}})
		w.wait(time.Second)
		w.hasBeside("", "delete bar.paris.ipv4")
	})
}

// What operators see: the page's rows, metrics, Events on the Service, and what a dry run prints.
func TestFailoverIsShown(t *testing.T) {
	events, recorder := recording(nil)
	options := failoverTimes
	options.Events, options.Metrics = events, report.NewMetrics(report.Daemon, "", []string{"paris"})
	run(t, options, []string{"paris"}, func(w *world) {
		options.Metrics.Observe(w.controller.Overview)
		w.remotes["paris"].export(exportedBar())
		w.server.put(ownBar("paris,nowhere"))
		w.server.put(ownSlice(true))
		w.settle()
		shows := func(state plan.FailoverState, serving string) {
			t.Helper()
			rows := w.controller.Overview().Failover
			if len(rows) != 1 || rows[0].State != string(state) || rows[0].Serving != serving || len(rows[0].Problems) != 1 || rows[0].Problems[0].Remote != "nowhere" {
				t.Errorf("got %+v, want %s %s", rows, state, serving)
			}
			families, err := options.Metrics.Gatherer().Gather()
			must(err)
			found := false
			for _, family := range families {
				for _, metric := range family.GetMetric() {
					if family.GetName() == "service_mirror_failover_services" && metric.GetGauge().GetValue() == 1 {
						found = metric.GetLabel()[0].GetValue() == string(state)
					}
				}
			}
			if !found {
				t.Errorf("the metric does not have 1 for %s", state)
			}
		}
		shows(plan.FailoverLocal, "")
		w.ready(false)
		w.wait(2 * time.Second)
		shows(plan.FailoverRemoteOnly, "paris")
		w.ready(true)
		w.wait(2 * time.Second)
		shows(plan.FailoverBoth, "paris")
		w.wait(20 * time.Second)
		shows(plan.FailoverLocal, "")
		expectEvents(t, recorder, "FailedBack local endpoints are ready", "FailedOver no local endpoint is ready: failed over to remote paris", "UnknownRemote remote nowhere")

		w.stop()
		w.server.remove("endpointslices", "default", "bar.paris.ipv4")
		w.standby = true
		w.use(failoverTimes, "paris")
		w.settle()
		var out bytes.Buffer
		must(w.controller.DryRun(w.Context(), nil, "london", &out))
		for _, want := range []string{"! failover of Service default/bar in london to remote nowhere: UnknownRemote: ", "create EndpointSlice default/bar.paris.ipv4 in london for failover of Service default/bar to remote paris"} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the dry run does not print %q:\n%s", want, &out)
			}
		}
	})
}

// Another program that undoes what is written is reported, and written against less and less often; who is to serve
// is written all the same.
func TestFailoverFight(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		name, fighting := cache.NewObjectName("default", "bar.paris.ipv4"), true
		fight := func() {
			w.server.edit("endpointslices", name, func(obj runtime.Object) bool {
				slice := obj.(*discoveryv1.EndpointSlice)
				changed := fighting && *slice.Ports[0].Port != 9
				if changed {
					*slice.Ports[0].Port = 9
				}
				return changed
			})
		}
		for range 3000 {
			fight()
			w.wait(20 * time.Millisecond)
		}
		if n := len(w.server.wrote()); n < fightLeast || n > fightMost {
			t.Errorf("%d writes in a minute against another program", n)
		}
		w.logged(1, "Overwritten")
		w.ready(false)
		w.wait(2 * time.Second)
		if got := w.beside(); got != "bar.paris.ipv4 +" {
			t.Errorf("got %s", got)
		}
		fighting = false
		w.wait(20 * time.Minute)
		if slice := w.server.slice("default", "bar.paris.ipv4"); *slice.Ports[0].Port != 8080 {
			t.Errorf("got %s", text(slice))
		}
		w.logged(1, "no longer has this problem\" reason=\"Overwritten")
	})
}

const fightLeast, fightMost = 51, 80
