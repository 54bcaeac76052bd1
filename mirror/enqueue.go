package mirror

import (
	"cmp"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/remote"
)

// enqueuer turns what happens in a cluster into the keys that must be looked at.
type enqueuer struct {
	queue   *queue.Queue
	remotes *remotes
	local   *local.Cluster
	logger  klog.Logger
}

// How a remote's cache is indexed.
const (
	byName      = "name"      // exported Services, by the name that they choose for their mirrors
	byNamespace = "namespace" // exported Services, by their namespace
	byChoice    = "choice"    // exported Services, by the gateway ports that they choose
)

// indexes are those over a remote's exported Services.
var indexes = map[string]func(*corev1.Service) []string{
	byName: func(svc *corev1.Service) []string {
		if name := svc.Annotations[plan.NameAnnotation]; name != "" {
			return []string{name}
		}
		return nil
	},
	byNamespace:    func(svc *corev1.Service) []string { return []string{svc.Namespace} },
	byChoice:       gateway.Choices,
	remote.ByClaim: remote.Claims,
}

// exportChanged enqueues the mirror of an exported Service, and those of Services that claim or choose a gateway port
// which it had, or has now: they may get it, or must yield it. It returns all of these Services.
func (e *enqueuer) exportChanged(cluster string, before, after *corev1.Service) (concerned []cache.ObjectName) {
	naming := e.remotes.policy().Names.Of(cluster)
	self := cache.MetaObjectToName(cmp.Or(after, before))
	keys := e.mirrors(cluster, self)
	for _, svc := range []*corev1.Service{before, after} {
		if svc != nil {
			keys.Insert(naming.Key(svc)) // it may choose another name
		}
	}
	e.enqueueEach(cluster, keys)
	had, has := claimsOf(before), claimsOf(after)
	fresh := another(before, after)
	concerned = []cache.ObjectName{self}
	if !fresh && len(had)+len(has) == 0 {
		return concerned // as most often
	}
	view, ok := e.remotes.view(cluster)
	if !ok {
		return concerned
	}
	if fresh { // by the same record it may have a gateway port now, or no more
		alone := view.ClaimedAlone(self)
		had, has = had.Union(sets.New(alone...)), has.Union(sets.New(alone...))
	} else {
		had, has = had.Difference(has), has.Difference(had)
	}
	return append(concerned, e.rivals(cluster, view, self, had, has)...)
}

// another tells whether an exported Service came or went, is not the one from before, or is behind another gateway.
func another(before, after *corev1.Service) bool {
	return before == nil || after == nil || before.UID != after.UID || !before.CreationTimestamp.Equal(&after.CreationTimestamp) ||
		before.Annotations[gateway.Annotation] != after.Annotations[gateway.Annotation]
}

// recordChanged enqueues the mirror of a Service whose record has changed, and those of Services that claim or choose
// a gateway port which it had alone, or has now. It returns all of these Services.
func (e *enqueuer) recordChanged(cluster string, change remote.RecordChange) (concerned []cache.ObjectName) {
	concerned = []cache.ObjectName{change.Service}
	before, after := sets.New(change.Had...), sets.New(change.Has...)
	if view, ok := e.remotes.view(cluster); ok {
		e.add(cluster, view, change.Service)
		concerned = append(concerned, e.rivals(cluster, view, change.Service, before.Difference(after), after.Difference(before))...)
	}
	return concerned
}

// rivals enqueues the mirrors of Services that claim or choose a gateway port which another one had, or has now.
func (e *enqueuer) rivals(cluster string, view remote.View, self cache.ObjectName, had, has sets.Set[string]) (all []cache.ObjectName) {
	exported := view.Services.Get(self)
	for claim := range had.Union(has) {
		unaffected, begins := view.Crowds(claim, had.Has(claim))
		if unaffected || !begins && !had.Has(claim) && (exported == nil || view.Holder(exported, claim) != self) {
			continue // the one that has it keeps it
		}
		all = slices.Concat(all, view.Claimants(claim), view.Rivals(claim), choosing(view, claim))
	}
	for _, rival := range all {
		e.add(cluster, view, rival)
	}
	return all
}

// choosing are the exported Services that choose a gateway port, or for which their gateway does.
func choosing(view remote.View, claim string) (all []cache.ObjectName) {
	texts := sets.New[string]()
	for _, gw := range view.Gateways.Known {
		if gw == nil {
			continue
		}
		names, forAll := gw.Chosen(claim)
		if forAll {
			return view.Services.Names()
		}
		texts.Insert(names...)
	}
	for text := range texts {
		all = append(all, view.Services.NamesByIndex(byChoice, text)...)
	}
	return all
}

// add enqueues the mirrors of an exported Service: the one that it is to have, and those that it has.
func (e *enqueuer) add(cluster string, view remote.View, exported cache.ObjectName) {
	e.enqueueEach(cluster, e.mirrors(cluster, exported).Insert(e.remotes.keyOf(cluster, view, exported)))
}

// mirrors are the keys under which an exported Service may still have a mirror, besides the one that it is to have.
func (e *enqueuer) mirrors(cluster string, exported cache.ObjectName) sets.Set[cache.ObjectName] {
	keys := sets.New(e.local.Moving(cluster, exported)...)
	if naming := e.remotes.policy().Names.Of(cluster); naming.ObeyNames {
		keys.Insert(naming.KeyByTemplate(exported))
	}
	return keys
}

// enqueueEach enqueues each key once: a worker may take it before it is added again.
func (e *enqueuer) enqueueEach(cluster string, keys sets.Set[cache.ObjectName]) {
	for key := range keys {
		e.enqueue(cluster, key)
	}
}

// claimsOf are the gateway ports that an exported Service, or none, claims.
func claimsOf(exported *corev1.Service) sets.Set[string] {
	if exported == nil {
		return nil
	}
	return sets.New(gateway.Claims(exported)...)
}

func (e *enqueuer) namespaceChanged(namespace string) {
	for _, r := range e.remotes.all() {
		view, ok := r.View()
		if !ok {
			continue // all of its keys are enqueued when it syncs
		}
		for _, from := range e.remotes.policy().Names.Of(r.Name()).Remote(namespace) {
			for _, name := range view.Services.NamesByIndex(byNamespace, from) {
				e.add(r.Name(), view, name)
			}
		}
	}
}

// resync enqueues all keys of a remote.
func (e *enqueuer) resync(cluster string) {
	e.remotes.logPorts(e.logger, cluster, e.remotes.policy().Refuse)
	for _, key := range e.keysOf(cluster) {
		e.enqueue(cluster, key)
	}
}

// keysOf are all keys of a remote, some of them twice: what it exports, and what exists as its mirrors.
func (e *enqueuer) keysOf(cluster string) []cache.ObjectName {
	return slices.Concat(e.remotes.keys(cluster), e.local.Keys(cluster), e.merged(cluster))
}
