package publish

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	typed "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/gateway/publish/plan"
)

// discoveryServer answers discovery of one group-version, and counts the requests.
func discoveryServer(t *testing.T, answer func(n int) (code int, body string)) (*rest.Config, func() []string) {
	var mu sync.Mutex
	var paths []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		paths = append(paths, r.URL.Path)
		n := len(paths)
		mu.Unlock()
		code, body := answer(n)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprint(w, body)
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(paths)
	}
}

// All kinds of a group are discovered with one request, and a failure is nobody's knowledge.
func TestDiscoveryIsShared(t *testing.T) {
	config, paths := discoveryServer(t, func(n int) (int, string) {
		if n == 1 {
			return http.StatusInternalServerError, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":500}`
		}
		return http.StatusOK, `{"kind":"APIResourceList","groupVersion":"gateway.networking.k8s.io/v1","resources":[{"name":"httproutes"},{"name":"tcproutes"}]}`
	})
	client, err := typed.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	d := &discovery{client: client.RESTClient()}
	serves := func(ctx context.Context, resource string) (bool, error) {
		return d.serves(ctx, schema.GroupVersionResource{Group: plan.Group, Version: "v1", Resource: resource})
	}
	if served, err := serves(t.Context(), "httproutes"); served || err == nil {
		t.Errorf("a failure is answered with %v, %v", served, err)
	}
	var all sync.WaitGroup
	for resource, want := range map[string]bool{"httproutes": true, "tlsroutes": false, "tcproutes": true, "udproutes": false} {
		for range 5 {
			all.Go(func() {
				if served, err := serves(t.Context(), resource); served != want || err != nil {
					t.Errorf("%s: %v, %v", resource, served, err)
				}
			})
		}
	}
	all.Wait()
	if got := paths(); len(got) != 2 || got[1] != "/apis/gateway.networking.k8s.io/v1" {
		t.Errorf("the requests are %v", got)
	}
}

// What every API server has is looked for once, and the rest seldom.
func TestDiscoveryIsRare(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.server.mu.Lock()
		w.server.asked = map[string]int{}
		w.server.mu.Unlock()
		w.wait(time.Hour)
		w.server.mu.Lock()
		defer w.server.mu.Unlock()
		for resource, n := range w.server.asked {
			most := int(time.Hour / servedPeriod)
			switch resource {
			case "services", "ingresses":
				most = 0
			case "listenersets": // not served
				most = int(time.Hour / discoveryPeriod)
			}
			if n > most {
				t.Errorf("%s: %d times in an hour, want at most %d", resource, n, most)
			}
		}
		if w.server.asked["listenersets"] == 0 || w.server.asked["httproutes"] == 0 {
			t.Errorf("%v", w.server.asked)
		}
	})
}
