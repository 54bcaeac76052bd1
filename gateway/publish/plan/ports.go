package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// ReleasedFor is how long a gateway port that a Service had is given to no other: clients may still connect to it.
const ReleasedFor = time.Hour

// PortRange is a range of gateway ports, both ends included.
type PortRange struct{ First, Last int32 }

// ParsePortRange reads FIRST-LAST.
func ParsePortRange(text string) (PortRange, error) {
	first, last, _ := strings.Cut(text, "-")
	var r PortRange
	for text, into := range map[string]*int32{first: &r.First, last: &r.Last} {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || len(validation.IsValidPortNum(int(n))) > 0 {
			return PortRange{}, fmt.Errorf("%.40q is not a range of ports: give one as 15000-15999", first+"-"+last)
		}
		*into = int32(n)
	}
	if r.First > r.Last {
		return PortRange{}, fmt.Errorf("%v ends before it begins: exchange the two", r)
	}
	return r, nil
}

// String is the range as the flag has it.
func (r PortRange) String() string { return fmt.Sprintf("%d-%d", r.First, r.Last) }

// Contains tells whether a port is in the range.
func (r PortRange) Contains(port int32) bool { return r.First <= port && port <= r.Last }

// Allocation is a gateway port that is one Service's alone.
type Allocation struct {
	Port     int32           `json:"port"` // of the Service
	Protocol corev1.Protocol `json:"protocol"`
	Gateway  int32           `json:"gateway"`
	// Released is when the Service stopped to need it; zero: it does.
	Released time.Time `json:"released,omitzero"`
}

// Number is the allocated port of the gateway.
func (a Allocation) Number() gateway.PortNumber {
	return gateway.PortNumber{Number: a.Gateway, Protocol: a.Protocol}
}

func (a Allocation) of(port corev1.ServicePort) bool {
	return a.Port == port.Port && a.Protocol == protocolOf(port)
}

func protocolOf(port corev1.ServicePort) corev1.Protocol {
	return cmp.Or(port.Protocol, corev1.ProtocolTCP)
}

// Ledger has the gateway ports that are one Service's alone, of all exported Services.
type Ledger struct {
	holders map[gateway.PortNumber]cache.ObjectName
	of      map[cache.ObjectName][]Allocation
}

// Set notes all that one Service has. Where two have one port, as by an edit of a record, the first keeps it.
func (l *Ledger) Set(service cache.ObjectName, all []Allocation) {
	if l.holders == nil {
		l.holders, l.of = map[gateway.PortNumber]cache.ObjectName{}, map[cache.ObjectName][]Allocation{}
	}
	for _, a := range l.of[service] {
		if l.holders[a.Number()] == service {
			delete(l.holders, a.Number())
		}
	}
	delete(l.of, service)
	if len(all) > 0 {
		l.of[service] = slices.Clone(all)
	}
	for _, a := range all {
		if _, held := l.holders[a.Number()]; !held {
			l.holders[a.Number()] = service
		}
	}
}

// Holder is the Service that has a gateway port; zero: none.
func (l *Ledger) Holder(port gateway.PortNumber) cache.ObjectName { return l.holders[port] }

// Knows tells whether anything is noted of a Service.
func (l *Ledger) Knows(service cache.ObjectName) bool { return len(l.of[service]) > 0 }

// Active are the gateway ports that are in use.
func (l *Ledger) Active() (ports []gateway.PortNumber) {
	for _, all := range l.of {
		for _, a := range all {
			if a.Released.IsZero() {
				ports = append(ports, a.Number())
			}
		}
	}
	return ports
}

// assignment is how one port of an exported Service is reached.
type assignment struct {
	port     corev1.ServicePort
	class    gateway.Class
	kind     Kind   // of the route that serves it; empty: none
	listener string // that the route attaches to
	gateway  int32  // the gateway's port; 0: none
	shared   bool
	problem  error
}

// assign says how each port of the Service is reached. Of the ports that are routed by the name in a request, one of
// HTTP and one of TLS can share the gateway's ports with other Services; the others need ports of their own.
func (d *decision) assign() {
	main, tls := d.sharing()
	for i, port := range d.ports {
		a := assignment{port: port, class: gateway.ClassOf(port)}
		var problems []error
		if reserved, ok := d.reserved(port); ok {
			problems = append(problems, d.own(&a, reserved))
		} else {
			for _, target := range d.policy.Targets {
				err := d.through(target, &a, i == main, i == tls)
				problems = append(problems, err)
				if err == nil {
					break
				}
			}
		}
		if a.gateway == 0 {
			a.problem = errors.Join(problems...)
		}
		d.assigned = append(d.assigned, a)
	}
	d.endTLS(main)
}

// sharing are the ports that share the gateway's: the first of class http, else of grpc, else of which nothing is
// known; and the first of class https. -1: none. One whose gateway port the annotation chooses needs to share none.
func (d *decision) sharing() (main, tls int) {
	first := func(class gateway.Class) int {
		return slices.IndexFunc(d.ports, func(port corev1.ServicePort) bool {
			_, reserved := d.reserved(port)
			return gateway.ClassOf(port) == class && !reserved
		})
	}
	main = -1
	for _, class := range []gateway.Class{gateway.HTTP, gateway.GRPC, gateway.Unknown} {
		if main < 0 {
			main = first(class)
		}
	}
	return main, first(gateway.HTTPS)
}

// reserved is the gateway port that the Service's annotation chooses for a port.
func (d *decision) reserved(port corev1.ServicePort) (int32, bool) {
	for _, r := range d.reservations {
		if r.Port == port.Port && r.Protocol == protocolOf(port) {
			return r.Gateway, true
		}
	}
	return 0, false
}

// through assigns a port by one target. The error says why that does not serve it.
func (d *decision) through(target Target, a *assignment, main, tls bool) error {
	if target == ToIngress {
		return d.throughIngress(a, main)
	}
	switch {
	case main && a.class == gateway.GRPC && !speaksH2C(a.port):
		if d.own(a, 0) != nil {
			return errors.New("a gateway would speak HTTP/1.1 to it: set its appProtocol to kubernetes.io/h2c")
		}
		return nil
	case main:
		return d.share(a, wanted{kind: HTTPRoute, what: "HTTP", protocol: "HTTP", usual: 80, add: "add one with protocol HTTP"})
	case tls:
		err := d.share(a, passthrough)
		if err != nil && d.own(a, 0) != nil {
			return err
		}
		return nil
	}
	return d.own(a, 0)
}

var passthrough = wanted{kind: TLSRoute, what: "TLS passthrough", protocol: "TLS", usual: 443,
	fits: func(l Listener) bool { return l.Passthrough }, add: "add one with protocol TLS and tls.mode Passthrough"}

var terminating = wanted{kind: HTTPRoute, what: "HTTPS", protocol: "HTTPS", usual: 443,
	fits: func(l Listener) bool { return !l.Passthrough }, add: "add one with protocol HTTPS and a certificate"}

// speaksH2C tells a port to which gateways speak HTTP/2 (KEP-3726); they do not go by its name.
func speaksH2C(port corev1.ServicePort) bool {
	return port.AppProtocol != nil && *port.AppProtocol == "kubernetes.io/h2c"
}

// share assigns a listener that other Services share.
func (d *decision) share(a *assignment, w wanted) error {
	if err := d.served(w.kind); err != nil {
		return err
	}
	if len(d.hosts) == 0 {
		return errors.New("no name is routed to the Service")
	}
	l, err := d.snapshot.listener(w, d.hosts)
	if err != nil {
		return err
	}
	a.kind, a.listener, a.gateway, a.shared = w.kind, l.Name, l.Port, true
	return nil
}

// served refuses a kind that the API server does not have.
func (d *decision) served(kind Kind) error {
	if served := d.snapshot.Served[kind]; served.Version == "" {
		return fmt.Errorf("%s is not served by this cluster's API server: install Gateway API 1.6 or later, or the experimental channel of an earlier version", kind)
	}
	return nil
}

// own gives a port a gateway port of its own: the one given, or else the one that it has, or else a free one.
func (d *decision) own(a *assignment, chosen int32) error {
	protocol := protocolOf(a.port)
	if !d.policy.To(ToGatewayAPI) {
		return errors.New("it needs a gateway port of its own, which an Ingress cannot give: use --to gateway-api, too")
	}
	kind := TCPRoute
	switch protocol {
	case corev1.ProtocolUDP:
		kind = UDPRoute
	case corev1.ProtocolSCTP:
		return errors.New("Gateway API has no routes for SCTP: remove the port from those that are exported, with the annotation " + gateway.SelectAnnotation)
	}
	if err := d.served(kind); err != nil {
		return err
	}
	var err error
	number := gateway.PortNumber{Number: chosen, Protocol: protocol}
	if chosen != 0 {
		number.Number, err = d.claimed(number)
	} else {
		number.Number, err = d.choose(a.port, func(port int32) error { return d.free(gateway.PortNumber{Number: port, Protocol: protocol}, kind) })
	}
	if err != nil {
		return err
	}
	return d.take(a, kind, number)
}

// take gives a port a gateway port of its own. It keeps it even while no listener has it.
func (d *decision) take(a *assignment, kind Kind, number gateway.PortNumber) error {
	d.allocated = append(d.allocated, Allocation{Port: a.port.Port, Protocol: number.Protocol, Gateway: number.Number})
	if err := d.free(number, kind); err != nil {
		return err
	}
	a.kind, a.gateway, a.listener = kind, number.Number, OwnListener(number)
	if l := d.listenerOn(number); l != nil {
		a.listener = l.Name
	}
	return nil
}

// claimed is the port of the listener that the Service's annotation chooses, by its number outside. The error is why
// the Service cannot have it.
func (d *decision) claimed(port gateway.PortNumber) (int32, error) {
	gw := d.snapshot.Gateway
	inside := gw.inside(port)
	if inside == 0 {
		return 0, fmt.Errorf("Service %v has no port %d/%s: add it, or choose another one in the annotation %s", gw.Outside.Service, port.Number, port.Protocol, gateway.PortsAnnotation)
	}
	other := d.snapshot.holder(fmt.Sprintf("%d/%s", port.Number, port.Protocol))
	if other == d.snapshot.Key {
		if holder := d.snapshot.PortHolder(gateway.PortNumber{Number: inside, Protocol: port.Protocol}); holder != (cache.ObjectName{}) {
			other = holder
		}
	}
	if other != d.snapshot.Key {
		return 0, fmt.Errorf("gateway port %d/%s is given to %v: choose another one in the annotation %s", port.Number, port.Protocol, other, gateway.PortsAnnotation)
	}
	return inside, nil
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
		case d.snapshot.PortHolder(number) != (cache.ObjectName{}) || d.uses(number):
			taken++
		case free(n) == nil:
			return n, nil
		}
	}
	gw, ports := d.snapshot.Gateway, d.policy.Ports
	count := int(ports.Last-ports.First) + 1
	switch {
	case taken == count:
		return 0, fmt.Errorf("all ports of --ports %v are given or were released less than an hour ago: give a larger range", ports)
	case gw.Outside != nil:
		return 0, fmt.Errorf("%v and Service %v have no free %s port of --ports %v: add a listener to the one, and a port with the listener's for its targetPort to the other", gw, gw.Outside.Service, protocol, ports)
	case gw.Managed && len(gw.Listeners) < maxListeners:
		return 0, fmt.Errorf("%v has other listeners on all free ports of --ports %v: give a larger range", gw, ports)
	case gw.Managed:
		return 0, fmt.Errorf("%v has %d listeners, and a Gateway can have %d: remove some, or publish through another Gateway", gw, len(gw.Listeners), maxListeners)
	}
	return 0, fmt.Errorf("%v has no free %s listener on a port of --ports %v: add one, as {name: %s-%d, protocol: %[2]s, port: %[5]d, allowedRoutes: {namespaces: {from: All}}}, or label the Gateway %s=%s",
		gw, protocol, ports, strings.ToLower(string(protocol)), d.firstUnheld(protocol), ListenersLabel, Managed)
}

// firstUnheld is the lowest port of the range that nothing has.
func (d *decision) firstUnheld(protocol corev1.Protocol) int32 {
	for n := d.policy.Ports.First; n <= d.policy.Ports.Last; n++ {
		number := gateway.PortNumber{Number: n, Protocol: protocol}
		if d.snapshot.PortHolder(number) == (cache.ObjectName{}) && !d.uses(number) && d.listenerOn(number) == nil {
			return n
		}
	}
	return d.policy.Ports.First
}

// has tells whether a gateway port that the Service had is still its own.
func (d *decision) has(a Allocation) bool {
	holder := d.snapshot.PortHolder(a.Number())
	return (holder == d.snapshot.Key || holder == cache.ObjectName{}) && !d.uses(a.Number())
}

// uses tells whether another port of the Service has a gateway port already, or will claim it.
func (d *decision) uses(port gateway.PortNumber) bool {
	return slices.ContainsFunc(d.allocated, func(a Allocation) bool { return a.Number() == port }) ||
		slices.ContainsFunc(d.reservations, func(r gateway.Reservation) bool {
			return r.Protocol == port.Protocol && d.snapshot.Gateway.inside(gateway.PortNumber{Number: r.Gateway, Protocol: r.Protocol}) == port.Number
		})
}

// listenerOn is the listener of the Gateway that has a port.
func (d *decision) listenerOn(port gateway.PortNumber) *Listener {
	for i := range d.snapshot.Gateway.Listeners {
		if l := &d.snapshot.Gateway.Listeners[i]; l.Port == port.Number && l.transport() == port.Protocol {
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
	case l == nil && gw.Managed && len(gw.Listeners) < maxListeners:
		return nil
	case l == nil && gw.Managed:
		return fmt.Errorf("%v has %d listeners, as many as it can have: remove some", gw, len(gw.Listeners))
	case l == nil:
		return fmt.Errorf("%v has no listener on port %d/%s: add one with protocol %[3]s and allowedRoutes.namespaces.from All, or label the Gateway %s=%s", gw, port.Number, port.Protocol, ListenersLabel, Managed)
	case l.Protocol != string(port.Protocol):
		return fmt.Errorf("listener %s of %v, on port %d, is of protocol %s, not %s: change it", l.Name, gw, port.Number, l.Protocol, port.Protocol)
	}
	if why := l.admits(kind, d.snapshot); why != "" {
		return fmt.Errorf("listener %s of %v: %s", l.Name, gw, why)
	}
	return nil
}

// endTLS has the gateway end TLS for a port of class https that nothing else serves, where it has a certificate: the
// requests then go to the Service's HTTP port.
func (d *decision) endTLS(main int) {
	if main < 0 || d.assigned[main].gateway == 0 || !d.assigned[main].shared {
		return
	}
	http := d.assigned[main]
	i := slices.IndexFunc(d.assigned, func(a assignment) bool { return a.class == gateway.HTTPS && a.gateway == 0 })
	switch {
	case i < 0:
	case http.kind == Ingress && d.policy.TLSSecret != "":
		d.assigned[i].kind, d.assigned[i].gateway, d.assigned[i].shared, d.assigned[i].problem = Ingress, 443, true, nil
	case http.kind == HTTPRoute:
		if d.share(&d.assigned[i], terminating) == nil {
			d.assigned[i].problem = nil
		}
	}
}

// allocations are the gateway ports that the Service has now, and those that it had until less than ReleasedFor ago.
// after is when the next of these is given up; zero: there is none.
func (d *decision) allocations() (all []Allocation, after time.Duration) {
	all = slices.Clone(d.allocated)
	now := d.snapshot.Now
	for _, had := range d.previous {
		if slices.ContainsFunc(all, func(a Allocation) bool { return a.Number() == had.Number() }) {
			continue
		}
		if had.Released.IsZero() {
			had.Released = now.UTC().Truncate(time.Second)
		}
		left := had.Released.Add(ReleasedFor).Sub(now)
		if left <= 0 {
			continue
		}
		all = append(all, had)
		if after == 0 || left < after {
			after = left
		}
	}
	slices.SortFunc(all, func(a, b Allocation) int {
		return cmp.Or(cmp.Compare(a.Gateway, b.Gateway), cmp.Compare(a.Protocol, b.Protocol))
	})
	return all, after
}
