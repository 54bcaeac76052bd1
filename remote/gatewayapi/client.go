package gatewayapi

import (
	"context"
	"net/http"
	"sync/atomic"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// Versions are those of the API that are read, the preferred one first. The types are alike in all.
var Versions = []string{"v1", "v1beta1"}

// Client reads Gateways and ListenerSets. Which version the server has is found out by the requests themselves.
type Client struct {
	versions []rest.Interface
	served   atomic.Int32 // the index of the one that answered last
}

// New makes a client that shares the HTTP client of others.
func New(cfg *rest.Config, transport *http.Client) (*Client, error) {
	c := &Client{}
	for _, version := range Versions {
		cfg := rest.CopyConfig(cfg)
		of := schema.GroupVersion{Group: Group, Version: version}
		cfg.GroupVersion, cfg.APIPath = &of, "/apis"
		cfg.ContentType, cfg.AcceptContentTypes = runtime.ContentTypeJSON, runtime.ContentTypeJSON
		cfg.NegotiatedSerializer = codecs(of)
		client, err := rest.RESTClientForConfigAndClient(cfg, transport)
		if err != nil {
			return nil, err
		}
		c.versions = append(c.versions, client)
	}
	return c, nil
}

func codecs(of schema.GroupVersion) runtime.NegotiatedSerializer {
	types := runtime.NewScheme()
	types.AddKnownTypes(of, &Gateway{}, &GatewayList{}, &ListenerSet{}, &ListenerSetList{})
	metav1.AddToGroupVersion(types, of)
	return serializer.NewCodecFactory(types).WithoutConversion()
}

// Gateways lists and watches those of a namespace.
func (c *Client) Gateways(namespace string) *Reader[*GatewayList] {
	return &Reader[*GatewayList]{c, "gateways", namespace, func() *GatewayList { return &GatewayList{} }}
}

// ListenerSets lists and watches those of all namespaces.
func (c *Client) ListenerSets() *Reader[*ListenerSetList] {
	return &Reader[*ListenerSetList]{c, "listenersets", metav1.NamespaceAll, func() *ListenerSetList { return &ListenerSetList{} }}
}

// Reader lists and watches objects of a kind.
type Reader[L runtime.Object] struct {
	client              *Client
	resource, namespace string
	list                func() L
}

// List lists them.
func (r *Reader[L]) List(ctx context.Context, options metav1.ListOptions) (L, error) {
	return each(r.client, func(version rest.Interface) (L, error) {
		list := r.list()
		return list, r.get(version, options).Do(ctx).Into(list)
	})
}

// Watch watches them.
func (r *Reader[L]) Watch(ctx context.Context, options metav1.ListOptions) (watch.Interface, error) {
	options.Watch = true
	return each(r.client, func(version rest.Interface) (watch.Interface, error) { return r.get(version, options).Watch(ctx) })
}

func (r *Reader[L]) get(version rest.Interface, options metav1.ListOptions) *rest.Request {
	return version.Get().NamespaceIfScoped(r.namespace, r.namespace != "").Resource(r.resource).
		SpecificallyVersionedParams(&options, scheme.ParameterCodec, schema.GroupVersion{Version: "v1"})
}

// each makes a request of the version that answered last and, as long as it is not found, of the others.
func each[R any](c *Client, do func(rest.Interface) (R, error)) (answer R, err error) {
	last := int(c.served.Load())
	for i := range c.versions {
		at := (last + i) % len(c.versions)
		got, failure := do(c.versions[at])
		if i == 0 || failure == nil || !apierrors.IsNotFound(failure) {
			answer, err = got, failure // that of the first one is the most telling
		}
		if !apierrors.IsNotFound(failure) {
			if failure == nil {
				c.served.Store(int32(at))
			}
			return answer, err
		}
	}
	return answer, err
}
