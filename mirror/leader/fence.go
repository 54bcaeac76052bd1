package leader

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"
)

// Fence refuses writes to one who may not lead any more. client-go's election
// does not: a process that was stopped for a while goes on with the write it was
// about to make, when another has long taken over.
type Fence struct {
	duration time.Duration // of the lease
	renewed  atomic.Pointer[time.Time]
}

// NewFence makes a fence for a lease of this duration. It is closed until the
// lease is held.
func NewFence(duration time.Duration) *Fence { return &Fence{duration: duration} }

// open notes a renewal that was asked for at a time; the lease counts from then.
// The time has a monotonic reading, which a clock that is set does not change.
func (f *Fence) open(asked time.Time) { f.renewed.Store(&asked) }

func (f *Fence) close() { f.renewed.Store(nil) }

func (f *Fence) isOpen() bool {
	renewed := f.renewed.Load()
	return renewed != nil && time.Since(*renewed) < f.duration
}

// errFenced is what a write meets.
var errFenced = errors.New("another replica may lead by now: nothing is written until the lease is held again")

// Wrap has a transport refuse writes while the lease is not held.
func (f *Fence) Wrap(inner http.RoundTripper) http.RoundTripper { return fenced{f, inner} }

type fenced struct {
	fence *Fence
	inner http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t fenced) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.Method != http.MethodGet && req.Method != http.MethodHead && !t.fence.isOpen() {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, errFenced
	}
	return t.inner.RoundTrip(req)
}

// WrappedRoundTripper lets client-go find the transport below.
func (t fenced) WrappedRoundTripper() http.RoundTripper { return t.inner }
