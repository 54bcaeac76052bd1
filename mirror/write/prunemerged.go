package write

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/util/retry"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// pruneMerged settles what of merged mirrors goes with a remote: its slices, unless they belong to a foreign Service
// by now, and the Service if all remotes that it lists, and all that have slices, are pruned: last are these. Those
// that stay list the remote no longer.
func (p Pruning) pruneMerged(ctx context.Context, cluster string, services []corev1.Service, byKey map[cache.ObjectName]plan.Objects) (last sets.Set[cache.ObjectName], stay []*corev1.Service, err error) {
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
		return nil, nil, nil
	}
	selector := labels.Set{plan.ManagedByLabel: plan.ManagedBy, discoveryv1.LabelManagedBy: plan.SliceManager}
	list, err := p.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: selector.String()})
	if err != nil {
		return nil, nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	of := map[cache.ObjectName]sets.Set[string]{}
	for key, svc := range merged {
		of[key] = sets.New[string]()
		for _, listed := range plan.Remotes(svc) {
			of[key].Insert(listed.Remote)
		}
	}
	for i := range list.Items {
		if of, _ := plan.RemoteSliceOf(&list.Items[i]); of.Failover {
			continue
		}
		if mirror, remote, part := plan.PartOf(plan.SliceKey(&list.Items[i])); part && of[mirror] != nil {
			of[mirror].Insert(remote)
		}
	}
	last = sets.New[cache.ObjectName]()
	for key, svc := range merged {
		switch i := slices.IndexFunc(p.Remotes, of[key].Has); {
		case of[key].Difference(sets.New(p.Remotes...)).Len() > 0:
			if plan.Unlist(svc, cluster) != nil {
				stay = append(stay, svc)
			}
		case i >= 0 && p.Remotes[i] == cluster: // the first one has the Service, so that it goes before all slices
			objects := byKey[key]
			objects.Service = svc
			byKey[key] = objects
			last.Insert(key)
		}
	}
	slices.SortFunc(stay, func(a, b *corev1.Service) int {
		return plan.CompareKeys(cache.MetaObjectToName(a), cache.MetaObjectToName(b))
	})
	return last, stay, nil
}

// unlisting removes a remote from the lists of merged mirrors' Services.
func (p Pruning) unlisting(ctx context.Context, cluster string, all []*corev1.Service, out io.Writer) error {
	for _, svc := range all {
		fmt.Fprintf(out, "remote %s in the annotation %s of Service %s/%s in %s\n", cluster, plan.RemotesAnnotation, svc.Namespace, svc.Name, p.Local)
	}
	if p.Dry {
		return nil
	}
	var failed []error
	for _, svc := range all {
		failed = append(failed, unlist(ctx, p.Client, svc, cluster))
	}
	return errors.Join(failed...)
}

// unlist removes a remote from the list of a merged mirror's Service. The daemon may change that, too.
func unlist(ctx context.Context, client remote.Client, svc *corev1.Service, cluster string) error {
	services, options := client.CoreV1().Services(svc.Namespace), metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, svc.Name).String()}
	return retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		list, err := services.List(ctx, options)
		if err != nil {
			return fmt.Errorf("list Services: %w", err)
		}
		for i := range list.Items {
			if without := plan.Unlist(&list.Items[i], cluster); without != nil {
				if _, err := services.Update(ctx, without, metav1.UpdateOptions{}); err != nil {
					return fmt.Errorf("update Service %s/%s: %w", svc.Namespace, svc.Name, err)
				}
			}
		}
		return nil
	})
}
