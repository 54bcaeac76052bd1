package remote

import (
	"context"
	"reflect"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Lister is the part of a typed client that an informer needs.
type Lister[L runtime.Object] interface {
	List(context.Context, metav1.ListOptions) (L, error)
	Watch(context.Context, metav1.ListOptions) (watch.Interface, error)
}

// NewListWatch makes a ListWatch of the objects that a client gives, those that
// narrow leaves.
func NewListWatch[L runtime.Object](objects Lister[L], narrow func(*metav1.ListOptions)) *ListWatch {
	lw := &ListWatch{}
	lw.ListFunc = func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		narrow(&options)
		if lw.bounds == nil {
			return objects.List(ctx, options)
		}
		return listWithin(ctx, lw, objects, options)
	}
	lw.WatchFunc = func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
		narrow(&options)
		return objects.Watch(ctx, options)
	}
	return lw
}

// Informer keeps the objects of a ListWatch, encoded. It never resyncs: what
// changes nothing is no event.
type Informer[T Object] struct {
	cache.SharedIndexInformer
	example  T
	lw       *ListWatch
	indexing decodedLast[T]
}

// Wrote notes the resourceVersion of an object that was written here: a server whose own is below it has lost
// the write.
func (i *Informer[T]) Wrote(version string) { i.lw.history.wrote(version) }

// NewInformer makes an informer over lw that keeps of its objects what trim
// leaves.
func NewInformer[T Object](lw *ListWatch, example T, trim func(T) T) *Informer[T] {
	informer := cache.NewSharedIndexInformer(lw, example, 0, cache.Indexers{})
	lw.form.object, lw.form.scope = reflect.TypeOf(example), scopeOf(example)
	lw.trim = slim(trim)
	must(informer.SetTransform(func(obj any) (any, error) {
		if typed, ok := obj.(T); ok {
			return Encode(trim(typed)), nil
		}
		return obj, nil
	}))
	// The ListWatch reports each failure itself, and the end of the context is none.
	must(informer.SetWatchErrorHandlerWithContext(func(context.Context, *cache.Reflector, error) {}))
	i := &Informer[T]{SharedIndexInformer: informer, example: example, lw: lw}
	lw.cache = i
	return i
}

// RunWithContext fills the cache and keeps it filled until the context ends. When it returns, no request is under way, and
// the ListWatch calls nothing any more.
func (i *Informer[T]) RunWithContext(ctx context.Context) {
	i.SharedIndexInformer.RunWithContext(ctx)
	i.lw.running.end()
}

func (i *Informer[T]) keys() []string { return i.GetIndexer().ListKeys() }

func (i *Informer[T]) object(key, version string) runtime.Object {
	obj := i.example.DeepCopyObject().(T)
	if key != "" {
		var none T
		if obj = i.Get(nameOf(key)); obj == none {
			return nil
		}
	}
	obj.SetResourceVersion(version)
	return obj
}

func (i *Informer[T]) version() string { return i.GetIndexer().LastStoreSyncResourceVersion() }

// Handler is called for changes of an informer's objects. Of one that is deleted
// the last state that was seen is nil if there is none.
type Handler[T Object] struct {
	// Known tells that what was added is known already, as what was written here is: no handler is called. nil: nothing is.
	Known   func(name cache.ObjectName, version string) bool
	Added   func(T)
	Updated func(before, after T)
	Deleted func(name cache.ObjectName, last T)
}

// Handle adds a handler to an informer that has not ended. Its registration is synced once the handler has seen all.
func (i *Informer[T]) Handle(handler Handler[T]) cache.ResourceEventHandlerRegistration {
	registered, err := i.AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc: func(obj any) {
			if p, ok := obj.(*encoded); ok && handler.Known != nil && handler.Known(nameOf(p.name), p.version) {
				return
			}
			handler.Added(i.decode(obj))
		},
		UpdateFunc: func(before, after any) { handler.Updated(i.decode(before), i.decode(after)) },
		DeleteFunc: func(obj any) {
			if missed, ok := obj.(cache.DeletedFinalStateUnknown); ok {
				handler.Deleted(nameOf(missed.Key), i.decode(missed.Obj))
				return
			}
			last := i.decode(obj)
			handler.Deleted(cache.MetaObjectToName(last), last)
		},
	})
	must(err)
	return registered
}

// Index adds an index, by the values that an object has, which it leaves as it is.
func (i *Informer[T]) Index(name string, values func(T) []string) {
	must(i.AddIndexers(cache.Indexers{name: func(obj any) ([]string, error) { return values(i.indexing.decode(i, obj)), nil }}))
}

// decodedLast is the object that was last decoded for an index: each index has its turn with the same one.
type decodedLast[T Object] struct {
	mu   sync.Mutex
	of   *encoded
	last T
}

func (d *decodedLast[T]) decode(i *Informer[T], obj any) T {
	p, ok := obj.(*encoded)
	if !ok {
		return i.decode(obj)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.of != p {
		d.of, d.last = p, i.decode(p)
	}
	return d.last
}

// Get reads one object; nil where there is none.
func (i *Informer[T]) Get(key cache.ObjectName) T {
	obj, _, _ := i.GetIndexer().GetByKey(key.String())
	return i.decode(obj)
}

// ByIndex reads the objects that have a value in an index.
func (i *Informer[T]) ByIndex(name, value string) []T {
	found, err := i.GetIndexer().ByIndex(name, value)
	must(err)
	return i.decodeAll(found)
}

// indexed are the objects that have a value in an index, as they are kept.
func (i *Informer[T]) indexed(name, value string) []*encoded {
	found, err := i.GetIndexer().ByIndex(name, value)
	must(err)
	all := make([]*encoded, len(found))
	for n, obj := range found {
		all[n] = obj.(*encoded)
	}
	return all
}

// All reads all objects.
func (i *Informer[T]) All() []T { return i.decodeAll(i.GetIndexer().List()) }

func (i *Informer[T]) decodeAll(objs []any) []T {
	all := make([]T, 0, len(objs))
	for _, obj := range objs {
		all = append(all, i.decode(obj))
	}
	return all
}

func (i *Informer[T]) decode(obj any) T {
	p, ok := obj.(*encoded)
	if !ok {
		var none T
		return none
	}
	fresh := i.example.DeepCopyObject().(T)
	must(fresh.Unmarshal(p.data))
	return fresh
}

// must is for calls that fail only where this program is wrong: an informer
// changed after its start, an index that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
