package main

import (
	"fmt"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// contourGatewayAPI is Envoy, which Contour configures from the Gateway API.
var contourGatewayAPI = controllerKind{
	name: "contour", manifests: "contour", routes: "gateway-api/routes", template: "gateway-api/routes/bar.yaml",
	// Contour has Envoy listen on 8000 more than the listener says.
	ports: []corev1.ServicePort{gatewayPort("http", 80, 8080), gatewayPort("https", 443, 8443), gatewayPort("tls", 9443, 17443),
		gatewayPort("tcp-15000", 15000, 23000), gatewayPort("tcp-15001", 15001, 23001), gatewayPort("tcp-15002", 15002, 23002)},
	by: portsByHand("http"), programs: contour("gateway:\n  gatewayRef: {namespace: gateway, name: gateway}\n"),
	can: controllerCan{rewrites: true, gatewayAPI: true, wsProto: "http", unknown: "status 404"},
}

// contourIngress is the same Envoy, configured from Ingresses.
var contourIngress = controllerKind{
	name: "contour-ingress", class: "contour", template: "ingress/ingress.yaml",
	ports:    []corev1.ServicePort{gatewayPort("http", 80, 8080), gatewayPort("https", 443, 8443)},
	programs: contour(""), can: controllerCan{wsProto: "http", unknown: "status 404"},
}

// contourMTLS has the HTTPProxy that ships in place of bar's Ingress.
var contourMTLS = controllerKind{
	name: "contour-mtls", template: "contour/httpproxy-mtls.yaml", ports: contourIngress.ports, programs: contour(""),
	check: func(s *scene) {
		s.needsCertificate()
		s.answers([]string{bar}, seen{}, "", "status 301") // to HTTPS
	},
}

// contour runs Contour with a configuration of its own, and the Envoy that it configures, in one pod.
func contour(config string) func(*controllerPod) error {
	return func(g *controllerPod) error {
		dir := filepath.Join(g.cluster.world.dir, g.name)
		path, boot, admin := filepath.Join(dir, "contour.yaml"), filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin.sock")
		if err := writeFile(path, config); err != nil {
			return err
		}
		if err := g.run("contour", "", "serve", "--kubeconfig", g.cluster.Kubeconfig, "--config-path", path, "--disable-leader-election",
			"--insecure", "--xds-address", "127.0.0.1", "--xds-port", "18001", "--ingress-class-name", "contour",
			"--envoy-service-namespace", "gateway", "--envoy-service-name", "gateway",
			"--envoy-service-http-address", "::", "--envoy-service-https-address", "::"); err != nil {
			return err
		}
		out, err := g.pod.command(harness.Program("contour"), "bootstrap", "--xds-address", "127.0.0.1", "--xds-port", "18001",
			"--resources-dir", filepath.Join(dir, "resources"), "--admin-address", admin, boot).CombinedOutput()
		if err != nil {
			return fmt.Errorf("contour bootstrap: %w: %s", err, out)
		}
		if err := g.run("envoy", "", "-c", boot, "--service-cluster", "gateway", "--service-node", g.name, "--concurrency", "2"); err != nil {
			return err
		}
		return g.answers("http://127.0.0.1:8002/ready")
	}
}
