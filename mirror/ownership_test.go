package mirror

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// foreignService is a user's Service that has the name of default/bar's mirror.
func foreignService() *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris", Labels: map[string]string{"app.kubernetes.io/managed-by": "Helm"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "theirs"}, Ports: []corev1.ServicePort{{Port: 1}}},
	}
}

func foreignEndpoints() *corev1.Endpoints {
	return &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"},
		Subsets:    []corev1.EndpointSubset{{Addresses: []corev1.EndpointAddress{{IP: "10.0.0.5"}}}},
	}
}

func TestForeignServiceIsNeverTouched(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.put(foreignService())
		w.server.put(foreignEndpoints())
		w.remotes["paris"].export(exportedBar())
		w.settle()
		for range 20 {
			theirs := w.pair().Service
			theirs.Spec.Ports[0].Port++
			w.server.put(theirs)
			w.remotes["paris"].know(true)
			w.wait(time.Minute)
		}
		w.expect()
		w.logged(1, `reason="Conflict"`)

		w.server.removePair("default", "bar-paris")
		w.settle()
		w.expect(createEndpoints, createService)
		w.mirrored()
		w.logged(1, `"Mirror no longer has this problem" reason="Conflict"`)
	})
}

// A foreign Service is no conflict while nothing is exported under its name.
func TestForeignServiceWithoutAnExportIsNoConflict(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.put(foreignService())
		w.settle()
		w.remotes["paris"].know(true)
		w.settle()
		w.expect()
		w.logged(0, `reason=`)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict"`)
		w.remotes["paris"].unexport(exportedBar())
		w.settle()
		w.expect()
		w.logged(1, `"Mirror no longer has this problem" reason="Conflict"`)
	})
}

// A foreign Service that is not in the cache yet is noticed by AlreadyExists: the
// Endpoints that were created before must not become its own.
func TestEndpointsUnderAForeignServiceAreRemoved(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.settle()
		w.server.pauseWatches(true)
		w.server.put(foreignService())
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		writes := w.expect(createEndpoints, createService, deleteEndpoints)
		if len(writes) == 3 && (writes[1].what != createService || !apierrors.IsAlreadyExists(writes[1].err)) {
			w.Errorf("got %v", writes)
		}
		if left := w.pair().Endpoints; left != nil {
			w.Errorf("left: %s", text(left))
		}
		w.server.pauseWatches(false)
		w.wait(time.Hour)
		// The event of our own Endpoints may come before that of the foreign Service.
		if again := w.server.wrote(); len(again) > 3 {
			w.Errorf("retried more than once: %v", again)
		}
		w.logged(1, `reason="Conflict"`)
		w.server.remove("services", "default", "bar-paris")
		w.settle()
		w.expect(createEndpoints, createService)
		w.mirrored()
	})
}

// The API server fails just when they have to be removed.
func TestEndpointsUnderAForeignServiceAreRemovedInTheEnd(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.settle()
		w.server.pauseWatches(true)
		w.server.put(foreignService())
		var away atomic.Bool
		away.Store(true)
		w.server.refuse = func(action clienttesting.Action) error {
			if away.Load() && action.GetVerb() == "delete" {
				return apierrors.NewInternalError(errors.New("etcd is unavailable"))
			}
			return nil
		}
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		if w.pair().Endpoints == nil {
			w.Error("they were removed")
		}
		w.server.pauseWatches(false)
		w.wait(time.Second)
		away.Store(false)
		w.wait(time.Minute)
		if left := w.pair().Endpoints; left != nil {
			w.Errorf("left: %s", text(left))
		}
		w.logged(1, `reason="Conflict"`)
		w.server.wrote()
		w.wait(time.Hour)
		w.expect()
	})
}

// Foreign Endpoints without a Service are in no cache: they are looked up every 30 s.
func TestForeignLoneEndpoints(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.put(foreignEndpoints())
		w.settle()
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(createEndpoints)
		w.wait(28 * time.Second)
		w.expect()
		w.wait(5 * time.Minute)
		if tries := len(w.server.wrote()); tries < 9 || tries > 10 {
			w.Errorf("%d tries in five minutes, want one every 30 s", tries)
		}
		if got := w.pair(); got.Service != nil || text(got.Endpoints.Subsets) != text(foreignEndpoints().Subsets) {
			w.Errorf("got %s", text(got))
		}
		w.logged(1, `reason="Conflict"`)

		w.server.remove("endpoints", "default", "bar-paris")
		w.wait(31 * time.Second)
		w.expect(createEndpoints, createService)
		w.mirrored()
	})
}

// Endpoints with half of our labels are in the cache, and foreign.
func TestEndpointsWithHalfOfOurLabels(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		theirs := foreignEndpoints()
		theirs.Labels = map[string]string{plan.ManagedByLabel: plan.ManagedBy}
		w.server.put(theirs)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict"`)
		w.server.remove("endpoints", "default", "bar-paris")
		w.settle()
		w.expect(createEndpoints, createService)
	})
}

// Without our labels a Service is released, and its Endpoints with it.
func TestReleasedMirrorIsLeftAlone(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		released := w.pair().Service
		released.Labels = nil
		w.server.put(released)
		w.settle()
		endpoints := w.pair().Endpoints
		endpoints.Subsets[0].Addresses[0].IP = "192.0.2.66"
		w.server.put(endpoints)
		moved := parisGateway()
		moved.Addresses = nil
		w.remotes["paris"].setGateway(moved)
		w.wait(time.Minute)
		w.expect()
		w.logged(1, `reason="Conflict"`)
		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Hour)
		w.expect()
	})
}

// With our labels it is ours again.
func TestReleasedMirrorIsOwnedAgain(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		owned := w.pair().Service
		released := owned.DeepCopy()
		released.Labels = nil
		w.server.put(released)
		w.settle()
		exported := exportedBar()
		exported.Spec.Ports[1].Port = 444
		w.remotes["paris"].export(exported)
		w.settle()
		w.expect()
		w.server.put(owned)
		w.settle()
		w.expect(updateService)
	})
}

// api-eu of paris and api of eu-paris want one name.
func TestTwoRemotesWantOneName(t *testing.T) {
	const service, endpoints = "services default/api-eu-paris", "endpoints default/api-eu-paris"
	for name, first := range map[string]string{"paris": "paris", "eu-paris": "eu-paris"} {
		t.Run(name+" first", func(t *testing.T) {
			run(t, Options{}, []string{"paris", "eu-paris"}, func(w *world) {
				exports := map[string]*corev1.Service{"paris": named("default", "api-eu"), "eu-paris": named("default", "api")}
				second := "paris"
				if first == second {
					second = "eu-paris"
				}
				owner := func() string {
					svc := w.server.service("default", "api-eu-paris")
					if svc == nil {
						return ""
					}
					return svc.Labels[plan.ClusterLabel]
				}
				w.remotes[first].export(exports[first])
				w.settle()
				w.expect("create "+endpoints, "create "+service)
				w.remotes[second].export(exports[second])
				w.wait(time.Hour)
				w.expect()
				if owner() != first {
					w.Errorf("the mirror is of %q, want %q", owner(), first)
				}
				w.logged(1, `reason="Conflict" cluster="`+second+`"`)

				// While the owner is not known, no other remote gets its mirror.
				w.remotes[first].know(false)
				w.wait(time.Hour)
				w.expect()
				w.remotes[first].know(true)

				w.remotes[first].unexport(exports[first])
				w.settle()
				w.expect("delete "+service, "delete "+endpoints, "create "+endpoints, "create "+service)
				if owner() != second {
					w.Errorf("the mirror is of %q, want %q", owner(), second)
				}
				w.logged(1, `"Mirror no longer has this problem" reason="Conflict" cluster="`+second+`"`)
			})
		})
	}
}

// The same applies after a restart: the existing mirror keeps its name.
func TestOwnerKeepsTheNameOverARestart(t *testing.T) {
	run(t, Options{}, []string{"paris"}, func(w *world) {
		w.remotes["paris"].export(named("default", "api-eu"))
		w.settle()
		w.server.wrote()
		w.stop()
		w.use(Options{}, "paris", "eu-paris") // eu-paris comes first by name
		w.remotes["eu-paris"].export(named("default", "api"))
		w.settle()
		w.expect()
		if owner := w.server.service("default", "api-eu-paris").Labels[plan.ClusterLabel]; owner != "paris" {
			w.Errorf("the mirror is of %s", owner)
		}
	})
}

// slice is an EndpointSlice that the EndpointSlice controller created for a mirror
// while that had a selector.
func leftoverSlice(owner types.UID, change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	controller := true
	slice := &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: "bar-paris-x7",
		Labels: map[string]string{
			plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: "paris",
			discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io", discoveryv1.LabelServiceName: "bar-paris",
		},
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Service", Name: "bar-paris", UID: owner, Controller: &controller}},
	}}
	change(slice)
	return slice
}

func TestLeftoverSlices(t *testing.T) {
	for _, test := range []struct {
		name    string
		change  func(*discoveryv1.EndpointSlice)
		deleted bool
	}{
		{"of the mirror", func(*discoveryv1.EndpointSlice) {}, true},
		{"of another owner", func(s *discoveryv1.EndpointSlice) { s.OwnerReferences[0].UID = "other" }, false},
		{"of another kind of owner", func(s *discoveryv1.EndpointSlice) { s.OwnerReferences[0].Kind = "Deployment" }, false},
		{"of no owner", func(s *discoveryv1.EndpointSlice) { s.OwnerReferences = nil }, false},
		{"of another Service", func(s *discoveryv1.EndpointSlice) { s.Labels[discoveryv1.LabelServiceName] = "foo" }, false},
		{"of the mirroring controller", func(s *discoveryv1.EndpointSlice) {
			s.Labels[discoveryv1.LabelManagedBy] = "endpointslicemirroring-controller.k8s.io"
		}, false},
		{"without our label", func(s *discoveryv1.EndpointSlice) { delete(s.Labels, plan.ManagedByLabel) }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				w.server.put(leftoverSlice(w.pair().Service.UID, test.change))
				w.wait(time.Minute)
				if !test.deleted {
					w.expect()
					return
				}
				slice := w.expect("delete endpointslices default/bar-paris-x7")
				if p := slice[0].options.Preconditions; p == nil || p.UID == nil || p.ResourceVersion == nil {
					w.Errorf("it is deleted with preconditions %s", text(p))
				}
			})
		})
	}
}

// A slice of a foreign Service is foreign, even with copies of our labels.
func TestSlicesOfAReleasedMirrorStay(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		released := w.pair().Service
		released.Labels = nil
		released.Spec.Selector = map[string]string{"app": "theirs"}
		w.server.put(released)
		w.settle()
		w.server.put(leftoverSlice(released.UID, func(*discoveryv1.EndpointSlice) {}))
		w.wait(time.Hour)
		w.expect()
	})
}

func TestSelectorAndItsSlicesAreRemoved(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		edited := w.pair().Service
		edited.Spec.Selector = map[string]string{"app": "evil"}
		w.server.put(edited)
		w.server.put(leftoverSlice(edited.UID, func(*discoveryv1.EndpointSlice) {}))
		w.settle()
		w.expect(updateService, "delete endpointslices default/bar-paris-x7")
		w.mirrored()
	})
}

func TestDeletionOfALeftoverSliceIsRetried(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		failures := 3
		w.server.setRefuse(func(action clienttesting.Action) error {
			if action.GetResource().Resource == "endpointslices" && failures > 0 {
				failures--
				return apierrors.NewInternalError(errTest)
			}
			return nil
		})
		w.server.put(leftoverSlice(w.pair().Service.UID, func(*discoveryv1.EndpointSlice) {}))
		w.wait(time.Minute)
		const one = "delete endpointslices default/bar-paris-x7"
		w.expect(one, one, one, one)
	})
}

// What the previous leader created may not be in the cache of the next one yet: it is
// not foreign.
func TestMirrorOfAnotherReplicaIsNotForeign(t *testing.T) {
	for _, api := range []plan.EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		run(t, Options{Policy: Policy{EndpointsAPI: api}}, paris, func(w *world) {
			w.settle()
			w.server.pauseWatches(true)
			made, _ := Policy{EndpointsAPI: api}.Desired(parisBar(), Objects{}, nil, nil)
			w.server.put(made.Service)
			if api == UseEndpoints {
				w.server.put(made.Endpoints)
			} else {
				w.server.put(made.IPv4)
			}
			w.remotes["paris"].export(exportedBar())
			w.wait(time.Second)
			w.server.pauseWatches(false)
			w.wait(time.Minute)
			w.logged(0, "Conflict")
			for _, write := range w.server.wrote() {
				if write.err == nil {
					w.Errorf("%s", write.what)
				}
			}
		})
	}
}

// If another replica created the Service between our create of the Endpoints and that of
// the Service, the Endpoints belong to that mirror.
func TestMirrorOfAnotherReplicaKeepsItsEndpoints(t *testing.T) {
	for _, api := range []plan.EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		run(t, Options{Policy: Policy{EndpointsAPI: api}}, paris, func(w *world) {
			w.server.createdByAnother("services", cache.NewObjectName("default", "bar-paris"))
			w.remotes["paris"].export(exportedBar())
			w.settle()
			w.wait(time.Minute)
			for _, write := range w.server.wrote() {
				if write.err == nil && !strings.HasPrefix(write.what, "create endpoint") {
					w.Errorf("%s", write.what)
				}
			}
			w.logged(0, "reason=")
		})
	}
}

// Endpoints with half of our labels are foreign, and no reason to keep the rest of a
// mirror whose Service is no longer exported.
func TestUnwantedMirrorWithForeignEndpointsIsDeleted(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.settle()
		theirs := w.pair().Endpoints
		delete(theirs.Labels, plan.ClusterLabel)
		w.server.put(theirs)
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict"`)
		w.remotes["paris"].unexport(exportedBar())
		w.settle()
		w.expect("delete services default/bar-paris")
	})
}

// A slice whose record of its mirror someone edits is foreign to that mirror, which says so at once.
func TestSliceThatRecordsAnotherMirror(t *testing.T) {
	run(t, Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.server.edit("endpointslices", cache.NewObjectName("default", "bar-paris-ipv4"), func(obj runtime.Object) bool {
			accessor(obj).GetAnnotations()[plan.MirrorAnnotation] = "default/x"
			return true
		})
		w.wait(time.Second)
		w.logged(1, `reason="Conflict"`)
	})
}
