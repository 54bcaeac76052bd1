package mirror

import (
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
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

// remotes are the configured remote clusters, sorted by name.
type remotes struct {
	list  []Remote
	ports gatewayPorts // as they were last logged
}

func (r *remotes) add(one Remote) {
	r.list = append(r.list, one)
	slices.SortFunc(r.list, func(a, b Remote) int { return strings.Compare(a.Name(), b.Name()) })
}

// get is the remote of a name; nil if there is none.
func (r *remotes) get(name string) Remote {
	for _, one := range r.list {
		if one.Name() == name {
			return one
		}
	}
	return nil
}

func (r *remotes) has(name string) bool { return r.get(name) != nil }

func (r *remotes) refilter() {
	for _, one := range r.list {
		one.Refilter()
	}
}

// keys are the keys of the mirrors of all Services that a remote exports.
func (r *remotes) keys(cluster string) (keys []cache.ObjectName) {
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			for _, name := range view.Services.Names() {
				keys = append(keys, plan.KeyOf(cluster, name))
			}
		}
	}
	return keys
}

// exported are the keys of the mirrors of all that the remotes export, in an order that is the same each time.
func (r *remotes) exported() []cache.ObjectName {
	keys := sets.New[cache.ObjectName]()
	for _, one := range r.list {
		keys.Insert(r.keys(one.Name())...)
	}
	return slices.SortedFunc(maps.Keys(keys), plan.CompareKeys)
}

// want tells whether any remote exports a Service whose mirror has the key, mirrored or refused.
func (r *remotes) want(key cache.ObjectName) bool {
	for _, one := range r.list {
		if name, possible := plan.ExportedAs(one.Name(), key); possible {
			if view, ok := one.View(); ok && view.Services.Get(name) != nil {
				return true
			}
		}
	}
	return false
}

// candidates is what the remotes have to say of a key: those that could export its Service, and its owner.
// All of it is read before what is live, which may come of it: a remote that becomes known during a sync
// must not look like one that exports nothing.
func (r *remotes) candidates(key cache.ObjectName) (all []plan.Candidate) {
	for _, one := range r.list {
		name, possible := plan.ExportedAs(one.Name(), key)
		if !possible {
			continue
		}
		if view, ok := one.View(); ok {
			all = append(all, candidate(one.Name(), view, key, name))
		}
	}
	return all
}

// owner adds the remote that live objects, or a tombstone, name; it cannot export a Service for the key.
func (r *remotes) owner(all []plan.Candidate, key cache.ObjectName, cluster string) []plan.Candidate {
	if _, possible := plan.ExportedAs(cluster, key); cluster == "" || possible {
		return all
	}
	if one := r.get(cluster); one != nil {
		if view, ok := one.View(); ok {
			all = append(all, plan.Candidate{Cluster: cluster, UID: view.UID, Watched: view.Knows(key.Namespace)})
		}
	}
	return all
}

func candidate(cluster string, view remote.View, key, name cache.ObjectName) plan.Candidate {
	c := plan.Candidate{Cluster: cluster, UID: view.UID, Watched: view.Knows(key.Namespace)}
	if svc := view.Services.Get(name); svc != nil {
		c = exportOf(c, view, svc)
	}
	return c
}

// exportOf is a candidate that exports a Service.
func exportOf(c plan.Candidate, view remote.View, svc *corev1.Service) plan.Candidate {
	c.Service = svc
	c.Gateway, c.NoGateway = view.Gateways.For(svc)
	c.Assigned = gateway.Assignments{
		Holder:    func(claim string) cache.ObjectName { return view.Holder(byClaim, claim) },
		Published: view.Published(svc),
	}
	return c
}
