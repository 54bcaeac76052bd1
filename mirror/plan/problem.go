package plan

import (
	"fmt"
	"slices"

	"k8s.io/client-go/tools/cache"
)

// Reason is the one-word cause of an exported Service not being mirrored, or not wholly.
type Reason string

// Refusals: nothing is written until their cause changes.
const (
	IsMirror      Reason = "IsMirror"      // the exported Service is itself a mirror
	SystemService Reason = "SystemService" // default/kubernetes, or in kube-system
	ExternalName  Reason = "ExternalName"  // of type ExternalName
	Headless      Reason = "Headless"      // without a ClusterIP
	NoTCPPort     Reason = "NoTCPPort"     // no port that a gateway can serve
	InvalidName   Reason = "InvalidName"   // the mirror's name is too long, or no valid name
	NoClusterName Reason = "NoClusterName" // it is limited to some clusters, and what the local one is called is not known
	Rejected      Reason = "Rejected"      // the local API server refuses the object
)

// Waiting: nothing is written until the local cluster changes.
const (
	NamespaceMissing     Reason = "NamespaceMissing"
	NamespaceTerminating Reason = "NamespaceTerminating"
	Conflict             Reason = "Conflict" // a foreign object, or another remote's mirror, has the name
)

// Shortcomings: the mirror exists, but something about it is not as it should be.
const (
	PortConflict       Reason = "PortConflict"       // of a merged mirror: the remote's ports differ from those of the first remote
	PortNotServed      Reason = "PortNotServed"      // the gateway serves no port for one of the mirror's
	NoAddress          Reason = "NoAddress"          // the gateway has no address that the mirror can have
	Renaming           Reason = "Renaming"           // it has another name now, and the mirror with that is not complete
	ClusterIPLost      Reason = "ClusterIPLost"      // recreated, but not with the ClusterIPs that it had
	NoReadyEndpoint    Reason = "NoReadyEndpoint"    // the exported Service has none that is ready, as its record says
	NotRouted          Reason = "NotRouted"          // the gateway routes other host names, as the exported Service's record says
	NoEndpointSlices   Reason = "NoEndpointSlices"   // Kubernetes makes none of the mirror's Endpoints
	AnnotationsRemoved Reason = "AnnotationsRemoved" // users' annotations that the API server refused
	TooManyDeletes     Reason = "TooManyDeletes"     // its deletion waits for an operator's consent
	Overwritten        Reason = "Overwritten"        // another program changes what is written
	WriteFailed        Reason = "WriteFailed"        // a write failed; it is retried
	NoGateway          Reason = "NoGateway"          // of the publisher: the Gateway that routes attach to does not exist
	NotAccepted        Reason = "NotAccepted"        // of the publisher: the gateway's implementation refuses a route
	NotReached         Reason = "NotReached"         // a request to it does not arrive: found by verification, not by a sync
)

// Of failover alone.
const (
	NoRemote         Reason = "NoRemote"         // the annotation lists none
	UnknownRemote    Reason = "UnknownRemote"    // it lists one that is not configured
	NotExported      Reason = "NotExported"      // the remote does not export the Service
	LocalTraffic     Reason = "LocalTraffic"     // internalTrafficPolicy is Local
	NoHealthyAddress Reason = "NoHealthyAddress" // none of the gateway's answers its probes
	NoHealthyRemote  Reason = "NoHealthyRemote"  // no local endpoint is ready, and no remote can serve
)

// FailoverReasons are those that a Service with failover can have.
var FailoverReasons = []Reason{
	IsMirror, SystemService, ExternalName, Headless, LocalTraffic, NoRemote, UnknownRemote, NotExported, NoTCPPort, NoClusterName,
	PortNotServed, NoAddress, NotRouted, NoReadyEndpoint, NoHealthyAddress, NoHealthyRemote, Conflict, Overwritten, Rejected, WriteFailed,
}

// Reasons are those that a mirror can have.
var Reasons = []Reason{
	IsMirror, SystemService, ExternalName, Headless, NoTCPPort, InvalidName, NoClusterName, Rejected,
	NamespaceMissing, NamespaceTerminating, Conflict,
	PortNotServed, PortConflict, NoAddress, NoReadyEndpoint, NotRouted, NoEndpointSlices, Renaming, ClusterIPLost, AnnotationsRemoved, TooManyDeletes, Overwritten, WriteFailed, NotReached,
}

// PublisherReasons are those that only an exported Service can have, in its own cluster.
var PublisherReasons = []Reason{NoGateway, NotAccepted}

// State is the state of an exported Service's mirror.
type State string

// The states.
const (
	StateMirrored   State = "mirrored"   // as it should be, except for what its problems say
	StateIncomplete State = "incomplete" // it exists, but not all of it reaches the remote
	StateWaiting    State = "waiting"    // not written until the local cluster changes
	StateConflict   State = "conflict"   // its name is taken
	StateRefused    State = "refused"    // not written until the exported Service changes
	StateOrphan     State = "orphan"     // it exists, but no known remote exports its Service
)

// States are all states, from the best to the worst; no mirror of an exported Service is an orphan.
var States = []State{StateMirrored, StateIncomplete, StateWaiting, StateConflict, StateRefused, StateOrphan}

// Worse is the worse of two states of an exported Service's mirror.
func (s State) Worse(other State) State {
	if slices.Index(States, other) > slices.Index(States, s) {
		return other
	}
	return s
}

// State is the state of a mirror that has such a problem.
func (r Reason) State() State {
	switch r {
	case NamespaceMissing, NamespaceTerminating:
		return StateWaiting
	case Conflict:
		return StateConflict
	case TooManyDeletes:
		return StateOrphan
	case PortNotServed, PortConflict, NoAddress, NoReadyEndpoint, NotRouted, NoEndpointSlices, Overwritten, WriteFailed, NotReached, NoGateway, NotAccepted:
		return StateIncomplete
	case Renaming, ClusterIPLost, AnnotationsRemoved:
		return StateMirrored
	}
	return StateRefused
}

// Lasting reports whether the cause is in the exported Service or in a flag, so that waiting does not change it. Other
// causes may end by themselves: a namespace, an address, a gateway port or a record may be about to be created.
func (r Reason) Lasting() bool {
	switch r {
	case IsMirror, SystemService, ExternalName, Headless, InvalidName, NoClusterName:
		return true
	}
	return false
}

// Happened tells a reason that is reported when it occurs, and is not a state that ends.
func (r Reason) Happened() bool { return r == ClusterIPLost || r == AnnotationsRemoved }

// Problem is one thing that is wrong with one mirror. It is comparable.
type Problem struct {
	Reason  Reason
	Cluster string           // of the exported Service
	Source  cache.ObjectName // the exported Service; zero where the problem is not about one
	Message string
}

func (p *Problem) Error() string { return fmt.Sprintf("%s: %s", p.Reason, p.Message) }

// NoNamespace tells a problem of a mirror whose namespace is missing, or about to be: no Event can
// be created there.
func (p Problem) NoNamespace() bool {
	return p.Reason == NamespaceMissing || p.Reason == NamespaceTerminating
}

// namespaceProblem is why mirrors cannot be created in a namespace; nil where they can.
func namespaceProblem(name string, state NamespaceState) *Problem {
	switch state {
	case NamespaceAbsent:
		return &Problem{Reason: NamespaceMissing, Message: "namespace " + name + " does not exist in the local cluster: create it, or use --create-namespaces"}
	case NamespaceDeleting:
		return &Problem{Reason: NamespaceTerminating, Message: "namespace " + name + " is being deleted"}
	}
	return nil
}
