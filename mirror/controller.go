package mirror

import (
	"context"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/failover"
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
	// FailoverAfter is how long no local endpoint of a Service must have been ready until a remote serves it, and
	// FailbackAfter how long one must have been ready until none does any more.
	FailoverAfter, FailbackAfter time.Duration
	Workers                      int             // keys synced in parallel
	MaxDeletes                   int             // of one remote's mirrors within a minute; 0: no limit
	Metrics                      *report.Metrics // nil: nothing is counted
	Events                       *report.Events  // nil: none are made
	Verify                       verify.Options
	Domain                       string // DNS domain of the local cluster: clients' names are under it
	Template                     string // of the names of mirrors of remotes that have none of their own; empty: plan.DefaultTemplate
}

// Controller mirrors the exported Services of remote clusters.
type Controller struct {
	enqueuer
	options  Options
	workers  *queue.Workers
	memory   *memory
	writer   *write.Writer
	problems *report.Problems
	verified verifier
	failover *failover.Controller
}

// New makes a controller. Its remotes are added before it runs.
func New(clients Clients, options Options, logger klog.Logger) *Controller {
	c := &Controller{
		enqueuer: enqueuer{queue: queue.New(options.Metrics), remotes: newRemotes(options.Policy), logger: logger},
		options:  options, memory: newMemory(options.MaxDeletes),
	}
	c.workers = queue.NewWorkers(c.queue, queue.Config{Number: options.Workers, What: "mirror", Sync: c.work})
	c.local = local.New(local.Options{Client: clients.Read, Metadata: clients.Metadata, Logger: logger, Names: options.Names, Template: options.Template, Hooks: local.Hooks{
		Naming:           func(cluster string) plan.Naming { return c.remotes.policy().Names.Of(cluster) },
		Changed:          c.enqueue,
		Wanted:           c.remotes.want,
		Configured:       func(cluster string) bool { return cluster == plan.MergedCluster || c.remotes.has(cluster) },
		NamespaceChanged: c.namespaceChanged,
		RangesChanged:    c.remotes.refilter,
		FailoverChanged:  func(key cache.ObjectName) { c.failover.Changed(key) },
		Interrupted: func(key cache.ObjectName) {
			if c.workers.Leading() {
				c.memory.interrupted(key)
			}
		},
		Report: func(part string, err error) { c.problems.Local(part, err) },
	}})
	c.writer = write.New(clients.Write, clients.Metadata, c.local, options.Metrics.Wrote)
	c.problems = report.New(logger, options.Events, c.serviceOf)
	c.failover = failover.New(failover.Options{
		Policy: func() plan.FailoverPolicy {
			return plan.FailoverPolicy{Policy: *c.remotes.policy(), After: options.FailoverAfter, Back: options.FailbackAfter}
		},
		Client: clients.Read, Local: c.local, Writer: c.writer, Metrics: options.Metrics, Events: options.Events, Logger: logger,
		Remote: c.remotes.failover, Report: func(part string, err error) { c.problems.Local(part, err) },
	})
	c.verified = verifier{
		check: options.Verify.Check, period: options.Verify.Period, exported: c.remotes.exported, report: c.problems.Verified,
		targets: func(key cache.ObjectName) (plan.Plan, []verify.Target) {
			p := c.planned(key)
			return p, targetsOf(p, options.Domain)
		},
	}
	if clients.Pin != nil {
		clients.Pin.OnChange(func(err error) { c.problems.Local(report.Identity, err) })
	}
	return c
}

// Hooks is what a remote of this name must be given.
func (c *Controller) Hooks(cluster string) remote.Hooks {
	return remote.Hooks{
		Indexes: indexes,
		Trim:    c.options.TrimExported,
		Changed: func(cluster string, before, after *corev1.Service) {
			c.failOver(cluster, c.exportChanged(cluster, before, after))
		},
		RecordChanged: func(cluster string, change remote.RecordChange) {
			c.failOver(cluster, c.recordChanged(cluster, change))
			c.failover.ExportChanged(cluster, change.Aliases...)
		},
		Resync: func(cluster string) {
			c.resync(cluster)
			c.failover.Resync(cluster)
		},
		Accept: func(ctx context.Context, spec remote.Spec, uid types.UID) error {
			return accept(ctx, c.local, spec, uid)
		},
		Mirrored: func(ctx context.Context, cluster string) ([]cache.ObjectName, error) {
			return mirrored(ctx, c.local, cluster)
		},
		OnProblem: c.options.Events.Remote,
	}
}

// failOver has the local Services be looked at that fail over to some exported ones.
func (c *Controller) failOver(cluster string, exported []cache.ObjectName) {
	for _, one := range exported {
		c.failover.ExportChanged(cluster, append(c.remotes.aliases(cluster, one), one)...)
	}
}

// Run keeps the caches filled until the context ends. Only a replica that leads writes.
func (c *Controller) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	defer c.queue.ShutDown()
	wg.Go(func() { c.problems.Run(ctx) })
	wg.Go(func() { c.failover.Run(ctx) })
	c.local.Run(ctx, func() {
		c.logger.Info("Local caches are synced", "services", c.local.Services())
		logged := sets.New[string]()
		logUnknown(c.logger, c.local, logged)
		c.workers.Open()
		c.failover.Open()
		wg.Go(func() {
			wait.UntilWithContext(ctx, func(context.Context) { logUnknown(c.logger, c.local, logged) }, unknownPeriod)
		})
		wg.Go(func() { c.workers.Feed(ctx) })
		wg.Go(func() {
			wait.UntilWithContext(ctx, func(context.Context) {
				if !c.workers.Leading() {
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
	c.local.SweepTombstones(func(key cache.ObjectName) bool { return !c.planned(key).DropTombstone })
}

// Ready is closed when the local caches are filled.
func (c *Controller) Ready() <-chan struct{} { return c.workers.Ready() }

// Lead writes, until the context ends. A write under way is then finished, for which it has grace.
func (c *Controller) Lead(ctx context.Context, grace time.Duration) {
	var verifying, failing sync.WaitGroup
	c.workers.Lead(ctx, grace, func() {
		c.options.Events.Lead(true)
		failing.Go(func() { c.failover.Lead(ctx, grace) })
		c.sweep()
		for _, r := range c.remotes.all() {
			for _, problem := range r.Status().Problems { // from before
				c.options.Events.Remote(r.Name(), problem)
			}
			c.resync(r.Name()) // what was known of mirrors when this replica last led is forgotten
		}
		verifying.Go(func() { c.verified.run(ctx) })
	}, func() { // what is known of mirrors goes with leadership
		verifying.Wait()
		failing.Wait()
		c.options.Events.Lead(false)
		c.memory.clear()
		c.problems.Clear()
		c.verified.clear()
	})
}

// Ranges are the local cluster's own addresses, as far as they are known.
func (c *Controller) Ranges() []gateway.Range { return c.local.Ranges() }
