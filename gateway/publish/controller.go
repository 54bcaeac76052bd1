package publish

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
)

// Options are the operator's decisions.
type Options struct {
	plan.Policy
	Selector string          // of exported Services
	Metrics  *report.Metrics // nil: nothing is counted
	Events   *report.Events  // nil: none are made
}

// workers is how many Services are synced in parallel.
const workers = 16

// Controller publishes the exported Services of a cluster.
type Controller struct {
	options  Options
	logger   klog.Logger
	clients  Clients
	caches   *caches
	queue    *queue.Queue
	keys     chan cache.ObjectName // from the queue to the workers of a replica that leads
	memory   *memory
	problems *report.Problems

	leading   atomic.Bool
	ready     chan struct{} // closed when the caches are filled
	syncing   sync.Map      // cache.ObjectName to time.Time: the syncs under way, by their start
	listening sync.Mutex    // held while the Gateway's listeners and ListenerSets are written
	listened  atomic.Int64  // how often any were
}

// New makes a controller.
func New(clients Clients, options Options, logger klog.Logger) *Controller {
	c := &Controller{options: options, logger: logger, clients: clients, queue: queue.New(options.Metrics), keys: make(chan cache.ObjectName),
		memory: newMemory(), ready: make(chan struct{})}
	c.caches = newCaches(options.Policy, options.Selector, clients, hooks{
		changed: c.queue.Add,
		all:     c.enqueueAll,
		report:  func(part string, err error) { c.problems.Local(part, err) },
	})
	c.problems = report.NewFor(report.Words{One: "Exported Service", Many: "Exported Services"}, logger, options.Events,
		func(key cache.ObjectName) *corev1.Service { return c.caches.services.Get(key) })
	if clients.Pin != nil {
		clients.Pin.OnChange(func(err error) { c.problems.Local("identity", err) })
	}
	return c
}

// slicesGrace is how long the first sync waits for the endpoints and for the kinds of routes: most often all come at
// once, and records need not be written twice. What may not be read holds nothing up for longer.
const slicesGrace = 5 * time.Second

// Run keeps the caches filled until the context ends. Only a replica that leads writes.
func (c *Controller) Run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	defer c.queue.ShutDown()
	running.Go(func() { c.problems.Run(ctx) })
	c.caches.run(ctx, &running)
	if !c.caches.synced(ctx) {
		return
	}
	c.settle(ctx, slicesGrace)
	c.logger.Info("Caches are filled", "exportedServices", len(c.caches.services.GetIndexer().ListKeys()))
	close(c.ready)
	running.Go(func() { c.feed(ctx) })
	<-ctx.Done()
}

// settle waits until all is known, but no longer than a while.
func (c *Controller) settle(ctx context.Context, grace time.Duration) {
	for deadline := time.Now().Add(grace); !c.caches.settled() && time.Now().Before(deadline); {
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// feed hands keys to the workers of a replica that leads.
func (c *Controller) feed(ctx context.Context) {
	for {
		key, shutdown := c.queue.Get()
		if shutdown {
			return
		}
		select {
		case c.keys <- key:
		case <-ctx.Done():
			return
		}
	}
}

// Ready is closed when the caches are filled.
func (c *Controller) Ready() <-chan struct{} { return c.ready }

// Lead writes, until the context ends. A write under way is then finished, for which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	records, ok := c.listRecords(ctx)
	if !ok {
		return
	}
	c.memory.fill(records)
	c.leading.Store(true)
	c.options.Events.Lead(true)
	defer func() { // what is known of exported Services goes with leadership
		c.options.Events.Lead(false)
		c.leading.Store(false)
		c.memory.clear()
		c.problems.Clear()
	}()
	c.enqueueAll()
	var running sync.WaitGroup
	defer running.Wait()
	for range workers {
		running.Go(func() { c.workUntil(ctx, working) })
	}
}

// listRecords lists the records from the server, until it answers; false if the context ends first. The cache of a
// standby may be behind: a port that the leader before gave must not be given again.
func (c *Controller) listRecords(ctx context.Context) (records []*corev1.ConfigMap, ok bool) {
	for {
		list, err := c.clients.Read.CoreV1().ConfigMaps(c.options.Records).List(ctx, metav1.ListOptions{LabelSelector: record.Label})
		if ctx.Err() != nil {
			return nil, false
		}
		c.problems.Local("records of the leader before", err)
		if err == nil {
			for i := range list.Items {
				records = append(records, &list.Items[i])
			}
			return records, true
		}
		select {
		case <-ctx.Done():
			return nil, false
		case <-time.After(listPeriod):
		}
	}
}

// listPeriod is how long until the records are listed again that could not be.
const listPeriod = time.Second

func (c *Controller) enqueueAll() {
	for _, key := range c.caches.keys() {
		c.queue.Add(key)
	}
	c.queue.Add(listenersKey)
}

// workUntil syncs keys until the context ends. A write under way is finished in working.
func (c *Controller) workUntil(ctx, working context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case key := <-c.keys:
			c.work(working, key)
		}
	}
}

// work syncs a key, reports what was found, and sees to it that the key is looked at again if need be.
func (c *Controller) work(ctx context.Context, key cache.ObjectName) {
	defer c.queue.Done(key)
	begin := time.Now()
	c.syncing.Store(key, begin)
	defer c.syncing.Delete(key)
	if key == listenersKey {
		c.syncListeners(ctx, true)
		return
	}
	before := c.listened.Load()
	p := c.decide(ctx, key)
	if c.syncListeners(ctx, false); c.listened.Load() != before {
		p = c.decide(ctx, key) // its ports have listeners now, whichever worker wrote them
	}
	result := c.apply(klog.NewContext(ctx, klog.LoggerWithValues(c.logger, "service", key)), p)
	problems := append(p.Problems, result.problems...)
	c.options.Metrics.Synced(time.Since(begin), problems)
	c.problems.Set(key, problems, result.stale)
	if result.retry {
		c.queue.AddRateLimited(key)
		return
	}
	c.queue.Forget(key)
	after := p.After
	if next := c.memory.next(key, time.Now()); next > 0 && (after == 0 || next < after) {
		after = next
	}
	if svc := c.caches.services.Get(key); svc != nil && len(svc.Spec.Selector) == 0 && (after == 0 || after > byHandPeriod) {
		after = byHandPeriod
	}
	if after > 0 {
		c.queue.AddAfter(key, after)
	}
}

// byHandPeriod is how often the EndpointSlices of a Service without a selector are listed: those are in no cache.
const byHandPeriod = 30 * time.Second

// maxSync is how long one sync may take before the controller counts as stuck.
const maxSync = 5 * time.Minute

// Stuck names a Service whose sync does not end. An API server that is down is no such thing: its requests fail in
// time.
func (c *Controller) Stuck() error {
	var stuck error
	c.syncing.Range(func(key, begin any) bool {
		if took := time.Since(begin.(time.Time)); took > maxSync {
			stuck = fmt.Errorf("the sync of exported Service %v has not ended for %v", key, took.Round(time.Second))
		}
		return stuck == nil
	})
	return stuck
}

// Overview is the state of all exported Services, for the metrics and the page. Only a replica that leads knows what
// is wrong with them.
func (c *Controller) Overview() status.Page {
	page := status.Page{Leader: c.leading.Load(), Now: time.Now(), Problems: c.problems.OfLocal()}
	select {
	case <-c.ready:
		page.Synced = true
	default:
	}
	for _, key := range (remoteServices{c.caches.services}).names() {
		page.Mirrors = append(page.Mirrors, c.overviewOf(key))
	}
	return page
}

func (c *Controller) overviewOf(key cache.ObjectName) status.Mirror {
	mirror := status.Mirror{Namespace: key.Namespace, Name: key.Name, Source: key.String(), State: status.Waiting}
	if c.leading.Load() {
		mirror.State = status.Mirrored
	}
	for _, problem := range c.problems.Of(key) {
		mirror.Problems = append(mirror.Problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		mirror.State = worse(mirror.State, problem.Reason)
	}
	return mirror
}
