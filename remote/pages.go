package remote

import (
	"context"
	"fmt"
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"time"
	"unsafe"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/internalversion"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"

	"service-mirror.io/service-mirror/gateway"
)

// allowance is what a list of a remote may be, and what may be kept of it.
type allowance struct {
	list  bound // of a page, or of a list in one piece
	event bound
	page  int64 // how many objects are requested at once
	pages int
	kept  *ledger
}

// ofExports is the allowance of a remote's exported Services, which all its namespaces share.
func (l Limits) ofExports(cluster string) *allowance {
	return l.of("exported Services", "Services", cluster)
}

// ofRecords is the allowance of the records of a remote's publisher: as much again.
func (l Limits) ofRecords(cluster string) *allowance { return l.of("records", "records", cluster) }

func (l Limits) of(what, noun, cluster string) *allowance {
	l = l.orDefault()
	list := bound{
		what: "a list of " + what, noun: noun, limited: true, cluster: cluster,
		bytes: l.Bytes, memory: maxGrowth * l.Bytes, one: l.Bytes / maxShare, items: l.Services,
	}
	all, event := list, list
	all.what, all.memory = "the set of "+what, l.Bytes
	event.what, event.bytes, event.memory, event.one, event.items = "an event of a watch", maxObject, list.one, 0, 0
	event.fixed = true
	return &allowance{list, event, pageSize, 2*(l.Services/pageSize) + 10, &ledger{bound: &all}}
}

// maxNamed is how many objects may come where one is requested by its name: test servers ignore that.
const maxNamed = 16

// ofOne is the allowance of a single object, as a gateway Service.
func ofOne(cluster string) *allowance {
	list := objectBound("a list of objects of one name")
	list.noun, list.items, list.cluster = "objects", maxNamed, cluster
	all := list
	all.what = "a watch of objects of one name"
	return &allowance{list, objectBound("an event of a watch"), pageSize, 10, &ledger{bound: &all}}
}

// whole is the answer to a list, with all its pages.
type whole struct {
	internalversion.List
	pages int
	kept  *tally
}

// paging lists page by page, and keeps of each object only what is left by trim.
type paging[L runtime.Object] struct {
	*allowance
	objects Lister[L]
	check   func(page runtime.Object) error
	trim    func(runtime.Object) runtime.Object
	tally   *tally // that of the objects before; nil: none
}

// listWithin lists within the bounds of lw, and keeps of each object only what its cache does.
func listWithin[L runtime.Object](ctx context.Context, lw *ListWatch, objects Lister[L], options metav1.ListOptions) (runtime.Object, error) {
	form := lw.form
	form.namespace = lw.Namespace
	p := paging[L]{allowance: lw.bounds, objects: objects, trim: lw.trim, tally: lw.known(), check: func(page runtime.Object) error {
		_, err := form.list(page, nil)
		return err
	}}
	if options.Limit > 0 { // one is enough to know the server's version
		return p.version(ctx, options)
	}
	list, err := p.all(ctx, options, lw.bracketed.Load())
	if err != nil {
		return nil, err // and no nil *whole
	}
	return list, nil
}

// ListServices lists a remote's Services of a namespace, or of all, within the remote's limits as the daemon
// does; trim cuts each down to what is needed of it.
func (s Spec) ListServices(ctx context.Context, client Client, namespace string, options metav1.ListOptions, trim func(*corev1.Service) *corev1.Service) ([]*corev1.Service, error) {
	return shown(ctx, paging[*corev1.ServiceList]{allowance: s.Limits.ofExports(s.Name), objects: client.CoreV1().Services(namespace)}, options, trim)
}

// ListRecords lists the records of a remote's publisher likewise.
func (s Spec) ListRecords(ctx context.Context, client Client) ([]*corev1.ConfigMap, error) {
	var options metav1.ListOptions
	narrowRecords(&options)
	return shown(ctx, paging[*corev1.ConfigMapList]{allowance: s.Limits.ofRecords(s.Name), objects: client.CoreV1().ConfigMaps(s.Records)}, options, trimRecord)
}

// shown lists what is only shown.
func shown[T Object, L runtime.Object](ctx context.Context, p paging[L], options metav1.ListOptions, trim func(T) T) (all []T, err error) {
	p.trim = slim(trim)
	p.check = func(runtime.Object) error { return nil }
	list, err := p.all(ctx, options, false)
	if err != nil {
		return nil, err
	}
	for _, item := range list.Items {
		all = append(all, item.(T))
	}
	return all, nil
}

// inPages is whether a list was answered by more than one request.
func inPages(list runtime.Object) bool {
	all, ok := list.(*whole)
	return ok && all.pages > 1
}

// known is the tally of what is known.
func (lw *ListWatch) known() *tally {
	lw.bounds.kept.mu.Lock()
	defer lw.bounds.kept.mu.Unlock()
	return lw.kept
}

// keep notes that a list takes the place of what was known.
func (lw *ListWatch) keep(list runtime.Object) {
	if all, ok := list.(*whole); ok {
		lw.replace(all.kept)
	}
}

func (lw *ListWatch) replace(all *tally) {
	if lw.bounds == nil {
		return
	}
	l := lw.bounds.kept
	l.mu.Lock()
	defer l.mu.Unlock()
	l.move(lw.kept, all)
	lw.kept = all
}

// note notes what an event of a watch changes, unless that is too much.
func (lw *ListWatch) note(w *steadyWatch, event watch.Event) error {
	if lw.bounds == nil || event.Type == watch.Bookmark {
		return nil
	}
	obj, err := meta.Accessor(event.Object)
	must(err)
	size := deleted
	if event.Type != watch.Deleted {
		size = sizeOf(lw.trim(event.Object))
	}
	l := lw.bounds.kept
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.streamed == nil {
		if lw.kept == nil {
			lw.kept = newTally()
		}
		return l.change(lw.kept, hashOf(obj), size)
	}
	before := w.listing.set(hashOf(obj), size)
	if err := l.check(lw.kept, w.listing); err != nil {
		w.listing.set(hashOf(obj), before)
		return err
	}
	return nil
}

// all lists all pages, or in one piece.
func (p paging[L]) all(ctx context.Context, options metav1.ListOptions, onePiece bool) (*whole, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, listTimeout, p.list.refuse("max-services", "is not complete after %v", listTimeout))
	defer cancel()
	result := &whole{kept: newTally()}
	if options.Limit = p.page; onePiece {
		options.Limit = 0
	}
	for {
		page, took, err := p.request(ctx, options)
		if expired(err) && options.Continue != "" && !onePiece { // else a server that sends pages even so could go on without end
			return p.all(ctx, metav1.ListOptions{LabelSelector: options.LabelSelector, FieldSelector: options.FieldSelector}, true)
		}
		if err == nil {
			err = p.add(result, page)
		}
		if err != nil {
			took.collect()
			return nil, err
		}
		listMeta, err := meta.ListAccessor(page)
		must(err)
		empty := meta.LenList(page) == 0
		options.Continue = listMeta.GetContinue()
		took.collect() // of page, which is needed no more
		if options.Continue == "" {
			return result, nil
		}
		if len(options.Continue) > maxContinue {
			return nil, malformed(fmt.Errorf("the token for the next page has %d characters", len(options.Continue)))
		}
		if result.pages >= p.pages {
			return nil, p.list.refuse("max-services", "has more than %d pages", p.pages)
		}
		if empty {
			select {
			case <-ctx.Done():
			case <-time.After(pagePause):
			}
		}
	}
}

// version requests one page, and keeps of it only the server's version: a server may send any number of objects.
func (p paging[L]) version(ctx context.Context, options metav1.ListOptions) (*whole, error) {
	result := &whole{kept: newTally()}
	page, took, err := p.request(ctx, options)
	if err == nil {
		err = p.check(page)
	}
	if err == nil {
		listMeta, err := meta.ListAccessor(page)
		must(err)
		result.ResourceVersion = listMeta.GetResourceVersion()
	}
	took.collect()
	return result, err
}

// request requests one page.
func (p paging[L]) request(ctx context.Context, options metav1.ListOptions) (runtime.Object, *bound, error) {
	request, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	b := p.list
	page, err := p.objects.List(bounded(request, &b), options)
	switch cause := context.Cause(ctx); {
	case err != nil && b.refused != nil:
		err = b.refused
	case err != nil && IsTooLarge(cause):
		err = cause
	}
	return page, &b, err
}

// add adds the objects of a page.
func (p paging[L]) add(result *whole, page runtime.Object) error {
	if err := p.check(page); err != nil {
		return err
	}
	if result.pages++; result.pages == 1 {
		listMeta, err := meta.ListAccessor(page)
		must(err)
		result.ResourceVersion = listMeta.GetResourceVersion()
	}
	err := meta.EachListItem(page, func(item runtime.Object) error {
		item = p.trim(item)
		accessor, err := meta.Accessor(item)
		must(err)
		result.kept.set(hashOf(accessor), sizeOf(item))
		result.Items = append(result.Items, item)
		return nil
	})
	must(err)
	return p.kept.fits(p.tally, result.kept)
}

// slim has trim cut an object down to what is kept, and to what is checked.
func slim[T Object](trim func(T) T) func(runtime.Object) runtime.Object {
	return func(obj runtime.Object) runtime.Object {
		typed, ok := obj.(T)
		if !ok {
			return obj
		}
		uid := typed.GetUID()
		trimmed := trim(typed)
		trimmed.SetUID(uid)
		return trimmed
	}
}

// tally is the sizes of objects, by key. Keys are kept as hashes, with a seed of this process: of 50,000 they
// would take megabytes.
type tally struct {
	sizes map[uint64]int32
	bytes int64
}

// deleted is the size of an object that does not exist.
const deleted int32 = -1

func newTally() *tally { return &tally{sizes: map[uint64]int32{}} }

var keySeed = maphash.MakeSeed()

func hashOf(obj metav1.Object) uint64 {
	var hash maphash.Hash
	hash.SetSeed(keySeed)
	hash.WriteString(obj.GetNamespace())
	hash.WriteByte('/')
	hash.WriteString(obj.GetName())
	return hash.Sum64()
}

// sizeOf is what is counted of an object that is kept.
func sizeOf(obj runtime.Object) int32 {
	size := obj.(interface{ Size() int }).Size()
	if svc, ok := obj.(*corev1.Service); ok {
		size += sizeInIndexes(svc) + sizeOfPorts(svc)
	}
	return int32(min(size, math.MaxInt32))
}

const (
	// indexEntry is what a value takes in an index that no other object has.
	indexEntry = 256
	// usualEntries is how many an exported Service may have that are not counted.
	usualEntries = 4
	// usualPorts is how many ports it may have of which only the encoding is counted.
	usualPorts = 16
	// portMemory is what each of the others takes, in a slice that grows.
	portMemory = 2 * int(unsafe.Sizeof(corev1.ServicePort{}))
)

// sizeOfPorts is what the ports of an exported Service take where it is decoded: up to twelve times what they take
// encoded. All that a list has are decoded until they are in the cache.
func sizeOfPorts(exported *corev1.Service) int {
	return max(0, len(exported.Spec.Ports)-usualPorts) * portMemory
}

// sizeInIndexes is what the gateway ports that an exported Service claims and chooses take in the indexes over them: up to
// a hundred times what they take in its annotations.
func sizeInIndexes(exported *corev1.Service) (size int) {
	values := slices.Concat(Claims(exported), gateway.Choices(exported))
	for _, value := range values[min(len(values), usualEntries):] {
		size += indexEntry + len(value)
	}
	return size
}

// set notes the size of an object, and returns the one before.
func (t *tally) set(key uint64, size int32) (before int32) {
	before, found := t.sizes[key]
	if !found {
		before = deleted
	}
	t.bytes += int64(max(size, 0) - max(before, 0))
	if size == deleted {
		delete(t.sizes, key)
	} else {
		t.sizes[key] = size
	}
	return before
}

func (t *tally) count() (objects int, bytes int64) {
	if t == nil {
		return 0, 0
	}
	return len(t.sizes), t.bytes
}

// ledger is what is kept of all that shares an allowance.
type ledger struct {
	bound *bound

	mu      sync.Mutex
	objects int
	bytes   int64
}

// fits is an error if more would be kept than is allowed with one tally in place of another.
func (l *ledger) fits(before, after *tally) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.check(before, after)
}

// check is fits; l.mu is held.
func (l *ledger) check(before, after *tally) error {
	objects, bytes := after.count()
	objectsBefore, bytesBefore := before.count()
	return l.judge(l.objects+objects-objectsBefore, l.bytes+bytes-bytesBefore)
}

func (l *ledger) judge(objects int, bytes int64) error {
	switch {
	case objects > l.bound.items:
		return l.bound.refuseItems()
	case bytes > l.bound.memory:
		return l.bound.refuseMemory()
	}
	return nil
}

// move keeps one tally in place of another; l.mu is held.
func (l *ledger) move(before, after *tally) {
	objects, bytes := after.count()
	objectsBefore, bytesBefore := before.count()
	l.objects += objects - objectsBefore
	l.bytes += bytes - bytesBefore
}

// change changes one object of a tally that is kept, unless that is too much; l.mu is held. What becomes
// smaller is never too much.
func (l *ledger) change(t *tally, key uint64, size int32) error {
	objects, bytes := t.count()
	before := t.set(key, size)
	objectsNow, bytesNow := t.count()
	objects, bytes = l.objects+objectsNow-objects, l.bytes+bytesNow-bytes
	if err := l.judge(objects, bytes); err != nil && size > before {
		t.set(key, before)
		return err
	}
	l.objects, l.bytes = objects, bytes
	return nil
}
