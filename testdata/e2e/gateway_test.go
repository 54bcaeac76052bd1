package e2e

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestGatewayAddressChanges(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	var all []string
	for i := range 20 {
		name := fmt.Sprintf("bar%d", i)
		all = append(all, name)
		r.export(name)
	}
	e.daemon([]*remote{r})
	lead := func(addresses ...string) {
		t.Helper()
		for _, name := range all {
			e.soon(name, r.mirrored(name, addresses...))
		}
	}
	lead("203.0.113.1")
	before := e.identities()
	for _, addresses := range [][]string{
		{"203.0.113.2"},
		{"203.0.113.1", "203.0.113.2", "203.0.113.3"},
		{},
		{"203.0.113.9"},
	} {
		r.gateway(addresses...)
		lead(addresses...)
	}
	e.sameIdentities(before)

	lead("203.0.113.9")
	since := london.mark(t)
	r.gateway("203.0.113.9", "203.0.113.9")
	e.stays("what was", r.mirrored("bar7", "203.0.113.9"))
	e.noWrites(since)
}

func TestGatewayComesAfterTheExport(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway()
	d := e.daemon([]*remote{r})
	r.export("bar")
	e.soon("a mirror without addresses", r.mirrored("bar"))
	e.logs(d, "has no address yet")
	if n := d.logged("has no address yet"); n != 1 {
		t.Errorf("the gateway without an address is logged %d times, want once", n)
	}
	r.gateway("203.0.113.1")
	e.soon("an address", r.mirrored("bar", "203.0.113.1"))
	before := e.identities()
	e.remove(r.cluster, "gateway")
	e.soon("no address", r.mirrored("bar"))
	r.gateway("203.0.113.2")
	e.soon("the new address", r.mirrored("bar", "203.0.113.2"))
	e.sameIdentities(before)
}

func TestManyAddresses(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	// London has only IPv4.
	r.gateway("203.0.113.9", "2001:db8::1", "203.0.113.1", "203.0.113.9", "2001:db8::1", "203.0.113.5")
	r.export("bar")
	e.daemon([]*remote{r})
	sorted := []string{"203.0.113.1", "203.0.113.5", "203.0.113.9"}
	e.soon("the addresses of London's family, sorted", r.mirrored("bar", sorted...))
	since := london.mark(t)
	r.gateway("203.0.113.5", "203.0.113.1", "2001:db8::1", "203.0.113.9")
	e.stays("the same", r.mirrored("bar", sorted...))
	e.noWrites(since)
	r.export("baz") // created when the families are known: nothing to remove
	e.soon("another mirror", r.mirrored("baz", sorted...))
	r.gateway("2001:db8::1")
	e.soon("no address of London's family", r.mirrored("bar"))
}

func TestAddressOverride(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.export("bar")
	d := runDaemon(t, "--kubeconfig", e.kubeconfig, "--export-selector", exportLabel+"="+e.id,
		"--remote", r.name+"="+r.kubeconfig+",address=203.0.113.2,address=203.0.113.1,gateway-port=8080")
	e.soon("the addresses of the flag", r.mirrored("bar", "203.0.113.1", "203.0.113.2"))
	d.stop()
	for _, request := range paris.requests(t, e.id, auditMark{}) {
		if request.ObjectRef.Namespace != "" && request.ObjectRef.Name != "kube-system" {
			t.Errorf("a gateway Service that is not needed is read: %v", request)
		}
	}
}

func TestPortsChange(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort })
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	before := e.identities()
	h2c := "kubernetes.io/h2c"
	for _, step := range []struct {
		what   string
		change func(*corev1.ServiceSpec)
	}{
		{"a port's number", func(spec *corev1.ServiceSpec) { spec.Ports[0].Port = 81 }},
		{"a port more", func(spec *corev1.ServiceSpec) {
			spec.Ports = append(spec.Ports, corev1.ServicePort{Name: "grpc", Port: 9090, AppProtocol: &h2c})
		}},
		{"a UDP port", func(spec *corev1.ServiceSpec) {
			spec.Ports = append(spec.Ports, corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP})
		}},
		{"a port's name", func(spec *corev1.ServiceSpec) { spec.Ports[1].Name = "rpc" }},
		{"the order", func(spec *corev1.ServiceSpec) {
			spec.Ports[0], spec.Ports[2] = spec.Ports[2], spec.Ports[0]
		}},
		{"the first port less", func(spec *corev1.ServiceSpec) { spec.Ports = spec.Ports[1:] }},
		{"session affinity", func(spec *corev1.ServiceSpec) { spec.SessionAffinity = corev1.ServiceAffinityClientIP }},
	} {
		e.change(r.cluster, "bar", func(svc *corev1.Service) { step.change(&svc.Spec) })
		e.soon(step.what, r.mirrored("bar", "203.0.113.1"))
	}
	e.soon("session affinity", func() error {
		if affinity := e.service(r.mirror("bar")).Spec.SessionAffinity; affinity != corev1.ServiceAffinityClientIP {
			return fmt.Errorf("session affinity is %s", affinity)
		}
		return nil
	})
	e.sameIdentities(before)

	since := london.mark(t)
	e.change(r.cluster, "bar", func(svc *corev1.Service) {
		for i := range svc.Spec.Ports {
			svc.Spec.Ports[i].NodePort = 0 // another is allocated
		}
		svc.Spec.Type = corev1.ServiceTypeClusterIP
		svc.Annotations = map[string]string{"example.com/changed": "yes"}
	})
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	e.noWrites(since)
}

func TestCopiedMetadata(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar", func(svc *corev1.Service) {
		svc.Labels["argocd.argoproj.io/instance"] = "shop"
		svc.Labels["app.kubernetes.io/managed-by"] = "somebody"
		svc.Labels["team"] = "red"
		svc.Annotations = map[string]string{
			"external-dns.alpha.kubernetes.io/hostname":             "bar.example.com",
			"service.beta.kubernetes.io/aws-load-balancer-internal": "true",
			"kubectl.kubernetes.io/last-applied-configuration":      "{}",
			"service-mirror.io/remote-service":                      "kube-system/forged",
			"service-mirror.io/cluster-uid":                         "forged",
			"example.com/owner":                                     "red",
			"example.com/secret":                                    "no",
		}
	})
	e.daemon([]*remote{r}, "--copy-labels", "team", "--copy-annotations", "example.com/owner")
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	system, err := paris.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
	e.must(err)
	mirror := e.service(r.mirror("bar"))
	wantLabels := map[string]string{"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": r.name, "team": "red"}
	wantAnnotations := map[string]string{
		"service-mirror.io/mirror":         e.id + "/" + r.mirror("bar"),
		"service-mirror.io/remote-service": e.id + "/bar",
		"service-mirror.io/cluster-uid":    string(system.UID),
		"example.com/owner":                "red",
	}
	if snapshot(mirror.Labels) != snapshot(wantLabels) || snapshot(mirror.Annotations) != snapshot(wantAnnotations) {
		t.Errorf("labels %v and annotations %v, want %v and %v", mirror.Labels, mirror.Annotations, wantLabels, wantAnnotations)
	}
	e.change(r.cluster, "bar", func(svc *corev1.Service) {
		delete(svc.Labels, "team")
		svc.Annotations["example.com/owner"] = "blue"
	})
	e.soon("the copies follow", func() error {
		mirror := e.service(r.mirror("bar"))
		if _, ok := mirror.Labels["team"]; ok || mirror.Annotations["example.com/owner"] != "blue" {
			return fmt.Errorf("labels %v, annotations %v", mirror.Labels, mirror.Annotations)
		}
		return nil
	})
}
