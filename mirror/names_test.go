package mirror

import (
	"fmt"
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
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

// mirroredSlice is one that Kubernetes makes of Endpoints.
func mirroredSlice(service string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: service + "-x7w2p", Labels: map[string]string{
			discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslicemirroring-controller.k8s.io",
		}},
		Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
	}
}

func namespaceNamed(name string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}
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
		w.logged(1, `the mirror of web/bar in remote paris already has this name`)
		w.remotes["paris"].unexport(named("web", "bar"))
		w.settle()
		w.expect("update services shop/bar-paris")
		w.logged(1, `no longer has this problem" reason="Conflict"`)
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
			r := newRemotes(Policy{Names: test.names})
			r.set(*r.policy(), []Remote{late})
			if got := r.owner(nil, cache.NewObjectName("default", test.key), "paris", "default"); len(got) != test.want {
				t.Errorf("got %+v", got)
			}
		})
	}
}

// Who lost a name to another Service of its remote is not shown as mirrored, by no replica.
func TestPageOfTwoSources(t *testing.T) {
	run(t, naming(bothInOne), paris, func(w *world) {
		w.server.put(shopNamespace())
		w.remotes["paris"].export(named("web", "bar"))
		w.settle()
		w.remotes["paris"].export(named("old", "bar"))
		w.settle()
		want := map[string]string{"web/bar": "mirrored", "old/bar": "conflict"}
		for _, standby := range []bool{false, true} {
			if w.standby = standby; standby {
				w.again(naming(bothInOne), "paris")
				want["old/bar"] = "waiting" // why, only the leader knows
			}
			got := map[string]string{}
			for _, row := range w.controller.Overview().Mirrors {
				if got[row.Source] = row.State; row.Source == "old/bar" && len(row.Endpoints) > 0 {
					t.Errorf("the page shows endpoints of the other's mirror: %v", row.Endpoints)
				}
			}
			if !maps.Equal(got, want) {
				t.Errorf("standby %v: the page shows %v, want %v", standby, got, want)
			}
		}
	})
}

// What is exported to other clusters is not verified.
func TestVerifyOnlyWhatIsForThisCluster(t *testing.T) {
	options := naming(plan.Naming{})
	options.ClusterName = "london"
	run(t, options, paris, func(w *world) {
		for name, clusters := range map[string]string{"bar": "berlin", "foo": "london"} {
			svc := named("default", name)
			svc.Annotations = map[string]string{plan.ExportToAnnotation: clusters}
			w.remotes["paris"].export(svc)
		}
		w.settle()
		if all := w.controller.wanted(Wanted{}); len(all) != 1 || all[0].Key.Name != "foo-paris" {
			t.Errorf("verified: %v", all)
		}
		if all := w.controller.remotes.exported(); len(all) != 1 {
			t.Errorf("verified by the daemon: %v", all)
		}
	})
}

// Many exports that choose one name cost no more than others do.
func TestOneNameForAll(t *testing.T) {
	const many = 1000
	run(t, naming(plan.Naming{ObeyNames: true}), paris, func(w *world) {
		for i := range many {
			svc := named("default", fmt.Sprintf("s%d", i))
			svc.Annotations = map[string]string{plan.NameAnnotation: "x"}
			must(w.remotes["paris"].services.GetIndexer().Add(remote.Encode(w.remotes["paris"].hooks.Trim(svc))))
		}
		w.settle()
		w.remotes["paris"].know(true)
		w.settle()
		w.expect(created("default/x")...)
		if n := len(w.controller.problems.Of(cache.NewObjectName("default", "x"))); n != many-1 {
			t.Errorf("%d Services have a problem, want all but one", n)
		}
	})
}
