package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const gatewayAnnotation = "service-mirror.io/gateway"

// choose annotates an exported Service with its gateway; the empty one is none.
func (r *remote) choose(service, gateway string) {
	r.env.Helper()
	r.annotateWith(service, gatewayAnnotation, gateway)
}

// annotateWith sets an annotation of a Service; the empty value removes it.
func (r *remote) annotateWith(service, key, value string) {
	r.env.Helper()
	r.env.change(r.cluster, service, func(svc *corev1.Service) {
		delete(svc.Annotations, key)
		if value != "" {
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, key, value)
		}
	})
}

func TestSeveralGateways(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	second, third := e.id+"/second", e.id+"/third"
	r.gateway("203.0.113.1")
	r.gatewayNamed("second", "203.0.113.2")
	r.gatewayNamed("third", "203.0.113.3")
	e.change(paris, "second", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 9090 })
	chosen := func(gateway string) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Annotations = map[string]string{gatewayAnnotation: gateway} }
	}
	r.export("bar")
	r.export("first", chosen(e.id+"/gateway"))
	r.export("baz", chosen(second))
	r.export("unlisted", chosen(third))
	r.export("garbage", chosen("no such/thing at/all"))
	r.keys = ",gateway=" + second
	since := paris.mark(t)
	d := e.daemon([]*remote{r})
	bar, baz := to("http:8080", "203.0.113.1"), to("http:9090", "203.0.113.2")
	e.soon("each by its own", r.leads("bar", bar...), r.leads("first", bar...), r.leads("baz", baz...))
	e.soon("by none", r.leads("unlisted"), r.leads("garbage"))
	e.logs(d, e.id+"/unlisted", gatewayAnnotation, third, "not a configured gateway")
	e.logs(d, e.id+"/garbage", gatewayAnnotation, "not a configured gateway")
	before := e.identities()

	mark := london.mark(t)
	r.gatewayNamed("second", "203.0.113.22")
	r.gatewayNamed("third", "203.0.113.33")
	baz = to("http:9090", "203.0.113.22")
	e.soon("one has moved", r.leads("baz", baz...))
	e.stays("nothing else", r.leads("bar", bar...), r.leads("unlisted"))
	if writes := e.writesByMirror(mark); len(writes) != 1 || writes[r.mirror("baz")] != 1 {
		t.Errorf("writes %v, want one of baz", writes)
	}

	r.choose("bar", second)
	e.soon("bar has chosen", r.leads("bar", baz...))
	r.choose("bar", third)
	e.soon("what it may not", r.leads("bar"))
	e.logs(d, e.id+"/bar", third, "not a configured gateway")
	r.choose("bar", "")
	e.soon("and nothing", r.leads("bar", bar...))
	e.logs(d, "no longer has this problem", e.id+"/bar")

	e.remove(paris, "second")
	e.soon("its gateway is gone", r.leads("baz"))
	e.logs(d, second, "does not exist")
	e.must(r.leads("bar", bar...)())
	r.gatewayNamed("second", "203.0.113.2")
	baz = to("http:8080", "203.0.113.2")
	e.soon("and back", r.leads("baz", baz...))

	mark = london.mark(t)
	d.stop()
	r.proxy.cut()
	d = e.daemon([]*remote{r})
	e.stays("in an outage", r.leads("bar", bar...), r.leads("baz", baz...), r.leads("unlisted"))
	r.proxy.heal()
	e.stays("after it", r.leads("bar", bar...), r.leads("baz", baz...), r.leads("unlisted"))
	e.noWrites(mark)
	d.stop()

	for _, request := range paris.requests(t, e.id, since) {
		if request.ObjectRef.Name == "third" || strings.Contains(request.RequestURI, "third") {
			t.Errorf("a gateway that the flags do not list is read: %v", request)
		}
	}
	r.keys = "" // it is no longer listed
	d = e.daemon([]*remote{r})
	e.soon("not listed", r.leads("baz"))
	e.logs(d, e.id+"/baz", second, "not a configured gateway")
	e.must(r.leads("bar", bar...)())
	e.sameIdentities(before)
}

func TestOneOfSeveralGatewaysIsUnhealthy(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	one, two := e.healthyAddress(), e.healthyAddress()
	e.openDoors(one, 8080)
	doors := e.openDoors(two, 8080)
	r.gateway(one)
	r.gatewayNamed("second", two)
	r.keys = ",gateway=" + e.id + "/second"
	r.export("bar")
	r.export("baz", func(svc *corev1.Service) {
		svc.Annotations = map[string]string{gatewayAnnotation: e.id + "/second"}
	})
	e.daemon([]*remote{r}, probing("tcp")...)
	bar, baz := to("http:8080", one), to("http:8080", two)
	e.soon("both", r.leads("bar", bar...), r.leads("baz", baz...))
	doors.probed(e, 2)
	doors.close()
	e.soon("one is dead", r.leads("baz", dead(baz)...))
	e.stays("the other", r.leads("bar", bar...))
}

// entrance creates a gateway Service of another type than LoadBalancer.
func (r *remote) entrance(kind corev1.ServiceType, externalIPs ...string) {
	r.env.Helper()
	_, err := r.CoreV1().Services(r.env.id).Create(r.env.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec: corev1.ServiceSpec{
			Type: kind, ExternalIPs: externalIPs, Ports: []corev1.ServicePort{{Name: "gateway", Port: 8080}},
		},
	}, metav1.CreateOptions{})
	r.env.must(err)
}

func TestExternalIPs(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.entrance(corev1.ServiceTypeClusterIP, "203.0.113.9", "203.0.113.1", "203.0.113.9", "2001:db8::1", "10.96.200.5")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("its external IPs", r.mirrored("bar", "203.0.113.1", "203.0.113.9"))
	e.logs(d, "10.96.200.5", "is refused")
	since := london.mark(t)
	e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.ExternalIPs = []string{"203.0.113.1", "203.0.113.9"} })
	e.stays("in another order", r.mirrored("bar", "203.0.113.1", "203.0.113.9"))
	e.noWrites(since)
	e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.ExternalIPs = []string{"203.0.113.2"} })
	e.soon("another", r.mirrored("bar", "203.0.113.2"))
	// Addresses of a load balancer take precedence over them.
	e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
	e.must(r.mirrored("bar", "203.0.113.2")())
	r.gateway("203.0.113.3")
	e.soon("the load balancer's", r.mirrored("bar", "203.0.113.3"))
	r.gateway()
	e.soon("it gives none", r.mirrored("bar", "203.0.113.2"))
}

func TestGatewayWithoutAnExternalAddress(t *testing.T) {
	t.Parallel()
	for _, kind := range []corev1.ServiceType{corev1.ServiceTypeNodePort, corev1.ServiceTypeClusterIP} {
		t.Run(string(kind), func(t *testing.T) {
			e := newEnv(t)
			r := e.remote(paris)
			r.entrance(kind)
			r.export("bar")
			d := e.daemon([]*remote{r})
			e.soon("a mirror without addresses", r.mirrored("bar"))
			words := []string{e.id + "/gateway", "is of type " + string(kind), "make it a LoadBalancer, or set address=IP with a numeric gateway-port"}
			e.logs(d, words...)
			e.stays("no addresses", r.mirrored("bar"))
			if n := d.logged(words...); n != 1 {
				t.Errorf("it is logged %d times, want once", n)
			}
			e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
			r.gateway("203.0.113.1")
			e.soon("a LoadBalancer", r.mirrored("bar", "203.0.113.1"))
			e.logs(d, "recovered", e.id+"/gateway")
			d.stop()
			// The other fix that the message gives.
			if kind == corev1.ServiceTypeNodePort {
				r.gateway()
				var nodePort int32
				e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.Type, nodePort = kind, svc.Spec.Ports[0].NodePort })
				r.keys = fmt.Sprintf(",address=203.0.113.4,gateway-port=%d", nodePort)
				d = e.daemon([]*remote{r})
				e.soon("the node port at the address of the flag", r.leads("bar", to(fmt.Sprintf("http:%d", nodePort), "203.0.113.4")...))
				if d.logged("is of type") > 0 {
					t.Error("it still requires an address")
				}
			}
		})
	}
}

func TestGatewayPortOfARemote(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	e.change(paris, "gateway", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "https", Port: 443})
	})
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("by name", r.leads("bar", to("http:80", "203.0.113.1")...))
	d.stop()
	r.keys = ",gateway-port=gateway"
	d = e.daemon([]*remote{r})
	e.soon("the one that is named", r.leads("bar", to("http:8080", "203.0.113.1")...))
	d.stop()
	r.keys = ",gateway-port=absent"
	d = e.daemon([]*remote{r})
	e.soon("one that is not there", r.leads("bar"))
	e.logs(d, "PortNotServed", e.id+"/bar", "absent", "it has gateway (8080/TCP), http (80/TCP), https (443/TCP)")
	e.change(paris, "gateway", func(svc *corev1.Service) {
		i := slices.IndexFunc(svc.Spec.Ports, func(p corev1.ServicePort) bool { return p.Name == "https" })
		svc.Spec.Ports[i].Name = "absent"
	})
	e.soon("now it is", r.leads("bar", to("http:443", "203.0.113.1")...))
	e.soon("it is over", func() error {
		if d.logged("no longer has this problem", "PortNotServed", e.id+"/bar") != 1 {
			return fmt.Errorf("not said")
		}
		return nil
	})
}

// What a port speaks decides, an explicit line changes it, and a gateway whose ports change is logged as that.
func TestGatewayPortsByClass(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	tcp := func(name string, port int32) corev1.ServicePort { return corev1.ServicePort{Name: name, Port: port} }
	listen := func(ports ...corev1.ServicePort) {
		t.Helper()
		e.change(paris, "gateway", func(svc *corev1.Service) { svc.Spec.Ports = ports })
	}
	web := []corev1.ServicePort{tcp("http", 80), tcp("https", 443)}
	listen(web...)
	r.export("bar", func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{tcp("api", 3000), tcp("websecure", 8443), tcp("grpc", 50051), tcp("pg", 5432)}
	})
	annotate := func(key, value string) {
		t.Helper()
		r.annotateWith("bar", "service-mirror.io/"+key, value)
	}
	leads := func(what string, targets ...string) {
		t.Helper()
		e.soon(what, r.leads("bar", targets...))
	}
	to := func(port string) string { return "203.0.113.1 " + port }
	d := e.daemon([]*remote{r})
	leads("by class", to("api:80"), to("websecure:443"))
	e.logs(d, "PortNotServed", "/bar", "grpc (50051/TCP): no port of the gateway serves HTTP/2 without TLS", "pg (5432/TCP): it is not HTTP", "3000 -> 80 (assumed HTTP)")
	listen(append(web, tcp("http2-rpc", 81), tcp("postgres", 5432))...)
	leads("a port more", to("api:80"), to("websecure:443"), to("grpc:81"))
	e.logs(d, "Gateway ports changed", e.id+"/gateway", `gained="http2-rpc (81/TCP), postgres (5432/TCP)" lost="none"`, "mirrorsGaining=1 mirrorsLosing=0 mirrorsMoving=0")
	annotate("gateway-port", "pg=postgres,3000=http2-rpc")
	leads("the annotation", to("api:81"), to("websecure:443"), to("grpc:81"), to("pg:5432"))
	e.logs(d, "no longer has this problem", "PortNotServed", "/bar")
	annotate("gateway-port", "pg=postgres,x=y")
	leads("a mistake", to("api:80"), to("websecure:443"), to("grpc:81"), to("pg:5432"))
	e.logs(d, "PortNotServed", "/bar", `entry \"x=y\": the Service has no such port`)
	annotate("gateway-port", "")
	annotate("ports", "api, grpc")
	leads("selected ports", to("api:80"), to("grpc:81"))
	if got := ports(e.service(r.mirror("bar"))); !slices.Equal(got, []string{"api:3000/TCP ", "grpc:50051/TCP "}) {
		t.Errorf("the mirror has ports %v", got)
	}
	before := e.identities()
	annotate("ports", "")
	d.stop()
	r.keys = ",default-gateway-port=postgres"
	d = e.daemon([]*remote{r})
	leads("a default", to("api:80"), to("websecure:443"), to("grpc:81"), to("pg:5432"))
	listen(web...)
	leads("ports less", to("api:80"), to("websecure:443"))
	e.logs(d, "Gateway ports changed", `lost="http2-rpc (81/TCP), postgres (5432/TCP)"`, "mirrorsGaining=0 mirrorsLosing=1 mirrorsMoving=0")
	e.logs(d, "PortNotServed", "/bar", `the gateway has no TCP port \"postgres\"`, "set default-gateway-port in --remote")
	e.sameIdentities(before)
}
