package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

func TestMain(m *testing.M) {
	if code := role(); code >= 0 {
		os.Exit(code)
	}
	os.Exit(harness.Isolated(isolation, func(dir string) int {
		worldDir = dir
		return m.Run()
	}))
}

// worldDir is where the tests' world has its files.
var worldDir string

type gatewayKind struct {
	kind        string
	passthrough bool   // TLS, chosen by SNI
	tcp, udp    bool   // on reserved ports
	cluster     edit   // to berlin
	opened      []edit // every Service can be reached
	hasLists    bool   // reaches nothing as it ships, for lack of its lists, and not what has an alias
}

// withReserved has a gateway as most tests want it: with the reserved ports that ship as an example, if it can have
// any, and with all Services in place of lists.
func (g gatewayKind) withReserved(more ...edit) []edit {
	if g.tcp {
		more = append(more, edit{"kustomization.yaml", "# components: [reserved-ports]", "components: [reserved-ports]"})
	}
	if g.hasLists {
		more = append(more, g.opened...)
	}
	return more
}

// gateways are the folders of deploy/gateways whose wildcard routes to any
// Service, and what they can do.
var gateways = []gatewayKind{
	{
		kind: "nginx", passthrough: true, tcp: true, udp: true,
		cluster: edit{"cluster.conf", "default paris;", "default berlin;"},
		opened:  []edit{{"reachable.conf", "default exported;", "default all;"}},
	},
	{
		kind: "haproxy", passthrough: true, tcp: true,
		cluster: edit{"deployment.yaml", "value: paris", "value: berlin"},
		opened:  []edit{{"deployment.yaml", "value: exported", "value: all"}},
	},
	{
		kind: "envoy", passthrough: true, tcp: true, udp: true,
		cluster:  edit{"deployment.yaml", "value: paris", "value: berlin"},
		opened:   []edit{{"exported", "or not.\n", "or not.\n*\n"}, {"exported-tls.yaml", "- not_rule: {any: true}", "- any: true"}},
		hasLists: true,
	},
	{
		kind:    "caddy",
		cluster: edit{"deployment.yaml", "value: paris", "value: berlin"},
		opened:  []edit{{"deployment.yaml", "value: exported", "value: all"}},
	},
}

func TestTraffic(t *testing.T) {
	w, err := newWorld(worldDir, "paris", "berlin")
	if err != nil {
		t.Fatal(err)
	}
	if err := w.startDaemon(); err != nil {
		t.Fatal(err)
	}
	s := &scene{T: t, world: w}
	t.Cleanup(func() { s.logs() })
	if foo, bar := s.podIPs(w.london, "foo"), s.podIPs(w.paris, "bar"); len(foo) != 2 || !slices.Equal(foo, bar) {
		t.Errorf("the pod networks are to overlap in both families: foo has %v, bar %v", foo, bar)
	}
	stopPublisher := s.publishNames()
	for _, g := range gateways {
		t.Run(g.kind, func(t *testing.T) {
			s := &scene{T: t, world: w}
			s.install(w.paris, g.kind, parisAddresses, g.withReserved()...)
			s.install(w.berlin, g.kind, []string{berlinAddress}, g.withReserved(g.cluster)...)
			s.serves("http://bar-berlin.default.svc.cluster.local/")
			s.servesBoth()
			for _, over := range families {
				t.Run("requests over "+over.network, func(t *testing.T) { (&scene{t, w, s.gateway}).requests(over, g) })
			}
			t.Run("names", func(t *testing.T) { (&scene{t, w, s.gateway}).names(g) })
			t.Run("matrix", func(t *testing.T) { (&scene{t, w, s.gateway}).matrix() })
			t.Run("verify", func(t *testing.T) { (&scene{t, w, s.gateway}).verify(g) })
			t.Run("families", func(t *testing.T) { (&scene{t, w, s.gateway}).families() })
			t.Run("remote down", func(t *testing.T) { (&scene{t, w, s.gateway}).remoteDown() })
			t.Run("daemon killed", func(t *testing.T) { (&scene{t, w, s.gateway}).daemonKilled() })
			t.Run("switch-over", func(t *testing.T) { (&scene{t, w, s.gateway}).switchOver() })
			t.Run("unexported", func(t *testing.T) { (&scene{t, w, s.gateway}).unexported() })
			if !g.hasLists {
				t.Run("exported only", func(t *testing.T) { (&scene{t, w, s.gateway}).exportedOnly(g) })
			}
			t.Run("opened or listed", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				s.must(s.gateway.remove())
				if g.hasLists {
					s.install(w.paris, g.kind, parisAddresses)
					s.nothingListed()
					s.listed(g.kind)
					return
				}
				s.install(w.paris, g.kind, parisAddresses, g.opened...)
				s.opened(g)
			})
			t.Run("not routed", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				s.install(w.paris, g.kind, parisAddresses, g.withReserved(g.cluster)...)
				s.notRouted()
				s.must(s.gateway.remove())
			})
			t.Run("backends verified", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				edits := []edit{{"kustomization.yaml", "# components: [verify-backends]", "components: [verify-backends]"}}
				if g.hasLists {
					edits = append(edits, g.opened...)
				}
				s.install(w.paris, g.kind, parisAddresses, edits...)
				s.noReserved()
				s.backendsVerified()
			})
			t.Run("mtls", func(t *testing.T) {
				s := &scene{t, w, s.gateway}
				edits := []edit{{"kustomization.yaml", "# components: [mtls]", "components: [mtls]"}}
				if g.tcp { // together, mtls closes these, too
					edits[0].new = "components: [reserved-ports, mtls]"
				}
				if g.hasLists {
					edits = append(edits, g.opened...)
				}
				s.install(w.paris, g.kind, parisAddresses, edits...)
				s.mtls()
			})
		})
	}
	stopPublisher()
	t.Run("controllers", func(t *testing.T) { (&scene{T: t, world: w}).controllersRun(controllers) })
	stopPublisher = s.publishNames() // those with other targets have deleted the aliases
	t.Run("endpoints API", func(t *testing.T) { (&scene{T: t, world: w}).endpointsAPI() })
	t.Run("health", func(t *testing.T) { (&scene{T: t, world: w}).health() })
	t.Run("failover", func(t *testing.T) { (&scene{T: t, world: w}).failover() })
	t.Run("merged", func(t *testing.T) { (&scene{T: t, world: w}).merged() })
	stopPublisher()
	t.Run("dns", func(t *testing.T) { (&scene{T: t, world: w}).dns() })
	t.Run("ingress", func(t *testing.T) { (&scene{T: t, world: w}).ingress() })
}

// scene is one test's view of the world, with Paris's gateway.
type scene struct {
	*testing.T
	world   *world
	gateway *gatewayPod
}

func (s *scene) podIPs(c *cluster, name string) []corev1.PodIP {
	s.Helper()
	pod, err := c.CoreV1().Pods("default").Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	return pod.Status.PodIPs
}

func (s *scene) install(c *cluster, kind string, addresses []string, edits ...edit) {
	s.Helper()
	g, err := c.installGateway(kind, addresses, edits...)
	s.must(err)
	if c == s.world.paris {
		s.gateway = g
	}
	s.Cleanup(func() {
		if g.process.running() == nil {
			s.must(g.remove())
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

// servesBoth waits until bar is served over both families.
func (s *scene) servesBoth() {
	s.Helper()
	for _, over := range families {
		s.serves("--network", over.network, bar)
	}
}

// unexported takes bar back: its name goes, and comes again with it.
func (s *scene) unexported() {
	s.must(s.world.paris.export("bar", false))
	s.answers([]string{bar}, seen{}, "", "no such host")
	s.serves("http://bar-berlin.default.svc.cluster.local/")
	s.must(s.world.paris.export("bar", true))
	s.serves(bar)
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
