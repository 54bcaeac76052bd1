package main

import (
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// cell is one exported port, and what comes of a request to it.
type cell struct {
	port   corev1.ServicePort // its target is the pod's port that must answer
	scheme string             // of the request
	wrong  string             // what the client is answered instead
}

// refused is the cell of a port that no gateway port serves.
func refused(scheme string, port corev1.ServicePort) cell {
	return cell{port: port, scheme: scheme, wrong: "connection refused"}
}

// speaks is a port with an appProtocol.
func speaks(protocol string, port corev1.ServicePort) corev1.ServicePort {
	port.AppProtocol = &protocol
	return port
}

// matrix is every class of port, known by appProtocol, by name and by number, and what a gateway as it ships makes
// of it: each cell is answered by the very port that was exported, or refused.
var matrix = []struct {
	service    string
	gatewayBy  string // the annotation service-mirror.io/gateway-port
	reservedBy string // the annotation service-mirror.io/gateway-ports
	cells      []cell
}{{
	service: "named", cells: []cell{
		{port: port("http", 80, httpPort), scheme: "http"},
		{port: port("http-alt", 8080, httpOtherPort), scheme: "http"},
		{port: port("web", 8000, httpOtherPort), scheme: "http"},
		{port: speaks("http", port("tcp-odd", 8001, httpOtherPort)), scheme: "http"},
		{port: port("https", 443, httpsPort), scheme: "https"},
		{port: port("https-alt", 8443, httpsOtherPort), scheme: "https"},
		{port: speaks("https", port("odd", 7444, httpsOtherPort)), scheme: "https"},
		{port: port("tls", 7445, httpsOtherPort), scheme: "https"},
		{port: port("https-grpc", 7446, grpcTLSPort), scheme: "grpcs"},
		{port: port("https-not", 7447, httpPort), scheme: "https", wrong: "status 50"}, // it has no TLS: 502 or 503
		{port: port("grpc", 50051, grpcPort), scheme: "grpc"},
		{port: speaks("kubernetes.io/h2c", port("stream", 7001, grpcPort)), scheme: "grpc"},
		{port: port("http2", 7002, grpcPort), scheme: "grpc"},
		{port: port("metrics", 9090, httpOtherPort), scheme: "http"}, // assumed HTTP
		{port: port("api", 3000, httpPort), scheme: "http"},
		refused("tcp", port("postgres", 5432, tcpPort)),
		refused("tcp", port("tcp-foo", 7000, tcpPort)),
		refused("tcp", speaks("tcp", port("plain", 7003, tcpPort))),
		refused("udp", corev1.ServicePort{Name: "lookup", Port: 5353, Protocol: corev1.ProtocolUDP, TargetPort: intstr.FromInt32(udpPort)}),
	},
}, {
	service: "websecure", cells: []cell{
		{port: port("web", 8080, httpPort), scheme: "http"},
		{port: port("websecure", 8443, httpsPort), scheme: "https"},
	},
}, {
	service: "number-80", cells: []cell{{port: port("", 80, httpOtherPort), scheme: "http"}},
}, {
	service: "number-8080", cells: []cell{{port: port("", 8080, httpOtherPort), scheme: "http"}},
}, {
	service: "number-443", cells: []cell{{port: port("", 443, httpsOtherPort), scheme: "https"}},
}, {
	service: "number-8443", cells: []cell{{port: port("", 8443, httpsOtherPort), scheme: "https"}},
}, {
	service: "number-50051", cells: []cell{{port: port("", 50051, grpcPort), scheme: "grpc"}},
}, {
	service: "number-3000", cells: []cell{{port: port("", 3000, httpOtherPort), scheme: "http"}},
}, {
	service: "number-5432", cells: []cell{refused("tcp", port("", 5432, tcpPort))},
}, {
	service: "edge", cells: []cell{{port: port("https-edge", 443, httpPort), scheme: "https"}},
}, {
	service: "edge-chosen", gatewayBy: "443=https-edge, grpc=https-edge", cells: []cell{
		{port: port("http", 80, httpPort), scheme: "http"},
		{port: port("https", 443, httpOtherPort), scheme: "https"},
		{port: port("grpc", 50051, grpcPort), scheme: "grpcs"},
	},
}, {
	service: "not-reserved", reservedBy: "5432=15433", cells: []cell{
		{port: port("http", 80, httpPort), scheme: "http"},
		refused("tcp", port("postgres", 5432, tcpPort)),
	},
}}

// matrix requests each cell. Reserved ports are in requests: there each gateway has what it can do.
func (s *scene) matrix() {
	for _, row := range matrix {
		s.must(s.world.paris.service("default", row.service, true, func(svc *corev1.Service) {
			svc.Annotations = map[string]string{}
			for key, value := range map[string]string{"gateway-port": row.gatewayBy, "gateway-ports": row.reservedBy} {
				if value != "" {
					svc.Annotations["service-mirror.io/"+key] = value
				}
			}
			svc.Spec.Selector = map[string]string{"app": "bar"}
			for _, c := range row.cells {
				svc.Spec.Ports = append(svc.Spec.Ports, c.port)
			}
		}))
		s.Cleanup(func() {
			s.must(s.world.paris.CoreV1().Services("default").Delete(background, row.service, metav1.DeleteOptions{}))
		})
	}
	// What is refused is refused before a mirror is complete, too: these come when the others have been reached.
	for _, isRefused := range []bool{false, true} {
		for _, row := range matrix {
			for _, c := range row.cells {
				if (c.wrong == "connection refused") == isRefused {
					s.Run(fmt.Sprintf("%s %s %d", row.service, c.port.Name, c.port.Port), func(t *testing.T) {
						(&scene{t, s.world, s.gateway}).cell(row.service, c)
					})
				}
			}
		}
	}
	lines := s.results(map[string]string{
		"default/named-paris postgres 5432/TCP": "no endpoint", "default/named-paris tcp-foo 7000/TCP": "no endpoint",
		"default/named-paris plain 7003/TCP": "no endpoint", "default/named-paris lookup 5353/UDP": "no endpoint", "default/named-paris https-not 7447/TCP": "unavailable",
		"default/number-5432-paris 5432/TCP": "no endpoint", "default/edge-paris https-edge 443/TCP": "reached",
		"default/named-paris tls 7445/TCP": "reached", "default/named-paris metrics 9090/TCP": "reached",
	}, "--ca-file", s.world.root.file("ca"), "default/named-paris", "default/number-5432-paris", "default/edge-paris")
	s.says(lines, "default/named-paris https-not 7447/TCP", "that it speaks TLS")
}

// cell makes the request to one port, as a client that knows nothing of the gateway.
func (s *scene) cell(service string, c cell) {
	mirror, own := service+"-paris.default.svc.cluster.local", service+".default.svc.cluster.local"
	port := fmt.Sprintf(":%d", c.port.Port)
	url := c.scheme + "://" + mirror + port
	want := seen{Backend: "bar of paris", Port: c.port.TargetPort.IntValue(), Proto: "HTTP/1.1", ForwardedFor: londonPlace.node, ForwardedProto: c.scheme}
	switch c.scheme {
	case "http", "https":
		if c.scheme == "http" && c.port.Port == 80 || c.scheme == "https" && c.port.Port == 443 { // as clients have it
			url, port = c.scheme+"://"+mirror, ""
		}
		url += "/"
	case "grpc", "grpcs":
		want.Proto, want.ForwardedProto = "grpc", ""
	}
	if c.scheme == "https" {
		want.Issued = "paris-gateway"
	}
	want.Host, want.ForwardedHost = own+port, mirror+port
	s.answers([]string{"--network", "tcp4", "--root", s.world.root.file("ca"), url}, want, s.gateway.address, c.wrong)
}

// backendsVerified has a gateway that wants a certificate of the shared root, for the Service's own name, from what
// it goes on to over TLS.
func (s *scene) backendsVerified() {
	root := s.world.root.file("ca")
	s.must(s.world.paris.service("default", "misnamed", true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "bar"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort), port("https", 443, httpsPort), port("https-edge", 8443, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, "misnamed", metav1.DeleteOptions{}))
	})
	for _, url := range []string{"https://bar-paris.default.svc.cluster.local/", "http://misnamed-paris.default.svc.cluster.local/",
		"https://misnamed-paris.default.svc.cluster.local:8443/"} {
		s.serves("--root", root, url)
	}
	s.answers([]string{"--root", root, "https://misnamed-paris.default.svc.cluster.local/"}, seen{}, "", "status 50")
	s.must(s.gateway.remove())
}
