package plan

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/validation"
)

// offer is what one remote can do.
type offer struct {
	remote  string
	slices  []RemoteSlice // that are not in conflict with foreign ones
	ports   []corev1.EndpointPort
	addrs   []endpoint               // ready tells that it may be used
	kept    bool                     // nothing is known of the remote now: what is live stays
	partly  map[corev1.IPFamily]bool // so do live addresses, as not all of the gateway's are known
	gone    bool                     // it is known to have nothing to offer
	serves  bool                     // it has a ready endpoint now
	healthy fitness
}

// fitness is how much speaks for a remote.
type fitness int

const (
	unusable fitness = iota
	unsure           // nothing is known against it
	usable
)

// offer is what a remote can do, and what is wrong with it.
func (d *failover) offer(r FailoverRemote) offer {
	o := offer{remote: r.Cluster}
	live := d.live(r.Cluster)
	o.serves = slices.ContainsFunc(live, HasReady)
	if len(validation.IsDNS1123Label(r.Cluster)) > 0 {
		d.problem(r, UnknownRemote, fmt.Sprintf("%.70q in the annotation %s is not the name of a remote: correct it", r.Cluster, FailoverAnnotation))
		o.gone = true
		return o
	}
	for _, slice := range RemoteSlices(d.snapshot.Key, r.Cluster, true) {
		switch {
		case d.snapshot.Foreign[slice.Name()]:
			d.problem(r, Conflict, fmt.Sprintf("EndpointSlice %s already exists and is not managed by service-mirror: delete it, or remove the remote from the annotation", slice.Name()))
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
		d.problem(r, UnknownRemote, "no remote of this name is configured: link it, or add it with --remote, or remove it from the annotation "+FailoverAnnotation+". Its EndpointSlices are kept until they are pruned")
		if o.keep(live); !o.serves { // an operator has removed it
			o.healthy = unusable
		}
	case r.Service == nil && !r.Watched:
		o.keep(live)
	case r.Service == nil:
		known(NotExported, fmt.Sprintf("the remote does not export %v to this cluster: export the Service there, under the same name and namespace", d.snapshot.Key))
	default:
		if refusal := d.policy.Refuse(r.Candidate); refusal != nil && refusal.Reason != InvalidName { // of a mirror
			d.problem(r, refusal.Reason, "exported Service: "+refusal.Message)
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
	case len(o.addrs) == 0 && slices.ContainsFunc(d.snapshot.Service.Spec.IPFamilies, r.Gateway.Lacks):
		d.problem(r, NoAddress, unresolved)
		o.gone = true
	case len(o.addrs) == 0:
		d.problem(r, NoAddress, "the gateway has no address in the IP families of the Service: see the problems of the remote")
		o.gone = true
	case !routed:
		d.problem(r, NotRouted, fmt.Sprintf("the gateway does not route the host name %s.%s, which clients send: add it to the remote's publisher with --name, --host-template or the annotation service-mirror.io/hosts on the exported Service",
			d.snapshot.Key.Name, d.snapshot.Key.Namespace))
		o.healthy = unusable
	case published != nil && published.Record != nil && !published.Record.Ready:
		d.problem(r, NoReadyEndpoint, "the exported Service has no ready endpoint: the remote is skipped until it has one")
		o.healthy = unusable
	case o.healthy == unusable:
		d.problem(r, NoHealthyAddress, "no gateway address answers its probes: the remote is skipped until one does")
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
		o.partly = map[corev1.IPFamily]bool{}
		for addr, ready := range had {
			one := endpoint{addr, ready || !o.serves}
			if b.Gateway.Keeps(addr) && len(inFamilies([]endpoint{one}, families)) > 0 {
				o.addrs, o.healthy, o.partly[one.family()] = append(o.addrs, one), max(o.healthy, unsure), true
			}
		}
	}
	if o.healthy == unsure && o.serves {
		o.healthy = usable
	}
	slices.SortFunc(o.addrs, compareEndpoints)
}
