package mirror

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// TestMergedWalk makes random changes of what two remotes export, of what is known of them, of the objects by hand, and of
// the flags. Whenever the controller is idle, nothing is left to be written, and the endpoints are those that are due.
func TestMergedWalk(t *testing.T) {
	steps := 0
	for seed := range uint64(40) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			mode := plan.MergeFirst
			run(t, merging(mode), bothRemotes, func(w *world) {
				walk := mergedWalk{world: w, generator: generator{rand.New(rand.NewPCG(seed, 17))}, mode: mode,
					health: map[string]string{"paris": "", "berlin": ""}, known: map[string]bool{"paris": true, "berlin": true}, exported: map[string]bool{}}
				walk.at("", "")
				walk.settle()
				for range 40 {
					walk.step()
					steps++
					walk.wait(time.Minute)
					walk.check()
					if t.Failed() {
						t.Fatalf("after\n%s\nlog:\n%s", strings.Join(walk.script, "\n"), w.log)
					}
				}
			})
		})
	}
	if steps < 1000 && !t.Failed() {
		t.Errorf("only %d steps were made", steps)
	}
}

// mergedWalk is a world, and the model of it.
type mergedWalk struct {
	*world
	generator
	mode     plan.Merge
	health   map[string]string // of the gateways' addresses: "", dead
	known    map[string]bool
	exported map[string]bool
	script   []string
}

var mergedAddress = map[string]string{"paris": "192.0.2.1", "berlin": "192.0.2.2"}

func (w *mergedWalk) note(format string, args ...any) {
	w.script = append(w.script, fmt.Sprintf(format, args...))
}

func (w *mergedWalk) step() {
	remote := pickOne(w.generator, bothRemotes...)
	switch w.IntN(9) {
	case 0, 1:
		w.note("export of %s", remote)
		w.exported[remote] = true
		w.remotes[remote].export(named("default", "bar"))
	case 2:
		w.note("unexport of %s", remote)
		w.exported[remote] = false
		w.remotes[remote].unexport(named("default", "bar"))
	case 3, 4:
		w.health[remote] = pickOne(w.generator, "", " dead")
		w.note("gateway of %s%s", remote, w.health[remote])
		w.remotes[remote].setGateway(gatewayAt(mergedAddress[remote] + w.health[remote]))
	case 5:
		w.edit()
	case 6:
		w.restart(remote)
	default:
		if !w.known[remote] {
			w.note("%s is known", remote)
			w.known[remote] = true
			w.remotes[remote].know(true)
		}
	}
}

// edit changes an object by hand.
func (w *mergedWalk) edit() {
	what := w.IntN(4)
	w.note("edit %d", what)
	key := func(name string) cache.ObjectName { return cache.NewObjectName("default", name) }
	slice := pickOne(w.generator, "bar.paris.ipv4", "bar.berlin.ipv4")
	switch {
	case what == 0 && w.server.service("default", "bar") != nil:
		w.server.remove("services", "default", "bar")
	case what == 1 && w.server.slice("default", slice) != nil:
		w.server.remove("endpointslices", "default", slice)
	case what == 2 && w.server.service("default", "bar") != nil:
		w.server.edit("services", key("bar"), func(obj runtime.Object) bool {
			svc := obj.(*corev1.Service)
			svc.Spec.Ports[0].Port, svc.Labels[plan.ClusterLabel] = 81, "paris"
			return true
		})
	case what == 3 && w.server.slice("default", slice) != nil:
		w.server.edit("endpointslices", key(slice), func(obj runtime.Object) bool {
			slice := obj.(*discoveryv1.EndpointSlice)
			slice.Ports, slice.Labels[plan.ClusterLabel] = nil, "rome"
			return true
		})
	}
}

// restart restarts the controller with another mode, and one remote that cannot be reached.
func (w *mergedWalk) restart(remote string) {
	w.mode = pickOne(w.generator, plan.MergeFirst, plan.MergeFirst, plan.MergeAll, plan.MergeOff)
	w.note("restart with %s, %s is unknown", w.mode, remote)
	w.stop()
	w.known[remote] = false
	w.remotes[remote].know(false)
	w.use(merging(w.mode), bothRemotes...)
	w.start()
}

// check compares what there is with what is due. What an unknown remote has is whatever it had.
func (w *mergedWalk) check() {
	for _, p := range w.controller.Plans() {
		if p.Writes() {
			w.Errorf("idle, but for %v this is left: %+v", p.Key, p.Steps)
		}
	}
	if !w.known["paris"] || !w.known["berlin"] {
		return
	}
	var want []string
	serves := ""
	for _, remote := range bothRemotes {
		if serves == "" && w.exported[remote] && w.health[remote] == "" {
			serves = remote
		}
	}
	for _, remote := range bothRemotes {
		text := mergedAddress[remote]
		if w.health[remote] != "" || w.mode == plan.MergeFirst && serves != remote {
			text += " dead"
		}
		if w.exported[remote] {
			want = append(want, text)
		}
	}
	svc := w.server.service("default", "bar")
	if wanted := w.exported["paris"] || w.exported["berlin"]; wanted != (svc != nil) {
		w.Errorf("it is exported: %t, the Service is %s", wanted, text(svc))
	}
	if w.mode == plan.MergeOff {
		if w.server.slice("default", "bar.paris.ipv4") != nil || w.server.slice("default", "bar.berlin.ipv4") != nil {
			w.Errorf("not merged, it has parts: %q", w.serving())
		}
		return
	}
	w.wantServing(want...)
	if svc != nil && (svc.Labels[plan.ClusterLabel] != plan.MergedCluster || svc.Spec.Ports[0].Port != 80) {
		w.Errorf("the Service is %s", text(svc))
	}
}
