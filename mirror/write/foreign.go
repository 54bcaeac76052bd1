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
	mu    sync.Mutex
	at    time.Time // when it was requested; zero: not yet
	names sets.Set[string]
}

// foreignPeriod is how old a list may be: less than a watch may lag.
const foreignPeriod = 250 * time.Millisecond

func newForeignEndpoints(client metadata.Interface) *foreignEndpoints {
	return &foreignEndpoints{client: client, lists: map[string]*foreignList{}}
}

// check fails if foreign Endpoints have the name of a mirror that is about to be created, with the error
// that creating them would give.
func (f *foreignEndpoints) check(ctx context.Context, key cache.ObjectName) error {
	list := f.of(key.Namespace)
	list.mu.Lock()
	defer list.mu.Unlock()
	if time.Since(list.at) > foreignPeriod {
		at := time.Now()
		names, err := f.list(ctx, key.Namespace)
		if err != nil {
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
		if other == namespace || !list.mu.TryLock() {
			return false
		}
		defer list.mu.Unlock()
		return time.Since(list.at) > foreignPeriod
	})
	if f.lists[namespace] == nil {
		f.lists[namespace] = &foreignList{}
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
