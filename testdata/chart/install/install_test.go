package install

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// Both sides work with names of the user's choice for namespaces, releases and ServiceAccounts: what is exported is
// published and mirrored with the permissions that are there, and the policies deny everything else. Mirrors stay when
// the release goes.
func TestNamesOfTheUsersChoice(t *testing.T) {
	there := newHelm(t, paris, "exports", "exporting")
	inParis := there.install(`
daemon: {enabled: false}
publisher:
  enabled: true
  names: [paris]
  to: [ingress, names]
  ingressClass: public
  serviceAccount: {name: publishing}
reader:
  enabled: true
  records: [exporting]
  serviceAccount: {name: reading}
`)
	there.createNamespace("shop")
	there.createNamespace("ingress")
	there.gateway("203.0.113.1")

	here := newHelm(t, london, "mirrors", "mirroring")
	values, err := json.Marshal(map[string]any{
		"remotes": map[string]any{"paris": map[string]any{
			"keys": []string{"gateway=ingress/gateway", "records=exporting"}, "kubeconfig": there.kubeconfig("service-mirror-reader"),
		}},
		"daemon": map[string]any{"serviceAccount": map[string]any{"name": "mirroring-services"}, "flags": []string{"--probe=none"}},
	})
	here.must(err)
	here.apiServerPort(16443)
	inLondon := here.install(string(values))
	here.allowed(16443, port(paris.Config.Host))
	here.createNamespace("shop")

	there.denied("publishing", "gateway-exports", "service-mirror-publish-only-aliases")
	here.denied("mirroring-services", "shop", "service-mirror-only-its-own")
	there.run("service-mirror-publish")
	daemon := here.run("service-mirror")
	there.export("shop", "bar", corev1.ServicePort{Name: "http", Port: 80})
	there.export("shop", "secure", corev1.ServicePort{Name: "https", Port: 443}) // whose TLS passes no Ingress
	there.soon("the alias and the Ingress", func() error {
		if _, err := paris.CoreV1().Services("gateway-exports").Get(t.Context(), "shop--secure", metav1.GetOptions{}); err != nil {
			return err
		}
		ingresses, err := paris.NetworkingV1().Ingresses("shop").List(t.Context(), metav1.ListOptions{})
		if err == nil && (len(ingresses.Items) != 1 || *ingresses.Items[0].Spec.IngressClassName != "public") {
			err = fmt.Errorf("there are %v", ingresses.Items)
		}
		return err
	})
	var mirror *corev1.Service
	here.soon("the mirror", func() (err error) {
		if mirror, err = london.CoreV1().Services("shop").Get(t.Context(), "bar-paris", metav1.GetOptions{}); err != nil {
			return err
		}
		endpoints, err := london.CoreV1().Endpoints("shop").Get(t.Context(), "bar-paris", metav1.GetOptions{})
		if err == nil && (len(endpoints.Subsets) != 1 || endpoints.Subsets[0].Addresses[0].IP != "203.0.113.1") {
			err = fmt.Errorf("its endpoints are %v", endpoints.Subsets)
		}
		return err
	})

	if !strings.Contains(inLondon.Info.Notes, "does not delete mirrors") {
		t.Errorf("the notes do not say what an uninstall leaves:\n%s", inLondon.Info.Notes)
	}
	here.must(daemon.Stop(soon))
	here.uninstall(inLondon)
	left, err := london.CoreV1().Services("shop").Get(t.Context(), "bar-paris", metav1.GetOptions{})
	here.must(err)
	if left.UID != mirror.UID || left.ResourceVersion != mirror.ResourceVersion {
		t.Errorf("the uninstall changed the mirror: %v, was %v", left, mirror)
	}
	there.uninstall(inParis)
}

// A link changes nothing of the release, and stays when that is upgraded and rolled back, and what the values say changes.
func TestLinkedReleaseIsUpgraded(t *testing.T) {
	h := newHelm(t, london, "anything", "linked")
	h.install("")
	installed := h.deployment()
	h.link()
	linked := h.deployment()
	if linked.ResourceVersion != installed.ResourceVersion {
		t.Errorf("the link changes the Deployment to\n%+v", linked.Spec)
	}

	h.upgrade("daemon: {createNamespaces: true, replicas: 3}")
	upgraded := h.deployment()
	if container := upgraded.Spec.Template.Spec.Containers[0]; *upgraded.Spec.Replicas != 3 || !slices.Contains(container.Command, "--create-namespaces") ||
		!slices.Contains(container.Command, "--remotes-from=linked") || len(container.Args) > 0 {
		t.Errorf("the upgraded Deployment has %d replicas, command %q and arguments %q", *upgraded.Spec.Replicas, container.Command, container.Args)
	}
	h.stillLinked()
	h.mayCreateNamespaces(true)

	h.rollback()
	if spec := h.deployment().Spec; !equality.Semantic.DeepEqual(spec, linked.Spec) {
		t.Errorf("rolled back, the Deployment has\n%+v\nwant\n%+v", spec, linked.Spec)
	}
	h.stillLinked()
	h.mayCreateNamespaces(false)
}

// Helm itself finds nothing to warn of.
func TestLint(t *testing.T) {
	lint := action.NewLint()
	lint.Strict = true
	result := lint.Run([]string{filepath.Join(deploy, "chart")}, nil)
	if result.TotalChartsLinted != 1 || len(result.Errors) > 0 {
		t.Errorf("%d charts are linted: %v", result.TotalChartsLinted, result.Errors)
	}
}

// A second daemon in a cluster would do everything twice.
func TestSecondDaemonIsRefused(t *testing.T) {
	newHelm(t, london, "first", "one").install("")
	second := newHelm(t, london, "second", "two")
	if _, err := second.tryInstall(""); err == nil || !strings.Contains(err.Error(), "invalid ownership metadata") {
		t.Errorf("got %v", err)
	}
	// The publisher is another program.
	newHelm(t, london, "third", "three").install("daemon: {enabled: false}\npublisher: {enabled: true, names: [london], to: [ingress], ingressClass: public}")
}

func (h *helm) deployment() *appsv1.Deployment {
	h.Helper()
	deployment, err := h.cluster.AppsV1().Deployments(h.namespace).Get(h.Context(), "service-mirror", metav1.GetOptions{})
	h.must(err)
	return deployment
}

// apiServerPort has the cluster's API server on a port, behind Service default/kubernetes.
func (h *helm) apiServerPort(port int32) {
	h.Helper()
	client := h.cluster.DiscoveryV1().EndpointSlices("default")
	_, err := client.Create(h.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "kubernetes", Labels: map[string]string{discoveryv1.LabelServiceName: "kubernetes"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"203.0.113.250"}}},
		Ports:       []discoveryv1.EndpointPort{{Port: &port}},
	}, metav1.CreateOptions{})
	h.must(err)
	h.Cleanup(func() { h.must(client.Delete(context.Background(), "kubernetes", metav1.DeleteOptions{})) })
}

// port is that of a URL.
func port(server string) int32 {
	parsed, err := url.Parse(server)
	if err != nil {
		panic(err) // the harness made it
	}
	number, err := strconv.ParseInt(parsed.Port(), 10, 32)
	if err != nil {
		panic(err)
	}
	return int32(number)
}

// allowed checks that the NetworkPolicy lets the daemon connect to these ports.
func (h *helm) allowed(ports ...int32) {
	h.Helper()
	policy, err := h.cluster.NetworkingV1().NetworkPolicies(h.namespace).Get(h.Context(), "service-mirror", metav1.GetOptions{})
	h.must(err)
	for _, port := range ports {
		if !slices.ContainsFunc(policy.Spec.Egress, func(rule networkingv1.NetworkPolicyEgressRule) bool {
			return slices.ContainsFunc(rule.Ports, func(p networkingv1.NetworkPolicyPort) bool { return p.Port.IntVal == port })
		}) {
			h.Errorf("the daemon may not connect to port %d: %v", port, policy.Spec.Egress)
		}
	}
}

// gateway makes the gateway Service ingress/gateway, with this address.
func (h *helm) gateway(ip string) {
	h.Helper()
	services := h.cluster.CoreV1().Services("ingress")
	svc, err := services.Create(h.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, metav1.CreateOptions{})
	h.must(err)
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	_, err = services.UpdateStatus(h.Context(), svc, metav1.UpdateOptions{})
	h.must(err)
}

func (h *helm) export(namespace, name string, port corev1.ServicePort) {
	h.Helper()
	_, err := h.cluster.CoreV1().Services(namespace).Create(h.Context(), &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"service-mirror.io/exported": "true"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{port}},
	}, metav1.CreateOptions{})
	h.must(err)
}

// link links paris as a user would who has both clusters in one kubeconfig. No rollout is awaited: what controls
// Deployments is not here.
func (h *helm) link() {
	h.Helper()
	cmd := exec.CommandContext(h.Context(), harness.Program("service-mirror-race"), "link", "paris", "--context", "london",
		"--namespace", h.namespace, "--server", paris.Config.Host, "--wait=0", "gateway=ingress/gateway")
	cmd.Env = append(os.Environ(), "KUBECONFIG="+london.Kubeconfig+":"+paris.Kubeconfig)
	h.Cleanup(func() {
		_, err := paris.Kubectl(context.Background(), "delete", "--ignore-not-found", "-k", filepath.Join(deploy, "remote"))
		h.must(err)
	})
	_, err := harness.Run(cmd)
	h.must(err)
}

// stillLinked checks that the remote's credentials and its permission are there.
func (h *helm) stillLinked() {
	h.Helper()
	account, err := h.cluster.CoreV1().ServiceAccounts(h.namespace).Get(h.Context(), "service-mirror", metav1.GetOptions{})
	h.must(err)
	if _, configured := account.Annotations["remote.service-mirror.io/paris"]; !configured {
		h.Errorf("the ServiceAccount's annotations are %v", account.Annotations)
	}
	secret, err := h.cluster.CoreV1().Secrets(h.namespace).Get(h.Context(), "service-mirror-remote-paris", metav1.GetOptions{})
	h.must(err)
	if len(secret.Data["kubeconfig"]) == 0 || string(secret.Data["gateway"]) != "ingress/gateway" {
		h.Errorf("the Secret has %q", secret.Data)
	}
}

func (h *helm) mayCreateNamespaces(want bool) {
	h.Helper()
	out, err := h.cluster.Kubectl(h.Context(), "get", "clusterrole,clusterrolebinding", "service-mirror:create-namespaces", "--ignore-not-found", "-o", "name")
	h.must(err)
	if (out != "") != want {
		h.Errorf("want the permission to create namespaces to exist: %v, got %q", want, out)
	}
}
