package mirror

import (
	"context"
	"errors"
	"fmt"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// accept tells whether a cluster is the one that the mirrors of a remote are of (its UID is on them), or that
// the flags name. uid= means exactly that one, so it must have been read. Without uid=, a cluster whose UID may not
// be read counts as the right one unless mirrors say that it was readable before: such a change is most often
// another cluster, whose list of exports would delete them. uid=unverified says that it is the right one.
func accept(ctx context.Context, local *local.Cluster, spec remote.Spec, uid types.UID) error {
	if !local.Synced(ctx) {
		return ctx.Err()
	}
	if uid != "" && uid == local.UID() {
		return remote.NewWrongCluster(errors.New("its kubeconfig points to the local cluster, so nothing is mirrored: use the remote's kubeconfig"))
	}
	switch {
	case spec.UID == remote.Unverified && uid == "":
		return nil
	case spec.UID == "" || spec.UID == remote.Unverified: // the mirrors say which one it is
	case uid == "":
		return fmt.Errorf("the UID of the cluster cannot be read, but uid=%s is configured, so its mirrors are not updated: "+
			"allow the account to get namespace kube-system, or set uid=unverified in %s", spec.UID, spec.Where())
	case uid != spec.UID:
		return remote.NewWrongCluster(fmt.Errorf("its kubeconfig points to the cluster with UID %s, but uid=%s is configured, so its mirrors are not updated: correct the kubeconfig, or uid= in %s", uid, spec.UID, spec.Where()))
	default:
		return nil
	}
	var other string
	for _, mirror := range local.Recorded(spec.Name) {
		switch known := mirror.GetAnnotations()[plan.ClusterUIDAnnotation]; {
		case known == "":
		case known == string(uid):
			return nil
		default:
			other = known
		}
	}
	switch {
	case other == "":
		return nil
	case uid == "":
		return fmt.Errorf("the UID of the cluster cannot be read, but its mirrors are from the cluster with UID %s, so they are not updated: "+
			"allow the account to get namespace kube-system, or set uid=unverified in %s", other, spec.Where())
	default:
		return remote.NewWrongCluster(fmt.Errorf("its kubeconfig points to the cluster with UID %s, but its mirrors are from the cluster with UID %s, so they are not updated: "+
			"if the cluster was replaced on purpose, add uid=%s to %s", uid, other, uid, spec.Where()))
	}
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
