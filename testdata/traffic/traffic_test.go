package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestMain(m *testing.M) {
	runtime.LockOSThread()
	if code := role(); code >= 0 {
		os.Exit(code)
	}
	os.Exit(isolated(func() int { return m.Run() }))
}

// gateways are the folders of deploy/gateways whose wildcard leads to any
// Service, and what they can do.
var gateways = []struct {
	kind         string
	passthrough  bool // TLS, chosen by SNI
	tcp          bool // on reserved ports
	cluster      edit // to berlin
	exportedOnly edit
}{
	{
		kind: "nginx", passthrough: true, tcp: true,
		cluster:      edit{"cluster.conf", "default paris;", "default berlin;"},
		exportedOnly: edit{"exported.conf", "default 1;", "default 0;\ndefault/bar 1;\ndefault/secure 1;"},
	},
	{
		kind: "haproxy", passthrough: true, tcp: true,
		cluster:      edit{"deployment.yaml", "value: paris", "value: berlin"},
		exportedOnly: edit{"exported.lst", "\n*\n", "\ndefault/bar\ndefault/secure\n"},
	},
	{
		kind:         "caddy",
		cluster:      edit{"deployment.yaml", "value: paris", "value: berlin"},
		exportedOnly: edit{"exported", "default yes", "default/bar yes\ndefault/secure yes\ndefault no"},
	},
}

func TestTraffic(t *testing.T) {
	w, err := newWorld("paris", "berlin")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.startDaemon(); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, world: w}
	t.Cleanup(func() { s.logs() })
	if foo, bar := s.podIP(w.london, "foo"), s.podIP(w.paris, "bar"); foo != bar {
		t.Errorf("the pod networks are to overlap: foo has %s, bar %s", foo, bar)
	}
	for _, g := range gateways {
		t.Run(g.kind, func(t *testing.T) {
			s := &scene{T: t, world: w}
			s.install(w.paris, g.kind, parisAddress)
			s.install(w.berlin, g.kind, berlinAddress, g.cluster)
			s.serves("http://bar-paris.default.svc.cluster.local/")
			s.serves("http://bar-berlin.default.svc.cluster.local/")
			t.Run("requests", func(t *testing.T) { (&scene{t, w, s.gateway}).requests(g.passthrough, g.tcp) })
			t.Run("remote down", func(t *testing.T) { (&scene{t, w, s.gateway}).remoteDown() })
			t.Run("daemon killed", func(t *testing.T) { (&scene{t, w, s.gateway}).daemonKilled() })
			t.Run("switch-over", func(t *testing.T) { (&scene{t, w, s.gateway}).switchOver() })
			t.Run("unexported", func(t *testing.T) { (&scene{t, w, s.gateway}).unexported() })
			t.Run("exported only", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				s.must(s.gateway.remove())
				s.install(w.paris, g.kind, parisAddress, g.exportedOnly)
				s.exportedOnly(g.passthrough)
			})
			t.Run("mtls", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				s.install(w.paris, g.kind, parisAddress, edit{"kustomization.yaml", "# components: [mtls]", "components: [mtls]"})
				s.mtls()
			})
		})
	}
	t.Run("dns", func(t *testing.T) { (&scene{T: t, world: w}).dns() })
	t.Run("ingress", func(t *testing.T) { (&scene{T: t, world: w}).ingress() })
}

// scene is one test's view of the world, with Paris's gateway.
type scene struct {
	*testing.T
	world   *world
	gateway *gatewayPod
}

func (s *scene) podIP(c *cluster, name string) string {
	s.Helper()
	pod, err := c.CoreV1().Pods("default").Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return pod.Status.PodIP
}

func (s *scene) install(c *cluster, kind, address string, edits ...edit) {
	s.Helper()
	g, err := c.installGateway(kind, address, edits...)
	s.must(err)
	if c == s.world.paris {
		s.gateway = g
	}
	s.Cleanup(func() {
		if g.process.alive() == nil {
			s.must(g.remove())
		}
	})
}

// requests is the table: what foo asks for, and what must come of it.
func (s *scene) requests(passthrough, tcp bool) {
	gateway := s.gateway.address
	tests := []struct {
		name string
		args []string
		want seen   // Client is the gateway's address unless said
		err  string // instead
	}{{
		name: "full name", args: []string{"http://bar-paris.default.svc.cluster.local/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "name with .svc", args: []string{"http://bar-paris.default.svc/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "short name", args: []string{"http://bar-paris.default/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "port 8080", args: []string{"http://web-paris.default.svc.cluster.local:8080/"},
		want: seen{Backend: "web of paris", Host: "web.default.svc.cluster.local:8080", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "web-paris.default.svc.cluster.local:8080", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "second remote", args: []string{"http://bar-berlin.default.svc.cluster.local/"},
		want: seen{Backend: "bar of berlin", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Client: "*",
			ForwardedHost: "bar-berlin.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "bare name: it names no namespace", args: []string{"http://bar-paris/"}, err: "status 421",
	}, {
		name: "another Host", args: []string{"--host", "example.org", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "another cluster's Host", args: []string{"--host", "bar-berlin.default", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "Host with more before it", args: []string{"--host", "x.bar-paris.default.svc.cluster.local", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "a wildcard opens what is not exported, too", args: []string{"--host", "private-paris.default", "http://bar-paris.default/"},
		want: seen{Backend: "private of paris", Host: "private.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "private-paris.default", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "HTTPS that ends at the gateway", args: []string{"--root", s.world.root.file("ca"), "https://bar-paris.default.svc.cluster.local/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Issued: "paris-gateway",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "https"},
	}, {
		name: "HTTPS without the shared root", args: []string{"https://bar-paris.default.svc.cluster.local/"}, err: "unknown authority",
	}, {
		name: "WebSocket", args: []string{"ws://bar-paris.default.svc.cluster.local/ws"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Messages: 3,
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	}, {
		name: "gRPC", args: []string{"grpc://hello-paris.default.svc.cluster.local:9090"},
		want: seen{Backend: "hello of paris", Host: "hello.default.svc.cluster.local:9090", Port: grpcPort, Proto: "grpc",
			ForwardedHost: "hello-paris.default.svc.cluster.local:9090", ForwardedFor: londonPlace.node},
	}, {
		name: "gRPC stream", args: []string{"grpc-stream://hello-paris.default.svc.cluster.local:9090"},
		want: seen{Backend: "hello of paris", Host: "hello.default.svc.cluster.local:9090", Port: grpcPort, Proto: "grpc", Messages: 3,
			ForwardedHost: "hello-paris.default.svc.cluster.local:9090", ForwardedFor: londonPlace.node},
	}}
	tls := []string{"--root", s.world.root.file("ca"), "https://secure-paris.default.svc.cluster.local/"}
	raw := []string{"tcp://postgres-paris.default.svc.cluster.local:5432"}
	for i := range tests {
		s.Run(tests[i].name, func(t *testing.T) {
			s := &scene{t, s.world, s.gateway}
			s.answers(tests[i].args, tests[i].want, gateway, tests[i].err)
		})
	}
	s.Run("TLS passed through", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		want := seen{Backend: "secure of paris", Host: "secure-paris.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-secure"}
		if passthrough {
			s.answers(tls, want, gateway, "")
		} else { // it is ended at the gateway, which knows no port 80 of this Service
			s.answers(tls, seen{}, gateway, "status 502")
		}
	})
	s.Run("plain TCP", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		want := seen{Backend: "postgres of paris", Port: tcpPort, Proto: "tcp"}
		if tcp {
			s.answers(raw, want, gateway, "")
		} else { // no port of the gateway serves it
			s.answers(raw, seen{}, gateway, "connection refused")
		}
	})
}

// answers makes a request and compares what came of it.
func (s *scene) answers(args []string, want seen, gateway, wrong string) {
	s.Helper()
	var got seen
	s.must(eventually(strings.Join(args, " "), func() error { // each Service becomes reachable in its own time
		var err error
		got, err = s.world.call(args...)
		if wrong == "" {
			return err
		}
		if err == nil || !strings.Contains(err.Error(), wrong) {
			return fmt.Errorf("got %+v, %v, want an error with %q", got, err, wrong)
		}
		return nil
	}))
	if wrong != "" {
		return
	}
	client, err := netip.ParseAddrPort(got.Client)
	s.must(err)
	if want.Client == "*" {
		got.Client = "*"
	} else {
		want.Client, got.Client = gateway, client.Addr().String()
	}
	if got != want {
		s.Errorf("%s\n got %+v\nwant %+v", strings.Join(args, " "), got, want)
	}
}

// serves waits until a URL is served.
func (s *scene) serves(args ...string) {
	s.Helper()
	s.must(eventually(strings.Join(args, " "), func() error {
		_, err := s.world.call(args...)
		return err
	}))
}

const bar = "http://bar-paris.default.svc.cluster.local/"

// steady is how many requests per second are under way while things happen, each
// on a connection of its own.
const steady = 50

// under runs f while a pod of London calls bar, and returns the count.
//
// The pod is a new one. An attempt to connect while a gateway was not there yet,
// of which other tests make many, stays in the node's connection tracking for
// two minutes, with the address that it was led to; a later connection of the
// same pod from the same port would be led there too.
func (s *scene) under(f func()) tally {
	s.Helper()
	self, err := os.Executable()
	s.must(err)
	pod, err := s.world.london.pod("default", fmt.Sprintf("foo-%d", s.world.london.used))
	s.must(err)
	cmd := pod.command(self, "client", "--rate", fmt.Sprint(steady), "--timeout", "2s", bar)
	stdin, err := cmd.StdinPipe()
	s.must(err)
	stdout, err := cmd.StdoutPipe()
	s.must(err)
	s.must(cmd.Start())
	defer cmd.Wait()
	defer stdin.Close()
	f()
	stdin.Close()
	out, err := io.ReadAll(stdout)
	s.must(err)
	var result tally
	s.must(json.Unmarshal(out, &result))
	if result.Sent < 10 || result.Backends["bar of paris"]+result.Failed != result.Sent {
		s.Errorf("not what was to be sent: %+v", result)
	}
	return result
}

// switchOver gives the gateway another address while the first one ends: new
// connections follow.
func (s *scene) switchOver() {
	// An earlier test took Paris's API server away. Its kube-proxy comes back to it in its own
	// time, and until then it would not lead the new address anywhere, whatever London does.
	s.must(s.world.paris.service("default", "sign-of-life", false, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.must(eventually("Paris's kube-proxy sees changes", func() error { return s.world.paris.leads("sign-of-life/tcp/http {") }))
	s.must(s.world.paris.CoreV1().Services("default").Delete(s.Context(), "sign-of-life", metav1.DeleteOptions{}))

	took := map[*cluster]time.Duration{}
	result := s.under(func() {
		s.serves(bar)
		begin := time.Now()
		s.must(s.world.paris.loadBalancer("gateway", "gateway", parisSecond))
		s.must(eventually("kube-proxy on both sides knows the new address, and no more the old one", func() error {
			var missing error
			for _, c := range []*cluster{s.world.london, s.world.paris} {
				if took[c] > 0 {
					continue
				}
				if err := errors.Join(c.leads(parisSecond), c.leadsNot(parisAddress+":"), c.leadsNot(parisAddress+" ")); err != nil {
					missing = errors.Join(missing, err)
					continue
				}
				took[c] = time.Since(begin)
			}
			return missing
		}))
		s.serves(bar)
	})
	s.Logf("the gateway's address changed at once: London's kube-proxy followed after %v, Paris's own after %v; of %d requests, %d a second, %d failed, within %v: %q",
		took[s.world.london].Round(10*time.Millisecond), took[s.world.paris].Round(10*time.Millisecond), result.Sent, steady,
		result.Failed, result.FailedFor.Round(10*time.Millisecond), result.Errors)
	if result.FailedFor > 10*time.Second {
		s.Errorf("requests failed for %v", result.FailedFor)
	}
}

// remoteDown takes Paris's control plane away: nothing happens to requests.
func (s *scene) remoteDown() {
	result := s.under(func() {
		s.serves(bar)
		noticed := s.logged("Remote is not well")
		s.world.paris.stopServer()
		s.must(eventually("the daemon notices", func() error {
			if s.logged("Remote is not well") == noticed {
				return errors.New("it does not")
			}
			return nil
		}))
		s.serves(bar)
		s.must(s.world.paris.startServer())
		s.lives()
	})
	s.Logf("Paris's API server was away and came back: of %d requests %d failed", result.Sent, result.Failed)
	if result.Failed > 0 {
		s.Errorf("%d requests failed: %v", result.Failed, result.Errors)
	}
}

// daemonKilled kills the daemon and starts it again: nothing happens to requests.
func (s *scene) daemonKilled() {
	result := s.under(func() {
		s.serves(bar)
		s.world.daemon.stop(syscall.SIGKILL)
		s.serves(bar)
		s.must(s.world.startDaemon())
		s.lives()
	})
	s.Logf("the daemon was killed and came back: of %d requests %d failed", result.Sent, result.Failed)
	if result.Failed > 0 {
		s.Errorf("%d requests failed: %v", result.Failed, result.Errors)
	}
}

// lives waits until the daemon has carried a change over from Paris.
func (s *scene) lives() {
	s.Helper()
	s.must(eventually("an export", func() error { return s.world.paris.export("private", true) }))
	s.must(eventually("a mirror of private", func() error { // the name alone may be remembered from the last time
		if s.world.london.gone("private-paris") == nil {
			return errors.New("it is not there")
		}
		return nil
	}))
	s.serves("http://private-paris.default.svc.cluster.local/")
	s.must(s.world.paris.export("private", false))
	s.must(eventually("no mirror of private", func() error { return s.world.london.gone("private-paris") }))
}

// unexported takes bar back: its name goes, and comes again with it.
func (s *scene) unexported() {
	s.must(s.world.paris.export("bar", false))
	s.answers([]string{bar}, seen{}, "", "no such host")
	s.serves("http://bar-berlin.default.svc.cluster.local/")
	s.must(s.world.paris.export("bar", true))
	s.serves(bar)
}

// exportedOnly has a gateway with a list of what may be reached.
func (s *scene) exportedOnly(passthrough bool) {
	s.serves(bar)
	for _, host := range []string{"private-paris.default", "private-paris.default.svc.cluster.local:80", "web-paris.default:8080"} {
		s.answers([]string{"--host", host, bar}, seen{}, "", "status 421")
	}
	s.answers([]string{"grpc://hello-paris.default.svc.cluster.local:9090"}, seen{}, "", "421")
	if passthrough {
		s.serves("--root", s.world.root.file("ca"), "https://secure-paris.default.svc.cluster.local/")
	}
	s.must(s.gateway.remove())
}

// mtls has a gateway that asks for certificates of the shared root.
func (s *scene) mtls() {
	const url = "https://bar-paris.default.svc.cluster.local/"
	root := []string{"--root", s.world.root.file("ca")}
	s.serves(append(root, "--cert", s.world.root.file("foo"), "--key", s.world.root.keyFile("foo"), url)...)

	got, err := s.world.call(append(root, url)...)
	if err == nil || got.Backend != "" || !strings.Contains(err.Error(), "certificate required") && !strings.Contains(err.Error(), "status 400") {
		s.Errorf("without a certificate: %+v, %v", got, err)
	}
	stranger, err := newAuthority(filepath.Join(s.world.dir, "stranger"))
	s.must(err)
	s.must(stranger.issue("foo"))
	got, err = s.world.call(append(root, "--cert", stranger.file("foo"), "--key", stranger.keyFile("foo"), url)...)
	if err == nil || got.Backend != "" || !strings.Contains(err.Error(), "tls: ") && !strings.Contains(err.Error(), "status 400") {
		s.Errorf("with a certificate of another root: %+v, %v", got, err)
	}
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
	s.install(s.world.paris, "caddy", parisAddress, edit{"Caddyfile", "", string(forwarder)})
	for url, want := range map[string]seen{
		bar: {Backend: "bar of paris", Host: "bar-paris.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
		"http://web-paris.default.svc.cluster.local:8080/": {Backend: "web of paris", Host: "web-paris.default.svc.cluster.local:8080", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "web-paris.default.svc.cluster.local:8080", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
		"ws://bar-paris.default.svc.cluster.local/ws": {Backend: "bar of paris", Host: "bar-paris.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Messages: 3,
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: londonPlace.node, ForwardedProto: "http"},
	} {
		s.answers([]string{url}, want, s.gateway.address, "")
	}
	s.must(s.gateway.remove())
}

// ingress has the API server check what ships for other ingress controllers.
func (s *scene) ingress() {
	for _, kind := range []string{"ingress", "traefik", "ambassador", "gloo"} {
		s.must(run(s.world.binary("cluster"), "kubectl", "--kubeconfig", s.world.paris.kubeconfig(),
			"apply", "--dry-run=server", "-k", filepath.Join("../../deploy/gateways", kind)))
	}
}

// logged counts what the daemon has said.
func (s *scene) logged(words string) int {
	text, err := os.ReadFile(s.world.daemon.log)
	s.must(err)
	return strings.Count(string(text), words)
}

// logs shows, after a failure, the end of what each server said, and the
// daemon's in any case for races.
func (s *scene) logs() {
	text, err := os.ReadFile(s.world.daemon.log)
	if err != nil || strings.Contains(string(text), "DATA RACE") {
		s.Errorf("the daemon's log: %v\n%s", err, text)
	}
	if !s.Failed() {
		return
	}
	files, _ := filepath.Glob(filepath.Join(s.world.dir, "*.log"))
	for _, file := range files {
		text, _ := os.ReadFile(file)
		s.Logf("%s:\n%s", filepath.Base(file), tail(string(text), 15))
	}
}

func (s *scene) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}
