package gateway

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// APIPrefix begins the name of a gateway that is a Gateway of the Gateway API, in place of a Service: managed ones,
// and those of some implementations, have no Service that could be named.
const APIPrefix = "gateway-api:"

// APIGateway is what is read of a Gateway of the Gateway API.
type APIGateway struct {
	IPs, Hostnames []string   // of its status
	Listeners      []Listener // those of its ListenerSets, too
	Problems       []string   // what its conditions say
}

// Listener is a listener of an APIGateway.
type Listener struct {
	Name     string
	Port     int32
	Protocol string // HTTP, HTTPS, TLS, TCP or UDP; a domain-prefixed one is an implementation's own
	// Problem is why it is not served; empty: it is.
	Problem string
}

// ReadAPI is Read for a Gateway of the Gateway API; nil: it does not exist.
func (c Config) ReadAPI(gw *APIGateway, filter Filter) (Entrance, error) {
	if gw == nil {
		return c.read(nil, fmt.Errorf("Gateway %v does not exist: create it, or set another one with gateway=%sNAMESPACE/NAME", c.Service, APIPrefix), filter)
	}
	f := &front{texts: gw.IPs, hostnames: gw.Hostnames}
	for _, problem := range gw.Problems {
		f.problems = append(f.problems, fmt.Errorf("Gateway %v %.500s", c.Service, problem))
	}
	for _, l := range gw.Listeners {
		if l.Problem != "" {
			f.problems = append(f.problems, fmt.Errorf("listener %.63q of Gateway %v is not served: %.300s: fix the listener", l.Name, c.Service, l.Problem))
		} else if port := l.port(); !slices.ContainsFunc(f.ports, func(p corev1.ServicePort) bool { return same(p, port) }) {
			f.ports = append(f.ports, port)
		}
	}
	if len(gw.IPs)+len(gw.Hostnames) == 0 {
		f.noAddress = fmt.Errorf("Gateway %v has no address yet: check its conditions, and that the controller of its GatewayClass runs", c.Service)
	}
	return c.read(f, nil, filter)
}

func same(a, b corev1.ServicePort) bool {
	return a.Name == b.Name && a.Port == b.Port && a.Protocol == b.Protocol && *a.AppProtocol == *b.AppProtocol
}

// port is the listener as a port of a gateway Service that says the same. One of another protocol than those of the
// API is reached only if it is named.
func (l Listener) port() corev1.ServicePort {
	protocol, app := corev1.ProtocolTCP, "tcp"
	switch l.Protocol {
	case "HTTP":
		app = "http"
	case "HTTPS":
		app = "https"
	case "TLS":
		app = "tls"
	case "UDP":
		protocol, app = corev1.ProtocolUDP, "udp"
	}
	return corev1.ServicePort{Name: strings.Clone(l.Name), Port: l.Port, Protocol: protocol, AppProtocol: &app}
}
