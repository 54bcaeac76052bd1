package publish

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// listenersMemory is what is remembered of the listeners of ours.
type listenersMemory struct {
	dirty    bool            // what is needed may have changed since they were last looked at
	problem  mirrors.Problem // why some are missing; zero: none is, as far as is known
	ofGw     undos
	applied  []string // those of the Gateway as they were last applied
	ofSets   undos
	setTexts map[string]string // the ListenerSets as they were last written
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
	// A Gateway that loses applied listeners maxUndoes times, never undoPeriod apart, is another program's to change.
	maxUndoes  = 3
	undoPeriod = 10 * time.Minute
	// Listeners that are undone back off: doubled from the first to lastOverwritten.
	firstUndone = 10 * time.Second
)

// listenersDue tells whether the listeners must be looked at. While they cannot be written, only their own key tries; a
// conflict is about some of them.
func (m *memory) listenersDue(force bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	failing := m.listeners.problem.Reason != "" && m.listeners.problem.Reason != mirrors.Conflict
	if !force && (!m.listeners.dirty || failing) {
		return false
	}
	m.listeners.dirty = false
	return true
}

// listenersDone notes why listeners are missing. The Services with gateway ports are to say so if that is news.
func (m *memory) listenersDone(problem mirrors.Problem) []cache.ObjectName {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.listeners.problem == problem {
		return nil
	}
	m.listeners.problem = problem
	return m.ledger.Services()
}

// listenersApplied notes an application.
func (m *memory) listenersApplied(listeners []any, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.listeners.applied = plan.ListenerNames(listeners)
	m.listeners.ofGw.wrote(now)
}

// undone counts it if listeners that were applied are gone although still needed, and tells whether that is a fight.
func (m *memory) undone(gw plan.Gateway, needed []any, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.listeners
	names, added := plan.ListenerNames(needed), slices.Collect(maps.Values(gw.Added()))
	undone := gw.Known && slices.ContainsFunc(l.applied, func(name string) bool { return slices.Contains(names, name) && !slices.Contains(added, name) })
	if undone {
		l.applied = nil // until they are applied again, they are not undone again
	}
	return l.ofGw.note(undone, now)
}

// setsUndone counts it if ListenerSets that were written are to be written again as they were, and tells whether that
// is a fight.
func (m *memory) setsUndone(steps []plan.Step, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.listeners
	undone := false
	for _, step := range steps {
		if text := l.setTexts[step.Ref.Name]; text != "" && step.Action != plan.Delete && text == textOf(step.Object) {
			delete(l.setTexts, step.Ref.Name)
			undone = true
		}
	}
	return l.ofSets.note(undone, now)
}

// setWritten notes a write of a ListenerSet.
func (m *memory) setWritten(step plan.Step, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.listeners
	if l.setTexts == nil {
		l.setTexts = map[string]string{}
	}
	if delete(l.setTexts, step.Ref.Name); step.Action != plan.Delete {
		l.setTexts[step.Ref.Name] = textOf(step.Object)
		l.ofSets.wrote(now)
	}
}

// textOf is the spec of an object, by which it is compared.
func textOf(obj *unstructured.Unstructured) string { return fmt.Sprint(obj.Object["spec"]) }

// gatewayWait is how long the listeners of the Gateway must not be applied.
func (m *memory) gatewayWait(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.listeners.ofGw.until.Sub(now))
}

// setsWait is how long ListenerSets must not be written.
func (m *memory) setsWait(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.listeners.ofSets.until.Sub(now))
}
