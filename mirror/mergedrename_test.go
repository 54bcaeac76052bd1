package mirror

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// While a merged mirror waits for those that replace it, edits of its Service by hand are undone, as at any other time.
func TestMergedServiceThatIsReplacedIsKept(t *testing.T) {
	renamed := merging(plan.MergeAll)
	renamed.Names = plan.Names{"paris": {Template: "the-{service}"}, "berlin": {Template: "the-{service}"}}
	for name, test := range map[string]struct {
		options Options
		foreign string // what has the new name
	}{
		"no longer merged": {Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Order: bothRemotes}}, "bar-berlin"},
		"merged, renamed":  {renamed, "the-bar"},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
				w.merge()
				w.stop()
				before := w.server.service("default", "bar")
				w.server.put(named("default", test.foreign))
				w.use(test.options, bothRemotes...)
				w.settle()
				w.wait(time.Minute)
				w.server.wrote()
				for _, edit := range []func(*corev1.Service){
					func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "theirs"} },
					func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 },
					func(svc *corev1.Service) { svc.Labels[plan.ClusterLabel] = "paris" },
				} {
					w.server.edit("services", cache.NewObjectName("default", "bar"), func(obj runtime.Object) bool {
						edit(obj.(*corev1.Service))
						return true
					})
					w.wait(time.Minute)
					if writes := w.server.wrote(); !slices.ContainsFunc(writes, func(one written) bool { return one.what == "update "+barService }) || len(writes) > 5 {
						t.Errorf("written: %v", writes) // and slices, of which the ports follow those of the Service
					}
					after := w.server.service("default", "bar")
					if !equality.Semantic.DeepEqual(after.Spec, before.Spec) || !equality.Semantic.DeepEqual(after.Labels, before.Labels) || !equality.Semantic.DeepEqual(after.Annotations, before.Annotations) {
						t.Errorf("it was %s\nand is %s", text(before), text(after))
					}
				}
				w.wantServing("192.0.2.1", "192.0.2.2")
				w.server.remove("services", "default", test.foreign)
				w.wait(foreignPeriod * 40)
				if w.server.service("default", "bar") != nil || w.server.slice("default", "bar.paris.ipv4") != nil || w.server.slice("default", "bar.berlin.ipv4") != nil {
					t.Errorf("it is still there\n%s", w.log)
				}
			})
		})
	}
}
