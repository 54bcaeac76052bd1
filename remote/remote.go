// Encodeage remote knows one remote cluster: from its kubeconfig, read again when
// it changes, to a cache of its exported Services and of its gateway Service,
// and how it fares. It reads and never writes; what is made of the Services is
// not its business.
//
// A remote that is down, slow, forbidden or not the cluster that it was keeps
// trying, costs the others nothing, and what was known of it stays known.
package remote

import (
	"context"
	"fmt"
	"slices"
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

// Hooks is what a remote needs of the one who mirrors it.
type Hooks struct {
	// Indexes are kept over the exported Services: of each, by name, the values
	// that a Service has in it.
	Indexes map[string]func(*corev1.Service) []string
	// Trim cuts an exported Service down to what is held of it.
	Trim func(*corev1.Service) *corev1.Service
	// Changed is called for each exported Service that comes (before is nil),
	// changes, or goes (after is nil).
	Changed func(cluster string, before, after *corev1.Service)
	// Resync is called when all of a cluster's mirrors must be looked at: its
	// cache is filled, its gateway or its UID has changed.
	Resync func(cluster string)
	// Accept tells whether the cluster of this UID (empty: it may not be read) is
	// the one that the remote's mirrors are of.
	Accept func(ctx context.Context, spec Spec, uid types.UID) error
	// OnProblem is called of each problem that comes, or is over.
	OnProblem func(cluster string, problem Problem)
}

// View is what is known of a remote cluster.
type View struct {
	Services Services
	Gateways Gateways
	UID      types.UID // empty: may not be read
	// Namespaces are those that are watched; none: all. Of others nothing is known.
	Namespaces []string
}

// Knows tells whether the exports of a namespace are known.
func (v View) Knows(namespace string) bool {
	return len(v.Namespaces) == 0 || slices.Contains(v.Namespaces, namespace)
}

// Services are the exported Services of a remote: of all its namespaces, or of
// each that is watched.
type Services []*Informer[*corev1.Service]

// Get is one of them; nil if there is none.
func (s Services) Get(name cache.ObjectName) *corev1.Service {
	for _, part := range s {
		if svc := part.Get(name); svc != nil {
			return svc
		}
	}
	return nil
}

// Names are the names of all of them.
func (s Services) Names() []cache.ObjectName {
	var all []cache.ObjectName
	for _, part := range s {
		for _, key := range part.GetIndexer().ListKeys() {
			all = append(all, nameOf(key))
		}
	}
	return all
}

// NamesByIndex are the names of those that have a value in an index.
func (s Services) NamesByIndex(index, value string) []cache.ObjectName {
	var all []cache.ObjectName
	for _, part := range s {
		keys, err := part.GetIndexer().IndexKeys(index, value)
		must(err)
		for _, key := range keys {
			all = append(all, nameOf(key))
		}
	}
	return all
}

// Oldest is the name of the one that was made first of those that have a value in an
// index, the first by name where that was in the same second; zero if none has it.
func (s Services) Oldest(index, value string) (name cache.ObjectName) {
	var all []*encoded
	for _, part := range s {
		all = append(all, part.indexed(index, value)...)
	}
	if len(all) > 0 {
		name = nameOf(slices.MinFunc(all, compareAge).name)
	}
	return name
}

// All are all of them.
func (s Services) All() []*corev1.Service {
	var all []*corev1.Service
	for _, part := range s {
		all = append(all, part.All()...)
	}
	return all
}

// Len is how many there are.
func (s Services) Len() (n int) {
	for _, part := range s {
		n += len(part.GetIndexer().ListKeys())
	}
	return n
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
	stale   atomic.Bool                // the newest must be replaced: another cluster answers it now
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
		spec: spec, options: options, hooks: hooks,
		newClient: func(cfg *rest.Config) (Client, error) { return NewClient(cfg) },
	}
}

// Name is the name that the flags give to the cluster.
func (r *Remote) Name() string { return r.spec.Name }

// View is what is known now; false where nothing may be concluded from it, as
// before the first complete list.
func (r *Remote) View() (View, bool) {
	if c := r.current.Load(); c != nil {
		return c.view()
	}
	return View{}, false
}

// Refilter looks at the addresses of the gateways again: what is refused is
// another.
func (r *Remote) Refilter() {
	for _, c := range []*connection{r.current.Load(), r.newest.Load()} {
		if c != nil {
			c.gateways.refilter()
		}
	}
}

type clusterKey struct{}

// ClusterOf is the name of the remote for which a request is made; empty: for none.
func ClusterOf(ctx context.Context) string {
	cluster, _ := ctx.Value(clusterKey{}).(string)
	return cluster
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
	var wg sync.WaitGroup
	defer wg.Wait()
	file := kubeconfig{path: r.spec.Kubeconfig, context: r.spec.Context}
	ticker := time.NewTicker(reloadPeriod)
	defer ticker.Stop()
	stopCurrent, stopNext := func() {}, func() {}
	for {
		if r.stale.Swap(false) {
			file.again()
		}
		if next := r.connect(&file); next != nil {
			stopNext() // never became ready
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
			// Until now the old connection served; no mirror notices the change.
			r.current.Store(newest)
			stopCurrent()
			stopCurrent, stopNext = stopNext, func() {}
			r.hooks.Resync(r.spec.Name)
		case <-ticker.C:
		}
	}
}

// connect makes a connection of a kubeconfig that is new, else nil.
func (r *Remote) connect(file *kubeconfig) *connection {
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
	client, err := r.newClient(r.options.Client.Tune(cfg, r.spec.Name, &c.network))
	if err != nil {
		err = fmt.Errorf("%s: %w", r.spec.Kubeconfig, err)
	}
	r.state.report(partKubeconfig, err)
	if err != nil {
		file.again() // a certificate may be half written
		return nil
	}
	c.open(client)
	return c
}
