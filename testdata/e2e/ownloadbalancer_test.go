package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// loadBalancer gives London a LoadBalancer Service of its own with an ingress address; none
// takes the address away.
func (e *env) loadBalancer(name string, ingress ...string) {
	e.Helper()
	services := london.CoreV1().Services(e.id)
	if _, err := services.Get(e.ctx, name, metav1.GetOptions{}); err != nil {
		_, err := services.Create(e.ctx, &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Port: 443}}},
		}, metav1.CreateOptions{})
		e.must(err)
	}
	entries := []map[string]string{}
	for _, ip := range ingress {
		entries = append(entries, map[string]string{"ip": ip})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": entries}}})
	e.must(err)
	_, err = services.Patch(e.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	e.must(err)
}

// refuses checks that the page names an address as refused, and why, where it shows the gateway.
func (d *daemon) refuses(r *remote, words ...string) func() error {
	return func() error {
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Remotes {
			if row.Name != r.name || len(row.Gateways) != 1 {
				continue
			}
			for _, word := range words {
				if !strings.Contains(row.Gateways[0].Problem, word) {
					return fmt.Errorf("the page says of the gateway %q, want %q in it", row.Gateways[0].Problem, word)
				}
			}
			return nil
		}
		return fmt.Errorf("remote %s and its gateway are not on the page", r.name)
	}
}

// Traffic for an address of one of London's own LoadBalancers would stay in London.
func TestOwnLoadBalancerIsRefused(t *testing.T) {
	const own, later, good = "203.0.113.77", "203.0.113.78", "203.0.113.1"
	e := newEnv(t)
	r := e.remote(paris)
	e.loadBalancer("ingress", own)
	r.gateway(own)
	r.export("bar")
	seen := e.everSeen()
	d := e.inPod([]*remote{r})
	e.soon("a mirror without it", r.mirrored("bar"), d.refuses(r, own, "LoadBalancer"),
		d.measures(map[string]float64{r.failing("gateway"): 1, r.state("incomplete"): 1}))
	e.soon("one Event", r.podTells(gatewayReasons, warned("GatewayFailing", 1)))
	e.stays("one Event", r.mirrored("bar"), r.podTells(gatewayReasons, warned("GatewayFailing", 1)))
	r.gateway(own, good)
	e.soon("the other address alone", r.mirrored("bar", good), d.refuses(r, own, "LoadBalancer"))
	if ever := seen(); len(ever) != 1 || ever[0] != good {
		t.Errorf("there were addresses %v, want %s alone", ever, good)
	}

	// What is London's own comes and goes.
	r.gateway(later, good)
	e.soon("both addresses", r.mirrored("bar", good, later))
	e.loadBalancer("later", "203.0.113.79", later)
	e.soon("one is a LoadBalancer's now", r.mirrored("bar", good), d.refuses(r, later, "LoadBalancer"))
	e.loadBalancer("later")
	e.soon("it is not any more", r.mirrored("bar", good, later))
	e.loadBalancer("later", later)
	e.soon("it is again", r.mirrored("bar", good))
	e.remove(london, "later")
	e.soon("the LoadBalancer is deleted", r.mirrored("bar", good, later))

	d.stop()
	r.gateway(own, good)
	d = e.daemon([]*remote{r}, append(listening, "--gateway-allow", own+","+good)...)
	e.soon("it is allowed", r.mirrored("bar", good, own), d.measures(map[string]float64{r.failing("gateway"): 0, r.state("mirrored"): 1}))
}
