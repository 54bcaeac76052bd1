package secrets

import (
	"context"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

// Source is where the Secrets are.
type Source struct {
	Client    remote.Client // of the local cluster
	Namespace string
}

// Part is what reading them is called where its problems are reported.
func (s Source) Part() string { return "secrets of remotes in namespace " + s.Namespace }

func narrow(options *metav1.ListOptions) { options.LabelSelector = remote.SecretLabel }

// listTime bounds a list.
const listTime = 30 * time.Second

// List reads the Secrets once.
func (s Source) List(ctx context.Context) ([]*corev1.Secret, error) {
	ctx, cancel := context.WithTimeout(ctx, listTime)
	defer cancel()
	options := metav1.ListOptions{}
	narrow(&options)
	list, err := s.Client.CoreV1().Secrets(s.Namespace).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("Secrets in namespace %s, which --remotes-from names, cannot be read: %s: grant list and watch on secrets there", s.Namespace, remote.Cause(err))
	}
	var all []*corev1.Secret
	for i := range list.Items {
		all = append(all, &list.Items[i])
	}
	return all, nil
}

// Follow calls known with all Secrets when they are known, and whenever one has changed, one call at a time, until the
// context ends. While they cannot be read, which is reported, what was known of them stays.
func (s Source) Follow(ctx context.Context, report func(part string, err error), known func([]*corev1.Secret)) {
	lw := remote.NewListWatch(s.Client.CoreV1().Secrets(s.Namespace), narrow)
	lw.Namespace, lw.Client = s.Namespace, s.Client
	lw.Report = func(err error) { report(s.Part(), err) }
	informer := remote.NewInformer(lw, &corev1.Secret{}, Trim)
	changed := make(chan struct{}, 1)
	signal := func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
	registration := informer.Handle(remote.Handler[*corev1.Secret]{
		Added:   func(*corev1.Secret) { signal() },
		Updated: func(_, _ *corev1.Secret) { signal() },
		Deleted: func(cache.ObjectName, *corev1.Secret) { signal() },
	})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { informer.RunWithContext(ctx) })
	if !cache.WaitFor(ctx, "", registration.HasSyncedChecker()) {
		return
	}
	signal() // there may be none
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			known(informer.All())
		}
	}
}
