package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"

	"service-mirror.io/service-mirror/testdata/harness"
)

// soon is how long anything may take to come about.
const soon = 60 * time.Second

var background = context.Background()

// place says where a cluster is: its node, and the addresses that are routed to it
// from outside. Without addresses in IPv6 the cluster is of IPv4 alone.
type place struct {
	name, node, loadBalancers string
	node6, loadBalancers6     string
}

func (p place) dualStack() bool { return p.node6 != "" }

var (
	londonPlace = place{name: "london", node: "192.0.2.10", loadBalancers: "198.51.100.0/28",
		node6: "2001:db8::10", loadBalancers6: "2001:db8:10::/64"}
	parisPlace = place{name: "paris", node: "192.0.2.20", loadBalancers: "198.51.100.16/28",
		node6: "2001:db8::20", loadBalancers6: "2001:db8:20::/64"}
	berlinPlace = place{name: "berlin", node: "192.0.2.30", loadBalancers: "198.51.100.32/28"}
	places      = []place{londonPlace, parisPlace, berlinPlace}
)

// The addresses that Paris's load balancer hands out, and Berlin's.
const (
	parisAddress  = "198.51.100.17"
	parisAddress6 = "2001:db8:20::17"
	parisSecond   = "198.51.100.18"
	parisSecond6  = "2001:db8:20::18"
	berlinAddress = "198.51.100.33"
)

// parisAddresses are what a new gateway in Paris gets.
var parisAddresses = []string{parisAddress, parisAddress6}

// cluster is one cluster with one node.
type cluster struct {
	*harness.Cluster
	place
	world *world
	node  *namespace
	proxy *process
	dns   *process
	used  byte // the last part of the last pod's address
	// published tells that service-mirror publish keeps the aliases. Until then, they are made by hand.
	published bool
}

func (c *cluster) path(name string) string { return filepath.Join(c.world.dir, c.name, name) }

// newCluster makes the node and starts the control plane on it, kube-proxy and CoreDNS.
func newCluster(w *world, at place) (*cluster, error) {
	c := &cluster{place: at, world: w, used: 1}
	var err error
	if c.node, err = newNode(w.dir, at); err != nil {
		return nil, err
	}
	for _, other := range places {
		if other.name == at.name {
			continue
		}
		if err := run("ip", "-n", at.name, "route", "add", other.loadBalancers, "via", other.node); err != nil {
			return nil, err
		}
		if at.dualStack() && other.dualStack() {
			if err := run("ip", "-n", at.name, "route", "add", other.loadBalancers6, "via", other.node6); err != nil {
				return nil, err
			}
		}
	}
	if err := c.startServer(); err != nil {
		return nil, err
	}
	if err := c.addNode(); err != nil {
		return nil, err
	}
	if err := c.startProxy(); err != nil {
		return nil, err
	}
	return c, c.startDNS("")
}

// startProxy starts kube-proxy, or starts it again: its rules stay meanwhile.
func (c *cluster) startProxy() (err error) {
	if c.proxy != nil {
		c.proxy.stop(syscall.SIGTERM)
	}
	c.proxy, err = c.node.start("kube-proxy", harness.Program("cluster"), "kube-proxy", "--kubeconfig", c.Kubeconfig, "--proxy-mode", "nftables",
		"--conntrack-max-per-core", "0", "--hostname-override", c.name, "--cluster-cidr", c.ranges(podRange, podRange6),
		"--healthz-bind-address", "127.0.0.1:10256", "--metrics-bind-address", "127.0.0.1:10249")
	return err
}

// ranges are those of the families that the cluster has, as Kubernetes' flags take them.
func (c *cluster) ranges(v4, v6 string) string {
	if c.dualStack() {
		return v4 + "," + v6
	}
	return v4
}

// startServer starts the control plane, or starts it again.
func (c *cluster) startServer() error {
	log, err := c.node.openLog("cluster")
	if err != nil {
		return err
	}
	defer log.Close()
	started, err := harness.StartCluster(harness.ClusterOptions{
		Name: c.name, Dir: c.path(""), Command: c.node.command, Progress: log,
		// Process namespaces end with their first process, which is this one.
		Args: []string{"--bind-address", c.place.node, "--port", "6443", "--service-cluster-ip-range", c.ranges(serviceCIDR, serviceCIDR6), "--outlive-parent"},
	})
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", err, tail(string(text), 30))
	}
	c.Cluster = started
	return nil
}

func (c *cluster) addNode() error {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: c.name}, Spec: corev1.NodeSpec{PodCIDR: podRange}}
	node.Spec.PodCIDRs = strings.Split(c.ranges(podRange, podRange6), ",")
	node, err := c.CoreV1().Nodes().Create(background, node, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	for address := range strings.SplitSeq(c.ranges(c.place.node, c.node6), ",") {
		node.Status.Addresses = append(node.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: address})
	}
	_, err = c.CoreV1().Nodes().UpdateStatus(background, node, metav1.UpdateOptions{})
	return err
}

// startDNS starts CoreDNS, with more lines for its configuration where given; a
// CoreDNS that runs is replaced, at the same address.
func (c *cluster) startDNS(more string) error {
	corefile := c.path("Corefile")
	if err := writeFile(corefile, fmt.Sprintf(`.:53 {
	errors
	ready
	%s
	kubernetes cluster.local in-addr.arpa {
		kubeconfig %s
		pods insecure
	}
	cache 30
}
`, more, c.Kubeconfig)); err != nil {
		return err
	}
	if c.dns != nil {
		c.dns.stop(syscall.SIGKILL)
		var err error
		c.dns, err = (&namespace{name: c.name + "-coredns", dir: c.world.dir}).start("coredns", harness.Program("coredns"), "-conf", corefile)
		return err
	}
	if err := c.service("kube-system", "kube-dns", false, func(svc *corev1.Service) {
		svc.Spec.ClusterIP = dnsAddress
		svc.Spec.Selector = map[string]string{"app": "coredns"}
		svc.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "dns-tcp", Port: 53}}
	}); err != nil {
		return err
	}
	pod, err := c.pod("kube-system", "coredns")
	if err != nil {
		return err
	}
	if c.dns, err = pod.start("coredns", harness.Program("coredns"), "-conf", corefile); err != nil {
		return err
	}
	return c.ready("kube-system", "coredns")
}

// pod makes a pod: the object, and its network namespace. It is ready once it is called so.
func (c *cluster) pod(space, name string) (*namespace, error) {
	return c.podOf(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name, Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: name}}},
	})
}

func (c *cluster) podOf(pod *corev1.Pod) (*namespace, error) {
	c.used++
	pod.Spec.NodeName = c.name
	var made *corev1.Pod
	if err := eventually("a pod "+pod.Name, func() (err error) { // its ServiceAccount is made by a controller
		made, err = c.CoreV1().Pods(pod.Namespace).Create(background, pod, metav1.CreateOptions{})
		return err
	}); err != nil {
		return nil, err
	}
	made.Status.Phase = corev1.PodRunning
	v4, v6 := podAddresses(c.used)
	made.Status.PodIP = v4
	for address := range strings.SplitSeq(c.ranges(v4, v6), ",") {
		made.Status.PodIPs = append(made.Status.PodIPs, corev1.PodIP{IP: address})
	}
	if _, err := c.CoreV1().Pods(made.Namespace).UpdateStatus(background, made, metav1.UpdateOptions{}); err != nil {
		return nil, err
	}
	return newPod(c.node, pod.Name, c.used, c.dualStack())
}

func (c *cluster) ready(space, name string) error {
	pod, err := c.CoreV1().Pods(space).Get(background, name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	_, err = c.CoreV1().Pods(space).UpdateStatus(background, pod, metav1.UpdateOptions{})
	return err
}

// service makes a Service in front of the pod of its name.
func (c *cluster) service(space, name string, exported bool, change func(*corev1.Service)) error {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: name},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}},
	}
	if exported {
		svc.Labels = map[string]string{exportLabel: "true"}
	}
	change(svc)
	if _, err := c.CoreV1().Services(space).Create(background, svc, metav1.CreateOptions{}); err != nil || !exported {
		return err
	}
	return c.alias(space, name, true)
}

const exportLabel = "service-mirror.io/exported"

// port is a Service's port NAME PORT TARGET.
func port(name string, number, target int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt32(target)}
}

// export exports a Service or takes that back.
func (c *cluster) export(name string, exported bool) error {
	value := any("true")
	if !exported {
		value = nil
	}
	if err := c.patch("default", name, map[string]any{"metadata": map[string]any{"labels": map[string]any{exportLabel: value}}}); err != nil {
		return err
	}
	return c.alias("default", name, exported)
}

// loadBalancer does what a load balancer's controller does: it gives a Service its addresses.
func (c *cluster) loadBalancer(space, name string, addresses ...string) error {
	ingress := []any{}
	for _, address := range addresses {
		ingress = append(ingress, map[string]any{"ip": address})
	}
	return c.patch(space, name, map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}}, "status")
}

func (c *cluster) patch(space, name string, change map[string]any, subresources ...string) error {
	text, err := json.Marshal(change)
	if err != nil {
		return err
	}
	_, err = c.CoreV1().Services(space).Patch(background, name, types.MergePatchType, text, metav1.PatchOptions{}, subresources...)
	return err
}

// account writes a kubeconfig for a ServiceAccount of the cluster that may do this and nothing else.
func (c *cluster) account(path string, rules []rbacv1.PolicyRule) error {
	account := harness.Account{Namespace: "default", Name: "service-mirror"}
	if err := c.CreateAccount(background, account); err != nil {
		return err
	}
	if err := c.Allow(background, account, rules); err != nil {
		return err
	}
	token, err := c.CreateSecretToken(background, account, account.Name)
	if err != nil {
		return err
	}
	return c.WriteKubeconfig(path, token)
}

// rules are those of the node's kube-proxy, with the few of its own.
func (c *cluster) rules() (string, error) {
	rules, err := c.node.command("nft", "list", "ruleset").CombinedOutput()
	return string(rules), err
}

// leads checks that the rules of the node's kube-proxy have these words; leadsNot, that they do not.
func (c *cluster) leads(words string) error {
	rules, err := c.rules()
	if err == nil && !strings.Contains(rules, words) {
		err = fmt.Errorf("no rule of kube-proxy in %s has %q", c.name, words)
	}
	return err
}

func (c *cluster) leadsNot(words string) error {
	if c.leads(words) == nil {
		return fmt.Errorf("a rule of kube-proxy in %s has %q", c.name, words)
	}
	return nil
}

// silence has the node drop whatever comes for these addresses, and for no others:
// who connects there waits in vain.
func (c *cluster) silence(addresses ...string) error {
	if err := runAll(fmt.Sprintf(`
		ip netns exec %[1]s nft add table inet silence
		ip netns exec %[1]s nft delete table inet silence
		ip netns exec %[1]s nft add table inet silence
		ip netns exec %[1]s nft add chain inet silence arriving {type filter hook prerouting priority -300;}`, c.name)); err != nil {
		return err
	}
	for _, address := range addresses {
		family := "ip"
		if strings.Contains(address, ":") {
			family = "ip6"
		}
		if err := run("ip", "netns", "exec", c.name, "nft", "add", "rule", "inet", "silence", "arriving", family, "daddr", address, "drop"); err != nil {
			return err
		}
	}
	return nil
}

// gone tells whether a Service is not there.
func (c *cluster) gone(name string) error {
	_, err := c.CoreV1().Services("default").Get(background, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("Service %s is there (%v)", name, err)
}

// eventually waits until a check passes.
func eventually(what string, check func() error) error {
	return harness.Eventually(soon, what, check)
}
