package e2e

import (
	"fmt"
	"maps"
	"net"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// expectedSeries are all series of a daemon with these remotes, each of which has
// one gateway, but for the requests that it has made.
func expectedSeries(remotes ...*remote) []string {
	all := []string{"leader", "local_problems", "unknown_remote_objects", "sync_errors_total", "queue_depth",
		"sync_duration_seconds_sum", "sync_duration_seconds_count", "queue_latency_seconds_sum", "queue_latency_seconds_count",
		`writes_total{kind="Namespace",verb="create"}`}
	for _, kind := range []string{"Service", "Endpoints", "EndpointSlice"} {
		for _, verb := range []string{"create", "update", "delete"} {
			all = append(all, fmt.Sprintf("writes_total{kind=%q,verb=%q}", kind, verb))
		}
	}
	for _, state := range []string{"local", "failed over", "both", "unavailable", "refused", "unknown"} {
		all = append(all, fmt.Sprintf("failover_services{state=%q}", state))
	}
	failsOver := []string{""} // what is about no remote
	for _, r := range remotes {
		failsOver = append(failsOver, r.name)
	}
	for _, remote := range failsOver {
		for _, reason := range []string{
			"IsMirror", "SystemService", "ExternalName", "Headless", "NoTCPPort", "NoClusterName", "Rejected", "Conflict", "PortNotServed", "NoAddress",
			"NoReadyEndpoint", "NotRouted", "Overwritten", "WriteFailed", "LocalTraffic", "NoRemote", "UnknownRemote", "NotExported", "NoHealthyAddress", "NoHealthyRemote",
		} {
			all = append(all, fmt.Sprintf("failover_problems{reason=%q,remote=%q}", reason, remote))
		}
	}
	for _, r := range remotes {
		for _, state := range []string{"mirrored", "incomplete", "waiting", "conflict", "refused", "orphan"} {
			all = append(all, r.state(state))
		}
		for _, reason := range []string{
			"IsMirror", "SystemService", "ExternalName", "Headless", "NoTCPPort", "InvalidName", "NoClusterName", "Rejected",
			"NamespaceMissing", "NamespaceTerminating", "Conflict", "PortNotServed", "PortConflict", "NoAddress", "NoReadyEndpoint", "NotRouted", "NoEndpointSlices", "Renaming", "ClusterIPLost",
			"AnnotationsRemoved", "TooManyDeletes", "Overwritten", "WriteFailed", "NotReached",
		} {
			all = append(all, r.problem(reason))
		}
		for _, name := range []string{"up", "state_since_timestamp_seconds", "last_sync_timestamp_seconds", "last_event_timestamp_seconds"} {
			all = append(all, fmt.Sprintf("remote_%s{remote=%q}", name, r.name))
		}
		for _, part := range []string{"configuration", "kubeconfig", "identity", "exports", "gateway"} {
			all = append(all, r.failing(part))
		}
		for _, result := range []string{
			"reached", "not routed", "unavailable", "refused", "timed out", "certificate", "closed", "failed", "not known", "no endpoint", "not verified",
		} {
			all = append(all, fmt.Sprintf("verified{remote=%q,result=%q}", r.name, result))
		}
		for _, health := range []string{"ready", "not ready", "not probed yet", "not probed"} {
			all = append(all, r.gatewayAddresses(health))
		}
	}
	return all
}

// hasSeries checks that all expected series exist and, of the daemon's own except requests
// and buckets, no others.
func (d *daemon) hasSeries(remotes ...*remote) error {
	all, err := d.metrics()
	if err != nil {
		return err
	}
	want := slices.Sorted(slices.Values(expectedSeries(remotes...)))
	own := regexp.MustCompile(`^(api_requests_total|build_info|\w+_bucket)\b`)
	got := slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(series string) bool {
		// The mirrors that other tests have left are orphans to this daemon.
		return own.MatchString(series) || strings.HasSuffix(series, `state="orphan"}`) && !slices.Contains(want, series)
	})
	var missing, more []string
	for _, series := range want {
		if !slices.Contains(got, series) {
			missing = append(missing, series)
		}
	}
	for _, series := range got {
		if !slices.Contains(want, series) {
			more = append(more, series)
		}
	}
	if len(missing)+len(more) > 0 {
		return fmt.Errorf("series that are missing: %q, and that are too many: %q", missing, more)
	}
	return nil
}

// Every series exists before anything is known; later only those of requests are added.
func TestSeriesExistFromTheStart(t *testing.T) {
	e := newEnv(t)
	good, lost, missing := e.remote(paris), e.remote(berlin), e.remoteNamed(paris, "missing-"+e.id)
	good.gateway("203.0.113.1")
	lost.gateway("203.0.113.2")
	lost.proxy.cut()
	e.must(os.Remove(missing.kubeconfig))
	all := []*remote{good, lost, missing}
	toLondon := newProxy(t, london)
	toLondon.cut()
	direct := e.kubeconfig
	e.kubeconfig += ".proxied"
	e.writeKubeconfig(e.kubeconfig, "https://"+toLondon.address, toLondon.ca, e.tokenOf(direct))
	d := e.daemon(all, listening...)
	e.must(d.hasSeries(all...)) // at the very first request
	e.stays("the local API server is unreachable", d.answers("/healthz", 200), d.answers("/readyz", 503),
		func() error { return d.hasSeries(all...) }, d.measures(map[string]float64{"leader": 0}))
	if code, body, err := d.get("/readyz"); err != nil || code != 503 || !strings.Contains(body, "local") {
		t.Errorf("/readyz answers %d %q %v, want the reason", code, body, err)
	}
	toLondon.heal()
	// Ready with one remote of three.
	e.soon("it is ready", d.answers("/readyz", 200), d.measures(map[string]float64{"leader": 1, good.up(): 1, lost.up(): 0, missing.up(): 0}))

	// Now everything changes.
	good.export("bar")
	good.export(strings.Repeat("x", 61))
	good.export("headless", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	good.export("udp", func(svc *corev1.Service) { svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP })
	e.foreignService(good.mirror("theirs"))
	good.export("theirs")
	e.soon("the mirror", good.mirrored("bar", "203.0.113.1"))
	e.soon("what is wrong", d.measures(map[string]float64{
		good.state("mirrored"): 1, good.state("refused"): 3, good.state("conflict"): 1, good.state("waiting"): 0,
		good.problem("InvalidName"): 1, good.problem("Headless"): 1, good.problem("NoTCPPort"): 1, good.problem("Conflict"): 1,
	}))
	lost.proxy.heal()
	lost.export("bar")
	e.soon("another remote", lost.mirrored("bar", "203.0.113.2"))
	lost.proxy.cut()
	e.soon("it is lost", d.measures(map[string]float64{lost.up(): 0, lost.state("mirrored"): 1}))
	e.must(d.hasSeries(all...))

	// The local API server is unreachable again: the caches are synced, so the daemon stays
	// ready and need not be restarted.
	toLondon.cut()
	e.stays("the local API server is unreachable", d.answers("/healthz", 200), d.answers("/readyz", 200))
	toLondon.heal()
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.soon("it is followed again", good.mirrored("bar", "203.0.113.1"))
	e.must(d.hasSeries(all...))
}

// tokenOf is the token that is in a kubeconfig of the test's own.
func (e *env) tokenOf(kubeconfig string) string {
	e.Helper()
	text, err := os.ReadFile(kubeconfig)
	e.must(err)
	found := regexp.MustCompile(`token: (\S+)`).FindSubmatch(text)
	if found == nil {
		e.Fatalf("no token in %s", text)
	}
	return string(found[1])
}

func TestMetricsCount(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	start := time.Now()
	d := e.daemon([]*remote{r}, listening...)
	e.soon("it runs", d.measures(map[string]float64{"leader": 1, r.up(): 1}))
	before, err := d.metrics()
	e.must(err)
	since := london.mark(t)
	const n = 5
	for i := range n {
		r.export(fmt.Sprintf("bar%d", i))
	}
	for i := range n {
		e.soon("the mirrors", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.1"))
	}
	e.change(paris, "bar0", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	r.gateway("203.0.113.2")
	for i := range n {
		e.soon("the mirrors", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.2"))
	}
	e.remove(paris, "bar0")
	e.soon("one less", r.gone("bar0"))
	want := map[string]float64{
		`writes_total{kind="Service",verb="create"}`: n, `writes_total{kind="Endpoints",verb="create"}`: n,
		`writes_total{kind="Service",verb="update"}`: 1, `writes_total{kind="Endpoints",verb="update"}`: n,
		`writes_total{kind="Service",verb="delete"}`:       1, // Kubernetes may be quicker with the Endpoints
		`writes_total{kind="EndpointSlice",verb="create"}`: 0, `writes_total{kind="EndpointSlice",verb="update"}`: 0,
		`writes_total{kind="Namespace",verb="create"}`: 0,
		r.state("mirrored"):                            n - 1, "sync_errors_total": 0, "queue_depth": 0,
	}
	e.soon("what was written is counted", d.measures(want))
	all, err := d.metrics()
	e.must(err)
	// The same as the API server has counted.
	requests := map[string]float64{}
	for _, w := range london.writes(t, e.id, since) {
		verb := map[string]string{"create": "POST", "update": "PUT", "delete": "DELETE"}[w.Verb]
		requests[fmt.Sprintf(`api_requests_total{code="%d",remote="",verb=%q}`, w.ResponseStatus.Code, verb)]++
	}
	for series, n := range requests {
		if got := all[series] - before[series]; got != n {
			t.Errorf("%s is %v more, want %v", series, got, n)
		}
	}
	if len(requests) < 3 {
		t.Errorf("the audit log has %v", requests)
	}
	if series := fmt.Sprintf(`api_requests_total{code="200",remote=%q,verb="GET"}`, r.name); all[series] < 3 {
		t.Errorf("%s is %v, want the identity and two watches at least", series, all[series])
	}
	for _, name := range []string{"state_since", "last_sync", "last_event"} {
		series := fmt.Sprintf("remote_%s_timestamp_seconds{remote=%q}", name, r.name)
		if at := all[series]; at < float64(start.Unix()) || at > float64(time.Now().Unix()+1) {
			t.Errorf("%s is %v, which is not between %d and now", series, at, start.Unix())
		}
	}
	if all["sync_duration_seconds_count"] < 2*n || all["queue_latency_seconds_count"] < 2*n || all["sync_duration_seconds_sum"] <= 0 {
		t.Errorf("%v syncs took %v s", all["sync_duration_seconds_count"], all["sync_duration_seconds_sum"])
	}
	code, text, err := d.get("/metrics")
	if err != nil || code != 200 || !regexp.MustCompile(`service_mirror_build_info\{component="daemon",go_version="go1[^"]+",version="[^"]+"\} 1\n`).MatchString(text) {
		t.Errorf("no build info in %d %v:\n%s", code, err, text)
	}
	// Failed requests are counted by their code.
	r.proxy.cut()
	e.soon("failed requests", func() error {
		all, err := d.metrics()
		if series := fmt.Sprintf(`api_requests_total{code="<error>",remote=%q,verb="GET"}`, r.name); err == nil && all[series] == 0 {
			err = fmt.Errorf("%s is 0", series)
		}
		return err
	})
}

func TestGatewayHealthIsMeasured(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	doors := e.openDoors(address, 8080)
	r.gateway(address)
	r.export("bar")
	d := e.daemon([]*remote{r}, append(probing("tcp"), listening...)...)
	ready := d.measures(map[string]float64{r.gatewayAddresses("ready"): 1, r.gatewayAddresses("not ready"): 0})
	unhealthy := d.measures(map[string]float64{r.gatewayAddresses("ready"): 0, r.gatewayAddresses("not ready"): 1})
	e.soon("it is healthy", r.mirrored("bar", address), ready)
	doors.close()
	e.soon("it is unhealthy", unhealthy, d.measures(map[string]float64{r.state("mirrored"): 1, r.up(): 1}))
	doors.open()
	e.soon("it is healthy again", ready)
}

// A request for any other path has no effect.
func TestServesNothingElse(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("it is ready", d.answers("/readyz", 200), d.answers("/", 200), d.answers("/status.json", 200))
	for _, path := range []string{"/nowhere", "/debug/pprof/", "/debug/pprof/profile"} {
		e.must(d.answers(path, 404)())
	}
	other := e.daemon([]*remote{r}, "--listen", "127.0.0.1:0", "--pprof")
	e.must(other.answers("/debug/pprof/", 200)())
	// A port that is taken ends the program, and says which.
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	e.must(err)
	defer taken.Close()
	third := e.daemon([]*remote{r}, "--listen", taken.Addr().String())
	if code := third.exitCode(); code != 1 || third.logged("--listen", taken.Addr().String(), "in use") != 1 {
		t.Errorf("with a port that is taken: exit code %d and log\n%s", code, third.log)
	}
}
