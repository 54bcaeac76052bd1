package remote

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/resourceversion"
)

// history is how far an informer has followed a server's resourceVersions, which grow
// until the server is restored from a backup. Then a watch that resumes above the
// server's own version is accepted, and sends nothing, ever.
type history struct {
	// broken holds until the next list: what was followed is not, or may not be, this
	// server's history any more.
	broken atomic.Bool

	mu      sync.Mutex
	version string // the last one seen
	written string // the highest one that the server answered a write with
	due     string // written, when the last list was requested: it must not be below
	fresh   bool   // it is that of a plain list, and no watch was opened since
	contact time.Time
}

// maxSilence is how long a server may be without a word before all is listed again:
// in that time a restored one may have passed the version that is known.
const maxSilence = 10 * time.Second

// maxFresh is how long the version of a list needs no check.
const maxFresh = 2 * time.Second

// list notes the version of a whole list, of which a watch follows if it is plain, and
// returns the one before it.
func (h *history) list(version string, plain bool) (before string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	before = h.version
	if lower(before, h.due) {
		before = h.due
	}
	if lower(version, h.due) {
		h.written = ""
	}
	h.version, h.fresh, h.contact = version, plain, time.Now()
	h.broken.Store(false)
	return before
}

// wrote notes the version of a write that the server has answered.
func (h *history) wrote(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.written == "" || lower(h.written, version) {
		h.written = version
	}
}

// requested notes that a list is requested at a version (empty: the latest), and returns the
// version that the server's must not be below: that of what was written before. A list at a
// version comes from a cache, which need not have seen that yet.
func (h *history) requested(at string) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.due = h.written; at != "" {
		h.due = ""
	}
	return h.due
}

// forget is for a version that the server does not have any more.
func (h *history) forget() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version, h.written, h.due = "", "", ""
	h.broken.Store(true)
}

// event notes the version of an event of a watch.
func (h *history) event(version string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.version, h.fresh, h.contact = version, false, time.Now()
}

// touch notes that the server has answered.
func (h *history) touch() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.contact = time.Now()
}

// mustRelist is whether all must be listed again before a watch: a version is known to
// be void, or may be, since the server did not answer for too long.
func (h *history) mustRelist() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.broken.Load() || h.version != "" && time.Since(h.contact) > maxSilence
}

// opened notes that a watch was opened.
func (h *history) opened() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.fresh, h.contact = false, time.Now()
}

// follows is whether a version comes from a watch, which may be long ago, rather than
// from a list just before.
func (h *history) follows(version string) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.version != "" && !(h.fresh && h.version == version && time.Since(h.contact) < maxFresh)
}

// lower compares two resourceVersions of one resource (KEP-5504). What is no number
// cannot be compared.
func lower(a, b string) bool {
	order, err := resourceversion.CompareResourceVersion(a, b)
	return err == nil && order < 0
}

// serverVersion is the resourceVersion that the server has, by a consistent list of at
// most one object: a cache of a highly available API server may be behind. Empty where the
// server does not list.
func (lw *ListWatch) serverVersion(ctx context.Context) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	list, _, err := lw.list(ctx, reader{list: lw.ListFunc}, metav1.ListOptions{Limit: 1})
	if unsupported(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	listMeta, err := meta.ListAccessor(list)
	must(err)
	return listMeta.GetResourceVersion(), nil
}

// synced notes that all is known at a version.
func (lw *ListWatch) synced(version string, plain bool) {
	if before := lw.history.list(version, plain); lower(version, before) {
		lw.wentBack(before, version)
	}
}

// wentBack reports that the server's history went back, and has what was remembered of
// the lost one dropped.
func (lw *ListWatch) wentBack(from, to string) {
	lw.Report(fmt.Errorf("the server's resourceVersion went back from %s to %s, as after a restore from a backup: everything is listed again", from, to))
	if lw.Reset != nil {
		lw.Reset()
	}
}
