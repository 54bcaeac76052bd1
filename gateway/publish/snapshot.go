package publish

import (
	"context"
	"maps"
	"slices"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// decide makes the plan for a key, and notes its gateway ports before anyone else may be given them.
func (c *Controller) decide(ctx context.Context, key cache.ObjectName) plan.Plan {
	s := c.observe(ctx, key)
	p, waiting := c.decideOn(s)
	for _, other := range waiting {
		c.queue.Add(other)
	}
	return p
}

// decideOn also returns the Services that wait for a gateway port, if one may have become free.
func (c *Controller) decideOn(s plan.Snapshot) (p plan.Plan, waiting []cache.ObjectName) {
	m := c.memory
	m.mu.Lock()
	defer m.mu.Unlock()
	m.recall(&s)
	p = c.options.Decide(s)
	if delete(m.refused, s.Key); p.Refused {
		m.refused[s.Key] = true
	}
	changed, freed := m.ledger.Set(s.Key, p.Allocations)
	m.listeners.dirty = m.listeners.dirty || changed
	if freed {
		waiting = slices.Collect(maps.Keys(m.refused))
		waiting = slices.DeleteFunc(waiting, func(key cache.ObjectName) bool { return key == s.Key })
	}
	return p, waiting
}

// observe is everything that is known of a key, but for what a replica that leads remembers.
func (c *Controller) observe(ctx context.Context, key cache.ObjectName) plan.Snapshot {
	caches := c.caches
	s := plan.Snapshot{Key: key, Service: caches.services.Get(key), Served: map[plan.Kind]plan.Served{}, Now: time.Now(),
		Record: caches.records.Latest(cache.NewObjectName(c.options.Records, record.NameOf(key)))}
	if ns := caches.namespaces.Get(cache.NewObjectName("", key.Namespace)); ns != nil {
		s.Namespace = ns.Labels
	}
	s.Gateway = caches.gatewayNow()
	s.Holder = caches.holder
	s.Attached = caches.attached
	if s.Service != nil {
		s.Ready = c.hasReady(ctx, s)
	}
	written := c.memory.names(key)
	for _, of := range plan.Kinds {
		k := caches.routes[of]
		version, known := k.state()
		s.Served[of] = plan.Served{Version: version, Known: known, Err: k.problem()}
		objects := k.cached()
		if objects == nil {
			continue
		}
		names, _ := objects.Informer.GetIndexer().IndexKeys(byService, key.String())
		for _, name := range written {
			if name.Kind == of {
				names = append(names, c.options.NamespaceOf(of, key)+"/"+name.Name)
			}
		}
		if alias, err := plan.AliasOf(key); of == plan.Alias && err == nil {
			names = append(names, c.options.Aliases+"/"+alias)
		}
		slices.Sort(names)
		for _, text := range slices.Compact(names) {
			name, err := cache.ParseObjectName(text)
			if err != nil {
				continue
			}
			if obj := objects.Latest(name); obj != nil {
				s.Live = append(s.Live, &obj.Unstructured)
			}
		}
	}
	return s
}

// hasReady tells whether a Service has an endpoint that is ready. While its EndpointSlices are not known, it has one unless
// the record says otherwise.
func (c *Controller) hasReady(ctx context.Context, s plan.Snapshot) bool {
	if len(s.Service.Spec.Selector) == 0 {
		return c.hasReadyByHand(ctx, s)
	}
	if !c.caches.slices.HasSynced() {
		return recordedReady(s)
	}
	return slices.ContainsFunc(c.caches.slices.ByIndex(byService, s.Key.String()), readySlice)
}

// hasReadyByHand lists the EndpointSlices of a Service without a selector: someone makes them, without its labels.
func (c *Controller) hasReadyByHand(ctx context.Context, s plan.Snapshot) bool {
	selector := labels.Set{discoveryv1.LabelServiceName: s.Key.Name}.AsSelector().String()
	list, err := c.clients.Read.DiscoveryV1().EndpointSlices(s.Key.Namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
	if err != nil {
		return recordedReady(s)
	}
	return slices.ContainsFunc(list.Items, func(slice discoveryv1.EndpointSlice) bool { return readySlice(&slice) })
}

// recordedReady is what readers may go by for as long as nothing is known: that there is no endpoint is knowledge.
func recordedReady(s plan.Snapshot) bool {
	if s.Record == nil {
		return true
	}
	before, err := record.Parse(s.Record)
	return err != nil || before.UID != s.Service.UID || before.Ready
}

// remoteServices are the exported Services, in the order of their names.
type remoteServices remote.Services

func (s remoteServices) names() []cache.ObjectName {
	names := remote.Services(s).Names()
	slices.SortFunc(names, mirrors.CompareKeys)
	return names
}
