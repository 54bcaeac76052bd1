package gatewayapi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
)

const public = `{"apiVersion":"%[1]s","kind":"Gateway","metadata":{"namespace":"ingress","name":"public","uid":"u","resourceVersion":"7"},
	"spec":{"gatewayClassName":"x","listeners":[{"name":"http","port":80,"protocol":"HTTP"}]},"status":{"addresses":[{"value":"192.0.2.1"}]}}`

// serving is an API server that serves one version of the API; empty: none.
func serving(t *testing.T, version string, requests *atomic.Int32) *Client {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		requests.Add(1)
		if version == "" || req.URL.Path != "/apis/"+Group+"/"+version+"/namespaces/ingress/gateways" {
			http.NotFound(w, req)
			return
		}
		if got := req.URL.Query().Get("fieldSelector"); got != "metadata.name=public" {
			t.Errorf("field selector %q", got)
		}
		obj := fmt.Sprintf(public, Group+"/"+version)
		w.Header().Set("Content-Type", "application/json")
		if req.URL.Query().Get("watch") != "" {
			fmt.Fprintf(w, `{"type":"MODIFIED","object":%s}`, obj)
			return
		}
		fmt.Fprintf(w, `{"apiVersion":"%s","kind":"GatewayList","metadata":{"resourceVersion":"9"},"items":[%s]}`, Group+"/"+version, obj)
	}))
	t.Cleanup(server.Close)
	c, err := New(&rest.Config{Host: server.URL}, server.Client())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// The version is the one that the server has, which nothing needs to be told.
func TestServedVersion(t *testing.T) {
	options := metav1.ListOptions{FieldSelector: "metadata.name=public"}
	for _, version := range Versions {
		var requests atomic.Int32
		gateways := serving(t, version, &requests).Gateways("ingress")
		w, err := gateways.Watch(t.Context(), options)
		if err != nil {
			t.Fatalf("%s: %v", version, err)
		}
		event := <-w.ResultChan()
		w.Stop()
		if got, ok := event.Object.(*Gateway); event.Type != watch.Modified || !ok || got.Status.Addresses[0].Value != "192.0.2.1" {
			t.Errorf("%s: got %+v", version, event)
		}
		before := requests.Load()
		list, err := gateways.List(t.Context(), options)
		if err != nil || list.ResourceVersion != "9" || len(list.Items) != 1 || list.Items[0].UID != "u" || list.Items[0].Spec.Listeners[0] != (Listener{"http", 80, "HTTP"}) {
			t.Errorf("%s: got %+v, %v", version, list, err)
		}
		if requests.Load() != before+1 {
			t.Errorf("%s: %d requests for one list", version, requests.Load()-before)
		}
	}
}

func TestAPIThatIsNotServed(t *testing.T) {
	var requests atomic.Int32
	c := serving(t, "", &requests)
	if _, err := c.Gateways("ingress").List(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), "could not find the requested resource") {
		t.Errorf("got %v", err)
	}
	if _, err := c.ListenerSets().Watch(t.Context(), metav1.ListOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("got %v", err)
	}
	if got := requests.Load(); got != 4 {
		t.Errorf("%d requests, want one of each version", got)
	}
}
