package mirror

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	createShopEndpoints = "create endpoints shop/bar-paris"
	createShopService   = "create services shop/bar-paris"
)

func shopNamespace() *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
}

func TestMissingNamespaceIsAwaited(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(named("shop", "bar"))
		w.settle()
		for range 10 {
			w.remotes["paris"].know(true)
			w.wait(time.Minute)
		}
		w.expect()
		w.logged(1, `"Mirror has a problem" reason="NamespaceMissing" cluster="paris" service="shop/bar"`)
		w.server.put(shopNamespace())
		w.settle()
		w.expect(createShopEndpoints, createShopService)
		w.logged(1, `no longer has this problem" reason="NamespaceMissing"`)
	})
}

func TestTerminatingNamespaceIsAwaited(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.server.put(shopNamespace())
		w.remotes["paris"].export(named("shop", "bar"))
		w.settle()
		w.expect(createShopEndpoints, createShopService)

		going, now := shopNamespace(), metav1Now()
		going.DeletionTimestamp = &now
		w.server.put(going)
		w.settle()
		w.server.removePair("shop", "bar-paris")
		w.wait(time.Hour)
		w.expect()
		w.logged(1, `"Mirror has a problem" reason="NamespaceTerminating"`)
		w.server.remove("namespaces", "", "shop")
		w.wait(time.Hour)
		w.expect()
		w.logged(1, `"Mirror has a problem" reason="NamespaceMissing"`)
		w.logged(1, `no longer has this problem" reason="NamespaceTerminating"`)
		w.server.put(shopNamespace())
		w.settle()
		w.expect(createShopEndpoints, createShopService)
	})
}

// The cache does not know yet that the namespace is gone, but the API server does.
func TestNamespaceIsGoneBeforeItsEvent(t *testing.T) {
	for name, happen := range map[string]func(w *world){
		"NamespaceMissing": func(w *world) { w.server.remove("namespaces", "", "shop") },
		"NamespaceTerminating": func(w *world) {
			going, now := shopNamespace(), metav1Now()
			going.DeletionTimestamp = &now
			w.server.put(going)
		},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, Options{}, paris, func(w *world) {
				w.server.put(shopNamespace())
				w.settle()
				w.server.pauseWatches(true)
				happen(w)
				w.remotes["paris"].export(named("shop", "bar"))
				w.wait(10 * time.Millisecond)
				w.expect(createShopEndpoints)
				w.server.pauseWatches(false)
				w.wait(time.Minute)
				w.server.wrote()
				w.wait(time.Hour)
				w.expect()
				w.logged(1, `reason="`+name+`"`)
			})
		})
	}
}

func TestCreateNamespaces(t *testing.T) {
	run(t, Options{Policy: Policy{CreateNamespaces: true}}, paris, func(w *world) {
		w.remotes["paris"].export(named("shop", "bar"))
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect("create namespaces shop", createShopEndpoints, createShopService, createEndpoints, createService)
		want := map[string]string{"app.kubernetes.io/managed-by": "service-mirror"}
		if got := accessor(w.server.get("namespaces", "", "shop")).GetLabels(); text(got) != text(want) {
			w.Errorf("got labels %v", got)
		}
		w.logged(0, `reason=`)
	})
}

func TestCreateNamespacesWaitsForATerminatingOne(t *testing.T) {
	run(t, Options{Policy: Policy{CreateNamespaces: true}}, paris, func(w *world) {
		going, now := shopNamespace(), metav1Now()
		going.DeletionTimestamp = &now
		w.server.put(going)
		w.remotes["paris"].export(named("shop", "bar"))
		w.settle()
		w.wait(time.Hour)
		w.expect()
		w.server.remove("namespaces", "", "shop")
		w.settle()
		w.expect("create namespaces shop", createShopEndpoints, createShopService)
	})
}

func TestNamespaceCreationIsRetried(t *testing.T) {
	run(t, Options{Policy: Policy{CreateNamespaces: true}}, paris, func(w *world) {
		w.server.setRefuse(refusing("create", "namespaces", 3, apierrors.NewForbidden(corev1.Resource("namespaces"), "shop", errTest)))
		w.remotes["paris"].export(named("shop", "bar"))
		w.settle()
		w.wait(time.Minute)
		const create = "create namespaces shop"
		w.expect(create, create, create, create, createShopEndpoints, createShopService)
		w.logged(1, `"Mirror has a problem" reason="WriteFailed"`)
		w.logged(1, `no longer has this problem" reason="WriteFailed"`)
	})
}

// A namespace is created only for an exported Service.
func TestOtherNamespacesAreNotCreated(t *testing.T) {
	run(t, Options{Policy: Policy{CreateNamespaces: true}}, paris, func(w *world) {
		refused := named("shop", "bar")
		refused.Spec.ClusterIP = "None"
		w.remotes["paris"].export(refused)
		w.settle()
		w.wait(time.Minute)
		w.expect()
	})
}
