package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
)

// history is all that has existed in London since the last rest: what lasts for a moment only, no look at it would find.
type history struct {
	kinds  []*kindHistory
	state  map[string]metav1.Object // after the last change that was judged
	judged uint64                   // its revision
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// kindHistory is that of one kind of objects in one namespace.
type kindHistory struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
	began map[string]string // the versions of the objects that existed when it begins, by name

	mu      sync.Mutex
	changes []change
	err     error // it ends before its time
}

// change is an object as it is from a revision on. All kinds are in one etcd, so that these count the changes of all.
type change struct {
	revision uint64
	object   metav1.Object
	gone     bool
}

// remember begins a history.
func (w *walk) remember() error {
	w.forget()
	ctx, cancel := context.WithCancel(w.ctx)
	h := &history{cancel: cancel, state: map[string]metav1.Object{}}
	for _, short := range w.namespaces {
		services, endpoints, made := london.CoreV1().Services(w.long(short)), london.CoreV1().Endpoints(w.long(short)), london.DiscoveryV1().EndpointSlices(w.long(short))
		h.kinds = append(h.kinds,
			&kindHistory{list: listed(services.List), watch: services.Watch},
			&kindHistory{list: listed(endpoints.List), watch: endpoints.Watch},
			&kindHistory{list: listed(made.List), watch: made.Watch})
	}
	w.history = h
	for _, k := range h.kinds {
		all, revision, err := k.now(ctx)
		if err != nil {
			return err
		}
		watching, err := k.watch(ctx, metav1.ListOptions{ResourceVersion: fmt.Sprint(revision)})
		if err != nil {
			return err
		}
		k.began = versionsOf(all)
		for _, object := range all {
			h.state[keyOf(object)] = object
		}
		h.all.Go(func() { k.follow(ctx, watching) })
	}
	return nil
}

func listed[T runtime.Object](list func(context.Context, metav1.ListOptions) (T, error)) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		return list(ctx, options)
	}
}

// forget ends the history, if there is one.
func (w *walk) forget() {
	if w.history != nil {
		w.history.cancel()
		w.history.all.Wait()
		w.history = nil
	}
}

// now lists what exists, at a revision.
func (k *kindHistory) now(ctx context.Context) (all []metav1.Object, revision uint64, err error) {
	list, err := k.list(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, 0, err
	}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		all = append(all, item.(metav1.Object))
		return nil
	})
	if err != nil {
		return nil, 0, err
	}
	revision, err = strconv.ParseUint(list.(metav1.ListInterface).GetResourceVersion(), 10, 64)
	return all, revision, err
}

func keyOf(object metav1.Object) string {
	return fmt.Sprintf("%T %s/%s", object, object.GetNamespace(), object.GetName())
}

func versionsOf(all []metav1.Object) map[string]string {
	versions := map[string]string{}
	for _, object := range all {
		versions[object.GetName()] = object.GetResourceVersion()
	}
	return versions
}

func (k *kindHistory) follow(ctx context.Context, watching watch.Interface) {
	defer watching.Stop()
	for event := range watching.ResultChan() {
		if err := k.add(event); err != nil {
			k.end(err)
			return
		}
	}
	if ctx.Err() == nil {
		k.end(errors.New("its watch has ended"))
	}
}

func (k *kindHistory) add(event watch.Event) error {
	object, isObject := event.Object.(metav1.Object)
	if event.Type == watch.Error || !isObject {
		return fmt.Errorf("its watch says %v", event.Object)
	}
	revision, err := strconv.ParseUint(object.GetResourceVersion(), 10, 64)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.changes = append(k.changes, change{revision, object, event.Type == watch.Deleted})
	return nil
}

func (k *kindHistory) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// complete waits until no change up to now is missing, and gives the revision of now.
func (w *walk) complete(k *kindHistory) (uint64, error) {
	all, revision, err := k.now(w.ctx)
	if err != nil {
		return 0, err
	}
	want := versionsOf(all)
	return revision, w.until(func() error {
		k.mu.Lock()
		defer k.mu.Unlock()
		if k.err != nil {
			return fmt.Errorf("the history is not complete: %w", k.err)
		}
		if got := k.versionsAt(revision); !maps.Equal(got, want) {
			return fmt.Errorf("the history has the objects %v, want %v", got, want)
		}
		return nil
	})
}

// versionsAt are those of the objects that existed at a revision.
func (k *kindHistory) versionsAt(revision uint64) map[string]string {
	versions := maps.Clone(k.began)
	for _, c := range k.changes {
		switch {
		case c.revision > revision:
		case c.gone:
			delete(versions, c.object.GetName())
		default:
			versions[c.object.GetName()] = c.object.GetResourceVersion()
		}
	}
	return versions
}

// changes are those that were not judged yet, in their order, up to a revision before which none is missing.
func (w *walk) changes() (all []change, err error) {
	h, until := w.history, uint64(math.MaxUint64)
	for _, k := range h.kinds {
		revision, err := w.complete(k)
		if err != nil {
			return nil, err
		}
		until = min(until, revision)
	}
	for _, k := range h.kinds {
		k.mu.Lock()
		for _, c := range k.changes {
			if c.revision > h.judged && c.revision <= until {
				all = append(all, c)
			}
		}
		k.mu.Unlock()
	}
	slices.SortStableFunc(all, func(a, b change) int { return cmp.Compare(a.revision, b.revision) })
	h.judged = until
	return all, nil
}

// revisions has judge look at all that existed at each moment that it has not looked at yet, in w.seen.
func (w *walk) revisions(judge func() error) error {
	all, err := w.changes()
	if err != nil {
		return err
	}
	for _, c := range all {
		key := keyOf(c.object)
		if w.history.state[key] = c.object; c.gone {
			delete(w.history.state, key)
		}
		w.seen = w.contents(maps.Values(w.history.state))
		if err := judge(); err != nil {
			return fmt.Errorf("at revision %d, which changed %s (gone: %t): %w", c.revision, key, c.gone, err)
		}
	}
	return nil
}

// contents are objects as see reads them.
func (w *walk) contents(objects func(yield func(metav1.Object) bool)) map[string]contentsOf {
	all := map[string]contentsOf{}
	for _, short := range w.namespaces {
		all[w.long(short)] = newContents()
	}
	for object := range objects {
		in, name := all[object.GetNamespace()], object.GetName()
		switch object := object.(type) {
		case *corev1.Service:
			in.services[name] = object
		case *corev1.Endpoints:
			in.endpoints[name] = object
		case *discoveryv1.EndpointSlice:
			service := object.Labels[discoveryv1.LabelServiceName]
			in.slices[service] = append(in.slices[service], object)
		}
	}
	seen := map[string]contentsOf{}
	for _, short := range w.namespaces {
		seen[short] = all[w.long(short)]
	}
	return seen
}

// judge checks what must have been true at each moment since it was last called, by what has happened since the last rest.
func (w *walk) judge() error {
	if w.history == nil {
		return nil
	}
	seen := w.seen
	defer func() { w.seen = seen }()
	return w.revisions(func() error {
		if w.merged != nil {
			for _, s := range w.sharedMirrors() {
				if err := w.checkShared(s); err != nil {
					return err
				}
			}
			return nil
		}
		for _, e := range w.entries() {
			if err := w.judgeEntry(e); err != nil {
				return err
			}
		}
		for _, f := range w.failing {
			beside, _ := w.slicesOf(f)
			err := w.checkKept(f, beside)
			if err == nil && !f.switched {
				err = w.checkBeside(f, beside)
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// judgeEntry checks a mirror. One that moves is complete under its old name until it is under the new one.
func (w *walk) judgeEntry(e *entry) error {
	if !e.exists() || !w.mirrored(e) {
		return nil
	}
	routes := !e.since.changed && !e.edited && len(e.lines) > 0
	name, svc, endpoints := w.mirrorOf(e)
	if !e.moves {
		switch {
		case svc == nil || string(svc.UID) != e.uid:
			return fmt.Errorf("%s had UID %s, and then it is %s", name, e.uid, describeService(svc))
		case !routes:
			return nil
		case endpoints == nil:
			return fmt.Errorf("the Endpoints of %s do not exist", name)
		}
		return sameLines("Endpoints "+name, fromEndpoints(endpoints), e.lines)
	}
	old := w.place(e, e.remote.before)
	before := w.seen[old.namespace].services[old.name]
	if before != nil && string(before.UID) != e.uid {
		return fmt.Errorf("%v, which moves to %s, had UID %s, and then it is %s", old, name, e.uid, describeService(before))
	}
	var problems []error
	for _, at := range []place{old, w.place(e, e.remote.naming)} {
		if w.seen[at.namespace].services[at.name] == nil {
			problems = append(problems, fmt.Errorf("there is no mirror %v", at))
			continue
		}
		var lines []string
		for _, slice := range w.seen[at.namespace].slices[at.name] {
			lines = append(lines, fromSlice(slice)...)
		}
		err := sameLines("EndpointSlices of "+at.String(), lines, e.lines)
		if err == nil || !routes {
			return nil
		}
		problems = append(problems, err)
	}
	return fmt.Errorf("%v moves: %w", e, errors.Join(problems...))
}
