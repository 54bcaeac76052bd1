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
	"k8s.io/apimachinery/pkg/watch"
)

// WatchWithContext opens a watch that ends no sooner than a second after it was
// opened, and with an error only where a Reflector must know it: of any other it
// would make a new list, and a back-off. Where the version to resume is not the server's
// any more, the watch begins with the difference to a new list.
func (lw *ListWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if options.SendInitialEvents != nil && *options.SendInitialEvents {
		return lw.stream(ctx, options)
	}
	known := options.ResourceVersion // by the Reflector
	var first []watch.Event
	var open *steadyWatch
	err := lw.retry(ctx, func() (err error) {
		if lw.history.mustRelist() {
			if first, options.ResourceVersion, err = lw.relist(ctx, known); err != nil {
				return err
			}
		}
		var now, due string
		_, err = lw.once(ctx, func(request context.Context) (err error) {
			if lw.history.follows(options.ResourceVersion) {
				due = lw.history.requested("")
				if now, err = lw.serverVersion(request); err != nil {
					return err
				}
			}
			open, err = lw.open(request, options, first)
			return err
		}, func() { open.Stop(); now = "" })
		if now != "" {
			lw.history.touch()
		}
		if lower(due, options.ResourceVersion) || due == "" {
			due = options.ResourceVersion
		}
		if err == nil && lower(now, due) {
			open.Stop()
			lw.history.forget()
			lw.wentBack(due, now)
			return errAgain
		}
		return err
	}, func(err error) bool {
		// Too large: either the server is behind, or the next check of its version finds
		// that its history went back.
		return (expired(err) || unsupported(err)) && (lw.cache == nil || !tooLarge(err))
	})
	if err != nil {
		open.abandon()
		lw.refused(err)
		return nil, err
	}
	lw.refusals.Store(0)
	lw.history.opened()
	open.start(ctx)
	return open, nil
}

// refused reports a refusal to open a watch, for which the Reflector lists again, unless
// it is the first one: a version that is too old is no failure.
func (lw *ListWatch) refused(err error) {
	if (expired(err) || unsupported(err)) && lw.refusals.Add(1) > 1 {
		lw.Report(fmt.Errorf("the server does not open a watch: %w", err))
	}
}

// stream opens a watch that begins with a list. Where that does not work, errNoStreaming
// has the Reflector make a plain list.
func (lw *ListWatch) stream(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	if lw.history.broken.Load() {
		options.ResourceVersion = ""
	}
	if lw.plain.Load() || lw.bracketed.Load() {
		return nil, errNoStreaming
	}
	var open *steadyWatch
	lw.history.requested(options.ResourceVersion)
	err := lw.retry(ctx, func() error {
		bracketed, err := lw.once(ctx, func(request context.Context) (err error) {
			open, err = lw.open(request, options, nil)
			return err
		}, func() { open.Stop() })
		if err == nil && bracketed { // what it lists must be checked as a whole
			open.Stop()
			lw.bracketed.Store(true)
			return errNoStreaming
		}
		return err
	}, func(err error) bool { return expired(err) || unsupported(err) })
	if err == nil {
		open.start(ctx)
		return open, nil
	}
	open.abandon()
	if expired(err) && options.ResourceVersion == "" { // the Reflector would try the same again, at once
		lw.Report(fmt.Errorf("the server does not stream a list: %w", err))
		return nil, errNoStreaming
	}
	return nil, err
}

// open opens a watch, which begins with the events given; the server must begin to answer
// in time. Its events are read once it is started: until its answer is accepted, they may be
// another cluster's.
func (lw *ListWatch) open(request context.Context, options metav1.ListOptions, first []watch.Event) (*steadyWatch, error) {
	var overrun atomic.Pointer[error]
	request, cancel := context.WithCancelCause(boundedWatch(request, lw.bounds, func(err error) { overrun.Store(&err) }))
	timer := time.AfterFunc(requestTimeout, func() {
		cancel(fmt.Errorf("the server did not start to answer within %v", requestTimeout))
	})
	w, err := lw.WatchFunc(request, options)
	if !timer.Stop() && err == nil {
		w.Stop()
		err = context.Cause(request)
	}
	if err != nil {
		if cause := context.Cause(request); cause != nil {
			err = cause
		}
		cancel(nil)
		return nil, err
	}
	return lw.steady(&steadyWatch{lw: lw, inner: w, first: first, overrun: &overrun}, options, func() { cancel(nil) }), nil
}

// steadyWatch passes on the events of another watch that are well-formed.
type steadyWatch struct {
	lw     *ListWatch
	inner  watch.Interface
	first  []watch.Event // before those of inner
	result chan watch.Event
	stop   chan struct{}
	cancel func() // the request's context, and so stop
	// streamed are the keys of a streamed list, until the bookmark that ends it; nil: there is none.
	streamed map[string]bool
	listing  *tally                 // of it
	listed   string                 // the version of a streamed list that no event has followed yet; empty: of none
	resumes  bool                   // a version: one that is too old is for the Reflector
	overrun  *atomic.Pointer[error] // why the rest of the answer is not read; nil: it is
}

const (
	// shortest is how long a watch lives at least. A Reflector calls one that ends
	// sooner a failure.
	shortest = time.Second
	// maxQuiet is how long a streamed list may be silent before its end: a proxy
	// may swallow the bookmark that the Reflector waits for.
	maxQuiet = 10 * time.Second
	// maxErrors is how many watches in a row may end with an error and without
	// any event before the Reflector lists again: it may be one event that cannot be
	// read, and a new list gets past it.
	maxErrors = 3
)

func (lw *ListWatch) steady(w *steadyWatch, options metav1.ListOptions, cancel func()) *steadyWatch {
	stop := make(chan struct{})
	w.result, w.stop, w.resumes = make(chan watch.Event), stop, options.ResourceVersion != ""
	if options.SendInitialEvents != nil && *options.SendInitialEvents {
		w.streamed, w.listing = map[string]bool{}, newTally()
	}
	w.cancel = sync.OnceFunc(func() { close(stop); cancel() })
	return w
}

// start has the events passed on. A watch that is not started needs only be stopped.
func (w *steadyWatch) start(ctx context.Context) { w.lw.running.Go(func() { w.run(ctx) }) }

func (w *steadyWatch) ResultChan() <-chan watch.Event { return w.result }

func (w *steadyWatch) Stop() {
	w.cancel()
	w.inner.Stop()
}

// abandon stops a watch, if there is one, that was opened just when its context ended.
func (w *steadyWatch) abandon() {
	if w != nil {
		w.Stop()
	}
}

func (w *steadyWatch) run(ctx context.Context) {
	defer close(w.result)
	defer w.inner.Stop()
	lived, quiet := time.NewTimer(shortest), time.NewTimer(maxQuiet)
	defer lived.Stop()
	defer quiet.Stop()
	late := time.NewTimer(listTimeout)
	defer late.Stop()
	streaming := w.streamed != nil
	alive := sync.OnceFunc(func() { w.lw.Report(nil) })
	for _, event := range w.first {
		if !w.send(event) {
			return
		}
	}
	w.first = nil
	old := false
	for {
		select {
		case <-w.stop:
			return
		case <-lived.C:
			if old = true; w.streamed == nil {
				alive()
			}
		case <-quiet.C:
			if w.streamed != nil {
				w.lw.plain.Store(true)
				w.noStream(fmt.Errorf("a streamed list did not end, and there was no event for %v: lists are no longer streamed", maxQuiet))
				return
			}
		case <-late.C:
			if w.streamed != nil && w.lw.bounds != nil {
				w.failed(ctx, w.lw.bounds.list.refuse("max-services", "is not complete after %v", listTimeout))
				return
			}
		case event, ok := <-w.inner.ResultChan():
			switch err := w.overrun.Load(); {
			case err != nil && (!ok || event.Type == watch.Error):
				w.failed(ctx, *err)
				return
			case ok && w.pass(ctx, event):
				if w.streamed == nil {
					alive()
				}
				if streaming && w.streamed == nil { // for the Reflector, the watch begins here
					streaming, old = false, false
					lived.Reset(shortest)
				}
				quiet.Reset(maxQuiet)
				continue
			case !ok && w.streamed != nil && ctx.Err() == nil:
				w.noStream(errors.New("a streamed list ended without its final bookmark: using a plain list"))
				return
			}
			if !old {
				select {
				case <-lived.C:
				case <-w.stop:
				}
			}
			w.close()
			return
		}
	}
}

// close ends a watch. The Reflector's clock starts when it has taken over a streamed list, however long that takes: a
// bookmark is an event, after which it calls no watch too short.
func (w *steadyWatch) close() {
	if w.listed != "" && w.lw.cache != nil {
		w.send(watch.Event{Type: watch.Bookmark, Object: w.lw.cache.object("", w.listed)})
	}
}

// noStream reports why a streamed list failed and has the Reflector make a plain one.
func (w *steadyWatch) noStream(why error) {
	select {
	case <-w.stop:
		return
	default:
	}
	w.lw.Report(why)
	w.send(watch.Event{Type: watch.Error, Object: &errNoStreaming.ErrStatus})
}

// pass hands an event on; false where the watch ends with it.
func (w *steadyWatch) pass(ctx context.Context, event watch.Event) bool {
	if event.Type == watch.Error {
		w.fail(ctx, fmt.Errorf("watch ended: %w", apierrors.FromObject(event.Object)), event)
		return false
	}
	if err := w.check(ctx, event); err != nil {
		w.failed(ctx, err)
		return false
	}
	w.lw.errors.Store(0)
	if w.lw.Seen != nil {
		w.lw.Seen()
	}
	return w.send(event)
}

// check checks an event and notes what it says.
func (w *steadyWatch) check(ctx context.Context, event watch.Event) error {
	form := w.lw.form
	form.namespace = w.lw.Namespace
	key, err := form.event(event)
	if err != nil {
		return err
	}
	if err := w.lw.note(w, event); err != nil {
		return err
	}
	version := versionOf(event.Object)
	switch {
	case w.streamed == nil:
		w.listed = ""
		w.lw.history.event(version)
	case event.Type == watch.Added && w.streamed[key]:
		return malformed(fmt.Errorf("%.320q is in a streamed list twice", key))
	case event.Type == watch.Deleted:
		delete(w.streamed, key)
	case event.Type != watch.Bookmark:
		w.streamed[key] = true
	case annotationsOf(event.Object)[metav1.InitialEventsAnnotationKey] == "true":
		if _, refusal := w.lw.judge(ctx, w.streamed, nil); refusal != nil { // a plain list can be confirmed
			return fmt.Errorf("%v: listing again without streaming", refusal)
		}
		all := w.streamed
		w.streamed, w.listed = nil, version
		w.lw.replace(w.listing)
		w.lw.synced(version, false)
		if w.lw.Listed != nil {
			w.lw.Listed(version, all)
		}
	}
	return nil
}

func versionOf(obj runtime.Object) string {
	accessor, err := meta.Accessor(obj)
	must(err) // it is well-formed
	return accessor.GetResourceVersion()
}

func annotationsOf(obj runtime.Object) map[string]string {
	accessor, err := meta.Accessor(obj)
	must(err)
	return accessor.GetAnnotations()
}

// failed ends a watch for a reason that the server did not give.
func (w *steadyWatch) failed(ctx context.Context, err error) {
	status := apierrors.NewInternalError(err).Status()
	w.fail(ctx, err, watch.Event{Type: watch.Error, Object: &status})
}

// fail ends a watch for a reason that is reported, unless it is only for the Reflector.
func (w *steadyWatch) fail(ctx context.Context, err error, event watch.Event) {
	known := expired(err) && w.resumes
	if ctx.Err() == nil && !known {
		w.lw.Report(err)
	}
	excess := IsTooLarge(err)
	if excess {
		w.lw.pacing.slow()
	}
	switch {
	case (known || excess) && w.streamed == nil && w.lw.cache != nil:
		w.lw.history.broken.Store(true) // the next watch lists
		return
	case known:
	case w.streamed != nil:
		event.Object = &errNoStreaming.ErrStatus
	case unsupported(err) || expired(err) || w.lw.errors.Add(1) >= maxErrors:
	default:
		return
	}
	w.lw.errors.Store(0)
	if w.streamed == nil { // a Reflector does the same for each error, and logs every other one each time
		event.Object = &apierrors.NewResourceExpired(err.Error()).ErrStatus
	}
	w.send(event)
}

func (w *steadyWatch) send(event watch.Event) bool {
	select {
	case w.result <- event:
		return true
	case <-w.stop:
		return false
	}
}
