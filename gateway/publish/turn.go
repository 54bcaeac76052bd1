package publish

import (
	"context"
	"sync/atomic"
	"time"
)

// patience is how long a worker waits for its turn to write listeners before it goes on without them.
const patience = time.Second

// turn is had by one at a time. Unlike a lock, it may be had during a request: who waits for it can give up.
type turn struct {
	taken chan struct{}
	slow  atomic.Bool // someone has given up on who has it now
}

func newTurn() *turn { return &turn{taken: make(chan struct{}, 1)} }

// begin waits for the turn; false: the context has ended or, unless insisting, it took too long.
func (t *turn) begin(ctx context.Context, insist bool) bool {
	select {
	case t.taken <- struct{}{}:
		return true
	default:
	}
	if !insist && t.slow.Load() {
		return false
	}
	var late <-chan time.Time
	if !insist {
		timer := time.NewTimer(patience)
		defer timer.Stop()
		late = timer.C
	}
	select {
	case t.taken <- struct{}{}:
		return true
	case <-ctx.Done():
	case <-late:
		t.slow.Store(true)
	}
	return false
}

// busy tells whether someone has it.
func (t *turn) busy() bool { return len(t.taken) > 0 }

// end tells whether anyone has given up meanwhile.
func (t *turn) end() (late bool) {
	late = t.slow.Swap(false)
	<-t.taken
	return late
}
