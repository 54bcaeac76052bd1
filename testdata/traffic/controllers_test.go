package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"service-mirror.io/service-mirror/testdata/harness"
)

// controllerKind is a gateway that is configured by objects of the API server: a route for each Service.
type controllerKind struct {
	name  string
	class string // of Ingresses
	// manifests are the folder of deploy/gateways that has what a user applies once, routes what is applied for
	// exported Services.
	manifests, routes string
	// template is the file that has bar's route. An Ingress is made of it for each Service, if there are no routes.
	template string
	// ports are those of its LoadBalancer Service, under the names that its own installation gives them.
	ports []corev1.ServicePort
	// by annotates the exported Services with the gateway ports that nothing else shows London.
	by map[string]map[string]string
	// programs are what runs in its pod.
	programs func(*controllerPod) error
	can      controllerCan
	// published tells that service-mirror publish makes the routes, and London's daemon reads its records.
	published bool
	// gatewayAPI tells that the daemon has the gateway's addresses and ports from the Gateway.
	gatewayAPI bool
	// check is what is seen of it, if not the whole table.
	check func(*scene)
	// splits tells that a gateway in London splits traffic between there and this one.
	splits bool
}

// controllerCan is what a controller does beyond HTTP routed by Host.
type controllerCan struct {
	rewrites      bool   // Host, to the Service's own name
	saysRewrites  bool   // in its GatewayClass, so that the publisher has it do that
	forwardedHost bool   // it says which one it was
	passesHTTPS   bool   // bar's own port for HTTPS is reached, which has a certificate of its own
	gatewayAPI    bool   // gRPC, TLS that passes through and plain TCP have objects
	dropsPort     bool   // from Host
	wsProto       string // X-Forwarded-Proto of a WebSocket
	unknown       string // the answer to a name without a route
}

// controllerPod is such a gateway that runs.
type controllerPod struct {
	*gatewayPod
	kind      controllerKind
	processes []*process
}

// installController installs a gateway in Paris.
func (s *scene) installController(kind controllerKind) *controllerPod {
	s.Helper()
	g := s.installControllerIn(s.world.paris, kind, parisAddresses)
	s.gateway = g.gatewayPod
	return g
}

// installControllerIn does what its user does, what a kubelet does with its Pod, and what a load balancer does with
// its Service.
func (s *scene) installControllerIn(c *cluster, kind controllerKind, addresses []string) *controllerPod {
	s.Helper()
	s.must(c.applyCRDs())
	s.must(c.namespaceOf("gateway"))
	// The shipped gateways' own rules for pods are not those of others' installations. They come back with the next one.
	_, err := c.Kubectl(s.Context(), "label", "namespace", "gateway", "pod-security.kubernetes.io/enforce-")
	s.must(err)
	s.must(c.createTLS("gateway"))
	name := fmt.Sprintf("gateway-%s-%d", kind.name, c.used)
	pod, err := c.podOf(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "gateway", Name: name, Labels: map[string]string{"app": "gateway"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: name, Image: name}}},
	})
	s.must(err)
	g := &controllerPod{gatewayPod: &gatewayPod{cluster: c, pod: pod, name: name}, kind: kind}
	g.address, g.address6 = podAddresses(c.used)
	s.Cleanup(func() { s.must(g.remove()) })
	s.must(c.service("gateway", "gateway", false, func(svc *corev1.Service) {
		both := corev1.IPFamilyPolicyPreferDualStack
		svc.Spec.Type, svc.Spec.IPFamilyPolicy, svc.Spec.Ports = corev1.ServiceTypeLoadBalancer, &both, kind.ports
		svc.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}))
	s.applyTo(c, kind.manifests)
	s.must(kind.programs(g))
	s.must(c.ready("gateway", name))
	s.must(c.loadBalancer("gateway", "gateway", addresses...))
	return g
}

// apply applies a folder of deploy/gateways to Paris until the test is over.
func (s *scene) apply(folder string) {
	s.Helper()
	s.applyTo(s.world.paris, folder)
}

// applyTo applies a folder of deploy/gateways until the test is over; an empty one is none.
func (s *scene) applyTo(c *cluster, folder string) {
	s.Helper()
	if folder == "" {
		return
	}
	path := filepath.Join("../../deploy/gateways", folder)
	_, err := c.Kubectl(s.Context(), "apply", "-k", path)
	s.must(err)
	s.Cleanup(func() {
		_, err := c.Kubectl(background, "delete", "-k", path, "--ignore-not-found")
		s.must(err)
	})
}

// run starts one of its programs, with a variable NAME=VALUE in its environment.
func (g *controllerPod) run(name, variable string, args ...string) error {
	started, err := g.pod.start(name, "env", slices.Concat(strings.Fields(variable), []string{harness.Program(name)}, args)...)
	if err == nil {
		g.processes = append(g.processes, started)
	}
	return err
}

// answers waits until a URL on the pod itself is served.
func (g *controllerPod) answers(url string) error {
	return eventually(url+" of "+g.name, func() error {
		for _, p := range g.processes {
			if err := p.running(); err != nil {
				return err
			}
		}
		out, err := g.pod.command("curl", "-fsS", "--max-time", "2", url).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%w: %s", err, out)
		}
		return err
	})
}

func (g *controllerPod) remove() error {
	for _, p := range g.processes {
		p.stop(syscall.SIGKILL)
	}
	var now int64
	err := g.cluster.CoreV1().Services("gateway").Delete(background, "gateway", metav1.DeleteOptions{})
	if apierrors.IsNotFound(err) {
		err = nil
	}
	return errors.Join(err,
		g.cluster.CoreV1().Pods("gateway").Delete(background, g.name, metav1.DeleteOptions{GracePeriodSeconds: &now}),
		g.pod.remove(),
	)
}

// applyCRDs has the API server know the kinds of the Gateway API, and Contour's. It can be done again.
func (c *cluster) applyCRDs() error {
	crds := harness.Program("crds")
	if _, err := c.Kubectl(background, "apply", "--server-side", "-f", crds); err != nil {
		return err
	}
	return c.AwaitCRDs(background, "crd", "--all")
}

func (c *cluster) namespaceOf(name string) error {
	_, err := c.CoreV1().Namespaces().Create(background, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// annotate sets the annotations of an exported Service until the test is over.
func (s *scene) annotate(name string, annotations map[string]string) {
	s.Helper()
	gone := map[string]any{}
	set := map[string]any{}
	for key, value := range annotations {
		set[key], gone[key] = value, nil
	}
	s.must(s.world.paris.patch("default", name, map[string]any{"metadata": map[string]any{"annotations": set}}))
	s.Cleanup(func() {
		s.must(s.world.paris.patch("default", name, map[string]any{"metadata": map[string]any{"annotations": gone}}))
	})
}

// needsCertificate has foo call bar with a certificate of the shared root, without one, and with another root's.
func (s *scene) needsCertificate() {
	s.Helper()
	s.asksForCertificate("https://bar-paris.default.svc.cluster.local/")
}

// asksForCertificate has foo call a URL with a certificate of the shared root, without one, and with another root's.
func (s *scene) asksForCertificate(url string) {
	s.Helper()
	root := []string{"--root", s.world.root.file("ca")}
	other, err := newAuthority(filepath.Join(s.world.dir, "other"))
	s.must(err)
	s.must(other.issue("foo"))
	s.answers(append(root, url), seen{}, "", "certificate required")
	s.serves(append(root, "--cert", s.world.root.file("foo"), "--key", s.world.root.keyFile("foo"), url)...)
	s.answers(append(root, "--cert", other.file("foo"), "--key", other.keyFile("foo"), url), seen{}, "", "tls: ")
}

// speaksH2C says in the object, as the Gateway API wants it, that a Service's only port is for HTTP/2 without TLS.
func (s *scene) speaksH2C(name string) {
	s.Helper()
	svc, err := s.world.paris.CoreV1().Services("default").Get(s.Context(), name, metav1.GetOptions{})
	s.must(err)
	h2c := "kubernetes.io/h2c"
	svc.Spec.Ports[0].AppProtocol = &h2c
	_, err = s.world.paris.CoreV1().Services("default").Update(s.Context(), svc, metav1.UpdateOptions{})
	s.must(err)
	s.Cleanup(func() {
		s.must(s.world.paris.patch("default", name, map[string]any{"spec": map[string]any{"ports": []any{map[string]any{
			"name": svc.Spec.Ports[0].Name, "port": svc.Spec.Ports[0].Port, "targetPort": svc.Spec.Ports[0].TargetPort.IntValue(), "protocol": "TCP"}}}}))
	})
}

// gatewayPort is a port of a controller's LoadBalancer Service.
func gatewayPort(name string, number, target int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, TargetPort: intstr.FromInt32(target)}
}

// controllers are the gateways that follow objects, each with what is applied for it.
var controllers = []controllerKind{traefikGatewayAPI, splits(published(traefikGatewayAPI)), traefikIngress, traefikMTLS,
	contourGatewayAPI, byGateway(published(contourGatewayAPI)), contourIngress, contourMTLS}

// controllersRun sends the requests through each of these.
func (s *scene) controllersRun(kinds []controllerKind) {
	for _, kind := range kinds {
		s.Run(kind.name, func(t *testing.T) {
			s := &scene{T: t, world: s.world}
			s.installController(kind)
			for service, annotations := range kind.by {
				s.annotate(service, annotations)
			}
			s.speaksH2C("hello")
			if kind.published {
				s.publish(kind)
			} else {
				s.applyRoutes(kind)
			}
			if kind.check != nil {
				kind.check(s)
				return
			}
			s.servesBoth()
			for _, over := range families {
				s.Run("requests over "+over.network, func(t *testing.T) { (&scene{t, s.world, s.gateway}).controllerRequests(over, kind.can) })
			}
			if kind.can.gatewayAPI {
				s.Run("mutual TLS passed through", func(t *testing.T) { (&scene{t, s.world, s.gateway}).mutualTLS(kind) })
			}
			if kind.published {
				s.Run("verify", func(t *testing.T) { (&scene{t, s.world, s.gateway}).verifyPublished(kind.can) })
				s.Run("one label", func(t *testing.T) { (&scene{t, s.world, s.gateway}).oneLabel(kind) })
				if kind.splits { // one gateway suffices
					s.Run("another namespace", func(t *testing.T) { (&scene{t, s.world, s.gateway}).moved(kind) })
					s.Run("splitting", func(t *testing.T) { (&scene{t, s.world, s.gateway}).splitting() })
				}
			} else {
				s.Run("route appears and goes", func(t *testing.T) { (&scene{t, s.world, s.gateway}).routeFollowed(kind) })
			}
			s.Run("switch-over", func(t *testing.T) { (&scene{t, s.world, s.gateway}).switchOver() })
		})
	}
}

// portsByHand are the annotations that London needs without records of a publisher: HTTP has this name at the gateway,
// where nothing says that gRPC is served there, too.
func portsByHand(http string) map[string]map[string]string {
	return map[string]map[string]string{
		"hello":    {"service-mirror.io/gateway-port": "grpc=" + http},
		"secure":   {"service-mirror.io/gateway-port": "tls-443=tls"},
		"postgres": {"service-mirror.io/gateway-ports": "5432=15000"},
	}
}

// controllerRequests is the table for gateways with a route for each Service.
func (s *scene) controllerRequests(over family, can controllerCan) {
	root := []string{"--root", s.world.root.file("ca")}
	http := func(name, asked, own string) seen {
		if can.dropsPort {
			asked, _, _ = strings.Cut(asked, ":")
		}
		got := seen{Backend: name + " of paris", Host: asked, Port: httpPort, Proto: "HTTP/1.1", ForwardedFor: over.node, ForwardedProto: "http"}
		if can.rewrites {
			got.Host = own
		}
		if can.forwardedHost {
			got.ForwardedHost = asked
		}
		return got
	}
	const own = "bar.default.svc.cluster.local"
	ended := http("bar", "bar-paris.default.svc.cluster.local", own)
	ended.Issued, ended.ForwardedProto = "paris-gateway", "https"
	if can.passesHTTPS {
		ended = seen{Backend: "bar of paris", Host: "bar-paris.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-secure"}
	}
	socket := http("bar", "bar-paris.default.svc.cluster.local", own)
	socket.Messages, socket.ForwardedProto = 3, can.wsProto
	tests := []controllerRequest{
		{name: "full name", args: []string{bar}, want: http("bar", "bar-paris.default.svc.cluster.local", own)},
		{name: "name with .svc", args: []string{"http://bar-paris.default.svc/"}, want: http("bar", "bar-paris.default.svc", own)},
		{name: "short name", args: []string{"http://bar-paris.default/"}, want: http("bar", "bar-paris.default", own)},
		{name: "plain name", args: []string{"--host", own, bar}, want: http("bar", own, own)},
		{name: "port 8080", args: []string{"http://web-paris.default.svc.cluster.local:8080/"},
			want: http("web", "web-paris.default.svc.cluster.local:8080", "web.default.svc.cluster.local")},
		{name: "WebSocket", args: []string{"ws://bar-paris.default.svc.cluster.local/ws"}, want: socket},
		{name: "HTTPS", args: append(root, "https://bar-paris.default.svc.cluster.local/"), want: ended},
		{name: "HTTPS without the shared root", args: []string{"https://bar-paris.default.svc.cluster.local/"}, wrong: "unknown authority"},
		{name: "what is not exported", args: []string{"--host", "private-paris.default.svc.cluster.local", bar}, wrong: can.unknown},
		{name: "bare name", args: []string{"http://bar-paris/"}, wrong: can.unknown},
		{name: "another Host", args: []string{"--host", "example.org", bar}, wrong: can.unknown},
	}
	if can.gatewayAPI {
		tests = append(tests, gatewayAPIRequests(root, http)...)
	}
	for _, test := range tests {
		s.Run(test.name, func(t *testing.T) {
			s := &scene{t, s.world, s.gateway}
			s.answers(append([]string{"--network", over.network}, test.args...), test.want, s.gateway.address, test.wrong)
		})
	}
}

// controllerRequest is a request, and what the backend sees of it or, else, what the client is answered.
type controllerRequest struct {
	name  string
	args  []string
	want  seen
	wrong string
}

// gatewayAPIRequests are those for which there are kinds of routes besides Ingress.
func gatewayAPIRequests(root []string, http func(name, asked, own string) seen) []controllerRequest {
	call := http("hello", "hello-paris.default.svc.cluster.local:9090", "hello.default.svc.cluster.local")
	call.Proto, call.Port, call.ForwardedProto = "grpc", grpcPort, ""
	stream := call
	stream.Messages = 3
	return []controllerRequest{
		{name: "gRPC", args: []string{"grpc://hello-paris.default.svc.cluster.local:9090"}, want: call},
		{name: "gRPC stream", args: []string{"grpc-stream://hello-paris.default.svc.cluster.local:9090"}, want: stream},
		{name: "TLS passed through", args: append(root, "https://secure-paris.default.svc.cluster.local/"), want: seen{
			Backend: "secure of paris", Host: "secure-paris.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-secure"}},
		{name: "plain TCP", args: []string{"tcp://postgres-paris.default.svc.cluster.local:5432"}, want: seen{
			Backend: "postgres of paris", Port: tcpPort, Proto: "tcp"}},
	}
}

// routeFollowed has a Service that is exported, and gets a route, and loses it again.
func (s *scene) routeFollowed(kind controllerKind) {
	const url = "http://private-paris.default.svc.cluster.local/"
	route := s.routeOf(kind, "private", 80)
	s.must(s.world.paris.export("private", true))
	s.Cleanup(func() { s.must(s.world.paris.export("private", false)) })
	s.answers([]string{url}, seen{}, "", kind.can.unknown)
	s.results(map[string]string{"default/private-paris http 80/TCP": "not routed"}, "default/private-paris")
	begin := time.Now()
	_, err := s.world.paris.Kubectl(s.Context(), "apply", "-f", route)
	s.must(err)
	s.serves(url)
	came := time.Since(begin)
	begin = time.Now()
	_, err = s.world.paris.Kubectl(s.Context(), "delete", "-f", route)
	s.must(err)
	s.answers([]string{url}, seen{}, "", kind.can.unknown)
	s.Logf("%s: a route was followed after %v, and gone after %v (kubectl included)", kind.name, came.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
}

// routeOf is a file with bar's route of this kind of gateway, made to be another Service's.
func (s *scene) routeOf(kind controllerKind, service string, port int) string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join("../../deploy/gateways", kind.template))
	s.must(err)
	path := filepath.Join(s.TempDir(), service+".yaml")
	edited := strings.NewReplacer("bar", service, "number: 80", fmt.Sprintf("number: %d", port), "ingressClassName: nginx", "ingressClassName: "+kind.class, "# annotations: {project"+kind.class, "annotations: {project"+kind.class).Replace(string(text))
	s.must(os.WriteFile(path, []byte(edited), 0o644))
	return path
}

// applyRoutes applies the routes that ship, or an Ingress for each Service that speaks HTTP.
func (s *scene) applyRoutes(kind controllerKind) {
	s.Helper()
	if kind.routes != "" {
		s.apply(kind.routes)
		return
	}
	s.must(s.world.paris.createTLS("default"))
	for service, port := range map[string]int{"bar": 80, "web": 8080} {
		path := s.routeOf(kind, service, port)
		_, err := s.world.paris.Kubectl(s.Context(), "apply", "-f", path)
		s.must(err)
		s.Cleanup(func() {
			_, err := s.world.paris.Kubectl(background, "delete", "-f", path)
			s.must(err)
		})
	}
}
