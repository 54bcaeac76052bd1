package main

import (
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

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
	s.must(s.world.paris.service("default", "plain", true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("https-edge", 443, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, "plain", metav1.DeleteOptions{}))
	})
	for _, url := range []string{url, "https://plain-paris.default.svc.cluster.local/"} {
		s.serves(append(root, "--cert", s.world.root.file("foo"), "--key", s.world.root.keyFile("foo"), url)...)
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
