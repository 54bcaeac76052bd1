package publish

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// world is a cluster and a controller in it.
type world struct {
	*testing.T
	server     *apiserver
	controller *Controller
	log        *lockedBuffer
	lead       func() // has the controller lead
	stop       func()
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// in runs a test inside a bubble of virtual time, with a Gateway that has an HTTP listener and one for TCP, and the
// exported Service default/bar, which has an HTTP and a TCP port. The controller is started with start.
func in(t *testing.T, test func(w *world)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, server: newAPIServer(), log: &lockedBuffer{}, stop: func() {}}
		w.server.put("namespaces", &metav1.PartialObjectMetadata{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{Name: "default"}})
		w.gateway(listener("http", "HTTP", 80), listener("tcp-15000", "TCP", 15000))
		w.server.put("services", exportedService("bar", 80, 5432))
		defer func() { w.stop() }()
		test(w)
	})
}

func listener(name, protocol string, port int64) any {
	return map[string]any{"name": name, "protocol": protocol, "port": port, "allowedRoutes": map[string]any{"namespaces": map[string]any{"from": "All"}}}
}

func (w *world) gateway(listeners ...any) {
	gw := &unstructured.Unstructured{Object: map[string]any{"apiVersion": plan.Group + "/v1", "kind": "Gateway", "metadata": map[string]any{"namespace": "ingress", "name": "public"},
		"spec": map[string]any{"gatewayClassName": "none", "listeners": listeners}}}
	w.server.put("gateways", gw)
}

func exportedService(name string, ports ...int32) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{"exported": "true"}},
		Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeClusterIP, Selector: map[string]string{"app": name}}}
	for _, port := range ports {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", port), Port: port, Protocol: corev1.ProtocolTCP})
	}
	return svc
}

// start starts a controller that leads, and waits until it is idle.
func (w *world) start(change ...func(*Options)) {
	w.standby(change...)
	w.lead()
	w.wait(10 * time.Second)
}

// standby starts a controller that does not lead yet.
func (w *world) standby(change ...func(*Options)) {
	options := Options{Selector: "exported=true", Policy: plan.Policy{Names: []string{"paris"}, Domain: "cluster.local", Targets: []plan.Target{plan.ToGatewayAPI},
		Gateway: cache.NewObjectName("ingress", "public"), Ports: plan.PortRange{First: 15000, Last: 15999}, Records: "sm"}}
	for _, f := range change {
		f(&options)
	}
	w.controller = New(w.server.clients(), options, textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w.log))))
	ctx, cancel := context.WithCancel(w.Context())
	var running sync.WaitGroup
	running.Go(func() { w.controller.Run(ctx) })
	w.lead = func() {
		running.Go(func() {
			select {
			case <-ctx.Done():
			case <-w.controller.Ready():
				w.controller.Lead(ctx, time.Second)
			}
		})
	}
	w.stop = func() { cancel(); running.Wait(); w.stop = func() {} }
}

func (w *world) wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wrote wants these writes since the last call, in any order, and no others.
func (w *world) wrote(want ...string) {
	w.Helper()
	slices.Sort(want)
	if got := w.server.wrote(); !slices.Equal(got, want) {
		w.Errorf("written:\n  %s\nwanted:\n  %s\nlog:\n%s", strings.Join(got, "\n  "), strings.Join(want, "\n  "), w.log)
	}
}

func (w *world) record(service string) record.Record {
	w.Helper()
	configMap, ok := w.server.get("configmaps", "sm", "default."+service).(*corev1.ConfigMap)
	if !ok {
		w.Fatalf("%s has no record\n%s", service, w.log)
	}
	got, err := record.Parse(configMap)
	if err != nil {
		w.Fatal(err)
	}
	return got
}

func (w *world) has(reason mirrors.Reason) bool {
	return slices.ContainsFunc(w.controller.problems.Of(cache.NewObjectName("default", "bar")), func(p mirrors.Problem) bool { return p.Reason == reason })
}

var created = []string{"create configmaps sm/default.bar", "create httproutes default/bar.service-mirror", "create tcproutes default/bar.5432.service-mirror"}

func TestControllerPublishes(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.wrote(created...)
		if r := w.record("bar"); r.Of(80, corev1.ProtocolTCP).Gateway != 80 || r.Of(5432, corev1.ProtocolTCP).Gateway != 15000 || r.Ready {
			w.Errorf("the record is %+v", r)
		}
		w.wait(10 * time.Minute)
		w.wrote()
		w.stop()
		w.start() // as another replica that takes over
		w.wrote()
		w.server.drop("services", "default", "bar")
		w.wait(time.Second)
		w.wrote("delete httproutes default/bar.service-mirror", "delete tcproutes default/bar.5432.service-mirror", "update configmaps sm/default.bar")
		w.wait(plan.ReleasedFor)
		w.wrote("delete configmaps sm/default.bar")
		w.wait(2 * plan.ReleasedFor)
		w.wrote()
	})
}

// Readiness that flaps costs one write a second, and the last state is what remains.
func TestControllerDebouncesReadiness(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.wrote(created...)
		set := func(ready bool) {
			w.server.put("endpointslices", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-x", UID: "x", Labels: map[string]string{"exported": "true", discoveryv1.LabelServiceName: "bar"}},
				Endpoints: []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}})
		}
		for i := range 100 { // in 5 s
			set(i%2 == 0)
			w.wait(50 * time.Millisecond)
		}
		if n := len(w.server.wrote()); n < 2 || n > 6 {
			w.Errorf("%d writes in 5 s", n)
		}
		set(true)
		w.wait(2 * time.Second)
		if !w.record("bar").Ready {
			w.Error("it is not ready in the end")
		}
		w.server.wrote()
		w.wait(time.Minute)
		w.wrote()
	})
}

// A route that the API server refuses backs off, its record says so, and the other port is published.
func TestControllerBacksOff(t *testing.T) {
	in(t, func(w *world) {
		w.server.refuse = func(verb, resource string) error {
			if verb == "create" && resource == "tcproutes" {
				return apierrors.NewInvalid(schema.GroupKind{Kind: "TCPRoute"}, "bar", nil)
			}
			return nil
		}
		w.start()
		if r := w.record("bar"); r.Of(80, corev1.ProtocolTCP).Gateway != 80 || r.Of(5432, corev1.ProtocolTCP).Gateway != 0 {
			w.Errorf("the record is %+v", r)
		}
		if !w.has(mirrors.Rejected) {
			w.Errorf("no problem says so: %s", w.log)
		}
		w.server.wrote()
		w.wait(10 * time.Minute)
		if n := len(w.server.wrote()); n < 15 || n > 30 {
			w.Errorf("%d tries in 10 minutes", n)
		}
		w.server.mu.Lock()
		w.server.refuse = nil
		w.server.mu.Unlock()
		w.wait(time.Minute)
		if r := w.record("bar"); r.Of(5432, corev1.ProtocolTCP).Gateway != 15000 || w.has(mirrors.Rejected) {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
	})
}

// A write that fails is retried soon, and costs no gateway port.
func TestControllerRetries(t *testing.T) {
	in(t, func(w *world) {
		failing := true
		w.server.refuse = func(verb, resource string) error {
			if failing {
				return apierrors.NewInternalError(fmt.Errorf("etcd is down"))
			}
			return nil
		}
		w.start()
		if w.server.get("configmaps", "sm", "default.bar") != nil || !w.has(mirrors.WriteFailed) {
			w.Errorf("problems: %v", w.controller.problems.Of(cache.NewObjectName("default", "bar")))
		}
		w.server.mu.Lock()
		failing = false
		w.server.mu.Unlock()
		w.wait(time.Minute)
		if r := w.record("bar"); r.Of(5432, corev1.ProtocolTCP).Gateway != 15000 || w.has(mirrors.WriteFailed) {
			w.Errorf("the record is %+v", r)
		}
	})
}

// While the record cannot be written, or a route that it is to mention, the route stays by which a port is reached that the
// record still announces.
func TestControllerKeepsWhatTheRecordAnnounces(t *testing.T) {
	refusing := func(verb, resource string, err error) func(w *world) {
		return func(w *world) {
			w.refuse(func(v, r string) error {
				if v == verb && r == resource {
					return err
				}
				return nil
			})
		}
	}
	down := apierrors.NewInternalError(fmt.Errorf("etcd is down"))
	invalid := apierrors.NewInvalid(schema.GroupKind{Kind: "ConfigMap"}, "default.bar", nil)
	label := func(w *world, value string) {
		configMap := w.server.get("configmaps", "sm", "default.bar").(*corev1.ConfigMap)
		configMap.Labels[mirrors.ManagedByLabel] = value
		w.server.put("configmaps", configMap)
		w.wait(time.Second)
	}
	for name, obstruct := range map[string]func(w *world){
		"the route fails":        refusing("create", "tcproutes", down),
		"the record fails":       refusing("update", "configmaps", down),
		"the record is rejected": refusing("update", "configmaps", invalid),
		"the record is foreign":  func(w *world) { label(w, "someone") },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.twoListeners()
				w.start()
				obstruct(w)
				svc := w.server.get("services", "default", "bar").(*corev1.Service)
				svc.Spec.Ports[0].Name = "tcp"
				w.server.put("services", svc)
				w.wait(10 * time.Minute)
				if got := w.record("bar").Of(80, corev1.ProtocolTCP); !got.Shared || w.server.get("httproutes", "default", "bar.service-mirror") == nil {
					t.Errorf("the record has %+v, and the route is gone: %v\n%s", got, w.server.get("httproutes", "default", "bar.service-mirror") == nil, w.log)
				}
				w.refuse(nil)
				label(w, mirrors.ManagedBy)
				w.wait(time.Minute)
				if got := w.record("bar").Of(80, corev1.ProtocolTCP); got.Gateway != 15001 || w.server.get("httproutes", "default", "bar.service-mirror") != nil {
					t.Errorf("the record has %+v, and the route is gone: %v\n%s", got, w.server.get("httproutes", "default", "bar.service-mirror") == nil, w.log)
				}
			})
		})
	}
}

// What is no longer exported is closed at once, even while the record cannot be written: one port of a Service, or all.
func TestControllerClosesWhatIsNotExported(t *testing.T) {
	for name, test := range map[string]struct {
		unexport func(*corev1.Service)
		open     []string // resources of the routes that remain
	}{
		"the HTTP port": {func(svc *corev1.Service) { svc.Annotations = map[string]string{gateway.SelectAnnotation: "5432"} }, []string{"tcproutes"}},
		"the TCP port":  {func(svc *corev1.Service) { svc.Annotations = map[string]string{gateway.SelectAnnotation: "80"} }, []string{"httproutes"}},
		"the Service":   {func(svc *corev1.Service) { svc.Labels = nil }, nil},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.start()
				w.refuse(func(_, resource string) error {
					if resource == "configmaps" {
						return apierrors.NewInternalError(fmt.Errorf("etcd is down"))
					}
					return nil
				})
				svc := w.server.get("services", "default", "bar").(*corev1.Service)
				test.unexport(svc)
				w.server.put("services", svc)
				w.wait(time.Minute)
				var open []string
				for resource, route := range map[string]string{"httproutes": "bar.service-mirror", "tcproutes": "bar.5432.service-mirror"} {
					if w.server.get(resource, "default", route) != nil {
						open = append(open, resource)
					}
				}
				if !slices.Equal(open, test.open) {
					t.Errorf("the routes %v are left, not %v\n%s", open, test.open, w.log)
				}
			})
		})
	}
}

// Two that are exported at once never get the same gateway port.
func TestControllerGivesNoPortTwice(t *testing.T) {
	in(t, func(w *world) {
		w.gateway(listener("http", "HTTP", 80), listener("a", "TCP", 15000), listener("b", "TCP", 15001), listener("c", "TCP", 15002))
		names := []string{"bar"}
		for i := range 10 {
			names = append(names, fmt.Sprint("s", i))
			w.server.put("services", exportedService(names[i+1], 5432))
		}
		w.start()
		given := map[int32]string{}
		for _, name := range names {
			port := w.record(name).Of(5432, corev1.ProtocolTCP).Gateway
			if other := given[port]; port != 0 && other != "" {
				w.Errorf("port %d is given to %s and %s", port, other, name)
			}
			given[port] = name
		}
		if len(given) != 4 { // three ports, and none
			w.Errorf("given are %v", given)
		}
	})
}

// Another program that changes a route back, and a webhook that changes it on its way, are not fought at full speed.
func TestControllerDoesNotFight(t *testing.T) {
	in(t, func(w *world) {
		w.server.admit = func(obj *unstructured.Unstructured) {
			if obj.GetKind() == "HTTPRoute" {
				unstructured.SetNestedStringSlice(obj.Object, []string{"changed.example.com"}, "spec", "hostnames")
			}
		}
		w.start()
		if !w.has(mirrors.Overwritten) {
			w.Errorf("no problem says so: %s", w.log)
		}
		w.server.wrote()
		w.wait(time.Hour)
		if n := len(w.server.wrote()); n < 10 || n > 40 {
			w.Errorf("%d writes in an hour", n)
		}
	})
}

// A foreign route of the name stays, and is looked for again.
func TestControllerLeavesForeignRoutes(t *testing.T) {
	in(t, func(w *world) {
		w.server.put("httproutes", &unstructured.Unstructured{Object: map[string]any{"apiVersion": plan.Group + "/v1", "kind": "HTTPRoute", "metadata": map[string]any{"namespace": "default", "name": "bar.service-mirror"}}})
		w.start()
		if r := w.record("bar"); r.Of(80, corev1.ProtocolTCP).Gateway != 0 || !w.has(mirrors.Conflict) {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
		w.server.drop("httproutes", "default", "bar.service-mirror")
		w.wait(foreignPeriod + time.Second)
		if r := w.record("bar"); r.Of(80, corev1.ProtocolTCP).Gateway != 80 || w.has(mirrors.Conflict) {
			w.Errorf("the record is %+v\n%s", r, w.log)
		}
	})
}

// While the Gateway does not exist nothing is written; nor while a kind is not served is it missed.
func TestControllerWaits(t *testing.T) {
	in(t, func(w *world) {
		w.server.drop("gateways", "ingress", "public")
		w.server.served["tcproutes/v1"] = false
		w.start()
		w.wrote()
		if !w.has(mirrors.NoGateway) {
			w.Errorf("no problem says so: %s", w.log)
		}
		w.gateway(listener("http", "HTTP", 80), listener("tcp-15000", "TCP", 15000))
		w.wait(time.Second)
		w.wrote(created[0], created[1])
		if !w.has(mirrors.PortNotServed) || w.has(mirrors.NoGateway) {
			w.Errorf("problems: %v", w.controller.problems.Of(cache.NewObjectName("default", "bar")))
		}
		w.server.mu.Lock()
		w.server.served["tcproutes/v1"] = true
		w.server.mu.Unlock()
		w.wait(discoveryPeriod + time.Second)
		w.wrote(created[2], "update configmaps sm/default.bar")
	})
}

// Of two Services with one name the older one has it, and the other gets it when that goes.
func TestControllerGivesANameToTheOldest(t *testing.T) {
	in(t, func(w *world) {
		older, younger := exportedService("old", 80), exportedService("young", 80)
		for i, svc := range []*corev1.Service{older, younger} {
			svc.Annotations = map[string]string{plan.HostsAnnotation: "shop.example.com"}
			svc.CreationTimestamp = metav1.NewTime(time.Unix(int64(1000+i), 0))
			w.server.put("services", svc)
		}
		w.start(func(o *Options) { o.HostSuffixes = []string{"example.com"} })
		has := func(name string) bool { return slices.Contains(w.record(name).Hosts, "shop.example.com") }
		if !has("old") || has("young") {
			w.Errorf("the hosts are %v and %v", w.record("old").Hosts, w.record("young").Hosts)
		}
		w.server.drop("services", "default", "old")
		w.wait(time.Second)
		if !has("young") {
			w.Errorf("the hosts are %v", w.record("young").Hosts)
		}
	})
}

// A name that is made for a Service is not taken by one that lists it, however old.
func TestControllerGivesAMadeNameToItsService(t *testing.T) {
	in(t, func(w *world) {
		const name = "pay.default.example.com"
		thief, pay := exportedService("thief", 80), exportedService("pay", 80)
		thief.Annotations = map[string]string{plan.HostsAnnotation: name}
		thief.CreationTimestamp, pay.CreationTimestamp = metav1.NewTime(time.Unix(1000, 0)), metav1.NewTime(time.Unix(2000, 0))
		w.server.put("services", thief)
		w.start(func(o *Options) {
			o.HostTemplates, o.HostSuffixes = []string{"{service}.{namespace}.example.com"}, []string{"example.com"}
		})
		has := func(service string) bool { return slices.Contains(w.record(service).Hosts, name) }
		if !has("thief") {
			w.Errorf("without another one, the hosts are %v", w.record("thief").Hosts)
		}
		w.server.put("services", pay)
		w.wait(time.Second)
		if has("thief") || !has("pay") {
			w.Errorf("the hosts are %v and %v", w.record("thief").Hosts, w.record("pay").Hosts)
		}
	})
}

// The Service in front of the Gateway has the ports that callers use. While it is not known, nothing is written; and what
// its pods said stays true while there are none.
func TestControllerReadsTheGatewayService(t *testing.T) {
	in(t, func(w *world) {
		front := func(o *Options) { o.GatewayService = cache.NewObjectName("ingress", "traefik") }
		w.start(front)
		w.wrote()
		w.server.put("services", &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "traefik"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
			{Name: "admin", Port: 9000, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("nothing-has-this")}, // it is closed
			{Name: "web", Port: 8080, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("web")}, {Name: "pg", Port: 5432, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt32(15000)}}}})
		w.wait(time.Second)
		w.wrote()
		name, number := "web", int32(80)
		w.server.put("endpointslices", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "traefik-x", Labels: map[string]string{discoveryv1.LabelServiceName: "traefik"}},
			Ports: []discoveryv1.EndpointPort{{Name: &name, Port: &number}}})
		w.wait(time.Second)
		w.wrote(created...)
		if r := w.record("bar"); r.Of(80, corev1.ProtocolTCP).Gateway != 8080 || r.Of(5432, corev1.ProtocolTCP).Gateway != 5432 {
			w.Errorf("the record is %+v", r)
		}
		w.server.drop("endpointslices", "ingress", "traefik-x")
		w.wait(time.Minute)
		w.server.put("endpointslices", &discoveryv1.EndpointSlice{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "traefik-y", Labels: map[string]string{discoveryv1.LabelServiceName: "traefik"}}})
		w.wait(time.Minute) // Kubernetes has an empty one where there are no pods
		w.wrote()
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 || w.has(mirrors.NoGateway) {
			w.Errorf("the problems are %v\n%s", problems, w.log)
		}
	})
}

// A route that another program keeps changing is deleted at once when its Service is unexported: a deletion is no fight.
func TestControllerClosesWhatIsOverwritten(t *testing.T) {
	in(t, func(w *world) {
		w.server.admit = func(obj *unstructured.Unstructured) {
			if obj.GetKind() == "HTTPRoute" {
				_ = unstructured.SetNestedField(obj.Object, true, "spec", "webhook")
			}
		}
		w.start()
		w.wait(7 * time.Minute)
		w.server.wrote()
		w.server.drop("services", "default", "bar")
		n := 0
		for w.server.get("httproutes", "default", "bar.service-mirror") != nil && n < 1000 {
			w.wait(time.Second)
			n++
		}
		if n > 2 {
			t.Errorf("routed for %d s after it was unexported: %v", n, w.server.wrote())
		}
	})
}

// What another cluster's gateway serves while the Service itself fails over is no endpoint of its own: two clusters that
// fail over to each other would send requests to and fro.
func TestFailoverIsNotReady(t *testing.T) {
	for name, selector := range map[string]map[string]string{"with a selector": {"app": "bar"}, "without": nil} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				ready := true
				slice := &discoveryv1.EndpointSlice{
					ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar.london.ipv4", UID: "x", Labels: map[string]string{"exported": "true",
						discoveryv1.LabelServiceName: "bar", discoveryv1.LabelManagedBy: mirrors.SliceManager, mirrors.FailoverLabel: "true"}},
					Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
				}
				svc := exportedService("bar", 80)
				svc.Spec.Selector = selector
				w.server.put("services", svc)
				w.server.put("endpointslices", slice)
				w.start()
				if w.record("bar").Ready {
					t.Error("the record says that it is ready")
				}
			})
		})
	}
}

// While the EndpointSlices of a Service are not known, its record does not say that it has no endpoint, unless it did so before:
// of this Service, not of one that had its name.
func TestUnknownIsNotUnready(t *testing.T) {
	for name, test := range map[string]struct {
		before *record.Record // nil: there is no record
		want   bool
	}{
		"no record":                    {nil, true},
		"a record":                     {&record.Record{UID: "bar", Ready: true}, true},
		"a record that says so":        {&record.Record{UID: "bar"}, false},
		"the record of an earlier one": {&record.Record{UID: "earlier"}, true},
	} {
		for selector, by := range map[string]map[string]string{"with a selector": {"app": "bar"}, "without": nil} {
			t.Run(name+", "+selector, func(t *testing.T) {
				in(t, func(w *world) {
					svc := exportedService("bar", 80)
					svc.UID, svc.Spec.Selector = "bar", by
					w.server.put("services", svc)
					if test.before != nil {
						test.before.Service = cache.NewObjectName("default", "bar")
						configMap, err := test.before.ConfigMap("sm")
						if err != nil {
							t.Fatal(err)
						}
						configMap.Labels[mirrors.ManagedByLabel] = mirrors.ManagedBy
						configMap.Annotations = map[string]string{plan.PublishedAnnotation: "sm/default.bar"}
						w.server.put("configmaps", configMap)
					}
					w.server.unreadable = "endpointslices"
					w.start()
					if got := w.record("bar"); got.Ready != test.want || got.UID != "bar" {
						t.Errorf("the record is %+v, want ready: %v\n%s", got, test.want, w.log)
					}
					w.server.mu.Lock()
					w.server.unreadable = ""
					w.server.mu.Unlock()
					w.wait(time.Minute)
					if w.record("bar").Ready {
						t.Error("it has no endpoint, and the record says that it is ready")
					}
				})
			})
		}
	}
}

// Of a kind that is not served any more nothing is read, and no failure to read it is left to show.
func TestControllerForgetsAKind(t *testing.T) {
	in(t, func(w *world) {
		w.server.unreadable = "tcproutes"
		w.start()
		w.wait(time.Minute)
		if problems := w.controller.problems.OfLocal(); len(problems) == 0 {
			t.Errorf("no problem says that it cannot be read: %s", w.log)
		}
		w.server.mu.Lock()
		w.server.served["tcproutes/v1"] = false
		w.server.mu.Unlock()
		w.wait(servedPeriod + time.Second)
		if problems := w.controller.problems.OfLocal(); len(problems) > 0 {
			t.Errorf("the problems are %v\n%s", problems, w.log)
		}
		if got := w.controller.caches.routes[plan.TCPRoute].problem(); got != "" {
			t.Errorf("its problem is %q", got)
		}
	})
}

// A Service in front of the Gateway that does not exist is named as the cause, however late that is known.
func TestControllerMissesTheGatewayService(t *testing.T) {
	in(t, func(w *world) {
		w.server.unreadable = "endpointslices"
		w.start(w.behind())
		w.wait(time.Minute)
		w.server.mu.Lock()
		w.server.unreadable = ""
		w.server.mu.Unlock()
		w.wait(5 * time.Minute)
		problems := fmt.Sprint(w.controller.problems.OfLocal())
		if !strings.Contains(problems, "Service ingress/traefik does not exist") {
			t.Errorf("the problems are %s\n%s", problems, w.log)
		}
	})
}

// What is no longer exported is closed while it is not known how the Gateway is reached, and what is stays as it is.
func TestControllerClosesWithoutTheGateway(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"the Gateway is deleted":         func(w *world) { w.server.drop("gateways", "ingress", "public") },
		"the gateway Service is deleted": func(w *world) { w.server.drop("services", "ingress", "traefik") },
		"its class cannot be read": func(w *world) {
			w.stop()
			w.server.unreadable = "gatewayclasses"
			w.start(w.behind())
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.server.put("services", &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "traefik"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
					{Name: "web", Port: 80, Protocol: corev1.ProtocolTCP}, {Name: "pg", Port: 15000, Protocol: corev1.ProtocolTCP}}}})
				w.start(w.behind())
				w.wrote(created...)
				lose(w)
				w.wait(time.Minute)
				w.wrote()
				svc := w.server.get("services", "default", "bar").(*corev1.Service)
				svc.Annotations = map[string]string{gateway.SelectAnnotation: "80"}
				w.server.put("services", svc)
				w.wait(time.Minute)
				w.wrote("delete tcproutes default/bar.5432.service-mirror", "update configmaps sm/default.bar")
				if got := w.record("bar"); len(got.Ports) != 1 || got.Ports[0].Gateway != 80 {
					t.Errorf("the record is %+v", got)
				}
			})
		})
	}
}

// behind has the Service ingress/traefik be in front of the Gateway.
func (w *world) behind() func(*Options) {
	return func(o *Options) { o.GatewayService = cache.NewObjectName("ingress", "traefik") }
}
