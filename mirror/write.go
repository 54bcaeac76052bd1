package mirror

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
)

// Everything that this program writes is written here.

// endpointSliceController manages the slices of Services with a selector.
const endpointSliceController = "endpointslice-controller.k8s.io"

// errNotYetFree tells that a deleted mirror's ClusterIP has not been released.
var errNotYetFree = errors.New("the ClusterIP that it had is not yet free")

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
		c.options.Metrics.wrote("Service", "create")
		klog.FromContext(ctx).Info("Created mirror", "clusterIP", got.Spec.ClusterIP)
	case j.changes.Update.Service != nil:
		if got, err = services.Update(ctx, j.changes.Update.Service, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("update Service: %w", err)
		}
		c.options.Metrics.wrote("Service", "update")
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

// writeAddresses writes what leads from the mirror to the gateway.
func (c *Controller) writeAddresses(ctx context.Context, found *verdict, j job) error {
	v1, discovery := c.client.CoreV1().Endpoints(j.key.Namespace), c.client.DiscoveryV1().EndpointSlices(j.key.Namespace)
	endpoints, err := createOrUpdate(ctx, c.options.Metrics, "Endpoints", v1, j.changes.Create.Endpoints, j.changes.Update.Endpoints)
	if err != nil {
		return err
	}
	now, written := Objects{Service: j.live.Service, Endpoints: j.live.Endpoints, IPv4: j.live.IPv4, IPv6: j.live.IPv6}, false
	if endpoints != nil {
		now.Endpoints, written = trimEndpoints(endpoints), true
		c.local.ownEndpoints.add(now.Endpoints)
	}
	for _, family := range []struct {
		create, update *discoveryv1.EndpointSlice
		now            **discoveryv1.EndpointSlice
	}{
		{j.changes.Create.IPv4, j.changes.Update.IPv4, &now.IPv4},
		{j.changes.Create.IPv6, j.changes.Update.IPv6, &now.IPv6},
	} {
		slice, err := createOrUpdate(ctx, c.options.Metrics, "EndpointSlice", discovery, family.create, family.update)
		if err != nil {
			return err
		}
		if slice != nil {
			*family.now, written = trimSlice(slice), true
			c.local.ownSlices.add(slice)
		}
	}
	if !written {
		return nil
	}
	if j.changes.Create.Service == nil {
		klog.FromContext(ctx).Info("Updated where the mirror leads to", "addresses", now.addresses())
	}
	again, _ := c.options.Desired(*j.source, now, j.families)
	again.Service = now.Service
	c.compare(found, j, Diff(now, again).Update != Objects{})
	return nil
}

// writer is the part of a typed client that writes.
type writer[T any] interface {
	Create(ctx context.Context, obj T, options metav1.CreateOptions) (T, error)
	Update(ctx context.Context, obj T, options metav1.UpdateOptions) (T, error)
}

// createOrUpdate makes or changes one object, whichever of the two is given, and returns
// it as it is now; the zero T where there is nothing to write.
func createOrUpdate[T comparable](ctx context.Context, metrics *Metrics, kind string, to writer[T], create, update T) (T, error) {
	var none T
	if create != none {
		got, err := to.Create(ctx, create, metav1.CreateOptions{})
		if err != nil {
			return none, fmt.Errorf("create %s: %w", kind, err)
		}
		metrics.wrote(kind, "create")
		return got, nil
	}
	if update != none {
		got, err := to.Update(ctx, update, metav1.UpdateOptions{})
		if err != nil {
			return none, fmt.Errorf("update %s: %w", kind, err)
		}
		metrics.wrote(kind, "update")
		return got, nil
	}
	return none, nil
}

// deleteReplaced deletes what leads from the mirror to the gateway in a way that
// is not used any more, once what takes its place is there. What is made of
// Endpoints, Kubernetes makes in its own time.
func (c *Controller) deleteReplaced(ctx context.Context, found *verdict, j job) error {
	gone := j.changes.Delete
	if (gone.IPv4 != nil || gone.IPv6 != nil) && j.desired.Endpoints != nil {
		ready, err := c.madeOfAll(ctx, j)
		if err != nil {
			return err
		}
		if !ready {
			found.after = madePeriod
			return nil
		}
	}
	return c.delete(ctx, gone)
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
		c.options.Metrics.wrote("Service", "delete")
		klog.FromContext(ctx).Info("Deleted mirror")
	}
	if endpoints := gone.Endpoints; endpoints != nil {
		err := c.client.CoreV1().Endpoints(endpoints.Namespace).Delete(ctx, endpoints.Name, exactly(endpoints))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete Endpoints: %w", err)
		}
		c.local.ownEndpoints.delete(endpoints)
		c.options.Metrics.wrote("Endpoints", "delete")
	}
	for _, slice := range []*discoveryv1.EndpointSlice{gone.IPv4, gone.IPv6} {
		if slice == nil {
			continue
		}
		err := c.client.DiscoveryV1().EndpointSlices(slice.Namespace).Delete(ctx, slice.Name, exactly(slice))
		if err != nil && !apierrors.IsNotFound(err) {
			return fmt.Errorf("delete EndpointSlice: %w", err)
		}
		c.local.ownSlices.delete(slice)
		c.options.Metrics.wrote("EndpointSlice", "delete")
	}
	return nil
}

// remake makes Endpoints anew, as they are: the gateway may be unknown now.
func (c *Controller) remake(ctx context.Context, endpoints *corev1.Endpoints) error {
	if err := c.delete(ctx, Objects{Endpoints: endpoints}); err != nil {
		return err
	}
	again := endpoints.DeepCopy()
	again.UID, again.ResourceVersion, again.CreationTimestamp = "", "", metav1.Time{}
	made, err := createOrUpdate(ctx, c.options.Metrics, "Endpoints", c.client.CoreV1().Endpoints(again.Namespace), again, nil)
	if err != nil {
		return err
	}
	c.local.ownEndpoints.add(trimEndpoints(made))
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
	leftovers := c.local.leftovers.ByIndex(byService, key.String())
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
		c.options.Metrics.wrote("EndpointSlice", "delete")
		klog.FromContext(ctx).Info("Deleted an EndpointSlice that a selector left behind", "slice", klog.KObj(slice))
	}
}

// made tells whether what has the name that we wanted is ours, and only the cache
// does not know it yet: a replica that led before may have made it. It asks with a
// list, for which the permission is there.
func (c *Controller) made(ctx context.Context, key cache.ObjectName, kind string) bool {
	ours := func(name string) metav1.ListOptions {
		return metav1.ListOptions{
			FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, name).String(),
			LabelSelector: ManagedByLabel + "=" + ManagedBy + "," + ClusterLabel,
		}
	}
	switch kind {
	case "services":
		named := metav1.ListOptions{FieldSelector: ours(key.Name).FieldSelector}
		list, err := c.client.CoreV1().Services(key.Namespace).List(ctx, named)
		if err != nil || len(list.Items) == 0 {
			return false
		}
		svc := trimLocal(&list.Items[0])
		if _, ours := Owner(svc); ours {
			return true
		}
		// Else our own Endpoints, made and deleted, would have it tried again at once
		// until the cache has the stranger's Service.
		c.local.ownServices.add(svc)
		return false
	case "endpoints":
		list, err := c.client.CoreV1().Endpoints(key.Namespace).List(ctx, ours(key.Name))
		return err == nil && len(list.Items) > 0
	case "endpointslices":
		list, err := c.client.DiscoveryV1().EndpointSlices(key.Namespace).List(ctx, metav1.ListOptions{
			LabelSelector: ours("").LabelSelector + "," + discoveryv1.LabelManagedBy + "=" + sliceManager + "," + discoveryv1.LabelServiceName + "=" + key.Name,
		})
		return err == nil && len(list.Items) > 0
	}
	return false
}

// createNamespace makes the namespace that a mirror needs; it may have come
// meanwhile.
func (c *Controller) createNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{ManagedByLabel: ManagedBy}}}
	_, err := c.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	c.options.Metrics.wrote("Namespace", "create")
	klog.FromContext(ctx).Info("Created namespace", "namespace", name)
	return nil
}
