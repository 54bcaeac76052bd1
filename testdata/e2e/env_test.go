package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
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
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

const (
	exportLabel = "service-mirror.io/exported"
	// soon is how long a change may take to arrive: 5 s, and as much again because
	// all tests share two cores with three clusters and the race detector. stays
	// is how long what must not change is watched.
	soon  = 10 * time.Second
	stays = 15 * time.Second
)

// env is what one test has for itself.
type env struct {
	*testing.T
	// id is the test's own: its namespace in every cluster, the value of the
	// export label, the name of the daemon's ServiceAccounts.
	id         string
	ctx        context.Context
	kubeconfig string // the daemon's, for london
}

var ids atomic.Int32

// newEnv makes a test parallel and gives it credentials for london.
func newEnv(t *testing.T) *env {
	t.Parallel()
	return newLoneEnv(t)
}

// newLoneEnv is for a test that would starve others.
func newLoneEnv(t *testing.T) *env {
	e := &env{T: t, id: fmt.Sprintf("t%d", ids.Add(1)), ctx: t.Context()}
	e.makeNamespace(london, e.id)
	e.kubeconfig = filepath.Join(t.TempDir(), "london.kubeconfig")
	e.writeKubeconfig(e.kubeconfig, london.config.Host, london.config.CAData, e.account(london, []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services", "endpoints"}, Verbs: []string{"list", "watch", "create", "update", "delete"}},
		{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list", "watch", "create"}},
		{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch", "delete"}},
	}))
	return e
}

// makeNamespace makes a namespace that goes with the test.
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

// account makes a ServiceAccount with the given permissions and no others, and
// returns its token.
func (e *env) account(c *cluster, rules []rbacv1.PolicyRule) string {
	e.Helper()
	name := metav1.ObjectMeta{Name: e.id}
	_, err := c.CoreV1().ServiceAccounts(e.id).Create(e.ctx, &corev1.ServiceAccount{ObjectMeta: name}, metav1.CreateOptions{})
	e.must(err)
	_, err = c.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{ObjectMeta: name, Rules: rules}, metav1.CreateOptions{})
	e.must(err)
	e.bind(c)
	e.Cleanup(func() {
		c.RbacV1().ClusterRoles().Delete(context.Background(), e.id, metav1.DeleteOptions{})
		c.RbacV1().ClusterRoleBindings().Delete(context.Background(), e.id, metav1.DeleteOptions{})
	})
	return e.token(c, "token")
}

func (e *env) bind(c *cluster) {
	e.Helper()
	_, err := c.RbacV1().ClusterRoleBindings().Create(e.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: e.id},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: e.id, Name: e.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: e.id},
	}, metav1.CreateOptions{})
	e.must(err)
}

// token makes a token Secret of the test's ServiceAccount; it is valid until the
// Secret is deleted.
func (e *env) token(c *cluster, secret string) string {
	e.Helper()
	_, err := c.CoreV1().Secrets(e.id).Create(e.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: secret, Annotations: map[string]string{corev1.ServiceAccountNameKey: e.id}},
		Type:       corev1.SecretTypeServiceAccountToken,
	}, metav1.CreateOptions{})
	e.must(err)
	var token string
	e.eventually(20*time.Second, "a token", func() error {
		got, err := c.CoreV1().Secrets(e.id).Get(e.ctx, secret, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if token = string(got.Data[corev1.ServiceAccountTokenKey]); token == "" {
			return fmt.Errorf("Secret %s has no token", secret)
		}
		return nil
	})
	return token
}

func (e *env) writeKubeconfig(path, server string, ca []byte, token string) {
	e.Helper()
	e.must(clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"c": {Server: server, CertificateAuthorityData: ca}},
		AuthInfos:      map[string]*clientcmdapi.AuthInfo{"u": {Token: token}},
		Contexts:       map[string]*clientcmdapi.Context{"c": {Cluster: "c", AuthInfo: "u"}},
		CurrentContext: "c",
	}, path))
}

// remote is a remote cluster as this test's daemon knows it: under a name of the
// test's own, through a proxy of the test's own, with read-only credentials.
type remote struct {
	*cluster
	env        *env
	name       string
	proxy      *proxy
	token      string
	kubeconfig string
}

func (e *env) remote(c *cluster) *remote { return e.remoteNamed(c, c.name+"-"+e.id) }

func (e *env) remoteNamed(c *cluster, name string) *remote {
	e.Helper()
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

var readOnly = []rbacv1.PolicyRule{
	{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}},
	{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"kube-system"}, Verbs: []string{"get"}},
}

func (r *remote) writeKubeconfig() {
	r.env.Helper()
	r.env.writeKubeconfig(r.kubeconfig, "https://"+r.proxy.address, r.proxy.ca, r.token)
}

// flag is the value of the daemon's --remote.
func (r *remote) flag() string {
	return fmt.Sprintf("%s=%s,gateway=%s/gateway", r.name, r.kubeconfig, r.env.id)
}

// daemon starts a daemon in london with the given remotes.
func (e *env) daemon(remotes []*remote, args ...string) *daemon {
	e.Helper()
	args = append([]string{"--kubeconfig", e.kubeconfig, "--export-selector", exportLabel + "=" + e.id}, args...)
	for _, r := range remotes {
		args = append(args, "--remote", r.flag())
	}
	return runDaemon(e.T, args...)
}

// gateway makes the remote's gateway Service, or changes it, to have these
// addresses.
func (r *remote) gateway(ips ...string) {
	r.env.Helper()
	services := r.CoreV1().Services(r.env.id)
	_, err := services.Create(r.env.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: []corev1.ServicePort{{Name: "gateway", Port: 8080}},
		},
	}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		r.env.must(err)
	}
	ingress := []map[string]string{}
	for _, ip := range ips {
		ingress = append(ingress, map[string]string{"ip": ip})
	}
	patch, err := json.Marshal(map[string]any{"status": map[string]any{"loadBalancer": map[string]any{"ingress": ingress}}})
	r.env.must(err)
	_, err = services.Patch(r.env.ctx, "gateway", types.MergePatchType, patch, metav1.PatchOptions{}, "status")
	r.env.must(err)
}

// exported is a Service as the tests export it; change may make it another.
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

// export makes an exported Service in the remote.
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

// label and unlabel export a Service and take that back.
func (e *env) label(svc *corev1.Service)   { metav1.SetMetaDataLabel(&svc.ObjectMeta, exportLabel, e.id) }
func (e *env) unlabel(svc *corev1.Service) { delete(svc.Labels, exportLabel) }

// service and endpoints read from london.
func (e *env) service(name string) *corev1.Service {
	e.Helper()
	svc, err := london.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	return svc
}

func (e *env) endpoints(name string) *corev1.Endpoints {
	e.Helper()
	endpoints, err := london.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	return endpoints
}

// mirror is the name of a Service's mirror.
func (r *remote) mirror(name string) string { return name + "-" + r.name }

// mirrored checks that a Service of the remote has its mirror in london, whole
// and with exactly these endpoint addresses.
func (r *remote) mirrored(name string, addresses ...string) func() error {
	return func() error {
		exported, err := r.CoreV1().Services(r.env.id).Get(r.env.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		svc, err := london.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		endpoints, err := london.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		if svc.Spec.Type != corev1.ServiceTypeClusterIP || len(svc.Spec.Selector) > 0 || svc.Spec.ClusterIP == corev1.ClusterIPNone {
			return fmt.Errorf("%s is no ClusterIP Service without selector: %+v", svc.Name, svc.Spec)
		}
		if want, got := ports(exported), ports(svc); !slices.Equal(want, got) {
			return fmt.Errorf("%s has ports %v, want %v", svc.Name, got, want)
		}
		var wantTargets []string
		if len(addresses) > 0 {
			for _, port := range exported.Spec.Ports {
				if port.Protocol == corev1.ProtocolTCP { // the gateway has no other
					wantTargets = append(wantTargets, port.Name+":8080")
				}
			}
		}
		slices.Sort(wantTargets)
		gotAddresses, gotTargets := contents(endpoints)
		if !slices.Equal(addresses, gotAddresses) || !slices.Equal(wantTargets, gotTargets) {
			return fmt.Errorf("Endpoints %s lead to %v %v, want %v %v", svc.Name, gotAddresses, gotTargets, addresses, wantTargets)
		}
		return nil
	}
}

// ports describes the ports of a Service, sorted.
func ports(svc *corev1.Service) []string {
	var out []string
	for _, p := range svc.Spec.Ports {
		app := ""
		if p.AppProtocol != nil {
			app = *p.AppProtocol
		}
		out = append(out, fmt.Sprintf("%s:%d/%s %s", p.Name, p.Port, p.Protocol, app))
	}
	slices.Sort(out)
	return out
}

// contents are the ready addresses, in their order, and the ports of Endpoints.
func contents(endpoints *corev1.Endpoints) (addresses, targets []string) {
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			addresses = append(addresses, address.IP)
		}
		for _, port := range subset.Ports {
			targets = append(targets, fmt.Sprintf("%s:%d", port.Name, port.Port))
		}
	}
	slices.Sort(targets)
	return addresses, targets
}

// gone checks that nothing is left of a mirror.
func (r *remote) gone(name string) func() error {
	return func() error {
		mirror := r.mirror(name)
		if _, err := london.CoreV1().Services(r.env.id).Get(r.env.ctx, mirror, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Service %s is there (%v)", mirror, err)
		}
		if _, err := london.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, mirror, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Endpoints %s are there (%v)", mirror, err)
		}
		return nil
	}
}

// identities are UID and ClusterIP of every Service of the test in london.
func (e *env) identities() map[string]string {
	e.Helper()
	list, err := london.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	out := map[string]string{}
	for _, svc := range list.Items {
		out[svc.Name] = string(svc.UID) + " " + svc.Spec.ClusterIP
	}
	return out
}

func (e *env) sameIdentities(before map[string]string) {
	e.Helper()
	if now := e.identities(); !maps.Equal(before, now) {
		e.Errorf("UIDs or ClusterIPs changed:\nbefore %v\nnow    %v", before, now)
	}
}

// snapshot is everything about an object, byte for byte.
func snapshot(obj any) string {
	text, err := json.Marshal(obj)
	if err != nil {
		panic(err)
	}
	return string(text)
}

// noWrites checks that this test's daemon has written nothing in london.
func (e *env) noWrites(since auditMark) {
	e.Helper()
	if writes := london.writes(e.T, e.id, since); len(writes) > 0 {
		e.Errorf("%d writes, want none: %v", len(writes), writes[:min(len(writes), 10)])
	}
}

// eventually waits until a check passes.
func (e *env) eventually(within time.Duration, what string, check func() error) {
	e.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			e.Fatalf("not within %v: %s: %v", within, what, err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// soon waits until all checks pass.
func (e *env) soon(what string, checks ...func() error) {
	e.Helper()
	for _, check := range checks {
		e.eventually(soon, what, check)
	}
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

// logs waits until the daemon has said something.
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
