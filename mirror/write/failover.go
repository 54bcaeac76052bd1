package write

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// FailoverResult is what became of the plan of a Service that fails over.
type FailoverResult struct {
	Problems []plan.Problem
	Written  int
	Updated  int            // of Written
	Retry    bool           // with back-off
	Foreign  bool           // an EndpointSlice that is in no cache has the name of ours
	Refused  []plan.Problem // of Problems: the API server refuses to write a slice of this remote
	Accepted []string       // remotes of which a slice was written
	Failed   []string       // remotes of which one was not
	Stale    bool           // as in Result
}

// ApplyFailover takes the steps of such a plan, each whatever becomes of the others: one remote's slice is no reason
// to leave another's as it is. But a remote goes on to serve while the one that replaces it could not be written.
func (w *Writer) ApplyFailover(ctx context.Context, p plan.FailoverPlan) (result FailoverResult) {
	replaced := true
	for _, step := range p.Steps {
		if step.Stops() && !replaced {
			result.Failed = append(result.Failed, step.Remote)
			continue
		}
		got, err := w.takeSlice(ctx, step)
		if err == nil {
			result.Written++
			if step.Action == plan.Update || step.Replaces != nil {
				result.Updated++
			}
			if slice, ok := got.(*discoveryv1.EndpointSlice); !ok || !step.Serves() || plan.HasReady(slice) {
				result.Accepted = append(result.Accepted, step.Remote)
				continue
			}
			err = errOverwritten
		}
		replaced = replaced && !step.Serves()
		result.Failed = append(result.Failed, step.Remote)
		w.judgeSlice(ctx, &result, step, err)
	}
	return result
}

// errOverwritten is that an admission webhook or policy keeps a slice from serving.
var errOverwritten = errors.New("its EndpointSlice is stored without an endpoint that is ready: exempt it from the admission webhook or policy that changes it")

func (w *Writer) takeSlice(ctx context.Context, step plan.SliceStep) (got metav1.Object, err error) {
	switch step.Action {
	case plan.Create:
		if step.Replaces != nil {
			if _, err := w.delete(ctx, plan.IPv4Slice, step.Replaces); err != nil {
				return nil, err
			}
		}
		got, err = w.create(ctx, plan.IPv4Slice, step.Slice)
	case plan.Update:
		got, err = w.update(ctx, plan.IPv4Slice, step.Slice)
	case plan.Delete:
		_, err = w.delete(ctx, plan.IPv4Slice, step.Slice)
	default:
		err = fmt.Errorf("unknown action %d", step.Action)
	}
	return got, err
}

// judgeSlice turns the error of a step into what is reported of it, and into when the key is looked at again.
func (w *Writer) judgeSlice(ctx context.Context, result *FailoverResult, step plan.SliceStep, err error) {
	name := cache.MetaObjectToName(step.Slice)
	report := func(reason plan.Reason, message string) {
		result.Problems = append(result.Problems, plan.Problem{Reason: reason, Cluster: step.Remote, Message: message})
	}
	refused := func(reason plan.Reason, message string) {
		report(reason, message)
		result.Refused = append(result.Refused, result.Problems[len(result.Problems)-1])
	}
	// What lasts is tried again after a while.
	result.Retry = result.Retry || !apierrors.IsAlreadyExists(err) && !errors.Is(err, errOverwritten)
	switch {
	case errors.Is(err, errOverwritten):
		refused(plan.Overwritten, err.Error())
	case ctx.Err() != nil, errors.Is(err, leader.ErrFenced), errors.Is(err, remote.ErrOtherCluster),
		apierrors.IsConflict(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		klog.FromContext(ctx).V(2).Info("Objects changed during the sync, requeued", "err", err)
		result.Stale = true
	case apierrors.IsAlreadyExists(err):
		if ours := w.ownSlice(ctx, step.Slice); ours != nil { // a replica that led before may have created it
			result.Retry, result.Stale = true, true
			if ours.DeletionTimestamp != nil {
				report(plan.WriteFailed, fmt.Sprintf("EndpointSlice %s is being deleted and waits for its finalizers: remove them", name.Name))
			}
			return
		}
		result.Foreign = true
		refused(plan.Conflict, fmt.Sprintf("EndpointSlice %s already exists and is not managed by service-mirror: delete it, or remove the remote from the annotation", name.Name))
	case apierrors.IsForbidden(err) && step.Action != plan.Delete:
		refused(plan.Rejected, "the local API server rejected it: "+err.Error()+": failover needs permission to create and update EndpointSlices, as in deploy/local/endpointslices/rbac.yaml")
	case rejected(err):
		refused(plan.Rejected, "the local API server rejected it: "+err.Error())
	default:
		report(plan.WriteFailed, err.Error())
	}
}

// ownSlice is the slice of ours that has the name of one which could not be created; nil: it is foreign, or cannot be read.
func (w *Writer) ownSlice(ctx context.Context, slice *discoveryv1.EndpointSlice) *discoveryv1.EndpointSlice {
	named := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, slice.Name).String()}
	list, err := w.client.DiscoveryV1().EndpointSlices(slice.Namespace).List(ctx, named) // not a get, which is not permitted
	if err != nil || len(list.Items) == 0 {
		return nil
	}
	wanted, _ := plan.RemoteSliceOf(slice)
	if found := &list.Items[0]; wanted.Owns(found) {
		return found
	}
	return nil
}
