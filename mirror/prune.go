package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"service-mirror.io/service-mirror/remote"
)

// Prune removes all mirrors of one remote cluster, and nothing else, after it
// has listed them. With dry it only lists. Objects that have changed meanwhile
// are left, which is an error. local is the name of the cluster that client is of.
func Prune(ctx context.Context, client remote.Client, local, cluster string, dry bool, out io.Writer) error {
	all, err := ownedBy(ctx, client, cluster)
	if err != nil {
		return err
	}
	for _, one := range all {
		fmt.Fprintf(out, "%s %s/%s in %s of remote %s\n", one.kind, one.GetNamespace(), one.GetName(), local, cluster)
	}
	fmt.Fprintf(out, "%d objects in %s of remote %s\n", len(all), local, cluster)
	if dry {
		return nil
	}
	var failed []error
	for _, one := range all {
		switch err := one.remove(ctx, one.GetName(), exactly(one)); {
		case apierrors.IsNotFound(err): // Kubernetes deletes Endpoints with their Service
		case err != nil:
			failed = append(failed, fmt.Errorf("delete %s %s/%s: %w", one.kind, one.GetNamespace(), one.GetName(), err))
		}
	}
	fmt.Fprintf(out, "%d removed\n", len(all)-len(failed))
	if len(failed) > 10 {
		failed = append(failed[:10], fmt.Errorf("and %d more", len(failed)-10))
	}
	return errors.Join(failed...)
}

// owned is an object of ours and how it is removed.
type owned struct {
	metav1.Object
	kind   string
	remove func(ctx context.Context, name string, options metav1.DeleteOptions) error
}

// ownedBy lists what was made for a remote cluster: Services first, so that no
// client is led to where nothing is.
func ownedBy(ctx context.Context, client remote.Client, cluster string) ([]owned, error) {
	ours := labels.Set{ManagedByLabel: ManagedBy, ClusterLabel: cluster}
	options := metav1.ListOptions{LabelSelector: ours.String()}
	var all []owned
	services, err := client.CoreV1().Services(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list Services: %w", err)
	}
	for i := range services.Items {
		svc := &services.Items[i]
		all = append(all, owned{svc, "Service", client.CoreV1().Services(svc.Namespace).Delete})
	}
	endpoints, err := client.CoreV1().Endpoints(metav1.NamespaceAll).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("list Endpoints: %w", err)
	}
	for i := range endpoints.Items {
		one := &endpoints.Items[i]
		all = append(all, owned{one, "Endpoints", client.CoreV1().Endpoints(one.Namespace).Delete})
	}
	ours[discoveryv1.LabelManagedBy] = sliceManager // labels are copied onto the slices of controllers
	slices, err := client.DiscoveryV1().EndpointSlices(metav1.NamespaceAll).List(ctx, metav1.ListOptions{LabelSelector: ours.String()})
	if err != nil {
		return nil, fmt.Errorf("list EndpointSlices: %w", err)
	}
	for i := range slices.Items {
		slice := &slices.Items[i]
		all = append(all, owned{slice, "EndpointSlice", client.DiscoveryV1().EndpointSlices(slice.Namespace).Delete})
	}
	return all, nil
}
