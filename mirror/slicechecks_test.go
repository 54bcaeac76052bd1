package mirror

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
)

// interruptions are the ways in which Kubernetes stops, for a moment, to mirror the Endpoints
// of a mirror to EndpointSlices, and the writes that follow.
var interruptions = map[string]struct {
	edit   func(w *world)
	writes []string
}{
	"a selector": {func(w *world) {
		svc := w.pair().Service
		svc.Spec.Selector = map[string]string{"app": "x"}
		w.server.put(svc)
	}, []string{updateService}},
	"skip-mirror": {func(w *world) {
		endpoints := w.pair().Endpoints
		endpoints.Labels[discoveryv1.LabelSkipMirror] = "true"
		w.server.put(endpoints)
	}, []string{updateEndpoints}},
	"a leader's lock": {func(w *world) {
		endpoints := w.pair().Endpoints
		endpoints.Annotations = map[string]string{"control-plane.alpha.kubernetes.io/leader": "{}"}
		w.server.put(endpoints)
	}, []string{updateEndpoints}},
	"no Service":   {func(w *world) { w.server.remove("services", "default", "bar-paris") }, []string{createService}},
	"no Endpoints": {func(w *world) { w.server.remove("endpoints", "default", "bar-paris") }, []string{createEndpoints}},
}

func TestEndpointsWithoutSlicesAreRefreshed(t *testing.T) {
	for name, test := range interruptions {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				had := w.pair().Service
				w.server.setWithoutSlices(true)
				test.edit(w)
				if w.server.slice("default", sliceMade("bar-paris")) != nil {
					w.server.remove("endpointslices", "default", sliceMade("bar-paris"))
				}
				w.wait(900 * time.Millisecond)
				w.expect(test.writes...)
				w.wait(200 * time.Millisecond)
				w.expect(updateEndpoints, updateEndpoints)
				w.mirrored()
				// Less and less often, forever.
				w.wait(6 * time.Second)
				w.expect(updateEndpoints, updateEndpoints, updateEndpoints, updateEndpoints)
				w.logged(0, "reason=")
				w.wait(time.Hour)
				w.logged(1, `"Mirror has a problem" reason="NoEndpointSlices"`)
				w.server.wrote()
				w.wait(time.Hour)
				if writes := len(w.server.wrote()); writes < 22 || writes > 26 {
					w.Errorf("%d writes in an hour, want two every five minutes", writes)
				}

				w.server.setWithoutSlices(false)
				w.wait(2 * lastCheck)
				w.expect(updateEndpoints, updateEndpoints)
				w.logged(1, `"Mirror no longer has this problem" reason="NoEndpointSlices"`)
				w.wait(time.Hour)
				w.expect()
				w.mirrored()
				if now := w.pair().Service; name != "no Service" && now.UID != had.UID {
					w.Error("the Service was recreated")
				}
			})
		})
	}
}

func TestEndpointsWithSlicesStay(t *testing.T) {
	for name, test := range interruptions {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				test.edit(w)
				w.wait(time.Hour)
				w.expect(test.writes...)
			})
		})
	}
}

// On a busy control plane existing slices may be about to be deleted.
func TestSlicesThatAreDeletedLate(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		interruptions["a selector"].edit(w)
		w.wait(10 * time.Second)
		w.expect(updateService)
		w.server.remove("endpointslices", "default", sliceMade("bar-paris"))
		w.wait(time.Hour)
		w.expect(updateEndpoints, updateEndpoints)
	})
}

// Nothing else of them changes: the gateway may not be known now, and users may have added labels.
func TestRefreshedEndpointsStayAsTheyWere(t *testing.T) {
	partial := gatewayAt()
	partial.Partial = true
	for name, gw := range map[string]*gateway.Gateway{"unknown": nil, "partial": partial} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				w.remotes["paris"].setGateway(gw)
				endpoints := w.pair().Endpoints
				endpoints.Labels["theirs"] = "x"
				w.server.put(endpoints)
				w.wait(time.Second)
				w.server.setWithoutSlices(true)
				w.server.remove("endpointslices", "default", sliceMade("bar-paris"))
				interruptions["a selector"].edit(w)
				w.wait(90 * time.Second)
				for _, write := range w.server.wrote() {
					if write.what != updateEndpoints && write.what != updateService {
						w.Errorf("%s", write.what)
					}
				}
				now := w.pair().Endpoints
				if now == nil || now.UID != endpoints.UID || text(now.Subsets) != text(endpoints.Subsets) || text(now.Labels) != text(endpoints.Labels) || text(now.Annotations) != text(endpoints.Annotations) {
					w.Errorf("they were %s and are %s", text(endpoints), text(now))
				}
			})
		})
	}
}

// Endpoints that were just written have no slices yet, however old the pending check is.
func TestNewEndpointsAreNotRefreshed(t *testing.T) {
	shop := func() *corev1.Namespace { return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}} }
	t.Run("namespace recreated", func(t *testing.T) {
		run(t, Options{}, paris, func(w *world) {
			w.server.put(shop())
			w.remotes["paris"].export(named("shop", "bar"))
			w.settle()
			going, now := shop(), metav1Now()
			going.DeletionTimestamp = &now
			w.server.put(going)
			w.server.removePair("shop", "bar-paris")
			w.server.remove("namespaces", "", "shop")
			w.wait(time.Minute)
			w.server.wrote()
			w.server.put(shop())
			w.wait(time.Hour)
			w.expect(createShopEndpoints, createShopService)
		})
	})
	t.Run("remote known again", func(t *testing.T) {
		exporting(t, Options{}, paris, func(w *world) {
			w.remotes["paris"].know(false)
			w.server.remove("endpoints", "default", "bar-paris")
			w.wait(time.Minute)
			w.expect()
			w.remotes["paris"].know(true)
			w.wait(time.Hour)
			w.expect(createEndpoints)
		})
	})
	t.Run("a new leader", func(t *testing.T) {
		exporting(t, Options{}, paris, func(w *world) {
			w.stop()
			w.standby = true
			w.use(Options{}, "paris")
			w.settle()
			w.server.removePair("default", "bar-paris")
			w.wait(time.Minute)
			w.expect()
			go w.controller.Lead(w.Context(), time.Second)
			w.wait(time.Hour)
			w.expect(createEndpoints, createService)
		})
	})
	t.Run("no Service", func(t *testing.T) {
		exporting(t, Options{}, paris, func(w *world) {
			w.server.setWithoutSlices(true)
			w.server.setRefuse(refusing("create", "services", forever, apierrors.NewInternalError(errTest)))
			w.server.removePair("default", "bar-paris")
			w.wait(time.Hour)
			for _, write := range w.server.wrote() {
				if write.what == deleteEndpoints {
					w.Error("they are deleted though the Service does not exist")
				}
			}
		})
	})
}

// Foreign Endpoints that replaced ours cause as few attempts as any.
func TestForeignEndpointsAreNotChecked(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		theirs := &corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}}
		w.server.pauseWatches(true)
		w.server.remove("endpoints", "default", "bar-paris")
		w.server.put(theirs)
		w.server.pauseWatches(false)
		w.wait(time.Hour)
		most := int(time.Hour / foreignPeriod)
		if tries := len(w.server.wrote()); tries < most-1 || tries > most+1 {
			w.Errorf("%d attempts in an hour, want one every %v", tries, foreignPeriod)
		}
	})
}

// Mirrors that are recreated over and over take no turns from others.
func TestOneTurnPerMirror(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		const n = 10
		for i := range n {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", i)))
		}
		w.settle()
		for range 600 {
			for i := range n {
				w.server.remove("endpoints", "default", fmt.Sprintf("svc-%d-paris", i))
			}
			w.wait(firstCheck + 100*time.Millisecond)
		}
		if wait := time.Until(w.controller.memory.nextCheck); wait > n*turnPeriod {
			w.Errorf("the next turn is in %v", wait)
		}
	})
}

// Without addresses there are no slices.
func TestEndpointsWithoutAddressesStay(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.setWithoutSlices(true)
		w.remotes["paris"].setGateway(gatewayAt())
		w.wait(time.Second)
		w.server.remove("endpointslices", "default", sliceMade("bar-paris"))
		w.server.wrote()
		interruptions["a selector"].edit(w)
		w.wait(time.Hour)
		w.expect(updateService)
	})
}

// looks counts the lists of EndpointSlices.
func looks(w *world) (n int) {
	for _, action := range w.server.client.Actions() {
		if action.Matches("list", "endpointslices") && action.GetNamespace() != "" {
			n++
		}
	}
	return n
}

func noCheckIsPending(w *world) {
	w.Helper()
	w.controller.memory.mu.Lock()
	defer w.controller.memory.mu.Unlock()
	for key, r := range w.controller.memory.records {
		if r.check != nil {
			w.Errorf("a check of %v is still pending", key)
		}
	}
}

// Mirrors that nobody edits cost no requests.
func TestSlicesAreOnlyListedAfterAnInterruption(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.7"))
		w.wait(time.Hour)
		if n := looks(w); n != 0 {
			w.Errorf("%d lists", n)
		}
		interruptions["a selector"].edit(w)
		w.wait(time.Hour)
		if n := looks(w); n != 2 {
			w.Errorf("%d lists after an interruption, want 2", n)
		}
		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Hour)
		if n := looks(w); n != 2 {
			w.Errorf("%d lists after the mirror is deleted, want 2", n)
		}
		noCheckIsPending(w)
	})
}

// Someone who deletes all mirrors at once gives Kubernetes' controller much to do: the slices
// are listed more slowly than it creates them.
func TestSlicesOfManyAreListedInTurn(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		const n = 100
		for i := range n {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", i)))
		}
		w.settle()
		w.server.wrote()
		for i := range n {
			w.server.removePair("default", fmt.Sprintf("svc-%d-paris", i))
		}
		w.wait(firstCheck - time.Millisecond)
		for range 5 {
			before := looks(w)
			w.wait(time.Second)
			if did := looks(w) - before; did < 4 || did > 6 {
				w.Errorf("%d lists in a second", did)
			}
		}
		w.wait(2*n*turnPeriod + againCheck)
		if all := looks(w); all != 2*n {
			w.Errorf("%d lists for %d mirrors", all, n)
		}
		noCheckIsPending(w)
		if writes := len(w.server.wrote()); writes != 2*n {
			w.Errorf("%d writes", writes)
		}
		// Those that are gone have no turn any more.
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		for i := range n {
			w.remotes["paris"].unexport(named("default", fmt.Sprintf("svc-%d", i)))
		}
		w.wait(time.Second)
		before := looks(w)
		interruptions["a selector"].edit(w)
		w.wait(firstCheck + turnPeriod)
		if looks(w) != before+1 {
			w.Error("the slices are not listed")
		}
	})
}

// stuckAfter is when the updates of Endpoints that no EndpointSlices came of are enough.
const stuckAfter = 15 * firstCheck

// stuck has Kubernetes make no EndpointSlices of a mirror although its controller works, and waits until updates
// of the Endpoints have not helped, and it is kept from mirroring them.
func stuck(w *world) {
	w.Helper()
	interruptions["a selector"].edit(w)
	w.server.getStuck("default", "bar-paris")
	w.wait(stuckAfter - 100*time.Millisecond)
	w.expect(updateService, updateEndpoints, updateEndpoints, updateEndpoints, updateEndpoints, updateEndpoints, updateEndpoints)
	w.wait(200 * time.Millisecond)
	w.expect(updateEndpoints)
	if plan.Mirrored(w.pair().Endpoints) {
		w.Error("the Endpoints can be mirrored")
	}
}

// The controller forgets an EndpointSlice that it waits for in vain; the Endpoints keep what they have.
func TestStuckMirroringIsRestarted(t *testing.T) {
	for name, unknown := range map[string]bool{"gateway known": false, "gateway unknown": true} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				had := w.pair().Endpoints
				if unknown {
					w.remotes["paris"].setGateway(nil)
				}
				stuck(w)
				if now := w.pair().Endpoints; now.UID != had.UID || text(now.Subsets) != text(had.Subsets) {
					w.Errorf("they were %s and are %s", text(had), text(now))
				}
				w.wait(pauseTime)
				w.expect(updateEndpoints)
				w.wait(time.Second)
				if w.server.slice("default", sliceMade("bar-paris")) == nil {
					w.Error("there is no EndpointSlice")
				}
				w.wait(time.Hour)
				w.expect()
				w.logged(1, `"Mirror no longer has this problem" reason="NoEndpointSlices"`)
				if now := w.pair().Endpoints; now.UID != had.UID || text(now.Subsets) != text(had.Subsets) || text(now.Labels) != text(had.Labels) {
					w.Errorf("they were %s and are %s", text(had), text(now))
				}
				noCheckIsPending(w)
			})
		})
	}
}

// What changes while Kubernetes is kept from mirroring the Endpoints is written at once.
func TestGatewayMovesWhileMirroringIsPaused(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		stuck(w)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.7"))
		w.wait(100 * time.Millisecond)
		w.expect(updateEndpoints)
		if !plan.Mirrored(w.pair().Endpoints) {
			w.Error("the Endpoints cannot be mirrored")
		}
		w.wait(time.Hour)
		w.expect()
	})
}

// A daemon that dies then leaves nothing that the next one does not undo.
func TestRestartWhileMirroringIsPaused(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		stuck(w)
		w.stop()
		w.use(Options{}, "paris")
		w.settle()
		w.expect(updateEndpoints)
		if !plan.Mirrored(w.pair().Endpoints) {
			w.Error("the Endpoints cannot be mirrored")
		}
		w.wait(time.Hour)
		w.expect()
		w.mirrored()
	})
}

// No EndpointSlice is deleted for it: one that exists ends the attempts.
func TestMirroringWithSlicesIsNotRestarted(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		interruptions["a selector"].edit(w)
		w.server.getStuck("default", "bar-paris")
		w.wait(stuckAfter - 100*time.Millisecond)
		w.server.wrote()
		w.server.put(&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "made-late", Labels: map[string]string{
			discoveryv1.LabelServiceName: "bar-paris", discoveryv1.LabelManagedBy: "endpointslicemirroring-controller.k8s.io",
		}}})
		w.wait(time.Hour)
		w.expect()
	})
}

// What is deleted besides the mirror's own objects brings the key back with no event.
func TestCheckIsMadeAfterALeftoverIsDeleted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := cache.NewObjectName("default", "bar-paris")
		m := newMemory(0)
		m.interrupted(key)
		m.recall(key)
		p := plan.Plan{Key: key, Source: &plan.Candidate{Service: exportedBar()}, Desired: storedBar(), Steps: []plan.Step{{Action: plan.DeleteLeftover}}}
		if after, _ := m.commit(p, write.Result{}); after != firstCheck {
			t.Errorf("the key is looked at again after %v, want %v", after, firstCheck)
		}
	})
}

// A check that failed is made again.
func TestFailedCheckIsMadeAgain(t *testing.T) {
	for _, action := range []plan.Action{plan.CheckSlices, plan.RestartMirroring} {
		synctest.Test(t, func(t *testing.T) {
			key := cache.NewObjectName("default", "bar-paris")
			m := newMemory(0)
			m.interrupted(key)
			time.Sleep(firstCheck)
			if !m.recall(key).SliceCheck {
				t.Fatal("it is not due")
			}
			m.commit(plan.Plan{Key: key, Source: &plan.Candidate{Service: exportedBar()}, Desired: storedBar(), Steps: []plan.Step{{Action: action}}}, write.Result{})
			if !m.recall(key).SliceCheck {
				t.Error("it is given up")
			}
		})
	}
}
