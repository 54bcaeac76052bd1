package remote

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"
)

// connection is one reading of a remote's kubeconfig: a client and its
// informers. A changed kubeconfig makes a new one.
type connection struct {
	remote   *Remote
	client   Client
	again    *connection // the one whose exports this one lists again; nil: it is no such
	dial     func(*Network) (Client, error)
	exports  []namespaceExports
	gateways *gateways
	records  *Records // nil: none are read

	ready   chan struct{} // closed when this connection can replace the one before: it knows as much, or is refused
	settled func()        // closes ready

	network   Network
	allowance *allowance // of the exported Services

	lastSync, lastEvent atomic.Pointer[time.Time]

	mu       sync.Mutex
	uid      types.UID
	refused  bool
	followed []string      // namespaces whose exports are known; NamespaceAll: of all
	reading  *identityRead // under way; nil: none
}

func newConnection(r *Remote) *connection {
	c := &connection{remote: r, ready: make(chan struct{}), allowance: r.spec.Limits.ofExports(r.spec.Name)}
	c.allowance.kept.bound.where = r.spec.Where()
	c.settled = sync.OnceFunc(func() { close(c.ready) })
	return c
}

// namespaceExports are the exported Services of one namespace that is watched, or of all.
type namespaceExports struct {
	namespace string
	services  *Informer[*corev1.Service]
}

// open makes the informers over a client.
func (c *connection) open(client Client) {
	c.client = client
	for _, namespace := range c.remote.spec.watched() {
		c.exports = append(c.exports, namespaceExports{namespace, c.informServices(namespace)})
	}
	c.gateways = newGateways(c)
	c.records = newRecords(c)
}

// informServices makes the informer of a namespace's exported Services.
func (c *connection) informServices(namespace string) *Informer[*corev1.Service] {
	source := source[*corev1.ServiceList]{part: exportsPart(namespace), namespace: namespace, objects: c.client.CoreV1().Services(namespace),
		narrow: c.exported, bounds: c.allowance}
	services := inform(c, source, &corev1.Service{}, c.remote.hooks.Trim)
	if mirrored := c.remote.hooks.Mirrored; mirrored != nil {
		services.lw.confirm = &confirmation{
			mirrored: func(ctx context.Context) ([]cache.ObjectName, error) { return mirrored(ctx, c.remote.spec.Name) },
			again:    func() (reader, func(), error) { return c.listAgain(services.lw) },
		}
	}
	for name, values := range c.remote.hooks.Indexes {
		services.Index(name, values)
	}
	changed := func(before, after *corev1.Service) { c.remote.hooks.Changed(c.remote.spec.Name, before, after) }
	services.Handle(Handler[*corev1.Service]{
		Added:   func(svc *corev1.Service) { changed(nil, svc) },
		Updated: changed,
		Deleted: func(name cache.ObjectName, last *corev1.Service) {
			if last == nil {
				last = &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}}
			}
			changed(last, nil)
		},
	})
	return services
}

// exported narrows requests to exported Services.
func (c *connection) exported(options *metav1.ListOptions) {
	options.LabelSelector = c.remote.options.Selector
}

// listAgain is how to list the exported Services that a ListWatch does, of the same cluster, over another
// network connection, which end closes.
func (c *connection) listAgain(lw *ListWatch) (over reader, end func(), err error) {
	second := newConnection(c.remote)
	second.again, second.uid = c, c.knownUID()
	if second.client, err = c.dial(&second.network); err != nil {
		return reader{}, nil, err
	}
	services := second.client.CoreV1().Services(lw.Namespace)
	list := func(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
		c.exported(&options)
		return listWithin(ctx, lw, services, options)
	}
	return reader{second.identify, list}, second.network.close, nil
}

// source is what an informer reads of a remote.
type source[L runtime.Object] struct {
	part      string // under which its problems are reported
	namespace string // empty: all
	objects   Lister[L]
	narrow    func(*metav1.ListOptions)
	bounds    *allowance
}

// inform makes an informer of a source that keeps what trim leaves.
func inform[T Object, L runtime.Object](c *connection, from source[L], example T, trim func(T) T) *Informer[T] {
	lw := NewListWatch(from.objects, from.narrow)
	lw.Namespace = from.namespace
	lw.Before = c.identify
	lw.Report = func(err error) { c.report(from.part, err) }
	lw.Seen = func() { note(&c.lastEvent) }
	lw.Client = c.client
	lw.bounds = from.bounds
	return NewInformer(lw, example, trim)
}

// gatewayGrace is how long a new connection waits for its gateways, its records and the other
// namespaces once it knows the exports of one: most often all come at once, and mirrors
// need not be written twice. What may not be read holds nothing up for longer.
const gatewayGrace = 2 * time.Second

// replaceGrace is how long a new connection waits until it knows all namespaces that the
// one before knew. The credentials of that one may be valid no more.
const replaceGrace = 30 * time.Second

// run runs the informers until the context ends.
func (c *connection) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer c.network.close()
	defer wg.Wait()
	progress := make(chan struct{}, 1)
	for _, part := range c.exports {
		wg.Go(func() { part.services.RunWithContext(ctx) })
		wg.Go(func() {
			if cache.WaitFor(ctx, "", part.services.HasSyncedChecker()) {
				signal(progress)
			}
		})
	}
	c.gateways.run(ctx, &wg)
	if c.records != nil {
		c.records.run(ctx, &wg, func() {
			signal(progress)
			if len(c.knownNamespaces()) > 0 { // else that is done when they are known
				c.remote.hooks.Resync(c.remote.spec.Name)
			}
		})
	}
	var grace, replace <-chan time.Time
	gatewaysKnown, due := c.gateways.known, false
	for {
		select {
		case <-ctx.Done():
			return
		case <-progress:
		case <-gatewaysKnown:
			gatewaysKnown = nil
		case <-grace:
			due = true
		case <-replace:
			c.settled()
			continue
		}
		synced := c.syncedNamespaces()
		if len(synced) == 0 {
			continue
		}
		if grace == nil {
			grace, replace = time.After(gatewayGrace), time.After(gatewayGrace+replaceGrace)
		}
		due = due || len(synced) == len(c.exports) && gatewaysKnown == nil && c.records.known()
		if due {
			c.follow(synced)
		}
	}
}

// signal has the receiver look again, unless it will anyway.
func signal(to chan<- struct{}) {
	select {
	case to <- struct{}{}:
	default:
	}
}

func (c *connection) syncedNamespaces() (synced []string) {
	for _, part := range c.exports {
		if part.services.HasSynced() {
			synced = append(synced, part.namespace)
		}
	}
	return synced
}

// follow makes known the exports of the namespaces given.
func (c *connection) follow(namespaces []string) {
	c.mu.Lock()
	changed := len(namespaces) != len(c.followed)
	c.followed = namespaces
	c.mu.Unlock()
	if !changed {
		return
	}
	note(&c.lastSync)
	if old := c.remote.current.Load(); old == nil || old == c || !slices.ContainsFunc(old.knownNamespaces(), func(namespace string) bool {
		return !slices.Contains(namespaces, namespace)
	}) {
		c.settled()
	}
	c.remote.hooks.Resync(c.remote.spec.Name)
}

func (c *connection) knownNamespaces() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused {
		return nil
	}
	return c.followed
}

// report passes on the state of a part of the connection, unless there is a newer one.
func (c *connection) report(part string, err error) {
	if c.remote.newest.Load() == cmp.Or(c.again, c) {
		c.remote.state.report(part, err)
	}
}

func note(at *atomic.Pointer[time.Time]) {
	now := time.Now()
	at.Store(&now)
}

// times are when all exports were known, and when a watch last said something.
func (c *connection) times() (lastSync, lastEvent time.Time) {
	if at := c.lastSync.Load(); at != nil {
		lastSync = *at
	}
	if at := c.lastEvent.Load(); at != nil {
		lastEvent = *at
	}
	return lastSync, lastEvent
}

func (c *connection) isRefused() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.refused
}

// view is what this connection knows; false while that is nothing.
func (c *connection) view() (View, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused || len(c.followed) == 0 {
		return View{}, false
	}
	view := View{Gateways: c.gateways.view(), Records: c.records, UID: c.uid}
	for _, part := range c.exports {
		if slices.Contains(c.followed, part.namespace) {
			view.Services = append(view.Services, part.services)
			if part.namespace != metav1.NamespaceAll {
				view.Namespaces = append(view.Namespaces, part.namespace)
			}
		}
	}
	return view, true
}
