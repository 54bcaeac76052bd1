// Package report says what is wrong: in the log, in Events and in metrics. What is wrong is decided
// elsewhere.
package report

import (
	"maps"
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Problems are what is wrong now, by mirror. A problem is logged when it appears and when it is over,
// however often it is found in between.
type Problems struct {
	logger klog.Logger
	events *Events
	// service is the mirror's Service as it is live; nil where there is none.
	service func(cache.ObjectName) *corev1.Service

	mu      sync.Mutex
	mirrors map[cache.ObjectName][]plan.Problem
	shared  map[share]int     // how many mirrors have a problem that one Event is enough for
	local   map[string]string // what is wrong with the caches of the local cluster, by part
}

// share is a problem that many mirrors have at once: without a namespace, or without an address of their
// gateway. One Event is made for all of them.
type share struct {
	reason                      plan.Reason
	cluster, namespace, message string
}

func shareOf(key cache.ObjectName, p plan.Problem) (share, bool) {
	switch {
	case p.NoNamespace():
		return share{reason: p.Reason, cluster: p.Cluster, namespace: key.Namespace}, true
	case p.Reason == plan.NoAddress, p.Reason == plan.TooManyDeletes:
		return share{reason: p.Reason, cluster: p.Cluster, message: p.Message}, true
	}
	return share{}, false
}

// New makes Problems. events may be nil.
func New(logger klog.Logger, events *Events, service func(cache.ObjectName) *corev1.Service) *Problems {
	return &Problems{
		logger: logger, events: events, service: service,
		mirrors: map[cache.ObjectName][]plan.Problem{}, shared: map[share]int{}, local: map[string]string{},
	}
}

// Of is what is wrong with a mirror now.
func (r *Problems) Of(key cache.ObjectName) []plan.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mirrors[key]
}

// Set notes what a sync found. After one that was stale, or was not finished, nothing that was wrong before
// counts as over.
func (r *Problems) Set(key cache.ObjectName, found []plan.Problem, stale bool) {
	r.mu.Lock()
	before := r.mirrors[key]
	if stale {
		found = append(slices.Clone(found), slices.DeleteFunc(slices.Clone(before), func(p plan.Problem) bool {
			return slices.ContainsFunc(found, func(q plan.Problem) bool { return q.Reason == p.Reason && q.Cluster == p.Cluster })
		})...)
	}
	if len(found) > 0 {
		r.mirrors[key] = found
	} else {
		delete(r.mirrors, key)
	}
	var news []plan.Problem // of which an Event is made
	for _, p := range found {
		first := r.count(key, p, 1)
		if !slices.ContainsFunc(before, p.Same) && first {
			news = append(news, p)
		}
	}
	for _, p := range before {
		r.count(key, p, -1)
	}
	r.mu.Unlock()
	r.publish(key, before, found, news)
}

// count counts the mirrors that share a problem, and tells whether this is the first. r.mu is held.
func (r *Problems) count(key cache.ObjectName, p plan.Problem, n int) (first bool) {
	what, shared := shareOf(key, p)
	if !shared {
		return true
	}
	first = r.shared[what] == 0
	if r.shared[what] += n; r.shared[what] == 0 {
		delete(r.shared, what)
	}
	return first
}

func (r *Problems) publish(key cache.ObjectName, before, found, news []plan.Problem) {
	for _, p := range news {
		r.events.mirror(key, r.service(key), p)
	}
	for _, p := range found {
		if !slices.ContainsFunc(before, p.Same) {
			r.logger.Info("Mirror has a problem", "reason", p.Reason, "cluster", p.Cluster, "service", p.Source, "mirror", key, "message", strings.ReplaceAll(p.Message, "\n", "; "))
		}
	}
	for _, p := range before {
		if !p.Reason.Happened() && !slices.ContainsFunc(found, func(now plan.Problem) bool { return now.Reason == p.Reason && now.Cluster == p.Cluster }) {
			r.logger.Info("Mirror's problem is over", "reason", p.Reason, "cluster", p.Cluster, "service", p.Source, "mirror", key)
		}
	}
}

// Clear forgets what is wrong with mirrors: a replica that no longer leads does not know.
func (r *Problems) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.mirrors)
	clear(r.shared)
}

// OfLocal is what is wrong with the caches of the local cluster now.
func (r *Problems) OfLocal() (problems []status.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, part := range slices.Sorted(maps.Keys(r.local)) {
		if cause := r.local[part]; cause != "" {
			problems = append(problems, status.Problem{Part: part, Cause: cause})
		}
	}
	return problems
}

// Local notes the state of a part of the local cluster's caches; nil is healthy.
func (r *Problems) Local(part string, err error) {
	var text string
	if err != nil {
		text = remote.Cause(err)
	}
	r.mu.Lock()
	same := r.local[part] == text
	r.local[part] = text
	r.mu.Unlock()
	switch {
	case same:
	case err != nil:
		r.logger.Info("Cannot read from the local API server, retrying", "resource", part, "err", err)
	default:
		r.logger.Info("Reading from the local API server again", "resource", part)
	}
}
