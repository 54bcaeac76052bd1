package failover

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// The EndpointSlices of the Services that fail over are watched, and those of no others: in each namespace by a label
// selector that lists the Services. A selector cannot be changed, so that a watch is replaced when a Service comes or
// goes; what is known by the old one counts until the new one knows all.

const (
	// maxNames bounds the Services of one watch: their names are in its URL, which some proxies cut off at 8 KB. Each has
	// up to 63 characters and a comma that is escaped.
	maxNames = 50
	// settleTime is how long changes of the Services are collected.
	settleTime = 100 * time.Millisecond
	byService  = "service"
)

type watches struct {
	options Options
	enqueue func(cache.ObjectName)
	dirty   chan struct{} // has a value when the Services may be others

	mu    sync.Mutex
	parts map[string][]*part // by namespace
}

// part is some Services of one namespace.
type part struct {
	namespace     string
	current, next *slicesWatch // that is filled, and that is to replace it; nil: there is none
}

// slicesWatch is one watch.
type slicesWatch struct {
	names    sets.Set[string]
	informer *remote.Informer[*discoveryv1.EndpointSlice]
	stop     context.CancelFunc
}

func newWatches(options Options, enqueue func(cache.ObjectName)) *watches {
	return &watches{options: options, enqueue: enqueue, dirty: make(chan struct{}, 1), parts: map[string][]*part{}}
}

// changed says that a Service may have come or gone.
func (w *watches) changed() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// of are the EndpointSlices of a Service, ours included, as far as the watch has seen them; known tells that it has
// seen all.
func (w *watches) of(key cache.ObjectName) (all []*discoveryv1.EndpointSlice, known bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.parts[key.Namespace] {
		if p.current != nil && p.current.names.Has(key.Name) {
			return p.current.informer.ByIndex(byService, key.Name), true
		}
	}
	return nil, false
}

// run keeps the watches until the context ends.
func (w *watches) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		for _, start := range w.arrange(ctx) {
			wg.Go(func() { w.follow(start) })
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settleTime):
		}
	}
}

// started is a watch that is to be followed.
type started struct {
	ctx  context.Context
	part *part
	next *slicesWatch
}

// arrange starts the watches that the Services of now take, and stops those of which none is left.
func (w *watches) arrange(ctx context.Context) (all []started) {
	wanted := map[string]sets.Set[string]{}
	for _, key := range w.options.Local.FailoverKeys("") {
		if wanted[key.Namespace] == nil {
			wanted[key.Namespace] = sets.New[string]()
		}
		wanted[key.Namespace].Insert(key.Name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, namespace := range slices.Sorted(maps.Keys(w.parts)) {
		if wanted[namespace] == nil {
			wanted[namespace] = sets.New[string]()
		}
	}
	for namespace, names := range wanted {
		w.parts[namespace] = slices.DeleteFunc(w.parts[namespace], func(p *part) bool {
			if p.names().Intersection(names).Len() > 0 {
				return false
			}
			p.end()
			return true
		})
		for p, of := range distribute(namespace, w.parts[namespace], names) {
			if !slices.Contains(w.parts[namespace], p) {
				w.parts[namespace] = append(w.parts[namespace], p)
			}
			all = append(all, w.replace(ctx, p, of))
		}
		if len(w.parts[namespace]) == 0 {
			delete(w.parts, namespace)
		}
	}
	return all
}

// distribute are the parts that are to have other Services, and which; some of them are new.
func distribute(namespace string, parts []*part, names sets.Set[string]) map[*part]sets.Set[string] {
	left := names.Clone()
	changed := map[*part]sets.Set[string]{}
	kept := map[*part]sets.Set[string]{}
	for _, p := range parts {
		kept[p] = p.names().Intersection(names)
		left = left.Difference(kept[p])
		if kept[p].Len() < p.names().Len() {
			changed[p] = kept[p]
		}
	}
	fill := func(p *part, of sets.Set[string]) {
		for _, name := range sets.List(left) {
			if of.Len() == maxNames {
				return
			}
			of.Insert(name)
			left.Delete(name)
			changed[p] = of
		}
	}
	for _, p := range parts {
		fill(p, kept[p])
	}
	for left.Len() > 0 {
		fill(&part{namespace: namespace}, sets.New[string]())
	}
	return changed
}

// names are the Services that a part has, or is about to have.
func (p *part) names() sets.Set[string] {
	switch {
	case p.next != nil:
		return p.next.names
	case p.current != nil:
		return p.current.names
	}
	return nil
}

func (p *part) end() {
	for _, one := range []*slicesWatch{p.current, p.next} {
		if one != nil {
			one.stop()
		}
	}
}

// replace begins to replace the watch of a part. w.mu is held.
func (w *watches) replace(ctx context.Context, p *part, names sets.Set[string]) started {
	if p.next != nil {
		p.next.stop()
	}
	ctx, stop := context.WithCancel(ctx)
	p.next = &slicesWatch{names: names, stop: stop, informer: w.inform(p.namespace, names)}
	return started{ctx, p, p.next}
}

// inform makes the informer of one watch.
func (w *watches) inform(namespace string, names sets.Set[string]) *remote.Informer[*discoveryv1.EndpointSlice] {
	selector := metav1.FormatLabelSelector(&metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: discoveryv1.LabelServiceName, Operator: metav1.LabelSelectorOpIn, Values: sets.List(names)},
	}})
	lw := remote.NewListWatch(w.options.Client.DiscoveryV1().EndpointSlices(namespace), func(options *metav1.ListOptions) { options.LabelSelector = selector })
	lw.Client, lw.Namespace = w.options.Client, namespace
	lw.Report = func(err error) { w.options.Report(partOf(namespace), err) }
	informer := remote.NewInformer(lw, &discoveryv1.EndpointSlice{}, plan.TrimBeside)
	service := func(slice *discoveryv1.EndpointSlice) string { return slice.Labels[discoveryv1.LabelServiceName] }
	informer.Index(byService, func(slice *discoveryv1.EndpointSlice) []string { return []string{service(slice)} })
	changed := func(slice *discoveryv1.EndpointSlice) {
		w.enqueue(cache.NewObjectName(namespace, service(slice)))
	}
	informer.Handle(remote.Handler[*discoveryv1.EndpointSlice]{
		Added:   changed,
		Updated: func(_, slice *discoveryv1.EndpointSlice) { changed(slice) },
		Deleted: func(_ cache.ObjectName, last *discoveryv1.EndpointSlice) {
			if last != nil {
				changed(last)
				return
			}
			for name := range names { // of which one it was is not known
				w.enqueue(cache.NewObjectName(namespace, name))
			}
		},
	})
	return informer
}

// partOf is the name under which problems of the watches in a namespace are reported.
func partOf(namespace string) string {
	return fmt.Sprintf("endpointslices in %s of Services that fail over", namespace)
}

// follow fills a watch, has it replace the one before, and keeps it until its context ends.
func (w *watches) follow(s started) {
	var wg sync.WaitGroup
	defer w.options.Report(partOf(s.part.namespace), nil) // another one of the namespace that still fails says so again
	defer wg.Wait()
	wg.Go(func() { s.next.informer.RunWithContext(s.ctx) })
	if !cache.WaitFor(s.ctx, "", s.next.informer.HasSyncedChecker()) {
		return
	}
	w.mu.Lock()
	replaced := s.part.next == s.next
	if replaced {
		if s.part.current != nil {
			s.part.current.stop()
		}
		s.part.current, s.part.next = s.next, nil
	}
	w.mu.Unlock()
	if replaced {
		for name := range s.next.names { // what the new one knows may be more
			w.enqueue(cache.NewObjectName(s.part.namespace, name))
		}
	}
}
