package plan

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Attached are the listeners of the Gateway and of our ListenerSets, by their keys, that a route of ours attaches to.
func (p Policy) Attached(route *unstructured.Unstructured) (listeners []string) {
	if !Owned(route) {
		return nil
	}
	parents, _, _ := unstructured.NestedSlice(route.Object, "spec", "parentRefs")
	for _, item := range parents {
		parent, _ := item.(map[string]any)
		listener, _ := parent["sectionName"].(string)
		name, _ := parent["name"].(string)
		switch {
		case listener == "":
		case parent["kind"] == string(ListenerSet) && parent["namespace"] == p.Records:
			listeners = append(listeners, name+"/"+listener)
		case parent["kind"] != string(ListenerSet) && name == p.Gateway.Name && parent["namespace"] == p.Gateway.Namespace:
			listeners = append(listeners, listener)
		}
	}
	return listeners
}

// transportOf is the transport protocol of routes that have a gateway port alone; empty: of this kind none has.
func transportOf(kind Kind) corev1.Protocol {
	switch kind {
	case TCPRoute:
		return corev1.ProtocolTCP
	case UDPRoute:
		return corev1.ProtocolUDP
	}
	return ""
}

// numberOf is the port of a listener; zero: it is not known.
func (g Gateway) numberOf(listener string, protocol corev1.Protocol) gateway.PortNumber {
	for _, l := range g.Listeners {
		if l.Key() == listener && !l.Foreign {
			return gateway.PortNumber{Number: l.Port, Protocol: protocol}
		}
	}
	text := listener[strings.LastIndex(listener, "-")+1:]
	n, err := strconv.ParseUint(text, 10, 16)
	if number := (gateway.PortNumber{Number: int32(n), Protocol: protocol}); err == nil && (OwnListener(number) == listener || setListener(number) == listener) {
		return number
	}
	return gateway.PortNumber{}
}

// routed are the gateway ports that the Service's live routes have, whatever is remembered of them.
func (d *decision) routed() (all []Allocation) {
	for _, live := range d.snapshot.Live {
		all = append(all, d.policy.Routed(d.snapshot.Gateway, live)...)
	}
	return all
}

// Routed are the gateway ports that a live route of ours has alone.
func (p Policy) Routed(gw Gateway, live *unstructured.Unstructured) (all []Allocation) {
	protocol := transportOf(Kind(live.GetKind()))
	if protocol == "" {
		return nil
	}
	for _, listener := range p.Attached(live) {
		if number := gw.numberOf(listener, protocol); number.Number != 0 {
			all = append(all, Allocation{Port: backendPort(live), Protocol: protocol, Gateway: number.Number})
		}
	}
	return all
}

// backendPort is the port of the Service that a route of ours routes to; 0: none is known.
func backendPort(route *unstructured.Unstructured) int32 {
	text := strings.TrimPrefix(strings.TrimSuffix(route.GetName(), suffix), route.GetLabels()[ServiceLabel]+".")
	n, _ := strconv.ParseUint(text, 10, 16)
	return int32(n)
}

// had are the gateway ports that the Service has or had: by what is remembered, by its record, which may be lost or
// behind, and by its routes, of which a record may not have been written.
func (d *decision) had() (all []Allocation) {
	for _, source := range [][]Allocation{d.snapshot.Allocated, Allocations(d.snapshot.Record), d.routed()} {
		for _, a := range source {
			if !slices.ContainsFunc(all, func(known Allocation) bool { return known.Number() == a.Number() }) {
				all = append(all, a)
			}
		}
	}
	return all
}

// holder is the Service that has a gateway port: by the ledger or, where a record is lost, by a route that is there.
func (d *decision) holder(port gateway.PortNumber) cache.ObjectName {
	s := d.snapshot
	if holder := s.PortHolder(port); holder != (cache.ObjectName{}) || s.Attached == nil {
		return holder
	}
	listeners := []string{OwnListener(port), setListener(port)}
	if l := d.listenerOn(port); l != nil && !l.Own() && !l.Foreign {
		listeners = append(listeners, l.Key())
	}
	var holder cache.ObjectName
	for _, listener := range listeners {
		for _, key := range s.Attached(RoutesOf(port), listener) {
			if holder = key; key == s.Key {
				return key
			}
		}
	}
	return holder
}
