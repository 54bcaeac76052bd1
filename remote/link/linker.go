package link

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/remote/failure"
)

// Cluster is one side of a link, with the credentials of who links.
type Cluster struct {
	Name     string // its context
	Flags    string // of kubectl, for commands that are printed
	Config   *rest.Config
	Endpoint Endpoint // its API server by the kubeconfig
	client   dynamic.Interface
}

// requestTime is how long an API server has for an answer.
const requestTime = 15 * time.Second

// connect makes the client.
func (c *Cluster) connect() error {
	config := rest.CopyConfig(c.Config)
	config.Timeout, config.QPS = requestTime, -1 // a link has few requests
	config.WarningHandlerWithContext = rest.NoWarnings{}
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("%s: %w", c.Name, err)
	}
	c.client = client
	return nil
}

// Linker links and unlinks.
type Linker struct {
	Local, Remote *Cluster
	Namespace     string // of the daemon
	Deployment    string
	Out           io.Writer // has each step
	JSON          bool      // results of requests are wanted as data
	result        Result
}

// NewLinker connects to the clusters; one may be nil where it is not needed.
func NewLinker(l Linker) (*Linker, error) {
	for _, c := range []*Cluster{l.Local, l.Remote} {
		if c == nil {
			continue
		}
		if err := c.connect(); err != nil {
			return nil, err
		}
	}
	return &l, nil
}

// step says what is done in a cluster.
func (l *Linker) step(c *Cluster, format string, args ...any) {
	fmt.Fprintf(l.Out, "%s: %s\n", c.Name, failure.Printable(fmt.Sprintf(format, args...)))
}

// line says what came of the step.
func (l *Linker) line(text string) { fmt.Fprintf(l.Out, "    %s\n", failure.Printable(text)) }

// note says something else that is worth knowing.
func (l *Linker) note(c *Cluster, format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	l.line(text)
	l.result.Notes = append(l.result.Notes, c.Name+": "+text)
}

// remark is a note that belongs to no step.
func (l *Linker) remark(c *Cluster, text string) {
	l.step(c, "%s", text)
	l.result.Notes = append(l.result.Notes, c.Name+": "+text)
}

// changed says what became of an object.
func (l *Linker) changed(c *Cluster, object *unstructured.Unstructured, what string) {
	l.line(title(object) + " " + what)
	if what != unchanged {
		l.result.Changes = append(l.result.Changes, Change{c.Name, object.GetKind(), object.GetNamespace(), object.GetName(), what})
	}
}

// What can become of an object, in kubectl's words.
const (
	created    = "created"
	configured = "configured"
	unchanged  = "unchanged"
	deleted    = "deleted"
)

// get reads an object; nil: it does not exist.
func (c *Cluster) get(ctx context.Context, resource schema.GroupVersionResource, namespace, name string) (*unstructured.Unstructured, error) {
	object, err := c.client.Resource(resource).Namespace(namespace).Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %s %s cannot be read: %w", c.Name, resource.Resource, strings.TrimPrefix(namespace+"/"+name, "/"), err)
	}
	return object, nil
}

// read reads an object into one of a type; false: it does not exist.
func (c *Cluster) read(ctx context.Context, resource schema.GroupVersionResource, namespace, name string, into any) (bool, error) {
	object, err := c.get(ctx, resource, namespace, name)
	if err != nil || object == nil {
		return false, err
	}
	return true, runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, into)
}

// list reads objects of all namespaces, or of one.
func (c *Cluster) list(ctx context.Context, resource schema.GroupVersionResource, namespace string, options metav1.ListOptions) ([]unstructured.Unstructured, error) {
	list, err := c.client.Resource(resource).Namespace(namespace).List(ctx, options)
	if err != nil {
		return nil, fmt.Errorf("%s: %s cannot be listed: %w", c.Name, resource.Resource, err)
	}
	return list.Items, nil
}

// apply has an object as it is to be, and leaves what others say of it. What is as it is to be is not written: who
// may only read it can link, too.
func (l *Linker) apply(ctx context.Context, c *Cluster, manager string, object runtime.Object) error {
	desired, err := content(object)
	if err != nil {
		return err
	}
	resource, namespace, name := resourceOf(desired.GroupVersionKind()), desired.GetNamespace(), desired.GetName()
	live, err := c.get(ctx, resource, namespace, name)
	if err != nil {
		return err
	}
	what := created
	if live != nil {
		what = configured
		keepSubjects(live, desired)
		if covers(live.Object, desired.Object) {
			l.changed(c, desired, unchanged)
			return nil
		}
	}
	_, err = c.client.Resource(resource).Namespace(namespace).Apply(ctx, name, desired, metav1.ApplyOptions{FieldManager: manager, Force: true})
	if err != nil {
		return fmt.Errorf("%s: %s cannot be written: %w", c.Name, title(desired), err)
	}
	l.changed(c, desired, what)
	return nil
}

// keepSubjects adds the live subjects of a binding to the desired ones: accounts in several namespaces share the bindings,
// and the list is replaced as a whole. With the resourceVersion, no subject that is added meanwhile is lost.
func keepSubjects(live, desired *unstructured.Unstructured) {
	own, found, _ := unstructured.NestedSlice(desired.Object, "subjects")
	if !found {
		return
	}
	all, _, _ := unstructured.NestedSlice(live.Object, "subjects")
	for _, one := range own {
		if !slices.ContainsFunc(all, func(other any) bool { return covers(other, one) }) {
			all = append(all, one)
		}
	}
	desired.Object["subjects"] = all
	desired.SetResourceVersion(live.GetResourceVersion())
}

// patch changes an object by a merge patch, if that changes it.
func (l *Linker) patch(ctx context.Context, c *Cluster, resource schema.GroupVersionResource, namespace, name string, change map[string]any) error {
	live, err := c.get(ctx, resource, namespace, name)
	if err != nil {
		return err
	}
	if live == nil {
		return fmt.Errorf("%s: %s %s/%s does not exist: create it, and run the command again", c.Name, resource.Resource, namespace, name)
	}
	body, err := json.Marshal(change)
	if err != nil {
		return err
	}
	patched, err := c.client.Resource(resource).Namespace(namespace).Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{FieldManager: manager})
	if err != nil {
		return fmt.Errorf("%s: %s cannot be changed: %w", c.Name, title(live), err)
	}
	what := configured
	if patched.GetResourceVersion() == live.GetResourceVersion() {
		what = unchanged
	}
	l.changed(c, patched, what)
	return nil
}

// delete deletes an object, if it exists.
func (l *Linker) delete(ctx context.Context, c *Cluster, resource schema.GroupVersionResource, namespace, name string) error {
	live, err := c.get(ctx, resource, namespace, name)
	if err != nil || live == nil {
		return err
	}
	err = c.client.Resource(resource).Namespace(namespace).Delete(ctx, name, metav1.DeleteOptions{})
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("%s: %s cannot be deleted: %w", c.Name, title(live), err)
	}
	l.changed(c, live, deleted)
	return nil
}

// content is an object as it is sent: without what its type has and nobody has set.
func content(object runtime.Object) (*unstructured.Unstructured, error) {
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(object)
	if err != nil {
		return nil, err
	}
	delete(fields, "status")
	if object.GetObjectKind().GroupVersionKind().Kind == "Namespace" {
		delete(fields, "spec")
	}
	sent := &unstructured.Unstructured{Object: fields}
	unstructured.RemoveNestedField(fields, "metadata", "creationTimestamp")
	return sent, nil
}

// covers tells whether an object has all that is desired of it. Lists are compared as a whole.
func covers(live, desired any) bool {
	switch desired := desired.(type) {
	case map[string]any:
		live, ok := live.(map[string]any)
		for key, value := range desired {
			if !ok || !covers(live[key], value) {
				return false
			}
		}
		return ok
	case []any:
		live, ok := live.([]any)
		if !ok || len(live) != len(desired) {
			return false
		}
		for i := range desired {
			if !covers(live[i], desired[i]) {
				return false
			}
		}
		return true
	}
	return reflect.DeepEqual(live, desired)
}

// strategicPatch changes an object by its kind's own rules: containers are merged by name.
func (c *Cluster) strategicPatch(ctx context.Context, resource schema.GroupVersionResource, namespace, name string, change map[string]any) (*unstructured.Unstructured, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, err
	}
	return c.client.Resource(resource).Namespace(namespace).Patch(ctx, name, types.StrategicMergePatchType, body, metav1.PatchOptions{FieldManager: manager})
}
