package mirror

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
)

// Everything that this program writes is written here.

// endpointSliceController manages the slices of Services with a selector.
const endpointSliceController = "endpointslice-controller.k8s.io"

// errNotYetFree tells that a deleted mirror's ClusterIP has not been released.
var errNotYetFree = errors.New("the ClusterIP that it had is not yet free")

// job is one mirror and what is to be written to it.
type job struct {
	key     cache.ObjectName
	source  *Source // nil: the mirror goes
	live    Objects
	changes Changes
	desired Objects // what the changes lead to
	// families are those that desired was made with.
	families []corev1.IPFamily
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
	logger := klog.FromContext(ctx)
	if j.source != nil {
		logger = klog.LoggerWithValues(logger, "cluster", j.source.Cluster, "service", j.source.name())
	} else {
		logger = klog.LoggerWithValues(logger, "cluster", ownerOf(j.live))
	}
	ctx = klog.NewContext(ctx, logger)
	var err error
	switch ch := j.changes; {
	case ch.Create.Service != nil:
		err = c.createPair(ctx, found, j)
	case j.source == nil:
		err = c.delete(ctx, ch.Delete)
	default:
		if err = c.writeService(ctx, found, j); err == nil || rejected(err) {
			err = errors.Join(err, c.writeEndpoints(ctx, found, j))
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
	if err := c.writeEndpoints(ctx, found, j); err != nil {
		return err
	}
	err := c.writeService(ctx, found, j)
	if made := j.changes.Create.Endpoints; made != nil && (apierrors.IsAlreadyExists(err) || rejected(err)) {
		// Whoever has the name does not want our Endpoints under it.
		if own := c.local.ownEndpoints.latest(j.key); own != nil {
			if deleteErr := c.delete(ctx, Objects{Endpoints: own}); deleteErr != nil {
				klog.FromContext(ctx).Error(deleteErr, "Endpoints without a Service stay behind")
			}
		}
	}
	return err
}

func (c *Controller) writeService(ctx context.Context, found *verdict, j job) error {
	services := c.client.CoreV1().Services(j.key.Namespace)
	var got *corev1.Service
	var err error
	switch {
	case j.changes.Create.Service != nil:
		want := j.changes.Create.Service
		got, err = services.Create(ctx, want, metav1.CreateOptions{})
		if had := want.Spec.ClusterIP; had != "" && apierrors.IsInvalid(err) {
			if c.justFreed(j.key) {
				return errNotYetFree
			}
			want = want.DeepCopy()
			want.Spec.ClusterIP, want.Spec.ClusterIPs, want.Spec.IPFamilies = "", nil, nil
			if got, err = services.Create(ctx, want, metav1.CreateOptions{}); err == nil {
				found.add(Problem{Reason: ClusterIPLost, Cluster: j.source.Cluster, Source: j.source.name(),
					Message: fmt.Sprintf("it was deleted and made again, but its ClusterIP %s is taken: it has %s now", had, got.Spec.ClusterIP)})
			}
		}
		if err != nil {
			return fmt.Errorf("create Service: %w", err)
		}
		klog.FromContext(ctx).Info("Created mirror", "clusterIP", got.Spec.ClusterIP)
	case j.changes.Update.Service != nil:
		if got, err = services.Update(ctx, j.changes.Update.Service, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Service: %w", err)
		}
		klog.FromContext(ctx).Info("Updated mirror Service")
	default:
		return nil
	}
	got = trimLocal(got)
	c.local.ownServices.add(got)
	again, _ := c.options.Desired(*j.source, Objects{Service: got, Endpoints: j.live.Endpoints}, j.families)
	c.compare(found, j, Diff(Objects{Service: got}, Objects{Service: again.Service}).Update.Service != nil)
	return nil
}

func (c *Controller) writeEndpoints(ctx context.Context, found *verdict, j job) error {
	endpoints := c.client.CoreV1().Endpoints(j.key.Namespace)
	var got *corev1.Endpoints
	var err error
	switch {
	case j.changes.Create.Endpoints != nil:
		if got, err = endpoints.Create(ctx, j.changes.Create.Endpoints, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create Endpoints: %w", err)
		}
	case j.changes.Update.Endpoints != nil:
		if got, err = endpoints.Update(ctx, j.changes.Update.Endpoints, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Endpoints: %w", err)
		}
		klog.FromContext(ctx).Info("Updated mirror Endpoints", "addresses", addresses(got))
	default:
		return nil
	}
	got = trimEndpoints(got)
	c.local.ownEndpoints.add(got)
	again, _ := c.options.Desired(*j.source, Objects{Service: j.live.Service, Endpoints: got}, j.families)
	c.compare(found, j, Diff(Objects{Endpoints: got}, Objects{Endpoints: again.Endpoints}).Update.Endpoints != nil)
	return nil
}

// compare notes that our own write came back different, as a mutating webhook
// would make it. To insist at full speed would be a fight.
func (c *Controller) compare(found *verdict, j job, different bool) {
	if different {
		found.add(overwritten(j, "what was written came back different: does an admission webhook change mirrors? It is tried again ever less often"))
	}
}

// delete removes what is ours, as it was seen and not as it may be by now: the
// endpoints controller takes an object over in place.
func (c *Controller) delete(ctx context.Context, gone Objects) error {
	if svc := gone.Service; svc != nil {
		err := c.client.CoreV1().Services(svc.Namespace).Delete(ctx, svc.Name, exactly(svc))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete Service: %w", err)
		}
		c.local.ownServices.delete(svc)
		klog.FromContext(ctx).Info("Deleted mirror")
	}
	if endpoints := gone.Endpoints; endpoints != nil {
		err := c.client.CoreV1().Endpoints(endpoints.Namespace).Delete(ctx, endpoints.Name, exactly(endpoints))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete Endpoints: %w", err)
		}
		c.local.ownEndpoints.delete(endpoints)
	}
	return nil
}

func exactly(obj metav1.Object) metav1.DeleteOptions {
	uid, version := obj.GetUID(), obj.GetResourceVersion()
	return metav1.DeleteOptions{Preconditions: &metav1.Preconditions{UID: &uid, ResourceVersion: &version}}
}

// removeLeftovers deletes the EndpointSlices that a selector, once on a mirror,
// left behind: they would go on sending traffic to local pods.
func (c *Controller) removeLeftovers(ctx context.Context, found *verdict, key cache.ObjectName, svc *corev1.Service) {
	if svc == nil || len(svc.Spec.Selector) > 0 {
		return
	}
	leftovers, _ := c.local.leftovers.GetTypedIndexer().ByTypedIndex(byService, key.String())
	for _, slice := range leftovers {
		if c.local.ownLeftovers.latest(cache.MetaObjectToName(slice)) == nil {
			continue // deleted before
		}
		if owner := metav1.GetControllerOf(slice); owner == nil || owner.Kind != "Service" || owner.UID != svc.UID {
			continue
		}
		err := c.client.DiscoveryV1().EndpointSlices(slice.Namespace).Delete(ctx, slice.Name, exactly(slice))
		if err != nil && !apierrors.IsNotFound(err) {
			klog.FromContext(ctx).Error(err, "Cannot delete an EndpointSlice that a selector left behind", "slice", klog.KObj(slice))
			found.soon = true
			continue
		}
		c.local.ownLeftovers.delete(slice)
		klog.FromContext(ctx).Info("Deleted an EndpointSlice that a selector left behind", "slice", klog.KObj(slice))
	}
}

// ensureNamespace tells what keeps mirrors out of a namespace, if anything does.
func (c *Controller) ensureNamespace(ctx context.Context, name string) *Problem {
	problem := c.local.namespace(name)
	if problem == nil || problem.Reason != NamespaceMissing || !c.options.CreateNamespaces {
		return problem
	}
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{ManagedByLabel: ManagedBy}}}
	_, err := c.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	switch {
	case err == nil:
		klog.FromContext(ctx).Info("Created namespace", "namespace", name)
	case apierrors.IsAlreadyExists(err):
	default:
		return &Problem{Reason: WriteFailed, Message: fmt.Sprintf("create namespace %s: %v", name, err)}
	}
	return nil
}

// judge turns the API server's answer to a write into what is reported of it,
// and into when it is tried again.
func (c *Controller) judge(ctx context.Context, found *verdict, j job, err error) {
	problem := Problem{}
	if j.source != nil {
		problem.Cluster, problem.Source = j.source.Cluster, j.source.name()
	} else {
		problem.Cluster = ownerOf(j.live)
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
		return // we are ending
	case errors.Is(err, errNotYetFree), apierrors.IsAlreadyExists(err) && c.justFreed(j.key):
		klog.FromContext(ctx).V(2).Info("The name is not yet free, looking again", "err", err)
		found.soon = true
		return
	case apierrors.IsConflict(err), apierrors.IsNotFound(err) && kindOf(err) != "namespaces":
		// The cache is behind: the change is on its way.
		klog.FromContext(ctx).V(2).Info("Changed meanwhile, looking again", "err", err)
		found.soon = true
		return
	case apierrors.IsAlreadyExists(err):
		problem.Reason, problem.Message = Conflict, serviceTaken
		if kindOf(err) == "endpoints" {
			problem.Message = endpointsTaken
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

func addresses(endpoints *corev1.Endpoints) []string {
	var ips []string
	for _, subset := range endpoints.Subsets {
		for _, address := range subset.Addresses {
			ips = append(ips, address.IP)
		}
	}
	return ips
}
