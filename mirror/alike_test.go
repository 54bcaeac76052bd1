package mirror

import (
	"errors"
	"fmt"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clienttesting "k8s.io/client-go/testing"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Alike problems of many mirrors are one line, with their number, and so is their end.
func TestAlikeProblemsAreOneLine(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		for n := range 2000 {
			w.remotes["paris"].export(named("shop", fmt.Sprintf("svc-%d", n)))
		}
		w.settle()
		w.wait(time.Hour)
		w.logged(1, "reason=")
		w.logged(1, `"Mirrors have a problem" reason="NamespaceMissing" cluster="paris" mirrors=2000 service="shop/svc-0" mirror="shop/svc-0-paris" message="namespace shop does not exist`)
		w.server.put(shopNamespace())
		w.wait(time.Minute)
		w.logged(2, "reason=")
		w.logged(1, `"Mirrors no longer have this problem" reason="NamespaceMissing" cluster="paris" mirrors=2000`)
	})
}

// Few are logged with all that is said of each.
func TestFewProblemsAreALineEach(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		for n := range 3 {
			w.remotes["paris"].export(named("shop", fmt.Sprintf("svc-%d", n)))
		}
		w.settle()
		for n := range 3 {
			w.logged(1, fmt.Sprintf(`"Mirror has a problem" reason="NamespaceMissing" cluster="paris" service="shop/svc-%d"`, n))
		}
	})
}

// Problems that come one after the other, as slow writes fail, are few lines, too.
func TestProblemsThatTrickleAreFewLines(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.setRefuse(refusing("create", "endpoints", forever, apierrors.NewInternalError(errTest)))
		w.settle()
		for n := range 1000 {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", n)))
			w.wait(100 * time.Millisecond)
		}
		w.wait(time.Minute)
		if n := w.log.count("reason="); n < 5 || n > 110 {
			w.Errorf("%d lines in 100 s", n)
		}
	})
}

// A rejection that names its request is one problem, whatever number that has.
func TestRejectionInOtherWordsIsOneProblem(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events}, paris, func(w *world) {
		n := 0
		w.server.setRefuse(func(action clienttesting.Action) error {
			if action.GetVerb() != "create" || action.GetResource().Resource != "services" {
				return nil
			}
			n++
			return apierrors.NewBadRequest(fmt.Sprintf(`admission webhook "policy.example.com" denied the request: request id %08x-0000-4000-8000-%012x at %s`,
				n, n, time.Now().Format(time.RFC3339)))
		})
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.wait(time.Hour)
		if n < 100 {
			w.Errorf("%d attempts", n)
		}
		w.logged(1, "reason=")
		expectEvents(w.T, recorder, "Warning "+string(plan.Rejected))
	})
}

// The caches of the local cluster are reported in the same way as a remote.
func TestLocalCachesThatAlternateAreFewLines(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.settle()
		for n := range 1000 {
			var err error
			if n%2 == 0 {
				err = fmt.Errorf("watch ended: %w", errors.New(fmt.Sprintf("stream error: stream ID %d; INTERNAL_ERROR", n)))
			}
			w.controller.problems.Local("services", err)
			w.wait(500 * time.Millisecond)
		}
		w.logged(2, "Cannot read from the local API server")
		w.logged(1, "Reading from the local API server again")
		w.wait(time.Minute)
		w.logged(2, "Reading from the local API server again")
	})
}
