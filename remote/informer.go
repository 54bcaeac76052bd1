package remote

import (
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
)

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
