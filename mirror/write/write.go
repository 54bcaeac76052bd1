// Package write is the only part of the program that writes to the local cluster. It takes the steps of a
// plan and says what became of them; what must be remembered of that is not its business.
//
// apply.go takes the steps, errors.go turns the API server's answers into problems, clusterips.go gives
// mirrors the ClusterIPs back that they had, slices.go looks for what Kubernetes makes of Endpoints,
// foreign.go for foreign Endpoints, delete.go deletes
// what is listed before, and prune.go a remote's mirrors.
package write

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/local"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Writer applies plans.
type Writer struct {
	client  remote.Client
	foreign *foreignEndpoints
	local   *local.Cluster
	wrote   func(kind, verb string) // counts writes that changed something
}

// New makes a Writer. The client may refuse writes while another replica leads; meta only reads.
func New(client remote.Client, meta metadata.Interface, cluster *local.Cluster, wrote func(kind, verb string)) *Writer {
	return &Writer{client: client, foreign: newForeignEndpoints(meta), local: cluster, wrote: wrote}
}

// verbs write objects of one kind in one namespace.
type verbs struct {
	create, update func(ctx context.Context, obj metav1.Object) (metav1.Object, error)
	delete         func(ctx context.Context, name string, options metav1.DeleteOptions) error
}

// typed is the part of a typed client that writes.
type typed[T metav1.Object] interface {
	Create(ctx context.Context, obj T, options metav1.CreateOptions) (T, error)
	Update(ctx context.Context, obj T, options metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, options metav1.DeleteOptions) error
}

func verbsOf[T metav1.Object](client typed[T]) verbs {
	return verbs{
		create: func(ctx context.Context, obj metav1.Object) (metav1.Object, error) {
			return client.Create(ctx, obj.(T), metav1.CreateOptions{})
		},
		update: func(ctx context.Context, obj metav1.Object) (metav1.Object, error) {
			return client.Update(ctx, obj.(T), metav1.UpdateOptions{})
		},
		delete: client.Delete,
	}
}

func (w *Writer) verbs(kind plan.Kind, namespace string) verbs {
	switch kind {
	case plan.Service:
		return verbsOf(w.client.CoreV1().Services(namespace))
	case plan.Endpoints:
		return verbsOf(w.client.CoreV1().Endpoints(namespace))
	}
	return verbsOf(w.client.DiscoveryV1().EndpointSlices(namespace))
}

// create creates an object and notes it as it is then.
func (w *Writer) create(ctx context.Context, kind plan.Kind, obj metav1.Object) (metav1.Object, error) {
	got, err := w.verbs(kind, obj.GetNamespace()).create(ctx, obj)
	if err != nil {
		return nil, fmt.Errorf("create %v: %w", kind, err)
	}
	w.wrote(kind.String(), "create")
	return w.local.Wrote(got), nil
}

// update updates an object and notes it as it is then.
func (w *Writer) update(ctx context.Context, kind plan.Kind, obj metav1.Object) (metav1.Object, error) {
	got, err := w.verbs(kind, obj.GetNamespace()).update(ctx, obj)
	if err != nil {
		return nil, fmt.Errorf("update %v: %w", kind, err)
	}
	w.wrote(kind.String(), "update")
	return w.local.Wrote(got), nil
}

// delete deletes an object of ours as it was seen, and not as it may be by now: the endpoints controller
// takes Endpoints over in place. That it is gone already is no error.
func (w *Writer) delete(ctx context.Context, kind plan.Kind, obj metav1.Object) (deleted bool, err error) {
	err = w.verbs(kind, obj.GetNamespace()).delete(ctx, obj.GetName(), Exactly(obj))
	if err != nil && !apierrors.IsNotFound(err) {
		return false, fmt.Errorf("delete %v: %w", kind, err)
	}
	w.local.Deleted(obj)
	if err == nil {
		w.wrote(kind.String(), "delete")
	}
	return err == nil, nil
}

// createNamespace creates the namespace of a mirror; it may exist by now.
func (w *Writer) createNamespace(ctx context.Context, name string) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{plan.ManagedByLabel: plan.ManagedBy}}}
	_, err := w.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	switch {
	case apierrors.IsAlreadyExists(err):
		return nil
	case err != nil:
		return fmt.Errorf("create namespace %s: %w", name, err)
	}
	w.wrote("Namespace", "create")
	klog.FromContext(ctx).Info("Created namespace", "namespace", name)
	return nil
}
