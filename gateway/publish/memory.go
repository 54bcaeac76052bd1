package publish

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// memory is what a replica that leads remembers: which gateway port is whose and, of each Service, what it wrote. It
// goes with leadership.
type memory struct {
	mu      sync.Mutex
	ledger  plan.Ledger
	records map[cache.ObjectName]*memoryOf
	refused map[cache.ObjectName]bool // those that wait for a gateway port
	unread  map[plan.Kind]string      // kinds of routes whose gateway ports are not in the ledger yet, and why

	listeners listenersMemory
}

// memoryOf is what is remembered of one Service. There are many: it is small where nothing is wrong.
type memoryOf struct {
	objects  []objectMemory
	recorded time.Time // when its record was last written
}

// objectMemory is what is remembered of one object.
type objectMemory struct {
	ref     plan.Ref
	counted time.Time
	updates int32     // since counted
	refused bool      // since it was last written
	held    *obstacle // nil: nothing keeps it from being written
}

// obstacle is what keeps an object from being written.
type obstacle struct {
	foreign time.Time // until when it counts as foreign; zero: it does not
	backoff plan.Backoff
	wait    time.Duration
	until   time.Time // of the back-off; zero: there is none
}

const (
	// foreignPeriod is how long until a foreign object of a name that is wanted is looked for again: those are in no
	// cache.
	foreignPeriod = 30 * time.Second
	// recordPeriod is how rarely a record is written for readiness alone.
	recordPeriod = time.Second
	// An object that is rejected, or that another program changes back, backs off: doubled from the first to the last.
	firstBackoff    = time.Second
	lastRejected    = 30 * time.Second
	lastOverwritten = 5 * time.Minute
	// More updates of one object than fightUpdates in fightPeriod are a fight.
	fightUpdates = 20
	fightPeriod  = 10 * time.Second
)

func newMemory() *memory {
	return &memory{records: map[cache.ObjectName]*memoryOf{}, refused: map[cache.ObjectName]bool{}}
}

// fill reads the ledger from the records.
func (m *memory) fill(records []*corev1.ConfigMap) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger.Fill(records)
}

func (m *memory) clear() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ledger, m.records, m.listeners = plan.Ledger{}, map[cache.ObjectName]*memoryOf{}, listenersMemory{}
	m.unread = nil
	clear(m.refused)
}

// await has nothing given or taken of kinds of routes until the gateway ports that these have are read.
func (m *memory) await(kinds []plan.Kind) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread = map[plan.Kind]string{}
	for _, of := range kinds {
		m.unread[of] = ""
	}
}

// awaited are the kinds whose gateway ports are not read yet.
func (m *memory) awaited() []plan.Kind {
	m.mu.Lock()
	defer m.mu.Unlock()
	return slices.Sorted(maps.Keys(m.unread))
}

// awaits tells whether the gateway ports that routes of a kind have are not read yet.
func (m *memory) awaits(of plan.Kind) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	_, awaited := m.unread[of]
	return awaited
}

// failed notes why they cannot be.
func (m *memory) failed(of plan.Kind, why string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unread[of] = why
}

// addRouted notes the gateway ports that routes of a kind have, besides those of the records.
func (m *memory) addRouted(of plan.Kind, all map[cache.ObjectName][]plan.Allocation) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for key, routed := range all {
		m.ledger.Add(key, routed)
	}
	delete(m.unread, of)
}

// recall adds to a snapshot what is remembered. m.mu is held.
func (m *memory) recall(s *plan.Snapshot) {
	s.PortHolder, s.Allocated = m.ledger.Holder, m.ledger.Of(s.Key)
	s.Promised, s.Listeners = m.ledger.Active, m.listeners.problems()
	for of, why := range m.unread {
		s.Served[of] = plan.Served{Version: s.Served[of].Version, Err: cmp.Or(why, s.Served[of].Err)}
	}
	r := m.records[s.Key]
	if r == nil {
		return
	}
	s.Foreign, s.Backoffs = map[plan.Ref]bool{}, map[plan.Ref]plan.Backoff{}
	s.Settling = max(0, r.recorded.Add(recordPeriod).Sub(s.Now))
	for _, o := range r.objects {
		if o.held == nil {
			continue
		}
		if s.Now.Before(o.held.foreign) {
			s.Foreign[o.ref] = true
		}
		if s.Now.Before(o.held.until) {
			s.Backoffs[o.ref] = o.held.backoff
		}
	}
}

// names are the objects of a Service that were written, or tried to be.
func (m *memory) names(key cache.ObjectName) (names []plan.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[key]; r != nil {
		for _, o := range r.objects {
			names = append(names, o.ref)
		}
	}
	return names
}

// object is what is remembered of an object, made where it is nothing: until another is. m.mu is held.
func (m *memory) object(key cache.ObjectName, ref plan.Ref) *objectMemory {
	r := m.records[key]
	if r == nil {
		r = &memoryOf{}
		m.records[key] = r
	}
	i := slices.IndexFunc(r.objects, func(o objectMemory) bool { return o.ref == ref })
	if i < 0 {
		i = len(r.objects)
		r.objects = append(r.objects, objectMemory{ref: ref})
	}
	return &r.objects[i]
}

// hold is what keeps an object from being written, made where nothing does. m.mu is held.
func (m *memory) hold(key cache.ObjectName, ref plan.Ref) *obstacle {
	o := m.object(key, ref)
	if o.held == nil {
		o.held = &obstacle{}
	}
	return o.held
}

// wrote notes a write that succeeded, and tells whether the object is fought over.
func (m *memory) wrote(key cache.ObjectName, step plan.Step, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if step.Action == plan.Delete {
		if r := m.records[key]; r != nil {
			r.objects = slices.DeleteFunc(r.objects, func(o objectMemory) bool { return o.ref == step.Ref })
			if step.Record != nil {
				delete(m.records, key)
			}
		}
		return false
	}
	o := m.object(key, step.Ref)
	if step.Record != nil {
		m.records[key].recorded = now
	}
	o.refused = false
	if now.Sub(o.counted) > fightPeriod {
		o.counted, o.updates = now, 0
	}
	if o.updates++; o.updates > fightUpdates {
		return true
	}
	if o.held != nil && now.Sub(o.held.until) > fightPeriod {
		o.held = nil
	}
	return false
}

// backOff keeps an object from being written for a while.
func (m *memory) backOff(key cache.ObjectName, ref plan.Ref, problem mirrors.Problem, only *unstructured.Unstructured, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.hold(key, ref)
	last := lastRejected
	if problem.Reason == mirrors.Overwritten {
		last = lastOverwritten
	}
	o.wait = min(max(2*o.wait, firstBackoff), last)
	o.until, o.backoff = now.Add(o.wait), plan.Backoff{Problem: problem, Only: only}
}

// refusedFirst notes that a write is forbidden, and tells whether the one before was not.
func (m *memory) refusedFirst(key cache.ObjectName, ref plan.Ref) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.object(key, ref)
	before := o.refused
	o.refused = true
	return !before
}

// foreign notes that an object of a name that is wanted is not ours.
func (m *memory) foreign(key cache.ObjectName, ref plan.Ref, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.hold(key, ref).foreign = now.Add(foreignPeriod)
}

// next is when the next of what keeps objects from being written is over; zero: nothing does.
func (m *memory) next(key cache.ObjectName, now time.Time) (after time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.records[key]
	if r == nil {
		return 0
	}
	for _, o := range r.objects {
		if o.held == nil {
			continue
		}
		for _, until := range []time.Time{o.held.foreign, o.held.until} {
			if left := until.Sub(now); left > 0 && (after == 0 || left < after) {
				after = left
			}
		}
	}
	return after
}

// ports are the gateway ports in use.
func (m *memory) ports() []gatewayPort {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.ledger.Active()
}
