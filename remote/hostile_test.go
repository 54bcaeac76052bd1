package remote

import (
	"context"
	"fmt"
	"net/http"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
)

// peak samples the heap until it is stopped, and returns the most there was.
func peak() (stop func() uint64) {
	done, most := make(chan struct{}), make(chan uint64)
	go func() {
		var highest uint64
		ticker := time.NewTicker(20 * time.Millisecond)
		defer ticker.Stop()
		for {
			var memory runtime.MemStats
			runtime.ReadMemStats(&memory)
			highest = max(highest, memory.HeapAlloc)
			select {
			case <-done:
				most <- highest
				return
			case <-ticker.C:
			}
		}
	}()
	return func() uint64 { close(done); return <-most }
}

// A remote that sends events as fast as it can costs no more memory than its
// Services do, and another remote is served meanwhile.
func TestStormOfEvents(t *testing.T) {
	const services, events = 100, 100_000
	var sent atomic.Int64
	storm, calm := newLiveServer(t, "storm-uid"), newLiveServer(t, "calm-uid")
	storm.exports = func(ctx context.Context, send func(watch.EventType, kruntime.Object) error) {
		svc := service("default", "")
		for n := range events {
			svc.Name, svc.ResourceVersion = fmt.Sprint("svc-", n%services), fmt.Sprint(n+10)
			kind := watch.Modified
			if n < services {
				kind = watch.Added
			}
			if send(kind, svc) != nil {
				return
			}
			sent.Add(1)
		}
	}
	calm.flush = true
	raise := make(chan struct{})
	calm.exports = func(ctx context.Context, send func(watch.EventType, kruntime.Object) error) {
		for n := 10; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-raise:
			}
			svc := service("default", "bar")
			svc.ResourceVersion = fmt.Sprint(n)
			send(watch.Modified, svc)
		}
	}
	runtime.GC()
	var before runtime.MemStats
	runtime.ReadMemStats(&before)
	highest := peak()
	quiet, loud := follow(t, calm, "calm"), follow(t, storm, "storm")
	eventually(t, known(quiet, loud))
	served, last := 0, func() string {
		view, _ := loud.View()
		for svc := range view.Services.All() {
			if svc.Name == fmt.Sprint("svc-", services-1) {
				return svc.ResourceVersion
			}
		}
		return ""
	}
	for known, since := "", time.Now(); known != fmt.Sprint(events+9); {
		if now := last(); now != known {
			known, since = now, time.Now()
		} else if time.Since(since) > 20*time.Second {
			t.Fatalf("the storm stopped: %d events are sent, and %s is known", sent.Load(), known)
		}
		was := quiet.changes("default/bar")
		raise <- struct{}{}
		eventually(t, func() string {
			if quiet.changes("default/bar") == was {
				return fmt.Sprintf("the other remote is not served, after %d events of the storm", sent.Load())
			}
			return ""
		})
		served++
	}
	if served < 10 {
		t.Errorf("the other remote was served %d times during the storm: it was too short", served)
	}
	if grown := int64(highest()) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d events took %d MB", events, grown>>20)
	}
	view, ok := loud.View()
	if !ok || view.Services.Len() != services+1 {
		t.Errorf("%d Services are known, want %d", view.Services.Len(), services+1)
	}
	t.Logf("%d events, meanwhile another was served %d times", sent.Load(), served)
}

// An enormous Service costs what is kept of it.
func TestEnormousServices(t *testing.T) {
	const services = 64
	server := newLiveServer(t, "paris-uid")
	server.list = func(w http.ResponseWriter, req *http.Request) {
		list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}
		for n := range services {
			svc := service("default", fmt.Sprint("svc-", n))
			svc.Annotations = map[string]string{"example.com/a": string(make([]byte, 1<<20))}
			list.Items = append(list.Items, *svc)
		}
		w.Write(encode(list))
	}
	before := measure(t)
	spec := through()
	spec.Name, spec.Limits.Bytes = "paris", 128<<20
	f := followAs(t, server, spec, func(types.UID) error { return nil })
	eventually(t, known(f))
	if view, _ := f.View(); view.Services.Len() != services {
		t.Errorf("%d Services are known, want %d", view.Services.Len(), services)
	}
	settles(t, "with enormous Services", before, level{goroutines: 100, files: 20, heap: 16 << 20})
}
