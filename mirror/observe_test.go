package mirror

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
	kuberecord "k8s.io/client-go/tools/record"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

// recording records Events for a test.
func recording(pod *corev1.ObjectReference) (*report.Events, *kuberecord.FakeRecorder) {
	recorder := kuberecord.NewFakeRecorder(1000)
	recorder.IncludeObject = true
	return report.NewEventsTo(recorder, pod), recorder
}

func drainEvents(recorder *kuberecord.FakeRecorder) (events []string) {
	for {
		select {
		case event := <-recorder.Events:
			events = append(events, event)
		default:
			slices.Sort(events)
			return events
		}
	}
}

func expectEvents(t *testing.T, recorder *kuberecord.FakeRecorder, parts ...string) {
	t.Helper()
	got := drainEvents(recorder)
	if len(got) != len(parts) {
		t.Errorf("got %d Events, want %d:\n%s", len(got), len(parts), strings.Join(got, "\n"))
		return
	}
	for i, part := range parts {
		if !strings.Contains(got[i], part) {
			t.Errorf("got %q, want %q in it", got[i], part)
		}
	}
}

func TestEventsAreCreatedOnce(t *testing.T) {
	events, recorder := recording(nil)
	run(t, Options{Events: events}, paris, func(w *world) {
		odd := named("default", "odd")
		odd.Spec.Ports = []corev1.ServicePort{{Name: "db", Port: 5432}}
		headless := named("default", "headless")
		headless.Spec.ClusterIP = corev1.ClusterIPNone
		for _, svc := range []*corev1.Service{odd, headless, named("lonely", "a"), named("lonely", "b"), named("lonely", "c")} {
			w.remotes["paris"].export(svc)
		}
		w.settle()
		expectEvents(w.T, recorder,
			"Warning Headless remote paris: it is headless",
			"Warning NamespaceMissing remote paris: namespace lonely does not exist in the local cluster",
			"Warning PortNotServed remote paris: port db (5432/TCP)")
		w.wait(time.Hour)
		w.remotes["paris"].know(true)
		w.wait(time.Hour)
		expectEvents(w.T, recorder)

		w.server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "lonely"}})
		w.wait(time.Minute)
		expectEvents(w.T, recorder)
		for _, name := range []string{"a", "b", "c"} {
			w.server.removePair("lonely", name+"-paris")
		}
		w.server.remove("namespaces", "", "lonely")
		w.wait(time.Minute)
		if got := drainEvents(recorder); len(got) != 1 || !strings.Contains(got[0], "NamespaceMissing") {
			w.Errorf("got %q", got)
		}
	})
}

func TestEventsOfARemote(t *testing.T) {
	pod := &corev1.ObjectReference{Kind: "Pod", Namespace: "sm", Name: "sm-1"}
	events, recorder := recording(pod)
	run(t, Options{Events: events}, paris, func(w *world) {
		report := w.remotes["paris"].hooks.OnProblem
		report("paris", remote.Problem{Part: "kubeconfig", Cause: "no such file"})
		expectEvents(w.T, recorder) // another replica leads, and reports it
		w.remotes["paris"].problems = []remote.Problem{{Part: "gateway a/b", Cause: "no address; and more"}}
		w.settle()
		expectEvents(w.T, recorder, "Warning GatewayFailing remote paris: gateway a/b: no address; and more")
		report("paris", remote.Problem{Part: "watch of exported Services", Cause: "connection refused"})
		report("paris", remote.Problem{Part: "watch of exported Services"})
		expectEvents(w.T, recorder, "Normal RemoteRecovered", "Warning RemoteFailing remote paris: watch of exported Services: connection refused")
	})
}

// A standby writes nothing, and plans as the leader does.
func TestDryRunOfAStandby(t *testing.T) {
	run(t, Options{Policy: Policy{CreateNamespaces: true}}, paris, func(w *world) {
		w.standby = true
		w.start()
		w.remotes["paris"].export(exportedBar())
		w.remotes["paris"].export(named("lonely", "x"))
		foreign := mirrorOfBar().Service
		foreign.Name, foreign.Labels = "taken-paris", nil
		w.server.put(foreign)
		left := mirrorOfBar()
		left.Service.Name, left.Endpoints.Name = "left-paris", "left-paris"
		left.Service.Annotations[plan.RemoteServiceAnnotation] = "default/left"
		left.Service.Annotations[plan.MirrorAnnotation], left.Endpoints.Annotations[plan.MirrorAnnotation] = "default/left-paris", "default/left-paris"
		w.server.put(left.Service)
		w.server.put(left.Endpoints)
		w.remotes["paris"].export(named("default", "taken"))
		w.wait(time.Minute)
		w.expect()

		var got []string
		var out bytes.Buffer
		for _, planned := range w.controller.Plans() {
			got = append(got, planned.Key.String())
			printPlan(&out, planned, "london")
		}
		if want := []string{"default/bar-paris", "default/left-paris", "default/taken-paris", "lonely/x-paris"}; !slices.Equal(got, want) {
			w.Errorf("got %q", got)
		}
		for _, line := range []string{
			"create Service default/bar-paris in london for remote paris\n", "create Endpoints default/bar-paris in london for remote paris\n", `+  - ip: "192.0.2.1"`,
			"delete Service default/left-paris in london for remote paris\n", "delete Endpoints default/left-paris in london for remote paris\n",
			"! mirror default/taken-paris in london for remote paris: Conflict: Service default/taken-paris already exists and is not managed by service-mirror",
			"create Namespace lonely in london for remote paris\n",
		} {
			if !strings.Contains(out.String(), line) {
				w.Errorf("%q is not printed:\n%s", line, &out)
			}
		}
		w.expect()
		if w.controller.Overview().Leader {
			w.Error("it leads")
		}
	})
}

func TestOverview(t *testing.T) {
	run(t, Options{}, []string{"paris", "berlin"}, func(w *world) {
		if page := w.controller.Overview(); page.Synced || len(page.Remotes) != 2 || len(page.Mirrors) != 0 {
			w.Errorf("before anything is known: %+v", page)
		}
		headless := named("default", "headless")
		headless.Spec.ClusterIP = corev1.ClusterIPNone
		foreign := mirrorOfBar().Service
		foreign.Name, foreign.Labels = "taken-paris", nil
		w.server.put(foreign)
		orphan, unknown := mirrorOfBar().Service, mirrorOfBar().Service
		orphan.Name, orphan.Labels[plan.ClusterLabel], orphan.Annotations[plan.MirrorAnnotation] = "old-rome", "rome", "default/old-rome"
		unknown.Name, unknown.Labels[plan.ClusterLabel], unknown.Annotations[plan.MirrorAnnotation] = "far-berlin", "berlin", "default/far-berlin"
		w.server.put(orphan)
		w.server.put(unknown)
		w.remotes["berlin"].unknown = true
		w.remotes["paris"].setGateway(gatewayAt("192.0.2.1", "192.0.2.2 dead"))
		for _, svc := range []*corev1.Service{exportedBar(), headless, named("lonely", "x"), named("default", "taken")} {
			w.remotes["paris"].export(svc)
		}
		w.settle()
		page := w.controller.Overview()
		got := map[string]string{}
		for _, m := range page.Mirrors {
			got[m.Name] = fmt.Sprint(m.State, " ", m.Cluster, " ", m.Source, " ", m.Endpoints)
		}
		for name, want := range map[string]string{
			"bar-paris":      "mirrored paris default/bar [192.0.2.1 192.0.2.2 (not ready)]",
			"headless-paris": "refused paris default/headless []",
			"x-paris":        "waiting paris lonely/x []",
			"taken-paris":    "conflict paris default/taken []",
			"old-rome":       "orphan rome default/bar []",
			"far-berlin":     "mirrored berlin default/bar []",
		} {
			if got[name] != want {
				w.Errorf("%s: got %q, want %q", name, got[name], want)
			}
		}
		if len(got) != 6 || !page.Synced || !page.Leader {
			w.Errorf("got %+v", page)
		}
	})
}

func TestEveryReasonHasAState(t *testing.T) {
	known := []plan.State{plan.StateMirrored, plan.StateIncomplete, plan.StateWaiting, plan.StateConflict, plan.StateRefused, plan.StateOrphan}
	remotes := []plan.Reason{remote.RemoteFailing, "RemoteRecovered", remote.RemoteTooLarge, remote.RemoteMisconfigured, remote.GatewayFailing, "GatewayRecovered"}
	for _, reason := range slices.Concat(plan.Reasons, plan.PublisherReasons, plan.FailoverReasons, remotes) {
		if !slices.Contains(known, reason.State()) {
			t.Errorf("%s: %q", reason, reason.State())
		}
	}
}

func TestMetrics(t *testing.T) {
	var w *world
	metrics := report.NewMetrics(report.Daemon, "v1", []string{"paris", "berlin"})
	metrics.Observe(func() status.Page { return w.controller.Overview() })
	run(t, Options{Metrics: metrics}, []string{"paris", "berlin"}, func(in *world) {
		w = in
		fetch := func(path string) (int, string) {
			recorder := httptest.NewRecorder()
			w.controller.Handler(w.controller.Overview, Listen{Profile: true}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "http://localhost:8080"+path, nil))
			return recorder.Code, recorder.Body.String()
		}
		_, before := fetch("/metrics")
		for _, line := range []string{
			`service_mirror_mirrors{remote="berlin",state="conflict"} 0`, `service_mirror_problems{reason="Headless",remote="paris"} 0`,
			`service_mirror_remote_up{remote="paris"} 1`, `service_mirror_writes_total{kind="Service",verb="create"} 0`,
			`service_mirror_leader 0`, `service_mirror_unknown_remote_objects 0`, `service_mirror_queue_depth 0`, `service_mirror_sync_errors_total 0`,
			`service_mirror_api_requests_total{code="200",remote="paris",verb="GET"} 0`, `service_mirror_build_info{component="daemon",go_version="`, `version="v1"`,
		} {
			if !strings.Contains(before, line) {
				w.Errorf("%s does not exist from the start:\n%s", line, before)
			}
		}
		if code, text := fetch("/readyz"); code != 503 || !strings.Contains(text, "not synced yet") {
			w.Errorf("readyz: %d %s", code, text)
		}
		w.remotes["paris"].export(exportedBar())
		headless := named("default", "headless")
		headless.Spec.ClusterIP = corev1.ClusterIPNone
		w.remotes["paris"].export(headless)
		w.settle()
		_, after := fetch("/metrics")
		for _, line := range []string{
			`service_mirror_mirrors{remote="paris",state="mirrored"} 1`, `service_mirror_mirrors{remote="paris",state="refused"} 1`,
			`service_mirror_problems{reason="Headless",remote="paris"} 1`, `service_mirror_writes_total{kind="Service",verb="create"} 1`,
			`service_mirror_writes_total{kind="Endpoints",verb="create"} 1`, `service_mirror_leader 1`,
		} {
			if !strings.Contains(after, line) {
				w.Errorf("%s is missing:\n%s", line, after)
			}
		}
		for _, path := range []string{"/readyz", "/healthz", "/", "/status.json", "/debug/pprof/"} {
			if code, text := fetch(path); code != 200 {
				w.Errorf("%s: %d %s", path, code, text)
			}
		}
		stalled := make(chan struct{})
		defer close(stalled)
		w.server.setRefuse(func(clienttesting.Action) error { // the first write of bar's sync does not end
			w.server.mu.Unlock()
			defer w.server.mu.Lock()
			<-stalled
			return errTest
		})
		changed := exportedBar()
		changed.Spec.Ports[0].Port++
		w.remotes["paris"].export(changed)
		w.wait(queue.MaxSync + time.Second)
		if code, text := fetch("/healthz"); code != 503 || !strings.Contains(text, "the sync of mirror default/bar-paris has been running") {
			w.Errorf("healthz: %d %s", code, text)
		}
	})
}

func TestPrune(t *testing.T) {
	for _, api := range []plan.EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		run(t, Options{Policy: Policy{EndpointsAPI: api}}, []string{"paris", "berlin"}, func(w *world) {
			w.remotes["paris"].export(exportedBar())
			w.remotes["berlin"].export(exportedBar())
			foreign := mirrorOfBar().Service
			foreign.Name, foreign.Labels = "foreign-paris", map[string]string{plan.ClusterLabel: "paris"}
			w.server.put(foreign)
			w.settle()
			w.stop()
			w.server.wrote()
			w.use(Options{}, "berlin") // paris is no longer configured
			w.settle()
			w.server.wrote()
			addresses := map[plan.EndpointsAPI]string{UseEndpoints: "Endpoints default/bar-paris", UseEndpointSlices: "EndpointSlice default/bar-paris-ipv4"}[api]
			const of = " in london of remote paris\n"
			listed := "Service default/bar-paris" + of + addresses + of + "2 objects" + of
			var out bytes.Buffer
			if err := write.Prune(w.Context(), w.server.client, "london", "paris", true, &out); err != nil || out.String() != listed {
				w.Errorf("got %q, %v", &out, err)
			}
			w.expect()
			out.Reset()
			if err := write.Prune(w.Context(), w.server.client, "london", "paris", false, &out); err != nil || out.String() != listed+"2 removed\n" {
				w.Errorf("got %q, %v", &out, err)
			}
			kind, name, _ := strings.Cut(strings.ToLower(addresses), " ")
			w.expect("delete services default/bar-paris", fmt.Sprintf("delete %s %s", map[string]string{"endpoints": "endpoints", "endpointslice": "endpointslices"}[kind], name))
			if w.server.service("default", "bar-berlin") == nil || w.server.service("default", "foreign-paris") == nil {
				w.Error("more than paris was pruned")
			}
		})
	}
}

// Nothing is pruned if a name is not known, and what has mirrors is listed.
func TestPruneOfSeveral(t *testing.T) {
	run(t, Options{}, []string{"paris", "berlin"}, func(w *world) {
		w.remotes["paris"].export(exportedBar())
		w.remotes["paris"].export(named("default", "more"))
		w.remotes["berlin"].export(exportedBar())
		w.settle()
		w.stop()
		w.server.wrote()
		prune := func(remotes ...string) ([]write.Pruned, error) {
			return write.Pruning{Client: w.server.client, Local: "london", Remotes: remotes}.Prune(w.Context(), io.Discard)
		}
		got, err := prune("paris", "pariss")
		if want := "pariss: no mirrors of this remote in london: there are mirrors of remotes berlin (1), paris (2)"; err == nil || err.Error() != want || got != nil {
			w.Errorf("got %v, %+v", err, got)
		}
		w.expect()
		got, err = prune("paris", "berlin")
		if err != nil || len(got) != 2 || got[0].Remote != "paris" || got[0].Removed != 4 || len(got[1].Objects) != 2 || got[1].Objects[0] != (write.PrunedObject{Kind: "Service", Namespace: "default", Name: "bar-berlin"}) {
			w.Errorf("got %+v, %v", got, err)
		}
		if _, err = prune("paris"); err == nil || !strings.HasSuffix(err.Error(), ": there are no mirrors at all") {
			w.Errorf("got %v", err)
		}
	})
}

// An operator looks up metrics and reasons, which are those of Events, in one page.
func TestOperationsPageHasEveryMetricAndReason(t *testing.T) {
	operations, err := os.ReadFile("../deploy/guides/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	metrics := report.NewMetrics(report.Daemon, "", []string{"paris"})
	metrics.Observe(func() status.Page {
		return status.Page{Remotes: []status.Remote{{Name: "paris", Gateways: []status.Gateway{{Name: "a/b"}}}}}
	})
	families, err := metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		name := family.GetName()
		if !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") && !regexp.MustCompile("`"+name+"[`{]").Match(operations) {
			t.Errorf("operations.md does not have the metric %s", name)
		}
	}
	remotes := []plan.Reason{remote.RemoteFailing, "RemoteRecovered", remote.RemoteTooLarge, remote.RemoteMisconfigured, remote.GatewayFailing, "GatewayRecovered"}
	for _, reason := range slices.Concat(plan.Reasons, plan.PublisherReasons, plan.FailoverReasons, remotes) {
		if !strings.Contains(string(operations), "`"+string(reason)+"`") {
			t.Errorf("operations.md does not have the reason %s", reason)
		}
	}
}

// The alerts and the dashboard use existing metrics only.
func TestMonitoringUsesMetricsThatExist(t *testing.T) {
	metrics := report.NewMetrics(report.Daemon, "", []string{"paris"})
	metrics.Observe(func() status.Page {
		return status.Page{Remotes: []status.Remote{{Name: "paris", Gateways: []status.Gateway{{Name: "a/b"}}}}}
	})
	families, err := metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, family := range families {
		known[family.GetName()], known[family.GetName()+"_bucket"] = true, true
	}
	for _, file := range []string{"alerts.yaml", "dashboard.json"} {
		text, err := os.ReadFile("../deploy/monitoring/" + file)
		if err != nil {
			t.Fatal(err)
		}
		names := regexp.MustCompile(`service_mirror_[a-z_]+`).FindAllString(string(text), -1)
		if len(names) < 5 {
			t.Errorf("%s uses %d metrics", file, len(names))
		}
		for _, name := range names {
			if !known[name] {
				t.Errorf("%s uses %s, which does not exist", file, name)
			}
		}
		if file == "dashboard.json" && !json.Valid(text) {
			t.Errorf("%s is not JSON", file)
		}
	}
}

// Of a gateway whose names were not resolved yet nothing is known: mirrors keep what they have, as the page says.
func TestGatewayIsShownAsKnown(t *testing.T) {
	for name, test := range map[string]struct {
		gw   *gateway.Gateway
		want bool
	}{
		"not read":          {nil, false},
		"without addresses": {gatewayAt(), true},
		"not resolved":      {&gateway.Gateway{Partial: true}, false},
		"its IPv4 address refused, IPv6 not resolved": {&gateway.Gateway{Partial: true, Missing: corev1.IPv6Protocol, Refused: true}, true},
		"one of its names not resolved":               {func() *gateway.Gateway { gw := gatewayAt("192.0.2.1"); gw.Partial = true; return gw }(), true},
	} {
		row := remoteRow(remote.Status{Gateways: []remote.GatewayStatus{{Name: "a/b", Gateway: test.gw}}})
		if got := row.Gateways[0].Known; got != test.want {
			t.Errorf("%s: known is %t", name, got)
		}
	}
}
