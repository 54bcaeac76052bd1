//go:build compat

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// envoyGateway is Envoy, which Envoy Gateway starts and configures from the Gateway API. There is no kubelet here to run
// Envoy's pods: it is a process beside its control plane, which needs port 9443 itself.
var envoyGateway = controllerKind{
	name: "envoy-gateway", manifests: "envoy-gateway",
	ports: []corev1.ServicePort{gatewayPort("http", 80, 80), gatewayPort("https", 443, 443), gatewayPort("tls", 9443, 9444),
		gatewayPort("tcp-15000", 15000, 15000), gatewayPort("tcp-15001", 15001, 15001), gatewayPort("tcp-15002", 15002, 15002)},
	programs: startEnvoyGateway,
	can:      controllerCan{rewrites: true, gatewayAPI: true, wsProto: "http", unknown: "status 404"},
}

// envoyVersion is what Envoy Gateway calls the Envoy that it finds here, instead of downloading one.
const envoyVersion = "1.40.0"

const controllerNamespace = "envoy-gateway-system"

// hostProxy has Envoy Gateway start Envoy as a process, for both families.
const hostProxy = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyProxy
metadata: {name: host, namespace: ` + controllerNamespace + `}
spec:
  ipFamily: DualStack
  provider: {type: Host, host: {envoyVersion: ` + envoyVersion + `}}
`

// hostConfig is Envoy Gateway's own, with its files in a directory.
const hostConfig = `apiVersion: gateway.envoyproxy.io/v1alpha1
kind: EnvoyGateway
gateway: {controllerName: gateway.envoyproxy.io/gatewayclass-controller}
provider:
  type: Custom
  custom:
    resource: {type: Kubernetes, kubernetes: {leaderElection: {disable: true}}}
    infrastructure:
      type: Host
      host: {configHome: %[1]s/config, dataHome: %[1]s/data, stateHome: %[1]s/state, runtimeDir: %[1]s/run}
`

// withCertificates runs a program that sees /certs, which no machine has: ROOT CERTIFICATES PROGRAM...
const withCertificates = `root=$1 certs=$2; shift 2
mount -t tmpfs tmpfs "$root"
for one in /*; do
	if [ -L "$one" ]; then cp -P "$one" "$root/"
	elif [ -d "$one" ]; then mkdir "$root$one" && mount --rbind "$one" "$root$one"
	fi
done
mkdir "$root/certs" && mount --bind "$certs" "$root/certs"
exec chroot "$root" "$@"`

// startEnvoyGateway does what its chart does, and has it start Envoy.
func startEnvoyGateway(g *controllerPod) error {
	dir := filepath.Join(g.cluster.world.dir, g.name)
	config, root, envoy := filepath.Join(dir, "config.yaml"), filepath.Join(dir, "root"), filepath.Join(dir, "data/envoy-versions", envoyVersion, "bin/envoy")
	if err := errors.Join(writeFile(config, fmt.Sprintf(hostConfig, dir)), os.MkdirAll(root, 0o755), os.MkdirAll(filepath.Dir(envoy), 0o755),
		os.Symlink(harness.Program("envoy"), envoy)); err != nil {
		return err
	}
	out, err := g.pod.command(harness.Program("envoy-gateway"), "certgen", "--local", "--config-home", filepath.Join(dir, "config")).CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy-gateway certgen: %w: %s", err, out)
	}
	if err := g.cluster.installEnvoyGateway(dir); err != nil {
		return err
	}
	started, err := g.pod.start("envoy-gateway", "env", "KUBECONFIG="+g.cluster.Kubeconfig, "ENVOY_GATEWAY_NAMESPACE="+controllerNamespace,
		"sh", "-ec", withCertificates, "sh", root, filepath.Join(dir, "config/certs/envoy-gateway"),
		harness.Program("envoy-gateway"), "server", "--config-path", config)
	if err != nil {
		return err
	}
	g.processes = append(g.processes, started)
	return g.answers("http://127.0.0.1:19003/ready") // Envoy's
}

// installEnvoyGateway applies what it needs in the cluster. The certificates are in a directory.
func (c *cluster) installEnvoyGateway(dir string) error {
	proxy := filepath.Join(dir, "proxy.yaml")
	if err := errors.Join(writeFile(proxy, hostProxy), c.namespaceOf(controllerNamespace),
		c.certificates("envoy", dir, "envoy", "ca.crt", "tls.crt", "tls.key"), c.certificates("envoy-oidc-hmac", dir, "envoy-oidc-hmac", "hmac-secret")); err != nil {
		return err
	}
	if _, err := c.Kubectl(background, "apply", "--server-side", "-f", harness.Program("crds-envoy-gateway")); err != nil {
		return err
	}
	if err := c.AwaitCRDs(background, "crd", "--all"); err != nil {
		return err
	}
	for _, args := range [][]string{
		{"apply", "-f", proxy},
		{"patch", "gatewayclass", "envoy", "--type=merge", "-p",
			`{"spec": {"parametersRef": {"group": "gateway.envoyproxy.io", "kind": "EnvoyProxy", "name": "host", "namespace": "` + controllerNamespace + `"}}}`},
		{"patch", "gateway", "gateway", "-n", "gateway", "--type=json", "-p",
			`[{"op": "test", "path": "/spec/listeners/2/port", "value": 9443}, {"op": "replace", "path": "/spec/listeners/2/port", "value": 9444}]`},
	} {
		if _, err := c.Kubectl(background, args...); err != nil {
			return err
		}
	}
	return nil
}

// certificates makes a Secret of files that certgen made.
func (c *cluster) certificates(name, dir, from string, files ...string) error {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Data: map[string][]byte{}}
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, "config/certs", from, file))
		if err != nil {
			return err
		}
		secret.Data[file] = data
	}
	_, err := c.CoreV1().Secrets(controllerNamespace).Create(background, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}
