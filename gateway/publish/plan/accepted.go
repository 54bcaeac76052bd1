package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
)

// refusals are what the Gateway's implementation says against a route as it is now, by the listener that it attaches to: a
// condition about an older generation of it says nothing, nor does what another implementation, which the Gateway had before, has
// left there. controller is the name of the former; empty: it is not known, and each is believed.
func refusals(route *unstructured.Unstructured, controller string) map[string]string {
	var object struct {
		Status struct {
			Parents []struct {
				ParentRef struct {
					Kind        string `json:"kind"`
					Name        string `json:"name"`
					SectionName string `json:"sectionName"`
				} `json:"parentRef"`
				ControllerName string             `json:"controllerName"`
				Conditions     []metav1.Condition `json:"conditions"`
			} `json:"parents"`
		} `json:"status"`
	}
	if runtime.DefaultUnstructuredConverter.FromUnstructured(route.Object, &object) != nil {
		return nil
	}
	found := map[string]string{}
	for _, parent := range object.Status.Parents {
		if controller != "" && parent.ControllerName != controller {
			continue
		}
		for _, c := range parent.Conditions {
			refused := (c.Type == "Accepted" || c.Type == "ResolvedRefs") && c.Status == metav1.ConditionFalse
			if refused && c.ObservedGeneration == route.GetGeneration() {
				listener := parent.ParentRef.SectionName
				if parent.ParentRef.Kind == string(ListenerSet) {
					listener = parent.ParentRef.Name + "/" + listener
				}
				found[listener] = fmt.Sprintf("%s %s is refused by %.100s: %.100s: %.300s: %s", route.GetKind(), route.GetName(), parent.ControllerName, c.Reason, c.Message, remedy(c.Reason))
			}
		}
	}
	return found
}

// remedy is what to do about a reason of Gateway API.
func remedy(reason string) string {
	switch reason {
	case "NotAllowedByListeners":
		return "change the listener's allowedRoutes to allow the namespace and kind"
	case "NoMatchingListenerHostname":
		return "remove the listener's hostname, or change it to match the route's"
	case "NoMatchingParent":
		return "add the listener named in the route to the Gateway"
	case "BackendNotFound", "InvalidKind", "RefNotPermitted":
		return "check that the exported Service exists and has the port"
	case "UnsupportedProtocol":
		return "change the appProtocol of the exported port"
	case "UnsupportedValue":
		return "use an implementation that supports the route"
	}
	return "see the documentation of the gateway's implementation"
}

// judge takes back what an implementation is known to refuse: a record that says otherwise would have clients
// connect in vain.
func (d *decision) judge() {
	for _, desired := range d.plan.Desired {
		live := d.live(RefOf(desired))
		if live == nil || !Owned(live) || differs(live, desired) {
			continue
		}
		refused := refusals(live, d.snapshot.Gateway.Controller)
		for i, a := range d.assigned {
			why, found := refused[a.listener]
			if !found || string(a.kind) != live.GetKind() || !d.serves(desired, a) {
				continue
			}
			d.assigned[i].gateway, d.assigned[i].problem = 0, fmt.Errorf("%s", why)
			if !slices.Contains(d.refused, why) {
				d.refused = append(d.refused, why)
			}
		}
	}
}

// serves tells whether a route is one that serves a port.
func (d *decision) serves(route *unstructured.Unstructured, a assignment) bool {
	return a.shared || strings.HasPrefix(route.GetName(), fmt.Sprintf("%s.%d.", d.snapshot.Key.Name, a.port.Port))
}
