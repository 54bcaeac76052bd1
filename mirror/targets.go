package mirror

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
)

// checkable is one port of a mirror at one address of its gateway, or why there is nothing to dial.
type checkable struct {
	Port   string // of the mirror, for people: http 80/TCP
	Target verify.Target
	None   string // why there is no endpoint; empty: there is one
	// Lasting tells that waiting does not create one.
	Lasting bool
}

// checkables are what clients of a mirror would connect to once the plan is carried out: each port at each
// address. domain is that of the local cluster's names.
func checkables(p plan.Plan, domain string) (all []checkable) {
	if p.Source == nil || p.Desired.Service == nil {
		return nil
	}
	ports, mappings := p.Desired.Ports(), p.Source.Mapping()
	addresses := slices.SortedFunc(maps.Keys(p.Desired.Endpointed()), netip.Addr.Compare)
	for _, port := range p.Desired.Service.Spec.Ports {
		one := checkable{Port: strings.TrimSpace(fmt.Sprintf("%s %d/%s", port.Name, port.Port, port.Protocol))}
		i := slices.IndexFunc(ports, func(target corev1.EndpointPort) bool { return target.Name == port.Name })
		if i < 0 || len(addresses) == 0 {
			one.None, one.Lasting = noEndpoint(p), lasting(p)
			all = append(all, one)
			continue
		}
		for _, address := range addresses {
			one.Target = verify.Target{
				Address: netip.AddrPortFrom(address, uint16(ports[i].Port)), Class: gateway.ClassOf(port),
				Host: plan.MirrorKey(p.Key).Name + "." + p.Key.Namespace + ".svc." + domain, Port: port.Port, Reserved: reserved(port, mappings),
			}
			all = append(all, one)
		}
	}
	return all
}

// targetsOf are what is dialled of them: what has no endpoint is reported by the sync.
func targetsOf(p plan.Plan, domain string) (targets []verify.Target) {
	for _, one := range checkables(p, domain) {
		if one.None == "" {
			targets = append(targets, one.Target)
		}
	}
	return targets
}

// noEndpoint is why a port has no endpoint: what the plan says is wrong.
func noEndpoint(p plan.Plan) string {
	var texts []string
	for _, problem := range p.Problems {
		texts = append(texts, problem.Error())
	}
	return cmp.Or(strings.Join(texts, "; "), "the mirror has no endpoint for the port")
}

// lasting reports whether a plan has problems, and waiting changes none of them.
func lasting(p plan.Plan) bool {
	refused := p.Source != nil && p.Source.Gateway != nil && p.Source.Gateway.Refused
	return len(p.Problems) > 0 && !slices.ContainsFunc(p.Problems, func(problem plan.Problem) bool {
		return !problem.Reason.Lasting() && !(problem.Reason == plan.NoAddress && refused)
	})
}

// reserved tells a port that has a gateway port of its own.
func reserved(port corev1.ServicePort, mappings []gateway.Mapping) bool {
	return slices.ContainsFunc(mappings, func(m gateway.Mapping) bool {
		return m.Port.Port == port.Port && m.Port.Protocol == port.Protocol && m.Alone
	})
}
