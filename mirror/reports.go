package mirror

import (
	"slices"
	"sync"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/remote"
)

// reports is what is wrong now, by mirror. A problem is logged when it appears
// and when it is over, however often it is found in between.
type reports struct {
	logger klog.Logger

	mu       sync.Mutex
	mirrors  map[cache.ObjectName][]Problem
	failures map[string]string // of the local caches, by part
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
	r.mu.Unlock()
	for _, p := range problems {
		if !slices.ContainsFunc(before, p.same) {
			r.logger.Info("Mirror is not as it should be", "reason", p.Reason, "cluster", p.Cluster, "service", p.Source, "mirror", key, "message", p.Message)
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
