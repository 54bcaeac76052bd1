package remote

import (
	"maps"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

var tcpServices = cache.NewObjectName("ingress", "tcp-services")

// reserving is a remote with reserved ports, and a second gateway.
func reserving() Spec {
	config := gateway.Config{Service: cache.NewObjectName("ingress", "gateway"), TCPServices: tcpServices}
	more := config
	more.Service.Name = "more"
	return Spec{Gateways: []gateway.Config{config, more}}
}

func (r *rig) reserve(data map[string]string) {
	r.Helper()
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: tcpServices.Namespace, Name: tcpServices.Name, UID: "tcp-services-uid", ResourceVersion: "1"}, Data: data}
	configMaps := r.a().CoreV1().ConfigMaps(tcpServices.Namespace)
	if _, err := configMaps.Update(r.Context(), configMap, metav1.UpdateOptions{}); err == nil {
		return
	}
	if _, err := configMaps.Create(r.Context(), configMap, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
}

func (r *rig) reserved(want gateway.Reserved) {
	r.Helper()
	view, _ := r.View()
	gw, err := view.Gateways.For(service("default", "bar"))
	if err != nil || gw == nil || !maps.Equal(gw.Reserved, want) {
		r.Errorf("got %+v, %v, want %v; log:\n%s", gw, err, want, r.log)
	}
}

func TestReservedPortsFollowTheirConfigMap(t *testing.T) {
	connecting(t, reserving(), true, func(r *rig) {
		r.wait(time.Second)
		r.reserved(nil)
		r.logged(1, "it does not exist, so no ports are reserved: create it")
		r.reserve(map[string]string{"15432": "default/postgres:5432", "x": "y"})
		r.wait(time.Millisecond)
		target := gateway.ReservedFor{Service: cache.NewObjectName("default", "postgres"), Port: "5432", Protocol: corev1.ProtocolTCP}
		r.reserved(gateway.Reserved{target: 15432})
		r.logged(1, "the key is not a port number")
		r.resyncs()
		r.reserve(map[string]string{"15433": "default/postgres:5432"})
		r.wait(time.Millisecond)
		r.reserved(gateway.Reserved{target: 15433})
		if r.resyncs() == 0 {
			r.Error("no resync")
		}
		r.logged(1, "Gateway of remote cluster recovered\" cluster=\"paris\" part=\"ConfigMap ingress/tcp-services\"")
	})
}

// Without what reserves ports nobody can say which port is whose.
func TestReservedPortsThatMayNotBeRead(t *testing.T) {
	connecting(t, reserving(), false, func(r *rig) {
		r.a().refusing(func(action clienttesting.Action) error {
			if action.GetResource().Resource == "configmaps" {
				return errForbidden
			}
			return nil
		})
		r.pointTo("a.example.com")
		r.wait(time.Hour)
		r.known("a-uid", "", "default/bar")
		r.logged(1, `part="watch of the ConfigMap ingress/tcp-services"`)
	})
}

func TestGatewaysFor(t *testing.T) {
	first, second := &gateway.Gateway{Port: "1"}, &gateway.Gateway{Port: "2"}
	all := Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
		{}: first, cache.NewObjectName("a", "first"): first, cache.NewObjectName("a", "second"): second, cache.NewObjectName("a", "unknown"): nil,
	}}
	for text, want := range map[string]*gateway.Gateway{"": first, "a/first": first, "a/second": second, "a/unknown": nil} {
		svc := service("default", "bar")
		svc.Annotations = map[string]string{gateway.Annotation: text}
		if got, err := all.For(svc); got != want || err != nil {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"a/third", "a", "/", "a/b/c"} {
		svc := service("default", "bar")
		svc.Annotations = map[string]string{gateway.Annotation: text}
		if got, err := all.For(svc); err == nil || got == nil || len(got.Addresses) > 0 {
			t.Errorf("%q: got %+v, %v", text, got, err)
		}
	}
}

func TestSecondGatewayIsFollowed(t *testing.T) {
	connecting(t, reserving(), true, func(r *rig) {
		r.reserve(nil)
		r.wait(time.Second)
		svc := service("default", "bar")
		svc.Annotations = map[string]string{gateway.Annotation: "ingress/more"}
		other := gatewayService("192.0.2.77")
		other.Name = "more"
		if _, err := r.a().CoreV1().Services("ingress").Create(r.Context(), other, metav1.CreateOptions{}); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Millisecond)
		view, _ := r.View()
		if gw, err := view.Gateways.For(svc); err != nil || len(gw.Addresses) != 1 || gw.Addresses[0].String() != "192.0.2.77" {
			r.Errorf("got %+v, %v", gw, err)
		}
		r.known("a-uid", "192.0.2.1", "default/bar")
	})
}
