// Package failover has remotes serve the local cluster's own Services while those have no ready endpoint.
//
// The owner of a Service labels it and lists remotes in an annotation. Beside the EndpointSlices that Kubernetes makes,
// one is kept for each of these remotes and each IP family, with the addresses of the remote's gateway. Nothing else
// is written. Which endpoints of these slices are ready is decided by plan.FailoverPolicy.
//
// controller.go turns what happens into keys, sync.go takes a snapshot of everything that is known of one and applies the
// plan, memory.go has what a replica that leads remembers, watches.go the EndpointSlices of these Services and of no
// others, and view.go what the status page shows.
package failover

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

// Options are what a Controller needs.
type Options struct {
	Policy  func() plan.FailoverPolicy
	Client  remote.Client // reads
	Local   *local.Cluster
	Writer  *write.Writer
	Metrics queue.Metrics // of the queue
	Events  *report.Events
	Logger  klog.Logger
	// Remote is what is known of a remote for a Service that fails over to it.
	Remote func(cluster string, key cache.ObjectName) plan.FailoverRemote
	// Report is called with the state of a part of the caches; nil is healthy.
	Report func(part string, err error)
}

// workers is how many Services are synced in parallel: what is written is small, and waits for the API server alone.
const workers = 8

// Controller keeps the slices of the Services that fail over.
type Controller struct {
	options  Options
	queue    *queue.Queue
	workers  *queue.Workers
	watches  *watches
	memory   memory
	problems *report.Problems
}

// New makes a controller.
func New(options Options) *Controller {
	c := &Controller{options: options, queue: queue.New(options.Metrics)}
	c.workers = queue.NewWorkers(c.queue, queue.Config{Number: workers, What: "failover of Service", Sync: c.work})
	c.watches = newWatches(options, c.queue.Add)
	c.problems = report.NewFor(report.Words{One: "Service with failover", Many: "Services with failover"}, options.Logger, options.Events, func(key cache.ObjectName) *corev1.Service {
		return options.Local.FailoverService(key)
	})
	return c
}

// Changed is called when a Service that fails over has changed, or a slice of ours beside one.
func (c *Controller) Changed(key cache.ObjectName) {
	c.watches.changed()
	c.queue.Add(key)
}

// ExportChanged is called when a remote exports a Service, no longer does, or exports it differently, or when what its
// publisher says of it has changed, with the names that are, or were, routed to it: its own, and aliases.
func (c *Controller) ExportChanged(cluster string, names ...cache.ObjectName) {
	for _, key := range names {
		if c.options.Local.FailoverService(key) != nil {
			c.queue.AddFor(cluster, key)
		}
	}
}

// Resync is called when anything else of a remote has changed.
func (c *Controller) Resync(cluster string) {
	for _, key := range c.options.Local.FailoverKeys(cluster) {
		c.queue.AddFor(cluster, key)
	}
}

// ResyncAll is called when it has become known which remotes there are.
func (c *Controller) ResyncAll() {
	for _, key := range c.keys() {
		c.queue.Add(key)
	}
}

// Open says that the local caches are filled. It is called once.
func (c *Controller) Open() {
	c.workers.Open()
	c.watches.changed()
}

// Run keeps the caches filled until the context ends. Only a replica that leads writes.
func (c *Controller) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.queue.ShutDown()
	wg.Go(func() { c.problems.Run(ctx) })
	select {
	case <-ctx.Done():
		return
	case <-c.workers.Ready():
	}
	wg.Go(func() { c.watches.run(ctx) })
	wg.Go(func() { c.workers.Feed(ctx) })
	<-ctx.Done()
}

// Lead writes, until the context ends. A write under way is then finished, for which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	c.workers.Lead(ctx, grace, c.ResyncAll, func() {
		c.memory.clear()
		c.problems.Clear()
	})
}

// Stuck names a Service whose sync does not end.
func (c *Controller) Stuck() error { return c.workers.Stuck() }

// keys are those of all Services that fail over, or did and have slices of ours left.
func (c *Controller) keys() []cache.ObjectName {
	return sets.New(append(c.options.Local.FailoverKeys(""), c.options.Local.FailoverSliceKeys()...)...).UnsortedList()
}
