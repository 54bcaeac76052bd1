//go:build compat

package main

import (
	"errors"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// skipperIngress is Skipper, which routes Ingresses without anything of nginx, Traefik or Envoy.
var skipperIngress = controllerKind{
	name: "skipper", class: "skipper",
	ports:    []corev1.ServicePort{gatewayPort("http", 80, 8080), gatewayPort("https", 443, 8443)},
	programs: skipper, can: controllerCan{forwardedHost: true, dropsPort: true, wsProto: "http", unknown: "status 404"},
}

// skipperRules are those of its own rbac.yaml, and Secrets, of which it has the certificates.
var skipperRules = []rbacv1.PolicyRule{
	{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ingresses"}, Verbs: []string{"get", "list"}},
	{APIGroups: []string{""}, Resources: []string{"namespaces", "services", "endpoints", "pods", "secrets"}, Verbs: []string{"get", "list"}},
	{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"get", "list"}},
	{APIGroups: []string{"zalando.org"}, Resources: []string{"routegroups"}, Verbs: []string{"get", "list"}},
}

// skipper runs Skipper with the flags of its own Deployment that concern requests. It knows an API server only as pods do,
// by their ServiceAccount's files.
func skipper(g *controllerPod) error {
	c, account := g.cluster, harness.Account{Namespace: "gateway", Name: "skipper"}
	if err := errors.Join(c.CreateAccount(background, account), c.Allow(background, account, skipperRules)); err != nil {
		return err
	}
	token, err := c.RequestToken(background, account)
	if err != nil {
		return err
	}
	const files = "/var/run/secrets/kubernetes.io/serviceaccount" // the world's own
	if err := errors.Join(writeFile(filepath.Join(files, "token"), token), writeFile(filepath.Join(files, "ca.crt"), string(c.Config.CAData))); err != nil {
		return err
	}
	if err := g.run("skipper", "KUBERNETES_SERVICE_HOST="+c.place.node+" KUBERNETES_SERVICE_PORT=6443",
		"-kubernetes", "-kubernetes-in-cluster", "-kubernetes-path-mode=path-prefix", "-enable-kubernetes-endpointslices",
		"-kubernetes-https-redirect=false", "-kubernetes-enable-tls", "-address=:8443", "-insecure-address=:8080",
		"-wait-first-route-load", "-proxy-preserve-host", "-experimental-upgrade", "-reverse-source-predicate",
		"-forwarded-headers=X-Forwarded-For,X-Forwarded-Host,X-Forwarded-Proto=auto",
		"-source-poll-timeout=500", // 3000 by default, in which a change waits
	); err != nil {
		return err
	}
	return g.answers("http://127.0.0.1:8080/kube-system/healthz")
}
