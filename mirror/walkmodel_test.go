package mirror

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
)

// What follows are the rules of behaviour, implemented a second time: the model shares no
// code with what it is compared with. It does not know how far a controller has come with
// its work, so it has a set of possible states for each key; at rest there is most often
// one left.

// export is an exported Service, as far as the walk varies it.
type export struct {
	ports      string // names of ports, separated by spaces
	affinity   bool
	team, note string // a label and an annotation that are copied; empty: not there
	forged     bool   // carries labels that make it look like ours
	refused    string // headless, external or mirror; empty: it is mirrored
	name       string // that it chooses for its mirror, where it may; empty: none
}

// portsByName are all that an exported Service may have. The gateway of two ports
// serves http and https.
var portsByName = map[string]corev1.ServicePort{
	"http":  {Name: "http", Port: 80, Protocol: corev1.ProtocolTCP},
	"https": {Name: "https", Port: 443, Protocol: corev1.ProtocolTCP},
	"db":    {Name: "db", Port: 5432, Protocol: corev1.ProtocolTCP},
	"dns":   {Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP},
}

func (e export) service(namespace, name string) *corev1.Service {
	svc := named(namespace, name)
	svc.Spec.Ports = nil
	for port := range strings.FieldsSeq(e.ports) {
		p := portsByName[port]
		p.NodePort, p.TargetPort = 30000+p.Port, intstr.FromString("pod")
		svc.Spec.Ports = append(svc.Spec.Ports, p)
	}
	if e.affinity {
		seconds := int32(77)
		svc.Spec.SessionAffinity = corev1.ServiceAffinityClientIP
		svc.Spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	delete(svc.Labels, "team")
	delete(svc.Annotations, "note")
	if e.team != "" {
		svc.Labels["team"] = e.team
	}
	if e.note != "" {
		svc.Annotations["note"] = e.note
	}
	if e.forged {
		svc.Labels[plan.ManagedByLabel], svc.Labels["theirs"], svc.Annotations[plan.RemoteServiceAnnotation] = plan.ManagedBy, "forged", "kube-system/x"
	}
	if e.name != "" {
		svc.Annotations[plan.NameAnnotation] = e.name
	}
	switch e.refused {
	case "headless":
		svc.Spec.ClusterIP = "None"
	case "external":
		svc.Spec.Type = corev1.ServiceTypeExternalName
	case "mirror":
		svc.Labels[plan.ClusterLabel] = "elsewhere"
	}
	return svc
}

// modelGateway is a gateway, as far as the walk varies it; a nil one is not known.
type modelGateway struct {
	one       bool              // one port for all, instead of http and https
	addresses map[string]string // an IP to +, - or ?: ready, not ready, not probed yet
	partial   bool
}

func (g *modelGateway) gateway() *gateway.Gateway {
	if g == nil {
		return nil
	}
	gw := &gateway.Gateway{Partial: g.partial, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}, {Name: "https", Port: 8443}}}
	if g.one {
		gw.Port, gw.Ports = "all", []corev1.ServicePort{{Name: "all", Port: 81}}
	}
	for _, ip := range slices.Sorted(maps.Keys(g.addresses)) {
		health := map[string]gateway.Health{"+": gateway.Ready, "-": gateway.NotReady, "?": gateway.Unprobed}[g.addresses[ip]]
		gw.Addresses = append(gw.Addresses, gateway.Address{Addr: netip.MustParseAddr(ip), Health: health})
	}
	return gw
}

// targets are the ports of Endpoints that route there, as texts.
func (g *modelGateway) targets(e export) (targets []string) {
	for name := range strings.FieldsSeq(e.ports) {
		switch {
		case name == "dns": // no gateway has UDP
		case g.one:
			targets = append(targets, name+" 81/TCP")
		case name == "http":
			targets = append(targets, "http 8080/TCP")
		case name == "https":
			targets = append(targets, "https 8443/TCP")
		}
	}
	slices.Sort(targets)
	return targets
}

// kind is whose an object is.
type kind int

const (
	absent kind = iota
	theirs
	ours
)

// half is a summary of a Service or Endpoints, with details only if they are ours.
type half struct {
	kind    kind
	owner   string
	source  string // of a Service: what it records
	uid     string // of a Service: the cluster's that it records
	spec    string // of a Service its spec, of Endpoints its ports
	notes   string // of a Service: whether it records its name, and the copied keys
	foreign string // labels and annotations that are neither
	where   string // of Endpoints: addresses, each with + or - for ready or not
}

type halves struct{ svc, eps half }

// modelCandidate is an exported Service of a known remote whose mirror has a key.
type modelCandidate struct {
	remote, source string
	export
	gateway *modelGateway
}

// surroundings are all that the state of a mirror depends on.
type surroundings struct {
	candidates []modelCandidate // by name of the remote and of the Service; not those that are refused
	known      map[string]bool
	namespace  bool
	makes      func(remote string) bool // whether its mirrors can have the name
	fate       func(remote, source string) (fate, *modelCandidate)
	// complete tells, at rest, whether the mirror that takes the place of this one is complete; nil: it may be, or not.
	complete func(halves) bool
}

// step is the state of a mirror after a controller has synced it, as far as that is certain.
func (s surroundings) step(now halves) halves { return s.steps(now)[0] }

// steps are the possible states of a mirror after a controller has synced it.
func (s surroundings) steps(now halves) []halves {
	if now.svc.kind == theirs {
		return []halves{now}
	}
	gone := halves{eps: now.eps}
	if now.eps.kind == ours {
		gone.eps = half{}
	}
	c, fate := s.choose(now)
	switch {
	case fate == goes:
		return []halves{gone}
	case fate == moves && s.complete == nil:
		return []halves{s.update(now, *c), gone}
	case fate == moves && s.complete(now):
		return []halves{gone}
	case fate == unknown:
		return []halves{now}
	}
	return []halves{s.update(now, *c)}
}

// choose says whose the mirror is to be, and what becomes of it.
func (s surroundings) choose(now halves) (*modelCandidate, fate) {
	labelled := now.svc.owner
	if now.svc.kind == absent && now.eps.kind == ours {
		labelled = now.eps.owner
	}
	switch {
	case labelled == "" && len(s.candidates) == 0:
		return nil, unknown
	case labelled == "":
		return &s.candidates[0], stays
	}
	owner := s.owner(labelled, now)
	if c := s.find(owner, now.svc.source); c != nil {
		return c, stays
	}
	first := s.first(owner)
	if now.svc.source != "" && owner == labelled {
		switch fate, c := s.fate(owner, now.svc.source); {
		case fate != goes:
			return c, fate
		case first == nil:
			return nil, goes
		}
	}
	switch {
	case first != nil:
		return first, stays
	case s.known[owner]:
		return nil, goes
	}
	return nil, unknown
}

// owner is the remote that a mirror is of: someone may have edited its label.
func (s surroundings) owner(labelled string, now halves) string {
	svc := now.svc
	if c := s.find(labelled, svc.source); c != nil && (svc.uid == "" || svc.uid == c.uid()) {
		return labelled
	}
	for _, c := range s.candidates {
		if svc.uid == c.uid() && svc.source == c.source {
			return c.remote
		}
	}
	if svc.uid == "" && svc.kind == ours && now.eps.kind == ours && now.eps.owner == labelled {
		return labelled
	}
	if fate, _ := s.fate(labelled, svc.source); fate == moves || fate == stays || len(s.candidates) != 1 || s.makes(labelled) {
		return labelled
	}
	if c := s.candidates[0]; svc.uid == "" || svc.uid == c.uid() {
		return c.remote
	}
	return labelled
}

func (s surroundings) find(remote, source string) *modelCandidate {
	for i, c := range s.candidates {
		if c.remote == remote && c.source == source {
			return &s.candidates[i]
		}
	}
	return nil
}

func (s surroundings) first(remote string) *modelCandidate {
	for i, c := range s.candidates {
		if c.remote == remote {
			return &s.candidates[i]
		}
	}
	return nil
}

// update is the state of a mirror as it should be.
func (s surroundings) update(now halves, c modelCandidate) halves {
	if !s.namespace || now.svc.kind == absent && now.eps.kind == theirs {
		return now
	}
	now.svc = half{kind: ours, owner: c.remote, source: c.source, uid: c.uid(), spec: c.spec(), notes: c.notes(), foreign: clean(now.svc.foreign)}
	if now.eps.kind != theirs {
		now.eps = c.endpoints(now.eps)
	}
	return now
}

func (c modelCandidate) uid() string { return c.remote + "-uid" }

// spec is what the spec of a mirror must be, but for its ClusterIP.
func (c modelCandidate) spec() string {
	policy, everywhere := corev1.IPFamilyPolicyPreferDualStack, corev1.ServiceInternalTrafficPolicyCluster
	spec := corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, SessionAffinity: corev1.ServiceAffinityNone,
		IPFamilies: []corev1.IPFamily{ipv4}, IPFamilyPolicy: &policy, InternalTrafficPolicy: &everywhere,
	}
	if c.affinity {
		seconds := int32(77)
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}
	for name := range strings.FieldsSeq(c.ports) {
		p := portsByName[name]
		p.TargetPort = intstr.FromInt32(p.Port)
		spec.Ports = append(spec.Ports, p)
	}
	return specText(spec)
}

func specText(spec corev1.ServiceSpec) string {
	spec.ClusterIP, spec.ClusterIPs = "", nil
	spec.Ports = slices.SortedFunc(slices.Values(spec.Ports), func(a, b corev1.ServicePort) int { return cmp.Compare(a.Name, b.Name) })
	return text(spec)
}

func (c modelCandidate) notes() string {
	return fmt.Sprint(c.team, " ", c.note, " ", true)
}

// endpoints are the desired Endpoints, given the live ones.
func (c modelCandidate) endpoints(now half) half {
	if now.kind == absent && now.owner != c.remote {
		now = half{} // the tombstone is of another remote
	}
	now.kind, now.owner, now.foreign = ours, c.remote, clean(now.foreign)
	if c.gateway == nil {
		return now
	}
	was := map[string]string{}
	for one := range strings.FieldsSeq(now.where) {
		was[one[:len(one)-1]] = one[len(one)-1:]
	}
	where := map[string]string{}
	if c.gateway.partial {
		maps.Copy(where, was)
	}
	for ip, health := range c.gateway.addresses {
		if health == "?" {
			health = cmp.Or(was[ip], "+")
		}
		where[ip] = health
	}
	targets := c.gateway.targets(c.export)
	if len(targets) == 0 {
		where = nil
	}
	var all []string
	for ip, health := range where {
		all = append(all, ip+health)
	}
	slices.Sort(all)
	now.spec, now.where = strings.Join(targets, ", "), strings.Join(all, " ")
	if len(all) == 0 {
		now.spec = ""
	}
	return now
}

// may is the set of possible states of a key.
type may map[halves]bool

// close adds what controllers may have written: each step completely, in part, or not
// at all.
func (m may) close(s surroundings) {
	todo := slices.Collect(maps.Keys(m))
	for len(todo) > 0 {
		now := todo[len(todo)-1]
		todo = todo[:len(todo)-1]
		for _, next := range s.steps(now) {
			for _, one := range []halves{next, {next.svc, now.eps}, {now.svc, next.eps}, {now.svc, now.eps.lost(next.eps)}, {next.svc, now.eps.lost(next.eps)}} {
				if !m[one] {
					m[one] = true
					todo = append(todo, one)
				}
			}
		}
	}
}

// lost is the state after Endpoints are deleted: a controller that saw it remembers them, until they are known to
// be no longer desired.
func (h half) lost(next half) half {
	if h.kind == ours && next.kind == absent {
		h.kind = absent
		return h
	}
	return next
}

// visible is a state without tombstones.
func (h halves) visible() halves {
	if h.eps.kind == absent {
		h.eps = half{}
	}
	return h
}

// rest are the possible states when the controllers are idle.
func (m may) rest(s surroundings) may {
	out := may{}
	for now := range m {
		for next := s.step(now); next != now; next = s.step(now) {
			now = next
		}
		out[now] = true
	}
	return out
}

// each applies a change to all states.
func (m may) each(do func(halves) halves) may {
	out := may{}
	for now := range m {
		out[do(now)] = true
	}
	return out
}

// serviceHalf and endpointsHalf are what exists.
func serviceHalf(svc *corev1.Service) half {
	if svc == nil {
		return half{}
	}
	owner, a := svc.Labels["service-mirror.io/cluster"], svc.Annotations
	named := a["service-mirror.io/mirror"] == svc.Namespace+"/"+svc.Name
	if _, recorded := a["service-mirror.io/mirror"]; !recorded {
		named = a["service-mirror.io/remote-service"]+"-"+owner == svc.Namespace+"/"+svc.Name
	}
	if owner == "" || svc.Labels["app.kubernetes.io/managed-by"] != "service-mirror" || !named {
		return half{kind: theirs}
	}
	return half{
		kind: ours, owner: owner, source: a["service-mirror.io/remote-service"], uid: a["service-mirror.io/cluster-uid"], spec: specText(svc.Spec), foreign: foreign(svc),
		notes: fmt.Sprint(svc.Labels["team"], " ", a["note"], " ", a["service-mirror.io/mirror"] != ""),
	}
}

func endpointsHalf(endpoints *corev1.Endpoints) half {
	if endpoints == nil {
		return half{}
	}
	owner := endpoints.Labels["service-mirror.io/cluster"]
	if owner == "" || endpoints.Labels["app.kubernetes.io/managed-by"] != "service-mirror" || endpoints.Annotations["service-mirror.io/mirror"] != endpoints.Namespace+"/"+endpoints.Name {
		return half{kind: theirs}
	}
	h := half{kind: ours, owner: owner, foreign: foreign(endpoints)}
	var where, ports []string
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			where = append(where, address.IP+"+")
		}
		for _, address := range subset.NotReadyAddresses {
			where = append(where, address.IP+"-")
		}
		for _, port := range subset.Ports {
			ports = append(ports, fmt.Sprintf("%s %d/%s", port.Name, port.Port, port.Protocol))
		}
	}
	slices.Sort(where)
	slices.Sort(ports)
	h.where, h.spec = strings.Join(where, " "), strings.Join(ports, ", ")
	return h
}

// foreign are the labels and annotations that belong to neither the mirror nor
// its source.
func foreign(obj metav1.Object) string {
	left := [2]map[string]string{maps.Clone(obj.GetLabels()), maps.Clone(obj.GetAnnotations())}
	for _, key := range []string{"app.kubernetes.io/managed-by", "service-mirror.io/cluster", "service-mirror.io/mirror", "service-mirror.io/remote-service", "service-mirror.io/cluster-uid"} {
		delete(left[0], key)
		delete(left[1], key)
	}
	if _, ok := obj.(*corev1.Service); ok {
		delete(left[0], "team")
		delete(left[1], "note")
	}
	var out []string
	for _, all := range left {
		for key, value := range all {
			out = append(out, key+"="+value)
		}
	}
	slices.Sort(out)
	return strings.Join(out, " ")
}

// clean omits what stops traffic.
func clean(foreign string) string {
	return strings.Join(slices.DeleteFunc(strings.Fields(foreign), func(one string) bool {
		return strings.HasPrefix(one, "service.kubernetes.io/service-proxy-name=") || strings.HasPrefix(one, "endpointslice.kubernetes.io/skip-mirror=")
	}), " ")
}

// place is the walk's record of a key.
type place struct {
	key cache.ObjectName
	may may
	// The mirror at the last rest, and whether it may have been recreated since, or may
	// have lost its ClusterIP.
	owner, source  string
	uid            types.UID
	clusterIP      string
	another, newIP bool
	// The possible states for as long as the caches do not know that the Service became
	// foreign, or another remote's: Endpoints may still be written as if it were not.
	unseen []may
	// bare is a foreign Service that was created where no object of ours existed: none may
	// exist in the end.
	bare   bool
	faults int           // their number at that time: the clean-up may fail, too
	had    map[half]bool // Endpoints that were ours since the last rest
	// tried are Endpoints that controllers try to create while foreign ones exist.
	tried map[half]bool
}
