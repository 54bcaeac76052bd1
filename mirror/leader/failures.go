package leader

import (
	"cmp"
	"context"
	"errors"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/remote/failure"
	"service-mirror.io/service-mirror/remote/logging"
)

// failures logs when requests for the Lease begin to fail and when they succeed again:
// they are made every two seconds, for as long as the process runs.
type failures struct {
	logger klog.Logger
	lease  cache.ObjectName

	mu sync.Mutex
	by map[string]*failure.Series // by verb: an account may be allowed only some
}

// note notes what came of one request.
func (f *failures) note(verb string, err error) {
	if f == nil || errors.Is(err, context.Canceled) {
		return
	}
	// No Lease yet, and another replica that was faster, are part of an election.
	if apierrors.IsNotFound(err) && verb == "get" || apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) {
		err = nil
	}
	var cause string
	if err != nil {
		cause = cmp.Or(failure.Cause(err), "unknown error")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	series := f.by[verb]
	if series == nil {
		if series = new(failure.Series); f.by == nil {
			f.by = map[string]*failure.Series{}
		}
		f.by[verb] = series
	}
	switch {
	case !series.Note(cause, time.Now()):
	case err == nil:
		f.logger.Info("Requests for the Lease succeed again", "lease", f.lease, "verb", verb)
	default:
		logging.Warn(f.logger, "Requests for the Lease fail, retrying; this replica writes nothing without the Lease", "lease", f.lease, "verb", verb, "err", failure.Line(err.Error()))
	}
}
