package secrets

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// refusing has a fake API server refuse to let Secrets be read while the flag is set.
func refusing(client *fake.Clientset) *atomic.Bool {
	var refuse atomic.Bool
	err := apierrors.NewForbidden(corev1.Resource("secrets"), "", nil)
	client.PrependReactor("list", "secrets", func(clienttesting.Action) (bool, runtime.Object, error) { return refuse.Load(), nil, err })
	client.PrependWatchReactor("secrets", func(clienttesting.Action) (bool, watch.Interface, error) { return refuse.Load(), nil, err })
	return &refuse
}

func TestFollow(t *testing.T) {
	t.Setenv("KUBE_FEATURE_WatchListClient", "false") // of which the fake knows nothing
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewClientset()
		refuse := refusing(client)
		refuse.Store(true)
		var mu sync.Mutex
		var known []string
		var failing error
		follow := Source{Client: client, Namespace: "sm"}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			follow.Follow(ctx, func(part string, err error) {
				mu.Lock()
				defer mu.Unlock()
				if failing = err; part != "secrets of remotes in namespace sm" {
					t.Errorf("reported as %q", part)
				}
			}, func(all []*corev1.Secret) {
				mu.Lock()
				defer mu.Unlock()
				set := Resolve(nil, all, complete)
				texts := []string{}
				for _, one := range set.Remotes {
					texts = append(texts, one.Name+"="+one.Gateways[0].Name())
				}
				known = append(known, cmp.Or(strings.Join(texts, " "), "none"))
			})
		}()
		want := func(now string, fails bool) {
			t.Helper()
			time.Sleep(2 * time.Minute)
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			got := ""
			if len(known) > 0 {
				got = known[len(known)-1]
			}
			if got != now || (failing != nil) != fails {
				t.Errorf("known: %q, failing: %v, want %q", known, failing, now)
			}
		}
		secrets := client.CoreV1().Secrets("sm")
		put := func(s *corev1.Secret) {
			t.Helper()
			if _, err := secrets.Create(ctx, s, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		want("", true) // nothing is concluded from a list that is refused
		refuse.Store(false)
		want("none", false)
		put(secret("a", "paris", 1, nil))
		want("paris=ingress/gateway", false)
		put(secret("b", "rome", 1, map[string]string{"gateway": "a/b"}))
		want("paris=ingress/gateway rome=a/b", false)
		refuse.Store(true)
		if err := secrets.Delete(ctx, "a", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour)
		refuse.Store(false)
		want("rome=a/b", false)
		cancel()
		<-ended
		// Each is known as often as it is listed, and nothing else ever was.
		if all := []string{"none", "paris=ingress/gateway", "paris=ingress/gateway rome=a/b", "rome=a/b"}; !slices.Equal(slices.Compact(known), all) {
			t.Errorf("known: %q, want %q", known, all)
		}
	})
}

func TestList(t *testing.T) {
	client := fake.NewClientset(secret("a", "paris", 1, nil))
	refuse := refusing(client)
	source := Source{Client: client, Namespace: "sm"}
	if all, err := source.List(t.Context()); err != nil || len(all) != 1 {
		t.Errorf("got %v, %v", all, err)
	}
	refuse.Store(true)
	if _, err := source.List(t.Context()); err == nil || !strings.Contains(err.Error(), "Secrets in namespace sm, which --remotes-from names, cannot be read") || !strings.Contains(err.Error(), "grant list and watch on secrets") {
		t.Errorf("got %v", err)
	}
}
