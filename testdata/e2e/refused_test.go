package e2e

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// podRange gives a Node of the local cluster these addresses for its pods.
func (e *env) podRange(cidr string) {
	e.Helper()
	_, err := e.local.CoreV1().Nodes().Create(e.ctx, &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: e.id}, Spec: corev1.NodeSpec{PodCIDR: cidr, PodCIDRs: []string{cidr}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.Cleanup(func() { e.local.CoreV1().Nodes().Delete(context.Background(), e.id, metav1.DeleteOptions{}) })
}

func TestRefusedAddresses(t *testing.T) {
	const good = "203.0.113.1"
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	e.podRange("10.244.7.0/24")
	r.gateway(good)
	e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.ExternalIPs = []string{"203.0.113.2"} })
	r.export("bar")
	seen := e.everSeen()
	d := e.daemon([]*remote{r}, append(n.flags(), "--gateway-deny", "203.0.113.64/26,192.0.2.7")...)
	e.soon("the mirror", r.mirrored("bar", good))
	for i, test := range []struct{ address, reason string }{
		{"127.0.0.1", "not a unicast address that is routable between clusters"},
		{"169.254.169.254", "not a unicast address"},
		{"224.0.0.5", "not a unicast address"},
		{"0.0.0.0", "not a unicast address"},
		{"255.255.255.255", "not a unicast address"},
		{"100.100.100.200", "a cloud metadata service"},
		{"240.0.0.1", "in 240.0.0.0/4, which is reserved"},
		{"192.0.0.8", "in 192.0.0.0/24"},
		{"203.0.113.100", "--gateway-deny contains 203.0.113.64/26"},
		{"192.0.2.7", "--gateway-deny contains 192.0.2.7/32"},
		{"10.96.200.1", "this cluster's own Service range 10.96.0.0/16"},
		{"10.244.7.8", "this cluster's own pod range 10.244.7.0/24"},
		{"::1", "not a unicast address"},
		{"fe80::1", "not a unicast address"},
		{"bar.default.svc.cluster.local", "in the domain of this cluster"},
		{"cluster.local", "in the domain of this cluster"},
	} {
		// In the gateway's status.
		r.gateway(good, test.address)
		e.logs(d, test.address, "is refused", test.reason)
		e.must(r.mirrored("bar", good)())
		r.gateway(test.address)
		e.soon(test.address+" alone", r.mirrored("bar")) // nor is anything else used instead
		r.gateway(good)
		e.soon("the good one", r.mirrored("bar", good))
		// In the answers of DNS.
		addr, err := netip.ParseAddr(test.address)
		if err != nil || addr.Is6() { // London has no IPv6, but it is checked all the same
			continue
		}
		host := fmt.Sprintf("lb%d.example.com", i)
		n.say(host, good, test.address)
		r.gateway(host)
		e.soon(host+" is resolved", func() error { // that it is refused again so soon is no news
			if !slices.Contains(n.names(), host+".") {
				return fmt.Errorf("DNS was queried for %v", n.names())
			}
			return nil
		})
		e.soon("the good one of "+host, r.mirrored("bar", good))
		n.say(host, test.address)
		e.soon(test.address+" alone in DNS", r.mirrored("bar"))
		r.gateway(good)
		e.soon("the good one", r.mirrored("bar", good))
	}
	for _, name := range n.names() {
		if name == "cluster.local." || name == "bar.default.svc.cluster.local." {
			t.Errorf("DNS was queried for %s", name)
		}
	}
	if ever := seen(); !slices.Equal(ever, []string{good}) {
		t.Errorf("there were addresses %v, want %s alone", ever, good)
	}
}

// everSeen watches the Endpoints of the test's namespace, and returns a function for all
// addresses that they have ever had.
func (e *env) everSeen() func() []string {
	e.Helper()
	watcher, err := e.local.CoreV1().Endpoints(e.id).Watch(e.ctx, metav1.ListOptions{})
	e.must(err)
	var mu sync.Mutex
	seen := map[string]bool{}
	go func() {
		for event := range watcher.ResultChan() {
			mu.Lock()
			if endpoints, ok := event.Object.(*corev1.Endpoints); ok {
				for _, subset := range endpoints.Subsets {
					for _, address := range slices.Concat(subset.Addresses, subset.NotReadyAddresses) {
						seen[address.IP] = true
					}
				}
			} else {
				seen[fmt.Sprintf("a watch that fails: %v", event.Object)] = true
			}
			mu.Unlock()
		}
	}()
	e.Cleanup(watcher.Stop)
	return func() []string {
		mu.Lock()
		defer mu.Unlock()
		return slices.Sorted(maps.Keys(seen))
	}
}

// The local cluster's own ranges may change.
func TestLocalRangesChange(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	// The range stays: Services of other tests may have got their ClusterIPs from it.
	n := ids.Add(1)
	inRange := fmt.Sprintf("10.98.%d.1", n%256)
	serviceRange := fmt.Sprintf("10.98.%d.0/28", n%256)
	r.gateway("203.0.113.1", "10.244.8.1", inRange)
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("all of them", r.mirrored("bar", inRange, "10.244.8.1", "203.0.113.1"))
	before := e.identities()
	e.podRange("10.244.8.0/24")
	e.soon("a Node has one", r.mirrored("bar", inRange, "203.0.113.1"))
	e.logs(d, "10.244.8.1", "is refused", "pod range 10.244.8.0/24")
	_, err := london.NetworkingV1().ServiceCIDRs().Create(e.ctx, &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: e.id}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{serviceRange}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.soon("Services have the other", r.mirrored("bar", "203.0.113.1"))
	e.logs(d, inRange, "is refused", "Service range "+serviceRange)
	d.stop()
	since := london.mark(t)
	e.daemon([]*remote{r})
	e.stays("the same over a restart", r.mirrored("bar", "203.0.113.1"))
	e.noWrites(since)
	e.must(london.CoreV1().Nodes().Delete(e.ctx, e.id, metav1.DeleteOptions{}))
	e.soon("no Node has it", r.mirrored("bar", "10.244.8.1", "203.0.113.1"))
	e.sameIdentities(before)
}

func TestLocalRangesMayNotBeRead(t *testing.T) {
	t.Parallel()
	e := newEnvIn(t, london, coreRules...)
	r := e.remote(paris)
	e.podRange("10.244.9.0/24")
	r.gateway("203.0.113.1", "10.96.200.2", "10.244.9.1")
	r.export("bar")
	d := e.daemon([]*remote{r}, "-v=1")
	e.soon("no range of London is known", r.mirrored("bar", "10.96.200.2", "10.244.9.1", "203.0.113.1"))
	e.logs(d, "No permission to read", "servicecidrs", "forbidden")
	e.logs(d, "No permission to read", "nodes", "forbidden")
	e.remove(paris, "bar")
	e.soon("all goes on", r.gone("bar"))
	if n := d.logged("No permission to read"); n != 2 {
		t.Errorf("it is logged %d times, want once each", n)
	}
}

func TestGatewayAllow(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say(gatewayHost, "203.0.113.2", "203.0.113.3", "198.51.100.1")
	r.gateway(gatewayHost, "203.0.113.1", "192.0.2.1", "10.96.200.3")
	r.export("bar")
	allow := append(n.flags(), "--gateway-allow", "203.0.113.0/28,192.0.2.1,10.96.0.0/16")
	d := e.daemon([]*remote{r}, allow...)
	e.soon("those that are allowed", r.mirrored("bar", "10.96.200.3", "192.0.2.1", "203.0.113.1", "203.0.113.2", "203.0.113.3")) // even what is London's own
	e.logs(d, "198.51.100.1", "is refused", "--gateway-allow does not contain it")
	d.stop()
	d = e.daemon([]*remote{r}, append(allow, "--gateway-deny", "203.0.113.2/31")...)
	e.soon("less what is denied", r.mirrored("bar", "10.96.200.3", "192.0.2.1", "203.0.113.1"))
	e.logs(d, "203.0.113.2 is refused", "--gateway-deny contains 203.0.113.2/31")
	d.stop()
	e.daemon([]*remote{r}, n.flags()...)
	e.soon("without the flag", r.mirrored("bar", "192.0.2.1", "198.51.100.1", "203.0.113.1", "203.0.113.2", "203.0.113.3"))
}

func TestClusterDomain(t *testing.T) {
	e := newEnv(t)
	n := newNameserver(t)
	r := e.remote(paris)
	n.say("gateway.default.svc.cluster.local", "203.0.113.1")
	n.say("notlondon.internal", "203.0.113.2")
	n.say("gateway.default.svc.london.internal", "203.0.113.3")
	r.gateway("gateway.default.svc.cluster.local", "notlondon.internal", "gateway.default.svc.london.internal")
	r.export("bar")
	d := e.daemon([]*remote{r}, append(n.flags(), "--cluster-domain", "london.internal")...)
	e.soon("all but London's own", r.mirrored("bar", "203.0.113.1", "203.0.113.2"))
	e.logs(d, "gateway.default.svc.london.internal", "is refused", "in the domain of this cluster, london.internal")
}

// The same rules apply to the operator's own flags.
func TestRefusedFlags(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	for _, test := range []struct {
		remote string
		more   []string
		words  []string
	}{
		{",address=127.0.0.1", nil, []string{"--remote " + r.name, "address=127.0.0.1", "not a unicast address"}},
		{",address=169.254.169.254", nil, []string{"--remote " + r.name, "address=169.254.169.254"}},
		{",address=bar.default.svc.cluster.local", nil, []string{"--remote " + r.name, "in the domain of this cluster"}},
		{",address=203.0.113.1", []string{"--gateway-deny", "203.0.113.0/24"}, []string{"--remote " + r.name, "--gateway-deny contains 203.0.113.0/24"}},
		{",address=203.0.113.1", []string{"--gateway-allow", "192.0.2.1"}, []string{"--remote " + r.name, "--gateway-allow does not contain it"}},
		{",address=203.0.113.1.", nil, []string{"address=203.0.113.1. is neither an IP address nor a hostname"}},
		{",tcp-services=nowhere", nil, []string{"tcp-services=nowhere is not NAMESPACE/NAME of a ConfigMap"}},
		{",cluster-domain=-", nil, []string{"cluster-domain"}},
		{"", []string{"--gateway-deny", "203.0.113.1/24"}, []string{"--gateway-deny", "write 203.0.113.0/24"}},
		{"", []string{"--gateway-allow", "lb.example.com"}, []string{"--gateway-allow", "neither a CIDR nor an IP address"}},
		{"", []string{"--gateway-allow", ""}, []string{"--gateway-allow", "an empty value"}},
		{",address=100.100.100.200", nil, []string{"--remote " + r.name, "a cloud metadata service"}},
		{",namespaces=a,b,a", nil, []string{"--remote " + r.name, "namespaces= contains a twice"}},
		{"", []string{"--listen", "nonsense"}, []string{"--listen", "is not ADDRESS:PORT"}},
		{"", []string{"--kube-api-qps", "NaN"}, []string{"--kube-api-qps", "NaN"}},
		{"", []string{"--dns-refresh", "100ms"}, []string{"--dns-refresh", "1s"}},
		{"", []string{"--dns-server", "nowhere"}, []string{"--dns-server", "nowhere"}},
		{"", []string{"--endpoints-api", "slices"}, []string{"--endpoints-api", "endpointslices"}},
		{"", []string{"--probe", "ping"}, []string{"--probe", "tcp"}},
		{"", []string{"--probe", "tcp", "--probe-timeout", "10s"}, []string{"--probe-timeout", "--probe-period"}},
	} {
		d := runDaemon(t, append([]string{"--kubeconfig", e.kubeconfig, "--remote", r.flag() + test.remote}, test.more...)...)
		if code := d.exitCode(); code != 2 || d.logged(test.words...) != 1 {
			t.Errorf("--remote …%s %v: exit code %d, want 2 and one line with %q in\n%s", test.remote, test.more, code, test.words, d.log)
		}
	}
	// London's ranges are known only once it runs.
	r.export("bar")
	d := runDaemon(t, "--kubeconfig", e.kubeconfig, "--export-selector", exportLabel+"="+e.id,
		"--remote", r.name+"="+r.kubeconfig+",address=203.0.113.1,address=10.96.200.4,gateway-port=8080")
	e.soon("the other", r.mirrored("bar", "203.0.113.1"))
	e.logs(d, "10.96.200.4", "is refused", "Service range 10.96.0.0/16")
}
