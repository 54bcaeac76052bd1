package main

import (
	"testing"
)

// family is one of London's address families: how a client asks for it, and the
// address that what leaves London has in it.
type family struct{ network, node string }

var families = []family{{"tcp4", londonPlace.node}, {"tcp6", londonPlace.node6}}

// requests is the table: what foo asks for over one family, and what must come of it.
func (s *scene) requests(over family, kind gatewayKind) {
	gateway := s.gateway.address
	network := []string{"--network", over.network}
	private, notExported := seen{}, "status 421"
	if kind.hasLists { // all are, in place of lists
		private, notExported = seen{Backend: "private of paris", Host: "private.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "private-paris.default", ForwardedFor: over.node, ForwardedProto: "http"}, ""
	}
	tests := []struct {
		name string
		args []string
		want seen   // Client is the gateway's address unless said
		err  string // instead
	}{{
		name: "full name", args: []string{"http://bar-paris.default.svc.cluster.local/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"},
	}, {
		name: "name with .svc", args: []string{"http://bar-paris.default.svc/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default.svc", ForwardedFor: over.node, ForwardedProto: "http"},
	}, {
		name: "short name", args: []string{"http://bar-paris.default/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "bar-paris.default", ForwardedFor: over.node, ForwardedProto: "http"},
	}, {
		name: "port 8080", args: []string{"http://web-paris.default.svc.cluster.local:8080/"},
		want: seen{Backend: "web of paris", Host: "web.default.svc.cluster.local:8080", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "web-paris.default.svc.cluster.local:8080", ForwardedFor: over.node, ForwardedProto: "http"},
	}, {
		name: "bare name: it names no namespace", args: []string{"http://bar-paris/"}, err: "status 421",
	}, {
		name: "another Host", args: []string{"--host", "example.org", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "another cluster's Host", args: []string{"--host", "bar-berlin.default", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "Host with more before it", args: []string{"--host", "x.bar-paris.default.svc.cluster.local", "http://bar-paris.default/"}, err: "status 421",
	}, {
		name: "not exported", args: []string{"--host", "private-paris.default", "http://bar-paris.default/"}, err: notExported,
		want: private,
	}, {
		name: "HTTPS that ends at the gateway", args: []string{"--root", s.world.root.file("ca"), "https://bar-paris.default.svc.cluster.local/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-gateway",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "https"},
	}, {
		name: "HTTPS over HTTP/2", args: []string{"--http2", "--root", s.world.root.file("ca"), "https://bar-paris.default.svc.cluster.local/"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-gateway",
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "https"},
	}, {
		name: "WebSocket over HTTPS", args: []string{"--root", s.world.root.file("ca"), "wss://bar-paris.default.svc.cluster.local/ws"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Messages: 3,
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "https"},
	}, {
		name: "HTTPS without the shared root", args: []string{"https://bar-paris.default.svc.cluster.local/"}, err: "unknown authority",
	}, {
		name: "WebSocket", args: []string{"ws://bar-paris.default.svc.cluster.local/ws"},
		want: seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Messages: 3,
			ForwardedHost: "bar-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"},
	}, {
		name: "gRPC", args: []string{"grpc://hello-paris.default.svc.cluster.local:9090"},
		want: seen{Backend: "hello of paris", Host: "hello.default.svc.cluster.local:9090", Port: grpcPort, Proto: "grpc",
			ForwardedHost: "hello-paris.default.svc.cluster.local:9090", ForwardedFor: over.node},
	}, {
		name: "gRPC stream", args: []string{"grpc-stream://hello-paris.default.svc.cluster.local:9090"},
		want: seen{Backend: "hello of paris", Host: "hello.default.svc.cluster.local:9090", Port: grpcPort, Proto: "grpc", Messages: 3,
			ForwardedHost: "hello-paris.default.svc.cluster.local:9090", ForwardedFor: over.node},
	}}
	tls := append(network, "--root", s.world.root.file("ca"), "https://secure-paris.default.svc.cluster.local/")
	raw := append(network, "tcp://postgres-paris.default.svc.cluster.local:5432")
	packet := append(network, "udp://lookup-paris.default.svc.cluster.local:5353")
	six := append(network, "http://six-paris.default.svc.cluster.local/")
	berlin := append(network, "http://bar-berlin.default.svc.cluster.local/")
	for i := range tests {
		s.Run(tests[i].name, func(t *testing.T) {
			s := &scene{t, s.world, s.gateway}
			s.answers(append(network, tests[i].args...), tests[i].want, gateway, tests[i].err)
		})
	}
	s.Run("second remote", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		want := seen{Backend: "bar of berlin", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1", Client: "*",
			ForwardedHost: "bar-berlin.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"}
		if over.network == "tcp4" {
			s.answers(berlin, want, gateway, "")
		} else { // its mirror has both families, its gateway one
			s.answers(berlin, seen{}, gateway, "connection refused")
		}
	})
	s.Run("IPv6 alone behind the gateway", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		s.answers(six, seen{Backend: "six of paris", Host: "six.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
			ForwardedHost: "six-paris.default.svc.cluster.local", ForwardedFor: over.node, ForwardedProto: "http"}, s.gateway.address6, "")
	})
	s.Run("TLS passed through", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		want := seen{Backend: "secure of paris", Host: "secure-paris.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-secure"}
		if kind.passthrough {
			s.answers(tls, want, gateway, "")
		} else { // it is ended at the gateway, and goes on over another connection
			want.Issued, want.Host, want.ForwardedProto = "paris-gateway", "secure.default.svc.cluster.local", "https"
			want.ForwardedHost, want.ForwardedFor = "secure-paris.default.svc.cluster.local", over.node
			s.answers(tls, want, gateway, "")
		}
	})
	s.Run("plain TCP", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		s.reserved(raw, kind.tcp, seen{Backend: "postgres of paris", Port: tcpPort, Proto: "tcp"})
	})
	s.Run("UDP", func(t *testing.T) {
		s := &scene{t, s.world, s.gateway}
		s.reserved(packet, kind.udp, seen{Backend: "lookup of paris", Port: udpPort, Proto: "udp"})
	})
}

// reserved makes a request to a port that a gateway serves, if at all, on a port
// of another number: what does not get there is refused.
func (s *scene) reserved(args []string, served bool, want seen) {
	s.Helper()
	if served {
		s.answers(args, want, s.gateway.address, "")
	} else {
		s.answers(args, seen{}, "", "connection refused")
	}
}
