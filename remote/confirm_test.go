package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/pager"
)

// numbered are the keys of default/svc-FROM up to, but without, default/svc-TO.
func numbered(from, to int) (keys []string) {
	for n := from; n < to; n++ {
		keys = append(keys, fmt.Sprintf("default/svc-%d", n))
	}
	return keys
}

func names(keys []string) (names []cache.ObjectName) {
	for _, key := range keys {
		names = append(names, nameOf(key))
	}
	return names
}

// listOf is a list of Services with these keys.
func listOf(keys []string) *corev1.ServiceList {
	list := emptyList()
	for _, name := range names(keys) {
		list.Items = append(list.Items, *service(name.Namespace, name.Name))
	}
	return list
}

func keysOf(list runtime.Object) (keys []string) {
	for _, svc := range list.(*corev1.ServiceList).Items {
		keys = append(keys, svc.Namespace+"/"+svc.Name)
	}
	return keys
}

func TestCompare(t *testing.T) {
	for _, test := range []struct {
		name                     string
		mirrored, listed, before []string
		absent                   int
		believed                 bool
	}{
		{"nothing is mirrored", nil, nil, nil, 0, true},
		{"nothing is missing", numbered(0, 50), numbered(0, 50), nil, 0, true},
		{"what is not mirrored does not count", nil, numbered(0, 50), nil, 0, true},
		{"ten of ten", numbered(0, 10), nil, nil, 10, true},
		{"eleven of eleven", numbered(0, 11), nil, nil, 11, false},
		{"ten of eleven", numbered(0, 11), numbered(0, 1), nil, 10, true},
		{"half", numbered(0, 50), numbered(0, 25), nil, 25, true},
		{"half and one", numbered(0, 50), numbered(0, 24), nil, 26, false},
		{"eleven of 22", numbered(0, 22), numbered(0, 11), nil, 11, true},
		{"eleven of 21", numbered(0, 21), numbered(0, 10), nil, 11, false},
		{"all", numbered(0, 1000), nil, nil, 1000, false},
		{"others are listed", numbered(0, 50), numbered(50, 100), nil, 50, false},
		{"the same as before", numbered(0, 50), nil, numbered(0, 50), 50, true},
		{"less than before", numbered(0, 50), numbered(0, 10), numbered(0, 50), 40, true},
		{"nothing any more", numbered(0, 50), numbered(0, 50), numbered(0, 50), 0, true},
		{"ten more than before", numbered(0, 50), numbered(0, 4), numbered(14, 50), 46, true},
		{"eleven more than before, of 14", numbered(0, 50), numbered(0, 3), numbered(14, 50), 47, false},
		{"eleven more than before, of 22", numbered(0, 50), numbered(0, 11), numbered(22, 50), 39, true},
		{"others than before", numbered(0, 60), numbered(20, 40), numbered(20, 60), 40, false},
		{"what was missing and has no mirror any more", numbered(0, 20), nil, numbered(20, 60), 20, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			absent, believed := compare(setOf(test.mirrored), setOf(test.listed), setOf(test.before))
			if len(absent) != test.absent || believed != test.believed {
				t.Errorf("%d are absent, believed %v; want %d, %v", len(absent), believed, test.absent, test.believed)
			}
		})
	}
}

// confirming is a ListWatch over a sequence of answers, lists of keys or errors. What follows the last one is
// that again.
type confirming struct {
	*ListWatch
	reporting
	answers []any
	over    []string // which connection each list was requested over
	times   []time.Time
	opened  int // connections, and those that are closed
	closed  int
}

func newConfirming(mirrored []string, answers ...any) *confirming {
	c := &confirming{answers: answers}
	answer := func(connection string) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
		return func(context.Context, metav1.ListOptions) (runtime.Object, error) {
			next := c.answers[min(len(c.over), len(c.answers)-1)]
			c.over, c.times = append(c.over, connection), append(c.times, time.Now())
			if err, failed := next.(error); failed {
				return nil, err
			}
			return listOf(next.([]string)), nil
		}
	}
	c.ListWatch = &ListWatch{Report: c.report, ListFunc: answer("first"), confirm: &confirmation{
		mirrored: func(context.Context) ([]cache.ObjectName, error) { return names(mirrored), nil },
		again: func() (reader, func(), error) {
			c.opened++
			return reader{list: answer(fmt.Sprint("another ", c.opened))}, func() { c.closed++ }, nil
		},
	}}
	return c
}

// A list that lacks many mirrors is believed only if another one, ten seconds later and over another
// connection, lacks them too.
func TestListsAreConfirmed(t *testing.T) {
	all, half := numbered(0, 50), numbered(0, 20)
	for name, test := range map[string]struct {
		mirrored []string
		answers  []any
		want     []string
		took     time.Duration
		over     []string
		reports  []string
	}{
		"all is there":       {all, []any{all}, all, 0, []string{"first"}, nil},
		"few have mirrors":   {numbered(0, 10), []any{numbered(0, 0)}, nil, 0, []string{"first"}, nil},
		"none have mirrors":  {nil, []any{all}, all, 0, []string{"first"}, nil},
		"an empty list once": {all, []any{numbered(0, 0), all}, all, 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 50 of 50 mirrors: the exports are listed again in 10s"}},
		"half a list once":   {all, []any{half, all}, all, 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 30 of 50 mirrors"}},
		"nothing is left":    {all, []any{numbered(0, 0)}, nil, 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 50 of 50 mirrors"}},
		"half is left":       {all, []any{half}, half, 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 30 of 50 mirrors"}},
		"a few come back":    {all, []any{half, numbered(0, 22)}, numbered(0, 22), 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 30 of 50 mirrors"}},
		"a few more go":      {all, []any{half, numbered(0, 15)}, numbered(0, 15), 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 30 of 50 mirrors"}},
		"each lacks another part": {all, []any{half, numbered(30, 50), half, all}, all, 30 * time.Second, []string{"first", "another 1", "another 2", "another 3"},
			[]string{"lacks 30 of 50 mirrors", "lacks 30 of 50 mirrors", "lacks 30 of 50 mirrors"}},
		"what is not mirrored comes along": {all, []any{numbered(45, 60), numbered(40, 70)}, numbered(40, 70), 10 * time.Second, []string{"first", "another 1"}, []string{"lacks 45 of 50 mirrors"}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConfirming(test.mirrored, test.answers...)
				start := time.Now()
				list, err := c.ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "0"})
				if err != nil {
					t.Fatal(err)
				}
				if got := keysOf(list); !slices.Equal(got, test.want) {
					t.Errorf("listed %v, want %v", got, test.want)
				}
				if took := time.Since(start); took != test.took || !slices.Equal(c.over, test.over) || c.opened != c.closed {
					t.Errorf("it took %v over %q, %d of %d connections closed; want %v over %q", took, c.over, c.closed, c.opened, test.took, test.over)
				}
				if last := c.errs[len(c.errs)-1]; last != nil {
					t.Errorf("it is not over: %v", last)
				}
				reports := c.failures()
				if len(reports) != len(test.reports) {
					t.Fatalf("reported %v, want %q", reports, test.reports)
				}
				for i, report := range reports {
					if !strings.Contains(report.Error(), test.reports[i]) {
						t.Errorf("reported %v, want %q", report, test.reports[i])
					}
				}
			})
		})
	}
}

// A second list that fails is requested again, over a new connection each time.
func TestSecondListIsTriedUntilItSucceeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refused := apierrors.NewForbidden(services, "", errDown)
		c := newConfirming(numbered(0, 50), numbered(0, 0), errDown, refused, apierrors.NewResourceExpired("too old"), numbered(0, 50))
		list, err := c.ListWithContext(t.Context(), metav1.ListOptions{})
		if err != nil || len(keysOf(list)) != 50 {
			t.Fatalf("got %v, %v", list, err)
		}
		if want := []string{"first", "another 1", "another 2", "another 3", "another 4"}; !slices.Equal(c.over, want) || c.closed != 4 {
			t.Errorf("it is listed over %q, %d closed; want %q", c.over, c.closed, want)
		}
		if reports := c.failures(); len(reports) != 4 || reports[1] != errDown || reports[2] != refused {
			t.Errorf("reported: %v", reports)
		}
	})
}

// A connection that cannot be made is no second list.
func TestSecondListWaitsForItsConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfirming(numbered(0, 50), numbered(0, 0))
		again, tries := c.confirm.again, 0
		c.confirm.again = func() (reader, func(), error) {
			if tries++; tries < 3 {
				return reader{}, nil, errDown
			}
			return again()
		}
		if list, err := c.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || len(keysOf(list)) != 0 || tries != 3 {
			t.Errorf("got %v, %v after %d tries", list, err, tries)
		}
	})
}

func TestConfirmationEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfirming(numbered(0, 50), numbered(0, 0))
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		start := time.Now()
		if _, err := c.ListWithContext(ctx, metav1.ListOptions{}); err != context.DeadlineExceeded || time.Since(start) != 5*time.Second {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		waiting := newConfirming(nil, numbered(0, 50))
		waiting.confirm.mirrored = func(ctx context.Context) ([]cache.ObjectName, error) {
			<-ctx.Done() // the local caches are not filled
			return nil, ctx.Err()
		}
		ctx, cancel = context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		if list, err := waiting.ListWithContext(ctx, metav1.ListOptions{}); err != context.DeadlineExceeded {
			t.Errorf("got %v, %v before the mirrors are known", list, err)
		}
	})
}

// A namespace's list is compared with the mirrors of that namespace.
func TestOtherNamespacesAreNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		elsewhere := numbered(0, 50)
		for i := range elsewhere {
			elsewhere[i] = "team" + strings.TrimPrefix(elsewhere[i], "default")
		}
		c := newConfirming(append(elsewhere, numbered(0, 20)...), numbered(0, 20))
		c.Namespace = "default"
		start := time.Now()
		if _, err := c.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		c = newConfirming(append(elsewhere, numbered(0, 20)...), numbered(0, 9))
		c.Namespace = "default"
		if _, err := c.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || time.Since(start) != confirmDelay {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// Mirrors that are being deleted already make no list suspicious.
func TestWhatTheCacheLacksIsNotMissing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newConfirming(numbered(0, 50), numbered(0, 5))
		c.cache = keysAlone(numbered(0, 8))
		start := time.Now()
		if _, err := c.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || time.Since(start) != 0 {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
		c = newConfirming(numbered(0, 50), numbered(0, 5))
		c.cache = keysAlone(numbered(0, 30))
		if _, err := c.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil || time.Since(start) != confirmDelay {
			t.Errorf("got %v after %v", err, time.Since(start))
		}
	})
}

// Pages are judged together: the last one that shows too much missing has them listed in one piece.
func TestPagesAreConfirmedInOnePiece(t *testing.T) {
	for name, test := range map[string]struct {
		pages, whole []string // of ten each, as far as that goes; and without pages
		want         []string
		took         time.Duration
		requests     int
	}{
		"all is there":                {numbered(0, 50), numbered(0, 50), numbered(0, 50), 0, 5},
		"the pages alone are lacking": {numbered(0, 20), numbered(0, 50), numbered(0, 50), 0, 3},
		"nothing else is left":        {numbered(0, 20), numbered(0, 20), numbered(0, 20), confirmDelay, 4},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newConfirming(numbered(0, 50))
				requests := 0
				c.ListFunc = func(_ context.Context, options metav1.ListOptions) (runtime.Object, error) {
					requests++
					if options.Limit == 0 {
						return listOf(test.whole), nil
					}
					first := 0
					if options.Continue != "" {
						fmt.Sscan(options.Continue, &first)
					}
					list := listOf(test.pages[first : first+10])
					if first+10 < len(test.pages) {
						list.Continue = fmt.Sprint(first + 10)
					}
					return list, nil
				}
				c.confirm.again = func() (reader, func(), error) { return reader{list: c.ListFunc}, func() {}, nil }
				pages := pager.New(pager.SimplePageFunc(func(options metav1.ListOptions) (runtime.Object, error) {
					return c.ListWithContext(t.Context(), options)
				}))
				pages.PageSize = 10
				start := time.Now()
				list, _, err := pages.List(t.Context(), metav1.ListOptions{})
				if err != nil {
					t.Fatal(err)
				}
				var got []string
				must(meta.EachListItem(list, func(obj runtime.Object) error {
					svc := obj.(*corev1.Service)
					got = append(got, svc.Namespace+"/"+svc.Name)
					return nil
				}))
				if took := time.Since(start); took != test.took || !slices.Equal(got, test.want) || requests != test.requests {
					t.Errorf("%v after %v and %d requests; want %v after %v and %d", got, took, requests, test.want, test.took, test.requests)
				}
			})
		})
	}
}

// A streamed list that lacks many mirrors is not passed on: a plain one is made.
func TestStreamsAreConfirmedByLists(t *testing.T) {
	for name, test := range map[string]struct {
		streamed []string
		want     []watch.EventType
		reports  string
	}{
		"all is there":     {numbered(0, 12), append(slices.Repeat([]watch.EventType{watch.Added}, 12), watch.Bookmark), ""},
		"one is missing":   {numbered(0, 11), append(slices.Repeat([]watch.EventType{watch.Added}, 11), watch.Bookmark), ""},
		"none is there":    {nil, []watch.EventType{watch.Error}, "the list lacks 12 of 12 mirrors: listing again without streaming"},
		"others than ours": {numbered(20, 22), []watch.EventType{watch.Added, watch.Added, watch.Error}, "lacks 12 of 12 mirrors"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWatching()
				w.confirm = &confirmation{mirrored: func(context.Context) ([]cache.ObjectName, error) { return names(numbered(0, 12)), nil }}
				stream := true
				opened, err := w.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &stream})
				if err != nil {
					t.Fatal(err)
				}
				for _, name := range names(test.streamed) {
					w.last().Add(service(name.Namespace, name.Name))
				}
				w.last().Action(watch.Bookmark, endOfList("17"))
				var got []watch.EventType
				for range test.want {
					event := <-opened.ResultChan()
					got = append(got, event.Type)
					if event.Type == watch.Error && !apierrors.IsMethodNotSupported(apierrors.FromObject(event.Object)) {
						t.Errorf("it ends with %v, which makes no plain list", event.Object)
					}
				}
				if !slices.Equal(got, test.want) {
					t.Errorf("got %v, want %v", got, test.want)
				}
				reports := w.failures()
				if test.reports == "" && len(reports) > 0 || test.reports != "" && (len(reports) != 1 || !strings.Contains(reports[0].Error(), test.reports)) {
					t.Errorf("reported %v, want %q", reports, test.reports)
				}
				opened.Stop()
			})
		})
	}
}

// shrinking is a live server whose lists lack what it exports, until they are whole. How many lists
// are requested is not certain: over HTTP/1.1 requests race for connections, and an answer from one
// whose cluster is not identified yet does not count.
type shrinking struct {
	*liveServer
	mu    sync.Mutex
	whole bool
	lists []string // the addresses that lists were requested from
	uids  []string // the same of the UID
}

func newShrinking(t *testing.T, http2 bool, uid func(address string, first bool) types.UID) *shrinking {
	s := &shrinking{liveServer: newHTTP1Server("paris-uid")}
	s.EnableHTTP2 = http2
	s.list = func(w http.ResponseWriter, req *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.lists = append(s.lists, req.RemoteAddr)
		if !s.whole {
			w.Write(encode(emptyList()))
			return
		}
		w.Write(encode(listOf(numbered(0, 50))))
	}
	instead := func(w http.ResponseWriter, req *http.Request) bool {
		if !strings.HasSuffix(req.URL.Path, "/kube-system") {
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		s.uids = append(s.uids, req.RemoteAddr)
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		w.Write(encode(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: uid(req.RemoteAddr, slices.Contains(s.lists, req.RemoteAddr) || len(s.lists) == 0)}}))
		return true
	}
	s.instead.Store(&instead)
	s.start(t)
	return s
}

// followMirrored is follow where 50 Services have mirrors.
func followMirrored(t *testing.T, s *shrinking) *follower {
	accept := func(uid types.UID) error {
		if uid != "paris-uid" {
			return errors.New("not the one")
		}
		return nil
	}
	t.Helper()
	spec := through()
	spec.Name = "paris"
	return followAs(t, s.liveServer, spec, accept, func(hooks *Hooks) {
		hooks.Mirrored = func(_ context.Context, cluster string) ([]cache.ObjectName, error) {
			if cluster != "paris" {
				return nil, errors.New("another remote")
			}
			return names(numbered(0, 50)), nil
		}
	})
}

func parisUID(string, bool) types.UID { return "paris-uid" }

// The second list goes over another connection, whose cluster is identified as any other's; the watches of the first
// one stay open.
func TestSecondListHasItsOwnConnection(t *testing.T) {
	for _, http2 := range []bool{true, false} {
		t.Run(fmt.Sprintf("HTTP/2 %v", http2), func(t *testing.T) {
			t.Parallel()
			s := newShrinking(t, http2, parisUID)
			f := followMirrored(t, s)
			eventually(t, func() string {
				if problems := f.Status().Problems; len(problems) != 1 || !strings.Contains(problems[0].Cause, "lacks 50 of 50 mirrors: the exports are listed again in 10s") {
					return fmt.Sprintf("the problems are %v", problems)
				}
				return ""
			})
			if _, ok := f.View(); ok {
				t.Error("it is known before its list is confirmed")
			}
			s.mu.Lock()
			s.whole = true
			first := slices.Clone(s.lists)
			s.mu.Unlock()
			eventually(t, known(f))
			eventually(t, func() string {
				if status := f.Status(); status.State != Up || status.Exported != 50 || len(status.Problems) > 0 {
					return fmt.Sprintf("it is %+v", status)
				}
				return ""
			})
			s.mu.Lock()
			defer s.mu.Unlock()
			if again := s.lists[len(first):]; len(again) != 1 || slices.Contains(first, again[0]) || !slices.Contains(s.uids, again[0]) {
				t.Errorf("lists came from %q and %q, reads of the UID from %q; want one more list from another address, where the UID was read", first, again, s.uids)
			}
		})
	}
}

// What is really gone is deleted after ten seconds.
func TestSecondListConfirmsTheFirst(t *testing.T) {
	t.Parallel()
	s := newShrinking(t, true, parisUID)
	start := time.Now()
	f := followMirrored(t, s)
	eventually(t, known(f))
	if took := time.Since(start); took < confirmDelay || f.Status().Exported != 0 {
		t.Errorf("it is known after %v, with %d exports", took, f.Status().Exported)
	}
}

// Another cluster that answers on the new connection confirms nothing.
func TestSecondListOfAnotherCluster(t *testing.T) {
	t.Parallel()
	s := newShrinking(t, true, func(_ string, first bool) types.UID {
		if first {
			return "paris-uid"
		}
		return "berlin-uid"
	})
	f := followMirrored(t, s)
	eventually(t, func() string {
		for _, problem := range f.Status().Problems {
			if problem.Kind() == IdentityProblem {
				return ""
			}
		}
		return fmt.Sprintf("the problems are %v", f.Status().Problems)
	})
	if _, ok := f.View(); ok {
		t.Error("the list of another cluster counts")
	}
}
