package remote

import (
	"context"

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
	return &ListWatch{
		ListFunc: func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
			narrow(&options)
			return objects.List(ctx, options)
		},
		WatchFunc: func(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
			narrow(&options)
			return objects.Watch(ctx, options)
		},
	}
}

// NewInformer makes an informer over lw that holds its objects trimmed. It never
// resyncs: what changes nothing is no event.
func NewInformer[T interface {
	cache.Object
	runtime.Object
}](lw *ListWatch, example T, trim func(T) T) cache.TypedSharedIndexInformer[T] {
	informer := cache.NewSharedIndexInformer(lw, example, 0, cache.Indexers{})
	must(informer.SetTransform(func(obj any) (any, error) {
		if typed, ok := obj.(T); ok {
			return trim(typed), nil
		}
		return obj, nil
	}))
	return cache.NewTypedSharedIndexInformer[T](informer)
}

// Register adds a handler to an informer that has not ended.
func Register[T cache.Object](informer cache.TypedSharedIndexInformer[T], handler cache.TypedResourceEventHandler[T]) {
	_, err := informer.AddTypedEventHandler(handler)
	must(err)
}

// Get reads one object from a cache; the zero T where there is none.
func Get[T cache.Object](indexer cache.TypedIndexer[T], key cache.ObjectName) T {
	obj, _, _ := indexer.GetByKey(key.String())
	typed, _ := obj.(T)
	return typed
}

// must is for calls that fail only where this program is wrong: an informer
// changed after its start, an index that does not exist.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
