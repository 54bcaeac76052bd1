package remote

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
)

// clients are those that this program has of a cluster.
type clients struct {
	Client
	metadata metadata.Interface
	dynamic  dynamic.Interface
}

// reads are the requests that this program makes, on either side, and the object that is the right answer to each.
var reads = map[string]struct {
	request func(context.Context, clients) error
	right   runtime.Object
}{
	"list Services": {lists(func(c clients) Lister[*corev1.ServiceList] { return c.CoreV1().Services("") }), &corev1.ServiceList{Items: []corev1.Service{*service("default", "a")}}},
	"list Services of a namespace": {lists(func(c clients) Lister[*corev1.ServiceList] { return c.CoreV1().Services("default") }),
		&corev1.ServiceList{Items: []corev1.Service{*service("default", "a")}}},
	"list ConfigMaps":     {lists(func(c clients) Lister[*corev1.ConfigMapList] { return c.CoreV1().ConfigMaps("default") }), &corev1.ConfigMapList{Items: []corev1.ConfigMap{{ObjectMeta: named("a")}}}},
	"list Endpoints":      {lists(func(c clients) Lister[*corev1.EndpointsList] { return c.CoreV1().Endpoints("") }), &corev1.EndpointsList{Items: []corev1.Endpoints{{ObjectMeta: named("a")}}}},
	"list EndpointSlices": {lists(func(c clients) Lister[*discoveryv1.EndpointSliceList] { return c.DiscoveryV1().EndpointSlices("") }), &discoveryv1.EndpointSliceList{Items: []discoveryv1.EndpointSlice{{ObjectMeta: named("a")}}}},
	"list Nodes":          {lists(func(c clients) Lister[*corev1.NodeList] { return c.CoreV1().Nodes() }), &corev1.NodeList{Items: []corev1.Node{{ObjectMeta: global("a")}}}},
	"list ServiceCIDRs":   {lists(func(c clients) Lister[*networkingv1.ServiceCIDRList] { return c.NetworkingV1().ServiceCIDRs() }), &networkingv1.ServiceCIDRList{Items: []networkingv1.ServiceCIDR{{ObjectMeta: global("a")}}}},
	"list metadata of Namespaces": {lists(func(c clients) Lister[*metav1.PartialObjectMetadataList] {
		return c.metadata.Resource(corev1.SchemeGroupVersion.WithResource("namespaces"))
	}), metadataOf(global("a"))},
	"list metadata of EndpointSlices": {lists(func(c clients) Lister[*metav1.PartialObjectMetadataList] {
		return c.metadata.Resource(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"))
	}), metadataOf(named("a"))},
	"list Namespaces once": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Namespaces().List(ctx, metav1.ListOptions{})
		return err
	}, &corev1.NamespaceList{Items: []corev1.Namespace{{ObjectMeta: global("a")}}}},
	"get a Namespace": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Namespaces().Get(ctx, "a", metav1.GetOptions{})
		return err
	}, &corev1.Namespace{ObjectMeta: global("a")}},
	"get an IPAddress": {func(ctx context.Context, c clients) error {
		_, err := c.NetworkingV1().IPAddresses().Get(ctx, "a", metav1.GetOptions{})
		return err
	}, &networkingv1.IPAddress{ObjectMeta: global("a")}},
	"get a Lease": {func(ctx context.Context, c clients) error {
		_, err := c.CoordinationV1().Leases("default").Get(ctx, "a", metav1.GetOptions{})
		return err
	}, &coordinationv1.Lease{ObjectMeta: named("a")}},
	"update a Lease": {func(ctx context.Context, c clients) error {
		_, err := c.CoordinationV1().Leases("default").Update(ctx, &coordinationv1.Lease{ObjectMeta: named("a")}, metav1.UpdateOptions{})
		return err
	}, &coordinationv1.Lease{ObjectMeta: named("a")}},
	"create a Service": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Services("default").Create(ctx, service("default", "a"), metav1.CreateOptions{})
		return err
	}, service("default", "a")},
	"update Endpoints": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Endpoints("default").Update(ctx, &corev1.Endpoints{ObjectMeta: named("a")}, metav1.UpdateOptions{})
		return err
	}, &corev1.Endpoints{ObjectMeta: named("a")}},
	"create an EndpointSlice": {func(ctx context.Context, c clients) error {
		_, err := c.DiscoveryV1().EndpointSlices("default").Create(ctx, &discoveryv1.EndpointSlice{ObjectMeta: named("a")}, metav1.CreateOptions{})
		return err
	}, &discoveryv1.EndpointSlice{ObjectMeta: named("a")}},
	"create a Namespace": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: global("a")}, metav1.CreateOptions{})
		return err
	}, &corev1.Namespace{ObjectMeta: global("a")}},
	"create an Event": {func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Events("default").Create(ctx, &corev1.Event{ObjectMeta: named("a")}, metav1.CreateOptions{})
		return err
	}, &corev1.Event{ObjectMeta: named("a")}},
	"create a review": {func(ctx context.Context, c clients) error {
		_, err := c.AuthorizationV1().SelfSubjectAccessReviews().Create(ctx, &authorizationv1.SelfSubjectAccessReview{}, metav1.CreateOptions{})
		return err
	}, &authorizationv1.SelfSubjectAccessReview{Status: authorizationv1.SubjectAccessReviewStatus{Allowed: true}}},
	"delete a Service": {func(ctx context.Context, c clients) error {
		return c.CoreV1().Services("default").Delete(ctx, "a", metav1.DeleteOptions{})
	}, service("default", "a")},
}

func named(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: "default", Name: name, UID: "uid", ResourceVersion: "5"}
}

func global(name string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, UID: "uid", ResourceVersion: "5"}
}

func metadataOf(meta metav1.ObjectMeta) *metav1.PartialObjectMetadataList {
	return &metav1.PartialObjectMetadataList{Items: []metav1.PartialObjectMetadata{{ObjectMeta: meta}}}
}

// lists lists as an informer does.
func lists[L runtime.Object](of func(clients) Lister[L]) func(context.Context, clients) error {
	return func(ctx context.Context, c clients) error {
		lw := NewListWatch(of(c), func(*metav1.ListOptions) {})
		_, _, err := lw.list(ctx, reader{list: lw.ListFunc}, metav1.ListOptions{})
		return err
	}
}

// inJSON is an object as an API server sends it, with changes to its fields; nil removes one.
func inJSON(t *testing.T, obj runtime.Object, changes map[string]any) string {
	t.Helper()
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	kind := metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	if err == nil {
		kind = kinds[0]
	}
	fields, err := runtime.DefaultUnstructuredConverter.ToUnstructured(obj)
	if err != nil {
		t.Fatal(err)
	}
	fields["kind"], fields["apiVersion"] = kind.Kind, kind.GroupVersion().String()
	if strings.HasSuffix(kind.Kind, "List") {
		fields["metadata"] = map[string]any{"resourceVersion": "5"}
	}
	for field, value := range changes {
		fields[field] = value
		if value == nil {
			delete(fields, field)
		}
	}
	text, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whatever is read or written, only an answer of the kind that was requested counts.
func TestEachKindIsChecked(t *testing.T) {
	for name, read := range reads {
		list := strings.HasPrefix(name, "list")
		item := map[string]any{"kind": "Pod", "apiVersion": "v1", "metadata": named("a")}
		wrong := map[string]string{
			"empty object":        `{}`,
			"null":                `null`,
			"HTML":                `<html>Please log in</html>`,
			"nothing":             ``,
			"another kind":        `{"kind":"Pod","apiVersion":"v1","metadata":{"namespace":"default","name":"a","uid":"uid","resourceVersion":"5"}}`,
			"a list of another":   `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`,
			"no kind":             inJSON(t, read.right, map[string]any{"kind": nil}),
			"another version":     inJSON(t, read.right, map[string]any{"apiVersion": "v0"}),
			"a failure with 200":  `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`,
			"a truncated answer":  strings.TrimSuffix(inJSON(t, read.right, nil), "}"),
			"a success, it seems": `{"kind":"Status","apiVersion":"v1","status":"Success"}`,
		}
		switch {
		case list:
			wrong["null in place of items"] = inJSON(t, read.right, map[string]any{"items": json.RawMessage("null")})
			wrong["no items"] = inJSON(t, read.right, map[string]any{"items": nil})
			wrong["a null item"] = inJSON(t, read.right, map[string]any{"items": []any{json.RawMessage("null")}})
			wrong["an item of another kind"] = inJSON(t, read.right, map[string]any{"items": []any{item}})
		case name == "delete a Service":
			success := wrong["a success, it seems"]
			delete(wrong, "a success, it seems")
			delete(wrong, "a failure with 200") // is one
			if err := answered(t, http.StatusOK, "application/json", success, read.request); err != nil {
				t.Errorf("a success is refused: %v", err)
			}
			if err := answered(t, http.StatusOK, runtime.ContentTypeProtobuf, string(encode(&metav1.Status{Status: metav1.StatusSuccess})), read.request); err != nil {
				t.Errorf("a success in protobuf is refused: %v", err)
			}
		}
		if !list && name != "create a review" {
			wrong["no metadata"] = inJSON(t, read.right, map[string]any{"metadata": nil})
			if !strings.HasPrefix(name, "create") { // the request does not name it
				wrong["another object"], wrong["one of another namespace"] = inJSON(t, read.right, map[string]any{"metadata": map[string]any{"name": "b", "uid": "uid", "resourceVersion": "5"}}),
					inJSON(t, read.right, map[string]any{"metadata": map[string]any{"namespace": "other", "name": "a", "uid": "uid", "resourceVersion": "5"}})
			}
			wrong["no UID"] = inJSON(t, read.right, map[string]any{"metadata": map[string]any{"name": "a", "resourceVersion": "5"}})
		}
		t.Run(name, func(t *testing.T) {
			for _, status := range []int{http.StatusOK, http.StatusCreated, http.StatusAccepted, http.StatusNonAuthoritativeInfo} {
				for what, body := range wrong {
					for _, mediaType := range []string{"application/json", "text/html"} {
						if err := answered(t, status, mediaType, body, read.request); err == nil {
							t.Errorf("%s as %s with %d is taken for the answer: %s", what, mediaType, status, body)
						} else if apierrors.IsForbidden(err) {
							t.Errorf("%s is taken for a refusal: %v", what, err)
						}
					}
				}
			}
			if err := answered(t, http.StatusOK, "application/json", inJSON(t, read.right, nil), read.request); err != nil {
				t.Errorf("the right answer is refused: %v", err)
			}
			if _, partial := read.right.(*metav1.PartialObjectMetadataList); partial {
				return
			}
			if list {
				read.right.(metav1.ListInterface).SetResourceVersion("5")
			}
			if err := answered(t, http.StatusOK, runtime.ContentTypeProtobuf, string(encodeAny(t, read.right)), read.request); err != nil {
				t.Errorf("the right answer in protobuf is refused: %v", err)
			}
			if err := answered(t, http.StatusOK, runtime.ContentTypeProtobuf, string(encode(&corev1.Pod{ObjectMeta: named("a")})), read.request); err == nil {
				t.Error("another kind in protobuf is taken for the answer")
			}
			if !list && name != "create a review" {
				bare := read.right.DeepCopyObject()
				bare.(metav1.Object).SetUID("")
				if err := answered(t, http.StatusOK, runtime.ContentTypeProtobuf, string(encodeAny(t, bare)), read.request); err == nil {
					t.Error("an object without a UID in protobuf is taken for the answer")
				}
			}
		})
	}
}

func encodeAny(t *testing.T, obj runtime.Object) []byte {
	t.Helper()
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	if err != nil {
		t.Fatal(err)
	}
	out, err := runtime.Encode(scheme.Codecs.EncoderForVersion(protobuf.Serializer, kinds[0].GroupVersion()), obj)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// answered makes a request that gets an answer, from an API server behind a path, too.
func answered(t *testing.T, status int, mediaType, body string, request func(context.Context, clients) error) error {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", mediaType)
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	defer server.Close()
	var network Network
	defer network.close()
	var errs []error
	for _, path := range []string{"", "/k8s/clusters/api"} {
		cfg := ClientOptions{}.Tune(&rest.Config{Host: server.URL + path}, "paris", &network)
		client, err := NewClient(cfg)
		must(err)
		meta, err := metadata.NewForConfig(cfg)
		must(err)
		dynamically, err := dynamic.NewForConfig(cfg)
		must(err)
		errs = append(errs, request(t.Context(), clients{client, meta, dynamically}))
	}
	if (errs[0] == nil) != (errs[1] == nil) {
		t.Errorf("behind a path it is %v, else %v", errs[1], errs[0])
	}
	return errors.Join(errs...)
}

// A kind that is not listed cannot be read without a check.
func TestUnknownKindsAreNotRead(t *testing.T) {
	err := answered(t, http.StatusOK, "application/json", `{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},"items":[]}`, func(ctx context.Context, c clients) error {
		_, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "pods") {
		t.Errorf("got %v", err)
	}
}
