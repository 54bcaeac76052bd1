package remote

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// versioned is a server with a history of Services, as an API server has it: it accepts a
// watch that resumes a version above its own, and then says nothing on it until it is there.
type versioned struct {
	mu       sync.Mutex
	version  int
	services map[string]*corev1.Service
	down     error
	watches  map[*watch.FakeWatcher]int // and the version that each resumed
	requests []string
}

func newVersioned() *versioned {
	return &versioned{version: 100, services: map[string]*corev1.Service{}, watches: map[*watch.FakeWatcher]int{}}
}

func (v *versioned) list(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests = append(v.requests, fmt.Sprintf("list limit=%d version=%s", options.Limit, options.ResourceVersion))
	if v.down != nil {
		return nil, v.down
	}
	list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: strconv.Itoa(v.version)}}
	for _, svc := range v.services {
		if options.Limit == 0 || int64(len(list.Items)) < options.Limit {
			list.Items = append(list.Items, *svc)
		}
	}
	return list, nil
}

func (v *versioned) watch(_ context.Context, options metav1.ListOptions) (watch.Interface, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.requests = append(v.requests, "watch version="+options.ResourceVersion)
	if v.down != nil {
		return nil, v.down
	}
	w := watch.NewFakeWithChanSize(1000, false)
	from, err := strconv.Atoi(options.ResourceVersion)
	must(err)
	v.watches[w] = from
	return w, nil
}

// set writes a Service; port 0 deletes it.
func (v *versioned) set(name string, port int32) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version++
	kind, before := watch.Added, v.services[name]
	svc := service("default", name)
	svc.ResourceVersion, svc.Spec.Ports = strconv.Itoa(v.version), []corev1.ServicePort{{Port: port}}
	v.services[name] = svc
	if port == 0 {
		kind = watch.Deleted
		delete(v.services, name)
	} else if before != nil {
		kind = watch.Modified
	}
	for w, from := range v.watches {
		if v.version > from {
			w.Action(kind, svc.DeepCopy())
		}
	}
}

// cut ends all watches; with an error, requests fail until it is nil.
func (v *versioned) cut(down error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.down = down
	for w := range v.watches {
		w.Stop()
	}
	v.watches = map[*watch.FakeWatcher]int{}
}

// restore puts the server back to a state that it had.
func (v *versioned) restore(version int, services map[string]*corev1.Service) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.version, v.services = version, services
}

func (v *versioned) sent() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	all := v.requests
	v.requests = nil
	return all
}

// historian is an informer that follows a versioned server.
type historian struct {
	*testing.T
	*versioned
	*Informer[*corev1.Service]
	reporting
	resets  int
	changes []string
}

// following gives a test one, in a bubble of virtual time, once it has seen svc bar with
// port 80.
func following(t *testing.T, test func(*historian)) {
	synctest.Test(t, func(t *testing.T) {
		h := &historian{T: t, versioned: newVersioned()}
		lw := &ListWatch{ListFunc: h.versioned.list, WatchFunc: h.versioned.watch, Report: h.report, Client: noStreams{}}
		lw.Reset = func() { h.resets++ }
		h.Informer = NewInformer(lw, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
		note := func(what string, svc *corev1.Service) {
			h.changes = append(h.changes, fmt.Sprintf("%s %s:%d", what, svc.Name, svc.Spec.Ports[0].Port))
		}
		h.Handle(Handler[*corev1.Service]{
			Added:   func(svc *corev1.Service) { note("+", svc) },
			Updated: func(_, svc *corev1.Service) { note("~", svc) },
			Deleted: func(_ cache.ObjectName, svc *corev1.Service) { note("-", svc) },
		})
		h.set("bar", 80)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			h.RunWithContext(ctx)
		}()
		synctest.Wait()
		h.follows("bar:80")
		if want := []string{"list limit=500 version=", "watch version=101"}; !slices.Equal(h.sent(), want) {
			t.Errorf("at the start: want %q alone", want)
		}
		h.changes = nil
		test(h)
		cancel()
		<-ended
	})
}

// noStreams is a client that cannot stream lists.
type noStreams struct{}

func (noStreams) IsWatchListSemanticsUnSupported() bool { return true }

func (h *historian) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// follows wants these Services, with their ports, in the cache.
func (h *historian) follows(want ...string) {
	h.Helper()
	var got []string
	for _, svc := range h.All() {
		got = append(got, fmt.Sprintf("%s:%d", svc.Name, svc.Spec.Ports[0].Port))
	}
	if slices.Sort(got); !slices.Equal(got, want) {
		h.Errorf("in the cache is %q, want %q", got, want)
	}
}

// A watch restart costs one request for one object, and changes nothing.
func TestHistoryThatGoesOn(t *testing.T) {
	following(t, func(h *historian) {
		h.set("foo", 80)
		h.wait(5 * time.Second)
		h.set("foo", 81)
		h.cut(nil)
		h.wait(time.Second)
		if got, want := h.sent(), []string{"list limit=1 version=", "watch version=103"}; !slices.Equal(got, want) {
			h.Errorf("got %q, want %q", got, want)
		}
		h.set("foo", 82)
		synctest.Wait()
		h.follows("bar:80", "foo:82")
		if h.resets != 0 || len(h.failures()) != 0 {
			h.Errorf("%d resets, reported %v", h.resets, h.errs)
		}
	})
}

// A server that was restored from a backup is followed, at once.
func TestHistoryThatGoesBack(t *testing.T) {
	following(t, func(h *historian) {
		backup := map[string]*corev1.Service{"bar": h.Get(cache.NewObjectName("default", "bar")), "old": withPort("old", 80, "90")}
		h.set("bar", 81)
		h.set("new", 80)
		for range 60 {
			h.set("other", 80)
		}
		synctest.Wait()
		h.changes = nil
		h.cut(errDown)
		h.wait(5 * time.Second)
		h.restore(101, backup)
		h.cut(nil)
		h.wait(4 * time.Second) // the pause between two tries, and no Reflector's
		h.follows("bar:80", "old:80")
		slices.Sort(h.changes)
		if want := []string{"+ old:80", "- new:80", "- other:80", "~ bar:80"}; !slices.Equal(h.changes, want) {
			h.Errorf("got %q, want %q", h.changes, want)
		}
		if h.resets != 1 {
			h.Errorf("%d resets, want one", h.resets)
		}
		if failures := h.failures(); len(failures) == 0 || !strings.Contains(failures[len(failures)-1].Error(), "resourceVersion went back from 163 to 101") {
			h.Errorf("reported %v", failures)
		}
		h.set("bar", 82)
		h.set("old", 0)
		synctest.Wait()
		h.follows("bar:82")
	})
}

func withPort(name string, port int32, version string) *corev1.Service {
	svc := service("default", name)
	svc.ResourceVersion, svc.Spec.Ports = version, []corev1.ServicePort{{Port: port}}
	return svc
}

// After an outage a restored server may have passed the version that is known: all is
// listed again, and what has the version that it had is compared, too.
func TestHistoryThatWasOvertaken(t *testing.T) {
	following(t, func(h *historian) {
		h.set("new", 80)
		synctest.Wait()
		h.cut(errDown)
		h.wait(maxSilence + time.Second)
		h.restore(200, map[string]*corev1.Service{"bar": withPort("bar", 99, "101")})
		h.cut(nil)
		h.wait(4 * time.Second)
		h.follows("bar:99")
		if got := h.changes[len(h.changes)-1]; got != "~ bar:99" {
			h.Errorf("last change %q", got)
		}
		if h.resets != 0 {
			h.Errorf("%d resets, but history went on", h.resets)
		}
		if slices.Contains(h.sent(), "watch version=102") {
			h.Error("the old version is resumed")
		}
	})
}

// Outages one after the other do not make it slower: a Reflector would back off.
func TestOutagesInARow(t *testing.T) {
	following(t, func(h *historian) {
		for n := range int32(6) {
			h.cut(errDown)
			h.wait(maxSilence + time.Second)
			h.cut(nil)
			h.set("bar", 1000+n)
			h.wait(4 * time.Second)
			h.follows(fmt.Sprintf("bar:%d", 1000+n))
		}
	})
}

// What is no answer proves nothing about the history.
func TestHistoryThatIsNotAnswered(t *testing.T) {
	for name, down := range map[string]error{"time-out": apierrors.NewTimeoutError("slow", 1), "too large": errTooLarge(), "refused": errDown} {
		t.Run(name, func(t *testing.T) {
			following(t, func(h *historian) {
				h.cut(down)
				h.wait(5 * time.Second)
				h.cut(nil)
				h.wait(4 * time.Second)
				h.set("bar", 81)
				synctest.Wait()
				h.follows("bar:81")
				if h.resets != 0 {
					h.Errorf("%d resets", h.resets)
				}
			})
		})
	}
}

// A list that is lower than what was known is that of another history, too.
func TestListThatGoesBack(t *testing.T) {
	var reports reporting
	v, resets := newVersioned(), 0
	lw := &ListWatch{ListFunc: v.list, Report: reports.report, Reset: func() { resets++ }}
	for _, test := range []struct{ version, resets int }{{100, 0}, {200, 0}, {150, 1}, {150, 1}, {9, 2}, {10, 2}} {
		v.restore(test.version, nil)
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || resets != test.resets {
			t.Errorf("version %d: %d resets, want %d; %v", test.version, resets, test.resets, err)
		}
	}
}

// A consistent list that is below what was written before it has lost the write; a list at a
// version comes from a cache, which may be behind.
func TestListThatLacksAWrite(t *testing.T) {
	var reports reporting
	v, resets := newVersioned(), 0
	lw := &ListWatch{ListFunc: v.list, Report: reports.report, Reset: func() { resets++ }}
	lw.history.wrote("300")
	for _, test := range []struct {
		at      string
		version int
		resets  int
	}{{"100", 100, 0}, {"", 300, 0}, {"", 299, 1}, {"", 299, 1}, {"", 300, 1}} {
		v.restore(test.version, nil)
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: test.at}); err != nil || resets != test.resets {
			t.Errorf("list at %q with version %d: %d resets, want %d; %v", test.at, test.version, resets, test.resets, err)
		}
	}
}

// A watch does not resume what was seen before a write that the server has lost.
func TestWatchOfAServerThatLostAWrite(t *testing.T) {
	following(t, func(h *historian) {
		h.Wrote("150")
		h.cut(errDown)
		h.wait(2 * time.Second)
		h.restore(120, map[string]*corev1.Service{"old": withPort("old", 80, "90")})
		h.cut(nil)
		h.wait(4 * time.Second)
		h.follows("old:80")
		if h.resets != 1 {
			h.Errorf("%d resets, want one", h.resets)
		}
	})
}

// An event that is malformed ends the watch and changes nothing; where it comes again and
// again, a new list gets past it.
func TestMalformedEvents(t *testing.T) {
	for _, test := range malformedServices {
		t.Run(test.name, func(t *testing.T) {
			following(t, func(h *historian) {
				for n := range 2 * maxErrors {
					h.versioned.mu.Lock()
					for w := range h.watches {
						w.Delete(test.service.DeepCopy())
					}
					h.versioned.mu.Unlock()
					h.wait(4 * time.Second)
					if got := h.failures(); len(got) != 1 || !strings.Contains(got[0].Error(), test.cause) {
						h.Errorf("event %d: reported %v", n, got)
					}
					h.cut(nil)
					h.wait(2 * time.Second)
				}
				h.set("bar", 81)
				synctest.Wait()
				h.follows("bar:81")
				if slices.ContainsFunc(h.changes, func(change string) bool { return change[0] == '-' }) {
					h.Errorf("changes %q", h.changes)
				}
			})
		})
	}
}

// Of two answers that are bracketed by reads of the UID, both must lack what is deleted.
func TestBracketedListsThatDelete(t *testing.T) {
	lists := [][]string{{"a", "b"}, {"a"}, {"a", "b"}, {"b"}, {}, {}, {"a"}}
	var reports reporting
	lw := &ListWatch{Report: reports.report, cache: keysAlone{"default/a", "default/b"}, Before: (&gate{bracketed: true}).pass}
	n := 0
	lw.ListFunc = func(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
		list := emptyList()
		for _, name := range lists[n] {
			list.Items = append(list.Items, *service("default", name))
		}
		n++
		return list, nil
	}
	synctest.Test(t, func(t *testing.T) {
		var counts, sizes []int
		for range 3 {
			list, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
			if err != nil {
				t.Fatal(err)
			}
			counts, sizes = append(counts, n), append(sizes, len(list.(*corev1.ServiceList).Items))
		}
		// The first deletes nothing; b is not missing twice in a row; then a and b are.
		if !slices.Equal(counts, []int{1, 3, 6}) || !slices.Equal(sizes, []int{2, 2, 0}) {
			t.Errorf("%d lists were made, with %d items: want 1, 3, 6 with 2, 2, 0", counts, sizes)
		}
	})
}

type keysAlone []string

func (k keysAlone) keys() []string                    { return k }
func (k keysAlone) object(_, _ string) runtime.Object { return nil }
func (k keysAlone) version() string                   { return "" }
func (k keysAlone) HasSynced() bool                   { return true }

// A stream that is only bracketed cannot be judged as a whole: a plain list can.
func TestBracketedListsAreNotStreamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := true
		w := newWatching()
		w.Before = (&gate{bracketed: true}).pass
		for range 2 {
			if _, err := w.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream}); !apierrors.IsMethodNotSupported(err) {
				t.Errorf("got %v", err)
			}
		}
		if len(w.opened) != 1 || !w.last().IsStopped() {
			t.Errorf("%d streams were opened, want one, that is stopped", len(w.opened))
		}
	})
}

// A stream that ends too early is followed by a plain list, with the cause.
func TestStreamThatEndsEarly(t *testing.T) {
	for name, end := range map[string]func(*watch.FakeWatcher){
		"closed":           func(w *watch.FakeWatcher) { w.Stop() },
		"an error":         func(w *watch.FakeWatcher) { w.Error(&apierrors.NewInternalError(errDown).ErrStatus) },
		"expired":          func(w *watch.FakeWatcher) { w.Error(&apierrors.NewResourceExpired("old").ErrStatus) },
		"malformed":        func(w *watch.FakeWatcher) { w.Add(&corev1.Service{}) },
		"one object twice": func(w *watch.FakeWatcher) { w.Add(service("default", "bar")) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				stream := true
				w := newWatching()
				opened, err := w.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream})
				if err != nil {
					t.Fatal(err)
				}
				w.last().Add(service("default", "bar"))
				end(w.last())
				var last watch.Event
				for last = range opened.ResultChan() {
				}
				if err := apierrors.FromObject(last.Object); last.Type != watch.Error || !apierrors.IsMethodNotSupported(err) {
					t.Errorf("it ends with %v: %v", last, err)
				}
				if got := w.failures(); len(got) != 1 {
					t.Errorf("reported %v, want the cause", got)
				}
				// The next list is streamed again.
				opened, err = w.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream})
				if err != nil {
					t.Fatal(err)
				}
				opened.Stop()
			})
		})
	}
}

// What was written, and is gone before the cache saw it, is looked at again once a list lacks it: no event says so.
func TestLostBeforeSeen(t *testing.T) {
	following(t, func(h *historian) {
		var again []string
		written := Written[*corev1.Service]{Informer: h.Informer, Again: func(svc *corev1.Service) { again = append(again, svc.Name) }}
		h.Informer.lw.Listed = written.Listed
		for name, version := range map[string]string{"lost": "101", "bar": "102"} {
			written.Add(withPort(name, 80, version))
		}
		written.objects.Store(cache.NewObjectName("default", "later"), withPort("later", 80, "999"))
		h.cut(errDown)
		h.wait(maxSilence + time.Second)
		h.set("bar", 81)
		h.cut(nil)
		h.wait(4 * time.Second)
		h.follows("bar:81")
		if want := []string{"lost"}; !slices.Equal(again, want) {
			t.Errorf("looked at again: %q, want %q", again, want)
		}
		if got := written.Latest(cache.NewObjectName("default", "lost")); got != nil {
			t.Errorf("still known: %v", got)
		}
	})
}
