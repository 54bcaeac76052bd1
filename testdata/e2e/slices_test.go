package e2e

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const useSlices = "--endpoints-api=endpointslices"

// newSlicesEnv is newEnv with what the daemon needs to write EndpointSlices.
func newSlicesEnv(t *testing.T) *env {
	t.Parallel()
	return newEnvIn(t, london, slices.Concat(localRules, sliceRules)...)
}

// sliced checks that a mirror has EndpointSlices of this program's own, one for
// each family that it has addresses of, and no other endpoint.
func (r *remote) sliced(name string, addresses ...string) func() error {
	return func() error {
		e, mirror := r.env, r.mirror(name)
		svc, err := e.local.CoreV1().Services(e.id).Get(e.ctx, mirror, metav1.GetOptions{})
		if err != nil {
			return err
		}
		exported, err := r.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if want, got := ports(exported), ports(svc); !slices.Equal(want, got) || len(svc.Spec.Selector) > 0 {
			return fmt.Errorf("%s has ports %v and selector %v, want %v and none", mirror, got, svc.Spec.Selector, want)
		}
		if _, err := e.local.CoreV1().Endpoints(e.id).Get(e.ctx, mirror, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Endpoints %s are there (%v)", mirror, err)
		}
		list, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + mirror})
		if err != nil {
			return err
		}
		want := map[string][]string{}
		for _, address := range addresses {
			family := "-ipv6"
			if netip.MustParseAddr(address).Is4() {
				family = "-ipv4"
			}
			want[mirror+family] = append(want[mirror+family], to("http:8080", address)...)
		}
		for _, slice := range list.Items {
			if err := r.oursAlone(&slice, mirror); err != nil {
				return err
			}
			if !strings.HasSuffix(slice.Name, "-"+strings.ToLower(string(slice.AddressType))) {
				return fmt.Errorf("%s is of %s", slice.Name, slice.AddressType)
			}
			if err := sameLines("EndpointSlice "+slice.Name, fromSlice(&slice), want[slice.Name]); err != nil {
				return err
			}
			delete(want, slice.Name)
		}
		if len(want) > 0 {
			return fmt.Errorf("missing: %v", want)
		}
		return nil
	}
}

func (r *remote) oursAlone(slice *discoveryv1.EndpointSlice, mirror string) error {
	want := map[string]string{
		discoveryv1.LabelServiceName: mirror, discoveryv1.LabelManagedBy: "service-mirror.io",
		"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": r.name,
	}
	if !maps.Equal(slice.Labels, want) {
		return fmt.Errorf("EndpointSlice %s has labels %v, want %v", slice.Name, slice.Labels, want)
	}
	return nil
}

// slicesGone checks that nothing is left of a mirror.
func (r *remote) slicesGone(name string) func() error {
	return func() error {
		if err := r.gone(name)(); err != nil {
			return err
		}
		list, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).List(r.env.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + r.mirror(name)})
		if err == nil && len(list.Items) > 0 {
			err = fmt.Errorf("EndpointSlice %s is there", list.Items[0].Name)
		}
		return err
	}
}

func TestEndpointSlices(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway()
	r.export("bar")
	since := london.mark(t)
	d := e.daemon([]*remote{r}, useSlices)
	e.soon("a mirror without addresses", r.sliced("bar"))
	r.gateway("203.0.113.2", "203.0.113.1", "2001:db8::1")
	e.soon("the mirror", r.sliced("bar", "203.0.113.1", "203.0.113.2"))
	before := e.identities()
	r.export("baz")
	e.soon("another", r.sliced("baz", "203.0.113.1", "203.0.113.2"))
	e.remove(paris, "baz")
	e.soon("nothing of it", r.slicesGone("baz"))
	h2c := "kubernetes.io/h2c"
	e.change(paris, "bar", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Name: "grpc", Port: 9090, AppProtocol: &h2c})
	})
	e.soon("two ports", r.slicesLead("bar", append(to("http:8080", "203.0.113.1", "203.0.113.2"), to("grpc:8080", "203.0.113.1", "203.0.113.2")...)...))
	slice, err := london.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, r.mirror("bar")+"-ipv4", metav1.GetOptions{})
	e.must(err)
	for _, port := range slice.Ports {
		if app := port.AppProtocol; *port.Name == "grpc" && (app == nil || *app != h2c) {
			t.Errorf("the appProtocol of port grpc is %v", app)
		}
	}
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports = svc.Spec.Ports[:1] })
	r.gateway("203.0.113.3")
	e.soon("the new address", r.sliced("bar", "203.0.113.3"))
	r.gateway()
	e.soon("no address", r.sliced("bar"))
	r.gateway("203.0.113.4")
	e.soon("the next address", r.sliced("bar", "203.0.113.4"))
	e.sameIdentities(before)
	for _, w := range london.writes(t, e.id, since) {
		if w.ObjectRef.Resource == "endpoints" {
			t.Errorf("Endpoints are written: %v", w)
		}
	}

	d.stop()
	since = london.mark(t)
	d = e.daemon([]*remote{r}, useSlices)
	e.stays("the mirror over a restart", r.sliced("bar", "203.0.113.4"))
	d.kill()
	e.noWrites(since)
	e.remove(paris, "bar")
	e.daemon([]*remote{r}, useSlices)
	e.soon("what was unexported meanwhile", r.slicesGone("bar"))
}

func TestEndpointSlicesDrift(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	e.daemon([]*remote{r}, useSlices)
	right := r.sliced("bar", "203.0.113.1")
	e.soon("the mirror", right)
	name := r.mirror("bar") + "-ipv4"
	clusterIP := e.service(r.mirror("bar")).Spec.ClusterIP
	api := london.DiscoveryV1().EndpointSlices(e.id)
	edit := func(change func(*discoveryv1.EndpointSlice)) func() {
		return func() {
			t.Helper()
			slice, err := api.Get(e.ctx, name, metav1.GetOptions{})
			e.must(err)
			change(slice)
			_, err = api.Update(e.ctx, slice, metav1.UpdateOptions{})
			e.must(err)
		}
	}
	no, number := false, int32(1)
	for what, drift := range map[string]func(){
		"the slice deleted": func() { e.must(api.Delete(e.ctx, name, metav1.DeleteOptions{})) },
		"the Service deleted": func() {
			e.remove(london, r.mirror("bar"))
		},
		"an address edited": edit(func(slice *discoveryv1.EndpointSlice) { slice.Endpoints[0].Addresses[0] = "192.0.2.1" }),
		"an address added": edit(func(slice *discoveryv1.EndpointSlice) {
			slice.Endpoints = append(slice.Endpoints, discoveryv1.Endpoint{Addresses: []string{"192.0.2.1"}})
		}),
		"all addresses taken": edit(func(slice *discoveryv1.EndpointSlice) { slice.Endpoints = nil }),
		"not ready":           edit(func(slice *discoveryv1.EndpointSlice) { slice.Endpoints[0].Conditions.Ready = &no }),
		"a port edited":       edit(func(slice *discoveryv1.EndpointSlice) { slice.Ports[0].Port = &number }),
		"another Service's":   edit(func(slice *discoveryv1.EndpointSlice) { slice.Labels[discoveryv1.LabelServiceName] = "other" }),
		"no Service's":        edit(func(slice *discoveryv1.EndpointSlice) { delete(slice.Labels, discoveryv1.LabelServiceName) }),
		"another proxy's": edit(func(slice *discoveryv1.EndpointSlice) {
			slice.Labels["service.kubernetes.io/service-proxy-name"] = "other"
		}),
		"called headless": edit(func(slice *discoveryv1.EndpointSlice) { slice.Labels[corev1.IsHeadlessService] = "" }),
	} {
		drift()
		time.Sleep(20 * time.Millisecond) // the check could pass before the edit is there
		e.soon(what, right)
	}
	if now := e.service(r.mirror("bar")).Spec.ClusterIP; now != clusterIP {
		t.Errorf("the ClusterIP was %s and is %s", clusterIP, now)
	}
	edit(func(slice *discoveryv1.EndpointSlice) {
		slice.Annotations = map[string]string{"note": "theirs"}
		slice.Endpoints[0].Addresses[0] = "192.0.2.1"
	})()
	time.Sleep(20 * time.Millisecond)
	e.soon("repaired", right)
	slice, err := api.Get(e.ctx, name, metav1.GetOptions{})
	e.must(err)
	if slice.Annotations["note"] != "theirs" {
		t.Errorf("what is not ours is gone: annotations %v", slice.Annotations)
	}
}

// Each round has a mirror of its own, as in TestSelectorWithPodsBehindIt.
func TestEndpointSlicesAndASelector(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	d := e.daemon([]*remote{r}, useSlices)
	e.readyPod("web", "10.1.2.4")
	for round, stopped := range []bool{true, true, false} {
		bar := fmt.Sprintf("bar-%d", round)
		r.export(bar)
		right := r.sliced(bar, "203.0.113.1")
		e.soon("the mirror", right)
		if stopped {
			d.signal(syscall.SIGSTOP) // so that the controllers see the selector
		}
		e.change(london, r.mirror(bar), func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"app": "web"} })
		if stopped {
			e.soon("the local pod in the slices", r.slicesLead(bar, "203.0.113.1 http:8080", "10.1.2.4 http:80"))
			d.signal(syscall.SIGCONT)
		}
		time.Sleep(20 * time.Millisecond)
		e.soon("no selector, and the gateway alone", right)
		e.stays("the gateway alone", right)
	}
}

func TestEndpointSlicesOfBothFamilies(t *testing.T) {
	e := newDualStackEnv(t, sliceRules...)
	r := e.remote(paris)
	address, address6 := e.healthyAddress(), e.healthyAddress6()
	doors, doors6 := e.openDoors(address, 8080), e.openDoors(address6, 8080)
	r.gateway(address6, address)
	r.export("bar")
	e.daemon([]*remote{r}, append(probing("tcp"), useSlices)...)
	e.soon("a slice of each family", r.sliced("bar", address, address6))
	doors.probed(e, 2)
	doors6.close()
	both := append(to("http:8080", address), dead(to("http:8080", address6))...)
	e.soon("one is unhealthy", r.slicesLead("bar", both...))
	doors6.open()
	e.soon("and healthy again", r.sliced("bar", address, address6))
	since := e.local.mark(t)
	doors.close()
	both = append(dead(to("http:8080", address)), to("http:8080", address6)...)
	e.soon("the other is unhealthy", r.slicesLead("bar", both...))
	if writes := e.local.writes(t, e.id, since); len(writes) != 1 {
		t.Errorf("writes %v, want one", writes)
	}
	r.gateway(address6)
	e.soon("one family alone", r.sliced("bar", address6))
	r.gateway("203.0.113.1")
	e.soon("the other alone", func() error { // ready until it has been probed
		return r.slicesLead("bar", dead(to("http:8080", "203.0.113.1"))...)()
	})
	r.gateway(address6, "203.0.113.1")
	e.soon("both again", r.slicesLead("bar", append(dead(to("http:8080", "203.0.113.1")), to("http:8080", address6)...)...))
	e.remove(paris, "bar")
	e.soon("nothing of it", r.slicesGone("bar"))
}

// foreignSlice is a user's own, of a name that a mirror's has.
func (e *env) foreignSlice(name, service string) *discoveryv1.EndpointSlice {
	e.Helper()
	port, portName, protocol := int32(1), "http", corev1.ProtocolTCP
	slice, err := e.local.DiscoveryV1().EndpointSlices(e.id).Create(e.ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "me"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &portName, Port: &port, Protocol: &protocol}},
	}, metav1.CreateOptions{})
	e.must(err)
	return slice
}

func (e *env) untouchedSlice(theirs *discoveryv1.EndpointSlice) func() error {
	before := snapshot(theirs)
	return func() error {
		slice, err := e.local.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, theirs.Name, metav1.GetOptions{})
		if err == nil && snapshot(slice) != before {
			err = fmt.Errorf("before:\n%s\nnow:\n%s", before, snapshot(slice))
		}
		return err
	}
}

// noService checks that no mirror Service exists.
func (r *remote) noService(name string) func() error {
	return func() error {
		if _, err := r.env.local.CoreV1().Services(r.env.id).Get(r.env.ctx, r.mirror(name), metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("Service %s is there: %v", r.mirror(name), err)
		}
		return nil
	}
}

func TestForeignSlice(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	for _, service := range []string{"mine", r.mirror("bar")} { // of another Service, or of the mirror
		theirs := e.foreignSlice(r.mirror("bar")+"-ipv4", service)
		r.export("bar")
		d := e.daemon([]*remote{r}, useSlices)
		e.logs(d, "Conflict", "is not managed by service-mirror", r.mirror("bar"))
		since := london.mark(t)
		r.export("other")
		e.soon("another mirror", r.sliced("other", "203.0.113.1"))
		e.stays("the user's slice, and no Service over it", e.untouchedSlice(theirs), r.noService("bar"))
		tries := slices.DeleteFunc(london.writes(t, e.id, since), func(w request) bool { return strings.HasPrefix(w.ObjectRef.Name, r.mirror("other")) })
		if len(tries) > 2 {
			t.Errorf("tried %d times in %v, want at most every 30 s: %v", len(tries), stays, tries)
		}
		if n := d.logged("Conflict", r.mirror("bar")); n != 1 {
			t.Errorf("the conflict is logged %d times, want once", n)
		}
		e.must(london.DiscoveryV1().EndpointSlices(e.id).Delete(e.ctx, theirs.Name, metav1.DeleteOptions{}))
		e.eventually(35*time.Second, "the mirror, once the name is free", r.sliced("bar", "203.0.113.1"))
		e.remove(paris, "bar")
		e.remove(paris, "other")
		e.soon("nothing left", r.slicesGone("bar"), r.slicesGone("other"))
		d.stop()
	}
}

func TestForeignSliceUnderAMirror(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	theirs := e.foreignSlice(r.mirror("bar")+"-ipv4", "mine")
	d.stop()
	d = e.daemon([]*remote{r}, useSlices)
	e.logs(d, "Conflict", "is not managed by service-mirror", r.mirror("bar"))
	e.stays("what was there before", e.untouchedSlice(theirs), r.mirrored("bar", "203.0.113.1"), r.slicesLead("bar", to("http:8080", "203.0.113.1")...))
	e.must(london.DiscoveryV1().EndpointSlices(e.id).Delete(e.ctx, theirs.Name, metav1.DeleteOptions{}))
	e.eventually(35*time.Second, "the mirror's own, once the name is free", r.sliced("bar", "203.0.113.1"))
	// A user removes our labels from the slice.
	api := london.DiscoveryV1().EndpointSlices(e.id)
	slice, err := api.Get(e.ctx, theirs.Name, metav1.GetOptions{})
	e.must(err)
	slice.Labels = map[string]string{discoveryv1.LabelServiceName: "mine", discoveryv1.LabelManagedBy: "me"}
	slice, err = api.Update(e.ctx, slice, metav1.UpdateOptions{})
	e.must(err)
	e.eventually(35*time.Second, "it is noticed", func() error {
		if d.logged("Conflict", "is not managed by service-mirror", r.mirror("bar")) < 2 {
			return fmt.Errorf("logged %d times", d.logged("Conflict", "is not managed by service-mirror", r.mirror("bar")))
		}
		return nil
	})
	r.gateway("203.0.113.2")
	e.stays("the user's slice", e.untouchedSlice(slice))
	e.remove(paris, "bar")
	e.soon("no mirror", r.gone("bar"))
	e.must(e.untouchedSlice(slice)())
}

func TestForeignLoneEndpointsWithSlices(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := r.mirror("bar")
	theirs := e.loneEndpoints(name)
	d := e.daemon([]*remote{r}, useSlices)
	since := london.mark(t)
	r.export("bar")
	e.logs(d, "Conflict", "Endpoints", name)
	e.stays("no Service over them", r.noService("bar"), func() error {
		if now := snapshot(e.endpoints(name)); now != snapshot(theirs) {
			return fmt.Errorf("they are changed: %s", now)
		}
		return nil
	})
	e.noWrites(since)
	e.must(london.CoreV1().Endpoints(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
	e.eventually(35*time.Second, "the mirror, once the name is free", r.sliced("bar", "203.0.113.1"))
}
