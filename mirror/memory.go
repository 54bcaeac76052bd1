package mirror

import (
	"maps"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/write"
)

// memory is what a replica that leads remembers of the keys that it has written: one record for each, and
// one way to forget it; and of each remote, how many mirrors it has deleted.
type memory struct {
	mu        sync.Mutex
	records   map[cache.ObjectName]*record
	rejected  int       // objects that the API server refuses
	nextCheck time.Time // when the EndpointSlices of the next mirror may be looked for
	swept     time.Time // when records without content were last dropped
	deletes   deletes
}

// record is what is remembered of one key.
type record struct {
	backoffs [plan.Kinds]*backoff
	check    *sliceCheck // pending; nil: none
	taken    *sliceCheck // check, when the last snapshot was taken
	due      bool        // it was due then
	paused   time.Time   // until when Kubernetes is kept from mirroring the Endpoints; zero: it is not
	noSlices time.Time   // since when Kubernetes has made no EndpointSlices; zero: it has, as far as is known
	stray    plan.Objects
	updates  [plan.Kinds]int // since counted
	counted  time.Time
	refusal  *refusal // of a part of a merged mirror; nil: its slices were written when that was last tried
}

// refusal is why the slices of a part could not be written, and until when other remotes are preferred for it.
type refusal struct {
	plan.Problem
	until time.Time
}

// refusedPeriod is how long that is after each attempt.
const refusedPeriod = foreignPeriod

// backoff is why one object is not written for a while.
type backoff struct {
	plan.Backoff
	wait  time.Duration
	until time.Time
	fight bool // another program changes it back, and not an admission webhook
	tried bool // it was written once since until
}

// over is when an object that was fought over counts as left alone.
func (b *backoff) over() time.Time { return b.until.Add(fightPeriod) }

// How long an object backs off that is rejected, or that another program changes: doubled from the first to
// the last. A rejection may be due to a policy, and end with it; where many are, their retries are spread.
const (
	firstBackoff    = time.Second
	lastRejected    = 30 * time.Second
	perRejected     = 100 * time.Millisecond
	lastOverwritten = 5 * time.Minute
)

// More updates of one object than fightUpdates in fightPeriod are a fight: another program undoes what
// we write as soon as it is written.
const (
	fightUpdates = 50
	fightPeriod  = 10 * time.Second
)

// sliceCheck is a mirror that has its Endpoints, but perhaps no EndpointSlices.
type sliceCheck struct {
	at        time.Time     // when they are looked for, or a turn is taken to do so
	wait      time.Duration // from one update of the Endpoints to the next
	refreshes int           // how often they were updated
	turn      bool          // it has one
	seen      bool          // there were some when they were last looked for
}

const (
	firstCheck = time.Second     // how soon EndpointSlices are looked for
	lastCheck  = 5 * time.Minute // how rarely, if Kubernetes makes none
	// againCheck is how much later they are looked for again: on a busy control plane, those that exist
	// may be about to be deleted.
	againCheck = 30 * time.Second
	// pauseTime is how long Kubernetes is kept from mirroring Endpoints: its controller forgets them once it has
	// synced them in the meantime.
	pauseTime = 2 * time.Second
	// slicesPatience is how long they may take before that is reported.
	slicesPatience = 10 * time.Second
	// turnPeriod is the time from one mirror's turn to the next one's: the controller makes 20
	// EndpointSlices a second by default, and what it has not come to yet is not missing.
	turnPeriod = 200 * time.Millisecond
)

func newMemory(maxDeletes int) *memory {
	return &memory{records: map[cache.ObjectName]*record{}, deletes: deletes{limit: maxDeletes}}
}

// recall is what is remembered of a key, for a snapshot.
func (m *memory) recall(key cache.ObjectName) (known plan.Memory) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[key]
	if r == nil {
		return known
	}
	now := time.Now()
	for k, b := range r.backoffs {
		if b != nil && now.Before(b.until) {
			known.Backoffs[k] = &b.Backoff
		}
	}
	known.Stray = r.stray
	if b := r.backoffs[plan.Service]; b != nil {
		known.Rejected = b.Only != nil
	}
	known.SliceCheck = m.takeTurn(r, now)
	if r.check != nil {
		known.Refreshes = r.check.refreshes
	}
	if now.Before(r.paused) {
		known.Paused = true
	} else {
		r.paused = time.Time{}
	}
	r.taken, r.due = r.check, known.SliceCheck
	return known
}

// takeTurn tells whether the EndpointSlices of a mirror are to be looked for now: after those whose check was
// due before.
func (m *memory) takeTurn(r *record, now time.Time) bool {
	if r.check == nil || now.Before(r.check.at) {
		return false
	}
	if r.check.turn {
		return true
	}
	r.check.turn, r.check.at = true, later(now, m.nextCheck)
	m.nextCheck = r.check.at.Add(turnPeriod)
	return !now.Before(r.check.at)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// interrupted notes that a mirror was for a moment nothing that Kubernetes makes EndpointSlices of. Its
// controller deletes and forgets them then. If it has not heard of that deletion when the mirror is whole
// again, it finds all of them in its cache and makes none, and the deletion of slices that it has
// forgotten does not have it look again.
func (m *memory) interrupted(key cache.ObjectName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.record(key)
	next := sliceCheck{wait: firstCheck}
	if r.check != nil {
		next = *r.check // it keeps its turn, and its wait
	}
	next.seen = false
	if soon := time.Now().Add(next.wait); next.turn {
		next.at = later(next.at, soon)
	} else {
		next.at = soon
	}
	r.check = &next
}

func (m *memory) record(key cache.ObjectName) *record {
	r := m.records[key]
	if r == nil {
		r = &record{}
		m.records[key] = r
	}
	return r
}

// commit remembers what came of a plan. It returns all that is wrong with the mirror, and after how long the
// key must be looked at again; zero is never.
func (m *memory) commit(p plan.Plan, result write.Result) (after time.Duration, problems []plan.Problem) {
	m.mu.Lock()
	defer m.mu.Unlock()
	problems = append(p.Problems, result.Problems...)
	r := m.records[p.Key]
	switch {
	case p.Forget:
		m.forget(p.Key)
		if !result.Stray.Empty() {
			m.record(p.Key).stray = result.Stray
		}
		return 0, problems
	case r == nil && quiet(p, result):
		return 0, problems // as most often
	}
	r = m.record(p.Key)
	now := time.Now()
	r.stray = result.Stray
	if p.Source != nil {
		for k := range r.backoffs {
			if problem := m.commitObject(r, plan.Kind(k), p, result.Objects[k], now); problem != nil {
				problems = append(problems, *problem)
			}
		}
		if result.Slices == write.SlicesPaused {
			r.paused = now.Add(pauseTime)
		}
		r.commitCheck(p, result.Slices, now)
		if problem := r.commitSlices(p, result.Slices, now); problem != nil {
			problems = append(problems, *problem)
		}
		if problem := r.refuse(p, result, now); problem != nil {
			problems = append(problems, *problem)
		}
	}
	m.sweep(now)
	return r.next(p, now), problems
}

// sweep drops records without content, now and then: that of an update is needed for a while.
func (m *memory) sweep(now time.Time) {
	if now.Sub(m.swept) < fightPeriod {
		return
	}
	m.swept = now
	maps.DeleteFunc(m.records, func(_ cache.ObjectName, r *record) bool { return r.empty(now) })
}

// quiet tells a result that leaves nothing to be remembered.
func quiet(p plan.Plan, result write.Result) bool {
	return conflict(p, result) == nil && result.Stray.Empty() && result.Objects == [plan.Kinds]write.Outcome{} && result.Slices == write.SlicesUnknown
}

// conflict is that of a part with a foreign slice that is in no cache; nil: there is none.
func conflict(p plan.Plan, result write.Result) *plan.Problem {
	_, _, part := plan.PartOf(p.Key)
	i := slices.IndexFunc(result.Problems, func(problem plan.Problem) bool { return problem.Reason == plan.Conflict })
	if !part || i < 0 {
		return nil
	}
	return &result.Problems[i]
}

// refuse notes whether the slices of a part can be written. It returns the problem if they cannot and were not tried
// now, so that nothing else says it.
func (r *record) refuse(p plan.Plan, result write.Result, now time.Time) *plan.Problem {
	if _, _, part := plan.PartOf(p.Key); !part {
		return nil
	}
	problem := conflict(p, result)
	for _, k := range plan.SliceKinds {
		if b := r.backoffs[k]; problem == nil && b != nil && now.Before(b.until) {
			problem = &b.Problem
		}
	}
	written := func(o write.Outcome) bool { return o.Created || o.Updated }
	switch {
	case problem != nil:
		r.refusal = &refusal{*problem, now.Add(refusedPeriod)}
	case r.refusal == nil:
	case slices.ContainsFunc(result.Objects[:], written), !now.Before(r.refusal.until):
		r.refusal = nil
	default:
		return &r.refusal.Problem
	}
	return nil
}

// refused tells which of the remotes' parts of a mirror could not be written lately.
func (m *memory) refused(mirror cache.ObjectName, remotes []Remote) (refused map[string]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := time.Now()
	for _, one := range remotes {
		if r := m.records[plan.Part(mirror, one.Name())]; r != nil && r.refusal != nil && now.Before(r.refusal.until) {
			if refused == nil {
				refused = map[string]bool{}
			}
			refused[one.Name()] = true
		}
	}
	return refused
}

// commitObject has one object back off, or not any more. It returns a problem that only the number of its
// updates shows.
func (m *memory) commitObject(r *record, kind plan.Kind, p plan.Plan, outcome write.Outcome, now time.Time) (fight *plan.Problem) {
	b := r.backoffs[kind]
	again := b != nil && b.fight && now.Before(b.over())
	if outcome.Updated && again && !b.tried { // and now it shows whether it is left alone
		b.tried, b.until = true, now
		return &b.Problem
	}
	if outcome.Updated && (r.fights(kind, now) || again) && outcome.Overwritten == nil {
		source := p.Source.Service
		fight = &plan.Problem{Reason: plan.Overwritten, Cluster: p.Cluster, Source: cache.MetaObjectToName(source),
			Message: "the " + kind.String() + " is changed back as soon as it is written: stop the other program that manages it. The write is retried with back-off"}
		outcome.Overwritten = fight
	}
	switch {
	case outcome.Rejected != nil:
		last := max(lastRejected, time.Duration(m.rejected)*perRejected)
		m.backOff(r, kind, *outcome.Rejected, p.Desired.Get(kind), last, now)
	case outcome.Overwritten != nil:
		m.backOff(r, kind, *outcome.Overwritten, nil, lastOverwritten, now)
		r.backoffs[kind].fight = fight != nil
	case again && !p.BackedOff[kind]:
		return &b.Problem // until it is known to be over
	case b != nil && !p.BackedOff[kind] && (outcome.Created || outcome.Updated || !p.Writes(kind)):
		m.healthy(r, kind)
	}
	return fight
}

// backOff keeps an object from being written: while just only is desired or, if that is nil, whatever is.
func (m *memory) backOff(r *record, kind plan.Kind, problem plan.Problem, only metav1.Object, last time.Duration, now time.Time) {
	wait := firstBackoff
	if before := r.backoffs[kind]; before != nil {
		wait = min(2*before.wait, last)
	}
	m.healthy(r, kind)
	if only != nil {
		m.rejected++
	}
	r.backoffs[kind] = &backoff{Backoff: plan.Backoff{Problem: problem, Only: only}, wait: wait, until: now.Add(wait)}
}

func (m *memory) healthy(r *record, kind plan.Kind) {
	if b := r.backoffs[kind]; b != nil && b.Only != nil {
		m.rejected--
	}
	r.backoffs[kind] = nil
}

// fights counts an update of an object, and tells whether there are too many.
func (r *record) fights(kind plan.Kind, now time.Time) bool {
	if now.Sub(r.counted) > fightPeriod {
		r.counted, r.updates = now, [plan.Kinds]int{}
	}
	r.updates[kind]++
	return r.updates[kind] > fightUpdates
}

// commitCheck sets when the EndpointSlices of a mirror are looked for again. A check that was
// requested after the snapshot stays as it is: what requested it enqueues the key.
func (r *record) commitCheck(p plan.Plan, slices write.Slices, now time.Time) {
	if r.check == nil || r.check != r.taken {
		return
	}
	switch {
	case slices == write.SlicesExist && r.check.seen:
		r.check = nil
	case slices == write.SlicesExist:
		r.check = &sliceCheck{wait: firstCheck, at: now.Add(againCheck), seen: true}
	case slices == write.SlicesMissing, slices == write.SlicesPaused:
		wait := min(2*r.check.wait, lastCheck)
		r.check = &sliceCheck{wait: wait, at: now.Add(wait), refreshes: r.check.refreshes + 1}
	case p.Writes(): // nothing can have been made of it yet
		r.check.at = later(r.check.at, now.Add(r.check.wait))
	case r.due && !p.Takes(plan.CheckSlices) && !p.Takes(plan.RestartMirroring):
		r.check = nil // there are no addresses
	}
}

// commitSlices notes whether Kubernetes makes EndpointSlices of the Endpoints, and returns the problem if it
// has made none for a while.
func (r *record) commitSlices(p plan.Plan, slices write.Slices, now time.Time) *plan.Problem {
	switch {
	case slices == write.SlicesExist, p.Desired.Endpoints == nil || len(p.Desired.Endpoints.Subsets) == 0:
		r.noSlices = time.Time{}
	case slices != write.SlicesUnknown && r.noSlices.IsZero():
		r.noSlices = now
	}
	if r.noSlices.IsZero() || now.Sub(r.noSlices) < slicesPatience {
		return nil
	}
	return &plan.Problem{Reason: plan.NoEndpointSlices, Cluster: p.Cluster, Source: cache.MetaObjectToName(p.Source.Service),
		Message: "Kubernetes does not create EndpointSlices for the mirror's Endpoints: enable endpointslice-mirroring-controller in kube-controller-manager, or use --endpoints-api=endpointslices"}
}

// next is after how long the key must be looked at again; zero: never. Where there is to be no mirror now,
// that changes with an event.
func (r *record) next(p plan.Plan, now time.Time) (after time.Duration) {
	if p.Source == nil {
		return 0
	}
	for k, b := range r.backoffs {
		switch {
		case b == nil:
		case b.until.After(now) || p.BackedOff[k]: // it may have ended since the snapshot was taken
			after = queue.Sooner(after, max(b.until.Sub(now), time.Millisecond))
		// Else what kept it from being written brings the key back.
		case b.fight && b.over().After(now):
			after = queue.Sooner(after, b.over().Sub(now))
		}
	}
	if !r.paused.IsZero() {
		after = queue.Sooner(after, max(r.paused.Sub(now), time.Millisecond))
	}
	if r.refusal != nil {
		after = queue.Sooner(after, max(r.refusal.until.Sub(now), time.Millisecond))
	}
	if r.check != nil && !p.WritesMirror() { // which comes back as an event
		after = queue.Sooner(after, max(r.check.at.Sub(now), time.Millisecond))
	}
	return after
}

// empty tells that there is nothing to be remembered.
func (r *record) empty(now time.Time) bool {
	return r.backoffs == [plan.Kinds]*backoff{} && r.check == nil && r.paused.IsZero() && r.noSlices.IsZero() && (r.refusal == nil || !now.Before(r.refusal.until)) && r.stray.Empty() && now.Sub(r.counted) > fightPeriod
}

// forget forgets everything of a key. m.mu is held.
func (m *memory) forget(key cache.ObjectName) {
	if r := m.records[key]; r != nil {
		for k := range r.backoffs {
			m.healthy(r, plan.Kind(k))
		}
		delete(m.records, key)
	}
}

// clear forgets everything of all keys.
func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.records, m.rejected, m.nextCheck = map[cache.ObjectName]*record{}, 0, time.Time{}
	m.deletes.clear()
}
