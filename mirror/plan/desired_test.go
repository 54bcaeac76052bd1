package plan

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

func TestDesired(t *testing.T) {
	seconds := int32(600)
	clientIP := &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	other := int32(1200)
	http := "http"
	dual := []gateway.Address{{Addr: netip.MustParseAddr("192.0.2.1")}, {Addr: netip.MustParseAddr("2001:db8::1")}}
	for _, test := range []struct {
		name     string
		policy   Policy
		families []corev1.IPFamily
		live     Objects
		source   func(*Candidate)
		want     func(*Objects) // from mirrorOfBar, or from the live pair
		wantErr  string
	}{
		{name: "a new pair takes ports and nothing else", want: func(*Objects) {}},
		{
			name: "of a Service of type LoadBalancer too",
			source: func(s *Candidate) {
				s.Service.Spec.Type = corev1.ServiceTypeLoadBalancer
				s.Service.Spec.ExternalIPs = []string{"192.0.2.99"}
				s.Service.Spec.LoadBalancerSourceRanges = []string{"0.0.0.0/0"}
				s.Service.Spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
				s.Service.Spec.PublishNotReadyAddresses = true
				s.Service.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: "192.0.2.98"}}
			},
			want: func(*Objects) {},
		},
		{
			name: "session affinity with its time-out",
			source: func(s *Candidate) {
				s.Service.Spec.SessionAffinity, s.Service.Spec.SessionAffinityConfig = corev1.ServiceAffinityClientIP, clientIP
			},
			want: func(o *Objects) {
				o.Service.Spec.SessionAffinity, o.Service.Spec.SessionAffinityConfig = corev1.ServiceAffinityClientIP, clientIP
			},
		},
		{
			name:   "no session affinity is None",
			source: func(s *Candidate) { s.Service.Spec.SessionAffinity = "" },
			want:   func(*Objects) {},
		},
		{
			name:   "appProtocol, on both objects",
			source: func(s *Candidate) { s.Service.Spec.Ports[0].AppProtocol = &http },
			want: func(o *Objects) {
				o.Service.Spec.Ports[0].AppProtocol = &http
				o.Endpoints.Subsets[0].Ports[0].AppProtocol = &http
			},
		},
		{
			name:   "no protocol is TCP",
			source: func(s *Candidate) { s.Service.Spec.Ports[0].Protocol = "" },
			want:   func(*Objects) {},
		},
		{
			name:   "a port that the gateway does not serve stays in the Service alone",
			source: func(s *Candidate) { s.Service.Spec.Ports[1].Name, s.Service.Spec.Ports[1].Port = "db", 5432 },
			want: func(o *Objects) {
				o.Service.Spec.Ports[1] = corev1.ServicePort{Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(5432)}
				o.Endpoints.Subsets[0].Ports = o.Endpoints.Subsets[0].Ports[:1]
			},
			wantErr: "port db (5432/TCP)",
		},
		{
			name:    "a gateway without addresses empties the Endpoints",
			source:  func(s *Candidate) { s.Gateway.Addresses = nil },
			want:    func(o *Objects) { o.Endpoints.Subsets = nil },
			wantErr: "the gateway has no address",
		},
		{
			name:    "an unknown gateway makes new Endpoints empty",
			source:  func(s *Candidate) { s.Gateway = nil },
			want:    func(o *Objects) { o.Endpoints.Subsets = nil },
			wantErr: "the gateway has not been read yet",
		},
		{
			name:   "an unknown gateway leaves live Endpoints",
			live:   storedBar(),
			source: func(s *Candidate) { s.Gateway = nil; s.Service.Spec.Ports[0].Port = 81 },
			want: func(o *Objects) {
				o.Service.Spec.Ports[0].Port, o.Service.Spec.Ports[0].TargetPort = 81, intstr.FromInt32(81)
			},
		},
		{
			name:   "an unknown UID leaves the annotation",
			live:   storedBar(),
			source: func(s *Candidate) { s.UID = "" },
			want:   func(*Objects) {},
		},
		{
			name:   "an unknown UID makes no annotation",
			source: func(s *Candidate) { s.UID = "" },
			want:   func(o *Objects) { delete(o.Service.Annotations, "service-mirror.io/cluster-uid") },
		},
		{
			name:   "another UID replaces the annotation",
			live:   storedBar(),
			source: func(s *Candidate) { s.UID = "new-uid" },
			want:   func(o *Objects) { o.Service.Annotations["service-mirror.io/cluster-uid"] = "new-uid" },
		},
		{
			name:   "copied keys, and no others",
			policy: Policy{CopyLabels: []string{"team", "absent"}, CopyAnnotations: []string{"note"}},
			want: func(o *Objects) {
				o.Service.Labels["team"] = "blue"
				o.Service.Annotations["note"] = "hello"
			},
		},
		{
			name:   "what the remote says of our own labels is ignored",
			policy: Policy{CopyLabels: []string{ManagedByLabel, ClusterLabel}, CopyAnnotations: []string{RemoteServiceAnnotation, ClusterUIDAnnotation}},
			source: func(s *Candidate) {
				s.Service.Labels = map[string]string{ManagedByLabel: "Helm", ClusterLabel: "berlin"}
				s.Service.Annotations = map[string]string{RemoteServiceAnnotation: "a/b", ClusterUIDAnnotation: "c"}
			},
			want: func(*Objects) {},
		},
		{
			name:   "copied keys change and go",
			policy: Policy{CopyLabels: []string{"team", "tier"}, CopyAnnotations: []string{"note", "gone"}},
			live: func() Objects {
				live := storedBar()
				live.Service.Labels["team"], live.Service.Labels["tier"] = "red", "old"
				live.Service.Annotations["note"], live.Service.Annotations["gone"] = "bye", "old"
				return live
			}(),
			want: func(o *Objects) {
				o.Service.Labels["team"], o.Service.Annotations["note"] = "blue", "hello"
				delete(o.Service.Labels, "tier")
				delete(o.Service.Annotations, "gone")
			},
		},
		{
			name: "foreign labels and annotations stay",
			live: func() Objects {
				live := storedBar()
				live.Service.Labels["theirs"], live.Service.Annotations["theirs"] = "a", "b"
				live.Endpoints.Labels["theirs"], live.Endpoints.Annotations["theirs"] = "c", "d"
				return live
			}(),
			want: func(*Objects) {},
		},
		{
			name: "what would stop the traffic goes",
			live: func() Objects {
				live := storedBar()
				live.Service.Labels["service.kubernetes.io/service-proxy-name"] = "cilium"
				live.Endpoints.Labels["endpointslice.kubernetes.io/skip-mirror"] = "true"
				live.Endpoints.Annotations["control-plane.alpha.kubernetes.io/leader"] = "{}"
				return live
			}(),
			want: func(o *Objects) {
				delete(o.Service.Labels, "service.kubernetes.io/service-proxy-name")
				delete(o.Endpoints.Labels, "endpointslice.kubernetes.io/skip-mirror")
				delete(o.Endpoints.Annotations, "control-plane.alpha.kubernetes.io/leader")
			},
		},
		{
			name: "drift is repaired",
			live: func() Objects {
				live := storedBar()
				policy := corev1.IPFamilyPolicySingleStack
				live.Service.Annotations["service-mirror.io/remote-service"] = "default/foo"
				live.Service.Spec.Selector = map[string]string{"app": "evil"}
				live.Service.Spec.Type = corev1.ServiceTypeNodePort
				live.Service.Spec.IPFamilyPolicy = &policy
				live.Service.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
				live.Service.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &other}}
				live.Service.Spec.Ports[0].NodePort = 30080
				live.Endpoints.Labels["service-mirror.io/cluster"] = "berlin"
				live.Endpoints.Subsets[0].Addresses = append(live.Endpoints.Subsets[0].Addresses, corev1.EndpointAddress{IP: "192.0.2.66"})
				return live
			}(),
			want: func(o *Objects) { *o = storedBar() },
		},
		{
			name: "an address that is not ready is drift",
			live: func() Objects {
				live := storedBar()
				subset := &live.Endpoints.Subsets[0]
				subset.Addresses, subset.NotReadyAddresses = nil, subset.Addresses
				return live
			}(),
			want: func(o *Objects) { o.Endpoints = storedBar().Endpoints },
		},
		{
			name: "another order of ports and addresses is not drift",
			live: func() Objects {
				live := storedBar()
				ports, written := live.Service.Spec.Ports, live.Endpoints.Subsets[0].Ports
				ports[0], ports[1] = ports[1], ports[0]
				written[0], written[1] = written[1], written[0]
				return live
			}(),
			want: func(*Objects) {},
		},
		{
			name:   "half a pair: the Service is kept, the Endpoints are made",
			live:   Objects{Service: storedBar().Service},
			want:   func(o *Objects) { o.Endpoints = mirrorOfBar().Endpoints },
			source: func(*Candidate) {},
		},
		{
			name: "half a pair: the Endpoints are kept, the Service is made",
			live: Objects{Endpoints: storedBar().Endpoints},
			want: func(o *Objects) { o.Service = mirrorOfBar().Service },
		},
		{
			name:   "families unknown: every address",
			source: func(s *Candidate) { s.Gateway.Addresses = dual },
			want: func(o *Objects) {
				o.Endpoints.Subsets[0].Addresses = []corev1.EndpointAddress{{IP: "192.0.2.1"}, {IP: "2001:db8::1"}}
			},
		},
		{
			name:     "families of other mirrors",
			families: []corev1.IPFamily{ipv6},
			source:   func(s *Candidate) { s.Gateway.Addresses = dual },
			want:     func(o *Objects) { o.Endpoints.Subsets[0].Addresses = []corev1.EndpointAddress{{IP: "2001:db8::1"}} },
		},
		{
			name:     "families of the mirror count before those of others",
			families: []corev1.IPFamily{ipv6},
			live:     storedBar(),
			source:   func(s *Candidate) { s.Gateway.Addresses = dual },
			want:     func(*Objects) {},
		},
		{
			name:     "no address of the family",
			families: []corev1.IPFamily{ipv6},
			want:     func(o *Objects) { o.Endpoints.Subsets = nil },
			wantErr:  "give the gateway an IPv6 address",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := parisBar()
			if test.source != nil {
				test.source(&source)
			}
			want := mirrorOfBar()
			if test.live != (Objects{}) {
				want = Objects{Service: test.live.Service.DeepCopy(), Endpoints: test.live.Endpoints.DeepCopy()}
			}
			test.want(&want)
			exported := source.Service.DeepCopy()
			live := Objects{Service: test.live.Service.DeepCopy(), Endpoints: test.live.Endpoints.DeepCopy()}

			got, err := test.policy.Desired(source, test.live, test.families, nil)
			checkObjects(t, got, want)
			if test.wantErr == "" && err != nil || test.wantErr != "" && (err == nil || !strings.Contains(text(err), test.wantErr)) {
				t.Errorf("got error %v, want %q", err, test.wantErr)
			}
			// What comes out of a cache is read-only.
			if !reflect.DeepEqual(source.Service, exported) || !reflect.DeepEqual(test.live, live) {
				t.Error("its arguments were changed")
			}
		})
	}
}

func TestRefuse(t *testing.T) {
	type change = func(*corev1.Service)
	for _, test := range []struct {
		name   string
		policy Policy
		change change
		want   Reason
	}{
		{name: "an ordinary one", change: func(*corev1.Service) {}},
		{name: "a mirror", change: func(s *corev1.Service) { s.Labels[ClusterLabel] = "berlin" }, want: IsMirror},
		{name: "a mirror of no cluster", change: func(s *corev1.Service) { s.Labels[ClusterLabel] = "" }, want: IsMirror},
		{name: "managed-by means nothing", change: func(s *corev1.Service) { s.Labels[ManagedByLabel] = ManagedBy }},
		{name: "the API server", change: func(s *corev1.Service) { s.Name = "kubernetes" }, want: SystemService},
		{name: "the API server, even with --include-system", policy: Policy{IncludeSystem: true}, change: func(s *corev1.Service) { s.Name = "kubernetes" }, want: SystemService},
		{name: "a namesake of the API server", change: func(s *corev1.Service) { s.Namespace, s.Name = "other", "kubernetes" }},
		{name: "kube-system", change: func(s *corev1.Service) { s.Namespace = "kube-system" }, want: SystemService},
		{name: "kube-system with --include-system", policy: Policy{IncludeSystem: true}, change: func(s *corev1.Service) { s.Namespace = "kube-system" }},
		{name: "ExternalName", change: func(s *corev1.Service) { s.Spec.Type, s.Spec.ClusterIP = corev1.ServiceTypeExternalName, "" }, want: ExternalName},
		{name: "headless", change: func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, want: Headless},
		{name: "no ClusterIP yet is not headless", change: func(s *corev1.Service) { s.Spec.ClusterIP = "" }},
		{name: "no ports", change: func(s *corev1.Service) { s.Spec.Ports = nil }, want: NoTCPPort},
		{name: "UDP alone", change: func(s *corev1.Service) { s.Spec.Ports = []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}} }, want: NoTCPPort},
		{name: "UDP alone is selected", change: func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "b", Port: 53}}
			s.Annotations["service-mirror.io/ports"] = "a"
		}, want: NoTCPPort},
		{name: "none that exists is selected", change: func(s *corev1.Service) { s.Annotations["service-mirror.io/ports"] = "a" }},
		{name: "UDP alone, for which a port is chosen", change: func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}
			s.Annotations["service-mirror.io/gateway-port"] = "53/UDP=dns"
		}},
		{name: "UDP and TCP", change: func(s *corev1.Service) {
			s.Spec.Ports = []corev1.ServicePort{{Name: "a", Port: 53, Protocol: corev1.ProtocolUDP}, {Name: "b", Port: 53}}
		}},
		{name: "a name of 57", change: func(s *corev1.Service) { s.Name = strings.Repeat("a", 57) }},
		{name: "a name of 58", change: func(s *corev1.Service) { s.Name = strings.Repeat("a", 58) }, want: InvalidName},
		{name: "LoadBalancer", change: func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeLoadBalancer }},
	} {
		t.Run(test.name, func(t *testing.T) {
			source := parisBar()
			test.change(source.Service)
			problem := test.policy.Refuse(source)
			if problem == nil {
				if test.want != "" {
					t.Fatalf("it is not refused, want %s", test.want)
				}
				return
			}
			want := Problem{Reason: test.want, Cluster: "paris", Source: cache.MetaObjectToName(source.Service), Message: problem.Message}
			if *problem != want || problem.Message == "" {
				t.Errorf("got %+v, want %+v", *problem, want)
			}
		})
	}
}

func TestValidateKeys(t *testing.T) {
	for _, test := range []struct {
		key   string
		valid bool
	}{
		{"team", true}, {"example.com/team", true}, {"a.b.c/d", true},
		{"notkubernetes.io/a", true}, {"kubernetes.io.example.com/a", true}, {"kubernetes.io", true},
		{"", false}, {"a b", false}, {"a/b/c", false}, {"/a", false}, {strings.Repeat("a", 64), false},
		{"service-mirror.io/cluster", false}, {"x.service-mirror.io/a", false},
		{"kubernetes.io/a", false}, {"service.kubernetes.io/service-proxy-name", false}, {"app.kubernetes.io/managed-by", false},
		{"k8s.io/a", false}, {"x.k8s.io/a", false},
	} {
		if err := ValidateKeys([]string{test.key}); (err == nil) != test.valid {
			t.Errorf("%q: got %v, want valid %v", test.key, err, test.valid)
		}
	}
	err := ValidateKeys([]string{"team", "kubernetes.io/a", "a b"})
	if err == nil || strings.Count(err.Error(), "\n") != 1 || !strings.Contains(err.Error(), "kubernetes.io/a") || !strings.Contains(err.Error(), `"a b"`) {
		t.Errorf("each refused key has its line: got %v", err)
	}
}
