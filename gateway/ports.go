package gateway

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Mapping is what the port rule says of one port of an exported Service.
type Mapping struct {
	Port    corev1.ServicePort // of the exported Service
	Class   Class              // that it needs
	Target  int32              // the gateway port that serves it; 0: none
	Line    Line               // of the rule that decided; empty: none did
	Alone   bool               // the target serves this Service alone, whatever name a request has
	Problem error              // why there is no target
}

// Line is a line of the port rule.
type Line string

// The lines, in their order.
const (
	ByRecord             Line = "published"              // the record of the remote's publisher
	ReservedByAnnotation Line = "reserved by annotation" // PortsAnnotation
	ReservedByConfigMap  Line = "reserved by ConfigMap"
	ByGatewayPort        Line = "gateway-port"
	ByAnnotation         Line = "annotation" // PortAnnotation
	SameClassHTTP        Line = "same class (http)"
	SameClassHTTPS       Line = "same class (https)"
	SameClassGRPC        Line = "same class (grpc)"
	AssumedHTTP          Line = "assumed HTTP" // nothing is known of the port
	ByDefault            Line = "default-gateway-port"
	Undecided            Line = "not known yet" // of no rule: what the mirror has stays
)

// sameClass are the lines of the classes that a gateway can route by the name in a request. The others need a port
// of their own.
var sameClass = map[Class]Line{HTTP: SameClassHTTP, HTTPS: SameClassHTTPS, GRPC: SameClassGRPC, Unknown: AssumedHTTP}

// String is the mapping as people read it: 5432 -> 15432 (reserved by annotation).
func (m Mapping) String() string {
	suffix := ""
	if protocol := protocol(m.Port); protocol != corev1.ProtocolTCP {
		suffix = "/" + string(protocol)
	}
	switch {
	case m.Line == Undecided:
		return fmt.Sprintf("%d%s -> %s", m.Port.Port, suffix, m.Line)
	case m.Target == 0:
		return fmt.Sprintf("%d%s -> none", m.Port.Port, suffix)
	}
	return fmt.Sprintf("%d%[2]s -> %[3]d%[2]s (%[4]s)", m.Port.Port, suffix, m.Target, m.Line)
}

// Map is the port rule: for each port of an exported Service that is mirrored, the gateway port that serves it.
// The error says what is wrong with the Service's annotations, or with its record. Of a gateway without any port
// nothing is wrong with a mapping: Read reports that once.
func (g *Gateway) Map(exported *corev1.Service, assigned Assignments) ([]Mapping, error) {
	r, ports, err := g.request(exported, assigned)
	all := make([]Mapping, 0, len(ports))
	for _, port := range ports {
		m := Mapping{Port: port, Class: ClassOf(port)}
		switch {
		case len(g.Ports) == 0:
		case r.awaits():
			m.Line, m.Problem = Undecided, errUnpublished
		default:
			m.Target, m.Line, m.Problem = r.route(port)
			m.Alone = m.Target != 0 && r.alone(port, m.Line)
		}
		all = append(all, m)
	}
	return all, err
}

// Explicit reports whether a gateway port is reserved or chosen for any port of an exported
// Service: then the Service is mirrored even without a TCP port.
func (g *Gateway) Explicit(exported *corev1.Service, assigned Assignments) bool {
	r, ports, _ := g.request(exported, Assignments{Published: assigned.Published})
	return slices.ContainsFunc(ports, func(port corev1.ServicePort) bool {
		_, line, _ := r.reserved(port)
		return line != "" || chosen(r.choices, port) != ""
	})
}

// Targets are the ports of a mirror's endpoints.
func Targets(all []Mapping) (targets []corev1.EndpointPort) {
	for _, m := range all {
		if m.Target != 0 {
			targets = append(targets, corev1.EndpointPort{Name: m.Port.Name, Port: m.Target, Protocol: protocol(m.Port), AppProtocol: m.Port.AppProtocol})
		}
	}
	return targets
}

// Problems are what is wrong with a mapping, with the error that came with it, and what is right about the
// rest; nil if nothing is wrong.
func Problems(all []Mapping, err error) error {
	problems := []error{err}
	var served []Mapping
	for _, m := range all {
		if m.Problem != nil {
			problems = append(problems, fmt.Errorf("port %s: %w", describe(m.Port), m.Problem))
		} else if m.Target != 0 {
			served = append(served, m)
		}
	}
	problem := join(dropNil(problems))
	if problem == nil || len(served) == 0 {
		return problem
	}
	return fmt.Errorf("%w\nserved ports: %s", problem, Texts(served, 5))
}

// Texts are the first few of a mapping, for a line.
func Texts(all []Mapping, most int) string {
	var texts []string
	for _, m := range all[:min(most, len(all))] {
		texts = append(texts, m.String())
	}
	if more := len(all) - most; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(texts, ", ")
}

// request is what the port rule looks at for one exported Service.
type request struct {
	*Gateway
	Assignments
	self         cache.ObjectName
	reservations []Reservation
	choices      []choice
}

func (g *Gateway) request(exported *corev1.Service, assigned Assignments) (request, []corev1.ServicePort, error) {
	r := request{Gateway: g, Assignments: assigned, self: cache.MetaObjectToName(exported)}
	ports, selection := Selected(exported)
	var reservations, choice error
	r.reservations, reservations = ParseReservations(exported.Annotations[PortsAnnotation])
	r.choices, choice = choices(exported)
	problems := []error{selection, reservations, choice}
	if r.Published != nil {
		problems = append(problems, r.Published.Problem)
	}
	return r, ports, join(dropNil(problems))
}

// route is the rule for one port: the first line that fits decides, even if what it says cannot be had. So
// nothing that the gateway gains or loses has traffic go elsewhere than where an explicit line sends it.
//
// Law: a port that is added to the gateway never takes a target away; and it never changes one, unless it is of
// the class that the exported port needs.
func (r request) route(port corev1.ServicePort) (int32, Line, error) {
	if target, line, err := r.reserved(port); line != "" {
		return r.checked(target, port, line, err)
	}
	for _, explicit := range []struct {
		line Line
		name string
		fix  string
	}{
		{ByGatewayPort, r.Port, "set gateway-port in --remote to one of its ports"},
		{ByAnnotation, chosen(r.choices, port), "correct the annotation " + PortAnnotation + " on the exported Service"},
	} {
		if explicit.name != "" {
			target, err := r.named(explicit.name, port, explicit.fix)
			return r.checked(target, port, explicit.line, err)
		}
	}
	if target, line, ok := r.sameClass(port); ok {
		return target, line, nil
	}
	problem := r.none(port)
	if r.Default != "" {
		target, err := r.named(r.Default, port, "set default-gateway-port in --remote to one of its ports")
		if err == nil {
			return r.checked(target, port, ByDefault, nil)
		}
		problem = fmt.Errorf("%w; the default gateway port cannot be used: %w", problem, err)
	}
	return 0, "", problem
}

// checked is a target that an explicit line gives, none where the load balancer does not serve it.
func (r request) checked(target int32, port corev1.ServicePort, line Line, err error) (int32, Line, error) {
	if err == nil {
		err = r.portError(PortNumber{target, protocol(port)})
	}
	if err != nil {
		target = 0
	}
	return target, line, err
}

// named is the gateway port with a name or number, of an exported port's protocol.
func (r request) named(name string, port corev1.ServicePort, fix string) (int32, error) {
	n, numeric := number(name)
	var fit []int32
	for _, p := range r.Ports {
		if protocol(p) == protocol(port) && possible(p.Port) && (p.Name == name || numeric && p.Port == n) {
			fit = append(fit, p.Port)
		}
	}
	if len(fit) == 0 {
		return 0, fmt.Errorf("the gateway has no %s port %q: it has %s: %s", protocol(port), name, ListPorts(r.Ports), fix)
	}
	target := slices.Min(fit)
	if owner, reserved := r.reservedFor(target, protocol(port)); reserved {
		return 0, fmt.Errorf("gateway port %d/%s is reserved for %v: %s", target, protocol(port), owner, fix)
	}
	claim := Reservation{Gateway: target, Protocol: protocol(port)}.claim()
	if err := r.crowded(claim); err != nil {
		return 0, err
	}
	if other := r.publishedHolder(claim); other != r.self && other != (cache.ObjectName{}) {
		return 0, fmt.Errorf("gateway port %s is allocated to %v by the remote's publisher: %s", claim, other, fix)
	}
	return target, nil
}

// sameClass is the line for what a gateway can route by the name in a request: a gateway port that serves
// the class, where a port of which nothing is known is taken for HTTP. Of several, one of the same name counts
// before 80 and 443, these before one of the same number, and that before the lowest.
func (r request) sameClass(exported corev1.ServicePort) (int32, Line, bool) {
	class := ClassOf(exported)
	line, routed := sameClass[class]
	if class == Unknown {
		class = HTTP
	}
	var best *corev1.ServicePort
	for i := range r.Ports {
		p := &r.Ports[i]
		if routed && serves(*p, class) && r.usable(p) && (best == nil || preferred(exported, *p, *best)) {
			best = p
		}
	}
	if best == nil {
		return 0, "", false
	}
	return best.Port, line, true
}

// usable tells whether a TCP port of the gateway can be chosen unless it is named: its load balancer serves it,
// and it is not reserved.
func (r request) usable(port *corev1.ServicePort) bool {
	_, reserved := r.reservedFor(port.Port, protocol(*port))
	return !reserved && possible(port.Port) && r.portError(PortNumber{port.Port, protocol(*port)}) == nil
}

// possible tells a port number: a remote's API server may answer with anything.
func possible(number int32) bool { return number > 0 && number <= math.MaxUint16 }

// preferred tells whether gateway port a is chosen before b, whatever their order.
func preferred(exported, a, b corev1.ServicePort) bool {
	for _, better := range []func(corev1.ServicePort) bool{
		func(p corev1.ServicePort) bool { return exported.Name != "" && p.Name == exported.Name },
		func(p corev1.ServicePort) bool { return p.Port == 80 || p.Port == 443 },
		func(p corev1.ServicePort) bool { return p.Port == exported.Port },
	} {
		if better(a) != better(b) {
			return better(a)
		}
	}
	return a.Port < b.Port
}

// none is why no gateway port serves a port, and what to do about it.
func (r request) none(port corev1.ServicePort) error {
	class, what, names := ClassOf(port), "", ""
	switch class {
	case HTTP:
		what, names = "HTTP", `"http"`
	case Unknown:
		class, what, names = HTTP, "HTTP (assumed)", `"http"`
	case HTTPS:
		what, names = "HTTPS", `"https"`
	case GRPC:
		what, names = "HTTP/2 without TLS, which gRPC requires", `"grpc", or "http2" if it serves HTTP/1.1 too,`
	case TCP:
		return fmt.Errorf("it is not HTTP, and no gateway port is reserved for it: reserve one with the annotation %s on the exported Service, or in the ConfigMap of tcp-services=; or, if it is HTTP, set its appProtocol to http", PortsAnnotation)
	default:
		return fmt.Errorf("no %s port of the gateway is reserved for it: reserve one with the annotation %s on the exported Service, or in the ConfigMap of udp-services=", protocol(port), PortsAnnotation)
	}
	for _, p := range r.Ports {
		if err := r.portError(PortNumber{p.Port, protocol(p)}); err != nil && serves(p, class) {
			return err
		}
	}
	if r.API {
		return fmt.Errorf("no listener of the Gateway serves %s: it has %s: add one, or choose one with the annotation %s on the exported Service", what, ListPorts(r.Ports), PortAnnotation)
	}
	return fmt.Errorf("no port of the gateway serves %s: it has %s: in the gateway Service, name the one that does %s or choose one with the annotation %s on the exported Service",
		what, ListPorts(r.Ports), names, PortAnnotation)
}

// PortNumber is a port of a gateway.
type PortNumber struct {
	Number   int32
	Protocol corev1.Protocol
}

func (p PortNumber) compare(other PortNumber) int {
	return cmp.Or(cmp.Compare(p.Number, other.Number), cmp.Compare(p.Protocol, other.Protocol))
}

// unserved are the ports of a gateway Service that its load balancer reports an
// error for (status.loadBalancer.ingress[].ports[].error, KEP-1435), with that error
// and where it is. The addresses of a mirror serve all of its ports alike, so a port
// that fails at one address of several counts as failed: a mirror must not send a
// share of its connections to where they fail. Entries without an address do not count.
func unserved(svc *corev1.Service) map[PortNumber]string {
	var all map[PortNumber]string
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		at := cmp.Or(ingress.IP, ingress.Hostname)
		if at == "" {
			continue
		}
		for _, status := range ingress.Ports {
			if status.Error == nil || *status.Error == "" {
				continue
			}
			port := PortNumber{status.Port, cmp.Or(status.Protocol, corev1.ProtocolTCP)}
			reason := fmt.Sprintf("%.100q at %.253s", *status.Error, at)
			if first, ok := all[port]; ok && first <= reason || !hasPort(svc.Spec.Ports, port) {
				continue // whatever the order of the entries, the reason is the same
			}
			if all == nil {
				all = map[PortNumber]string{}
			}
			all[port] = reason
		}
	}
	return all
}

func hasPort(ports []corev1.ServicePort, want PortNumber) bool {
	return slices.ContainsFunc(ports, func(p corev1.ServicePort) bool { return p.Port == want.Number && protocol(p) == want.Protocol })
}

// portError is why a port of the gateway is not served, nil where it is.
func (g *Gateway) portError(port PortNumber) error {
	if reason, ok := g.Unserved[port]; ok {
		return fmt.Errorf("gateway port %d/%s is not served: its load balancer reports the error %s: fix the load balancer of the gateway Service", port.Number, port.Protocol, reason)
	}
	return nil
}

func (g *Gateway) portErrors() (all []error) {
	for _, port := range slices.SortedFunc(maps.Keys(g.Unserved), PortNumber.compare) {
		all = append(all, g.portError(port))
	}
	return all
}

// ListPorts are the first few ports of a Service, for a message.
func ListPorts(ports []corev1.ServicePort) string {
	var texts []string
	for _, port := range ports {
		texts = append(texts, describe(port))
		if len(texts) == 10 {
			texts = append(texts, "…")
			break
		}
	}
	if len(texts) == 0 {
		return "none"
	}
	return strings.Join(texts, ", ")
}

func describe(port corev1.ServicePort) string {
	text := fmt.Sprintf("%d/%s", port.Port, protocol(port))
	if port.Name != "" {
		text = fmt.Sprintf("%s (%s)", port.Name, text)
	}
	return text
}

// protocol applies the API's default: TCP.
func protocol(port corev1.ServicePort) corev1.Protocol {
	return cmp.Or(port.Protocol, corev1.ProtocolTCP)
}

// ValidatePort checks the name or number of a port of a Service.
func ValidatePort(text string) error {
	_, numeric := number(text)
	if numeric || len(validation.IsDNS1123Label(text)) == 0 && strings.Trim(text, "0123456789") != "" {
		return nil
	}
	return fmt.Errorf("%.70q is neither a port's name nor a number from 1 to 65535", text)
}

// number parses a port number, 1 to 65535, in its canonical form: two spellings of
// one number would be two ports.
func number(text string) (int32, bool) {
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil || n == 0 || strconv.FormatUint(n, 10) != text {
		return 0, false
	}
	return int32(n), true
}
