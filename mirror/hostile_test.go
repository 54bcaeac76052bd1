package mirror

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
)

// A remote has thousands of Services with hostile names and annotations: the valid ones
// are mirrored, memory is bounded, and another remote does not wait.
func TestThousandsOfHostileServices(t *testing.T) {
	const services = 4_000
	run(t, Options{Workers: 8}, []string{"paris", "berlin"}, func(w *world) {
		hostile := strings.Repeat("5432=1, \x00/UDP=🦊,", 1000)
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		bad := 0
		for n := range services {
			svc := named("default", fmt.Sprintf("svc-%d", n))
			svc.Annotations["example.com/junk"] = strings.Repeat("x", 10_000)
			svc.Annotations[gateway.Annotation] = "../../kube-system/x"
			switch n % 5 {
			case 0:
				svc.Name, bad = fmt.Sprintf("../%d\x00%s", n, strings.Repeat("A", 100)), bad+1
			case 1:
				svc.Labels[plan.ManagedByLabel], svc.Annotations[plan.RemoteServiceAnnotation] = plan.ManagedBy, "kube-system/kubernetes"
			case 2:
				svc.Annotations[gateway.PortsAnnotation] = hostile[:200]
			case 3: // all of them claim one port
				svc.Annotations[gateway.PortsAnnotation] = "80=15432"
				delete(svc.Annotations, gateway.Annotation)
			}
			w.remotes["paris"].export(svc)
		}
		w.remotes["berlin"].export(exportedBar())
		w.start()
		w.wait(time.Minute)
		if n := mirrors(w); n != services-bad+1 {
			w.Errorf("%d mirrors, want %d", n, services-bad+1)
		}
		place := 0
		for i, write := range w.server.wrote() {
			if write.what == "create services default/bar-berlin" {
				place = i
			}
		}
		if place == 0 || place > 1000 { // the workers wait for one lock of the fake, which is not fair
			w.Errorf("the other remote is mirrored after %d writes", place)
		}
		for _, key := range []cache.ObjectName{cache.NewObjectName("default", "svc-1-paris"), cache.NewObjectName("default", "svc-2-paris")} {
			if got := w.server.endpoints(key.Namespace, key.Name); got == nil || len(got.Subsets) > 0 {
				w.Errorf("%v routes to a gateway that the flags do not list: %s", key, text(got))
			}
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		// The fake API server, its history and its watchers have several copies of each.
		if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > services*40_000 {
			w.Errorf("%d bytes for each Service", grown/services)
		}
	})
}
