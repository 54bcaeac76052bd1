package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// own gives a port a gateway port of its own: the one given, or else the one that it has, or else a free one.
func (d *decision) own(a *assignment, chosen int32) error {
	protocol := protocolOf(a.port)
	if !d.policy.To(ToGatewayAPI) {
		return errors.New("it needs a gateway port of its own, which an Ingress cannot provide: also use --to gateway-api")
	}
	kind := RoutesOf(gateway.PortNumber{Protocol: protocol})
	if protocol == corev1.ProtocolSCTP {
		return errors.New("Gateway API has no routes for SCTP: exclude the port with the annotation " + gateway.SelectAnnotation)
	}
	if err := errors.Join(d.exists(), d.served(kind), d.setsRead()); err != nil {
		return err
	}
	var err error
	number := gateway.PortNumber{Number: chosen, Protocol: protocol}
	if chosen != 0 {
		if number.Number, err = d.claimed(number); err == nil {
			err = d.addable(number)
		}
	} else {
		number.Number, err = d.choose(a.port, func(port int32) error { return d.free(gateway.PortNumber{Number: port, Protocol: protocol}, kind) })
	}
	if err == nil {
		err = d.take(a, kind, number)
	}
	d.plan.Refused = d.plan.Refused || err != nil
	return err
}

// take gives a port a gateway port of its own. It keeps it even while no listener has it; that it is reached is said
// once one has.
func (d *decision) take(a *assignment, kind Kind, number gateway.PortNumber) error {
	d.allocated = append(d.allocated, Allocation{Port: a.port.Port, Protocol: number.Protocol, Gateway: number.Number})
	if err := d.free(number, kind); err != nil {
		return err
	}
	a.kind, a.listener = kind, d.snapshot.Gateway.ownListener(number)
	if l := d.listenerOn(number); l != nil {
		if a.listener = l.Key(); !d.pending(a, l) {
			a.gateway = number.Number
		}
		return nil
	}
	d.missing(a)
	return nil
}

// missing says that the listener of a port has not been added yet. That is a problem if it could not be.
func (d *decision) missing(a *assignment) {
	to := d.snapshot.Gateway.String()
	set, name, inSet := strings.Cut(a.listener, "/")
	if inSet {
		to = fmt.Sprintf("ListenerSet %s/%s", d.snapshot.Gateway.Sets.Namespace, set)
	} else {
		set, name = "", set
	}
	why, found := d.snapshot.Listeners[set]
	if !found {
		a.problem = fmt.Errorf("listener %s is being added to %s", name, to)
		return
	}
	a.problem = errors.New(why.Message)
	d.problem(why.Reason, fmt.Sprintf("port %s: %s", gateway.ListPorts([]corev1.ServicePort{a.port}), why.Message))
}

// claimed is the port of the listener that the Service's annotation chooses, by its number outside. The error is why
// the Service cannot have it.
func (d *decision) claimed(port gateway.PortNumber) (int32, error) {
	gw := d.snapshot.Gateway
	inside := gw.inside(port)
	if inside == 0 {
		return 0, fmt.Errorf("Service %v has no port %d/%s: add it, or choose another one in the annotation %s", gw.Outside.Service, port.Number, port.Protocol, gateway.PortsAnnotation)
	}
	other := d.holder(gateway.PortNumber{Number: inside, Protocol: port.Protocol})
	if other == (cache.ObjectName{}) { // the age of claims counts only for what is free
		other = d.snapshot.holder(fmt.Sprintf("%d/%s", port.Number, port.Protocol))
	}
	if other != d.snapshot.Key {
		return 0, fmt.Errorf("gateway port %d/%s is allocated to %v: choose another one in the annotation %s", port.Number, port.Protocol, other, gateway.PortsAnnotation)
	}
	return inside, nil
}

// addable refuses a chosen port outside of those that are given: a listener of ours is not added for it.
func (d *decision) addable(port gateway.PortNumber) error {
	gw, l := d.snapshot.Gateway, d.listenerOn(port)
	if !gw.adds() || d.policy.Ports.Contains(port.Number) || l != nil && !l.Own() {
		return nil
	}
	return fmt.Errorf("%v has no listener on port %d/%s, and none is added outside of --ports %v: add it, or choose another one in the annotation %s", gw, port.Number, port.Protocol, d.policy.Ports, gateway.PortsAnnotation)
}

// choose is the gateway port that a port has or had or, if that may not be had any more, the lowest that is free.
func (d *decision) choose(port corev1.ServicePort, free func(int32) error) (int32, error) {
	for _, had := range d.previous {
		if had.of(port) && d.has(had) && (d.policy.Ports.Contains(had.Gateway) || free(had.Gateway) == nil) {
			return had.Gateway, nil
		}
	}
	protocol := protocolOf(port)
	taken := 0
	for n := d.policy.Ports.First; n <= d.policy.Ports.Last; n++ {
		number := gateway.PortNumber{Number: n, Protocol: protocol}
		switch {
		case d.holder(number) != (cache.ObjectName{}) || d.uses(number, 0):
			taken++
		case free(n) == nil:
			return n, nil
		}
	}
	gw, ports := d.snapshot.Gateway, d.policy.Ports
	count := int(ports.Last-ports.First) + 1
	switch {
	case taken == count:
		return 0, fmt.Errorf("all ports of --ports %v are allocated or were released less than an hour ago: set a larger range", ports)
	case gw.Outside != nil:
		return 0, fmt.Errorf("%v and Service %v have no free %s port of --ports %v: add a listener to the former, and a port with the targetPort of the listener to the latter", gw, gw.Outside.Service, protocol, ports)
	case gw.Sets.Used || gw.Managed && d.room(gateway.PortNumber{}):
		return 0, fmt.Errorf("%v has other listeners on all free ports of --ports %v: set a larger range", gw, ports)
	case gw.Managed:
		return 0, d.full()
	}
	return 0, fmt.Errorf("%v has no free %s listener on a port of --ports %v: add one such as {name: %s-%d, protocol: %[2]s, port: %[5]d, allowedRoutes: {namespaces: {from: All}}}, or %s",
		gw, protocol, ports, strings.ToLower(string(protocol)), d.firstUnheld(protocol), gw.offer())
}

// firstUnheld is the lowest port of the range that nothing has.
func (d *decision) firstUnheld(protocol corev1.Protocol) int32 {
	for n := d.policy.Ports.First; n <= d.policy.Ports.Last; n++ {
		number := gateway.PortNumber{Number: n, Protocol: protocol}
		if d.holder(number) == (cache.ObjectName{}) && !d.uses(number, 0) && d.listenerOn(number) == nil {
			return n
		}
	}
	return d.policy.Ports.First
}

// has tells whether a gateway port that the Service had is still its own.
func (d *decision) has(a Allocation) bool {
	holder := d.holder(a.Number())
	return (holder == d.snapshot.Key || holder == cache.ObjectName{}) && !d.uses(a.Number(), a.Port)
}

// uses tells whether a port of the Service other than one, if it is given, has a gateway port already, or will claim it.
func (d *decision) uses(port gateway.PortNumber, one int32) bool {
	return slices.ContainsFunc(d.allocated, func(a Allocation) bool { return a.Number() == port }) ||
		slices.ContainsFunc(d.reservations, func(r gateway.Reservation) bool {
			return r.Port != one && r.Protocol == port.Protocol && d.snapshot.Gateway.inside(gateway.PortNumber{Number: r.Gateway, Protocol: r.Protocol}) == port.Number
		})
}

// listenerOn is the listener of the Gateway, or of a ListenerSet for it, that has a port.
func (d *decision) listenerOn(port gateway.PortNumber) *Listener {
	for i := range d.snapshot.Gateway.Listeners {
		if l := &d.snapshot.Gateway.Listeners[i]; l.number() == port {
			return l
		}
	}
	return nil
}

// free is why a route of the Service cannot have a gateway port: no listener has it, or one that does not admit it.
func (d *decision) free(port gateway.PortNumber, kind Kind) error {
	gw := d.snapshot.Gateway
	l := d.listenerOn(port)
	switch {
	case gw.closed(port) != "":
		return errors.New(gw.closed(port))
	case l == nil && gw.foreignSet(port) != nil:
		return gw.foreignSet(port)
	case l == nil && (gw.Sets.Used || gw.Managed && d.room(port)):
		return nil
	case l == nil && gw.Managed:
		return d.full()
	case l == nil:
		return fmt.Errorf("%v has no listener on port %d/%s: add one with protocol %[3]s and allowedRoutes.namespaces.from All, or %s", gw, port.Number, port.Protocol, gw.offer())
	case l.Foreign:
		return fmt.Errorf("port %d/%s is in use by %s, which is not managed by service-mirror: remove it, or choose another port in the annotation %s", port.Number, port.Protocol, gw.describe(*l), gateway.PortsAnnotation)
	case l.Protocol != string(port.Protocol):
		return fmt.Errorf("%s, on port %d, is of protocol %s, not %s: change it", gw.describe(*l), port.Number, l.Protocol, port.Protocol)
	}
	if why := l.admits(kind, d.snapshot); why != "" {
		return fmt.Errorf("%s: %s", gw.describe(*l), why)
	}
	return nil
}

// room tells whether a managed Gateway has, or can have, a listener of ours for a port, besides those that are promised.
func (d *decision) room(port gateway.PortNumber) bool {
	gw := d.snapshot.Gateway
	ports := gw.needed(d.promised())
	i := slices.Index(ports, port)
	if i < 0 {
		i = len(ports)
	}
	return i < gw.capacity()
}

// promised are the gateway ports that all Services have.
func (d *decision) promised() []gateway.PortNumber {
	var ports []gateway.PortNumber
	if d.snapshot.Promised != nil {
		ports = d.snapshot.Promised()
	}
	for _, a := range d.allocated {
		ports = append(ports, a.Number())
	}
	return ports
}

func (d *decision) full() error {
	gw := d.snapshot.Gateway
	return fmt.Errorf("%v has %d listeners, the maximum, or reserves them for other Services: remove some, or publish through another Gateway", gw, maxListeners)
}
