package leader

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"k8s.io/client-go/rest"
)

// Fence refuses the writes of a replica that may not lead any more. client-go's
// election does not: a process that was suspended for a while continues with the
// write it was about to make, long after another has taken over.
type Fence struct {
	duration time.Duration // of the lease
	renewed  atomic.Pointer[time.Time]
}

// NewFence makes a fence for a lease of this duration. It is closed until the
// lease is held.
func NewFence(duration time.Duration) *Fence { return &Fence{duration: duration} }

// open notes a renewal whose request began at a time; the lease counts from then.
// The time has a monotonic reading, which a clock that is set does not change.
func (f *Fence) open(began time.Time) { f.renewed.Store(&began) }

func (f *Fence) close() { f.renewed.Store(nil) }

func (f *Fence) isOpen() bool {
	renewed := f.renewed.Load()
	return renewed != nil && time.Since(*renewed) < f.duration
}

// ErrFenced is the error of a refused write.
var ErrFenced = errors.New("another replica may be the leader: nothing is written until this one has the Lease again")

// Guard makes a client configuration refuse requests while the lease is not held:
// each before it begins, and each byte of it before it is sent, since a process may
// be suspended anywhere, most often in between. Reads with that client fail too:
// caches are filled with another one.
func (f *Fence) Guard(cfg *rest.Config) {
	dial := cfg.Dial
	cfg.Dial = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return guardedConn{conn, f}, nil
	}
	cfg.Wrap(func(inner http.RoundTripper) http.RoundTripper { return guarded{f, inner} })
}

type guarded struct {
	fence *Fence
	inner http.RoundTripper
}

// RoundTrip implements http.RoundTripper.
func (t guarded) RoundTrip(req *http.Request) (*http.Response, error) {
	if !t.fence.isOpen() {
		if req.Body != nil {
			req.Body.Close()
		}
		return nil, ErrFenced
	}
	return t.inner.RoundTrip(req)
}

// WrappedRoundTripper lets client-go find the transport below.
func (t guarded) WrappedRoundTripper() http.RoundTripper { return t.inner }

type guardedConn struct {
	net.Conn
	fence *Fence
}

// Write implements net.Conn. After a refusal the connection is of no use: half a
// request may have been sent.
func (c guardedConn) Write(b []byte) (int, error) {
	if !c.fence.isOpen() {
		c.Conn.Close()
		return 0, ErrFenced
	}
	return c.Conn.Write(b)
}
