package link

import (
	"bytes"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// situation is one in which a link is decided: a daemon as shipped, and a remote that it can reach.
type situation struct {
	request Request
	local   Local
	remote  Remote
}

func usual(args ...string) *situation {
	s := &situation{
		request: Request{Reader: DefaultName},
		local:   Local{UID: "london", Daemon: newDaemon(DefaultName, DefaultName)},
		remote:  Remote{UID: "paris", Endpoint: Endpoint{Server: "https://192.0.2.7:6443", CA: []byte("paris's")}, Possible: "Existing gateways: ingress/gateway"},
	}
	s.local.Daemon.Command = []string{"service-mirror", "--leader-elect", "--remotes-from=service-mirror"}
	if err := s.request.ParseArguments(append([]string{"paris"}, args...)); err != nil {
		panic(err)
	}
	return s
}

func (s *situation) decide() (Plan, error) {
	keys, err := s.request.keys(s.local)
	if err != nil {
		return Plan{}, err
	}
	return Decide(s.request, keys, s.local, s.remote)
}

func TestDecide(t *testing.T) {
	plan, err := usual("name={service}-p", "gateway=ingress/gateway").decide()
	if err != nil {
		t.Fatal(err)
	}
	if plan.Keys.String() != ",gateway=ingress/gateway,name={service}-p" || plan.Secret.String() != "service-mirror/service-mirror-remote-paris" || plan.Server != "https://192.0.2.7:6443" ||
		plan.Rule != "name={service}-p" || string(plan.Endpoint.CA) != "paris's" || plan.Egress != nil || len(plan.Grants) != 5 {
		t.Errorf("got %+v", plan)
	}
	s := usual()
	s.local.Daemon.Command = append(s.local.Daemon.Command, "--gateway=gateway-api:ingress/public")
	if plan, err = s.decide(); err != nil || !slices.ContainsFunc(plan.Grants, func(o runtime.Object) bool {
		return title(o) == "role/service-mirror-reader:gateway:public in namespace ingress"
	}) {
		t.Errorf("with the daemon's own gateway: %v, %+v", err, plan.Grants)
	}
	s = usual("gateway=a/b", "namespaces=a")
	s.remote.ReadsAll = true
	if plan, err = s.decide(); err != nil || len(plan.Notes) != 1 || !strings.Contains(plan.Notes[0], "ServiceAccount service-mirror/service-mirror-reader can read Services in all namespaces") {
		t.Errorf("after a link without namespaces: %v, %q", err, plan.Notes)
	}
}

// All that is refused is refused before anything is written.
func TestRefused(t *testing.T) {
	for name, test := range map[string]struct {
		args   string
		change func(*situation)
		says   string
	}{
		"no gateway":              {"", func(*situation) {}, "Existing gateways: ingress/gateway"},
		"an address without port": {"address=192.0.2.9", func(*situation) {}, "no gateway is set"},
		"a loopback address":      {"address=127.0.0.1 gateway-port=80", func(*situation) {}, "not a unicast address"},
		"one cluster":             {"gateway=a/b", func(s *situation) { s.remote.UID = "london" }, "are the same"},
		"loopback": {"gateway=a/b", func(s *situation) { s.remote.Endpoint.Server = "https://127.0.0.1:34567" },
			"not reachable from pods in the local cluster: use --server https://HOST:PORT. No other address was found"},
		"loopback with candidates": {"gateway=a/b", func(s *situation) {
			s.remote.Endpoint.Server, s.remote.Servers = "https://localhost:34567", []string{"https://172.18.0.3:6443"}
		}, "Other addresses: https://172.18.0.3:6443"},
		"unspecified":   {"gateway=a/b", func(s *situation) { s.remote.Endpoint.Server = "https://[::]:1" }, "not reachable from pods"},
		"loopback of 6": {"gateway=a/b", func(s *situation) { s.remote.Endpoint.Server = "https://[::1]:1" }, "not reachable from pods"},
		"no https":      {"gateway=a/b", func(s *situation) { s.remote.Endpoint.Server = "http://192.0.2.7" }, "is not https://HOST:PORT"},
		"a flag of the remote": {"gateway=a/b", func(s *situation) {
			s.local.Daemon.Command = append(s.local.Daemon.Command, "--remote", "paris=/x,gateway=c/d")
		}, "Deployment service-mirror/service-mirror has --remote=paris=/x,gateway=c/d, which takes precedence over a Secret: run link again with --migrate"},
		"a daemon that reads no Secrets": {"gateway=a/b", func(s *situation) { s.local.Daemon.Command = s.local.Daemon.Command[:2] },
			"Deployment service-mirror/service-mirror does not read remotes from Secrets: apply deploy/local or the chart of this version"},
	} {
		s := usual(strings.Fields(test.args)...)
		test.change(s)
		if plan, err := s.decide(); err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: got %+v, %v, want %q", name, plan, err, test.says)
		}
	}
}

// What --server says is not refused: this machine may be the one that cannot reach it.
func TestServer(t *testing.T) {
	s := usual("gateway=a/b")
	s.request.Server = "https://localhost:6443"
	if plan, err := s.decide(); err != nil || plan.Server != s.request.Server {
		t.Errorf("got %+v, %v", plan, err)
	}
}

// Of a flag and a Secret with the remote's name, the keys of the Secret count: a migration that was interrupted has
// written it already.
func TestMigrated(t *testing.T) {
	s := usual("uid=unverified")
	s.local.Daemon.Args, s.request.Migrate = []string{"--remote=paris=/old,gateway=a/b,context=x"}, true
	if plan, err := s.decide(); err != nil || plan.Keys.String() != ",gateway=a/b,uid=unverified" {
		t.Errorf("of the flag: %v, %s", err, plan.Keys)
	}
	s.local.Secret = newSecret("remotes", "from-git", "paris", ParseKeys("gateway=c/d,namespaces=a,b"), nil)
	s.local.Daemon.Command = append(s.local.Daemon.Command, "--remotes-from=remotes")
	if plan, err := s.decide(); err != nil || plan.Keys.String() != ",gateway=c/d,namespaces=a,b,uid=unverified" || plan.Secret.String() != "remotes/from-git" {
		t.Errorf("of the Secret: %v, %s, %v", err, plan.Keys, plan.Secret)
	}
}

func TestCertificate(t *testing.T) {
	for name, test := range map[string]struct {
		endpoint Endpoint
		ca       string
		want     string
		from     string
	}{
		"of the kubeconfig":    {Endpoint{CA: []byte("own")}, "", "own", "the CA in your kubeconfig"},
		"given":                {Endpoint{CA: []byte("own"), Insecure: true}, "given", "given", "the CA of --ca"},
		"public":               {Endpoint{}, "", "", "public CAs, because your kubeconfig has no CA"},
		"none that is checked": {Endpoint{Insecure: true}, "", "", clusterCA},
	} {
		at, from := endpoint(Request{CA: []byte(test.ca)}, Remote{Endpoint: test.endpoint})
		if string(at.CA) != test.want || from != test.from || at.Insecure {
			t.Errorf("%s: got %+v, %s", name, at, from)
		}
	}
}

// The daemon may connect to the API server, and to the gateways for requests that verify them; what other policies
// allow is not allowed again.
func TestEgress(t *testing.T) {
	own := networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "service-mirror"}}
	own.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app.kubernetes.io/name": "service-mirror"}}
	own.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	own.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: ports("443", "6443", "53/UDP", "30000-30100")}}
	ingress, others, all, earlier, narrow := own, own, own, own, own
	ingress.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	others.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": "other"}}
	all.Spec.PodSelector = metav1.LabelSelector{}
	all.Spec.Egress = nil
	earlier.Name = "service-mirror-to-paris"
	earlier.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: ports("8080")}}
	narrow.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{Ports: ports("8080"), To: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "192.0.2.0/24"}}}}}
	for name, test := range map[string]struct {
		policies []networkingv1.NetworkPolicy
		ports    []int32
		want     string
	}{
		"no policy":                {nil, []int32{6443, 8080}, ""},
		"allowed":                  {[]networkingv1.NetworkPolicy{own}, []int32{6443, 443, 30050}, ""},
		"not allowed":              {[]networkingv1.NetworkPolicy{own}, []int32{16443, 80, 8080, 80, 443}, "16443, 80, 8080"},
		"a UDP port":               {[]networkingv1.NetworkPolicy{own}, []int32{53}, "53"},
		"one that denies all":      {[]networkingv1.NetworkPolicy{own, all}, []int32{443, 80}, "80"},
		"only one that denies all": {[]networkingv1.NetworkPolicy{all}, []int32{443}, "443"},
		"none for the daemon":      {[]networkingv1.NetworkPolicy{ingress, others}, []int32{80}, ""},
		"that of an earlier link":  {[]networkingv1.NetworkPolicy{own, earlier}, []int32{8080}, "8080"},
		"to some addresses":        {[]networkingv1.NetworkPolicy{narrow}, []int32{8080}, "8080"},
	} {
		got := ""
		policy := egress("paris", newDaemon("service-mirror", "service-mirror"), test.policies, test.ports)
		if policy != nil {
			got = portsOf(policy)
		}
		if got != test.want {
			t.Errorf("%s: allows %q, want %q", name, got, test.want)
		}
		if policy != nil && (policy.Name != "service-mirror-to-paris" || !newDaemon("", "").selectedBy(&policy.Spec.PodSelector)) {
			t.Errorf("%s: %+v", name, policy)
		}
	}
}

// ports are those of a policy: NUMBER, FIRST-LAST, or NUMBER/PROTOCOL.
func ports(texts ...string) (all []networkingv1.NetworkPolicyPort) {
	for _, text := range texts {
		text, protocol, given := strings.Cut(text, "/")
		first, last, ranged := strings.Cut(text, "-")
		number, err := strconv.Atoi(first)
		if err != nil {
			panic(err)
		}
		value := intstr.FromInt(number)
		port := networkingv1.NetworkPolicyPort{Port: &value}
		if given {
			port.Protocol = (*corev1.Protocol)(&protocol)
		}
		if ranged {
			end, err := strconv.Atoi(last)
			if err != nil {
				panic(err)
			}
			number := int32(end)
			port.EndPort = &number
		}
		all = append(all, port)
	}
	return all
}

// The daemon acts on the Secret at once: what permits its mirrors is applied before, as link does.
func TestManifestsHaveTheSecretLast(t *testing.T) {
	p := Plan{Name: "paris"}
	p.Secret.Namespace, p.Secret.Name = "n", "s"
	var all []runtime.Object = p.manifests(Daemon{Namespace: "n", Account: "a"}, []byte("k"))
	var out bytes.Buffer
	if err := printManifests(&out, all); err != nil {
		t.Fatal(err)
	}
	if strings.Index(out.String(), "kind: Secret") < strings.Index(out.String(), "kind: ServiceAccount") {
		t.Error("the Secret comes before the annotation of the ServiceAccount")
	}
}
