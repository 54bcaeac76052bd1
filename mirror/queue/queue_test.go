package queue

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
)

func keyed(cluster string, n int) cache.ObjectName {
	return cache.NewObjectName("default", fmt.Sprintf("svc-%d-%s", n, cluster))
}

// drain takes everything that is in the queue now.
func drain(q *Queue) (keys []cache.ObjectName) {
	for q.Len() > 0 {
		key, _ := q.Get()
		keys = append(keys, key)
		q.Done(key)
	}
	return keys
}

func testQueue(t *testing.T, test func(t *testing.T, q *Queue)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := New(unmeasured{})
		defer q.ShutDown()
		test(t, q)
	})
}

// TestStormDoesNotHoldUpOthers: a thousand changes in one remote, then one in
// another.
func TestStormDoesNotHoldUpOthers(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		for n := range 1000 {
			q.AddFor("paris", keyed("paris", n))
		}
		q.AddFor("berlin", keyed("berlin", 0))
		q.AddFor("rome", keyed("rome", 0))
		order := drain(q)
		if len(order) != 1002 {
			t.Errorf("got %d of 1002 keys", len(order))
		}
		for i, cluster := range []string{"berlin", "rome"} {
			if place := slices.Index(order, keyed(cluster, 0)) + 1; place == 0 || place > i+2 {
				t.Errorf("%s is served at place %d", cluster, place)
			}
		}
	})
}

func TestLanesTakeTurns(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		for _, cluster := range []string{"paris", "berlin", "rome"} {
			for n := range 3 {
				q.AddFor(cluster, keyed(cluster, n))
			}
		}
		var want []cache.ObjectName
		for n := range 3 {
			for _, cluster := range []string{"paris", "berlin", "rome"} {
				want = append(want, keyed(cluster, n))
			}
		}
		if got := drain(q); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

func TestLaneKeepsItsOrder(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		var want []cache.ObjectName
		for n := range 100 {
			q.AddFor("paris", keyed("paris", n))
			want = append(want, keyed("paris", n))
		}
		q.AddFor("paris", keyed("paris", 50)) // it waits already and keeps its place
		if got := drain(q); !slices.Equal(got, want) {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	})
}

// A key that no remote asked for, as one that is retried, is served in turn too.
func TestKeysOfNoRemoteAreServed(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		for n := range 100 {
			q.AddFor("paris", keyed("paris", n))
		}
		q.Add(keyed("local", 0))
		if place := slices.Index(drain(q), keyed("local", 0)) + 1; place != 2 {
			t.Errorf("served at place %d", place)
		}
	})
}

func TestKeyIsNotWorkedOnTwiceAtOnce(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		q.AddFor("paris", keyed("paris", 0))
		key, _ := q.Get()
		q.AddFor("berlin", key) // meanwhile
		if q.Len() != 0 {
			t.Error("it is given out again")
		}
		q.Done(key)
		if got := drain(q); !slices.Equal(got, []cache.ObjectName{key}) {
			t.Errorf("got %v, want it once more", got)
		}
	})
}

func TestRetriesBackOff(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		key := keyed("paris", 0)
		var waits []time.Duration
		for range 12 {
			start := time.Now()
			q.AddRateLimited(key)
			got, _ := q.Get()
			q.Done(got)
			waits = append(waits, time.Since(start).Round(time.Millisecond))
		}
		const ms, s = time.Millisecond, time.Second
		want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30 * s, 30 * s, 30 * s}
		if !slices.Equal(waits, want) {
			t.Errorf("got %v\nwant %v", waits, want)
		}
	})
}

// Nothing of a key stays behind once it has been served.
func TestLanesForget(t *testing.T) {
	testQueue(t, func(t *testing.T, q *Queue) {
		for n := range 100 {
			q.AddFor("paris", keyed("paris", n))
			q.AddFor("berlin", keyed("berlin", n))
		}
		drain(q)
		if l := q.lanes; len(l.cluster) != 0 || len(l.waiting) != 0 || len(l.turns) != 0 || l.Len() != 0 {
			t.Errorf("left: %d clusters, %d lanes, %d turns, length %d", len(l.cluster), len(l.waiting), len(l.turns), l.Len())
		}
	})
}

func TestNoKeyIsLost(t *testing.T) {
	const clusters, keys, workers = 4, 200, 8
	testQueue(t, func(t *testing.T, q *Queue) {
		var mu sync.Mutex
		asked, served := map[cache.ObjectName]int{}, map[cache.ObjectName]int{}
		var adding, working sync.WaitGroup
		for c := range clusters {
			adding.Go(func() {
				for round := range 3 {
					for n := range keys {
						key := keyed("c", n) // the same for all: remotes may want one name
						if round == 0 {
							key = keyed(fmt.Sprint(c), n)
						}
						mu.Lock()
						asked[key]++
						mu.Unlock()
						q.AddFor(fmt.Sprint(c), key)
					}
				}
			})
		}
		busy := map[cache.ObjectName]bool{}
		for range workers {
			working.Go(func() {
				for {
					key, shutdown := q.Get()
					if shutdown {
						return
					}
					mu.Lock()
					if busy[key] {
						t.Errorf("%v is worked on twice at once", key)
					}
					busy[key] = true
					served[key]++
					mu.Unlock()
					mu.Lock()
					busy[key] = false
					mu.Unlock()
					q.Done(key)
				}
			})
		}
		adding.Wait()
		q.ShutDownWithDrain()
		working.Wait()
		for key, times := range asked {
			if n := served[key]; n < 1 || n > times {
				t.Errorf("%v was asked for %d times and served %d times", key, times, n)
			}
		}
		if want := (clusters + 1) * keys; len(asked) != want || len(served) != want {
			t.Errorf("%d keys were asked for and %d served, want %d", len(asked), len(served), want)
		}
	})
}

type unmeasured struct{}

func (unmeasured) Queued()             {}
func (unmeasured) Taken(time.Duration) {}
