package mirror

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// holds are the mirrors that are not written for a while, and why. A hold never
// keeps a mirror that is to go.
type holds struct {
	byKey   sync.Map // cache.ObjectName to hold
	limiter workqueue.TypedRateLimiter[cache.ObjectName]
	pace    pace
}

type hold struct {
	problem Problem
	until   time.Time
	only    *Objects // holds while just these are desired; nil: whatever is
}

// How long a mirror is held that someone else rewrites: doubled from the first
// to the last.
const (
	firstHold = time.Second
	lastHold  = 5 * time.Minute
)

func newHolds() holds {
	return holds{limiter: workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](firstHold, lastHold)}
}

// standing is the reason why a mirror must not be written now, and for how long;
// nil where it may be.
func (h *holds) standing(key cache.ObjectName, desired Objects) (*Problem, time.Duration) {
	value, ok := h.byKey.Load(key)
	if !ok {
		return nil, 0
	}
	held := value.(hold)
	remaining := time.Until(held.until)
	if remaining <= 0 || held.only != nil && !Diff(*held.only, desired).Empty() {
		return nil, 0
	}
	return &held.problem, remaining
}

// refused holds a mirror that the API server does not take. To ask again with
// every event would be a loop: the Endpoints that come and go with a try are
// events.
func (h *holds) refused(key cache.ObjectName, desired Objects, problem Problem) time.Duration {
	h.byKey.Store(key, hold{problem: problem, until: time.Now().Add(rejectedPeriod), only: &desired})
	return rejectedPeriod
}

// fought holds a mirror that someone else rewrites, each time for longer.
func (h *holds) fought(key cache.ObjectName, problem Problem) time.Duration {
	wait := h.limiter.When(key)
	h.byKey.Store(key, hold{problem: problem, until: time.Now().Add(wait)})
	return wait
}

// clear is for a mirror that is well, or wanted no more.
func (h *holds) clear(key cache.ObjectName) {
	if _, held := h.byKey.LoadAndDelete(key); held {
		h.limiter.Forget(key)
	}
}

// pace notices a mirror that is updated over and over: another program undoes
// what we do as soon as it is done.
type pace struct {
	mu      sync.Mutex
	began   time.Time
	updates map[cache.ObjectName]int
}

// More updates of one mirror than this, in so long, are a fight.
const (
	fightUpdates = 50
	fightPeriod  = 10 * time.Second
)

func (p *pace) update(key cache.ObjectName) (fight bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.began) > fightPeriod {
		p.began, p.updates = time.Now(), map[cache.ObjectName]int{}
	}
	p.updates[key]++
	return p.updates[key] > fightUpdates
}
