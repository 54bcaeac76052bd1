package remote

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	clienttesting "k8s.io/client-go/testing"
)

// A watch that has one event and fails, in other words each time, is one failure.
func TestWatchThatFailsAfterEachEvent(t *testing.T) {
	connecting(t, through(), false, func(r *rig) {
		opened := 0
		r.a().PrependWatchReactor("services", func(action clienttesting.Action) (bool, watch.Interface, error) {
			if action.GetNamespace() != "" {
				return false, nil, nil
			}
			opened++
			status := metav1.Status{Status: metav1.StatusFailure, Code: http.StatusInternalServerError, Reason: metav1.StatusReasonInternalError,
				Message: fmt.Sprintf("stream error: stream ID %d; INTERNAL_ERROR; received from peer", 2*opened+1)}
			w := watch.NewFakeWithChanSize(2, false)
			w.Action(watch.Bookmark, runtime.Object(&corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "1"}}))
			w.Action(watch.Error, &status)
			return true, w, nil
		})
		r.pointTo("a.example.com")
		r.wait(92 * time.Second)
		r.known("a-uid", "192.0.2.1", "default/bar")
		if opened < 30 {
			r.Errorf("%d watches were opened", opened)
		}
		if n := strings.Count(r.log.String(), "stream error"); n > 3 {
			r.Errorf("it is logged %d times:\n%s", n, r.log)
		}
		if problems := r.Status().Problems; len(problems) != 1 || problems[0].Kind() != ExportsProblem {
			r.Errorf("the problems are %v", problems)
		}
	})
}
