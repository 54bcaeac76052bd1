package mirror

import (
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// strict has the API server refuse what the admission policy refuses: an update that turns another slice into one for
// failover.
func (w *world) strict() {
	w.server.setRefuse(func(action clienttesting.Action) error {
		update, ok := action.(clienttesting.UpdateAction)
		if !ok || action.GetVerb() != "update" {
			return nil
		}
		slice, ok := update.GetObject().(*discoveryv1.EndpointSlice)
		if !ok || slice.Labels[plan.FailoverLabel] != "true" {
			return nil
		}
		live := w.server.objects["endpointslices"][cache.MetaObjectToName(slice)] // the server's lock is held
		if live != nil && accessor(live).GetLabels()[plan.FailoverLabel] != "true" {
			return errForbidden
		}
		return nil
	})
}

// A slice of ours whose label someone edits stays ours. It is no local endpoint, which would end failover, and it is
// recreated with the label: the admission policy permits no update that adds it.
func TestFailoverLabelIsRestored(t *testing.T) {
	edits := map[string]func(*discoveryv1.EndpointSlice){
		"removed":             func(slice *discoveryv1.EndpointSlice) { delete(slice.Labels, plan.FailoverLabel) },
		"another value":       func(slice *discoveryv1.EndpointSlice) { slice.Labels[plan.FailoverLabel] = "false" },
		"only the annotation": func(slice *discoveryv1.EndpointSlice) { delete(slice.Annotations, plan.FailoverAnnotation) },
		"and a remote Service": func(slice *discoveryv1.EndpointSlice) {
			slice.Annotations[plan.RemoteServiceAnnotation] = "default/bar"
		},
	}
	for name, want := range map[string]string{
		"removed": "create bar.paris.ipv4", "another value": "create bar.paris.ipv4",
		"only the annotation": "update bar.paris.ipv4", "and a remote Service": "update bar.paris.ipv4",
	} {
		t.Run(name, func(t *testing.T) {
			failsOver(t, "paris", func(w *world) {
				w.strict()
				w.ready(false)
				w.wait(5 * time.Second)
				w.hasBeside("bar.paris.ipv4 +", "create bar.paris.ipv4", "update bar.paris.ipv4")
				w.server.edit("endpointslices", cache.NewObjectName("default", "bar.paris.ipv4"), func(obj runtime.Object) bool {
					edits[name](obj.(*discoveryv1.EndpointSlice))
					return true
				})
				w.wait(time.Minute)
				writes := []string{want}
				if want == "create bar.paris.ipv4" {
					writes = append(writes, "delete bar.paris.ipv4")
				}
				w.hasBeside("bar.paris.ipv4 +", writes...)
				slice := w.server.slice("default", "bar.paris.ipv4")
				if slice.Labels[plan.FailoverLabel] != "true" || slice.Annotations[plan.FailoverAnnotation] != "true" || slice.Annotations[plan.RemoteServiceAnnotation] != "" {
					t.Errorf("the slice is %s", text(slice))
				}
				w.logged(0, "Failed back")
			})
		})
	}
}

// Without its label a slice goes with the Service's, too.
func TestFailoverWithoutLabelsEnds(t *testing.T) {
	failsOver(t, "paris", func(w *world) {
		w.hasBeside("bar.paris.ipv4 -", "create bar.paris.ipv4")
		w.stop()
		w.server.edit("endpointslices", cache.NewObjectName("default", "bar.paris.ipv4"), func(obj runtime.Object) bool {
			delete(obj.(*discoveryv1.EndpointSlice).Labels, plan.FailoverLabel)
			return true
		})
		w.server.edit("services", cache.NewObjectName("default", "bar"), func(obj runtime.Object) bool {
			delete(accessor(obj).GetLabels(), plan.FailoverLabel)
			return true
		})
		w.use(failoverTimes, "paris")
		w.settle()
		w.hasBeside("", "delete bar.paris.ipv4")
	})
}

// The label for failover on the slice of a merged mirror does not make it one for failover.
func TestMergedSliceWithTheLabelForFailover(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.strict()
		w.server.edit("endpointslices", cache.NewObjectName("default", "bar.paris.ipv4"), func(obj runtime.Object) bool {
			obj.(*discoveryv1.EndpointSlice).Labels[plan.FailoverLabel] = "true"
			return true
		})
		w.wait(time.Minute)
		w.expect("update " + parisSlice)
		if slice := w.server.slice("default", "bar.paris.ipv4"); slice == nil || slice.Labels[plan.FailoverLabel] != "" {
			t.Errorf("the slice is %s", text(slice))
		}
		w.wantRows("berlin mirrored serving", "paris mirrored serving")
	})
}

// Nor does it make the slice of another mirror one: if that is deleted, it comes back at once.
func TestSliceWithTheLabelForFailover(t *testing.T) {
	run(t, Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}, []string{"paris"}, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.server.wrote()
		w.server.edit("endpointslices", cache.NewObjectName("default", "bar-paris-ipv4"), func(obj runtime.Object) bool {
			obj.(*discoveryv1.EndpointSlice).Labels[plan.FailoverLabel] = "true"
			return true
		})
		w.wait(time.Second)
		w.server.remove("endpointslices", "default", "bar-paris-ipv4")
		w.wait(5 * time.Second)
		w.expect("create endpointslices default/bar-paris-ipv4")
	})
}
