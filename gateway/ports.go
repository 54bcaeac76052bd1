package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// families are the application protocols that one gateway port can serve
// together, in the words of ServicePort.appProtocol (KEP-3726).
var families = [][]string{
	{"http", "kubernetes.io/ws"},
	{"https", "tls", "kubernetes.io/wss"},
	{"grpc", "h2c", "kubernetes.io/h2c"},
}

// Targets are the ports of a mirror's endpoints: for each port of the exported
// Service the gateway port that serves it. A port that none serves is left out
// and named in the error; the others can be used all the same. Of a gateway without
// any port there is no error: Read reports that once.
//
// holder returns which exported Service has a gateway port, of those that claim it with an
// annotation; nil: this one.
func (g *Gateway) Targets(exported *corev1.Service, holder func(claim string) cache.ObjectName) ([]corev1.EndpointPort, error) {
	if len(g.Ports) == 0 {
		return nil, nil
	}
	_, err := ParseReservations(exported.Annotations[PortsAnnotation])
	problems := []error{err}
	var targets []corev1.EndpointPort
	for _, port := range exported.Spec.Ports {
		target, reserved, err := g.reserved(exported, port, holder)
		if !reserved {
			target, err = g.port(port)
		}
		if err == nil {
			err = g.portError(PortNumber{target, protocol(port)})
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("port %s: %w", describe(port), err))
			continue
		}
		targets = append(targets, corev1.EndpointPort{
			Name: port.Name, Port: target, Protocol: protocol(port), AppProtocol: port.AppProtocol,
		})
	}
	return targets, join(slices.DeleteFunc(problems, func(err error) bool { return err == nil }))
}

// Reserves reports whether a gateway port is reserved for any port of an exported
// Service: then the Service is mirrored even without a TCP port.
func (g *Gateway) Reserves(exported *corev1.Service) bool {
	return slices.ContainsFunc(exported.Spec.Ports, func(port corev1.ServicePort) bool {
		_, reserved, _ := g.reserved(exported, port, nil)
		return reserved
	})
}

// port is the rest of the port rule, for a port that has none reserved: by the
// operator's choice, by name, by application protocol, by number, or the only one.
// Only ports of the same transport protocol count. Of several that fit alike the
// lowest is used, so that their order does not matter.
func (g *Gateway) port(exported corev1.ServicePort) (int32, error) {
	var candidates []corev1.ServicePort
	for _, port := range g.Ports {
		if protocol(port) == protocol(exported) {
			candidates = append(candidates, port)
		}
	}
	slices.SortFunc(candidates, func(a, b corev1.ServicePort) int { return cmp.Compare(a.Port, b.Port) })
	first := func(fits func(corev1.ServicePort) bool) (int32, bool) {
		if i := slices.IndexFunc(candidates, fits); i >= 0 {
			return candidates[i].Port, true
		}
		return 0, false
	}
	if g.Port != "" {
		n, numeric := number(g.Port)
		if port, ok := first(func(p corev1.ServicePort) bool { return p.Name == g.Port || numeric && p.Port == n }); ok {
			return port, nil
		}
		return 0, fmt.Errorf("the gateway has no %s port %q: it has %s: set gateway-port to one that it has", protocol(exported), g.Port, g.list())
	}
	wanted := family(exported)
	for _, fits := range []func(corev1.ServicePort) bool{
		func(p corev1.ServicePort) bool { return exported.Name != "" && p.Name == exported.Name },
		func(p corev1.ServicePort) bool { return wanted >= 0 && family(p) == wanted },
		func(p corev1.ServicePort) bool { return p.Port == exported.Port },
		func(corev1.ServicePort) bool { return len(candidates) == 1 },
	} {
		if port, ok := first(fits); ok {
			return port, nil
		}
	}
	return 0, fmt.Errorf("no %s port of the gateway fits: it has %s: set gateway-port, or reserve a gateway port with the annotation %s", protocol(exported), g.list(), PortsAnnotation)
}

// PortNumber is a port of a gateway.
type PortNumber struct {
	Number   int32
	Protocol corev1.Protocol
}

func (p PortNumber) compare(other PortNumber) int {
	return cmp.Or(cmp.Compare(p.Number, other.Number), cmp.Compare(p.Protocol, other.Protocol))
}

// unserved are the ports of a gateway Service that its load balancer reports an
// error for (status.loadBalancer.ingress[].ports[].error, KEP-1435), with that error
// and where it is. The addresses of a mirror serve all of its ports alike, so a port
// that fails at one address of several counts as failed: a mirror must not send a
// share of its connections to where they fail. Entries without an address do not count.
func unserved(svc *corev1.Service) map[PortNumber]string {
	var all map[PortNumber]string
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		at := cmp.Or(ingress.IP, ingress.Hostname)
		if at == "" {
			continue
		}
		for _, status := range ingress.Ports {
			if status.Error == nil || *status.Error == "" {
				continue
			}
			port := PortNumber{status.Port, cmp.Or(status.Protocol, corev1.ProtocolTCP)}
			reason := fmt.Sprintf("%.100q at %.253s", *status.Error, at)
			if first, ok := all[port]; ok && first <= reason || !hasPort(svc.Spec.Ports, port) {
				continue // whatever the order of the entries, the reason is the same
			}
			if all == nil {
				all = map[PortNumber]string{}
			}
			all[port] = reason
		}
	}
	return all
}

func hasPort(ports []corev1.ServicePort, want PortNumber) bool {
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.Port == want.Number && protocol(p) == want.Protocol })
}

// portError is why a port of the gateway is not served, nil where it is.
func (g *Gateway) portError(port PortNumber) error {
	if reason, ok := g.Unserved[port]; ok {
		return fmt.Errorf("gateway port %d/%s is not served: its load balancer reports the error %s: fix the load balancer of the gateway Service", port.Number, port.Protocol, reason)
	}
	return nil
}

func (g *Gateway) portErrors() (all []error) {
	for _, port := range slices.SortedFunc(maps.Keys(g.Unserved), PortNumber.compare) {
		all = append(all, g.portError(port))
	}
	return all
}

func (g *Gateway) list() string {
	var ports []string
	for _, port := range g.Ports {
		ports = append(ports, describe(port))
		if len(ports) == 10 {
			ports = append(ports, "…")
			break
		}
	}
	if len(ports) == 0 {
		return "none"
	}
	return strings.Join(ports, ", ")
}

func describe(port corev1.ServicePort) string {
	text := fmt.Sprintf("%d/%s", port.Port, protocol(port))
	if port.Name != "" {
		text = fmt.Sprintf("%s (%s)", port.Name, text)
	}
	return text
}

// protocol applies the API's default: TCP.
func protocol(port corev1.ServicePort) corev1.Protocol {
	return cmp.Or(port.Protocol, corev1.ProtocolTCP)
}

// family is the index of the port's family, -1 where it has none.
func family(port corev1.ServicePort) int {
	if port.AppProtocol == nil {
		return -1
	}
	return slices.IndexFunc(families, func(members []string) bool { return slices.Contains(members, *port.AppProtocol) })
}

// ValidatePort checks the name or number of a gateway port.
func ValidatePort(text string) error {
	if _, numeric := number(text); numeric || len(validation.IsValidPortName(text)) == 0 {
		return nil
	}
	return fmt.Errorf("gateway-port %.70q is neither a port's name nor a number from 1 to 65535", text)
}

// number parses a port number, 1 to 65535, in its canonical form: two spellings of
// one number would be two ports.
func number(text string) (int32, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, false
	}
	return int32(n), true
}
