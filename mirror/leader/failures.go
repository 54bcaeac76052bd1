package leader

import (
	"context"
	"errors"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// failures logs when requests for the Lease begin to fail and when they succeed again:
// they are made every two seconds, for as long as the process runs.
type failures struct {
	logger klog.Logger
	lease  cache.ObjectName

	mu      sync.Mutex
	failing map[string]metav1.StatusReason // by verb: an account may be allowed only some
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
	f.mu.Lock()
	defer f.mu.Unlock()
	before, failed := f.failing[verb]
	reason := apierrors.ReasonForError(err) // texts of network errors differ from attempt to attempt
	switch {
	case err == nil && failed:
		delete(f.failing, verb)
		f.logger.Info("Requests for the Lease succeed again", "lease", f.lease, "verb", verb)
	case err != nil && (!failed || before != reason):
		if f.failing == nil {
			f.failing = map[string]metav1.StatusReason{}
		}
		f.failing[verb] = reason
		f.logger.Error(err, "Requests for the Lease fail, and are retried: without the lease this replica writes nothing", "lease", f.lease, "verb", verb)
	}
}
