package plan

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// A Service in the namespace evil has of the names that it lists those alone that are its owner's to give.
func TestAnnotatedHosts(t *testing.T) {
	policy := Policy{Names: []string{"paris"}, Domain: "cluster.local", HostSuffixes: []string{"shop.example.com", "svc.example.org"}}
	for host, wantErr := range map[string]string{
		"a.shop.example.com":                      "",
		"A.B.shop.example.com":                    "",
		"shop.example.com":                        "--host-suffix",
		"workshop.example.com":                    "--host-suffix",
		"login.example.com":                       "--host-suffix",
		"payments.prod.example.com":               "--host-suffix",
		"other.evil":                              "",
		"other.evil.svc":                          "",
		"other.evil.svc.cluster.local":            "",
		"bar-london.evil.svc.london.example":      "",
		"bar-paris.default.svc.london.example":    "another namespace",
		"bar.default.svc.shop.example.com":        "another namespace",
		"pod.bar.default.svc.shop.example.com":    "another namespace",
		"pod.bar.evil.svc.shop.example.com":       "",
		"api.svc.example.org":                     "",
		"bar.default":                             "another namespace",
		"bar.default.svc":                         "another namespace",
		"bar.default.svc.cluster.local":           "another namespace",
		"a.b.c.cluster.local":                     "another namespace",
		"a.example.com.":                          "is not a DNS name",
		"*.shop.example.com":                      "is not a DNS name",
		strings.Repeat("a.", 130) + "example.com": "is not a DNS name",
	} {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: "old", Annotations: map[string]string{HostsAnnotation: host}}}
		hosts, err := policy.Hosts(svc)
		switch got := len(hosts) > 6; {
		case got != (wantErr == ""):
			t.Errorf("%s: it has %v, and the problem %v", host, hosts, err)
		case wantErr == "" && err != nil, wantErr != "" && (err == nil || !strings.Contains(err.Error(), wantErr)):
			t.Errorf("%s: the problem is %v, want %q", host, err, wantErr)
		}
	}
}

// Names that Services have by their own are not those that they list.
func TestMade(t *testing.T) {
	policy := Policy{Names: []string{"paris"}, Domain: "cluster.local", HostTemplates: []string{"{service}.{namespace}.example.com"}, HostSuffixes: []string{"example.com"}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "prod", Name: "pay", Annotations: map[string]string{HostsAnnotation: "x.y.example.com"}}}
	if got := strings.Join(policy.Made(svc), " "); got != "pay-paris.prod pay-paris.prod.svc pay-paris.prod.svc.cluster.local pay.prod pay.prod.svc pay.prod.svc.cluster.local pay.prod.example.com" {
		t.Errorf("got %s", got)
	}
}

// Callers may have the mirrors of a namespace in another one, and under names by a template: all forms of these are routed,
// but not what would be the name of another Service in that namespace.
func TestNamesInTheNamespaceOfCallers(t *testing.T) {
	policy := Policy{Names: []string{"paris"}, Domain: "cluster.local", CallerNamespaces: map[string][]string{"web": {"shop"}}, HostTemplates: []string{"{name}-{service}.{namespace}"}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "web", Name: "bar"}}
	var want []string
	for _, short := range []string{"bar-paris.web", "paris-bar.web", "bar.web", "bar-paris.shop", "paris-bar.shop"} {
		want = append(want, short, short+".svc", short+".svc.cluster.local")
	}
	hosts, err := policy.Hosts(svc)
	if err != nil || !slices.Equal(hosts, want) {
		t.Errorf("got %v, want %v (%v)", hosts, want, err)
	}
	keys := policy.MadeKeys(svc)
	for _, host := range want {
		if !slices.ContainsFunc(policy.MadeKeysOf(host), func(key string) bool { return slices.Contains(keys, key) }) {
			t.Errorf("%s is not found by %q", host, keys)
		}
	}
}

func TestValidateTemplates(t *testing.T) {
	for _, test := range []struct {
		templates string
		wantErr   string
	}{
		{"{service}.{namespace}.example.com", ""},
		{"{service}-{name}.{namespace}.example.com", ""},
		{"{service}.x-{namespace}.example.com", ""},
		{"{service}.{name}.{namespace}.example.com {service}.{namespace}.example.com", ""},
		{"{service}.{namespace}.example.com {service}.{namespace}.example.org", ""},
		{"{service}.{namespace}.example.com {service}-{name}.{namespace}.example.com", ""},
		{"{service}.example.com", "must contain {service} and {namespace}"},
		{"{service}.{namespace}._", "does not produce valid DNS names"},
		{"{service}-{namespace}.example.com", "separate {namespace} by a dot"},
		{"{service}.{namespace}{name}.example.com", "separate {namespace} by a dot"},
		{"{service}.{namespace}.example.com {namespace}.{service}.example.com", "can produce the same name for two Services"},
		{"{service}.{namespace}.x.com {service}.y.{namespace}.com", "can produce the same name for two Services"},
		{"{service}.{namespace}.example.com {service}.x-{namespace}.example.com", "can produce the same name for two Services"},
		{"{service}.{namespace}.example.com {service}.{namespace}.{name}.com", ""},
	} {
		err := Policy{HostTemplates: strings.Fields(test.templates)}.ValidateTemplates()
		if (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%s: got %v, want %q", test.templates, err, test.wantErr)
		}
	}
}

func TestValidateSuffix(t *testing.T) {
	policy := Policy{Domain: "cluster.local"}
	for suffix, good := range map[string]bool{
		"example.com": true, "svc.example.com": true, "internal": true,
		"": false, ".example.com": false, "Example.com": false, "*.example.com": false,
		"cluster.local": false, "default.svc.cluster.local": false, "svc": false, "default.svc": false,
	} {
		if err := policy.ValidateSuffix(suffix); (err == nil) != good {
			t.Errorf("%q: got %v", suffix, err)
		}
	}
}

// FuzzHosts: whatever an annotation lists, the names that are accepted are its namespace's or below a suffix, and not
// those of another namespace's Services.
func FuzzHosts(f *testing.F) {
	f.Add("a.shop.example.com, bar.default.svc.x, evil.evil.svc.a")
	policy := Policy{Names: []string{"paris"}, Domain: "cluster.local", HostSuffixes: []string{"shop.example.com"}}
	f.Fuzz(func(t *testing.T, annotation string) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "evil", Name: "old", Annotations: map[string]string{HostsAnnotation: annotation}}}
		hosts, _ := policy.Hosts(svc)
		for _, host := range hosts {
			labels := strings.Split(host, ".")
			own := labels[1] == "evil" && (len(labels) == 2 || labels[2] == "svc")
			if !own && !strings.HasSuffix(host, ".shop.example.com") || !own && strings.Contains(host, ".default.svc.") {
				t.Errorf("%q is accepted", host)
			}
		}
	})
}

// The message names who has it, and how.
func TestHeld(t *testing.T) {
	s := Snapshot{Key: cache.NewObjectName("evil", "old"), Holder: func(string) cache.ObjectName { return cache.NewObjectName("prod", "pay") }}
	if own, err := s.held([]string{"pay.prod.example.com"}); len(own) > 0 || err == nil ||
		err.Error() != "host name pay.prod.example.com already belongs to prod/pay: rename one of the two Services, or correct the annotation service-mirror.io/hosts" {
		t.Errorf("got %v, %v", own, err)
	}
}

// A name is found by its keys just where it is one that the Service has by its own, in whatever form.
func TestMadeKeysFindWhatIsMade(t *testing.T) {
	policy := Policy{Names: []string{"paris", "p2"}, Domain: "cluster.local", HostTemplates: []string{"{service}.{namespace}.example.com", "{service}-api.{namespace}.svc"}}
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bar", Annotations: map[string]string{HostsAnnotation: "other.shop.svc"}}}
	made, keys := policy.Made(svc), policy.MadeKeys(svc)
	hosts := slices.Clone(made)
	for _, host := range made {
		hosts = append(hosts, host+".svc", host+".cluster.local", strings.TrimSuffix(host, ".svc"), "x"+host)
	}
	hosts = append(hosts, "other.shop.svc", "bar", "bar.shop.svc.example.com", "5432/TCP")
	for _, host := range hosts {
		found := slices.ContainsFunc(policy.MadeKeysOf(host), func(key string) bool { return slices.Contains(keys, key) })
		if found != slices.Contains(made, host) {
			t.Errorf("%s is found: %v; made is %v", host, found, made)
		}
	}
	if got := policy.Chosen(svc); !slices.Equal(got, []string{"other.shop.svc"}) || len(made) != 11 {
		t.Errorf("chosen is %v, made %v", got, made)
	}
}

// A Service that is never published, whoever exports it, claims nothing.
func TestWhatIsNotPublishedClaimsNothing(t *testing.T) {
	for name, change := range map[string]func(*corev1.Service){
		"it is published":                func(*corev1.Service) {},
		"it has no TCP port":             func(svc *corev1.Service) { svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP },
		"it is headless":                 func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone },
		"it is of type ExternalName":     func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeExternalName },
		"it is a mirror":                 func(svc *corev1.Service) { svc.Labels = map[string]string{mirrors.ClusterLabel: "london"} },
		"it is in kube-system":           func(svc *corev1.Service) { svc.Namespace = metav1.NamespaceSystem },
		"it is the API server's":         func(svc *corev1.Service) { svc.Namespace, svc.Name = metav1.NamespaceDefault, "kubernetes" },
		"only some clusters may have it": func(svc *corev1.Service) { svc.Annotations[mirrors.ExportToAnnotation] = "london" },
	} {
		policy := Policy{Names: []string{"paris"}, Domain: "cluster.local", HostSuffixes: []string{"example.com"}}
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "redis", Annotations: map[string]string{
			HostsAnnotation: "redis.example.com", gateway.PortsAnnotation: "6379=15379"}},
			Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 6379, Protocol: corev1.ProtocolTCP}}}}
		change(svc)
		svc = policy.Trim(svc)
		published := policy.refuse(svc) == nil
		for what, claims := range map[string][]string{"claims": policy.Claims(svc), "made": policy.MadeKeys(svc), "chosen": policy.Chosen(svc)} {
			if len(claims) > 0 != published {
				t.Errorf("%s, and it is published: %v; %s: %v", name, published, what, claims)
			}
		}
		if want := name == "it is published" || name == "it has no TCP port" || name == "only some clusters may have it"; published != want {
			t.Errorf("%s, and it is published: %v", name, published)
		}
	}
}
