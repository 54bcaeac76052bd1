package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// PortRange is a range of gateway ports, both ends included.
type PortRange struct{ First, Last int32 }

// ParsePortRange reads FIRST-LAST.
func ParsePortRange(text string) (PortRange, error) {
	first, last, _ := strings.Cut(text, "-")
	var r PortRange
	for text, into := range map[string]*int32{first: &r.First, last: &r.Last} {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil || len(validation.IsValidPortNum(int(n))) > 0 {
			return PortRange{}, fmt.Errorf("%.40q is not a port range: set one such as 15000-15999", first+"-"+last)
		}
		*into = int32(n)
	}
	if r.First > r.Last {
		return PortRange{}, fmt.Errorf("%v is reversed: swap the two numbers", r)
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

// Set notes all that one Service has, and tells whether that is news, and whether another may have
// one now. Where two have one port, as by an edit of a
// record, the first keeps it.
func (l *Ledger) Set(service cache.ObjectName, all []Allocation) (changed, freed bool) {
	freed = slices.ContainsFunc(l.of[service], func(a Allocation) bool {
		return !slices.ContainsFunc(all, func(b Allocation) bool {
			return a.Number() == b.Number() && (b.Released.IsZero() || !a.Released.IsZero())
		})
	})
	changed = !slices.EqualFunc(l.of[service], all, func(a, b Allocation) bool {
		return a.Number() == b.Number() && a.Released.IsZero() == b.Released.IsZero()
	})
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
	return changed, freed
}

// Fill notes all that records say. What is in use comes before what was released: a Service keeps its gateway port although
// a record that is listed first still has it.
func (l *Ledger) Fill(records []*corev1.ConfigMap) {
	released := func(a Allocation) bool { return !a.Released.IsZero() }
	for _, configMap := range records {
		if key, ok := RecordKey(configMap); ok {
			l.Set(key, slices.DeleteFunc(Allocations(configMap), released))
		}
	}
	for _, configMap := range records {
		if key, ok := RecordKey(configMap); ok {
			l.Set(key, Allocations(configMap))
		}
	}
}

// Add notes gateway ports that a Service has besides those that are noted.
func (l *Ledger) Add(service cache.ObjectName, more []Allocation) {
	all := slices.Clone(l.of[service])
	for _, a := range more {
		if !slices.ContainsFunc(all, func(b Allocation) bool { return a.Number() == b.Number() }) {
			all = append(all, a)
		}
	}
	l.Set(service, all)
}

// Services are those of which anything is noted.
func (l *Ledger) Services() []cache.ObjectName { return slices.Collect(maps.Keys(l.of)) }

// Holder is the Service that has a gateway port; zero: none.
func (l *Ledger) Holder(port gateway.PortNumber) cache.ObjectName { return l.holders[port] }

// Of are the gateway ports that are noted as a Service's, and that no other had first.
func (l *Ledger) Of(service cache.ObjectName) (all []Allocation) {
	for _, a := range l.of[service] {
		if l.holders[a.Number()] == service {
			all = append(all, a)
		}
	}
	return all
}

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
