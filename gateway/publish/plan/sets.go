package plan

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// ListenerSet is the kind that adds listeners to a Gateway (Gateway API 1.5). Ours are in the namespace of the records,
// where this program may write, and not in the Gateway's.
const ListenerSet Kind = "ListenerSet"

// featureListenerSet is the name of the feature in GatewayClass.status.supportedFeatures.
const featureListenerSet = "ListenerSet"

const (
	// setPorts is how many gateway ports have their listeners in one ListenerSet: each may be of TCP and of UDP, and
	// a ListenerSet has 64 listeners at most.
	setPorts = 32
	// pendingFor is how long an implementation may take to accept a ListenerSet.
	pendingFor = 60 * time.Second
)

// Sets is what is known of ListenerSets.
type Sets struct {
	Served    bool
	Known     bool                         // whether they are served, and which there are
	Err       string                       // why that is not known
	Namespace string                       // of ours
	Labels    map[string]string            // of that namespace
	Objects   []*unstructured.Unstructured // of all namespaces
}

// UseOfSets is how a Gateway's listeners of ours depend on ListenerSets.
type UseOfSets struct {
	Used      bool   // listeners of ours are added by ListenerSets
	Unknown   string // why it is not known which there are; empty: it is, or need not be
	Namespace string // of ours
	Offer     string // what would have them used; empty: they are, or nothing would
	// Foreign are the names of foreign ListenerSets in our namespace: nothing may attach to them.
	Foreign []string
}

// setObject is what is read of a ListenerSet.
type setObject struct {
	Spec struct {
		ParentRef struct {
			Group     *string `json:"group"`
			Kind      *string `json:"kind"`
			Namespace *string `json:"namespace"`
			Name      string  `json:"name"`
		} `json:"parentRef"`
		Listeners []struct {
			Name     string `json:"name"`
			Port     int32  `json:"port"`
			Protocol string `json:"protocol"`
		} `json:"listeners"`
	} `json:"spec"`
	Status struct {
		Conditions []metav1.Condition `json:"conditions"`
		Listeners  []struct {
			Name       string             `json:"name"`
			Conditions []metav1.Condition `json:"conditions"`
		} `json:"listeners"`
	} `json:"status"`
}

// ReadWithSets reads a Gateway and its GatewayClass, either of which may be nil, and the ListenerSets for it.
func ReadWithSets(name cache.ObjectName, gw, class *unstructured.Unstructured, sets Sets) Gateway {
	g := ReadGateway(name, gw, class)
	if gw != nil {
		g.readSets(sets, gw, class)
	}
	return g
}

// readSets says whether listeners of ours are added by ListenerSets, and adds those that the Gateway has by them. The
// implementation must have them, and the Gateway allow ours. Where the GatewayClass does not say what the
// implementation has, the label on the Gateway, whose way every implementation has, comes first.
func (g *Gateway) readSets(sets Sets, gw, class *unstructured.Unstructured) {
	g.Sets.Namespace = sets.Namespace
	has := class != nil && supports(class, featureListenerSet)
	switch {
	case !has && (g.Managed || class != nil && saysFeatures(class)):
	case sets.Known && !sets.Served:
	case !allowsSets(gw, sets):
		if sets.Known {
			g.Sets.Offer = fmt.Sprintf("allow ListenerSets of namespace %s in its spec.allowedListeners", sets.Namespace)
		}
	case !sets.Known:
		g.Sets.Unknown = "have not been read yet"
		if sets.Err != "" {
			g.Sets.Unknown = "cannot be read: " + sets.Err
		}
	default:
		g.Sets.Used = true
		g.addSets(sets, has)
	}
}

// saysFeatures tells whether a GatewayClass says anything of what its implementation supports.
func saysFeatures(class *unstructured.Unstructured) bool {
	list, _, _ := unstructured.NestedSlice(class.Object, "status", "supportedFeatures")
	return len(list) > 0
}

// allowsSets tells whether a Gateway accepts ListenerSets of our namespace (Gateway API, spec.allowedListeners).
func allowsSets(gw *unstructured.Unstructured, sets Sets) bool {
	from, _, _ := unstructured.NestedString(gw.Object, "spec", "allowedListeners", "namespaces", "from")
	switch from {
	case "All":
		return true
	case "Same":
		return gw.GetNamespace() == sets.Namespace
	case "Selector":
		var of metav1.LabelSelector
		raw, found, _ := unstructured.NestedMap(gw.Object, "spec", "allowedListeners", "namespaces", "selector")
		if !found || runtime.DefaultUnstructuredConverter.FromUnstructured(raw, &of) != nil {
			return false
		}
		selector, err := metav1.LabelSelectorAsSelector(&of)
		return err == nil && selector.Matches(labels.Set(sets.Labels))
	}
	return false
}

// addSets adds the listeners of ListenerSets for the Gateway, ours first: others' have their ports, and serve nothing
// of ours. has tells that the implementation says that it has the kind.
func (g *Gateway) addSets(sets Sets, has bool) {
	objects := slices.SortedFunc(slices.Values(sets.Objects), func(a, b *unstructured.Unstructured) int {
		if ours := sets.owns(a); ours != sets.owns(b) {
			if ours {
				return -1
			}
			return 1
		}
		return strings.Compare(cache.MetaObjectToName(a).String(), cache.MetaObjectToName(b).String())
	})
	for _, obj := range objects {
		if obj.GetNamespace() == sets.Namespace && !sets.owns(obj) {
			g.Sets.Foreign = append(g.Sets.Foreign, obj.GetName())
		}
		if set, ok := readSet(obj); ok && set.isFor(obj.GetNamespace(), g.Name) {
			g.addSet(obj, set, sets.owns(obj), has)
		}
	}
}

// owns tells whether a ListenerSet is ours.
func (s Sets) owns(obj *unstructured.Unstructured) bool { return OwnedSet(obj, s.Namespace) }

// OwnedSet tells whether a ListenerSet is ours: by its namespace, its label and the name that it records.
func OwnedSet(obj metav1.Object, namespace string) bool {
	return obj.GetNamespace() == namespace && obj.GetLabels()[mirrors.ManagedByLabel] == mirrors.ManagedBy &&
		obj.GetAnnotations()[PublishedAnnotation] == cache.MetaObjectToName(obj).String()
}

// readSet reads a ListenerSet. The API server has a schema for it.
func readSet(obj *unstructured.Unstructured) (set setObject, ok bool) {
	err := runtime.DefaultUnstructuredConverter.FromUnstructured(obj.Object, &set)
	return set, err == nil
}

// Adds tells whether a ListenerSet is for the Gateway.
func (p Policy) Adds(obj *unstructured.Unstructured) bool {
	set, ok := readSet(obj)
	return ok && set.isFor(obj.GetNamespace(), p.Gateway)
}

// isFor tells whether a ListenerSet in a namespace adds its listeners to a Gateway.
func (s setObject) isFor(namespace string, gw cache.ObjectName) bool {
	ref := s.Spec.ParentRef
	or := func(text *string, without string) string {
		if text == nil {
			return without
		}
		return *text
	}
	return or(ref.Group, Group) == Group && or(ref.Kind, "Gateway") == "Gateway" && or(ref.Namespace, namespace) == gw.Namespace && ref.Name == gw.Name
}

func (g *Gateway) addSet(obj *unstructured.Unstructured, set setObject, ours, has bool) {
	accepted := slices.ContainsFunc(set.Status.Conditions, func(c metav1.Condition) bool {
		return c.Type == "Accepted" && c.Status == metav1.ConditionTrue
	})
	for _, l := range set.Spec.Listeners {
		listener := Listener{Set: cache.MetaObjectToName(obj), Foreign: !ours, Name: l.Name, Port: l.Port, Protocol: l.Protocol, From: "All"}
		if why := refusedListener(set.Status.Conditions, obj.GetGeneration()); why != "" {
			listener.Refused = fmt.Sprintf("it does not accept the ListenerSet: %s: %s", why, setRemedy(why))
		}
		for _, status := range set.Status.Listeners {
			if why := refusedListener(status.Conditions, obj.GetGeneration()); why != "" && status.Name == l.Name && listener.Refused == "" {
				listener.Refused = fmt.Sprintf("%s: %s", why, setRemedy(why))
			}
		}
		switch {
		case ours && (!listener.Own() || setOf(listener.number()) != obj.GetName()):
			continue // an edit, which is undone
		case !ours && (listener.Refused != "" || !accepted):
			continue // it has no port
		}
		if ours && !accepted {
			listener.Pending, listener.Promised, listener.Since = true, has, obj.GetCreationTimestamp().Time
		}
		g.Listeners = append(g.Listeners, listener)
	}
}

// setRemedy is what to do about why a ListenerSet is refused.
func setRemedy(why string) string {
	switch reason, _, _ := strings.Cut(why, ":"); reason {
	case "NotAllowed":
		return "change the Gateway's allowedListeners to allow its namespace"
	case "ParentNotAccepted":
		return "fix the Gateway"
	case "PortUnavailable":
		return "open the port in the implementation, or change --ports"
	case "UnsupportedProtocol":
		return "use an implementation that supports the protocol"
	case "TooManyListeners":
		return "remove listeners, or publish through another Gateway"
	case "HostnameConflict", "ProtocolConflict", "ListenerConflict":
		return "remove the other listener on the port"
	}
	return "see its status, and the documentation of the gateway's implementation"
}

// setOf is the ListenerSet of ours that has the listener for a gateway port. It follows from the port alone: a listener
// never moves to another one.
func setOf(port gateway.PortNumber) string {
	return fmt.Sprintf("service-mirror-%d", port.Number-port.Number%1000%setPorts)
}

// foreignSet is why the ListenerSet of ours for a gateway port cannot be had; nil: it can.
func (g Gateway) foreignSet(port gateway.PortNumber) error {
	if name := setOf(port); g.Sets.Used && slices.Contains(g.Sets.Foreign, name) {
		return fmt.Errorf("ListenerSet %s/%s already exists and is not managed by service-mirror: delete it", g.Sets.Namespace, name)
	}
	return nil
}

// setListener is the listener of a ListenerSet of ours for a gateway port, by its key.
func setListener(port gateway.PortNumber) string { return setOf(port) + "/" + OwnListener(port) }

// AttachableSets are the gateway ports of listeners in a ListenerSet of ours, with their keys.
func AttachableSets(objects []*unstructured.Unstructured, namespace string) map[gateway.PortNumber]string {
	found := map[gateway.PortNumber]string{}
	for _, obj := range objects {
		set, ok := readSet(obj)
		if !ok || !OwnedSet(obj, namespace) {
			continue
		}
		for _, l := range set.Spec.Listeners {
			port := Listener{Port: l.Port, Protocol: l.Protocol}.number()
			if key := setListener(port); key == obj.GetName()+"/"+l.Name {
				found[port] = key
			}
		}
	}
	return found
}

// PlanSets says what is to be written so that ListenerSets of ours have listeners for these gateway ports, and those
// that routes still attach to, and no others. The error says what is in the way.
func (p Policy) PlanSets(g Gateway, objects []*unstructured.Unstructured, ports, attached []gateway.PortNumber) (steps []Step, conflicts error) {
	if !p.To(ToGatewayAPI) {
		return p.withdrawSets(objects, attached), nil
	}
	if !g.Exists || g.Sets.Unknown != "" {
		return nil, nil
	}
	wanted := map[string][]gateway.PortNumber{}
	for _, port := range slices.Concat(g.inSets(ports), attached) {
		wanted[setOf(port)] = append(wanted[setOf(port)], port)
	}
	live := map[string]*unstructured.Unstructured{}
	for _, obj := range objects {
		if obj.GetNamespace() == g.Sets.Namespace {
			live[obj.GetName()] = obj
		}
	}
	for _, name := range slices.Sorted(maps.Keys(wanted)) {
		desired, obj := p.setAsWanted(g, name, wanted[name]), live[name]
		step := Step{Ref: Ref{ListenerSet, name}, Object: desired}
		switch {
		case obj == nil:
			step.Action = Create
		case !OwnedSet(obj, g.Sets.Namespace):
			conflicts = errors.Join(conflicts, g.foreignSet(wanted[name][0]))
			continue
		case obj.GetDeletionTimestamp() != nil || !differs(obj, desired):
			continue // the end of the one brings this back
		default:
			step.Action, step.Object, step.Live = Update, changed(obj, desired), obj
		}
		steps = append(steps, step)
	}
	for _, name := range slices.Sorted(maps.Keys(live)) {
		if obj := live[name]; wanted[name] == nil && OwnedSet(obj, g.Sets.Namespace) && obj.GetDeletionTimestamp() == nil {
			steps = append(steps, Step{Action: Delete, Ref: Ref{ListenerSet, name}, Object: obj})
		}
	}
	return steps, conflicts
}

// withdrawSets deletes the ListenerSets that other flags have made, once no route of ours attaches to them.
func (p Policy) withdrawSets(objects []*unstructured.Unstructured, attached []gateway.PortNumber) (steps []Step) {
	needed := map[string]bool{}
	for _, port := range attached {
		needed[setOf(port)] = true
	}
	for _, obj := range objects {
		if OwnedSet(obj, p.Records) && !needed[obj.GetName()] && obj.GetDeletionTimestamp() == nil {
			steps = append(steps, Step{Action: Delete, Ref: Ref{ListenerSet, obj.GetName()}, Object: obj})
		}
	}
	return steps
}

// inSets are those of gateway ports that need listeners in ListenerSets: nothing else has them.
func (g Gateway) inSets(ports []gateway.PortNumber) []gateway.PortNumber {
	if !g.Sets.Used {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(ports), func(port gateway.PortNumber) bool {
		return slices.ContainsFunc(g.Listeners, func(l Listener) bool {
			return l.number() == port && (l.Foreign || l.Set == (cache.ObjectName{}))
		})
	})
}

// setAsWanted is a ListenerSet as it should be, with the API's defaults written out.
func (p Policy) setAsWanted(g Gateway, name string, ports []gateway.PortNumber) *unstructured.Unstructured {
	ports = slices.SortedFunc(slices.Values(ports), comparePorts)
	var listeners []any
	for _, port := range slices.Compact(ports) {
		listeners = append(listeners, ownListenerObject(port))
	}
	return &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": Group + "/v1",
		"kind":       string(ListenerSet),
		"metadata": map[string]any{
			"namespace":   g.Sets.Namespace,
			"name":        name,
			"labels":      map[string]any{mirrors.ManagedByLabel: mirrors.ManagedBy},
			"annotations": map[string]any{PublishedAnnotation: g.Sets.Namespace + "/" + name},
		},
		"spec": map[string]any{
			"parentRef": map[string]any{"group": Group, "kind": "Gateway", "namespace": p.Gateway.Namespace, "name": p.Gateway.Name},
			"listeners": listeners,
		},
	}}
}

// pending tells whether the listener of a port waits for its implementation. One that says that it has ListenerSets is
// believed to accept them. That it has not in a while is a problem.
func (d *decision) pending(a *assignment, l *Listener) bool {
	if !l.Pending {
		return false
	}
	gw := d.snapshot.Gateway
	if left := l.Since.Add(pendingFor).Sub(d.snapshot.Now); left > 0 {
		d.again(left)
		if !l.Promised {
			a.problem = fmt.Errorf("ListenerSet %v has not been accepted yet by the implementation of %v", l.Set, gw)
		}
		return !l.Promised
	}
	fix := "check that its controller runs"
	if !l.Promised {
		fix = fmt.Sprintf("ListenerSets are not supported: remove allowedListeners, and add TCP and UDP listeners to the Gateway, or label it %s=%s", ListenersLabel, Managed)
	}
	a.problem = fmt.Errorf("ListenerSet %v has not been accepted for %v by the implementation of %v: %s", l.Set, pendingFor, gw, fix)
	d.problem(mirrors.NotAccepted, fmt.Sprintf("port %s: %v", gateway.ListPorts([]corev1.ServicePort{a.port}), a.problem))
	return true
}
