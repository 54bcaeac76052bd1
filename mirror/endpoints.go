package mirror

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

// EndpointsAPI is the kind of object that carries a mirror's addresses.
type EndpointsAPI string

// The kinds. Of Endpoints Kubernetes itself makes the EndpointSlices that
// kube-proxy reads.
const (
	UseEndpoints      EndpointsAPI = "endpoints"
	UseEndpointSlices EndpointsAPI = "endpointslices"
)

// sliceManager is who our EndpointSlices say that they are managed by.
const sliceManager = "service-mirror.io"

// setEndpoints fills in what leads from a mirror to the gateway, families being
// those that the mirror has. What is not there already is not made while the
// gateway is unknown, and what is stays: but for Endpoints, which hold the name.
func (p Policy) setEndpoints(src Source, live Objects, families []corev1.IPFamily, want *Objects) error {
	want.IPv4, want.IPv6 = src.keepSlice(live.IPv4), src.keepSlice(live.IPv6)
	if live.Endpoints != nil || p.EndpointsAPI != UseEndpointSlices {
		want.Endpoints = src.keepEndpoints(live.Endpoints)
	}
	if src.Gateway == nil {
		return nil
	}
	targets, err := src.Gateway.Targets(src.Service, src.Holder)
	addrs := inFamilies(src.endpoints(live), families)
	if len(targets) == 0 {
		addrs = nil
	}
	if p.EndpointsAPI == UseEndpointSlices {
		want.Endpoints = nil
		want.IPv4 = src.slice(want.IPv4, discoveryv1.AddressTypeIPv4, targets, addrs)
		want.IPv6 = src.slice(want.IPv6, discoveryv1.AddressTypeIPv6, targets, addrs)
		return err
	}
	want.IPv4, want.IPv6 = nil, nil
	if subsets := subsetsOf(targets, addrs); !sameSubsets(want.Endpoints.Subsets, subsets) {
		want.Endpoints.Subsets = subsets
	}
	return err
}

// endpoint is an address of the gateway as a mirror has it.
type endpoint struct {
	netip.Addr
	ready bool
}

// endpoints are the addresses of the gateway, with what is not known of them
// taken from what is live.
func (s Source) endpoints(live Objects) []endpoint {
	was := live.endpoints()
	var all []endpoint
	for _, address := range s.Gateway.Addresses {
		ready := address.Health != gateway.NotReady
		if address.Health == gateway.Unprobed {
			if before, ok := was[address.Addr]; ok {
				ready = before
			}
		}
		all = append(all, endpoint{address.Addr, ready})
		delete(was, address.Addr)
	}
	if s.Gateway.Partial {
		for addr, ready := range was {
			if s.Gateway.Keeps(addr) {
				all = append(all, endpoint{addr, ready})
			}
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int { return a.Compare(b.Addr) })
	return all
}

// endpoints are the addresses that a mirror has, and which of them are ready.
func (o Objects) endpoints() map[netip.Addr]bool {
	all := map[netip.Addr]bool{}
	add := func(text string, ready bool) {
		if addr, err := netip.ParseAddr(text); err == nil {
			all[addr.Unmap()] = ready
		}
	}
	if o.Endpoints != nil {
		for _, subset := range o.Endpoints.Subsets {
			for _, address := range subset.Addresses {
				add(address.IP, true)
			}
			for _, address := range subset.NotReadyAddresses {
				add(address.IP, false)
			}
		}
	}
	for _, slice := range []*discoveryv1.EndpointSlice{o.IPv4, o.IPv6} {
		if slice == nil {
			continue
		}
		for _, endpoint := range slice.Endpoints {
			for _, text := range endpoint.Addresses {
				add(text, endpoint.Conditions.Ready == nil || *endpoint.Conditions.Ready)
			}
		}
	}
	return all
}

// addresses are the same as texts, sorted, for a log.
func (o Objects) addresses() (texts []string) {
	for addr := range o.endpoints() {
		texts = append(texts, addr.String())
	}
	slices.Sort(texts)
	return texts
}

func inFamilies(all []endpoint, families []corev1.IPFamily) []endpoint {
	if len(families) == 0 {
		return all
	}
	var out []endpoint
	for _, one := range all {
		family := corev1.IPv6Protocol
		if one.Is4() {
			family = corev1.IPv4Protocol
		}
		if slices.Contains(families, family) {
			out = append(out, one)
		}
	}
	return out
}

func subsetsOf(targets []corev1.EndpointPort, addrs []endpoint) []corev1.EndpointSubset {
	if len(addrs) == 0 {
		return nil
	}
	subset := corev1.EndpointSubset{Ports: targets}
	for _, addr := range addrs {
		address := corev1.EndpointAddress{IP: addr.String()}
		if addr.ready {
			subset.Addresses = append(subset.Addresses, address)
		} else {
			subset.NotReadyAddresses = append(subset.NotReadyAddresses, address)
		}
	}
	return []corev1.EndpointSubset{subset}
}

// slice is the EndpointSlice of one family, made from the live one where there
// is one; nil where there is no address of that family.
func (s Source) slice(kept *discoveryv1.EndpointSlice, family discoveryv1.AddressType, targets []corev1.EndpointPort, addrs []endpoint) *discoveryv1.EndpointSlice {
	var endpoints []discoveryv1.Endpoint
	for _, addr := range addrs {
		if addr.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			endpoints = append(endpoints, discoveryv1.Endpoint{
				Addresses:  []string{addr.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &addr.ready},
			})
		}
	}
	if len(endpoints) == 0 {
		return nil
	}
	var ports []discoveryv1.EndpointPort
	for _, target := range targets {
		ports = append(ports, discoveryv1.EndpointPort{
			Name: &target.Name, Port: &target.Port, Protocol: &target.Protocol, AppProtocol: target.AppProtocol,
		})
	}
	want := kept
	if want == nil {
		want = &discoveryv1.EndpointSlice{ObjectMeta: s.meta(), AddressType: family}
		want.Name = sliceName(s.key(), family)
		s.setEndpointsMeta(want)
		s.setSliceMeta(want)
	}
	if !sameSet(want.Endpoints, endpoints, same) {
		want.Endpoints = endpoints
	}
	if !sameSet(want.Ports, ports, same) {
		want.Ports = ports
	}
	return want
}

// keepEndpoints are the live Endpoints, or new ones, with what is ours of their
// metadata.
func (s Source) keepEndpoints(live *corev1.Endpoints) *corev1.Endpoints {
	want := live.DeepCopy()
	if want == nil {
		want = &corev1.Endpoints{ObjectMeta: s.meta()}
	}
	s.setEndpointsMeta(want)
	delete(want.Labels, discoveryv1.LabelSkipMirror)
	delete(want.Annotations, leaderElection)
	return want
}

// keepSlice is the same of an EndpointSlice, nil where there is none.
func (s Source) keepSlice(live *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	want := live.DeepCopy()
	if want != nil {
		s.setEndpointsMeta(want)
		s.setSliceMeta(want)
	}
	return want
}

func (s Source) setSliceMeta(slice *discoveryv1.EndpointSlice) {
	slice.Labels[discoveryv1.LabelServiceName] = s.key().Name
	slice.Labels[discoveryv1.LabelManagedBy] = sliceManager
}

// setEndpointsMeta sets what is ours of the labels and annotations of Endpoints
// and EndpointSlices.
func (s Source) setEndpointsMeta(obj metav1.Object) {
	setOwner(s, obj)
	for _, label := range stopTraffic {
		delete(obj.GetLabels(), label)
	}
	if s.Gateway != nil {
		s.setLinkerd(obj)
	}
}

// What Linkerd's proxies read of a mirror's Endpoints and EndpointSlices. The
// label mirror.linkerd.io/mirrored-service is left off: by it Linkerd's own
// tools would take mirrors for theirs.
const (
	linkerdIdentity = "mirror.linkerd.io/remote-gateway-identity"
	linkerdService  = "mirror.linkerd.io/remote-svc-fq-name"
	linkerdCluster  = "mirror.linkerd.io/cluster-name"
)

// setLinkerd has meshed clients use mTLS towards a gateway that is Linkerd's,
// and name the Service to it. Where it is not, nothing of Linkerd's is touched
// but what stands there as it was set here.
func (s Source) setLinkerd(obj metav1.Object) {
	labels, annotations := obj.GetLabels(), maps.Clone(obj.GetAnnotations())
	service := s.name().Name + "." + s.name().Namespace + ".svc."
	if linkerd := s.Gateway.Linkerd; linkerd != (gateway.Linkerd{}) {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[linkerdIdentity] = linkerd.Identity
		annotations[linkerdService] = service + linkerd.Domain
		labels[linkerdCluster] = s.Cluster
	} else if annotations[linkerdIdentity] != "" && strings.HasPrefix(annotations[linkerdService], service) && labels[linkerdCluster] == s.Cluster {
		delete(annotations, linkerdIdentity)
		delete(annotations, linkerdService)
		delete(labels, linkerdCluster)
	}
	obj.SetAnnotations(annotations)
}
