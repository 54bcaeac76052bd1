package preflight

import (
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// A Service with UDP alone is mirrored where a ConfigMap reserves a port for it: the
// check must not say that it is not.
func TestReservedPortsCount(t *testing.T) {
	dns := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "dns"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}},
	}
	reserves := func(entry string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "udp-services"}, Data: map[string]string{"15353": entry}}
	}
	const none = "! paris: shop/dns will not be mirrored: it has no TCP port, and no gateway port is reserved for it\n+ paris: 1 Services are exported, 0 of them can be mirrored\n"
	for name, test := range map[string]struct {
		objects []runtime.Object
		config  gateway.Config
		want    string
	}{
		"none is named": {[]runtime.Object{dns, reserves("shop/dns:53")}, gateway.Config{}, none},
		"for it":        {[]runtime.Object{dns, reserves("shop/dns:53")}, named, "+ paris: 1 Services are exported, 1 of them can be mirrored\n"},
		"for another":   {[]runtime.Object{dns, reserves("shop/other:53")}, named, none},
		"missing":       {[]runtime.Object{dns}, named, "! paris: ConfigMap ingress/udp-services does not exist: no port is reserved\n" + none},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r := &report{cluster: "paris", out: &out}
			spec := remote.Spec{Name: "paris", Gateways: []gateway.Config{test.config}}
			r.exports(t.Context(), fake.NewClientset(test.objects...), nil, Options{}, spec)
			if out.String() != test.want {
				t.Errorf("it says\n%swant\n%s", &out, test.want)
			}
		})
	}
}

var named = gateway.Config{UDPServices: cache.NewObjectName("ingress", "udp-services")}
