package remote

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

var (
	errDown  = errors.New("connection refused")
	services = schema.GroupResource{Resource: "services"}
)

// emptyList is a well-formed list of nothing.
func emptyList() *corev1.ServiceList {
	return &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "17"}}
}

// bookmark is an event's object that has a resourceVersion alone.
func bookmark(version string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: version}}
}

// endOfList is the bookmark that ends a streamed list.
func endOfList(version string) *corev1.Service {
	end := bookmark(version)
	end.Annotations = map[string]string{metav1.InitialEventsAnnotationKey: "true"}
	return end
}

// reporting collects what a ListWatch reports.
type reporting struct {
	mu   sync.Mutex
	errs []error
}

func (r *reporting) report(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errs = append(r.errs, err)
}

// failures are the reports that are failures, since the last call.
func (r *reporting) failures() (out []error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, err := range r.errs {
		if err != nil {
			out = append(out, err)
		}
	}
	r.errs = nil
	return out
}

// lister answers list requests: the first with the errors given, the rest with a list.
func lister(reports *reporting, errs ...error) (*ListWatch, *[]time.Time) {
	times := &[]time.Time{}
	return &ListWatch{
		Report: reports.report,
		ListFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			*times = append(*times, time.Now())
			if n := len(*times); n <= len(errs) {
				return nil, errs[n-1]
			}
			return emptyList(), nil
		},
	}, times
}

func TestListIsTriedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		lw, times := lister(&reports, slices.Repeat([]error{errDown}, 100)...)
		start := time.Now()
		list, err := lw.ListWithContext(t.Context(), metav1.ListOptions{})
		if err != nil || list == nil {
			t.Fatalf("got %v, %v", list, err)
		}
		last := start
		for i, at := range *times {
			wait := at.Sub(last)
			last = at
			low, high := 3*time.Second, 3600*time.Millisecond
			switch i {
			case 0:
				low, high = 0, 0
			case 1:
				low, high = 500*time.Millisecond, 600*time.Millisecond
			case 2:
				low, high = time.Second, 1200*time.Millisecond
			case 3:
				low, high = 2*time.Second, 2400*time.Millisecond
			}
			if wait < low || wait > high {
				t.Errorf("try %d comes after %v, want %v to %v", i+1, wait, low, high)
			}
		}
		if got := len(reports.failures()); got != 100 {
			t.Errorf("%d failures are reported, want each of 100", got)
		}
	})
}

func TestListIsGivenUpWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		lw, _ := lister(&reports, slices.Repeat([]error{errDown}, 1000)...)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		start := time.Now()
		if _, err := lw.ListWithContext(ctx, metav1.ListOptions{}); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it took %v", took)
		}
	})
}

func TestListTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		tries := 0
		lw := &ListWatch{Report: reports.report, ListFunc: func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
			if tries++; tries > 1 {
				return emptyList(), nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		start := time.Now()
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 30500*time.Millisecond || took > 30600*time.Millisecond {
			t.Errorf("it took %v, want 30 s and the first wait", took)
		}
		if got := reports.failures(); len(got) != 1 || !errors.Is(got[0], context.DeadlineExceeded) {
			t.Errorf("reported: %v", got)
		}
	})
}

// What a Reflector must know is passed on at once, and is no failure: that a
// resourceVersion is too old or too new, or that a list is not streamed.
func TestAnswersForTheReflector(t *testing.T) {
	stream := true
	versioned, streamed := metav1.ListOptions{ResourceVersion: "17"}, metav1.ListOptions{ResourceVersion: "17", SendInitialEvents: &stream}
	for name, want := range map[string]error{
		"expired":       apierrors.NewResourceExpired("too old"),
		"gone":          apierrors.NewGone("too old"),
		"too large":     errTooLarge(),
		"invalid":       apierrors.NewInvalid(schema.GroupKind{}, "", nil),
		"not supported": apierrors.NewMethodNotSupported(services, "watch"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports reporting
				lw, times := lister(&reports, want)
				lw.WatchFunc = func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, want }
				start := time.Now()
				if _, err := lw.WatchWithContext(t.Context(), streamed); err != want {
					t.Errorf("streamed list: got %v", err)
				}
				if _, err := lw.WatchWithContext(t.Context(), versioned); err != want {
					t.Errorf("watch: got %v", err)
				}
				if expired(want) {
					if _, err := lw.ListWithContext(t.Context(), versioned); err != want || len(*times) != 1 {
						t.Errorf("list: got %v after %d tries", err, len(*times))
					}
				}
				if time.Since(start) != 0 || len(reports.failures()) != 0 {
					t.Errorf("it took %v, reported %v", time.Since(start), reports.errs)
				}
			})
		})
	}
}

func errTooLarge() error {
	err := apierrors.NewTimeoutError("too large", 1)
	err.ErrStatus.Details.Causes = []metav1.StatusCause{{Type: metav1.CauseTypeResourceVersionTooLarge}}
	return err
}

// A Reflector backs off from a plain list that fails for a minute, and without a word.
func TestPlainListIsTriedWhateverTheAnswer(t *testing.T) {
	for name, refusal := range map[string]error{
		"405": apierrors.NewMethodNotSupported(services, "list"),
		"410": apierrors.NewResourceExpired("too old"),
		"422": apierrors.NewInvalid(schema.GroupKind{}, "", nil),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports reporting
				lw, times := lister(&reports, refusal, refusal, refusal)
				if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "0"}); err != nil || len(*times) != 4 {
					t.Errorf("got %v after %d tries, want the fourth to succeed", err, len(*times))
				}
				if got := reports.failures(); len(got) != 3 || got[0] != refusal {
					t.Errorf("reported: %v", got)
				}
			})
		})
	}
}

// A server that refuses each watch is polled by the Reflector; the cause is reported.
func TestWatchesThatAreAlwaysRefused(t *testing.T) {
	for _, refusal := range []error{apierrors.NewResourceExpired("too old"), apierrors.NewMethodNotSupported(services, "watch")} {
		synctest.Test(t, func(t *testing.T) {
			var reports reporting
			lw, _ := lister(&reports)
			lw.WatchFunc = func(context.Context, metav1.ListOptions) (watch.Interface, error) { return nil, refusal }
			for n := range 3 {
				if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
					t.Fatal(err)
				}
				if _, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "17"}); err != refusal {
					t.Errorf("got %v", err)
				}
				if got := len(reports.failures()); got != min(n, 1) {
					t.Errorf("after refusal %d: %d reports", n+1, got)
				}
			}
		})
	}
}

// The Reflector would stream again at once, for ever.
func TestStreamThatIsAlwaysExpired(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stream := true
		var reports reporting
		lw, _ := lister(&reports)
		lw.WatchFunc = func(context.Context, metav1.ListOptions) (watch.Interface, error) {
			return nil, apierrors.NewResourceExpired("too old")
		}
		_, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream})
		if !apierrors.IsMethodNotSupported(err) || len(reports.failures()) != 1 {
			t.Errorf("got %v, reported %v; want a plain list, and the cause", err, reports.errs)
		}
	})
}

func TestRefusalsAreTriedAgain(t *testing.T) {
	for name, refusal := range map[string]error{
		"401": apierrors.NewUnauthorized("who are you?"),
		"403": apierrors.NewForbidden(services, "", errDown),
		"404": apierrors.NewNotFound(services, ""),
		"500": apierrors.NewInternalError(errDown),
		"400": apierrors.NewBadRequest("what?"),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports reporting
				lw, times := lister(&reports, refusal, refusal)
				if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || len(*times) != 3 {
					t.Errorf("%d tries, %v", len(*times), err)
				}
				if got := reports.failures(); len(got) != 2 || got[0] != refusal {
					t.Errorf("reported: %v", got)
				}
			})
		})
	}
}

func TestServersOwnDelayIsKept(t *testing.T) {
	for _, test := range []struct {
		seconds int
		want    time.Duration
	}{{10, 10 * time.Second}, {3600, 30 * time.Second}} {
		synctest.Test(t, func(t *testing.T) {
			var reports reporting
			lw, _ := lister(&reports, apierrors.NewTooManyRequests("slow down", test.seconds))
			start := time.Now()
			if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(start); took != test.want {
				t.Errorf("Retry-After of %d s: tried again after %v, want %v", test.seconds, took, test.want)
			}
		})
	}
}

// A list at resourceVersion 0 may be answered from a cache that is behind, and
// what is missing there would be deleted here.
func TestListsAreConsistent(t *testing.T) {
	for given, want := range map[string]string{"0": "", "": "", "17": "17"} {
		var got string
		lw := &ListWatch{Report: func(error) {}, ListFunc: func(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
			got = options.ResourceVersion
			return emptyList(), nil
		}}
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: given}); err != nil || got != want {
			t.Errorf("resourceVersion %q is requested as %q, want %q", given, got, want)
		}
	}
}

// watching is a ListWatch over watches that the test sends events to.
type watching struct {
	*ListWatch
	reporting
	opened  []*watch.FakeWatcher
	times   []time.Time
	refusal []error // of the first tries
}

func newWatching() *watching {
	w := &watching{}
	w.ListWatch = &ListWatch{Report: w.report, ListFunc: func(context.Context, metav1.ListOptions) (runtime.Object, error) {
		return emptyList(), nil
	}, WatchFunc: func(context.Context, metav1.ListOptions) (watch.Interface, error) {
		w.times = append(w.times, time.Now())
		if n := len(w.times); n <= len(w.refusal) && w.refusal[n-1] != nil {
			return nil, w.refusal[n-1]
		}
		inner := watch.NewFakeWithChanSize(100, false)
		w.opened = append(w.opened, inner)
		return inner, nil
	}}
	return w
}

func (w *watching) last() *watch.FakeWatcher { return w.opened[len(w.opened)-1] }

// open opens a watch as a Reflector does.
func (w *watching) open(t *testing.T) watch.Interface {
	t.Helper()
	opened, err := w.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "17"})
	if err != nil {
		t.Fatal(err)
	}
	return opened
}

// events reads a watch to its end.
func events(w watch.Interface) (out []watch.EventType) {
	for event := range w.ResultChan() {
		out = append(out, event.Type)
	}
	return out
}

func TestWatchPassesEventsOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		opened := w.open(t)
		w.last().Add(service("default", "bar"))
		w.last().Modify(service("default", "bar"))
		w.last().Delete(service("default", "bar"))
		w.last().Stop()
		want := []watch.EventType{watch.Added, watch.Modified, watch.Deleted}
		if got := events(opened); !slices.Equal(got, want) {
			t.Errorf("got %v", got)
		}
		if got := w.failures(); len(got) != 0 {
			t.Errorf("reported: %v", got)
		}
	})
}

func TestWatchIsOpenedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		w.refusal = slices.Repeat([]error{errDown}, 50)
		opened := w.open(t)
		if got := len(w.failures()); got != 50 {
			t.Errorf("%d failures are reported, want 50", got)
		}
		if wait := w.times[50].Sub(w.times[49]); wait < 3*time.Second || wait > 3600*time.Millisecond {
			t.Errorf("the last wait was %v", wait)
		}
		opened.Stop()
		events(opened)
		if !w.last().IsStopped() {
			t.Error("the request goes on")
		}
	})
}

// A Reflector calls a watch that ends within a second a failure.
func TestWatchLivesForASecond(t *testing.T) {
	for _, after := range []time.Duration{0, 500 * time.Millisecond, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatching()
			opened := w.open(t)
			start := time.Now()
			time.AfterFunc(after, w.last().Stop)
			events(opened)
			if lived, want := time.Since(start), max(after, time.Second); lived != want {
				t.Errorf("it ends after %v and lives for %v, want %v", after, lived, want)
			}
		})
	}
}

func TestWatchThatIsStoppedEndsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		opened := w.open(t)
		w.last().Add(service("default", "bar")) // nobody reads it
		synctest.Wait()
		start := time.Now()
		opened.Stop()
		opened.Stop()
		events(opened)
		if time.Since(start) != 0 || !w.last().IsStopped() {
			t.Errorf("it took %v; stopped: %v", time.Since(start), w.last().IsStopped())
		}
	})
}

func TestErrorEvents(t *testing.T) {
	status := func(err *apierrors.StatusError) *metav1.Status { return &err.ErrStatus }
	for _, test := range []struct {
		name     string
		status   *metav1.Status
		want     []watch.EventType
		reported int
	}{
		{"too old is for the Reflector", status(apierrors.NewResourceExpired("too old")), []watch.EventType{watch.Error}, 0},
		{"gone is for the Reflector", status(apierrors.NewGone("too old")), []watch.EventType{watch.Error}, 0},
		{"what it cannot do is, too", status(apierrors.NewMethodNotSupported(services, "watch")), []watch.EventType{watch.Error}, 1},
		{"all else is a plain end", status(apierrors.NewInternalError(errDown)), nil, 1},
		{"a time-out too", status(apierrors.NewTimeoutError("slow", 1)), nil, 1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatching()
				opened := w.open(t)
				start := time.Now()
				w.last().Error(test.status)
				if got := events(opened); !slices.Equal(got, test.want) {
					t.Errorf("got events %v, want %v", got, test.want)
				}
				if lived := time.Since(start); lived != time.Second {
					t.Errorf("it lived for %v", lived)
				}
				if got := w.failures(); len(got) != test.reported {
					t.Errorf("reported: %v", got)
				}
				if !w.last().IsStopped() {
					t.Error("the request goes on")
				}
			})
		})
	}
}

// One event that cannot be read would end every watch: a new list gets past it.
func TestErrorsInARowAreForTheReflector(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		broken := &apierrors.NewInternalError(errDown).ErrStatus
		var got []int
		for range 7 {
			opened := w.open(t)
			w.last().Error(broken)
			got = append(got, len(events(opened)))
		}
		if want := []int{0, 0, 1, 0, 0, 1, 0}; !slices.Equal(got, want) {
			t.Errorf("events passed on, by watch: %v, want %v", got, want)
		}
		for range 5 { // an event in between restarts the count
			opened := w.open(t)
			w.last().Add(service("default", "bar"))
			w.last().Error(broken)
			if got := events(opened); !slices.Equal(got, []watch.EventType{watch.Added}) {
				t.Errorf("got %v", got)
			}
		}
	})
}

// Of a watch, the time until the server begins to answer is bounded.
func TestOpeningAWatchTimesOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		tries := 0
		inner := watch.NewFake()
		lw := &ListWatch{Report: reports.report, WatchFunc: func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
			if tries++; tries > 1 {
				return inner, nil
			}
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		start := time.Now()
		opened, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start); took < 30500*time.Millisecond || took > 30600*time.Millisecond {
			t.Errorf("it took %v", took)
		}
		if got := reports.failures(); len(got) != 1 || got[0].Error() != "the server did not start to answer within 30s" {
			t.Errorf("reported: %v", got)
		}
		// Once open it lives for as long as the server likes.
		time.Sleep(24 * time.Hour)
		if inner.IsStopped() {
			t.Error("it was ended")
		}
		opened.Stop()
		events(opened)
	})
}

func TestWatchEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		lw := &ListWatch{Report: func(error) {}, WatchFunc: func(ctx context.Context, _ metav1.ListOptions) (watch.Interface, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := lw.WatchWithContext(ctx, metav1.ListOptions{}); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
	})
}

// Where the client can stream a list but the server, or what is in between,
// never ends it, a plain list takes its place.
func TestSilentStreamIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		stream := true
		options := metav1.ListOptions{SendInitialEvents: &stream}
		opened, err := w.WatchWithContext(t.Context(), options)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		w.last().Add(service("default", "bar"))
		event := <-opened.ResultChan()
		for event = range opened.ResultChan() {
		}
		if status, ok := event.Object.(*metav1.Status); !ok || status.Code != http.StatusMethodNotAllowed {
			t.Errorf("it ends with %v", event)
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := w.WatchWithContext(t.Context(), options); !apierrors.IsMethodNotSupported(err) {
			t.Errorf("a list is streamed again: %v", err)
		}
		plain := w.open(t) // watches go on as ever
		plain.Stop()
		events(plain)
	})
}

func TestStreamThatEndsIsAWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		stream := true
		opened, err := w.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream})
		if err != nil {
			t.Fatal(err)
		}
		w.last().Action(watch.Bookmark, endOfList("17"))
		<-opened.ResultChan()
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if w.last().IsStopped() {
			t.Error("a quiet watch is taken for a silent stream")
		}
		opened.Stop()
		events(opened)
	})
}

// A connection that is cut as soon as a list has been streamed costs a second, not a Reflector's back-off, which
// doubles each time.
func TestStreamThatIsCutAtItsEndIsWatchedOn(t *testing.T) {
	for _, after := range []time.Duration{0, 700 * time.Millisecond, 5 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			w := newWatching()
			inner, resumed := w.WatchFunc, 0
			w.WatchFunc = func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				got, err := inner(ctx, options)
				if options.SendInitialEvents == nil {
					resumed++
					return got, err
				}
				last := w.last()
				time.AfterFunc(after, func() { last.Action(watch.Bookmark, endOfList("17")); last.Stop() })
				return got, err
			}
			var wg sync.WaitGroup
			ctx, cancel := context.WithCancel(t.Context())
			informer := NewInformer(w.ListWatch, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
			wg.Go(func() { informer.RunWithContext(ctx) })
			time.Sleep(after + shortest + time.Millisecond)
			synctest.Wait()
			if len(w.times) != 2 || resumed != 1 {
				t.Errorf("%d watches were opened at %v, %d of them to resume; want a list, and a watch a second after its end", len(w.times), w.times, resumed)
			}
			cancel()
			wg.Wait()
		})
	}
}

// gate is a Before that the test opens and shuts.
type gate struct {
	before, after []error // of the first calls
	befores       int
	afters        int
	bracketed     bool
}

func (g *gate) pass(ctx context.Context) (context.Context, func() (bool, error), error) {
	g.befores++
	if n := g.befores; n <= len(g.before) && g.before[n-1] != nil {
		return nil, nil, g.before[n-1]
	}
	return ctx, func() (bool, error) {
		g.afters++
		if n := g.afters; n <= len(g.after) {
			return false, g.after[n-1]
		}
		return g.bracketed, nil
	}, nil
}

func TestNothingIsRequestedBeforeTheCheck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		lw, times := lister(&reports)
		g := &gate{before: []error{errDown, errDown}}
		lw.Before = g.pass
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(*times) != 1 || g.befores != 3 {
			t.Errorf("%d lists after %d checks, want one after three", len(*times), g.befores)
		}
		if got := reports.failures(); len(got) != 2 {
			t.Errorf("reported: %v", got)
		}
	})
}

func TestListThatFailsTheCheckIsMadeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		lw, times := lister(&reports)
		g := &gate{after: []error{errDown, errDown}}
		lw.Before = g.pass
		if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
			t.Fatal(err)
		}
		if len(*times) != 3 {
			t.Errorf("%d lists, want 3", len(*times))
		}
	})
}

func TestWatchThatFailsTheCheckIsOpenedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		w.Before = (&gate{after: []error{errDown, errDown}}).pass
		opened := w.open(t)
		synctest.Wait()
		if len(w.opened) != 3 || !w.opened[0].IsStopped() || !w.opened[1].IsStopped() || w.opened[2].IsStopped() {
			t.Fatalf("%d watches; the first two must be stopped and the third open", len(w.opened))
		}
		w.last().Add(service("default", "bar"))
		if event := <-opened.ResultChan(); event.Type != watch.Added {
			t.Errorf("got %v", event)
		}
		opened.Stop()
		events(opened)
	})
}

// A watch that failed the check does not stay open while the next one waits.
func TestWatchThatFailsTheCheckIsStoppedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		w.Before = (&gate{before: []error{nil, errDown, errDown, errDown}, after: []error{errDown}}).pass
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		time.AfterFunc(900*time.Millisecond, func() {
			if !w.opened[0].IsStopped() {
				t.Error("it is still open")
			}
		})
		if _, err := w.WatchWithContext(ctx, metav1.ListOptions{}); err == nil {
			t.Error("got a watch")
		}
	})
}

func TestWatchThatFailsTheCheckIsStoppedInTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		w.Before = (&gate{after: slices.Repeat([]error{errDown}, 100)}).pass
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, err := w.WatchWithContext(ctx, metav1.ListOptions{}); err != context.DeadlineExceeded {
			t.Errorf("got %v", err)
		}
		synctest.Wait()
		for i, inner := range w.opened {
			if !inner.IsStopped() {
				t.Errorf("watch %d of %d is left open", i+1, len(w.opened))
			}
		}
	})
}

// Until the answer is accepted, what a watch says is no knowledge: a load balancer may have sent it to another cluster.
// If it were, the next list would be lower, as after a restore from a backup.
func TestWatchThatFailsTheCheckChangesNothing(t *testing.T) {
	stream := true
	plain, streamed := metav1.ListOptions{ResourceVersion: "17"}, metav1.ListOptions{SendInitialEvents: &stream}
	for name, test := range map[string]struct {
		options   metav1.ListOptions
		kind      watch.EventType
		object    runtime.Object
		bracketed bool
	}{
		"an event":                       {plain, watch.Added, withPort("bar", 80, "900"), false},
		"a bookmark":                     {plain, watch.Bookmark, bookmark("900"), false},
		"a streamed list":                {streamed, watch.Bookmark, endOfList("900"), false},
		"a streamed list, bracketed":     {streamed, watch.Bookmark, endOfList("900"), true},
		"an event that is malformed":     {plain, watch.Added, &corev1.Service{}, false},
		"an error":                       {plain, watch.Error, &apierrors.NewInternalError(errDown).ErrStatus, false},
		"a streamed list, with an error": {streamed, watch.Error, &apierrors.NewInternalError(errDown).ErrStatus, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatching()
				seen, listed, checks := 0, 0, 0
				w.Seen = func() { seen++ }
				w.Listed = func(string, map[string]bool) { listed++ }
				w.bounds, w.trim = Limits{}.ofExports("paris"), func(obj runtime.Object) runtime.Object { return obj }
				w.synced("17", true)
				w.Before = func(ctx context.Context) (context.Context, func() (bool, error), error) {
					return ctx, func() (bool, error) {
						if checks++; checks > 1 {
							return false, nil
						}
						w.last().Action(test.kind, test.object)
						synctest.Wait()
						if test.bracketed {
							return true, nil
						}
						return false, errNotAccepted
					}, nil
				}
				switch opened, err := w.WatchWithContext(t.Context(), test.options); {
				case err == nil:
					opened.Stop()
					events(opened)
				case !test.bracketed:
					t.Fatal(err)
				}
				if !w.opened[0].IsStopped() {
					t.Error("the first watch is left open")
				}
				if objects, _ := w.known().count(); seen != 0 || listed != 0 || objects != 0 {
					t.Errorf("%d events are seen, %d lists and %d objects are known", seen, listed, objects)
				}
				listed = 0
				if _, err := w.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || listed != 1 {
					t.Errorf("%d lists are known after one: %v", listed, err)
				}
				if got := w.failures(); len(got) != 0 {
					t.Errorf("reported: %v", got)
				}
			})
		})
	}
}

// Nor does an answer that does not count say that the server was there: in the meantime it may have been restored.
func TestWatchThatFailsTheCheckDoesNotEndTheSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatching()
		w.Before = (&gate{after: slices.Repeat([]error{errNotAccepted}, 100)}).pass
		w.synced("17", true)
		time.Sleep(maxSilence - time.Second)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if _, err := w.WatchWithContext(ctx, metav1.ListOptions{ResourceVersion: "17"}); err != errExpired {
			t.Errorf("got %v, want a new list", err)
		}
	})
}

// An informer ends when its requests have: a Reflector waits neither for its list, which may be counted as it fails, nor
// for its watch.
func TestInformerEndsAfterItsRequests(t *testing.T) {
	for name, linger := range map[string]func(w *watching, until func()){
		"a list": func(w *watching, until func()) {
			w.ListFunc = func(ctx context.Context, _ metav1.ListOptions) (runtime.Object, error) {
				until()
				return nil, ctx.Err()
			}
		},
		"a watch": func(w *watching, until func()) {
			inner := w.WatchFunc
			w.WatchFunc = func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
				defer func() { w.last().Add(service("default", "bar")) }()
				return inner(ctx, options)
			}
			w.Seen = until
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				var begun, ended atomic.Bool
				w := newWatching()
				w.Client = noStreams{}
				linger(w, func() {
					begun.Store(true)
					<-ctx.Done()
					time.Sleep(time.Second)
					ended.Store(true)
				})
				informer := NewInformer(w.ListWatch, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
				time.AfterFunc(time.Minute, cancel)
				informer.RunWithContext(ctx)
				if !begun.Load() || !ended.Load() {
					t.Errorf("begun: %v; ended: %v", begun.Load(), ended.Load())
				}
				w.ListFunc = func(context.Context, metav1.ListOptions) (runtime.Object, error) {
					t.Error("it is listed after the end")
					return emptyList(), nil
				}
				if _, err := w.ListWithContext(ctx, metav1.ListOptions{}); err != context.Canceled {
					t.Errorf("a list after the end: %v", err)
				}
			})
		})
	}
}
