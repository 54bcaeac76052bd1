// Package gateway knows how a remote cluster is entered: it reads the gateway
// Service (type LoadBalancer, in front of any ingress controller) into
// addresses and ports, and it alone knows which port of the gateway serves
// which port of an exported Service.
//
// It is pure: no client, no clock, no logging. Who fetches the gateway Service,
// and when it counts as known, is not its business.
package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// MaxAddresses bounds what one gateway may put into every mirror: addresses
// come from the remote, and each is written once per mirror.
const MaxAddresses = 64

// Gateway is the entrance of a remote cluster.
type Gateway struct {
	Addresses []netip.Addr         // sorted, unique, fit to be written into Endpoints
	Ports     []corev1.ServicePort // what the gateway listens on
	Port      string               // name or number of the only port to use; empty: choose by the port rule
}

// Equal tells whether two gateways, either of which may be unknown, are the same.
func (g *Gateway) Equal(other *Gateway) bool {
	if g == nil || other == nil {
		return g == other
	}
	return g.Port == other.Port && slices.Equal(g.Addresses, other.Addresses) &&
		equality.Semantic.DeepEqual(g.Ports, other.Ports)
}

// Config is what the operator says of one remote's gateway.
type Config struct {
	Service   cache.ObjectName // the gateway Service; zero: none is read
	Port      string           // as Gateway.Port
	Addresses []netip.Addr     // instead of what the gateway Service says
}

// ReadsService tells whether the gateway Service is needed: with addresses and
// a numeric port, the flags say all there is to know.
func (c Config) ReadsService() bool {
	_, numeric := number(c.Port)
	return len(c.Addresses) == 0 || !numeric
}

// Validate tells what is missing for a gateway to be reachable.
func (c Config) Validate() error {
	if c.ReadsService() && c.Service == (cache.ObjectName{}) {
		return errors.New("no gateway is named: give gateway=NAMESPACE/NAME, or address=IP together with a numeric gateway-port")
	}
	for _, addr := range c.Addresses {
		if err := usable(addr); err != nil {
			return fmt.Errorf("address=%v: %w", addr, err)
		}
	}
	return nil
}

// Resolve combines the flags with the gateway Service as it is now; svc is nil
// where it does not exist or is not read. A nil Gateway means that nothing is
// known and that existing endpoints must stay. The error lists what is wrong
// with the gateway; it may stand beside a Gateway that can be used.
func (c Config) Resolve(svc *corev1.Service) (*Gateway, error) {
	gw := &Gateway{Port: c.Port}
	switch {
	case !c.ReadsService():
		n, _ := number(c.Port)
		for _, protocol := range []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP} {
			gw.Ports = append(gw.Ports, corev1.ServicePort{Port: n, Protocol: protocol})
		}
	case svc == nil:
		return gw, fmt.Errorf("gateway Service %v does not exist", c.Service)
	default:
		gw.Ports = svc.Spec.Ports
	}
	addrs, hostnames := c.Addresses, []string(nil)
	var problem error
	if len(addrs) == 0 {
		addrs, hostnames, problem = Ingress(svc)
	}
	addrs = normalize(addrs)
	if len(addrs) > MaxAddresses {
		problem = errors.Join(problem, fmt.Errorf("the gateway has %d addresses: only the first %d are used", len(addrs), MaxAddresses))
		addrs = addrs[:MaxAddresses]
	}
	gw.Addresses = addrs
	if len(hostnames) > 0 {
		problem = errors.Join(problem, fmt.Errorf("hostnames (%s) are not resolved: use address=IP", abbreviate(hostnames)))
		if len(addrs) == 0 {
			return nil, problem
		}
	}
	return gw, problem
}

// Ingress reads the addresses and hostnames at which a gateway Service is
// reached: those of status.loadBalancer.ingress, else spec.externalIPs. The
// first source that has any entry counts alone, even when all of it is refused.
// The error lists what was refused, or says what to do where there is nothing.
func Ingress(svc *corev1.Service) (addrs []netip.Addr, hostnames []string, err error) {
	var texts []string
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		switch {
		case ingress.IP != "":
			texts = append(texts, ingress.IP)
		case ingress.Hostname != "":
			hostnames = append(hostnames, ingress.Hostname)
		}
	}
	if len(texts) == 0 && len(hostnames) == 0 {
		texts = svc.Spec.ExternalIPs
	}
	if len(texts) == 0 && len(hostnames) == 0 {
		return nil, nil, noAddress(svc)
	}
	var refused []error
	for _, text := range texts {
		addr, parseErr := netip.ParseAddr(text)
		if parseErr != nil {
			refused = append(refused, fmt.Errorf("address %.64q is refused: not an IP address", text))
			continue
		}
		if unusable := usable(addr); unusable != nil {
			refused = append(refused, fmt.Errorf("address %v is refused: %w", addr, unusable))
			continue
		}
		addrs = append(addrs, addr)
	}
	return normalize(addrs), hostnames, join(refused)
}

func noAddress(svc *corev1.Service) error {
	if svc.Spec.Type == corev1.ServiceTypeLoadBalancer {
		return fmt.Errorf("gateway Service %s/%s has no address yet", svc.Namespace, svc.Name)
	}
	return fmt.Errorf("gateway Service %s/%s is of type %s and has no external address: make it a LoadBalancer, or give address=IP",
		svc.Namespace, svc.Name, svc.Spec.Type)
}

// usable refuses what would lead traffic back into the local cluster or
// nowhere, and what the API server does not take in Endpoints: loopback,
// unspecified, link-local (cloud metadata included), multicast and broadcast.
func usable(addr netip.Addr) error {
	if addr.Zone() != "" || !addr.Unmap().IsGlobalUnicast() {
		return errors.New("not a unicast address that another cluster can be reached at")
	}
	return nil
}

func normalize(addrs []netip.Addr) []netip.Addr {
	out := make([]netip.Addr, 0, len(addrs))
	for _, addr := range addrs {
		out = append(out, addr.Unmap())
	}
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// join makes one error of the first few: how many there are, the remote chooses.
func join(problems []error) error {
	if len(problems) > 3 {
		problems = append(problems[:3:3], fmt.Errorf("and %d more", len(problems)-3))
	}
	return errors.Join(problems...)
}

func abbreviate(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%.253s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// Trim cuts a gateway Service down to what Resolve reads.
func Trim(svc *corev1.Service) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID, ResourceVersion: svc.ResourceVersion},
		Spec:       corev1.ServiceSpec{Type: svc.Spec.Type, Ports: svc.Spec.Ports, ExternalIPs: svc.Spec.ExternalIPs},
		Status:     corev1.ServiceStatus{LoadBalancer: svc.Status.LoadBalancer},
	}
}
