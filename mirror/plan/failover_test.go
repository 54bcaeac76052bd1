package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

var failoverPolicy = FailoverPolicy{After: time.Second, Back: 10 * time.Second}

func barWithFailover(change ...func(*corev1.Service)) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar", Labels: map[string]string{FailoverLabel: "true"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.7", IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
			Ports: []corev1.ServicePort{{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(8000)}}},
	}
	for _, f := range change {
		f(svc)
	}
	return svc
}

// remoteAt exports bar behind a gateway at these addresses, as gatewayAt has them.
func remoteAt(cluster string, addresses ...string) FailoverRemote {
	c := parisBar()
	c.Cluster, c.Watched, c.Gateway = cluster, true, gatewayAt(addresses...)
	return FailoverRemote{Candidate: c, Configured: true}
}

func (r FailoverRemote) with(change func(*FailoverRemote)) FailoverRemote {
	change(&r)
	return r
}

// What may be known of a remote.
var (
	unknownGateway = func(r *FailoverRemote) { r.Gateway = nil }
	unknownRemote  = func(r *FailoverRemote) { r.Gateway, r.Service, r.Watched = nil, nil, false }
	unconfigured   = func(r *FailoverRemote) { *r = FailoverRemote{Candidate: Candidate{Cluster: r.Cluster}} }
	unexported     = func(r *FailoverRemote) { r.Service = nil }
	partial        = func(r *FailoverRemote) { r.Gateway.Partial = true }
	unresolvedName = func(r *FailoverRemote) { r.Gateway.Addresses, r.Gateway.Partial = nil, true }
	notProbed      = func(r *FailoverRemote) { r.Gateway.Addresses[0].Health = gateway.NotProbed }
)

// recorded has the remote's publisher route a host to bar, which has a ready endpoint or not.
func recorded(host string, ready bool) func(*FailoverRemote) {
	return func(r *FailoverRemote) {
		r.Assigned.Published = &gateway.Published{Record: &record.Record{UID: r.Service.UID, Hosts: []string{host}, Ready: ready}}
	}
}

// sliceOf is a slice of ours: its endpoints are ready with a +.
func besideBar(remote string, endpoints ...string) *discoveryv1.EndpointSlice {
	var all []endpoint
	for _, text := range endpoints {
		text, ready := strings.CutSuffix(text, "+")
		all = append(all, endpoint{netip.MustParseAddr(text), ready})
	}
	return RemoteSlices(barOwn, remote, true)[0].desired(nil, []corev1.EndpointPort{{Name: "web", Port: 8080, Protocol: corev1.ProtocolTCP}}, all)
}

// edited is a slice after a change by hand.
func edited(slice *discoveryv1.EndpointSlice, change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
	change(slice)
	return slice
}

// says is a plan as a text: its state, who serves, the steps, and the reasons.
func (p FailoverPlan) says() string {
	text := string(p.State) + " " + p.Serving
	for _, step := range p.Steps {
		text += fmt.Sprintf("; %s %s", map[Action]string{Create: "create", Update: "update", Delete: "delete"}[step.Action], step.Slice.Name)
		if step.Action != Delete {
			for _, e := range step.Slice.Endpoints {
				text += " " + e.Addresses[0]
				if *e.Conditions.Ready {
					text += "+"
				}
			}
		}
	}
	var reasons []string
	for _, problem := range p.Problems {
		reasons = append(reasons, strings.TrimPrefix(problem.Cluster+":"+string(problem.Reason), ":"))
	}
	if len(reasons) > 0 {
		text += "! " + strings.Join(reasons, " ")
	}
	return text
}

func TestFailoverDecides(t *testing.T) {
	up, down := LocalEndpoints{Known: true, Ready: true, For: time.Hour}, LocalEndpoints{Known: true, For: time.Hour}
	both := []FailoverRemote{remoteAt("paris", "192.0.2.1"), remoteAt("berlin", "192.0.2.9")}
	idle := []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1"), besideBar("berlin", "192.0.2.9")}
	parisServes := []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1+"), besideBar("berlin", "192.0.2.9")}
	berlinServes := []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1"), besideBar("berlin", "192.0.2.9+")}
	withProtocol := edited(besideBar("paris", "192.0.2.1+"), func(slice *discoveryv1.EndpointSlice) { slice.Ports[0].AppProtocol = new(string) })
	portless := edited(besideBar("paris", "192.0.2.1+"), func(slice *discoveryv1.EndpointSlice) { slice.Ports = nil })
	unlabelled := edited(besideBar("paris", "192.0.2.1+"), func(slice *discoveryv1.EndpointSlice) { delete(slice.Labels, FailoverLabel) })
	paris := func(changes ...func(*FailoverRemote)) []FailoverRemote {
		r := remoteAt("paris", "192.0.2.1")
		for _, change := range changes {
			change(&r)
		}
		return []FailoverRemote{r, remoteAt("berlin", "192.0.2.9")}
	}
	for _, test := range []struct {
		name    string
		local   LocalEndpoints
		live    []*discoveryv1.EndpointSlice
		remotes []FailoverRemote
		want    string
	}{
		{"created idle", up, nil, both, "local ; create bar.paris.ipv4 192.0.2.1; create bar.berlin.ipv4 192.0.2.9"},
		{"nothing to do", up, idle, both, "local "},
		{"failed over", down, idle, both, "failed over paris; update bar.paris.ipv4 192.0.2.1+"},
		{"it stays so", down, parisServes, both, "failed over paris"},
		{"not known locally", LocalEndpoints{}, parisServes, both, "unknown paris"},
		{"not known locally, idle", LocalEndpoints{}, idle, both, "unknown "},
		{"not for long", LocalEndpoints{Known: true, For: 999 * time.Millisecond}, idle, both, "local "},
		{"both serve for a while", LocalEndpoints{Known: true, Ready: true, For: 9 * time.Second}, parisServes, both, "both paris"},
		{"failed back", up, parisServes, both, "local ; update bar.paris.ipv4 192.0.2.1"},
		{"failed back without the configuration", up, parisServes, paris(unconfigured), "local ; update bar.paris.ipv4 192.0.2.1! paris:UnknownRemote"},
		{"failed back without the remote", up, parisServes, paris(unknownRemote), "local ; update bar.paris.ipv4 192.0.2.1"},

		{"unknown: an appProtocol stays", down, []*discoveryv1.EndpointSlice{withProtocol, idle[1]}, paris(unknownRemote), "failed over paris"},
		{"unknown, its ports were removed", down, []*discoveryv1.EndpointSlice{portless, idle[1]}, paris(unknownRemote), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+"},
		{"unknown, its label was removed", down, []*discoveryv1.EndpointSlice{unlabelled, idle[1]}, paris(unknownRemote), "failed over paris"},
		{"not configured, its label was removed", down, []*discoveryv1.EndpointSlice{unlabelled, idle[1]}, paris(unconfigured), "failed over paris! paris:UnknownRemote"},
		{"not resolved, its label was removed", down, []*discoveryv1.EndpointSlice{unlabelled, idle[1]}, paris(unresolvedName), "failed over paris"},
		{"not resolved, without a slice", up, idle[1:], paris(unresolvedName), "local ! paris:NoAddress"},
		{"failed back, its label was removed", up, []*discoveryv1.EndpointSlice{unlabelled, idle[1]}, paris(unknownRemote), "local ; create bar.paris.ipv4 192.0.2.1"},

		{"the first one's gateway is dead", down, parisServes, []FailoverRemote{remoteAt("paris", "192.0.2.1 dead"), both[1]},
			"failed over berlin; update bar.berlin.ipv4 192.0.2.9+; update bar.paris.ipv4 192.0.2.1! paris:NoHealthyAddress"},
		{"and lives again", down, berlinServes, both, "failed over paris; update bar.paris.ipv4 192.0.2.1+; update bar.berlin.ipv4 192.0.2.9"},
		{"all are dead", down, parisServes, []FailoverRemote{remoteAt("paris", "192.0.2.1 dead"), remoteAt("berlin", "192.0.2.9 dead")},
			"unavailable ; update bar.paris.ipv4 192.0.2.1! paris:NoHealthyAddress berlin:NoHealthyAddress NoHealthyRemote"},
		{"one of its addresses is dead", down, idle, []FailoverRemote{remoteAt("paris", "192.0.2.1", "192.0.2.2 dead"), both[1]},
			"failed over paris; update bar.paris.ipv4 192.0.2.1+ 192.0.2.2"},
		{"no probes", down, idle, paris(notProbed), "failed over paris; update bar.paris.ipv4 192.0.2.1+"},
		{"not probed yet: another is better", down, idle, []FailoverRemote{remoteAt("paris", "192.0.2.1 unprobed"), both[1]}, "failed over berlin; update bar.berlin.ipv4 192.0.2.9+"},
		{"not probed yet, but it serves", down, parisServes, []FailoverRemote{remoteAt("paris", "192.0.2.1 unprobed"), both[1]}, "failed over paris"},
		{"not probed yet: an address that was not ready stays so", down, []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1+", "192.0.2.2"), idle[1]},
			[]FailoverRemote{remoteAt("paris", "192.0.2.1 unprobed", "192.0.2.2 unprobed"), both[1]}, "failed over paris"},
		{"not probed yet, and none is better", down, idle, []FailoverRemote{remoteAt("paris", "192.0.2.1 unprobed"), remoteAt("berlin", "192.0.2.9 dead")},
			"failed over paris; update bar.paris.ipv4 192.0.2.1+! berlin:NoHealthyAddress"},

		{"unknown, but it serves", down, parisServes, paris(unknownRemote), "failed over paris"},
		{"its gateway is unknown, but it serves", down, parisServes, paris(unknownGateway), "failed over paris"},
		{"unknown and idle: another is better", down, idle, paris(unknownRemote), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+"},
		{"unknown and idle, and none is better", down, idle, []FailoverRemote{both[0].with(unknownRemote), both[1].with(unexported)},
			"failed over paris; update bar.paris.ipv4 192.0.2.1+; delete bar.berlin.ipv4! berlin:NotExported"},
		{"unknown, and nothing exists of it", down, idle[1:], paris(unknownRemote), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+"},
		{"not configured, but it serves", down, parisServes, paris(unconfigured), "failed over paris! paris:UnknownRemote"},
		{"not configured and idle", down, idle, []FailoverRemote{both[0].with(unconfigured), both[1].with(unexported)},
			"unavailable ; delete bar.berlin.ipv4! paris:UnknownRemote berlin:NotExported NoHealthyRemote"},
		{"no more exported", down, parisServes, paris(unexported), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+; delete bar.paris.ipv4! paris:NotExported"},
		{"another address", down, parisServes, []FailoverRemote{remoteAt("paris", "192.0.2.2"), both[1]}, "failed over paris; update bar.paris.ipv4 192.0.2.2+"},
		{"hostnames that are not resolved keep theirs", down, parisServes, []FailoverRemote{remoteAt("paris", "192.0.2.2").with(partial), both[1]},
			"failed over paris; update bar.paris.ipv4 192.0.2.1+ 192.0.2.2+"},
		{"and keep what was not ready so", down, []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1", "192.0.2.2+"), idle[1]}, []FailoverRemote{remoteAt("paris", "192.0.2.2").with(partial), both[1]},
			"failed over paris"},
		{"no address", down, parisServes, []FailoverRemote{remoteAt("paris"), both[1]}, "failed over berlin; update bar.berlin.ipv4 192.0.2.9+; delete bar.paris.ipv4! paris:NoAddress"},
		{"addresses of the other family alone", up, nil, []FailoverRemote{remoteAt("paris", "2001:db8::1")}, "local ! paris:NoAddress"},
		{"a healthy address of the other family alone", down, idle, []FailoverRemote{remoteAt("paris", "192.0.2.1 dead", "2001:db8::1"), both[1]},
			"failed over berlin; update bar.berlin.ipv4 192.0.2.9+! paris:NoHealthyAddress"},
		{"one of the other family, and one not probed yet", down, idle, []FailoverRemote{remoteAt("paris", "192.0.2.1 unprobed", "2001:db8::1"), both[1]},
			"failed over berlin; update bar.berlin.ipv4 192.0.2.9+"},
		{"no ready endpoint there", down, idle, paris(recorded("bar.default", false)), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+! paris:NoReadyEndpoint"},
		{"routed by its record", down, idle, paris(recorded("bar.default", true)), "failed over paris; update bar.paris.ipv4 192.0.2.1+"},
		{"not routed, by its record", down, idle, paris(recorded("bar-paris.default", true)), "failed over berlin; update bar.berlin.ipv4 192.0.2.9+! paris:NotRouted"},
		{"the remote's is headless", up, idle, paris(func(r *FailoverRemote) { r.Service.Spec.ClusterIP = "None" }), "local ; delete bar.paris.ipv4! paris:Headless"},
		{"not in the annotation any more", up, idle, both[1:], "local ; delete bar.paris.ipv4"},
		{"no name of a remote", up, nil, []FailoverRemote{{Candidate: Candidate{Cluster: "Pa ris"}}}, "local ! Pa ris:UnknownRemote"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := FailoverSnapshot{Key: barOwn, Service: barWithFailover(), Local: test.local, Live: test.live, Remotes: test.remotes}
			p := failoverPolicy.Decide(s)
			if got := p.says(); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			// Applied, there is nothing left to do.
			s.Live, s.Active = apply(s.Live, p), &p.Active
			if again := failoverPolicy.Decide(s); len(again.Steps) > 0 || again.Serving != p.Serving {
				t.Errorf("decided again: %s", again.says())
			}
		})
	}
}

// Where the addresses of one family are unknown, the slice of the other one is repaired all the same.
func TestFailoverRepairsTheKnownFamily(t *testing.T) {
	paris := remoteAt("paris", "192.0.2.1")
	paris.Gateway.Partial, paris.Gateway.Missing = true, ipv6
	four := edited(besideBar("paris", "192.0.2.1+"), func(slice *discoveryv1.EndpointSlice) { delete(slice.Labels, FailoverLabel) })
	six := RemoteSlices(barOwn, "paris", true)[1].desired(nil, []corev1.EndpointPort{{Name: "web", Port: 8080, Protocol: corev1.ProtocolTCP}}, []endpoint{{netip.MustParseAddr("2001:db8::1"), true}})
	delete(six.Labels, FailoverLabel)
	p := failoverPolicy.Decide(FailoverSnapshot{
		Key: barOwn, Local: LocalEndpoints{Known: true, For: time.Hour}, Live: []*discoveryv1.EndpointSlice{four, six}, Remotes: []FailoverRemote{paris},
		Service: barWithFailover(func(svc *corev1.Service) { svc.Spec.IPFamilies = []corev1.IPFamily{ipv4, ipv6} }),
	})
	if got, want := p.says(), "failed over paris; create bar.paris.ipv4 192.0.2.1+"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

// apply is what exists after the steps of a plan.
func apply(live []*discoveryv1.EndpointSlice, p FailoverPlan) []*discoveryv1.EndpointSlice {
	live = slices.Clone(live)
	for _, step := range p.Steps {
		live = slices.DeleteFunc(live, func(s *discoveryv1.EndpointSlice) bool { return s.Name == step.Slice.Name })
		if step.Action != Delete {
			live = append(live, step.Slice)
		}
	}
	return live
}

// When a Service is looked at again is what is left of the time.
func TestFailoverTimes(t *testing.T) {
	yes, no := true, false
	for _, test := range []struct {
		local  LocalEndpoints
		active *bool
		want   time.Duration
		then   bool
	}{
		{LocalEndpoints{Known: true, Ready: true, For: time.Hour}, &no, 0, false},
		{LocalEndpoints{Known: true, For: 300 * time.Millisecond}, &no, 700 * time.Millisecond, false},
		{LocalEndpoints{Known: true, For: time.Second}, &no, 0, true},
		{LocalEndpoints{Known: true, Ready: true, For: 3 * time.Second}, &yes, 7 * time.Second, true},
		{LocalEndpoints{Known: true, Ready: true, For: 10 * time.Second}, &yes, 0, false},
		{LocalEndpoints{Known: true, For: time.Hour}, &yes, 0, true},
		{LocalEndpoints{For: time.Hour}, &yes, 0, true},
		{LocalEndpoints{Ready: true, For: time.Hour}, &no, 0, false},
		{LocalEndpoints{Known: true}, nil, time.Second, false},
	} {
		p := failoverPolicy.Decide(FailoverSnapshot{Key: barOwn, Service: barWithFailover(), Local: test.local, Active: test.active, Remotes: []FailoverRemote{remoteAt("paris", "192.0.2.1")}})
		if p.After != test.want || p.Active != test.then {
			t.Errorf("%+v: after %v, active %v, want %v, %v", test.local, p.After, p.Active, test.want, test.then)
		}
	}
}

func TestFailoverRefuses(t *testing.T) {
	local := corev1.ServiceInternalTrafficPolicyLocal
	for _, test := range []struct {
		name    string
		change  func(*corev1.Service)
		remotes []FailoverRemote
		want    string
	}{
		{"headless", func(s *corev1.Service) { s.Spec.ClusterIP = "None" }, nil, "Headless"},
		{"ExternalName", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeExternalName }, nil, "ExternalName"},
		{"internalTrafficPolicy", func(s *corev1.Service) { s.Spec.InternalTrafficPolicy = &local }, nil, "LocalTraffic"},
		{"default/kubernetes", func(s *corev1.Service) { s.Name = "kubernetes" }, nil, "SystemService"},
		{"a mirror", func(s *corev1.Service) {
			s.Labels[ManagedByLabel], s.Labels[ClusterLabel], s.Annotations = ManagedBy, "paris", map[string]string{MirrorAnnotation: "default/bar"}
		}, nil, "IsMirror"},
		{"no remote", func(*corev1.Service) {}, []FailoverRemote{}, "NoRemote"},
	} {
		t.Run(test.name, func(t *testing.T) {
			svc := barWithFailover(test.change)
			if test.remotes == nil {
				test.remotes = []FailoverRemote{remoteAt("paris", "192.0.2.1")}
			}
			p := failoverPolicy.Decide(FailoverSnapshot{Key: cache.MetaObjectToName(svc), Service: svc, Live: []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1+")}, Remotes: test.remotes})
			if got := p.says(); got != "refused ; delete bar.paris.ipv4! "+test.want {
				t.Errorf("got %s", got)
			}
			if message := p.Problems[0].Message; !strings.Contains(message, ": ") {
				t.Errorf("the message has no fix: %s", message)
			}
		})
	}
	if p := failoverPolicy.Decide(FailoverSnapshot{Key: barOwn, Live: []*discoveryv1.EndpointSlice{besideBar("paris", "192.0.2.1+")}}); p.says() != " ; delete bar.paris.ipv4" {
		t.Errorf("without a Service: %s", p.says())
	}
}

// A foreign slice of the name is in the way of its remote alone.
func TestFailoverConflict(t *testing.T) {
	s := FailoverSnapshot{Key: barOwn, Service: barWithFailover(), Local: LocalEndpoints{Known: true, For: time.Hour}, Foreign: map[string]bool{"bar.paris.ipv4": true},
		Remotes: []FailoverRemote{remoteAt("paris", "192.0.2.1"), remoteAt("berlin", "192.0.2.9")}}
	want := "failed over berlin; create bar.berlin.ipv4 192.0.2.9+! paris:Conflict"
	if got := failoverPolicy.Decide(s).says(); got != want {
		t.Errorf("got %s", got)
	}
	s.Service.Spec.IPFamilies = []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol} // for the other one it has no address
	if got := failoverPolicy.Decide(s).says(); got != want {
		t.Errorf("of both families: got %s", got)
	}
}

// The ports of the slice have the names of the local Service's, which is what kube-proxy looks for, and the gateway
// ports of the exported Service's port of the same number or, without one, of the same name.
func TestFailoverPorts(t *testing.T) {
	port := func(name string, number int32) corev1.ServicePort {
		return corev1.ServicePort{Name: name, Port: number, Protocol: corev1.ProtocolTCP}
	}
	for _, test := range []struct {
		name       string
		ports      []corev1.ServicePort
		want, says string
	}{
		{"one without a name", []corev1.ServicePort{port("", 80)}, ":8080", ""},
		{"of another name", []corev1.ServicePort{port("web", 80)}, "web:8080", ""},
		{"of another number", []corev1.ServicePort{port("https", 8443)}, "https:8443", ""},
		{"two", []corev1.ServicePort{port("a", 443), port("b", 80)}, "a:8443 b:8080", ""},
		{"one that is not exported", []corev1.ServicePort{port("web", 80), port("db", 5432)}, "web:8080", "port 5432/TCP: the exported Service has no such port"},
		{"of another protocol", []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolUDP}}, "", "port 80/UDP"},
	} {
		t.Run(test.name, func(t *testing.T) {
			svc := barWithFailover(func(s *corev1.Service) { s.Spec.Ports = test.ports })
			p := failoverPolicy.Decide(FailoverSnapshot{Key: barOwn, Service: svc, Remotes: []FailoverRemote{remoteAt("paris", "192.0.2.1")}})
			var got []string
			for _, step := range p.Steps {
				for _, port := range step.Slice.Ports {
					got = append(got, fmt.Sprintf("%s:%d", *port.Name, *port.Port))
				}
			}
			if slices.Sort(got); strings.Join(got, " ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			if (test.says == "") != (len(p.Problems) == 0) || test.says != "" && (p.Problems[0].Reason != PortNotServed || !strings.Contains(p.Problems[0].Message, test.says)) {
				t.Errorf("problems: %v, want %q", p.Problems, test.says)
			}
		})
	}
}

func TestLocallyReady(t *testing.T) {
	yes, no := true, false
	slice := func(ready, serving *bool) *discoveryv1.EndpointSlice {
		return &discoveryv1.EndpointSlice{AddressType: discoveryv1.AddressTypeIPv4, Endpoints: []discoveryv1.Endpoint{
			{Conditions: discoveryv1.EndpointConditions{Ready: &no, Serving: &no}}, {Conditions: discoveryv1.EndpointConditions{Ready: ready, Serving: serving}}}}
	}
	unserved := func(change func(*discoveryv1.EndpointSlice)) *discoveryv1.EndpointSlice {
		s := slice(&yes, &yes)
		change(s)
		return s
	}
	for _, test := range []struct {
		name              string
		slices            []*discoveryv1.EndpointSlice
		ready, publishing bool
	}{
		{"none", nil, false, false},
		{"ready", []*discoveryv1.EndpointSlice{slice(&no, &no), slice(&yes, &yes)}, true, true},
		{"nil is ready", []*discoveryv1.EndpointSlice{slice(nil, nil)}, true, true},
		{"not ready", []*discoveryv1.EndpointSlice{slice(&no, &no)}, false, false},
		{"published although it is not ready", []*discoveryv1.EndpointSlice{slice(&yes, &no)}, true, false},
		{"terminating, and it serves", []*discoveryv1.EndpointSlice{slice(&no, &yes)}, false, true},
		{"of hostnames", []*discoveryv1.EndpointSlice{unserved(func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeFQDN })}, false, false},
		{"of another proxy", []*discoveryv1.EndpointSlice{unserved(func(s *discoveryv1.EndpointSlice) {
			s.Labels = map[string]string{"service.kubernetes.io/service-proxy-name": "x"}
		})}, false, false},
	} {
		for publishing, want := range map[bool]bool{false: test.ready, true: test.publishing} {
			svc := barWithFailover(func(s *corev1.Service) { s.Spec.PublishNotReadyAddresses = publishing })
			trimmed := []*discoveryv1.EndpointSlice{}
			for _, s := range test.slices {
				trimmed = append(trimmed, TrimBeside(s))
			}
			if got, cached := LocallyReady(svc, test.slices), LocallyReady(svc, trimmed); got != want || cached != want {
				t.Errorf("%s, publishNotReadyAddresses %v: %v, in the cache %v, want %v", test.name, publishing, got, cached, want)
			}
		}
	}
}

func TestFailoverRemotesOfAnAnnotation(t *testing.T) {
	for text, want := range map[string][]string{
		"": nil, " , ": nil, "paris": {"paris"}, "paris,berlin": {"paris", "berlin"}, " paris , berlin,,paris": {"paris", "berlin"},
	} {
		svc := barWithFailover(func(s *corev1.Service) { s.Annotations = map[string]string{FailoverAnnotation: text} })
		if got := FailoverRemotes(svc); !slices.Equal(got, want) {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
	var all []string
	for i := range 100 {
		all = append(all, fmt.Sprintf("remote-%d", i))
	}
	many := barWithFailover(func(s *corev1.Service) { s.Annotations = map[string]string{FailoverAnnotation: strings.Join(all, ",")} })
	if got := len(FailoverRemotes(many)); got != maxFailoverRemotes {
		t.Errorf("%d remotes are taken from one annotation", got)
	}
}
