package main

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// names has requests with the names that Services have in Paris itself, as a weighted route of London sends them to
// both clusters, and distinguishes a Service from a mirror of the same name.
func (s *scene) names(kind gatewayKind) {
	root := []string{"--root", s.world.root.file("ca")}
	full := seen{Backend: "bar of paris", Host: "bar.default.svc.cluster.local", Port: httpPort, Proto: "HTTP/1.1",
		ForwardedFor: londonPlace.node, ForwardedProto: "http"}
	gone := "status 421" // it has no alias
	if kind.hasLists {   // all are, in place of lists
		gone = "status 502"
	}
	tests := []struct {
		name, forwarded string // X-Forwarded-Host that is wanted
		args            []string
		change          func(*seen) // of what is wanted, beside full
		err             string      // instead
	}{{
		name: "full", forwarded: "bar.default.svc.cluster.local",
		args: []string{"--to", "bar-paris.default:80", "http://bar.default.svc.cluster.local/"},
	}, {
		name: "with .svc", forwarded: "bar.default.svc",
		args: []string{"--to", "bar-paris.default:80", "http://bar.default.svc/"},
	}, {
		name: "short", forwarded: "bar.default",
		args: []string{"--to", "bar-paris.default:80", "http://bar.default/"},
	}, {
		name: "with a port", forwarded: "web.default.svc:8080",
		args:   []string{"--to", "web-paris.default:8080", "http://web.default.svc:8080/"},
		change: func(want *seen) { want.Backend, want.Host = "web of paris", "web.default.svc.cluster.local:8080" },
	}, {
		name: "HTTPS", forwarded: "bar.default.svc.cluster.local",
		args:   append(root, "--to", "bar-paris.default:443", "https://bar.default.svc.cluster.local/"),
		change: func(want *seen) { want.Port, want.ForwardedProto, want.Issued = httpsPort, "https", "paris-gateway" },
	}, {
		name: "gRPC", forwarded: "hello.default.svc.cluster.local:9090",
		args: []string{"--to", "hello-paris.default:9090", "grpc://hello.default.svc.cluster.local:9090"},
		change: func(want *seen) {
			*want = seen{Backend: "hello of paris", Host: "hello.default.svc.cluster.local:9090", Port: grpcPort, Proto: "grpc", ForwardedFor: londonPlace.node}
		},
	}, {
		name: "no Service has it", args: []string{"--to", "bar-paris.default:80", "http://nobody.default.svc.cluster.local/"}, err: "status 421",
	}, {
		name: "no Service has it, HTTPS", err: "status 421",
		args: append(root, "--to", "bar-paris.default:443", "https://nobody.default.svc.cluster.local/"),
	}, {
		name: "no Service has it, gRPC", args: []string{"--to", "hello-paris.default:9090", "grpc://nobody.default:9090"}, err: "421",
	}, {
		name: "the mirror's Service is gone", args: []string{"--host", "nobody-paris.default", "http://bar-paris.default/"}, err: gone,
	}, {
		name: "no namespace", args: []string{"--to", "bar-paris.default:80", "http://bar/"}, err: "status 421",
	}, {
		name: "no name", args: []string{"--host", "-paris.default", "http://bar-paris.default/"}, err: "status 421",
	}}
	for _, test := range tests {
		s.Run(test.name, func(t *testing.T) {
			want := full
			if test.change != nil {
				test.change(&want)
			}
			want.ForwardedHost = test.forwarded
			s := &scene{t, s.world, s.gateway}
			s.answers(append([]string{"--network", "tcp4"}, test.args...), want, s.gateway.address, test.err)
		})
	}
	if kind.passthrough {
		s.Run("SNI", func(t *testing.T) {
			(&scene{t, s.world, s.gateway}).answers(append(root, "--network", "tcp4", "--to", "secure-paris.default:443", "https://secure.default.svc.cluster.local/"),
				seen{Backend: "secure of paris", Host: "secure.default.svc.cluster.local", Port: httpsPort, Proto: "HTTP/1.1", Issued: "paris-secure"}, s.gateway.address, "")
		})
	}
	s.Run("a Service with a mirror's name", func(t *testing.T) { (&scene{t, s.world, s.gateway}).namesake() })
}

// namesake has a Service bar-paris in Paris, which London has as bar-paris-paris: the mirror bar-paris still routes to
// bar.
func (s *scene) namesake() {
	const name = "bar-paris"
	s.must(s.world.paris.service("default", name, true, func(svc *corev1.Service) {
		svc.Spec.Selector = map[string]string{"app": "web"}
		svc.Spec.Ports = []corev1.ServicePort{port("http", 80, httpPort)}
	}))
	s.Cleanup(func() {
		s.must(s.world.paris.CoreV1().Services("default").Delete(background, name, metav1.DeleteOptions{}))
	})
	for host, want := range map[string]seen{
		"bar-paris-paris.default": {Backend: "web of paris", Host: "bar-paris.default.svc.cluster.local"},
		"bar-paris.default":       {Backend: "bar of paris", Host: "bar.default.svc.cluster.local"},
	} {
		want.Port, want.Proto, want.ForwardedHost, want.ForwardedFor, want.ForwardedProto = httpPort, "HTTP/1.1", host, londonPlace.node, "http"
		s.answers([]string{"--network", "tcp4", "http://" + host + "/"}, want, s.gateway.address, "")
	}
}
