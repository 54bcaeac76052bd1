package e2e

import (
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// While a hostname has never been resolved existing addresses stay, except those that the
// gateway is known to have lost, and has replaced, and those that are refused.
func TestUnresolvedHostnameKeepsNoLostAddress(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1", "never.example.com")
	r.export("bar")
	e.daemon([]*remote{r}, n.flags()...)
	e.soon("the address", r.mirrored("bar", "203.0.113.1"))
	r.gateway("203.0.113.2", "never.example.com")
	e.soon("the other address", r.mirrored("bar", "203.0.113.2"))
	endpoints := e.endpoints(r.mirror("bar"))
	endpoints.Subsets[0].Addresses = append(endpoints.Subsets[0].Addresses, corev1.EndpointAddress{IP: "10.96.200.6"})
	_, err := london.CoreV1().Endpoints(e.id).Update(e.ctx, endpoints, metav1.UpdateOptions{})
	e.must(err)
	e.soon("a refused address added by hand goes", r.mirrored("bar", "203.0.113.2"))
}

func TestRefusedWhileDNSFails(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.1", "203.0.113.2")
	r.gateway(gatewayHost)
	r.export("bar")
	d := e.daemon([]*remote{r}, n.flags()...)
	e.soon("both", r.mirrored("bar", "203.0.113.1", "203.0.113.2"))
	d.stop()
	n.set(gatewayHost, answer{code: dns.RcodeServerFailure})
	d = e.daemon([]*remote{r}, append(n.flags(), "--gateway-deny", "203.0.113.2")...)
	e.logs(d, gatewayHost, "DNS lookup failed")
	e.soon("the other", r.mirrored("bar", "203.0.113.1"))
}
