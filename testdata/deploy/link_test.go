package deploy

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"service-mirror.io/service-mirror/testdata/harness"
)

// linkSecret is the Secret in london that links paris.
const linkSecret = "service-mirror-remote-paris"

// arguments are those of the Deployment.
func (e *env) arguments(want ...string) {
	e.Helper()
	if got := e.container().Args; !slices.Equal(got, want) {
		e.Errorf("the Deployment has the arguments %q, want %q", got, want)
	}
}

// kubeconfig is the one that links paris.
func (e *env) kubeconfig() []byte {
	e.Helper()
	secret, err := london.CoreV1().Secrets(ours).Get(e.ctx, linkSecret, metav1.GetOptions{})
	e.must(err)
	return secret.Data["kubeconfig"]
}

// linked checks the keys with which paris is linked, as KEY=VALUE by their names.
func (e *env) linked(want ...string) {
	e.Helper()
	secret, err := london.CoreV1().Secrets(ours).Get(e.ctx, linkSecret, metav1.GetOptions{})
	e.must(err)
	var got []string
	for _, key := range slices.Sorted(maps.Keys(secret.Data)) {
		for value := range strings.SplitSeq(string(secret.Data[key]), "\n") {
			if key != "kubeconfig" {
				got = append(got, key+"="+value)
			}
		}
	}
	if !slices.Equal(got, want) || secret.Labels[remoteLabel] != "paris" {
		e.Errorf("the Secret has the labels %v and the keys %q, want %q", secret.Labels, got, want)
	}
}

// notLinked checks that there is no Secret of paris.
func (e *env) notLinked() {
	e.Helper()
	list, err := london.CoreV1().Secrets(ours).List(e.ctx, metav1.ListOptions{LabelSelector: remoteLabel + "=paris"})
	e.must(err)
	for _, secret := range list.Items {
		e.Errorf("Secret %s links paris", secret.Name)
	}
}

// remoteLabel on a Secret is the name of the remote that it links.
const remoteLabel = "service-mirror.io/remote"

// deploymentVersion is the Deployment's in london: a link does not change it.
func (e *env) deploymentVersion() string {
	e.Helper()
	deployment, err := london.AppsV1().Deployments(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	return deployment.ResourceVersion
}

// reads checks that a kubeconfig is for paris, trusts it for what it is, and may read there.
func (e *env) reads(kubeconfig []byte) {
	e.Helper()
	config, err := clientcmd.RESTConfigFromKubeConfig(kubeconfig)
	e.must(err)
	if config.Insecure || len(config.CAData) == 0 || config.BearerToken == "" {
		e.Errorf("the kubeconfig is insecure, or without a CA or a token:\n%s", kubeconfig)
	}
	client, err := kubernetes.NewForConfig(config)
	e.must(err)
	system, err := client.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
	e.must(err)
	really, err := paris.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
	e.must(err)
	if system.UID != really.UID {
		e.Errorf("it is of cluster %s, want %s", system.UID, really.UID)
	}
	_, err = client.CoreV1().Services("").List(e.ctx, metav1.ListOptions{})
	e.must(err)
	if _, err := client.CoreV1().Secrets(ours).List(e.ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		e.Errorf("it may read Secrets (%v)", err)
	}
}

func TestLink(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	// Another remote exists already, by other means.
	berlin, err := london.CoreV1().Secrets(ours).Create(e.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "of-berlin", Labels: map[string]string{remoteLabel: "berlin"}}, Data: map[string][]byte{"kubeconfig": []byte("berlin's")},
	}, metav1.CreateOptions{})
	e.must(err)
	e.configure("berlin")
	deployment := e.deploymentVersion()

	says := e.link("gateway=ingress/gateway")
	for _, want := range []string{"serviceaccount/service-mirror-reader in namespace service-mirror created", paris.Config.Host, "secret/" + linkSecret + " in namespace service-mirror created", "kubectl --context london"} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}
	e.linked("gateway=ingress/gateway")
	e.reads(e.kubeconfig())
	e.configured("berlin", "paris")

	e.cleanup(func(e *env) { // of a link that names namespaces
		for _, namespace := range []string{"default", "ingress"} {
			e.kubectl(paris, "delete", "--ignore-not-found", "--namespace", namespace, "-k", shipped("remote/namespace"))
		}
	})
	t.Run("again nothing changes", func(t *testing.T) {
		e := newEnv(t)
		before := e.versions()
		if says := e.linkAgain(); !strings.Contains(says, "unchanged\n") || strings.Contains(says, "configured\n") || strings.Contains(says, "created\n") {
			t.Errorf("it says:\n%s", says)
		}
		if after := e.versions(); !slices.Equal(after, before) {
			t.Errorf("resourceVersions were %q, are %q", before, after)
		}
	})
	t.Run("the manifests again, the link stays", func(t *testing.T) {
		e := newEnv(t)
		e.kubectl(london, "apply", "-k", shipped("local"))
		e.linked("gateway=ingress/gateway")
		e.configured("berlin", "paris")
	})
	t.Run("other keys", func(t *testing.T) {
		e := newEnv(t)
		e.linkAgain("gateway=ingress/gateway", "gateway-port=http,cluster-domain=paris.example", "namespaces=default,ingress")
		e.linked("cluster-domain=paris.example", "gateway=ingress/gateway", "gateway-port=http", "namespaces=default,ingress")
	})
	t.Run("names of its own", func(t *testing.T) {
		e := newEnv(t)
		e.linkAgain("gateway-port-", "cluster-domain-", "namespaces-", "name={cluster}-{service}", "namespace=web:shop", "namespace=a:b")
		e.linked("gateway=ingress/gateway", "name={cluster}-{service}", "namespace=web:shop", "namespace=a:b")
		const rule = "name={cluster}-{service},namespace=web:shop,namespace=a:b"
		e.named(rule + ";") // the names of before, too: mirrors move from these
		e.linkAgain()
		e.named(rule)
		e.linkAgain("name-", "namespace-")
		e.named(";" + rule)
		e.linkAgain("name={service}")
		e.named("name={service};")
		e.linkAgain("name-")
		e.linkAgain()
		e.named("")
	})
	t.Run("a new token", func(t *testing.T) {
		e := newEnv(t)
		old := e.kubeconfig()
		e.must(paris.CoreV1().Secrets(ours).Delete(e.ctx, reader, metav1.DeleteOptions{}))
		e.linkAgain("gateway=ingress/gateway")
		fresh := e.kubeconfig()
		if string(old) == string(fresh) {
			t.Error("the kubeconfig is the same")
		}
		e.reads(fresh)
	})
	t.Run("to a port that the NetworkPolicy does not let out", func(t *testing.T) {
		e := newEnv(t)
		e.allowed("8080") // of the gateway
	})
	t.Run("another remote and the Deployment are left alone", func(t *testing.T) {
		e := newEnv(t)
		now, err := london.CoreV1().Secrets(ours).Get(e.ctx, berlin.Name, metav1.GetOptions{})
		e.must(err)
		if now.ResourceVersion != berlin.ResourceVersion {
			t.Errorf("berlin's Secret is %v", now)
		}
		if now := e.deploymentVersion(); now != deployment {
			t.Errorf("the Deployment's resourceVersion was %s, is %s", deployment, now)
		}
	})
	t.Run("undone", func(t *testing.T) {
		e := newEnv(t)
		for range 2 {
			out, err := e.tryUnlink("paris")
			e.must(err)
			if !strings.Contains(out, "service-mirror prune paris") {
				t.Errorf("it says:\n%s", out)
			}
			e.notLinked()
			e.configured("berlin")
			if now := e.deploymentVersion(); now != deployment {
				t.Errorf("the Deployment's resourceVersion was %s, is %s", deployment, now)
			}
		}
		_, err := london.CoreV1().Secrets(ours).Get(e.ctx, berlin.Name, metav1.GetOptions{})
		e.must(err)
		if _, err := london.NetworkingV1().NetworkPolicies(ours).Get(e.ctx, "service-mirror-to-paris", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			t.Errorf("the NetworkPolicy is there (%v)", err)
		}
	})
}

// named wants the policy to know this rule for the names of paris's mirrors.
func (e *env) named(rule string) {
	e.Helper()
	account, err := london.CoreV1().ServiceAccounts(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	if got, there := account.Annotations[configured+"paris"]; !there || got != rule {
		e.Errorf("the rule for the names of paris's mirrors is %q, want %q", got, rule)
	}
}

// allowed wants the daemon to be allowed connections to paris's API server, and to these ports.
func (e *env) allowed(want ...string) {
	e.Helper()
	policy, err := london.NetworkingV1().NetworkPolicies(ours).Get(e.ctx, "service-mirror-to-paris", metav1.GetOptions{})
	e.must(err)
	config, err := clientcmd.RESTConfigFromKubeConfig(e.kubeconfig())
	e.must(err)
	server, err := url.Parse(config.Host)
	e.must(err)
	var ports []string
	for _, port := range policy.Spec.Egress[0].Ports {
		ports = append(ports, port.Port.String())
	}
	if want = append([]string{server.Port()}, want...); !slices.Equal(ports, want) {
		e.Errorf("the daemon may connect to the ports %q, want those of the API server and of the gateway, %q", ports, want)
	}
}

// versions are the resourceVersions of what a link writes.
func (e *env) versions() (all []string) {
	e.Helper()
	for _, c := range []*cluster{london, paris} {
		out := e.kubectl(c, "--namespace", ours, "get", "deployment,secret,networkpolicy,serviceaccount", "-o",
			`jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}`)
		all = append(all, strings.Split(out, "\n")...)
	}
	return all
}

// What an earlier version's link added to the Deployment, in one part or in two, is moved on request: nothing is lost, and
// nothing remains.
func TestLinkMigrates(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	others := []string{"-v=1", "--gateway=a/b", "--allow-names", "--name-template", "{service}-of-{cluster}"}
	args, err := json.Marshal(slices.Concat(others, []string{"--remote", "paris=/etc/service-mirror/remotes/paris.kubeconfig,gateway=ingress/gateway,gateway-port=http", "--remote=berlin=/b", "-v=2"}))
	e.must(err)
	e.kubectl(london, "--namespace", ours, "patch", "deployment", ours, "--type=json", "--patch", `[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": `+string(args)+`}]`)
	_, err = london.CoreV1().Secrets(ours).Create(e.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "service-mirror-remotes"}, Data: map[string][]byte{"paris.kubeconfig": []byte("old"), "berlin.kubeconfig": []byte("berlin's")},
	}, metav1.CreateOptions{})
	e.must(err)

	before := e.versions()
	server := "--server=" + paris.Config.Host
	if out, err := e.tryLink("paris", server); err == nil || !strings.Contains(out, "which takes precedence over a Secret: run link again with --migrate") {
		t.Errorf("%v:\n%s", err, out)
	}
	if after := e.versions(); !slices.Equal(after, before) {
		t.Errorf("resourceVersions were %q, are %q", before, after)
	}
	e.link("--migrate", "uid=unverified")
	e.linked("gateway=ingress/gateway", "gateway-port=http", "uid=unverified")
	e.named("name={service}-of-{cluster},allow-names")
	e.arguments(append(others, "--remote=berlin=/b", "-v=2")...)
	earlier, err := london.CoreV1().Secrets(ours).Get(e.ctx, "service-mirror-remotes", metav1.GetOptions{})
	e.must(err)
	if len(earlier.Data) != 1 || string(earlier.Data["berlin.kubeconfig"]) != "berlin's" {
		t.Errorf("the Secret of before has %q", earlier.Data)
	}
	e.reads(e.kubeconfig())
	before = e.versions()
	e.linkAgain()
	if after := e.versions(); !slices.Equal(after, before) {
		t.Errorf("linked again, resourceVersions were %q, are %q", before, after)
	}
	_, err = e.tryUnlink("berlin") // which was not moved
	e.must(err)
	e.arguments(append(others, "-v=2")...)
}

// A daemon of an earlier version reads no Secrets: nothing is written for it.
func TestLinkOfAnEarlierDaemon(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.kubectl(london, "--namespace", ours, "patch", "deployment", ours, "--type=json", "--patch",
		`[{"op": "add", "path": "/spec/template/spec/containers/0/command", "value": ["service-mirror", "--leader-elect"]}]`)
	before := e.versions()
	out, err := e.tryLink("paris", "gateway=ingress/gateway", "--server="+paris.Config.Host)
	if err == nil || !strings.Contains(out, "Deployment service-mirror/service-mirror does not read remotes from Secrets: apply deploy/local") {
		t.Errorf("%v:\n%s", err, out)
	}
	if after := e.versions(); !slices.Equal(after, before) {
		t.Errorf("resourceVersions were %q, are %q", before, after)
	}
}

// Every mistake is said for what it is, and nothing is half done in london.
func TestLinkRefuses(t *testing.T) {
	e := newEnv(t)
	out, err := e.tryLink("paris", "gateway=ingress/gateway")
	if err == nil || !strings.Contains(out, "has no Deployment service-mirror/service-mirror") || !strings.Contains(out, "installation.md") {
		t.Errorf("without a Deployment: %v\n%s", err, out)
	}
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.clusterInfo("https://192.0.2.77:6443")
	otherCA := filepath.Join(t.TempDir(), "ca")
	e.must(os.WriteFile(otherCA, london.Config.CAData, 0o600))
	server := "--server=" + paris.Config.Host
	for _, c := range []struct {
		args string
		says string
	}{
		{"paris " + server, "Existing gateways: ingress/gateway"},
		{"paris gateway=ingress/gateway", "not reachable from pods in the local cluster: use --server https://HOST:PORT. Other addresses: https://192.0.2.77:6443"},
		{"london gateway=ingress/gateway " + server, "are the same"},
		{"rome gateway=ingress/gateway", "context rome does not exist"},
		{"paris gateway=ingress/gateway --server=" + london.Config.Host + " --ca=" + otherCA, "rejected the token"},
		{"paris gateway=ingress/gateway " + server + " --ca=" + otherCA, "is not trusted"},
		{"paris gateway=ingress/gateway namespaces=nowhere " + server, `"nowhere" not found`},
	} {
		out, err := e.tryLink(strings.Fields(c.args)...)
		if err == nil || !strings.Contains(err.Error(), "exit status 1\n") || !strings.Contains(out, c.says) {
			t.Errorf("link %s: %v, want it to say %q:\n%s", c.args, err, c.says, out)
		}
	}
	e.notLinked()
	account, err := london.CoreV1().ServiceAccounts(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	if _, there := account.Annotations[configured+"paris"]; there {
		t.Error("mirrors of paris are permitted")
	}
	e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote"))
}

// clusterInfo has paris say where its API server is, as kubeadm does for nodes that join.
func (e *env) clusterInfo(server string) {
	e.Helper()
	config := clientcmdapi.NewConfig()
	config.Clusters[""] = &clientcmdapi.Cluster{Server: server}
	content, err := clientcmd.Write(*config)
	e.must(err)
	info := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "cluster-info"}, Data: map[string]string{"kubeconfig": string(content)}}
	_, err = paris.CoreV1().ConfigMaps("kube-public").Create(e.ctx, info, metav1.CreateOptions{})
	e.must(err)
	e.cleanup(func(e *env) { e.kubectl(paris, "delete", "configmap", "cluster-info", "--namespace", "kube-public") })
}

// What is done is one JSON document on stdout, with which a script can go on.
func TestLinkAsJSON(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.link("gateway=ingress/gateway")
	type result struct {
		Name, Local, Remote, Server, Secret string
		Keys                                []string
		Linked                              bool
		Changes                             []struct{ Cluster, Kind, Namespace, Name, Change string }
		Verification                        *struct{ State, Reason, Command string }
	}
	parse := func(args ...string) (r result) {
		t.Helper()
		cmd := command(e.ctx, harness.Program("service-mirror-race"), append(args, "--context", london.Name, "-o", "json")...)
		out, err := cmd.Output()
		e.must(err)
		e.must(json.Unmarshal(out, &r))
		return r
	}
	got := parse("link", "paris", "uid=unverified", "--server", paris.Config.Host, "--wait=0")
	if got.Name != "paris" || got.Local != "london" || got.Remote != "paris" || got.Server != paris.Config.Host || got.Secret != ours+"/"+linkSecret || !got.Linked ||
		!slices.Equal(got.Keys, []string{"gateway=ingress/gateway", "uid=unverified"}) {
		t.Errorf("link: got %+v", got)
	}
	if len(got.Changes) != 1 || got.Changes[0].Kind != "Secret" || got.Changes[0].Cluster != "london" || got.Changes[0].Change != "configured" {
		t.Errorf("link: the changes are %+v", got.Changes)
	}
	if v := got.Verification; v == nil || v.State != "not verified" || !strings.Contains(v.Reason, "--wait 0") || !strings.Contains(v.Command, "verify --remote paris") {
		t.Errorf("link: the verification is %+v", v)
	}
	var kinds []string
	for _, change := range parse("unlink", "paris").Changes {
		kinds = append(kinds, change.Kind+" "+change.Change)
	}
	if want := []string{"Secret deleted", "NetworkPolicy deleted", "ServiceAccount configured"}; !slices.Equal(kinds, want) {
		t.Errorf("unlink: the changes are %q, want %q", kinds, want)
	}
}

// The manifests that are printed make the link that is made without them.
func TestPrintedManifests(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	keys := []string{"paris", "gateway=ingress/gateway", "name={service}-of-{cluster}"}
	print := func(side string, args ...string) string {
		t.Helper()
		cmd := command(e.ctx, harness.Program("service-mirror-race"), slices.Concat([]string{"link", "--context", london.Name, "--print", side}, keys, args)...)
		out, err := cmd.Output()
		e.must(err)
		path := filepath.Join(t.TempDir(), side+".yaml")
		e.must(os.WriteFile(path, out, 0o600))
		return path
	}
	server := "--server=" + paris.Config.Host
	if out, err := e.tryLink(append(keys, "--print=local", server)...); err == nil || !strings.Contains(out, "apply the output of --print=remote first") {
		t.Errorf("before paris has it: %v\n%s", err, out)
	}
	e.cleanup(func(e *env) { e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote")) })
	e.kubectl(paris, "apply", "-f", print("remote"))
	print("local", server) // when the account has its token
	before := e.versions()
	local := print("local", server)
	if after := e.versions(); !slices.Equal(after, before) {
		t.Errorf("printing writes: resourceVersions were %q, are %q", before, after)
	}
	e.kubectl(london, "apply", "--server-side", "-f", local)
	e.linked("gateway=ingress/gateway", "name={service}-of-{cluster}")
	e.named("name={service}-of-{cluster}")
	e.reads(e.kubeconfig())
	e.allowed("8080")
	before = e.versions()
	e.linkAgain(keys[1:]...)
	if after := e.versions(); !slices.Equal(after, before) {
		t.Errorf("a link changes it: resourceVersions were %q, are %q", before, after)
	}
}

// A kubeconfig that does not check paris's certificate must not have london's daemon not check it.
func TestLinkIsSecure(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	config, err := clientcmd.LoadFromFile(paris.Kubeconfig)
	e.must(err)
	config.Clusters["paris"].CertificateAuthorityData, config.Clusters["paris"].InsecureSkipTLSVerify = nil, true
	insecure := filepath.Join(t.TempDir(), "kubeconfig")
	e.must(clientcmd.WriteToFile(*config, insecure))
	says := e.link("gateway=ingress/gateway", "--remote-kubeconfig", insecure)
	e.reads(e.kubeconfig())
	if token := base64.StdEncoding.EncodeToString(e.kubeconfig()); strings.Contains(says, token) {
		t.Error("it says the kubeconfig")
	}
}

// The commands of the guide remove from paris all that links have created there, and nothing else.
func TestReaderIsUninstalled(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.link("gateway=ingress/gateway", "records="+ours)
	e.linkAgain("gateway=ingress/gateway", "records="+ours, "namespaces=default,ingress")
	left := func() string {
		out := e.kubectl(paris, "get", "serviceaccounts,secrets,roles,rolebindings,clusterroles,clusterrolebindings", "--all-namespaces", "--output=name")
		return strings.Join(slices.DeleteFunc(strings.Fields(out), func(name string) bool { return !strings.Contains(name, "/service-mirror-reader") }), " ")
	}
	if before := left(); !strings.Contains(before, "serviceaccount/") || !strings.Contains(before, "role.rbac") || !strings.Contains(before, "clusterrole.rbac") {
		t.Fatalf("the links have created only %s", before)
	}
	guide, err := os.ReadFile(shipped("guides/installation.md"))
	e.must(err)
	commands := 0
	for line := range strings.Lines(string(guide)) {
		line, _, _ = strings.Cut(line, "#")
		if args, found := strings.CutPrefix(strings.TrimSpace(line), "kubectl --context paris "); found && strings.Contains(args, "delete ") {
			e.kubectl(paris, strings.Fields(args)...)
			commands++
		}
	}
	e.soon("nothing is left", func() error { // the token controller deletes the Secret
		if after := left(); commands != 3 || after != "" {
			return fmt.Errorf("%d commands leave %s", commands, after)
		}
		return nil
	})
	_, err = paris.CoreV1().Namespaces().Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
}
