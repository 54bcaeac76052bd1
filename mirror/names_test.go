package mirror

import (
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// naming has the mirrors of paris called by this rule.
func naming(n plan.Naming) Options {
	return Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Names: plan.Names{"paris": n}}}
}

func created(key string) []string {
	return []string{"create endpointslices " + key + "-ipv4", "create services " + key}
}

func deleted(key string) []string {
	return []string{"delete endpointslices " + key + "-ipv4", "delete services " + key}
}

func TestNameTemplate(t *testing.T) {
	for template, want := range map[string]string{"{cluster}-{service}": "default/paris-bar", "{service}": "default/bar", "{namespace}-{service}-x": "default/default-bar-x"} {
		t.Run(template, func(t *testing.T) {
			run(t, naming(plan.Naming{Template: template}), paris, func(w *world) {
				w.remotes["paris"].export(named("default", "bar"))
				w.settle()
				w.expect(created(want)...)
				w.remotes["paris"].unexport(named("default", "bar"))
				w.settle()
				w.expect(deleted(want)...)
			})
		})
	}
}

// A mirror in another namespace than its original waits for that namespace, and follows it.
func TestNamespaceOfAMirror(t *testing.T) {
	run(t, naming(plan.Naming{Namespaces: map[string]string{"web": "shop"}}), paris, func(w *world) {
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.expect()
		w.logged(1, `"Mirror has a problem" reason="NamespaceMissing" cluster="paris" service="web/bar"`)
		w.server.put(shopNamespace())
		w.settle()
		w.expect(created("shop/bar-paris")...)
	})
}

// Two namespaces of a remote may share one here. Of two Services with one name the first one has the mirror, and the
// other takes it over.
func TestTwoNamespacesInOne(t *testing.T) {
	run(t, naming(plan.Naming{Namespaces: map[string]string{"web": "shop", "old": "shop"}}), paris, func(w *world) {
		w.server.put(shopNamespace())
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.expect(created("shop/bar-paris")...)
		w.remotes["paris"].export(named("old", "bar"))
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict" cluster="paris" service="old/bar"`)
		w.logged(1, `the mirror of web/bar in remote paris has this name`)
		w.remotes["paris"].unexport(named("web", "bar"))
		w.settle()
		w.expect("update services shop/bar-paris")
		w.logged(1, `problem is over" reason="Conflict"`)
	})
}

// A remote chooses names only where the operator allows it.
func TestChosenName(t *testing.T) {
	chosen := func(name string) *corev1.Service {
		svc := named("default", "bar")
		svc.Annotations = map[string]string{plan.NameAnnotation: name}
		return svc
	}
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(chosen("till"))
		w.settle()
		w.expect(created("default/bar-paris")...)
	})
	run(t, naming(plan.Naming{ObeyNames: true}), paris, func(w *world) {
		w.remotes["paris"].export(chosen("till"))
		w.settle()
		w.expect(created("default/till")...)
		w.remotes["paris"].export(chosen("desk")) // without a gap
		w.settle()
		w.expect(append(created("default/desk"), deleted("default/till")...)...)
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(append(created("default/bar-paris"), deleted("default/desk")...)...)
		w.remotes["paris"].export(chosen("no/name"))
		w.settle()
		w.logged(1, `reason="InvalidName"`)
	})
}

func TestExportTo(t *testing.T) {
	to := func(clusters string) *corev1.Service {
		svc := named("default", "bar")
		svc.Annotations = map[string]string{plan.ExportToAnnotation: clusters}
		return svc
	}
	options := naming(plan.Naming{})
	options.ClusterName = "london"
	run(t, options, paris, func(w *world) {
		w.remotes["paris"].export(to("berlin, rome"))
		w.settle()
		w.expect()
		w.logged(0, "Mirror has a problem")
		w.remotes["paris"].export(to("berlin, london"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.remotes["paris"].export(to(""))
		w.settle()
		w.expect(deleted("default/bar-paris")...)
		if rows := w.controller.Overview().Mirrors; len(rows) > 0 {
			t.Errorf("the page shows %v", rows)
		}
	})
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(to("london"))
		w.settle()
		w.expect()
		w.logged(1, `reason="NoClusterName"`)
	})
}

// With another template the mirrors under the new names come first, and those under the old ones go when these are
// complete.
func TestRename(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.stop()

		w.use(naming(plan.Naming{Template: "{cluster}-{service}"}), "paris")
		w.server.put(named("default", "paris-bar")) // a foreign one has the name
		w.settle()
		w.expect()
		w.logged(1, `reason="Conflict"`)
		plans := w.controller.Plans()
		if i := slices.IndexFunc(plans, func(p plan.Plan) bool { return p.Key == cache.NewObjectName("default", "bar-paris") }); i < 0 ||
			plans[i].Successor == nil || plans[i].Writes() {
			t.Errorf("the plans are %+v", plans)
		}
		var out strings.Builder
		for _, p := range plans {
			printPlan(&out, p, "london")
		}
		if !strings.Contains(out.String(), "rename mirror default/bar-paris to default/paris-bar in london for remote paris") {
			t.Errorf("a dry run prints\n%s", &out)
		}
		w.server.remove("services", "default", "paris-bar")
		w.wait(foreignPeriod * 40)
		writes := w.expect(append(created("default/paris-bar"), deleted("default/bar-paris")...)...)
		var order []string
		for _, write := range writes {
			order = append(order, strings.Fields(write.what)[0])
		}
		if !slices.IsSortedFunc(order, strings.Compare) { // create comes before delete
			t.Errorf("written in this order: %v", order)
		}
	})
}

// As long as the gateway is not known, the mirror under the old name keeps its addresses, and stays.
func TestRenameWithoutAGateway(t *testing.T) {
	run(t, naming(plan.Naming{}), paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect(created("default/bar-paris")...)
		w.stop()

		w.remotes["paris"].setGateway(nil)
		w.use(naming(plan.Naming{Template: "{service}"}), "paris")
		w.settle()
		w.expect("create services default/bar")
		w.remotes["paris"].setGateway(parisGateway())
		w.wait(foreignPeriod * 40)
		w.expect(append([]string{"create endpointslices default/bar-ipv4"}, deleted("default/bar-paris")...)...)
	})
}

// A mirror with Endpoints is complete when Kubernetes has made EndpointSlices of them.
func TestRenameAwaitsSlices(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(named("default", "bar"))
		w.settle()
		w.expect("create endpoints default/bar-paris", "create services default/bar-paris")
		w.stop()

		w.server.setWithoutSlices(true)
		w.use(Options{Policy: Policy{EndpointsAPI: UseEndpoints, Names: plan.Names{"paris": {Template: "{service}"}}}}, "paris")
		w.start()
		w.wait(10 * time.Minute)
		w.expect("create endpoints default/bar", "create services default/bar")
		w.server.put(&discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-x7w2p", Labels: map[string]string{
				discoveryv1.LabelServiceName: "bar", discoveryv1.LabelManagedBy: "endpointslicemirroring-controller.k8s.io",
			}},
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		})
		w.wait(foreignPeriod * 40)
		w.expect("delete endpoints default/bar-paris", "delete services default/bar-paris")
	})
}

// A remote that becomes known between the reading of candidates and of what is live must not look like one that
// exports nothing.
func TestOwnerIsNoLateCandidate(t *testing.T) {
	late := newFakeRemote("paris")
	for name, test := range map[string]struct {
		names plan.Names
		key   string
		want  int
	}{
		"a key of its own":              {nil, "bar-paris", 0},
		"a key that it cannot have":     {nil, "bar", 1},
		"a key that exports may choose": {plan.Names{"paris": {ObeyNames: true}}, "bar", 0},
	} {
		t.Run(name, func(t *testing.T) {
			r := &remotes{policy: Policy{Names: test.names}}
			r.add(late)
			if got := r.owner(nil, cache.NewObjectName("default", test.key), "paris", "default"); len(got) != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// A mirror moves to another namespace although the remote's namespace of the old one's name is not watched.
func TestMoveFromANamespaceThatIsNotWatched(t *testing.T) {
	run(t, naming(plan.Naming{Namespaces: map[string]string{"web": "shop"}}), paris, func(w *world) {
		w.server.put(shopNamespace())
		w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "web"}})
		w.remotes["paris"].namespaces = []string{"web"}
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.expect(created("shop/bar-paris")...)
		w.stop()
		w.use(naming(plan.Naming{}), "paris")
		w.settle()
		w.wait(foreignPeriod * 40)
		w.expect(append(created("web/bar-paris"), deleted("shop/bar-paris")...)...)
	})
}
