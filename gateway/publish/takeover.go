package publish

import (
	"cmp"
	"context"
	"fmt"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/remote/failure"
)

// A leader that crashes may have created a route and not written the record that says which gateway port it has. So a
// replica that takes over lists these routes from the server, as it does the records: its caches may be behind. Until
// the server answers, nothing is given or taken of their kind.

// routedKinds are those of routes that have a gateway port alone.
var routedKinds = []plan.Kind{plan.TCPRoute, plan.UDPRoute}

// formerRecords is the part that problems with the records of the previous leader are reported for, formerRoutes the same
// for its routes of a kind.
const formerRecords = "records of the previous leader"

func formerRoutes(of plan.Kind) string { return fmt.Sprintf("%ss of the previous leader", of) }

// pageSize is how many routes are listed with one request.
const pageSize = 500

// takeOver reads the gateway ports that live routes have until the server has answered for each kind, and returns once it
// has, or after a grace, or with the context.
func (c *Controller) takeOver(ctx context.Context, start func(func())) {
	if c.caches.gateway == nil {
		return
	}
	c.memory.await(routedKinds)
	done := make(chan struct{})
	start(func() {
		defer close(done)
		for ctx.Err() == nil {
			left := c.readRouted(ctx)
			if len(left) == 0 {
				return
			}
			select {
			case <-ctx.Done():
			case <-time.After(listPeriod):
			}
		}
	})
	select {
	case <-done:
	case <-ctx.Done():
	case <-time.After(slicesGrace):
	}
}

// readRouted reads the ports of the kinds that are awaited, and returns those that still are.
func (c *Controller) readRouted(ctx context.Context) (left []plan.Kind) {
	awaited := c.memory.awaited()
	listed, errs := make([][]unstructured.Unstructured, len(awaited)), make([]error, len(awaited))
	var reading sync.WaitGroup
	for i, of := range awaited {
		reading.Go(func() { listed[i], errs[i] = c.serverRoutes(ctx, of) })
	}
	gw, gatewayErr := c.serverGateway(ctx)
	reading.Wait()
	for i, of := range awaited {
		err, routes := cmp.Or(gatewayErr, errs[i]), listed[i]
		if ctx.Err() != nil {
			return nil
		}
		c.problems.Local(formerRoutes(of), err)
		if err != nil {
			left = append(left, of)
			c.memory.failed(of, failure.Cause(err))
			continue
		}
		all := map[cache.ObjectName][]plan.Allocation{}
		for i := range routes {
			key, ours := plan.KeyOf(&routes[i])
			svc := c.caches.services.Get(key) // nil: perhaps not yet
			if ours && (svc == nil || plan.Belongs(&routes[i], svc)) {
				all[key] = append(all[key], c.options.Routed(gw, &routes[i])...)
			}
		}
		c.memory.addRouted(of, all)
		c.enqueueAll()
		for key := range all { // the caches may not have it
			c.queue.Add(key)
		}
	}
	return left
}

// serverGateway is the Gateway as the server has it: it says which ports its listeners have. The cache has it as new then.
func (c *Controller) serverGateway(ctx context.Context) (plan.Gateway, error) {
	k := c.caches.gateway
	list, err := c.serverList(ctx, k, metav1.ListOptions{})
	if err != nil || len(list) == 0 {
		return plan.ReadGateway(c.options.Gateway, nil, nil), err
	}
	k.wrote(&list[0])
	c.caches.readGateway()
	return plan.ReadGateway(c.options.Gateway, &list[0], nil), nil
}

func (c *Controller) serverRoutes(ctx context.Context, of plan.Kind) ([]unstructured.Unstructured, error) {
	return c.serverList(ctx, c.caches.routes[of], metav1.ListOptions{Limit: pageSize})
}

// serverList lists the objects of a kind, those that its cache is to have, in pages; none where it is not served.
func (c *Controller) serverList(ctx context.Context, k *kind, options metav1.ListOptions) (all []unstructured.Unstructured, err error) {
	version, err := k.discover(ctx, c.clients)
	if err != nil || version == "" {
		return nil, err
	}
	k.narrow(&options)
	var objects dynamic.ResourceInterface = c.clients.ReadDynamic.Resource(k.resource.WithVersion(version))
	if k.namespace != "" {
		objects = c.clients.ReadDynamic.Resource(k.resource.WithVersion(version)).Namespace(k.namespace)
	}
	for {
		list, err := objects.List(ctx, options)
		if err != nil {
			return nil, err
		}
		all = append(all, list.Items...)
		if options.Continue = list.GetContinue(); options.Continue == "" {
			return all, nil
		}
	}
}
