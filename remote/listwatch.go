package remote

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
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
	// Client is asked whether it can stream a list; fakes cannot.
	Client any
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
	})
	return list, err
}

// WatchWithContext opens a watch that ends no sooner than a second after it was
// opened, and never with an error but that its resourceVersion is too old: of
// all else a Reflector would make a new list, and a back-off.
func (lw *ListWatch) WatchWithContext(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	var open *steadyWatch
	closeOpen := func() {
		if open != nil {
			open.Stop()
			open = nil
		}
	}
	err := lw.retry(ctx, func() error {
		closeOpen() // its answer did not pass the check of Before
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
		open = newSteadyWatch(ctx, w, func() { cancel(nil) }, lw.Report)
		return nil
	})
	if err != nil {
		closeOpen()
		return nil, err
	}
	return open, nil
}

func (lw *ListWatch) retry(ctx context.Context, request func() error) error {
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 2, Jitter: 0.2, Steps: 10, Cap: 3 * time.Second}
	for {
		err := lw.once(ctx, request)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || forReflector(err) {
			lw.Report(nil)
			return err
		}
		if !errors.Is(err, errReplaced) {
			lw.Report(err)
		}
		delay := backoff.Step()
		if seconds, ok := apierrors.SuggestsClientDelay(err); ok {
			delay = max(delay, time.Duration(seconds)*time.Second)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(delay):
		}
	}
}

func (lw *ListWatch) once(ctx context.Context, request func() error) error {
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
	return after()
}

// forReflector tells the answers that are not failures: the Reflector itself
// knows what to do when a resourceVersion is too old or too new, or when an
// older server cannot stream a list.
func forReflector(err error) bool {
	return tooOld(err) || apierrors.IsInvalid(err) || apierrors.IsMethodNotSupported(err) ||
		apierrors.HasStatusCause(err, metav1.CauseTypeResourceVersionTooLarge)
}

func tooOld(err error) bool {
	return apierrors.IsResourceExpired(err) || apierrors.IsGone(err)
}

// steadyWatch passes events on from another watch.
type steadyWatch struct {
	inner  watch.Interface
	result chan watch.Event
	stop   chan struct{}
	cancel func() // the request's context, and so stop
}

// shortest is how long a watch lives at least. A Reflector calls one that ends
// sooner a failure.
const shortest = time.Second

func newSteadyWatch(ctx context.Context, inner watch.Interface, cancel func(), report func(error)) *steadyWatch {
	stop := make(chan struct{})
	w := &steadyWatch{inner: inner, result: make(chan watch.Event), stop: stop}
	w.cancel = sync.OnceFunc(func() { close(stop); cancel() })
	go w.run(ctx, time.NewTimer(shortest), report)
	return w
}

func (w *steadyWatch) ResultChan() <-chan watch.Event { return w.result }

func (w *steadyWatch) Stop() {
	w.cancel()
	w.inner.Stop()
}

func (w *steadyWatch) run(ctx context.Context, lived *time.Timer, report func(error)) {
	defer close(w.result)
	defer w.inner.Stop()
	defer lived.Stop()
	for event := range w.inner.ResultChan() {
		if event.Type == watch.Error {
			if err := apierrors.FromObject(event.Object); !tooOld(err) {
				if ctx.Err() == nil {
					report(fmt.Errorf("watch ended: %w", err))
				}
				break
			}
		}
		select {
		case w.result <- event:
		case <-w.stop:
			return
		}
	}
	select {
	case <-lived.C:
	case <-w.stop:
	}
}
