package plan

import (
	"fmt"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

const (
	// ServiceLabel is on everything that is published, and names the exported Service.
	ServiceLabel = "service-mirror.io/service"
	// PublishedAnnotation records the namespace/name of the object that it is on: a copy of the object under another
	// name is not ours.
	PublishedAnnotation = "service-mirror.io/published"
	// maxHostnames is how many names a route may have (Gateway API, spec.hostnames).
	maxHostnames = 16
	suffix       = ".service-mirror" // of names: no Service has a dot in its own
)

// KeyOf is the exported Service that an object with our labels is about.
func KeyOf(obj metav1.Object) (cache.ObjectName, bool) {
	labels := obj.GetLabels()
	key := cache.NewObjectName(obj.GetNamespace(), labels[ServiceLabel])
	if of, typed := obj.(interface{ GetKind() string }); typed && Kind(of.GetKind()) == Alias {
		key.Namespace = labels[NamespaceLabel]
	}
	return key, key.Namespace != "" && key.Name != "" && labels[mirrors.ManagedByLabel] == mirrors.ManagedBy
}

// Owned tells whether an object is ours: by its labels and the name that it records.
func Owned(obj metav1.Object) bool {
	_, labelled := KeyOf(obj)
	return labelled && obj.GetAnnotations()[PublishedAnnotation] == cache.MetaObjectToName(obj).String()
}

// RefOf names a route or an alias.
func RefOf(obj *unstructured.Unstructured) Ref { return Ref{Kind(obj.GetKind()), obj.GetName()} }

// routes are the objects of all kinds that route to the Service.
func (d *decision) routes() {
	d.nameRoutes(HTTPRoute, func(hosts []string) map[string]any {
		rule := map[string]any{
			"matches":     []any{map[string]any{"path": map[string]any{"type": "PathPrefix", "value": "/"}}},
			"backendRefs": d.backend(d.main(HTTPRoute)),
		}
		if d.snapshot.Gateway.Rewrites {
			host := d.policy.within(d.snapshot.Key.Name, d.snapshot.Key.Namespace)[2]
			rule["filters"] = []any{map[string]any{"type": "URLRewrite", "urlRewrite": map[string]any{"hostname": host}}}
		}
		return map[string]any{"hostnames": anySlice(hosts), "rules": []any{rule}}
	})
	d.nameRoutes(TLSRoute, func(hosts []string) map[string]any {
		return map[string]any{"hostnames": anySlice(hosts), "rules": []any{map[string]any{"backendRefs": d.backend(d.main(TLSRoute))}}}
	})
	for _, kind := range []Kind{TCPRoute, UDPRoute} {
		for _, a := range d.assigned {
			if a.kind == kind {
				name := fmt.Sprintf("%s.%d%s", d.snapshot.Key.Name, a.port.Port, suffix)
				d.want(kind, name, map[string]any{"parentRefs": d.parents(a.listener), "rules": []any{map[string]any{"backendRefs": d.backend(a)}}})
			}
		}
	}
	d.ingress()
	d.alias()
}

// nameRoutes adds the routes of a kind that go by a name in the request, as many as its names need.
func (d *decision) nameRoutes(kind Kind, spec func(hosts []string) map[string]any) {
	var listeners []string
	for _, a := range d.assigned {
		if a.kind == kind {
			listeners = append(listeners, a.listener)
		}
	}
	if len(listeners) == 0 {
		return
	}
	if kind == HTTPRoute {
		listeners = append(listeners, d.keptListeners()...)
	}
	n := 0
	for hosts := range slices.Chunk(d.hosts, maxHostnames) {
		name := d.snapshot.Key.Name + suffix
		if n++; n > 1 {
			name = fmt.Sprintf("%s.%d%s", d.snapshot.Key.Name, n, suffix)
		}
		made := spec(hosts)
		made["parentRefs"] = d.parents(listeners...)
		d.want(kind, name, made)
	}
}

// main is the port that a kind of route by name routes to: what only ends TLS is not it.
func (d *decision) main(kind Kind) assignment {
	i := slices.IndexFunc(d.assigned, func(a assignment) bool {
		return a.kind == kind && (a.class == gateway.HTTPS) == (kind == TLSRoute)
	})
	return d.assigned[i]
}

// parents attaches to listeners of the Gateway and of our ListenerSets, by their keys. Like all that follows, it has the API's defaults written out: what is
// live has them, and the two are compared.
func (d *decision) parents(listeners ...string) (refs []any) {
	slices.Sort(listeners)
	for _, listener := range slices.Compact(listeners) {
		if set, name, inSet := strings.Cut(listener, "/"); inSet {
			refs = append(refs, map[string]any{"group": Group, "kind": string(ListenerSet), "namespace": d.policy.Records, "name": set, "sectionName": name})
			continue
		}
		refs = append(refs, map[string]any{"group": Group, "kind": "Gateway", "namespace": d.policy.Gateway.Namespace, "name": d.policy.Gateway.Name, "sectionName": listener})
	}
	return refs
}

func (d *decision) backend(a assignment) []any {
	return []any{map[string]any{"group": "", "kind": "Service", "name": d.snapshot.Key.Name, "port": int64(a.port.Port), "weight": int64(1)}}
}

// backends are the ports of Services that a route or an Ingress routes to.
func backends(route *unstructured.Unstructured) (ports []int32) {
	var object struct {
		Spec struct {
			Rules []struct {
				BackendRefs []struct {
					Port int32 `json:"port"`
				} `json:"backendRefs"`
				HTTP struct {
					Paths []struct {
						Backend struct {
							Service struct {
								Port struct {
									Number int32 `json:"number"`
								} `json:"port"`
							} `json:"service"`
						} `json:"backend"`
					} `json:"paths"`
				} `json:"http"`
			} `json:"rules"`
		} `json:"spec"`
	}
	if runtime.DefaultUnstructuredConverter.FromUnstructured(route.Object, &object) != nil {
		return []int32{0} // it is not known
	}
	for _, rule := range object.Spec.Rules {
		for _, ref := range rule.BackendRefs {
			ports = append(ports, ref.Port)
		}
		for _, path := range rule.HTTP.Paths {
			ports = append(ports, path.Backend.Service.Port.Number)
		}
	}
	return ports
}

func anySlice(texts []string) (all []any) {
	for _, text := range texts {
		all = append(all, text)
	}
	return all
}

// want adds an object as it should be, with the Service for its owner: with that gone, Kubernetes deletes it.
func (d *decision) want(kind Kind, name string, spec map[string]any) {
	svc := d.snapshot.Service
	group := kind.Resource().Group
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": group + "/" + d.snapshot.Served[kind].Version,
		"kind":       string(kind),
		"metadata": map[string]any{
			"namespace":   svc.Namespace,
			"name":        name,
			"labels":      map[string]any{mirrors.ManagedByLabel: mirrors.ManagedBy, ServiceLabel: svc.Name},
			"annotations": map[string]any{PublishedAnnotation: svc.Namespace + "/" + name},
			"ownerReferences": []any{map[string]any{
				"apiVersion": "v1", "kind": "Service", "name": svc.Name, "uid": string(svc.UID), "blockOwnerDeletion": false,
			}},
		},
		"spec": spec,
	}}
	d.plan.Desired = append(d.plan.Desired, obj)
}

// Differs tells whether an object that was just written is already not as desired: something changed it on its way, as
// a mutating webhook does.
func Differs(got, desired *unstructured.Unstructured) bool { return differs(got, desired) }

// differs tells whether a live object is not as it should be. Labels and annotations of others do not count.
func differs(live, desired *unstructured.Unstructured) bool {
	return !equality.Semantic.DeepEqual(live.Object["spec"], desired.Object["spec"]) ||
		!equality.Semantic.DeepEqual(live.GetOwnerReferences(), desired.GetOwnerReferences()) ||
		lacks(live.GetLabels(), desired.GetLabels()) || lacks(live.GetAnnotations(), desired.GetAnnotations())
}

func lacks(live, desired map[string]string) bool {
	for key, value := range desired {
		if got, ok := live[key]; !ok || got != value {
			return true
		}
	}
	return false
}

// changed is a live object as it should be.
func changed(live, desired *unstructured.Unstructured) *unstructured.Unstructured {
	obj := live.DeepCopy()
	obj.SetAPIVersion(desired.GetAPIVersion())
	obj.Object["spec"] = desired.DeepCopy().Object["spec"]
	obj.SetOwnerReferences(desired.GetOwnerReferences())
	obj.SetLabels(overlay(live.GetLabels(), desired.GetLabels()))
	obj.SetAnnotations(overlay(live.GetAnnotations(), desired.GetAnnotations()))
	return obj
}

func overlay(live, desired map[string]string) map[string]string {
	all := map[string]string{}
	for _, from := range []map[string]string{live, desired} {
		for key, value := range from {
			all[key] = value
		}
	}
	return all
}
