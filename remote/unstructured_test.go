package remote

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
)

var httpRoutes = schema.GroupVersionResource{Group: "gateway.networking.k8s.io", Version: "v1", Resource: "httproutes"}

const oneRoute = `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRoute","metadata":{"namespace":"default","name":"a","uid":"uid","resourceVersion":"5"},"spec":{"hostnames":["a"]}}`

// What a server answers for a kind that k8s.io/api does not have is checked as for any other.
func TestUnstructuredAnswers(t *testing.T) {
	list := func(ctx context.Context, c clients) error {
		_, err := Dynamic{c.dynamic.Resource(httpRoutes)}.List(ctx, metav1.ListOptions{})
		return err
	}
	get := func(ctx context.Context, c clients) error {
		_, err := c.dynamic.Resource(httpRoutes).Namespace("default").Get(ctx, "a", metav1.GetOptions{})
		return err
	}
	apply := func(ctx context.Context, c clients) error {
		obj := &unstructured.Unstructured{}
		if err := obj.UnmarshalJSON([]byte(oneRoute)); err != nil {
			return err
		}
		_, err := c.dynamic.Resource(httpRoutes).Namespace("default").Apply(ctx, "a", obj, metav1.ApplyOptions{FieldManager: "test"})
		return err
	}
	unlisted := func(ctx context.Context, c clients) error {
		_, err := c.dynamic.Resource(httpRoutes.GroupResource().WithVersion("v1").GroupVersion().WithResource("grpcroutes")).List(ctx, metav1.ListOptions{})
		return err
	}
	routes := `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRouteList","metadata":{"resourceVersion":"5"},"items":[` + oneRoute + `]}`
	for name, test := range map[string]struct {
		request func(context.Context, clients) error
		answer  string
		wrong   bool
	}{
		"a list":                   {list, routes, false},
		"a list of v1beta1":        {list, strings.ReplaceAll(routes, "k8s.io/v1", "k8s.io/v1beta1"), true},
		"a list of another kind":   {list, strings.ReplaceAll(routes, "HTTPRoute", "TCPRoute"), true},
		"nothing":                  {list, "{}", true},
		"no items":                 {list, `{"apiVersion":"gateway.networking.k8s.io/v1","kind":"HTTPRouteList","metadata":{"resourceVersion":"5"}}`, true},
		"an object":                {get, oneRoute, false},
		"another object":           {get, strings.ReplaceAll(oneRoute, `"a"`, `"b"`), true},
		"no UID":                   {get, strings.ReplaceAll(oneRoute, `"uid":"uid",`, ""), true},
		"an applied one":           {apply, oneRoute, false},
		"an applied other one":     {apply, strings.ReplaceAll(oneRoute, `"default"`, `"other"`), true},
		"a kind that is not known": {unlisted, strings.ReplaceAll(routes, "HTTPRoute", "GRPCRoute"), true},
	} {
		t.Run(name, func(t *testing.T) {
			if err := answered(t, http.StatusOK, "application/json", test.answer, test.request); (err != nil) != test.wrong {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A cache gives back what it was given, and copies share nothing.
func TestUnstructuredIsKept(t *testing.T) {
	obj := &Unstructured{}
	if err := obj.Unmarshal([]byte(oneRoute)); err != nil {
		t.Fatal(err)
	}
	data, err := obj.Marshal()
	if err != nil || obj.Size() != len(data) {
		t.Fatalf("%d bytes, not %d, %v", obj.Size(), len(data), err)
	}
	again := &Unstructured{}
	if err := again.Unmarshal(data); err != nil || !reflect.DeepEqual(again, obj) {
		t.Errorf("%v became %v, %v", obj, again, err)
	}
	list := &UnstructuredList{Items: []Unstructured{*obj}}
	for _, copied := range []*Unstructured{obj.DeepCopyObject().(*Unstructured), &list.DeepCopyObject().(*UnstructuredList).Items[0]} {
		if copied.SetName("b"); obj.GetName() != "a" {
			t.Error("a copy shares its metadata")
		}
	}
	empty := (&Unstructured{}).DeepCopyObject().(*Unstructured)
	if empty.SetResourceVersion("7"); empty.GetResourceVersion() != "7" {
		t.Error("an empty one cannot be changed")
	}
}

// eventful has events of its own.
type eventful struct {
	dynamic.ResourceInterface
	events *watch.FakeWatcher
}

func (w eventful) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return w.events, nil
}

// Events have the type that an informer keeps, bookmarks too; an error stays as it is.
func TestUnstructuredEvents(t *testing.T) {
	fake := watch.NewFakeWithChanSize(3, false)
	obj := &unstructured.Unstructured{}
	if err := obj.UnmarshalJSON([]byte(oneRoute)); err != nil {
		t.Fatal(err)
	}
	fake.Add(obj)
	fake.Action(watch.Bookmark, obj)
	fake.Error(&metav1.Status{Code: http.StatusGone})
	events, err := Dynamic{eventful{nil, fake}}.Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	for _, want := range []any{&Unstructured{}, &Unstructured{}, &metav1.Status{}} {
		if event := <-events.ResultChan(); reflect.TypeOf(event.Object) != reflect.TypeOf(want) {
			t.Errorf("%s has a %T, want a %T", event.Type, event.Object, want)
		}
	}
}
