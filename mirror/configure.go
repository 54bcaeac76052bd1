package mirror

import (
	"maps"
	"slices"

	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Configuration is which remotes there are, and what depends on it.
type Configuration struct {
	Remotes []Remote   // no two have one name
	Names   plan.Names // the rules for their mirrors' names
	Order   []string   // of their names
	Pending bool       // there may be more, of which nothing is known yet
}

// Configure replaces the remotes that are configured. The mirrors of one that is not any more stay. One that is another
// Remote of the same name than before is one of which nothing is known yet, so its mirrors stay as they are until it is.
func (c *Controller) Configure(next Configuration) {
	before := c.remotes.current.Load()
	keys, failovers := map[string][]cache.ObjectName{}, sets.New[string]()
	for _, name := range affected(before, next) {
		keys[name] = c.keysOf(name)
		failovers.Insert(name)
	}
	policy := c.remotes.base
	policy.Names, policy.Order, policy.Pending = next.Names, next.Order, next.Pending
	c.remotes.set(policy, next.Remotes)
	if !c.workers.IsReady() {
		return // all keys are synced then
	}
	for name := range keys {
		if c.remotes.has(name) {
			c.local.Remember(name)
		} else {
			c.local.ForgetRemote(name)
		}
	}
	if before.policy.Pending && !next.Pending { // of a remote that is not configured, too, that is known now
		for _, name := range c.local.Clusters() {
			failovers.Insert(name)
			keys[name] = append(keys[name], c.keysOf(name)...)
		}
		c.failover.ResyncAll()
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		for _, key := range slices.Concat(keys[name], c.keysOf(name)) {
			c.enqueue(name, key)
		}
	}
	for _, name := range sets.List(failovers) {
		c.failover.Resync(name)
	}
}

// affected are the names of remotes that come or go, or are configured in another way.
func affected(before *configured, next Configuration) []string {
	was, is := map[string]Remote{}, map[string]Remote{}
	for _, r := range before.list {
		was[r.Name()] = r
	}
	for _, r := range next.Remotes {
		is[r.Name()] = r
	}
	names := sets.New[string]()
	for name, r := range was {
		if is[name] != r {
			names.Insert(name)
		}
	}
	for name, r := range is {
		if was[name] != r {
			names.Insert(name)
		}
	}
	return sets.List(names)
}

// Forget forgets what is remembered of a remote that has ended: it is no longer configured, or in another way.
func (c *Controller) Forget(cluster string) {
	c.remotes.ports.forget(cluster)
	if !c.remotes.has(cluster) { // else what waits for an operator goes on waiting
		c.memory.deletes.forget(cluster)
	}
	c.options.Events.Forget(cluster)
	c.options.Metrics.Forget(cluster)
}

// Local notes what is wrong with a part of the local cluster, as seen from outside of the controller; nil: nothing is.
func (c *Controller) Local(part string, err error) { c.problems.Local(part, err) }

// Misnamed notes which Secrets in a namespace are to configure a remote and do not name one; nil: none.
func (c *Controller) Misnamed(namespace string, err error) { c.problems.Misnamed(namespace, err) }
