package gateway

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

func TestReadAPI(t *testing.T) {
	config := Config{Service: cache.NewObjectName("ingress", "public"), API: true}
	if got := config.Name(); got != "gateway-api:ingress/public" {
		t.Errorf("its name is %q", got)
	}
	listeners := []Listener{
		{Name: "web", Port: 80, Protocol: "HTTP"}, {Name: "secure", Port: 443, Protocol: "HTTPS"}, {Name: "pass", Port: 9443, Protocol: "TLS"}, {Name: "pg", Port: 15000, Protocol: "TCP"},
		{Name: "dns", Port: 53, Protocol: "UDP"}, {Name: "http", Port: 15008, Protocol: "example.com/hbone"}, {Name: "web", Port: 80, Protocol: "HTTP"},
	}
	for _, test := range []struct {
		name    string
		from    *APIGateway
		wantErr string
	}{
		{name: "absent", wantErr: "Gateway ingress/public does not exist: create it, or set another one with gateway=gateway-api:NAMESPACE/NAME"},
		{name: "no address", from: &APIGateway{Listeners: listeners}, wantErr: "Gateway ingress/public has no address yet: check its conditions"},
		{name: "not programmed", from: &APIGateway{IPs: []string{"192.0.2.1"}, Listeners: listeners, Problems: []string{"is not programmed (x)"}}, wantErr: "Gateway ingress/public is not programmed (x)"},
		{name: "a listener", from: &APIGateway{IPs: []string{"192.0.2.1"}, Listeners: append(listeners, Listener{Name: "bad", Port: 8443, Protocol: "HTTPS", Problem: "no certificate"})},
			wantErr: `listener "bad" of Gateway ingress/public is not served: no certificate: fix the listener`},
		{name: "as it should be", from: &APIGateway{IPs: []string{"192.0.2.1"}, Listeners: listeners}},
	} {
		t.Run(test.name, func(t *testing.T) {
			entrance, err := config.ReadAPI(test.from, Filter{})
			checkErr(t, err, test.wantErr)
			gw, _ := entrance.Gateway(nil, true, Filter{})
			if test.from == nil {
				if len(gw.Ports)+len(gw.Addresses) != 0 {
					t.Errorf("got %+v", gw)
				}
				return
			}
			if len(gw.Ports) != len(listeners)-1 || len(gw.Addresses) != len(test.from.IPs) {
				t.Errorf("got %+v", gw)
			}
			for exported, want := range map[*corev1.ServicePort]int32{
				{Name: "http", Port: 8080}: 80, {Name: "https", Port: 8443}: 443, {Name: "metrics", Port: 9090}: 80, {Name: "db", Port: 5432}: 0,
				{Name: "pg", Port: 15000}: 80, {Name: "http", Port: 15008}: 80, {Name: "grpc", Port: 50051}: 0, {Name: "dns", Port: 53, Protocol: udp}: 0,
			} {
				if got := gw.one(*exported); got.Target != want || (got.Problem == nil) != (want != 0) {
					t.Errorf("%s: got %v (%v), want %d", describe(*exported), got, got.Problem, want)
				}
			}
			if got := gw.one(port("db", 5432, tcp, ""), PortAnnotation, "pg"); got.Target != 15000 {
				t.Errorf("got %v (%v)", got, got.Problem)
			}
			checkErr(t, gw.one(port("grpc", 1, tcp, "")).Problem, "no listener of the Gateway serves HTTP/2 without TLS")
			checkErr(t, gw.one(port("db", 5432, tcp, ""), PortsAnnotation, "5432=7").Problem, "the Gateway does not have a listener for it")
		})
	}
}

func TestParseName(t *testing.T) {
	for text, want := range map[string]Config{
		"ingress/gateway": {Service: cache.NewObjectName("ingress", "gateway")}, "gateway-api:ingress/public.v1": {Service: cache.NewObjectName("ingress", "public.v1"), API: true},
		"": {}, "gateway": {}, "gateway-api:": {}, "gateway-api:x": {}, "gateway-api:a/b/c": {}, "a/b.c": {}, "gateway-api:gateway-api:a/b": {}, "a/B": {},
	} {
		name, api, err := ParseName(text)
		if got := (Config{Service: name, API: api}); !reflect.DeepEqual(got, want) || (err == nil) != (want.Service != cache.ObjectName{}) {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}
