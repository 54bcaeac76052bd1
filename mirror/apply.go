package mirror

import (
	"context"
	"errors"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// job is one mirror and what is to be written to it.
type job struct {
	key     cache.ObjectName
	source  *Source // nil: the mirror goes
	live    Objects
	changes Changes
	desired Objects // what the changes lead to
	// families are those that desired was made with.
	families      []corev1.IPFamily
	makeNamespace bool // first
}

// cluster is the remote that the mirror is, or was, of.
func (j job) cluster() string {
	if j.source != nil {
		return j.source.Cluster
	}
	return ownerOf(j.live)
}

// apply carries out the changes to one mirror. The order keeps clear of
// strangers: of a new pair the Endpoints come first, for a Service made over a
// stranger's Endpoints would send traffic there; of an existing one the Service,
// for once that is not ours any more its Endpoints are not either.
func (c *Controller) apply(ctx context.Context, found *verdict, j job) {
	if j.changes.Empty() {
		c.holds.clear(j.key)
		return
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "cluster", j.cluster())
	if j.source != nil {
		logger = klog.LoggerWithValues(logger, "service", j.source.name())
	}
	ctx = klog.NewContext(ctx, logger)
	var err error
	switch ch := j.changes; {
	case ch.Create.Service != nil:
		err = c.createPair(ctx, found, j)
	case j.source == nil:
		if err = c.delete(ctx, ch.Delete); err == nil || apierrors.IsConflict(err) { // else it is not as it was
			c.leftUnder.Delete(j.key)
		}
	default:
		if err = c.writeService(ctx, found, j); err == nil || rejected(err) {
			err = errors.Join(err, c.writeAddresses(ctx, found, j))
		}
		if err == nil {
			err = c.deleteReplaced(ctx, found, j)
		}
		if c.holds.pace.update(j.key) {
			found.add(overwritten(j, "what is written is undone at once, over and over: does another program manage mirrors? It is tried again ever less often"))
		}
	}
	c.judge(ctx, found, j, err)
}

func overwritten(j job, message string) Problem {
	return Problem{Reason: Overwritten, Cluster: j.source.Cluster, Source: j.source.name(), Message: message}
}

func (c *Controller) createPair(ctx context.Context, found *verdict, j job) error {
	if j.desired.Endpoints == nil {
		if err := c.strangers.none(ctx, j.key); err != nil {
			return err
		}
	}
	if err := c.writeAddresses(ctx, found, j); err != nil {
		return err
	}
	err := c.writeService(ctx, found, j)
	if apierrors.IsAlreadyExists(err) && !c.made(ctx, j.key, "services") || rejected(err) {
		// A stranger that has the name does not want our Endpoints under it. Another
		// replica that was quicker needs them.
		made, now := j.changes.Create, c.local.live(j.key)
		own := Objects{}
		if made.Endpoints != nil {
			own.Endpoints = now.Endpoints
		}
		if made.IPv4 != nil {
			own.IPv4 = now.IPv4
		}
		if made.IPv6 != nil {
			own.IPv6 = now.IPv6
		}
		if deleteErr := c.delete(ctx, own); deleteErr != nil {
			klog.FromContext(ctx).Error(deleteErr, "What leads to the gateway stays behind under a Service that is not ours: it is tried again")
			c.leftUnder.Store(j.key, own)
			found.soon = true
		}
	}
	if err == nil {
		err = c.deleteReplaced(ctx, found, j)
	}
	return err
}

// compare notes that our own write came back different, as a mutating webhook
// would make it. To insist at full speed would be a fight.
func (c *Controller) compare(found *verdict, j job, different bool) {
	if different {
		found.add(overwritten(j, "what was written came back different: does an admission webhook change mirrors? It is tried again ever less often"))
	}
}

// judge turns the API server's answer to a write into what is reported of it,
// and into when it is tried again.
func (c *Controller) judge(ctx context.Context, found *verdict, j job, err error) {
	problem := Problem{Cluster: j.cluster()}
	if j.source != nil {
		problem.Source = j.source.name()
	}
	switch {
	case err == nil:
		if i := slices.IndexFunc(found.problems, func(p Problem) bool { return p.Reason == Overwritten }); i >= 0 {
			found.after = c.holds.fought(j.key, found.problems[i])
		} else {
			c.holds.clear(j.key)
		}
		return
	case ctx.Err() != nil:
		found.soon = true // if we ever lead again
		return
	case errors.Is(err, errNotYetFree), apierrors.IsAlreadyExists(err) && c.justFreed(j.key):
		klog.FromContext(ctx).V(2).Info("The name is not yet free, looking again", "err", err)
		found.soon = true
		return
	case apierrors.IsConflict(err), apierrors.IsNotFound(err) && kindOf(err) != "namespaces",
		apierrors.IsAlreadyExists(err) && c.made(ctx, j.key, kindOf(err)): // by another replica
		// The cache is behind: the change is on its way.
		klog.FromContext(ctx).V(2).Info("Changed meanwhile, looking again", "err", err)
		found.soon = true
		return
	case apierrors.IsAlreadyExists(err):
		problem.Reason, problem.Message = Conflict, serviceTaken
		switch kindOf(err) {
		case "endpoints":
			problem.Message = endpointsTaken
		case "endpointslices":
			problem.Message = sliceTaken
		}
		found.after = strangerPeriod
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		problem.Reason, problem.Message = NamespaceTerminating, "namespace "+j.key.Namespace+" is being deleted"
		found.soon = true
	case apierrors.IsNotFound(err):
		problem.Reason, problem.Message = NamespaceMissing, "namespace "+j.key.Namespace+" does not exist in the local cluster"
		found.soon = true
	case rejected(err):
		problem.Reason, problem.Message = Rejected, "the local API server refuses it: "+err.Error()
		found.after = c.holds.refused(j.key, j.desired, problem)
	default:
		problem.Reason, problem.Message = WriteFailed, err.Error()
		found.soon = true
	}
	found.add(problem)
}

// kindOf is the resource that an API error is about.
func kindOf(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		return status.Status().Details.Kind
	}
	return ""
}

// rejected tells a refusal that will stay one for as long as we ask the same.
func rejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err)
}
