package plan

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// Decide says what is to be written for an exported Service, and what is wrong with it.
func (p Policy) Decide(s Snapshot) Plan {
	if s.PortHolder == nil {
		s.PortHolder = func(gateway.PortNumber) cache.ObjectName { return cache.ObjectName{} }
	}
	d := decision{policy: p, snapshot: s, plan: Plan{Key: s.Key}}
	d.previous = d.had()
	d.decide()
	return d.plan
}

// decision is a Plan in the making.
type decision struct {
	policy   Policy
	snapshot Snapshot
	plan     Plan

	hosts        []string
	ports        []corev1.ServicePort
	reservations []gateway.Reservation // by the Service's annotation
	previous     []Allocation
	allocated    []Allocation
	assigned     []assignment
	keptHosts    []string // of the record, where a port has them that stays as it is
	refused      []string // what implementations say against routes
	unnamed      error    // why the Service can have no alias
	outdated     bool     // the live record announces what it should not, and cannot be written now
}

func (d *decision) decide() {
	svc := d.snapshot.Service
	if svc == nil {
		d.withdraw()
		return
	}
	if refusal := d.policy.refuse(svc); refusal != nil {
		d.plan.Problems = append(d.plan.Problems, *refusal)
		d.withdraw()
		return
	}
	if d.lacksGateway() {
		why := "has not been read yet, so what depends on it is kept unchanged: see the problems of the cluster"
		if d.snapshot.Gateway.Known {
			why = "does not exist: create it, or set another one with --gateway"
		}
		d.problem(mirrors.NoGateway, fmt.Sprintf("Gateway %v %s", d.policy.Gateway, why))
	}
	d.publish()
}

// refuse is why an exported Service is not published: the mirrors' own rules, but for its ports, for which there may
// be gateway ports, and for what is up to each cluster that mirrors it.
func (p Policy) refuse(svc *corev1.Service) *mirrors.Problem {
	problem := mirrors.Policy{IncludeSystem: p.IncludeSystem}.Refuse(mirrors.Candidate{Service: svc})
	if problem == nil {
		return nil
	}
	switch problem.Reason {
	case mirrors.NoTCPPort, mirrors.InvalidName, mirrors.NoClusterName:
		return nil
	}
	return problem
}

func (d *decision) publish() {
	svc := d.snapshot.Service
	hosts, badHosts := d.policy.Hosts(svc)
	hosts, taken := d.snapshot.held(hosts)
	if d.policy.onlyNames() {
		hosts, badHosts = d.policy.wildcard(svc)
		taken = nil // it does not go by age
	}
	d.hosts = hosts
	_, d.unnamed = AliasOf(d.snapshot.Key)
	var selection, reservations error
	d.ports, selection = gateway.Selected(svc)
	d.reservations, reservations = gateway.ParseReservations(svc.Annotations[gateway.PortsAnnotation])
	d.report(mirrors.InvalidName, badHosts)
	d.report(mirrors.Conflict, taken)
	d.assign()
	d.routes()
	d.judge()
	var after time.Duration
	d.plan.Allocations, after = d.allocations()
	if after > 0 {
		d.again(after)
	}
	d.report(mirrors.PortNotServed, errors.Join(selection, reservations, d.unserved()))
	if slices.ContainsFunc(d.assigned, d.lacksAlias) {
		d.report(mirrors.InvalidName, d.unnamed)
	}
	for _, why := range d.refused {
		d.problem(mirrors.NotAccepted, why)
	}
	d.write()
}

// lacksAlias tells whether a port is not reached as the Service can have no alias.
func (d *decision) lacksAlias(a assignment) bool {
	return d.unnamed != nil && errors.Is(a.problem, d.unnamed)
}

// unserved is why ports are not reached, but for what implementations say, and for what is said of the Service's name and of
// the Gateway.
func (d *decision) unserved() error {
	var problems []error
	for _, a := range d.assigned {
		u := unread(a.problem)
		switch {
		case a.problem == nil || a.kind != "":
		case u != nil && u.said, d.policy.onlyNames() && d.lacksAlias(a):
		default:
			problems = append(problems, fmt.Errorf("port %s: %w", gateway.ListPorts([]corev1.ServicePort{a.port}), a.problem))
		}
	}
	return errors.Join(problems...)
}

// write adds the steps: routes before the record that says that there are any, and the record before routes that it
// no longer mentions go. While it cannot be written, these stay.
func (d *decision) write() {
	for _, desired := range d.plan.Desired {
		d.writeRoute(desired)
	}
	want, err := d.record()
	switch {
	case err != nil:
		d.report(mirrors.Rejected, err)
		d.outdated = d.announces(nil)
	case !d.silent():
		d.writeRecord(want)
	}
	d.deleteOthers()
}

// silent tells that a first record would only say that the Gateway is missing, without which nothing is known of any port:
// readers go by what else they know.
func (d *decision) silent() bool {
	if _, announced := d.announced(); announced || !d.lacksGateway() || d.snapshot.Gateway.Known && len(d.policy.Targets) > 1 {
		return false
	}
	return !slices.ContainsFunc(d.assigned, func(a assignment) bool { return !a.unknown })
}

func (d *decision) writeRoute(desired *unstructured.Unstructured) {
	ref := RefOf(desired)
	live := d.live(ref)
	switch {
	case live != nil && !Owned(live), live == nil && d.snapshot.Foreign[ref]:
		why := fmt.Sprintf("%s %s already exists and is not managed by service-mirror: rename or delete it", ref.Kind, ref.Name)
		if ref.Kind == Alias {
			why = fmt.Sprintf("Service %s/%s, the name of its alias, already exists and is not managed by service-mirror: delete it", d.policy.Aliases, ref.Name)
		}
		d.problem(mirrors.Conflict, why)
		d.unroute(desired, why)
	case !d.snapshot.Served[ref.Kind].Known:
	case d.backedOff(ref, desired):
		if live == nil || !slices.Equal(d.policy.Attached(live), d.policy.Attached(desired)) || !routesTo(live, backends(desired)) {
			d.unroute(desired, d.snapshot.Backoffs[ref].Problem.Message)
		}
	case live == nil:
		d.step(Step{Action: Create, Ref: ref, Object: desired})
	case live.GetDeletionTimestamp() != nil: // its end brings the key back
	case differs(live, desired):
		d.step(Step{Action: Update, Ref: ref, Object: changed(live, desired), Live: live})
	}
}

// routesTo tells whether a route routes to all these ports.
func routesTo(live *unstructured.Unstructured, ports []int32) bool {
	now := backends(live)
	return !slices.ContainsFunc(ports, func(number int32) bool { return !slices.Contains(now, number) })
}

// unroute has the record say that what a route would serve is not reached.
func (d *decision) unroute(route *unstructured.Unstructured, why string) {
	for i, a := range d.assigned {
		if string(a.kind) == route.GetKind() && d.serves(route, a) {
			d.assigned[i].gateway, d.assigned[i].problem, d.assigned[i].unsaid = 0, errors.New(why), false
		}
	}
}

// deleteOthers deletes what is ours and not wanted, but for what a port may be reached by that stays as it is.
func (d *decision) deleteOthers() {
	for _, live := range d.snapshot.Live {
		ref := RefOf(live)
		if !Owned(live) || live.GetDeletionTimestamp() != nil || !d.snapshot.Served[ref.Kind].Known || d.wants(ref) || d.keeps(live) || d.backedOff(ref, nil) {
			continue
		}
		last := d.routesToExported(live)
		if last && d.outdated {
			continue
		}
		d.step(Step{Action: Delete, Ref: ref, Object: live, Last: last})
	}
}

// routesToExported tells whether all that an object routes to is exported, so that clients may still be told to use it. What
// is not is closed at once, whatever the record says.
func (d *decision) routesToExported(live *unstructured.Unstructured) bool {
	kind := Kind(live.GetKind())
	switch {
	case len(d.ports) == 0:
		return false
	case kind == Alias:
		return d.noAlias() == nil
	}
	protocol := cmp.Or(transportOf(kind), corev1.ProtocolTCP)
	return !slices.ContainsFunc(backends(live), func(number int32) bool { return !d.exports(number, protocol) })
}

// exports tells whether a port of the Service is exported.
func (d *decision) exports(number int32, protocol corev1.Protocol) bool {
	return slices.ContainsFunc(d.ports, func(port corev1.ServicePort) bool { return port.Port == number && protocolOf(port) == protocol })
}

func (d *decision) wants(ref Ref) bool {
	for _, desired := range d.plan.Desired {
		if RefOf(desired) == ref {
			return true
		}
	}
	return false
}

func (d *decision) live(ref Ref) *unstructured.Unstructured {
	for _, live := range d.snapshot.Live {
		if RefOf(live) == ref {
			return live
		}
	}
	return nil
}

// withdraw removes what routes to a Service that is not exported, and then its record, of which its gateway ports are
// kept for a while.
func (d *decision) withdraw() {
	d.deleteOthers()
	var after time.Duration
	d.plan.Allocations, after = d.allocations()
	if after > 0 {
		d.again(after)
	}
	want, err := d.releasedRecord()
	d.report(mirrors.Rejected, err)
	d.writeRecord(want)
}

func (d *decision) step(s Step) { d.plan.Steps = append(d.plan.Steps, s) }

func (d *decision) problem(reason mirrors.Reason, message string) {
	d.plan.Problems = append(d.plan.Problems, mirrors.Problem{Reason: reason, Source: d.snapshot.Key, Message: message})
}

// report adds what is wrong as one problem.
func (d *decision) report(reason mirrors.Reason, err error) {
	if err != nil {
		d.problem(reason, strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

// backedOff tells whether an object must not be written as it is desired yet, and reports why.
func (d *decision) backedOff(ref Ref, desired *unstructured.Unstructured) bool {
	backoff, found := d.snapshot.Backoffs[ref]
	if !found || backoff.Only != nil && (desired == nil || differs(backoff.Only, desired)) {
		return false
	}
	if live := d.live(ref); live != nil && desired != nil && !differs(live, desired) {
		return false
	}
	if desired == nil && ref.Kind != Record && backoff.Problem.Reason == mirrors.Overwritten {
		return false // what is deleted is not fought over
	}
	d.plan.Problems = append(d.plan.Problems, backoff.Problem)
	return true
}
