package quickstart

import (
	"net"
	"net/http"
	"net/http/httptest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"

	"service-mirror.io/service-mirror/testdata/harness"
)

// publicGateway is what the README says that Paris has: its status is that of a Gateway which an implementation has
// programmed.
const (
	publicGateway = `
apiVersion: v1
kind: Namespace
metadata: {name: ingress}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: public, namespace: ingress}
spec:
  gatewayClassName: test
  listeners:
  - {name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}
`
	programmed = `{"status": {"addresses": [{"type": "IPAddress", "value": "` + parisNode + `"}],
		"conditions": [
			{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
			{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
		"listeners": [{"name": "http", "attachedRoutes": 0, "supportedKinds": [{"group": "gateway.networking.k8s.io", "kind": "HTTPRoute"}],
			"conditions": [
				{"type": "Accepted", "status": "True", "reason": "Accepted", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"},
				{"type": "Programmed", "status": "True", "reason": "Programmed", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}]}}`
)

var httpRoutes = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}

// gatewayAPI has Paris's Gateway ingress/public, which serves the HTTPRoutes that there are.
func (e *env) gatewayAPI() {
	e.Helper()
	e.must(e.paris.ApplyGatewayAPI(e.ctx, "../gatewayapi", "gatewayclasses", "gateways", "httproutes", "grpcroutes", "listenersets", "tlsroutes"))
	e.apply(e.paris, publicGateway)
	e.kubectl(e.paris, "-n", "ingress", "patch", "gateway", "public", "--subresource=status", "--type=merge", "--patch", programmed)
	client, err := dynamic.NewForConfig(e.paris.Config)
	e.must(err)
	e.serve(func(r *http.Request) bool {
		routes, err := client.Resource(httpRoutes).List(r.Context(), metav1.ListOptions{})
		if err != nil {
			return false
		}
		for _, route := range routes.Items {
			names, _, _ := unstructured.NestedStringSlice(route.Object, "spec", "hostnames")
			for _, name := range names {
				if name == hostOf(r) {
					return true
				}
			}
		}
		return false
	})
}

// serve listens where Paris's gateway does, and answers the requests that are routed.
func (e *env) serve(routed func(*http.Request) bool) {
	e.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(parisNode, "80"))
	e.must(err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !routed(r) {
			http.Error(w, "no route for "+r.Host, http.StatusNotFound)
		}
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	e.Cleanup(server.Close)
}

func hostOf(r *http.Request) string {
	if host, _, err := net.SplitHostPort(r.Host); err == nil {
		return host
	}
	return r.Host
}

// bar is a Service in Paris with a ready pod.
func (e *env) bar() {
	e.Helper()
	e.kubectl(e.paris, "create", "service", "clusterip", "bar", "--tcp=80")
	e.must(e.paris.CreateReadyPod(e.ctx, harness.Pod{Namespace: "default", App: "bar", Node: "of-bar", IP: "10.1.2.3"}))
}
