package mirror

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"service-mirror.io/service-mirror/mirror/plan"
)

// step makes one change. The random numbers that it uses must not depend on the state of
// the local cluster, or a seed would not reproduce the walk.
func (w *walk) step(g generator) {
	steps := []struct {
		weight int
		do     func(g generator)
	}{
		{18, w.exports}, {4, w.unexports}, {12, w.gateways}, {8, w.knows}, {3, w.namespaces},
		{6, w.foreignObjectsAppear}, {4, w.foreignObjectsGo}, {10, w.editsService}, {6, w.editsEndpoints}, {6, w.deletes},
		{6, w.replicasChange}, {4, w.pausesWatches}, {8, w.faults}, {3, w.renames}, {40, w.waits},
	}
	total := 0
	for _, one := range steps {
		total += one.weight
	}
	n := g.IntN(total)
	for _, one := range steps {
		if n -= one.weight; n < 0 {
			one.do(g)
			return
		}
	}
}

func (w *walk) remote(g generator) *walkRemote { return w.remotes[pickOne(g, walkRemotes...)] }

func (w *walk) place(g generator) *place { return w.places[g.IntN(len(w.places))] }

func sourceName(g generator) cache.ObjectName {
	return cache.NewObjectName(pickOne(g, walkNamespaces...), pickOne(g, walkNames...))
}

func only(key cache.ObjectName) func(cache.ObjectName) bool {
	return func(other cache.ObjectName) bool { return other == key }
}

func of(remote string) func(cache.ObjectName) bool {
	return func(key cache.ObjectName) bool { return strings.HasSuffix(key.Name, "-"+remote) }
}

func inNamespace(namespace string) func(cache.ObjectName) bool {
	return func(key cache.ObjectName) bool { return key.Namespace == namespace }
}

func (w *walk) exports(g generator) {
	r, source := w.remote(g), sourceName(g)
	e := export{
		ports:    pickOne(g, "http https", "http", "https http db", "db", "http dns", "dns", "db https"),
		affinity: g.IntN(4) == 0, team: pickOne(g, "", "blue", "red"), note: pickOne(g, "", "hello"),
		forged: g.IntN(6) == 0,
	}
	if g.IntN(8) == 0 {
		e.refused = pickOne(g, "headless", "external", "mirror")
	}
	if chosen := pickOne(g, "", "", walkChosen[0], walkChosen[1], walkChosen[2]); w.renaming {
		e.name = chosen
	}
	again := g.IntN(4) == 0
	w.note("%s exports %v as %+v, recreated %v", r.name, source, e, again)
	if _, is := r.exports[source]; is && again {
		w.unexport(r, source)
	}
	r.exports[source] = e
	r.export(e.service(source.Namespace, source.Name))
	if w.renaming {
		w.moved()
	}
	w.happened(w.affects(only(plan.Naming{Cluster: r.name}.KeyByTemplate(source))))
}

func (w *walk) unexports(g generator) {
	r, source := w.remote(g), sourceName(g)
	w.note("%s unexports %v", r.name, source)
	if _, is := r.exports[source]; is {
		w.unexport(r, source)
	}
}

func (w *walk) unexport(r *walkRemote, source cache.ObjectName) {
	delete(r.exports, source)
	r.fakeRemote.unexport(named(source.Namespace, source.Name))
	w.happened(w.affects(only(plan.Naming{Cluster: r.name}.KeyByTemplate(source))))
}

func (w *walk) gateways(g generator) {
	r := w.remote(g)
	r.gateway = nil
	if g.IntN(6) > 0 {
		r.gateway = &modelGateway{one: g.IntN(3) == 0, addresses: map[string]string{}, partial: g.IntN(4) == 0}
		for i := range g.IntN(5) {
			r.gateway.addresses[fmt.Sprintf("192.0.2.%d", i+g.IntN(2))] = pickOne(g, "+", "+", "-", "?")
		}
	}
	w.note("the gateway of %s is %+v", r.name, r.gateway)
	r.setGateway(r.gateway.gateway())
	w.happened(w.affects(of(r.name)))
}

func (w *walk) knows(g generator) {
	r := w.remote(g)
	r.known = g.IntN(4) > 0
	w.note("%s is known: %v", r.name, r.known)
	r.know(r.known)
	w.happened(func(cache.ObjectName) bool { return true }) // any may be labelled as this remote's
}

// namespaces creates and deletes the namespace of shops.
func (w *walk) namespaces(generator) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
	switch w.shop {
	case "gone":
		w.shop = "there"
		w.server.put(ns)
	case "there":
		w.shop = "going"
		now := metav1Now()
		ns.DeletionTimestamp = &now
		w.server.put(ns)
		w.happened(inNamespace("shop"))
		w.note("the namespace empties")
		for _, p := range w.places {
			if p.key.Namespace == "shop" {
				w.remove(p, true, true)
			}
		}
	case "going":
		w.shop = "gone"
		w.server.remove("namespaces", "", "shop")
	}
	w.note("the namespace is %s", w.shop)
	w.happened(inNamespace("shop"))
}

// remove deletes the objects of a key, whoever owns them.
func (w *walk) remove(p *place, service, endpoints bool) {
	w.touch(p.key)
	p.bare = p.bare && !service
	if service {
		must(ignoreNotFound(w.server.tryRemove("services", p.key)))
		w.forget("services", p.key)
	}
	if endpoints {
		must(ignoreNotFound(w.server.tryRemove("endpoints", p.key)))
		w.forget("endpoints", p.key)
	}
	for _, r := range w.replicas {
		select {
		case <-r.controller.Ready():
		default: // may have started too late to see them
			p.newIP = p.newIP || service
		}
	}
	// A create that is under way succeeds all the same.
	without := func(now halves, service, endpoints bool) halves {
		if service {
			now.svc = half{}
		}
		if endpoints {
			now.eps = half{}
		}
		return now
	}
	gone := p.may.each(func(now halves) halves { return without(now, service, endpoints) })
	if service && endpoints {
		// Either event may come first, and the object be recreated.
		for _, first := range []bool{true, false} {
			one := p.may.each(func(now halves) halves { return without(now, first, !first) })
			one.close(w.surroundings(p.key))
			maps.Copy(gone, one.each(func(now halves) halves { return without(now, !first, first) }))
		}
	}
	for now := range p.may {
		if !(service && now.svc.kind == theirs || endpoints && now.eps.kind == theirs) {
			gone[now] = true
		}
	}
	// So is what was tried while a foreign one was in the way.
	for now := range maps.Clone(gone) {
		for tried := range p.tried {
			if endpoints {
				gone[halves{now.svc, tried}] = true
			}
		}
	}
	for _, before := range p.unseen {
		if service {
			maps.Copy(gone, before)
		}
	}
	if endpoints { // and those that were ours since may be remembered
		for now := range maps.Clone(gone) {
			for had := range p.had {
				if now.eps.kind == absent {
					gone[halves{now.svc, had.lost(half{})}] = true
				}
			}
		}
	}
	p.may = gone
}

func (w *walk) deletes(g generator) {
	p, which := w.place(g), pickOne(g, "pair", "service", "endpoints")
	w.note("someone deletes the %s %v", which, p.key)
	w.remove(p, which != "endpoints", which != "service")
	w.happened(only(p.key))
}

// there reports whether objects can be created under a key.
func (w *walk) there(p *place) bool {
	return len(p.key.Name) <= 63 && (p.key.Namespace != "shop" || w.shop == "there")
}

func (w *walk) foreignObjectsAppear(g generator) {
	p, which, selector, owned := w.place(g), pickOne(g, "pair", "service", "endpoints"), g.IntN(2) == 0, g.IntN(4) == 0
	w.note("someone creates their %s %v, with our labels %v", which, p.key, owned)
	if !w.there(p) {
		return
	}
	if which != "endpoints" {
		theirs := foreignService()
		theirs.Namespace, theirs.Name = p.key.Namespace, p.key.Name
		if !selector {
			theirs.Spec.Selector = nil
		}
		if owned {
			theirs.Labels = map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: "paris"}
			theirs.Annotations = map[string]string{plan.MirrorAnnotation: p.key.String()}
		}
		if w.setService(p, w.server.add(theirs)) {
			p.bare, p.faults = w.fresh(p), w.faultsYet()
		}
	}
	if which != "service" {
		theirs := foreignEndpoints()
		theirs.Namespace, theirs.Name = p.key.Namespace, p.key.Name
		w.setEndpoints(p, w.server.add(theirs))
	}
	w.happened(only(p.key))
}

// setService updates the model with a Service that someone has written, if any. A write
// of a controller that is under way fails with a conflict or AlreadyExists.
func (w *walk) setService(p *place, made runtime.Object) bool {
	svc, ok := made.(*corev1.Service)
	if !ok {
		return false
	}
	p.bare = false
	w.touch(p.key)
	now := serviceHalf(svc)
	w.forget("services", p.key)
	if now.kind == theirs {
		w.foreign["services "+p.key.String()] = svc
	}
	if now.kind != ours || now.owner != p.owner {
		p.another, p.newIP = true, true
	}
	if now.kind == theirs || now.owner != p.owner {
		p.unseen = append(p.unseen, p.may)
	}
	p.may = p.may.each(func(h halves) halves { return halves{now, h.eps} })
	return true
}

func (w *walk) setEndpoints(p *place, made runtime.Object) {
	endpoints, ok := made.(*corev1.Endpoints)
	if !ok {
		return
	}
	p.bare = false
	w.touch(p.key)
	now := endpointsHalf(endpoints)
	w.forget("endpoints", p.key)
	if now.kind == theirs {
		w.foreign["endpoints "+p.key.String()] = endpoints
	}
	p.may = p.may.each(func(h halves) halves { return halves{h.svc, now} })
}

func (w *walk) foreignObjectsGo(generator) {
	w.note("the foreign objects are deleted")
	for _, p := range w.places {
		service, endpoints := w.foreign["services "+p.key.String()] != nil, w.foreign["endpoints "+p.key.String()] != nil
		if service || endpoints {
			w.remove(p, service, endpoints)
			w.happened(only(p.key))
		}
	}
}

func (w *walk) editsService(g generator) {
	p, which, owner := w.place(g), g.IntN(10), pickOne(g, append([]string{"rome"}, walkRemotes...)...)
	w.note("someone edits Service %v, way %d, %s", p.key, which, owner)
	w.setService(p, w.server.edit("services", p.key, func(obj runtime.Object) bool {
		return editService(obj.(*corev1.Service), which, owner)
	}))
	w.happened(only(p.key))
}

// editService is one of ten ways to edit a Service; most are tried on mirrors only.
func editService(svc *corev1.Service, which int, owner string) bool {
	if serviceHalf(svc).kind != ours && which > 2 {
		return false
	}
	switch which {
	case 0:
		delete(svc.Labels, plan.ClusterLabel)
	case 1, 2:
		svc.Labels = map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: owner}
		metav1.SetMetaDataAnnotation(&svc.ObjectMeta, plan.MirrorAnnotation, cache.MetaObjectToName(svc).String())
	case 3:
		svc.Spec.Ports = []corev1.ServicePort{{Name: "evil", Port: 666, Protocol: corev1.ProtocolTCP}}
	case 4:
		svc.Spec.Selector = map[string]string{"app": "evil"}
	case 5:
		svc.Spec.Type = corev1.ServiceTypeNodePort
	case 6:
		svc.Spec.SessionAffinity, svc.Spec.SessionAffinityConfig = corev1.ServiceAffinityClientIP, nil
	case 7:
		svc.Annotations = map[string]string{"hers": "1"}
	case 8:
		svc.Labels["his"] = "1"
		svc.Labels["service.kubernetes.io/service-proxy-name"] = "mesh"
	case 9:
		local := corev1.ServiceInternalTrafficPolicyLocal
		svc.Spec.InternalTrafficPolicy = &local
		slices.Reverse(svc.Spec.Ports)
	}
	return true
}

func (w *walk) editsEndpoints(g generator) {
	p, which, owner := w.place(g), g.IntN(7), pickOne(g, append([]string{"rome"}, walkRemotes...)...)
	w.note("someone edits Endpoints %v, way %d, %s", p.key, which, owner)
	w.setEndpoints(p, w.server.edit("endpoints", p.key, func(obj runtime.Object) bool {
		return editEndpoints(obj.(*corev1.Endpoints), which, owner)
	}))
	w.happened(only(p.key))
}

// editEndpoints is one of seven ways to edit Endpoints; most are tried on ours only.
func editEndpoints(eps *corev1.Endpoints, which int, owner string) bool {
	if endpointsHalf(eps).kind != ours && which > 1 {
		return false
	}
	switch which {
	case 0:
		delete(eps.Labels, plan.ManagedByLabel)
	case 1, 2:
		eps.Labels = map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: owner}
		metav1.SetMetaDataAnnotation(&eps.ObjectMeta, plan.MirrorAnnotation, cache.MetaObjectToName(eps).String())
	case 3:
		eps.Subsets = nil
	case 4:
		eps.Subsets = foreignEndpoints().Subsets
	case 5:
		eps.Labels["endpointslice.kubernetes.io/skip-mirror"] = "true"
		eps.Labels["his"] = "1"
	case 6:
		eps.Subsets = append(eps.Subsets, corev1.EndpointSubset{NotReadyAddresses: []corev1.EndpointAddress{{IP: "192.0.2.77"}}})
	}
	return true
}

func (w *walk) pausesWatches(g generator) {
	w.paused = g.IntN(2) == 0
	w.note("watches are paused: %v", w.paused)
	w.server.pauseWatches(w.paused)
}

func (w *walk) faults(g generator) {
	faulty := g.IntN(4) > 0
	w.note("the API server fails: %v", faulty)
	w.mu.Lock()
	w.faulty = faulty
	w.mu.Unlock()
}

func (w *walk) waits(g generator) {
	d := time.Duration(g.IntN(3000)) * time.Millisecond
	w.note("time passes: %v", d)
	w.wait(d)
	if !w.paused {
		w.seen()
	}
}
