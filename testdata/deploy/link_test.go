package deploy

import (
	"encoding/base64"
	"encoding/json"
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

const (
	remoteArgument = "--remote=paris=/etc/service-mirror/remotes/paris.kubeconfig"
	gatewayKey     = ",gateway=ingress/gateway"
)

// arguments are those of the Deployment.
func (e *env) arguments(want ...string) {
	e.Helper()
	if got := e.container().Args; !slices.Equal(got, want) {
		e.Errorf("the Deployment has the arguments %q, want %q", got, want)
	}
}

// remotes is the Secret in london with a kubeconfig for each remote.
func (e *env) remotes() map[string][]byte {
	e.Helper()
	secret, err := london.CoreV1().Secrets(ours).Get(e.ctx, "service-mirror-remotes", metav1.GetOptions{})
	e.must(err)
	return secret.Data
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
	// Another remote is there already, by other means.
	_, err := london.CoreV1().Secrets(ours).Create(e.ctx, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: "service-mirror-remotes"}, Data: map[string][]byte{"berlin.kubeconfig": []byte("berlin's")},
	}, metav1.CreateOptions{})
	e.must(err)
	const berlin = "--remote=berlin=/etc/service-mirror/remotes/berlin.kubeconfig,gateway=a/b"
	e.kubectl(london, "--namespace", ours, "patch", "deployment", ours, "--type=json", "--patch",
		`[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["`+berlin+`"]}]`)
	e.configure("berlin")

	says := e.link("gateway=ingress/gateway")
	for _, want := range []string{"serviceaccount/service-mirror-reader in namespace service-mirror created", paris.Config.Host, remoteArgument + gatewayKey, "kubectl --context london"} {
		if !strings.Contains(says, want) {
			t.Errorf("it does not say %q:\n%s", want, says)
		}
	}
	e.arguments(berlin, remoteArgument+gatewayKey)
	e.reads(e.remotes()["paris.kubeconfig"])
	e.configured("berlin", "paris")

	e.cleanup(func(e *env) { // of a link that names namespaces
		for _, namespace := range []string{"default", "ingress"} {
			e.kubectl(paris, "delete", "--ignore-not-found", "--namespace", namespace, "-k", shipped("remote/namespace"))
		}
	})
	t.Run("again nothing changes", func(t *testing.T) {
		e := newEnv(t)
		before := e.versions()
		if says := e.linkAgain(); !strings.Contains(says, "already set") || strings.Contains(says, "configured\n") || strings.Contains(says, "created\n") {
			t.Errorf("it says:\n%s", says)
		}
		if after := e.versions(); !slices.Equal(after, before) {
			t.Errorf("resourceVersions were %q, are %q", before, after)
		}
	})
	t.Run("the manifests again, the link stays", func(t *testing.T) {
		e := newEnv(t)
		e.kubectl(london, "apply", "-k", shipped("local"))
		e.arguments(berlin, remoteArgument+gatewayKey)
		e.configured("berlin", "paris")
	})
	t.Run("other keys", func(t *testing.T) {
		e := newEnv(t)
		e.linkAgain("gateway=ingress/gateway", "gateway-port=http,cluster-domain=paris.example", "namespaces=default,ingress")
		e.arguments(berlin, remoteArgument+gatewayKey+",gateway-port=http,cluster-domain=paris.example,namespaces=default,ingress")
	})
	t.Run("names of its own", func(t *testing.T) {
		e := newEnv(t)
		e.linkAgain("gateway-port-", "cluster-domain-", "namespaces-", "name={cluster}-{service}", "namespace=web:shop", "namespace=a:b")
		e.arguments(berlin, remoteArgument+gatewayKey+",name={cluster}-{service},namespace=web:shop,namespace=a:b")
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
		old := e.remotes()["paris.kubeconfig"]
		e.must(paris.CoreV1().Secrets(ours).Delete(e.ctx, reader, metav1.DeleteOptions{}))
		e.linkAgain("gateway=ingress/gateway")
		fresh := e.remotes()["paris.kubeconfig"]
		if string(old) == string(fresh) {
			t.Error("the kubeconfig is the same")
		}
		e.reads(fresh)
	})
	t.Run("to a port that the NetworkPolicy does not let out", func(t *testing.T) {
		e := newEnv(t)
		e.allowed("8080") // of the gateway
	})
	t.Run("another remote is left alone", func(t *testing.T) {
		e := newEnv(t)
		if got := string(e.remotes()["berlin.kubeconfig"]); got != "berlin's" {
			t.Errorf("berlin's kubeconfig is %q", got)
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
			e.arguments(berlin)
			e.configured("berlin")
			if data := e.remotes(); len(data) != 1 || string(data["berlin.kubeconfig"]) != "berlin's" {
				t.Errorf("the Secret has %v", data)
			}
		}
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
	config, err := clientcmd.RESTConfigFromKubeConfig(e.remotes()["paris.kubeconfig"])
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

// An argument in two parts is as good as one, and is changed and removed as such.
func TestLinkInTwoParts(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.kubectl(london, "--namespace", ours, "patch", "deployment", ours, "--type=json", "--patch",
		`[{"op": "add", "path": "/spec/template/spec/containers/0/args", "value": ["-v=1", "--gateway=a/b", "--allow-names", "--name-template", "{service}-of-{cluster}", "--remote", "paris=/old", "-v=2"]}]`)
	others := []string{"-v=1", "--gateway=a/b", "--allow-names", "--name-template", "{service}-of-{cluster}"}
	e.link()
	e.named("name={service}-of-{cluster},allow-names")
	e.arguments(slices.Concat(others, []string{"--remote", strings.TrimPrefix(remoteArgument, "--remote="), "-v=2"})...)
	e.linkAgain("gateway=ingress/gateway")
	e.arguments(slices.Concat(others, []string{"--remote", strings.TrimPrefix(remoteArgument, "--remote=") + gatewayKey, "-v=2"})...)
	_, err := e.tryUnlink("paris")
	e.must(err)
	e.arguments(append(others, "-v=2")...)
}

// A remote that is in the Deployment's command is changed in the manifests, and until then nothing is.
func TestLinkInTheCommand(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	e.gateway("203.0.113.1")
	e.kubectl(london, "--namespace", ours, "patch", "deployment", ours, "--type=json", "--patch",
		`[{"op": "add", "path": "/spec/template/spec/containers/0/command", "value": ["/service-mirror", "--remote=paris=/old"]}]`)
	before := e.versions()
	out, err := e.tryLink("paris", "gateway=ingress/gateway", "name={service}", "--server="+paris.Config.Host)
	if err == nil || !strings.Contains(out, "has --remote=paris=/old in its command, which link does not change: set --remote=paris=/etc/service-mirror/remotes/paris.kubeconfig,gateway=ingress/gateway,name={service} in your manifests") {
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
	if err == nil || !strings.Contains(out, "has no Deployment service-mirror/service-mirror") || !strings.Contains(out, "apply -k") {
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
	e.arguments()
	if _, err := london.CoreV1().Secrets(ours).Get(e.ctx, "service-mirror-remotes", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("there is a Secret (%v)", err)
	}
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
		Name, Local, Remote, Server, Flag string
		Linked                            bool
		Changes                           []struct{ Cluster, Kind, Namespace, Name, Change string }
		Verification                      *struct{ State, Reason, Command string }
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
	if got.Name != "paris" || got.Local != "london" || got.Remote != "paris" || got.Server != paris.Config.Host || got.Flag != remoteArgument+gatewayKey+",uid=unverified" || !got.Linked {
		t.Errorf("link: got %+v", got)
	}
	if len(got.Changes) != 1 || got.Changes[0].Kind != "Deployment" || got.Changes[0].Cluster != "london" || got.Changes[0].Change != "configured" {
		t.Errorf("link: the changes are %+v", got.Changes)
	}
	if v := got.Verification; v == nil || v.State != "not verified" || !strings.Contains(v.Reason, "--wait 0") || !strings.Contains(v.Command, "verify --remote paris") {
		t.Errorf("link: the verification is %+v", v)
	}
	var kinds []string
	for _, change := range parse("unlink", "paris").Changes {
		kinds = append(kinds, change.Kind+" "+change.Change)
	}
	if want := []string{"Deployment configured", "Secret configured", "NetworkPolicy deleted", "ServiceAccount configured"}; !slices.Equal(kinds, want) {
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
	e.arguments(remoteArgument + gatewayKey + ",name={service}-of-{cluster}")
	e.named("name={service}-of-{cluster}")
	e.reads(e.remotes()["paris.kubeconfig"])
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
	e.reads(e.remotes()["paris.kubeconfig"])
	if token := base64.StdEncoding.EncodeToString(e.remotes()["paris.kubeconfig"]); strings.Contains(says, token) {
		t.Error("it says the kubeconfig")
	}
}
