package remote

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
)

// objectCache is the cache of an informer, as its ListWatch sees it.
type objectCache interface {
	keys() []string
	// object is what is cached under a key, with another resourceVersion; nil if there is
	// none. Without a key it is an empty object.
	object(key, version string) runtime.Object
	// version is the one up to which the cache has followed.
	version() string
	// HasSynced tells whether it is filled.
	HasSynced() bool
}

// maxLag is how long a cache may take to process what its Reflector has passed on.
const maxLag = time.Second

// errExpired has a Reflector list again.
var errExpired = apierrors.NewResourceExpired("the resourceVersion may no longer be valid: everything is listed again")

// relist lists all, and returns what differs from the cache as events, and the version
// after them. A Reflector that was sent to list again itself would back off: for half a
// minute where connections are lost again and again. known is the version that the
// Reflector has.
func (lw *ListWatch) relist(ctx context.Context, known string) ([]watch.Event, string, error) {
	lw.history.broken.Store(true)
	if lw.cache == nil || !lw.caughtUp(ctx, known) {
		return nil, known, errExpired
	}
	list, err := lw.ListWithContext(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, known, err
	}
	listMeta, err := meta.ListAccessor(list)
	must(err)
	version := listMeta.GetResourceVersion()
	items, err := meta.ExtractList(list)
	must(err)
	cached := map[string]bool{}
	for _, key := range lw.cache.keys() {
		cached[key] = true
	}
	var changed []watch.Event
	gone := cached
	for _, item := range items {
		kind := watch.Added
		key, err := lw.form.item(item)
		must(err) // it is well-formed
		if cached[key] {
			kind = watch.Modified // it may be so although its version is the same, which another history can have, too
			delete(gone, key)
		}
		changed = append(changed, watch.Event{Type: kind, Object: item})
	}
	var events []watch.Event
	for key := range gone {
		if last := lw.cache.object(key, version); last != nil {
			events = append(events, watch.Event{Type: watch.Deleted, Object: last})
		}
	}
	events = append(events, changed...)
	return append(events, watch.Event{Type: watch.Bookmark, Object: lw.cache.object("", version)}), version, nil
}

// caughtUp waits until the cache has processed all that the Reflector knows: what is
// missing in it could not be deleted.
func (lw *ListWatch) caughtUp(ctx context.Context, known string) bool {
	return wait.PollUntilContextTimeout(ctx, 5*time.Millisecond, maxLag, true, func(context.Context) (bool, error) {
		return lw.cache.version() == known, nil
	}) == nil
}
