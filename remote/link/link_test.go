package link

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"
)

// fakeCluster adds to the fake client what it lacks: patches of each type, resourceVersions that grow, and conflicts.
type fakeCluster struct {
	*dynamicfake.FakeDynamicClient
	version int
	writes  []string
	refuse  func(write string) error // nil: nothing is refused
}

func newFakeCluster(t *testing.T, uid string, objects ...runtime.Object) *fakeCluster {
	t.Helper()
	scheme := runtime.NewScheme()
	kinds := map[schema.GroupVersionResource]string{}
	for _, resource := range []schema.GroupVersionResource{services, networkPolicies, pods, endpointSlices, secrets} {
		kinds[resource] = "List"
	}
	kinds[schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "gateways"}] = "List"
	c := &fakeCluster{FakeDynamicClient: dynamicfake.NewSimpleDynamicClientWithCustomListKinds(scheme, kinds)}
	system := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: types.UID(uid)}}
	for _, object := range append(objects, system) {
		sent, err := content(object)
		if err != nil {
			t.Fatal(err)
		}
		c.store(sent, true)
	}
	c.PrependReactor("patch", "*", c.patch)
	c.PrependReactor("delete", "*", func(action clienttesting.Action) (bool, runtime.Object, error) {
		c.writes = append(c.writes, "delete "+action.GetResource().Resource+" "+action.(clienttesting.DeleteAction).GetName())
		return false, nil, nil
	})
	return c
}

func (c *fakeCluster) store(object *unstructured.Unstructured, create bool) {
	c.version++
	object.SetResourceVersion(strconv.Itoa(c.version))
	resource := resourceOf(object.GroupVersionKind())
	var err error
	if create {
		err = c.Tracker().Create(resource, object, object.GetNamespace())
	} else {
		err = c.Tracker().Update(resource, object, object.GetNamespace())
	}
	if err != nil {
		panic(err)
	}
}

func (c *fakeCluster) patch(action clienttesting.Action) (bool, runtime.Object, error) {
	patch := action.(clienttesting.PatchActionImpl)
	write := "patch " + patch.Resource.Resource + " " + patch.Name
	if c.refuse != nil {
		if err := c.refuse(write); err != nil {
			return true, nil, err
		}
	}
	live, err := c.Tracker().Get(patch.Resource, patch.Namespace, patch.Name)
	if apierrors.IsNotFound(err) && patch.PatchType == types.ApplyPatchType {
		created := &unstructured.Unstructured{}
		if err := json.Unmarshal(patch.Patch, &created.Object); err != nil {
			return true, nil, err
		}
		c.writes = append(c.writes, write)
		c.store(created, true)
		return true, created, nil
	}
	if err != nil {
		return true, nil, err
	}
	before := live.(*unstructured.Unstructured)
	var given struct{ Metadata metav1.ObjectMeta }
	if err := json.Unmarshal(patch.Patch, &given); err != nil {
		return true, nil, err
	}
	if v := given.Metadata.ResourceVersion; v != "" && v != before.GetResourceVersion() {
		return true, nil, apierrors.NewConflict(patch.Resource.GroupResource(), patch.Name, errors.New("it was changed"))
	}
	schema := any(&corev1.Secret{}) // whose rules are those of a merge patch here
	switch patch.Resource.Resource {
	case "deployments":
		schema = &appsv1.Deployment{}
	case "networkpolicies":
		schema = &networkingv1.NetworkPolicy{}
	case "clusterrolebindings", "rolebindings":
		schema = &rbacv1.RoleBinding{}
	}
	old, _ := json.Marshal(before.Object)
	merged, err := strategicpatch.StrategicMergePatch(old, patch.Patch, schema)
	if err != nil {
		return true, nil, err
	}
	after := &unstructured.Unstructured{}
	if err := json.Unmarshal(merged, &after.Object); err != nil {
		return true, nil, err
	}
	if again, _ := json.Marshal(after.Object); !bytes.Equal(again, old) {
		c.writes = append(c.writes, write)
		c.store(after, false)
	}
	return true, after, nil
}

// daemonOf is the Deployment that a fake cluster has now.
func (c *fakeCluster) daemon(t *testing.T) Daemon {
	t.Helper()
	var deployment appsv1.Deployment
	own := Cluster{client: c}
	if found, err := own.read(t.Context(), deployments, DefaultName, DefaultName, &deployment); err != nil || !found {
		t.Fatal(found, err)
	}
	d, err := readDaemon(&deployment)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// pair is two fake clusters, and a server that identifies itself as the remote one to who has the token.
type pair struct {
	london, paris *fakeCluster
	linker        *Linker
	out           bytes.Buffer
	server        *httptest.Server
	uid           string // by which the server identifies itself
	migrate       bool
	reader        string // namespace of the account in paris
}

func newPair(t *testing.T) *pair { return newPairWith(t, func(*corev1.PodSpec) {}) }

// newPairWith has a Deployment in london that differs from the shipped one.
func newPairWith(t *testing.T, change func(*corev1.PodSpec), more ...runtime.Object) *pair {
	t.Helper()
	p := &pair{uid: "paris", reader: DefaultName}
	p.server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.Header.Get("Authorization") != "Bearer secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		fmt.Fprintf(w, `{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "kube-system", "uid": %q}}`, p.uid)
	}))
	t.Cleanup(p.server.Close)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.server.Certificate().Raw})
	d := deployment(change)
	d.TypeMeta = metav1.TypeMeta{APIVersion: "apps/v1", Kind: "Deployment"}
	account := &corev1.ServiceAccount{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: DefaultName, Name: DefaultName}}
	p.london, p.paris = newFakeCluster(t, "london", append(more, d, account)...), newFakeCluster(t, "paris", tokenOf(DefaultName), tokenOf("berlin"))
	p.linker = &Linker{
		Local:     &Cluster{Name: "london", Flags: "--context london", client: p.london},
		Remote:    &Cluster{Name: "paris", Flags: "--context paris", client: p.paris, Endpoint: Endpoint{Server: "https://192.0.2.7:6443", CA: ca}},
		Namespace: DefaultName, Deployment: DefaultName, Out: &p.out,
	}
	return p
}

// tokenOf is the Secret of the account in a namespace.
func tokenOf(namespace string) *corev1.Secret {
	return &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: reader},
		Data: map[string][]byte{"token": []byte("secret")}}
}

func (p *pair) link(t *testing.T, args ...string) (Result, error) {
	t.Helper()
	request := Request{Reader: p.reader, Server: p.server.URL}
	if err := request.ParseArguments(append([]string{"paris"}, args...)); err != nil {
		t.Fatal(err)
	}
	request.Migrate = p.migrate
	p.london.writes, p.paris.writes = nil, nil
	return p.linker.Link(t.Context(), request)
}

// secret is the one of a name in london; nil: there is none.
func (p *pair) secret(t *testing.T, name string) *corev1.Secret {
	t.Helper()
	var secret corev1.Secret
	own := Cluster{client: p.london}
	if found, err := own.read(t.Context(), secrets, DefaultName, name, &secret); err != nil {
		t.Fatal(err)
	} else if !found {
		return nil
	}
	return &secret
}

// hasKeys checks what is in paris's Secret besides a kubeconfig of the server.
func (p *pair) hasKeys(t *testing.T, name string, want ...string) {
	t.Helper()
	secret := p.secret(t, name)
	if secret == nil || secret.Labels[remoteLabel] != "paris" || serverOf(secret.Data[kubeconfigKey]) != p.server.URL {
		t.Fatalf("Secret %s is %v", name, secret)
	}
	if got := keysOf(secret).list(); !slices.Equal(got, want) {
		t.Errorf("Secret %s has the keys %q, want %q", name, got, want)
	}
}

// Where only pods reach the API server, that it is not tried is said.
func TestServerThatOnlyPodsReach(t *testing.T) {
	p := newPair(t)
	p.server.Close()
	if result, err := p.link(t, "gateway=a/b"); err != nil || !result.Linked || !strings.Contains(strings.Join(result.Notes, "\n"), "not tried: this machine cannot reach it") {
		t.Errorf("%v, %q", err, result.Notes)
	}
}

// A link grants first and names the remote last; again it writes nothing; unlinked, nothing of it is left.
func TestLinkAndUnlink(t *testing.T) {
	p := newPair(t)
	result, err := p.link(t, "gateway=address/none", "name={service}-p")
	if err != nil || !result.Linked || result.Verified == nil || result.Verified.State != Unknown {
		t.Fatalf("%v, %+v\n%s", err, result, &p.out)
	}
	keys := []string{"gateway=address/none", "name={service}-p"}
	if want := []string{"patch serviceaccounts service-mirror", "patch secrets service-mirror-remote-paris"}; !slices.Equal(p.london.writes, want) ||
		result.Secret != "service-mirror/service-mirror-remote-paris" || !slices.Equal(result.Keys, keys) {
		t.Errorf("london has the writes %q, want %q, and the result is %+v", p.london.writes, want, result)
	}
	p.hasKeys(t, "service-mirror-remote-paris", keys...)
	if last := p.paris.writes[len(p.paris.writes)-1]; last != "patch clusterrolebindings service-mirror-reader" {
		t.Errorf("paris has the writes %q", p.paris.writes)
	}
	if strings.Contains(p.out.String(), "secret\n") || !strings.Contains(p.out.String(), "gateway address/none does not exist yet") {
		t.Errorf("it says\n%s", &p.out)
	}

	if result, err = p.link(t); err != nil || len(p.london.writes)+len(p.paris.writes)+len(result.Changes) > 0 {
		t.Errorf("again: %v, %q, %q, %+v", err, p.london.writes, p.paris.writes, result.Changes)
	}
	if _, err = p.link(t, "name-", "uid=unverified"); err != nil {
		t.Fatal(err)
	}
	p.hasKeys(t, "service-mirror-remote-paris", "gateway=address/none", "uid=unverified")
	if want := []string{"patch serviceaccounts service-mirror", "patch secrets service-mirror-remote-paris"}; !slices.Equal(p.london.writes, want) {
		t.Errorf("with other keys, london has the writes %q, want %q: the daemon must never see the keys of before beside those of now", p.london.writes, want)
	}

	for range 2 {
		if _, err = p.linker.Unlink(t.Context(), "paris"); err != nil {
			t.Fatal(err)
		}
	}
	local, err := p.linker.readLocal(t.Context(), "paris")
	if err != nil || local.Secret != nil || local.Permitted != nil {
		t.Errorf("%v, %+v is left", err, local)
	}
}

// A Secret that GitOps applied is the link: it is changed under its own name, and the older one of two counts.
func TestLinkOfGitOps(t *testing.T) {
	applied := newSecret(DefaultName, "from-git", "paris", ParseKeys("gateway=a/b,namespaces=a,b,uid=unverified"), []byte("old"))
	newer, berlin := newSecret(DefaultName, "a-newer-one", "paris", nil, []byte("newer")), newSecret(DefaultName, "berlin", "berlin", nil, []byte("berlin's"))
	applied.CreationTimestamp, newer.CreationTimestamp = metav1.Unix(1, 0), metav1.Unix(2, 0)
	applied.ResourceVersion = "3"
	p := newPairWith(t, func(*corev1.PodSpec) {}, applied, newer, berlin)
	for _, one := range []*corev1.Secret{applied, newer} { // which sending an object leaves out
		object, err := p.london.Tracker().Get(secrets, DefaultName, one.Name)
		if err != nil {
			t.Fatal(err)
		}
		object.(*unstructured.Unstructured).SetCreationTimestamp(one.CreationTimestamp)
		p.london.store(object.(*unstructured.Unstructured), false)
	}
	result, err := p.link(t, "uid-", "gateway=c/d", "gateway=e/f")
	if err != nil || result.Secret != "service-mirror/from-git" {
		t.Fatalf("%v, %+v", err, result)
	}
	p.hasKeys(t, "from-git", "gateway=c/d", "gateway=e/f", "namespaces=a,b")
	if want := "Secret service-mirror/a-newer-one also has the label of this remote, and is ignored"; !strings.Contains(strings.Join(result.Notes, "\n"), want) {
		t.Errorf("the notes are %q, want %q", result.Notes, want)
	}
	p.london.writes = nil
	if _, err := p.linker.Unlink(t.Context(), "paris"); err != nil || p.secret(t, "from-git") != nil || p.secret(t, "a-newer-one") != nil || p.secret(t, "berlin") == nil {
		t.Errorf("unlinked: %v", err)
	}
	if want := []string{"delete secrets a-newer-one", "delete secrets from-git"}; len(p.london.writes) < 2 || !slices.Equal(p.london.writes[:2], want) {
		t.Errorf("london has the writes %q, want first %q: the daemon must not use the newer one meanwhile", p.london.writes, want)
	}
}

// The daemon may read remotes in another namespace than its own, or none.
func TestUnlinkSaysWhereRemotesAre(t *testing.T) {
	for flag, want := range map[string]string{"--remotes-from=remotes": "remotes", "--leader-elect": DefaultName} {
		p := newPairWith(t, func(pod *corev1.PodSpec) { pod.Containers[1].Command = []string{"service-mirror", flag} })
		if result, err := p.linker.Unlink(t.Context(), "paris"); err != nil || result.RemotesFrom != want {
			t.Errorf("%s: %v, %+v, want %s", flag, err, result, want)
		}
	}
}

// What an earlier version's link added to the Deployment takes precedence: it is moved only on request, with its keys.
func TestMigrate(t *testing.T) {
	const flag = "--remote=paris=/etc/service-mirror/remotes/paris.kubeconfig,gateway=a/b,namespaces=a,b"
	earlier := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: DefaultName, Name: "service-mirror-remotes"},
		Data: map[string][]byte{"paris.kubeconfig": []byte("old"), "berlin.kubeconfig": []byte("berlin's")}}
	p := newPairWith(t, func(pod *corev1.PodSpec) { pod.Containers[1].Args = []string{flag, "--remote=berlin=/b"} }, earlier)
	if _, err := p.link(t, "uid=unverified"); err == nil || !strings.Contains(err.Error(), "has "+flag+", which takes precedence over a Secret: run link again with --migrate") || len(p.london.writes)+len(p.paris.writes) > 0 {
		t.Errorf("%v, %q", err, p.london.writes)
	}
	p.migrate = true
	if _, err := p.link(t, "uid=unverified"); err != nil {
		t.Fatal(err)
	}
	p.hasKeys(t, "service-mirror-remote-paris", "gateway=a/b", "namespaces=a,b", "uid=unverified")
	if want := []string{"patch serviceaccounts service-mirror", "patch secrets service-mirror-remote-paris", "patch deployments service-mirror", "patch secrets service-mirror-remotes"}; !slices.Equal(p.london.writes, want) {
		t.Errorf("london has the writes %q, want %q", p.london.writes, want)
	}
	if got := p.london.daemon(t).Args; !slices.Equal(got, []string{"--remote=berlin=/b"}) {
		t.Errorf("the arguments are %q", got)
	}
	if got := p.secret(t, "service-mirror-remotes").Data; len(got) != 1 || string(got["berlin.kubeconfig"]) != "berlin's" {
		t.Errorf("the Secret of before has %q", got)
	}
	if _, err := p.link(t); err != nil || len(p.london.writes) > 0 {
		t.Errorf("again: %v, %q", err, p.london.writes)
	}
	if _, err := p.linker.Unlink(t.Context(), "berlin"); err != nil || len(p.london.daemon(t).Args) > 0 || len(p.secret(t, "service-mirror-remotes").Data) > 0 {
		t.Errorf("a remote that was not moved is unlinked: %v, %q", err, p.london.daemon(t).Args)
	}
}

// What the manifests own is not changed, and the link says what remains to be done.
func TestMigrateFromTheCommand(t *testing.T) {
	const flag = "--remote=paris=/x,gateway=a/b"
	p := newPairWith(t, func(pod *corev1.PodSpec) { pod.Containers[1].Command = append(pod.Containers[1].Command, flag) })
	p.migrate = true
	result, err := p.link(t)
	if err != nil || !slices.Contains(p.london.daemon(t).Command, flag) || !strings.Contains(strings.Join(result.Notes, "\n"), "has "+flag+" in its command, which takes precedence over the Secret: remove it from your manifests") {
		t.Errorf("%v, %q", err, result.Notes)
	}
	p.hasKeys(t, "service-mirror-remote-paris", "gateway=a/b")
	if _, err := p.linker.Unlink(t.Context(), "paris"); err == nil || !strings.Contains(err.Error(), "in its command, which unlink does not change") || p.secret(t, "service-mirror-remote-paris") == nil {
		t.Errorf("unlinked: %v", err)
	}
}

// Accounts in several namespaces share the bindings: no link takes another's access away.
func TestAccountsInSeveralNamespaces(t *testing.T) {
	p := newPair(t)
	of := func(namespaces ...string) (all []rbacv1.Subject) {
		for _, namespace := range namespaces {
			all = append(all, rbacv1.Subject{Kind: "ServiceAccount", Namespace: namespace, Name: "service-mirror-reader"})
		}
		return all
	}
	bound := func(resource schema.GroupVersionResource, namespace, name string, want []rbacv1.Subject) {
		t.Helper()
		var binding rbacv1.RoleBinding
		if _, err := p.linker.Remote.read(t.Context(), resource, namespace, name, &binding); err != nil || !slices.Equal(binding.Subjects, want) {
			t.Errorf("%s has the subjects %v, %v, want %v", name, binding.Subjects, err, want)
		}
	}
	link := func(namespace string, args ...string) Result {
		t.Helper()
		p.reader = namespace
		result, err := p.link(t, args...)
		if err != nil {
			t.Fatal(err)
		}
		return result
	}
	link(DefaultName, "gateway=a/b", "records=pub")
	link("berlin", "gateway=a/b", "records=pub")
	bound(clusterBindings, "", "service-mirror-reader", of(DefaultName, "berlin"))
	bound(rbacv1.SchemeGroupVersion.WithResource("rolebindings"), "pub", "service-mirror-reader:records", of(DefaultName, "berlin"))
	for _, namespace := range []string{DefaultName, "berlin"} {
		if link(namespace); len(p.paris.writes) > 0 {
			t.Errorf("again, for %s: paris has the writes %q", namespace, p.paris.writes)
		}
	}

	reads := func(namespace string) bool {
		return strings.Contains(strings.Join(link(namespace, "namespaces=a").Notes, "\n"), "ServiceAccount "+namespace+"/service-mirror-reader can read Services in all namespaces")
	}
	if !reads("berlin") {
		t.Error("that berlin's account can still read all Services is not said")
	}
	object, err := p.linker.Remote.get(t.Context(), clusterBindings, "", reader)
	if err != nil {
		t.Fatal(err)
	}
	object.Object["subjects"] = object.Object["subjects"].([]any)[:1] // as the note says
	p.paris.store(object, false)
	if reads("berlin") {
		t.Error("it is said of berlin's account what another one can read")
	}

	added := false
	p.paris.refuse = func(write string) error { // another link is faster
		if write == "patch clusterrolebindings service-mirror-reader" && !added {
			added = true
			object.Object["subjects"] = append(object.Object["subjects"].([]any), map[string]any{"kind": "ServiceAccount", "namespace": "rome", "name": reader})
			p.paris.store(object, false)
		}
		return nil
	}
	if _, err := p.link(t, "namespaces-"); err == nil || !added {
		t.Errorf("while another link adds its account: %v", err)
	}
	link("berlin", "namespaces-")
	bound(clusterBindings, "", "service-mirror-reader", of(DefaultName, "rome", "berlin"))
}

// While a gateway cannot be read, the daemon may still connect to its ports; only of one that is gone it may not.
func TestPortsOfAnUnreadableGateway(t *testing.T) {
	own := &networkingv1.NetworkPolicy{TypeMeta: metav1.TypeMeta{APIVersion: "networking.k8s.io/v1", Kind: "NetworkPolicy"}, ObjectMeta: metav1.ObjectMeta{Namespace: DefaultName, Name: DefaultName}}
	own.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	p := newPairWith(t, func(*corev1.PodSpec) {}, own)
	gateway := &unstructured.Unstructured{Object: map[string]any{"apiVersion": "v1", "kind": "Service", "metadata": map[string]any{"namespace": "a", "name": "b"},
		"spec": map[string]any{"ports": []any{map[string]any{"protocol": "TCP", "port": int64(8080)}}}}}
	if err := p.paris.Tracker().Create(services, gateway, "a"); err != nil {
		t.Fatal(err)
	}
	unreadable := false
	p.paris.PrependReactor("get", "services", func(clienttesting.Action) (bool, runtime.Object, error) {
		return unreadable, nil, apierrors.NewServiceUnavailable("no")
	})
	allowed := func(want string, args ...string) {
		t.Helper()
		result, err := p.link(t, args...)
		if err != nil || strings.Contains(strings.Join(result.Notes, "\n"), "gateway a/b cannot be read, so its ports are not known") != unreadable {
			t.Fatalf("%v, %q", err, result.Notes)
		}
		var policy networkingv1.NetworkPolicy
		if _, err := p.linker.Local.read(t.Context(), networkPolicies, DefaultName, "service-mirror-to-paris", &policy); err != nil {
			t.Fatal(err)
		}
		_, server, _ := parseServer(p.server.URL)
		if got := portsOf(&policy); got != strings.TrimSuffix(fmt.Sprint(server, ", ", want), ", ") {
			t.Errorf("the daemon may connect to ports %s, want those of %s and %s", got, p.server.URL, want)
		}
	}
	allowed("8080", "gateway=a/b")
	unreadable = true
	if allowed("8080"); len(p.london.writes) > 0 {
		t.Errorf("london has the writes %q", p.london.writes)
	}
	unreadable = false
	if err := p.paris.Tracker().Delete(services, "a", "b"); err != nil {
		t.Fatal(err)
	}
	allowed("")
}

// Whatever fails before the credentials work, nothing is written in london.
func TestNothingHalfDone(t *testing.T) {
	before := acceptTime
	acceptTime = 2 * time.Second
	t.Cleanup(func() { acceptTime = before })
	for name, test := range map[string]struct {
		change func(*pair)
		says   string
	}{
		"another cluster": {func(p *pair) { p.uid = "berlin" }, "is not the cluster of context"},
		"no API server": {func(p *pair) {
			p.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "hello") })
		}, "does not answer with the new kubeconfig"},
		"another token": {func(p *pair) {
			p.server.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) })
		}, "rejected the token"},
		"an empty answer":     {func(p *pair) { p.uid = "" }, "the answer is not from a Kubernetes API server"},
		"another certificate": {func(p *pair) { p.linker.Remote.Endpoint.CA = nil }, "is not trusted by public CAs"},
		"a grant that is refused": {func(p *pair) {
			p.paris.refuse = func(write string) error {
				if strings.HasPrefix(write, "patch clusterroles ") {
					return apierrors.NewForbidden(schema.GroupResource{Resource: "clusterroles"}, reader, errors.New("no"))
				}
				return nil
			}
		}, "paris: clusterrole/service-mirror-reader cannot be written"},
	} {
		p := newPair(t)
		test.change(p)
		result, err := p.link(t, "gateway=a/b")
		if err == nil || !strings.Contains(err.Error(), test.says) || result.Linked || len(p.london.writes) > 0 {
			t.Errorf("%s: %v, want %q, and no writes: %q", name, err, test.says, p.london.writes)
		}
	}
}

// Others may change the Deployment meanwhile: what they wrote stays.
func TestMigrateBesideOthers(t *testing.T) {
	p := newPairWith(t, func(pod *corev1.PodSpec) { pod.Containers[1].Args = []string{"--remote=paris=/p,gateway=a/b"} })
	p.migrate = true
	interrupted := false
	p.london.refuse = func(write string) error {
		if write == "patch deployments service-mirror" && !interrupted {
			interrupted = true
			object, err := p.london.Tracker().Get(deployments, DefaultName, DefaultName)
			if err != nil {
				return err
			}
			live := object.(*unstructured.Unstructured)
			container := live.Object["spec"].(map[string]any)["template"].(map[string]any)["spec"].(map[string]any)["containers"].([]any)[1].(map[string]any)
			container["args"] = []any{"--remote=paris=/p,gateway=a/b", "--remote=berlin=/b"}
			p.london.store(live, false)
		}
		return nil
	}
	if _, err := p.link(t); err != nil {
		t.Fatal(err)
	}
	if got := p.london.daemon(t).Args; !interrupted || !slices.Equal(got, []string{"--remote=berlin=/b"}) {
		t.Errorf("the arguments are %q", got)
	}
}
