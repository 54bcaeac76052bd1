package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// inPod starts a daemon with metrics and the status page, as if in a pod, of which only
// the object exists.
func (e *env) inPod(remotes []*remote, args ...string) *daemon {
	e.Helper()
	pods := e.local.CoreV1().Pods(e.id)
	pod, err := pods.Get(e.ctx, "daemon", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		e.soon("the namespace's ServiceAccount", func() error {
			_, err := e.local.CoreV1().ServiceAccounts(e.id).Get(e.ctx, "default", metav1.GetOptions{})
			return err
		})
		pod, err = pods.Create(e.ctx, &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "daemon"}, Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "none"}}},
		}, metav1.CreateOptions{})
	}
	e.must(err)
	args = slices.Concat([]string{
		"POD_NAME=" + pod.Name, "POD_NAMESPACE=" + pod.Namespace, "POD_UID=" + string(pod.UID),
		"--kubeconfig", e.kubeconfig, "--export-selector", exportLabel + "=" + e.id,
	}, listening, args)
	for _, r := range remotes {
		args = append(args, "--remote", r.flag())
	}
	return runDaemon(e.T, args...)
}

// podEvents checks how often there were Events of some reasons for the daemon's pod about
// a remote. Equal Events may be counted in one, or be several.
func (r *remote) podEvents(reasons []string, want ...event) func() error {
	return func() error {
		got, messages, err := r.env.events(r.env.id, "Pod/daemon", "remote "+r.name+":")
		if err != nil {
			return err
		}
		counts := map[string]int32{}
		for _, one := range got {
			counts[one.kind+" "+one.reason] += one.count
		}
		for _, one := range want {
			if n := counts[one.kind+" "+one.reason]; n != one.count {
				return fmt.Errorf("Events %v %q about the pod, want %v", got, messages, want)
			}
		}
		for _, reason := range reasons {
			if counts["Normal "+reason]+counts["Warning "+reason] > 0 && !slices.ContainsFunc(want, func(one event) bool { return one.reason == reason }) {
				return fmt.Errorf("Events %v %q about the pod, want none of reason %s", got, messages, reason)
			}
		}
		return nil
	}
}

var (
	remoteReasons  = []string{"RemoteFailing", "RemoteRecovered"}
	gatewayReasons = []string{"GatewayFailing", "GatewayRecovered"}
)

func warned(reason string, count int32) event { return event{corev1.EventTypeWarning, reason, count} }

func normal(reason string, count int32) event { return event{corev1.EventTypeNormal, reason, count} }

func (r *remote) gatewayAddresses(health string) string {
	return fmt.Sprintf(`gateway_addresses{gateway="%s/gateway",health=%q,remote=%q}`, r.env.id, health, r.name)
}

// The gateway gets its address after the export; it is deleted and recreated.
func TestGatewayWithoutAddressIsReported(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway()
	r.export("bar")
	d := e.inPod([]*remote{r})
	without := map[string]float64{
		r.state("incomplete"): 1, r.state("mirrored"): 0, r.up(): 1,
		r.gatewayAddresses("ready"): 0, r.gatewayAddresses("not ready"): 0, r.gatewayAddresses("not probed yet"): 0, r.gatewayAddresses("not probed"): 0,
	}
	with := map[string]float64{r.state("incomplete"): 0, r.state("mirrored"): 1, r.up(): 1, r.gatewayAddresses("not probed"): 1, r.gatewayAddresses("ready"): 0}
	events := func(want ...event) func() error { return r.podEvents(gatewayReasons, want...) }
	e.soon("the Service", r.mirrored("bar"))
	e.soon("the Events", events(warned("GatewayFailing", 1)), d.measures(without))
	e.stays("the Service, and one Event", r.mirrored("bar"), events(warned("GatewayFailing", 1)))
	_, messages, err := e.events(e.id, "Pod/daemon", "")
	e.must(err)
	if len(messages) != 1 || !strings.Contains(messages[0], "gateway "+e.id+"/gateway") || !strings.Contains(messages[0], "no address") {
		t.Errorf("Events say %q", messages)
	}
	before := e.identities()
	r.gateway("203.0.113.1")
	e.soon("its address", r.mirrored("bar", "203.0.113.1"), d.measures(with), events(warned("GatewayFailing", 1), normal("GatewayRecovered", 1)))

	e.remove(paris, "gateway")
	e.soon("no gateway", r.mirrored("bar"), d.measures(without))
	e.soon("another Event", events(warned("GatewayFailing", 2), normal("GatewayRecovered", 1)))
	r.gateway("203.0.113.2") // created without an address, which it gets at once
	e.soon("a new one", r.mirrored("bar", "203.0.113.2"), d.measures(with))
	e.eventually(lasting, "it is healthy again", func() error {
		if events(warned("GatewayFailing", 3), normal("GatewayRecovered", 2))() == nil {
			return nil // it was seen without its address
		}
		return events(warned("GatewayFailing", 2), normal("GatewayRecovered", 2))()
	})
	e.sameIdentities(before)
}

func TestConflictIsReported(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := r.mirror("bar")
	e.foreignService(name)
	theirs := func() string { return snapshot(e.service(name)) + snapshot(e.endpoints(name)) }
	before := theirs()
	untouched := func() error {
		if now := theirs(); now != before {
			return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	}
	d := e.inPod([]*remote{r})
	conflict := d.measures(map[string]float64{r.state("conflict"): 1, r.problem("Conflict"): 1, r.state("mirrored"): 0})
	none := d.measures(map[string]float64{r.state("conflict"): 0, r.problem("Conflict"): 0, r.state("mirrored"): 0})
	reported := e.hasEvent(e.id, "Service/"+name, "Conflict", "remote "+r.name, "already exists and is not managed by service-mirror")
	r.export("bar")
	e.soon("the conflict", conflict, reported)
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	r.gateway("203.0.113.2")
	e.stays("the user's objects, and one Event", untouched, conflict, reported)
	if events, err := london.CoreV1().Events(e.id).List(e.ctx, metav1.ListOptions{FieldSelector: "reason=Conflict"}); err != nil ||
		len(events.Items) != 1 || events.Items[0].InvolvedObject.UID != e.service(name).UID || events.Items[0].InvolvedObject.APIVersion != "v1" {
		t.Errorf("Events %+v, %v: they must be about the Service of that name", events, err)
	}
	e.change(paris, "bar", e.unlabel)
	e.soon("no conflict any more", none)
	e.change(paris, "bar", e.label)
	e.soon("the conflict again", conflict)
	e.remove(paris, "bar")
	e.soon("no conflict any more", none)
	e.must(untouched())
	d.stop()
	r.export("bar")
	d = e.inPod([]*remote{r})
	conflict = d.measures(map[string]float64{r.state("conflict"): 1, r.problem("Conflict"): 1, r.state("mirrored"): 0})
	e.soon("the conflict", conflict)
	e.stays("the user's objects", untouched, conflict)
	e.remove(london, name)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.2"), d.measures(map[string]float64{r.state("conflict"): 0, r.problem("Conflict"): 0, r.state("mirrored"): 1}))
	// Each time there was an Event: two of the first daemon, one of the other.
	got, messages, err := e.events(e.id, "Service/"+name, "")
	e.must(err)
	if want := []event{warned("Conflict", 2), warned("Conflict", 1)}; !slices.Equal(got, want) {
		t.Errorf("Events %v %q, want %v", got, messages, want)
	}
}

func TestBadRemotesAreReported(t *testing.T) {
	e := newEnv(t)
	good := e.remote(paris)
	good.gateway("203.0.113.1")
	good.export("bar")
	hole, missing := e.remoteNamed(paris, "hole-"+e.id), e.remoteNamed(paris, "missing-"+e.id)
	e.writeKubeconfig(hole.kubeconfig, "https://"+deadAddress+":6443", hole.proxy.ca, hole.token)
	e.must(os.Rename(missing.kubeconfig, missing.kubeconfig+".kept"))
	start := time.Now()
	d := e.inPod([]*remote{good, hole, missing})
	e.soon("the process is ready", d.answers("/readyz", 200), d.answers("/healthz", 200))
	e.soon("the good one", good.mirrored("bar", "203.0.113.1"))
	t.Logf("the good one after %v", time.Since(start).Round(10*time.Millisecond))
	e.soon("the states", d.measures(map[string]float64{
		good.up(): 1, hole.up(): 0, missing.up(): 0, good.state("mirrored"): 1, hole.state("mirrored"): 0, missing.state("mirrored"): 0,
	}), d.measures(map[string]float64{
		hole.failing("exports"): 1, hole.failing("kubeconfig"): 0, missing.failing("kubeconfig"): 1, missing.failing("exports"): 0, good.failing("exports"): 0,
	}), d.shows(hole, "down", "i/o timeout"), d.shows(missing, "down", "kubeconfig", "no such file"), d.shows(good, "up"))
	one := []event{warned("RemoteFailing", 1)}
	e.soon("the Events", missing.podEvents(remoteReasons, one...), hole.podEvents(remoteReasons, one...), good.podEvents(remoteReasons))
	for _, r := range []*remote{hole, missing} {
		_, messages, err := e.events(e.id, "Pod/daemon", "remote "+r.name+":")
		e.must(err)
		if want := map[*remote]string{hole: "timeout", missing: r.kubeconfig}[r]; !strings.Contains(strings.Join(messages, "\n"), want) {
			t.Errorf("Events about %s say %q, want %q", r.name, messages, want)
		}
	}
	e.stays("one Event for each", missing.podEvents(remoteReasons, one...), hole.podEvents(remoteReasons, one...), good.podEvents(append(remoteReasons, gatewayReasons...)),
		d.answers("/readyz", 200))
	e.must(os.Rename(missing.kubeconfig+".kept", missing.kubeconfig))
	e.soon("the mirror, once its file exists", missing.mirrored("bar", "203.0.113.1"), d.measures(map[string]float64{missing.up(): 1}))
	e.soon("the Events", missing.podEvents(remoteReasons, append(one, normal("RemoteRecovered", 1))...))
	hole.writeKubeconfig()
	e.soon("the other one, once its address is reachable", hole.mirrored("bar", "203.0.113.1"), hole.podEvents(remoteReasons, append(one, normal("RemoteRecovered", 1))...))
}

func TestLostRemoteIsReported(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.inPod([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"), d.measures(map[string]float64{r.up(): 1}))
	e.must(r.podEvents(append(remoteReasons, gatewayReasons...))())
	since := func() float64 {
		t.Helper()
		all, err := d.metrics()
		e.must(err)
		return all[fmt.Sprintf(`remote_state_since_timestamp_seconds{remote=%q}`, r.name)]
	}
	var want []event
	for i := range int32(2) {
		before := since()
		lost := time.Now()
		r.proxy.cut()
		e.soon("it is lost", d.measures(map[string]float64{r.up(): 0}), d.shows(r, "down", "connection refused"))
		if at := since(); at <= before || at < float64(lost.Unix()) {
			t.Errorf("it is down since %v, and was up since %v; it was cut at %d", at, before, lost.Unix())
		}
		want = []event{warned("RemoteFailing", i+1)}
		if i > 0 {
			want = append(want, normal("RemoteRecovered", i))
		}
		e.soon("the Event", r.podEvents(remoteReasons, want...))
		e.stays("the mirror, and one Event for each time", r.mirrored("bar", "203.0.113.1"), r.podEvents(remoteReasons, want...), d.answers("/readyz", 200))
		r.proxy.heal()
		// That it is back so soon after the time before must last.
		e.eventually(lasting, "it is back", d.measures(map[string]float64{r.up(): 1}))
		e.soon("the Event", r.podEvents(remoteReasons, warned("RemoteFailing", i+1), normal("RemoteRecovered", i+1)))
	}
}

func TestNameTooLongIsReported(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	long := strings.Repeat("x", 61)
	r.export(long)
	r.export("bar")
	since := london.mark(t)
	d := e.inPod([]*remote{r})
	e.soon("the other", r.mirrored("bar", "203.0.113.1"))
	reported := e.hasEvent(e.id, "Service/"+r.mirror(long), "InvalidName", "remote "+r.name, "more than a Service name may have")
	measures := d.measures(map[string]float64{r.state("refused"): 1, r.problem("InvalidName"): 1, r.state("mirrored"): 1})
	e.soon("the Events", reported, measures)
	for port := range int32(3) {
		e.change(paris, long, func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 + port })
	}
	r.gateway("203.0.113.2")
	e.soon("the other", r.mirrored("bar", "203.0.113.2"))
	e.stays("one Event, nothing written", reported, measures, r.gone(long))
	for _, w := range london.writes(t, e.id, since) {
		if w.ObjectRef.Name != r.mirror("bar") && w.ObjectRef.Name != "" || w.ResponseStatus.Code >= 300 {
			t.Errorf("written: %v", w)
		}
	}
	e.remove(paris, long)
	e.soon("none is refused", d.measures(map[string]float64{r.state("refused"): 0, r.problem("InvalidName"): 0, r.state("mirrored"): 1}))
}

func TestMissingNamespaceIsReported(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	other := e.id + "-other"
	e.makeNamespace(paris, other)
	const n = 3
	for i := range n {
		svc := r.exported(fmt.Sprintf("bar%d", i), func(svc *corev1.Service) { svc.Namespace = other })
		_, err := paris.CoreV1().Services(other).Create(e.ctx, svc, metav1.CreateOptions{})
		e.must(err)
	}
	since := london.mark(t)
	d := e.inPod([]*remote{r})
	waiting := d.measures(map[string]float64{r.state("waiting"): n, r.state("mirrored"): 0})
	mirrored := func() error {
		list, err := london.CoreV1().Services(other).List(e.ctx, metav1.ListOptions{LabelSelector: "service-mirror.io/cluster=" + r.name})
		if err != nil || len(list.Items) != n {
			return fmt.Errorf("%d mirrors, want %d (%v)", len(list.Items), n, err)
		}
		return d.measures(map[string]float64{
			r.state("waiting"): 0, r.state("mirrored"): n, r.problem("NamespaceMissing"): 0, r.problem("NamespaceTerminating"): 0,
		})()
	}
	there := func(want bool) func() error {
		return func() error {
			if _, err := london.CoreV1().Namespaces().Get(e.ctx, other, metav1.GetOptions{}); (err == nil) != want {
				return fmt.Errorf("namespace exists: %v (%v)", err == nil, err)
			}
			return nil
		}
	}
	reported := e.hasEvent(metav1.NamespaceDefault, "Namespace/"+other, "NamespaceMissing", "remote "+r.name)
	e.soon("they wait", waiting, d.measures(map[string]float64{r.problem("NamespaceMissing"): n}), reported)
	e.stays("no namespace, and one Event for all of them", there(false), waiting, reported)
	e.noWrites(since)
	e.must(e.create(london, other))
	e.Cleanup(func() { london.CoreV1().Namespaces().Delete(context.Background(), other, metav1.DeleteOptions{}) })
	e.soon("the mirrors", mirrored)

	since = london.mark(t)
	e.must(london.CoreV1().Namespaces().Delete(e.ctx, other, metav1.DeleteOptions{}))
	e.eventually(30*time.Second, "the namespace gone", there(false))
	e.soon("they wait again", waiting, d.measures(map[string]float64{r.problem("NamespaceMissing"): n}))
	e.stays("no namespace", there(false), waiting)
	if writes := london.writes(t, e.id, since); len(writes) > 2*n {
		t.Errorf("writes while the namespace is being deleted: %v", writes)
	}
	e.must(e.create(london, other))
	e.soon("the mirrors again", mirrored)
	got, messages, err := e.events(metav1.NamespaceDefault, "Namespace/"+other, "")
	e.must(err)
	for _, one := range got {
		if one.kind != corev1.EventTypeWarning || one.count > 2 {
			t.Errorf("Event %v", one)
		}
	}
	if len(got) > 3 {
		t.Errorf("Events %v %q: want one when it was missing, one or two when it was deleted", got, messages)
	}
	d.stop()
	if err := there(true)(); err != nil {
		t.Error(err)
	}
}
