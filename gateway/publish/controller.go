package publish

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
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
const workers = 32

// Controller publishes the exported Services of a cluster.
type Controller struct {
	options  Options
	logger   klog.Logger
	clients  Clients
	caches   *caches
	queue    *queue.Queue
	workers  *queue.Workers
	memory   *memory
	problems *report.Problems

	listening *turn        // to write the Gateway's listeners and ListenerSets
	listened  atomic.Int64 // how often any were
}

// New makes a controller.
func New(clients Clients, options Options, logger klog.Logger) *Controller {
	c := &Controller{options: options, logger: logger, clients: clients, queue: queue.New(options.Metrics), memory: newMemory(), listening: newTurn()}
	c.workers = queue.NewWorkers(c.queue, queue.Config{Number: workers, What: "exported Service", Sync: c.work})
	c.caches = newCaches(options.Policy, options.Selector, clients, hooks{
		changed: c.queue.Add,
		all:     c.enqueueAll,
		report:  func(part string, err error) { c.problems.Local(part, err) },
	})
	c.problems = report.NewFor(report.Words{One: "Exported Service", Many: "Exported Services"}, logger, options.Events,
		func(key cache.ObjectName) *corev1.Service { return c.caches.services.Get(key) })
	if clients.Pin != nil {
		clients.Pin.OnChange(func(err error) { c.problems.Local(report.Identity, err) })
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
	c.logger.Info("Caches are synced", "exportedServices", len(c.caches.services.GetIndexer().ListKeys()))
	c.workers.Open()
	running.Go(func() { c.workers.Feed(ctx) })
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

// Ready is closed when the caches are filled.
func (c *Controller) Ready() <-chan struct{} { return c.workers.Ready() }

// Lead writes, until the context ends. A write under way is then finished, for which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	records, ok := c.listRecords(ctx)
	if !ok {
		return
	}
	c.memory.fill(records)
	c.options.Events.Lead(true)
	var running sync.WaitGroup
	c.takeOver(ctx, running.Go)
	c.workers.Lead(ctx, grace, c.enqueueAll, func() { // what is known of exported Services goes with leadership
		running.Wait()
		c.options.Events.Lead(false)
		c.memory.clear()
		c.problems.Clear()
		c.problems.Local(listenersPart, nil)
		for _, of := range routedKinds {
			c.problems.Local(formerRoutes(of), nil)
		}
	})
}

// listRecords lists the records from the server, until it answers; false if the context ends first. The cache of a
// standby may be behind: a port that the leader before gave must not be given again.
func (c *Controller) listRecords(ctx context.Context) (records []*corev1.ConfigMap, ok bool) {
	for {
		list, err := c.clients.Read.CoreV1().ConfigMaps(c.options.Records).List(ctx, metav1.ListOptions{LabelSelector: record.Label})
		if ctx.Err() != nil {
			c.problems.Local(formerRecords, nil) // the next leader's
			return nil, false
		}
		c.problems.Local(formerRecords, err)
		if err == nil {
			for i := range list.Items {
				records = append(records, &list.Items[i])
			}
			return records, true
		}
		select {
		case <-ctx.Done():
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

// work syncs a key and reports what was found. It returns when the key is synced again.
func (c *Controller) work(ctx context.Context, key cache.ObjectName) queue.Next {
	if key == listenersKey {
		return c.syncListeners(ctx, true)
	}
	begin, before := time.Now(), c.listened.Load()
	p := c.decide(ctx, key)
	if len(p.Allocations) > 0 { // another needs no listener
		if c.syncListenersFor(ctx); c.listened.Load() != before {
			p = c.decide(ctx, key) // its ports have listeners now, whichever worker wrote them
		}
	}
	result := c.apply(klog.NewContext(ctx, klog.LoggerWithValues(c.logger, "service", key)), p)
	problems := append(p.Problems, result.problems...)
	c.options.Metrics.Synced(time.Since(begin), problems)
	c.problems.Set(key, problems, result.stale)
	after := queue.Sooner(p.After, c.memory.next(key, time.Now()))
	if svc := c.caches.services.Get(key); svc != nil && len(svc.Spec.Selector) == 0 {
		after = queue.Sooner(after, byHandPeriod)
	}
	return queue.Next{Retry: result.retry, After: after}
}

// byHandPeriod is how often the EndpointSlices of a Service without a selector are listed: those are in no cache.
const byHandPeriod = 30 * time.Second

// Stuck names a Service whose sync does not end.
func (c *Controller) Stuck() error { return c.workers.Stuck() }

// Overview is the state of all exported Services, for the metrics. Only a replica that leads knows what
// is wrong with them.
func (c *Controller) Overview() status.Page {
	page := status.Page{Leader: c.workers.Leading(), Now: time.Now(), Problems: c.problems.OfLocal()}
	page.Synced = c.workers.IsReady()
	for _, key := range (remoteServices{c.caches.services}).names() {
		page.Mirrors = append(page.Mirrors, c.overviewOf(key))
	}
	return page
}

func (c *Controller) overviewOf(key cache.ObjectName) status.Mirror {
	state, problems := c.stateOf(key)
	return status.Mirror{Namespace: key.Namespace, Name: key.Name, Source: key.String(), State: shown(state), Problems: problems}
}

// shown is the word for a state: what is routed to is not mirrored here.
func shown(state mirrors.State) string {
	if state == mirrors.StateMirrored {
		return status.Published
	}
	return string(state)
}

// stateOf is the state of an exported Service, and what is wrong with it.
func (c *Controller) stateOf(key cache.ObjectName) (state mirrors.State, problems []status.MirrorProblem) {
	state = mirrors.StateWaiting
	if c.workers.Leading() {
		state = mirrors.StateMirrored
	}
	for _, problem := range c.problems.Of(key) {
		problems = append(problems, status.MirrorProblem{Reason: string(problem.Reason), Message: problem.Message})
		state = state.Worse(problem.Reason.State())
	}
	return state, problems
}
