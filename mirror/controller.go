package mirror

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

// Options are the operator's decisions.
type Options struct {
	plan.Policy
	Workers    int             // keys synced in parallel
	MaxDeletes int             // of one remote's mirrors within a minute; 0: no limit
	Metrics    *report.Metrics // nil: nothing is counted
	Events     *report.Events  // nil: none are made
	Verify     verify.Options
	Domain     string // DNS domain of the local cluster: clients' names are under it
}

// Controller mirrors the exported Services of remote clusters.
type Controller struct {
	options  Options
	logger   klog.Logger
	local    *local.Cluster
	remotes  remotes
	queue    *queue.Queue
	keys     chan cache.ObjectName // from the queue to the workers of a replica that leads
	memory   *memory
	writer   *write.Writer
	problems *report.Problems
	verified verifications
	state    state
}

// state is what the controller is doing.
type state struct {
	leading atomic.Bool
	ready   chan struct{} // closed when the local caches are filled
	syncing sync.Map      // cache.ObjectName to time.Time: the syncs under way, by their start
}

// New makes a controller. Its remotes are added before it runs.
func New(clients Clients, options Options, logger klog.Logger) *Controller {
	c := &Controller{
		options: options, logger: logger, queue: queue.New(options.Metrics), keys: make(chan cache.ObjectName),
		memory: newMemory(options.MaxDeletes), verified: verifications{check: options.Verify.Check}, state: state{ready: make(chan struct{})},
	}
	c.local = local.New(local.Options{Client: clients.Read, Metadata: clients.Metadata, Logger: logger, Hooks: local.Hooks{
		Changed:          c.queue.AddFor,
		Wanted:           c.remotes.want,
		Configured:       c.remotes.has,
		NamespaceChanged: c.namespaceChanged,
		RangesChanged:    c.remotes.refilter,
		Interrupted: func(key cache.ObjectName) {
			if c.state.leading.Load() {
				c.memory.interrupted(key)
			}
		},
		Report: func(part string, err error) { c.problems.Local(part, err) },
	}})
	c.writer = write.New(clients.Write, clients.Metadata, c.local, options.Metrics.Wrote)
	c.problems = report.New(logger, options.Events, func(key cache.ObjectName) *corev1.Service { return c.local.Live(key).Service })
	if clients.Pin != nil {
		clients.Pin.OnChange(func(err error) { c.problems.Local("identity", err) })
	}
	return c
}

// Add adds a remote cluster; no two may have the same name.
func (c *Controller) Add(r Remote) { c.remotes.add(r) }

// Hooks is what a remote of this name must be given.
func (c *Controller) Hooks(cluster string) remote.Hooks {
	return remote.Hooks{
		Indexes:       indexes,
		Trim:          c.options.TrimExported,
		Changed:       c.exportChanged,
		RecordChanged: c.recordChanged,
		Resync:        c.resync,
		Accept:        c.accept,
		Mirrored:      c.mirrored,
		OnProblem:     c.options.Events.Remote,
	}
}

// Run keeps the caches filled until the context ends. Only a replica that leads writes.
func (c *Controller) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.queue.ShutDown()
	wg.Go(func() { c.problems.Run(ctx) })
	c.local.Run(ctx, func() {
		c.logger.Info("Local caches are filled", "services", c.local.Services())
		logged := sets.New[string]()
		c.logUnknown(logged)
		close(c.state.ready)
		wg.Go(func() {
			wait.UntilWithContext(ctx, func(context.Context) { c.logUnknown(logged) }, unknownPeriod)
		})
		wg.Go(func() { c.feed(ctx) })
		wg.Go(func() {
			wait.UntilWithContext(ctx, func(context.Context) {
				if !c.state.leading.Load() {
					c.sweep()
				}
			}, sweepPeriod)
		})
	})
}

// sweepPeriod is how often a standby drops what it need not remember of mirrors that are gone.
const sweepPeriod = 10 * time.Minute

// sweep drops the tombstones that a sync would drop.
func (c *Controller) sweep() {
	c.local.SweepTombstones(func(key cache.ObjectName) bool { return !c.options.Decide(c.observe(key)).DropTombstone })
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

// Ready is closed when the local caches are filled.
func (c *Controller) Ready() <-chan struct{} { return c.state.ready }

// Lead writes, until the context ends. A write under way is then finished, for which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	c.state.leading.Store(true)
	c.options.Events.Lead(true)
	defer func() { // what is known of mirrors goes with leadership
		c.options.Events.Lead(false)
		c.state.leading.Store(false)
		c.memory.clear()
		c.problems.Clear()
		c.verified.clear()
	}()
	c.sweep()
	for _, r := range c.remotes.list {
		for _, problem := range r.Status().Problems { // from before
			c.options.Events.Remote(r.Name(), problem)
		}
		c.resync(r.Name()) // what was known of mirrors when this replica last led is forgotten
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if c.options.Verify.Period > 0 {
		wg.Go(func() { c.keepVerifying(ctx) })
	}
	for range c.options.Workers {
		wg.Go(func() { c.workUntil(ctx, working) })
	}
}

// unknownPeriod is how often the objects that name an unknown remote are counted for the log.
const unknownPeriod = time.Minute

// logUnknown says of which remotes objects exist that the flags do not name: all at first, then each that is new.
// Whoever may label objects may invent any number of them.
func (c *Controller) logUnknown(logged sets.Set[string]) {
	const most = 10
	unknown := c.local.Unknown()
	for cluster := range logged {
		if unknown[cluster] == 0 {
			logged.Delete(cluster)
		}
	}
	fresh := slices.Sorted(maps.Keys(unknown))
	fresh = slices.DeleteFunc(fresh, logged.Has)
	logged.Insert(fresh...)
	for _, cluster := range fresh[:min(most, len(fresh))] {
		c.logger.Info("The flags do not name this remote, so its mirrors stay until they are pruned", "cluster", cluster, "mirrors", len(c.local.Mirrors(cluster)), "objects", unknown[cluster])
	}
	if more := len(fresh) - most; more > 0 {
		c.logger.Info("Objects name more remotes that the flags do not name, and stay", "remotes", more)
	}
}

// Ranges are the local cluster's own addresses, as far as they are known.
func (c *Controller) Ranges() []gateway.Range { return c.local.Ranges() }

// How a remote's cache is indexed.
const (
	byNamespace = "namespace" // exported Services, by their namespace
	byClaim     = "claim"     // exported Services, by the gateway ports that they claim
)

// indexes are those over a remote's exported Services.
var indexes = map[string]func(*corev1.Service) []string{
	byNamespace: func(svc *corev1.Service) []string { return []string{svc.Namespace} },
	byClaim:     gateway.Claims,
}

// exportChanged enqueues the mirror of an exported Service, and those of Services that claim a gateway port
// which it had, or has now: they may get it, or must yield it.
func (c *Controller) exportChanged(cluster string, before, after *corev1.Service) {
	self := cache.MetaObjectToName(cmp.Or(after, before))
	c.queue.AddFor(cluster, plan.KeyOf(cluster, self))
	had, has := claimsOf(before), claimsOf(after)
	view, ok := c.remotes.get(cluster).View()
	if !ok {
		return
	}
	if another(before, after) { // by the same record it may have a gateway port now, or no more
		alone := view.ClaimedAlone(self)
		had, has = had.Union(sets.New(alone...)), has.Union(sets.New(alone...))
	} else {
		had, has = had.Difference(has), has.Difference(had)
	}
	c.rivals(cluster, view, self, had, has)
}

// another tells whether an exported Service came or went, or is not the one from before.
func another(before, after *corev1.Service) bool {
	return before == nil || after == nil || before.UID != after.UID || !before.CreationTimestamp.Equal(&after.CreationTimestamp)
}

// recordChanged enqueues the mirror of a Service whose record has changed, and those of Services that claim a
// gateway port which it had alone, or has now.
func (c *Controller) recordChanged(cluster string, service cache.ObjectName, had, has []string) {
	c.queue.AddFor(cluster, plan.KeyOf(cluster, service))
	before, after := sets.New(had...), sets.New(has...)
	if view, ok := c.remotes.get(cluster).View(); ok {
		c.rivals(cluster, view, service, before.Difference(after), after.Difference(before))
	}
}

// rivals enqueues the mirrors of Services that claim a gateway port which another one had, or has now.
func (c *Controller) rivals(cluster string, view remote.View, self cache.ObjectName, had, has sets.Set[string]) {
	for claim := range had.Union(has) {
		if !had.Has(claim) && view.Holder(byClaim, claim) != self {
			continue // the one that has it keeps it
		}
		for _, rival := range append(view.Services.NamesByIndex(byClaim, claim), view.Rivals(claim)...) {
			c.queue.AddFor(cluster, plan.KeyOf(cluster, rival))
		}
	}
}

// claimsOf are the gateway ports that an exported Service, or none, claims.
func claimsOf(exported *corev1.Service) sets.Set[string] {
	if exported == nil {
		return nil
	}
	return sets.New(gateway.Claims(exported)...)
}

func (c *Controller) namespaceChanged(namespace string) {
	for _, r := range c.remotes.list {
		view, ok := r.View()
		if !ok {
			continue // all of its keys are enqueued when it syncs
		}
		for _, name := range view.Services.NamesByIndex(byNamespace, namespace) {
			c.queue.AddFor(r.Name(), plan.KeyOf(r.Name(), name))
		}
	}
}

// resync enqueues all keys of a remote.
func (c *Controller) resync(cluster string) {
	c.logGatewayPorts(cluster)
	for _, key := range c.keysOf(cluster) {
		c.queue.AddFor(cluster, key)
	}
}

// keysOf are all keys of a remote, some of them twice: what it exports, and what exists as its mirrors.
func (c *Controller) keysOf(cluster string) []cache.ObjectName {
	return append(c.remotes.keys(cluster), c.local.Keys(cluster)...)
}
