package mirror

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
)

// checkable is one port of a mirror at one address of its gateway, or why there is nothing to dial.
type checkable struct {
	Port   string // of the mirror, for people: http 80/TCP
	Target verify.Target
	None   string // why there is no endpoint; empty: there is one
}

// checkables are what clients of a mirror would connect to once the plan is carried out: each port at each
// address. domain is that of the local cluster's names.
func checkables(p plan.Plan, domain string) (all []checkable) {
	if p.Source == nil || p.Desired.Service == nil {
		return nil
	}
	ports := endpointPorts(p.Desired)
	addresses := slices.SortedFunc(maps.Keys(p.Desired.Endpointed()), netip.Addr.Compare)
	for _, port := range p.Desired.Service.Spec.Ports {
		one := checkable{Port: strings.TrimSpace(fmt.Sprintf("%s %d/%s", port.Name, port.Port, port.Protocol))}
		i := slices.IndexFunc(ports, func(target corev1.EndpointPort) bool { return target.Name == port.Name })
		if i < 0 || len(addresses) == 0 {
			one.None = noEndpoint(p)
			all = append(all, one)
			continue
		}
		for _, address := range addresses {
			one.Target = verify.Target{
				Address: netip.AddrPortFrom(address, uint16(ports[i].Port)), Class: classOf(port),
				Host: p.Key.Name + "." + p.Key.Namespace + ".svc." + domain, Port: port.Port, Reserved: reservedFor(*p.Source, port),
			}
			all = append(all, one)
		}
	}
	return all
}

// noEndpoint is why a port has no endpoint: what the plan says is wrong.
func noEndpoint(p plan.Plan) string {
	var texts []string
	for _, problem := range p.Problems {
		texts = append(texts, problem.Error())
	}
	return cmp.Or(strings.Join(texts, "; "), "the mirror has no endpoint for it")
}

// endpointPorts are the gateway ports that a mirror's objects have.
func endpointPorts(o plan.Objects) (ports []corev1.EndpointPort) {
	if o.Endpoints != nil && len(o.Endpoints.Subsets) > 0 {
		return o.Endpoints.Subsets[0].Ports
	}
	slice := o.IPv4
	if slice == nil {
		slice = o.IPv6
	}
	if slice == nil {
		return nil
	}
	for _, port := range slice.Ports {
		if port.Name != nil && port.Port != nil {
			ports = append(ports, corev1.EndpointPort{Name: *port.Name, Port: *port.Port})
		}
	}
	return ports
}

// classOf is what a port of a mirror speaks, as its appProtocol or else its name says.
func classOf(port corev1.ServicePort) verify.Class {
	if port.Protocol == corev1.ProtocolUDP || port.Protocol == corev1.ProtocolSCTP {
		return verify.UDP
	}
	if port.AppProtocol != nil {
		switch strings.ToLower(*port.AppProtocol) {
		case "http", "kubernetes.io/ws":
			return verify.HTTP
		case "https", "tls", "kubernetes.io/wss":
			return verify.HTTPS
		case "grpc", "h2c", "kubernetes.io/h2c":
			return verify.GRPC
		}
		return verify.TCP
	}
	protocol, _, _ := strings.Cut(port.Name, "-")
	switch protocol {
	case "http", "web":
		return verify.HTTP
	case "https", "tls", "websecure":
		return verify.HTTPS
	case "grpc", "h2c":
		return verify.GRPC
	case "tcp":
		return verify.TCP
	}
	if port.Port == 443 || port.Port == 8443 {
		return verify.HTTPS
	}
	return verify.Unknown
}

// reservedFor tells a port that has a gateway port of its own.
func reservedFor(source plan.Candidate, port corev1.ServicePort) bool {
	protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
	reservations, _ := gateway.ParseReservations(source.Service.Annotations[gateway.PortsAnnotation])
	if slices.ContainsFunc(reservations, func(r gateway.Reservation) bool { return r.Port == port.Port && r.Protocol == protocol }) {
		return true
	}
	if source.Gateway == nil {
		return false
	}
	self := cache.MetaObjectToName(source.Service)
	for _, name := range []string{fmt.Sprint(port.Port), port.Name} {
		if _, ok := source.Gateway.Reserved[gateway.ReservedFor{Service: self, Port: name, Protocol: protocol}]; ok {
			return true
		}
	}
	return false
}
