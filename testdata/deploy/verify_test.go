package deploy

import (
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

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
	e.namespace("shop", london, paris)
	e.gateway("203.0.113.1", corev1.ServicePort{Name: "dns", Port: 15353, Protocol: corev1.ProtocolUDP})
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
	e.exportUDP("shop", "lookup")
	says := e.linkAgain("gateway=ingress/gateway", "--wait=1m")
	e.unverified("only UDP ports in the mirrors of paris, which cannot be verified", says)
	if !strings.Contains(says, "not known    shop/lookup-paris, port dns 53/UDP, udp to 203.0.113.1:15353: UDP cannot be verified") ||
		strings.Contains(says, "waiting: 0 of 1 verified") || strings.Contains(says, "label service SERVICE") {
		t.Errorf("of a remote that exports a UDP port alone it says:\n%s", says)
	}

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
	for _, want := range []string{"\n    waiting: 1 of 2 verified: 1 of 2 not reached: shop/baz-paris\n", "reached      shop/bar-paris", "not routed   shop/baz-paris", "service-mirror: 1 of 2 not reached", "Linked, but not all requests arrive", verifyCommand} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}
}

// exportUDP makes an exported Service in paris whose only port is a UDP port that the gateway serves.
func (e *env) exportUDP(namespace, name string) {
	e.Helper()
	_, err := paris.CoreV1().Services(namespace).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Name: name, Labels: map[string]string{"service-mirror.io/exported": "true"}, Annotations: map[string]string{"service-mirror.io/gateway-ports": "53/UDP=15353"},
		},
		Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}},
	}, metav1.CreateOptions{})
	e.must(err)
}

// verification is a verify that runs.
type verification struct {
	*env
	*harness.Process // Log has its progress
	out              *harness.Log
}

// verifies starts verify for the mirrors of paris, as a user on this machine would.
func (e *env) verifies(args ...string) *verification {
	e.Helper()
	v := &verification{env: e, out: &harness.Log{}}
	cmd := command(e.ctx, harness.Program("service-mirror-race"), append([]string{"verify", "--all", "--context", london.Name,
		"--remote", "paris=" + paris.Kubeconfig + ",gateway=ingress/gateway"}, args...)...)
	cmd.Stdout = v.out
	var err error
	v.Process, err = harness.Start(cmd)
	e.must(err)
	e.Cleanup(v.Kill)
	return v
}

// ends waits until it has ended, and wants this exit code, all of this on stdout but for the first line, and this progress
// and error on stderr.
func (v *verification) ends(code int, stdout string, stderr ...string) {
	v.env.Helper()
	v.soon("verify ends", func() error {
		if err := v.Running(); !errors.Is(err, harness.ErrEnded) {
			return errors.New("it runs, and says " + v.Log.String())
		}
		return nil
	})
	first, rest, _ := strings.Cut(v.out.String(), "\n")
	if got := v.ProcessState.ExitCode(); got != code || !strings.HasPrefix(first, "Verified from ") || !strings.HasPrefix(rest, stdout) || strings.Count(rest, "\n") != 1 {
		v.Errorf("exit code %d, want %d, and on stdout a line that begins with %q:\n%s", got, code, stdout, v.out)
	}
	want := ""
	for _, line := range stderr {
		want += "service-mirror: " + line + "\n"
	}
	if got := withoutLog(v.Log.String()); got != want {
		v.Errorf("stderr is\n%s\nwant\n%s", got, want)
	}
}

// withoutLog is what a program prints but its log.
func withoutLog(text string) (rest string) {
	for line := range strings.Lines(text) {
		if !logged.MatchString(line) {
			rest += line
		}
	}
	return rest
}

var logged = regexp.MustCompile(`^[IW]\d{4} `)

// verify --wait is started before the mirror is reachable, and ends as soon as requests arrive: 0. If they do not in time, it
// ends as it does without --wait; if waiting does not help, at once.
func TestVerifyWaits(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london, paris)
	e.gateway(ownAddress(e), corev1.ServicePort{Name: "dns", Port: 15353, Protocol: corev1.ProtocolUDP})
	var routed atomic.Bool
	port := e.serves(func(host string) bool { return routed.Load() && strings.HasPrefix(host, "bar-paris.shop.") })
	e.change(paris, "ingress", "gateway", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
	const long = "--wait=1h"
	noMirror, notReached := "waiting: no mirrors to verify: export a Service first", "waiting: 0 of 1 verified: 1 of 1 not reached: shop/bar-paris"

	v := e.verifies(long)
	v.says(noMirror)
	e.export("shop", "bar", 80)
	v.says(notReached)
	routed.Store(true)
	v.ends(0, "reached      shop/bar-paris, port http 80/TCP, http to ", noMirror, notReached)

	routed.Store(false)
	begin := time.Now()
	v = e.verifies("--wait=3s")
	v.ends(1, "not routed   shop/bar-paris, port http 80/TCP, http to ", notReached, "1 of 1 not reached")
	if took := time.Since(begin); took < 3*time.Second {
		t.Errorf("it has waited only %v", took)
	}

	e.change(paris, "shop", "bar", func(svc *corev1.Service) { delete(svc.Labels, "service-mirror.io/exported") })
	e.exportUDP("shop", "lookup")
	v = e.verifies(long)
	v.ends(4, "not known    shop/lookup-paris, port dns 53/UDP, udp to ", "only UDP ports, which cannot be verified: shop/lookup-paris: test them with a client in a pod")
}

// says waits until it prints a line of progress.
func (v *verification) says(line string) {
	v.env.Helper()
	v.soon("verify says "+line, func() error {
		if v.Log.Count("service-mirror: "+line) == 0 {
			return errors.New("it says " + v.Log.String())
		}
		return v.Running()
	})
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
	return e.serves(func(host string) bool { return strings.HasPrefix(host, name+"-paris.shop.") })
}

// serves starts a gateway that knows some host names, and returns its port.
func (e *env) serves(knows func(host string) bool) int32 {
	e.Helper()
	listener, err := net.Listen("tcp", net.JoinHostPort(ownAddress(e), "0"))
	e.must(err)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !knows(r.Host) {
			http.Error(w, "no such route", http.StatusNotFound)
		}
	}))
	server.Listener.Close()
	server.Listener = listener
	server.Start()
	e.Cleanup(server.Close)
	return int32(listener.Addr().(*net.TCPAddr).Port)
}
