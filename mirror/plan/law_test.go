package plan

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/validation"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
)

// TestAppliedChangesLeaveNoDifference is the law on which everything rests:
// once the changes are made, there is nothing left to change.
func TestAppliedChangesLeaveNoDifference(t *testing.T) {
	written := 0
	for seed := range uint64(3000) {
		g := generator{rand.New(rand.NewPCG(seed, 1))}
		policy, source, live, families := g.policy(), g.source(), g.live(), g.families()
		known := pickOne(g, families, nil) // what is known of them before a mirror exists
		desired, err := policy.Desired(source, live, known, nil)
		changes := Diff(live, desired)
		if !changes.Empty() {
			written++
		}
		after := g.applied(live, changes, families)
		again, againErr := policy.Desired(source, after, known, nil)
		left := Diff(after, again)
		if known == nil && changes.Create.Service != nil {
			// Only now its families are known: the Endpoints may have to follow.
			left.Update.Endpoints, left.Update.IPv4, left.Update.IPv6 = nil, nil, nil
			left.Delete.IPv4, left.Delete.IPv6 = nil, nil
		}
		if !left.Empty() {
			t.Fatalf("seed %d:\nlive    %s\ndesired %s\nafter   %s\nleft    %s", seed, text(live), text(desired), text(after), text(left))
		}
		if known == nil && changes.Create.Service != nil {
			continue // whether there is an address of these families, is known only now
		}
		if fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Fatalf("seed %d: first %v, then %v", seed, err, againErr)
		}
	}
	if written < 2000 {
		t.Errorf("only %d of the cases wrote anything: what is generated is too tame", written)
	}
}

// TestTrimmedMakesTheSameMirror is the law of the cache's door.
func TestTrimmedMakesTheSameMirror(t *testing.T) {
	for seed := range uint64(1000) {
		g := generator{rand.New(rand.NewPCG(seed, 2))}
		policy, source, live := g.policy(), g.source(), g.live()
		if g.IntN(3) == 0 {
			source.Service.Spec.ClusterIP = corev1.ClusterIPNone
		}
		trimmed := source
		trimmed.Service = policy.TrimExported(source.Service.DeepCopy())
		whole, wholeErr := policy.Desired(source, live, nil, nil)
		cut, cutErr := policy.Desired(trimmed, live, nil, nil)
		if !equality.Semantic.DeepEqual(whole, cut) || fmt.Sprint(wholeErr) != fmt.Sprint(cutErr) {
			t.Fatalf("seed %d:\nwhole %s %v\ncut   %s %v", seed, text(whole), wholeErr, text(cut), cutErr)
		}
		if a, b := policy.Refuse(source), policy.Refuse(trimmed); !reflect.DeepEqual(a, b) {
			t.Fatalf("seed %d: whole it is refused with %v, cut with %v", seed, a, b)
		}
		if again := policy.TrimExported(trimmed.Service); !equality.Semantic.DeepEqual(again, trimmed.Service) {
			t.Fatalf("seed %d: trimmed twice it is another", seed)
		}
	}
}

// generator makes things that a cluster might hold.
type generator struct{ *rand.Rand }

func pickOne[T any](g generator, choices ...T) T { return choices[g.IntN(len(choices))] }

func (g generator) strings() map[string]string {
	keys := []string{"a", "b", "team", "x.io/y", stopTraffic[0], stopTraffic[1], "endpointslice.kubernetes.io/skip-mirror", leaderElection,
		ManagedByLabel, ClusterLabel, MirrorAnnotation, RemoteServiceAnnotation, ClusterUIDAnnotation}
	out := map[string]string{}
	for range g.IntN(4) {
		out[pickOne(g, keys...)] = pickOne(g, "", "1", "paris", "berlin")
	}
	if len(out) == 0 && g.IntN(2) == 0 {
		return nil
	}
	return out
}

func (g generator) policy() Policy {
	policy := Policy{EndpointsAPI: pickOne(g, UseEndpoints, UseEndpointSlices)}
	for range g.IntN(3) {
		policy.CopyLabels = append(policy.CopyLabels, pickOne(g, "a", "team", "x.io/y"))
		policy.CopyAnnotations = append(policy.CopyAnnotations, pickOne(g, "b", "team", "x.io/y"))
	}
	return policy
}

func (g generator) ports() []corev1.ServicePort {
	var ports []corev1.ServicePort
	for i := range g.IntN(5) {
		p := corev1.ServicePort{
			Name: pickOne(g, "http", "https", "grpc", "db") + fmt.Sprint(i), Port: int32(1 + 100*i + g.IntN(3)),
			Protocol:   pickOne(g, "", corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP),
			TargetPort: pickOne(g, intstr.FromInt32(80), intstr.FromString("web"), intstr.IntOrString{}),
			NodePort:   pickOne[int32](g, 0, 30000),
		}
		if g.IntN(3) == 0 {
			p.AppProtocol = new(string)
			*p.AppProtocol = pickOne(g, "http", "https", "kubernetes.io/h2c", "x")
		}
		ports = append(ports, p)
	}
	g.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
	return ports
}

func (g generator) affinity() (corev1.ServiceAffinity, *corev1.SessionAffinityConfig) {
	if g.IntN(2) == 0 {
		return pickOne(g, corev1.ServiceAffinityNone, ""), nil
	}
	seconds := pickOne[int32](g, 10800, 60)
	return corev1.ServiceAffinityClientIP, pickOne(g, nil, &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}})
}

func (g generator) gateway() *gateway.Gateway {
	gw := &gateway.Gateway{Ports: g.ports(), Port: pickOne(g, "", "", "http0"), Default: pickOne(g, "", "", "db1"), Partial: g.IntN(3) == 0, Missing: pickOne(g, "", ipv4, ipv6)}
	for _, addr := range g.addresses() {
		gw.Addresses = append(gw.Addresses, gateway.Address{Addr: addr, Health: pickOne(g, gateway.Ready, gateway.Ready, gateway.NotReady, gateway.Unprobed)})
	}
	if g.IntN(3) == 0 {
		gw.Linkerd = gateway.Linkerd{Identity: "gateway.paris", Domain: "cluster.local"}
	}
	return gw
}

func (g generator) addresses() (addrs []netip.Addr) {
	for i := range 4 {
		if g.IntN(2) == 0 {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i)))
		}
	}
	for i := range 2 {
		if g.IntN(2) == 0 {
			addrs = append(addrs, netip.MustParseAddr(fmt.Sprintf("2001:db8::%d", i)))
		}
	}
	return addrs
}

func (g generator) families() []corev1.IPFamily {
	return pickOne(g, nil, []corev1.IPFamily{ipv4}, []corev1.IPFamily{ipv6}, []corev1.IPFamily{ipv4, ipv6})
}

func (g generator) source() Candidate {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar", UID: "u", Labels: g.strings(), Annotations: g.strings()},
		Spec: corev1.ServiceSpec{
			Type:      pickOne(g, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort, corev1.ServiceTypeLoadBalancer),
			ClusterIP: "10.0.0.1", Selector: g.strings(), Ports: g.ports(),
		},
	}
	svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = g.affinity()
	for key, value := range map[string]string{
		gateway.PortsAnnotation:  pickOne(g, "", "", "1=2", "x", "201=1,202/UDP=1"),
		gateway.PortAnnotation:   pickOne(g, "", "", "http0", "http0=grpc1, db2=1", "=", strings.Repeat("a", 20_000)),
		gateway.SelectAnnotation: pickOne(g, "", "", "http0, https1, 201", "none", "db2,1", strings.Repeat("http0,", 2000)),
	} {
		if value != "" {
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, key, value)
		}
	}
	source := Candidate{Cluster: "paris", UID: pickOne[types.UID](g, "", "paris-uid"), Service: svc}
	if g.IntN(4) > 0 {
		source.Gateway = g.gateway()
	}
	return source
}

// live is a mirror, or half of one, that someone may have had their hands on.
func (g generator) live() Objects {
	live := storedBar()
	if svc := live.Service; g.IntN(2) == 0 {
		svc.Spec.Ports = g.ports()
		svc.Spec.Type = pickOne(g, corev1.ServiceTypeClusterIP, corev1.ServiceTypeNodePort)
		svc.Spec.Selector = pickOne(g, nil, map[string]string{}, map[string]string{"app": "x"})
		svc.Spec.IPFamilies = pickOne(g, []corev1.IPFamily{ipv4}, []corev1.IPFamily{ipv6}, []corev1.IPFamily{ipv4, ipv6})
		svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = g.affinity()
		svc.Labels, svc.Annotations = g.strings(), g.strings()
	}
	if endpoints := live.Endpoints; g.IntN(2) == 0 {
		endpoints.Labels, endpoints.Annotations = g.strings(), g.strings()
		endpoints.Subsets = nil
		for range g.IntN(3) {
			var subset corev1.EndpointSubset
			for _, addr := range g.addresses() {
				list := pickOne(g, &subset.Addresses, &subset.NotReadyAddresses)
				*list = append(*list, corev1.EndpointAddress{IP: addr.String()})
			}
			for _, port := range g.ports() {
				subset.Ports = append(subset.Ports, corev1.EndpointPort{Name: port.Name, Port: port.Port, Protocol: corev1.ProtocolTCP})
			}
			endpoints.Subsets = append(endpoints.Subsets, subset)
		}
	}
	if g.IntN(3) == 0 {
		live.Service = nil
	}
	if g.IntN(3) == 0 {
		live.Endpoints = nil
	}
	if g.IntN(3) == 0 {
		live.IPv4 = g.slice(discoveryv1.AddressTypeIPv4)
	}
	if g.IntN(3) == 0 {
		live.IPv6 = g.slice(discoveryv1.AddressTypeIPv6)
	}
	return live
}

func (g generator) slice(family discoveryv1.AddressType) *discoveryv1.EndpointSlice {
	slice := &discoveryv1.EndpointSlice{AddressType: family, ObjectMeta: metav1.ObjectMeta{
		Namespace: "default", Name: SliceName(barKey, family), UID: "slice-uid", ResourceVersion: "7",
		Labels: g.strings(), Annotations: g.strings(),
	}}
	for _, addr := range g.addresses() {
		if addr.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{addr.String()}, Conditions: discoveryv1.EndpointConditions{Ready: pickOne(g, nil, new(bool))},
			})
		}
	}
	for _, port := range g.ports() {
		slice.Ports = append(slice.Ports, discoveryv1.EndpointPort{Name: &port.Name, Port: &port.Port})
	}
	return slice
}

// applied is what an API server of these IP families makes of the changes: with
// its defaults set, and in an order of its own.
func (g generator) applied(live Objects, changes Changes, families []corev1.IPFamily) Objects {
	after := Objects{Service: live.Service.DeepCopy(), Endpoints: live.Endpoints.DeepCopy(), IPv4: live.IPv4.DeepCopy(), IPv6: live.IPv6.DeepCopy()}
	for _, written := range []Objects{changes.Create, changes.Update} {
		if written.Service != nil {
			after.Service = fixture.Allocated(fixture.Defaulted(written.Service.DeepCopy(), families))
			after.Service.ResourceVersion = "1000"
		}
		if written.Endpoints != nil {
			after.Endpoints = written.Endpoints.DeepCopy()
			after.Endpoints.ResourceVersion = "1001"
			for i := range after.Endpoints.Subsets {
				addresses, ports := after.Endpoints.Subsets[i].Addresses, after.Endpoints.Subsets[i].Ports
				g.Shuffle(len(addresses), func(i, j int) { addresses[i], addresses[j] = addresses[j], addresses[i] })
				g.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
			}
		}
	}
	for _, family := range []func(*Objects) **discoveryv1.EndpointSlice{
		func(o *Objects) **discoveryv1.EndpointSlice { return &o.IPv4 },
		func(o *Objects) **discoveryv1.EndpointSlice { return &o.IPv6 },
	} {
		if written := cmp.Or(*family(&changes.Create), *family(&changes.Update)); written != nil {
			slice := written.DeepCopy()
			slice.ResourceVersion = "1002"
			g.Shuffle(len(slice.Endpoints), func(i, j int) { slice.Endpoints[i], slice.Endpoints[j] = slice.Endpoints[j], slice.Endpoints[i] })
			g.Shuffle(len(slice.Ports), func(i, j int) { slice.Ports[i], slice.Ports[j] = slice.Ports[j], slice.Ports[i] })
			*family(&after) = slice
		}
		if *family(&changes.Delete) != nil {
			*family(&after) = nil
		}
	}
	if changes.Delete.Service != nil {
		after.Service = nil
	}
	if changes.Delete.Endpoints != nil {
		after.Endpoints = nil
	}
	return after
}

func FuzzDesired(f *testing.F) {
	f.Add("paris", "default", "bar", "http", int32(80), "TCP", "http", "team", "blue", "10.0.0.1", "ClusterIP")
	f.Add("eu-paris", "kube-system", "kubernetes", "", int32(-1), "UDP", "", ManagedByLabel, "Helm", "None", "ExternalName")
	f.Add("p", "a/b", "x/y", "\x00", int32(70000), "", "kubernetes.io/ws", ClusterLabel, "berlin", "", "LoadBalancer")
	f.Fuzz(func(t *testing.T, cluster, namespace, name, portName string, port int32, protocol, app, key, value, clusterIP, kind string) {
		policy := Policy{}
		if ValidateKeys([]string{key}) == nil {
			policy = Policy{CopyLabels: []string{key}, CopyAnnotations: []string{key}}
		}
		exported := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: map[string]string{key: value}, Annotations: map[string]string{key: value}},
			Spec: corev1.ServiceSpec{
				Type: corev1.ServiceType(kind), ClusterIP: clusterIP, Selector: map[string]string{key: value},
				Ports: []corev1.ServicePort{{Name: portName, Port: port, Protocol: corev1.Protocol(protocol), AppProtocol: &app}, {Name: "web", Port: 80}},
			},
		}
		source := Candidate{Cluster: cluster, UID: types.UID(value), Service: exported, Gateway: parisGateway()}
		if refusal := policy.Refuse(source); refusal != nil {
			return
		}
		want, err := policy.Desired(source, Objects{}, nil, nil)
		svc := want.Service
		if problems := validation.IsDNS1123Label(svc.Name); len(problems) > 0 {
			t.Errorf("name %q: %s", svc.Name, problems)
		}
		for _, obj := range []metav1.Object{svc, want.Endpoints} {
			if owner, ours := Labelled(obj); cluster != "" && (!ours || owner != cluster) {
				t.Errorf("labels %q do not say that it is ours and of %q", obj.GetLabels(), cluster)
			}
		}
		if svc.Annotations[RemoteServiceAnnotation] != namespace+"/"+name && namespace != "" {
			t.Errorf("annotations %q do not tell the source", svc.Annotations)
		}
		if svc.Spec.Type != corev1.ServiceTypeClusterIP || svc.Spec.Selector != nil || svc.Spec.ClusterIP != "" {
			t.Errorf("the remote decides where the traffic goes: %s", text(svc.Spec))
		}
		for _, ip := range want.Addresses() {
			if !slices.Contains(source.Gateway.Addresses, gateway.Address{Addr: netip.MustParseAddr(ip)}) {
				t.Errorf("%s is no address of the gateway", ip)
			}
		}
		g := generator{rand.New(rand.NewPCG(1, 1))}
		after := g.applied(Objects{}, Diff(Objects{}, want), nil)
		again, againErr := policy.Desired(source, after, nil, nil)
		if left := Diff(after, again); !left.Empty() || fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Errorf("applied, there is something left: %s (%v, then %v)", text(left), err, againErr)
		}
	})
}
