package publish

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
)

// Pruning is what is pruned, and where.
type Pruning struct {
	Clients Clients
	Policy  plan.Policy
	Lease   cache.ObjectName // of the publishers' election; zero: none
	Cluster string           // the name of the cluster that the clients are for
	Dry     bool             // list it only
}

// Prune deletes all that was published, and nothing else, after it has listed it: the records first, so that no client
// is sent to where nothing is, then the routes and aliases, then the ListenerSets and the listeners of ours on the
// Gateway. Objects that have changed meanwhile stay, which is an error.
func (p Pruning) Prune(ctx context.Context, out io.Writer) error {
	if err := p.idle(ctx); err != nil {
		return err
	}
	var all []write.Deletion
	for _, list := range []func(context.Context) ([]write.Deletion, error){p.records, p.routes, p.sets, p.listeners} {
		some, err := list(ctx)
		if err != nil {
			return err
		}
		all = append(all, some...)
	}
	return write.DeleteAll(ctx, all, "in "+p.Cluster, p.Dry, out)
}

// idle refuses to delete what a publisher that runs would create again.
func (p Pruning) idle(ctx context.Context) error {
	if p.Dry || p.Lease == (cache.ObjectName{}) {
		return nil
	}
	lease, err := p.Clients.Read.CoordinationV1().Leases(p.Lease.Namespace).Get(ctx, p.Lease.Name, metav1.GetOptions{})
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return fmt.Errorf("read Lease %v to check whether a publisher runs: %w", p.Lease, err)
	}
	spec := lease.Spec
	if spec.HolderIdentity == nil || *spec.HolderIdentity == "" || spec.RenewTime == nil || spec.LeaseDurationSeconds == nil {
		return nil
	}
	if until := spec.RenewTime.Add(time.Duration(*spec.LeaseDurationSeconds) * time.Second); time.Now().Before(until) {
		return fmt.Errorf("publisher %.100s has Lease %v and would publish everything again: scale its Deployment to 0 first", *spec.HolderIdentity, p.Lease)
	}
	return nil
}

// deletion is that of an object as it was seen.
func deletion(kind string, obj metav1.Object, remove func(ctx context.Context, name string, options metav1.DeleteOptions) error) write.Deletion {
	return write.Deletion{Object: kind + " " + cache.MetaObjectToName(obj).String(), Delete: func(ctx context.Context) error {
		return remove(ctx, obj.GetName(), write.Exactly(obj))
	}}
}

// records are those of ours in the namespace of the records, released ones included.
func (p Pruning) records(ctx context.Context) (all []write.Deletion, err error) {
	list, err := p.Clients.Read.CoreV1().ConfigMaps(p.Policy.Records).List(ctx, metav1.ListOptions{LabelSelector: record.Label})
	if err != nil {
		return nil, fmt.Errorf("list ConfigMaps in namespace %s: %w", p.Policy.Records, err)
	}
	for i := range list.Items {
		if configMap := &list.Items[i]; plan.RecordOwned(configMap) {
			all = append(all, deletion("ConfigMap", configMap, p.Clients.Write.CoreV1().ConfigMaps(configMap.Namespace).Delete))
		}
	}
	return all, nil
}

// routes are those of ours, of every kind that is served, whichever of them the flags would have.
func (p Pruning) routes(ctx context.Context) (all []write.Deletion, err error) {
	for _, of := range plan.Kinds {
		resource, list, err := p.list(ctx, &kind{resource: of.Resource(), versions: of.Versions(), narrow: ofOurs})
		if err != nil {
			return nil, err
		}
		for i := range list {
			if route := &list[i]; plan.Owned(route) {
				all = append(all, deletion(string(of), route, func(ctx context.Context, name string, options metav1.DeleteOptions) error {
					return p.Clients.WriteDynamic.Resource(resource).Namespace(route.GetNamespace()).Delete(ctx, name, options)
				}))
			}
		}
	}
	return all, nil
}

// sets are the ListenerSets of ours.
func (p Pruning) sets(ctx context.Context) (all []write.Deletion, err error) {
	of := plan.ListenerSet
	resource, list, err := p.list(ctx, &kind{resource: of.Resource(), versions: of.Versions(), namespace: p.Policy.Records, narrow: func(*metav1.ListOptions) {}})
	for i := range list {
		if set := &list[i]; plan.OwnedSet(set, p.Policy.Records) {
			all = append(all, deletion(string(of), set, func(ctx context.Context, name string, options metav1.DeleteOptions) error {
				return p.Clients.WriteDynamic.Resource(resource).Namespace(set.GetNamespace()).Delete(ctx, name, options)
			}))
		}
	}
	return all, err
}

// list lists the objects of a kind in the version that is served; none where none is.
func (p Pruning) list(ctx context.Context, k *kind) (schema.GroupVersionResource, []unstructured.Unstructured, error) {
	version, err := k.discover(ctx, p.Clients)
	resource := k.resource.WithVersion(version)
	if err != nil || version == "" {
		return resource, nil, err
	}
	var options metav1.ListOptions
	k.narrow(&options)
	list, err := p.Clients.ReadDynamic.Resource(resource).Namespace(k.namespace).List(ctx, options)
	if err != nil {
		return resource, nil, fmt.Errorf("list %s: %w", k.resource, err)
	}
	slices.SortFunc(list.Items, func(a, b unstructured.Unstructured) int {
		return mirrors.CompareKeys(cache.MetaObjectToName(&a), cache.MetaObjectToName(&b))
	})
	return resource, list.Items, nil
}

// listeners are those of ours on the Gateway, which is changed only while it is labelled for it.
func (p Pruning) listeners(ctx context.Context) ([]write.Deletion, error) {
	if !p.Policy.To(plan.ToGatewayAPI) {
		return nil, nil
	}
	resource, list, err := p.list(ctx, gatewayKind(p.Policy))
	if err != nil || len(list) == 0 {
		return nil, err
	}
	gw := plan.ReadGateway(p.Policy.Gateway, &list[0], nil)
	var names []string
	for _, l := range gw.Listeners {
		if l.Own() && applied(&list[0], l.Name) {
			names = append(names, l.Name)
		}
	}
	if len(names) == 0 {
		return nil, nil
	}
	return []write.Deletion{{Object: fmt.Sprintf("listeners %s of Gateway %v", strings.Join(names, ", "), gw.Name), Delete: func(ctx context.Context) error {
		if !gw.Managed {
			return fmt.Errorf("the Gateway no longer has the label %s=%s: add it, or remove the listeners by hand", plan.ListenersLabel, plan.Managed)
		}
		_, err := applyListeners(ctx, p.Clients.WriteDynamic, resource, gw.Name, nil)
		return err
	}}}, nil
}

// applied tells whether this program has applied a listener: one that someone else added under such a name stays.
func applied(gw *unstructured.Unstructured, listener string) bool {
	key := fmt.Sprintf(`"k:{\"name\":\"%s\"}"`, listener)
	return slices.ContainsFunc(gw.GetManagedFields(), func(entry metav1.ManagedFieldsEntry) bool {
		return entry.Manager == fieldManager && entry.Operation == metav1.ManagedFieldsOperationApply && entry.FieldsV1 != nil && strings.Contains(string(entry.FieldsV1.Raw), key)
	})
}
