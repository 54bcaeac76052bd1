package e2e

import (
	"fmt"
	"slices"
	"testing"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// hasFamilies checks that a mirror has a ClusterIP of each family.
func (r *remote) hasFamilies(name string, families ...corev1.IPFamily) func() error {
	return func() error {
		svc, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if !slices.Equal(svc.Spec.IPFamilies, families) || len(svc.Spec.ClusterIPs) != len(families) {
			return fmt.Errorf("%s has families %v and ClusterIPs %v, want %v", svc.Name, svc.Spec.IPFamilies, svc.Spec.ClusterIPs, families)
		}
		return nil
	}
}

func TestManyAddressesOfBothFamilies(t *testing.T) {
	e := newDualStackEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	const other = "other.example.com"
	n.say(gatewayHost, "203.0.113.20", "2001:db8::20", "203.0.113.9", "2001:db8::9", "203.0.113.9")
	n.say(other, "203.0.113.9", "2001:db8::9", "203.0.113.3")
	r.gateway("2001:db8::1", gatewayHost, "203.0.113.20", other, "203.0.113.1", "2001:db8::1", "203.0.113.100", gatewayHost)
	r.export("bar")
	d := e.daemon([]*remote{r}, n.flags()...)
	sorted := []string{
		"203.0.113.1", "203.0.113.3", "203.0.113.9", "203.0.113.20", "203.0.113.100",
		"2001:db8::1", "2001:db8::9", "2001:db8::20",
	}
	e.soon("both families, sorted, once each", r.mirrored("bar", sorted...), r.slicesLead("bar", to("http:8080", sorted...)...),
		r.hasFamilies("bar", corev1.IPv4Protocol, corev1.IPv6Protocol))
	before := e.identities()
	since := e.local.mark(t)
	n.set(other, answer{addresses: []string{"203.0.113.3", "203.0.113.9", "2001:db8::9"}, shuffled: true})
	n.set(gatewayHost, answer{addresses: []string{"2001:db8::9", "203.0.113.9", "2001:db8::20", "203.0.113.20"}, shuffled: true})
	r.gateway(other, "203.0.113.100", "2001:db8::1", gatewayHost, "203.0.113.1")
	e.refreshed(n, gatewayHost)
	e.stays("the same", r.mirrored("bar", sorted...))
	d.stop()
	e.daemon([]*remote{r}, n.flags()...)
	e.refreshed(n, gatewayHost)
	e.stays("the same over a restart", r.mirrored("bar", sorted...))
	e.noWrites(since)

	for _, step := range []struct {
		what      string
		ingress   []string
		addresses []string
	}{
		{"IPv6 alone", []string{"2001:db8::7"}, []string{"2001:db8::7"}},
		{"IPv4 alone", []string{"203.0.113.7"}, []string{"203.0.113.7"}},
		{"a hostname with both", []string{gatewayHost}, []string{"203.0.113.9", "203.0.113.20", "2001:db8::9", "2001:db8::20"}},
	} {
		r.gateway(step.ingress...)
		e.soon(step.what, r.mirrored("bar", step.addresses...), r.slicesLead("bar", to("http:8080", step.addresses...)...))
	}
	e.sameIdentities(before)
}

func TestOneFamilyFails(t *testing.T) {
	e := newDualStackEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.1", "2001:db8::1")
	r.gateway(gatewayHost)
	r.export("bar")
	d := e.daemon([]*remote{r}, n.flags()...)
	e.soon("both", r.mirrored("bar", "203.0.113.1", "2001:db8::1"))
	n.set(gatewayHost, answer{addresses: []string{"203.0.113.2"}, code6: dns.RcodeServerFailure})
	e.soon("the new A, the last AAAA", r.mirrored("bar", "203.0.113.2", "2001:db8::1"))
	e.logs(d, gatewayHost, "DNS lookup failed")
	n.set(gatewayHost, answer{addresses: []string{"203.0.113.2"}, code6: dns.RcodeNameError})
	e.soon("no AAAA any more", r.mirrored("bar", "203.0.113.2"))
	n.say(gatewayHost, "2001:db8::3")
	e.soon("AAAA alone", r.mirrored("bar", "2001:db8::3"))
	n.set(gatewayHost, answer{code: dns.RcodeServerFailure, code6: dns.RcodeNameError})
	e.refreshed(n, gatewayHost)
	e.stays("what no good answer took away", r.mirrored("bar", "2001:db8::3"))
}

// A mirror that lost a family, like one that was created before the cluster had both.
func TestMirrorGetsTheOtherFamily(t *testing.T) {
	e := newDualStackEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1", "2001:db8::1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	both := []func() error{
		r.hasFamilies("bar", corev1.IPv4Protocol, corev1.IPv6Protocol),
		r.mirrored("bar", "203.0.113.1", "2001:db8::1"),
		r.slicesLead("bar", to("http:8080", "203.0.113.1", "2001:db8::1")...),
	}
	e.soon("both", both...)
	clusterIP := e.service(r.mirror("bar")).Spec.ClusterIP
	for _, running := range []bool{true, false} {
		if !running {
			d.stop()
		}
		e.change(e.local, r.mirror("bar"), func(svc *corev1.Service) {
			single := corev1.IPFamilyPolicySingleStack
			svc.Spec.IPFamilyPolicy = &single
			svc.Spec.IPFamilies, svc.Spec.ClusterIPs = svc.Spec.IPFamilies[:1], svc.Spec.ClusterIPs[:1]
		})
		if !running {
			e.daemon([]*remote{r})
		}
		e.soon("both again", both...)
	}
	if now := e.service(r.mirror("bar")).Spec.ClusterIP; now != clusterIP {
		t.Errorf("the ClusterIP was %s and is %s", clusterIP, now)
	}
}

func TestGatewayDiesOnOneFamily(t *testing.T) {
	e := newDualStackEnv(t)
	r := e.remote(paris)
	address, address6 := e.healthyAddress(), e.healthyAddress6()
	e.openDoors(address, 8080)
	doors := e.openDoors(address6, 8080)
	r.gateway(address, address6)
	r.export("bar")
	e.daemon([]*remote{r}, probing("http")...)
	both := to("http:8080", address, address6)
	e.soon("both", r.leads("bar", both...), r.slicesLead("bar", both...))
	doors.probed(e, 2)
	doors.close()
	one := append(to("http:8080", address), dead(to("http:8080", address6))...)
	e.soon("the other family", r.leads("bar", one...), r.slicesLead("bar", one...))
	doors.open()
	e.soon("both again", r.leads("bar", both...), r.slicesLead("bar", both...))
}
