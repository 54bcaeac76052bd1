package write

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote/logging"
)

// Result is what became of a plan.
type Result struct {
	Problems []plan.Problem
	Requeue  plan.Requeue
	// Stale tells that the plan was made from what is no longer true, or could not be carried out to
	// its end: nothing may be concluded from a problem not being there.
	Stale   bool
	Objects [plan.Kinds]Outcome
	Stray   plan.Objects // ours, and to be deleted, which failed
	Slices  Slices
}

// Outcome is what became of one object's write.
type Outcome struct {
	Created     bool
	Updated     bool
	Rejected    *plan.Problem // the API server will refuse it for as long as it is the same
	Overwritten *plan.Problem // it came back different
}

// Slices is whether Kubernetes has made EndpointSlices of a mirror's Endpoints.
type Slices int

// The values.
const (
	SlicesUnknown Slices = iota // not looked for
	SlicesExist
	SlicesMissing // and Kubernetes has been made to look again
	SlicesPaused  // and Kubernetes is kept from making any, until it has forgotten those that it believes to exist
	SlicesAwaited // not all of them exist; those that carried the addresses before stay until they do
)

// application is a plan that is being applied.
type application struct {
	*Writer
	plan    plan.Plan
	result  Result
	failed  bool // a step was not successful
	stop    bool // no further step may be taken
	created plan.Objects
}

// Apply takes the steps of a plan.
func (w *Writer) Apply(ctx context.Context, p plan.Plan) Result {
	a := &application{Writer: w, plan: p}
	if len(p.Steps) == 0 {
		return a.result
	}
	logger := klog.LoggerWithValues(klog.FromContext(ctx), "cluster", p.Cluster)
	if p.Source != nil {
		logger = klog.LoggerWithValues(logger, "service", klog.KObj(p.Source.Service))
	}
	ctx = klog.NewContext(ctx, logger)
	before := p.Live.Addresses()
	for _, step := range p.Steps {
		if a.stop || step.AfterAll && a.failed {
			continue
		}
		if err := a.take(ctx, step); err != nil {
			a.failed = true
			a.judge(ctx, step, err)
		}
	}
	if updated := a.addresses(); updated != nil {
		logAddresses(logger, before, updated.Addresses())
	}
	return a.result
}

func logAddresses(logger klog.Logger, before, now []string) {
	switch {
	case len(now) == 0 && len(before) > 0:
		logging.Warn(logger, "Mirror lost all endpoints", "before", before)
	case len(now) > 0 && len(before) == 0:
		logger.Info("Mirror has endpoints now", "addresses", now)
	default:
		logger.Info("Updated mirror's endpoints", "addresses", now)
	}
}

func (a *application) take(ctx context.Context, step plan.Step) error {
	switch step.Action {
	case plan.CreateNamespace:
		return a.createNamespace(ctx, a.plan.Key.Namespace)
	case plan.CheckForeignEndpoints:
		return a.foreign.check(ctx, a.plan.Key)
	case plan.TryService:
		return a.tryService(ctx, step.Object.(*corev1.Service))
	case plan.Create:
		return a.takeCreate(ctx, step)
	case plan.Update:
		return a.takeUpdate(ctx, step)
	case plan.Delete:
		return a.takeDelete(ctx, step)
	case plan.DeleteLeftover:
		return a.deleteLeftover(ctx, step.Object)
	case plan.AwaitSlices:
		return a.awaitSlices(ctx, step.Object.(*corev1.Endpoints))
	case plan.CheckSlices:
		return a.checkSlices(ctx)
	case plan.RestartMirroring:
		return a.restartMirroring(ctx)
	}
	return fmt.Errorf("unknown action %d", step.Action)
}

// tryService has the API server say whether it would create a Service. The ClusterIPs that it had may not be
// free yet, which is no reason not to create it.
func (a *application) tryService(ctx context.Context, svc *corev1.Service) error {
	svc = svc.DeepCopy()
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies = "", nil, nil
	_, err := a.client.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	if err != nil {
		return fmt.Errorf("create Service: %w", err)
	}
	return nil
}

func (a *application) takeCreate(ctx context.Context, step plan.Step) (err error) {
	var got metav1.Object
	if svc, ok := step.Object.(*corev1.Service); ok {
		got, err = a.createService(ctx, svc)
	} else {
		got, err = a.create(ctx, step.Kind, step.Object)
	}
	if err != nil {
		if step.Kind == plan.Service {
			a.undo(ctx, err)
		}
		return err
	}
	a.created.Set(step.Kind, got)
	a.result.Objects[step.Kind].Created = true
	a.compare(step.Kind, got)
	if svc, ok := got.(*corev1.Service); ok {
		klog.FromContext(ctx).Info("Created mirror", "clusterIP", svc.Spec.ClusterIP)
	}
	return nil
}

func (a *application) takeUpdate(ctx context.Context, step plan.Step) error {
	got, err := a.updateWhatIsValid(ctx, step)
	if err != nil {
		return err
	}
	a.result.Objects[step.Kind].Updated = true
	a.plan.Live.Set(step.Kind, got)
	a.compare(step.Kind, got)
	if step.Kind == plan.Service {
		klog.FromContext(ctx).Info("Updated mirror's Service")
	}
	return nil
}

func (a *application) takeDelete(ctx context.Context, step plan.Step) error {
	deleted, err := a.delete(ctx, step.Kind, step.Object)
	if err != nil {
		if a.underForeign() && !apierrors.IsConflict(err) { // else it is not as it was
			a.result.Stray.Set(step.Kind, step.Object)
		}
		return err
	}
	if deleted && step.Kind == plan.Service {
		klog.FromContext(ctx).Info("Deleted mirror")
	}
	return nil
}

// underForeign tells whether the plan deletes what was left under a foreign Service.
func (a *application) underForeign() bool {
	if a.plan.Live.Service == nil {
		return false
	}
	_, ours := plan.Owner(a.plan.Live.Service)
	return !ours
}

func (a *application) deleteLeftover(ctx context.Context, slice metav1.Object) error {
	deleted, err := a.delete(ctx, plan.IPv4Slice, slice)
	if err != nil {
		return fmt.Errorf("leftover EndpointSlice of a selector: %w", err)
	}
	if deleted {
		klog.FromContext(ctx).Info("Deleted leftover EndpointSlice of a selector", "slice", klog.KObj(slice))
	}
	return nil
}

// compare notes that our own write came back different, as a mutating webhook makes it. To insist at full
// speed would be a fight.
func (a *application) compare(kind plan.Kind, got metav1.Object) {
	if a.plan.Overwrites(kind, got) {
		problem := a.problem(plan.Overwritten, fmt.Sprintf(
			"the %v was changed by an admission webhook or policy: exempt mirrors from it. The write is retried with back-off", kind))
		a.result.Objects[kind].Overwritten = &problem
		a.result.Problems = append(a.result.Problems, problem)
	}
}

// undo deletes the addresses of a Service that could not be created: a foreign one that has, or gets, the name
// must not have them. Those of another replica that was quicker are needed; and without a gateway, there may be
// no other record of them than these.
func (a *application) undo(ctx context.Context, err error) {
	foreign := apierrors.IsAlreadyExists(err) && !a.plan.Releasing() && !a.createdByAnother(ctx, plan.Service)
	gateway := a.plan.Source.Gateway
	if !foreign && !(rejected(err) && gateway != nil) {
		return
	}
	now := a.local.Live(a.plan.Key)
	all := false
	if !foreign { // of a refused Service, those from before a restart too
		owned := now.Owned(a.plan.Key)
		if all = !owned.KeptBy(gateway); all {
			now = owned
		}
	}
	for _, kind := range []plan.Kind{plan.Endpoints, plan.IPv4Slice, plan.IPv6Slice} {
		obj := now.Get(kind)
		if obj == nil || a.created.Get(kind) == nil && !all {
			continue
		}
		if _, err := a.delete(ctx, kind, obj); err != nil {
			a.result.Stray.Set(kind, obj)
			a.report(plan.WriteFailed, err.Error())
			a.requeue(plan.RequeueWithDelay)
		}
	}
}

// addresses are those of an existing mirror after they were written; nil where they were not.
func (a *application) addresses() *plan.Objects {
	if a.plan.Live.Service == nil {
		return nil
	}
	changed := false
	after := plan.Objects{Endpoints: a.plan.Live.Endpoints, IPv4: a.plan.Live.IPv4, IPv6: a.plan.Live.IPv6}
	for _, kind := range []plan.Kind{plan.Endpoints, plan.IPv4Slice, plan.IPv6Slice} {
		if obj := a.created.Get(kind); obj != nil {
			after.Set(kind, obj)
			changed = true
		}
		changed = changed || a.result.Objects[kind].Updated
	}
	if !changed {
		return nil
	}
	return &after
}

func (a *application) problem(reason plan.Reason, message string) plan.Problem {
	problem := plan.Problem{Reason: reason, Cluster: a.plan.Cluster, Message: message}
	if source := a.plan.Source; source != nil {
		problem.Source.Namespace, problem.Source.Name = source.Service.Namespace, source.Service.Name
	}
	return problem
}

func (a *application) report(reason plan.Reason, message string) {
	a.result.Problems = append(a.result.Problems, a.problem(reason, message))
}

func (a *application) requeue(when plan.Requeue) { a.result.Requeue = max(a.result.Requeue, when) }

// Errors of steps that wait for Kubernetes.
var (
	errNotReleased = errors.New("its former ClusterIPs have not been released yet")
	errNoSlicesYet = errors.New("Kubernetes has not created EndpointSlices for all addresses yet")
)
