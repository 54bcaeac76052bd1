package main

import (
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// traefikGatewayAPI is Traefik that follows the Gateway API.
var traefikGatewayAPI = controllerKind{
	name: "traefik", manifests: "traefik/gateway-api", routes: "gateway-api/routes", template: "gateway-api/routes/bar.yaml",
	ports: traefikPorts, by: portsByHand("web"), programs: traefik(
		"--providers.kubernetesgateway=true", "--providers.kubernetesgateway.experimentalchannel=true",
		"--providers.kubernetesgateway.statusaddress.service.namespace=gateway", "--providers.kubernetesgateway.statusaddress.service.name=gateway"),
	can: controllerCan{rewrites: true, saysRewrites: true, forwardedHost: true, gatewayAPI: true, wsProto: "ws", unknown: "status 404"},
}

// traefikIngress is Traefik that follows Ingresses.
var traefikIngress = controllerKind{
	name: "traefik-ingress", class: "traefik", template: "ingress/ingress.yaml", ports: traefikPorts[:2],
	programs: traefikOfIngresses("--providers.kubernetesingress.ingressendpoint.publishedservice=gateway/gateway"),
	can:      controllerCan{forwardedHost: true, wsProto: "ws", unknown: "status 404"},
}

// traefikMTLS is the same with the options that ship, and no port that needs no certificate.
var traefikMTLS = controllerKind{
	name: "traefik-mtls", class: "traefik", template: "ingress/ingress.yaml", ports: traefikPorts[1:2],
	programs: func(g *controllerPod) error {
		text, err := os.ReadFile("../../deploy/gateways/traefik/mtls.yaml")
		if err != nil {
			return err
		}
		path := filepath.Join(g.cluster.world.dir, g.name+".yaml")
		if err := writeFile(path, strings.ReplaceAll(string(text), "/etc/gateway/tls/ca.crt", g.cluster.world.root.file("ca"))); err != nil {
			return err
		}
		return traefikOfIngresses("--providers.file.filename=" + path)(g)
	},
	check: func(s *scene) {
		s.needsCertificate()
		s.answers([]string{bar}, seen{}, "", "connection refused")
	},
}

// traefikOfIngresses runs Traefik with the IngressClass that its chart makes.
func traefikOfIngresses(more ...string) func(*controllerPod) error {
	return func(g *controllerPod) error {
		class := &networkingv1.IngressClass{ObjectMeta: metav1.ObjectMeta{Name: "traefik"}, Spec: networkingv1.IngressClassSpec{Controller: "traefik.io/ingress-controller"}}
		if _, err := g.cluster.NetworkingV1().IngressClasses().Create(background, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
		return traefik(append(more, "--providers.kubernetesingress=true", "--entrypoints.websecure.http.tls=true")...)(g)
	}
}

// traefikPorts have the names and targets of Traefik's own chart, and one for each entry point that was added.
var traefikPorts = []corev1.ServicePort{
	gatewayPort("web", 80, 8000), gatewayPort("websecure", 443, 8443), gatewayPort("tls", 9443, 9443),
	gatewayPort("tcp-15000", 15000, 15000), gatewayPort("tcp-15001", 15001, 15001), gatewayPort("tcp-15002", 15002, 15002),
}

// traefik runs Traefik as its chart does, with more flags. Without asdefault, a route that names no entry point
// is on each, and a protocol in which the server speaks first waits for ever.
func traefik(more ...string) func(*controllerPod) error {
	return func(g *controllerPod) error {
		args := append([]string{
			"--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=INFO",
			"--providers.providersthrottleduration=200ms", // 2s by default, in which a change waits
			"--entrypoints.traefik.address=:8081", "--ping=true",
			"--entrypoints.web.address=:8000", "--entrypoints.web.asdefault=true",
			"--entrypoints.websecure.address=:8443", "--entrypoints.websecure.asdefault=true",
			"--entrypoints.tls.address=:9443",
			"--entrypoints.tcp-15000.address=:15000", "--entrypoints.tcp-15001.address=:15001", "--entrypoints.tcp-15002.address=:15002",
		}, more...)
		if err := g.run("traefik", "KUBECONFIG="+g.cluster.Kubeconfig, args...); err != nil {
			return err
		}
		return g.answers("http://127.0.0.1:8081/ping")
	}
}
