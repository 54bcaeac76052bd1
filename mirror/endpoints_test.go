package mirror

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// gatewayAt is parisGateway at these addresses, each as "ADDRESS", or
// "ADDRESS dead" or "ADDRESS unasked".
func gatewayAt(texts ...string) *gateway.Gateway {
	gw := parisGateway()
	gw.Addresses = nil
	for _, text := range texts {
		addr, health, _ := strings.Cut(text, " ")
		gw.Addresses = append(gw.Addresses, gateway.Address{
			Addr: mustAddr(addr), Health: map[string]gateway.Health{"": gateway.Ready, "dead": gateway.NotReady, "unasked": gateway.Unprobed}[health],
		})
	}
	return gw
}

// said is what a mirror's objects say of its addresses, as gatewayAt reads it.
func said(objects Objects) (texts []string) {
	all := objects.endpoints()
	for _, addr := range objects.addresses() {
		if !all[mustAddr(addr)] {
			addr += " dead"
		}
		texts = append(texts, addr)
	}
	return texts
}

// TestWhatIsNotKnownIsReadFromWhatIsLive is the rule that lets a restart write nothing.
func TestWhatIsNotKnownIsReadFromWhatIsLive(t *testing.T) {
	live := []string{"192.0.2.1", "192.0.2.2 dead"}
	for _, test := range []struct {
		name    string
		gateway []string
		partial bool
		want    []string
	}{
		{name: "all known", gateway: []string{"192.0.2.1 dead", "192.0.2.2"}, want: []string{"192.0.2.1 dead", "192.0.2.2"}},
		{name: "health unasked", gateway: []string{"192.0.2.1 unasked", "192.0.2.2 unasked"}, want: live},
		{name: "a new one is ready", gateway: []string{"192.0.2.2 unasked", "192.0.2.3 unasked"}, want: []string{"192.0.2.2 dead", "192.0.2.3"}},
		{name: "no hostname resolved", partial: true, want: live},
		{name: "some resolved", gateway: []string{"192.0.2.2", "192.0.2.3"}, partial: true, want: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		{name: "known to have none"},
	} {
		for _, api := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} {
			for _, before := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} { // the flag may have changed
				t.Run(fmt.Sprintf("%s/%s after %s", test.name, api, before), func(t *testing.T) {
					source := parisBar()
					source.Gateway = gatewayAt(live...)
					had, _ := Policy{EndpointsAPI: before}.Desired(source, Objects{Service: stored(mirrorOfBar()).Service}, nil)
					source.Gateway = gatewayAt(test.gateway...)
					source.Gateway.Partial = test.partial
					want, err := Policy{EndpointsAPI: api}.Desired(source, had, nil)
					if got := said(want); err != nil || !slices.Equal(got, test.want) {
						t.Errorf("got %q, %v, want %q", got, err, test.want)
					}
					if usesSlices := want.IPv4 != nil; usesSlices != (api == UseEndpointSlices && len(test.want) > 0) || (want.Endpoints != nil) != (api == UseEndpoints) {
						t.Errorf("got %s", text(want))
					}
				})
			}
		}
	}
}

func TestSlices(t *testing.T) {
	source := parisBar()
	source.Gateway = gatewayAt("192.0.2.1", "192.0.2.2 dead", "2001:db8::1")
	policy := Policy{EndpointsAPI: UseEndpointSlices}
	got, err := policy.Desired(source, Objects{}, nil)
	if err != nil || got.Endpoints != nil {
		t.Fatalf("got %s, %v", text(got), err)
	}
	slice := func(family discoveryv1.AddressType, name string) *discoveryv1.EndpointSlice {
		port := func(name string, number int32) discoveryv1.EndpointPort {
			tcp := corev1.ProtocolTCP
			return discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &tcp}
		}
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{
				"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": "paris",
				"kubernetes.io/service-name": "bar-paris", "endpointslice.kubernetes.io/managed-by": "service-mirror.io",
			}},
			AddressType: family,
			Ports:       []discoveryv1.EndpointPort{port("http", 8080), port("https", 8443)},
		}
	}
	endpoint := func(addr string, ready bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	}
	want4, want6 := slice(discoveryv1.AddressTypeIPv4, "bar-paris-ipv4"), slice(discoveryv1.AddressTypeIPv6, "bar-paris-ipv6")
	want4.Endpoints = []discoveryv1.Endpoint{endpoint("192.0.2.1", true), endpoint("192.0.2.2", false)}
	want6.Endpoints = []discoveryv1.Endpoint{endpoint("2001:db8::1", true)}
	if !equality.Semantic.DeepEqual(got.IPv4, want4) || !equality.Semantic.DeepEqual(got.IPv6, want6) {
		t.Errorf("got\n%s\n%s\nwant\n%s\n%s", text(got.IPv4), text(got.IPv6), text(want4), text(want6))
	}
	only4, _ := policy.Desired(source, Objects{}, []corev1.IPFamily{ipv4})
	if only4.Service = nil; only4.IPv6 != nil || !equality.Semantic.DeepEqual(only4.IPv4, want4) {
		t.Errorf("of an IPv4 mirror: %s", text(only4))
	}
	for _, name := range []string{"bar-paris", "a", "x-ipv4", "x-ipv6"} {
		key := cache.NewObjectName("n", name)
		for _, family := range []discoveryv1.AddressType{discoveryv1.AddressTypeIPv4, discoveryv1.AddressTypeIPv6} {
			if back := sliceKey(cache.NewObjectName("n", sliceName(key, family))); back != key {
				t.Errorf("the slice of %v is taken for one of %v", key, back)
			}
		}
	}
}

func TestLinkerd(t *testing.T) {
	source := parisBar()
	source.Gateway.Linkerd = gateway.Linkerd{Identity: "gateway.paris", Domain: "paris.local"}
	wantAnnotations := map[string]string{
		"mirror.linkerd.io/remote-gateway-identity": "gateway.paris",
		"mirror.linkerd.io/remote-svc-fq-name":      "bar.default.svc.paris.local",
	}
	for _, api := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		policy := Policy{EndpointsAPI: api}
		part := func(o Objects) metav1.Object {
			if api == UseEndpoints {
				return o.Endpoints
			}
			return o.IPv4
		}
		got, _ := policy.Desired(source, Objects{}, nil)
		if obj := part(got); !maps.Equal(obj.GetAnnotations(), wantAnnotations) || obj.GetLabels()["mirror.linkerd.io/cluster-name"] != "paris" {
			t.Errorf("%s: got %s", api, text(obj))
		}
		if svc := got.Service; strings.Contains(text(svc), "linkerd") {
			t.Errorf("the Service: %s", text(svc))
		}
		plain := parisBar()
		after, _ := policy.Desired(plain, got, nil)
		if strings.Contains(text(after), "linkerd") {
			t.Errorf("%s: what stood for a gateway that is Linkerd's no more stays: %s", api, text(after))
		}
		own := part(got)
		own.SetAnnotations(map[string]string{"mirror.linkerd.io/remote-svc-fq-name": "x.y.svc.z", "mirror.linkerd.io/remote-gateway-identity": "i"})
		theirs, _ := policy.Desired(plain, got, nil)
		if obj := part(theirs); obj.GetAnnotations()["mirror.linkerd.io/remote-svc-fq-name"] != "x.y.svc.z" {
			t.Errorf("%s: another's annotations are touched: %s", api, text(obj))
		}
	}
}

var slicesOnly = Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}

const (
	createSlice = "create endpointslices default/bar-paris-ipv4"
	updateSlice = "update endpointslices default/bar-paris-ipv4"
	deleteSlice = "delete endpointslices default/bar-paris-ipv4"
)

// in EndpointSlices a mirror lives as in Endpoints.
func TestMirrorInSlices(t *testing.T) {
	run(t, slicesOnly, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(createSlice, createService)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.7"))
		w.wait(time.Second)
		w.expect(updateSlice)
		w.server.remove("endpointslices", "default", "bar-paris-ipv4")
		w.wait(time.Second)
		w.expect(createSlice)
		slice := w.server.slice("default", "bar-paris-ipv4")
		slice.Endpoints = nil
		slice.Labels["kubernetes.io/service-name"] = "other"
		w.server.put(slice)
		w.wait(time.Second)
		w.expect(updateSlice)
		if got := said(Objects{IPv4: w.server.slice("default", "bar-paris-ipv4")}); !slices.Equal(got, []string{"192.0.2.7"}) {
			w.Errorf("got %q", got)
		}
		w.remotes["paris"].setGateway(gatewayAt())
		w.wait(time.Second)
		w.expect(deleteSlice)
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1"))
		w.wait(time.Second)
		w.expect(createSlice)

		w.stop()
		w.use(slicesOnly, "paris")
		w.settle()
		w.expect()

		w.remotes["paris"].unexport(exportedBar())
		w.wait(time.Second)
		w.expect("delete services default/bar-paris", deleteSlice)
	})
}

func TestStrangersInTheWayOfSlices(t *testing.T) {
	for name, stranger := range map[string]struct {
		object metav1.Object
		told   string
	}{
		"a slice":   {&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris-ipv4"}, AddressType: discoveryv1.AddressTypeIPv4}, sliceTaken},
		"Endpoints": {&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}}, endpointsTaken},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, slicesOnly, paris, func(w *world) {
				w.remotes["paris"].export(exportedBar())
				switch obj := stranger.object.(type) {
				case *discoveryv1.EndpointSlice:
					w.server.put(obj)
				case *corev1.Endpoints:
					w.server.put(obj)
				}
				w.settle()
				w.logged(1, stranger.told)
				for _, write := range w.server.wrote() {
					if write.err == nil {
						w.Errorf("%s", write.what)
					}
				}
				resource := "endpointslices"
				if name == "Endpoints" {
					resource = "endpoints"
				}
				w.server.remove(resource, "default", stranger.object.GetName())
				w.wait(strangerPeriod)
				w.wait(time.Second)
				if w.server.service("default", "bar-paris") == nil || w.server.slice("default", "bar-paris-ipv4") == nil {
					w.Errorf("there is no mirror; log:\n%s", w.log)
				}
			})
		})
	}
}

// That no stranger's Endpoints stand in the way costs a request for each namespace, not
// for each mirror; and it is asked again later.
func TestStrangersAreAskedForTogether(t *testing.T) {
	asked := func(w *world) (n int) {
		for _, action := range w.server.meta.Actions() {
			if action.Matches("list", "endpoints") {
				n++
			}
		}
		return n
	}
	run(t, slicesOnly, paris, func(w *world) {
		for i := range 100 {
			w.remotes["paris"].export(named("default", fmt.Sprintf("svc-%d", i)))
		}
		w.settle()
		if got := len(w.server.wrote()); got != 200 {
			w.Errorf("%d writes", got)
		}
		if got := asked(w); got != 1 {
			w.Errorf("it asked %d times for 100 mirrors", got)
		}
		w.server.put(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}})
		w.wait(strangersPeriod + time.Second)
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		w.logged(1, endpointsTaken)
		if w.server.service("default", "bar-paris") != nil {
			w.Error("a mirror was made over a stranger's Endpoints")
		}
	})
}

// What takes another's place stands before the other goes.
func TestEndpointsAPIIsChanged(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(createEndpoints, createService)
		w.stop()
		w.use(slicesOnly, "paris")
		w.settle()
		if got := w.expect(createSlice, "delete endpoints default/bar-paris"); len(got) == 2 && got[0].what != createSlice {
			w.Error("the Endpoints went first")
		}

		w.stop()
		w.server.setMakesNone(true)
		w.use(Options{}, "paris")
		w.settle()
		w.expect(createEndpoints) // Kubernetes has made no slices of them yet
		made := w.server.slice("default", "bar-paris-ipv4")
		made.Name, made.UID, made.ResourceVersion = "bar-paris-x7w2p", "", ""
		made.Labels["endpointslice.kubernetes.io/managed-by"] = "endpointslicemirroring-controller.k8s.io"
		made.Endpoints[0].Addresses[0] = "192.0.2.77"
		w.server.put(made)
		w.wait(10 * time.Second)
		w.expect() // not of these addresses
		made = w.server.slice("default", "bar-paris-x7w2p")
		made.Endpoints[0].Addresses[0] = "192.0.2.1"
		w.server.put(made)
		w.wait(2 * time.Second)
		w.expect(deleteSlice)
		w.wait(time.Hour)
		w.expect()
	})
}

// A Service with nothing but UDP is mirrored when a port is reserved for it, and
// not taken away while nobody knows.
func TestUDPServiceWithAReservedPort(t *testing.T) {
	dns := exportedBar()
	dns.Spec.Ports = []corev1.ServicePort{{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP}}
	reserving := parisGateway()
	reserving.Ports = append(reserving.Ports, corev1.ServicePort{Name: "x", Port: 15353, Protocol: corev1.ProtocolUDP})
	reserving.Reserved = gateway.Reserved{{Service: cache.NewObjectName("default", "bar"), Port: "53", Protocol: corev1.ProtocolUDP}: 15353}
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(dns)
		w.settle()
		w.expect()
		w.logged(1, "no gateway port is reserved for it")
		w.remotes["paris"].setGateway(reserving)
		w.wait(time.Second)
		w.expect(createEndpoints, createService)
		if got := w.server.endpoints("default", "bar-paris").Subsets[0].Ports[0].Port; got != 15353 {
			w.Errorf("it leads to port %d", got)
		}
		w.remotes["paris"].setGateway(nil)
		w.wait(time.Hour)
		w.expect()
		w.remotes["paris"].setGateway(parisGateway())
		w.wait(time.Second)
		w.expect("delete services default/bar-paris", "delete endpoints default/bar-paris")
	})
}

// Two Services that claim one gateway port are both looked at when one changes.
func TestRivalsForAGatewayPort(t *testing.T) {
	claiming := func(name, annotation string, second int64) *corev1.Service {
		svc := named("default", name)
		svc.Annotations[gateway.PortsAnnotation] = annotation
		svc.CreationTimestamp = metav1.Unix(second, 0)
		svc.Spec.Ports = []corev1.ServicePort{{Name: "db", Port: 5432}}
		return svc
	}
	run(t, Options{}, paris, func(w *world) {
		gw := parisGateway()
		gw.Ports = append(gw.Ports, corev1.ServicePort{Name: "x", Port: 15432})
		w.remotes["paris"].setGateway(gw)
		w.remotes["paris"].export(claiming("a", "5432=15432", 2))
		w.settle()
		served := func(name string, want bool) {
			w.Helper()
			w.wait(time.Second)
			if got := len(w.server.endpoints("default", name+"-paris").Subsets) > 0; got != want {
				w.Errorf("%s is served: %v; log:\n%s", name, got, w.log)
			}
		}
		served("a", true)
		w.remotes["paris"].export(claiming("b", "5432=15432", 1)) // was there before a
		served("a", false)
		served("b", true)
		w.logged(1, "reserved for default/b, which is older and claims it too")
		w.remotes["paris"].export(claiming("b", "", 1))
		served("a", true)
		w.remotes["paris"].export(claiming("b", "5432=15432", 1))
		served("a", false)
		w.remotes["paris"].export(claiming("b", "5432=15432", 3)) // made again, and now younger
		served("a", true)
		w.remotes["paris"].export(claiming("b", "5432=15432", 1))
		served("a", false)
		w.remotes["paris"].unexport(claiming("b", "", 1))
		served("a", true)
	})
}

func TestUnlistedGatewayIsNotObeyed(t *testing.T) {
	bar := exportedBar()
	bar.Annotations[gateway.Annotation] = "other/gateway"
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(bar)
		w.settle()
		w.expect(createEndpoints, createService)
		if got := w.server.endpoints("default", "bar-paris").Subsets; len(got) > 0 {
			w.Errorf("it leads to %s", text(got))
		}
		w.logged(1, "which is not one of the gateways in the flags")
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		w.expect(updateEndpoints)
	})
}

func TestLocalRanges(t *testing.T) {
	const refused = "May not be read"
	run(t, Options{}, paris, func(w *world) {
		w.server.put(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:1::/108"}}})
		w.server.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", PodCIDRs: []string{"10.0.0.0/24"}}})
		w.settle()
		if got := fmt.Sprint(w.controller.LocalRanges()); got != "[10.0.0.0/24 10.96.0.0/16 fd00:1::/108]" {
			w.Errorf("got %s", got)
		}
		before := w.remotes["paris"].refiltered
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.1.0/24"}}}
		w.server.put(node)
		w.wait(time.Second)
		if now := w.remotes["paris"].refiltered; now != before+1 || len(w.controller.LocalRanges()) != 4 {
			w.Errorf("the gateways were looked at %d times: %v", now-before, w.controller.LocalRanges())
		}
		node.Status.Phase = corev1.NodeRunning // a heartbeat is no news
		w.server.put(node)
		w.wait(time.Second)
		if now := w.remotes["paris"].refiltered; now != before+1 {
			w.Errorf("the gateways were looked at %d times", now-before)
		}
		w.logged(0, refused)
	})
}

// Where they may not be read, mirroring goes on, and nobody is asked all the time.
func TestLocalRangesThatMayNotBeRead(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.server.unreadable = map[string]error{
			"nodes":        apierrors.NewForbidden(corev1.Resource("nodes"), "", nil),
			"servicecidrs": apierrors.NewNotFound(networkingv1.Resource("servicecidrs"), ""),
		}
		w.settle()
		w.expect(createEndpoints, createService)
		asked := 0
		w.wait(time.Hour)
		for _, action := range w.server.client.Actions() {
			if action.GetVerb() == "list" && (action.GetResource().Resource == "nodes" || action.GetResource().Resource == "servicecidrs") {
				asked++
			}
		}
		if asked < 4 || asked > 30 {
			w.Errorf("they are asked for %d times in an hour", asked)
		}
	})
}
