package remote

import (
	"bytes"
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

// Unstructured is an object of a kind that k8s.io/api does not have, as an informer keeps it: in JSON.
type Unstructured struct{ unstructured.Unstructured }

// Marshal makes the JSON of an object, with no room for more: it is kept.
func (u *Unstructured) Marshal() ([]byte, error) {
	data, err := u.MarshalJSON()
	return bytes.Clone(data), err
}

// Unmarshal reads the JSON of an object.
func (u *Unstructured) Unmarshal(data []byte) error { return u.UnmarshalJSON(data) }

// Size is that of the JSON.
func (u *Unstructured) Size() int {
	data, err := u.MarshalJSON()
	must(err)
	return len(data)
}

// DeepCopyObject implements runtime.Object.
func (u *Unstructured) DeepCopyObject() runtime.Object {
	return &Unstructured{*u.Unstructured.DeepCopy()}
}

// UnstructuredList is a list of these.
type UnstructuredList struct {
	metav1.TypeMeta
	metav1.ListMeta
	Items []Unstructured
}

// DeepCopyObject implements runtime.Object.
func (l *UnstructuredList) DeepCopyObject() runtime.Object {
	list := &UnstructuredList{TypeMeta: l.TypeMeta, ListMeta: *l.ListMeta.DeepCopy()}
	for i := range l.Items {
		list.Items = append(list.Items, *l.Items[i].DeepCopyObject().(*Unstructured))
	}
	return list
}

// Dynamic lists and watches what a dynamic client has, for an informer.
type Dynamic struct{ Objects dynamic.ResourceInterface }

// List implements Lister.
func (d Dynamic) List(ctx context.Context, options metav1.ListOptions) (*UnstructuredList, error) {
	got, err := d.Objects.List(ctx, options)
	if err != nil {
		return nil, err
	}
	list := &UnstructuredList{TypeMeta: metav1.TypeMeta{APIVersion: got.GetAPIVersion(), Kind: got.GetKind()}, ListMeta: metav1.ListMeta{
		ResourceVersion: got.GetResourceVersion(), Continue: got.GetContinue(), RemainingItemCount: got.GetRemainingItemCount()}}
	for _, item := range got.Items {
		list.Items = append(list.Items, Unstructured{item})
	}
	return list, nil
}

// Watch implements Lister.
func (d Dynamic) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	events, err := d.Objects.Watch(ctx, options)
	if err != nil {
		return nil, err
	}
	return watch.Filter(events, func(event watch.Event) (watch.Event, bool) {
		if obj, ok := event.Object.(*unstructured.Unstructured); ok {
			event.Object = &Unstructured{*obj}
		}
		return event, true
	}), nil
}

// TrimUnstructured leaves out who manages which field, which is the largest part of many objects.
func TrimUnstructured(obj *Unstructured) *Unstructured {
	obj.SetManagedFields(nil)
	return obj
}
