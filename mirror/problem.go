package mirror

import (
	"fmt"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/status"
)

// Reason says in one word why an exported Service is not, or not wholly,
// mirrored.
type Reason string

// Refusals: nothing is written until their cause changes.
const (
	IsMirror      Reason = "IsMirror"      // the exported Service is itself a mirror
	SystemService Reason = "SystemService" // default/kubernetes, or in kube-system
	ExternalName  Reason = "ExternalName"  // of type ExternalName
	Headless      Reason = "Headless"      // without a ClusterIP
	NoTCPPort     Reason = "NoTCPPort"     // no port that can be carried
	InvalidName   Reason = "InvalidName"   // the mirror's name would be too long, or is no name
	Rejected      Reason = "Rejected"      // the local API server refuses the object
)

// Waiting: nothing is written until the local cluster changes.
const (
	NamespaceMissing     Reason = "NamespaceMissing"
	NamespaceTerminating Reason = "NamespaceTerminating"
	Conflict             Reason = "Conflict" // a stranger, or another remote's mirror, has the name
)

// Shortcomings: the mirror stands, but something about it is not as it should be.
const (
	PortNotServed Reason = "PortNotServed" // the gateway serves no port for one of the mirror's
	ClusterIPLost Reason = "ClusterIPLost" // made again, but not with the ClusterIP that it had
	Overwritten   Reason = "Overwritten"   // what we write comes back different
	WriteFailed   Reason = "WriteFailed"   // the local API server did not take a write; tried again
)

var reasons = []Reason{
	IsMirror, SystemService, ExternalName, Headless, NoTCPPort, InvalidName, Rejected,
	NamespaceMissing, NamespaceTerminating, Conflict, PortNotServed, ClusterIPLost, Overwritten, WriteFailed,
}

// State is what a mirror is that has such a problem.
func (r Reason) State() string {
	switch r {
	case NamespaceMissing, NamespaceTerminating:
		return status.Waiting
	case Conflict:
		return status.Conflict
	case PortNotServed, Overwritten, WriteFailed:
		return status.Incomplete
	case ClusterIPLost:
		return status.Mirrored
	}
	return status.Refused
}

// missing tells that there is no namespace in which anything could be told.
func (p Problem) missing() bool {
	return p.Reason == NamespaceMissing || p.Reason == NamespaceTerminating
}

// Problem is one thing that is wrong with one mirror. It is comparable.
type Problem struct {
	Reason  Reason
	Cluster string           // of the exported Service
	Source  cache.ObjectName // the exported Service; zero where the problem is not about one
	Message string
}

func (p *Problem) Error() string {
	return fmt.Sprintf("%s: %s", p.Reason, p.Message)
}
