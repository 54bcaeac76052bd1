package plan

import (
	"errors"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"service-mirror.io/service-mirror/gateway"
)

// unknown is why it cannot be said how a port is to be reached: what it needs could not be read, or its Gateway is gone
// and may come back. It is then reached as it was.
type unknown struct {
	error
	final bool // no further target is tried
	said  bool // a problem of the Service says so, whichever port it is
}

// unread is the unknown in an error; nil: all is known.
func unread(err error) *unknown {
	var u unknown
	if errors.As(err, &u) {
		return &u
	}
	return nil
}

// known refuses a kind of which it is not known whether it is served, or which objects of ours there are.
func (d *decision) known(kind Kind) error {
	served := d.snapshot.Served[kind]
	if served.Known {
		return nil
	}
	what, why := string(kind), "has not been read yet"
	if kind == Alias {
		what = "namespace " + d.policy.Aliases
	}
	if served.Err != "" {
		why = "cannot be read: " + served.Err
	}
	return unknown{fmt.Errorf("%s %s: it is kept unchanged until then", what, why), true, false}
}

// exists refuses a Gateway that does not exist, or of which that is not known. A port keeps what it has of it.
func (d *decision) exists() error {
	switch gw := d.snapshot.Gateway; {
	case gw.Exists:
		return nil
	case gw.Known:
		return unknown{fmt.Errorf("Gateway %v does not exist", d.policy.Gateway), false, true}
	}
	return unknown{fmt.Errorf("Gateway %v has not been read yet: it is kept unchanged until then", d.policy.Gateway), true, true}
}

// lacksGateway tells that there is no Gateway for routes to attach to, as far as is known.
func (d *decision) lacksGateway() bool {
	return d.policy.To(ToGatewayAPI) && !d.snapshot.Gateway.Exists
}

// setsRead refuses ListenerSets of which it is not known which there are.
func (d *decision) setsRead() error {
	if why := d.snapshot.Gateway.Sets.Unknown; why != "" {
		return unknown{fmt.Errorf("ListenerSets %s: they are kept unchanged until then", why), true, false}
	}
	return nil
}

// keep has a port be reached as the record says that it is, and keep its gateway port.
func (d *decision) keep(a *assignment, why error) {
	a.unknown, a.problem = true, why
	for _, had := range d.previous {
		if had.of(a.port) && had.Released.IsZero() && d.has(had) {
			d.allocated = append(d.allocated, had)
			break
		}
	}
	before, found := d.announced()
	if !found || !RecordOwned(d.snapshot.Record) {
		return
	}
	a.kept = before.Of(a.port.Port, protocolOf(a.port))
	_, reserved := d.reserved(a.port)
	mayStay := reserved || !a.named() || d.noAlias() == nil                       // it is not by an alias that has to go
	a.unsaid = a.kept == nil && mayStay && (d.policy.To(ToNames) || d.hasAlias()) // as it was
	if a.needsHosts() {
		d.keptHosts = before.Hosts
	}
}

// keepTLS keeps, with the Service's HTTP port, a port for which the gateway may terminate TLS: its requests go to that one.
func (d *decision) keepTLS(main int) {
	if main >= 0 && d.assigned[main].unknown {
		for i, a := range d.assigned {
			if a.class == gateway.HTTPS && a.kind == "" && !a.unknown {
				d.keep(&d.assigned[i], d.assigned[main].problem)
			}
		}
	}
}

// needsHosts tells whether readers need the host names of the record for a port that stays as it is.
func (a assignment) needsHosts() bool { return a.unsaid || a.kept != nil && a.kept.Shared }

// keeps tells whether a port that stays as it is may be reached by a live object: by one that routes by the name in a
// request if the port shared the gateway's by its record or, without one, has requests with a name. None opens more than is
// exported.
func (d *decision) keeps(live *unstructured.Unstructured) bool {
	kind := Kind(live.GetKind())
	return d.routesToExported(live) && !d.displaced(live) && slices.ContainsFunc(d.assigned, func(a assignment) bool {
		switch {
		case !a.unknown:
			return false
		case transportOf(kind) != "":
			return transportOf(kind) == protocolOf(a.port) && backendPort(live) == a.port.Port
		case a.kept != nil && a.kept.Gateway != 0:
			return a.kept.Shared
		}
		return a.named()
	})
}

// named tells whether the requests to a port have a name, as far as is known.
func (a assignment) named() bool {
	switch a.class {
	case gateway.TCP, gateway.UDP, gateway.SCTP:
		return false
	}
	return true
}

// keptListeners are those that end TLS for a port that stays as it is: the HTTPRoute stays attached to them.
func (d *decision) keptListeners() (keys []string) {
	if !slices.ContainsFunc(d.assigned, func(a assignment) bool {
		return a.kept != nil && a.kept.Shared && a.kept.Class == string(gateway.HTTPS)
	}) {
		return nil
	}
	for _, live := range d.snapshot.Live {
		for _, key := range d.policy.Attached(live) {
			if Kind(live.GetKind()) == HTTPRoute && slices.ContainsFunc(d.snapshot.Gateway.Listeners, func(l Listener) bool { return l.Key() == key && l.Protocol == "HTTPS" }) {
				keys = append(keys, key)
			}
		}
	}
	return keys
}
