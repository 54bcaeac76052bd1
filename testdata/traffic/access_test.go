package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// closing is how long a Service that is no longer exported may be reached: the publisher's second, CoreDNS' TTL of 5 s,
// the 5 s for which HAProxy keeps an address beyond it, and what a machine that everything shares adds to it.
const closing = 25 * time.Second

// exportedOnly has a gateway as it ships: what has no alias is not reached, whatever the client speaks.
func (s *scene) exportedOnly(kind gatewayKind) {
	root := []string{"--network", "tcp4", "--root", s.world.root.file("ca")}
	type request struct{ name, wrong, url string }
	requests := []request{
		{"HTTP", "status 421", "http://private.default/"},
		{"HTTP with a port", "status 421", "http://private.default.svc.cluster.local:80/"},
		{"HTTPS", "status 421", "https://private.default.svc.cluster.local/"},
		{"gRPC", "421", "grpc://private.default:80"},
	}
	to := map[string]string{"http": "bar-paris.default:80", "https": "bar-paris.default:443", "grpc": "hello-paris.default:9090"}
	if kind.passthrough {
		requests = append(requests, request{"SNI", "EOF", "https://private.default.svc.cluster.local:8443/"})
	}
	for _, r := range requests {
		scheme, _, _ := strings.Cut(r.url, ":")
		through := to[scheme]
		if r.name == "SNI" {
			through = "secure-paris.default:443"
		}
		s.answers(append(root, "--to", through, r.url), seen{}, "", r.wrong)
	}
	s.ambiguous()
	s.longest()
	s.closes(kind)
	s.closedByHand()
}

// addService adds a Service of the default namespace in front of bar's pod for as long as the test runs.
func (s *scene) addService(name string) {
	s.must(s.world.paris.service("default", name, true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, name, metav1.DeleteOptions{}))
		s.must(s.world.paris.alias("default", name, false))
	})
}

// ambiguous has a Service whose name would make an alias of two meanings: it has none, and nothing is reached.
func (s *scene) ambiguous() {
	s.addService("a--b")
	s.answers([]string{"--to", "bar-paris.default:80", "http://a--b.default/"}, seen{}, "", "status 421")
	s.answers([]string{"--to", "bar-paris.default:80", "http://b.default--a/"}, seen{}, "", "status 421")
}

// longest has an alias of 63 characters, the most that DNS allows, and a name that would make one of 64.
func (s *scene) longest() {
	name := strings.Repeat("n", 63-len("default--"))
	for _, add := range []string{name, name + "n"} {
		s.addService(add)
	}
	s.serves("--to", "bar-paris.default:80", "http://"+name+".default/")
	s.answers([]string{"--to", "bar-paris.default:80", "http://" + name + "n.default/"}, seen{}, "", "status 421")
}

// closes measures how long a Service is reached after it is unexported, by clients that called it until then and
// remember the gateway's address, and how soon it is reached again.
func (s *scene) closes(kind gatewayKind) {
	gateway, err := s.world.paris.CoreV1().Services("gateway").Get(s.Context(), "gateway", metav1.GetOptions{})
	s.must(err)
	address := gateway.Status.LoadBalancer.Ingress[0].IP
	ways := []struct{ url, port, wrong string }{
		{"http://bar-paris.default/", "80", "status 421"},
		{"https://bar-paris.default.svc.cluster.local/", "443", "status 421"},
	}
	if kind.passthrough {
		ways = append(ways, struct{ url, port, wrong string }{"https://secure-paris.default.svc.cluster.local/", "9443", "EOF"})
	}
	for _, way := range ways {
		name, _, _ := strings.Cut(strings.Split(way.url, "//")[1], "-paris")
		args := []string{"--network", "tcp4", "--root", s.world.root.file("ca"), "--to", address + ":" + way.port, way.url}
		s.serves(args...)
		s.must(s.world.paris.export(name, false))
		begin := time.Now()
		s.answers(args, seen{}, "", way.wrong)
		closed := time.Since(begin)
		s.must(s.world.paris.export(name, true))
		begin = time.Now()
		s.serves(args...)
		s.Logf("%s: %s closed %.1f s after its Service was unexported, and opened %.1f s after it was exported", kind.kind, way.url, closed.Seconds(), time.Since(begin).Seconds())
		if closed > closing {
			s.Errorf("%s: %s was reached for %v", kind.kind, way.url, closed)
		}
	}
}

// closedByHand has Berlin's gateway, without a publisher: an alias that someone makes opens a Service, and one that
// someone deletes closes it.
func (s *scene) closedByHand() {
	args := []string{"http://bar-berlin.default.svc.cluster.local/"}
	s.serves(args...)
	s.must(s.world.berlin.alias("default", "bar", false))
	s.answers(args, seen{}, "", "status 421")
	s.must(s.world.berlin.alias("default", "bar", true))
	s.serves(args...)
}

// opened has a gateway to which somebody has said that all may be reached.
func (s *scene) opened(kind gatewayKind) {
	want := seen{Backend: "private of paris", Host: "private.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
		ForwardedHost: "private-paris.default", ForwardedFor: londonPlace.node, ForwardedProto: "http"}
	s.answers([]string{"--network", "tcp4", "--host", "private-paris.default", "http://bar-paris.default/"}, want, s.gateway.address, "")
	s.answers([]string{"--host", "nobody-paris.default", "http://bar-paris.default/"}, seen{}, "", "status 502")
	s.answers([]string{"--to", "bar-paris.default:80", "http://nobody.default/"}, seen{}, "", "status 421")
	if kind.passthrough {
		s.serves("--root", s.world.root.file("ca"), "https://secure-paris.default.svc.cluster.local/")
	}
	s.must(s.gateway.remove())
}

const secure = "https://secure-paris.default.svc.cluster.local/"

// nothingListed has a gateway as it ships, which has no list yet.
func (s *scene) nothingListed() {
	s.answers([]string{bar}, seen{}, "", "status 421")
	s.passesNothing(secure)
	s.noReserved()
	s.must(s.gateway.remove())
}

// passesNothing wants the gateway to close a connection whose TLS it would pass through.
func (s *scene) passesNothing(args ...string) {
	s.Helper()
	s.must(eventually(strings.Join(args, " ")+" is closed", func() error {
		got, err := s.world.call(append([]string{"--root", s.world.root.file("ca")}, args...)...)
		if err == nil || !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset by peer") {
			return fmt.Errorf("got %+v, %v", got, err)
		}
		return nil
	}))
}

// noReserved has a gateway without reserved ports listen on none of those of the examples, which are at the numbers that
// the tests of reserved ports have reached.
func (s *scene) noReserved() {
	s.Helper()
	for _, url := range []string{"tcp://127.0.0.1:15432", "udp://127.0.0.1:15353"} {
		if got, err := callFrom(s.gateway.pod, "--timeout", "10s", url); err == nil || !strings.Contains(err.Error(), "connection refused") {
			s.Errorf("%s: got %+v, %v, want it refused", url, got, err)
		}
	}
}

// listed has a gateway with lists of the exported Services, and passes TLS through. When the exports change, its lists
// are generated again: the Service secure-paris is exported then and secure is not, although its mirror has that name.
func (s *scene) listed(kind string) {
	const name = "secure-paris"
	paris, root := s.world.paris, []string{"--root", s.world.root.file("ca")}
	dir := s.TempDir()
	s.must(os.CopyFS(dir, os.DirFS(filepath.Join("../../deploy/gateways", kind))))
	s.install(paris, kind, parisAddresses, s.lists(kind, dir)...)
	s.serves(bar)
	s.serves("grpc://hello-paris.default.svc.cluster.local:9090")
	for _, host := range []string{"private-paris.default", "private-paris.default.svc.cluster.local:80", "private.default"} {
		s.answers([]string{"--host", host, bar}, seen{}, "", "status 421")
	}
	s.serves(append(root, secure)...)
	s.must(s.gateway.remove())

	s.must(paris.service("default", name, true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "secure"}
		svc.Spec.Ports = []corev1.ServicePort{port("tls-443", 443, httpsPort)}
	}))
	s.must(paris.export("secure", false))
	s.Cleanup(func() {
		s.must(paris.export("secure", true))
		s.must(paris.CoreV1().Services("default").Delete(background, name, metav1.DeleteOptions{}))
	})
	s.install(paris, kind, parisAddresses, s.lists(kind, dir)...)
	s.serves(append(root, "https://secure-paris-paris.default.svc.cluster.local/")...)
	for _, host := range []string{"secure.default", "secure-paris.default"} {
		s.answers([]string{"--host", host, bar}, seen{}, "", "status 421")
		s.passesNothing("--to", "secure-paris-paris.default:443", "https://"+host+".svc.cluster.local/")
	}
	s.must(s.gateway.remove())
}

// lists has the README's commands generate a gateway's lists in a copy of its folder.
func (s *scene) lists(kind, dir string) (edits []edit) {
	s.Helper()
	readme, err := os.ReadFile(filepath.Join(dir, "README.md"))
	s.must(err)
	_, commands, found := strings.Cut(string(readme), "```sh\n")
	commands, _, ended := strings.Cut(commands, "```")
	if !found || !ended || strings.Contains(commands, "sed -i") {
		s.Fatalf("the README has no commands for its lists, or not for the sed of macOS, whose -i has an argument:\n%s", commands)
	}
	cmd := exec.Command("sh", "-euc", commands)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "KUBECONFIG="+s.world.paris.Kubeconfig, "PATH="+filepath.Dir(harness.Program("kubectl"))+":"+os.Getenv("PATH"))
	_, err = harness.Run(cmd)
	s.must(err)
	for _, file := range []string{"exported", "exported-tls.yaml"} {
		shipped, err := os.ReadFile(filepath.Join("../../deploy/gateways", kind, file))
		s.must(err)
		list, err := os.ReadFile(filepath.Join(dir, file))
		s.must(err)
		edits = append(edits, edit{file, string(shipped), string(list)})
	}
	return edits
}

// mtls has a gateway that asks for certificates of the shared root.
func (s *scene) mtls() {
	const url = "https://bar-paris.default.svc.cluster.local/"
	root := []string{"--root", s.world.root.file("ca")}
	s.must(s.world.paris.service("default", "plain", true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("https-edge", 443, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, "plain", metav1.DeleteOptions{}))
	})
	for _, url := range []string{url, "https://plain-paris.default.svc.cluster.local/"} {
		s.serves(append(root, "--cert", s.world.root.file("foo"), "--key", s.world.root.keyFile("foo"), "--resume", url)...)
		got, err := s.world.call(append(root, url)...)
		if err == nil || got.Backend != "" || !strings.Contains(err.Error(), "certificate required") && !strings.Contains(err.Error(), "status 400") {
			s.Errorf("%s without a certificate: %+v, %v", url, got, err)
		}
	}
	other, err := newAuthority(filepath.Join(s.world.dir, "other"))
	s.must(err)
	s.must(other.issue("foo"))
	got, err := s.world.call(append(root, "--cert", other.file("foo"), "--key", other.keyFile("foo"), url)...)
	if err == nil || got.Backend != "" || !strings.Contains(err.Error(), "tls: ") && !strings.Contains(err.Error(), "status 400") {
		s.Errorf("with a certificate of another root: %+v, %v", got, err)
	}
	lines := s.results(map[string]string{"default/bar-paris https 443/TCP": "certificate"}, "--ca-file", s.world.root.file("ca"), "default/bar-paris")
	s.says(lines, "default/bar-paris https 443/TCP", "client certificate")
	// What cannot ask for a certificate is closed: all goes to the port that does.
	for _, other := range []string{bar, "tcp://postgres-paris.default.svc.cluster.local:5432"} {
		if got, err := s.world.call("--timeout", "2s", other); err == nil {
			s.Errorf("%s: %+v", other, got)
		}
	}
	s.must(s.gateway.remove())
}

// dns has Paris's CoreDNS answer for London's names, and a gateway that knows
// nothing but to go to the name that it was asked for.
func (s *scene) dns() {
	rewrite, err := os.ReadFile("../../deploy/gateways/dns/rewrite.conf")
	s.must(err)
	forwarder, err := os.ReadFile("../../deploy/gateways/dns/Caddyfile")
	s.must(err)
	s.must(s.world.paris.startDNS(strings.TrimSpace(string(rewrite))))
	s.Cleanup(func() { s.must(s.world.paris.startDNS("")) })
	s.install(s.world.paris, "caddy", parisAddresses, edit{"Caddyfile", "", string(forwarder)})
	over := families[0]
	for url, want := range map[string]seen{
		bar: {Backend: "bar of paris", Host: "bar-paris.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"},
		"http://web-paris.default.svc.cluster.local:8080/": {Backend: "web of paris", Host: "web-paris.default.svc.cluster.local:8080", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "web-paris.default.svc.cluster.local:8080", ForwardedFor: over.node, ForwardedProto: "http"},
		"ws://bar-paris.default.svc.cluster.local/ws": {Backend: "bar of paris", Host: "bar-paris.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Messages: 3,
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"},
	} {
		s.answers([]string{"--network", over.network, url}, want, s.gateway.address, "")
	}
	s.answers([]string{"--network", over.network, "--to", "bar-paris.default:80", "http://bar.default.svc.cluster.local/"}, seen{
		Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
		ForwardedHost: "bar.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"}, s.gateway.address, "")
	s.must(s.gateway.remove())
}

// ingress has the API server check what ships for other ingress controllers.
func (s *scene) ingress() {
	for _, kind := range []string{"ingress", "traefik/ingress", "ambassador", "gloo"} {
		_, err := s.world.paris.Kubectl(s.Context(), "apply", "--dry-run=server", "-k", filepath.Join("../../deploy/gateways", kind))
		s.must(err)
	}
}
