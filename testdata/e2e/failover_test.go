package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"service-mirror.io/service-mirror/testdata/harness"
)

const failoverKey = "service-mirror.io/failover"

// failoverArgs have remotes serve after a second, and no more three seconds after local endpoints do.
var failoverArgs = []string{"--failover-after=1s", "--failback-after=3s"}

// newFailoverEnv is for a test that cannot run in parallel: each daemon looks after all Services that fail over. It ends
// when all that it made for failover is gone: a later test's daemon would remove what its namespaces still have.
func newFailoverEnv(t *testing.T) *env {
	t.Cleanup(func() { // after all that the test cleans up
		if err := harness.Eventually(2*time.Minute, "nothing fails over any more", noneFailsOver); err != nil {
			t.Error(err)
		}
	})
	return newEnvIn(t, london, slices.Concat(localRules, sliceRules)...)
}

func noneFailsOver() error {
	left, err := london.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(context.Background(), metav1.ListOptions{LabelSelector: failoverKey})
	if err == nil && len(left.Items) > 0 {
		err = fmt.Errorf("%d EndpointSlices are left, such as %s/%s", len(left.Items), left.Items[0].Namespace, left.Items[0].Name)
	}
	return err
}

// ownService creates a Service of London's own that fails over to remotes, and an EndpointSlice of it as Kubernetes makes
// them, with one endpoint.
func (e *env) ownService(name, remotes string, ready bool) {
	e.Helper()
	e.must(e.createOwn(e.id, name, remotes, ready))
}

func (e *env) createOwn(namespace, name, remotes string, ready bool) error {
	_, err := e.local.CoreV1().Services(namespace).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{failoverKey: "true"}, Annotations: map[string]string{failoverKey: remotes}},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	port, http := int32(8000), "http"
	_, err = e.local.DiscoveryV1().EndpointSlices(namespace).Create(e.ctx, &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: name + "-own", Labels: map[string]string{discoveryv1.LabelServiceName: name, discoveryv1.LabelManagedBy: "test.example.com"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.200.0.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port}},
	}, metav1.CreateOptions{})
	return err
}

// ownReady has that endpoint be ready, or not.
func (e *env) ownReady(name string, ready bool) {
	e.Helper()
	patch, err := json.Marshal([]any{map[string]any{"op": "add", "path": "/endpoints/0/conditions/ready", "value": ready}})
	e.must(err)
	_, err = e.local.DiscoveryV1().EndpointSlices(e.id).Patch(e.ctx, name+"-own", types.JSONPatchType, patch, metav1.PatchOptions{})
	e.must(err)
}

// besides checks the slice for failover to the remote: an address and its port, with "not ready" if so; empty: there is
// none.
func (r *remote) besides(name, want string) func() error {
	return func() error {
		slice, err := r.env.local.DiscoveryV1().EndpointSlices(r.env.id).Get(r.env.ctx, name+"."+r.name+".ipv4", metav1.GetOptions{})
		switch {
		case apierrors.IsNotFound(err) && want == "":
			return nil
		case err != nil:
			return err
		}
		return sameLines("EndpointSlice "+slice.Name, fromSlice(slice), []string{want})
	}
}

const (
	parisIdle, parisServes   = "203.0.113.1 http:8080 not ready", "203.0.113.1 http:8080"
	berlinIdle, berlinServes = "203.0.113.9 http:8080 not ready", "203.0.113.9 http:8080"
)

// Failed over and back, with the daemon restarted and the remote's API server cut off in between. Nothing is written but the slices beside
// the Service: of the owner's Service and slices no byte is.
func TestFailover(t *testing.T) {
	e := newFailoverEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	e.ownService("bar", r.name, true)
	since := e.local.mark(t)
	owned, err := e.local.CoreV1().Services(e.id).Get(e.ctx, "bar", metav1.GetOptions{})
	e.must(err)
	d := e.daemon([]*remote{r}, failoverArgs...)
	e.soon("an idle slice", r.besides("bar", parisIdle), r.mirrored("bar", "203.0.113.1"))

	began := time.Now()
	e.ownReady("bar", false)
	e.soon("failed over", r.besides("bar", parisServes))
	if took := time.Since(began); took < time.Second {
		t.Errorf("it failed over after %v", took)
	} else {
		t.Logf("failed over %v after the last local endpoint was not ready", took)
	}
	e.logs(d, "Failed over", r.name)

	d.stop()
	restarted := e.local.mark(t)
	d = e.daemon([]*remote{r}, failoverArgs...)
	e.stays("what serves", r.besides("bar", parisServes))
	e.noWrites(restarted)

	r.proxy.cut()
	began = time.Now()
	e.ownReady("bar", true)
	e.soon("failed back", r.besides("bar", parisIdle))
	if took := time.Since(began); took < 3*time.Second {
		t.Errorf("it failed back after %v", took)
	}
	e.ownReady("bar", false)
	e.soon("failed over without the remote's API server", r.besides("bar", parisServes))
	d.kill() // which touches nothing
	dead := e.local.mark(t)
	e.ownReady("bar", true)
	e.must(r.besides("bar", parisServes)())
	e.noWrites(dead)
	e.daemon([]*remote{r}, failoverArgs...) // and does not know the remote
	e.soon("failed back", r.besides("bar", parisIdle))

	e.change(e.local, "bar", func(svc *corev1.Service) { delete(svc.Labels, failoverKey) })
	e.soon("nothing is left", r.besides("bar", ""))
	for _, w := range e.local.writes(t, e.id, since) {
		switch name := w.ObjectRef.Name; {
		case w.ObjectRef.Resource == "events", name == r.mirror("bar"), name == "bar."+r.name+".ipv4":
		case w.Verb == "create" && name == "": // its name is in the body
		default:
			t.Errorf("written: %v", w)
		}
	}
	now, err := e.local.CoreV1().Services(e.id).Get(e.ctx, "bar", metav1.GetOptions{})
	e.must(err)
	now.Labels, now.ResourceVersion, now.ManagedFields = owned.Labels, owned.ResourceVersion, owned.ManagedFields // the test's own change
	if snapshot(now) != snapshot(owned) {
		t.Errorf("the Service was\n%s\nand is\n%s", snapshot(owned), snapshot(now))
	}
}

// The first remote of the annotation serves that can: with the gateway of one dead, the next one, and back.
func TestFailoverToTheNextRemote(t *testing.T) {
	e := newFailoverEnv(t)
	first, second := e.remote(paris), e.remote(berlin)
	first.gateway("203.0.113.1")
	second.gateway("203.0.113.9")
	first.export("bar")
	second.export("bar")
	e.ownService("bar", first.name+","+second.name+",nowhere", false)
	d := e.daemon([]*remote{first, second}, failoverArgs...)
	e.soon("the first serves", first.besides("bar", parisServes), second.besides("bar", berlinIdle))
	e.logs(d, "UnknownRemote", "nowhere")
	// By the policies no update adds the label again: the slice is another one then.
	_, err := e.local.DiscoveryV1().EndpointSlices(e.id).Patch(e.ctx, "bar."+first.name+".ipv4", types.MergePatchType,
		[]byte(`{"metadata":{"labels":{"`+failoverKey+`":null}}}`), metav1.PatchOptions{})
	e.must(err)
	e.soon("the label that someone removed", func() error {
		slice, err := e.local.DiscoveryV1().EndpointSlices(e.id).Get(e.ctx, "bar."+first.name+".ipv4", metav1.GetOptions{})
		if err == nil && slice.Labels[failoverKey] != "true" {
			err = fmt.Errorf("its labels are %v", slice.Labels)
		}
		return err
	}, first.besides("bar", parisServes), second.besides("bar", berlinIdle))
	first.remove("bar")
	e.soon("the second serves", second.besides("bar", berlinServes), first.besides("bar", ""))
	first.export("bar")
	e.soon("the first serves again", first.besides("bar", parisServes), second.besides("bar", berlinIdle))

	d.stop() // the first is removed, and pruned: the daemon does not create it again
	out := e.once([]*remote{second}, "--prune", first.name)
	if !strings.Contains(out.stdout, "EndpointSlice "+e.id+"/bar."+first.name+".ipv4") {
		t.Errorf("pruned are\n%s", out.stdout)
	}
	e.must(first.besides("bar", "")())
	e.daemon([]*remote{second}, failoverArgs...)
	e.soon("the second serves", second.besides("bar", berlinServes))
	e.must(first.besides("bar", "")())
}

// remove deletes a Service of the remote.
func (r *remote) remove(name string) { r.env.remove(r.cluster, name) }

// With many Services the local EndpointSlices that are watched are those of these Services alone, nothing is requested while
// nothing happens, and what it takes is logged.
func TestFailoverOfManyServices(t *testing.T) {
	const many, spread = 1000, 10 // Services, and namespaces
	e := newFailoverEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := func(i int) string { return fmt.Sprintf("bar%d", i) }
	namespaces := []string{e.id}
	for i := 1; i < spread; i++ {
		namespaces = append(namespaces, fmt.Sprintf("%s-%d", e.id, i))
		e.makeNamespace(e.local, namespaces[i])
		e.makeNamespace(paris, namespaces[i])
	}
	e.inParallel(many, func(i int) error {
		svc := r.exported(name(i), func(svc *corev1.Service) { svc.Namespace = namespaces[i%spread] })
		if _, err := r.CoreV1().Services(svc.Namespace).Create(e.ctx, svc, metav1.CreateOptions{}); err != nil {
			return err
		}
		return e.createOwn(svc.Namespace, name(i), "", true)
	})
	e.ownService("other", r.name, true)
	e.change(e.local, "other", func(svc *corev1.Service) { delete(svc.Labels, failoverKey) })
	since := e.local.mark(t)
	d := runProgram(t, "service-mirror", append(e.args([]*remote{r}), failoverArgs...)...)
	e.eventually(5*time.Minute, "the mirrors", func() error {
		list, err := e.local.CoreV1().Services(metav1.NamespaceAll).List(e.ctx, metav1.ListOptions{LabelSelector: "service-mirror.io/cluster=" + r.name})
		if err == nil && len(list.Items) != many {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		return err
	})
	before := d.rss()
	patch := fmt.Appendf(nil, `{"metadata":{"annotations":{%q:%q}}}`, failoverKey, r.name)
	e.inParallel(many, func(i int) error {
		_, err := e.local.CoreV1().Services(namespaces[i%spread]).Patch(e.ctx, name(i), types.MergePatchType, patch, metav1.PatchOptions{})
		return err
	})
	e.eventually(5*time.Minute, "the slices", func() error {
		list, err := e.local.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(e.ctx, metav1.ListOptions{LabelSelector: failoverKey + "=true"})
		if err == nil && len(list.Items) != many {
			err = fmt.Errorf("there are %d", len(list.Items))
		}
		return err
	})
	e.local.writes(t, e.id, since) // until none is added
	idle := e.local.mark(t)
	time.Sleep(stays)
	var requests []string
	for _, one := range e.local.requests(t, e.id, idle) {
		if one.Verb != "watch" {
			requests = append(requests, one.String())
		}
	}
	if len(requests) > 0 {
		t.Errorf("requested while nothing happened: %q", requests)
	}
	t.Logf("%d Services that fail over: %d KB each, from %d MB to %d MB", many, (d.rss()-before)/many>>10, before>>20, d.rss()>>20)

	began := time.Now()
	e.ownReady(name(0), false)
	e.soon("failed over", r.besides(name(0), parisServes))
	t.Logf("one of them failed over after %v", time.Since(began))
	d.stop() // has the watches logged
	watched := 0
	for _, one := range e.local.requests(t, e.id, since) {
		if one.ObjectRef.Resource != "endpointslices" || one.Verb != "watch" {
			continue
		}
		if strings.Contains(one.RequestURI, "service-name") {
			watched++
		} else if !strings.Contains(one.RequestURI, "managed-by") {
			t.Errorf("watched: %s", one.RequestURI)
		}
		if strings.Contains(one.RequestURI, "other") || len(one.RequestURI) > 4096 {
			t.Errorf("watched: %s", one.RequestURI)
		}
	}
	if watched == 0 {
		t.Error("no watch of the Services' slices is logged")
	}
}

// inParallel does something n times, and fails with the first error.
func (e *env) inParallel(n int, do func(i int) error) {
	e.Helper()
	var wg sync.WaitGroup
	errs := make([]error, n)
	for worker := range 8 {
		wg.Go(func() {
			for i := worker; i < n; i += 8 {
				errs[i] = do(i)
			}
		})
	}
	wg.Wait()
	e.must(errors.Join(errs...))
}

// rss is the memory that the daemon has, in bytes.
func (d *daemon) rss() int64 {
	d.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	i := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, "VmRSS:") })
	n, err := strconv.ParseInt(strings.Fields(lines[i])[1], 10, 64)
	if err != nil {
		d.t.Fatal(err)
	}
	return n << 10
}
