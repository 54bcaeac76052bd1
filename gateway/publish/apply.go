package publish

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

// result is what became of a plan.
type result struct {
	problems []mirrors.Problem
	stale    bool // the plan was made from what is no longer true, or was not carried out to its end
	retry    bool // with the queue's back-off
}

// apply takes the steps of a plan. A record is not written while a route that it may mention is not, nor does a route go
// that it may mention while it is not written: clients would connect in vain.
func (c *Controller) apply(ctx context.Context, p plan.Plan) (r result) {
	failed := false
	for _, step := range p.Steps {
		if failed && (step.Last || step.Record != nil && step.Action != plan.Delete) {
			r.stale = true
			continue
		}
		got, err := c.take(ctx, step)
		if err != nil {
			failed = failed || !step.Last
			c.judge(ctx, p.Key, step, err, &r)
			continue
		}
		c.note(ctx, p.Key, step, got, &r)
	}
	return r
}

// take takes one step and returns the route as it is then.
func (c *Controller) take(ctx context.Context, step plan.Step) (*unstructured.Unstructured, error) {
	got, err := c.request(ctx, step)
	if step.Action == plan.Delete && apierrors.IsNotFound(err) {
		err = nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s %s %s: %w", step.Action, step.Ref.Kind, step.Ref.Name, err)
	}
	return got, nil
}

func (c *Controller) request(ctx context.Context, step plan.Step) (*unstructured.Unstructured, error) {
	if step.Record != nil {
		return nil, c.requestRecord(ctx, step)
	}
	client := c.routeClient(step.Object, step.Ref.Kind)
	cached := c.caches.routes[step.Ref.Kind].cached()
	var got *unstructured.Unstructured
	var err error
	switch step.Action {
	case plan.Create:
		got, err = client.Create(ctx, step.Object, metav1.CreateOptions{})
	case plan.Update:
		got, err = client.Update(ctx, step.Object, metav1.UpdateOptions{})
	case plan.Delete:
		if err = client.Delete(ctx, step.Object.GetName(), write.Exactly(step.Object)); (err == nil || apierrors.IsNotFound(err)) && cached != nil {
			cached.Delete(&remote.Unstructured{Unstructured: *step.Object})
		}
		return nil, err
	}
	if err == nil && cached != nil {
		cached.Add(remote.TrimUnstructured(&remote.Unstructured{Unstructured: *got}))
	}
	return got, err
}

func (c *Controller) routeClient(obj *unstructured.Unstructured, of plan.Kind) dynamic.ResourceInterface {
	version, _ := schema.ParseGroupVersion(obj.GetAPIVersion())
	return c.clients.WriteDynamic.Resource(of.Resource().WithVersion(version.Version)).Namespace(obj.GetNamespace())
}

func (c *Controller) requestRecord(ctx context.Context, step plan.Step) error {
	client := c.clients.Write.CoreV1().ConfigMaps(step.Record.Namespace)
	var got *corev1.ConfigMap
	var err error
	switch step.Action {
	case plan.Create:
		got, err = client.Create(ctx, step.Record, metav1.CreateOptions{})
	case plan.Update:
		got, err = client.Update(ctx, step.Record, metav1.UpdateOptions{})
	case plan.Delete:
		if err = client.Delete(ctx, step.Record.Name, write.Exactly(step.Record)); err == nil || apierrors.IsNotFound(err) {
			c.caches.records.Delete(step.Record)
		}
		return err
	}
	if err == nil {
		got.ManagedFields = nil
		c.caches.records.Add(got)
	}
	return err
}

// note remembers a write that succeeded. To insist at full speed on what another program changes would be a fight.
func (c *Controller) note(ctx context.Context, key cache.ObjectName, step plan.Step, got *unstructured.Unstructured, r *result) {
	c.options.Metrics.Wrote(string(step.Ref.Kind), string(step.Action))
	if step.Record == nil {
		klog.FromContext(ctx).Info("Wrote route", "action", step.Action, "kind", step.Ref.Kind, "route", cache.MetaObjectToName(step.Object))
	}
	now := time.Now()
	fight := c.memory.wrote(key, step, now)
	var message string
	switch {
	case got != nil && plan.Differs(got, step.Object):
		message = fmt.Sprintf("%s %s was changed by an admission webhook or policy: exempt it. The write is retried with back-off", step.Ref.Kind, step.Ref.Name)
	case fight:
		message = fmt.Sprintf("%s %s is changed back as soon as it is written: stop the other program that manages it. The write is retried with back-off", step.Ref.Kind, step.Ref.Name)
	default:
		return
	}
	c.backOff(key, step, mirrors.Overwritten, message, nil, r)
}

func (c *Controller) backOff(key cache.ObjectName, step plan.Step, reason mirrors.Reason, message string, only *unstructured.Unstructured, r *result) {
	problem := mirrors.Problem{Reason: reason, Source: key, Message: message}
	c.memory.backOff(key, step.Ref, problem, only, time.Now())
	r.problems = append(r.problems, problem)
}

// judge turns the API server's answer into what is to be done about it.
func (c *Controller) judge(ctx context.Context, key cache.ObjectName, step plan.Step, err error, r *result) {
	switch {
	case apierrors.IsAlreadyExists(err):
		if c.isForeign(ctx, step) {
			c.memory.foreign(key, step.Ref, time.Now())
		}
		r.stale, r.retry = true, true
	case step.Ref.Kind == plan.Alias && step.Action == plan.Create && apierrors.IsNotFound(err):
		message := fmt.Sprintf("%v: create the namespace with the component names of deploy/publish. The write is retried", err)
		c.backOff(key, step, mirrors.Rejected, message, step.Object, r)
		c.queue.Add(key) // the record must say so
	case apierrors.IsConflict(err), apierrors.IsNotFound(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		r.stale, r.retry = true, true
	case apierrors.IsForbidden(err) && c.memory.refusedFirst(key, step.Ref):
		// A policy that reads Services may not know yet that this one is exported.
		r.stale, r.retry = true, true
	case apierrors.IsInvalid(err), apierrors.IsBadRequest(err), apierrors.IsForbidden(err), apierrors.IsRequestEntityTooLargeError(err):
		only := step.Object
		if step.Action == plan.Delete {
			only = nil
		}
		c.backOff(key, step, mirrors.Rejected, rejectedMessage(err), only, r)
		c.queue.Add(key) // the record must say so
	default:
		r.problems = append(r.problems, mirrors.Problem{Reason: mirrors.WriteFailed, Source: key, Message: err.Error()})
		r.stale, r.retry = true, true
	}
}

func rejectedMessage(err error) string {
	var status apierrors.APIStatus
	if errors.As(err, &status) && apierrors.IsForbidden(err) {
		return err.Error() + ": allow it in the ClusterRole, quota or policy. The write is retried"
	}
	return err.Error() + ". The write is retried"
}

// isForeign reads what has the name of an object that could not be created: the cache may not know yet that it is
// ours.
func (c *Controller) isForeign(ctx context.Context, step plan.Step) bool {
	if step.Record != nil {
		got, err := c.clients.Write.CoreV1().ConfigMaps(step.Record.Namespace).Get(ctx, step.Record.Name, metav1.GetOptions{})
		return err == nil && !plan.RecordOwned(got)
	}
	got, err := c.routeClient(step.Object, step.Ref.Kind).Get(ctx, step.Object.GetName(), metav1.GetOptions{})
	return err == nil && !plan.Owned(got)
}
