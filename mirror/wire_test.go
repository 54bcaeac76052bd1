package mirror

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"

	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/remote"
)

// wire carries HTTP between a real client and the fake API server, without a network:
// time stays virtual, and what client-go does by itself, as waiting for Retry-After,
// takes place.
type wire struct {
	server *apiserver
	// fault, if set, decides what becomes of each request.
	fault func(what string) fault
}

// fault is what becomes of a request.
type fault struct {
	delay      time.Duration
	err        error // the answer, instead of the server's
	retryAfter int   // in seconds, with the answer; 0: none
	broken     bool  // no answer: the connection breaks
	fenced     bool  // the request is refused before it is sent
	lost       bool  // no answer, but the server has done it
}

var errBroken = errors.New("the connection broke")

// dial returns a real client of the fake API server.
func (w *wire) dial() remote.Client {
	client, err := remote.NewClient(&rest.Config{
		Host: "http://london", Transport: w, QPS: -1,
		ContentConfig: rest.ContentConfig{ContentType: runtime.ContentTypeProtobuf, AcceptContentTypes: runtime.ContentTypeProtobuf},
	})
	if err != nil {
		panic(err)
	}
	return client
}

// RoundTrip implements http.RoundTripper.
func (w *wire) RoundTrip(req *http.Request) (*http.Response, error) {
	action, err := actionOf(req)
	if err != nil {
		return nil, err
	}
	var f fault
	if w.fault != nil {
		f = w.fault(req.Method + " " + req.URL.Path)
	}
	if err := pause(req.Context(), f.delay); err != nil {
		return nil, err
	}
	if f.fenced {
		return nil, leader.ErrFenced
	}
	if f.broken {
		return nil, errBroken
	}
	var obj runtime.Object
	if err = f.err; err == nil {
		obj, err = w.server.react(action, false)
	}
	if f.lost {
		return nil, errBroken
	}
	return respond(req, obj, err, f.retryAfter)
}

// pause makes no timer that has run out at once: several of these in one bubble crash Go's race detector now and then.
func pause(ctx context.Context, d time.Duration) error {
	if d == 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// actionOf is a request as an action of the fakes.
func actionOf(req *http.Request) (clienttesting.Action, error) {
	parts := strings.Split(strings.TrimPrefix(req.URL.Path, "/"), "/")
	gvr := schema.GroupVersionResource{Version: parts[1]}
	if parts = parts[2:]; strings.HasPrefix(req.URL.Path, "/apis/") {
		gvr.Group, gvr.Version, parts = gvr.Version, parts[0], parts[1:]
	}
	var namespace, name string
	if len(parts) > 2 && parts[0] == "namespaces" {
		namespace, parts = parts[1], parts[2:]
	}
	if gvr.Resource = parts[0]; len(parts) > 1 {
		name = parts[1]
	}
	var body []byte
	if req.Body != nil {
		defer req.Body.Close()
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
	}
	switch req.Method {
	case http.MethodPost, http.MethodPut:
		obj, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, nil)
		if err != nil {
			return nil, err
		}
		obj.GetObjectKind().SetGroupVersionKind(schema.GroupVersionKind{}) // as decoded into a typed object
		if req.Method == http.MethodPost {
			return clienttesting.NewCreateActionWithOptions(gvr, namespace, obj, metav1.CreateOptions{DryRun: req.URL.Query()["dryRun"]}), nil
		}
		return clienttesting.NewUpdateAction(gvr, namespace, obj), nil
	case http.MethodDelete:
		var options metav1.DeleteOptions
		if _, _, err := scheme.Codecs.UniversalDeserializer().Decode(body, nil, &options); err != nil {
			return nil, err
		}
		return clienttesting.NewDeleteActionWithOptions(gvr, namespace, name, options), nil
	case http.MethodGet:
		if name != "" {
			return clienttesting.NewGetAction(gvr, namespace, name), nil
		}
		query := req.URL.Query()
		return clienttesting.NewListActionWithOptions(gvr, schema.GroupVersionKind{}, namespace,
			metav1.ListOptions{LabelSelector: query.Get("labelSelector"), FieldSelector: query.Get("fieldSelector")}), nil
	}
	return nil, fmt.Errorf("the fake API server has no %s", req.Method)
}

func respond(req *http.Request, obj runtime.Object, err error, retryAfter int) (*http.Response, error) {
	resp := &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Request: req, ProtoMajor: 1, ProtoMinor: 1}
	var body []byte
	if err != nil || obj == nil {
		status := metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: metav1.StatusSuccess}
		if err != nil {
			said, ok := err.(apierrors.APIStatus)
			if !ok {
				return nil, err
			}
			status.ListMeta, status.Status, status.Message, status.Reason = said.Status().ListMeta, metav1.StatusFailure, said.Status().Message, said.Status().Reason
			status.Details, status.Code = said.Status().Details, said.Status().Code
			resp.StatusCode = int(status.Code)
		}
		if retryAfter > 0 {
			resp.Header.Set("Retry-After", fmt.Sprint(retryAfter))
		}
		resp.Header.Set("Content-Type", runtime.ContentTypeJSON)
		body, _ = json.Marshal(status)
	} else {
		gvks, _, kindErr := scheme.Scheme.ObjectKinds(obj)
		if kindErr != nil {
			return nil, kindErr
		}
		info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)
		var err error
		if body, err = runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, gvks[0].GroupVersion()), obj); err != nil {
			return nil, err
		}
		resp.Header.Set("Content-Type", runtime.ContentTypeProtobuf)
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	return resp, nil
}
