package publish

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// listenersMemory is what is remembered of the listeners of ours, by what has them: a ListenerSet or, with the name
// onGateway, the Gateway itself. What is wrong with one holds up none of the others.
type listenersMemory struct {
	dirty     bool // what is needed may have changed since they were last looked at
	parts     map[string]*listenersPartMemory
	conflicts error // with foreign ListenerSets
}

// onGateway is the part that the Gateway itself has.
const onGateway = ""

// listenersPartMemory is what is remembered of one part.
type listenersPartMemory struct {
	undos
	err     error           // why it lacks listeners; nil: it does not, as far as is known
	problem mirrors.Problem // the same
	applied []string        // the listeners of the Gateway as they were last applied
	text    string          // the ListenerSet as it was last written
}

// undos counts how often another program undoes what this one writes.
type undos struct {
	count int
	last  time.Time
	wait  time.Duration
	until time.Time // of the back-off
}

// note counts what was undone, and tells whether that is a fight.
func (u *undos) note(undone bool, now time.Time) (fight bool) {
	if now.Sub(u.last) > undoPeriod {
		*u = undos{}
	}
	if undone {
		u.count++
		u.last = now
	}
	return u.count >= maxUndoes
}

// wrote backs off from the next write, in a fight.
func (u *undos) wrote(now time.Time) {
	if u.count >= maxUndoes {
		u.wait = min(max(2*u.wait, firstUndone), lastOverwritten)
		u.until = now.Add(u.wait)
	}
}

const (
	// A part that loses listeners maxUndoes times, never undoPeriod apart, is another program's to change.
	maxUndoes  = 3
	undoPeriod = 10 * time.Minute
	// Listeners that are undone back off: doubled from the first to lastOverwritten.
	firstUndone = 10 * time.Second
)

// part is what is remembered of a part, made where it is nothing. m.mu is held.
func (l *listenersMemory) part(name string) *listenersPartMemory {
	if l.parts == nil {
		l.parts = map[string]*listenersPartMemory{}
	}
	if l.parts[name] == nil {
		l.parts[name] = &listenersPartMemory{}
	}
	return l.parts[name]
}

// listenersDirty tells whether what is needed of listeners may have changed since they were last looked at.
func (m *memory) listenersDirty() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.listeners.dirty
}

// listenersDue tells whether they must be looked at, which they then are.
func (m *memory) listenersDue(force bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	due := force || m.listeners.dirty
	m.listeners.dirty = false
	return due
}

// listenersFail tells whether a part could not be written: only the listeners' own key tries again. Where another program
// interferes, what is new is still written.
func (m *memory) listenersFail(part string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.listeners.parts[part]
	return p != nil && p.problem.Reason == mirrors.WriteFailed
}

// listenersDone notes what became of parts. The Services with gateway ports are to say so if that is news.
func (m *memory) listenersDone(parts map[string]outcome, conflicts error) (news []cache.ObjectName) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listeners.conflicts = conflicts
	changed := false
	for name, done := range parts {
		p := m.listeners.part(name)
		changed = changed || p.problem != done.problem()
		if p.err, p.problem = done.err, done.problem(); p.err == nil && p.count == 0 && p.text == "" && p.applied == nil {
			delete(m.listeners.parts, name)
		}
	}
	if changed {
		news = m.ledger.Services()
	}
	return news
}

// listenersError is all that is wrong with listeners.
func (m *memory) listenersError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	var all []error
	for _, name := range slices.Sorted(maps.Keys(m.listeners.parts)) {
		all = append(all, m.listeners.parts[name].err)
	}
	return errors.Join(append(all, m.listeners.conflicts)...)
}

// problems are why parts lack listeners. m.mu is held.
func (l *listenersMemory) problems() map[string]mirrors.Problem {
	all := map[string]mirrors.Problem{}
	for name, p := range l.parts {
		if p.err != nil {
			all[name] = p.problem
		}
	}
	return all
}

// listenersApplied notes an application to the Gateway.
func (m *memory) listenersApplied(listeners []any, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.listeners.part(onGateway)
	p.applied = plan.ListenerNames(listeners)
	p.wrote(now)
}

// undone counts it if listeners that were applied are gone or changed although still needed, and tells whether that is a
// fight.
func (m *memory) undone(gw plan.Gateway, needed []any, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.listeners.part(onGateway)
	names, intact := plan.ListenerNames(needed), gw.Intact()
	undone := gw.Known && slices.ContainsFunc(p.applied, func(name string) bool { return slices.Contains(names, name) && !slices.Contains(intact, name) })
	if undone {
		p.applied = nil // until they are applied again, they are not undone again
	}
	return p.note(undone, now)
}

// setUndone counts it if a ListenerSet that was written is to be written again as it was, and tells whether that is a
// fight. There may be nothing to write.
func (m *memory) setUndone(name string, step *plan.Step, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.listeners.part(name)
	undone := step != nil && step.Action != plan.Delete && p.text != "" && p.text == textOf(step.Object)
	if undone {
		p.text = ""
	}
	return p.note(undone, now)
}

// setWritten notes a write of a ListenerSet.
func (m *memory) setWritten(step plan.Step, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	p := m.listeners.part(step.Ref.Name)
	if p.text = ""; step.Action != plan.Delete {
		p.text = textOf(step.Object)
		p.wrote(now)
	}
}

// setNames are the ListenerSets of which anything is remembered.
func (m *memory) setNames() (names []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name := range m.listeners.parts {
		if name != onGateway {
			names = append(names, name)
		}
	}
	return names
}

// textOf is the spec of an object, by which it is compared.
func textOf(obj *unstructured.Unstructured) string { return fmt.Sprint(obj.Object["spec"]) }

// listenersWait is how long a part must not be written.
func (m *memory) listenersWait(part string, now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.listeners.part(part).until.Sub(now))
}
