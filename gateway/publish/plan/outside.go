package plan

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Outside is how the listeners of a Gateway are reached from outside of the cluster, where a Service that this program
// is shown is in front of them: a listener on port 8000 may be reached on port 80.
type Outside struct {
	Service cache.ObjectName
	Ports   map[gateway.PortNumber]int32 // of the listeners, to those of the Service
}

// ReadOutside reads the Service in front of a Gateway. Which port of the pods one of its own routes to, its EndpointSlices
// say where it is given by a name; before is what they said before, for while there are no pods. False: it is not known. A
// name that no pod has is not in them, either: that port alone is closed, and its target is 0.
func ReadOutside(svc *corev1.Service, slices []*discoveryv1.EndpointSlice, before map[string]int32) (outside *Outside, targets map[string]int32, known bool) {
	outside, targets = &Outside{Service: cache.MetaObjectToName(svc), Ports: map[gateway.PortNumber]int32{}}, map[string]int32{}
	known = true
	resolved := false // any port of the pods
	for _, slice := range slices {
		resolved = resolved || len(slice.Ports) > 0
		for _, port := range slice.Ports {
			if port.Name != nil && port.Port != nil {
				targets[*port.Name] = *port.Port
			}
		}
	}
	for _, port := range svc.Spec.Ports {
		target := port.TargetPort.IntVal
		if port.TargetPort.Type == intstr.String {
			var found bool
			if target, found = targets[port.Name]; !found {
				target, found = before[port.Name]
			}
			if !found && !resolved {
				known = false
				continue
			}
			if targets[port.Name] = target; target == 0 {
				continue
			}
		} else if target == 0 {
			target = port.Port
		}
		number := gateway.PortNumber{Number: target, Protocol: protocolOf(port)}
		if other, found := outside.Ports[number]; !found || port.Port < other {
			outside.Ports[number] = port.Port
		}
	}
	if !known {
		outside = nil
	}
	return outside, targets, known
}

// outside is the port at which a listener's is reached from outside; 0: at none.
func (g Gateway) outside(port gateway.PortNumber) int32 {
	if g.Outside == nil {
		return port.Number
	}
	return g.Outside.Ports[port]
}

// inside is the port of the listener that is reached at a port from outside; 0: none is, as far as is known.
func (g Gateway) inside(port gateway.PortNumber) int32 {
	switch {
	case !g.Known:
		return 0
	case g.Outside == nil:
		return port.Number
	}
	for inside, outside := range g.Outside.Ports {
		if outside == port.Number && inside.Protocol == port.Protocol {
			return inside.Number
		}
	}
	return 0
}

// closed is why a port of a listener is not reached from outside; empty: it is.
func (g Gateway) closed(port gateway.PortNumber) string {
	if g.outside(port) != 0 {
		return ""
	}
	return fmt.Sprintf("Service %v has no port for port %d/%s of the gateway: add one with that targetPort", g.Outside.Service, port.Number, port.Protocol)
}
