package failover

import (
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/write"
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
	since   time.Time          // since when that is known to be so
	active  *bool              // as it was last decided
	serving string             // likewise
	refused map[string]refusal // by the remote whose slice the API server refused to write

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

// refusal is a problem that lasts, and until when other remotes are preferred for it.
type refusal struct {
	plan.Problem
	until time.Time
}

// refusedPeriod is how long other remotes are preferred to one whose slices the API server refused to write.
const refusedPeriod = foreignPeriod

// recall adds to what is known of a Service for how long its local endpoints have been as they are now, and what was
// last decided. While they are not known, what was known of them before is kept.
func (m *memory) recall(s *plan.FailoverSnapshot, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.records == nil {
		m.records = map[cache.ObjectName]*record{}
	}
	r := m.records[s.Key]
	if r == nil {
		r = &record{}
		m.records[s.Key] = r
	}
	if s.Local.Known && (!r.known || r.ready != s.Local.Ready) {
		r.known, r.ready, r.since = true, s.Local.Ready, now
	}
	s.Local.For, s.Active, s.Refused = now.Sub(r.since), r.active, r.refusedAt(now)
}

// refusedAt are the remotes to which others are preferred now.
func (r *record) refusedAt(now time.Time) map[string]bool {
	refused := map[string]bool{}
	for remote, one := range r.refused {
		refused[remote] = now.Before(one.until)
	}
	return refused
}

// peek is the same of a Service that is not being synced.
func (m *memory) peek(s *plan.FailoverSnapshot, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[s.Key]
	if r == nil {
		return
	}
	if s.Local.Known && r.known && r.ready == s.Local.Ready {
		s.Local.For = now.Sub(r.since)
	}
	s.Active, s.Refused = r.active, r.refusedAt(now)
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
	problem := plan.Problem{Reason: plan.Overwritten, Message: "the EndpointSlices of its remotes are changed back as soon as they are written: stop the other program that manages them. The write is retried with back-off"}
	if len(p.Steps) == 0 || r.serving != p.Serving || !now.Before(r.until) {
		return 0, &problem
	}
	return r.until.Sub(now), &problem
}

// commit remembers what came of a plan. It returns when the Service must be looked at again for that; zero: never.
func (m *memory) commit(p plan.FailoverPlan, result write.FailoverResult, now time.Time) (again time.Duration) {
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
	if r.updates += result.Updated; result.Updated > 0 && (r.updates > fightUpdates || r.wait > 0) {
		r.wait = min(max(2*r.wait, firstBackoff), lastBackoff)
		r.until = now.Add(r.wait)
	}
	if r.wait > 0 {
		again = r.until.Sub(now) + fightPeriod + time.Second // whether it is over
	}
	return queue.Sooner(again, r.refuse(p, result, now))
}

// refuse remembers which remotes' slices were refused. It returns when one of them may be tried again; zero: none was.
func (r *record) refuse(p plan.FailoverPlan, result write.FailoverResult, now time.Time) (again time.Duration) {
	maps.DeleteFunc(r.refused, func(remote string, one refusal) bool {
		foreign := func(problem plan.Problem) bool { return problem.Cluster == remote && problem.Reason == plan.Conflict }
		return slices.Contains(result.Accepted, remote) || slices.ContainsFunc(p.Problems, foreign) || !now.Before(one.until)
	})
	for _, problem := range result.Refused {
		if r.refused == nil {
			r.refused = map[string]refusal{}
		}
		r.refused[problem.Cluster] = refusal{problem, now.Add(refusedPeriod)}
	}
	for _, one := range r.refused {
		again = queue.Sooner(again, one.until.Sub(now))
	}
	return again
}

// lasting are the problems of writes that were refused before and not tried again now.
func (m *memory) lasting(key cache.ObjectName, now []plan.Problem) (lasting []plan.Problem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[key]; r != nil {
		for _, remote := range slices.Sorted(maps.Keys(r.refused)) {
			if !slices.ContainsFunc(now, func(problem plan.Problem) bool { return problem.Cluster == remote }) {
				lasting = append(lasting, r.refused[remote].Problem)
			}
		}
	}
	return lasting
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records = nil
}
