package mirror

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clienttesting "k8s.io/client-go/testing"

	"service-mirror.io/service-mirror/gateway"
)

// wired is run with a real client for writes, whose requests meet faults.
func wired(t *testing.T, options Options, remotes []string, faults func(what string) fault, test func(w *world)) {
	t.Helper()
	run(t, options, remotes, func(w *world) {
		w.stop()
		w.wire = &wire{server: w.server, fault: faults}
		w.use(options, remotes...)
		test(w)
	})
}

// times records the times of requests.
type times struct {
	mu sync.Mutex
	at map[string][]time.Duration // since the first record
	t0 time.Time
}

func (n *times) note(what string) (before int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.at == nil {
		n.at, n.t0 = map[string][]time.Duration{}, time.Now()
	}
	n.at[what] = append(n.at[what], time.Since(n.t0))
	return len(n.at[what]) - 1
}

func (n *times) of(what string) []time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.at[what])
}

const (
	postEndpoints = "POST /api/v1/namespaces/default/endpoints"
	postServices  = "POST /api/v1/namespaces/default/services"
	putServices   = "PUT /api/v1/namespaces/default/services/bar-paris"
)

var (
	errBusy  = apierrors.NewTooManyRequests("slow down", 0)
	errQuota = apierrors.NewForbidden(corev1.Resource("services"), "bar-paris", errors.New("exceeded quota: few, requested: services=1, used: services=9, limited: services=9"))
)

// A request that is answered with Retry-After is retried after that time, no sooner and
// no later.
func TestRetryAfterIsHonored(t *testing.T) {
	const s = time.Second
	for _, seconds := range []int{1, 7, 90} {
		t.Run(fmt.Sprint(seconds), func(t *testing.T) {
			var requests times
			wired(t, Options{}, paris, func(what string) fault {
				if before := requests.note(what); what == postServices && before < 3 {
					return fault{err: errBusy, retryAfter: seconds}
				}
				return fault{}
			}, func(w *world) {
				w.remotes["paris"].export(exportedBar())
				w.settle()
				w.wait(10 * time.Minute)
				wait := time.Duration(seconds) * s
				if got, want := requests.of(postServices), []time.Duration{0, wait, 2 * wait, 3 * wait}; !slices.Equal(got, want) {
					w.Errorf("requests at %v, want %v", got, want)
				}
				w.mirrored()
				w.logged(0, "reason=")
			})
		})
	}
}

// Only the mirror whose write is answered so waits.
func TestBusyAnswerDelaysNoOtherMirror(t *testing.T) {
	var requests times
	wired(t, Options{Workers: 2}, paris, func(what string) fault {
		// The first in the queue have to wait.
		if before := requests.note(what); what == postEndpoints && before == 0 {
			return fault{err: errBusy, retryAfter: 60}
		}
		return fault{delay: time.Millisecond}
	}, func(w *world) {
		for n := range 1000 {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", n)))
		}
		w.start()
		w.wait(3 * time.Second) // two requests each, a millisecond each, by one worker
		if n := mirrors(w); n != 999 {
			w.Errorf("%d mirrors after 3 s, want 999", n)
		}
		w.wait(60 * time.Second)
		if n := mirrors(w); n != 1000 {
			w.Errorf("%d mirrors after 63 s, want 1000", n)
		}
	})
}

func mirrors(w *world) int {
	w.server.mu.Lock()
	defer w.server.mu.Unlock()
	return len(w.server.objects["services"])
}

// A quota refuses some: the others are mirrored, the refused ones back off, and are
// mirrored once the quota allows it.
func TestQuotaDelaysNoOtherMirror(t *testing.T) {
	for _, kind := range []string{"services", "endpoints"} {
		t.Run(kind, func(t *testing.T) {
			run(t, Options{Workers: 2}, []string{"paris", "berlin"}, func(w *world) {
				w.server.setRefuse(func(action clienttesting.Action) error {
					if create, ok := action.(clienttesting.CreateActionImpl); ok && action.GetResource().Resource == kind && strings.HasPrefix(accessor(create.Object).GetName(), "big-") {
						return errQuota
					}
					return nil
				})
				for n := range 100 { // first in the queue
					w.remotes["paris"].export(named("default", fmt.Sprintf("big-%d", n)))
				}
				for n := range 1000 {
					remote := []string{"paris", "berlin"}[n%2]
					w.remotes[remote].export(named("default", fmt.Sprintf("svc-%d", n)))
				}
				w.start()
				w.wait(0)
				if n := mirrors(w); n != 1000 {
					w.Errorf("%d mirrors at once, want 1000", n)
				}
				w.wait(10 * time.Minute)
				w.server.wrote()
				w.wait(10 * time.Minute)
				// Each once in 30 s.
				if tries := len(w.server.wrote()); tries < 100*19 || tries > 100*21 {
					w.Errorf("%d attempts in ten minutes for 100 that are refused", tries)
				}
				w.logged(1, `"Mirrors have a problem" reason="Rejected" cluster="paris" mirrors=100`)
				w.server.setRefuse(nil)
				w.wait(31 * time.Second)
				if n := mirrors(w); n != 1100 {
					w.Errorf("%d mirrors once the quota allows it, want 1100", n)
				}
				w.logged(1, `"Mirrors no longer have this problem" reason="Rejected" cluster="paris" mirrors=100`)
				w.logged(2, "reason=")
			})
		})
	}
}

// What was created for a Service that a quota, a policy or a missing permission refuses goes again, and is not
// created and deleted with every retry.
func TestNothingIsLeftOfARefusedMirror(t *testing.T) {
	for name, err := range map[string]error{
		"quota":      errQuota,
		"permission": apierrors.NewForbidden(corev1.Resource("services"), "bar-paris", errTest),
		"invalid":    apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Service").GroupKind(), "bar-paris", nil),
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, paris, func(w *world) {
				w.server.setRefuse(refusing("create", "services", forever, err))
				w.remotes["paris"].export(exportedBar())
				w.settle()
				w.wait(time.Minute)
				if left := w.pair(); left.Service != nil || left.Endpoints != nil {
					w.Errorf("left: %s", text(left))
				}
				w.server.wrote()
				w.wait(time.Hour)
				tries := w.server.wrote()
				if len(tries) < 119 || len(tries) > 121 {
					w.Errorf("%d attempts in an hour, want one every 30 s", len(tries))
				}
				for _, write := range tries {
					if write.what != "try services default/bar-paris" {
						w.Errorf("written: %s", write.what)
						break
					}
				}
				w.logged(1, `reason="Rejected"`)
				w.server.setRefuse(nil)
				w.wait(31 * time.Second)
				w.mirrored()
			})
		})
	}
}

// Nor do addresses stay that are from before a restart, or from before the Service was deleted, unless they are known from
// nowhere else.
func TestNoEndpointsAreLeftWithoutTheirService(t *testing.T) {
	ofNames := func(missing corev1.IPFamily, addresses ...string) *gateway.Gateway {
		gw := gatewayAt(addresses...)
		gw.Partial, gw.Missing = true, missing
		return gw
	}
	for name, test := range map[string]struct {
		gw    *gateway.Gateway
		stays bool
	}{
		"known":             {parisGateway(), false},
		"IPv6 not resolved": {ofNames(corev1.IPv6Protocol, "203.0.113.1"), false},
		"IPv4 not resolved": {ofNames(corev1.IPv4Protocol, "2001:db8::1"), true},
		"not resolved":      {ofNames(""), true},
	} {
		t.Run(name, func(t *testing.T) {
			exporting(t, Options{}, paris, func(w *world) {
				w.stop()
				w.server.remove("services", "default", "bar-paris")
				w.server.setRefuse(refusing("create", "services", forever, errQuota))
				w.use(Options{}, "paris")
				w.remotes["paris"].setGateway(test.gw)
				w.settle()
				w.wait(time.Minute)
				if left := w.pair(); left.Service != nil || (left.Endpoints != nil) != test.stays {
					w.Errorf("left: %s", text(left))
				}
				w.server.setRefuse(nil)
				w.remotes["paris"].setGateway(parisGateway())
				w.wait(31 * time.Second)
				w.mirrored()
			})
		})
	}
}

// A lost answer says nothing about what was done. The answer to each write is lost in
// turn, with the watch up to date and behind.
func TestLostAnswers(t *testing.T) {
	changed := exportedBar()
	changed.Spec.Ports[0].Port = 81
	for _, behind := range []bool{false, true} {
		for _, lost := range []string{
			postEndpoints, postServices, putServices,
			"DELETE /api/v1/namespaces/default/services/bar-paris", "DELETE /api/v1/namespaces/default/endpoints/bar-paris",
		} {
			t.Run(fmt.Sprint(lost, " behind ", behind), func(t *testing.T) {
				var requests times
				wired(t, Options{}, paris, func(what string) fault {
					return fault{lost: requests.note(what) == 0 && what == lost}
				}, func(w *world) {
					w.settle()
					w.server.pauseWatches(behind)
					catchUp := func() {
						w.wait(time.Second)
						w.server.pauseWatches(false)
						w.wait(time.Minute)
						w.server.pauseWatches(behind)
					}
					w.remotes["paris"].export(exportedBar())
					catchUp()
					w.mirrored()
					was := w.pair().Service
					w.remotes["paris"].export(changed)
					catchUp()
					if now := w.pair().Service; now.UID != was.UID || now.Spec.ClusterIP != was.Spec.ClusterIP || now.Spec.Ports[0].Port != 81 {
						w.Errorf("got %s, it was %s", text(now), text(was))
					}
					w.remotes["paris"].unexport(changed)
					catchUp()
					if left := w.pair(); left.Service != nil || left.Endpoints != nil {
						w.Errorf("left: %s", text(left))
					}
					done := map[string]int{}
					for _, write := range w.server.wrote() {
						if write.err == nil {
							done[write.what]++
						}
					}
					want := map[string]int{createEndpoints: 1, createService: 1, updateService: 1, deleteService: 1, deleteEndpoints: 1}
					if text(done) != text(want) {
						w.Errorf("done %v, want %v", done, want)
					}
					w.logged(0, `reason="Conflict"`)
				})
			})
		}
	}
}
