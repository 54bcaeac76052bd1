package e2e

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
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
	cancel context.CancelFunc
	all    sync.WaitGroup
}

// kindHistory is that of one kind of objects in one namespace.
type kindHistory struct {
	list  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch func(context.Context, metav1.ListOptions) (watch.Interface, error)
	began []metav1.Object // when it begins

	mu       sync.Mutex
	versions map[string]string // of the objects that exist after all changes, by name
	changes  []change
	err      error // it ends before its time
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
	h := &history{cancel: cancel}
	for _, short := range w.namespaces {
		services, endpoints, made := london.CoreV1().Services(w.long(short)), london.CoreV1().Endpoints(w.long(short)), london.DiscoveryV1().EndpointSlices(w.long(short))
		h.kinds = append(h.kinds,
			&kindHistory{list: listed(services.List), watch: services.Watch},
			&kindHistory{list: listed(endpoints.List), watch: endpoints.Watch},
			&kindHistory{list: listed(made.List), watch: made.Watch})
	}
	w.history = h
	for _, k := range h.kinds {
		watching, err := k.begin(ctx)
		if err != nil {
			return err
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

// now lists what exists.
func (k *kindHistory) now(ctx context.Context) (all []metav1.Object, version string, err error) {
	list, err := k.list(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, "", err
	}
	err = meta.EachListItem(list, func(item runtime.Object) error {
		all = append(all, item.(metav1.Object))
		return nil
	})
	return all, list.(metav1.ListInterface).GetResourceVersion(), err
}

func versionsOf(all []metav1.Object) map[string]string {
	versions := map[string]string{}
	for _, object := range all {
		versions[object.GetName()] = object.GetResourceVersion()
	}
	return versions
}

func (k *kindHistory) begin(ctx context.Context) (watch.Interface, error) {
	all, version, err := k.now(ctx)
	if err != nil {
		return nil, err
	}
	k.began, k.versions = all, versionsOf(all)
	return k.watch(ctx, metav1.ListOptions{ResourceVersion: version})
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
	gone := event.Type == watch.Deleted
	if k.changes = append(k.changes, change{revision, object, gone}); gone {
		delete(k.versions, object.GetName())
	} else {
		k.versions[object.GetName()] = object.GetResourceVersion()
	}
	return nil
}

func (k *kindHistory) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

// complete checks that no change up to now is missing.
func (k *kindHistory) complete(ctx context.Context) error {
	all, _, err := k.now(ctx)
	if err != nil {
		return err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.err != nil {
		return fmt.Errorf("the history is not complete: %w", k.err)
	}
	if want := versionsOf(all); !maps.Equal(k.versions, want) {
		return fmt.Errorf("the history ends with the objects %v, want %v", k.versions, want)
	}
	return nil
}

// revisions has judge look at all that existed at each moment, in w.seen.
func (w *walk) revisions(judge func() error) error {
	state, changes := map[string]metav1.Object{}, []change{}
	key := func(object metav1.Object) string {
		return fmt.Sprintf("%T %s/%s", object, object.GetNamespace(), object.GetName())
	}
	for _, k := range w.history.kinds {
		if err := w.until(func() error { return k.complete(w.ctx) }); err != nil {
			return err
		}
		k.mu.Lock()
		changes = append(changes, k.changes...)
		k.mu.Unlock()
		for _, object := range k.began {
			state[key(object)] = object
		}
	}
	w.forget()
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Compare(a.revision, b.revision) })
	w.seen = w.contents(maps.Values(state))
	err := judge()
	for _, c := range changes {
		if err != nil {
			return err
		}
		if state[key(c.object)] = c.object; c.gone {
			delete(state, key(c.object))
		}
		w.seen = w.contents(maps.Values(state))
		if err = judge(); err != nil {
			err = fmt.Errorf("at revision %d, which changed %s (gone: %t): %w", c.revision, key(c.object), c.gone, err)
		}
	}
	return err
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

// judge checks what must have been true at each moment since the last rest, by what has happened since then.
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
