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

// memoryOf is what is remembered of one Service.
type memoryOf struct {
	objects  map[plan.Ref]*objectMemory
	recorded time.Time // when its record was last written
}

// objectMemory is what is remembered of one object.
type objectMemory struct {
	foreign time.Time // until when it counts as foreign; zero: it does not
	backoff plan.Backoff
	wait    time.Duration
	until   time.Time // of the back-off; zero: there is none
	refused bool      // since it was last written
	updates int       // since counted
	counted time.Time
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
	for _, configMap := range records {
		if key, ok := plan.RecordKey(configMap); ok {
			m.ledger.Set(key, plan.Allocations(configMap))
		}
	}
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
	for ref, o := range r.objects {
		if s.Now.Before(o.foreign) {
			s.Foreign[ref] = true
		}
		if s.Now.Before(o.until) {
			s.Backoffs[ref] = o.backoff
		}
	}
}

// names are the objects of a Service that were written, or tried to be.
func (m *memory) names(key cache.ObjectName) (names []plan.Ref) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.records[key]; r != nil {
		for ref := range r.objects {
			names = append(names, ref)
		}
	}
	return names
}

// object is what is remembered of an object, made where it is nothing. m.mu is held.
func (m *memory) object(key cache.ObjectName, ref plan.Ref) *objectMemory {
	r := m.records[key]
	if r == nil {
		r = &memoryOf{objects: map[plan.Ref]*objectMemory{}}
		m.records[key] = r
	}
	o := r.objects[ref]
	if o == nil {
		o = &objectMemory{}
		r.objects[ref] = o
	}
	return o
}

// wrote notes a write that succeeded, and tells whether the object is fought over.
func (m *memory) wrote(key cache.ObjectName, step plan.Step, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if step.Action == plan.Delete {
		if r := m.records[key]; r != nil {
			if delete(r.objects, step.Ref); step.Record != nil {
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
	if now.Sub(o.until) > fightPeriod {
		o.wait, o.until = 0, time.Time{}
	}
	return false
}

// backOff keeps an object from being written for a while.
func (m *memory) backOff(key cache.ObjectName, ref plan.Ref, problem mirrors.Problem, only *unstructured.Unstructured, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	o := m.object(key, ref)
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
	m.object(key, ref).foreign = now.Add(foreignPeriod)
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
		for _, until := range []time.Time{o.foreign, o.until} {
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
