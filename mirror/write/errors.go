package write

import (
	"context"
	"errors"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// judge turns the error of a step into what is reported of it, and into when the key is looked at again.
func (a *application) judge(ctx context.Context, step plan.Step, err error) {
	namespace := a.plan.Key.Namespace
	switch {
	case errors.Is(err, errNoSlicesYet):
		a.result.Slices = SlicesAwaited
		a.requeue(plan.RequeueWithDelay)
	// Fenced: another replica may lead, and does what is to be done.
	case ctx.Err() != nil, errors.Is(err, leader.ErrFenced), errors.Is(err, remote.ErrOtherCluster), errors.Is(err, errNotReleased), a.stale(ctx, step, err):
		klog.FromContext(ctx).V(2).Info("Objects changed during the sync, requeued", "err", err)
		a.stop, a.result.Stale = true, true
		a.requeue(plan.RequeueWithDelay)
	case apierrors.IsAlreadyExists(err):
		a.stop = true
		a.report(plan.Conflict, step.Kind.Foreign(a.plan.Key))
		a.requeue(plan.RequeueForeign)
	case apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		a.stop = true
		a.report(plan.NamespaceTerminating, "namespace "+namespace+" is being deleted")
		a.requeue(plan.RequeueWithDelay)
	case apierrors.IsNotFound(err):
		a.stop = true
		a.report(plan.NamespaceMissing, "namespace "+namespace+" does not exist in the local cluster: create it, or use --create-namespaces")
		a.requeue(plan.RequeueWithDelay)
	case rejected(err) && (step.Action == plan.Create || step.Action == plan.Update || step.Action == plan.TryService):
		problem := a.problem(plan.Rejected, "the local API server rejected it: "+err.Error())
		a.result.Objects[step.Kind].Rejected = &problem
		a.result.Problems = append(a.result.Problems, problem)
	default:
		a.report(plan.WriteFailed, err.Error())
		a.requeue(plan.RequeueWithDelay)
	}
}

// stale tells the answers that mean that the caches are behind, and that the change is on its way.
func (a *application) stale(ctx context.Context, step plan.Step, err error) bool {
	switch {
	case apierrors.IsConflict(err):
		return true
	case apierrors.IsNotFound(err):
		return resourceOf(err) != "namespaces"
	case apierrors.IsAlreadyExists(err):
		return a.plan.Releasing() || a.createdByAnother(ctx, step.Kind)
	}
	return false
}

// resourceOf is the resource that an API error is about.
func resourceOf(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && status.Status().Details != nil {
		return status.Status().Details.Kind
	}
	return ""
}

// rejected tells a refusal that lasts for as long as the same is written or, by a quota, a policy or a missing
// permission, for a while.
func rejected(err error) bool {
	return apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsRequestEntityTooLargeError(err) ||
		apierrors.IsForbidden(err) && !apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause)
}

// createdByAnother tells whether what has the name that we wanted is ours, and only the cache does not know
// it yet: a replica that led before may have created it. It is found with a list, which is permitted anyway.
func (a *application) createdByAnother(ctx context.Context, kind plan.Kind) bool {
	name := kind.ObjectName(a.plan.Key)
	options := metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name.Name).String()}
	var found plan.Objects
	var err error
	switch kind {
	case plan.Service:
		var list *corev1.ServiceList
		if list, err = a.client.CoreV1().Services(name.Namespace).List(ctx, options); err == nil && len(list.Items) > 0 {
			found.Service = &list.Items[0]
		}
	case plan.Endpoints:
		var list *corev1.EndpointsList
		options.LabelSelector = plan.ManagedByLabel + "=" + plan.ManagedBy
		if list, err = a.client.CoreV1().Endpoints(name.Namespace).List(ctx, options); err == nil && len(list.Items) > 0 {
			found.Endpoints = &list.Items[0]
		}
	default:
		var list *discoveryv1.EndpointSliceList
		if list, err = a.client.DiscoveryV1().EndpointSlices(name.Namespace).List(ctx, options); err == nil && len(list.Items) > 0 {
			found.Set(kind, &list.Items[0])
		}
	}
	ours := !found.Owned(a.plan.Key).Empty()
	if !ours && found.Service != nil {
		// Else our own Endpoints, created and deleted, would have it retried at once until the cache
		// has the foreign Service.
		a.local.Wrote(found.Service)
	}
	return ours
}
