package failover

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// memory is what a replica that leads remembers of the Services that fail over.
type memory struct {
	mu      sync.Mutex
	records map[cache.ObjectName]*record
}

// record is what is remembered of one Service.
type record struct {
	known   bool // whether a local endpoint is ready
	ready   bool
	since   time.Time // since when that is known to be so
	active  *bool     // as it was last decided
	serving string    // likewise

	updates int // since counted
	counted time.Time
	wait    time.Duration // the last back-off; zero: there was none
	until   time.Time     // its end
}

// More updates of a Service's slices than fightUpdates in fightPeriod are a fight: another program undoes what is
// written as soon as it is written. They back off then, from the first time to the last.
const (
	fightUpdates = 50
	fightPeriod  = 10 * time.Second
	firstBackoff = time.Second
	lastBackoff  = 5 * time.Minute
)

// recall is for how long a Service's local endpoints have been as they are now, and what was last decided. While they
// are not known, what was known of them before is kept.
func (m *memory) recall(key cache.ObjectName, local plan.LocalEndpoints, now time.Time) (since time.Duration, active *bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[cache.ObjectName]*record{}
	}
	r := m.records[key]
	if r == nil {
		r = &record{}
		m.records[key] = r
	}
	if local.Known && (!r.known || r.ready != local.Ready) {
		r.known, r.ready, r.since = true, local.Ready, now
	}
	return now.Sub(r.since), r.active
}

// peek is the same of a Service that is not being synced.
func (m *memory) peek(key cache.ObjectName, local plan.LocalEndpoints, now time.Time) (since time.Duration, active *bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[key]
	if r == nil {
		return 0, nil
	}
	if local.Known && r.known && r.ready == local.Ready {
		since = now.Sub(r.since)
	}
	return since, r.active
}

// held is how long nothing is to be written for a Service, and why; zero: it may be. That another one is to serve is
// written all the same.
func (m *memory) held(p plan.FailoverPlan, now time.Time) (time.Duration, *plan.Problem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[p.Key]
	if r != nil && now.After(r.until.Add(fightPeriod)) { // it is left alone
		r.wait = 0
	}
	if r == nil || r.wait == 0 {
		return 0, nil
	}
	problem := plan.Problem{Reason: plan.Overwritten, Message: "its EndpointSlices of remotes are changed back as soon as they are written: stop the other program that manages them. It is retried with back-off"}
	if len(p.Steps) == 0 || r.serving != p.Serving || !now.Before(r.until) {
		return 0, &problem
	}
	return r.until.Sub(now), &problem
}

// commit remembers what came of a plan. It returns when the Service must be looked at again for that; zero: never.
func (m *memory) commit(p plan.FailoverPlan, updated int, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[p.Key]
	switch {
	case p.State == "" || p.State == plan.FailoverRefused:
		delete(m.records, p.Key)
		return 0
	case r == nil: // leadership has ended
		return 0
	}
	active := p.Active
	r.active, r.serving = &active, p.Serving
	if now.Sub(r.counted) > fightPeriod {
		r.counted, r.updates = now, 0
	}
	if r.updates += updated; updated > 0 && (r.updates > fightUpdates || r.wait > 0) {
		r.wait = min(max(2*r.wait, firstBackoff), lastBackoff)
		r.until = now.Add(r.wait)
	}
	if r.wait > 0 {
		return r.until.Sub(now) + fightPeriod + time.Second // whether it is over
	}
	return 0
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = nil
}
