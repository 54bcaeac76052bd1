package e2e

import (
	"encoding/json"
	"net/http"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// fault is a failure of a remote; the zero one is none.
type fault struct {
	name string
	code int // of its answers
	// narrow: only the requests for the gateway Service are refused.
	narrow bool
	// times: that many watches are answered that their resourceVersion is too old.
	times     int32
	cut       bool // connections are cut when it begins
	stall     bool
	bookmarks bool // are lost
	// blackout: no change in the remote can be seen.
	blackout bool
	removed  bool // the flags do not name the remote
}

// silent: a daemon that starts gets no answer from the remote, or none about its gateway.
func (f fault) silent() bool { return f.blackout || f.code != 0 }

var removed = fault{name: "is removed from the flags", removed: true, blackout: true}

var faults = []fault{
	{name: "refuses connections", code: http.StatusServiceUnavailable, cut: true, blackout: true},
	{name: "stalls", stall: true, blackout: true},
	{name: "answers 403, with connections cut", code: http.StatusForbidden, cut: true, blackout: true},
	{name: "answers 403 to what is new", code: http.StatusForbidden},
	{name: "answers 403 about its gateway, with connections cut", code: http.StatusForbidden, narrow: true, cut: true},
	{name: "answers 500, with connections cut", code: http.StatusInternalServerError, cut: true, blackout: true},
	{name: "answers 429, with connections cut", code: http.StatusTooManyRequests, cut: true, blackout: true},
	{name: "answers 410 once", times: 1, cut: true},
	{name: "answers 410 four times", times: 4, cut: true},
	{name: "loses bookmarks, with connections cut", bookmarks: true, cut: true},
	{name: "loses bookmarks of what is new", bookmarks: true},
}

const refusesConnections = "refuses connections"

// suffer starts a fault of a remote; plain is its proxy's own handler.
func (r *remote) suffer(f fault, plain http.Handler) {
	p := r.proxy
	handler := plain
	switch {
	case f.code != 0:
		handler = refuse(f, plain)
	case f.times != 0:
		handler = expire(f.times, plain)
	}
	p.mu.Lock()
	p.handler = handler
	p.mu.Unlock()
	p.noBookmarks.Store(f.bookmarks)
	p.heal()
	switch {
	case f.name == refusesConnections:
		p.cut()
	case f.stall:
		p.stall()
	case f.cut:
		p.cutConnections()
	}
}

// refuse answers with a code, with Retry-After if that is 429.
func refuse(f fault, plain http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f.narrow && r.URL.Query().Get("fieldSelector") == "" {
			plain.ServeHTTP(w, r)
			return
		}
		if f.code == http.StatusTooManyRequests {
			w.Header().Set("Retry-After", "1")
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(f.code)
		json.NewEncoder(w).Encode(failure(f.code))
	})
}

// expire answers that many watches that their resourceVersion is too old, in the stream, as
// an API server does.
func expire(times int32, plain http.Handler) http.Handler {
	var expired atomic.Int32
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" || expired.Add(1) > times {
			plain.ServeHTTP(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(map[string]any{"type": "ERROR", "object": failure(http.StatusGone)})
	})
}

func failure(code int) metav1.Status {
	return metav1.Status{
		TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"},
		Status:   metav1.StatusFailure, Code: int32(code), Message: "as the walk wants it",
		Reason: map[int]metav1.StatusReason{
			http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusGone: metav1.StatusReasonExpired,
			http.StatusTooManyRequests: metav1.StatusReasonTooManyRequests, http.StatusInternalServerError: metav1.StatusReasonInternalError,
		}[code],
	}
}
