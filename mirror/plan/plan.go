// Package plan decides what is to be written for a mirror. It is pure: a Snapshot of everything
// that is known of one key goes in, a Plan comes out, and nothing else is looked at. It imports no
// client, no clock, no logger and no context.
//
// names.go and ownership.go say what a mirror is called and which objects are ours, policy.go which
// Services are mirrored, service.go and endpoints.go how a mirror should be, rename.go what becomes of one
// that exists, decide.go what is to be written for that, and problem.go what is wrong with it. trim.go is what
// caches hold of an object.
package plan

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Snapshot is everything that is known of one key, at one moment.
type Snapshot struct {
	Key  cache.ObjectName
	Live Objects
	// Leftovers are the EndpointSlices that a selector, once set on the mirror, left behind.
	Leftovers  []*metav1.PartialObjectMetadata
	Candidates []Candidate // by remote name; one for each remote that can have to do with the key
	Namespace  NamespaceState
	Families   []corev1.IPFamily // that the local cluster gives to mirrors; empty: not known yet
	Memory     Memory
	Origin     *Origin // nil: no Service of ours is live, it records none, or that is a candidate; of a part, that of its slices
	// Parts are the live EndpointSlices of the remotes of a merged mirror, by remote.
	Parts map[string]Objects
	// Moving are the sources of these, as far as they move to another key; of a remote without slices, as long as no mirror
	// under that key is for it.
	Moving []Candidate
	// Refused are the remotes whose slices the local API server refused lately: others are preferred, where only one serves.
	Refused map[string]bool
	// Mirror is, of a part, the live Service of the mirror, ours or not; nil: there is none.
	Mirror *corev1.Service
}

// Candidate is what a remote cluster has to say of a key.
type Candidate struct {
	Cluster string
	UID     types.UID // of the cluster; empty: not known
	// Watched tells that the remote's exports of the key's namespace are known, so that an absence is one.
	Watched bool
	// Service is the exported Service whose mirror has the key; nil where there is none.
	Service *corev1.Service
	Gateway *gateway.Gateway // nil: not known, addresses stay as they are
	// NoGateway is why the Service has no gateway; nil where it has one.
	NoGateway error
	// Assigned is what else decides about the Service's gateway ports.
	Assigned gateway.Assignments
}

func (c Candidate) name() cache.ObjectName { return cache.MetaObjectToName(c.Service) }

// unpublished tells that the records of the remote's publisher, which are read, are not known yet.
func (c Candidate) unpublished() bool {
	return c.Assigned.Published != nil && c.Assigned.Published.Unknown
}

// Mapping says which gateway port serves which port of the Service; none while the gateway is not known.
func (c Candidate) Mapping() []gateway.Mapping {
	if c.Service == nil || c.Gateway == nil {
		return nil
	}
	all, _ := c.Gateway.Map(c.Service, c.Assigned)
	return all
}

func (c Candidate) problem(reason Reason, message string) Problem {
	return Problem{Reason: reason, Cluster: c.Cluster, Source: c.name(), Message: message}
}

// NamespaceState is the state of a mirror's namespace.
type NamespaceState int

// The states of a namespace.
const (
	NamespaceActive NamespaceState = iota
	NamespaceAbsent
	NamespaceDeleting
)

// Memory is what cannot be read from the clusters.
type Memory struct {
	Tombstone  *Tombstone      // nil: nothing was lost
	Backoffs   [Kinds]*Backoff // of objects that must not be written yet
	Rejected   bool            // the API server rejected the Service when it was last written
	SliceCheck bool            // it is time to look for the EndpointSlices made of the Endpoints
	// Refreshes are how often the Endpoints were updated for Kubernetes to make EndpointSlices of them, in vain.
	Refreshes int
	// Paused tells that Kubernetes is kept from mirroring the Endpoints, by the label that RestartMirroring set.
	Paused bool
	Stray  Objects // ours, under a Service that turned out to be foreign
}

// Tombstone is what a Service or the addresses under a key had before someone else deleted or
// changed them. It is kept for as long as the exported Service exists.
type Tombstone struct {
	Cluster    string   // the remote whose mirror it was; empty: a foreign Service
	ClusterIPs []string // that the mirror had
	Replaced   []string // ClusterIPs that it had until someone recreated it with others, which it keeps
	Families   []corev1.IPFamily
	Addresses  Objects // Endpoints and EndpointSlices that are gone, as they were
	// Releasing tells that this was a moment ago, and that Kubernetes may not have released the
	// ClusterIPs, or not have deleted the Endpoints of the Service, yet.
	Releasing bool
}

// Backoff keeps an object from being written for a while.
type Backoff struct {
	Problem Problem
	Only    metav1.Object // while this is what is desired; nil: whatever is
}

// Plan is what is to be done for one key.
type Plan struct {
	Key           cache.ObjectName
	Cluster       string     // the remote that the mirror is of, or was
	Source        *Candidate // nil: there is to be no mirror, or it is left alone
	Live, Desired Objects
	Steps         []Step // in this order
	Problems      []Problem
	Requeue       Requeue
	BackedOff     [Kinds]bool // a step for this object is left out
	Forget        bool        // nothing needs to be remembered of the key
	DropTombstone bool
	// Successor is the mirror that takes this one's place, which is deleted once it is complete.
	Successor *Successor
	Standby   bool // it is the part of a remote that does not serve
	Replaced  bool // the live Service has other ClusterIPs than the mirror had, which is reported

	merged    *mergedBasis
	policy    Policy
	families  []corev1.IPFamily
	tombstone *Tombstone
}

// Releasing tells that what had the mirror's name went a moment ago.
func (p Plan) Releasing() bool { return p.tombstone != nil && p.tombstone.Releasing }

// Complete tells that the mirror of a remote's Service is as it should be and, where endpoints are wanted, has some.
func (p Plan) Complete(cluster string, source cache.ObjectName, endpoints bool) bool {
	return p.Source != nil && p.Source.Cluster == cluster && p.Source.name() == source && p.Settled() &&
		(!endpoints || len(p.Live.Endpointed()) > 0) &&
		!slices.ContainsFunc(p.Problems, func(problem Problem) bool { return problem.Source == source && problem.Reason == NotRouted })
}

// Settled tells that nothing is to be done for a mirror that is to exist.
func (p Plan) Settled() bool {
	return p.Source != nil && len(p.Steps) == 0 && p.BackedOff == [Kinds]bool{}
}

// Writes tells whether any of these objects would be written or, of none, anything at all.
func (p Plan) Writes(kinds ...Kind) bool {
	return slices.ContainsFunc(p.Steps, func(step Step) bool {
		return len(kinds) == 0 && step.Action.Writes() || step.Action.ofKind() && slices.Contains(kinds, step.Kind)
	})
}

// WritesMirror tells whether an object of the mirror itself is written.
func (p Plan) WritesMirror() bool { return p.Writes(allKinds...) }

// Takes tells whether there is a step with this action.
func (p Plan) Takes(action Action) bool {
	return slices.ContainsFunc(p.Steps, func(step Step) bool { return step.Action == action })
}

// Overwrites tells whether an object that was just written is already not as desired: something
// changed it on its way, as a mutating webhook does.
func (p Plan) Overwrites(k Kind, got metav1.Object) bool {
	live := p.Live
	live.Set(k, got)
	want := p.policy.desired(k, p.basis(live)) // nil if what the object had is all that was known
	return want == nil || k.differs(got, want)
}

func (p Plan) basis(live Objects) basis {
	return basis{Candidate: *p.Source, key: MirrorKey(p.Key), live: live, families: p.families, tombstone: p.tombstone, merged: p.merged}
}

// Step is one thing to do.
type Step struct {
	Action Action
	Kind   Kind          // of Create, Update and Delete
	Object metav1.Object // to write; of Delete the live one
	Live   metav1.Object // of Update
	// AfterAll tells that the step is taken only if every step before it succeeded.
	AfterAll bool
}

// Action is what a step does.
type Action int

// The actions.
const (
	CreateNamespace       Action = iota // the mirror's
	CheckForeignEndpoints               // fails if foreign Endpoints have the mirror's name
	TryService                          // a dry run of creating the Service, which was rejected before
	Create
	Update
	Delete
	AwaitSlices    // fails until Kubernetes has made EndpointSlices of all addresses of the Endpoints, the step's object
	DeleteLeftover // an EndpointSlice of Kubernetes' own
	CheckSlices    // looks whether Kubernetes has made EndpointSlices of the Endpoints, and has it try again
	// RestartMirroring looks, too, and keeps Kubernetes from mirroring the Endpoints for a while, so that it
	// forgets what it knows of their EndpointSlices.
	RestartMirroring
)

// Writes tells an action that changes the local cluster whenever it is taken.
func (a Action) Writes() bool {
	return a != CheckForeignEndpoints && a != TryService && a != AwaitSlices && a != CheckSlices && a != RestartMirroring
}

// ofKind tells an action that writes an object of the step's kind.
func (a Action) ofKind() bool { return a == Create || a == Update || a == Delete }

// Requeue is when a key is looked at again although nothing has changed.
type Requeue int

// The values, the sooner the greater.
const (
	NoRequeue        Requeue = iota
	RequeueForeign           // rarely: foreign Endpoints and EndpointSlices are in no cache
	RequeueWithDelay         // with the queue's back-off
)
