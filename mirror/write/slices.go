package write

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote/logging"
)

// From Endpoints Kubernetes makes the EndpointSlices that kube-proxy reads. They are in no cache: they are
// looked for only where they may be missing.

// mirroringController makes EndpointSlices from Endpoints.
const mirroringController = "endpointslicemirroring-controller.k8s.io"

// mirroredSlices are the EndpointSlices that Kubernetes has made from the Endpoints with this key.
func (a *application) mirroredSlices(ctx context.Context, key cache.ObjectName) ([]discoveryv1.EndpointSlice, error) {
	list, err := a.client.DiscoveryV1().EndpointSlices(key.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: discoveryv1.LabelServiceName + "=" + key.Name + "," + discoveryv1.LabelManagedBy + "=" + mirroringController,
	})
	if err != nil {
		return nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	return list.Items, nil
}

// awaitSlices succeeds when there are EndpointSlices of all addresses that Endpoints have.
func (a *application) awaitSlices(ctx context.Context, endpoints *corev1.Endpoints) error {
	key := cache.MetaObjectToName(endpoints)
	list, err := a.mirroredSlices(ctx, key)
	if err != nil {
		return err
	}
	missing := plan.Objects{Endpoints: endpoints}.Endpointed()
	for i := range list {
		for addr := range (plan.Objects{IPv4: &list[i]}).Endpointed() {
			delete(missing, addr)
		}
	}
	if len(missing) > 0 {
		return errNoSlicesYet
	}
	if key == a.plan.Key {
		a.result.Slices = SlicesExist
	}
	return nil
}

// checkSlices looks for the EndpointSlices of a mirror. If there are none it updates the Endpoints:
// Kubernetes' controller looks again at any update, and nothing is lost if it does not.
func (a *application) checkSlices(ctx context.Context) error {
	if missing, err := a.slicesMissing(ctx); !missing {
		return err
	}
	a.result.Slices = SlicesMissing
	logging.Warn(klog.FromContext(ctx), "Kubernetes has created no EndpointSlices for the mirror, updating its Endpoints to trigger it")
	_, err := a.update(ctx, plan.Endpoints, plan.Refreshed(a.plan.Live.Endpoints))
	return err
}

// restartMirroring looks for them, too. If there are none it has Kubernetes' controller forget those that it
// believes to exist, which it does with Endpoints that have the label of not being mirrored. A sync removes the
// label later, whatever happens to this process: it is none of a mirror's.
func (a *application) restartMirroring(ctx context.Context) error {
	if missing, err := a.slicesMissing(ctx); !missing {
		return err
	}
	logging.Warn(klog.FromContext(ctx), "Kubernetes still has created no EndpointSlices for the mirror, disabling their mirroring for a moment to restart it")
	_, err := a.update(ctx, plan.Endpoints, plan.Unmirrored(a.plan.Live.Endpoints))
	a.result.Slices = SlicesMissing
	if err == nil {
		a.result.Slices = SlicesPaused
	}
	return err
}

// slicesMissing tells that there are none. If there are, the result says so.
func (a *application) slicesMissing(ctx context.Context) (bool, error) {
	list, err := a.mirroredSlices(ctx, a.plan.Key)
	if err == nil && len(list) > 0 {
		a.result.Slices = SlicesExist
	}
	return err == nil && len(list) == 0, err
}
