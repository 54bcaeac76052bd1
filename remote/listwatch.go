package remote

import (
	"context"
	"errors"
	"fmt"
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
// again by itself, from half a second to three, until its context ends. A
// Reflector that saw the failures would back off for up to a minute, and a
// remote that is back must not wait for that. Every answer is reported.
type ListWatch struct {
	ListFunc  func(context.Context, metav1.ListOptions) (runtime.Object, error)
	WatchFunc func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// Before, where set, must succeed before each request is sent. It returns a
	// check that must hold once the answer has begun.
	Before func(context.Context) (after func() error, err error)
	// Report is told of each failure, and with nil of each success.
	Report func(error)
	// Seen, where set, is called with each event of a watch, bookmarks included.
	Seen func()
	// Reset, where set, is called when the history of the server is found to have gone back.
	Reset func()
	// Client is asked whether it can stream a list; fakes cannot.
	Client any
	// Optional has a refusal be asked again only every few minutes: it is for what
	// may be missing.
	Optional bool

	plain  atomic.Bool  // lists are not streamed: that did not work here
	errors atomic.Int32 // watches in a row that ended with an error and no event
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
func (lw *ListWatch) ListWithContext(ctx context.Context, options metav1.ListOptions) (list runtime.Object, err error) {
	if options.ResourceVersion == "0" {
		options.ResourceVersion = ""
	}
	err = lw.retry(ctx, func() error {
		ctx, cancel := context.WithTimeout(ctx, requestTimeout)
		defer cancel()
		list, err = lw.ListFunc(ctx, options)
		return err
	}, func() {})
	if err == nil {
		lw.Report(nil)
	}
	return list, err
}

// WatchWithContext opens a watch that ends no sooner than a second after it was
// opened, and with an error only where a Reflector must know it: of any other it
// would make a new list, and a back-off.
func (lw *ListWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	streaming := options.SendInitialEvents != nil && *options.SendInitialEvents
	if streaming && lw.plain.Load() {
		return nil, errNoStreaming
	}
	var open *steadyWatch
	closeOpen := func() {
		if open != nil {
			open.Stop()
			open = nil
		}
	}
	err := lw.retry(ctx, func() error {
		ctx, cancel := context.WithCancelCause(ctx)
		timer := time.AfterFunc(requestTimeout, func() {
			cancel(fmt.Errorf("the server did not begin to answer within %v", requestTimeout))
		})
		w, err := lw.WatchFunc(ctx, options)
		if !timer.Stop() && err == nil {
			w.Stop()
			err = context.Cause(ctx)
		}
		if err != nil {
			if cause := context.Cause(ctx); cause != nil {
				err = cause
			}
			cancel(nil)
			return err
		}
		open = lw.steady(ctx, w, streaming, func() { cancel(nil) })
		return nil
	}, closeOpen)
	if err != nil {
		closeOpen() // the context ended
		return nil, err
	}
	return open, nil
}

// errNoStreaming has a Reflector make a plain list.
var errNoStreaming = apierrors.NewMethodNotSupported(schema.GroupResource{}, "stream a list")

// maxRetryAfter bounds how long a server may have itself left alone: a
// maintenance page says an hour.
const maxRetryAfter = 30 * time.Second

// optionalPeriod is how often something that is refused, and may be, is asked for.
const optionalPeriod = 5 * time.Minute

// Unavailable tells an answer that says that a kind of object may not be read, or
// that there is none.
func Unavailable(err error) bool { return apierrors.IsForbidden(err) || apierrors.IsNotFound(err) }

// retry makes a request until it is answered; undo takes back an answer that did
// not pass the check of Before.
func (lw *ListWatch) retry(ctx context.Context, request func() error, undo func()) error {
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 3 * time.Second}
	for {
		err := lw.once(ctx, request, undo)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || forReflector(err) {
			return err
		}
		if !errors.Is(err, errReplaced) && !errors.Is(err, errNotAccepted) {
			lw.Report(err)
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

func (lw *ListWatch) once(ctx context.Context, request func() error, undo func()) error {
	if lw.Before == nil {
		return request()
	}
	after, err := lw.Before(ctx)
	if err != nil {
		return err
	}
	if err := request(); err != nil {
		return err
	}
	if err := after(); err != nil {
		undo()
		return err
	}
	return nil
}

// forReflector tells the answers that are not failures: the Reflector itself
// knows what to do when a resourceVersion is too old or too new, or when an
// older server cannot stream a list.
func forReflector(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge) ||
		apierrors.IsInvalid(err) || apierrors.IsMethodNotSupported(err)
}

// steadyWatch passes the events of another watch on.
type steadyWatch struct {
	lw     *ListWatch
	inner  watch.Interface
	result chan watch.Event
	stop   chan struct{}
	cancel func() // the request's context, and so stop
	// streaming holds until the bookmark that ends a streamed list.
	streaming bool
}

const (
	// shortest is how long a watch lives at least. A Reflector calls one that ends
	// sooner a failure.
	shortest = time.Second
	// maxQuiet is how long a streamed list may be silent before its end: a proxy
	// may swallow the bookmark that the Reflector waits for.
	maxQuiet = 10 * time.Second
	// maxErrors is how many watches in a row may end with an error and without
	// any event before the Reflector is told: it may be one event that cannot be
	// read, and a new list gets past it.
	maxErrors = 3
)

func (lw *ListWatch) steady(ctx context.Context, inner watch.Interface, streaming bool, cancel func()) *steadyWatch {
	stop := make(chan struct{})
	w := &steadyWatch{lw: lw, inner: inner, result: make(chan watch.Event), stop: stop, streaming: streaming}
	w.cancel = sync.OnceFunc(func() { close(stop); cancel() })
	go w.run(ctx)
	return w
}

func (w *steadyWatch) ResultChan() <-chan watch.Event { return w.result }

func (w *steadyWatch) Stop() {
	w.cancel()
	w.inner.Stop()
}

func (w *steadyWatch) run(ctx context.Context) {
	defer close(w.result)
	defer w.inner.Stop()
	lived, quiet := time.NewTimer(shortest), time.NewTimer(maxQuiet)
	defer lived.Stop()
	defer quiet.Stop()
	alive := sync.OnceFunc(func() { w.lw.Report(nil) })
	old := false
	for {
		select {
		case <-w.stop:
			return
		case <-lived.C:
			old = true
			alive()
		case <-quiet.C:
			if w.streaming {
				w.lw.plain.Store(true)
				w.send(watch.Event{Type: watch.Error, Object: &errNoStreaming.ErrStatus})
				return
			}
		case event, ok := <-w.inner.ResultChan():
			if ok && w.pass(ctx, event) {
				alive()
				quiet.Reset(maxQuiet)
				continue
			}
			if !old {
				select {
				case <-lived.C:
				case <-w.stop:
				}
			}
			return
		}
	}
}

// pass hands an event on; false where the watch ends with it.
func (w *steadyWatch) pass(ctx context.Context, event watch.Event) bool {
	if event.Type != watch.Error {
		w.lw.errors.Store(0)
		if w.lw.Seen != nil {
			w.lw.Seen()
		}
		if bookmark, err := meta.Accessor(event.Object); err == nil && event.Type == watch.Bookmark &&
			bookmark.GetAnnotations()[metav1.InitialEventsAnnotationKey] == "true" {
			w.streaming = false
		}
		return w.send(event)
	}
	err := apierrors.FromObject(event.Object)
	if ctx.Err() == nil && !forReflector(err) {
		w.lw.Report(fmt.Errorf("watch ended: %w", err))
	}
	if w.streaming || forReflector(err) || w.lw.errors.Add(1) >= maxErrors {
		w.lw.errors.Store(0)
		w.send(event)
	}
	return false
}

func (w *steadyWatch) send(event watch.Event) bool {
	select {
	case w.result <- event:
		return true
	case <-w.stop:
		return false
	}
}
