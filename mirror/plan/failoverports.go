package plan

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway"
)

// failoverPorts are the gateway ports of a local Service's ports, by the latter's names; routed is whether the
// gateway routes the Service's host name, and unserved what of it is not served, if anything.
func failoverPorts(svc *corev1.Service, b basis) (targets []corev1.EndpointPort, routed bool, unserved string) {
	mapping, err := b.Gateway.Map(b.Service, b.Assigned)
	var problems []string
	if err != nil {
		problems = append(problems, err.Error())
	}
	for _, port := range svc.Spec.Ports {
		protocol := cmp.Or(port.Protocol, corev1.ProtocolTCP)
		number := fmt.Sprintf("port %d/%s", port.Port, protocol)
		i := portOf(mapping, port)
		switch {
		case i < 0:
			problems = append(problems, number+": the exported Service has no such port: add it")
		case mapping[i].Target == 0 && mapping[i].Problem != nil:
			problems = append(problems, number+": "+mapping[i].Problem.Error())
		case mapping[i].Target == 0:
			problems = append(problems, number+": the gateway does not exist or has no ports: see the problems of the remote")
		default:
			targets = append(targets, corev1.EndpointPort{Name: port.Name, Port: mapping[i].Target, Protocol: protocol, AppProtocol: port.AppProtocol})
		}
	}
	return targets, b.routed(mapping), strings.Join(problems, "\n")
}

// portOf is the index of the port of an exported Service that replaces a local one's: the one of the same number,
// which clients use, else of the same name; negative: there is none.
func portOf(mapping []gateway.Mapping, port corev1.ServicePort) int {
	protocol := func(p corev1.ServicePort) corev1.Protocol { return cmp.Or(p.Protocol, corev1.ProtocolTCP) }
	if i := slices.IndexFunc(mapping, func(m gateway.Mapping) bool { return m.Port.Port == port.Port && protocol(m.Port) == protocol(port) }); i >= 0 {
		return i
	}
	return slices.IndexFunc(mapping, func(m gateway.Mapping) bool {
		return port.Name != "" && m.Port.Name == port.Name && protocol(m.Port) == protocol(port)
	})
}

// known is how much speaks for an address of a gateway: one that is not probed at all counts as healthy.
func known(h gateway.Health) fitness {
	switch h {
	case gateway.NotReady:
		return unusable
	case gateway.Unprobed:
		return unsure
	}
	return usable
}
