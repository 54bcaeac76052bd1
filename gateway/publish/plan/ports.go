package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// ReleasedFor is how long a gateway port that a Service had is given to no other: clients may still connect to it.
const ReleasedFor = time.Hour

// attachedPeriod is how often a released port is looked at that a route still has.
const attachedPeriod = 60 * time.Second

// assignment is how one port of an exported Service is reached.
type assignment struct {
	port     corev1.ServicePort
	class    gateway.Class
	kind     Kind   // of the route that serves it; empty: none
	listener string // that the route attaches to
	gateway  int32  // the gateway's port; 0: none
	shared   bool
	problem  error
	unknown  bool         // it stays as it is
	unsaid   bool         // the record does not say how: its readers find it out, by what the gateway has
	kept     *record.Port // as it is, by the record; nil: it is not reached
}

// assign says how each port of the Service is reached. Of the ports that are routed by the name in a request, one of
// HTTP and one of TLS can share the gateway's ports with other Services; the others need ports of their own.
func (d *decision) assign() {
	main, tls := d.sharing()
	for i, port := range d.ports {
		a := assignment{port: port, class: gateway.ClassOf(port)}
		var problems []error
		if reserved, ok := d.reserved(port); ok && !d.policy.onlyNames() {
			problems = append(problems, d.own(&a, reserved))
		} else {
			for _, target := range d.policy.Targets {
				err := d.through(target, &a, i == main, i == tls)
				problems = append(problems, err)
				if u := unread(err); err == nil || u != nil && u.final {
					break
				}
			}
		}
		if err := errors.Join(problems...); a.kind == "" && unread(err) != nil {
			d.keep(&a, err)
		}
		if a.gateway == 0 && a.problem == nil && !a.unsaid {
			a.problem = errors.Join(problems...)
		}
		d.reservedElsewhere(&a)
		d.assigned = append(d.assigned, a)
	}
	d.keepTLS(main)
	d.closeKept()
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
	switch target {
	case ToIngress:
		return d.throughIngress(a, main)
	case ToNames:
		return d.throughNames(a)
	}
	if err := d.exists(); err != nil {
		return err
	}
	switch {
	case main && a.class == gateway.GRPC && !speaksH2C(a.port):
		if err := d.own(a, 0); unread(err) != nil {
			return err
		} else if err != nil {
			return errors.New("gateways would use HTTP/1.1: set its appProtocol to kubernetes.io/h2c")
		}
		return nil
	case main:
		return d.share(a, wanted{kind: HTTPRoute, what: "HTTP", protocol: "HTTP", usual: 80, add: "add one with protocol HTTP"})
	case tls:
		err := d.share(a, passthrough)
		if err == nil || unread(err) != nil {
			return err
		}
		if other := d.own(a, 0); other == nil || unread(other) != nil {
			return other
		}
		return err
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
		return errors.New("no host name is routed to the Service")
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
	if err := d.known(kind); err != nil {
		return err
	}
	return d.snapshot.Served[kind].Absent(kind)
}

// Absent is an error for a kind that the API server does not serve.
func (s Served) Absent(kind Kind) error {
	if s.Version == "" {
		return fmt.Errorf("%s is not served by this cluster's API server: install Gateway API 1.6 or later, or the experimental channel of an earlier version", kind)
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
	i := slices.IndexFunc(d.assigned, func(a assignment) bool { return a.class == gateway.HTTPS && a.kind == "" && !a.unknown })
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
// One that another Service has is none of these, whatever a record or a route says. after is when the next of these is given
// up; zero: there is none.
func (d *decision) allocations() (all []Allocation, after time.Duration) {
	all = slices.Clone(d.allocated)
	now, routed := d.snapshot.Now, d.routed(d.snapshot.Live)
	for _, had := range d.previous {
		if slices.ContainsFunc(all, func(a Allocation) bool { return a.Number() == had.Number() }) {
			continue
		}
		if holder := d.holder(had.Number()); holder != d.snapshot.Key && holder != (cache.ObjectName{}) {
			continue
		}
		if had.Released.IsZero() {
			had.Released = now.UTC().Truncate(time.Second)
		}
		left := had.Released.Add(ReleasedFor).Sub(now)
		attached := slices.ContainsFunc(routed, func(a Allocation) bool { return a.Number() == had.Number() })
		if attached && left <= ReleasedFor-attachedPeriod { // the hour begins once no route has it
			had.Released, left = now.UTC().Truncate(time.Second), ReleasedFor
		}
		if attached {
			left = min(left, attachedPeriod)
		}
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
