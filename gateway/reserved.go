package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// PortsAnnotation, on an exported Service, names the gateway ports that are reserved
// for its ports: "5432=15432", separated by commas, with /UDP or /SCTP after a port
// that is not TCP.
const PortsAnnotation = "service-mirror.io/gateway-ports"

// Reserved are the gateway ports that each route to one port of one Service: plain
// TCP and UDP carry no name that a gateway could route by.
type Reserved map[ReservedFor]int32

// ReservedFor is a port of a Service that has a gateway port of its own.
type ReservedFor struct {
	Service  cache.ObjectName
	Port     string // number or name
	Protocol corev1.Protocol
}

// ParseReserved reads a ConfigMap in the tcp-services format of ingress-nginx
// and HAProxy: keys are gateway ports, values NAMESPACE/SERVICE:PORT. The error
// names the entries that cannot be used; the others can.
func ParseReserved(data map[string]string, protocol corev1.Protocol) (Reserved, error) {
	reserved := Reserved{}
	var problems []error
	for _, key := range slices.Sorted(maps.Keys(data)) {
		target, gatewayPort, err := parseReserved(key, data[key])
		if err != nil {
			problems = append(problems, fmt.Errorf("entry %.20q: %.100q: %w", key, data[key], err))
			continue
		}
		target.Protocol = protocol
		if other, ok := reserved[target]; ok {
			problems = append(problems, fmt.Errorf("ports %d and %d are both reserved for %v:%s: the lower one is used", min(other, gatewayPort), max(other, gatewayPort), target.Service, target.Port))
			gatewayPort = min(other, gatewayPort)
		}
		reserved[target] = gatewayPort
	}
	return reserved, join(problems)
}

func parseReserved(key, value string) (ReservedFor, int32, error) {
	gatewayPort, ok := number(key)
	if !ok {
		return ReservedFor{}, 0, errors.New("the key is not a port number from 1 to 65535")
	}
	parts := strings.Split(strings.TrimSpace(value), ":")
	namespace, name, slash := strings.Cut(parts[0], "/")
	if !slash || len(parts) < 2 || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0 {
		return ReservedFor{}, 0, errors.New("expected NAMESPACE/SERVICE:PORT")
	}
	port := parts[1]
	if err := ValidatePort(port); err != nil {
		return ReservedFor{}, 0, fmt.Errorf("%q is not a port of a Service", port)
	}
	// The third part is what the gateway expects of its clients: mirrors send none.
	if len(parts) > 2 && strings.HasPrefix(strings.ToUpper(parts[2]), "PROXY") {
		return ReservedFor{}, 0, errors.New("the gateway expects the PROXY protocol on this port, which clients of mirrors do not send")
	}
	return ReservedFor{Service: cache.NewObjectName(namespace, name), Port: port}, gatewayPort, nil
}

// Reservation is one entry of PortsAnnotation.
type Reservation struct {
	Port     int32 // of the Service
	Gateway  int32
	Protocol corev1.Protocol
}

// ParseReservations reads PortsAnnotation. The error names the entries that
// cannot be used; the others can.
func ParseReservations(annotation string) ([]Reservation, error) {
	var all []Reservation
	var problems []error
	for entry := range strings.SplitSeq(annotation, ",") {
		if entry = strings.TrimSpace(entry); entry == "" {
			continue
		}
		if len(all) == maxEntries {
			problems = append(problems, fmt.Errorf("annotation %s has more than %d entries", PortsAnnotation, maxEntries))
			break
		}
		r, err := parseReservation(entry)
		if err == nil && slices.ContainsFunc(all, func(other Reservation) bool { return other.Port == r.Port && other.Protocol == r.Protocol }) {
			err = fmt.Errorf("port %d is set twice", r.Port)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("annotation %s, entry %.40q: %w", PortsAnnotation, entry, err))
			continue
		}
		all = append(all, r)
	}
	return all, join(problems)
}

func parseReservation(entry string) (Reservation, error) {
	left, right, _ := strings.Cut(entry, "=")
	port, protocol, portOK := portAndProtocol(left)
	gatewayPort, gatewayProtocol, gatewayOK := portAndProtocol(right)
	if !portOK || !gatewayOK {
		return Reservation{}, errors.New("expected PORT=GATEWAYPORT such as 5432=15432 or 53/UDP=15353/UDP")
	}
	if !strings.Contains(right, "/") {
		gatewayProtocol = protocol
	}
	if protocol != gatewayProtocol {
		return Reservation{}, fmt.Errorf("%s cannot be routed to %s", protocol, gatewayProtocol)
	}
	return Reservation{Port: port, Gateway: gatewayPort, Protocol: protocol}, nil
}

func portAndProtocol(text string) (int32, corev1.Protocol, bool) {
	digits, suffix, named := strings.Cut(strings.TrimSpace(text), "/")
	n, ok := number(digits)
	switch protocol := corev1.Protocol(strings.ToUpper(suffix)); {
	case !ok:
		return 0, "", false
	case !named:
		return n, corev1.ProtocolTCP, true
	case protocol == corev1.ProtocolTCP || protocol == corev1.ProtocolUDP || protocol == corev1.ProtocolSCTP:
		return n, protocol, true
	}
	return 0, "", false
}

// Claims are the gateway ports that an exported Service's annotation wants, each
// as NUMBER/PROTOCOL. One that cannot be reached through a gateway keeps them from no other.
func Claims(exported *corev1.Service) (claims []string) {
	if exported.Spec.Type == corev1.ServiceTypeExternalName || exported.Spec.ClusterIP == corev1.ClusterIPNone {
		return nil
	}
	reservations, _ := ParseReservations(exported.Annotations[PortsAnnotation])
	for _, r := range reservations {
		claims = append(claims, r.claim())
	}
	return claims
}

func (r Reservation) claim() string { return fmt.Sprintf("%d/%s", r.Gateway, r.Protocol) }

// Chosen is by what name and number the gateway port of a claim can be chosen, and whether the gateway chooses it for all.
func (g *Gateway) Chosen(claim string) (texts []string, forAll bool) {
	for _, p := range g.Ports {
		if (Reservation{Gateway: p.Port, Protocol: protocol(p)}).claim() == claim {
			texts = append(texts, strconv.Itoa(int(p.Port)))
			if p.Name != "" {
				texts = append(texts, p.Name)
			}
		}
	}
	return texts, slices.Contains(texts, g.Port) || slices.Contains(texts, g.Default)
}

// reserved is the gateway port that is reserved for a port of an exported Service: the publisher's record takes
// precedence over its annotation, which the publisher has read, and this over the ConfigMaps. There is no line if none
// is reserved; the error is why the one that is reserved cannot be used.
func (r request) reserved(port corev1.ServicePort) (target int32, line Line, err error) {
	if says := r.record(port); says != nil {
		target, err = r.published(port, says)
		return target, ByRecord, err
	}
	if mine := r.reservation(port); mine != nil {
		target, err = r.claimed(*mine)
		return target, ReservedByAnnotation, err
	}
	for _, name := range []string{strconv.Itoa(int(port.Port)), port.Name} {
		if target, ok := r.Reserved[ReservedFor{Service: r.self, Port: name, Protocol: protocol(port)}]; ok {
			return target, ReservedByConfigMap, r.listens(target, protocol(port))
		}
	}
	return 0, "", nil
}

// alone tells whether the target that a line gives to a port serves this Service alone.
func (r request) alone(port corev1.ServicePort, line Line) bool {
	if line == ByRecord {
		return !r.record(port).Shared
	}
	return line == ReservedByAnnotation || line == ReservedByConfigMap
}

// reservation is the entry of PortsAnnotation for a port; nil: there is none.
func (r request) reservation(port corev1.ServicePort) *Reservation {
	i := slices.IndexFunc(r.reservations, func(r Reservation) bool { return r.Port == port.Port && r.Protocol == protocol(port) })
	if i < 0 {
		return nil
	}
	return &r.reservations[i]
}

// claimed is the gateway port of an entry of PortsAnnotation.
func (r request) claimed(mine Reservation) (int32, error) {
	if other, reserved := r.reservedFor(mine.Gateway, mine.Protocol); reserved && other.Service != r.self {
		return 0, fmt.Errorf("gateway port %s is reserved for %v: choose another one in the annotation %s", mine.claim(), other.Service, PortsAnnotation)
	}
	if err := r.crowded(mine.claim()); err != nil {
		return 0, err
	}
	if r.Holder != nil {
		if other := r.Holder(mine.claim()); other != r.self && other != (cache.ObjectName{}) {
			return 0, fmt.Errorf("gateway port %s is reserved for %v, %s: choose another one in the annotation %s", mine.claim(), other, r.why(mine.claim(), other), PortsAnnotation)
		}
	}
	return mine.Gateway, r.listens(mine.Gateway, mine.Protocol)
}

// why says by what right another Service has a gateway port that this one claims.
func (r request) why(claim string, other cache.ObjectName) string {
	if r.publishedHolder(claim) == other {
		return "to which the remote's publisher assigned it"
	}
	return "an older Service that also claims it"
}

// reservedFor is what a ConfigMap reserves a gateway port for, the first of several.
func (g *Gateway) reservedFor(gatewayPort int32, protocol corev1.Protocol) (owner ReservedFor, reserved bool) {
	for other, target := range g.Reserved {
		if target == gatewayPort && other.Protocol == protocol && (!reserved || other.compare(owner) < 0) {
			owner, reserved = other, true
		}
	}
	return owner, reserved
}

func (r ReservedFor) compare(other ReservedFor) int {
	return cmp.Or(strings.Compare(r.Service.Namespace, other.Service.Namespace), strings.Compare(r.Service.Name, other.Service.Name), strings.Compare(r.Port, other.Port))
}

// String is the port as a ConfigMap has it.
func (r ReservedFor) String() string { return fmt.Sprintf("%v:%s", r.Service, r.Port) }

// listens refuses a reserved port that the gateway Service does not have. If that
// Service is not read, the operator is trusted to know.
func (g *Gateway) listens(target int32, want corev1.Protocol) error {
	if g.Static || hasPort(g.Ports, PortNumber{target, want}) {
		return nil
	}
	if g.API {
		return fmt.Errorf("port %d/%s is reserved for it, but the Gateway does not have a listener for it: it has %s: add one, or reserve another port", target, want, ListPorts(g.Ports))
	}
	return fmt.Errorf("port %d/%s is reserved for it, but the gateway Service does not have that port: it has %s: add the port to the gateway Service, or reserve another one", target, want, ListPorts(g.Ports))
}
