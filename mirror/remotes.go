package mirror

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Remote is what the controller sees of a remote cluster.
type Remote interface {
	Name() string
	// View is what is known of it; false where nothing may be concluded.
	View() (remote.View, bool)
	// Refilter reads its gateways' addresses again.
	Refilter()
	// Status is its state.
	Status() remote.Status
}

// remotes are the configured remote clusters, which may change at any time. What is decided of a key is decided again where
// they changed meanwhile.
type remotes struct {
	base    plan.Policy // without what the remotes add to it
	current atomic.Pointer[configured]
	ports   gatewayPorts // as they were last logged
}

// configured is which remotes are configured at one moment. It is not changed.
type configured struct {
	policy plan.Policy
	list   []Remote // sorted by name
}

func newRemotes(policy plan.Policy) *remotes {
	r := &remotes{base: policy}
	r.current.Store(&configured{policy: policy})
	return r
}

// policy is the operator's, with what depends on the remotes that are configured now.
func (r *remotes) policy() *plan.Policy { return &r.current.Load().policy }

// all are the remotes that are configured now.
func (r *remotes) all() []Remote { return r.current.Load().list }

func (r *remotes) set(policy plan.Policy, list []Remote) {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b Remote) int { return strings.Compare(a.Name(), b.Name()) })
	r.current.Store(&configured{policy, list})
}

// get is the remote of a name; nil if there is none.
func (r *remotes) get(name string) Remote {
	for _, one := range r.all() {
		if one.Name() == name {
			return one
		}
	}
	return nil
}

// view is what is known of the remote of a name; false where that is nothing.
func (r *remotes) view(name string) (remote.View, bool) {
	if one := r.get(name); one != nil {
		return one.View()
	}
	return remote.View{}, false
}

// decided calls decide, and again if the remotes that are configured changed meanwhile: it must not be of some of before
// and some of after.
func decided[P any](r *remotes, decide func() P) P {
	for {
		before := r.current.Load()
		if p := decide(); r.current.Load() == before {
			return p
		}
	}
}

// has tells whether a remote of this name is configured, or may be.
func (r *remotes) has(name string) bool { return r.policy().Pending || r.get(name) != nil }

func (r *remotes) refilter() {
	for _, one := range r.all() {
		one.Refilter()
	}
}

// keys are the keys of the mirrors of all Services that a remote exports to the local cluster.
func (r *remotes) keys(cluster string) (keys []cache.ObjectName) {
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			if r.policy().ClusterName == "" { // all are for it, and none needs to be decoded
				for _, svc := range view.Services.Names() {
					keys = append(keys, r.keyOf(cluster, view, svc))
				}
				return keys
			}
			naming := r.policy().Names.Of(cluster)
			for svc := range view.Services.All() {
				if r.policy().Concerns(svc) {
					keys = append(keys, naming.Key(svc))
				}
			}
		}
	}
	return keys
}

// exported are the keys of the mirrors, or of the parts of merged ones, of all that the remotes export, in an order that is the same each time.
func (r *remotes) exported() []cache.ObjectName {
	keys := sets.New[cache.ObjectName]()
	for _, one := range r.all() {
		keys.Insert(r.reported(one.Name())...)
	}
	return slices.SortedFunc(maps.Keys(keys), plan.CompareKeys)
}

// want tells whether any remote exports a Service whose mirror has the key, mirrored or refused.
func (r *remotes) want(key cache.ObjectName) bool {
	for _, one := range r.all() {
		if naming := r.policy().Names.Of(one.Name()); naming.Makes(key) {
			if view, ok := one.View(); ok && len(r.exports(naming, view, key)) > 0 {
				return true
			}
		}
	}
	return false
}

// keyOf is the key of the mirror of an exported Service.
func (r *remotes) keyOf(cluster string, view remote.View, exported cache.ObjectName) cache.ObjectName {
	naming := r.policy().Names.Of(cluster)
	if naming.ObeyNames {
		if svc := view.Services.Get(exported); svc != nil {
			return naming.Key(svc)
		}
	}
	return naming.KeyByTemplate(exported)
}

// origin is what is known of a Service that a mirror of the remote records as its source.
func (r *remotes) origin(cluster string, source cache.ObjectName) plan.Origin {
	origin := plan.Origin{Candidate: plan.Candidate{Cluster: cluster}, Source: source}
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			origin.UID, origin.Known = view.UID, view.Knows(source.Namespace)
			if svc := view.Services.Get(source); svc != nil {
				origin.Candidate = exportOf(origin.Candidate, view, svc)
			}
		}
	}
	return origin
}

// candidates is what the remotes have to say of a key: those that could export a Service for it, and its owner.
// All of it is read before what is live, which may come of it: a remote that becomes known during a sync
// must not look like one that exports nothing.
func (r *remotes) candidates(key cache.ObjectName) (all []plan.Candidate) {
	for _, one := range r.all() {
		naming := r.policy().Names.Of(one.Name())
		if !naming.Makes(key) {
			continue
		}
		if view, ok := one.View(); ok {
			all = append(all, r.candidatesOf(naming, view, key)...)
		}
	}
	return all
}

// candidatesOf are those of one remote: the Services that it exports for the key or, if there are none, that.
func (r *remotes) candidatesOf(naming plan.Naming, view remote.View, key cache.ObjectName) (all []plan.Candidate) {
	c := plan.Candidate{Cluster: naming.Cluster, UID: view.UID, Watched: !slices.ContainsFunc(naming.Remote(key.Namespace), func(namespace string) bool {
		return !view.Knows(namespace)
	})}
	for _, svc := range r.exports(naming, view, key) {
		all = append(all, exportOf(c, view, svc))
	}
	if len(all) == 0 {
		all = append(all, c)
	}
	return all
}

// exports are the Services that a remote exports for a key.
func (r *remotes) exports(naming plan.Naming, view remote.View, key cache.ObjectName) (all []*corev1.Service) {
	names := naming.Sources(key)
	if naming.ObeyNames {
		names = append(names, view.Services.NamesByIndex(byName, key.Name)...)
		slices.SortFunc(names, plan.CompareKeys)
		names = slices.Compact(names)
	}
	for _, name := range names {
		if svc := view.Services.Get(name); svc != nil && naming.Key(svc) == key && r.policy().Concerns(svc) {
			all = append(all, svc)
		}
	}
	return all
}

// owner adds the remote that live objects, or a tombstone, name, unless it can have a Service for the key: then it is a
// candidate, or was not known when those were read and must not look like one that exports nothing. namespace is
// that of the exported Service, as far as it is known.
func (r *remotes) owner(all []plan.Candidate, key cache.ObjectName, cluster, namespace string) []plan.Candidate {
	if cluster == "" || r.policy().Names.Of(cluster).Makes(key) {
		return all
	}
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			all = append(all, plan.Candidate{Cluster: cluster, UID: view.UID, Watched: view.Knows(namespace)})
		}
	}
	return all
}

// failover is what is known of a remote for a local Service that fails over to it: the Service of the same name and
// namespace or, if none is exported, the one to which the remote's publisher routes that name.
func (r *remotes) failover(cluster string, key cache.ObjectName) plan.FailoverRemote {
	found := plan.FailoverRemote{Candidate: plan.Candidate{Cluster: cluster}}
	found.Configured = r.has(cluster)
	view, ok := r.view(cluster)
	if !ok {
		return found
	}
	svc, known := view.ForFailover(key)
	found.UID, found.Watched = view.UID, known
	if svc != nil && r.policy().Concerns(svc) {
		found.Candidate = exportOf(found.Candidate, view, svc)
	}
	return found
}

// aliases are the other Services whose names a remote routes to an exported one.
func (r *remotes) aliases(cluster string, exported cache.ObjectName) []cache.ObjectName {
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			return view.Aliases(exported)
		}
	}
	return nil
}

// exportOf is a candidate that exports a Service.
func exportOf(c plan.Candidate, view remote.View, svc *corev1.Service) plan.Candidate {
	c.Service = svc
	c.Gateway, c.NoGateway = view.Gateways.For(svc)
	c.Assigned = view.Assigned(svc)
	return c
}
