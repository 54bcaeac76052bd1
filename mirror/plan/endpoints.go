package plan

import (
	"cmp"
	"fmt"
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

// The kinds. From Endpoints Kubernetes itself makes the EndpointSlices that kube-proxy reads.
const (
	UseEndpoints      EndpointsAPI = "endpoints"
	UseEndpointSlices EndpointsAPI = "endpointslices"
)

// addresses sets the objects that carry the gateway's addresses. While the gateway is unknown, those
// that exist, or were lost, stay as they are, and no slices are created; Endpoints are, which reserve
// the name.
func (p Policy) addresses(b basis, want *Objects) []Problem {
	had := b.had()
	if b.merged != nil {
		had = had.awake()
	}
	want.IPv4, want.IPv6 = b.keepSlice(had.IPv4), b.keepSlice(had.IPv6)
	if had.Endpoints != nil || p.EndpointsAPI != UseEndpointSlices {
		want.Endpoints = b.keepEndpoints(had.Endpoints)
	}
	var problems []Problem
	if b.NoGateway != nil {
		problems = append(problems, b.problem(PortNotServed, b.NoGateway.Error()))
	}
	if b.Gateway == nil {
		if len(had.Endpointed()) == 0 {
			problems = append(problems, b.problem(NoAddress, "the gateway has not been read yet: see the problems of the remote"))
		}
		return problems
	}
	mapping, err := b.Gateway.Map(b.Service, b.Assigned)
	mapping = b.agreeing(mapping)
	b.keepTargets(mapping, had)
	targets := gateway.Targets(mapping)
	if err := gateway.Problems(mapping, err); err != nil {
		problems = append(problems, b.problem(PortNotServed, err.Error()))
	}
	if published := b.Assigned.Published; published != nil && published.Record != nil && !published.Record.Ready {
		problems = append(problems, b.problem(NoReadyEndpoint, "the exported Service has no ready endpoint: check its pods in the remote cluster"))
	}
	if !b.routed(mapping) {
		problems = append(problems, b.problem(NotRouted, fmt.Sprintf("the gateway does not route the host name %s.%s, which clients send: add it to the remote's publisher with --name, --host-template or --caller-namespace",
			b.key.Name, b.key.Namespace)))
	}
	all := b.endpoints(had)
	addrs := inFamilies(all, b.mirrorFamilies())
	switch {
	case b.NoGateway != nil:
	case len(b.Gateway.Ports) == 0:
		problems = append(problems, b.problem(NoAddress, "the gateway does not exist or has no ports: see the problems of the remote"))
	case len(addrs) == 0 && len(targets) > 0:
		problems = append(problems, b.problem(NoAddress, b.noAddress(all)))
	}
	if len(targets) == 0 {
		addrs = nil
	}
	if p.EndpointsAPI == UseEndpointSlices {
		want.Endpoints = nil
		want.IPv4 = b.slice(want.IPv4, discoveryv1.AddressTypeIPv4, targets, addrs)
		want.IPv6 = b.slice(want.IPv6, discoveryv1.AddressTypeIPv6, targets, addrs)
		return problems
	}
	want.IPv4, want.IPv6 = nil, nil
	if subsets := subsetsOf(targets, addrs); !sameSubsets(want.Endpoints.Subsets, subsets) {
		want.Endpoints.Subsets = subsets
	}
	return problems
}

// keepTargets has the ports of which nothing is known stay as the mirror has them, as long as it has the same port.
func (b basis) keepTargets(all []gateway.Mapping, had Objects) {
	live := had.Ports()
	for i, m := range all {
		of := func(port corev1.EndpointPort) bool {
			return port.Name == m.Port.Name && cmp.Or(port.Protocol, corev1.ProtocolTCP) == cmp.Or(m.Port.Protocol, corev1.ProtocolTCP)
		}
		same := func(port corev1.ServicePort) bool { return port.Name == m.Port.Name && port.Port == m.Port.Port }
		if j := slices.IndexFunc(live, of); m.Line == gateway.Undecided && j >= 0 && (had.Service == nil || slices.ContainsFunc(had.Service.Spec.Ports, same)) {
			all[i].Target, all[i].Problem = live[j].Port, nil
		}
	}
}

// Ports are the gateway ports that a mirror has.
func (o Objects) Ports() (ports []corev1.EndpointPort) {
	if o.Endpoints != nil && len(o.Endpoints.Subsets) > 0 {
		return o.Endpoints.Subsets[0].Ports
	}
	slice := cmp.Or(o.IPv4, o.IPv6)
	if slice == nil {
		return nil
	}
	for _, port := range slice.Ports {
		if port.Name != nil && port.Port != nil {
			protocol := cmp.Or(*cmp.Or(port.Protocol, new(corev1.Protocol)), corev1.ProtocolTCP)
			ports = append(ports, corev1.EndpointPort{Name: *port.Name, Port: *port.Port, Protocol: protocol, AppProtocol: port.AppProtocol})
		}
	}
	return ports
}

// had are the objects that carry addresses: live ones and, where these are gone, those that were lost.
func (b basis) had() Objects {
	had := b.live
	if b.tombstone == nil || b.tombstone.Cluster != b.Cluster {
		return had
	}
	for _, k := range addressKinds {
		if lost := b.tombstone.Addresses.Get(k); had.Get(k) == nil && lost != nil {
			had.Set(k, recreated(lost))
		}
	}
	return had
}

// recreated is a copy of an object without what the API server assigned.
func recreated(obj metav1.Object) metav1.Object {
	switch obj := obj.(type) {
	case *corev1.Endpoints:
		return &corev1.Endpoints{ObjectMeta: freshMeta(obj), Subsets: obj.Subsets}
	case *discoveryv1.EndpointSlice:
		return &discoveryv1.EndpointSlice{ObjectMeta: freshMeta(obj), AddressType: obj.AddressType, Endpoints: obj.Endpoints, Ports: obj.Ports}
	}
	return nil
}

func freshMeta(obj metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: obj.GetNamespace(), Name: obj.GetName(), Labels: obj.GetLabels(), Annotations: obj.GetAnnotations()}
}

// mirrorFamilies are the IP families that the mirror has, or will have; none: not known.
func (b basis) mirrorFamilies() []corev1.IPFamily {
	if live := b.live.Service; live != nil && assigned(live) {
		return live.Spec.IPFamilies
	}
	if b.tombstone != nil && len(b.tombstone.Families) > 0 {
		return b.tombstone.Families
	}
	return b.families
}

// unresolved is why there is no address where those that exist are kept.
const unresolved = "the gateway's hostnames have not been resolved yet: see the problems of the remote"

// noAddress says why a mirror has no address, and what to do about it; all are the gateway's.
func (b basis) noAddress(all []endpoint) string {
	families := b.mirrorFamilies()
	switch {
	case len(all) == 0 && b.Gateway.Partial && b.Gateway.Missing == "", slices.ContainsFunc(families, b.Gateway.Lacks):
		return unresolved
	case len(all) > 0:
		return fmt.Sprintf("the gateway has only %s addresses, but Services of the local cluster have only %s: give the gateway an %s address",
			all[0].family(), families[0], families[0])
	}
	if b.Gateway.Refused {
		return "all addresses of the gateway are refused: see the problems of the remote"
	}
	return "the gateway has no address: see the problems of the remote"
}

// endpoint is an address of the gateway as a mirror has it.
type endpoint struct {
	netip.Addr
	ready bool
}

// endpoints are the addresses of the gateway. What is not known of them is taken from what the
// mirror had.
func (b basis) endpoints(had Objects) []endpoint {
	was := had.Endpointed()
	var all []endpoint
	for _, address := range b.Gateway.Addresses {
		ready := address.Health != gateway.NotReady
		if address.Health == gateway.Unprobed {
			if before, ok := was[address.Addr]; ok {
				ready = before
			}
		}
		all = append(all, endpoint{address.Addr, ready})
		delete(was, address.Addr)
	}
	if b.Gateway.Partial {
		for addr, ready := range was {
			if b.Gateway.Keeps(addr) {
				all = append(all, endpoint{addr, ready})
			}
		}
	}
	slices.SortFunc(all, func(a, b endpoint) int { return a.Compare(b.Addr) })
	return all
}

// routed tells that the gateway routes the mirror's host name, as far as the record says, or that no port needs it to.
func (b basis) routed(mapping []gateway.Mapping) bool {
	published, name := b.Assigned.Published, b.key.Name+"."+b.key.Namespace
	return published == nil || published.Record == nil || len(published.Record.Hosts) == 0 ||
		!slices.ContainsFunc(mapping, func(m gateway.Mapping) bool { return m.Target != 0 && !m.Alone }) ||
		slices.ContainsFunc(published.Record.Hosts, func(host string) bool { return host == name || strings.HasPrefix(host, name+".svc") })
}

// Endpointed are the addresses that a mirror has, and which of them are ready.
func (o Objects) Endpointed() map[netip.Addr]bool {
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

// KeptBy tells whether a gateway, of which not all addresses are known, has some of these, for all that is known.
func (o Objects) KeptBy(gw *gateway.Gateway) bool {
	for addr := range o.Endpointed() {
		if gw.Keeps(addr) {
			return true
		}
	}
	return false
}

// Addresses are the same as texts, sorted, for a log.
func (o Objects) Addresses() (texts []string) {
	for addr := range o.Endpointed() {
		texts = append(texts, addr.String())
	}
	slices.Sort(texts)
	return texts
}

func (e endpoint) family() corev1.IPFamily { return gateway.FamilyOf(e.Addr) }

func inFamilies(all []endpoint, families []corev1.IPFamily) []endpoint {
	if len(families) == 0 {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(one endpoint) bool { return !slices.Contains(families, one.family()) })
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

// slice is the EndpointSlice of one family, from the one that exists where one does; nil where there
// is no address of that family.
func (b basis) slice(kept *discoveryv1.EndpointSlice, family discoveryv1.AddressType, targets []corev1.EndpointPort, addrs []endpoint) *discoveryv1.EndpointSlice {
	endpoints, ports := sliceEndpoints(family, addrs), slicePorts(targets)
	if len(endpoints) == 0 {
		return nil
	}
	want := kept
	if want == nil {
		want = &discoveryv1.EndpointSlice{ObjectMeta: b.meta(), AddressType: family}
		want.Name = SliceName(b.sliceKey(), family)
		b.setEndpointsMeta(want)
		b.setSliceMeta(want)
	}
	setContents(want, endpoints, ports)
	return want
}

// sliceEndpoints are the addresses of one family as an EndpointSlice has them. Whether one is ready is always said.
func sliceEndpoints(family discoveryv1.AddressType, addrs []endpoint) (endpoints []discoveryv1.Endpoint) {
	for _, addr := range addrs {
		if addr.Is4() == (family == discoveryv1.AddressTypeIPv4) {
			endpoints = append(endpoints, discoveryv1.Endpoint{
				Addresses:  []string{addr.String()},
				Conditions: discoveryv1.EndpointConditions{Ready: &addr.ready},
			})
		}
	}
	return endpoints
}

// slicePorts are gateway ports as an EndpointSlice has them, by the name of the Service's port, which may be empty
// and is never nil.
func slicePorts(targets []corev1.EndpointPort) (ports []discoveryv1.EndpointPort) {
	for _, target := range targets {
		ports = append(ports, discoveryv1.EndpointPort{
			Name: &target.Name, Port: &target.Port, Protocol: &target.Protocol, AppProtocol: target.AppProtocol,
		})
	}
	return ports
}

// setContents sets what an EndpointSlice has where that differs: the order of a live one stays.
func setContents(slice *discoveryv1.EndpointSlice, endpoints []discoveryv1.Endpoint, ports []discoveryv1.EndpointPort) {
	if !sameSet(slice.Endpoints, endpoints, same) {
		slice.Endpoints = endpoints
	}
	if !sameSet(slice.Ports, ports, same) {
		slice.Ports = ports
	}
}

// keepEndpoints are the Endpoints that exist, or new ones, with the metadata that is ours.
func (b basis) keepEndpoints(live *corev1.Endpoints) *corev1.Endpoints {
	want := live.DeepCopy()
	if want == nil {
		want = &corev1.Endpoints{ObjectMeta: b.meta()}
	}
	b.setEndpointsMeta(want)
	delete(want.Labels, discoveryv1.LabelSkipMirror)
	delete(want.Annotations, leaderElection)
	delete(want.Annotations, RefreshAnnotation)
	return want
}

// keepSlice is the same for an EndpointSlice; nil where there is none.
func (b basis) keepSlice(live *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	want := live.DeepCopy()
	if want != nil {
		b.setEndpointsMeta(want)
		b.setSliceMeta(want)
	}
	return want
}

func (b basis) setSliceMeta(slice *discoveryv1.EndpointSlice) {
	belongTo(slice, b.key.Name)
	b.setPartMeta(slice)
}

// belongTo sets the labels by which a slice that has some is one of a Service.
func belongTo(slice *discoveryv1.EndpointSlice, service string) {
	slice.Labels[discoveryv1.LabelServiceName] = service
	slice.Labels[discoveryv1.LabelManagedBy] = SliceManager
}

// setEndpointsMeta sets the labels and annotations that are ours on Endpoints and EndpointSlices.
func (b basis) setEndpointsMeta(obj metav1.Object) {
	b.setOwner(obj)
	if b.Gateway != nil {
		b.setLinkerd(obj)
	}
}

// What Linkerd's proxies read from a mirror's Endpoints and EndpointSlices. The label
// mirror.linkerd.io/mirrored-service is left off: Linkerd's own tools would delete such mirrors.
const (
	linkerdIdentity = "mirror.linkerd.io/remote-gateway-identity"
	linkerdService  = "mirror.linkerd.io/remote-svc-fq-name"
	linkerdCluster  = "mirror.linkerd.io/cluster-name"
)

// setLinkerd has meshed clients use mTLS towards a gateway that is Linkerd's, and name the Service to
// it. Where it is not, only what was set here is removed again.
func (b basis) setLinkerd(obj metav1.Object) {
	labels, annotations := obj.GetLabels(), maps.Clone(obj.GetAnnotations())
	service := b.name().Name + "." + b.name().Namespace + ".svc."
	if linkerd := b.Gateway.Linkerd; linkerd != (gateway.Linkerd{}) {
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[linkerdIdentity] = linkerd.Identity
		annotations[linkerdService] = service + linkerd.Domain
		labels[linkerdCluster] = b.Cluster
	} else if annotations[linkerdIdentity] != "" && strings.HasPrefix(annotations[linkerdService], service) && labels[linkerdCluster] == b.Cluster {
		delete(annotations, linkerdIdentity)
		delete(annotations, linkerdService)
		delete(labels, linkerdCluster)
	}
	obj.SetAnnotations(annotations)
}

// RefreshAnnotation is set on Endpoints, and removed by the next sync, to have Kubernetes look at them
// again: its controller does at any update.
const RefreshAnnotation = "service-mirror.io/refresh"

// Refreshed is a copy of Endpoints that differs from them by RefreshAnnotation alone.
func Refreshed(endpoints *corev1.Endpoints) *corev1.Endpoints {
	refreshed := endpoints.DeepCopy()
	metav1.SetMetaDataAnnotation(&refreshed.ObjectMeta, RefreshAnnotation, endpoints.ResourceVersion)
	return refreshed
}

// Unmirrored is a copy of Endpoints that Kubernetes makes no EndpointSlices of.
func Unmirrored(endpoints *corev1.Endpoints) *corev1.Endpoints {
	unmirrored := endpoints.DeepCopy()
	metav1.SetMetaDataLabel(&unmirrored.ObjectMeta, discoveryv1.LabelSkipMirror, "true")
	return unmirrored
}

// Mirrored tells whether Kubernetes makes EndpointSlices from Endpoints, as far as these decide it.
func Mirrored(endpoints *corev1.Endpoints) bool {
	_, skip := endpoints.Labels[discoveryv1.LabelSkipMirror]
	_, lock := endpoints.Annotations[leaderElection]
	return !skip && !lock
}
