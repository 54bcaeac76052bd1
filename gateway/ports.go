package gateway

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// families are the application protocols that one gateway port can serve
// together, in the words of ServicePort.appProtocol (KEP-3726).
var families = [][]string{
	{"http", "kubernetes.io/ws"},
	{"https", "tls", "kubernetes.io/wss"},
	{"grpc", "h2c", "kubernetes.io/h2c"},
}

// Subsets are the endpoints of a mirror: every address of the gateway, with
// for each exported port the gateway port that serves it. A port that no
// gateway port serves is left out and named in the error; the subsets are
// right all the same. Without addresses there are no subsets. A gateway without
// any port is no gateway: that is for Resolve to say, once.
func (g Gateway) Subsets(exported []corev1.ServicePort) ([]corev1.EndpointSubset, error) {
	if len(g.Ports) == 0 {
		return nil, nil
	}
	var subset corev1.EndpointSubset
	var problems []error
	for _, port := range exported {
		target, err := g.port(port)
		if err != nil {
			problems = append(problems, fmt.Errorf("port %s: %w", describe(port), err))
			continue
		}
		subset.Ports = append(subset.Ports, corev1.EndpointPort{
			Name: port.Name, Port: target, Protocol: protocol(port), AppProtocol: port.AppProtocol,
		})
	}
	for _, addr := range g.Addresses {
		subset.Addresses = append(subset.Addresses, corev1.EndpointAddress{IP: addr.String()})
	}
	if len(subset.Ports) == 0 || len(subset.Addresses) == 0 {
		return nil, join(problems)
	}
	return []corev1.EndpointSubset{subset}, join(problems)
}

// port is the port rule: which port of the gateway serves an exported port.
// Only ports of the same transport protocol count; of several that fit equally
// well the lowest is taken, so that their order does not matter.
func (g Gateway) port(exported corev1.ServicePort) (int32, error) {
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
		n, _ := number(g.Port)
		if port, ok := first(func(p corev1.ServicePort) bool { return p.Name == g.Port || p.Port == n }); ok {
			return port, nil
		}
		return 0, fmt.Errorf("the gateway has no %s port %q: it has %s", protocol(exported), g.Port, g.list())
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
	return 0, fmt.Errorf("no %s port of the gateway fits: it has %s", protocol(exported), g.list())
}

func (g Gateway) list() string {
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

// number reads a port number, 1 to 65535.
func number(text string) (int32, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	return int32(n), err == nil && n > 0
}
