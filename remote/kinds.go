package remote

import (
	"fmt"
	"net/http"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"service-mirror.io/service-mirror/remote/gatewayapi"
)

// kinds are those that this program reads or writes, on either side, by group, version and resource.
var kinds = map[schema.GroupVersionResource]string{
	{Version: "v1", Resource: "configmaps"}: "ConfigMap",
	{Version: "v1", Resource: "endpoints"}:  "Endpoints",
	{Version: "v1", Resource: "events"}:     "Event",
	{Version: "v1", Resource: "namespaces"}: "Namespace",
	{Version: "v1", Resource: "nodes"}:      "Node",
	{Version: "v1", Resource: "secrets"}:    "Secret",
	{Version: "v1", Resource: "services"}:   "Service",

	{Group: "authorization.k8s.io", Version: "v1", Resource: "selfsubjectaccessreviews"}: review,
	{Group: "coordination.k8s.io", Version: "v1", Resource: "leases"}:                    "Lease",
	{Group: "discovery.k8s.io", Version: "v1", Resource: "endpointslices"}:               "EndpointSlice",
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingresses"}:                   "Ingress",
	{Group: "networking.k8s.io", Version: "v1", Resource: "ingressclasses"}:              "IngressClass",
	{Group: "networking.k8s.io", Version: "v1", Resource: "ipaddresses"}:                 "IPAddress",
	{Group: "networking.k8s.io", Version: "v1", Resource: "servicecidrs"}:                "ServiceCIDR",
}

// gatewayKinds are those of Gateway API, by resource: they are read and written in any version that is served.
var gatewayKinds = map[string]string{
	"gatewayclasses": "GatewayClass",
	"gateways":       "Gateway",
	"httproutes":     "HTTPRoute",
	"listenersets":   "ListenerSet",
	"tcproutes":      "TCPRoute",
	"tlsroutes":      "TLSRoute",
	"udproutes":      "UDPRoute",
}

// review is the only kind whose objects have no name and no UID: none is kept.
const review = "SelfSubjectAccessReview"

// expectation is what the answer to a request must be.
type expectation struct {
	kind   schema.GroupVersionKind
	list   bool
	name   string // of the object, where the request names it, with its namespace
	stored bool   // the object exists: it has a name and a UID
	status bool   // or it is a Status: the answer to a deletion
}

// expected is what the answer to a request must be; nil where it is no object: of a watch, whose
// events are checked one by one, and outside of the API. base is the path at which the API server is.
// A kind that is not in the list is an error, so that none can be forgotten.
func expected(req *http.Request, base string) (*expectation, error) {
	path := strings.Split(strings.Trim(strings.TrimPrefix(req.URL.Path, strings.TrimSuffix(base, "/")), "/"), "/")
	var resource schema.GroupVersionResource
	switch {
	case len(path) > 2 && path[0] == "api":
		resource.Version, path = path[1], path[2:]
	case len(path) > 3 && path[0] == "apis":
		resource.Group, resource.Version, path = path[1], path[2], path[3:]
	default:
		return nil, nil
	}
	namespace := ""
	if len(path) > 2 && path[0] == "namespaces" {
		namespace, path = path[1]+"/", path[2:]
	}
	resource.Resource = path[0]
	query := req.URL.Query()
	if watch := query.Get("watch"); watch == "true" || watch == "1" {
		return nil, nil
	}
	kind, known := kinds[resource]
	if resource.Group == gatewayapi.Group {
		kind, known = gatewayKinds[resource.Resource]
	}
	if !known {
		return nil, fmt.Errorf("no kind is known for %s: its answers could not be checked", resource.GroupResource())
	}
	e := &expectation{kind: resource.GroupVersion().WithKind(kind), stored: kind != review}
	if len(path) > 1 {
		e.name = namespace + path[1]
	}
	switch {
	case req.Method == http.MethodDelete:
		e.status = true
	case req.Method == http.MethodGet && e.name == "":
		e.kind.Kind += "List"
		e.list, e.stored = true, false
	}
	if strings.Contains(req.Header.Get("Accept"), "as=PartialObjectMetadata") {
		e.kind = metav1.SchemeGroupVersion.WithKind("PartialObjectMetadata")
		if e.list {
			e.kind.Kind += "List"
		}
	}
	return e, nil
}
