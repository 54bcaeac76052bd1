package mirror

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
)

var errTest = errors.New("this is a test")

// refusing answers a verb on a resource with an error, a number of times.
func refusing(verb, resource string, times int, err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetVerb() != verb || action.GetResource().Resource != resource || times == 0 {
			return nil
		}
		times--
		return err
	}
}

const forever = -1

func TestFailuresAreRetriedForever(t *testing.T) {
	for name, err := range map[string]error{
		"500":       apierrors.NewInternalError(errTest),
		"429":       apierrors.NewTooManyRequests("slow down", 1),
		"no answer": errTest,
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, paris, func(w *world) {
				w.server.setRefuse(refusing("create", "services", forever, err))
				w.remotes["paris"].export(exportedBar())
				w.settle()
				if tries := len(w.server.wrote()); tries < 3 || tries > 8 {
					w.Errorf("%d writes in the first second", tries)
				}
				w.wait(time.Hour)
				w.server.wrote()
				w.wait(time.Hour)
				// Retried forever, at least every 30 s.
				if tries := len(w.server.wrote()); tries < 119 || tries > 121 {
					w.Errorf("%d writes in the second hour, want one every 30 s", tries)
				}
				w.logged(1, `reason="WriteFailed"`)
				w.server.setRefuse(nil)
				w.wait(31 * time.Second)
				w.expect(createService)
				w.mirrored()
			})
		})
	}
}

func TestFailureOfOneMirrorCostsTheOthersNothing(t *testing.T) {
	run(t, Options{Workers: 1}, paris, func(w *world) {
		w.server.setRefuse(func(action clienttesting.Action) error {
			if create, ok := action.(clienttesting.CreateActionImpl); ok && accessor(create.Object).GetName() == "bad-paris" {
				return apierrors.NewInternalError(errTest)
			}
			return nil
		})
		w.remotes["paris"].export(named("default", "bad"))
		w.settle()
		w.server.wrote()
		w.wait(time.Hour)
		w.server.wrote()
		w.remotes["paris"].export(exportedBar())
		w.wait(10 * time.Millisecond)
		w.mirrored()
	})
}

// What the API server rejects is retried when it changes, and every half minute: the cause may be a policy of
// the local cluster.
func TestRejectionIsRetriedRarely(t *testing.T) {
	for _, resource := range []string{"endpoints", "services"} {
		t.Run(resource, func(t *testing.T) {
			run(t, Options{}, paris, func(w *world) {
				w.server.setRefuse(refusing("create", resource, forever, invalid("Service", "bar-paris", "no such name")))
				w.remotes["paris"].export(exportedBar())
				w.settle()
				w.wait(time.Hour)
				var creates int
				for _, write := range w.server.wrote() {
					if strings.HasSuffix(write.what, resource+" default/bar-paris") && !strings.HasPrefix(write.what, "delete") {
						creates++
					}
				}
				if creates < 120 || creates > 126 {
					w.Errorf("it is retried %d times in an hour, want every half minute", creates)
				}
				w.logged(1, `reason="Rejected"`)
				if left := w.pair(); left.Service != nil || left.Endpoints != nil {
					w.Errorf("left: %s", text(left))
				}

				w.server.setRefuse(nil)
				changed := exportedBar()
				changed.Labels["x"] = "y"
				changed.Spec.Ports[0].Port = 81
				w.remotes["paris"].export(changed)
				w.wait(lastRejected + time.Second)
				if resource == "services" { // of which the addresses would come and go with each retry
					w.expect("try services default/bar-paris", createEndpoints, createService)
				} else {
					w.expect(createEndpoints, createService)
				}
			})
		})
	}
}

// A sync may begin while an object backs off, and end when that is over. It has written nothing, so that no event
// brings the key back.
func TestSyncThatOutlastsABackOffIsFollowedByAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		key := cache.NewObjectName("default", "bar-paris")
		refused := plan.Problem{Reason: plan.Rejected}
		p := plan.Plan{Key: key, Source: &plan.Candidate{Service: exportedBar()}, Desired: storedBar()}
		var result write.Result
		result.Objects[plan.Service].Rejected = &refused
		m := newMemory(0)
		after, _ := m.commit(p, result)
		time.Sleep(after - time.Nanosecond)
		if m.recall(key).Backoffs[plan.Service] == nil {
			t.Fatal("it does not back off")
		}
		p.BackedOff[plan.Service] = true
		time.Sleep(time.Nanosecond)
		if after, _ = m.commit(p, write.Result{}); after <= 0 || after > time.Second {
			t.Errorf("the key is looked at again after %v, want at once", after)
		}
	})
}

func TestRejectedUpdateIsRetriedRarely(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("update", "services", forever, invalid("Service", "bar-paris", "spec.ports")))
		changed := exportedBar()
		changed.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(changed)
		for range 60 {
			w.remotes["paris"].know(true)
			w.wait(time.Minute)
		}
		if writes := len(w.server.wrote()); writes < 120 || writes > 126 {
			w.Errorf("%d writes in an hour, want one every half minute", writes)
		}
		w.logged(1, `reason="Rejected"`)
		w.mirrored() // as it was
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.logged(1, `no longer has this problem" reason="Rejected"`)
	})
}

// A conflict means that the cache is behind: it is neither a failure nor reported.
func TestConflictIsRequeued(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("update", "services", 1, apierrors.NewConflict(corev1.Resource("services"), "bar-paris", errTest)))
		changed := exportedBar()
		changed.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(changed)
		w.settle()
		w.expect(updateService, updateService)
		w.logged(0, `reason=`)
	})
}

// So does an update of a deleted object.
func TestUpdateOfADeletedObjectIsNoFailure(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.pauseWatches(true)
		w.server.removePair("default", "bar-paris")
		changed := exportedBar()
		changed.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(changed)
		w.wait(10 * time.Millisecond)
		w.expect(updateService)
		w.server.pauseWatches(false)
		w.settle()
		if got := w.pair().Service; got == nil || got.Spec.Ports[0].Port != 81 {
			w.Errorf("got %s", text(got))
		}
		w.logged(0, `reason=`)
	})
}

func TestStaleDeletionDeletesNothing(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.pauseWatches(true)
		// Someone removes our labels, same UID, while it is unexported.
		taken := w.pair().Service
		taken.Labels = nil
		taken.Spec.Selector = map[string]string{"app": "theirs"}
		w.server.put(taken)
		w.remotes["paris"].unexport(exportedBar())
		w.wait(10 * time.Second)
		if got := w.pair(); got.Service == nil || got.Endpoints == nil {
			w.Fatalf("deleted: %s", text(got))
		}
		w.server.pauseWatches(false)
		w.wait(time.Hour)
		w.server.wrote()
		if got := w.pair(); got.Service == nil || got.Endpoints == nil {
			w.Errorf("deleted: %s", text(got))
		}
	})
}

// webhook rewrites every mirror Service that it sees.
func webhook(svc *corev1.Service) { svc.Labels["service.kubernetes.io/service-proxy-name"] = "mesh" }

func TestMutatingWebhookIsBackedOffFrom(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setAdmit(onServices(webhook))
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(time.Hour)
		// 1 s, doubled to five minutes: 9 within the first 10 minutes, then 12 an hour.
		if writes := len(w.server.wrote()); writes < 10 || writes > 30 {
			w.Errorf("%d writes in the first hour", writes)
		}
		// Other events do not make it sooner.
		for range 60 {
			touched := w.pair().Service
			touched.Annotations["touched"] = time.Now().String()
			w.server.put(touched)
			w.remotes["paris"].know(true)
			w.wait(time.Minute)
		}
		if writes := len(w.server.wrote()); writes < 10 || writes > 14 {
			w.Errorf("%d writes in the second hour", writes)
		}
		w.logged(1, `"Mirror has a problem" reason="Overwritten"`)
		w.logged(0, `no longer has this problem" reason="Overwritten"`)

		w.server.setAdmit(nil)
		w.wait(6 * time.Minute)
		w.expect(updateService)
		w.wait(time.Hour)
		w.expect()
		w.logged(1, `no longer has this problem" reason="Overwritten"`)
	})
}

// A webhook that only adds labels and annotations of its own is no problem.
func TestHarmlessWebhookIsIgnored(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setAdmit(onServices(func(svc *corev1.Service) { svc.Annotations["mesh.example.com/seen"] = "true" }))
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		w.settle()
		w.wait(time.Hour)
		w.expect(createEndpoints, createService)
		w.logged(0, `reason=`)
	})
}

func TestMutatedEndpointsAreBackedOffFrom(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setAdmit(onEndpoints(func(endpoints *corev1.Endpoints) { endpoints.Subsets = nil }))
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(time.Hour)
		if writes := len(w.server.wrote()); writes < 10 || writes > 30 {
			w.Errorf("%d writes in an hour", writes)
		}
		w.logged(1, `"Mirror has a problem" reason="Overwritten"`)
	})
}

// A replica that lost its lease fails each write: that is no problem of a mirror, and no line each.
func TestFencedWritesAreNoProblems(t *testing.T) {
	wired(t, Options{}, paris, func(string) fault { return fault{fenced: true} }, func(w *world) {
		for n := range 100 {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", n)))
		}
		w.settle()
		w.wait(time.Minute)
		w.logged(0, "reason=")
		for _, mirror := range w.controller.Overview().Mirrors {
			if len(mirror.Problems) > 0 {
				w.Fatalf("problems: %v", mirror.Problems)
			}
		}
	})
}
