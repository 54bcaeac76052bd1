package remote

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
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

	"service-mirror.io/service-mirror/gateway"
)

// paged answers lists with what page makes, and watches with those that it keeps.
type paged struct {
	page     func(request int, options metav1.ListOptions) (*corev1.ServiceList, error)
	requests []metav1.ListOptions
	at       []time.Time
	watches  []*watch.FakeWatcher
}

func (p *paged) List(ctx context.Context, options metav1.ListOptions) (*corev1.ServiceList, error) {
	p.requests, p.at = append(p.requests, options), append(p.at, time.Now())
	list, err := p.page(len(p.requests), options)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return list, err
}

func (p *paged) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	w := watch.NewFake()
	p.watches = append(p.watches, w)
	return w, nil
}

// limited is a ListWatch of paged within limits; its informer does not run.
func (p *paged) limited(reports *reporting, bounds *allowance) *ListWatch {
	lw := NewListWatch(p, func(*metav1.ListOptions) {})
	lw.Report, lw.bounds = reports.report, bounds
	NewInformer(lw, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, ResourceVersion: svc.ResourceVersion}}
	})
	return lw
}

func page(next string, names ...string) *corev1.ServiceList {
	list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "17", Continue: next}}
	for _, name := range names {
		list.Items = append(list.Items, *service("default", name))
	}
	return list
}

// A list is requested page by page, is answered whole, and keeps of each object only what the cache does.
func TestListInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		p := &paged{page: func(request int, _ metav1.ListOptions) (*corev1.ServiceList, error) {
			return []*corev1.ServiceList{page("2", "a", "b"), page("3"), page("", "c")}[request-1], nil
		}}
		list, err := p.limited(&reports, Limits{Services: 3}.ofExports("paris")).ListWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "5", Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		listMeta, _ := meta.ListAccessor(list)
		if listMeta.GetResourceVersion() != "17" || listMeta.GetContinue() != "" || meta.LenList(list) != 3 {
			t.Errorf("got %v", list)
		}
		must(meta.EachListItem(list, func(obj runtime.Object) error {
			if svc := obj.(*corev1.Service); svc.Labels != nil || svc.UID == "" {
				t.Errorf("kept of it is %v", svc)
			}
			return nil
		}))
		var continued []string
		for _, request := range p.requests {
			continued = append(continued, fmt.Sprint(request.Limit, " ", request.Continue, request.ResourceVersion))
		}
		if want := []string{"500 ", "500 2", "500 3"}; !slices.Equal(continued, want) {
			t.Errorf("requested were %q, want %q", continued, want)
		}
		if pause := p.at[2].Sub(p.at[1]); pause < pagePause {
			t.Errorf("the page after an empty one came after %v", pause)
		}
	})
}

// Where the rest of the pages is gone, the list is requested in one piece.
func TestPagesThatExpire(t *testing.T) {
	var reports reporting
	p := &paged{page: func(request int, _ metav1.ListOptions) (*corev1.ServiceList, error) {
		switch request {
		case 1:
			return page("2", "a"), nil
		case 2:
			return nil, apierrors.NewResourceExpired("too old")
		}
		return page("", "b"), nil
	}}
	list, err := p.limited(&reports, Limits{}.ofExports("paris")).ListWithContext(t.Context(), metav1.ListOptions{})
	if err != nil || meta.LenList(list) != 1 || p.requests[2].Limit != 0 || p.requests[2].Continue != "" {
		t.Errorf("got %v, %v after %v", list, err, p.requests)
	}
}

// A server that sends pages of what was requested in one piece, and has them expire, costs a few requests for each try.
func TestPagesThatAlwaysExpire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		p := &paged{page: func(request int, options metav1.ListOptions) (*corev1.ServiceList, error) {
			if request == 1000 {
				cancel()
			}
			if options.Continue != "" {
				return nil, apierrors.NewResourceExpired("too old")
			}
			return page("2", "a"), nil
		}}
		p.limited(&reports, Limits{}.ofExports("paris")).ListWithContext(ctx, metav1.ListOptions{})
		if n := len(p.requests); n < 4*10 || n > 4*60 {
			t.Errorf("%d requests in a minute", n)
		}
		if failures := reports.failures(); len(failures) == 0 || !apierrors.IsResourceExpired(failures[0]) {
			t.Errorf("reported are %v", failures)
		}
	})
}

// What is too large is tried again after five seconds, and then less and less often, up to every five
// minutes; when it is not any more, it is followed at once.
func TestTooLargeListsArePaced(t *testing.T) {
	full := func(request, items int) []string {
		var names []string
		for n := range items {
			names = append(names, fmt.Sprintf("svc-%d-%d", request, n))
		}
		return names
	}
	for name, test := range map[string]struct {
		items    int
		requests int // for each try
		want     string
	}{
		"empty pages": {0, 14, "a list of exported Services has more than 14 pages: raise max-services= of --remote paris"},
		"full pages":  {500, 3, "the set of exported Services has more than 1000 Services: raise max-services= of --remote paris"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports reporting
				var healthy atomic.Bool
				p := &paged{page: func(request int, _ metav1.ListOptions) (*corev1.ServiceList, error) {
					if healthy.Load() {
						return page("", "a"), nil
					}
					return page("again", full(request, test.items)...), nil
				}}
				lw := p.limited(&reports, Limits{Services: 1000}.ofExports("paris"))
				done := make(chan error)
				go func() { _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); done <- err }()
				time.Sleep(time.Hour)
				healthy.Store(true)
				if err := <-done; err != nil {
					t.Fatal(err)
				}
				for _, err := range reports.failures() {
					if !IsTooLarge(err) || !strings.Contains(err.Error(), test.want) {
						t.Fatalf("reported is %v", err)
					}
				}
				var delays []time.Duration
				for n := test.requests; n < len(p.at); n += test.requests {
					delays = append(delays, p.at[n].Sub(p.at[n-1]).Round(time.Second))
				}
				if len(delays) < 12 || len(delays) > 20 || delays[0] < 5*time.Second || delays[0] > 7*time.Second || slices.Max(delays) > 6*time.Minute || slices.Max(delays) < 5*time.Minute {
					t.Errorf("%d requests, tries after %v", len(p.at), delays)
				}
			})
		})
	}
}

// An endless list of slow pages ends, too.
func TestListHasATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		p := &paged{}
		lw := p.limited(&reports, Limits{}.ofExports("paris"))
		p.page = func(request int, _ metav1.ListOptions) (*corev1.ServiceList, error) {
			time.Sleep(23 * time.Second)
			return page("again", fmt.Sprint("svc-", request)), nil
		}
		ctx, cancel := context.WithTimeout(t.Context(), listTimeout+25*time.Second)
		defer cancel()
		lw.ListWithContext(ctx, metav1.ListOptions{})
		if failures := reports.failures(); len(failures) != 1 || !IsTooLarge(failures[0]) || !strings.Contains(failures[0].Error(), "a list of exported Services is not complete after 5m0s") {
			t.Errorf("reported are %v", failures)
		}
	})
}

// within opens a watch of a ListWatch that knows a and b.
func within(t *testing.T, reports *reporting, bounds *allowance) (*paged, *ListWatch, watch.Interface) {
	t.Helper()
	p := &paged{page: func(int, metav1.ListOptions) (*corev1.ServiceList, error) { return page("", "a", "b"), nil }}
	lw := p.limited(reports, bounds)
	if _, err := lw.ListWithContext(t.Context(), metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	w, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{ResourceVersion: "17"})
	if err != nil {
		t.Fatal(err)
	}
	return p, lw, w
}

func received(w watch.Interface) (names []string) {
	for event := range w.ResultChan() {
		name := string(event.Type)
		if obj, err := meta.Accessor(event.Object); err == nil {
			name += " " + obj.GetName()
		}
		names = append(names, name)
	}
	return names
}

// What a watch adds is bounded: it ends where there would be too much, and all is listed again later.
func TestWatchThatAddsTooMuch(t *testing.T) {
	large := service("default", strings.Repeat("d", 200))
	large.UID = types.UID(strings.Repeat("1", 3<<20))
	for name, test := range map[string]struct {
		limits Limits
		last   *corev1.Service
		want   string
	}{
		"Services": {Limits{Services: 3}, service("default", "d"), "the set of exported Services has more than 3 Services: raise max-services="},
		"bytes":    {Limits{Bytes: 1 << 20}, large, "the set of exported Services takes more than 1Mi of memory: raise max-bytes="},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var reports reporting
				p, lw, w := within(t, &reports, test.limits.ofExports("paris"))
				fake := p.watches[0]
				go func() {
					fake.Add(service("default", "c"))
					fake.Modify(service("default", "c"))
					fake.Delete(service("default", "a"))
					fake.Add(service("default", "a"))
					fake.Add(test.last)
					fake.Stop()
				}()
				if got, want := received(w), []string{"ADDED c", "MODIFIED c", "DELETED a", "ADDED a"}; !slices.Equal(got, want) {
					t.Errorf("passed on is %q, want %q", got, want)
				}
				failures := reports.failures()
				if len(failures) != 1 || !IsTooLarge(failures[0]) || !strings.Contains(failures[0].Error(), test.want) {
					t.Errorf("reported is %v", failures)
				}
				if begin := time.Now(); !lw.pacing.wait(t.Context()) || time.Since(begin) < 3*time.Second || !lw.history.mustRelist() {
					t.Errorf("the next try comes after %v, with a list: %v", time.Since(begin), lw.history.mustRelist())
				}
			})
		})
	}
}

// What annotations put into indexes is counted at what it takes there, beyond what a usual Service has.
func TestSizeInIndexes(t *testing.T) {
	of := func(claims, choices int) int {
		svc := service("default", "a")
		svc.Annotations = map[string]string{}
		for i := range claims {
			svc.Annotations[gateway.PortsAnnotation] += fmt.Sprintf("%d=%d,", i+1, i+15000)
		}
		for i := range choices {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: int32(i + 1)})
			svc.Annotations[gateway.PortAnnotation] += fmt.Sprintf("%d=p%d,", i+1, i)
		}
		return int(sizeOf(svc)) - svc.Size() - portMemory*max(0, choices-usualPorts)
	}
	for _, few := range [][2]int{{0, 0}, {4, 0}, {0, 4}, {2, 2}} {
		if got := of(few[0], few[1]); got != 0 {
			t.Errorf("%v: %d bytes are added", few, got)
		}
	}
	for _, many := range [][2]int{{256, 0}, {0, 256}, {128, 128}} {
		if got := of(many[0], many[1]); got < 252*indexEntry || got > 252*(indexEntry+20) {
			t.Errorf("%v: %d bytes are added", many, got)
		}
	}
}

// Ports are counted at what they take decoded, beyond those that a usual Service has.
func TestSizeOfPorts(t *testing.T) {
	for ports, want := range map[int]int{1: 0, usualPorts: 0, usualPorts + 1: portMemory, 1000: 984 * portMemory} {
		svc := service("default", "a")
		svc.Spec.Ports = make([]corev1.ServicePort, ports)
		if got := int(sizeOf(svc)) - svc.Size(); got != want {
			t.Errorf("of %d ports %d bytes are added, want %d", ports, got, want)
		}
	}
}

// A streamed list is bounded while it comes, and changes nothing if it is too large.
func TestStreamThatAddsTooMuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		p, lw, first := within(t, &reports, Limits{Services: 3}.ofExports("paris"))
		first.Stop()
		yes := true
		w, err := lw.WatchWithContext(t.Context(), metav1.ListOptions{SendInitialEvents: &yes})
		if err != nil {
			t.Fatal(err)
		}
		fake := p.watches[1]
		go func() {
			for _, name := range []string{"e", "f", "g", "h"} {
				fake.Add(service("default", name))
			}
			fake.Stop()
		}()
		if got, want := received(w), []string{"ADDED e", "ADDED f", "ADDED g", "ERROR"}; !slices.Equal(got, want) {
			t.Errorf("passed on is %q, want %q", got, want)
		}
		if failures := reports.failures(); len(failures) != 1 || !IsTooLarge(failures[0]) {
			t.Errorf("reported is %v", failures)
		}
		if objects, _ := lw.known().count(); objects != 2 {
			t.Errorf("%d objects are known, want 2", objects)
		}
	})
}

// The namespaces of a remote share its limits.
func TestLimitsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var reports reporting
		bounds := Limits{Services: 5}.ofExports("paris")
		_, _, other := within(t, &reports, bounds)
		defer other.Stop()
		p, _, w := within(t, &reports, bounds)
		go func() {
			p.watches[0].Add(service("other", "c"))
			p.watches[0].Add(service("other", "d"))
			p.watches[0].Stop()
		}()
		if got, want := received(w), []string{"ADDED c"}; !slices.Equal(got, want) {
			t.Errorf("passed on is %q, want %q", got, want)
		}
	})
}

// A remote that sends too much keeps what is known of it, and has a reason of its own.
func TestRemoteThatSendsTooMuch(t *testing.T) {
	server := newLiveServer(t, "paris-uid")
	spec := through()
	spec.Name, spec.Limits.Services = "paris", 3
	f := followAs(t, server, spec, func(types.UID) error { return nil })
	eventually(t, known(f))
	eventually(t, server.watched)
	server.list = func(w http.ResponseWriter, _ *http.Request) {
		w.Write(encode(page("", "a", "b", "c", "d")))
	}
	server.CloseClientConnections()
	eventually(t, func() string {
		for _, problem := range f.Status().Problems {
			if problem.Reason() == RemoteTooLarge && problem.Kind() == ExportsProblem && strings.Contains(problem.Cause, "3 Services: raise max-services= of --remote paris") {
				return ""
			}
		}
		return fmt.Sprintf("problems are %+v", f.Status().Problems)
	})
	if got := f.exported(); !slices.Equal(got, []string{"default/bar"}) || len(f.deletions()) > 0 {
		t.Errorf("known is %q, deleted %q", got, f.deletions())
	}
}

// A remote of 50,000 Services is followed with the default limit of bytes, however it lists them.
func TestLargeRemote(t *testing.T) {
	const services = 50_000
	some := func(from, to int) *corev1.ServiceList {
		list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}
		for n := from; n < to; n++ {
			list.Items = append(list.Items, usual(n))
		}
		return list
	}
	for name, stream := range map[string]bool{"in pages": false, "streamed": true} {
		t.Run(name, func(t *testing.T) {
			server := newLiveServer(t, "paris-uid")
			if !stream {
				server.list = func(w http.ResponseWriter, req *http.Request) {
					from, limit := 0, services
					fmt.Sscan(req.URL.Query().Get("continue"), &from)
					fmt.Sscan(req.URL.Query().Get("limit"), &limit)
					list := some(from, min(from+limit, services))
					if from+limit < services {
						list.Continue = fmt.Sprint(from + limit)
					}
					w.Write(encode(list))
				}
			} else {
				server.initial = func(send func(watch.EventType, runtime.Object) error) {
					for n := range services {
						svc := usual(n)
						send(watch.Added, &svc)
					}
				}
			}
			spec := through()
			spec.Name, spec.Limits.Services = "paris", services
			stop := peak()
			f := followAs(t, server, spec, func(types.UID) error { return nil })
			eventually(t, known(f))
			if got := f.Status().Exported; got < services {
				t.Errorf("%d Services are known; problems %v", got, f.Status().Problems)
			}
			if highest := stop(); highest > 256<<20 { // of the server, too
				t.Errorf("it takes %d MB", highest>>20)
			} else {
				t.Logf("at most %d MB", highest>>20)
			}
		})
	}
}
