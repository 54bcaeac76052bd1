// Package report says what is wrong: in the log, in Events and in metrics. What is wrong is decided
// elsewhere.
package report

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote/failure"
)

// Problems are what is wrong now, by mirror. A problem is logged when it appears and when it is over,
// however often it is found in between; alike ones of many mirrors are one line.
type Problems struct {
	words  Words
	logger klog.Logger
	events *Events
	// service is the mirror's Service as it is live; nil where there is none.
	service func(cache.ObjectName) *corev1.Service

	mu      sync.Mutex
	mirrors map[cache.ObjectName][]plan.Problem
	shared  map[share]int    // how many mirrors have a problem that one Event is enough for
	local   map[string]*part // the caches of the local cluster, by part
	batches map[alike]*batch // to be logged
	dirty   chan struct{}    // has a value when Run must look for what is to be logged
}

// part is how one part of the local cluster's caches is doing.
type part struct {
	failure.Series
	err error // the latest
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
	case p.Reason == plan.NoAddress, p.Reason == plan.NoGateway, p.Reason == plan.TooManyDeletes, p.Reason == plan.NotReached:
		return share{reason: p.Reason, cluster: p.Cluster, message: p.Message}, true
	}
	return share{}, false
}

// Words are what the log calls what has problems, as the beginning of a sentence.
type Words struct{ One, Many string }

// New makes Problems of mirrors. events may be nil.
func New(logger klog.Logger, events *Events, service func(cache.ObjectName) *corev1.Service) *Problems {
	return NewFor(Words{"Mirror", "Mirrors"}, logger, events, service)
}

// NewFor makes Problems of something else that has a Service under its key.
func NewFor(words Words, logger klog.Logger, events *Events, service func(cache.ObjectName) *corev1.Service) *Problems {
	return &Problems{
		words: words, logger: logger, events: events, service: service,
		mirrors: map[cache.ObjectName][]plan.Problem{}, shared: map[share]int{}, local: map[string]*part{},
		batches: map[alike]*batch{}, dirty: make(chan struct{}, 1),
	}
}

// Of is what is wrong with a mirror now.
func (r *Problems) Of(key cache.ObjectName) []plan.Problem {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.mirrors[key]
}

// Set notes what a sync found. After one that was stale, or was not finished, nothing that was wrong before
// counts as over. What a verification found stays.
func (r *Problems) Set(key cache.ObjectName, found []plan.Problem, stale bool) {
	r.set(key, found, stale, func(p plan.Problem) bool { return p.Reason != plan.NotReached })
}

// Verified notes what a verification found; nil: nothing is wrong, as far as is known.
func (r *Problems) Verified(key cache.ObjectName, found []plan.Problem) {
	r.set(key, found, false, func(p plan.Problem) bool { return p.Reason == plan.NotReached })
}

// set notes what was found of those problems that are found in one way. The others stay.
func (r *Problems) set(key cache.ObjectName, found []plan.Problem, stale bool, ofThis func(plan.Problem) bool) {
	r.mu.Lock()
	var before, others []plan.Problem
	for _, p := range r.mirrors[key] {
		if ofThis(p) {
			before = append(before, p)
		} else {
			others = append(others, p)
		}
	}
	if stale {
		found = append(slices.Clone(found), slices.DeleteFunc(slices.Clone(before), func(p plan.Problem) bool {
			return slices.ContainsFunc(found, func(q plan.Problem) bool { return q.Reason == p.Reason && q.Cluster == p.Cluster })
		})...)
	}
	if all := append(slices.Clip(found), others...); len(all) > 0 {
		r.mirrors[key] = all
	} else {
		delete(r.mirrors, key)
	}
	var news []plan.Problem // of which an Event is made
	for _, p := range found {
		first := r.count(key, p, 1)
		if same(before, p) {
			continue
		}
		r.begins(key, p)
		if first {
			news = append(news, p)
		}
	}
	for _, p := range before {
		r.count(key, p, -1)
		if !p.Reason.Happened() && !slices.ContainsFunc(found, func(now plan.Problem) bool { return now.Reason == p.Reason && now.Cluster == p.Cluster }) {
			r.ends(key, p)
		}
	}
	r.mu.Unlock()
	for _, p := range news {
		r.events.mirror(key, r.service(key), p)
	}
}

// same tells whether a problem is among those that were found before, perhaps in other words. Of a failed write
// only that it failed counts: a server that is in trouble gives many reasons.
func same(before []plan.Problem, p plan.Problem) bool {
	return slices.ContainsFunc(before, func(q plan.Problem) bool {
		if p.Reason != q.Reason || p.Cluster != q.Cluster || p.Source != q.Source {
			return false
		}
		return p.Reason == plan.WriteFailed || p.Message == q.Message || failure.Key(p.Message) == failure.Key(q.Message)
	})
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

// Clear forgets what is wrong with mirrors: a replica that no longer leads does not know.
func (r *Problems) Clear() {
	r.mu.Lock()
	defer r.mu.Unlock()
	clear(r.mirrors)
	clear(r.shared)
	clear(r.batches)
}

// OfLocal is what is wrong with parts of the local cluster now.
func (r *Problems) OfLocal() (problems []status.Problem) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(r.local)) {
		if cause := r.local[name].Shown; cause != "" {
			problems = append(problems, status.Problem{Part: name, Cause: cause})
		}
	}
	return problems
}

// Misnamed notes which Secrets in a namespace are to configure a remote and do not name one; nil: none.
func (r *Problems) Misnamed(namespace string, err error) {
	r.Local(status.Misnamed+" in namespace "+namespace, err)
}

// Parts of the local cluster, besides caches.
const (
	Identity  = "identity" // another cluster answers
	Listeners = status.Listeners
)

// Local notes the state of a part of the local cluster, most of which are caches; nil is healthy.
func (r *Problems) Local(name string, err error) {
	var cause string
	if err != nil {
		cause = cmp.Or(failure.Cause(err), "unknown error")
	}
	r.log(r.noteLocal(name, err, cause))
}

func (r *Problems) noteLocal(name string, err error, cause string) (lines []line) {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.local[name]
	if p == nil {
		p = new(part)
		r.local[name] = p
	}
	p.err = err
	if p.Note(cause, time.Now()) {
		lines = append(lines, p.line(name))
	}
	if _, pending := p.Pending(); pending {
		r.wake()
	}
	return lines
}

// line says how the part is doing now.
func (p *part) line(name string) line {
	switch misnamed := (status.Problem{Part: name}).IsMisnamed(); {
	case misnamed && p.Shown == "":
		return line{false, "All Secrets labelled service-mirror.io/remote have valid names", nil}
	case misnamed:
		return line{true, "Secrets with invalid names of remotes are not used", []any{"err", failure.Line(fmt.Sprintf("%.1000v", p.err))}}
	}
	failing, again := "Cannot read from the local API server, retrying", "Reading from the local API server again"
	switch name {
	case Identity:
		failing, again = "Another cluster answers in place of the local one, which is neither read nor written", "The local cluster answers again"
	case Listeners:
		failing, again = "Cannot write to the local API server, retrying", "Writing to the local API server again"
	}
	if p.Shown == "" {
		return line{false, again, []any{"resource", name}}
	}
	return line{true, failing, []any{"resource", name, "err", failure.Line(fmt.Sprintf("%.1000v", p.err))}}
}
