package plan

import (
	"errors"
	"fmt"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// unknown is why it cannot be said how a port is to be reached: what it needs could not be read, or its Gateway is gone
// and may come back. It is then reached as it was.
type unknown struct {
	error
	final bool // no further target is tried
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
	return unknown{fmt.Errorf("%s %s: it stays as it is until then", what, why), true}
}

// exists refuses a Gateway that does not exist. A port keeps what it has of it.
func (d *decision) exists() error {
	if d.snapshot.Gateway.Exists {
		return nil
	}
	return unknown{fmt.Errorf("Gateway %v does not exist", d.policy.Gateway), false}
}

// setsRead refuses ListenerSets of which it is not known which there are.
func (d *decision) setsRead() error {
	if why := d.snapshot.Gateway.Sets.Unknown; why != "" {
		return unknown{fmt.Errorf("ListenerSets %s: it stays as it is until then", why), true}
	}
	return nil
}

// keep has a port be reached as the record says that it is, and keep its gateway port.
func (d *decision) keep(a *assignment, why error) {
	d.keeping = true
	a.unknown, a.problem = true, why
	for _, had := range d.previous {
		if had.of(a.port) && had.Released.IsZero() && d.has(had) {
			d.allocated = append(d.allocated, had)
			break
		}
	}
	if d.snapshot.Record == nil || !RecordOwned(d.snapshot.Record) {
		return
	}
	before, err := record.Parse(d.snapshot.Record)
	if err != nil || before.UID != d.snapshot.Service.UID {
		return
	}
	a.kept = before.Of(a.port.Port, protocolOf(a.port))
	a.unsaid = a.kept == nil && d.policy.To(ToNames) // as it was
	if a.unsaid || a.kept != nil && a.kept.Shared {
		d.keptHosts = before.Hosts
	}
}
