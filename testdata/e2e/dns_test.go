package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
	corev1 "k8s.io/api/core/v1"
)

const gatewayHost = "lb.example.com"

// exportMany exports n Services and returns the check that all mirrors route to
// some addresses and to no others.
func (r *remote) exportMany(n int) (lead func(addresses ...string)) {
	r.env.Helper()
	for i := range n {
		r.export(fmt.Sprintf("bar%d", i))
	}
	return func(addresses ...string) {
		r.env.Helper()
		for i := range n {
			r.env.soon("every mirror", r.mirrored(fmt.Sprintf("bar%d", i), addresses...))
		}
	}
}

func TestGatewayMovesToAHostname(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	lead := r.exportMany(20)
	d := e.daemon([]*remote{r}, n.flags()...)
	lead("203.0.113.1")
	before := e.identities()
	r.gateway("203.0.113.2")
	lead("203.0.113.2")
	n.say(gatewayHost, "203.0.113.3")
	r.gateway(gatewayHost)
	lead("203.0.113.3")
	n.say(gatewayHost, "203.0.113.5", "203.0.113.4")
	lead("203.0.113.4", "203.0.113.5")
	n.say(gatewayHost, "203.0.113.5")
	lead("203.0.113.5")

	since := london.mark(t)
	n.set(gatewayHost, answer{code: dns.RcodeServerFailure})
	e.logs(d, gatewayHost, "DNS lookup failed", "its last known addresses are used")
	e.refreshed(n, gatewayHost)
	e.stays("the last good set", r.mirrored("bar0", "203.0.113.5"))
	d.stop()
	d = e.daemon([]*remote{r}, n.flags()...)
	e.logs(d, gatewayHost, "DNS lookup failed", "existing endpoints are kept")
	e.refreshed(n, gatewayHost)
	e.stays("the last good set after a restart", r.mirrored("bar0", "203.0.113.5"))
	lead("203.0.113.5")
	e.noWrites(since)
	r.export("late") // of which nothing is known
	e.soon("a mirror without addresses", r.mirrored("late"))
	n.say(gatewayHost, "203.0.113.6")
	lead("203.0.113.6")
	e.soon("the late one", r.mirrored("late", "203.0.113.6"))
	e.remove(paris, "late")
	e.soon("the late one gone", r.gone("late"))
	e.sameIdentities(before)
	d.stop()

	since = london.mark(t)
	e.daemon([]*remote{r}, n.flags()...)
	e.refreshed(n, gatewayHost)
	e.stays("the same over a restart", r.mirrored("bar0", "203.0.113.6"))
	e.noWrites(since)
	if names := n.names(); !slices.Equal(names, []string{gatewayHost + "."}) {
		t.Errorf("queries for %v", names)
	}
}

func TestReorderedAnswers(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	addresses := []string{"203.0.113.1", "203.0.113.2", "203.0.113.3", "203.0.113.4", "203.0.113.5", "203.0.113.6"}
	n.set(gatewayHost, answer{addresses: addresses, shuffled: true})
	r.gateway(gatewayHost)
	r.export("bar")
	e.daemon([]*remote{r}, n.flags()...)
	e.soon("the mirror", r.mirrored("bar", addresses...))
	since, before := london.mark(t), n.count(gatewayHost, dns.TypeA)
	n.set(gatewayHost, answer{addresses: append(addresses, addresses[0]), shuffled: true}) // one of them twice
	e.stays("the same", r.mirrored("bar", addresses...))
	if n := n.count(gatewayHost, dns.TypeA) - before; n < 5 {
		t.Errorf("%d queries, so there were not many orders", n)
	}
	e.noWrites(since)
}

func TestManyMirrorsCostOneLookup(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.1")
	r.gateway(gatewayHost)
	lead := r.exportMany(100)
	start := time.Now()
	e.daemon([]*remote{r}, n.flags()...)
	lead("203.0.113.1")
	n.say(gatewayHost, "203.0.113.2")
	lead("203.0.113.2")
	r.export("another")
	e.soon("another", r.mirrored("another", "203.0.113.2"))
	e.stays("all", r.mirrored("another", "203.0.113.2"))
	lead("203.0.113.2")
	for _, kind := range []uint16{dns.TypeA, dns.TypeAAAA} {
		queries, seconds := n.count(gatewayHost, kind), int(time.Since(start)/time.Second)
		if queries > seconds+2 || queries < seconds/3 {
			t.Errorf("%d %s queries in %d s, want one a second whatever the number of mirrors", queries, dns.TypeToString[kind], seconds)
		}
	}
}

func TestGatewayServiceChangeResolvesAtOnce(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.1")
	r.gateway(gatewayHost)
	r.export("bar")
	e.daemon([]*remote{r}, "--dns-server", n.address, "--dns-refresh", "10m")
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	n.say(gatewayHost, "203.0.113.2")
	e.change(paris, "gateway", func(svc *corev1.Service) { svc.Annotations = map[string]string{"example.com/changed": "yes"} })
	e.soon("the new address", r.mirrored("bar", "203.0.113.2"))
	begin := time.Now()
	for i := range 20 {
		e.change(paris, "gateway", func(svc *corev1.Service) { svc.Annotations["example.com/changed"] = fmt.Sprint(i) })
	}
	changing := int(time.Since(begin) / time.Second)
	e.stays("the mirror", r.mirrored("bar", "203.0.113.2"))
	// However often the remote changes it, the name is resolved once a second at most.
	if queries := n.count(gatewayHost, dns.TypeA); queries > 12+changing {
		t.Errorf("%d queries", queries)
	}
}

func TestDNSFails(t *testing.T) {
	const other = "other.example.com"
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.1")
	n.say(other, "203.0.113.101")
	r.gateway(gatewayHost, other, "203.0.113.201")
	r.export("bar")
	d := e.daemon([]*remote{r}, n.flags()...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1", "203.0.113.101", "203.0.113.201"))
	for i, test := range []struct {
		what    string
		failing answer
		log     string
	}{
		{"SERVFAIL", answer{code: dns.RcodeServerFailure}, "DNS lookup failed"},
		{"REFUSED", answer{code: dns.RcodeRefused}, "DNS lookup failed"},
		{"NXDOMAIN", answer{code: dns.RcodeNameError}, "no address"},
		{"no records", answer{}, "no address"},
		{"no answer", answer{silent: true}, "DNS lookup timed out"},
	} {
		since := london.mark(t)
		last := fmt.Sprintf("203.0.113.%d", 1+i)
		n.set(gatewayHost, test.failing)
		asked := n.count(gatewayHost, dns.TypeA)
		e.eventually(25*time.Second, test.what, func() error {
			// A cause that was logged before, a moment ago, is not logged again.
			if n.count(gatewayHost, dns.TypeA) < asked+2 || d.logged(gatewayHost, test.log) == 0 {
				return fmt.Errorf("nothing about %s: %s in the log", gatewayHost, test.log)
			}
			return nil
		})
		e.must(r.mirrored("bar", last, "203.0.113.101", "203.0.113.201")())
		e.noWrites(since)
		// The others are followed.
		n.say(other, "203.0.113.102")
		r.gateway(gatewayHost, other, "203.0.113.202")
		e.soon(test.what+": the others", r.mirrored("bar", last, "203.0.113.102", "203.0.113.202"))
		n.say(other, "203.0.113.101")
		r.gateway(gatewayHost, other, "203.0.113.201")
		e.soon(test.what+": the others", r.mirrored("bar", last, "203.0.113.101", "203.0.113.201"))
		next := fmt.Sprintf("203.0.113.%d", 2+i)
		n.say(gatewayHost, next)
		e.eventually(25*time.Second, test.what+" is over", r.mirrored("bar", next, "203.0.113.101", "203.0.113.201"))
	}
	n.set(gatewayHost, answer{silent: true})
	d.stop()
	since := london.mark(t)
	d = e.daemon([]*remote{r}, n.flags()...)
	e.eventually(25*time.Second, "the first lookup has failed", func() error {
		if d.logged(gatewayHost, "DNS lookup timed out") == 0 {
			return fmt.Errorf("nothing in the log")
		}
		return nil
	})
	e.must(r.mirrored("bar", "203.0.113.6", "203.0.113.101", "203.0.113.201")())
	e.noWrites(since)
}

func TestTruncatedAnswers(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	var addresses []string
	for i := range 70 {
		addresses = append(addresses, fmt.Sprintf("203.0.113.1%02d", i)) // in this order as text, too
	}
	n.set(gatewayHost, answer{addresses: addresses[:50], truncated: true, shuffled: true})
	r.gateway(gatewayHost)
	r.export("bar")
	d := e.daemon([]*remote{r}, n.flags()...)
	e.soon("all of the addresses", r.mirrored("bar", addresses[:50]...))
	if n.count(gatewayHost, dns.TypeA, "tcp") == 0 {
		t.Error("there was no query over TCP")
	}
	n.set(gatewayHost, answer{addresses: addresses, truncated: true, shuffled: true})
	e.soon("as many as are used", r.mirrored("bar", addresses[:64]...))
	e.logs(d, "70 addresses", "first 64")
	since := london.mark(t)
	e.refreshed(n, gatewayHost)
	e.noWrites(since)
}

func TestAddressOverrideByHostname(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.3", "203.0.113.1")
	n.say("unused.example.com", "203.0.113.9")
	r.export("bar")
	start := func(keys string) *daemon {
		return runDaemon(t, append(n.flags(), "--kubeconfig", e.kubeconfig, "--export-selector", exportLabel+"="+e.id,
			"--remote", r.name+"="+r.kubeconfig+",address="+gatewayHost+",address=203.0.113.2,"+keys)...)
	}
	d := start("gateway-port=8080")
	e.soon("the addresses of the flag", r.mirrored("bar", "203.0.113.1", "203.0.113.2", "203.0.113.3"))
	n.say(gatewayHost, "203.0.113.4")
	e.soon("its new address", r.mirrored("bar", "203.0.113.2", "203.0.113.4"))
	d.stop()
	for _, request := range paris.requests(t, e.id, auditMark{}) {
		if request.ObjectRef.Namespace != "" && request.ObjectRef.Name != "kube-system" {
			t.Errorf("a gateway Service is read without need: %v", request)
		}
	}
	// Of a gateway Service only the ports are read.
	r.gateway("unused.example.com", "203.0.113.8")
	since := london.mark(t)
	start("gateway=" + e.id + "/gateway")
	e.stays("the addresses of the flag", r.mirrored("bar", "203.0.113.2", "203.0.113.4"))
	e.noWrites(since)
	if names := strings.Join(n.names(), " "); names != gatewayHost+"." {
		t.Errorf("queries for %s", names)
	}
}

func TestHostnamesInAnIPv4Cluster(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.2", "2001:db8::2", "203.0.113.1")
	r.gateway(gatewayHost, "2001:db8::1", "203.0.113.2", "203.0.113.3")
	r.export("bar")
	e.daemon([]*remote{r}, n.flags()...)
	e.soon("the addresses of the family that London has", r.mirrored("bar", "203.0.113.1", "203.0.113.2", "203.0.113.3"))
	n.say(gatewayHost, "2001:db8::2")
	e.soon("no A records any more", r.mirrored("bar", "203.0.113.2", "203.0.113.3"))
	// Nothing of that family fails London.
	n.set(gatewayHost, answer{addresses: []string{"203.0.113.4"}, code6: dns.RcodeServerFailure})
	e.soon("A without AAAA", r.mirrored("bar", "203.0.113.2", "203.0.113.3", "203.0.113.4"))
}
