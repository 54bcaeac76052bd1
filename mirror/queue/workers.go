package queue

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/client-go/tools/cache"
)

// MaxSync is how long one sync may take before it counts as stuck.
const MaxSync = 5 * time.Minute

// Workers sync the keys of a queue, on a replica that leads; one key never on two of them at once. On a standby the
// keys wait.
type Workers struct {
	config  Config
	queue   *Queue
	keys    chan cache.ObjectName // to the workers of a replica that leads
	ready   chan struct{}         // closed when keys may be synced
	leading atomic.Bool
	syncing sync.Map // cache.ObjectName to time.Time: the syncs under way, by their start
}

// Config is what workers do.
type Config struct {
	Number int
	What   string // has a key, for messages: mirror
	Sync   func(ctx context.Context, key cache.ObjectName) Next
}

// Next is when a key is synced again although nothing has changed.
type Next struct {
	Retry bool          // with the queue's back-off: something failed
	After time.Duration // otherwise; zero: never
}

// NewWorkers makes workers for a queue.
func NewWorkers(queue *Queue, config Config) *Workers {
	return &Workers{config: config, queue: queue, keys: make(chan cache.ObjectName), ready: make(chan struct{})}
}

// Open says that all is known that keys need to be synced. It is called once.
func (w *Workers) Open() { close(w.ready) }

// Ready is closed by Open.
func (w *Workers) Ready() <-chan struct{} { return w.ready }

// IsReady tells whether it is closed.
func (w *Workers) IsReady() bool {
	select {
	case <-w.ready:
		return true
	default:
		return false
	}
}

// Leading tells whether this replica leads.
func (w *Workers) Leading() bool { return w.leading.Load() }

// Feed hands keys to the workers until the queue or the context ends.
func (w *Workers) Feed(ctx context.Context) {
	for {
		key, shutdown := w.queue.Get()
		if shutdown {
			return
		}
		select {
		case w.keys <- key:
		case <-ctx.Done():
			return
		}
	}
}

// Lead syncs keys until the context ends. A sync under way is then finished, for which it has grace. begin is called
// before the first sync, and end after the last.
func (w *Workers) Lead(ctx context.Context, grace time.Duration, begin, end func()) {
	working, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	context.AfterFunc(ctx, func() { time.AfterFunc(grace, cancel) })
	w.leading.Store(true)
	defer func() {
		w.leading.Store(false)
		end()
	}()
	begin()
	var running sync.WaitGroup
	defer running.Wait()
	for range w.config.Number {
		running.Go(func() { w.workUntil(ctx, working) })
	}
}

// workUntil syncs keys until the context ends. One under way is finished in working.
func (w *Workers) workUntil(ctx, working context.Context) {
	for ctx.Err() == nil { // select takes any of two that are ready
		select {
		case <-ctx.Done():
		case key := <-w.keys:
			w.work(working, key)
		}
	}
}

// work syncs a key, and sees to it that the key is looked at again if need be.
func (w *Workers) work(ctx context.Context, key cache.ObjectName) {
	defer w.queue.Done(key)
	w.syncing.Store(key, time.Now())
	defer w.syncing.Delete(key)
	w.queue.Again(key, w.config.Sync(ctx, key))
}

// Again enqueues a key that was synced.
func (q *Queue) Again(key cache.ObjectName, next Next) {
	if next.Retry {
		q.AddRateLimited(key)
		return
	}
	q.Forget(key)
	if next.After > 0 {
		q.AddAfter(key, next.After)
	}
}

// Stuck names a key whose sync does not end. An API server that is down is no such thing: its requests fail in time.
func (w *Workers) Stuck() error {
	var stuck error
	w.syncing.Range(func(key, begin any) bool {
		if took := time.Since(begin.(time.Time)); took > MaxSync {
			stuck = fmt.Errorf("the sync of %s %v has been running for %v", w.config.What, key, took.Round(time.Second))
		}
		return stuck == nil
	})
	return stuck
}

// Sooner is the shorter of two durations, of which zero is never.
func Sooner(a, b time.Duration) time.Duration {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}
