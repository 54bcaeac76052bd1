package mirror

import (
	"context"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// accept tells whether a cluster is the one that the mirrors of a remote are of, as Spec.Accept decides.
func accept(ctx context.Context, local *local.Cluster, spec remote.Spec, uid types.UID) error {
	if !local.Synced(ctx) {
		return ctx.Err()
	}
	return spec.Accept(uid, local.UID(), func(yield func(types.UID) bool) {
		for _, mirror := range local.Recorded(spec.Name) {
			if !yield(types.UID(mirror.GetAnnotations()[plan.ClusterUIDAnnotation])) {
				return
			}
		}
	})
}

// mirrored are the exported Services of a remote that have a mirror, as it records them.
func mirrored(ctx context.Context, local *local.Cluster, cluster string) (names []cache.ObjectName, err error) {
	if !local.Synced(ctx) {
		return nil, ctx.Err()
	}
	for _, mirror := range local.Recorded(cluster) {
		if source, recorded := plan.RecordedSource(mirror); recorded {
			names = append(names, source)
		}
	}
	return names, nil
}
