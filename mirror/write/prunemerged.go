package write

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// pruneMerged settles what of merged mirrors goes with a remote: its slices, unless they belong to a foreign Service
// by now, and the Service with the last of all remotes' slices: last are these.
func pruneMerged(ctx context.Context, client remote.Client, cluster string, services []corev1.Service, byKey map[cache.ObjectName]plan.Objects) (last sets.Set[cache.ObjectName], err error) {
	merged := map[cache.ObjectName]*corev1.Service{}
	foreign := map[cache.ObjectName]bool{}
	for i := range services {
		svc, key := &services[i], cache.MetaObjectToName(&services[i])
		if plan.IsMerged(svc) {
			merged[key] = svc
		} else if _, ours := plan.Owner(svc); !ours {
			foreign[key] = true
		}
	}
	for key := range byKey {
		if foreign[plan.MirrorKey(key)] && key != plan.MirrorKey(key) {
			delete(byKey, key)
		}
	}
	if len(merged) == 0 {
		return nil, nil
	}
	selector := labels.Set{plan.ManagedByLabel: plan.ManagedBy, discoveryv1.LabelManagedBy: plan.SliceManager}
	list, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	for i := range list.Items {
		if of, _ := plan.RemoteSliceOf(&list.Items[i]); of.Failover {
			continue
		}
		if mirror, remote, part := plan.PartOf(plan.SliceKey(&list.Items[i])); part && remote != cluster {
			delete(merged, mirror) // another remote's part is left
		}
	}
	last = sets.New[cache.ObjectName]()
	for key, svc := range merged {
		_, has := byKey[plan.Part(key, cluster)]
		for _, listed := range plan.Remotes(svc) {
			has = has || listed.Remote == cluster
		}
		if has {
			objects := byKey[key]
			objects.Service = svc
			byKey[key] = objects
			last.Insert(key)
		}
	}
	return last, nil
}
