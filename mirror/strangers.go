package mirror

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
)

// strangers knows which Endpoints of others stand where mirrors are about to be
// made without Endpoints of their own: Kubernetes would lead such a mirror to them.
// They are in no cache, for those of a large cluster change with each of its pods. One
// list of a namespace's names serves all mirrors that are made there at about one time.
type strangers struct {
	client metadata.Interface
	mu     sync.Mutex
	seen   map[string]*strangersIn // by namespace
}

type strangersIn struct {
	mu    sync.Mutex
	at    time.Time // when they were asked for; zero: not yet
	names sets.Set[string]
}

// strangersPeriod is how old the list may be: less than a watch may lag.
const strangersPeriod = 250 * time.Millisecond

func newStrangers(client metadata.Interface) *strangers {
	return &strangers{client: client, seen: map[string]*strangersIn{}}
}

// none makes sure that no stranger's Endpoints have the name of a mirror that is about
// to be made; the error is that which their creation would give.
func (s *strangers) none(ctx context.Context, key cache.ObjectName) error {
	in := s.in(key.Namespace)
	in.mu.Lock()
	defer in.mu.Unlock()
	if time.Since(in.at) > strangersPeriod {
		at := time.Now()
		names, err := s.list(ctx, key.Namespace)
		if err != nil {
			return err
		}
		in.at, in.names = at, names
	}
	if in.names.Has(key.Name) {
		return apierrors.NewAlreadyExists(corev1.Resource("endpoints"), key.Name)
	}
	return nil
}

// in is what is known of a namespace. What is known of others, and too old, is forgotten.
func (s *strangers) in(namespace string) *strangersIn {
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.seen, func(other string, in *strangersIn) bool {
		if other == namespace || !in.mu.TryLock() {
			return false
		}
		defer in.mu.Unlock()
		return time.Since(in.at) > strangersPeriod
	})
	if s.seen[namespace] == nil {
		s.seen[namespace] = &strangersIn{}
	}
	return s.seen[namespace]
}

// list asks for the names in the API server's own cache. What is ours is in our cache, too.
func (s *strangers) list(ctx context.Context, namespace string) (sets.Set[string], error) {
	resource := s.client.Resource(corev1.SchemeGroupVersion.WithResource("endpoints")).Namespace(namespace)
	all, err := resource.List(ctx, metav1.ListOptions{ResourceVersion: "0", LabelSelector: ManagedByLabel + "!=" + ManagedBy})
	if err != nil {
		return nil, fmt.Errorf("list Endpoints: %w", err)
	}
	names := sets.New[string]()
	for i := range all.Items {
		names.Insert(all.Items[i].Name)
	}
	return names, nil
}
