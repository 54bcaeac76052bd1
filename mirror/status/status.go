// Package status shows what the daemon knows: a page for people, at /, and the
// same for programs, at /status.json. It presents what it is given: it has no
// client and no cache, and keeps nothing from one request to the next.
//
// The page needs no script and loads nothing else. What comes from remotes (names,
// messages) is untrusted: it is escaped, shortened, and stripped of characters that
// would reorder the text around it.
package status

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
)

// States of a mirror.
const (
	Mirrored   = string(plan.StateMirrored)
	Incomplete = string(plan.StateIncomplete)
	Waiting    = string(plan.StateWaiting)
	Refused    = string(plan.StateRefused) // also a state of a remote
	Conflict   = string(plan.StateConflict)
	Orphan     = string(plan.StateOrphan)
)

// States of a remote; besides these, Refused: another cluster than before
// answers.
const (
	Up         = "up"
	Down       = "down"
	Connecting = "connecting"
)

// Health of a gateway's address, as in gateway.Health. Any other text is shown as it is.
const (
	Ready     = "ready"
	NotReady  = "not ready"
	Unprobed  = "not probed yet"
	NotProbed = "not probed" // no address is: nothing is known
)

// Roles of a remote in a merged mirror.
const (
	Serving = "serving"
	Standby = "standby"
)

// Results of the verification of a mirror, as in verify.Result, that the page counts. Any other text is shown as it is.
const (
	Reached     = string(verify.Reached)
	NotKnown    = string(verify.NotKnown)
	NotVerified = string(verify.NotVerified)
)

// Page is all that is shown. A zero time is one that is not known, and is omitted
// from the JSON. Lists are never null there.
type Page struct {
	Local      string    `json:"local"`      // the local cluster's name
	Version    string    `json:"version"`    // of the daemon
	ElectionOn bool      `json:"electionOn"` // one of several replicas leads
	Leader     bool      `json:"leader"`     // this one does
	LeaderPod  string    `json:"leaderPod"`  // the pod that leads, as this one last saw; empty: not known, or no election
	Started    time.Time `json:"started,omitzero"`
	Now        time.Time `json:"now,omitzero"` // when this was the state
	Synced     bool      `json:"synced"`       // the local caches are filled
	Verifying  bool      `json:"verifying"`    // mirrors are verified by requests: --verify
	Problems   []Problem `json:"problems"`     // of parts of the local cluster
	Unknown    int       `json:"unknown"`      // objects with a mirror's labels that name a remote which is not configured
	Remotes    []Remote  `json:"remotes"`
	// Failover are the local Services that fail over to remotes.
	Failover []Failover `json:"failover"`
	Mirrors  []Mirror   `json:"mirrors"`
}

// Failover is one Service of the local cluster that fails over to remotes.
type Failover struct {
	Namespace string            `json:"namespace"`
	Name      string            `json:"name"`
	State     string            `json:"state"`   // local, failed over, both, unavailable, refused, unknown
	Serving   string            `json:"serving"` // the remote that serves; empty: none does
	Remotes   []string          `json:"remotes"` // in the order of preference
	Problems  []FailoverProblem `json:"problems"`
}

// FailoverProblem is one thing that is wrong with one of them.
type FailoverProblem struct {
	Remote  string `json:"remote"` // empty: it is not about one
	Reason  string `json:"reason"`
	Message string `json:"message"`
}

// healthy reports whether nothing has to be done about it.
func (f *Failover) healthy() bool { return f.State == FailoverLocal && len(f.Problems) == 0 }

// FailoverLocal is the state in which local endpoints serve.
const FailoverLocal = string(plan.FailoverLocal)

// Remote is one remote cluster.
type Remote struct {
	Name      string    `json:"name"`               // as --remote says
	State     string    `json:"state"`              // up, down, connecting, refused
	Since     time.Time `json:"since,omitzero"`     // of the state
	LastSync  time.Time `json:"lastSync,omitzero"`  // the caches were last filled
	LastEvent time.Time `json:"lastEvent,omitzero"` // something in the remote was last seen to change
	UID       string    `json:"uid"`                // of its kube-system namespace; empty: not known
	Problems  []Problem `json:"problems"`
	Exported  int       `json:"exported"` // Services
	Gateways  []Gateway `json:"gateways"` // the first one is for all that name no other
}

// Problem is what is wrong with one part of a remote, or of the local cluster.
type Problem struct {
	Part  string `json:"part"`
	Cause string `json:"cause"`
}

// Parts of the local cluster whose problems are not that they cannot be read.
const (
	Misnamed  = "labels of Secrets"        // which name no remote; with the namespace
	Listeners = "listeners of the Gateway" // which the publisher cannot write
)

// IsMisnamed tells whether a problem is of Secrets that name no remote.
func (p Problem) IsMisnamed() bool { return strings.HasPrefix(p.Part, Misnamed) }

// Gateway is one gateway of a remote.
type Gateway struct {
	Name      string    `json:"name"`  // namespace/name, or "address=" if no Service is read
	Known     bool      `json:"known"` // if not, mirrors keep the addresses that they have
	Addresses []Address `json:"addresses"`
	Problem   string    `json:"problem"` // empty: none
}

// Address is one address of a gateway.
type Address struct {
	IP     string `json:"ip"`
	Health string `json:"health"` // ready, not ready, not probed yet, not probed
}

// Mirror is the mirror of one exported Service, whether it exists or not, or an
// orphan.
type Mirror struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	Cluster   string `json:"cluster"` // the remote's name
	Source    string `json:"source"`  // namespace/name in the remote
	State     string `json:"state"`   // mirrored, incomplete, waiting, refused, conflict, orphan
	// Role is, of a merged mirror, what the remote does: serving or standby.
	Role      string          `json:"role,omitempty"`
	ClusterIP string          `json:"clusterIP"`
	Ports     []string        `json:"ports"`
	Mapping   []Mapping       `json:"mapping"` // of its ports to those of the gateway; none while that is not known
	Endpoints []string        `json:"endpoints"`
	Problems  []MirrorProblem `json:"problems"`
	// Verified is what a request to it came to: reached, not routed, … , not verified.
	Verified   string    `json:"verified"`
	VerifiedAt time.Time `json:"verifiedAt,omitzero"`
}

// Mapping says which port of the gateway serves a port of a mirror.
type Mapping struct {
	Name        string `json:"name"`
	Port        int32  `json:"port"`
	Protocol    string `json:"protocol"`
	Class       string `json:"class"`       // that it needs: http, https, grpc, tcp, udp, sctp, unknown
	GatewayPort int32  `json:"gatewayPort"` // 0: none serves it
	Line        string `json:"line"`        // of the port rule that decided; empty: none did
}

// String is what the page shows of it.
func (m Mapping) String() string {
	return gateway.Mapping{
		Port: corev1.ServicePort{Port: m.Port, Protocol: corev1.Protocol(m.Protocol)}, Target: m.GatewayPort, Line: gateway.Line(m.Line),
	}.String()
}

// shown are the ports of a mirror as the page shows them: with where they go, if that is known.
func (m *Mirror) shown() []string {
	if len(m.Mapping) == 0 {
		return m.Ports
	}
	return textsOf(m.Mapping)
}

// MirrorProblem is one thing that is wrong with one mirror.
type MirrorProblem struct {
	Reason  string `json:"reason"` // one word, also a label of metrics
	Message string `json:"message"`
}

// healthy reports whether nothing has to be done about a mirror. One whose gateway answers no probe is as it should be,
// and serves nothing.
func (m *Mirror) healthy() bool {
	return m.State == Mirrored && len(m.Problems) == 0 && !m.noneReady()
}

// healthy reports whether nothing has to be done about a remote.
func (r *Remote) healthy() bool {
	for i := range r.Gateways {
		if !r.Gateways[i].healthy() {
			return false
		}
	}
	return r.State == Up && len(r.Problems) == 0
}

// healthy reports whether all addresses of a gateway can be expected to carry traffic.
func (g *Gateway) healthy() bool {
	for _, a := range g.Addresses {
		if a.Health == NotReady {
			return false
		}
	}
	return g.Known && g.Problem == "" && len(g.Addresses) > 0
}
