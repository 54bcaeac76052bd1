package publish

import (
	"slices"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// listenersMemory is what is remembered of the listeners of ours.
type listenersMemory struct {
	dirty   bool            // what is needed may have changed since they were last looked at
	problem mirrors.Problem // why some are missing; zero: none is, as far as is known
	applied []string        // as they were last applied
	undoes  int             // how often some of these were gone, although still needed
	undone  time.Time       // the last time
	wait    time.Duration
	until   time.Time // of the back-off
}

const (
	// A Gateway that loses applied listeners maxUndoes times, never undoPeriod apart, is another program's to change.
	maxUndoes  = 3
	undoPeriod = 10 * time.Minute
	// Listeners that are undone back off: doubled from the first to lastOverwritten.
	firstUndone = 10 * time.Second
)

// listenersDue tells whether the listeners must be looked at. While they cannot be applied, only their own key tries.
func (m *memory) listenersDue(force bool) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !force && (!m.listeners.dirty || m.listeners.problem.Reason != "") {
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
	l := &m.listeners
	l.applied = plan.ListenerNames(listeners)
	if l.undoes >= maxUndoes {
		l.wait = min(max(2*l.wait, firstUndone), lastOverwritten)
		l.until = now.Add(l.wait)
	}
}

// undone counts it if listeners that were applied are gone although still needed, and tells whether that is a fight.
func (m *memory) undone(gw plan.Gateway, needed []any, now time.Time) (fight bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l := &m.listeners
	if now.Sub(l.undone) > undoPeriod {
		l.undoes, l.wait, l.until = 0, 0, time.Time{}
	}
	names := plan.ListenerNames(needed)
	gone := func(name string) bool {
		return slices.Contains(names, name) && !slices.ContainsFunc(gw.Listeners, func(live plan.Listener) bool { return live.Name == name })
	}
	if gw.Known && slices.ContainsFunc(l.applied, gone) {
		l.undoes++
		l.undone, l.applied = now, nil // until they are applied again, they are not undone again
	}
	return l.undoes >= maxUndoes
}

// listenersWait is how long until the listeners are looked at again; 0: not before something changes.
func (m *memory) listenersWait(now time.Time) time.Duration {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(0, m.listeners.until.Sub(now))
}
