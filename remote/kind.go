package remote

import (
	"bufio"
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// kindCheck is a transport that has a request fail unless its answer says that it is what was
// requested. client-go does not check: what is of no kind it takes for what was requested, and
// of another kind for empty.
type kindCheck struct {
	next http.RoundTripper
	base string // the path at which the API server is
}

func (t *kindCheck) RoundTrip(req *http.Request) (*http.Response, error) {
	want, err := expected(req, t.base)
	if err != nil {
		return nil, err
	}
	resp, err := t.next.RoundTrip(req)
	// What client-go takes for a success.
	if err != nil || want == nil || resp.StatusCode < http.StatusOK || resp.StatusCode > http.StatusPartialContent {
		return resp, err
	}
	if err := want.check(resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

// WrappedRoundTripper has client-go find the transport below.
func (t *kindCheck) WrappedRoundTripper() http.RoundTripper { return t.next }

// check checks an answer, and leaves its body as it was.
func (e *expectation) check(resp *http.Response) error {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	var head *head
	var err error
	switch mediaType {
	case runtime.ContentTypeProtobuf:
		head, err = e.protobufHead(resp)
	case runtime.ContentTypeJSON:
		head, err = e.jsonHead(resp)
	default:
		return fmt.Errorf("malformed answer: it is %.100q, not a %s", mediaType, e.kind.Kind)
	}
	switch {
	case IsTooLarge(err):
		return err
	case err != nil:
		return fmt.Errorf("malformed answer: it is not a %s: %.200v", e.kind.Kind, err)
	case e.status && head.kind == (schema.GroupVersionKind{Version: "v1", Kind: "Status"}):
		return nil
	case head.kind != e.kind:
		return fmt.Errorf("malformed answer: it is %.100s, not %s of %s", describeKind(head.kind), e.kind.Kind, e.kind.GroupVersion())
	case e.list && !head.items:
		return fmt.Errorf("malformed answer: the %s has no items", e.kind.Kind)
	case e.stored && (head.name == "" || head.uid == ""):
		return fmt.Errorf("malformed answer: the %s has no name or no UID", e.kind.Kind)
	case e.stored && e.name != "" && head.name != e.name:
		return fmt.Errorf("malformed answer: it is %s %.320q, but %.320q was requested", e.kind.Kind, head.name, e.name)
	}
	return nil
}

// head is what an answer says of itself.
type head struct {
	kind      schema.GroupVersionKind
	name, uid string // NAMESPACE/NAME, or NAME
	items     bool   // it has a list of items
}

// objectInJSON is the part of an object that is checked.
type objectInJSON struct {
	metav1.TypeMeta
	Metadata struct{ Namespace, Name, UID string }
}

// jsonHead reads an answer in JSON, which it must for that, and the items of a list, which need not
// say of which kind they are.
func (e *expectation) jsonHead(resp *http.Response) (*head, error) {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = readCloser{bytes.NewReader(body), resp.Body}
	var found struct {
		objectInJSON
		Items *[]objectInJSON
	}
	if err := json.Unmarshal(body, &found); err != nil {
		return nil, err
	}
	if e.list && found.Items != nil {
		want := e.kind.GroupVersion().WithKind(strings.TrimSuffix(e.kind.Kind, "List"))
		for _, item := range *found.Items {
			if kind := item.GroupVersionKind(); !kind.Empty() && kind != want {
				return nil, fmt.Errorf("an item is %.100s, not %s", describeKind(kind), want.Kind)
			}
			if item.Metadata.Name == "" {
				return nil, errors.New("an item has no name")
			}
		}
	}
	return &head{found.GroupVersionKind(), keyOf(found.Metadata.Namespace, found.Metadata.Name), found.Metadata.UID, found.Items != nil}, nil
}

// keyOf is NAMESPACE/NAME, or NAME; empty without a name.
func keyOf(namespace, name string) string {
	if namespace == "" || name == "" {
		return name
	}
	return namespace + "/" + name
}

// protobufHead reads as much as needed of an answer in protobuf, which does not distinguish an empty list
// from none.
func (e *expectation) protobufHead(resp *http.Response) (*head, error) {
	if !e.stored {
		buffered := bufio.NewReaderSize(resp.Body, 1<<10)
		resp.Body = readCloser{buffered, resp.Body}
		kind, err := protobufKind(buffered)
		if err != nil {
			return nil, err
		}
		return &head{kind: *kind, items: true}, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	resp.Body = readCloser{bytes.NewReader(body), resp.Body}
	kind, err := protobufKind(bufio.NewReaderSize(bytes.NewReader(body), 1<<10))
	if err != nil {
		return nil, err
	}
	if *kind != e.kind {
		return &head{kind: *kind}, nil
	}
	var whole runtime.Unknown
	if err := whole.Unmarshal(bytes.TrimPrefix(body, []byte(protobufPrefix))); err != nil {
		return nil, err
	}
	var object metav1.PartialObjectMetadata // like each kind, it begins with its metadata
	if err := object.Unmarshal(whole.Raw); err != nil {
		return nil, err
	}
	return &head{kind: *kind, name: keyOf(object.Namespace, object.Name), uid: string(object.UID)}, nil
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
