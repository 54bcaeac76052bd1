package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// intercept sends a proxy's requests through a handler, which gets the proxy's own.
func (p *proxy) intercept(through func(w http.ResponseWriter, r *http.Request, plain http.Handler)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	plain := p.handler
	p.handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { through(w, r, plain) })
}

// respond answers with a Status, as an API server does.
func respond(w http.ResponseWriter, status metav1.Status) {
	status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	status.Status = metav1.StatusFailure
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(int(status.Code))
	json.NewEncoder(w).Encode(status)
}

// hideGateway has the remote refuse requests for the gateway Service alone.
func (r *remote) hideGateway() {
	r.proxy.intercept(func(w http.ResponseWriter, request *http.Request, plain http.Handler) {
		if request.URL.Query().Get("fieldSelector") == "" {
			plain.ServeHTTP(w, request)
			return
		}
		respond(w, metav1.Status{Code: http.StatusForbidden, Reason: metav1.StatusReasonForbidden, Message: "the gateway may not be read"})
	})
	r.proxy.cutConnections()
}

// While the gateway is unknown, a mirror's objects that are deleted come back with the
// addresses that they had.
func TestAddressesAreKeptWithoutAGateway(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		kind   string
		args   []string
		delete func(e *env, mirror string) error
	}{
		{"endpoints", nil, func(e *env, mirror string) error {
			return e.local.CoreV1().Endpoints(e.id).Delete(e.ctx, mirror, metav1.DeleteOptions{})
		}},
		{"endpointslices", []string{useSlices}, func(e *env, mirror string) error {
			return e.local.DiscoveryV1().EndpointSlices(e.id).Delete(e.ctx, mirror+"-ipv4", metav1.DeleteOptions{})
		}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			t.Parallel()
			e := newEnvIn(t, london, joined(localRules, sliceRules, addressRules)...)
			r := e.remote(paris)
			r.gateway("203.0.113.1", "203.0.113.2")
			r.export("bar")
			d := e.daemon([]*remote{r}, test.args...)
			addresses := to("http:8080", "203.0.113.1", "203.0.113.2")
			right := []func() error{r.hasService("bar"), r.slicesLead("bar", addresses...)}
			if test.kind == "endpoints" {
				right = slices.Concat([]func() error{r.leads("bar", addresses...)}, right, []func() error{r.slicesOfEndpoints("bar")})
			}
			e.soon("the mirror", right...)
			d.stop()
			r.hideGateway()
			r.gateway("203.0.113.9") // which the daemon cannot know
			d = e.daemon([]*remote{r}, append(test.args, listening...)...)
			e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
			e.soon("the exports are followed, the gateway is unknown", r.hasPort("bar", 81), d.measures(map[string]float64{r.failing("gateway"): 1}))
			e.must(r.slicesLead("bar", addresses...)())
			name := r.mirror("bar")
			before := e.identities()
			clusterIP := e.service(name).Spec.ClusterIP
			for range 3 {
				e.must(test.delete(e, name))
				e.eventually(lasting, "what carries the addresses was deleted", right...)
			}
			e.sameIdentities(before)
			for range 3 {
				uid := e.service(name).UID
				e.remove(london, name)
				if now := e.recreated(name, uid, 1); now[0] != clusterIP {
					t.Errorf("the ClusterIP was %s and is %s", clusterIP, now[0])
				}
				e.eventually(lasting, "the Service was deleted", right...)
			}
			uid := e.service(name).UID
			e.must(errors.Join(test.delete(e, name), london.CoreV1().Services(e.id).Delete(e.ctx, name, metav1.DeleteOptions{})))
			e.recreated(name, uid, 1)
			e.eventually(lasting, "all of it was deleted", right...)
			e.stays("the addresses", right...)
		})
	}
}

// slicesOfEndpoints checks that the EndpointSlices of a mirror were created for the Endpoints that it has now.
func (r *remote) slicesOfEndpoints(name string) func() error {
	return func() error {
		endpoints, err := r.env.local.CoreV1().Endpoints(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		list, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).List(r.env.ctx, metav1.ListOptions{
			LabelSelector: discoveryv1.LabelServiceName + "=" + r.mirror(name),
		})
		if err != nil {
			return err
		}
		for _, slice := range list.Items {
			if !metav1.IsControlledBy(&slice, endpoints) {
				return fmt.Errorf("EndpointSlice %s belongs to %v, and the Endpoints have UID %s", slice.Name, slice.OwnerReferences, endpoints.UID)
			}
		}
		return nil
	}
}

func joined[T any](lists ...[]T) (all []T) {
	for _, list := range lists {
		all = append(all, list...)
	}
	return all
}

// hasPort checks the port of a mirror Service, and so that the remote's exports are followed.
func (r *remote) hasPort(name string, port int32) func() error {
	return func() error {
		svc, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{})
		if err == nil && svc.Spec.Ports[0].Port != port {
			err = fmt.Errorf("%s has port %d, want %d", svc.Name, svc.Spec.Ports[0].Port, port)
		}
		return err
	}
}

// Endpoints of which have no EndpointSlices are updated until it does, and never
// deleted: nothing can be lost on the way.
func TestMissingSlicesComeWithoutADeletion(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	right := []func() error{r.mirrored("bar", "203.0.113.1"), r.slicesLead("bar", to("http:8080", "203.0.113.1")...)}
	e.soon("the mirror", right...)
	name := r.mirror("bar")
	before, endpoints := e.identities(), e.endpoints(name)
	allow := e.noSlices()
	since := london.mark(t)
	d.signal(syscall.SIGSTOP) // so that the controllers see the selector
	e.change(london, name, func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "none"} })
	e.soon("no slices", r.slicesLead("bar"))
	d.signal(syscall.SIGCONT)
	e.eventually(20*time.Second, "two updates of the Endpoints", func() error {
		if now := e.requestsFor("endpoints", since); now["update 200"] < 2 {
			return fmt.Errorf("requests %v", now)
		}
		return nil
	})
	allow()
	e.eventually(lasting, "the mirror again", right...)
	e.stays("the mirror", right...)
	if now := e.requestsFor("endpoints", since); now["delete 200"]+now["create 201"] > 0 {
		t.Errorf("the Endpoints were deleted or created: %v", now)
	}
	if now := e.endpoints(name); now.UID != endpoints.UID {
		t.Errorf("the Endpoints are others: UID %s, and before %s", now.UID, endpoints.UID)
	}
	e.sameIdentities(before)
}

// noSlices has a quota forbid all new EndpointSlices, until allow is called.
func (e *env) noSlices() (allow func()) {
	e.Helper()
	const resourceName = "count/endpointslices.discovery.k8s.io"
	quotas := e.local.CoreV1().ResourceQuotas(e.id)
	_, err := quotas.Create(e.ctx, &corev1.ResourceQuota{
		ObjectMeta: metav1.ObjectMeta{Name: "none"},
		Spec:       corev1.ResourceQuotaSpec{Hard: corev1.ResourceList{resourceName: resource.MustParse("0")}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.soon("the quota in effect", func() error {
		quota, err := quotas.Get(e.ctx, "none", metav1.GetOptions{})
		if used := quota.Status.Used[resourceName]; err == nil && used.IsZero() {
			return errors.New("nothing is counted yet")
		}
		return err
	})
	return func() { e.Helper(); e.must(quotas.Delete(e.ctx, "none", metav1.DeleteOptions{})) }
}

// requestsFor counts the daemon's writes of a resource since a mark, as VERB CODE.
func (e *env) requestsFor(resource string, since auditMark) map[string]int {
	e.Helper()
	counts := map[string]int{}
	for _, w := range e.local.writes(e.T, e.id, since) {
		if w.ObjectRef.Resource == resource {
			counts[fmt.Sprintf("%s %d", w.Verb, w.ResponseStatus.Code)]++
		}
	}
	return counts
}

// The fact that the daemon relies on, without it: where Kubernetes' controller has made no
// EndpointSlices of Endpoints, and does not try again soon, an update of them has it make them
// at once, an annotation being enough.
func TestUpdateOfEndpointsBringsTheirSlices(t *testing.T) {
	const failures = 5 // the controller tries after 1, 2, 4, 8 and then 16 seconds
	e := newEnv(t)
	e.pair("first")
	e.soon("slices", e.pairHasSlices("first"))
	allow := e.noSlices()
	since := london.mark(t)
	e.pair("bare")
	e.eventually(30*time.Second, "the controller has failed", func() error {
		tries := london.read(t, since, []byte(e.id), func(r request) bool {
			return r.Verb == "create" && r.ObjectRef.Resource == "endpointslices" && r.ObjectRef.Namespace == e.id && r.ResponseStatus.Code == http.StatusForbidden
		})
		if len(tries) < failures {
			return fmt.Errorf("%d times", len(tries))
		}
		return nil
	})
	allow()
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if e.pairHasSlices("bare")() == nil {
			t.Fatal("the controller has made the slices by itself: nothing is proved")
		}
	}
	before := e.endpoints("bare")
	_, err := london.CoreV1().Endpoints(e.id).Patch(e.ctx, "bare", types.MergePatchType, []byte(`{"metadata":{"annotations":{"example.com/updated":"yes"}}}`), metav1.PatchOptions{})
	e.must(err)
	e.eventually(8*time.Second, "the slices after the update", e.pairHasSlices("bare"))
	if now := e.endpoints("bare"); now.UID != before.UID {
		t.Errorf("the Endpoints are others: UID %s, and before %s", now.UID, before.UID)
	}
}

// pair creates a Service without a selector, and its Endpoints.
func (e *env) pair(name string) {
	e.Helper()
	meta := metav1.ObjectMeta{Name: name}
	_, err := e.local.CoreV1().Endpoints(e.id).Create(e.ctx, &corev1.Endpoints{ObjectMeta: meta, Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "203.0.113.1"}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 8080}},
	}}}, metav1.CreateOptions{})
	e.must(err)
	_, err = e.local.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
		ObjectMeta: meta, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, metav1.CreateOptions{})
	e.must(err)
}

func (e *env) pairHasSlices(name string) func() error {
	return func() error {
		list, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
		if err != nil {
			return err
		}
		var got []string
		for _, slice := range list.Items {
			got = append(got, fromSlice(&slice)...)
		}
		return sameLines("EndpointSlices of "+name, got, to("http:8080", "203.0.113.1"))
	}
}
