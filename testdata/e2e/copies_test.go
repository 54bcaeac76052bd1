package e2e

import (
	"fmt"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// copies are what users and restores make of a mirror: everything that it carries, in another
// place. What one of them is now comes with how to read it again.
type copies map[string]func() (any, error)

// copied is the metadata of a copy: labels, annotations and nothing that the API server sets.
func copied(of metav1.ObjectMeta, namespace, name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: of.Labels, Annotations: of.Annotations}
}

func (e *env) copyService(c copies, of *corev1.Service, namespace, name string, selector map[string]string) {
	e.Helper()
	_, err := e.local.CoreV1().Services(namespace).Create(e.ctx, &corev1.Service{
		ObjectMeta: copied(of.ObjectMeta, namespace, name),
		Spec:       corev1.ServiceSpec{Selector: selector, Ports: of.Spec.Ports},
	}, metav1.CreateOptions{})
	e.must(err)
	c["Service "+namespace+"/"+name] = func() (any, error) {
		return e.local.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{})
	}
}

func (e *env) copyEndpoints(c copies, of *corev1.Endpoints, namespace, name string) {
	e.Helper()
	_, err := e.local.CoreV1().Endpoints(namespace).Create(e.ctx, &corev1.Endpoints{
		ObjectMeta: copied(of.ObjectMeta, namespace, name), Subsets: of.Subsets,
	}, metav1.CreateOptions{})
	e.must(err)
	e.watchEndpoints(c, namespace, name)
}

// watchEndpoints has Endpoints that Kubernetes makes of a copy be compared too.
func (e *env) watchEndpoints(c copies, namespace, name string) {
	e.Helper()
	get := func() (any, error) {
		return e.local.CoreV1().Endpoints(namespace).Get(e.ctx, name, metav1.GetOptions{})
	}
	e.soon("the Endpoints "+name, func() error { _, err := get(); return err })
	c["Endpoints "+namespace+"/"+name] = get
}

func (e *env) copySlice(c copies, of *discoveryv1.EndpointSlice, namespace, name string, labels map[string]string) {
	e.Helper()
	slice := of.DeepCopy()
	slice.ObjectMeta = copied(slice.ObjectMeta, namespace, name)
	for key, value := range labels {
		slice.Labels[key] = value
	}
	_, err := e.local.DiscoveryV1().EndpointSlices(namespace).Create(e.ctx, slice, metav1.CreateOptions{})
	e.must(err)
	c["EndpointSlice "+namespace+"/"+name] = func() (any, error) {
		return e.local.DiscoveryV1().EndpointSlices(namespace).Get(e.ctx, name, metav1.GetOptions{})
	}
}

// untouched returns a check that all copies are as they are now, resourceVersions included.
func (c copies) untouched(e *env) func() error {
	e.Helper()
	before := map[string]string{}
	for what, get := range c {
		obj, err := get()
		if err != nil {
			e.Fatalf("%s: %v", what, err)
		}
		before[what] = snapshot(obj)
	}
	return func() error {
		for what, get := range c {
			obj, err := get()
			if err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if now := snapshot(obj); now != before[what] {
				return fmt.Errorf("%s was\n%s\nand is\n%s", what, before[what], now)
			}
		}
		return nil
	}
}

// A copy of a mirror, labels and annotations included, is foreign: also after a restart, and
// when the mirrors of its remote are pruned.
func TestCopyOfAMirror(t *testing.T) {
	t.Parallel()
	theirs := map[string]string{"app": "theirs"}
	for _, test := range []struct {
		kind string
		args []string
		copy func(e *env, c copies, mirror, other string)
	}{
		{"Endpoints", nil, func(e *env, c copies, mirror, other string) {
			endpoints := e.endpoints(mirror)
			e.copyEndpoints(c, endpoints, e.id, "lone")
			e.copyEndpoints(c, endpoints, other, mirror)
		}},
		{"EndpointSlices", []string{useSlices}, func(e *env, c copies, mirror, other string) {
			slice, err := e.local.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, mirror+"-ipv4", metav1.GetOptions{})
			e.must(err)
			e.copySlice(c, slice, e.id, "my-own-ipv4", map[string]string{discoveryv1.LabelServiceName: "my-own"})
			e.copySlice(c, slice, e.id, "lone-ipv4", map[string]string{discoveryv1.LabelServiceName: "lone"})
			e.copySlice(c, slice, e.id, "second", nil) // of the mirror's Service
			e.copySlice(c, slice, other, slice.Name, nil)
		}},
	} {
		t.Run(test.kind, func(t *testing.T) {
			e := newSlicesEnv(t)
			r := e.remote(paris)
			r.gateway("203.0.113.1")
			r.export("bar")
			d := e.daemon([]*remote{r}, append(test.args, listening...)...)
			e.soon("the mirror", r.slicesLead("bar", to("http:8080", "203.0.113.1")...), r.hasService("bar"))
			mirror, other := r.mirror("bar"), e.id+"-other"
			e.makeNamespace(london, other)

			c := copies{}
			service := e.service(mirror)
			e.copyService(c, service, e.id, "my-own", theirs)
			e.watchEndpoints(c, e.id, "my-own")                       // to which Kubernetes gives the Service's labels
			e.copyService(c, service, other, mirror, nil)             // as a restore into another namespace
			e.copyService(c, service, e.id, "second-"+r.name, theirs) // named like a mirror
			e.watchEndpoints(c, e.id, "second-"+r.name)
			e.copyService(c, service, e.id, "copy", nil) // without a selector
			test.copy(e, c, mirror, other)
			untouched := c.untouched(e)
			counted := d.measures(map[string]float64{r.state("mirrored"): 1, r.state("orphan"): 0, r.state("conflict"): 0})
			e.stays("the copies", untouched, counted)

			r.gateway("203.0.113.2")
			e.soon("the mirror follows", r.leadsIn(test.args, "203.0.113.2"))
			d.stop()
			d = e.daemon([]*remote{r}, append(test.args, listening...)...)
			r.gateway("203.0.113.3")
			e.soon("the mirror follows after a restart", r.leadsIn(test.args, "203.0.113.3"))
			e.stays("the copies after a restart", untouched)

			d.stop()
			if got := e.once(nil, "--prune", r.name); got.code != 0 || !strings.HasSuffix(got.stdout, "\n2 removed\n") {
				t.Errorf("%v\nwant the mirror's two objects removed", got)
			}
			e.soon("the mirror is pruned", r.gone("bar"))
			e.must(untouched())
			e.remove(paris, "bar")
			r.export("other")
			e.daemon([]*remote{r}, test.args...)
			e.soon("another mirror", r.hasService("other"))
			e.must(untouched()) // of a Service that is no longer exported
		})
	}
}

// leadsIn checks the addresses of mirror bar in the objects that the daemon itself writes.
func (r *remote) leadsIn(args []string, address string) func() error {
	if len(args) == 0 {
		return r.mirrored("bar", address)
	}
	return func() error {
		slice, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).Get(r.env.ctx, r.mirror("bar")+"-ipv4", metav1.GetOptions{})
		if err != nil {
			return err
		}
		return sameLines("EndpointSlice "+slice.Name, fromSlice(slice), to("http:8080", address))
	}
}
