package remote

import (
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/client-go/tools/cache"
)

// Written remembers what was written until the cache has caught up with it. A sync that saw the state
// before our own write would write again, in vain.
type Written[T Object] struct {
	Informer *Informer[T]
	// Again has the key of an object looked at again.
	Again   func(T)
	objects sync.Map // cache.ObjectName to T: created or changed
	deleted sync.Map // cache.ObjectName to types.UID
}

// deletionLag is how long a cache may take to see a deletion. An object that is there after that is there again:
// the cluster was restored from a backup.
const deletionLag = 15 * time.Second

// Add notes an object as the server answered a write of it.
func (w *Written[T]) Add(obj T) {
	w.objects.Store(cache.MetaObjectToName(obj), obj)
	w.Informer.Wrote(obj.GetResourceVersion())
}

// Delete notes an object that was deleted here.
func (w *Written[T]) Delete(obj T) {
	key, uid := cache.MetaObjectToName(obj), obj.GetUID()
	w.deleted.Store(key, uid)
	w.objects.Delete(key)
	time.AfterFunc(deletionLag, func() {
		var none T
		if now := w.Informer.Get(key); w.deleted.CompareAndDelete(key, uid) && now != none && now.GetUID() == uid {
			w.Again(now)
		}
	})
}

// Known tells whether a version of an object is the one that was written here. It is forgotten then: the cache has it.
func (w *Written[T]) Known(key cache.ObjectName, version string) bool {
	own, ok := w.objects.Load(key)
	return ok && own.(T).GetResourceVersion() == version && w.objects.CompareAndDelete(key, own)
}

// Reset forgets everything: resourceVersions are no longer comparable with those of before. What was written
// may be lost, and what was deleted may exist.
func (w *Written[T]) Reset() {
	w.objects.Range(func(key, own any) bool {
		w.objects.Delete(key)
		w.Again(own.(T))
		return true
	})
	w.deleted.Range(func(key, _ any) bool {
		w.deleted.Delete(key)
		var none T
		if now := w.Informer.Get(key.(cache.ObjectName)); now != none {
			w.Again(now)
		}
		return true
	})
}

// Listed forgets what was written and is not in a complete list of that version or a later one: it is gone again. A
// cache that never saw it has no event of that, so it is looked at again.
func (w *Written[T]) Listed(version string, keys map[string]bool) {
	w.objects.Range(func(key, own any) bool {
		obj := own.(T)
		if !keys[key.(cache.ObjectName).String()] && !lower(version, obj.GetResourceVersion()) && w.objects.CompareAndDelete(key, own) {
			w.Again(obj)
		}
		return true
	})
}

// Latest is what exists under a key now; the zero T if nothing does.
func (w *Written[T]) Latest(key cache.ObjectName) T {
	var none T
	if own, ok := w.objects.Load(key); ok {
		obj := own.(T)
		// resourceVersions of one resource can be compared (KEP-5504). From the one that we wrote
		// on, the cache knows better, an absence included.
		seen := w.Informer.GetIndexer().LastStoreSyncResourceVersion()
		if order, err := resourceversion.CompareResourceVersion(seen, obj.GetResourceVersion()); err == nil && order < 0 {
			return obj
		}
		w.objects.CompareAndDelete(key, own)
	}
	uid, deleted := w.deleted.Load(key) // before the cache is read: with the event of the deletion it is forgotten
	obj := w.Informer.Get(key)
	if deleted {
		if obj != none && obj.GetUID() == uid.(types.UID) && obj.GetDeletionTimestamp() == nil {
			return none
		}
		w.deleted.CompareAndDelete(key, uid)
	}
	return obj
}

// All are the latest of all objects.
func (w *Written[T]) All() (all []T) {
	keys := map[cache.ObjectName]bool{}
	w.objects.Range(func(key, _ any) bool {
		keys[key.(cache.ObjectName)] = true
		return true
	})
	for _, text := range w.Informer.GetIndexer().ListKeys() {
		if key, err := cache.ParseObjectName(text); err == nil {
			keys[key] = true
		}
	}
	var none T
	for key := range keys {
		if obj := w.Latest(key); obj != none {
			all = append(all, obj)
		}
	}
	return all
}
