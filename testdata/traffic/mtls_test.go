package main

import (
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// mutualTLS has foo call a Service that checks its clients' certificates itself: the gateway passes TLS through by a
// TLSRoute, so that the Service sees whose certificate it is.
func (s *scene) mutualTLS(kind controllerKind) {
	const name, url = "mutual", "https://mutual-paris.default.svc.cluster.local/"
	s.must(s.world.paris.service("default", name, true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "secure"}
		svc.Spec.Ports = []corev1.ServicePort{port("tls-443", 443, mutualPort)}
		if !kind.published {
			svc.Annotations = kind.by["secure"]
		}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, name, metav1.DeleteOptions{}))
	})
	if !kind.published {
		s.applyTLSRoute(name)
	}
	root := s.world.root
	for _, over := range families {
		s.answers([]string{"--network", over.network, "--root", root.file("ca"), "--cert", root.file("foo"), "--key", root.keyFile("foo"), url}, seen{
			Backend: "secure of paris", Host: "mutual-paris.default.svc.cluster.local", Port: mutualPort, Proto: "HTTP/1.1", Issued: "paris-secure", Caller: "foo",
		}, s.gateway.address, "")
	}
	s.asksForCertificate(url)
}

// applyTLSRoute applies the route that ships for secure, for another Service.
func (s *scene) applyTLSRoute(service string) {
	s.Helper()
	text, err := os.ReadFile("../../deploy/gateways/gateway-api/routes/secure.yaml")
	s.must(err)
	path := filepath.Join(s.TempDir(), service+".yaml")
	s.must(os.WriteFile(path, []byte(strings.ReplaceAll(string(text), "secure", service)), 0o644))
	_, err = s.world.paris.Kubectl(s.Context(), "apply", "-n", "default", "-f", path)
	s.must(err)
	s.Cleanup(func() {
		_, err := s.world.paris.Kubectl(background, "delete", "-n", "default", "-f", path)
		s.must(err)
	})
}
