package mirror

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// failoverModel is what is to be beside default/bar at rest. It shares no code with the rule.
type failoverModel struct {
	labelled bool
	listed   []string
	ready    bool            // a local endpoint is
	exports  map[string]bool // by remote
	healthy  map[string]bool // the gateway's address, by remote
}

// wants is a text as beside has it.
func (m *failoverModel) wants() string {
	if !m.labelled {
		return ""
	}
	serves := ""
	for _, remote := range m.listed {
		if !m.ready && serves == "" && m.exports[remote] && m.healthy[remote] {
			serves = remote
		}
	}
	var texts []string
	for _, remote := range []string{"berlin", "paris"} {
		if slices.Contains(m.listed, remote) && m.exports[remote] {
			texts = append(texts, fmt.Sprintf("bar.%s.ipv4 %s", remote, map[bool]string{true: "+", false: "-"}[remote == serves]))
		}
	}
	return strings.Join(texts, ", ")
}

// TestFailoverWalk does what may happen in any order, at any moment. At rest all is as the rules say, and nothing is
// written any more; on the way nothing is but what is beside the Service.
func TestFailoverWalk(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			failsOver(t, "paris,berlin", func(w *world) { walkFailover(w, rand.New(rand.NewPCG(seed, 1))) })
		})
	}
}

func walkFailover(w *world, random *rand.Rand) {
	m := &failoverModel{labelled: true, listed: []string{"paris", "berlin"}, ready: true,
		exports: map[string]bool{"paris": true, "berlin": true}, healthy: map[string]bool{"paris": true, "berlin": true}}
	addresses := map[string]string{"paris": "192.0.2.1", "berlin": "192.0.2.9"}
	key := cache.NewObjectName("default", "bar")
	pick := func() string { return []string{"paris", "berlin"}[random.IntN(2)] }
	steps := map[string]func(){
		"local endpoints change": func() { m.ready = !m.ready; w.ready(m.ready) },
		"a gateway's health changes": func() {
			remote := pick()
			m.healthy[remote] = !m.healthy[remote]
			address := addresses[remote]
			if !m.healthy[remote] {
				address += " dead"
			}
			w.remotes[remote].setGateway(gatewayAt(address))
		},
		"an export comes or goes": func() {
			remote := pick()
			if m.exports[remote] = !m.exports[remote]; m.exports[remote] {
				w.remotes[remote].export(exportedBar())
			} else {
				w.remotes[remote].unexport(exportedBar())
			}
		},
		"the annotation changes": func() {
			m.listed = [][]string{{"paris", "berlin"}, {"berlin", "paris"}, {"paris"}, {"berlin"}, {}}[random.IntN(5)]
			w.server.edit("services", key, func(obj runtime.Object) bool {
				obj.(*corev1.Service).Annotations[plan.FailoverAnnotation] = strings.Join(m.listed, ",")
				return true
			})
		},
		"the label comes or goes": func() {
			m.labelled = !m.labelled
			w.server.edit("services", key, func(obj runtime.Object) bool {
				obj.(*corev1.Service).Labels = map[string]string{plan.FailoverLabel: fmt.Sprint(m.labelled)}
				return true
			})
		},
		"someone edits a slice": func() {
			w.server.edit("endpointslices", cache.NewObjectName("default", "bar."+pick()+".ipv4"), func(obj runtime.Object) bool {
				slice := obj.(*discoveryv1.EndpointSlice)
				slice.Endpoints[0].Conditions.Ready = new(!*slice.Endpoints[0].Conditions.Ready)
				return true
			})
		},
		"someone deletes a slice": func() {
			name := "bar." + pick() + ".ipv4"
			if w.server.slice("default", name) != nil {
				w.server.remove("endpointslices", "default", name)
			}
		},
		"a restart": func() { w.stop(); w.use(failoverTimes, "paris", "berlin"); w.start() },
	}
	names := slices.Sorted(func(yield func(string) bool) {
		for name := range steps {
			if !yield(name) {
				return
			}
		}
	})
	var done []string
	for range 40 {
		for range 1 + random.IntN(6) {
			name := names[random.IntN(len(names))]
			done = append(done, name)
			steps[name]()
			w.wait(time.Duration(random.IntN(3000)) * time.Millisecond)
		}
		w.wait(time.Minute)
		if got, want := w.beside(), m.wants(); got != want {
			w.Fatalf("after %q\nthere is %q, want %q\nlog:\n%s", done[max(0, len(done)-12):], got, want, w.log)
		}
		for _, write := range w.server.wrote() {
			if strings.Contains(write.what, " default/bar ") || strings.HasSuffix(write.what, "/bar") || strings.Contains(write.what, "bar-abc12") {
				w.Fatalf("written: %s", write.what)
			}
		}
		w.wait(time.Hour)
		if writes := w.server.wrote(); len(writes) > 0 {
			w.Fatalf("at rest, %d writes: %s\nlog:\n%s", len(writes), writes[0].what, w.log)
		}
	}
}
