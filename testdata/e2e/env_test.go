package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"service-mirror.io/service-mirror/testdata/harness"
)

const (
	exportLabel = "service-mirror.io/exported"
	// soon is how long a change may take to arrive: 5 s, and some more because all tests
	// share two cores with three clusters and the race detector. stays is how long what
	// must not change is watched.
	soon  = 30 * time.Second
	stays = 15 * time.Second
	// lasting is how long it takes until a remote that has failed again and again counts as recovered.
	lasting = soon + 20*time.Second
)

// env is what belongs to one test.
type env struct {
	*testing.T
	local *cluster // where the daemon mirrors to
	// id is the test's own: its namespace in every cluster, the value of the
	// export label, the name of the daemon's ServiceAccounts.
	id         string
	ctx        context.Context
	kubeconfig string // the daemon's, for the local cluster
}

var ids atomic.Int32

// newEnv makes a test parallel and gives it credentials for london.
func newEnv(t *testing.T) *env {
	t.Parallel()
	return newLoneEnv(t)
}

// newLoneEnv is for a test that cannot run in parallel.
func newLoneEnv(t *testing.T) *env { return newEnvIn(t, london, localRules...) }

// newEnvIn gives a test credentials for a local cluster.
func newEnvIn(t *testing.T, local *cluster, rules ...rbacv1.PolicyRule) *env {
	e := &env{T: t, local: local, id: fmt.Sprintf("t%d", ids.Add(1)), ctx: t.Context()}
	e.makeNamespace(local, e.id)
	e.kubeconfig = filepath.Join(t.TempDir(), "local.kubeconfig")
	e.writeKubeconfig(e.kubeconfig, local.config.Host, local.config.CAData, e.account(local, rules))
	return e
}

// What the daemon may do in its own cluster: localRules are for the default
// flags but for rangeRules, without which it does its work too.
var (
	coreRules  = harness.CoreRules
	rangeRules = harness.RangeRules
	localRules = slices.Concat(coreRules, rangeRules)
	// sliceRules are needed besides with --endpoints-api=endpointslices.
	sliceRules = harness.SliceRules
	// readOnly is for a remote cluster.
	readOnly = harness.RemoteRules
)

// makeNamespace creates a namespace that is deleted with the test.
func (e *env) makeNamespace(c *cluster, name string) {
	e.Helper()
	e.must(e.create(c, name))
	e.Cleanup(func() {
		c.CoreV1().Namespaces().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
}

func (e *env) create(c *cluster, namespace string) error {
	_, err := c.CoreV1().Namespaces().Create(e.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}, metav1.CreateOptions{})
	return err
}

// account creates a ServiceAccount with the given permissions and no others, and
// returns its token.
func (e *env) account(c *cluster, rules []rbacv1.PolicyRule) string {
	e.Helper()
	e.must(c.CreateAccount(e.ctx, e.own()))
	e.must(c.Allow(e.ctx, e.own(), rules))
	e.Cleanup(func() {
		c.RbacV1().ClusterRoles().Delete(context.Background(), e.id, metav1.DeleteOptions{})
		c.RbacV1().ClusterRoleBindings().Delete(context.Background(), e.id, metav1.DeleteOptions{})
	})
	return e.token(c, "token")
}

// own is the test's ServiceAccount.
func (e *env) own() harness.Account { return harness.Account{Namespace: e.id, Name: e.id} }

func (e *env) bind(c *cluster) {
	e.Helper()
	e.must(c.Bind(e.ctx, e.own(), e.id))
}

// token creates a token Secret of the test's ServiceAccount; it is valid until the
// Secret is deleted.
func (e *env) token(c *cluster, secret string) string {
	e.Helper()
	token, err := c.CreateSecretToken(e.ctx, e.own(), secret)
	e.must(err)
	return token
}

func (e *env) writeKubeconfig(path, server string, ca []byte, token string) {
	e.Helper()
	e.must(harness.WriteKubeconfig(path, harness.Credentials{Server: server, CA: ca, Token: token}))
}

// remote is a remote cluster of this test's daemon: under a name of the test's own, through a proxy of the test's own, with read-only credentials.
type remote struct {
	*cluster
	env        *env
	name       string
	proxy      *proxy
	token      string
	kubeconfig string
	prefix     string // of what gateway= names
	keys       string // of --remote, besides gateway=
}

func (e *env) remote(c *cluster) *remote { return e.remoteNamed(c, c.name+"-"+e.id) }

func (e *env) remoteNamed(c *cluster, name string) *remote {
	e.Helper()
	if e.local != nil && e.local.policies {
		e.must(e.local.ConfigureRemotes(e.ctx, name))
	}
	r := &remote{cluster: c, env: e, name: name, proxy: newProxy(e.T, c), kubeconfig: filepath.Join(e.TempDir(), "kubeconfig")}
	if err := e.create(c, e.id); !apierrors.IsAlreadyExists(err) { // two remotes may be one cluster
		e.must(err)
		e.Cleanup(func() { c.CoreV1().Namespaces().Delete(context.Background(), e.id, metav1.DeleteOptions{}) })
		r.token = e.account(c, readOnly)
	} else {
		secret, err := c.CoreV1().Secrets(e.id).Get(e.ctx, "token", metav1.GetOptions{})
		e.must(err)
		r.token = string(secret.Data[corev1.ServiceAccountTokenKey])
	}
	r.writeKubeconfig()
	return r
}

func (r *remote) writeKubeconfig() {
	r.env.Helper()
	r.env.writeKubeconfig(r.kubeconfig, "https://"+r.proxy.address, r.proxy.ca, r.token)
}

// flag is the value of the daemon's --remote.
func (r *remote) flag() string {
	return fmt.Sprintf("%s=%s,gateway=%s%s/gateway", r.name, r.kubeconfig, r.prefix, r.env.id) + r.keys
}

// daemon starts a daemon in the local cluster with the given remotes.
func (e *env) daemon(remotes []*remote, args ...string) *daemon {
	e.Helper()
	return runDaemon(e.T, e.args(remotes, args...)...)
}

// args are the arguments of a daemon in the local cluster with the given remotes.
func (e *env) args(remotes []*remote, args ...string) []string {
	args = append([]string{"--kubeconfig", e.kubeconfig, "--export-selector", exportLabel + "=" + e.id}, args...)
	for _, r := range remotes {
		args = append(args, "--remote", r.flag())
	}
	return args
}

// gateway creates the remote's gateway Service, or changes it, with these addresses and
// hostnames.
func (r *remote) gateway(ingress ...string) {
	r.env.Helper()
	r.gatewayNamed("gateway", ingress...)
}

var http2 = "http2"

func (r *remote) gatewayNamed(name string, ingress ...string) {
	r.env.Helper()
	services := r.CoreV1().Services(r.env.id)
	_, err := services.Create(r.env.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Name: "gateway", Port: 8080, AppProtocol: &http2}}, // it serves gRPC, too
		},
	}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		r.env.must(err)
	}
	entries := []map[string]string{}
	for _, entry := range ingress {
		kind := "hostname"
		if _, err := netip.ParseAddr(entry); err == nil {
			kind = "ip"
		}
		entries = append(entries, map[string]string{kind: entry})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": entries}}})
	r.env.must(err)
	_, err = services.Patch(r.env.ctx, name, types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	r.env.must(err)
}

// exported is a Service as the tests export it; change may change it.
func (r *remote) exported(name string, change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: r.env.id, Name: name, Labels: map[string]string{exportLabel: r.env.id}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": name},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80}},
		},
	}
	for _, f := range change {
		f(svc)
	}
	return svc
}

// export creates an exported Service in the remote.
func (r *remote) export(name string, change ...func(*corev1.Service)) {
	r.env.Helper()
	svc := r.exported(name, change...)
	_, err := r.CoreV1().Services(svc.Namespace).Create(r.env.ctx, svc, metav1.CreateOptions{})
	r.env.must(err)
}

// change updates a Service of the test's namespace in a cluster.
func (e *env) change(c *cluster, name string, change func(*corev1.Service)) {
	e.Helper()
	e.eventually(soon, "an update of "+name, func() error {
		svc, err := c.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(svc)
		_, err = c.CoreV1().Services(e.id).Update(e.ctx, svc, metav1.UpdateOptions{})
		return err
	})
}

func (e *env) remove(c *cluster, name string) {
	e.Helper()
	e.must(c.CoreV1().Services(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
}

// label and unlabel export and unexport a Service.
func (e *env) label(svc *corev1.Service)   { metav1.SetMetaDataLabel(&svc.ObjectMeta, exportLabel, e.id) }
func (e *env) unlabel(svc *corev1.Service) { delete(svc.Labels, exportLabel) }

// eventually waits until all checks pass, one after the other.
func (e *env) eventually(within time.Duration, what string, checks ...func() error) {
	e.Helper()
	for _, check := range checks {
		e.must(harness.Eventually(within, what, check))
	}
}

func (e *env) soon(what string, checks ...func() error) {
	e.Helper()
	e.eventually(soon, what, checks...)
}

// stays watches that checks go on passing.
func (e *env) stays(what string, checks ...func() error) {
	e.Helper()
	for end := time.Now().Add(stays); time.Now().Before(end); time.Sleep(250 * time.Millisecond) {
		for _, check := range checks {
			if err := check(); err != nil {
				e.Fatalf("did not stay: %s: %v", what, err)
			}
		}
	}
}

// logs waits until the daemon has logged something.
func (e *env) logs(d *daemon, words ...string) {
	e.Helper()
	e.soon("log of "+strings.Join(words, ", "), func() error {
		if d.logged(words...) == 0 {
			return fmt.Errorf("nothing in the log")
		}
		return nil
	})
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}
