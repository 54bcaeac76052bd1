package mirror

import (
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// A merged Service without any slice, as no gateway has an address, stays until the one with the new name exists: its name
// resolves all the time.
func TestMergedServiceWithoutSlicesIsRenamed(t *testing.T) {
	renamed := merging(plan.MergeAll)
	renamed.Names = plan.Names{"paris": {Template: "the-{service}"}, "berlin": {Template: "the-{service}"}}
	parted := renamed
	parted.Names = plan.Names{"paris": {Template: "the-{service}"}, "berlin": {Template: "a-{service}"}}
	for name, test := range map[string]struct {
		options Options
		names   []string // the new ones
	}{
		"no longer merged":  {Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Order: bothRemotes}}, []string{"bar-paris", "bar-berlin"}},
		"merged, renamed":   {renamed, []string{"the-bar"}},
		"renamed otherwise": {parted, []string{"the-bar", "a-bar"}},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
				for _, r := range bothRemotes {
					w.remotes[r].setGateway(gatewayAt())
					w.remotes[r].export(named("default", "bar"))
				}
				w.settle()
				w.expect("create " + barService)
				w.stop()
				foreign := test.names[len(test.names)-1]
				w.server.put(named("default", foreign))
				w.use(test.options, bothRemotes...)
				w.settle()
				w.wait(time.Minute)
				if w.server.service("default", "bar") == nil {
					t.Errorf("it is gone before %s exists\n%s", foreign, w.log)
				}
				w.server.wrote()
				w.server.remove("services", "default", foreign)
				w.wait(foreignPeriod * 40)
				if writes := w.server.wrote(); w.server.service("default", foreign) == nil || w.server.service("default", "bar") != nil {
					t.Errorf("not renamed: %v\n%s", writes, w.log)
				} else {
					ordered(t, writes, "create services default/"+foreign, "delete "+barService)
				}
			})
		})
	}
}

// Two Services of former names that wait for the same new one do not enqueue each other.
func TestMergedServicesOfTwoFormerNames(t *testing.T) {
	naming := func(paris, berlin string) Options {
		o := merging(plan.MergeAll)
		o.Names = plan.Names{"paris": {Template: paris}, "berlin": {Template: berlin}}
		return o
	}
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		for _, r := range bothRemotes {
			w.remotes[r].setGateway(gatewayAt())
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		for _, next := range []struct {
			before, foreign string
			options         Options
		}{
			{"", "a-bar", naming("the-{service}", "a-{service}")},
			{"a-bar", "z-bar", naming("z-{service}", "z-{service}")},
		} {
			w.stop()
			if next.before != "" {
				w.server.remove("services", "default", next.before)
			}
			w.server.put(named("default", next.foreign))
			w.use(next.options, bothRemotes...)
			w.settle()
			w.wait(time.Minute)
		}
		w.expect("create "+barService, "create services default/the-bar")
		w.server.remove("services", "default", "z-bar")
		w.wait(foreignPeriod * 40)
		w.expect("create services default/z-bar", "delete "+barService, "delete services default/the-bar")
	})
}

// The same when an exported Service chooses another name than the one that the template makes.
func TestMergedServiceWithoutSlicesChoosesAName(t *testing.T) {
	options := merging(plan.MergeAll)
	options.Names = plan.Names{"paris": {Template: "{service}", ObeyNames: true}, "berlin": {Template: "{service}", ObeyNames: true}}
	run(t, options, bothRemotes, func(w *world) {
		chosen := named("default", "bar")
		chosen.Annotations = map[string]string{plan.NameAnnotation: "till"}
		for _, r := range bothRemotes {
			w.remotes[r].setGateway(gatewayAt())
			w.remotes[r].export(named("default", "bar"))
		}
		w.settle()
		w.expect("create " + barService)
		w.server.put(named("default", "till")) // foreign
		for _, r := range bothRemotes {
			w.remotes[r].export(chosen)
		}
		w.settle()
		w.wait(time.Minute)
		if w.server.service("default", "bar") == nil {
			t.Errorf("it is gone before the one with the chosen name exists\n%s", w.log)
		}
		w.server.wrote()
		w.server.remove("services", "default", "till")
		w.wait(foreignPeriod * 40)
		w.expect("create services default/till", "delete "+barService)
	})
}

// mergingAs is merging all under names of a template.
func mergingAs(template string) Options {
	options := merging(plan.MergeAll)
	options.Names = plan.Names{"paris": {Template: template}, "berlin": {Template: template}}
	return options
}

// The new Service alone takes the place of nothing: the old slices stay while those of the new name are foreign.
func TestMergedPartsWaitForTheNewSlices(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		foreign := &discoveryv1.EndpointSlice{
			ObjectMeta:  metav1.ObjectMeta{Namespace: "default", Name: "the-bar.paris.ipv4", Labels: map[string]string{discoveryv1.LabelServiceName: "other"}},
			AddressType: discoveryv1.AddressTypeIPv4,
		}
		w.server.put(foreign)
		w.use(mergingAs("the-{service}"), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		w.wantServing("192.0.2.1", "192.0.2.2") // under the old name
		if w.server.service("default", "the-bar") == nil || w.server.slice("default", "the-bar.berlin.ipv4") == nil {
			t.Errorf("the new one does not exist\n%s", w.log)
		}
		w.server.wrote()
		w.server.remove("endpointslices", "default", foreign.Name)
		w.wait(foreignPeriod * 40)
		writes := w.expect("create endpointslices default/"+foreign.Name, "delete "+parisSlice, "delete "+berlinSlice, "delete "+barService)
		ordered(t, writes, "create endpointslices default/"+foreign.Name, "delete "+parisSlice)
	})
}

// As long as the gateway of one remote is not known, its part under the old name keeps its addresses, and all parts stay.
func TestMergedRenameWithoutAGateway(t *testing.T) {
	run(t, merging(plan.MergeAll), bothRemotes, func(w *world) {
		w.merge()
		w.stop()
		w.remotes["paris"].setGateway(nil)
		w.use(mergingAs("the-{service}"), bothRemotes...)
		w.settle()
		w.wait(time.Minute)
		w.expect("create services default/the-bar", "create endpointslices default/the-bar.berlin.ipv4")
		w.wantServing("192.0.2.1", "192.0.2.2") // under the old name
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1"))
		w.wait(foreignPeriod * 40)
		writes := w.expect("create endpointslices default/the-bar.paris.ipv4", "delete "+parisSlice, "delete "+berlinSlice, "delete "+barService)
		ordered(t, writes, "create endpointslices default/the-bar.paris.ipv4", "delete "+parisSlice)
	})
}
