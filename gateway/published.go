package gateway

import (
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// Assignments are what decides about the gateway ports of an exported Service besides the gateway and the Service itself.
type Assignments struct {
	// Holder returns which exported Service has a gateway port: the oldest of those that have it alone by their
	// record, or else of those that claim it with PortsAnnotation, which must not take what the publisher has given
	// to another one; nil, or the zero name: no other one.
	Holder func(claim string) cache.ObjectName
	// Published is what the remote's publisher says of the Service; nil: no records are read.
	Published *Published
}

// Published is what the publisher of a remote says of one exported Service.
type Published struct {
	Unknown bool           // the records are not known yet: all ports keep what they have
	Record  *record.Record // nil: there is none that can be used
	Problem error          // why there is one that cannot be used
	// Holder is as that of Assignments, but of those alone that have a gateway port alone by their record: what teams
	// write into annotations must not take a port from all that share it.
	Holder func(claim string) cache.ObjectName
	// Crowded is whether so many have a gateway port alone by their record that it is nobody's; nil: none is.
	Crowded func(claim string) bool
}

// PublishedFor is what a record, or the error that came of reading it, says of an exported Service.
func PublishedFor(exported *corev1.Service, read record.Record, err error) Published {
	switch {
	case err != nil:
		return Published{Problem: fmt.Errorf("its record is invalid and ignored: %w: check the version of the remote's publisher", err)}
	case read.UID != exported.UID:
		return Published{Problem: errors.New("its record is for a Service with the same name and another UID, and is ignored: check that the remote's publisher runs")}
	}
	return Published{Record: &read}
}

// RecordClaims are the gateway ports that a record has alone, and those that it shares, as Claims has them.
func RecordClaims(r record.Record) (alone, shared []string) {
	for _, p := range r.Ports {
		switch claim := (Reservation{Gateway: p.Gateway, Protocol: p.Protocol}).claim(); {
		case p.Gateway == 0:
		case p.Shared:
			shared = append(shared, claim)
		default:
			alone = append(alone, claim)
		}
	}
	return alone, shared
}

// errUnpublished is why a port has no target while records are not known.
var errUnpublished = errors.New("the records of the remote's publisher have not been read yet: see the problems of the remote")

// awaits tells that records, which are not known yet, have a say: an annotation may claim what they give to another
// Service.
func (r request) awaits() bool { return r.Published != nil && r.Published.Unknown }

// publishedHolder is the Service that has a gateway port alone by its record; zero: none.
func (r request) publishedHolder(claim string) cache.ObjectName {
	if r.Published == nil || r.Published.Holder == nil {
		return cache.ObjectName{}
	}
	return r.Published.Holder(claim)
}

// crowded is why nobody has a gateway port.
func (r request) crowded(claim string) error {
	if r.Published == nil || r.Published.Crowded == nil || !r.Published.Crowded(claim) {
		return nil
	}
	return fmt.Errorf("gateway port %s is not used: the records of the remote's publisher allocate it exclusively to too many Services: check for a second publisher", claim)
}

// record is what the record says of a port; nil: nothing.
func (r request) record(port corev1.ServicePort) *record.Port {
	if r.Published == nil || r.Published.Record == nil {
		return nil
	}
	return r.Published.Record.Of(port.Port, protocol(port))
}

// published is the gateway port that the record says. The error is why there is none, or why it cannot be used.
func (r request) published(port corev1.ServicePort, says *record.Port) (int32, error) {
	if says.Gateway == 0 {
		return 0, fmt.Errorf("the remote's publisher has no route to it: %.500s", says.Problem)
	}
	claim := Reservation{Gateway: says.Gateway, Protocol: protocol(port)}.claim()
	const fix = "see the problems of the remote's publisher"
	if other, reserved := r.reservedFor(says.Gateway, protocol(port)); reserved && other.Service != r.self {
		return 0, fmt.Errorf("the remote's publisher allocated gateway port %s, which is reserved for %v: %s", claim, other.Service, fix)
	}
	if err := r.crowded(claim); err != nil {
		return 0, err
	}
	holder := r.Holder
	if says.Shared {
		holder = r.Published.Holder
	}
	if holder != nil {
		if other := holder(claim); other != r.self && other != (cache.ObjectName{}) {
			return 0, fmt.Errorf("the remote's publisher allocated gateway port %s, which is exclusive to %v: %s", claim, other, fix)
		}
	}
	if !r.Static && !hasPort(r.Ports, PortNumber{says.Gateway, protocol(port)}) {
		return 0, fmt.Errorf("the remote's publisher allocated gateway port %s, which the gateway does not have: it has %s: add the port to the gateway, or set --gateway of the publisher to this gateway", claim, ListPorts(r.Ports))
	}
	return says.Gateway, nil
}
