package publish

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/mirror/check"
	"service-mirror.io/service-mirror/remote"
)

// checkTime is how long a check waits for what must be known of the cluster, and failingTime how long where some of it
// cannot be read.
const (
	checkTime   = 30 * time.Second
	failingTime = 3 * time.Second
)

// Check prints a line for each thing that was checked, as check.Run does, and returns the same as data.
func Check(ctx context.Context, cluster *rest.Config, options Options, lease cache.ObjectName, out io.Writer) check.Result {
	r := check.NewReport("cluster "+cluster.Host, out)
	within := func(do func(ctx context.Context)) { // what is slow leaves time for the rest
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		do(ctx)
	}
	within(func(ctx context.Context) { r.Reach(ctx, cluster) })
	if r.Failed() {
		return check.ResultOf(r)
	}
	within(func(ctx context.Context) { r.Permissions(ctx, needs(options.Policy, lease)) })
	clients, err := NewClients(cluster, func(*rest.Config) {})
	if err != nil {
		r.Fail("%v", err)
		return check.ResultOf(r)
	}
	New(clients, options, klog.Logger{}).check(ctx, r)
	return check.ResultOf(r)
}

// needs are the permissions that publishing needs.
func needs(policy plan.Policy, lease cache.ObjectName) []check.Need {
	read := []string{"list", "watch"}
	write := []string{"get", "list", "watch", "create", "update", "delete"}
	all := []check.Need{
		{Resource: "services", Verbs: read},
		{Resource: "namespaces", Verbs: read},
		{Group: "discovery.k8s.io", Resource: "endpointslices", Verbs: read},
		{Resource: "configmaps", Namespace: policy.Records, Verbs: write},
		{Resource: "events", Verbs: []string{"create", "patch"}, Why: "no Events will be created"},
	}
	for _, kind := range plan.Kinds {
		verbs, resource := write, kind.Resource()
		switch {
		case policy.To(kind.Target()):
		case kind == plan.Alias:
			continue
		default:
			verbs = []string{"list", "watch", "delete"} // those that other flags have made
		}
		all = append(all, check.Need{Group: resource.Group, Resource: resource.Resource, Namespace: policy.NamespaceOf(kind, cache.ObjectName{}), Verbs: verbs})
	}
	if policy.To(plan.ToGatewayAPI) {
		all = append(all, check.Need{Group: plan.Group, Resource: "gateways", Namespace: policy.Gateway.Namespace, Name: policy.Gateway.Name, Verbs: read},
			check.Need{Group: plan.Group, Resource: "gatewayclasses", Verbs: read},
			check.Need{Group: plan.Group, Resource: "listenersets", Verbs: read, Why: "no listeners will be added with ListenerSets"},
			check.Need{Group: plan.Group, Resource: "listenersets", Namespace: policy.Records, Verbs: []string{"create", "update", "delete"}, Why: "no listeners will be added with ListenerSets"})
	} else {
		all = append(all, check.Need{Group: plan.Group, Resource: "listenersets", Namespace: policy.Records, Verbs: []string{"list", "watch", "delete"},
			Why: "ListenerSets published with --to gateway-api will not be deleted"})
	}
	return append(all, check.LeaseNeeds(lease)...)
}

// check runs the controller for as long as it takes to know what it would do.
func (c *Controller) check(ctx context.Context, r *check.Report) {
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() { end(); running.Wait() }()
	running.Go(func() { c.Run(klog.NewContext(ctx, klog.Logger{})) }) // what fails is reported
	c.awaitKnown(ctx)
	for _, problem := range c.problems.OfLocal() {
		if !r.Missing() || !strings.Contains(problem.Cause, "forbidden") { // else it was said
			r.Fail("%s cannot be read: %s", problem.Part, problem.Cause)
		}
	}
	c.checkGateway(ctx, r)
	c.checkKinds(r)
	c.checkIngressClass(ctx, r)
	c.checkRecords(r)
	c.checkAliases(r)
	if !c.workers.IsReady() {
		if !r.Failed() {
			r.Fail("exported Services cannot be read within %v: check that the API server is not overloaded", checkTime)
		}
		return
	}
	c.checkExports(ctx, r)
}

// awaitKnown waits until all is known that a plan needs, or until it is clear that some of it will not be.
func (c *Controller) awaitKnown(ctx context.Context) {
	failing := time.Time{}
	for begin := time.Now(); time.Since(begin) < checkTime; {
		if c.workers.IsReady() && c.caches.settled() {
			return
		}
		switch {
		case len(c.problems.OfLocal()) == 0:
			failing = time.Time{}
		case failing.IsZero():
			failing = time.Now()
		case time.Since(failing) > failingTime:
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// checkGateway says what is known of the Gateway and its GatewayClass.
func (c *Controller) checkGateway(ctx context.Context, r *check.Report) {
	if !c.options.To(plan.ToGatewayAPI) {
		return
	}
	version, known := c.caches.gateway.state()
	name := c.options.Gateway
	gw, class, className := c.caches.gatewayObjects()
	switch {
	case !known:
		return // why was said
	case version == "":
		r.Fail("the API server does not serve Gateways: install the CustomResourceDefinitions of Gateway API")
		return
	case gw == nil:
		r.Fail("Gateway %v does not exist: create it, or set another one with --gateway", name)
		return
	case class == nil:
		r.Warn("GatewayClass %s of Gateway %v does not exist: install its implementation, or set another class in the Gateway", className, name)
	}
	if why := plan.Unmet(gw, "Accepted", "Programmed"); why != "" {
		r.Warn("Gateway %v: %s. Check that the implementation of GatewayClass %s runs", name, why, className)
	} else {
		r.OK("Gateway %v of GatewayClass %s is accepted and programmed", name, className)
	}
	read := plan.ReadWithSets(name, gw, class, c.caches.readSets())
	var listeners []string
	for _, l := range read.Listeners {
		listeners = append(listeners, fmt.Sprintf("%s (%s, %d)", l.Key(), l.Protocol, l.Port))
		if l.Refused != "" {
			r.Warn("listener %s of Gateway %v is not served: %s", l.Key(), name, l.Refused)
		}
	}
	r.OK("Gateway %v has the listeners %s", name, strings.Join(listeners, ", "))
	if read.Managed && (!read.Sets.Used || len(read.LiveListeners()) > 0) {
		ctx, cancel := context.WithTimeout(ctx, checkTime)
		defer cancel()
		if r.Granted(ctx, patchGateway(name)) {
			r.OK("Gateway %v allows added listeners", name)
		}
	}
}

// patchGateway is the permission to apply listeners to a Gateway that is labelled for it.
func patchGateway(name cache.ObjectName) check.Need {
	return check.Need{Group: plan.Group, Resource: "gateways", Namespace: name.Namespace, Name: name.Name, Verbs: []string{"patch"},
		Why: "no listeners will be added to the Gateway, although its label allows it: grant the permission with the component listeners of deploy/publish"}
}

// checkKinds says which kinds of routes can be written.
func (c *Controller) checkKinds(r *check.Report) {
	var served []string
	for _, of := range plan.Kinds {
		if of == plan.Alias || !c.options.To(of.Target()) {
			continue
		}
		version, known := c.caches.routes[of].state()
		switch err := (plan.Served{Version: version}).Absent(of); {
		case !known:
		case err != nil:
			r.Warn("%v. Services that need it will not be reachable", err)
		default:
			served = append(served, fmt.Sprintf("%s in %s", of, version))
		}
	}
	if len(served) > 0 {
		r.OK("the API server serves %s", strings.Join(served, ", "))
	}
}

// checkIngressClass looks for the IngressClass, which publishing itself need not read.
func (c *Controller) checkIngressClass(ctx context.Context, r *check.Report) {
	if !c.options.To(plan.ToIngress) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	name := c.options.IngressClass
	list, err := c.clients.Read.NetworkingV1().IngressClasses().List(ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String()})
	switch {
	case err != nil:
		r.Warn("cannot check whether IngressClass %s exists: %s. Only --check reads it", name, remote.Cause(err))
	case len(list.Items) == 0:
		r.Fail("IngressClass %s does not exist: install its ingress controller, or set another one with --ingress-class", name)
	default:
		r.OK("IngressClass %s of %s exists", name, list.Items[0].Spec.Controller)
	}
}

// checkRecords looks for the namespace of the records.
func (c *Controller) checkRecords(r *check.Report) {
	name := c.options.Records
	switch {
	case !c.caches.namespaces.HasSynced():
	case !c.caches.hasNamespace(name):
		r.Fail("namespace %s of the records does not exist: create it, or set another one with --record-namespace", name)
	case c.caches.records.Informer.HasSynced():
		r.OK("namespace %s has %d records", name, len(c.caches.records.Informer.GetIndexer().ListKeys()))
	}
}

// checkAliases looks for the namespace of the aliases.
func (c *Controller) checkAliases(r *check.Report) {
	if !c.options.To(plan.ToNames) {
		return
	}
	name, aliases := c.options.Aliases, c.caches.routes[plan.Alias]
	_, known := aliases.state()
	switch {
	case !c.caches.namespaces.HasSynced():
	case !c.caches.hasNamespace(name):
		r.Fail("namespace %s of the aliases does not exist: create it with the component names of deploy/publish, or set another one with --names-namespace", name)
	case known:
		r.OK("namespace %s has %d aliases", name, len(aliases.cached().Informer.GetIndexer().ListIndexFuncValues(byService)))
	}
}

// checkExports says what would become of what is exported.
func (c *Controller) checkExports(ctx context.Context, r *check.Report) {
	exported := remoteServices{c.caches.services}.names()
	if len(exported) == 0 {
		r.NoExports(c.options.Selector)
		return
	}
	c.memory.fill(c.caches.records.Informer.All())
	there, err := c.listNames(ctx)
	if err != nil {
		r.Warn("cannot check whether routes conflict with existing objects: %s", remote.Cause(err))
	}
	tally := check.Tally{Done: "published"}
	for _, key := range exported {
		p := c.decide(ctx, key)
		foreign := false
		for _, step := range p.Steps {
			if step.Action == plan.Create && there[placed{key.Namespace, step.Ref}] {
				c.memory.foreign(key, step.Ref, time.Now())
				foreign = true
			}
		}
		if foreign {
			p = c.decide(ctx, key)
		}
		tally.Add(key, p.Problems)
	}
	r.Exports(tally)
}

// placed is an object of a kind in a namespace.
type placed struct {
	namespace string
	ref       plan.Ref
}

// listNames lists what has the names of routes, whoever owns it: foreign ones, but for aliases, are in no cache.
func (c *Controller) listNames(ctx context.Context) (map[placed]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	there := map[placed]bool{}
	for _, kind := range slices.Sorted(maps.Keys(c.caches.routes)) {
		version, known := c.caches.routes[kind].state()
		if !known || version == "" || kind == plan.Alias {
			continue
		}
		list, err := c.clients.Metadata.Resource(kind.Resource().WithVersion(version)).List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", kind.Resource(), err)
		}
		for _, obj := range list.Items {
			there[placed{obj.Namespace, plan.Ref{Kind: kind, Name: obj.Name}}] = true
		}
	}
	return there, nil
}
