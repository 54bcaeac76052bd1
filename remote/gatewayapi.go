package remote

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// listenerSets are the ListenerSets of a remote. They are read only once a Gateway allows any: most have none, and
// their credentials need not allow it.
type listenerSets struct {
	informer *Informer[*gatewayapi.ListenerSet]
	// absent tells that the remote does not have that kind.
	absent atomic.Bool
	start  func() // once
}

// partListenerSets is the name under which problems with reading them are reported.
const partListenerSets = "watch of ListenerSets"

// readAPI makes the informer of a Gateway of the Gateway API.
func (g *gateways) readAPI(e *entrance) {
	c, name := g.conn, e.config.Service
	reader, ok := c.client.(GatewayReader)
	if !ok {
		must(errors.New("the client does not read the Gateway API"))
	}
	e.api = inform(c, source[*gatewayapi.GatewayList]{
		part: "watch of the Gateway " + name.String(), namespace: name.Namespace,
		objects: reader.Gateways(name.Namespace), narrow: byName(name), bounds: ofOne(c.remote.spec.Name),
	}, &gatewayapi.Gateway{}, gatewayapi.TrimGateway)
	e.api.Handle(handleAll[*gatewayapi.Gateway](func() { signal(g.dirty) }))
	if g.sets != nil {
		return
	}
	g.sets = &listenerSets{informer: inform(c, source[*gatewayapi.ListenerSetList]{
		part: partListenerSets, objects: reader.ListenerSets(), narrow: func(*metav1.ListOptions) {}, bounds: ofListenerSets(c.remote.spec.Name),
	}, &gatewayapi.ListenerSet{}, gatewayapi.TrimListenerSet)}
	g.sets.informer.Handle(handleAll[*gatewayapi.ListenerSet](func() { signal(g.dirty) }))
	g.sets.informer.lw.Report = func(err error) { g.sets.report(g, err) }
}

// report passes on the state of reading them. That the remote does not have the kind is none that is wrong with it.
func (s *listenerSets) report(g *gateways, err error) {
	if absent := apierrors.IsNotFound(err); s.absent.Swap(absent) != absent {
		signal(g.dirty)
	} else if absent {
		return
	}
	if s.absent.Load() {
		err = nil
	}
	g.conn.report(partListenerSets, err)
}

// run follows them until the context ends. filled is called once they are known.
func (s *listenerSets) run(ctx context.Context, wg *sync.WaitGroup, filled func()) {
	wg.Go(func() { s.informer.RunWithContext(ctx) })
	wg.Go(func() {
		if cache.WaitFor(ctx, "", s.informer.HasSyncedChecker()) {
			filled()
		}
	})
}

// apiGateway is what the caches say of a Gateway; false while that is not known.
func (g *gateways) apiGateway(e *entrance) (gw *gateway.APIGateway, known bool) {
	if !e.api.HasSynced() {
		return nil, false
	}
	obj := e.api.Get(e.config.Service)
	var sets []*gatewayapi.ListenerSet
	if obj != nil && obj.AllowsListenerSets() {
		g.sets.start()
		switch {
		case g.sets.informer.HasSynced():
			sets = g.sets.informer.All()
		case !g.sets.absent.Load():
			return nil, false
		}
	}
	return gatewayapi.Convert(obj, sets), true
}

// ofListenerSets is the allowance of a remote's ListenerSets.
func ofListenerSets(cluster string) *allowance {
	list := objectBound("a list of ListenerSets")
	list.noun, list.items, list.cluster = "ListenerSets", maxListenerSets, cluster
	// Of a list without pages, too: with its status and managed fields, a listener takes up to 21 KB.
	list.bytes, list.memory = 2*maxObject, 6*maxObjectMemory
	all := list
	all.what, all.memory = "the set of ListenerSets", 3*maxObjectMemory
	return &allowance{list, objectBound("an event of a watch"), setsPage, 2*(maxListenerSets/setsPage) + 10, &ledger{bound: &all}}
}

const (
	// maxListenerSets is how many a remote may have: a gateway serves 65,535 ports at most, and each set has some.
	maxListenerSets = 2000
	// setsPage is how many are requested at once: one of 64 listeners takes up to 1.4 MB.
	setsPage = 10
)

// ReadGateway reads a Gateway once, with its ListenerSets; nil: it does not exist.
func ReadGateway(ctx context.Context, client Client, name cache.ObjectName) (*gateway.APIGateway, error) {
	reader, ok := client.(GatewayReader)
	if !ok {
		return nil, errors.New("the client does not read the Gateway API")
	}
	var options metav1.ListOptions
	byName(name)(&options)
	list, err := reader.Gateways(name.Namespace).List(ctx, options)
	if err != nil || len(list.Items) == 0 {
		return nil, err
	}
	obj := &list.Items[0]
	var sets []*gatewayapi.ListenerSet
	if obj.AllowsListenerSets() {
		if sets, err = listListenerSets(ctx, reader); err != nil && !apierrors.IsNotFound(err) {
			return nil, err
		}
	}
	return gatewayapi.Convert(obj, sets), nil
}

// listListenerSets lists the ListenerSets of a remote within its limits.
func listListenerSets(ctx context.Context, reader GatewayReader) ([]*gatewayapi.ListenerSet, error) {
	p := paging[*gatewayapi.ListenerSetList]{allowance: ofListenerSets(ClusterOf(ctx)), objects: reader.ListenerSets()}
	return shown(ctx, p, metav1.ListOptions{}, gatewayapi.TrimListenerSet)
}
