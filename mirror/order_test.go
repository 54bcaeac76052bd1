package mirror

import (
	"math/rand/v2"
	"testing"
	"time"

	"service-mirror.io/service-mirror/mirror/plan"
)

// event is something that happens to the clusters.
type event struct {
	name string
	do   func(*world)
}

// TestAnyOrderEndsTheSame is the law of level-triggering: the result depends on the state
// of the clusters, not on the order of events.
func TestAnyOrderEndsTheSame(t *testing.T) {
	headless := named("default", "headless")
	headless.Spec.ClusterIP = "None"
	theirs := foreignService()
	theirs.Name = "taken-paris"
	moved := parisGateway()
	moved.Addresses[0].Addr = moved.Addresses[0].Next()
	ports := exportedBar()
	ports.Spec.Ports = ports.Spec.Ports[1:]
	// Each has all events of one object, in order; those of different objects may come in
	// any order.
	events := []event{
		{"paris exports bar, and changes it", func(w *world) { w.remotes["paris"].export(exportedBar()); w.remotes["paris"].export(ports) }},
		{"paris exports a, and unexports it", func(w *world) {
			w.remotes["paris"].export(named("default", "a"))
			w.wait(time.Millisecond)
			w.remotes["paris"].unexport(named("default", "a"))
		}},
		{"berlin exports bar", func(w *world) { w.remotes["berlin"].export(exportedBar()) }},
		{"paris exports a headless one", func(w *world) { w.remotes["paris"].export(headless) }},
		{"paris exports a Service whose name is taken", func(w *world) { w.remotes["paris"].export(named("default", "taken")) }},
		{"paris exports into a missing namespace", func(w *world) { w.remotes["paris"].export(named("shop", "bar")) }},
		{"paris exports into a namespace that never comes", func(w *world) { w.remotes["paris"].export(named("nowhere", "bar")) }},
		{"the namespace appears", func(w *world) { w.server.put(shopNamespace()) }},
		{"the gateway of paris moves", func(w *world) { w.remotes["paris"].setGateway(moved) }},
		{"the remote berlin syncs again", func(w *world) { w.remotes["berlin"].know(true) }},
		{"paris is not known for a while", func(w *world) {
			w.remotes["paris"].know(false)
			w.wait(time.Millisecond)
			w.remotes["paris"].know(true)
		}},
		{"someone edits a mirror", func(w *world) {
			if svc := w.pair().Service; svc != nil {
				svc.Spec.Selector = map[string]string{"app": "x"}
				w.server.put(svc)
			}
		}},
		{"someone deletes a mirror", func(w *world) {
			if pair := w.pair(); pair.Service != nil && pair.Endpoints != nil {
				w.server.removePair("default", "bar-paris")
			}
		}},
		{"an orphan exists", func(w *world) {
			orphan := mirrorOfBar()
			orphan.Service.Name, orphan.Endpoints.Name = "gone-paris", "gone-paris"
			orphan.Service.Annotations[plan.MirrorAnnotation], orphan.Endpoints.Annotations[plan.MirrorAnnotation] = "default/gone-paris", "default/gone-paris"
			w.server.put(orphan.Endpoints)
			w.server.put(orphan.Service)
		}},
		{"half an orphan exists", func(w *world) {
			orphan := mirrorOfBar()
			orphan.Endpoints.Name = "half-berlin"
			orphan.Endpoints.Labels[plan.ClusterLabel], orphan.Endpoints.Annotations[plan.MirrorAnnotation] = "berlin", "default/half-berlin"
			w.server.put(orphan.Endpoints)
		}},
	}
	var services, endpoints string
	for round := range uint64(100) {
		random := rand.New(rand.NewPCG(round, 7))
		run(t, Options{}, []string{"paris", "berlin"}, func(w *world) {
			w.server.put(theirs) // first: it keeps the name
			started := random.IntN(len(events))
			for i, n := range random.Perm(len(events)) {
				if i == started {
					w.start()
				}
				events[n].do(w)
				switch random.IntN(3) {
				case 0:
					w.wait(0)
				case 1:
					w.wait(time.Duration(random.IntN(1000)) * time.Millisecond)
				}
			}
			w.wait(time.Hour)
			gotServices, gotEndpoints := w.server.all("services"), w.server.all("endpoints")
			if round == 0 {
				services, endpoints = gotServices, gotEndpoints
			}
			if gotServices != services {
				w.Fatalf("round %d ended with Services\n%s\nbut the first with\n%s\nlog:\n%s", round, gotServices, services, w.log)
			}
			if gotEndpoints != endpoints {
				w.Fatalf("round %d ended with Endpoints\n%s\nbut the first with\n%s\nlog:\n%s", round, gotEndpoints, endpoints, w.log)
			}
			for _, name := range []string{"bar-paris", "bar-berlin", "taken-paris"} {
				if w.server.service("default", name) == nil {
					w.Fatalf("round %d: %s does not exist\nlog:\n%s", round, name, w.log)
				}
			}
			for _, name := range []string{"a-paris", "headless-paris", "gone-paris"} {
				if w.server.service("default", name) != nil {
					w.Fatalf("round %d: %s exists\nlog:\n%s", round, name, w.log)
				}
			}
			if w.server.service("shop", "bar-paris") == nil || w.server.endpoints("default", "half-berlin") != nil {
				w.Fatalf("round %d:\n%s", round, w.log)
			}
			if svc := w.server.service("default", "taken-paris"); len(svc.Labels) != 1 {
				w.Fatalf("the foreign Service was written: %s", text(svc))
			}
			w.server.wrote()
			w.remotes["paris"].know(true)
			w.remotes["berlin"].know(true)
			w.wait(time.Hour)
			w.expect()
		})
		if t.Failed() {
			return
		}
	}
}
