package remote

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"mime"
	"net/http"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/client-go/kubernetes/scheme"
)

type kindKey struct{}

// expecting has a request that is made with the context fail unless the answer says
// that it is of this kind. client-go does not check: what is of no kind it takes for
// what was requested, and of another kind for empty.
func expecting(ctx context.Context, kind schema.GroupVersionKind) context.Context {
	return context.WithValue(ctx, kindKey{}, kind)
}

// kindOf is the kind of the objects of a type.
func kindOf[T runtime.Object]() schema.GroupVersionKind {
	obj := reflect.New(reflect.TypeFor[T]().Elem()).Interface().(runtime.Object)
	if _, ok := obj.(*metav1.PartialObjectMetadataList); ok { // the client's scheme does not have it
		return metav1.SchemeGroupVersion.WithKind("PartialObjectMetadataList")
	}
	kinds, _, err := scheme.Scheme.ObjectKinds(obj)
	must(err)
	return kinds[0]
}

// kindCheck is a transport that checks the kind of answers.
type kindCheck struct{ next http.RoundTripper }

func (t *kindCheck) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	want, expected := req.Context().Value(kindKey{}).(schema.GroupVersionKind)
	if err != nil || !expected || resp.StatusCode != http.StatusOK {
		return resp, err
	}
	if err := checkKind(resp, want); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// WrappedRoundTripper has client-go find the transport below.
func (t *kindCheck) WrappedRoundTripper() http.RoundTripper { return t.next }

func checkKind(resp *http.Response, want schema.GroupVersionKind) error {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var kind *schema.GroupVersionKind
	var err error
	switch mediaType {
	case runtime.ContentTypeProtobuf:
		buffered := bufio.NewReaderSize(resp.Body, 1<<10)
		resp.Body = readCloser{buffered, resp.Body}
		kind, err = protobufKind(buffered)
	case runtime.ContentTypeJSON:
		var body []byte
		if body, err = io.ReadAll(resp.Body); err != nil {
			return err
		}
		resp.Body = readCloser{bytes.NewReader(body), resp.Body}
		kind, err = json.DefaultMetaFactory.Interpret(body)
	default:
		return fmt.Errorf("malformed answer: it is %.100q, not a %s", mediaType, want.Kind)
	}
	switch {
	case IsTooLarge(err):
		return err
	case err != nil:
		return fmt.Errorf("malformed answer: it is not a %s: %.200v", want.Kind, err)
	case *kind != want:
		return fmt.Errorf("malformed answer: it is %.100s, not %s of %s", describeKind(*kind), want.Kind, want.GroupVersion())
	}
	return nil
}

func describeKind(kind schema.GroupVersionKind) string {
	if kind.Kind == "" {
		return "of no kind"
	}
	return kind.Kind + " of " + cmp.Or(kind.GroupVersion().String(), "no version")
}

type readCloser struct {
	io.Reader
	io.Closer
}

// protobufPrefix is how a Kubernetes object in protobuf begins; runtime.Unknown follows,
// whose first field is the type.
const protobufPrefix = "k8s\x00"

func protobufKind(reader *bufio.Reader) (*schema.GroupVersionKind, error) {
	start, err := reader.Peek(reader.Size()) // fewer bytes with an error where the body is shorter
	if err != nil && err != io.EOF {
		return nil, err
	}
	typeMeta, found := bytes.CutPrefix(start, []byte(protobufPrefix+"\x0a"))
	length, n := binary.Uvarint(typeMeta)
	if !found || n <= 0 || length > uint64(len(typeMeta)-n) {
		return nil, fmt.Errorf("it has no type")
	}
	var meta runtime.TypeMeta
	if err := meta.Unmarshal(typeMeta[n : n+int(length)]); err != nil {
		return nil, err
	}
	kind := schema.FromAPIVersionAndKind(meta.APIVersion, meta.Kind)
	return &kind, nil
}
