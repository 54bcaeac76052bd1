package publish

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"sigs.k8s.io/gateway-api/pkg/client/clientset/versioned"

	"service-mirror.io/service-mirror/testdata/harness"
)

// paris is the cluster that exports, with all CustomResourceDefinitions of Gateway API's standard channel.
var (
	paris   *harness.Cluster
	gateway versioned.Interface
)

// soon is how long a change may take to arrive, on two cores that everything shares.
const soon = 30 * time.Second

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "publish")
	if err == nil {
		defer os.RemoveAll(dir)
		paris, err = harness.StartCluster(harness.ClusterOptions{Name: "paris", Dir: filepath.Join(dir, "paris")})
	}
	if err == nil {
		defer paris.Stop()
		err = installCRDs()
	}
	if err == nil {
		err = install(dir)
	}
	if err == nil {
		gateway, err = versioned.NewForConfig(paris.Config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// crds is where the module has its CustomResourceDefinitions.
func crds() (string, error) {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api").Output()
	if err != nil {
		return "", fmt.Errorf("find the module of Gateway API: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "standard"), nil
}

func installCRDs() error {
	dir, err := crds()
	if err != nil {
		return err
	}
	ctx := context.Background()
	if _, err := paris.Kubectl(ctx, "apply", "--server-side", "-f", dir); err != nil {
		return err
	}
	return paris.AwaitCRDs(ctx, "crd", "--all")
}

// The namespace of the program and its records, its ServiceAccount, and the namespace of the aliases.
var (
	ours    = harness.PublisherAccount.Namespace
	account = harness.PublisherAccount.Name
	exports = "gateway-exports"
)

var (
	kubeconfig string // with the credentials of the ServiceAccount in deploy/publish
	manifests  string // that directory, as the tests have it
	class      = "none"
)

// install applies deploy/publish, with all components: the programs of all tests have its permissions, and its policies
// apply to them.
func install(dir string) error {
	ctx := context.Background()
	manifests = filepath.Join(dir, "manifests")
	if err := harness.WithComponents("../../deploy/publish", manifests, "listeners", "names"); err != nil {
		return err
	}
	if err := harness.ExportByAnyValue(manifests); err != nil {
		return err
	}
	if err := harness.ConfigurePublisher(manifests, "default/none", class); err != nil {
		return err
	}
	if _, err := paris.Kubectl(ctx, "apply", "-k", manifests); err != nil {
		return err
	}
	kubeconfig = filepath.Join(dir, "kubeconfig")
	return paris.PublisherKubeconfig(ctx, kubeconfig)
}

// env is what belongs to one test: a namespace with its exported Services and its Gateway, and a program. A cluster has
// one publisher, so that tests run one after another.
type env struct {
	*testing.T
	ctx context.Context
	id  string // its namespace, and the value of the export label
}

var ids atomic.Int32

func newEnv(t *testing.T) *env {
	e := &env{T: t, ctx: t.Context(), id: fmt.Sprintf("t%d", ids.Add(1))}
	_, err := paris.CoreV1().Namespaces().Create(e.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: e.id}}, metav1.CreateOptions{})
	e.must(err)
	e.configure(e.id + "/public")
	t.Cleanup(func() {
		paris.CoreV1().Namespaces().Delete(context.Background(), e.id, metav1.DeleteOptions{})
		paris.Kubectl(context.Background(), "delete", "services", "--all", "--namespace", exports)
		gateway.GatewayV1().ListenerSets(ours).DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{})
		paris.CoreV1().ConfigMaps(ours).DeleteCollection(context.Background(), metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "service-mirror.io/record"})
	})
	return e
}

// configure applies the manifests for a Gateway, and waits until the policies know it.
func (e *env) configure(gateway string) {
	e.Helper()
	dir := filepath.Join(e.TempDir(), "manifests")
	e.must(os.CopyFS(dir, os.DirFS(manifests)))
	e.must(harness.ConfigurePublisher(dir, gateway, class))
	_, err := paris.Kubectl(e.ctx, "apply", "-k", dir)
	e.must(err)
	thief := e.dynamic(kubeconfig)
	e.soon("the policies know the Gateway", func() error { return e.route("unknown").create(e.ctx, thief) })
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) soon(what string, check func() error) {
	e.Helper()
	e.must(harness.Eventually(soon, what, check))
}

// gatewayOf creates the test's Gateway with these listeners, in YAML.
func (e *env) gatewayOf(listeners ...string) {
	e.Helper()
	e.apply("apiVersion: gateway.networking.k8s.io/v1\nkind: Gateway\nmetadata: {name: public}\nspec:\n  gatewayClassName: none\n  listeners:\n  - " + strings.Join(listeners, "\n  - ") + "\n")
}

// apply applies objects in the test's namespace.
func (e *env) apply(text string) {
	e.Helper()
	path := filepath.Join(e.TempDir(), "objects.yaml")
	e.must(os.WriteFile(path, []byte(text), 0o644))
	_, err := paris.Kubectl(e.ctx, "apply", "--server-side", "--force-conflicts", "-n", e.id, "-f", path)
	e.must(err)
}

const (
	http = "{name: http, protocol: HTTP, port: 80}"
	tls  = "{name: tls, protocol: TLS, port: 443, tls: {mode: Passthrough}}"
	tcp0 = "{name: tcp-15000, protocol: TCP, port: 15000}"
	tcp1 = "{name: tcp-15001, protocol: TCP, port: 15001}"
	udp0 = "{name: udp-15000, protocol: UDP, port: 15000}"
)

// start starts the program.
func (e *env) start(args ...string) *harness.Process {
	e.Helper()
	return e.run(exec.Command(harness.Program("service-mirror-race"), e.args(args...)...))
}

func (e *env) run(cmd *exec.Cmd) *harness.Process {
	e.Helper()
	p, err := harness.Start(cmd)
	e.must(err)
	e.Cleanup(func() {
		if p.Running() != nil {
			return // the test has stopped it
		}
		if err := p.Stop(10 * time.Second); err != nil {
			e.Errorf("the program ended with %v\n%s", err, p.Log)
		}
		if strings.Contains(p.Log.String(), "DATA RACE") || e.Failed() {
			e.Errorf("log:\n%s", p.Log)
		}
	})
	return p
}

func (e *env) args(more ...string) []string {
	args := []string{"publish", "--kubeconfig", kubeconfig, "--name", "paris", "--export-selector", exported + "=" + e.id}
	if len(more) == 0 || more[0] != "--to" {
		args = append(args, "--to", "gateway-api", "--gateway", e.id+"/public")
	}
	return append(args, more...)
}

const exported = "service-mirror.io/exported"

// export creates an exported Service.
func (e *env) export(name string, ports ...corev1.ServicePort) *corev1.Service {
	e.Helper()
	svc, err := paris.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{exported: e.id}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: ports},
	}, metav1.CreateOptions{})
	e.must(err)
	return svc
}

func (e *env) patchService(name string, metadata map[string]any) {
	e.Helper()
	patch, err := json.Marshal(map[string]any{"metadata": metadata})
	e.must(err)
	_, err = paris.CoreV1().Services(e.id).Patch(e.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	e.must(err)
}

func (e *env) unexport(name string) {
	e.Helper()
	e.patchService(name, map[string]any{"labels": map[string]any{exported: nil}})
}

func port(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number}
}

func udp(name string, number int32) corev1.ServicePort {
	return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolUDP}
}

// record is the record of a Service, as other clusters read it.
type record struct {
	UID   types.UID
	Hosts []string
	Ports []struct {
		Port, Gateway            int32
		Protocol, Class, Problem string
		Shared                   bool
	}
	Ready bool
}

func (e *env) record(name string) (record, error) {
	configMap, err := paris.CoreV1().ConfigMaps(ours).Get(e.ctx, e.id+"."+name, metav1.GetOptions{})
	if err != nil {
		return record{}, err
	}
	var r record
	if label := configMap.Labels["service-mirror.io/record"]; label != "v1" {
		return r, fmt.Errorf("the record's label is %q", label)
	}
	return r, json.Unmarshal([]byte(configMap.Data["record.json"]), &r)
}

// recorded wants the gateway ports in a record.
func (e *env) recorded(name string, want ...int32) func() error {
	return func() error {
		r, err := e.record(name)
		if err != nil {
			return err
		}
		var got []int32
		for _, p := range r.Ports {
			got = append(got, p.Gateway)
		}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			return fmt.Errorf("the gateway ports are %v, want %v: %+v", got, want, r)
		}
		return nil
	}
}

// gone wants an error to be one of what does not exist.
func gone(err error) error {
	if apierrors.IsNotFound(err) {
		return nil
	}
	return fmt.Errorf("it exists (%v)", err)
}

// writes are the program's own writes since a mark.
func (e *env) writes(since harness.Mark) []string {
	e.Helper()
	requests, err := paris.Requests(since, e.id, func(r harness.Request) bool {
		return r.Writes() && strings.HasPrefix(r.UserAgent, "service-mirror/") && r.ObjectRef.Resource != "leases"
	})
	e.must(err)
	var texts []string
	for _, r := range requests {
		texts = append(texts, r.String())
	}
	return texts
}

// dynamic is a client with the credentials of a kubeconfig.
func (e *env) dynamic(path string) dynamic.Interface {
	e.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", path)
	e.must(err)
	config.WarningHandler, config.QPS = rest.NoWarnings{}, -1
	client, err := dynamic.NewForConfig(config)
	e.must(err)
	return client
}
