// Package gateway describes the gateway of a remote cluster: it reads the gateway
// Service (type LoadBalancer, in front of any ingress controller) into addresses
// and ports, resolves hostnames, probes the addresses, and has the port rule: which
// port of the gateway serves which port of an exported Service.
//
// gateway.go, classes.go, annotations.go, ports.go, reserved.go, published.go, api.go and filter.go are pure: they import no client,
// clock, logger or context. watch.go, names.go and probe.go keep a gateway up to
// date. The callers fetch the gateway Service and use the gateway.
package gateway

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Limits of one gateway: what it has comes from the remote and is written to every
// mirror, and each hostname is resolved over and over.
const (
	MaxAddresses = 64
	MaxHostnames = 16
)

// Gateway is where the traffic to a remote cluster goes.
type Gateway struct {
	Addresses []Address             // sorted, unique, valid in Endpoints
	Partial   bool                  // not all addresses are known yet: those of live Endpoints stay too, if Keeps
	Missing   corev1.IPFamily       // if Partial: the only family of which not all are known; empty: neither is
	Refused   bool                  // it has addresses or hostnames, and the filter refuses all of them
	Ports     []corev1.ServicePort  // what the gateway listens on
	Port      string                // name or number of the only port to use; empty: choose by the port rule
	Default   string                // name or number of the port for what no other line of that rule serves; empty: none
	Static    bool                  // Ports is what the flags say, not what a Service has
	API       bool                  // it is a Gateway of the Gateway API, not a Service
	Unserved  map[PortNumber]string // ports that the load balancer does not serve, with the reason
	Reserved  Reserved              // ports that serve one Service alone
	Linkerd   Linkerd               // zero: the gateway is not Linkerd's

	keeps func(netip.Addr) bool // nil: all
}

// Lacks reports whether not all addresses of a family are known yet.
func (g *Gateway) Lacks(family corev1.IPFamily) bool {
	return g.Partial && (g.Missing == "" || g.Missing == family)
}

// Keeps reports whether a live address may stay while not all are known: it may
// belong to a hostname that is not resolved yet.
func (g *Gateway) Keeps(addr netip.Addr) bool {
	return g.Lacks(FamilyOf(addr)) && (g.keeps == nil || g.keeps(addr))
}

// FamilyOf is the IP family of an address.
func FamilyOf(addr netip.Addr) corev1.IPFamily {
	if addr.Unmap().Is4() {
		return corev1.IPv4Protocol
	}
	return corev1.IPv6Protocol
}

// Address is one address of a gateway.
type Address struct {
	netip.Addr
	Health Health
}

// Health is what the probes found out about an address.
type Health int

// The values. Only an address that is NotReady is not ready in mirrors' endpoints.
const (
	Ready     Health = iota
	NotReady         // it failed its probes
	Unprobed         // no result yet: it keeps the readiness that it has in live Endpoints; a new one is ready
	NotProbed        // there are no probes: nothing is known of it
)

// String is the value of the metric's label.
func (h Health) String() string {
	return [...]string{"ready", "not ready", "not probed yet", "not probed"}[h]
}

// Linkerd is what Linkerd's proxies must know of a gateway that is Linkerd's.
type Linkerd struct {
	Identity string // the gateway's TLS name
	Domain   string // the remote's cluster domain
}

// identityAnnotation is set on Linkerd's gateway Services.
const identityAnnotation = "mirror.linkerd.io/gateway-identity"

// Equal reports whether two gateways, either of which may be unknown, are the same.
func (g *Gateway) Equal(other *Gateway) bool {
	if g == nil || other == nil {
		return g == other
	}
	return g.Port == other.Port && g.Default == other.Default && g.Partial == other.Partial && g.Missing == other.Missing && g.Refused == other.Refused && g.Static == other.Static && g.API == other.API && g.Linkerd == other.Linkerd &&
		slices.Equal(g.Addresses, other.Addresses) &&
		equality.Semantic.DeepEqual(g.Ports, other.Ports) && maps.Equal(g.Unserved, other.Unserved) && maps.Equal(g.Reserved, other.Reserved)
}

// Config is what the operator configures of one gateway of a remote.
type Config struct {
	Service     cache.ObjectName // the gateway Service; zero: none is read
	API         bool             // Service is the name of a Gateway of the Gateway API, which is read in place of a Service
	Port        string           // as Gateway.Port
	Default     string           // as Gateway.Default
	Addresses   []netip.Addr     // with Hostnames: instead of those of the gateway Service
	Hostnames   []string
	TCPServices cache.ObjectName // ConfigMap of reserved TCP ports; zero: none
	UDPServices cache.ObjectName // likewise of UDP ports
	Domain      string           // the remote's cluster domain
}

// Name is the configured name of the gateway; empty: none is read.
func (c Config) Name() string {
	switch {
	case c.Service == (cache.ObjectName{}):
		return ""
	case c.API:
		return APIPrefix + c.Service.String()
	}
	return c.Service.String()
}

// ReadsService reports whether the gateway Service, or Gateway, is needed: addresses and a
// numeric port are all there is to know.
func (c Config) ReadsService() bool {
	_, numeric := number(c.Port)
	return !c.overrides() || !numeric
}

func (c Config) overrides() bool { return len(c.Addresses)+len(c.Hostnames) > 0 }

// Validate lists what is missing or wrong.
func (c Config) Validate(filter Filter) error {
	var wrong []error
	if c.ReadsService() && c.Service == (cache.ObjectName{}) {
		wrong = append(wrong, errors.New("no gateway is configured: set gateway=NAMESPACE/NAME of a Service, gateway=gateway-api:NAMESPACE/NAME of a Gateway, or address=IP with a numeric gateway-port"))
	}
	for _, addr := range c.Addresses {
		if err := filter.address(addr); err != nil {
			wrong = append(wrong, fmt.Errorf("address=%v: %w", addr, err))
		}
	}
	for _, name := range c.Hostnames {
		if err := filter.hostname(name); err != nil {
			wrong = append(wrong, fmt.Errorf("address=%s: %w", name, err))
		}
	}
	return errors.Join(wrong...)
}

// ParseAddress adds an IP address or a hostname to the configuration.
func (c *Config) ParseAddress(text string) error {
	if addr, err := netip.ParseAddr(text); err == nil {
		c.Addresses = append(c.Addresses, addr)
		return nil
	}
	name := normalHostname(text)
	// What looks like an IP address is meant as one.
	if len(validation.IsDNS1123Subdomain(name)) > 0 || strings.Trim(name, "0123456789.") == "" {
		return fmt.Errorf("address=%.253s is neither an IP address nor a hostname", text)
	}
	c.Hostnames = append(c.Hostnames, name)
	return nil
}

// ValidateDomain checks a cluster domain.
func ValidateDomain(text string) error {
	if len(validation.IsDNS1123Subdomain(text)) > 0 {
		return fmt.Errorf("cluster domain %.253q is not a DNS domain", text)
	}
	return nil
}

// Entrance is a gateway as the flags and the gateway Service describe it, before its
// hostnames are resolved.
type Entrance struct {
	Addresses []netip.Addr
	Hostnames []string
	refused   bool    // at least one hostname was refused
	gateway   Gateway // all but its addresses
}

// Read combines the flags with the gateway Service as it is now; svc is nil
// where it does not exist or is not read. The error lists what is wrong with it;
// the entrance can be used all the same.
func (c Config) Read(svc *corev1.Service, filter Filter) (Entrance, error) {
	if svc == nil {
		return c.read(nil, fmt.Errorf("gateway Service %v does not exist: create it, or set another one with gateway=NAMESPACE/NAME", c.Service), filter)
	}
	f := &front{ports: svc.Spec.Ports}
	if identity := svc.Annotations[identityAnnotation]; identity != "" {
		f.linkerd = Linkerd{Identity: identity, Domain: c.Domain}
	}
	f.texts, f.hostnames = Ingress(svc)
	if len(f.texts)+len(f.hostnames) == 0 {
		f.noAddress = noAddress(svc)
	}
	f.unserved = unserved(svc)
	return c.read(f, nil, filter)
}

// front is what is read of a gateway Service, or of a Gateway.
type front struct {
	ports            []corev1.ServicePort
	linkerd          Linkerd
	texts, hostnames []string // its addresses
	noAddress        error    // where it has none: why
	unserved         map[PortNumber]string
	problems         []error // with all but its addresses
}

// read combines the flags with what is read; nil: that does not exist, which is absent, or is not read.
func (c Config) read(f *front, absent error, filter Filter) (Entrance, error) {
	entrance := Entrance{gateway: Gateway{Port: c.Port, Default: c.Default, API: c.API}}
	var problems []error
	switch {
	case !c.ReadsService():
		entrance.gateway.Static = true
		n, _ := number(c.Port)
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			entrance.gateway.Ports = append(entrance.gateway.Ports, corev1.ServicePort{Port: n, Protocol: protocol})
		}
	case f == nil:
		return entrance, absent
	default:
		entrance.gateway.Ports, entrance.gateway.Linkerd, problems = f.ports, f.linkerd, f.problems
	}
	texts, hostnames := addressTexts(c.Addresses), c.Hostnames
	if !c.overrides() {
		if f.noAddress != nil {
			return entrance, join(append(problems, f.noAddress))
		}
		texts, hostnames = f.texts, f.hostnames
		entrance.gateway.Unserved = f.unserved
		problems = append(problems, entrance.gateway.portErrors()...)
	}
	problems = append(problems, entrance.resolve(texts, hostnames, filter)...)
	return entrance, join(problems)
}

// resolve sets the addresses and the hostnames, but for those that are refused.
func (e *Entrance) resolve(texts, hostnames []string, filter Filter) (problems []error) {
	for _, text := range texts {
		addr, err := netip.ParseAddr(text)
		if err != nil {
			problems = append(problems, fmt.Errorf("address %.64q is refused: not an IP address", text))
			continue
		}
		e.Addresses = append(e.Addresses, addr)
	}
	names := make([]string, 0, len(hostnames))
	for _, name := range hostnames {
		names = append(names, normalHostname(name))
	}
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if err := filter.hostname(name); err != nil {
			problems = append(problems, fmt.Errorf("hostname %.253q is refused: %w", name, err))
			e.refused = true
			continue
		}
		e.Hostnames = append(e.Hostnames, name)
	}
	if n := len(e.Hostnames); n > MaxHostnames {
		problems = append(problems, fmt.Errorf("the gateway has %d hostnames: only the first %d are resolved", n, MaxHostnames))
		e.Hostnames = e.Hostnames[:MaxHostnames]
	}
	return problems
}

// Ingress returns the addresses and hostnames of a gateway Service: those of
// status.loadBalancer.ingress, else spec.externalIPs. Only the first source that has
// any entry counts, even if all of it is refused.
func Ingress(svc *corev1.Service) (addresses, hostnames []string) {
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		switch {
		case ingress.IP != "":
			addresses = append(addresses, ingress.IP)
		case ingress.Hostname != "":
			hostnames = append(hostnames, ingress.Hostname)
		}
	}
	if len(addresses) == 0 && len(hostnames) == 0 {
		addresses = svc.Spec.ExternalIPs
	}
	return addresses, hostnames
}

// Gateway is the gateway with the entrance's own addresses and those that were found
// for its hostnames, complete if every hostname has been resolved.
// The error lists the addresses that were refused.
func (e Entrance) Gateway(found []netip.Addr, complete bool, filter Filter) (*Gateway, error) {
	var problems []error
	var addrs []netip.Addr
	refused := e.refused
	for _, addr := range slices.Concat(e.Addresses, found) {
		if err := filter.address(addr); err != nil {
			problems = append(problems, fmt.Errorf("address %v is refused: %w", addr, err))
			refused = true
			continue
		}
		addrs = append(addrs, addr.Unmap())
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	if n := len(addrs); n > MaxAddresses {
		problems = append(problems, fmt.Errorf("the gateway has %d addresses: only the first %d are used", n, MaxAddresses))
		addrs = addrs[:MaxAddresses]
	}
	gw := e.gateway
	gw.Partial, gw.Refused = !complete, refused && len(addrs)+len(e.Hostnames) == 0
	for _, addr := range addrs {
		gw.Addresses = append(gw.Addresses, Address{Addr: addr})
	}
	return &gw, join(problems)
}

func addressTexts(addrs []netip.Addr) (texts []string) {
	for _, addr := range addrs {
		texts = append(texts, addr.String())
	}
	return texts
}

// noAddress says what to do for a gateway Service that has no address. The ports of
// the Service are not those of its nodes: an address of a node needs a node port.
func noAddress(svc *corev1.Service) error {
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return fmt.Errorf("gateway Service %s/%s has no address yet: check its Events for errors of its load balancer", svc.Namespace, svc.Name)
	}
	fix := "the port of the gateway at that address"
	if ports := nodePorts(svc); len(ports) > 0 {
		fix = "the node port: " + strings.Join(ports, ", ")
	}
	return fmt.Errorf("gateway Service %s/%s is of type %s and has no external address: make it a LoadBalancer, or set address=IP with a numeric gateway-port, %s",
		svc.Namespace, svc.Name, cmp.Or(svc.Spec.Type, corev1.ServiceTypeClusterIP), fix)
}

// nodePorts are the first few node ports of a Service, for a message.
func nodePorts(svc *corev1.Service) (texts []string) {
	for _, port := range svc.Spec.Ports {
		if port.NodePort != 0 && len(texts) < 10 {
			texts = append(texts, fmt.Sprintf("%d for %s", port.NodePort, describe(port)))
		}
	}
	return texts
}

// join returns one error of the first few: the remote determines how many there are.
func join(problems []error) error {
	if len(problems) > 3 {
		problems = append(problems[:3:3], fmt.Errorf("and %d more", len(problems)-3))
	}
	return errors.Join(problems...)
}

// Trim cuts a gateway Service down to what Read reads.
func Trim(svc *corev1.Service) *corev1.Service {
	trimmed := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ResourceVersion: svc.ResourceVersion},
		Spec:       corev1.ServiceSpec{Type: svc.Spec.Type, Ports: svc.Spec.Ports, ExternalIPs: svc.Spec.ExternalIPs},
		Status:     corev1.ServiceStatus{LoadBalancer: svc.Status.LoadBalancer},
	}
	if identity, ok := svc.Annotations[identityAnnotation]; ok {
		trimmed.Annotations = map[string]string{identityAnnotation: identity}
	}
	return trimmed
}

// Annotation, on an exported Service, names the gateway that routes to it where the
// remote has several: NAMESPACE/NAME.
const Annotation = "service-mirror.io/gateway"
