package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	portsAnnotation = "service-mirror.io/gateway-ports"
	reservedGateway = "203.0.113.1"
)

// reserving is a remote whose gateway has ports to reserve, 15432 to 15436 of
// TCP and 15353 of UDP, and whose ConfigMaps may be read by their names.
func (e *env) reserving(c *cluster) *remote {
	e.Helper()
	r := e.remote(c)
	_, err := c.RbacV1().Roles(e.id).Create(e.ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: "reserved"},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"tcp", "udp"}, Verbs: []string{"list", "watch"},
		}},
	}, metav1.CreateOptions{})
	e.must(err)
	r.bindReserved()
	r.keys = fmt.Sprintf(",tcp-services=%[1]s/tcp,udp-services=%[1]s/udp", e.id)
	r.gateway(reservedGateway)
	e.change(c, "gateway", func(svc *corev1.Service) {
		for port := int32(15432); port <= 15436; port++ {
			svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(port, corev1.ProtocolTCP))
		}
		svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(15353, corev1.ProtocolUDP))
	})
	return r
}

func (r *remote) bindReserved() {
	r.env.Helper()
	_, err := r.RbacV1().RoleBindings(r.env.id).Create(r.env.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "reserved"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.env.id, Name: r.env.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "reserved"},
	}, metav1.CreateOptions{})
	r.env.must(err)
}

func gatewayPort(port int32, protocol corev1.Protocol) corev1.ServicePort {
	return corev1.ServicePort{Name: fmt.Sprintf("%s-%d", strings.ToLower(string(protocol)), port), Port: port, Protocol: protocol}
}

// reserve creates a ConfigMap of reserved ports, or changes it.
func (r *remote) reserve(name string, entries map[string]string) {
	r.env.Helper()
	api := r.CoreV1().ConfigMaps(r.env.id)
	configMap := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: entries}
	_, err := api.Create(r.env.ctx, configMap, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = api.Update(r.env.ctx, configMap, metav1.UpdateOptions{})
	}
	r.env.must(err)
}

// entry is the value that reserves a port for a Service of the test.
func (r *remote) entry(service, port string) string { return r.env.id + "/" + service + ":" + port }

// postgres is an exported Service that no gateway port serves unless one is
// reserved; change may annotate it.
func (r *remote) postgres(name string, annotation ...string) {
	r.env.Helper()
	r.export(name, func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{{Name: "pg", Port: 5432}}
		if len(annotation) > 0 {
			svc.Annotations = map[string]string{portsAnnotation: annotation[0]}
		}
	})
}

func (r *remote) annotate(name, annotation string) {
	r.env.Helper()
	r.annotateWith(name, portsAnnotation, annotation)
}

func TestReservedPorts(t *testing.T) {
	e := newEnv(t)
	r := e.reserving(paris)
	r.reserve("tcp", map[string]string{
		"15432": r.entry("postgres", "5432"),
		"15433": r.entry("named", "pg"), // as ingress-nginx takes names too
		"15434": "elsewhere/postgres:5432",
	})
	r.reserve("udp", nil)
	for _, name := range []string{"postgres", "named", "none"} {
		r.postgres(name)
	}
	since := paris.mark(t)
	d := e.daemon([]*remote{r})
	e.soon("by number", r.leads("postgres", to("pg:15432", reservedGateway)...), r.slicesLead("postgres", to("pg:15432", reservedGateway)...))
	e.soon("by name", r.leads("named", to("pg:15433", reservedGateway)...))
	e.soon("none reserved", r.leads("none"))
	e.logs(d, "PortNotServed", "/none", "pg (5432/TCP)")
	if got := ports(e.service(r.mirror("postgres"))); !slices.Equal(got, []string{"pg:5432/TCP "}) {
		t.Errorf("the mirror has ports %v", got)
	}
	before := e.identities()

	r.reserve("tcp", map[string]string{"15435": r.entry("postgres", "5432"), "15433": r.entry("named", "pg"), "15436": r.entry("none", "5432")})
	e.soon("the ConfigMap has changed", r.leads("postgres", to("pg:15435", reservedGateway)...), r.leads("none", to("pg:15436", reservedGateway)...))
	r.annotate("postgres", "5432=15434")
	e.soon("the annotation counts", r.leads("postgres", to("pg:15434", reservedGateway)...))
	r.reserve("tcp", map[string]string{"15435": r.entry("postgres", "5432"), "15433": r.entry("named", "pg")})
	e.soon("one less", r.leads("none"))
	e.must(r.leads("postgres", to("pg:15434", reservedGateway)...)())
	r.annotate("postgres", "")
	e.soon("the ConfigMap counts", r.leads("postgres", to("pg:15435", reservedGateway)...))

	e.must(paris.CoreV1().ConfigMaps(e.id).Delete(e.ctx, "tcp", metav1.DeleteOptions{}))
	e.soon("no ConfigMap", r.leads("postgres"), r.leads("named"))
	e.logs(d, "ConfigMap "+e.id+"/tcp", "does not exist")
	r.reserve("tcp", map[string]string{"15432": r.entry("postgres", "5432"), "15433": r.entry("named", "pg")})
	e.soon("it is there again", r.leads("postgres", to("pg:15432", reservedGateway)...), r.leads("named", to("pg:15433", reservedGateway)...))
	e.sameIdentities(before)
	d.stop()

	mark := london.mark(t)
	d = e.daemon([]*remote{r})
	e.stays("the same over a restart", r.leads("postgres", to("pg:15432", reservedGateway)...))
	d.stop()
	// If it can no longer be read, nothing changes.
	e.must(paris.RbacV1().RoleBindings(e.id).Delete(e.ctx, "reserved", metav1.DeleteOptions{}))
	d = e.daemon([]*remote{r})
	e.logs(d, "ConfigMap", e.id+"/tcp", "forbidden")
	e.stays("what was known", r.leads("postgres", to("pg:15432", reservedGateway)...))
	e.noWrites(mark)
	r.bindReserved()
	r.reserve("tcp", map[string]string{"15436": r.entry("postgres", "5432")})
	e.soon("it may be read", r.leads("postgres", to("pg:15436", reservedGateway)...))

	requests := 0
	for _, request := range paris.requests(t, e.id, since) {
		if request.ObjectRef.Resource != "configmaps" {
			continue
		}
		requests++
		if name := request.ObjectRef.Name; name != "tcp" && name != "udp" || !slices.Contains([]string{"list", "watch"}, request.Verb) {
			t.Errorf("not by name alone: %v of %q", request, request.RequestURI)
		}
	}
	if requests == 0 {
		t.Error("no ConfigMap was requested")
	}
}

func TestReservedPortMistakes(t *testing.T) {
	e := newEnv(t)
	r := e.reserving(paris)
	r.reserve("tcp", map[string]string{
		"15432": r.entry("postgres", "5432"),
		"15433": r.entry("proxied", "5432") + ":PROXY",
		"http":  r.entry("badkey", "5432"),
		"15434": "no-namespace:5432",
		"15499": r.entry("absent", "5432"),
	})
	r.reserve("udp", nil)
	for _, name := range []string{"postgres", "proxied", "badkey", "absent"} {
		r.postgres(name)
	}
	d := e.daemon([]*remote{r})
	e.soon("what is right", r.leads("postgres", to("pg:15432", reservedGateway)...))
	configMap := "ConfigMap " + e.id + "/tcp"
	e.logs(d, "is failing", configMap)
	e.logs(d, `entry \"15433\"`, "PROXY")
	e.logs(d, `entry \"http\"`, "not a port number")
	e.logs(d, `entry \"15434\"`, "no-namespace:5432", "NAMESPACE/SERVICE:PORT")
	e.logs(d, e.id+"/absent", "15499", "the gateway Service does not have that port", "tcp-15436 (15436/TCP)")
	e.soon("no addresses", r.leads("proxied"), r.leads("badkey"), r.leads("absent"))
	over := func() int { return d.logged(configMap, "recovered") }
	if over() != 0 {
		t.Error("it is called healthy while it is not")
	}
	r.reserve("tcp", map[string]string{
		"15432": r.entry("postgres", "5432"), "15433": r.entry("proxied", "5432"), "15434": r.entry("badkey", "5432"), "15499": r.entry("absent", "5432"),
	})
	e.soon("fixed", r.leads("proxied", to("pg:15433", reservedGateway)...), r.leads("badkey", to("pg:15434", reservedGateway)...))
	e.soon("said to be", func() error {
		if n := over(); n != 1 {
			return fmt.Errorf("%d times", n)
		}
		return nil
	})
	e.change(paris, "gateway", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(15499, corev1.ProtocolTCP))
	})
	e.soon("the gateway listens", r.leads("absent", to("pg:15499", reservedGateway)...))
	e.logs(d, "no longer has this problem", "PortNotServed", "/absent")
	e.change(paris, "gateway", func(svc *corev1.Service) {
		svc.Spec.Ports = slices.DeleteFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Port == 15432 })
	})
	e.soon("it listens no more", r.leads("postgres"))
	e.logs(d, e.id+"/postgres", "15432", "the gateway Service does not have that port")

	e.change(paris, "gateway", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(15432, corev1.ProtocolTCP))
	})
	e.soon("it listens again", r.leads("postgres", to("pg:15432", reservedGateway)...))

	// Annotations.
	for annotation, words := range map[string][]string{
		"5432":               {`entry \"5432\"`, "PORT=GATEWAYPORT"},
		"5432=abc":           {`entry \"5432=abc\"`, "PORT=GATEWAYPORT"},
		"5432=15435/UDP":     {"TCP cannot be routed to UDP"},
		"5432=17000":         {"17000/TCP", "does not have that port"},
		"5432=15434":         {"15434/TCP is reserved for", "/badkey"},
		"5432=15435,5432=15": {"port 5432 is set twice"},
	} {
		r.annotate("postgres", annotation)
		e.logs(d, append(words, "PortNotServed", e.id+"/postgres")...)
	}
	r.annotate("postgres", "5432=15435")
	e.soon("a good one", r.leads("postgres", to("pg:15435", reservedGateway)...))
}

func TestTwoServicesOnOneReservedPort(t *testing.T) {
	e := newEnv(t)
	r := e.reserving(paris)
	r.reserve("tcp", nil)
	r.reserve("udp", nil)
	r.postgres("a", "5432=15432")
	r.postgres("b", "5432=15432")
	r.postgres("c", "5432=15433")
	d := e.daemon([]*remote{r})
	a, b, c := to("pg:15432", reservedGateway), to("pg:15432", reservedGateway), to("pg:15433", reservedGateway)
	e.soon("the first has it", r.leads("a", a...), r.leads("b"), r.leads("c", c...))
	e.logs(d, e.id+"/b", "15432/TCP is reserved for "+e.id+"/a")
	since := london.mark(t)
	d.stop()
	d = e.daemon([]*remote{r})
	e.stays("the same over a restart", r.leads("a", a...), r.leads("b"))
	e.noWrites(since)
	r.annotate("a", "")
	e.soon("the other has it", r.leads("a"), r.leads("b", b...))
	e.logs(d, "no longer has this problem", e.id+"/b")
	r.annotate("a", "5432=15432")
	e.soon("the first again", r.leads("a", a...), r.leads("b"))
	e.change(paris, "a", e.unlabel)
	e.soon("no first", r.gone("a"), r.leads("b", b...))
	// An annotation cannot take a port that the ConfigMap reserves.
	r.reserve("tcp", map[string]string{"15432": r.entry("c", "5432")})
	e.soon("the ConfigMap has it for another", r.leads("b"), r.leads("c", c...))
	e.logs(d, e.id+"/b", "15432/TCP is reserved for "+e.id+"/c")
	r.annotate("c", "")
	e.soon("and that one takes it", r.leads("c", to("pg:15432", reservedGateway)...))
	r.reserve("tcp", nil)
	e.soon("it is free", r.leads("b", b...), r.leads("c"))
	e.change(paris, "a", e.label)
	e.soon("the first once more", r.leads("a", a...), r.leads("b"))
	e.remove(paris, "a")
	e.soon("deleted", r.leads("b", b...))
}

func TestUDPWithAReservedPort(t *testing.T) {
	e := newEnv(t)
	r := e.reserving(paris)
	r.reserve("tcp", nil)
	r.reserve("udp", nil)
	r.export("dns", func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	})
	r.export("both", func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{
			{Name: "dns-tcp", Port: 53}, {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
		}
	})
	d := e.daemon([]*remote{r})
	e.logs(d, "NoTCPPort", e.id+"/dns", "no gateway port is reserved")
	e.soon("no mirror", r.gone("dns"))
	r.reserve("udp", map[string]string{"15353": r.entry("dns", "53")})
	udp := to("dns:15353/UDP", reservedGateway)
	e.soon("a mirror", r.leads("dns", udp...), r.slicesLead("dns", udp...))
	if got := ports(e.service(r.mirror("dns"))); !slices.Equal(got, []string{"dns:53/UDP "}) {
		t.Errorf("the mirror has ports %v", got)
	}
	before := e.identities()

	// What is not known is not empty: over a restart it stays.
	since := london.mark(t)
	r.proxy.cut()
	d.stop()
	d = e.daemon([]*remote{r})
	e.stays("in an outage", r.leads("dns", udp...))
	r.proxy.heal()
	e.stays("after it", r.leads("dns", udp...))
	d.stop()
	e.must(paris.RbacV1().RoleBindings(e.id).Delete(e.ctx, "reserved", metav1.DeleteOptions{}))
	d = e.daemon([]*remote{r})
	e.logs(d, "ConfigMap", e.id+"/udp", "forbidden")
	e.stays("its ConfigMap may not be read", r.leads("dns", udp...))
	r.bindReserved()
	e.stays("and may be", r.leads("dns", udp...))
	e.noWrites(since)
	e.sameIdentities(before)

	r.reserve("udp", nil)
	e.soon("nothing reserved", r.gone("dns"))
	e.logs(d, "NoTCPPort", e.id+"/dns")
	r.annotate("dns", "53/UDP=15353/UDP")
	e.soon("an annotation will do", r.leads("dns", udp...))
	r.annotate("dns", "53=15432") // of TCP, which it does not have
	e.soon("that is not its port", r.gone("dns"))
	r.annotate("dns", "53/UDP=15353")
	e.soon("the short form", r.leads("dns", udp...))

	// Both protocols under one number.
	r.annotate("dns", "")
	r.annotate("both", "53=15432,53/UDP=15353")
	e.soon("TCP and UDP", r.leads("both", reservedGateway+" dns-tcp:15432", reservedGateway+" dns:15353/UDP"))
}
