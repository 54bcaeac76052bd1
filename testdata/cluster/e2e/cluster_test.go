// Package e2e tests the built cluster binary: $CLUSTER_BIN, or .build/cluster of the repository.
//
// It is a package of its own so that testing it, even with the race detector, does not mean
// building Kubernetes again.
package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	startLimit = 3 * time.Minute
	stopLimit  = 15 * time.Second
	waitLimit  = 30 * time.Second

	userAgent = "cluster-e2e"
)

func binary(t *testing.T) string {
	t.Helper()
	path := os.Getenv("CLUSTER_BIN")
	if path == "" {
		path = "../../../.build/cluster"
	}
	path, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("build it first, with build.sh: %v", err)
	}
	return path
}

// A process is a started command. Its output ends when the last process that has it ends.
type process struct {
	*exec.Cmd
	stdout *bufio.Reader
}

func start(t *testing.T, command ...string) *process {
	t.Helper()
	p := &process{Cmd: exec.Command(command[0], command[1:]...)}
	stdout, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	p.stdout = bufio.NewReader(stdout)
	p.Stderr = t.Output()
	p.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) })
	return p
}

// kubeconfig waits for the cluster to be ready and returns what it printed.
func (p *process) kubeconfig(t *testing.T) string {
	t.Helper()
	timeout := time.AfterFunc(startLimit, func() { _ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) })
	defer timeout.Stop()
	line, err := p.stdout.ReadString('\n')
	if err != nil {
		t.Fatalf("not ready: %v", err)
	}
	return strings.TrimSuffix(line, "\n")
}

// ended fails the test unless all that the command started ends soon, without another line of
// output.
func (p *process) ended(t *testing.T) {
	t.Helper()
	begin := time.Now()
	timeout := time.AfterFunc(stopLimit, func() { _ = syscall.Kill(-p.Process.Pid, syscall.SIGKILL) })
	defer timeout.Stop()
	rest, err := io.ReadAll(p.stdout)
	if err != nil {
		t.Fatal(err)
	}
	if len(rest) > 0 {
		t.Errorf("more on stdout than one line: %q", rest)
	}
	if took := time.Since(begin); took >= stopLimit {
		t.Errorf("had to be killed after %s", took)
	}
	_ = p.Wait()
}

func eventually(t *testing.T, what string, try func() error) {
	t.Helper()
	deadline := time.Now().Add(waitLimit)
	for {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newClient(t *testing.T, config *rest.Config) kubernetes.Interface {
	t.Helper()
	config = rest.CopyConfig(config)
	config.UserAgent = userAgent
	config.QPS = -1
	config.Timeout = waitLimit
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	must(t, err)
	return client
}

func TestMistakes(t *testing.T) {
	bin := binary(t)
	tests := map[string]struct {
		args []string
		want []string // the start of each line
	}{
		"unknown flag":  {[]string{"--nmae=london"}, []string{"cluster: flag provided but not defined: -nmae"}},
		"argument":      {[]string{"london"}, []string{`cluster: unexpected argument "london"`}},
		"one family":    {[]string{"--service-cluster-ip-range=10.0.0.0/16,10.1.0.0/16"}, []string{"cluster: --service-cluster-ip-range "}},
		"inside range":  {[]string{"--service-cluster-ip-range=10.96.0.1/16"}, []string{"cluster: --service-cluster-ip-range "}},
		"to everywhere": {[]string{"--advertise-address=::"}, []string{"cluster: --advertise-address "}},
		"every mistake": {
			[]string{"--name=London", "--port=65536", "--bind-address=localhost", "--service-cluster-ip-range=ten"},
			[]string{"cluster: --name ", "cluster: --port ", "cluster: --bind-address ", "cluster: --service-cluster-ip-range "},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			cmd := exec.Command(bin, test.args...)
			cmd.Dir = t.TempDir()
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			_ = cmd.Run()
			if code := cmd.ProcessState.ExitCode(); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %s", &stdout)
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			if len(lines) != len(test.want) {
				t.Fatalf("stderr:\n%swant %d lines", &stderr, len(test.want))
			}
			for i, want := range test.want {
				if !strings.HasPrefix(lines[i], want) {
					t.Errorf("line %q, want %q…", lines[i], want)
				}
			}
		})
	}
}

func TestCluster(t *testing.T) {
	ctx := t.Context()
	bin, dir := binary(t), filepath.Join(t.TempDir(), "a place with spaces")
	args := []string{bin, "--name=london", "--dir=" + dir, "--service-cluster-ip-range=10.96.0.0/16,fd00:96::/112"}

	first := start(t, args...)
	path := first.kubeconfig(t)
	if want := filepath.Join(dir, "kubeconfig"); path != want {
		t.Fatalf("kubeconfig %q, want %q", path, want)
	}
	config := loadKubeconfig(t, path)
	admin := newClient(t, config)

	version, err := admin.Discovery().ServerVersion()
	must(t, err)
	if version.GitVersion != "v1.37.2" {
		t.Errorf("version %s", version.GitVersion)
	}

	second := exec.Command(args[0], args[1:]...)
	if out, err := second.CombinedOutput(); err == nil || !strings.Contains(string(out), "running in "+dir+" already") {
		t.Errorf("a second start in the same directory: %v, %s", err, out)
	}

	makeNamespace(t, admin, "kept")
	makeNamespace(t, admin, "dropped")
	t.Run("pods", func(t *testing.T) { testPods(t, admin, "dropped") })
	// A namespace takes 5 s to go; the other tests run meanwhile.
	must(t, admin.CoreV1().Namespaces().Delete(ctx, "dropped", metav1.DeleteOptions{}))

	t.Run("dual-stack", func(t *testing.T) { testDualStack(t, admin, "kept") })
	t.Run("mirroring", func(t *testing.T) { testMirroring(t, admin, "kept") })
	var reader *rest.Config
	t.Run("rbac", func(t *testing.T) { reader = testRBAC(t, config, admin, "kept") })
	t.Run("audit", func(t *testing.T) { testAudit(t, admin, filepath.Join(dir, "audit.log")) })
	t.Run("kubectl", func(t *testing.T) { testKubectl(t, bin, path) })
	t.Run("namespace", func(t *testing.T) {
		eventually(t, "the end of the namespace", func() error {
			_, err := admin.CoreV1().Namespaces().Get(ctx, "dropped", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return nil
			}
			return errors.Join(err, errors.New("still there"))
		})
	})
	if t.Failed() {
		return
	}

	// An open watch must not hold up the end.
	openWatch(t, admin)
	must(t, first.Process.Signal(syscall.SIGTERM))
	first.ended(t)
	if code := first.ProcessState.ExitCode(); code != 0 {
		t.Errorf("exit code %d after SIGTERM", code)
	}

	// The shell is a parent that can be killed. Clients made before must go on working, although
	// the server listens on other addresses now.
	shell := append([]string{"sh", "-c", `"$@" & wait`, "sh"}, args...)
	again := start(t, append(shell, "--bind-address=0.0.0.0", "--advertise-address=127.0.0.2")...)
	path = again.kubeconfig(t)
	if _, err := admin.CoreV1().Services("kept").Get(ctx, "mirrored", metav1.GetOptions{}); err != nil {
		t.Errorf("after a restart: %v", err)
	}
	if _, err := newClient(t, reader).CoreV1().Services("kept").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("with a token from before the restart: %v", err)
	}
	moved := loadKubeconfig(t, path)
	if want := strings.Replace(config.Host, "127.0.0.1", "127.0.0.2", 1); moved.Host != want {
		t.Errorf("after a restart at %s, want %s", moved.Host, want)
	}
	if _, err := newClient(t, moved).Discovery().ServerVersion(); err != nil {
		t.Errorf("at the new address: %v", err)
	}
	must(t, again.Process.Kill())
	again.ended(t)
}

// loadKubeconfig checks that the file needs no other file and verifies the server.
func loadKubeconfig(t *testing.T, path string) *rest.Config {
	t.Helper()
	file, err := clientcmd.LoadFromFile(path)
	must(t, err)
	if file.CurrentContext != "london" {
		t.Errorf("current context %q", file.CurrentContext)
	}
	cluster := file.Clusters[file.Contexts["london"].Cluster]
	if len(cluster.CertificateAuthorityData) == 0 || cluster.InsecureSkipTLSVerify {
		t.Error("the kubeconfig does not verify the server")
	}
	config, err := clientcmd.NewDefaultClientConfig(*file, new(clientcmd.ConfigOverrides)).ClientConfig()
	must(t, err)
	return config
}

func makeNamespace(t *testing.T, admin kubernetes.Interface, name string) {
	t.Helper()
	ctx := t.Context()
	_, err := admin.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	must(t, err)
	// No Pod is admitted before.
	eventually(t, "the default ServiceAccount", func() error {
		_, err := admin.CoreV1().ServiceAccounts(name).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

func makeService(t *testing.T, admin kubernetes.Interface, namespace, name string, spec corev1.ServiceSpec) *corev1.Service {
	t.Helper()
	spec.Ports = []corev1.ServicePort{{Port: 80}}
	service, err := admin.CoreV1().Services(namespace).Create(t.Context(),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec}, metav1.CreateOptions{})
	must(t, err)
	return service
}

// testPods makes a Pod by hand and finds it behind a Service.
func testPods(t *testing.T, admin kubernetes.Interface, namespace string) {
	ctx := t.Context()
	labels := map[string]string{"app": "web"}
	// The EndpointSlice controller leaves out a Pod whose Node does not exist.
	_, err := admin.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	must(t, err)
	pod, err := admin.CoreV1().Pods(namespace).Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "web", Labels: labels},
		Spec: corev1.PodSpec{
			NodeName:                      "node",
			Containers:                    []corev1.Container{{Name: "web", Image: "none"}},
			TerminationGracePeriodSeconds: new(int64), // there is no kubelet to end it
		},
	}, metav1.CreateOptions{})
	must(t, err)
	pod.Status = corev1.PodStatus{
		Phase:      corev1.PodRunning,
		PodIP:      "10.1.2.3",
		PodIPs:     []corev1.PodIP{{IP: "10.1.2.3"}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	_, err = admin.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	must(t, err)
	makeService(t, admin, namespace, "web", corev1.ServiceSpec{Selector: labels})

	eventually(t, "the Pod's Endpoints", func() error {
		endpoints, err := admin.CoreV1().Endpoints(namespace).Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(endpoints.Subsets) != 1 || len(endpoints.Subsets[0].Addresses) != 1 {
			return errors.New("no ready address")
		}
		return nil
	})
	eventually(t, "the Pod's EndpointSlice", func() error {
		return hasSlice(ctx, admin, namespace, "web", "10.1.2.3")
	})
}

func testDualStack(t *testing.T, admin kubernetes.Interface, namespace string) {
	policy := corev1.IPFamilyPolicyRequireDualStack
	service := makeService(t, admin, namespace, "dual", corev1.ServiceSpec{IPFamilyPolicy: &policy})
	if len(service.Spec.ClusterIPs) != 2 {
		t.Errorf("ClusterIPs %q", service.Spec.ClusterIPs)
	}
}

// testMirroring makes a Service without a selector and its Endpoints.
func testMirroring(t *testing.T, admin kubernetes.Interface, namespace string) {
	ctx := t.Context()
	makeService(t, admin, namespace, "mirrored", corev1.ServiceSpec{})
	_, err := admin.CoreV1().Endpoints(namespace).Create(ctx, &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: "mirrored"},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "192.0.2.7"}},
			Ports:     []corev1.EndpointPort{{Port: 80}},
		}},
	}, metav1.CreateOptions{})
	must(t, err)
	eventually(t, "the mirrored EndpointSlice", func() error {
		return hasSlice(ctx, admin, namespace, "mirrored", "192.0.2.7")
	})
}

func hasSlice(ctx context.Context, admin kubernetes.Interface, namespace, service, ip string) error {
	slices, err := admin.DiscoveryV1().EndpointSlices(namespace).List(ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	if err != nil {
		return err
	}
	for _, slice := range slices.Items {
		for _, endpoint := range slice.Endpoints {
			if endpoint.Addresses[0] == ip && *endpoint.Conditions.Ready {
				return nil
			}
		}
	}
	return errors.New("no slice with " + ip)
}

// testRBAC returns the access of a ServiceAccount that may only read Services.
func testRBAC(t *testing.T, config *rest.Config, admin kubernetes.Interface, namespace string) *rest.Config {
	ctx := t.Context()
	meta := metav1.ObjectMeta{Name: "reader", Namespace: namespace}
	_, err := admin.CoreV1().ServiceAccounts(namespace).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	must(t, err)
	_, err = admin.RbacV1().Roles(namespace).Create(ctx, &rbacv1.Role{
		ObjectMeta: meta,
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"get", "list"}}},
	}, metav1.CreateOptions{})
	must(t, err)
	_, err = admin.RbacV1().RoleBindings(namespace).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Name: meta.Name, Namespace: namespace}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: meta.Name},
	}, metav1.CreateOptions{})
	must(t, err)
	request, err := admin.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, meta.Name, new(authenticationv1.TokenRequest), metav1.CreateOptions{})
	must(t, err)

	reader := rest.AnonymousClientConfig(config)
	reader.BearerToken = request.Status.Token
	client := newClient(t, reader)
	eventually(t, "what the Role allows", func() error {
		_, err := client.CoreV1().Services(namespace).List(ctx, metav1.ListOptions{})
		return err
	})
	if _, err := client.CoreV1().Services("default").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another namespace: %v, want forbidden", err)
	}
	if _, err := client.CoreV1().Secrets(namespace).List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("another resource: %v, want forbidden", err)
	}
	reader.BearerToken = "wrong"
	if _, err := newClient(t, reader).CoreV1().Services(namespace).List(ctx, metav1.ListOptions{}); !apierrors.IsUnauthorized(err) {
		t.Errorf("a wrong token: %v, want unauthorized", err)
	}
	reader.BearerToken = request.Status.Token
	return reader
}

func openWatch(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	w, err := client.CoreV1().Services("kept").Watch(t.Context(), metav1.ListOptions{})
	must(t, err)
	t.Cleanup(w.Stop)
}

// testAudit looks for requests of this test in the audit log, some of them made just before.
func testAudit(t *testing.T, admin kubernetes.Interface, path string) {
	openWatch(t, admin)
	data, err := os.ReadFile(path)
	must(t, err)

	type request struct {
		stage                     auditv1.Stage
		verb, resource, name, own string
		code                      int32
	}
	seen := map[request]bool{}
	for line := range bytes.Lines(data) {
		var event auditv1.Event
		if err := json.Unmarshal(line, &event); err != nil {
			t.Fatalf("%v in line %s", err, line)
		}
		if event.UserAgent != userAgent || event.ObjectRef == nil {
			continue
		}
		if event.RequestReceivedTimestamp.IsZero() || event.Level != auditv1.LevelMetadata {
			t.Errorf("time %v, level %s in line %s", event.RequestReceivedTimestamp, event.Level, line)
		}
		seen[request{event.Stage, event.Verb, event.ObjectRef.Resource, event.ObjectRef.Name, event.ObjectRef.Namespace, event.ResponseStatus.Code}] = true
	}
	for _, want := range []request{
		{auditv1.StageResponseComplete, "create", "services", "mirrored", "kept", 201},
		{auditv1.StageResponseComplete, "list", "secrets", "", "kept", 403},
		{auditv1.StageResponseStarted, "watch", "services", "", "kept", 200},
	} {
		if !seen[want] {
			t.Errorf("not in the audit log: %+v", want)
		}
	}
}

// testKubectl calls the binary by both of kubectl's ways.
func testKubectl(t *testing.T, bin, kubeconfig string) {
	link := filepath.Join(t.TempDir(), "kubectl")
	must(t, os.Symlink(bin, link))
	manifest := `{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": {"key": "value"}}`
	for _, step := range []struct {
		command []string
		want    string
	}{
		{[]string{link, "apply", "-f", "-"}, "configmap/applied created\n"},
		{[]string{bin, "kubectl", "apply", "-f", "-"}, "configmap/applied unchanged\n"},
		{[]string{link, "patch", "configmap", "applied", "--patch", `{"data": {"key": "other"}}`}, "configmap/applied patched\n"},
		{[]string{link, "get", "configmap", "applied", "-o", "jsonpath={.data.key}"}, "other"},
		{[]string{link, "wait", "--for=jsonpath={.data.key}=other", "configmap/applied"}, "configmap/applied condition met\n"},
	} {
		cmd := exec.Command(step.command[0], step.command[1:]...)
		cmd.Env = append(os.Environ(), clientcmd.RecommendedConfigPathEnvVar+"="+kubeconfig)
		cmd.Stdin = strings.NewReader(manifest)
		if out, err := cmd.CombinedOutput(); err != nil || string(out) != step.want {
			t.Errorf("%q: %v, %s", step.command[1:], err, out)
		}
	}
}
