package gatewayapi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

// Convert makes of a Gateway, with the ListenerSets that it has accepted, what the rules of gateways read; nil: of none.
func Convert(g *Gateway, sets []*ListenerSet) *gateway.APIGateway {
	if g == nil {
		return nil
	}
	gw := &gateway.APIGateway{Listeners: listeners(g.Spec.Listeners, g.Status.Listeners)}
	for _, address := range g.Status.Addresses {
		switch {
		case address.Value == "":
		case address.Type == nil || *address.Type == "IPAddress":
			gw.IPs = append(gw.IPs, address.Value)
		case *address.Type == "Hostname":
			gw.Hostnames = append(gw.Hostnames, address.Value)
		} // another type means something to its implementation alone
	}
	for _, kind := range []string{"Accepted", "Programmed"} {
		if c := condition(g.Status.Conditions, kind); c != nil && c.Status == metav1.ConditionFalse {
			gw.Problems = append(gw.Problems, fmt.Sprintf("is not %s (%s): check its status and its controller", strings.ToLower(kind), describe(c)))
			break
		}
	}
	sets = slices.Clone(sets)
	slices.SortFunc(sets, func(a, b *ListenerSet) int { // as the Gateway API resolves conflicts between them
		return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.Name, b.Name))
	})
	for _, set := range sets {
		accepted := condition(set.Status.Conditions, "Accepted")
		if g.AllowsListenerSets() && set.For() == g.Namespace+"/"+g.Name && accepted != nil && accepted.Status == metav1.ConditionTrue {
			for _, listener := range listeners(set.Spec.Listeners, set.Status.Listeners) {
				taken := func(other gateway.Listener) bool { // a name is chosen for TCP or for UDP
					return other.Name == listener.Name && (other.Protocol == "UDP") == (listener.Protocol == "UDP") &&
						(other.Port != listener.Port || other.Protocol != listener.Protocol)
				}
				if listener.Problem == "" && slices.ContainsFunc(gw.Listeners, taken) {
					listener.Name = "" // whoever chooses the name means the first one
				}
				gw.Listeners = append(gw.Listeners, listener)
			}
		}
	}
	return gw
}

func listeners(specs []Listener, states []ListenerStatus) (all []gateway.Listener) {
	for _, spec := range specs {
		one := gateway.Listener{Name: spec.Name, Port: spec.Port, Protocol: spec.Protocol}
		if i := slices.IndexFunc(states, func(s ListenerStatus) bool { return s.Name == spec.Name }); i >= 0 {
			one.Problem = unserved(states[i].Conditions)
		}
		all = append(all, one)
	}
	return all
}

// unserved is why a listener is not served, as far as its conditions say. One that is still pending may be served already.
func unserved(conditions []metav1.Condition) string {
	for _, bad := range []metav1.Condition{
		{Type: "Accepted", Status: metav1.ConditionFalse}, {Type: "Conflicted", Status: metav1.ConditionTrue}, {Type: "Programmed", Status: metav1.ConditionFalse},
	} {
		if c := condition(conditions, bad.Type); c != nil && c.Status == bad.Status && c.Reason != "Pending" {
			return describe(c)
		}
	}
	return ""
}

func condition(all []metav1.Condition, kind string) *metav1.Condition {
	if i := slices.IndexFunc(all, func(c metav1.Condition) bool { return c.Type == kind }); i >= 0 {
		return &all[i]
	}
	return nil
}

func describe(c *metav1.Condition) string {
	return strings.TrimSuffix(fmt.Sprintf("%.100s: %.300s", c.Reason, c.Message), ": ")
}
