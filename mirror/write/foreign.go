package write

import (
	"context"
	"fmt"
	"maps"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// foreignEndpoints knows which Endpoints of others exist where mirrors are about to be created without
// Endpoints of their own: Kubernetes would send such a mirror's traffic there. They are in no cache, since
// those of a large cluster change with each of its pods. One list of a namespace's names serves all
// mirrors that are created there at about the same time.
type foreignEndpoints struct {
	client metadata.Interface
	mu     sync.Mutex
	lists  map[string]*foreignList // by namespace
}

type foreignList struct {
	inUse  chan struct{} // full while someone requests or reads it
	at     time.Time     // when it was requested; zero: not yet
	names  sets.Set[string]
	failed time.Time // the latest request; zero: none did
	err    error
}

// foreignPeriod is how old a list may be: less than a watch may lag.
const foreignPeriod = 250 * time.Millisecond

func newForeignEndpoints(client metadata.Interface) *foreignEndpoints {
	return &foreignEndpoints{client: client, lists: map[string]*foreignList{}}
}

// check fails if foreign Endpoints have the name of a mirror that is about to be created, with the error
// that creating them would give. A request that fails has failed for all that waited for it: the next one might take as
// long.
func (f *foreignEndpoints) check(ctx context.Context, key cache.ObjectName) error {
	list, waiting := f.of(key.Namespace), time.Now()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case list.inUse <- struct{}{}:
		defer func() { <-list.inUse }()
	}
	switch {
	case time.Since(list.at) <= foreignPeriod:
	case list.failed.After(waiting):
		return list.err
	default:
		at := time.Now()
		names, err := f.list(ctx, key.Namespace)
		if err != nil {
			if ctx.Err() == nil {
				list.failed, list.err = time.Now(), err
			}
			return err
		}
		list.at, list.names = at, names
	}
	if list.names.Has(key.Name) {
		return apierrors.NewAlreadyExists(corev1.Resource("endpoints"), key.Name)
	}
	return nil
}

// of is the list of a namespace. Those of others that are too old are forgotten.
func (f *foreignEndpoints) of(namespace string) *foreignList {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.DeleteFunc(f.lists, func(other string, list *foreignList) bool {
		if other == namespace {
			return false
		}
		select {
		case list.inUse <- struct{}{}:
			defer func() { <-list.inUse }()
			return time.Since(list.at) > foreignPeriod
		default:
			return false
		}
	})
	if f.lists[namespace] == nil {
		f.lists[namespace] = &foreignList{inUse: make(chan struct{}, 1)}
	}
	return f.lists[namespace]
}

// list reads the names from the API server's own cache. What looks like ours is in our cache, too.
func (f *foreignEndpoints) list(ctx context.Context, namespace string) (sets.Set[string], error) {
	resource := f.client.Resource(corev1.SchemeGroupVersion.WithResource("endpoints")).Namespace(namespace)
	all, err := resource.List(ctx, metav1.ListOptions{ResourceVersion: "0", LabelSelector: plan.ManagedByLabel + "!=" + plan.ManagedBy})
	if err != nil {
		return nil, fmt.Errorf("list Endpoints: %w", err)
	}
	names := sets.New[string]()
	for i := range all.Items {
		names.Insert(all.Items[i].Name)
	}
	return names, nil
}
