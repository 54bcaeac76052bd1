package leader

import (
	"context"
	"fmt"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/cache"
)

// maxExpired is how long after its end a lease still names a leader worth a request: clocks differ.
const maxExpired = time.Minute

// Holder is the pod that holds a Lease, by the name that New gives replicas. The error says why none is known.
func Holder(ctx context.Context, client coordinationv1.LeasesGetter, lease cache.ObjectName) (pod cache.ObjectName, err error) {
	got, err := client.Leases(lease.Namespace).Get(ctx, lease.Name, metav1.GetOptions{})
	if err != nil {
		return pod, fmt.Errorf("read Lease %v: %w", lease, err)
	}
	spec := got.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return pod, fmt.Errorf("no replica has Lease %v: check that the daemon runs with --leader-elect", lease)
	}
	if late := time.Since(spec.RenewTime.Time) - time.Duration(*spec.LeaseDurationSeconds)*time.Second; late > maxExpired {
		return pod, fmt.Errorf("%.100s has not renewed Lease %v, which expired %v ago: check that the daemon runs", *spec.HolderIdentity, lease, late.Round(time.Second))
	}
	return podOf(lease, *spec.HolderIdentity), nil
}

// podOf is the pod with an identity that New gave it.
func podOf(lease cache.ObjectName, identity string) cache.ObjectName {
	if i := strings.LastIndexByte(identity, '_'); i >= 0 {
		identity = identity[:i]
	}
	return cache.NewObjectName(lease.Namespace, identity)
}
