package mirror

import (
	"strings"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"service-mirror.io/service-mirror/mirror/plan"
)

// refuseSlice has the API server refuse to write a slice, if it is as given.
func (w *world) refuseSlice(name string, refused func(*discoveryv1.EndpointSlice) bool) {
	w.server.setRefuse(func(action clienttesting.Action) error {
		write, ok := action.(interface{ GetObject() runtime.Object })
		if !ok {
			return nil
		}
		if slice, ok := write.GetObject().(*discoveryv1.EndpointSlice); ok && slice.Name == name && refused(slice) {
			return errForbidden
		}
		return nil
	})
}

// While the slices of the first remote cannot be written, from the start, the next one serves, however long.
func TestMergedFirstIsRefused(t *testing.T) {
	foreign := func(labels map[string]string) *discoveryv1.EndpointSlice {
		slice := ownSlice(false)
		slice.Name, slice.Labels = "bar.paris.ipv4", labels
		return slice
	}
	for name, refuse := range map[string]func(w *world){
		"denied": func(w *world) {
			w.refuseSlice("bar.paris.ipv4", func(*discoveryv1.EndpointSlice) bool { return true })
		},
		"denied while it serves": func(w *world) {
			w.refuseSlice("bar.paris.ipv4", func(slice *discoveryv1.EndpointSlice) bool { return slice.Annotations[plan.StandbyAnnotation] == "" })
		},
		"foreign, and in no cache": func(w *world) { w.server.put(foreign(nil)) },
		"foreign, with our labels": func(w *world) {
			w.server.put(foreign(map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: "paris", discoveryv1.LabelManagedBy: plan.SliceManager}))
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
				refuse(w)
				w.at("", "")
				for _, r := range bothRemotes {
					w.remotes[r].export(named("default", "bar"))
				}
				w.settle()
				for range 20 {
					w.wait(20 * time.Second)
					if got := w.serving(); got[len(got)-1] != "192.0.2.2" {
						t.Errorf("endpoints %q\nlog:\n%s", got, w.log)
					}
				}
				if got := len(w.server.wrote()); got > 100 {
					t.Errorf("%d writes within 400 s", got)
				}
				rows := strings.Join(w.rows(), ", ")
				if !strings.Contains(rows, "berlin mirrored serving") || !strings.Contains(rows, "paris") || !strings.Contains(rows, "Rejected") && !strings.Contains(rows, "Conflict") {
					t.Errorf("rows %s", rows)
				}
				w.server.setRefuse(nil)
				if slice := w.server.slice("default", "bar.paris.ipv4"); slice != nil && slice.Annotations[plan.MirrorAnnotation] == "" {
					w.server.remove("endpointslices", "default", "bar.paris.ipv4")
				}
				w.wait(time.Hour)
				w.wantServing("192.0.2.1", "192.0.2.2 dead")
				w.wantRows("berlin mirrored standby", "paris mirrored serving")
			})
		})
	}
}

// If all remotes' slices are refused, all are tried again.
func TestMergedFirstIsRefusedAsAllAre(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.server.setRefuse(func(action clienttesting.Action) error {
			if action.GetResource().Resource == "endpointslices" && action.GetVerb() == "create" {
				return errForbidden
			}
			return nil
		})
		w.at("", "")
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.wait(10 * time.Minute)
		w.server.setRefuse(nil)
		w.wait(time.Hour)
		w.wantServing("192.0.2.1", "192.0.2.2 dead")
	})
}

// The same goes for slices that an admission webhook changes.
func TestMergedFirstIsChangedOnItsWay(t *testing.T) {
	run(t, merging(plan.MergeFirst), bothRemotes, func(w *world) {
		w.server.setAdmit(func(obj runtime.Object) {
			if slice, ok := obj.(*discoveryv1.EndpointSlice); ok && slice.Name == "bar.paris.ipv4" {
				for i := range slice.Endpoints {
					slice.Endpoints[i].Conditions.Ready = new(bool)
				}
			}
		})
		w.at("", "")
		for _, r := range bothRemotes {
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.wait(5 * time.Second)
		w.wantServing("192.0.2.1 dead", "192.0.2.2")
		w.server.setAdmit(nil)
		w.wait(time.Hour)
		w.wantServing("192.0.2.1", "192.0.2.2 dead")
	})
}
