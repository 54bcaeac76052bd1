package plan

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// closeKept has the record no longer announce a port, of those that stay as they are, whose route this decision removes, or has
// go to another port.
func (d *decision) closeKept() {
	d.closeTaken()
	d.closeTLS()
	if !slices.ContainsFunc(d.assigned, func(a assignment) bool { return a.unknown && a.needsHosts() }) {
		d.keptHosts = nil
	}
}

// closeTaken closes what shared a port of the gateway, once the host names are routed to another port of the Service: it is that
// one that clients would reach.
func (d *decision) closeTaken() {
	for i, a := range d.assigned {
		if a.kept == nil || !a.kept.Shared {
			continue
		}
		tls := a.kept.Class == string(gateway.HTTPS)
		if other := d.routedByName(tls); other != nil && (!tls || d.passedTo(other, *a.kept)) {
			d.assigned[i].kept = nil
			d.assigned[i].problem = fmt.Errorf("its host names are now routed to port %s: %w", gateway.ListPorts([]corev1.ServicePort{other.port}), a.problem)
		}
	}
}

// routedByName is the port that requests with a name of the Service are routed to, with TLS that is passed through or without;
// nil: it is not known, or there is none.
func (d *decision) routedByName(tls bool) *assignment {
	for i, a := range d.assigned {
		if tls && a.kind == TLSRoute || !tls && a.class != gateway.HTTPS && (a.kind == HTTPRoute || a.kind == Ingress) {
			return &d.assigned[i]
		}
	}
	return nil
}

// passedTo tells whether the TLS of a port is passed through to another one from now on. What ends TLS at another port of the
// gateway has nothing to do with that.
func (d *decision) passedTo(other *assignment, port record.Port) bool {
	return d.outside(*other) == port.Gateway || slices.ContainsFunc(d.snapshot.Live, func(live *unstructured.Unstructured) bool {
		return Owned(live) && Kind(live.GetKind()) == TLSRoute && slices.Contains(backends(live), port.Port)
	})
}

// displaced tells whether a live object routes the names of the Service to a port that they are not routed to any more.
func (d *decision) displaced(live *unstructured.Unstructured) bool {
	kind := Kind(live.GetKind())
	if kind != HTTPRoute && kind != Ingress && kind != TLSRoute {
		return false
	}
	now := d.routedByName(kind == TLSRoute)
	return now != nil && slices.ContainsFunc(backends(live), func(number int32) bool { return number != now.port.Port })
}

// closeTLS closes a port for which the gateway ended TLS, once the port that its requests went to is not exported, as what routed
// them is closed at once, or once the Gateway has no listener for that any more. It stays where another port takes the place of
// the former.
func (d *decision) closeTLS() {
	var routed Kind
	if http := d.routedByName(false); http != nil {
		routed = http.kind
	}
	if routed == HTTPRoute && len(d.keptListeners()) > 0 || routed == Ingress && d.policy.TLSSecret != "" {
		return
	}
	for i, a := range d.assigned {
		if a.kept != nil && d.endedTLS(*a.kept, routed) {
			d.assigned[i].kept = nil
			d.assigned[i].problem = fmt.Errorf("the gateway no longer terminates TLS for it, as the HTTP port is no longer exported, or the HTTPS listener is gone: %w", a.problem)
		}
	}
}

// endedTLS tells that what routed the requests to a port goes: it went to one that is not exported any more, by what is live or,
// where that is deleted already, by the record, which may not have been written since; or it is updated to serve TLS no more. A
// TLSRoute to the port, which nobody knows of while they cannot be read, or what goes on to end TLS says otherwise.
func (d *decision) endedTLS(port record.Port, routed Kind) bool {
	if !port.Shared || port.Class != string(gateway.HTTPS) {
		return false
	}
	known := d.snapshot.Served[TLSRoute].Known
	before, _ := d.announced()
	closed := known && slices.ContainsFunc(before.Ports, func(p record.Port) bool {
		return p.Shared && p.Class != port.Class && !d.exports(p.Port, p.Protocol)
	})
	for _, live := range d.snapshot.Live {
		kind := Kind(live.GetKind())
		ends := kind == HTTPRoute || kind == Ingress
		switch {
		case !Owned(live):
		case ends && (!d.routesToExported(live) || d.displaced(live) && kind != routed):
			closed = closed || known || d.endsTLS(live)
		case kind == routed && d.endsTLS(live):
			closed = true
		case ends && d.endsTLS(live), kind == TLSRoute && slices.Contains(backends(live), port.Port):
			return false
		}
	}
	return closed
}

// endsTLS tells whether an HTTPRoute or an Ingress of ours serves TLS, too: the former attaches to one listener for HTTP, and
// to another one for that.
func (d *decision) endsTLS(live *unstructured.Unstructured) bool {
	tls, _, _ := unstructured.NestedSlice(live.Object, "spec", "tls")
	return len(tls) > 0 || len(d.policy.Attached(live)) > 1
}
