package mirror

import (
	"fmt"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
)

var slicesOnly = Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}

const (
	createSlice = "create endpointslices default/bar-paris-ipv4"
	updateSlice = "update endpointslices default/bar-paris-ipv4"
	deleteSlice = "delete endpointslices default/bar-paris-ipv4"
)

// A mirror in EndpointSlices behaves as one in Endpoints.
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

func TestForeignObjectsInTheWayOfSlices(t *testing.T) {
	for name, foreign := range map[string]struct {
		object metav1.Object
		log    string
	}{
		"a slice":   {&discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris-ipv4"}, AddressType: discoveryv1.AddressTypeIPv4}, plan.IPv4Slice.Foreign(cache.NewObjectName("default", "bar-paris"))},
		"Endpoints": {&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}}, plan.Endpoints.Foreign(cache.NewObjectName("default", "bar-paris"))},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, slicesOnly, paris, func(w *world) {
				w.remotes["paris"].export(exportedBar())
				switch obj := foreign.object.(type) {
				case *discoveryv1.EndpointSlice:
					w.server.put(obj)
				case *corev1.Endpoints:
					w.server.put(obj)
				}
				w.settle()
				w.logged(1, foreign.log)
				for _, write := range w.server.wrote() {
					if write.err == nil {
						w.Errorf("%s", write.what)
					}
				}
				resource := "endpointslices"
				if name == "Endpoints" {
					resource = "endpoints"
				}
				w.server.remove(resource, "default", foreign.object.GetName())
				w.wait(foreignPeriod)
				w.wait(time.Second)
				if w.server.service("default", "bar-paris") == nil || w.server.slice("default", "bar-paris-ipv4") == nil {
					w.Errorf("the mirror does not exist; log:\n%s", w.log)
				}
			})
		})
	}
}

// To look for foreign Endpoints costs one request for each namespace, not for each
// mirror; and they are listed again later.
func TestForeignEndpointsAreListedByNamespace(t *testing.T) {
	lists := func(w *world) (n int) {
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
		if got := lists(w); got != 1 {
			w.Errorf("%d lists for 100 mirrors", got)
		}
		w.server.put(&corev1.Endpoints{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris"}})
		w.wait(250*time.Millisecond + time.Second)
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		w.logged(1, plan.Endpoints.Foreign(cache.NewObjectName("default", "bar-paris")))
		if w.server.service("default", "bar-paris") != nil {
			w.Error("a mirror was created over foreign Endpoints")
		}
	})
}

// The new objects exist before the old ones are deleted.
func TestEndpointsAPIIsChanged(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.settle()
		w.expect(createEndpoints, createService)
		w.stop()
		w.use(slicesOnly, "paris")
		w.settle()
		if got := w.expect(createSlice, "delete endpoints default/bar-paris"); len(got) == 2 && got[0].what != createSlice {
			w.Error("the Endpoints were deleted first")
		}

		w.stop()
		w.server.setWithoutSlices(true)
		w.use(Options{}, "paris")
		w.settle()
		w.expect(createEndpoints) // Kubernetes has not created their slices yet
		made := w.server.slice("default", "bar-paris-ipv4")
		made.Name, made.UID, made.ResourceVersion = "bar-paris-x7w2p", "", ""
		made.Labels["endpointslice.kubernetes.io/managed-by"] = "endpointslicemirroring-controller.k8s.io"
		made.Endpoints[0].Addresses[0] = "192.0.2.77"
		w.server.put(made)
		w.wait(9 * time.Second)
		w.expect() // not of these addresses
		w.logged(0, "reason=")
		w.wait(time.Hour)
		w.expect()
		w.logged(1, `"Mirror has a problem" reason="NoEndpointSlices"`)
		w.server.listed()
		w.wait(time.Hour)
		if lists := w.server.listed(); lists < 100 || lists > 130 {
			w.Errorf("%d lists in an hour, want one every 30 s", lists)
		}
		made = w.server.slice("default", "bar-paris-x7w2p")
		made.Endpoints[0].Addresses[0] = "192.0.2.1"
		w.server.put(made)
		w.wait(30 * time.Second)
		w.expect(deleteSlice)
		w.logged(1, `"Mirror no longer has this problem" reason="NoEndpointSlices"`)
		w.wait(time.Hour)
		w.expect()
	})
}

// A Service with only UDP ports is mirrored if a port is reserved for it, and its
// mirror stays while that is not known.
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
			w.Errorf("it routes to port %d", got)
		}
		w.remotes["paris"].setGateway(nil)
		w.wait(time.Hour)
		w.expect()
		w.remotes["paris"].setGateway(parisGateway())
		w.wait(time.Second)
		w.expect("delete services default/bar-paris", "delete endpoints default/bar-paris")
	})
}

// If one of two Services that claim a gateway port changes, both are synced.
func TestTwoServicesClaimOneGatewayPort(t *testing.T) {
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
		w.remotes["paris"].export(claiming("b", "5432=15432", 1)) // older than a
		served("a", false)
		served("b", true)
		w.logged(1, "reserved for default/b, an older Service that also claims it")
		w.remotes["paris"].export(claiming("b", "", 1))
		served("a", true)
		w.remotes["paris"].export(claiming("b", "5432=15432", 1))
		served("a", false)
		w.remotes["paris"].export(claiming("b", "5432=15432", 3)) // recreated, and now younger
		served("a", true)
		w.remotes["paris"].export(claiming("b", "5432=15432", 1))
		served("a", false)
		w.remotes["paris"].unexport(claiming("b", "", 1))
		served("a", true)
	})
}

func TestUnlistedGatewayIsRefused(t *testing.T) {
	bar := exportedBar()
	bar.Annotations[gateway.Annotation] = "other/gateway"
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(bar)
		w.settle()
		w.expect(createEndpoints, createService)
		if got := w.server.endpoints("default", "bar-paris").Subsets; len(got) > 0 {
			w.Errorf("it routes to %s", text(got))
		}
		w.logged(1, "which is not a configured gateway")
		w.remotes["paris"].export(exportedBar())
		w.wait(time.Second)
		w.expect(updateEndpoints)
	})
}

func TestLocalRanges(t *testing.T) {
	const refused = "No permission to read"
	run(t, Options{}, paris, func(w *world) {
		w.server.put(&networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: "kubernetes"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.96.0.0/16", "fd00:1::/108"}}})
		w.server.put(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDR: "10.0.0.0/24", PodCIDRs: []string{"10.0.0.0/24"}}})
		w.settle()
		if got := fmt.Sprint(w.controller.Ranges()); got != "[10.0.0.0/24 10.96.0.0/16 fd00:1::/108]" {
			w.Errorf("got %s", got)
		}
		before := w.remotes["paris"].refiltered
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.1.0/24"}}}
		w.server.put(node)
		w.wait(time.Second)
		if now := w.remotes["paris"].refiltered; now != before+1 || len(w.controller.Ranges()) != 4 {
			w.Errorf("the gateways were filtered %d times: %v", now-before, w.controller.Ranges())
		}
		node.Status.Phase = corev1.NodeRunning // a heartbeat changes nothing
		w.server.put(node)
		w.wait(time.Second)
		if now := w.remotes["paris"].refiltered; now != before+1 {
			w.Errorf("the gateways were filtered %d times", now-before)
		}
		w.logged(0, refused)
	})
}

// If they are forbidden, mirroring goes on, and requests are rare.
func TestForbiddenLocalRanges(t *testing.T) {
	run(t, Options{}, paris, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.server.unreadable = map[string]error{
			"nodes":        apierrors.NewForbidden(corev1.Resource("nodes"), "", nil),
			"servicecidrs": apierrors.NewNotFound(networkingv1.Resource("servicecidrs"), ""),
		}
		w.settle()
		w.expect(createEndpoints, createService)
		requests := 0
		w.wait(time.Hour)
		for _, action := range w.server.client.Actions() {
			if action.GetVerb() == "list" && (action.GetResource().Resource == "nodes" || action.GetResource().Resource == "servicecidrs") {
				requests++
			}
		}
		if requests < 4 || requests > 30 {
			w.Errorf("%d requests in an hour", requests)
		}
	})
}
