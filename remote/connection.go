package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
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
	services []*Informer[*corev1.Service] // of each namespace that is watched, or of all
	gateways *gateways

	ready   chan struct{} // closed when it is known what this connection is worth: synced, or refused
	settled func()        // closes ready

	synced atomic.Bool // the cache of exported Services may be relied on

	network     Network
	identifying sync.Mutex // held while the cluster is asked who it is
	verified    int64      // network.dials when it last answered; -1: never; under identifying

	lastSync, lastEvent atomic.Pointer[time.Time]

	mu      sync.Mutex
	uid     types.UID
	refused bool
}

func newConnection(r *Remote) *connection {
	c := &connection{remote: r, ready: make(chan struct{}), verified: -1}
	c.settled = sync.OnceFunc(func() { close(c.ready) })
	return c
}

// open makes the informers over a client.
func (c *connection) open(client Client) {
	c.client = client
	namespaces := c.remote.spec.Namespaces
	if len(namespaces) == 0 {
		namespaces = []string{metav1.NamespaceAll}
	}
	for _, namespace := range namespaces {
		c.services = append(c.services, c.informServices(namespace))
	}
	c.gateways = newGateways(c)
}

// informServices makes the informer of a namespace's exported Services.
func (c *connection) informServices(namespace string) *Informer[*corev1.Service] {
	part := partExports
	if namespace != metav1.NamespaceAll {
		part += " in " + namespace
	}
	services := inform(c, part, c.client.CoreV1().Services(namespace), &corev1.Service{}, c.remote.hooks.Trim,
		func(options *metav1.ListOptions) { options.LabelSelector = c.remote.options.Selector })
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

// inform makes an informer of what a client lists, narrowed down and trimmed.
func inform[T Object, L runtime.Object](c *connection, part string, objects Lister[L], example T, trim func(T) T, narrow func(*metav1.ListOptions)) *Informer[T] {
	lw := NewListWatch(objects, narrow)
	lw.Before = c.identify
	lw.Report = func(err error) { c.report(part, err) }
	lw.Seen = func() { note(&c.lastEvent) }
	lw.Client = c.client
	return NewInformer(lw, example, trim)
}

// gatewayGrace is how long a new connection waits for its gateway once it knows
// the exported Services: most often both come at once, and mirrors need not be
// written twice. A gateway that may not be read holds nothing up for longer.
const gatewayGrace = 2 * time.Second

// run runs the informers until the context ends.
func (c *connection) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer c.network.close()
	defer wg.Wait()
	var filled []cache.DoneChecker
	for _, services := range c.services {
		filled = append(filled, services.HasSyncedChecker())
		wg.Go(func() { services.RunWithContext(ctx) })
	}
	c.gateways.run(ctx, &wg)
	if !cache.WaitFor(ctx, "", filled...) {
		return
	}
	select {
	case <-ctx.Done():
		return
	case <-c.gateways.known:
	case <-time.After(gatewayGrace):
	}
	note(&c.lastSync)
	c.synced.Store(true)
	c.settled()
	c.remote.hooks.Resync(c.remote.spec.Name)
}

// identify makes sure, before a request on a new network connection, that the
// cluster at its other end is the right one: were it an empty cluster, its
// empty list would delete every mirror. The check that it returns fails where
// the request went out on a connection that is newer still.
func (c *connection) identify(ctx context.Context) (func() error, error) {
	c.identifying.Lock()
	defer c.identifying.Unlock()
	if c.verified != c.network.dials.Load() {
		if err := c.ask(ctx); err != nil {
			return nil, err
		}
	}
	verified := c.verified
	return func() error {
		if verified != c.network.dials.Load() {
			return errReplaced
		}
		return nil
	}, nil
}

func (c *connection) ask(ctx context.Context) error {
	uid, verified, err := c.whoIsThere(ctx)
	switch {
	case apierrors.IsForbidden(err):
		err = fmt.Errorf("it may not be asked who it is, so another cluster in its place would not be noticed: %w", err)
	case err != nil:
		return err
	}
	known := c.knownUID()
	if refusal := c.remote.hooks.Accept(ctx, c.remote.spec, uid); refusal != nil {
		if ctx.Err() != nil {
			return ctx.Err() // we are ending
		}
		if err != nil {
			refusal = fmt.Errorf("%w; %w", refusal, err)
		}
		c.report(partIdentity, refusal)
		if uid != "" || known == "" {
			c.know("", true)
			c.settled()
		} // else it was the right one and does not say any more: what is known stays
		return errNotAccepted
	}
	c.report(partIdentity, err)
	if known != "" && uid != "" && uid != known {
		// Accepted, but not the cluster whose history these informers follow.
		c.remote.stale.Store(true)
		return errNotAccepted
	}
	c.verified = verified
	if c.know(uid, false) && c.synced.Load() {
		c.remote.hooks.Resync(c.remote.spec.Name)
	}
	return nil
}

// whoIsThere asks the cluster for its UID, and tells how many network
// connections had been made when it answered. The answer must have come over the
// last one, so after one was made it is asked again.
func (c *connection) whoIsThere(ctx context.Context) (uid types.UID, dials int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	for range 3 {
		dials = c.network.dials.Load()
		var system *corev1.Namespace
		system, err = c.client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err == nil {
			uid = system.UID
		}
		answered := err == nil || apierrors.IsForbidden(err)
		if !answered || dials == c.network.dials.Load() {
			break
		}
	}
	return uid, dials, err
}

func (c *connection) knownUID() types.UID {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.uid
}

// know records who the cluster is, and whether that is another than before.
func (c *connection) know(uid types.UID, refused bool) (changed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	changed = c.uid != uid || c.refused != refused
	c.uid, c.refused = uid, refused
	return changed
}

// report passes on how a part of the connection fares, unless a newer
// connection is to be judged instead.
func (c *connection) report(part string, err error) {
	if c.remote.newest.Load() == c {
		c.remote.state.report(part, err)
	}
}

// What is not a failure of the part that meets it: whoever answers is asked
// again, or is reported under another name.
var (
	errReplaced    = errors.New("the network connection was replaced meanwhile")
	errNotAccepted = errors.New("another cluster answers")
)

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

// view is what this connection knows; false until it may be relied on.
func (c *connection) view() (View, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused || !c.synced.Load() {
		return View{}, false
	}
	view := View{Services: c.services, Gateways: c.gateways.view(), UID: c.uid, Namespaces: c.remote.spec.Namespaces}
	return view, true
}
