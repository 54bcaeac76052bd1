package mirror

import (
	"slices"
	"strings"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/remote"
)

// reports is what is wrong now, by mirror. A problem is logged when it appears
// and when it is over, however often it is found in between.
type reports struct {
	logger klog.Logger
	events *Events
	// service gives the mirror's Service as it stands.
	service func(cache.ObjectName) *corev1.Service

	mu       sync.Mutex
	mirrors  map[cache.ObjectName][]Problem
	failures map[string]string // of the local caches, by part
	missing  map[absence]int   // mirrors that wait for a namespace
}

// absence is a namespace that a remote's mirrors wait for. It is told once, not
// for each of them.
type absence struct{ namespace, cluster string }

// of is what is wrong with a mirror now.
func (r *reports) of(key cache.ObjectName) []Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mirrors[key]
}

// wait counts the mirrors that wait for a namespace, and tells whether one is the
// first. r.mu is held.
func (r *reports) wait(key cache.ObjectName, problems []Problem, n int) (first bool) {
	if r.missing == nil {
		r.missing = map[absence]int{}
	}
	for _, p := range problems {
		if p.missing() {
			what := absence{key.Namespace, p.Cluster}
			first = first || n > 0 && r.missing[what] == 0
			if r.missing[what] += n; r.missing[what] == 0 {
				delete(r.missing, what)
			}
		}
	}
	return first
}

func (r *reports) set(key cache.ObjectName, problems []Problem) {
	r.mu.Lock()
	before := r.mirrors[key]
	switch {
	case len(problems) > 0 && r.mirrors == nil:
		r.mirrors = map[cache.ObjectName][]Problem{key: problems}
	case len(problems) > 0:
		r.mirrors[key] = problems
	default:
		delete(r.mirrors, key)
	}
	first := r.wait(key, problems, 1)
	r.wait(key, before, -1)
	r.mu.Unlock()
	for _, p := range problems {
		if !slices.ContainsFunc(before, p.same) {
			if first || !p.missing() {
				r.events.mirror(key, r.service(key), p)
			}
			r.logger.Info("Mirror is not as it should be", "reason", p.Reason, "cluster", p.Cluster, "service", p.Source, "mirror", key, "message", strings.ReplaceAll(p.Message, "\n", "; "))
		}
	}
	for _, p := range before {
		if p.Reason != ClusterIPLost && !slices.ContainsFunc(problems, func(now Problem) bool { return now.Reason == p.Reason && now.Cluster == p.Cluster }) {
			r.logger.Info("Mirror's problem is over", "reason", p.Reason, "cluster", p.Cluster, "service", p.Source, "mirror", key)
		}
	}
}

// same tells whether two problems are one and need not be reported twice. How
// a write fails differs from try to try.
func (p Problem) same(q Problem) bool {
	if p.Reason == WriteFailed {
		p.Message, q.Message = "", ""
	}
	return p == q
}

// local is told how the caches of the local cluster fare.
func (r *reports) local(part string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var text string
	if err != nil {
		text = remote.Cause(err)
	}
	if r.failures[part] == text {
		return
	}
	if r.failures == nil {
		r.failures = map[string]string{}
	}
	r.failures[part] = text
	if err != nil {
		r.logger.Info("The local API server does not answer; tried again", "resource", part, "err", err)
	} else {
		r.logger.Info("The local API server answers again", "resource", part)
	}
}
