package plan

import (
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// FailoverAnnotation on a Service with FailoverLabel lists the remotes that serve while no local endpoint is ready, the
// preferred one first, with commas between them.
const FailoverAnnotation = "service-mirror.io/failover"

// maxFailoverRemotes bounds the slices that one annotation can have created.
const maxFailoverRemotes = 16

// FailsOver tells a Service that its owner has labelled for failover.
func FailsOver(svc *corev1.Service) bool { return svc.Labels[FailoverLabel] == failoverOn }

// FailoverRemotes are the remotes that a Service's annotation lists, each once.
func FailoverRemotes(svc *corev1.Service) (names []string) {
	for name := range strings.SplitSeq(svc.Annotations[FailoverAnnotation], ",") {
		if name = strings.TrimSpace(name); name != "" && !slices.Contains(names, name) && len(names) < maxFailoverRemotes {
			names = append(names, name)
		}
	}
	return names
}

// FailoverPolicy is what the operator decides about failover.
type FailoverPolicy struct {
	Policy
	After time.Duration // how long no local endpoint must have been ready until a remote serves
	Back  time.Duration // how long one must have been ready until none does any more
}

// FailoverSnapshot is everything that is known of a Service with failover, at one moment.
type FailoverSnapshot struct {
	Key     cache.ObjectName
	Service *corev1.Service // nil: it does not exist, or is not labelled
	Local   LocalEndpoints
	Live    []*discoveryv1.EndpointSlice // ours
	Foreign map[string]bool              // the names of the Service's other slices
	Remotes []FailoverRemote             // those that the annotation lists, in its order
	// Active tells that remotes were to serve when this was last decided; nil: it was not, and what is live says it.
	Active *bool
	// Refused are the remotes whose slices the local API server refused lately: others are preferred.
	Refused map[string]bool
}

// LocalEndpoints are the endpoints that the Service has without ours.
type LocalEndpoints struct {
	Known bool
	Ready bool          // one of them is
	For   time.Duration // how long this has been so, as far as is known
}

// FailoverRemote is what is known of one remote.
type FailoverRemote struct {
	// Candidate has the exported Service to which the gateway routes the local Service's name; nil: there is none.
	Candidate
	Configured bool
}

// FailoverState is who serves a Service with failover.
type FailoverState string

// The states.
const (
	FailoverLocal       FailoverState = "local"       // local endpoints, or none for less than the time until a remote does
	FailoverRemoteOnly  FailoverState = "failed over" // a remote
	FailoverBoth        FailoverState = "both"        // a remote, and local endpoints that have become ready
	FailoverUnavailable FailoverState = "unavailable" // no local endpoint is ready, and no remote can serve
	FailoverRefused     FailoverState = "refused"     // the Service cannot fail over
	FailoverUnknown     FailoverState = "unknown"     // its local endpoints are not known yet: all stays as it is
)

// FailoverStates are all of them.
var FailoverStates = []FailoverState{FailoverLocal, FailoverRemoteOnly, FailoverBoth, FailoverUnavailable, FailoverRefused, FailoverUnknown}

// FailoverPlan is what is to be done for one Service with failover.
type FailoverPlan struct {
	Key      cache.ObjectName
	State    FailoverState // empty: the Service does not exist, or is not labelled
	Serving  string        // the remote that serves; empty: none does
	Active   bool          // remotes are to serve
	Steps    []SliceStep   // in this order; that one fails is no reason to leave out the next
	Problems []Problem
	After    time.Duration // when to look again although nothing has changed; zero: never
}

// SliceStep writes one EndpointSlice.
type SliceStep struct {
	Action Action // Create, Update or Delete
	Remote string
	Slice  *discoveryv1.EndpointSlice // as it should be; of Delete, as it is
	Live   *discoveryv1.EndpointSlice // of Update
	// Replaces is, of Create, the slice of ours that has the name, and is deleted first: it lacks the label, and the admission
	// policy permits no update that adds it. nil: there is none.
	Replaces *discoveryv1.EndpointSlice
	serving  bool // it has a ready endpoint
}

// Serves tells a step by which a remote serves, or goes on to.
func (s SliceStep) Serves() bool { return s.serving }

// Stops tells a step by which a remote that serves no longer does, although its slice stays.
func (s SliceStep) Stops() bool { return s.Action == Update && !s.serving && HasReady(s.Live) }

// Decide says how the slices beside a Service are to be, and what is wrong with its failover.
func (p FailoverPolicy) Decide(s FailoverSnapshot) FailoverPlan {
	d := failover{policy: p, snapshot: s, plan: FailoverPlan{Key: s.Key}}
	switch refusal := p.refuse(s); {
	case s.Service == nil:
	case refusal != nil:
		d.plan.State, d.plan.Problems = FailoverRefused, []Problem{*refusal}
	default:
		d.decide()
	}
	d.write()
	return d.plan
}

// refuse gives the reason why a Service cannot fail over; nil if it can.
func (p FailoverPolicy) refuse(s FailoverSnapshot) *Problem {
	svc := s.Service
	if svc == nil {
		return nil
	}
	refuse := func(reason Reason, why string) *Problem { return &Problem{Reason: reason, Message: why} }
	_, mirror := Owner(svc)
	switch {
	case mirror:
		return refuse(IsMirror, "it is a mirror itself: label a local Service instead")
	case s.Key.Namespace == metav1.NamespaceDefault && s.Key.Name == "kubernetes":
		return refuse(SystemService, "it is the local cluster's API server, which no remote can replace: remove the label "+FailoverLabel)
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return refuse(ExternalName, "it is of type ExternalName and has no endpoints: use a Service with a ClusterIP")
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		return refuse(Headless, "it is headless: DNS would return the gateway's address, which serves other ports. Use a Service with a ClusterIP")
	case svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal:
		return refuse(LocalTraffic, "its internalTrafficPolicy is Local, which excludes the gateway's endpoints: set it to Cluster")
	case len(s.Remotes) == 0:
		return refuse(NoRemote, "the annotation "+FailoverAnnotation+" lists no remote: list remotes in order of preference")
	}
	return nil
}

// failover is a FailoverPlan in the making.
type failover struct {
	policy   FailoverPolicy
	snapshot FailoverSnapshot
	offers   []offer
	plan     FailoverPlan
}

func (d *failover) decide() {
	d.activate()
	for _, r := range d.snapshot.Remotes {
		d.offers = append(d.offers, d.offer(r))
	}
	if d.plan.Active {
		d.plan.Serving = d.choose()
	}
	local := d.snapshot.Local
	switch {
	case !local.Known:
		d.plan.State = FailoverUnknown
	case d.plan.Serving == "" && (local.Ready || !d.plan.Active):
		d.plan.State = FailoverLocal
	case d.plan.Serving == "":
		d.plan.State = FailoverUnavailable
		d.plan.Problems = append(d.plan.Problems, Problem{Reason: NoHealthyRemote, Message: "no local endpoint is ready and no remote can serve: see the problems of each remote"})
	case local.Ready:
		d.plan.State = FailoverBoth
	default:
		d.plan.State = FailoverRemoteOnly
	}
}

// activate decides whether remotes are to serve. While the local endpoints are not known that stays as it is.
func (d *failover) activate() {
	s, p := d.snapshot, d.policy
	active := slices.ContainsFunc(s.Live, HasReady)
	if s.Active != nil {
		active = *s.Active
	}
	switch {
	case !s.Local.Known, s.Local.Ready != active:
	case !active && s.Local.For >= p.After, active && s.Local.For >= p.Back:
		active = !active
	case active:
		d.plan.After = p.Back - s.Local.For
	default:
		d.plan.After = p.After - s.Local.For
	}
	d.plan.Active = active
}

// choose is the first remote that is healthy or, if none is, the first that nothing is known of.
func (d *failover) choose() string {
	for _, least := range []fitness{usable, unsure} {
		for _, o := range d.offers {
			if o.healthy >= least {
				return o.remote
			}
		}
	}
	return ""
}

func (d *failover) problem(r FailoverRemote, reason Reason, message string) {
	problem := Problem{Reason: reason, Cluster: r.Cluster, Message: message}
	if r.Service != nil {
		problem.Source = r.name()
	}
	d.plan.Problems = append(d.plan.Problems, problem)
}

// write adds the steps: first those that have a remote serve, then those that have none, then deletions.
func (d *failover) write() {
	left := map[cache.ObjectName]*discoveryv1.EndpointSlice{}
	for _, slice := range d.snapshot.Live {
		left[cache.MetaObjectToName(slice)] = slice
	}
	for _, o := range d.offers {
		addrs := slices.Clone(o.addrs)
		for i := range addrs {
			addrs[i].ready = addrs[i].ready && o.remote == d.plan.Serving
		}
		for _, of := range o.slices {
			live := left[of.ObjectName()]
			if o.gone || o.kept && live == nil {
				continue
			}
			want := of.desired(live, o.ports, addrs)
			if want == nil && !o.kept {
				continue
			}
			delete(left, of.ObjectName())
			if want == nil || (o.kept || o.partly[corev1.IPFamily(of.Family)] && live != nil) && !labelledForFailover(live) && HasReady(live) == HasReady(want) {
				continue // if it were replaced, and that failed, nothing would be known of what was kept
			}
			step := SliceStep{Action: Create, Remote: o.remote, Slice: want, Live: live, serving: HasReady(want)}
			switch {
			case live == nil:
			case labelledForFailover(live):
				step.Action = Update
			default:
				step.Slice, step.Live, step.Replaces = of.desired(nil, o.ports, addrs), nil, live
			}
			if live == nil || SliceDiffers(live, want) {
				d.plan.Steps = append(d.plan.Steps, step)
			}
		}
	}
	slices.SortStableFunc(d.plan.Steps, func(a, b SliceStep) int {
		switch {
		case a.serving == b.serving:
			return 0
		case a.serving:
			return -1
		}
		return 1
	})
	for _, slice := range d.snapshot.Live {
		if left[cache.MetaObjectToName(slice)] != nil {
			of, _ := RemoteSliceOf(slice)
			d.plan.Steps = append(d.plan.Steps, SliceStep{Action: Delete, Remote: of.Remote, Slice: slice})
		}
	}
}

// HasReady tells that a slice has an endpoint that is ready.
func HasReady(slice *discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool { return e.Conditions.Ready == nil || *e.Conditions.Ready })
}

// LocallyReady tells whether one of a Service's own slices has an endpoint that kube-proxy uses. With
// publishNotReadyAddresses Kubernetes calls all ready, so that it is by whether they serve.
func LocallyReady(svc *corev1.Service, own []*discoveryv1.EndpointSlice) bool {
	return slices.ContainsFunc(own, func(slice *discoveryv1.EndpointSlice) bool {
		return carries(slice) && slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
			condition := e.Conditions.Ready
			if svc.Spec.PublishNotReadyAddresses {
				condition = e.Conditions.Serving
			}
			return condition == nil || *condition
		})
	})
}

// carries tells a slice that kube-proxy reads.
func carries(slice *discoveryv1.EndpointSlice) bool {
	return slice.AddressType != discoveryv1.AddressTypeFQDN && !slices.ContainsFunc(stopTraffic, func(label string) bool {
		_, has := slice.Labels[label]
		return has
	})
}
