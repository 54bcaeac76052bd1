// Package plan decides what is to be written so that a cluster's gateway routes to an exported Service, and what the
// record of it says. It is pure: a Snapshot of everything that is known of one exported Service goes in, a Plan comes
// out, and nothing else is looked at. It imports no client, no clock, no logger and no context.
//
// hosts.go has the names that are routed, templates.go those that the operator adds, listeners.go what a Gateway
// offers, sets.go what ListenerSets add to it, outside.go where that is reached, ports.go which gateway port serves
// which port, ownports.go and ledger.go which ports are one Service's alone, attached.go which ones live routes have,
// unknown.go what stays as it is while something cannot be read, closed.go what of that does not, routes.go, ingress.go and
// names.go the objects, record.go the record, accepted.go what an implementation says of routes, and decide.go what is to
// be written for all that.
package plan

import (
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// Group is the API group of Gateway API.
const Group = "gateway.networking.k8s.io"

// Kind is a kind of object that routes to an exported Service.
type Kind string

// The kinds.
const (
	HTTPRoute Kind = "HTTPRoute"
	TLSRoute  Kind = "TLSRoute"
	TCPRoute  Kind = "TCPRoute"
	UDPRoute  Kind = "UDPRoute"
	Ingress   Kind = "Ingress"
	Alias     Kind = "Service" // of type ExternalName
)

// Kinds are all kinds.
var Kinds = []Kind{HTTPRoute, TLSRoute, TCPRoute, UDPRoute, Ingress, Alias}

// Resource is the kind's resource in the API.
func (k Kind) Resource() schema.GroupResource {
	switch k {
	case HTTPRoute:
		return schema.GroupResource{Group: Group, Resource: "httproutes"}
	case TLSRoute:
		return schema.GroupResource{Group: Group, Resource: "tlsroutes"}
	case TCPRoute:
		return schema.GroupResource{Group: Group, Resource: "tcproutes"}
	case UDPRoute:
		return schema.GroupResource{Group: Group, Resource: "udproutes"}
	case Alias:
		return schema.GroupResource{Resource: "services"}
	case ListenerSet:
		return schema.GroupResource{Group: Group, Resource: "listenersets"}
	}
	return schema.GroupResource{Group: "networking.k8s.io", Resource: "ingresses"}
}

// Versions are those in which this program can write a kind, the best first. Their schemas are the same.
func (k Kind) Versions() []string {
	switch k {
	case HTTPRoute:
		return []string{"v1", "v1beta1"}
	case TLSRoute:
		return []string{"v1", "v1alpha3", "v1alpha2"}
	case TCPRoute, UDPRoute:
		return []string{"v1", "v1alpha2"}
	}
	return []string{"v1"}
}

// Served is how an API server serves a kind.
type Served struct {
	Version string // empty: not at all
	// Known tells that all objects of the kind that are ours are known, so that an absence is one.
	Known bool
	Err   string // why they are not
}

// Target is what objects of the kind are for.
func (k Kind) Target() Target {
	switch k {
	case Ingress:
		return ToIngress
	case Alias:
		return ToNames
	}
	return ToGatewayAPI
}

// Ref names an object of a kind in the exported Service's namespace. Kind Record is the record and Alias the alias, each in
// a namespace of its own.
type Ref struct {
	Kind Kind
	Name string
}

// Record is the kind of the record: a ConfigMap.
const Record Kind = "ConfigMap"

// Snapshot is everything that is known of one exported Service, at one moment.
type Snapshot struct {
	Key       cache.ObjectName  // of the exported Service
	Service   *corev1.Service   // nil: it does not exist, or is not exported
	Ready     bool              // it has an endpoint that is ready
	Namespace map[string]string // the labels of its namespace
	Gateway   Gateway
	Served    map[Kind]Served
	// Live are the routes that carry our label and name the Service, ours or not; and so for the alias, and whatever has
	// its name.
	Live     []*unstructured.Unstructured
	Record   *corev1.ConfigMap // under the record's name, ours or not; nil: none
	Foreign  map[Ref]bool      // foreign objects, which have a name that was wanted
	Backoffs map[Ref]Backoff   // of objects that must not be written yet
	// Allocated are the gateway ports that the Service has or had, as they were last decided; none: only its record and
	// its routes say.
	Allocated []Allocation
	// Attached are the exported Services to which a route of a kind belongs that attaches to a listener; nil: it is not known.
	Attached func(kind Kind, listener string) []cache.ObjectName
	// Promised are all gateway ports in use, also those that have no listener yet; nil: only this Service's are.
	Promised func() []gateway.PortNumber
	// Listeners are why listeners of ours are missing, by the ListenerSet that lacks them, and by "" where the Gateway
	// does; none: it is not known that any are.
	Listeners map[string]mirrors.Problem
	// PortHolder is the exported Service that has a gateway port, or had it less than ReleasedFor ago; zero: none.
	PortHolder func(gateway.PortNumber) cache.ObjectName
	// Holder is the exported Service that has a name or a gateway port of those that claim it; nil: this one.
	Holder func(claim string) cache.ObjectName
	Now    time.Time
	// Settling is how long the record must not be written for the sake of Ready alone: it has just been.
	Settling time.Duration
}

// Backoff keeps an object from being written for a while.
type Backoff struct {
	Problem mirrors.Problem
	Only    *unstructured.Unstructured // while this is what is desired; nil: whatever is
}

// Plan is what is to be done for one exported Service.
type Plan struct {
	Key      cache.ObjectName
	Desired  []*unstructured.Unstructured // routes, and the alias
	Record   *corev1.ConfigMap            // nil: none is to exist
	Steps    []Step                       // in this order
	Problems []mirrors.Problem
	// Allocations are the gateway ports that are the Service's alone, or were until a while ago.
	Allocations []Allocation
	// Refused tells that a port could not have a gateway port of its own, and may have one when another Service frees it.
	Refused bool
	// After is when the Service is looked at again although nothing has changed; zero: never.
	After time.Duration
}

// Step is one write.
type Step struct {
	Action Action
	Ref    Ref
	Object *unstructured.Unstructured // a route; of Delete the live one
	Live   *unstructured.Unstructured // of Update
	Record *corev1.ConfigMap          // instead of a route; of Delete the live one
	// Last tells of the deletion of a route that the record may announce until it is written: it is not carried out if a step
	// has failed that is not such a deletion.
	Last bool
}

// Action is what a step does.
type Action string

// The actions.
const (
	Create Action = "create"
	Update Action = "update"
	Delete Action = "delete"
)

// Target is a way of routing.
type Target string

// The targets.
const (
	ToGatewayAPI Target = "gateway-api"
	ToIngress    Target = "ingress"
	ToNames      Target = "names" // by gateways with one static wildcard
)

// Targets are all targets.
var Targets = []Target{ToGatewayAPI, ToIngress, ToNames}

// Policy is what the operator decides.
type Policy struct {
	Names         []string // of this cluster, as callers have them: DNS labels
	Domain        string   // the cluster's DNS domain
	HostTemplates []string // of further names, with {service}, {namespace} and {name}
	// CallerNamespaces are those that callers have the mirrors of a namespace of this cluster in, besides its own.
	CallerNamespaces map[string][]string
	HostSuffixes     []string // below which Services may choose further names; none: they may not
	Targets          []Target // the first that can serve a port does
	Gateway          cache.ObjectName
	// GatewayService is the LoadBalancer Service in front of the Gateway, where its ports may differ from those of the
	// listeners; zero: they do not.
	GatewayService cache.ObjectName
	IngressClass   string
	TLSSecret      string    // in the exported Service's namespace; empty: Ingresses have no TLS
	Ports          PortRange // from which ports of their own are given
	Records        string    // namespace of the records
	Aliases        string    // namespace of the aliases, for ToNames
	IncludeSystem  bool      // publish kube-system's Services, too
}

// NamespaceOf is where the objects of a kind are that route to an exported Service.
func (p Policy) NamespaceOf(kind Kind, service cache.ObjectName) string {
	if kind == Alias {
		return p.Aliases
	}
	return service.Namespace
}

// To tells whether a target is used.
func (p Policy) To(target Target) bool { return slices.Contains(p.Targets, target) }
