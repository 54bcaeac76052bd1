package deploy

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/retry"
)

// daemonClient has the daemon's own credentials in london, and nothing of its manners.
func (e *env) daemonClient() dynamic.Interface {
	e.Helper()
	token, err := london.CoreV1().ServiceAccounts(ours).CreateToken(e.ctx, ours, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	e.must(err)
	config := rest.AnonymousClientConfig(london.Config)
	config.BearerToken = token.Status.Token
	return e.dynamic(config)
}

func (e *env) dynamic(config *rest.Config) dynamic.Interface {
	e.Helper()
	config = rest.CopyConfig(config)
	config.WarningHandler, config.QPS = rest.NoWarnings{}, -1
	client, err := dynamic.NewForConfig(config)
	e.must(err)
	return client
}

// What carries which labels.
var (
	foreign = map[string]string{"app": "shop"}
	half    = map[string]string{"app.kubernetes.io/managed-by": ours}
	mirrors = map[string]string{"app.kubernetes.io/managed-by": ours, "service-mirror.io/cluster": "paris"}
)

func managedBy(manager string, labels map[string]string) map[string]string {
	all := map[string]string{discoveryv1.LabelManagedBy: manager}
	maps.Copy(all, labels)
	return all
}

// writer writes objects of one kind into the namespace shop.
type writer struct {
	ctx     context.Context
	to      dynamic.NamespaceableResourceInterface
	content map[string]any // of a new object
}

// writer is what writes objects of a kind with a client.
func (e *env) writer(client dynamic.Interface, kind string) writer {
	switch kind {
	case "Service":
		return writer{e.ctx, client.Resource(corev1.SchemeGroupVersion.WithResource("services")), map[string]any{
			"apiVersion": "v1", "kind": kind, "spec": map[string]any{"ports": []any{map[string]any{"port": int64(80)}}},
		}}
	case "Endpoints":
		return writer{e.ctx, client.Resource(corev1.SchemeGroupVersion.WithResource("endpoints")), map[string]any{"apiVersion": "v1", "kind": kind}}
	default:
		return writer{e.ctx, client.Resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices")), map[string]any{
			"apiVersion": "discovery.k8s.io/v1", "kind": kind, "addressType": "IPv4", "endpoints": []any{},
		}}
	}
}

func (w writer) create(name string, labels map[string]string) error {
	obj := &unstructured.Unstructured{Object: runtime.DeepCopyJSON(w.content)}
	obj.SetName(name)
	obj.SetLabels(labels)
	_, err := w.to.Namespace("shop").Create(w.ctx, obj, metav1.CreateOptions{})
	return err
}

// update changes an object, which from is asked for, until it meets no other change.
func (w writer) update(from writer, name string, labels map[string]string) error {
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		obj, err := from.to.Namespace("shop").Get(w.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		obj.SetLabels(labels)
		obj.SetAnnotations(map[string]string{"changed": "yes"})
		_, err = w.to.Namespace("shop").Update(w.ctx, obj, metav1.UpdateOptions{})
		return err
	})
}

func (w writer) delete(name string) error {
	return w.to.Namespace("shop").Delete(w.ctx, name, metav1.DeleteOptions{})
}

// With the daemon's token only what is a mirror's can be written. The same writes go through
// once the policy is not bound, so it is the policy that denies them.
func TestPolicy(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london)
	e.apply(london, e.localWith("endpointslices"))
	daemon, admin := e.daemonClient(), e.dynamic(london.Config)
	tries := 0
	e.soon("the policy counts", func() error {
		tries++
		return isDenied(e.writer(daemon, "Service").create(fmt.Sprintf("early%d", tries), foreign))
	})

	for i, c := range []struct {
		kind, verb    string
		before, after map[string]string
		denied        bool
	}{
		{"Service", "create", nil, foreign, true},
		{"Service", "create", nil, nil, true},
		{"Service", "create", nil, half, true},
		{"Service", "create", nil, mirrors, false},
		{"Service", "update", foreign, foreign, true},
		{"Service", "update", foreign, mirrors, true},
		{"Service", "update", mirrors, foreign, true},
		{"Service", "update", mirrors, half, true},
		{"Service", "update", mirrors, mirrors, false},
		{"Service", "delete", foreign, nil, true},
		{"Service", "delete", nil, nil, true},
		{"Service", "delete", half, nil, true},
		{"Service", "delete", mirrors, nil, false},
		{"Endpoints", "create", nil, foreign, true},
		{"Endpoints", "create", nil, mirrors, false},
		{"Endpoints", "update", foreign, mirrors, true},
		{"Endpoints", "update", mirrors, foreign, true},
		{"Endpoints", "update", mirrors, mirrors, false},
		{"Endpoints", "delete", foreign, nil, true},
		{"Endpoints", "delete", mirrors, nil, false},
		{"EndpointSlice", "create", nil, foreign, true},
		{"EndpointSlice", "create", nil, mirrors, true},
		{"EndpointSlice", "create", nil, managedBy(byDaemon, foreign), true},
		{"EndpointSlice", "create", nil, managedBy(byDaemon, mirrors), false},
		{"EndpointSlice", "create", nil, managedBy(bySelector, mirrors), true},
		{"EndpointSlice", "update", managedBy(byDaemon, mirrors), managedBy(byDaemon, mirrors), false},
		{"EndpointSlice", "update", managedBy(bySelector, mirrors), managedBy(byDaemon, mirrors), true},
		{"EndpointSlice", "update", managedBy(byDaemon, mirrors), managedBy(bySelector, mirrors), true},
		{"EndpointSlice", "update", managedBy(byKubernetes, mirrors), managedBy(byDaemon, mirrors), true},
		{"EndpointSlice", "update", foreign, managedBy(byDaemon, mirrors), true},
		{"EndpointSlice", "delete", foreign, nil, true},
		{"EndpointSlice", "delete", mirrors, nil, true},
		{"EndpointSlice", "delete", managedBy(byDaemon, mirrors), nil, false},
		{"EndpointSlice", "delete", managedBy(bySelector, mirrors), nil, false}, // a leftover
		{"EndpointSlice", "delete", managedBy(bySelector, foreign), nil, true},
		{"EndpointSlice", "delete", managedBy(byKubernetes, mirrors), nil, true},
	} {
		name := fmt.Sprintf("n%d", i)
		by, prepared := e.writer(daemon, c.kind), e.writer(admin, c.kind)
		if c.verb != "create" {
			e.must(prepared.create(name, c.before))
		}
		var err error
		switch c.verb {
		case "create":
			err = by.create(name, c.after)
		case "update":
			err = by.update(prepared, name, c.after)
		default:
			err = by.delete(name)
		}
		if c.denied {
			err = isDenied(err)
		}
		if err != nil {
			t.Errorf("%s %s %v to %v: want denied: %v, got %v", c.verb, c.kind, c.before, c.after, c.denied, err)
		}
	}

	// Others write what they like.
	e.must(e.writer(admin, "Service").create("foreign", foreign))
	e.must(london.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Delete(e.ctx, "service-mirror-only-its-own", metav1.DeleteOptions{}))
	e.soon("a foreign Service is deleted when nothing forbids it", func() error { return e.writer(daemon, "Service").delete("foreign") })
}

// bySelector manages the EndpointSlices of Services with a selector.
const bySelector = "endpointslice-controller.k8s.io"

// isDenied tells a denial of the policy, and nothing else, by nil.
func isDenied(err error) error {
	if err == nil {
		return fmt.Errorf("it was let through")
	}
	if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "service-mirror-only-its-own") {
		return fmt.Errorf("another refusal: %w", err)
	}
	return nil
}
