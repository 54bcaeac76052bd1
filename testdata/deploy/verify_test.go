package deploy

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/testdata/harness"
)

// unverified is what link prints where no request can be sent, with the command that sends them.
const unverified = "\nLinked, NOT verified: "

const verifyCommand = "kubectl --context london --namespace service-mirror exec deployment/service-mirror --container service-mirror -- " +
	"service-mirror verify --remote paris --leader-elect --listen=:8080 --remotes-from=service-mirror\n"

// linksUnverified links again, which must succeed and give this reason why nothing is verified.
func (e *env) linksUnverified(reason string, args ...string) {
	e.Helper()
	e.unverified(reason, e.linkAgain(append([]string{"gateway=ingress/gateway"}, args...)...))
}

func (e *env) unverified(reason, says string) {
	e.Helper()
	_, end, _ := strings.Cut(says, unverified)
	if !strings.HasPrefix(end, reason) || !strings.HasSuffix(end, verifyCommand) {
		e.Errorf("it must end with %q, %q and the command, and says:\n%s", unverified, reason, says)
	}
}

// What keeps a link from being verified is no error: the command for later is printed.
func TestLinkIsNotVerified(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.link("gateway=ingress/gateway")
	e.linksUnverified("no requests were sent because of --wait 0", "--wait=0")
	e.linksUnverified("the daemon's pods are not ready: kubectl --context london", "--wait=1s")
	e.kubectl(london, "--namespace", ours, "scale", "deployment", ours, "--replicas=0")
	e.linksUnverified("the Deployment service-mirror/service-mirror is scaled to 0", "--wait=1m")
	e.kubectl(london, "--namespace", ours, "scale", "deployment", ours, "--replicas=2")

	p := e.runPod() // that no kubelet runs
	e.rolledOut()
	e.linksUnverified("cannot run verify in the daemon's pod", "--wait=1m")
	e.kubelet(p)
	e.linksUnverified("paris exports nothing yet", "--wait=1m")

	out, err := run(e.ctx, harness.Program("service-mirror-race"), "link", "--kubeconfig", e.withoutExec(), "paris", "--remote-kubeconfig", paris.Kubeconfig,
		"--server", paris.Config.Host, "gateway=ingress/gateway", "--wait=1m")
	e.must(err)
	if !strings.Contains(out, "cannot create resource \"pods/exec\"") || !strings.Contains(out, unverified+"cannot run verify in the daemon's pod") {
		t.Errorf("without the permission to exec it says:\n%s", out)
	}
}

// withoutExec is the kubeconfig of someone who can link, and can run nothing in pods.
func (e *env) withoutExec() string {
	e.Helper()
	const name = "linker"
	_, err := london.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{"", "apps", "networking.k8s.io"}, Verbs: []string{"*"},
			Resources: []string{"namespaces", "secrets", "serviceaccounts", "pods", "deployments", "networkpolicies"}},
	}}, metav1.CreateOptions{})
	e.must(err)
	_, err = london.RbacV1().ClusterRoleBindings().Create(e.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name}, RoleRef: rbacv1.RoleRef{Kind: "ClusterRole", Name: name},
		Subjects: []rbacv1.Subject{{Kind: "User", Name: name}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.cleanup(func(e *env) { e.kubectl(london, "delete", "clusterrole,clusterrolebinding", name) })
	config, err := clientcmd.LoadFromFile(london.Kubeconfig)
	e.must(err)
	for _, user := range config.AuthInfos {
		user.Impersonate = name
	}
	path := filepath.Join(e.TempDir(), "kubeconfig")
	e.must(clientcmd.WriteToFile(*config, path))
	return path
}

// The daemon's pod sends the requests once the Deployment is rolled out and the daemon has connected to paris, and what
// comes of them is what comes of the link.
func TestLinkIsVerified(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london, paris)
	e.gateway(ownAddress(e))
	port := e.servesOnly("bar")
	e.change(paris, "ingress", "gateway", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
	e.apply(london, shipped("local"))
	e.export("shop", "bar", 80)
	e.kubelet(e.runPod())
	e.cleanup(func(e *env) { e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote")) })

	link, err := harness.Start(command(e.ctx, harness.Program("service-mirror-race"), "link", "--context", london.Name, "paris", "gateway=ingress/gateway", "--server", paris.Config.Host, "--wait=1m"))
	e.must(err)
	e.soon("it waits for the rollout", func() error {
		if link.Log.Count("waiting for the Deployment controller") == 0 {
			return errors.New("it does not say so")
		}
		return link.Running()
	})
	e.rolledOut()
	e.must(link.Wait())
	says := link.Log.String()
	for _, want := range []string{"rolled out", "connected: 1 exported Services", "reached      shop/bar-paris, port http 80/TCP", "Linked and verified"} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}

	e.export("shop", "baz", 80)
	e.soon("its mirror", func() error {
		_, err := london.CoreV1().Services("shop").Get(e.ctx, "baz-paris", metav1.GetOptions{})
		return err
	})
	says, err = e.tryLink("paris", "gateway=ingress/gateway", "--server", paris.Config.Host, "--wait=1m")
	if err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("baz is not reached, and the error is %v", err)
	}
	for _, want := range []string{"reached      shop/bar-paris", "not routed   shop/baz-paris", "service-mirror: 1 of 2 not reached", "Linked, but not all requests arrive", verifyCommand} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}
}

// ownAddress is one of this machine's own, which is not loopback: no gateway has such an address.
func ownAddress(e *env) string {
	e.Helper()
	all, err := net.InterfaceAddrs()
	e.must(err)
	for _, addr := range all {
		if network, ok := addr.(*net.IPNet); ok && network.IP.To4() != nil && network.IP.IsGlobalUnicast() {
			return network.IP.String()
		}
	}
	e.Fatalf("this machine has no address but %v", all)
	return ""
}

// servesOnly starts a gateway that knows one Service of namespace shop alone, and returns its port.
func (e *env) servesOnly(name string) int32 {
	e.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ownAddress(e), "0"))
	e.must(err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.Host, name+"-paris.shop.") {
			http.Error(w, "no such route", http.StatusNotFound)
		}
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	e.Cleanup(server.Close)
	return int32(listener.Addr().(*net.TCPAddr).Port)
}
