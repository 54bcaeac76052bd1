// Package queue holds the keys that must be looked at, in an order that is fair among remotes.
package queue

import (
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/workqueue"
)

// How long a key backs off after a failure: doubled from the first to the last.
const (
	firstRetry = 100 * time.Millisecond
	lastRetry  = 30 * time.Second
)

// Queue holds the keys that must be looked at: many from one remote do not hold up a change in another.
type Queue struct {
	workqueue.TypedRateLimitingInterface[cache.ObjectName]
	lanes *lanes
}

// Metrics measures a queue.
type Metrics interface {
	Queued()
	Taken(waited time.Duration)
}

// New makes a queue that measures itself: one that the workqueue measures wakes the program twice a second.
func New(metrics Metrics) *Queue {
	lanes := &lanes{
		metrics: metrics,
		cluster: map[cache.ObjectName]string{},
		waiting: map[string]workqueue.Queue[waiting]{},
	}
	config := workqueue.TypedQueueConfig[cache.ObjectName]{Queue: lanes}
	return &Queue{
		TypedRateLimitingInterface: workqueue.NewTypedRateLimitingQueueWithConfig(
			workqueue.NewTypedItemExponentialFailureRateLimiter[cache.ObjectName](firstRetry, lastRetry),
			workqueue.TypedRateLimitingQueueConfig[cache.ObjectName]{
				DelayingQueue: workqueue.NewTypedDelayingQueueWithConfig(workqueue.TypedDelayingQueueConfig[cache.ObjectName]{
					Queue: workqueue.NewTypedWithConfig(config),
				}),
			}),
		lanes: lanes,
	}
}

// AddFor enqueues a key on behalf of a remote cluster; empty: it is not known which.
func (q *Queue) AddFor(cluster string, key cache.ObjectName) {
	if cluster != "" {
		q.lanes.assign(cluster, key)
	}
	q.Add(key)
}

// lanes is the order of the queue: a lane for each remote, taken in turn. A key goes into the lane of the
// remote that it was last enqueued for; where that is not known, as in a retry, into a common one.
type lanes struct {
	metrics Metrics
	mu      sync.Mutex // assign is called outside of the queue's own lock
	cluster map[cache.ObjectName]string

	waiting map[string]workqueue.Queue[waiting]
	turns   []string // the lanes that are not empty, next first
	length  int
}

// waiting is a key in a lane.
type waiting struct {
	key   cache.ObjectName
	since time.Time
}

func (l *lanes) assign(cluster string, key cache.ObjectName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cluster[key] = cluster
}

// Touch has nothing to do: a waiting key keeps its place.
func (l *lanes) Touch(cache.ObjectName) {}

func (l *lanes) Push(key cache.ObjectName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	cluster := l.cluster[key]
	lane, ok := l.waiting[cluster]
	if !ok {
		lane = workqueue.DefaultQueue[waiting]()
		l.waiting[cluster] = lane
		l.turns = append(l.turns, cluster)
	}
	lane.Push(waiting{key, time.Now()})
	l.length++
	l.metrics.Queued()
}

func (l *lanes) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.length
}

func (l *lanes) Pop() cache.ObjectName {
	l.mu.Lock()
	defer l.mu.Unlock()
	cluster := l.turns[0]
	l.turns = l.turns[1:]
	lane := l.waiting[cluster]
	next := lane.Pop()
	if lane.Len() > 0 {
		l.turns = append(l.turns, cluster)
	} else {
		delete(l.waiting, cluster)
	}
	delete(l.cluster, next.key)
	l.length--
	l.metrics.Taken(time.Since(next.since))
	return next.key
}
