package report

import (
	"cmp"
	"context"
	"runtime"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	clientmetrics "k8s.io/client-go/tools/metrics"

	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Metrics counts what is done and, once it observes an overview, says what state everything is in. A nil one
// does nothing.
type Metrics struct {
	registry *prometheus.Registry

	syncs    prometheus.Histogram
	errors   prometheus.Counter
	depth    prometheus.Gauge
	latency  prometheus.Histogram
	requests *prometheus.CounterVec
	writes   *prometheus.CounterVec
}

func name(text string) string { return "service_mirror_" + text }

// Component is the program that metrics are of.
type Component string

// The values.
const (
	Daemon    Component = "daemon"
	Publisher Component = "publisher"
)

// NewMetrics makes the metrics of a program that knows these remotes.
func NewMetrics(of Component, version string, remotes []string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		syncs: prometheus.NewHistogram(prometheus.HistogramOpts{Name: name("sync_duration_seconds"),
			Help: "Duration of the syncs of mirrors, writes included.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}),
		errors: prometheus.NewCounter(prometheus.CounterOpts{Name: name("sync_errors_total"),
			Help: "Syncs of mirrors in which a write failed or was rejected."}),
		depth: prometheus.NewGauge(prometheus.GaugeOpts{Name: name("queue_depth"), Help: "Mirrors that are queued for a sync."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{Name: name("queue_latency_seconds"),
			Help: "Time that mirrors were queued before a sync.", Buckets: prometheus.ExponentialBuckets(0.0001, 4, 10)}),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("api_requests_total"),
			Help: "Requests to API servers, by remote cluster (empty: the local one), HTTP verb and status code."}, []string{"remote", "verb", "code"}),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name("writes_total"),
			Help: "Writes that changed an object in the local cluster, by kind and verb."}, []string{"kind", "verb"}),
	}
	for _, kind := range []string{"Service", "Endpoints", "EndpointSlice"} {
		for _, verb := range []string{"create", "update", "delete"} {
			m.writes.WithLabelValues(kind, verb)
		}
	}
	m.writes.WithLabelValues("Namespace", "create")
	m.requests.WithLabelValues("", "GET", "200")
	for _, cluster := range remotes {
		m.Begin(cluster)
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: name("build_info"), Help: "Always 1; the labels say which program runs, and which version of it.",
		ConstLabels: prometheus.Labels{"component": string(of), "version": version, "go_version": runtime.Version()}})
	build.Set(1)
	m.registry.MustRegister(m.syncs, m.errors, m.depth, m.latency, m.requests, m.writes, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Begin counts the requests to a remote from zero.
func (m *Metrics) Begin(cluster string) {
	if m != nil {
		m.requests.WithLabelValues(cluster, "GET", "200")
	}
}

// Forget drops what was counted of a remote that is no longer configured.
func (m *Metrics) Forget(cluster string) {
	if m != nil {
		m.requests.DeletePartialMatch(prometheus.Labels{"remote": cluster})
	}
}

// Observe has the states that an overview shows served, too.
func (m *Metrics) Observe(overview func() status.Page) {
	m.registry.MustRegister(newCollector(overview))
}

// Gatherer is what is served.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// CountRequests has the requests of all clients of this process counted. It is
// client-go's own hook, of which there is one.
func (m *Metrics) CountRequests() {
	clientmetrics.Register(clientmetrics.RegisterOpts{RequestResult: requestCounter{m.requests}})
}

type requestCounter struct{ requests *prometheus.CounterVec }

func (r requestCounter) Increment(ctx context.Context, code, method, _ string) {
	r.requests.WithLabelValues(remote.ClusterOf(ctx), method, code).Inc()
}

// Synced counts a sync, and what it found.
func (m *Metrics) Synced(took time.Duration, found []plan.Problem) {
	if m == nil {
		return
	}
	m.syncs.Observe(took.Seconds())
	if slices.ContainsFunc(found, func(p plan.Problem) bool { return p.Reason == plan.WriteFailed || p.Reason == plan.Rejected }) {
		m.errors.Inc()
	}
}

// Wrote counts a write that changed something.
func (m *Metrics) Wrote(kind, verb string) {
	if m != nil {
		m.writes.WithLabelValues(kind, verb).Inc()
	}
}

// Queued counts a key that is enqueued.
func (m *Metrics) Queued() {
	if m != nil {
		m.depth.Inc()
	}
}

// Taken counts a key that was taken from the queue.
func (m *Metrics) Taken(waited time.Duration) {
	if m != nil {
		m.depth.Dec()
		m.latency.Observe(waited.Seconds())
	}
}

// collector says what state everything is in at the moment of a scrape.
type collector struct {
	overview func() status.Page

	leader, local, mirrors, unknown, problems, up, failing, since, sync, event, addresses, verified, failover, failoverProblems *prometheus.Desc
}

func newCollector(overview func() status.Page) *collector {
	desc := func(text, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name(text), help, labels, nil)
	}
	return &collector{
		overview:         overview,
		leader:           desc("leader", "1 where this replica writes, else 0."),
		local:            desc("local_problems", "Parts of the local cluster that this replica cannot read now or, as the publisher, cannot write: the Gateway's listeners."),
		mirrors:          desc("mirrors", "Exported Services by the state of their mirrors, and mirrors without one, by remote cluster.", "remote", "state"),
		unknown:          desc("unknown_remote_objects", "Services, Endpoints and EndpointSlices with a mirror's labels that name a remote cluster which is not configured."),
		problems:         desc("problems", "Problems of mirrors, by remote cluster and reason; only the leader knows them.", "remote", "reason"),
		up:               desc("remote_up", "1 where the exports of a remote cluster are known and followed, of one namespace at least, else 0.", "remote"),
		failing:          desc("remote_problems", "Problems of a remote cluster (empty: of Secrets that name none), by the part that fails.", "remote", "part"),
		since:            desc("remote_state_since_timestamp_seconds", "When a remote cluster came up or went down; 0: never.", "remote"),
		sync:             desc("remote_last_sync_timestamp_seconds", "When the exports of a remote cluster, or of one of its namespaces, last became known; 0: never.", "remote"),
		event:            desc("remote_last_event_timestamp_seconds", "When a watch on a remote cluster last had an event, bookmarks included; 0: never.", "remote"),
		addresses:        desc("gateway_addresses", "Addresses of a gateway, by its Service and their health.", "remote", "gateway", "health"),
		failover:         desc("failover_services", "Local Services that fail over to remote clusters, by who serves them.", "state"),
		failoverProblems: desc("failover_problems", "Problems of local Services that fail over, by remote cluster (empty: of all of them) and reason; only the leader knows them.", "remote", "reason"),
		verified:         desc("verified", "Mirrors by what the last request to them came to, by remote cluster; only the leader sends any, with --verify.", "remote", "result"),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(to chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{c.leader, c.local, c.mirrors, c.unknown, c.problems, c.up, c.failing, c.since, c.sync, c.event, c.addresses, c.verified, c.failover, c.failoverProblems} {
		to <- desc
	}
}

var healths = []string{status.Ready, status.NotReady, status.Unprobed, status.NotProbed}

// Collect implements prometheus.Collector.
func (c *collector) Collect(to chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64, labels ...string) {
		to <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, labels...)
	}
	seconds := func(at time.Time) float64 {
		if at.IsZero() {
			return 0
		}
		return float64(at.UnixMilli()) / 1000
	}
	page := c.overview()
	var clusters []string
	for _, r := range page.Remotes {
		clusters = append(clusters, r.Name)
	}
	leader := 0.0
	if page.Leader {
		leader = 1
	}
	gauge(c.leader, leader)
	unread := slices.DeleteFunc(slices.Clone(page.Problems), status.Problem.IsMisnamed)
	gauge(c.local, float64(len(unread)))
	if n := len(page.Problems) - len(unread); n > 0 {
		gauge(c.failing, float64(n), "", remote.ConfigurationProblem)
	}
	gauge(c.unknown, float64(page.Unknown))

	type pair struct{ cluster, word string }
	mirrors, problems, verified := map[pair]int{}, map[pair]int{}, map[pair]int{}
	for _, cluster := range clusters {
		for _, state := range plan.States {
			mirrors[pair{cluster, string(state)}] = 0
		}
		for _, reason := range plan.Reasons {
			problems[pair{cluster, string(reason)}] = 0
		}
		for _, result := range verify.Results {
			verified[pair{cluster, string(result)}] = 0
		}
	}
	for _, mirror := range page.Mirrors {
		mirrors[pair{mirror.Cluster, mirror.State}]++
		if mirror.State != status.Orphan { // of any remote: none is verified
			verified[pair{mirror.Cluster, cmp.Or(mirror.Verified, status.NotVerified)}]++
		}
		for _, problem := range mirror.Problems {
			problems[pair{mirror.Cluster, problem.Reason}]++
		}
	}
	for key, n := range mirrors {
		gauge(c.mirrors, float64(n), key.cluster, key.word)
	}
	for key, n := range problems {
		gauge(c.problems, float64(n), key.cluster, key.word)
	}
	for key, n := range verified {
		gauge(c.verified, float64(n), key.cluster, key.word)
	}

	c.collectFailover(page, clusters, gauge)

	for _, r := range page.Remotes {
		cluster := r.Name
		up := 0.0
		if r.State == status.Up {
			up = 1
		}
		gauge(c.up, up, cluster)
		failing := map[string]int{}
		for _, problem := range r.Problems {
			failing[remote.Problem(problem).Kind()]++
		}
		for _, kind := range remote.Kinds {
			gauge(c.failing, float64(failing[kind]), cluster, kind)
		}
		gauge(c.since, seconds(r.Since), cluster)
		gauge(c.sync, seconds(r.LastSync), cluster)
		gauge(c.event, seconds(r.LastEvent), cluster)
		for _, gw := range r.Gateways {
			counts := map[string]int{}
			for _, address := range gw.Addresses {
				counts[address.Health]++
			}
			for _, health := range healths {
				gauge(c.addresses, float64(counts[health]), cluster, gw.Name, health)
			}
		}
	}
}

// collectFailover says how the Services that fail over are doing. Names of remotes that are not configured are an
// annotation's, of which there may be any number: they count as one.
func (c *collector) collectFailover(page status.Page, clusters []string, gauge func(desc *prometheus.Desc, value float64, labels ...string)) {
	states := map[string]int{}
	for _, state := range plan.FailoverStates {
		states[string(state)] = 0
	}
	type pair struct{ cluster, reason string }
	problems := map[pair]int{}
	for _, cluster := range append([]string{""}, clusters...) {
		for _, reason := range plan.FailoverReasons {
			problems[pair{cluster, string(reason)}] = 0
		}
	}
	for _, row := range page.Failover {
		states[row.State]++
		for _, problem := range row.Problems {
			cluster := problem.Remote
			if !slices.Contains(clusters, cluster) {
				cluster = ""
			}
			problems[pair{cluster, problem.Reason}]++
		}
	}
	for state, n := range states {
		gauge(c.failover, float64(n), state)
	}
	for of, n := range problems {
		gauge(c.failoverProblems, float64(n), of.cluster, of.reason)
	}
}
