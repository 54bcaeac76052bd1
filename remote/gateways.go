package remote

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// Gateways is what is known of a remote's gateways.
type Gateways struct {
	// Known are the gateways that the flags list, by their Service: the first of
	// them, for Services that name none, by the zero name too; nil: not known yet.
	Known map[cache.ObjectName]*gateway.Gateway
}

// For is the gateway that routes to an exported Service, nil while it is not
// known. A Service may choose among the gateways that the flags list; one that
// names another has none, which is the error.
func (g Gateways) For(exported *corev1.Service) (*gateway.Gateway, error) {
	if name, err := gatewayOf(exported); err == nil {
		if known, listed := g.Known[name]; listed || name == (cache.ObjectName{}) {
			return known, nil
		}
	}
	text := exported.Annotations[gateway.Annotation]
	return &gateway.Gateway{}, fmt.Errorf("annotation %s sets %.128q, which is not a configured gateway: add gateway=%.128s to how the remote is configured",
		gateway.Annotation, text, text)
}

// gatewayOf is the gateway that an exported Service names; zero: none, so the first.
func gatewayOf(exported *corev1.Service) (cache.ObjectName, error) {
	text := exported.Annotations[gateway.Annotation]
	if text == "" {
		return cache.ObjectName{}, nil
	}
	name, _, err := gateway.ParseName(text)
	return name, err
}

// gateways are a connection's gateways, and what is read of the remote for them.
type gateways struct {
	conn       *connection
	all        []*entrance
	configMaps map[cache.ObjectName]*Informer[*corev1.ConfigMap]
	sets       *listenerSets // nil: there is no Gateway of the Gateway API
	dirty      chan struct{} // has a value when a cache has changed
	known      chan struct{} // closed when all caches are filled and were read
}

type entrance struct {
	config  gateway.Config
	service *Informer[*corev1.Service]     // of one object; nil where none is read
	api     *Informer[*gatewayapi.Gateway] // likewise, in place of a Service
	watch   *gateway.Watch
}

// part is the name under which its problems are reported.
func (e *entrance) part() string { return strings.TrimSpace("gateway " + e.name()) }

func (e *entrance) name() string { return e.config.Name() }

func newGateways(c *connection) *gateways {
	g := &gateways{conn: c, dirty: make(chan struct{}, 1), known: make(chan struct{}), configMaps: map[cache.ObjectName]*Informer[*corev1.ConfigMap]{}}
	for _, config := range c.remote.spec.Gateways {
		e := &entrance{config: config}
		e.watch = gateway.NewWatch(config, c.remote.options.Gateway, func(problem error, differs bool) {
			c.report(e.part(), problem)
			if differs {
				c.remote.hooks.Resync(c.remote.spec.Name)
			}
		})
		g.all = append(g.all, e)
		switch {
		case !config.ReadsService():
		case config.API:
			g.readAPI(e)
		default:
			e.service = inform(c, source[*corev1.ServiceList]{
				part: "watch of the gateway Service " + config.Service.String(), namespace: config.Service.Namespace,
				objects: c.client.CoreV1().Services(config.Service.Namespace), narrow: byName(config.Service), bounds: ofOne(c.remote.spec.Name),
			}, &corev1.Service{}, gateway.Trim)
			e.service.Handle(handleAll[*corev1.Service](func() { signal(g.dirty) }))
		}
		g.readConfigMap(config.TCPServices)
		g.readConfigMap(config.UDPServices)
	}
	return g
}

func byName(name cache.ObjectName) func(*metav1.ListOptions) {
	return func(options *metav1.ListOptions) {
		options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, name.Name).String()
	}
}

func (g *gateways) readConfigMap(name cache.ObjectName) {
	if name == (cache.ObjectName{}) || g.configMaps[name] != nil {
		return
	}
	informer := inform(g.conn, source[*corev1.ConfigMapList]{
		part: "watch of the ConfigMap " + name.String(), namespace: name.Namespace,
		objects: g.conn.client.CoreV1().ConfigMaps(name.Namespace), narrow: byName(name), bounds: ofOne(g.conn.remote.spec.Name),
	}, &corev1.ConfigMap{}, trimConfigMap)
	g.configMaps[name] = informer
	informer.Handle(handleAll[*corev1.ConfigMap](func() { signal(g.dirty) }))
}

// handleAll calls one function for each change.
func handleAll[T Object](changed func()) Handler[T] {
	return Handler[T]{Added: func(T) { changed() }, Updated: func(_, _ T) { changed() }, Deleted: func(cache.ObjectName, T) { changed() }}
}

func trimConfigMap(configMap *corev1.ConfigMap) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: configMap.Namespace, Name: configMap.Name, ResourceVersion: configMap.ResourceVersion},
		Data:       configMap.Data,
	}
}

// run reads and follows the gateways until the context ends.
func (g *gateways) run(ctx context.Context, wg *sync.WaitGroup) {
	var informers []cache.SharedIndexInformer
	for _, e := range g.all {
		if e.service != nil {
			informers = append(informers, e.service)
		}
		if e.api != nil {
			informers = append(informers, e.api)
		}
		wg.Go(func() { e.watch.Run(ctx) })
	}
	for _, informer := range g.configMaps {
		informers = append(informers, informer)
	}
	for _, informer := range informers {
		wg.Go(func() { informer.RunWithContext(ctx) })
		wg.Go(func() {
			if cache.WaitFor(ctx, "", informer.HasSyncedChecker()) {
				signal(g.dirty)
			}
		})
	}
	if g.sets != nil {
		g.sets.start = sync.OnceFunc(func() { g.sets.run(ctx, wg, func() { signal(g.dirty) }) })
	}
	signal(g.dirty)
	wg.Go(func() { g.follow(ctx) })
}

// follow reads the caches after each change. One that may not be read does not hold up
// the others.
func (g *gateways) follow(ctx context.Context) {
	known := sync.OnceFunc(func() { close(g.known) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.dirty:
		}
		filled := true
		for _, e := range g.all {
			filled = g.read(e) && filled
		}
		if filled {
			known()
		}
	}
}

// read looks at what the caches say of one gateway. Before they are filled an
// absence means nothing; false while they are not.
func (g *gateways) read(e *entrance) bool {
	var svc *corev1.Service
	var api *gateway.APIGateway
	switch {
	case e.service != nil:
		if !e.service.HasSynced() {
			return false
		}
		svc = e.service.Get(e.config.Service)
	case e.api != nil:
		var known bool
		if api, known = g.apiGateway(e); !known {
			return false
		}
	}
	reserved := gateway.Reserved{}
	for _, source := range []struct {
		name     cache.ObjectName
		protocol corev1.Protocol
	}{{e.config.TCPServices, corev1.ProtocolTCP}, {e.config.UDPServices, corev1.ProtocolUDP}} {
		if source.name == (cache.ObjectName{}) {
			continue
		}
		informer := g.configMaps[source.name]
		if !informer.HasSynced() {
			return false
		}
		var some gateway.Reserved
		problem := errors.New("it does not exist, so no ports are reserved: create it")
		if configMap := informer.Get(source.name); configMap != nil {
			some, problem = gateway.ParseReserved(configMap.Data, source.protocol)
		}
		g.conn.report("ConfigMap "+source.name.String(), problem)
		maps.Copy(reserved, some)
	}
	if e.api != nil {
		e.watch.SetAPI(api, reserved)
	} else {
		e.watch.Set(svc, reserved)
	}
	return true
}

// view is what is known of the gateways now.
func (g *gateways) view() Gateways {
	known := make(map[cache.ObjectName]*gateway.Gateway, len(g.all)+1)
	for i, e := range g.all {
		now := e.watch.Gateway()
		if i == 0 {
			known[cache.ObjectName{}] = now
		}
		known[e.config.Service] = now
	}
	return Gateways{Known: known}
}

// status is what is known of each, and wrong with it.
func (g *gateways) status(problems []Problem) (all []GatewayStatus) {
	for _, e := range g.all {
		one := GatewayStatus{Name: e.name(), Gateway: e.watch.Gateway()}
		for _, problem := range problems {
			if problem.Part == e.part() {
				one.Problem = problem.Cause
			}
		}
		all = append(all, one)
	}
	return all
}

// refilter looks at all addresses again.
func (g *gateways) refilter() {
	for _, e := range g.all {
		e.watch.Refilter()
	}
}
