package write

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/mirror/plan"
)

// createService creates a mirror's Service, with the ClusterIPs that it had if they can be had.
func (a *application) createService(ctx context.Context, want *corev1.Service) (metav1.Object, error) {
	if len(want.Spec.ClusterIPs) == 0 {
		return a.create(ctx, plan.Service, want)
	}
	return a.restoring(ctx, want, 0, func(svc *corev1.Service) (metav1.Object, error) {
		return a.create(ctx, plan.Service, svc)
	})
}

// updateWhatIsValid updates an object. Users may have set what the API server refuses now: ClusterIPs that a
// Service had may be taken, and annotations may be invalid for a mirror. It is written without these then.
func (a *application) updateWhatIsValid(ctx context.Context, step plan.Step) (metav1.Object, error) {
	put := func(obj metav1.Object) (metav1.Object, error) { return a.updateAnnotated(ctx, step.Kind, obj) }
	want, ok := step.Object.(*corev1.Service)
	if !ok {
		return put(step.Object)
	}
	has := 0
	if live := step.Live.(*corev1.Service); live.Spec.Type != corev1.ServiceTypeExternalName {
		has = len(live.Spec.ClusterIPs)
	}
	if len(want.Spec.ClusterIPs) <= has {
		return put(want)
	}
	return a.restoring(ctx, want, has, func(svc *corev1.Service) (metav1.Object, error) { return put(svc) })
}

// restoring writes a Service with the ClusterIPs that it had, of which it has the first few still. Those that
// are taken are left out beforehand where that is known: of two, the API server would keep the one that it
// got, and refuse both ever after. What it refuses all the same is left out then.
func (a *application) restoring(ctx context.Context, want *corev1.Service, has int, write func(*corev1.Service) (metav1.Object, error)) (metav1.Object, error) {
	had := want.Spec.ClusterIPs
	free, releasing := a.free(ctx, had[has:])
	if releasing && a.plan.Releasing() {
		return nil, errNotReleased
	}
	got, err := write(withClusterIPs(want, had[:has+free]))
	for n := has + free - 1; apierrors.IsInvalid(err) && n >= has; n-- {
		if a.plan.Releasing() {
			return nil, errNotReleased
		}
		got, err = write(withClusterIPs(want, had[:n]))
	}
	if svc, ok := got.(*corev1.Service); ok && err == nil {
		a.reportLost(svc, had)
	}
	return got, err
}

// withClusterIPs is a Service with these of its ClusterIPs; it gets others for the rest of its families.
func withClusterIPs(svc *corev1.Service, ips []string) *corev1.Service {
	if len(ips) == len(svc.Spec.ClusterIPs) {
		return svc
	}
	svc = svc.DeepCopy()
	if svc.Spec.ClusterIPs = ips; len(ips) == 0 {
		svc.Spec.ClusterIP, svc.Spec.ClusterIPs, svc.Spec.IPFamilies = "", nil, nil
	}
	return svc
}

func (a *application) reportLost(svc *corev1.Service, had []string) {
	lost := slices.DeleteFunc(slices.Clone(had), func(ip string) bool { return slices.Contains(svc.Spec.ClusterIPs, ip) })
	if len(lost) > 0 {
		a.local.Replaced(svc)
		a.report(plan.ClusterIPLost, fmt.Sprintf("the mirror was deleted or changed, and its ClusterIPs %s are in use by another Service: it now has %s. Restart clients that use the old ones",
			strings.Join(lost, ", "), strings.Join(svc.Spec.ClusterIPs, ", ")))
	}
}

// free is how many of these addresses, from the first on, nobody has: since Kubernetes 1.33 an IPAddress object
// says who has one. releasing tells that it is, still, the Service that had the mirror's name. Where that may
// not be read, all count as free.
func (a *application) free(ctx context.Context, ips []string) (free int, releasing bool) {
	for _, ip := range ips {
		addr, err := netip.ParseAddr(ip)
		if err != nil {
			return free, false
		}
		object, err := a.client.NetworkingV1().IPAddresses().Get(ctx, addr.String(), metav1.GetOptions{})
		if err == nil {
			ref := object.Spec.ParentRef
			return free, ref != nil && ref.Resource == "services" && ref.Namespace == a.plan.Key.Namespace && ref.Name == a.plan.Key.Name
		}
		free++
	}
	return free, false
}

// updateAnnotated updates an object and, if the API server calls it invalid, retries once without the
// users' annotations that it names or, if it names none, without any of them.
func (a *application) updateAnnotated(ctx context.Context, kind plan.Kind, obj metav1.Object) (metav1.Object, error) {
	got, err := a.update(ctx, kind, obj)
	if !apierrors.IsInvalid(err) {
		return got, err
	}
	without, removed := a.plan.WithoutAnnotations(kind, obj, refusedAnnotations(err))
	if len(removed) == 0 {
		return got, err
	}
	got, retryErr := a.update(ctx, kind, without)
	if retryErr != nil {
		return nil, err
	}
	if len(removed) > 5 {
		removed = append(removed[:5:5], fmt.Sprintf("and %d more", len(removed)-5))
	}
	a.report(plan.AnnotationsRemoved, fmt.Sprintf("the local API server rejected these annotations of the %v, so they were removed: %s", kind, strings.Join(removed, ", ")))
	return got, nil
}

// refusedAnnotations are the keys of the annotations that an Invalid names, as fields
// metadata.annotations[KEY]; nil where it names none.
func refusedAnnotations(err error) (keys []string) {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || status.Status().Details == nil {
		return nil
	}
	for _, cause := range status.Status().Details.Causes {
		if key, found := strings.CutPrefix(cause.Field, "metadata.annotations["); found {
			keys = append(keys, strings.TrimSuffix(key, "]"))
		}
	}
	return keys
}
