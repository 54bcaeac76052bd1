package mirror

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
)

const (
	createEndpoints = "create endpoints default/bar-paris"
	createService   = "create services default/bar-paris"
	updateEndpoints = "update endpoints default/bar-paris"
	updateService   = "update services default/bar-paris"
	deleteEndpoints = "delete endpoints default/bar-paris"
	deleteService   = "delete services default/bar-paris"
)

var paris = []string{"paris"}

// exporting is run with default/bar of paris already exported and mirrored.
func exporting(t *testing.T, options Options, remotes []string, test func(*world)) {
	t.Helper()
	run(t, options, remotes, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.mirrored()
		w.expect(createEndpoints, createService)
		test(w)
	})
}

func TestMirrorIsCreated(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		writes := w.expect(createEndpoints, createService)
		// In the other order a Service could be created over foreign Endpoints.
		if len(writes) == 2 && writes[0].what != createEndpoints {
			w.Errorf("the Service was created first")
		}
		w.mirrored()
	})
}

func TestMirrorFollowsItsSource(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		uid, clusterIP := w.pair().Service.UID, w.pair().Service.Spec.ClusterIP
		exported := exportedBar()
		exported.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(exported)
		w.settle()
		w.expect(updateService) // the gateway's port stays
		pair := w.pair()
		if pair.Service.Spec.Ports[0].Port != 81 {
			w.Errorf("got ports %s", text(pair.Service.Spec.Ports))
		}
		if pair.Service.UID != uid || pair.Service.Spec.ClusterIP != clusterIP {
			w.Errorf("the mirror was recreated")
		}

		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(updateService)
		w.mirrored()
	})
}

func TestMirrorFollowsItsGateway(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		moved := parisGateway()
		moved.Addresses = moved.Addresses[:0]
		w.remotes["paris"].setGateway(moved)
		w.settle()
		w.expect(updateEndpoints)
		if got := w.pair().Endpoints.Subsets; len(got) != 0 {
			w.Errorf("got subsets %s", text(got))
		}
		w.remotes["paris"].setGateway(nil)
		w.settle()
		w.expect()
		w.remotes["paris"].setGateway(parisGateway())
		w.settle()
		w.expect(updateEndpoints)
		w.mirrored()
	})
}

func TestUnknownGatewayLeavesEndpointsEmpty(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].setGateway(nil)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(createEndpoints, createService)
		if got := w.pair().Endpoints.Subsets; len(got) != 0 {
			w.Errorf("got subsets %s", text(got))
		}
		w.remotes["paris"].setGateway(parisGateway())
		w.settle()
		w.expect(updateEndpoints)
		w.mirrored()
	})
}

func TestUnexportedMirrorIsDeleted(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		pair := w.pair()
		w.remotes["paris"].unexport(exportedBar())
		w.settle()
		for _, write := range w.expect(deleteService, deleteEndpoints) {
			var obj interface {
				GetResourceVersion() string
			} = pair.Service
			uid := pair.Service.UID
			if write.what == deleteEndpoints {
				obj, uid = pair.Endpoints, pair.Endpoints.UID
			}
			p := write.options.Preconditions
			if p == nil || p.UID == nil || *p.UID != uid || p.ResourceVersion == nil || *p.ResourceVersion != obj.GetResourceVersion() {
				w.Errorf("%s has preconditions %s", write.what, text(p))
			}
		}
		if left := w.pair(); left.Service != nil || left.Endpoints != nil {
			w.Errorf("left: %s", text(left))
		}
	})
}

// The mirror of a Service that is now refused is deleted.
func TestMirrorOfARefusedServiceIsDeleted(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		headless := exportedBar()
		headless.Spec.ClusterIP = "None"
		w.remotes["paris"].export(headless)
		w.settle()
		w.expect(deleteService, deleteEndpoints)
		w.logged(1, `reason="Headless"`)
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.mirrored()
		w.logged(1, `"Mirror no longer has this problem" reason="Headless"`)
	})
}

func TestRefusalIsReportedOnce(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		headless := exportedBar()
		headless.Spec.ClusterIP = "None"
		w.remotes["paris"].export(headless)
		w.settle()
		for range 10 {
			w.remotes["paris"].know(true) // enqueues all keys
			w.wait(time.Minute)
		}
		w.expect()
		w.logged(1, `reason="Headless"`)
	})
}

func TestUnknownRemoteWritesAndDeletesNothing(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		r := w.remotes["paris"]
		r.know(false)
		r.unexport(exportedBar()) // as an empty list of a wrong cluster would
		r.export(named("default", "foo"))
		w.wait(time.Hour)
		w.expect()
		w.mirrored()
		// Not even a mirror that someone edits is written: its desired state is not known.
		edited := w.pair().Service
		edited.Spec.Ports = edited.Spec.Ports[:1]
		w.server.put(edited)
		w.wait(time.Hour)
		w.expect()

		r.know(true)
		w.settle()
		w.expect(deleteService, deleteEndpoints, "create endpoints default/foo-paris", "create services default/foo-paris")
	})
}

func TestOrphansAreDeletedWhenTheirRemoteSyncs(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.stop()
		w.remotes["paris"].know(false)
		w.remotes["paris"].unexport(exportedBar())
		w.use(Options{}, "paris")
		w.settle()
		w.expect()
		w.remotes["paris"].know(true)
		w.settle()
		w.expect(deleteService, deleteEndpoints)
	})
}

func TestRestartWritesNothing(t *testing.T) {
	run(t, Options{}, []string{"paris", "berlin"}, func(w *world) {
		for _, name := range []string{"a", "b", "c"} {
			w.remotes["paris"].export(named("default", name))
			w.remotes["berlin"].export(named("default", name))
		}
		w.settle()
		if writes := w.server.wrote(); len(writes) != 12 {
			w.Fatalf("%d writes, want 12", len(writes))
		}
		w.stop()
		w.use(Options{}, "paris", "berlin")
		w.settle()
		for name := range w.remotes {
			w.remotes[name].know(true)
		}
		w.wait(time.Hour)
		w.expect()
	})
}

func TestRemovedRemoteKeepsItsMirrors(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.stop()
		w.use(Options{}, "berlin")
		w.settle()
		w.wait(time.Hour)
		w.expect()
		w.mirrored()
		w.logged(1, `Remote cluster is not configured`)
		w.logged(1, `cluster="paris" mirrors=1`)
	})
}

// What carries our labels and names a remote that nobody configured is counted and logged, whenever it comes, and
// left alone: it may be left from a remote, or someone invented it.
func TestUnknownRemoteIsReported(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		if got := w.controller.Overview().Unknown; got != 0 {
			w.Errorf("at first %d objects are of unknown remotes", got)
		}
		invented := func(name, cluster string) Objects {
			objects := mirrorOfBar()
			for _, obj := range []metav1.Object{objects.Service, objects.Endpoints} {
				obj.SetName(name)
				obj.GetLabels()[plan.ClusterLabel] = cluster
				obj.GetAnnotations()[plan.MirrorAnnotation] = "default/" + name
			}
			return objects
		}
		ghost := invented("bar-ghost", "ghost")
		w.server.put(ghost.Service)
		w.server.put(ghost.Endpoints)
		copied := invented("copy", "ghost")
		copied.Service.Annotations[plan.MirrorAnnotation] = "default/bar-ghost"
		w.server.put(copied.Service)
		w.wait(time.Hour)
		w.expect()
		w.logged(1, `Remote cluster is not configured`)
		w.logged(1, `cluster="ghost" mirrors=1 objects=3`)
		if got := w.controller.Overview().Unknown; got != 3 {
			w.Errorf("%d objects are of unknown remotes, want 3", got)
		}

		w.server.removePair("default", "bar-ghost")
		w.server.remove("services", "default", "copy")
		w.wait(time.Hour)
		if got := w.controller.Overview().Unknown; got != 0 {
			w.Errorf("%d objects are of unknown remotes when they are gone", got)
		}
		for i := range 15 {
			w.server.put(invented(fmt.Sprintf("bar-invented%d", i), fmt.Sprintf("invented%d", i)).Service)
		}
		w.wait(time.Hour)
		w.expect()
		w.logged(11, `Remote cluster is not configured`)
		w.logged(1, `"More remote clusters are not configured; their mirrors are kept until they are pruned" remotes=5`)
		w.mirrored()
	})
}

func TestCopiedKeysFollow(t *testing.T) {
	run(t, Options{Policy: Policy{CopyLabels: []string{"team"}}}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		if got := w.pair().Service.Labels["team"]; got != "blue" {
			w.Errorf("got team=%s", got)
		}
		w.expect(createEndpoints, createService)
		without := exportedBar()
		delete(without.Labels, "team")
		w.remotes["paris"].export(without)
		w.settle()
		w.expect(updateService)
		w.mirrored()
	})
}

// One write of each kind is enough, whatever happens in between: our own writes come
// back as events and cost nothing.
func TestManyMirrorsAreWrittenOnceEach(t *testing.T) {
	run(t, Options{Workers: 16}, paris, func(w *world) {
		var want []string
		for i := range 100 {
			name := "svc-" + string(rune('a'+i/26)) + string(rune('a'+i%26))
			w.remotes["paris"].export(named("default", name))
			want = append(want, "create endpoints default/"+name+"-paris", "create services default/"+name+"-paris")
		}
		w.settle()
		w.expect(want...)
		w.wait(time.Hour)
		w.expect()
	})
}

// A key whose Service is being deleted waits until it is gone.
func TestDeletingMirrorIsNotWritten(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		going := w.pair().Service
		now := metav1Now()
		going.DeletionTimestamp, going.Finalizers = &now, []string{"example.com/wait"}
		going.Spec.Ports = nil
		w.server.put(going)
		w.wait(time.Hour)
		w.expect()
		w.server.removePair("default", "bar-paris")
		w.settle()
		w.expect(createEndpoints, createService)
		w.mirrored()
	})
}

// While the caches are behind, a key may be synced many times: our own writes count,
// whether the caches have seen them or not.
func TestWritesAreNotRepeatedWhileTheCachesAreBehind(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		again := func() {
			for range 10 {
				w.remotes["paris"].know(true)
				w.wait(time.Second)
			}
		}
		w.settle()
		w.server.pauseWatches(true)
		w.remotes["paris"].export(exportedBar())
		again()
		w.expect(createEndpoints, createService)
		changed := exportedBar()
		changed.Spec.Ports[0].Port = 81
		w.remotes["paris"].export(changed)
		again()
		w.expect(updateService)
		w.server.pauseWatches(false)
		w.settle()
		w.expect()
		w.logged(0, `reason=`)
	})
}

func TestDeletionIsNotRepeated(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.server.pauseWatches(true)
		w.remotes["paris"].unexport(exportedBar())
		for range 10 {
			w.remotes["paris"].know(true)
			w.wait(time.Second)
		}
		if writes := w.server.wrote(); len(writes) != 2 {
			w.Errorf("%d deletions of two objects", len(writes))
		}
		w.logged(1, "Deleted mirror")
		w.server.pauseWatches(false)
	})
}

// The IP families of the cluster's mirrors keep unusable addresses out of Endpoints.
func TestFamiliesAreLearnedFromMirrors(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		gw := parisGateway()
		gw.Addresses = append(gw.Addresses, gateway.Address{Addr: mustAddr("192.0.2.2")})
		gw.Addresses = append(gw.Addresses, gateway.Address{Addr: mustAddr("2001:db8::1")})
		w.remotes["paris"].setGateway(gw)
		w.remotes["paris"].export(named("default", "foo"))
		w.settle()
		w.expect(updateEndpoints, "create endpoints default/foo-paris", "create services default/foo-paris")
		for _, name := range []string{"bar-paris", "foo-paris"} {
			if got := (Objects{Endpoints: w.server.endpoints("default", name)}).Addresses(); !slices.Equal(got, []string{"192.0.2.1", "192.0.2.2"}) {
				w.Errorf("%s: got addresses %q", name, got)
			}
		}
	})
}

// The families may become known from another mirror while one is being written: that is
// no overwriting.
func TestFamiliesLearnedDuringAWriteAreNotOverwriting(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		gw := parisGateway()
		gw.Addresses = append(gw.Addresses, gateway.Address{Addr: mustAddr("2001:db8::1")})
		w.remotes["paris"].setGateway(gw)
		w.remotes["paris"].export(exportedBar())
		var learned bool
		w.server.setAdmit(onEndpoints(func(*corev1.Endpoints) {
			if !learned {
				learned = true
				other := storedBar().Service
				other.Name, other.Annotations[plan.MirrorAnnotation], other.ResourceVersion = "other-paris", "default/other-paris", "1"
				w.controller.local.Wrote(other)
			}
		}))
		w.settle()
		w.wait(time.Minute)
		w.logged(0, `reason="Overwritten"`)
		w.mirrored()
	})
}

// A controller that ends before its caches are synced leaves no goroutine behind.
func TestRunThatEndsEarlyShutsItsQueue(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		ctx, cancel := context.WithCancel(w.Context())
		cancel()
		c := New(Clients{Read: w.server.client, Metadata: w.server.meta, Write: w.server.client}, Options{Workers: 1}, w.controller.logger)
		defer c.queue.ShutDown()
		c.Run(ctx)
		if !c.queue.ShuttingDown() {
			w.Error("the queue's goroutines outlive Run")
		}
	})
}

// Nothing is known of a namespace that is no longer watched: its mirrors stay.
func TestMirrorsOfAnUnwatchedNamespaceStay(t *testing.T) {
	exporting(t, Options{}, paris, func(w *world) {
		w.settle()
		w.expect()
		w.remotes["paris"].namespaces = []string{"other"}
		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Hour)
		w.expect()
		w.remotes["paris"].namespaces = []string{"other", "default"}
		w.remotes["paris"].know(true)
		w.wait(time.Second)
		w.expect("delete services default/bar-paris", "delete endpoints default/bar-paris")
	})
}
