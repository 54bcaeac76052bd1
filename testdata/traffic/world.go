package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"service-mirror.io/service-mirror/testdata/harness"
)

// world is everything: three clusters with their pods, and the daemon in London.
type world struct {
	dir                   string
	root                  *authority
	london, paris, berlin *cluster
	foo                   *namespace // the pod of London that calls
	mirror                *namespace // the daemon's pod
	daemon                *process
	gatewayAPI            bool   // the daemon reads Paris's Gateway in place of its Service
	records               string // the namespace of the records in Paris that the daemon reads; empty: none
	namespaces            string // OWN:CALLERS, where the mirrors of a namespace of Paris are in another one of London; empty: none are
}

// newWorld makes the clusters named, London always, and their pods, with its files in a directory.
func newWorld(dir string, others ...string) (*world, error) {
	w := &world{dir: dir}
	for _, name := range []string{"cluster", "coredns", daemonName()} {
		if _, err := harness.FindProgram(name); err != nil {
			return nil, err
		}
	}
	var err error
	if w.root, err = newAuthority(filepath.Join(w.dir, "certificates")); err != nil {
		return nil, err
	}
	if err := newWire(); err != nil {
		return nil, err
	}
	made := map[string]**cluster{"london": &w.london, "paris": &w.paris, "berlin": &w.berlin}
	var wg sync.WaitGroup
	errs := make([]error, len(places))
	for i, at := range places {
		if err := run("ip", "route", "add", at.loadBalancers, "via", at.node); err != nil {
			return nil, err
		}
		if at.dualStack() {
			if err := run("ip", "route", "add", at.loadBalancers6, "via", at.node6); err != nil {
				return nil, err
			}
		}
		if at.name == "london" || strings.Contains(strings.Join(others, " "), at.name) {
			wg.Go(func() { *made[at.name], errs[i] = newCluster(w, at) })
		}
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return w, w.populate()
}

// daemonName prefers the one that was built with the race detector.
func daemonName() string {
	if _, err := harness.FindProgram("service-mirror-race"); err == nil {
		return "service-mirror-race"
	}
	return "service-mirror"
}

// backends are the Services of Paris: of IPv4, but for six. What the gateway
// reserves for postgres, its ConfigMap says, what for lookup, its annotation.
var backends = []struct {
	name     string
	exported bool
	ports    []corev1.ServicePort
}{
	{"bar", true, []corev1.ServicePort{port("http", 80, httpPort), port("https", 443, httpsPort)}},
	{"web", true, []corev1.ServicePort{port("http", 8080, httpPort)}},
	{"secure", true, []corev1.ServicePort{port("tls-443", 443, httpsPort)}},
	{"hello", true, []corev1.ServicePort{port("grpc", 9090, grpcPort)}},
	{"postgres", true, []corev1.ServicePort{port("postgres", 5432, tcpPort)}},
	{"lookup", true, []corev1.ServicePort{{Name: "lookup", Port: 5353, TargetPort: intstr.FromInt32(udpPort), Protocol: corev1.ProtocolUDP}}},
	{"six", true, []corev1.ServicePort{port("http", 80, httpPort)}},
	{"private", false, []corev1.ServicePort{port("http", 80, httpPort)}},
}

// reservedRules are for the ConfigMap of reserved ports.
var reservedRules = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"configmaps"}, ResourceNames: []string{"tcp-services"}, Verbs: []string{"list", "watch"}},
}

// populate makes the pods and the daemon's credentials.
func (w *world) populate() (err error) {
	if w.foo, err = w.london.pod("default", "foo"); err != nil {
		return err
	}
	if w.mirror, err = w.london.pod("default", "service-mirror"); err != nil {
		return err
	}
	if err := w.root.issue("foo"); err != nil {
		return err
	}
	if err := w.london.account(w.credentials("london"), slices.Concat(harness.CoreRules, harness.RangeRules, harness.SliceRules)); err != nil {
		return err
	}
	for _, c := range []*cluster{w.paris, w.berlin} {
		if c == nil {
			continue
		}
		if err := c.account(w.credentials(c.name), slices.Concat(harness.RemoteRules, reservedRules)); err != nil {
			return err
		}
		if err := w.root.issue(c.name+"-gateway", "*.default.svc.cluster.local"); err != nil {
			return err
		}
		// London's names, where TLS passes through, and the own ones, of secure, bar and mutual; and of secure-CLUSTER.
		if err := w.root.issue(c.name+"-secure", "secure-"+c.name+".default.svc.cluster.local", "bar-"+c.name+".default.svc.cluster.local",
			"secure.default.svc.cluster.local", "bar.default.svc.cluster.local",
			"mutual-"+c.name+".default.svc.cluster.local", "mutual.default.svc.cluster.local",
			"secure-"+c.name+"-"+c.name+".default.svc.cluster.local"); err != nil {
			return err
		}
		for _, b := range backends {
			if c == w.paris || b.name == "bar" {
				if err := c.backend(b.name, b.exported, b.ports); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

func (w *world) credentials(cluster string) string {
	return filepath.Join(w.dir, cluster+".credentials")
}

// backend makes a Service with one pod.
func (c *cluster) backend(name string, exported bool, ports []corev1.ServicePort) error {
	pod, err := c.pod("default", name)
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	secure := c.name + "-secure"
	if _, err := pod.start("backend", self, "backend", "--name", name+" of "+c.name,
		"--cert", c.world.root.file(secure), "--key", c.world.root.keyFile(secure),
		"--clients", c.world.root.file("ca")); err != nil {
		return err
	}
	if err := c.ready("default", name); err != nil {
		return err
	}
	return c.service("default", name, exported, func(svc *corev1.Service) {
		svc.Spec.Ports = ports
		switch name {
		case "six":
			svc.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv6Protocol}
		case "lookup":
			svc.Annotations = map[string]string{"service-mirror.io/gateway-ports": "5353/UDP=15353"}
		}
	})
}

// startDaemon starts service-mirror in its pod, for the clusters that there are,
// with more flags where given; one that runs is stopped first.
func (w *world) startDaemon(flags ...string) (err error) {
	if w.daemon != nil {
		w.daemon.stop(syscall.SIGTERM)
	}
	w.daemon, err = w.mirror.start("daemon", harness.Program(daemonName()), append(w.daemonFlags(), flags...)...)
	return err
}

// daemonFlags are the flags that every daemon has.
func (w *world) daemonFlags() []string {
	args := []string{"--kubeconfig", w.credentials("london"), "--gateway", "gateway/gateway"}
	for _, c := range []*cluster{w.paris, w.berlin} {
		if c != nil {
			remote := c.name + "=" + w.credentials(c.name) + ",tcp-services=gateway/tcp-services"
			if c == w.paris && w.records != "" {
				remote += ",records=" + w.records
			}
			if c == w.paris && w.namespaces != "" {
				remote += ",namespace=" + w.namespaces
			}
			if c == w.paris && w.gatewayAPI {
				remote += ",gateway=gateway-api:gateway/gateway"
			}
			args = append(args, "--remote", remote)
		}
	}
	return args
}

// call has foo make a request, with its own resolver, and returns what came back.
func (w *world) call(args ...string) (answer seen, err error) {
	return callFrom(w.foo, args...)
}

func callFrom(pod *namespace, args ...string) (answer seen, err error) {
	self, err := os.Executable()
	if err != nil {
		return seen{}, err
	}
	cmd := pod.command(self, append([]string{"client"}, args...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return seen{}, fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, strings.TrimSpace(stderr.String()))
	}
	return answer, json.Unmarshal(out, &answer)
}
