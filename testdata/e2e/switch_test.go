package e2e

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

// sliceWatch sees every EndpointSlice of a test's namespace as kube-proxy does,
// one change after the other, and notes each moment at which a Service has fewer
// ready endpoints than it should.
type sliceWatch struct {
	want  map[string][]string // ready endpoints that a Service must have, once it has had them
	never string              // an endpoint that must not be ready

	mu       sync.Mutex
	slices   map[string]*discoveryv1.EndpointSlice
	complete map[string]bool
	losses   []string
	events   int
	ended    error
}

func (e *env) watchSlices(want map[string][]string) *sliceWatch {
	e.Helper()
	api := e.local.DiscoveryV1().EndpointSlices(e.id)
	list, err := api.List(e.ctx, metav1.ListOptions{})
	e.must(err)
	w := &sliceWatch{want: want, slices: map[string]*discoveryv1.EndpointSlice{}, complete: map[string]bool{}}
	for _, slice := range list.Items {
		w.slices[slice.Name] = &slice
	}
	for service := range want {
		w.check(service, "at first")
	}
	watcher, err := api.Watch(e.ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion})
	e.must(err)
	e.Cleanup(watcher.Stop)
	go func() {
		for event := range watcher.ResultChan() {
			w.see(event)
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		w.ended = fmt.Errorf("the watch ended after %d events", w.events)
	}()
	return w
}

func (w *sliceWatch) see(event watch.Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	slice, ok := event.Object.(*discoveryv1.EndpointSlice)
	if !ok {
		w.ended = fmt.Errorf("watch: %v", apierrors.FromObject(event.Object))
		return
	}
	w.events++
	services := []string{slice.Labels[discoveryv1.LabelServiceName]}
	if before := w.slices[slice.Name]; before != nil {
		services = append(services, before.Labels[discoveryv1.LabelServiceName])
	}
	if event.Type == watch.Deleted {
		delete(w.slices, slice.Name)
	} else {
		w.slices[slice.Name] = slice
	}
	for _, service := range services {
		w.check(service, fmt.Sprintf("%s %s by %s", event.Type, slice.Name, slice.Labels[discoveryv1.LabelManagedBy]))
	}
}

// check checks what a Service's slices together route to. w.mu is locked, or the watch
// has not started.
func (w *sliceWatch) check(service, after string) {
	var ready []string
	for _, slice := range w.slices {
		if slice.Labels[discoveryv1.LabelServiceName] == service {
			ready = append(ready, fromSlice(slice)...)
		}
	}
	if slices.Contains(ready, w.never) {
		w.losses = append(w.losses, fmt.Sprintf("%s had %q after %s", service, w.never, after))
	}
	for _, want := range w.want[service] {
		if !slices.Contains(ready, want) {
			if w.complete[service] {
				w.losses = append(w.losses, fmt.Sprintf("%s lost %q after %s", service, want, after))
			}
			return
		}
	}
	w.complete[service] = true
}

// lossless waits until the watch has seen the state that is, and checks that
// nothing was lost on the way to it.
func (e *env) lossless(w *sliceWatch) {
	e.Helper()
	e.soon("the watch has caught up", func() error {
		list, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.ended != nil {
			e.Fatal(w.ended)
		}
		if len(list.Items) != len(w.slices) {
			return fmt.Errorf("%d slices, seen are %d", len(list.Items), len(w.slices))
		}
		for _, slice := range list.Items {
			if seen := w.slices[slice.Name]; seen == nil || seen.ResourceVersion != slice.ResourceVersion {
				return fmt.Errorf("%s is not seen as it is", slice.Name)
			}
		}
		return nil
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for service := range w.want {
		if !w.complete[service] {
			e.Errorf("%s never had all of %v", service, w.want[service])
		}
	}
	if len(w.losses) > 0 {
		e.Errorf("%d times endpoints were not as they should be: %v", len(w.losses), w.losses[:min(len(w.losses), 10)])
	}
}

func TestEndpointsAPIIsSwitched(t *testing.T) {
	e := newDualStackEnv(t, sliceRules...)
	r := e.remote(paris)
	addresses := []string{"203.0.113.1", "203.0.113.2", "2001:db8::1"}
	r.gateway(addresses...)
	const n = 20
	r.exportMany(n)
	want := map[string][]string{}
	for i := range n {
		want[r.mirror(fmt.Sprintf("bar%d", i))] = to("http:8080", addresses...)
	}
	all := func(what string, check func(string, ...string) func() error) {
		t.Helper()
		for i := range n {
			e.eventually(30*time.Second, what, check(fmt.Sprintf("bar%d", i), addresses...))
		}
	}
	// asMirrored is what is there with Endpoints: them, and no slice of ours.
	asMirrored := func(name string, addresses ...string) func() error {
		return func() error {
			if err := r.mirrored(name, addresses...)(); err != nil {
				return err
			}
			list, err := e.local.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{
				LabelSelector: discoveryv1.LabelServiceName + "=" + r.mirror(name) + "," + discoveryv1.LabelManagedBy + "=service-mirror.io",
			})
			if err == nil && len(list.Items) > 0 {
				err = fmt.Errorf("EndpointSlice %s is still there", list.Items[0].Name)
			}
			if err != nil {
				return err
			}
			return r.slicesLead(name, to("http:8080", addresses...)...)()
		}
	}
	d := e.daemon([]*remote{r})
	all("Endpoints", asMirrored)
	before := e.identities()
	w := e.watchSlices(want)

	for range 2 {
		d.stop()
		d = e.daemon([]*remote{r}, useSlices)
		all("EndpointSlices", r.sliced)
		d.stop()
		since := e.local.mark(t)
		d = e.daemon([]*remote{r}, useSlices)
		e.stays("EndpointSlices over a restart", r.sliced("bar0", addresses...))
		e.noWrites(since)
		d.stop()
		d = e.daemon([]*remote{r}) // as by default
		all("Endpoints again", asMirrored)
		d.stop()
		since = e.local.mark(t)
		d = e.daemon([]*remote{r}, "--endpoints-api=endpoints")
		e.stays("Endpoints over a restart", asMirrored("bar0", addresses...))
		e.noWrites(since)
	}
	e.lossless(w)

	// Stopped in the middle, and switched back.
	for i := range 6 {
		d.kill()
		flag := []string{useSlices, "--endpoints-api=endpoints"}[i%2]
		done := []func(string, ...string) func() error{r.sliced, asMirrored}[i%2]
		since := e.local.mark(t)
		d = e.daemon([]*remote{r}, flag)
		e.soon("a few writes", func() error {
			// What the last one was about to write may come after its end, and be all.
			if writes := e.local.writes(t, e.id, since); len(writes) < 2 && done("bar0", addresses...)() != nil {
				return fmt.Errorf("%d writes", len(writes))
			}
			return nil
		})
	}
	d.kill()
	d = e.daemon([]*remote{r}, useSlices)
	all("EndpointSlices in the end", r.sliced)
	d.kill()
	e.daemon([]*remote{r})
	all("Endpoints in the end", asMirrored)
	e.lossless(w)
	e.sameIdentities(before)
}

// The health of an address is carried over from one kind to the other.
func TestEndpointsAPIIsSwitchedWithAnUnhealthyAddress(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	e.openDoors(address, 8080)
	r.gateway(address, deadAddress)
	r.export("bar")
	d := e.daemon([]*remote{r}, probing("tcp")...)
	alive, gone := to("http:8080", address), to("http:8080", deadAddress)
	both := slices.Concat(alive, dead(gone))
	e.soon("one is unhealthy", r.leads("bar", both...), r.slicesLead("bar", both...))
	w := e.watchSlices(map[string][]string{r.mirror("bar"): alive})
	w.mu.Lock()
	w.never = gone[0]
	w.mu.Unlock()
	for range 2 {
		d.stop()
		d = e.daemon([]*remote{r}, append(probing("tcp"), useSlices)...)
		e.soon("a slice of ours", func() error {
			_, err := london.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, r.mirror("bar")+"-ipv4", metav1.GetOptions{})
			return err
		}, r.slicesLead("bar", both...))
		d.stop()
		d = e.daemon([]*remote{r}, probing("tcp")...)
		e.eventually(30*time.Second, "Endpoints again", r.leads("bar", both...))
		e.eventually(30*time.Second, "their slice alone", r.slicesLead("bar", both...))
	}
	e.lossless(w)
}

// While the gateway is not known, the objects are not switched.
func TestEndpointsAPIIsSwitchedInAnOutage(t *testing.T) {
	e := newSlicesEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"), r.slicesLead("bar", to("http:8080", "203.0.113.1")...))
	w := e.watchSlices(map[string][]string{r.mirror("bar"): to("http:8080", "203.0.113.1")})
	r.proxy.cut()
	d.stop()
	since := london.mark(t)
	d = e.daemon([]*remote{r}, useSlices)
	e.stays("the Endpoints", r.mirrored("bar", "203.0.113.1"))
	e.noWrites(since)
	r.proxy.heal()
	e.soon("EndpointSlices", r.sliced("bar", "203.0.113.1"))
	r.proxy.cut()
	d.stop()
	since = london.mark(t)
	e.daemon([]*remote{r})
	e.stays("the EndpointSlices", r.sliced("bar", "203.0.113.1"))
	e.noWrites(since)
	r.proxy.heal()
	e.eventually(30*time.Second, "Endpoints", r.mirrored("bar", "203.0.113.1"))
	e.eventually(30*time.Second, "slices of theirs alone", func() error {
		_, err := london.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, r.mirror("bar")+"-ipv4", metav1.GetOptions{})
		if !apierrors.IsNotFound(err) {
			return fmt.Errorf("ours is there (%v)", err)
		}
		return nil
	})
	e.lossless(w)

	// The watch itself would notice a loss.
	list, err := london.DiscoveryV1().EndpointSlices(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, slice := range list.Items {
		e.must(london.DiscoveryV1().EndpointSlices(e.id).Delete(e.ctx, slice.Name, metav1.DeleteOptions{}))
	}
	e.soon("the loss", func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if len(w.losses) == 0 {
			return fmt.Errorf("none is seen")
		}
		return nil
	})
}
