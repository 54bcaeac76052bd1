package mirror

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// deletes limits how many mirrors of one remote are deleted because their Services are no longer exported.
// Beyond the limit within deletesPeriod, that remote's deletions pause until an operator has confirmed those
// that are due, or their Services are exported again.
type deletes struct {
	limit int // 0: none

	mu      sync.Mutex
	remotes map[string]*recentDeletes
}

// recentDeletes are the deletions of one remote's mirrors.
type recentDeletes struct {
	begun  map[cache.ObjectName]time.Time // within deletesPeriod
	paused map[cache.ObjectName]bool
}

const deletesPeriod = time.Minute

// admit returns the plan or, if it deletes a mirror beyond the limit, the plan without that.
func (d *deletes) admit(p plan.Plan) plan.Plan {
	if d.limit == 0 {
		return p
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !p.DeletesMirror() {
		if p.Source != nil || p.Forget || p.Live.Empty() { // else it is not known now whether it is exported
			d.settled(p.Key)
		}
		return p
	}
	r := d.remotes[p.Cluster]
	if r == nil {
		r = &recentDeletes{begun: map[cache.ObjectName]time.Time{}, paused: map[cache.ObjectName]bool{}}
		if d.remotes == nil {
			d.remotes = map[string]*recentDeletes{}
		}
		d.remotes[p.Cluster] = r
	}
	if p.Confirmed() || r.begin(p.Key, d.limit, time.Now()) {
		delete(r.paused, p.Key)
		return p
	}
	r.paused[p.Key] = true
	return p.Paused(d.limit)
}

// begin notes a deletion, and tells whether it is within the limit. One that is retried counts once.
func (r *recentDeletes) begin(key cache.ObjectName, limit int, now time.Time) bool {
	for other, begun := range r.begun {
		if now.Sub(begun) >= deletesPeriod {
			delete(r.begun, other)
		}
	}
	if _, again := r.begun[key]; again {
		return true
	}
	if len(r.paused) > 0 || len(r.begun) >= limit {
		return false
	}
	r.begun[key] = now
	return true
}

// settled notes that a key has nothing to be deleted. d.mu is held.
func (d *deletes) settled(key cache.ObjectName) {
	for _, r := range d.remotes {
		delete(r.paused, key)
	}
}

// forget forgets what was deleted of a remote.
func (d *deletes) forget(cluster string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.remotes, cluster)
}

// clear forgets everything: another replica may lead.
func (d *deletes) clear() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.remotes = nil
}
