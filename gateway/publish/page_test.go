package publish

import (
	"context"
	"reflect"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"service-mirror.io/service-mirror/mirror/status"
)

// The page has what is exported, how it is reached and what is wrong. A standby knows of the records alone.
func TestPage(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.server.put("services", exportedService("db", 3306)) // the only listener for it is bar's by then
		w.wait(time.Second)
		page := w.controller.Page()
		if !page.Leader || !page.Synced || len(page.Problems) > 0 || len(page.Targets) != 1 || len(page.Services) != 2 {
			t.Fatalf("got %+v", page)
		}
		wantTarget := status.Target{Kind: "gateway-api", Name: "Gateway ingress/public", State: status.Down, Problem: "Accepted is not true: not reported by any implementation yet",
			Listeners: []status.Listener{{Name: "http", Port: 80, Protocol: "HTTP"}, {Name: "tcp-15000", Port: 15000, Protocol: "TCP"}}}
		if got := page.Targets[0]; !reflect.DeepEqual(got, wantTarget) {
			t.Errorf("the target is\n%+v, want\n%+v", got, wantTarget)
		}
		bar := status.Service{Namespace: "default", Name: "bar", State: status.Published, Routes: []string{"HTTPRoute bar.service-mirror", "TCPRoute bar.5432.service-mirror"},
			Hosts: []string{"bar-paris.default", "bar-paris.default.svc", "bar-paris.default.svc.cluster.local", "bar.default", "bar.default.svc", "bar.default.svc.cluster.local"},
			Ports: []status.Port{{Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 80, Shared: true}, {Port: 5432, Protocol: "TCP", Class: "tcp", GatewayPort: 15000}}}
		if got := page.Services[0]; !reflect.DeepEqual(got, bar) {
			t.Errorf("bar is\n%+v, want\n%+v", got, bar)
		}
		if db := page.Services[1]; db.State != status.Incomplete || len(db.Problems) != 1 || db.Problems[0].Reason != "PortNotServed" || len(db.Ports) != 1 || db.Ports[0].GatewayPort != 0 {
			t.Errorf("db is %+v", db)
		}

		gw := w.server.get("gateways", "ingress", "public").(*unstructured.Unstructured).DeepCopy()
		met := func(of string) any { return map[string]any{"type": of, "status": "True"} }
		gw.Object["status"] = map[string]any{"conditions": []any{met("Accepted"), met("Programmed")}}
		w.server.put("gateways", gw)
		w.wait(time.Second)
		if got := w.controller.Page().Targets[0]; got.State != status.Up || got.Problem != "" {
			t.Errorf("accepted, the target is %+v", got)
		}
		w.server.drop("gateways", "ingress", "public")
		w.wait(time.Second)
		if got := w.controller.Page().Targets[0]; got.State != status.Down || got.Problem == "" || len(got.Listeners) > 0 {
			t.Errorf("deleted, the target is %+v", got)
		}
	})
}

// What a standby shows of a Service is what its record says, and no problem.
func TestPageOfAStandby(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.stop()
		w.server.put("services", exportedService("new", 80))
		ctx, cancel := context.WithCancel(w.Context())
		ended := make(chan struct{})
		standby := New(w.server.clients(), w.controller.options, w.controller.logger)
		go func() { defer close(ended); standby.Run(ctx) }()
		<-standby.Ready()
		w.wait(time.Second)
		page := standby.Page()
		if page.Leader || len(page.Services) != 2 || page.Services[0].State != status.Published || len(page.Services[0].Ports) != 2 ||
			page.Services[1].State != status.Waiting || len(page.Services[1].Ports) > 0 {
			t.Errorf("got %+v", page)
		}
		cancel()
		<-ended
	})
}

// While the Gateway cannot be read, nothing is shown as published that is not.
func TestPageOfUnknownGateway(t *testing.T) {
	in(t, func(w *world) {
		w.server.unreadable = "gateways"
		w.start()
		w.wait(time.Minute)
		if got := w.controller.Page().Services[0]; got.State == status.Published {
			t.Errorf("no record, no routes, no Gateway read: %+v", got)
		}
	})
}
