package plan

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
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
	Action  Action // Create, Update or Delete
	Remote  string
	Slice   *discoveryv1.EndpointSlice // as it should be; of Delete, as it is
	Live    *discoveryv1.EndpointSlice // of Update
	serving bool                       // it has a ready endpoint
}

// Serves tells a step by which a remote serves, or goes on to.
func (s SliceStep) Serves() bool { return s.serving }

// Stops tells a step by which a remote that serves no longer does, although its slice stays.
func (s SliceStep) Stops() bool { return s.Action == Update && !s.serving && hasReady(s.Live) }

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
		return refuse(IsMirror, "it is itself a mirror: label a Service of the local cluster's own")
	case s.Key.Namespace == metav1.NamespaceDefault && s.Key.Name == "kubernetes":
		return refuse(SystemService, "it is the local cluster's API server, which no remote can replace: remove the label "+FailoverLabel)
	case svc.Spec.Type == corev1.ServiceTypeExternalName:
		return refuse(ExternalName, "it is of type ExternalName, and has no endpoints: use a Service with a ClusterIP")
	case svc.Spec.ClusterIP == corev1.ClusterIPNone:
		return refuse(Headless, "it is headless: DNS would return the gateway's address, where the port is another one. Use a Service with a ClusterIP")
	case svc.Spec.InternalTrafficPolicy != nil && *svc.Spec.InternalTrafficPolicy == corev1.ServiceInternalTrafficPolicyLocal:
		return refuse(LocalTraffic, "its internalTrafficPolicy is Local, which excludes the gateway's endpoints as it excludes those of other nodes: set it to Cluster")
	case len(s.Remotes) == 0:
		return refuse(NoRemote, "the annotation "+FailoverAnnotation+" lists no remote: set it to the names of some, the preferred one first")
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

// offer is what one remote can do.
type offer struct {
	remote  string
	slices  []RemoteSlice // that are not in conflict with foreign ones
	ports   []corev1.EndpointPort
	addrs   []endpoint // ready tells that it may be used
	kept    bool       // nothing is known of the remote now: what is live stays
	gone    bool       // it is known to have nothing to offer
	serves  bool       // it has a ready endpoint now
	healthy fitness
}

// fitness is how much speaks for a remote.
type fitness int

const (
	unusable fitness = iota
	unsure           // nothing is known against it
	usable
)

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
		d.plan.Problems = append(d.plan.Problems, Problem{Reason: NoHealthyRemote, Message: "no local endpoint is ready, and none of its remotes can serve: see what is said of each of them"})
	case local.Ready:
		d.plan.State = FailoverBoth
	default:
		d.plan.State = FailoverRemoteOnly
	}
}

// activate decides whether remotes are to serve. While the local endpoints are not known that stays as it is.
func (d *failover) activate() {
	s, p := d.snapshot, d.policy
	active := slices.ContainsFunc(s.Live, hasReady)
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

// offer is what a remote can do, and what is wrong with it.
func (d *failover) offer(r FailoverRemote) offer {
	o := offer{remote: r.Cluster}
	live := d.live(r.Cluster)
	o.serves = slices.ContainsFunc(live, hasReady)
	if len(validation.IsDNS1123Label(r.Cluster)) > 0 {
		d.problem(r, UnknownRemote, fmt.Sprintf("%.70q in the annotation %s is not the name of a remote: correct it", r.Cluster, FailoverAnnotation))
		o.gone = true
		return o
	}
	for _, slice := range RemoteSlices(d.snapshot.Key, r.Cluster, true) {
		switch {
		case d.snapshot.Foreign[slice.Name()]:
			d.problem(r, Conflict, fmt.Sprintf("a foreign EndpointSlice has the name %s: delete it, or remove the remote from the annotation", slice.Name()))
		case len(d.snapshot.Service.Spec.IPFamilies) == 0 || slices.Contains(d.snapshot.Service.Spec.IPFamilies, corev1.IPFamily(slice.Family)):
			o.slices = append(o.slices, slice)
		}
	}
	d.fill(&o, r, live)
	if len(o.ports) == 0 || !slices.ContainsFunc(o.addrs, o.carries) {
		o.healthy = unusable
	}
	if d.snapshot.Refused[r.Cluster] && !o.serves {
		o.healthy = min(o.healthy, unsure)
	}
	return o
}

// carries tells that an address may be used, and that a slice of its family is not in conflict.
func (o *offer) carries(e endpoint) bool {
	return e.ready && slices.ContainsFunc(o.slices, func(slice RemoteSlice) bool { return corev1.IPFamily(slice.Family) == e.family() })
}

// live are the slices of one remote that exist.
func (d *failover) live(remote string) (live []*discoveryv1.EndpointSlice) {
	for _, slice := range d.snapshot.Live {
		if of, _ := RemoteSliceOf(slice); of.Remote == remote {
			live = append(live, slice)
		}
	}
	return live
}

// fill finds out the ports and addresses of an offer.
func (d *failover) fill(o *offer, r FailoverRemote, live []*discoveryv1.EndpointSlice) {
	known := func(reason Reason, message string) {
		d.problem(r, reason, message)
		o.gone = true
	}
	switch {
	case !r.Configured:
		d.problem(r, UnknownRemote, "no remote of this name is configured: add it with --remote, or remove it from the annotation "+FailoverAnnotation+". What exists of it stays until it is pruned")
		if o.keep(live); !o.serves { // an operator has removed it
			o.healthy = unusable
		}
	case r.Service == nil && !r.Watched:
		o.keep(live)
	case r.Service == nil:
		known(NotExported, fmt.Sprintf("the remote does not export %v to this cluster: export the Service there, under the same name and namespace", d.snapshot.Key))
	default:
		if refusal := d.policy.Refuse(r.Candidate); refusal != nil && refusal.Reason != InvalidName { // of a mirror
			d.problem(r, refusal.Reason, "of the exported Service: "+refusal.Message)
			if r.unsettled(*refusal) {
				o.keep(live)
			} else {
				o.gone = true
			}
			return
		}
		if r.NoGateway != nil {
			known(PortNotServed, r.NoGateway.Error())
			return
		}
		if r.Gateway == nil || r.unpublished() {
			o.keep(live)
			return
		}
		d.reach(o, r, live)
	}
}

// keep has what is live stay, as nothing is known of the remote now. Which of several addresses was ready is not
// known while none is.
func (o *offer) keep(live []*discoveryv1.EndpointSlice) {
	o.kept, o.healthy = true, unsure
	if o.serves {
		o.healthy = usable
	}
	had := slicesEndpoints(live)
	for addr, ready := range had {
		o.addrs = append(o.addrs, endpoint{addr, ready || !o.serves})
	}
	slices.SortFunc(o.addrs, compareEndpoints)
	for _, slice := range live {
		if len(o.ports) == 0 {
			o.ports = Objects{IPv4: slice}.Ports()
		}
	}
}

func compareEndpoints(a, b endpoint) int { return a.Compare(b.Addr) }

// slicesEndpoints are the addresses of slices, and which of them are ready.
func slicesEndpoints(all []*discoveryv1.EndpointSlice) map[netip.Addr]bool {
	had := map[netip.Addr]bool{}
	for _, slice := range all {
		for addr, ready := range (Objects{IPv4: slice}).Endpointed() {
			had[addr] = ready
		}
	}
	return had
}

// reach finds out how the exported Service is reached through the gateway.
func (d *failover) reach(o *offer, r FailoverRemote, live []*discoveryv1.EndpointSlice) {
	b := basis{Candidate: r.Candidate, key: d.snapshot.Key}
	ports, routed, unserved := failoverPorts(d.snapshot.Service, b)
	o.ports = ports
	if unserved != "" {
		d.problem(r, PortNotServed, unserved)
	}
	o.addresses(b, slicesEndpoints(live), d.snapshot.Service.Spec.IPFamilies)
	published := r.Assigned.Published
	switch {
	case len(ports) == 0:
		o.gone = true
	case len(o.addrs) == 0:
		d.problem(r, NoAddress, "the gateway has no address of an IP family that the Service has: see the problems of the remote")
		o.gone = true
	case !routed:
		d.problem(r, NotRouted, fmt.Sprintf("the gateway routes other host names than %s.%s, which clients send: add it to those of the remote's publisher, by --name, --host-template or the annotation service-mirror.io/hosts on the exported Service",
			d.snapshot.Key.Name, d.snapshot.Key.Namespace))
		o.healthy = unusable
	case published != nil && published.Record != nil && !published.Record.Ready:
		d.problem(r, NoReadyEndpoint, "no ready endpoint in the remote: it is skipped until the exported Service has one")
		o.healthy = unusable
	case o.healthy == unusable:
		d.problem(r, NoHealthyAddress, "no address of the gateway answers its probes: it is skipped until one does")
	}
}

// addresses are those of the gateway. One that was not probed yet may be used, but a remote with others is preferred
// unless this one serves: then it stays as ready as it was.
func (o *offer) addresses(b basis, had map[netip.Addr]bool, families []corev1.IPFamily) {
	for _, address := range b.Gateway.Addresses {
		was, live := had[address.Addr]
		delete(had, address.Addr)
		one := endpoint{address.Addr, true}
		if len(inFamilies([]endpoint{one}, families)) == 0 { // it says nothing of the others
			continue
		}
		switch known(address.Health) {
		case unusable:
			one.ready = false
		case usable:
			o.healthy = usable
		default:
			one.ready = was || !live || !o.serves
			o.healthy = max(o.healthy, unsure)
		}
		o.addrs = append(o.addrs, one)
	}
	if b.Gateway.Partial {
		for addr, ready := range had {
			if b.Gateway.Keeps(addr) && len(inFamilies([]endpoint{{addr, ready}}, families)) > 0 {
				o.addrs, o.healthy = append(o.addrs, endpoint{addr, ready || !o.serves}), max(o.healthy, unsure)
			}
		}
	}
	if o.healthy == unsure && o.serves {
		o.healthy = usable
	}
	slices.SortFunc(o.addrs, compareEndpoints)
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
			if want == nil {
				continue
			}
			delete(left, of.ObjectName())
			step := SliceStep{Action: Create, Remote: o.remote, Slice: want, Live: live, serving: hasReady(want)}
			if live != nil {
				step.Action = Update
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

// hasReady tells that a slice has an endpoint that is ready.
func hasReady(slice *discoveryv1.EndpointSlice) bool {
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
