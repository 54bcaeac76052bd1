package queue

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
)

var slow = cache.NewObjectName("default", "slow")

// lead runs workers inside a bubble of virtual time, which do work; stop ends their leadership and waits for it.
func lead(t *testing.T, work func(ctx context.Context, key cache.ObjectName) Next, test func(q *Queue, w *Workers, stop func())) {
	t.Helper()
	testQueue(t, func(t *testing.T, q *Queue) {
		w := NewWorkers(q, Config{Number: 2, What: "mirror", Sync: work})
		feeding, starve := context.WithCancel(t.Context())
		leading, stop := context.WithCancel(t.Context())
		var running sync.WaitGroup
		defer func() { stop(); starve(); q.ShutDown(); running.Wait() }()
		running.Go(func() { w.Feed(feeding) })
		running.Go(func() { w.Lead(leading, 5*time.Second, func() {}, func() {}) })
		synctest.Wait()
		test(q, w, stop)
	})
}

// A sync that does not end is named; the others go on, and one that ends is forgotten.
func TestStuck(t *testing.T) {
	var release chan struct{}
	others := 0
	work := func(_ context.Context, key cache.ObjectName) Next {
		if key == slow {
			<-release
		} else {
			others++
		}
		return Next{}
	}
	lead(t, work, func(q *Queue, w *Workers, _ func()) {
		release = make(chan struct{})
		q.Add(slow)
		time.Sleep(MaxSync)
		q.Add(keyed("paris", 1))
		synctest.Wait()
		if err := w.Stuck(); err != nil || others != 1 {
			t.Errorf("after %v: %v; %d others were synced", MaxSync, err, others)
		}
		time.Sleep(time.Second)
		if err := w.Stuck(); err == nil || err.Error() != "the sync of mirror default/slow has been running for 5m1s" {
			t.Errorf("got %v", err)
		}
		close(release)
		synctest.Wait()
		if err := w.Stuck(); err != nil {
			t.Errorf("when it has ended: %v", err)
		}
	})
}

// A key comes back when it is said to; a failure backs off.
func TestNext(t *testing.T) {
	var at []time.Duration
	var begin time.Time
	next := []Next{{Retry: true}, {Retry: true}, {After: time.Minute}, {}}
	work := func(context.Context, cache.ObjectName) Next {
		at = append(at, time.Since(begin))
		return next[len(at)-1]
	}
	lead(t, work, func(q *Queue, _ *Workers, _ func()) {
		begin = time.Now()
		q.Add(slow)
		time.Sleep(time.Hour)
		synctest.Wait()
		want := []time.Duration{0, firstRetry, 3 * firstRetry, 3*firstRetry + time.Minute}
		if len(at) != len(want) {
			t.Fatalf("synced at %v, want %v", at, want)
		}
		for i := range want {
			if at[i] != want[i] {
				t.Errorf("synced at %v, want %v", at, want)
			}
		}
		if q.NumRequeues(slow) != 0 {
			t.Error("the failures are not forgotten")
		}
	})
}

// When leadership ends, a sync under way has grace, and no other begins; then keys wait.
func TestLeadershipEnds(t *testing.T) {
	var ended time.Duration
	began := 0
	work := func(ctx context.Context, _ cache.ObjectName) Next {
		began++
		begin := time.Now()
		<-ctx.Done()
		ended = time.Since(begin)
		return Next{}
	}
	lead(t, work, func(q *Queue, w *Workers, stop func()) {
		q.Add(slow)
		synctest.Wait()
		if !w.Leading() {
			t.Error("it does not lead")
		}
		stop()
		synctest.Wait()
		q.Add(keyed("paris", 1))
		time.Sleep(time.Minute)
		synctest.Wait()
		if began != 1 || ended != 5*time.Second || w.Leading() {
			t.Errorf("%d syncs began; the first one had %v; leading: %v", began, ended, w.Leading())
		}
	})
}
