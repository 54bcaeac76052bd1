package plan

import (
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

// routed are the gateway ports that live routes have, whatever is remembered of them.
func (d *decision) routed(routes []*unstructured.Unstructured) (all []Allocation) {
	for _, live := range routes {
		all = append(all, d.policy.Routed(d.snapshot.Gateway, live)...)
	}
	return all
}

// Belongs tells whether a route with our labels is one that was made for an exported Service, which owns it. Anyone who may
// write routes can label one, and must not thereby reserve gateway ports for what is not exported.
func Belongs(route metav1.Object, svc *corev1.Service) bool {
	return svc != nil && slices.ContainsFunc(route.GetOwnerReferences(), func(owner metav1.OwnerReference) bool {
		return owner.Kind == "Service" && owner.UID == svc.UID
	})
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
// behind, and by the routes that belong to it, of which a record may not have been written. Of what each says, those that
// it has are first, and then the last ones that it had: it keeps what it has.
func (d *decision) had() (all []Allocation) {
	own := slices.DeleteFunc(slices.Clone(d.snapshot.Live), func(live *unstructured.Unstructured) bool { return !Belongs(live, d.snapshot.Service) })
	for _, source := range [][]Allocation{d.snapshot.Allocated, Allocations(d.snapshot.Record), d.routed(own)} {
		for _, a := range slices.SortedStableFunc(slices.Values(source), compareReleases) {
			if !slices.ContainsFunc(all, func(known Allocation) bool { return known.Number() == a.Number() }) {
				all = append(all, a)
			}
		}
	}
	return all
}

func compareReleases(a, b Allocation) int {
	if a.Released.IsZero() || b.Released.IsZero() {
		return a.Released.Compare(b.Released)
	}
	return b.Released.Compare(a.Released)
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
