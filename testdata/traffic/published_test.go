package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// recordsNamespace is the publisher's, in Paris.
const recordsNamespace = "service-mirror"

// atOnce is how long an export may take to be reachable: two seconds are the goal, 3.2 were seen under a load of twelve.
const atOnce = 10 * time.Second

// byGateway has London's daemon read the Gateway, which needs no Service.
func byGateway(kind controllerKind) controllerKind {
	kind.gatewayAPI = true
	return kind
}

// published is a gateway with routes that service-mirror publish makes: no annotation, no route by hand. It rewrites
// Host only where the implementation says that it can, and passes HTTPS through unless it has Ingresses.
func published(kind controllerKind) controllerKind {
	kind.name, kind.by, kind.routes, kind.published = kind.name+"-published", nil, "", true
	kind.can.passesHTTPS = kind.can.gatewayAPI
	kind.can.rewrites = kind.can.saysRewrites
	return kind
}

// publisherFlags say where the publisher's routes go.
func (kind controllerKind) publisherFlags() []string {
	if !kind.can.gatewayAPI {
		return []string{"--to", "ingress", "--ingress-class", kind.class, "--tls-secret", "gateway-tls"}
	}
	flags := []string{"--to", "gateway-api", "--gateway", "gateway/gateway", "--caller-namespace", depot + ":" + shop}
	if !kind.gatewayAPI { // London has the ports of the Service, which may have other numbers than the listeners
		flags = append(flags, "--gateway-service", "gateway/gateway")
	}
	return flags
}

// publish runs service-mirror publish in Paris for a controller, and lets London's daemon read its records.
func (s *scene) publish(kind controllerKind) {
	s.Helper()
	s.must(s.world.paris.createTLS("default"))
	s.mayRead("gateways", "gateway", "gateways.gateway.networking.k8s.io,listenersets.gateway.networking.k8s.io")
	s.world.namespaces = depot + ":" + shop
	stop := s.startPublisher(kind.gatewayAPI, harness.Publisher{Class: kind.class}, kind.publisherFlags()...)
	s.Cleanup(func() {
		s.world.namespaces = ""
		stop()
		_, err := s.world.paris.Kubectl(background, "delete", "httproutes,tlsroutes,tcproutes,ingresses,listenersets", "-A", "-l", "app.kubernetes.io/managed-by=service-mirror")
		s.must(err)
	})
}

// publishNames has service-mirror publish keep Paris's aliases from now on, in place of those that were made by hand,
// until stop is called. They stay.
func (s *scene) publishNames() (stop func()) {
	s.Helper()
	c := s.world.paris
	end := s.startPublisher(false, harness.Publisher{Components: []string{"names"}}, "--to", "names", "--names-namespace", aliases)
	c.published = true
	_, err := c.Kubectl(s.Context(), "delete", "services", "--all", "--namespace", aliases)
	s.must(err)
	s.must(eventually("the publisher's aliases", func() error {
		made, err := c.CoreV1().Services(aliases).List(s.Context(), metav1.ListOptions{LabelSelector: "app.kubernetes.io/managed-by=service-mirror"})
		if err == nil && len(made.Items) < 5 { // of all backends that are exported, but for those of plain TCP and UDP
			err = fmt.Errorf("there are %d", len(made.Items))
		}
		return err
	}))
	return func() {
		end()
		c.published = false
	}
}

// startPublisher runs service-mirror publish in Paris as its manifests do, changed like this: with the
// permissions of its ServiceAccount, and limited by its policies. London's daemon reads its records, until stop is called.
func (s *scene) startPublisher(gatewayAPI bool, change harness.Publisher, args ...string) (stop func()) {
	s.Helper()
	c := s.world.paris
	kubeconfig := c.path("publish.kubeconfig")
	change.From, change.Gateway = "../../deploy/publish", "gateway/gateway"
	s.must(c.InstallPublisher(s.Context(), change, kubeconfig))
	s.mayRead("records", recordsNamespace, "configmaps")
	args = append([]string{"POD_NAMESPACE=" + recordsNamespace, harness.Program(daemonName()), "publish", "--leader-elect", "--kubeconfig", kubeconfig, "--name", "paris"}, args...)
	publisher, err := c.node.start("publish", "env", args...)
	s.must(err)
	s.world.records, s.world.gatewayAPI = recordsNamespace, gatewayAPI
	s.must(s.world.startDaemon())
	return func() {
		publisher.stop(syscall.SIGTERM)
		if text, err := os.ReadFile(publisher.log); err != nil || strings.Contains(string(text), "DATA RACE") || s.Failed() {
			s.Errorf("the publisher's log: %v\n%s", err, text)
		}
		s.world.records, s.world.gatewayAPI = "", false
		s.must(s.world.startDaemon())
		_, err := c.Kubectl(background, "delete", "configmaps", "-n", recordsNamespace, "-l", "app.kubernetes.io/managed-by=service-mirror")
		s.must(err)
	}
}

// mayRead grants London's daemon what deploy/remote does.
func (s *scene) mayRead(role, namespace, resources string) {
	s.Helper()
	for _, args := range [][]string{
		{"create", "role", role, "-n", namespace, "--verb=list,watch", "--resource=" + resources},
		{"create", "rolebinding", role, "-n", namespace, "--role=" + role, "--serviceaccount=default:service-mirror"},
	} {
		_, err := s.world.paris.Kubectl(s.Context(), args...)
		if err != nil && !strings.Contains(err.Error(), "already exists") {
			s.must(err)
		}
	}
}

// verifyPublished has verify reach each kind of port that the gateway can serve, without a word about the gateway but
// its records.
func (s *scene) verifyPublished(can controllerCan) {
	more := "reached"
	if !can.gatewayAPI {
		more = "no endpoint"
	}
	s.results(map[string]string{
		"default/bar-paris http 80/TCP": "reached", "default/bar-paris https 443/TCP": "reached", "default/web-paris http 8080/TCP": "reached",
		"default/hello-paris grpc 9090/TCP": more, "default/secure-paris tls-443 443/TCP": more,
		"default/postgres-paris postgres 5432/TCP": more,
	}, "--ca-file", s.world.root.file("ca"), "default/bar-paris", "default/web-paris", "default/hello-paris", "default/secure-paris", "default/postgres-paris")
}

// oneLabel exports a Service with HTTP, gRPC and a port of plain TCP by its label, and takes that back.
func (s *scene) oneLabel(kind controllerKind) {
	const name, host = "orders", "orders-paris.default.svc.cluster.local"
	h2c := "kubernetes.io/h2c"
	s.must(s.world.paris.service("default", name, false, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort), port("grpc", 50051, grpcPort), port("postgres", 5432, tcpPort)}
		svc.Spec.Ports[1].AppProtocol = &h2c
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, name, metav1.DeleteOptions{}))
	})
	begin := time.Now()
	s.must(s.world.paris.export(name, true))
	ip := s.clusterIP(name + "-paris")
	requests := [][]string{{"--to", ip + ":80", "http://" + host + "/"}}
	if kind.can.gatewayAPI {
		requests = append(requests, []string{"--to", ip + ":50051", "grpc://" + host + ":50051"}, []string{"tcp://" + ip + ":5432"})
	}
	for _, args := range requests {
		s.must(eventually(strings.Join(args, " "), func() error {
			got, err := s.world.call(append([]string{"--timeout", "500ms"}, args...)...)
			if err == nil && got.Backend != "bar of paris" {
				err = fmt.Errorf("it was answered by %s", got.Backend)
			}
			return err
		}))
		took := time.Since(begin).Round(time.Millisecond)
		s.Logf("%s: %s answers %v after the label", kind.name, args[len(args)-1], took)
		if took > atOnce {
			s.Errorf("it took more than %v", atOnce)
		}
	}
	ports := s.gatewayPorts(name)
	begin = time.Now()
	s.must(s.world.paris.export(name, false))
	s.closed(kind, host, ports)
	s.Logf("%s: the gateway was closed %v after the label was gone", kind.name, time.Since(begin).Round(time.Millisecond))
}

// clusterIP is a mirror's, as soon as London has it. A name that was resolved too early would stay unknown to London's
// DNS for five seconds.
func (s *scene) clusterIP(name string) (ip string) {
	s.Helper()
	s.must(eventually(name, func() error {
		svc, err := s.world.london.CoreV1().Services("default").Get(s.Context(), name, metav1.GetOptions{})
		if err == nil {
			ip = svc.Spec.ClusterIP
		}
		return err
	}))
	return ip
}

// gatewayPorts are the gateway ports that a mirror's Endpoints have.
func (s *scene) gatewayPorts(name string) map[string]int32 {
	s.Helper()
	endpoints, err := s.world.london.CoreV1().Endpoints("default").Get(s.Context(), name+"-paris", metav1.GetOptions{})
	s.must(err)
	ports := map[string]int32{}
	for _, subset := range endpoints.Subsets {
		for _, p := range subset.Ports {
			ports[p.Name] = p.Port
		}
	}
	return ports
}

// closed has what was reachable at the gateway closed, for those too who remember its addresses.
func (s *scene) closed(kind controllerKind, host string, ports map[string]int32) {
	s.Helper()
	s.answers([]string{"--to", parisAddress + ":80", "http://" + host + "/"}, seen{}, "", kind.can.unknown)
	for _, name := range []string{"grpc", "postgres"} {
		if !kind.can.gatewayAPI {
			break
		}
		if ports[name] == 0 {
			s.Fatalf("%s has no gateway port: %v", name, ports)
		}
		url := fmt.Sprintf("tcp://%s:%d", parisAddress, ports[name])
		s.must(eventually(url, func() error {
			if got, err := s.world.call("--timeout", "500ms", url); err == nil {
				return errors.New("it was answered by " + got.Backend)
			}
			return nil
		}))
	}
	s.must(eventually("no mirror", func() error { return s.world.london.gone("orders-paris") }))
}
