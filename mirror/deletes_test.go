package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// deleted is how many Services were deleted since writes were last looked at.
func (w *world) deleted() (count int) {
	for _, write := range w.server.wrote() {
		if strings.HasPrefix(write.what, "delete services ") {
			count++
		}
	}
	return count
}

// confirm consents to the deletion of a mirror.
func (w *world) confirm(name string) {
	svc := w.server.service("default", name)
	svc.Annotations[plan.ConfirmAnnotation] = "true"
	w.server.put(svc)
}

// exportMany exports a number of Services, svc-0 and so on, and waits for their mirrors.
func (w *world) exportMany(remote string, number int) (exported []*corev1.Service) {
	for n := range number {
		svc := named("default", fmt.Sprintf("svc-%d", n))
		exported = append(exported, svc)
		w.remotes[remote].export(svc)
	}
	w.settle()
	w.server.wrote()
	return exported
}

func (w *world) unexportAll(remote string, exported []*corev1.Service) {
	for _, svc := range exported {
		w.remotes[remote].unexport(svc)
	}
	w.wait(time.Second)
}

// left are the mirrors of svc-0 and so on that exist.
func (w *world) left(remote string, number int) (names []string) {
	for n := range number {
		if name := fmt.Sprintf("svc-%d-%s", n, remote); w.server.service("default", name) != nil {
			names = append(names, name)
		}
	}
	return names
}

func TestMaxDeletes(t *testing.T) {
	run(t, Options{MaxDeletes: 3}, []string{"paris", "berlin"}, func(w *world) {
		ofParis, ofBerlin := w.exportMany("paris", 6), w.exportMany("berlin", 2)
		w.unexportAll("paris", ofParis)
		if got := w.deleted(); got != 3 {
			t.Errorf("%d were deleted at once, want 3", got)
		}
		w.wait(time.Hour)
		left := w.left("paris", 6)
		if got := w.deleted(); got != 0 || len(left) != 3 {
			t.Fatalf("%d were deleted later, and %v are left", got, left)
		}
		for _, row := range w.controller.Overview().Mirrors {
			if row.Cluster == "paris" && (row.State != string(plan.StateOrphan) || len(row.Problems) != 1 || row.Problems[0].Reason != "TooManyDeletes") {
				t.Errorf("it is shown as %+v", row)
			}
		}
		w.remotes["paris"].know(false) // nor when nothing is known of it for a while
		w.wait(time.Hour)
		w.remotes["paris"].know(true)
		w.wait(time.Hour)
		if got := w.deleted(); got != 0 {
			t.Fatalf("%d were deleted when it was known again", got)
		}
		w.unexportAll("berlin", ofBerlin)
		if got := w.deleted(); got != 2 {
			t.Errorf("of the other remote %d were deleted, want 2", got)
		}

		// One is confirmed, one exported again; the third keeps the deletions paused.
		w.confirm(left[0])
		w.wait(time.Second)
		if got := w.deleted(); got != 1 || w.server.service("default", left[0]) != nil {
			t.Errorf("one is confirmed: %d were deleted", got)
		}
		again := named("default", strings.TrimSuffix(left[1], "-paris"))
		w.remotes["paris"].export(again)
		w.wait(time.Second)
		w.remotes["paris"].unexport(again)
		w.wait(time.Hour)
		if got := w.deleted(); got != 0 {
			t.Errorf("%d were deleted without consent", got)
		}
		w.confirm(left[1])
		w.confirm(left[2])
		w.wait(time.Second)
		if got := w.deleted(); got != 2 {
			t.Errorf("all are confirmed: %d were deleted, want 2", got)
		}

		// Nothing is paused any more, so the limit counts from the beginning.
		w.unexportAll("paris", w.exportMany("paris", 2))
		if got := w.deleted(); got != 2 {
			t.Errorf("later %d were deleted, want 2", got)
		}
	})
}

// Consent that was given to a mirror which is exported is no consent to a later deletion.
func TestConsentDoesNotStay(t *testing.T) {
	run(t, Options{MaxDeletes: 1}, paris, func(w *world) {
		exported := w.exportMany("paris", 2)
		w.confirm("svc-0-paris")
		w.confirm("svc-1-paris")
		w.wait(time.Second)
		w.expect("update services default/svc-0-paris", "update services default/svc-1-paris")
		w.unexportAll("paris", exported)
		if got := w.deleted(); got != 1 {
			t.Errorf("%d were deleted, want 1", got)
		}
	})
}

// A mirror that someone else deletes is recreated, and one that changes is updated, as without a limit.
func TestMaxDeletesLimitsNothingElse(t *testing.T) {
	exporting(t, Options{MaxDeletes: 1}, paris, func(w *world) {
		for range 5 {
			w.server.removePair("default", "bar-paris")
			w.wait(10 * time.Second)
			w.mirrored()
		}
		w.logged(0, "reason=")
	})
}

// A mirror whose labels an operator removes is kept, and is no longer one whose deletion is to be confirmed.
func TestReleasedMirrorIsNotPaused(t *testing.T) {
	run(t, Options{MaxDeletes: 1}, paris, func(w *world) {
		w.unexportAll("paris", w.exportMany("paris", 3))
		left := w.left("paris", 3)
		if got := w.deleted(); got != 1 || len(left) != 2 {
			t.Fatalf("%d were deleted, %v are left", got, left)
		}
		w.server.edit("services", cache.NewObjectName("default", left[0]), func(obj runtime.Object) bool {
			accessor(obj).SetLabels(nil)
			return true
		})
		w.confirm(left[1])
		w.wait(time.Hour)
		if got := w.deleted(); got != 1 || w.server.service("default", left[0]) == nil {
			t.Fatalf("%d were deleted", got)
		}
		later := named("default", "later")
		w.remotes["paris"].export(later)
		w.wait(time.Second)
		w.remotes["paris"].unexport(later)
		w.wait(time.Second)
		if got := w.deleted(); got != 1 {
			t.Errorf("later %d were deleted, want 1; log:\n%s", got, w.log)
		}
	})
}
