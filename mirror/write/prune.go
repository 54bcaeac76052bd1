package write

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Prune deletes all mirrors of one remote cluster, and what Services that fail over to it have of it, and nothing else,
// after it has listed them. With dry it
// only lists. Objects that have changed meanwhile stay, which is an error. local is the name of the
// cluster that client is for.
func Prune(ctx context.Context, client remote.Client, local, cluster string, dry bool, out io.Writer) error {
	if problems := validation.IsDNS1123Label(cluster); len(problems) > 0 { // it goes into label selectors
		return fmt.Errorf("%.70q is not a valid remote name: %s", cluster, problems[0])
	}
	_, err := Pruning{Client: client, Local: local, Remotes: []string{cluster}, Dry: dry}.prune(ctx, out, false)
	return err
}

func deletions(client remote.Client, all []owned) (list []Deletion) {
	for _, one := range all {
		list = append(list, Deletion{fmt.Sprintf("%s %s/%s", one.kind, one.GetNamespace(), one.GetName()), func(ctx context.Context) error {
			return remove(ctx, client, one)
		}})
	}
	return list
}

// owned is an object of ours.
type owned struct {
	metav1.Object
	kind plan.Kind
}

// found is what was created for a remote cluster.
type found struct {
	objects []owned
	stay    []*corev1.Service // of merged mirrors, which stay, and list it
	listed  bool              // by the Service of a merged mirror
}

// ownedBy lists what was created for a remote cluster: Services first, so that no client is sent to where
// nothing is.
func (p Pruning) ownedBy(ctx context.Context, cluster string) (all found, err error) {
	client := p.Client
	ours := labels.Set{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: cluster}
	options := metav1.ListOptions{LabelSelector: ours.String()}
	endpoints, err := client.CoreV1().Endpoints(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return all, fmt.Errorf("list Endpoints: %w", err)
	}
	ours[discoveryv1.LabelManagedBy] = plan.SliceManager // labels are copied onto the slices of controllers
	endpointSlices, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours.String()})
	if err != nil {
		return all, fmt.Errorf("list EndpointSlices: %w", err)
	}
	var beside []owned // Services of the cluster's own
	byKey := map[cache.ObjectName]plan.Objects{}
	add := func(key cache.ObjectName, kind plan.Kind, obj metav1.Object) {
		objects := byKey[key]
		objects.Set(kind, obj)
		byKey[key] = objects
	}
	for i := range endpoints.Items {
		add(cache.MetaObjectToName(&endpoints.Items[i]), plan.Endpoints, &endpoints.Items[i])
	}
	for i := range endpointSlices.Items {
		slice := &endpointSlices.Items[i]
		if of, ours := plan.RemoteSliceOf(slice); ours && of.Failover {
			beside = append(beside, owned{slice, plan.IPv4Slice})
			continue
		}
		key := plan.SliceKey(slice)
		for _, kind := range []plan.Kind{plan.IPv4Slice, plan.IPv6Slice} {
			if kind.ObjectName(key).Name == slice.Name {
				add(key, kind, slice)
			}
		}
	}
	services, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, metav1.ListOptions{})
	if err != nil {
		return all, fmt.Errorf("list Services: %w", err)
	}
	for i := range services.Items {
		svc := &services.Items[i]
		key := cache.MetaObjectToName(svc)
		_, has := byKey[key] // a foreign Service has what is under its name
		if owner, ours := plan.Owner(svc); has || ours && owner == cluster {
			add(key, plan.Service, svc)
		}
	}
	listed := slices.ContainsFunc(services.Items, func(svc corev1.Service) bool { return plan.Lists(&svc, cluster) })
	last, stay, err := p.pruneMerged(ctx, cluster, services.Items, byKey)
	return found{append(sorted(byKey, cluster, last), beside...), stay, listed}, err
}

// sorted are the objects of a remote that are ours, by kind and then by name. last are merged mirrors of no other one.
func sorted(byKey map[cache.ObjectName]plan.Objects, cluster string, last sets.Set[cache.ObjectName]) (all []owned) {
	keys := slices.SortedFunc(maps.Keys(byKey), func(a, b cache.ObjectName) int { return strings.Compare(a.String(), b.String()) })
	for kind := range plan.Kind(plan.Kinds) {
		for _, key := range keys {
			obj := byKey[key].Owned(key).Get(kind)
			if obj == nil {
				continue
			}
			if of, _ := plan.Labelled(obj); of == cluster || kind == plan.Service && last.Has(key) {
				all = append(all, owned{obj, kind})
			}
		}
	}
	return all
}

func remove(ctx context.Context, client remote.Client, one owned) error {
	return (&Writer{client: client}).verbs(one.kind, one.GetNamespace()).delete(ctx, one.GetName(), Exactly(one))
}
