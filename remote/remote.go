// Package remote reads one remote cluster: from its kubeconfig, read again when
// it changes, to a cache of its exported Services and of its gateway Services,
// and its state. It never writes.
//
// A remote that is down, slow, forbidden or another cluster than before keeps
// trying, costs the others nothing, and what was known of it stays known.
//
//   - kubeconfig.go, client.go, kind.go, network.go: from the file to a client
//   - identity.go, accept.go: which cluster answers
//   - limits.go, bounds.go, wire.go, message.go, text.go, pages.go: how much a remote can make this
//     program read and keep
//   - listwatch.go, watch.go, answer.go, history.go: lists and watches that an informer can
//     rely on
//   - confirm.go: a list that would delete many mirrors is made twice
//   - informer.go, encoded.go, services.go, listed.go: the caches
//   - connection.go, gateways.go, gatewayapi.go, records.go: what is read of a remote
//   - state.go, status.go: how it is doing; package failure has what is said of failures
package remote

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
)

// reloadPeriod is how often the files of a kubeconfig are compared. A mounted
// Secret takes up to a minute by itself.
const reloadPeriod = 2 * time.Second

// Hooks are what a remote calls. None is called under a lock.
type Hooks struct {
	// Indexes are kept over the exported Services, by name: the values that a Service
	// has in each.
	Indexes map[string]func(*corev1.Service) []string
	// Trim cuts an exported Service down to what is kept of it.
	Trim func(*corev1.Service) *corev1.Service
	// Changed is called for each exported Service that comes (before is nil),
	// changes, or goes (after is nil).
	Changed func(cluster string, before, after *corev1.Service)
	// RecordChanged is called for each record of an exported Service that comes, changes, or goes; nil: it is not called.
	RecordChanged func(cluster string, change RecordChange)
	// Resync is called when all of a cluster's mirrors must be synced: its cache, or a
	// further namespace of it, is filled, or that of its records, its gateway or its UID has changed.
	Resync func(cluster string)
	// Accept returns an error unless the cluster of this UID (empty: it may not be read)
	// is the one that the remote's mirrors are of. It is called concurrently.
	Accept func(ctx context.Context, spec Spec, uid types.UID) error
	// Mirrored are the exported Services of a cluster that have a mirror, once that is known: a list that
	// lacks many of them is not believed before a second one says the same. It is called concurrently; nil:
	// each list is believed.
	Mirrored func(ctx context.Context, cluster string) ([]cache.ObjectName, error)
	// OnProblem is called for each problem that comes, changes or is over, in order.
	OnProblem func(cluster string, problem Problem)
}

// Remote is one remote cluster.
type Remote struct {
	spec    Spec
	options Options
	hooks   Hooks
	state   state
	// newClient is replaced in tests.
	newClient func(*rest.Config) (Client, error)

	current atomic.Pointer[connection] // what View reads; nil until one is ready
	newest  atomic.Pointer[connection] // current, or the one that will replace it
	stale   atomic.Pointer[connection] // it must be replaced if it is the newest: another cluster answers it now

	misconfigured atomic.Pointer[error] // what is wrong with how it is configured; nil: nothing
}

// Options are what all remotes have in common.
type Options struct {
	Selector string // of exported Services
	Client   ClientOptions
	Gateway  gateway.Options
}

// New makes a remote.
func New(spec Spec, options Options, hooks Hooks) *Remote {
	return &Remote{
		spec: spec, options: options, hooks: hooks, state: state{exports: len(spec.watched())},
		newClient: func(cfg *rest.Config) (Client, error) { return NewClient(cfg) },
	}
}

// Misconfigured says what is wrong with how the remote is configured, which may still be in use; nil: nothing is.
func (r *Remote) Misconfigured(err error) { r.misconfigured.Store(&err) }

// Name is the name that the flags give to the cluster.
func (r *Remote) Name() string { return r.spec.Name }

// View is what is known now; false while nothing is, as before the first complete list.
func (r *Remote) View() (View, bool) {
	if c := r.current.Load(); c != nil {
		return c.view()
	}
	return View{}, false
}

// Refilter looks at the addresses of the gateways again: other ones are refused now.
func (r *Remote) Refilter() {
	for _, c := range []*connection{r.current.Load(), r.newest.Load()} {
		if c != nil {
			c.gateways.refilter()
		}
	}
}

type clusterKey struct{}

// ClusterOf is the name of the remote to which a request is made; empty: to none.
func ClusterOf(ctx context.Context) string {
	cluster, _ := ctx.Value(clusterKey{}).(string)
	return cluster
}

type whereKey struct{}

// whereOf is where the remote is configured to which a request is made, for people; empty: not known.
func whereOf(ctx context.Context) string {
	where, _ := ctx.Value(whereKey{}).(string)
	return where
}

// Run connects and stays connected until the context ends.
func (r *Remote) Run(ctx context.Context) {
	r.state.onProblem = func(p Problem) {
		if r.hooks.OnProblem != nil {
			r.hooks.OnProblem(r.spec.Name, p)
		}
	}
	r.state.logger = klog.LoggerWithValues(klog.FromContext(ctx), "cluster", r.spec.Name)
	ctx = context.WithValue(klog.NewContext(ctx, r.state.logger), clusterKey{}, r.spec.Name)
	ctx = context.WithValue(ctx, whereKey{}, r.spec.Where())
	var wg sync.WaitGroup
	defer wg.Wait()
	file := r.spec.kubeconfig()
	ticker := time.NewTicker(reloadPeriod)
	defer ticker.Stop()
	stopCurrent, stopNext := func() {}, func() {}
	for {
		if err := r.misconfigured.Load(); err != nil {
			r.state.report(partConfiguration, *err)
		}
		if stale := r.stale.Swap(nil); stale != nil && stale == r.newest.Load() {
			file.again()
		}
		if next := r.connect(&file); next != nil {
			stopNext() // it never became ready
			connectionCtx, cancel := context.WithCancel(ctx)
			stopNext = cancel
			r.newest.Store(next)
			wg.Go(func() { next.run(connectionCtx) })
		}
		var ready chan struct{}
		newest := r.newest.Load()
		if newest != nil && newest != r.current.Load() {
			ready = newest.ready
		}
		select {
		case <-ctx.Done():
			stopCurrent()
			stopNext()
			return
		case <-ready:
			// Until now the old connection served: mirrors do not notice the change.
			r.current.Store(newest)
			stopCurrent()
			stopCurrent, stopNext = stopNext, func() {}
			r.hooks.Resync(r.spec.Name)
		case <-ticker.C:
			r.state.settle()
		}
	}
}

// connect makes a connection of a kubeconfig that is new, else nil.
func (r *Remote) connect(file *kubeconfig) *connection {
	if !r.spec.Usable() {
		return nil
	}
	cfg, err := file.reload()
	if err != nil {
		r.state.report(partKubeconfig, err)
		return nil
	}
	if cfg == nil {
		r.state.report(partKubeconfig, nil) // as it was
		return nil
	}
	c := newConnection(r)
	c.dial = func(network *Network) (Client, error) {
		return r.newClient(r.options.Client.Tune(cfg, r.spec.Name, network))
	}
	client, err := c.dial(&c.network)
	if err != nil {
		err = fmt.Errorf("%s: %w", file.name(), err)
	}
	r.state.report(partKubeconfig, err)
	if err != nil {
		file.again() // a certificate may be half written
		return nil
	}
	c.open(client)
	return c
}
