package remote

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/util/watchlist"
)

// requestTimeout bounds every request but an open watch; of a watch it bounds
// the time until the server begins to answer.
const requestTimeout = 30 * time.Second

// ListWatch lists and watches for an informer and does not give up: it tries
// again by itself, after half a second to three, until its context ends. A
// Reflector that saw the failures would back off for up to a minute, and a
// remote that is back must not wait for that. Every answer is reported; one that is
// malformed, or comes from a server whose history went back, changes nothing.
type ListWatch struct {
	ListFunc  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	WatchFunc func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// Namespace is the one that objects are requested of; empty: all.
	Namespace string
	// Before, where set, must succeed before each request, which is made with the
	// context that it returns. Once the answer has begun, check must succeed; bracketed
	// says that it vouches only for this moment, not for the network connection.
	Before func(context.Context) (request context.Context, check func() (bracketed bool, err error), err error)
	// Report is called with each failure, and with nil after each success.
	Report func(error)
	// Seen, where set, is called for each event of a watch, bookmarks included.
	Seen func()
	// Reset, where set, is called when the server's history is found to have gone back,
	// as after a restore from a backup, before the Reflector lists again: what was
	// remembered by resourceVersion is void.
	Reset func()
	// Listed, where set, is called with the keys of all objects at a version, before the Reflector has them.
	Listed func(version string, keys map[string]bool)
	// Client says whether it can stream a list; fakes cannot.
	Client any
	// Optional has a refused request sent again only every few minutes: for what may not
	// exist or not be readable.
	Optional bool

	form    wellFormed
	cache   objectCache   // of the informer; nil: there is none
	confirm *confirmation // nil: each list is believed
	bounds  *allowance    // of what is listed and kept; nil: there is none
	trim    func(runtime.Object) runtime.Object
	kept    *tally // of what is known; under bounds.kept.mu
	pacing  pacing

	plain     atomic.Bool  // lists are not streamed: the stream was silent
	bracketed atomic.Bool  // lists are not streamed: each must be checked as a whole
	errors    atomic.Int32 // watches in a row that ended with an error and no event
	refusals  atomic.Int32 // watches in a row that the server refused to open
	history   history
	running   running
	page      map[string]bool // the keys of the pages of a list so far
}

// IsWatchListSemanticsUnSupported is how a Reflector learns that the client is
// a fake, which never ends a streamed list.
func (lw *ListWatch) IsWatchListSemanticsUnSupported() bool {
	return watchlist.DoesClientNotSupportWatchListSemantics(lw.Client)
}

// List is the variant without a context; informers call ListWithContext.
func (lw *ListWatch) List(options metav1.ListOptions) (runtime.Object, error) {
	return lw.ListWithContext(context.Background(), options)
}

// Watch is the variant without a context; informers call WatchWithContext.
func (lw *ListWatch) Watch(options metav1.ListOptions) (watch.Interface, error) {
	return lw.WatchWithContext(context.Background(), options)
}

// ListWithContext lists consistently: a first list at resourceVersion 0 could be
// answered from a stale cache, and what is missing there would be deleted here.
func (lw *ListWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (runtime.Object, error) {
	if !lw.running.begin() {
		return nil, context.Canceled
	}
	defer lw.running.Done()
	if options.ResourceVersion == "0" || lw.history.broken.Load() {
		options.ResourceVersion, options.ResourceVersionMatch = "", ""
	}
	if (lw.bracketed.Load() || lw.bounds != nil) && options.Continue == "" {
		options.Limit = 0
	}
	if lw.bounds != nil { // with a version a server would send no pages
		options.ResourceVersion, options.ResourceVersionMatch = "", ""
	}
	lw.history.requested(options.ResourceVersion)
	l := &listing{lw: lw, options: options}
	err := lw.retry(ctx, func() error { return l.try(ctx, reader{lw.Before, lw.ListFunc}) },
		func(err error) bool { return expired(err) && (options.ResourceVersion != "" || options.Continue != "") })
	if err != nil {
		return nil, err
	}
	list, keys, err := lw.confirmed(ctx, options, l.list, l.keys)
	if err != nil {
		return nil, err
	}
	lw.listed(list, keys, options.Continue != "")
	if lw.refusals.Load() <= 1 {
		lw.Report(nil)
	}
	return list, nil
}

// running are the lists and watches under way. As its context ends, a Reflector waits for neither.
type running struct {
	sync.WaitGroup
	mu    sync.Mutex
	ended bool
}

// begin is for a list, after which Done must be called; false: it must not begin any more.
func (r *running) begin() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.Add(1)
	}
	return !r.ended
}

// end waits for all that is under way, and lets nothing begin after it.
func (r *running) end() {
	r.mu.Lock()
	r.ended = true
	r.mu.Unlock()
	r.Wait()
}

// reader is how lists are requested: Before and ListFunc of a ListWatch, or those of a
// client of their own.
type reader struct {
	before func(context.Context) (request context.Context, check func() (bracketed bool, err error), err error)
	list   func(context.Context, metav1.ListOptions) (runtime.Object, error)
}

// listing is a list, or a page of one, that is requested until there is an answer.
type listing struct {
	lw      *ListWatch
	options metav1.ListOptions

	gone map[string]bool // what a bracketed list would delete
	list runtime.Object
	keys []string
}

// try requests the list once.
func (l *listing) try(ctx context.Context, over reader) error {
	bracketed, err := once(ctx, over.before, func(ctx context.Context) (err error) {
		if l.lw.bounds == nil { // else each page has its time
			limited, cancel := context.WithTimeout(ctx, requestTimeout)
			defer cancel()
			ctx = limited
		}
		l.list, l.keys, err = l.lw.list(ctx, over, l.options)
		return err
	}, func() {})
	if err != nil {
		return err
	}
	if l.lw.bracketed.Store(bracketed); !bracketed {
		return nil
	}
	switch { // it can only be judged as a whole
	case l.options.Continue != "":
		return errOnePiece
	case l.options.Limit > 0:
		l.options.Limit = 0
		return errAgain
	case inPages(l.list):
		return errAgain
	}
	before := l.gone
	if l.gone = l.lw.missing(l.keys); !subset(l.gone, before) {
		return errAgain
	}
	return nil
}

// list lists once and checks the answer.
func (lw *ListWatch) list(ctx context.Context, over reader, options metav1.ListOptions) (list runtime.Object, keys []string, err error) {
	if list, err = over.list(ctx, options); err != nil {
		return nil, nil, err
	}
	var pages map[string]bool
	if options.Continue != "" {
		pages = lw.page
	}
	form := lw.form
	form.namespace = lw.Namespace
	keys, err = form.list(list, pages)
	return list, keys, err
}

// listed notes what was listed.
func (lw *ListWatch) listed(list runtime.Object, keys []string, continues bool) {
	listMeta, err := meta.ListAccessor(list)
	must(err)
	if !continues || lw.page == nil {
		lw.page = map[string]bool{}
	}
	for _, key := range keys {
		lw.page[key] = true
	}
	all := lw.page
	if listMeta.GetContinue() == "" {
		lw.page = nil
	}
	lw.keep(list)
	lw.synced(listMeta.GetResourceVersion(), true)
	if lw.page == nil && lw.Listed != nil {
		lw.Listed(listMeta.GetResourceVersion(), all)
	}
}

// missing are the keys of the objects that are known and not in a list.
func (lw *ListWatch) missing(listed []string) map[string]bool {
	missing := map[string]bool{}
	if lw.cache == nil {
		return missing
	}
	for _, key := range lw.cache.keys() {
		missing[key] = true
	}
	for _, key := range listed {
		delete(missing, key)
	}
	return missing
}

func subset(a, b map[string]bool) bool {
	for key := range a {
		if !b[key] {
			return false
		}
	}
	return true
}

// errNoStreaming has a Reflector make a plain list.
var errNoStreaming = apierrors.NewMethodNotSupported(schema.GroupResource{}, "stream a list")

// errAgain has a request sent again at once.
var errAgain = errors.New("the answer must be confirmed by another one")

// maxRetryAfter bounds the delay that a server may request: a maintenance page says an
// hour.
const maxRetryAfter = 30 * time.Second

// optionalPeriod is how often an optional request is sent again after a refusal.
const optionalPeriod = 5 * time.Minute

// Unavailable is whether an answer says that a kind of object may not be read, or
// does not exist.
func Unavailable(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) }

// maxUnreported is how often in a row it may be unknown which cluster answered before
// that is reported: at the start requests race for connections.
const maxUnreported = 2

// retry makes a request until it is answered. An error that final accepts is for the
// Reflector.
func (lw *ListWatch) retry(ctx context.Context, request func() error, final func(error) bool) error {
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 3 * time.Second}
	for immediate := 0; ; {
		if !lw.pacing.wait(ctx) {
			return ctx.Err()
		}
		err := request()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err == nil || final(err):
			return err
		case errors.Is(err, errAgain) || errors.Is(err, errUnverified):
			if immediate++; immediate <= maxUnreported {
				continue
			}
		}
		if !errors.Is(err, errNotAccepted) {
			lw.Report(err)
		}
		if IsTooLarge(err) {
			lw.pacing.slow()
		}
		delay := backoff.Step()
		if lw.Optional && Unavailable(err) {
			delay = optionalPeriod
		}
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			delay = max(delay, min(time.Duration(seconds)*time.Second, maxRetryAfter))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

// once makes a request between the checks of Before; undo takes back an answer that
// does not count.
func (lw *ListWatch) once(ctx context.Context, request func(context.Context) error, undo func()) (bracketed bool, err error) {
	return once(ctx, lw.Before, request, undo)
}

func once(ctx context.Context, before func(context.Context) (context.Context, func() (bool, error), error), request func(context.Context) error, undo func()) (bracketed bool, err error) {
	if before == nil {
		return false, request(ctx)
	}
	ctx, check, err := before(ctx)
	if err != nil {
		return false, err
	}
	if err := request(ctx); err != nil {
		return false, err
	}
	if bracketed, err = check(); err != nil {
		undo()
	}
	return bracketed, err
}

// expired recognizes the answers to a resourceVersion that is too old or too new: the
// Reflector lists again.
func expired(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) || tooLarge(err)
}

func tooLarge(err error) bool {
	return apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

// unsupported recognizes the answers of a server that cannot do what was requested: an older
// one cannot stream a list.
func unsupported(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsMethodNotSupported(err)
}
