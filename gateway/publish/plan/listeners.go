package plan

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// ListenersLabel, on a Gateway, permits this program to add listeners of its own: its value is Managed.
const (
	ListenersLabel = "service-mirror.io/listeners"
	Managed        = "managed"
)

// maxListeners is how many listeners a Gateway may have (Gateway API, spec.listeners).
const maxListeners = 64

// Gateway is what is known of the Gateway that routes attach to.
type Gateway struct {
	Known     bool // it was looked for: unless it exists, it does not
	Exists    bool
	Name      cache.ObjectName
	Listeners []Listener
	Managed   bool     // listeners of ours may be added
	Outside   *Outside // nil: its listeners are reached at their own ports
	// Controller is its implementation (GatewayClass.spec.controllerName); empty: it is not known.
	Controller string
	Rewrites   bool // it can rewrite the host (GatewayClass.status.supportedFeatures)
	Sets       UseOfSets
}

// Listener is a listener of a Gateway.
type Listener struct {
	Set         cache.ObjectName // the ListenerSet that has it; zero: the Gateway has
	Foreign     bool             // that ListenerSet is not ours
	Name        string
	Port        int32
	Protocol    string // HTTP, HTTPS, TLS, TCP, UDP
	Passthrough bool   // of TLS
	Hostname    string // empty: any
	Kinds       []Kind // of routes that may attach; none: those of the protocol
	From        string // the namespaces that routes may come from: Same, All, Selector, None
	Selector    labels.Selector
	Edited      bool   // it is ours, and not as it was applied
	Refused     string // why its implementation does not serve it; empty: it does, as far as is known
	// Pending tells that its implementation has not accepted its ListenerSet, which was created at a time; Promised, that
	// it says that it has that kind.
	Pending, Promised bool
	Since             time.Time
}

// ReadGateway reads a Gateway and its GatewayClass, either of which may be nil.
func ReadGateway(name cache.ObjectName, gw, class *unstructured.Unstructured) Gateway {
	g := Gateway{Known: true, Exists: gw != nil, Name: name}
	if gw == nil {
		return g
	}
	var object struct {
		Spec struct {
			Listeners []struct {
				Name     string `json:"name"`
				Protocol string `json:"protocol"`
				Hostname string `json:"hostname"`
				Port     int32  `json:"port"`
				TLS      struct {
					Mode string `json:"mode"`
				} `json:"tls"`
				AllowedRoutes struct {
					Namespaces struct {
						From     string                `json:"from"`
						Selector *metav1.LabelSelector `json:"selector"`
					} `json:"namespaces"`
					Kinds []struct {
						Group string `json:"group"`
						Kind  Kind   `json:"kind"`
					} `json:"kinds"`
				} `json:"allowedRoutes"`
			} `json:"listeners"`
		} `json:"spec"`
		Status struct {
			Listeners []struct {
				Name       string             `json:"name"`
				Conditions []metav1.Condition `json:"conditions"`
			} `json:"listeners"`
		} `json:"status"`
	}
	if runtime.DefaultUnstructuredConverter.FromUnstructured(gw.Object, &object) != nil {
		return g // the API server has a schema for it
	}
	for _, l := range object.Spec.Listeners {
		listener := Listener{Name: l.Name, Port: l.Port, Protocol: l.Protocol, Hostname: l.Hostname,
			Passthrough: l.TLS.Mode == "Passthrough", From: cmp.Or(l.AllowedRoutes.Namespaces.From, "Same")}
		if selector, err := metav1.LabelSelectorAsSelector(l.AllowedRoutes.Namespaces.Selector); err == nil {
			listener.Selector = selector
		}
		for _, kind := range l.AllowedRoutes.Kinds {
			if cmp.Or(kind.Group, Group) == Group {
				listener.Kinds = append(listener.Kinds, kind.Kind)
			}
		}
		for _, status := range object.Status.Listeners {
			if status.Name == l.Name {
				listener.Refused = refusedListener(status.Conditions, gw.GetGeneration())
			}
		}
		listener.Edited = listener.Own() && listener.From != "All" // what others add to it is theirs
		g.Listeners = append(g.Listeners, listener)
	}
	g.Managed = gw.GetLabels()[ListenersLabel] == Managed
	if class != nil {
		g.Controller, _, _ = unstructured.NestedString(class.Object, "spec", "controllerName")
		g.Rewrites = supports(class, "HTTPRouteHostRewrite")
	}
	return g
}

// refusedListener is why an implementation does not serve a listener, as Traefik where it has no entry point on
// that port. A listener that is only not programmed yet may be.
func refusedListener(conditions []metav1.Condition, generation int64) string {
	for _, c := range conditions {
		current := c.ObservedGeneration == 0 || c.ObservedGeneration == generation
		if current && (c.Type == "Accepted" && c.Status == metav1.ConditionFalse || c.Type == "Conflicted" && c.Status == metav1.ConditionTrue) {
			return fmt.Sprintf("%.100s: %.300s", c.Reason, c.Message)
		}
	}
	return ""
}

// supports tells whether a GatewayClass lists a feature. Up to Gateway API 1.2 the list had texts.
func supports(class *unstructured.Unstructured, feature string) bool {
	list, _, _ := unstructured.NestedSlice(class.Object, "status", "supportedFeatures")
	return slices.ContainsFunc(list, func(item any) bool {
		object, ok := item.(map[string]any)
		return item == feature || ok && object["name"] == feature
	})
}

// String is the Gateway's name for messages.
func (g Gateway) String() string { return "Gateway " + g.Name.String() }

// admits is why a route of this kind and namespace may not attach to a listener; empty: it may.
func (l Listener) admits(kind Kind, s Snapshot) string {
	switch {
	case l.Refused != "":
		return "its implementation does not serve the listener: " + l.Refused
	case len(l.Kinds) > 0 && !slices.Contains(l.Kinds, kind):
		return fmt.Sprintf("its allowedRoutes.kinds do not include %s: add it", kind)
	case s.Gateway.closed(l.number()) != "":
		return s.Gateway.closed(l.number())
	case l.From == "All", l.From == "Same" && s.Gateway.Name.Namespace == s.Key.Namespace:
		return ""
	case l.From == "Selector" && l.Selector != nil && l.Selector.Matches(labels.Set(s.Namespace)):
		return ""
	case l.From == "Selector":
		return fmt.Sprintf("its allowedRoutes selector does not match namespace %s: label the namespace, or change the selector", s.Key.Namespace)
	}
	return fmt.Sprintf("its allowedRoutes exclude namespace %s: set allowedRoutes.namespaces.from to All", s.Key.Namespace)
}

// matches tells whether a listener takes requests for a name (Gateway API, Listener.hostname).
func (l Listener) matches(host string) bool {
	suffix, wildcard := strings.CutPrefix(l.Hostname, "*")
	return l.Hostname == "" || l.Hostname == host || wildcard && strings.HasSuffix(host, suffix) && host != suffix[1:]
}

// wanted describes listeners to choose one from.
type wanted struct {
	kind     Kind
	what     string // for messages
	protocol string
	fits     func(Listener) bool // nil: all
	usual    int32               // the port that is chosen before others
	add      string              // what to add where there is none
}

// listener is the Gateway's listener for shared routes of a kind. The error says why there is none.
func (s Snapshot) listener(w wanted, hosts []string) (*Listener, error) {
	var best *Listener
	var refusals []string
	for i := range s.Gateway.Listeners {
		l := &s.Gateway.Listeners[i]
		if l.Set != (cache.ObjectName{}) || l.Protocol != w.protocol || w.fits != nil && !w.fits(*l) {
			continue
		}
		why := l.admits(w.kind, s)
		if why == "" && !slices.ContainsFunc(hosts, l.matches) {
			why = fmt.Sprintf("its hostname %s matches none of the Service's names: remove the hostname, or add a name with the annotation %s", l.Hostname, HostsAnnotation)
		}
		if why != "" {
			refusals = append(refusals, fmt.Sprintf("%s: %s", s.Gateway.describe(*l), why))
			continue
		}
		if best == nil || l.before(*best, w.usual) {
			best = l
		}
	}
	switch {
	case best != nil:
		return best, nil
	case len(refusals) > 0:
		return nil, fmt.Errorf("%s", strings.Join(refusals, "; "))
	}
	return nil, fmt.Errorf("%v has no %s listener: %s", s.Gateway, w.what, w.add)
}

// before tells which of two listeners is chosen, whatever their order: one for any name, one on the usual port, the
// one with the lower port.
func (l Listener) before(other Listener, usual int32) bool {
	if (l.Hostname == "") != (other.Hostname == "") {
		return l.Hostname == ""
	}
	if (l.Port == usual) != (other.Port == usual) {
		return l.Port == usual
	}
	return cmp.Or(cmp.Compare(l.Port, other.Port), strings.Compare(l.Name, other.Name)) < 0
}

// transport is the transport protocol of a listener.
func (l Listener) transport() corev1.Protocol {
	if l.Protocol == "UDP" {
		return corev1.ProtocolUDP
	}
	return corev1.ProtocolTCP
}

// OwnListener is the name of the listener that this program adds for a gateway port.
func OwnListener(port gateway.PortNumber) string {
	return fmt.Sprintf("service-mirror-%s-%d", strings.ToLower(string(port.Protocol)), port.Number)
}

// number is the gateway port of a listener.
func (l Listener) number() gateway.PortNumber {
	return gateway.PortNumber{Number: l.Port, Protocol: l.transport()}
}

// Key names a listener among those of the Gateway and of our ListenerSets.
func (l Listener) Key() string {
	if l.Set == (cache.ObjectName{}) {
		return l.Name
	}
	return l.Set.Name + "/" + l.Name
}

// describe is the name of a listener for messages.
func (g Gateway) describe(l Listener) string {
	if l.Set == (cache.ObjectName{}) {
		return fmt.Sprintf("listener %s of %v", l.Name, g)
	}
	return fmt.Sprintf("listener %s of ListenerSet %v", l.Name, l.Set)
}

// RoutesOf is the kind of routes that have a gateway port alone.
func RoutesOf(port gateway.PortNumber) Kind {
	if port.Protocol == corev1.ProtocolUDP {
		return UDPRoute
	}
	return TCPRoute
}

// Own tells a listener that this program added.
func (l Listener) Own() bool {
	return !l.Foreign && l.Name == OwnListener(l.number()) && l.Protocol == string(l.transport())
}

// Added are the gateway ports of the listeners that this program added to the Gateway itself, with their names.
func (g Gateway) Added() map[gateway.PortNumber]string {
	added := map[gateway.PortNumber]string{}
	for _, l := range g.Listeners {
		if l.Own() && l.Set == (cache.ObjectName{}) {
			added[l.number()] = l.Name
		}
	}
	return added
}

// Intact are the names of those that are as they were applied.
func (g Gateway) Intact() (names []string) {
	for _, l := range g.Listeners {
		if l.Own() && l.Set == (cache.ObjectName{}) && !l.Edited {
			names = append(names, l.Name)
		}
	}
	return names
}

// adds tells whether listeners of ours can be added.
func (g Gateway) adds() bool { return g.Managed || g.Sets.Used }

// ownListener is the listener that is added for a gateway port, by its key.
func (g Gateway) ownListener(port gateway.PortNumber) string {
	if g.Sets.Used {
		return setListener(port)
	}
	return OwnListener(port)
}

// offer is what has listeners of ours added.
func (g Gateway) offer() string {
	label := fmt.Sprintf("label the Gateway %s=%s", ListenersLabel, Managed)
	if g.Sets.Offer == "" {
		return label
	}
	return label + ", or " + g.Sets.Offer
}

// SameGateway tells whether two states of a Gateway are the same. A selector, which cannot be compared, is so by its
// text.
func SameGateway(a, b Gateway) bool {
	return (a.Outside == nil) == (b.Outside == nil) && a.text() == b.text()
}

// text has every field.
func (g Gateway) text() string {
	type fields Gateway // without String
	outside := cmp.Or(g.Outside, &Outside{})
	g.Outside = nil // it would be printed as an address
	return fmt.Sprintf("%+v %+v", fields(g), *outside)
}

// OwnListeners are the listeners that this program is to have on a Gateway for these gateway ports, as many as it can
// have; changed tells whether the Gateway does not have just these, as they should be. Where others come by ListenerSets, those that it
// has stay for as long as they are needed.
func (g Gateway) OwnListeners(ports []gateway.PortNumber) (listeners []any, changed bool) {
	added := g.Added()
	live := slices.Collect(maps.Values(added))
	needed := g.needed(ports)
	if g.Sets.Used || g.Sets.Unknown != "" {
		needed = slices.DeleteFunc(needed, func(port gateway.PortNumber) bool { return added[port] == "" })
	}
	needed = needed[:min(len(needed), g.capacity())]
	slices.SortFunc(needed, comparePorts)
	for _, port := range needed {
		listeners = append(listeners, ownListenerObject(port))
	}
	names := ListenerNames(listeners)
	slices.Sort(names)
	slices.Sort(live)
	return listeners, !slices.Equal(names, live) || len(g.Edited(listeners)) > 0
}

// LiveListeners are those of ours that the Gateway has, as they would be applied.
func (g Gateway) LiveListeners() (listeners []any) {
	for _, l := range g.Listeners {
		if l.Own() && l.Set == (cache.ObjectName{}) {
			listeners = append(listeners, listenerObject(l.Name, l.Port, l.Protocol, l.From))
		}
	}
	return listeners
}

// Edited are the names of those of listeners as they are to be applied that the Gateway has otherwise.
func (g Gateway) Edited(listeners []any) (names []string) {
	for _, l := range listeners {
		if live := g.liveAs(l); !equality.Semantic.DeepEqual(l, live) {
			names = append(names, ListenerNames([]any{l})...)
		}
	}
	return names
}

// Yield leaves those as they are that the Gateway has otherwise: another program owns what it has changed of them. changed
// tells whether others are to be added or removed.
func (g Gateway) Yield(listeners []any) (rest []any, changed bool) {
	for _, l := range listeners {
		rest = append(rest, g.liveAs(l))
	}
	names, live := ListenerNames(listeners), slices.Collect(maps.Values(g.Added()))
	for _, name := range g.Edited(listeners) {
		live = append(live, name)
	}
	slices.Sort(names)
	slices.Sort(live)
	return rest, !slices.Equal(names, slices.Compact(live))
}

// liveAs is a listener as it is to be applied, but with what the Gateway has in it, if it has one of the name.
func (g Gateway) liveAs(listener any) any {
	for _, l := range g.Listeners {
		if l.Name == listener.(map[string]any)["name"] && l.Set == (cache.ObjectName{}) {
			return listenerObject(l.Name, l.Port, l.Protocol, l.From)
		}
	}
	return listener
}

// ownListenerObject is a listener of ours as it is written.
func ownListenerObject(port gateway.PortNumber) map[string]any {
	return listenerObject(OwnListener(port), port.Number, string(port.Protocol), "All")
}

func listenerObject(name string, port int32, protocol, from string) map[string]any {
	return map[string]any{"name": name, "port": int64(port), "protocol": protocol,
		"allowedRoutes": map[string]any{"namespaces": map[string]any{"from": from}}}
}

// ListenerNames are the names of listeners as they are applied.
func ListenerNames(listeners []any) (names []string) {
	for _, l := range listeners {
		names = append(names, l.(map[string]any)["name"].(string))
	}
	return names
}

// needed are those of gateway ports that need listeners of ours: another listener has none of them. Those that exist
// are first.
func (g Gateway) needed(ports []gateway.PortNumber) []gateway.PortNumber {
	foreign, live := map[gateway.PortNumber]bool{}, g.Added()
	for _, l := range g.Listeners {
		if !l.Own() {
			foreign[l.number()] = true
		}
	}
	needed := slices.DeleteFunc(slices.Clone(ports), func(port gateway.PortNumber) bool { return foreign[port] })
	slices.SortFunc(needed, func(a, b gateway.PortNumber) int {
		if live[a] != live[b] && (live[a] == "" || live[b] == "") {
			if live[a] != "" {
				return -1
			}
			return 1
		}
		return comparePorts(a, b)
	})
	return slices.Compact(needed)
}

// capacity is how many listeners of ours the Gateway can have.
func (g Gateway) capacity() int {
	foreign := 0
	for _, l := range g.Listeners {
		if !l.Own() && l.Set == (cache.ObjectName{}) {
			foreign++
		}
	}
	return max(0, maxListeners-foreign)
}

func comparePorts(a, b gateway.PortNumber) int {
	return cmp.Or(cmp.Compare(a.Number, b.Number), cmp.Compare(a.Protocol, b.Protocol))
}
