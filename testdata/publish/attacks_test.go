package publish

import (
	"context"
	"fmt"
	"maps"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// object is one that a test makes.
type object struct{ *unstructured.Unstructured }

// manifest reads an object; the texts in pairs are replaced in it.
func manifest(text string, replaced ...string) object {
	obj := object{&unstructured.Unstructured{}}
	if err := yaml.Unmarshal([]byte(strings.NewReplacer(replaced...).Replace(text)), &obj.Object); err != nil {
		panic(err) // it is written in these tests
	}
	return obj
}

// plural are the resources that the publisher writes.
var plural = map[string]string{"ConfigMap": "configmaps", "Lease": "leases", "Event": "events", "Gateway": "gateways", "ServiceAccount": "serviceaccounts", "Service": "services", "ListenerSet": "listenersets"}

func init() { maps.Copy(plural, resources) }

// in is a client of an object's kind.
func (o object) in(client dynamic.Interface) dynamic.ResourceInterface {
	version, err := schema.ParseGroupVersion(o.GetAPIVersion())
	if err != nil {
		panic(err)
	}
	return client.Resource(version.WithResource(plural[o.GetKind()])).Namespace(o.GetNamespace())
}

var dry = []string{metav1.DryRunAll}

// create creates it, and nothing of that is stored.
func (o object) create(ctx context.Context, client dynamic.Interface) error {
	_, err := o.in(client).Create(ctx, o.Unstructured, metav1.CreateOptions{DryRun: dry})
	return err
}

// exist has it exist as it is.
func (o object) exist(ctx context.Context, admin dynamic.Interface) error {
	_, err := o.in(admin).Apply(ctx, o.GetName(), o.Unstructured, metav1.ApplyOptions{FieldManager: "admin", Force: true})
	return err
}

// update changes what exists, and nothing of that is stored.
func (o object) update(ctx context.Context, client, admin dynamic.Interface) error {
	live, err := o.in(admin).Get(ctx, o.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	changed := o.DeepCopy()
	changed.SetResourceVersion(live.GetResourceVersion())
	_, err = o.in(client).Update(ctx, changed, metav1.UpdateOptions{DryRun: dry})
	return err
}

// apply applies it over what exists, and nothing of that is stored.
func (o object) apply(ctx context.Context, client dynamic.Interface) error {
	_, err := o.in(client).Apply(ctx, o.GetName(), o.Unstructured, metav1.ApplyOptions{FieldManager: "service-mirror-publish", Force: true, DryRun: dry})
	return err
}

func (o object) delete(ctx context.Context, client dynamic.Interface) error {
	return o.in(client).Delete(ctx, o.GetName(), metav1.DeleteOptions{DryRun: dry})
}

// owned is the metadata of a route of a Service.
const owned = `
  namespace: TEST
  name: NAME
  labels: {app.kubernetes.io/managed-by: service-mirror, service-mirror.io/service: SERVICE}
  annotations: {service-mirror.io/published: TEST/NAME}
  ownerReferences: [{apiVersion: v1, kind: Service, name: SERVICE, uid: u, blockOwnerDeletion: false}]`

// route is an HTTPRoute of a Service as the publisher makes it.
func (e *env) route(service string) object {
	return manifest(`
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:`+owned+`
spec:
  hostnames: [SERVICE-paris.TEST]
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: TEST, name: public, sectionName: http}]
  rules:
  - matches: [{path: {type: PathPrefix, value: /}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: SERVICE.TEST.svc.cluster.local}}]
    backendRefs: [{group: "", kind: Service, name: SERVICE, port: 80, weight: 1}]
`, "TEST", e.id, "NAME", service+".service-mirror", "SERVICE", service)
}

// plainRoute is a TCPRoute or UDPRoute.
func (e *env) plainRoute(kind, service string) object {
	return manifest(`
apiVersion: gateway.networking.k8s.io/v1
kind: KIND
metadata:`+owned+`
spec:
  parentRefs: [{group: gateway.networking.k8s.io, kind: Gateway, namespace: TEST, name: public, sectionName: tcp-15000}]
  rules: [{backendRefs: [{group: "", kind: Service, name: SERVICE, port: 5432, weight: 1}]}]
`, "TEST", e.id, "KIND", kind, "NAME", service+".5432.service-mirror", "SERVICE", service)
}

func (e *env) ingress(service string) object {
	return manifest(`
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:`+owned+`
spec:
  ingressClassName: none
  tls: [{hosts: [SERVICE-paris.TEST], secretName: wildcard}]
  rules: [{host: SERVICE-paris.TEST, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: SERVICE, port: {number: 80}}}}]}}]
`, "TEST", e.id, "NAME", service+".service-mirror", "SERVICE", service)
}

func (e *env) recordOf(service string) object {
	return manifest(`
apiVersion: v1
kind: ConfigMap
metadata:
  namespace: service-mirror
  name: TEST.SERVICE
  labels: {app.kubernetes.io/managed-by: service-mirror, service-mirror.io/record: v1}
  annotations: {service-mirror.io/published: service-mirror/TEST.SERVICE}
data: {record.json: "{}"}
`, "TEST", e.id, "SERVICE", service)
}

// alias is that of a Service.
func (e *env) alias(service string) object {
	return manifest(`
apiVersion: v1
kind: Service
metadata:
  namespace: gateway-exports
  name: TEST--SERVICE
  labels: {app.kubernetes.io/managed-by: service-mirror, service-mirror.io/service: SERVICE, service-mirror.io/service-namespace: TEST}
  annotations: {service-mirror.io/published: gateway-exports/TEST--SERVICE}
spec: {type: ExternalName, externalName: SERVICE.TEST.svc.cluster.local}
`, "TEST", e.id, "SERVICE", service)
}

// listenerSet is one of the publisher's own.
func (e *env) listenerSet(name string) object {
	return manifest(`
apiVersion: gateway.networking.k8s.io/v1
kind: ListenerSet
metadata:
  namespace: service-mirror
  name: NAME
  labels: {app.kubernetes.io/managed-by: service-mirror}
  annotations: {service-mirror.io/published: service-mirror/NAME}
spec:
  parentRef: {group: gateway.networking.k8s.io, kind: Gateway, namespace: TEST, name: public}
  listeners: [{name: service-mirror-tcp-15000, protocol: TCP, port: 15000, allowedRoutes: {namespaces: {from: All}}}]
`, "TEST", e.id, "NAME", name)
}

// managedGateway is the Gateway as others have it, almost full, with listeners before and after the publisher's own.
func (e *env) managedGateway(name string) object {
	var more strings.Builder
	for i := range 59 {
		fmt.Fprintf(&more, "  - {name: other-%d, protocol: TCP, port: %d}\n", i, 20000+i)
	}
	return manifest(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: TEST, name: NAME, labels: {service-mirror.io/listeners: managed}}
spec:
  gatewayClassName: none
  infrastructure: {labels: {tier: edge}}
  listeners:
  - {name: http, protocol: HTTP, port: 80}
  - {name: service-mirror-tcp-15000, protocol: TCP, port: 15000, allowedRoutes: {namespaces: {from: All}}}
  - {name: web, protocol: HTTP, port: 8080}
`+more.String(), "TEST", e.id, "NAME", name)
}

// listeners is what the publisher applies to the Gateway.
func (e *env) listeners(own string) object {
	return manifest(`
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {namespace: TEST, name: public}
spec: {listeners: [OWN]}
`, "TEST", e.id, "OWN", own)
}

const ownListener = "{name: service-mirror-udp-15001, protocol: UDP, port: 15001, allowedRoutes: {namespaces: {from: All}}}"

func lease(name string) object {
	return manifest("apiVersion: coordination.k8s.io/v1\nkind: Lease\nmetadata: {namespace: service-mirror, name: NAME}\n", "NAME", name)
}

func (e *env) event(component string) object {
	return manifest(`
apiVersion: v1
kind: Event
metadata: {namespace: TEST, name: bar.1}
involvedObject: {kind: Service, namespace: TEST, name: bar}
source: {component: COMPONENT}
`, "TEST", e.id, "COMPONENT", component)
}

// named is the object with a text replaced.
func (o object) named(text, by string) object {
	content, err := yaml.Marshal(o.Object)
	if err != nil {
		panic(err)
	}
	return manifest(string(content), text, by)
}

// with is the object with another value, in YAML, at a path, as "spec|rules|0|filters"; null: without it.
func (o object) with(path, value string) object {
	var parsed any
	if err := yaml.Unmarshal([]byte(value), &parsed); err != nil {
		panic(err)
	}
	changed := object{o.DeepCopy()}
	set(changed.Object, strings.Split(path, "|"), parsed)
	return changed
}

// set sets a value in what is a map or a list.
func set(in any, path []string, value any) {
	key := path[0]
	index := 0
	if list, isList := in.([]any); isList {
		if _, err := fmt.Sscan(key, &index); err != nil {
			panic(err)
		}
		if len(path) == 1 {
			list[index] = value
			return
		}
		set(list[index], path[1:], value)
		return
	}
	fields := in.(map[string]any)
	switch {
	case len(path) == 1 && value == nil:
		delete(fields, key)
	case len(path) == 1:
		fields[key] = value
	default:
		if fields[key] == nil {
			fields[key] = map[string]any{}
		}
		set(fields[key], path[1:], value)
	}
}

// denied is nil for a denial by one of the policies, for this reason, and for nothing else.
func denied(err error, because string) error {
	switch {
	case err == nil:
		return fmt.Errorf("it was admitted")
	case !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'service-mirror-publish-only-"):
		return fmt.Errorf("another refusal: %w", err)
	case !strings.Contains(err.Error(), because):
		return fmt.Errorf("not because of %q: %w", because, err)
	}
	return nil
}

// forbidden is nil for what RBAC does not permit.
func forbidden(err error) error {
	if !apierrors.IsForbidden(err) || strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
		return fmt.Errorf("got %v", err)
	}
	return nil
}
