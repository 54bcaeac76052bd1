package publish

import (
	"context"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// byChosen is the index of exported Services by the names and gateway ports that their annotations choose.
const byChosen = "chosen"

// byAlias is the index of exported Services by their aliases, with --to names.
const byAlias = "alias"

// byMade is the index of exported Services by the names that are made for them.
const byMade = "made"

// hooks are called when something has changed; never under a lock.
type hooks struct {
	changed func(cache.ObjectName) // of an exported Service: it, its endpoints, its routes or its record
	all     func()                 // something that concerns all of them
	report  func(part string, err error)
}

// caches are what is read of the cluster.
type caches struct {
	policy     plan.Policy
	clients    Clients
	hooks      hooks
	services   *remote.Informer[*corev1.Service]
	slices     *remote.Informer[*discoveryv1.EndpointSlice]
	namespaces *remote.Informer[*metav1.PartialObjectMetadata]
	records    remote.Written[*corev1.ConfigMap]
	routes     map[plan.Kind]*kind
	gateway    *kind // nil where no Gateway is needed, as class
	class      *kind
	sets       *kind    // ListenerSets
	outside    *outside // nil where no Service is in front of the Gateway, as far as is known

	mu      sync.Mutex
	current plan.Gateway // as it was last read
}

func newCaches(policy plan.Policy, selector string, clients Clients, hooks hooks) *caches {
	c := &caches{policy: policy, clients: clients, hooks: hooks, routes: map[plan.Kind]*kind{}}
	core := clients.Read.CoreV1()
	exported := func(options *metav1.ListOptions) { options.LabelSelector = selector }
	c.services = inform(c, core.Services(metav1.NamespaceAll), exported, "exported services", &corev1.Service{}, policy.Trim)
	c.services.Index(byChosen, policy.Chosen)
	c.services.Index(byMade, policy.MadeKeys)
	if policy.To(plan.ToNames) {
		c.services.Index(byAlias, func(svc *corev1.Service) []string {
			alias, err := plan.AliasOf(cache.MetaObjectToName(svc))
			if err != nil {
				return nil
			}
			return []string{alias}
		})
	}
	c.services.Index(byNamespace, func(svc *corev1.Service) []string { return []string{svc.Namespace} })
	// Kubernetes copies the labels of a Service onto its EndpointSlices.
	c.slices = inform(c, clients.Read.DiscoveryV1().EndpointSlices(metav1.NamespaceAll), exported, "endpointslices", &discoveryv1.EndpointSlice{}, trimSlice)
	c.slices.Index(byService, func(slice *discoveryv1.EndpointSlice) []string { return []string{serviceOf(slice).String()} })
	meta := clients.Metadata.Resource(corev1.SchemeGroupVersion.WithResource("namespaces"))
	c.namespaces = inform(c, meta, func(*metav1.ListOptions) {}, "namespaces", &metav1.PartialObjectMetadata{}, mirrors.TrimMetadata)
	c.informRecords()
	for _, of := range plan.Kinds {
		// In all namespaces: those that other flags have made are deleted.
		narrow := ofOurs
		if of == plan.Alias && policy.To(plan.ToNames) { // foreign ones are to be seen, and their namespace has nothing else
			narrow = func(*metav1.ListOptions) {}
		}
		c.routes[of] = &kind{resource: of.Resource(), versions: of.Versions(), namespace: policy.NamespaceOf(of, cache.ObjectName{}), changed: c.routeChanged, synced: hooks.all,
			narrow: narrow}
	}
	for _, of := range []plan.Kind{plan.TCPRoute, plan.UDPRoute} {
		c.routes[of].listeners = policy.Attached
	}
	if policy.To(plan.ToGatewayAPI) {
		c.gateway, c.class = gatewayKind(policy), classKind()
		for _, k := range []*kind{c.gateway, c.class} {
			k.changed, k.synced = func(_, _ *remote.Unstructured) { c.readGateway() }, c.readGateway
		}
	}
	c.newSets()
	if policy.GatewayService != (cache.ObjectName{}) {
		c.outside = newOutside(c)
	}
	c.handle()
	return c
}

// ofOurs narrows a list of routes to those with our labels.
func ofOurs(options *metav1.ListOptions) {
	options.LabelSelector = mirrors.ManagedByLabel + "=" + mirrors.ManagedBy + "," + plan.ServiceLabel
}

// gatewayVersions are those in which the Gateway and its class are read.
var gatewayVersions = []string{"v1", "v1beta1"}

// gatewayKind is the kind of which there is only the Gateway that routes attach to.
func gatewayKind(policy plan.Policy) *kind {
	return &kind{resource: schema.GroupResource{Group: plan.Group, Resource: "gateways"}, versions: gatewayVersions, namespace: policy.Gateway.Namespace,
		narrow: func(options *metav1.ListOptions) {
			options.FieldSelector = fields.OneTermEqualSelector(metav1.ObjectNameField, policy.Gateway.Name).String()
		}}
}

func classKind() *kind {
	return &kind{resource: schema.GroupResource{Group: plan.Group, Resource: "gatewayclasses"}, versions: gatewayVersions, narrow: func(*metav1.ListOptions) {}}
}

// byNamespace is the index of exported Services by their namespace.
const byNamespace = "namespace"

// inform makes the cache of objects of all namespaces.
func inform[T remote.Object, L runtime.Object](c *caches, objects remote.Lister[L], narrow func(*metav1.ListOptions), part string, example T, trim func(T) T) *remote.Informer[T] {
	return informIn(c, objects, metav1.NamespaceAll, narrow, part, example, trim)
}

func informIn[T remote.Object, L runtime.Object](c *caches, objects remote.Lister[L], namespace string, narrow func(*metav1.ListOptions), part string, example T, trim func(T) T) *remote.Informer[T] {
	lw := remote.NewListWatch(objects, narrow)
	lw.Namespace, lw.Client = namespace, c.clients.Read
	lw.Report = func(err error) { c.hooks.report(part, err) }
	return remote.NewInformer(lw, example, trim)
}

func (c *caches) informRecords() {
	lw := remote.NewListWatch(c.clients.Read.CoreV1().ConfigMaps(c.policy.Records), func(options *metav1.ListOptions) { options.LabelSelector = record.Label })
	lw.Namespace, lw.Client = c.policy.Records, c.clients.Read
	lw.Report = func(err error) { c.hooks.report("records", err) }
	lw.Reset = func() { c.records.Reset() }
	c.records.Informer = remote.NewInformer(lw, &corev1.ConfigMap{}, func(configMap *corev1.ConfigMap) *corev1.ConfigMap {
		configMap.ManagedFields = nil
		return configMap
	})
	c.records.Again = c.recordChanged
}

// trimSlice leaves of an EndpointSlice whose it is, and whether any of its endpoints is ready.
func trimSlice(slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	trimmed := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: slice.Namespace, Name: slice.Name, UID: slice.UID, ResourceVersion: slice.ResourceVersion,
			Labels: map[string]string{discoveryv1.LabelServiceName: slice.Labels[discoveryv1.LabelServiceName]}},
	}
	if ready := readySlice(slice); ready {
		trimmed.Endpoints = []discoveryv1.Endpoint{{Conditions: discoveryv1.EndpointConditions{Ready: &ready}}}
	}
	return trimmed
}

// readySlice tells whether an endpoint is ready; one of which that is not known is, as kube-proxy has it. What another
// cluster serves while the Service fails over does not count: of two that fail over to each other, both would be ready.
func readySlice(slice *discoveryv1.EndpointSlice) bool {
	beside := slice.Labels[discoveryv1.LabelManagedBy] == mirrors.SliceManager && slice.Labels[mirrors.FailoverLabel] != ""
	return !beside && slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.Conditions.Ready == nil || *e.Conditions.Ready
	})
}

func serviceOf(slice *discoveryv1.EndpointSlice) cache.ObjectName {
	return cache.NewObjectName(slice.Namespace, slice.Labels[discoveryv1.LabelServiceName])
}

// handle turns what happens in the cluster into keys.
func (c *caches) handle() {
	c.services.Handle(remote.Handler[*corev1.Service]{
		Added:   func(svc *corev1.Service) { c.serviceChanged(nil, svc) },
		Updated: c.serviceChanged,
		Deleted: func(name cache.ObjectName, last *corev1.Service) {
			if last != nil {
				c.serviceChanged(last, nil)
			}
			c.hooks.changed(name)
		},
	})
	c.slices.Handle(remote.Handler[*discoveryv1.EndpointSlice]{
		Added: func(slice *discoveryv1.EndpointSlice) { c.hooks.changed(serviceOf(slice)) },
		Updated: func(before, slice *discoveryv1.EndpointSlice) {
			if serviceOf(before) != serviceOf(slice) || readySlice(before) != readySlice(slice) {
				c.hooks.changed(serviceOf(before))
				c.hooks.changed(serviceOf(slice))
			}
		},
		Deleted: func(_ cache.ObjectName, last *discoveryv1.EndpointSlice) {
			if last != nil {
				c.hooks.changed(serviceOf(last))
			}
		},
	})
	c.records.Informer.Handle(remote.Handler[*corev1.ConfigMap]{
		Known:   c.records.Known,
		Added:   c.recordChanged,
		Updated: func(_, configMap *corev1.ConfigMap) { c.recordChanged(configMap) },
		Deleted: func(name cache.ObjectName, _ *corev1.ConfigMap) {
			c.recordChanged(&corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: name.Namespace, Name: name.Name}})
		},
	})
	c.namespaces.Handle(remote.Handler[*metav1.PartialObjectMetadata]{
		Added: func(ns *metav1.PartialObjectMetadata) { c.namespaceChanged(ns.Name) },
		Updated: func(before, ns *metav1.PartialObjectMetadata) {
			if !maps.Equal(before.Labels, ns.Labels) {
				c.namespaceChanged(ns.Name)
			}
		},
		Deleted: func(cache.ObjectName, *metav1.PartialObjectMetadata) {},
	})
}

// holder is the exported Service that has a name or a gateway port: the oldest of those for which the name is made or,
// without any, of those that claim it; zero: none.
func (c *caches) holder(claim string) cache.ObjectName {
	services := remote.Services{c.services}
	var made []cache.ObjectName
	for _, key := range c.policy.MadeKeysOf(claim) {
		made = append(made, services.NamesByIndex(byMade, key)...)
	}
	switch len(made) {
	case 0:
		return services.Oldest(byChosen, claim)
	case 1:
		return made[0]
	}
	return services.Oldest("", "", made...)
}

// rivals are the exported Services that claim a name or a gateway port.
func (c *caches) rivals(claim string) []cache.ObjectName {
	services := remote.Services{c.services}
	all := services.NamesByIndex(byChosen, claim)
	for _, key := range c.policy.MadeKeysOf(claim) {
		all = append(all, services.NamesByIndex(byMade, key)...)
	}
	return all
}

// serviceChanged enqueues an exported Service, and those that claim what it claimed, or claims now: they may get it, or
// must yield it.
func (c *caches) serviceChanged(before, after *corev1.Service) {
	var had, has sets.Set[string]
	if before != nil {
		c.hooks.changed(cache.MetaObjectToName(before))
		had = sets.New(c.policy.Claims(before)...)
	}
	if after != nil {
		c.hooks.changed(cache.MetaObjectToName(after))
		has = sets.New(c.policy.Claims(after)...)
	}
	news := had.SymmetricDifference(has)
	if before != nil && after != nil && (before.UID != after.UID || !before.CreationTimestamp.Equal(&after.CreationTimestamp)) {
		news = had.Union(has) // it is another one, of another age
	}
	for claim := range news {
		for _, rival := range c.rivals(claim) {
			c.hooks.changed(rival)
		}
	}
}

func (c *caches) namespaceChanged(namespace string) {
	if namespace == c.policy.Records {
		c.readGateway() // which may allow ListenerSets by its labels
	}
	for _, name := range (remote.Services{c.services}).NamesByIndex(byNamespace, namespace) {
		c.hooks.changed(name)
	}
}

func (c *caches) recordChanged(configMap *corev1.ConfigMap) {
	if key, ok := plan.RecordKey(configMap); ok {
		c.hooks.changed(key)
	}
}

func (c *caches) routeChanged(before, after *remote.Unstructured) {
	for _, obj := range []*remote.Unstructured{before, after} {
		if obj == nil {
			continue
		}
		if key, ours := plan.KeyOf(obj); ours {
			c.hooks.changed(key)
		}
		if plan.Kind(obj.GetKind()) == plan.Alias && c.policy.To(plan.ToNames) {
			for _, key := range (remote.Services{c.services}).NamesByIndex(byAlias, obj.GetName()) {
				c.hooks.changed(key)
			}
		}
	}
	if before != nil && (after == nil || !slices.Equal(c.policy.Attached(&before.Unstructured), c.policy.Attached(&after.Unstructured))) {
		c.hooks.changed(listenersKey) // one may no longer be needed
	}
}

// readGateway reads the Gateway, if one is given, as it is now, and has all looked at again if it has changed.
func (c *caches) readGateway() {
	if c.gateway == nil {
		return
	}
	c.mu.Lock() // of two that read at once, the one that reads later must also be the one that stores later
	now, err := c.lookAtGateway()
	same := plan.SameGateway(c.current, now)
	c.current = now
	c.mu.Unlock()
	if c.outside != nil {
		c.hooks.report("ports of the gateway Service", err)
	}
	if !same {
		c.hooks.all()
	}
}

// hasNamespace tells whether a namespace exists, as far as is known.
func (c *caches) hasNamespace(name string) bool {
	return c.namespaces.Get(cache.NewObjectName("", name)) != nil
}

// gatewayNow is the Gateway as it was last read.
func (c *caches) gatewayNow() plan.Gateway {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// followsGateway tells whether the Gateway was read since its caches last changed.
func (c *caches) followsGateway() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, _ := c.lookAtGateway()
	return plan.SameGateway(c.current, now)
}

// lookAtGateway reads it from the caches. The error says why it is not known how it is reached.
func (c *caches) lookAtGateway() (plan.Gateway, error) {
	_, known := c.gateway.state()
	if _, classKnown := c.class.state(); !known || !classKnown {
		return plan.Gateway{}, nil // what its implementation can do decides, too
	}
	gw, class, _ := c.gatewayObjects()
	read := plan.ReadWithSets(c.policy.Gateway, gw, class, c.readSets())
	if c.outside != nil {
		var err error
		if read.Outside, err = c.outside.read(); err != nil {
			return plan.Gateway{}, err
		}
	}
	return read, nil
}

// gatewayObjects are the Gateway and its GatewayClass as they were last read; nil: there is none, as far as is known.
func (c *caches) gatewayObjects() (gw, class *unstructured.Unstructured, className string) {
	version, _ := c.gateway.state()
	if objects := c.gateway.cached(); version != "" && objects != nil {
		if obj := objects.Latest(c.policy.Gateway); obj != nil {
			gw = &obj.Unstructured
			className, _, _ = unstructured.NestedString(gw.Object, "spec", "gatewayClassName")
		}
	}
	if objects := c.class.cached(); gw != nil && objects != nil {
		if obj := objects.Informer.Get(cache.NewObjectName("", className)); obj != nil {
			class = &obj.Unstructured
		}
	}
	return gw, class, className
}

// attached are the exported Services to which a route of a kind belongs that attaches to a listener of the Gateway.
func (c *caches) attached(of plan.Kind, listener string) (keys []cache.ObjectName) {
	for _, route := range c.routes[of].attached(listener) {
		if key, ours := plan.KeyOf(route); ours && plan.Belongs(route, c.services.Get(key)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// run keeps the caches filled until the context ends.
func (c *caches) run(ctx context.Context, running *sync.WaitGroup) {
	for _, informer := range []cache.SharedIndexInformer{c.services, c.slices, c.namespaces, c.records.Informer} {
		running.Go(func() { informer.RunWithContext(ctx) })
	}
	if c.outside != nil {
		running.Go(func() { c.outside.services.RunWithContext(ctx) })
		running.Go(func() { c.outside.slices.RunWithContext(ctx) })
		running.Go(func() {
			if cache.WaitFor(ctx, "", c.outside.services.HasSyncedChecker(), c.outside.slices.HasSyncedChecker()) {
				c.readGateway() // what does not exist has no event
			}
		})
	}
	running.Go(func() {
		if cache.WaitFor(ctx, "", c.slices.HasSyncedChecker()) {
			c.hooks.all() // what has none has no event of that
		}
	})
	kinds := slices.Collect(maps.Values(c.routes))
	if c.gateway != nil {
		kinds = append(kinds, c.gateway, c.class)
	}
	for _, k := range kinds {
		running.Go(func() { k.keep(ctx, c.clients, c.hooks.report) })
	}
	running.Go(func() { c.sets.keep(ctx, c.clients, c.reportSets) })
}

// synced waits until exported Services may be judged; false if the context ends first. Without the records, gateway
// ports could be given twice.
func (c *caches) synced(ctx context.Context) bool {
	return cache.WaitFor(ctx, "", c.services.HasSyncedChecker(), c.records.Informer.HasSyncedChecker(), c.namespaces.HasSyncedChecker())
}

// settled tells whether all is known that is needed for a whole answer, as a dry run prints one.
func (c *caches) settled() bool {
	known := c.slices.HasSynced()
	for _, k := range c.routes {
		_, ok := k.state()
		known = known && ok
	}
	if c.gateway != nil {
		_, ok := c.gateway.state()
		_, class := c.class.state()
		known = known && ok && class && c.followsGateway() && c.gatewayNow().Sets.Unknown == ""
	} else {
		_, ok := c.sets.state()
		known = known && ok
	}
	if c.outside != nil {
		known = known && c.outside.services.HasSynced() && c.outside.slices.HasSynced()
	}
	return known
}

// keys are all keys: of what is exported, and of what exists for what was. Some are there twice.
func (c *caches) keys() []cache.ObjectName {
	keys := remote.Services{c.services}.Names()
	for _, text := range c.records.Informer.GetIndexer().ListKeys() { // no record is decoded for its name
		if name, err := cache.ParseObjectName(text); err == nil {
			if key := record.ServiceOf(name.Name); key != (cache.ObjectName{}) {
				keys = append(keys, key)
			}
		}
	}
	for _, k := range c.routes {
		if objects := k.cached(); objects != nil {
			for _, text := range objects.Informer.GetIndexer().ListIndexFuncValues(byService) {
				if key, err := cache.ParseObjectName(text); err == nil {
					keys = append(keys, key)
				}
			}
		}
	}
	return keys
}
