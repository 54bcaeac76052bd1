// Package gatewayapi reads Gateways and ListenerSets of the Gateway API (gateway.networking.k8s.io), as far as a gateway
// of another cluster must be known. The types are those parts of sigs.k8s.io/gateway-api, on which the program does not
// depend; the end-to-end tests read objects with them that real CRDs have accepted.
package gatewayapi

import (
	"encoding/json"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// Group is the API group.
const Group = "gateway.networking.k8s.io"

// Gateway is a Gateway.
type Gateway struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              GatewaySpec   `json:"spec,omitempty"`
	Status            GatewayStatus `json:"status,omitempty"`
}

// GatewaySpec is what is read of a Gateway's spec.
type GatewaySpec struct {
	Listeners        []Listener        `json:"listeners,omitempty"`
	AllowedListeners *AllowedListeners `json:"allowedListeners,omitempty"`
}

// Listener is a listener of a Gateway or a ListenerSet.
type Listener struct {
	Name     string `json:"name"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

// AllowedListeners says which ListenerSets a Gateway accepts: of no namespace unless it says so.
type AllowedListeners struct {
	Namespaces *AllowedNamespaces `json:"namespaces,omitempty"`
}

// AllowedNamespaces says of which namespaces: None, Same, Selector or All.
type AllowedNamespaces struct {
	From string `json:"from,omitempty"`
}

// GatewayStatus is what is read of a Gateway's status.
type GatewayStatus struct {
	Addresses  []Address          `json:"addresses,omitempty"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	Listeners  []ListenerStatus   `json:"listeners,omitempty"`
}

// Address is an address of a Gateway; no Type is an IP address.
type Address struct {
	Type  *string `json:"type,omitempty"`
	Value string  `json:"value"`
}

// ListenerStatus is the status of a listener.
type ListenerStatus struct {
	Name       string             `json:"name"`
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// ListenerSet adds listeners to a Gateway.
type ListenerSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`
	Spec              ListenerSetSpec   `json:"spec,omitempty"`
	Status            ListenerSetStatus `json:"status,omitempty"`
}

// ListenerSetSpec is what is read of a ListenerSet's spec.
type ListenerSetSpec struct {
	ParentRef ParentRef  `json:"parentRef"`
	Listeners []Listener `json:"listeners,omitempty"`
}

// ParentRef names the Gateway of a ListenerSet.
type ParentRef struct {
	Group     *string `json:"group,omitempty"`
	Kind      *string `json:"kind,omitempty"`
	Namespace *string `json:"namespace,omitempty"`
	Name      string  `json:"name"`
}

// ListenerSetStatus is what is read of a ListenerSet's status.
type ListenerSetStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
	Listeners  []ListenerStatus   `json:"listeners,omitempty"`
}

// GatewayList is a list of Gateways.
type GatewayList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Gateway `json:"items"`
}

// ListenerSetList is a list of ListenerSets.
type ListenerSetList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ListenerSet `json:"items"`
}

// AllowsListenerSets tells whether any ListenerSet can be attached to the Gateway.
func (g *Gateway) AllowsListenerSets() bool {
	allowed := g.Spec.AllowedListeners
	return allowed != nil && allowed.Namespaces != nil && allowed.Namespaces.From != "" && allowed.Namespaces.From != "None"
}

// For is the Gateway that a ListenerSet is for, as NAMESPACE/NAME; empty: it is for another kind.
func (s *ListenerSet) For() string {
	ref := s.Spec.ParentRef
	if ref.Group != nil && *ref.Group != Group || ref.Kind != nil && *ref.Kind != "Gateway" {
		return ""
	}
	namespace := s.Namespace
	if ref.Namespace != nil && *ref.Namespace != "" {
		namespace = *ref.Namespace
	}
	return namespace + "/" + ref.Name
}

// DeepCopyObject copies all that is read.
func (g *Gateway) DeepCopyObject() runtime.Object { return copyOf(g, &Gateway{}) }

// DeepCopyObject copies all that is read.
func (s *ListenerSet) DeepCopyObject() runtime.Object { return copyOf(s, &ListenerSet{}) }

// DeepCopyObject copies all that is read.
func (l *GatewayList) DeepCopyObject() runtime.Object { return copyOf(l, &GatewayList{}) }

// DeepCopyObject copies all that is read.
func (l *ListenerSetList) DeepCopyObject() runtime.Object { return copyOf(l, &ListenerSetList{}) }

// copyOf copies by way of JSON, which these types are read from: none of them is copied often.
func copyOf[T runtime.Object](from, to T) T {
	data, err := json.Marshal(from)
	if err == nil {
		err = json.Unmarshal(data, to)
	}
	if err != nil {
		panic(err) // of what was read from JSON
	}
	return to
}

// Marshal encodes the Gateway for a cache.
func (g *Gateway) Marshal() ([]byte, error) { return json.Marshal(g) }

// Unmarshal decodes what Marshal made.
func (g *Gateway) Unmarshal(data []byte) error { return json.Unmarshal(data, g) }

// Size is that of the encoding.
func (g *Gateway) Size() int { return size(g) }

// Marshal encodes the ListenerSet for a cache.
func (s *ListenerSet) Marshal() ([]byte, error) { return json.Marshal(s) }

// Unmarshal decodes what Marshal made.
func (s *ListenerSet) Unmarshal(data []byte) error { return json.Unmarshal(data, s) }

// Size is that of the encoding.
func (s *ListenerSet) Size() int { return size(s) }

func size(obj any) int {
	data, err := json.Marshal(obj)
	if err != nil {
		panic(err)
	}
	return len(data)
}

// TrimGateway leaves what is read of a Gateway.
func TrimGateway(g *Gateway) *Gateway {
	g.ObjectMeta, g.Status.Conditions = trimMeta(g.ObjectMeta), trimConditions(g.Status.Conditions)
	trimListeners(g.Status.Listeners)
	return g
}

// TrimListenerSet leaves what is read of a ListenerSet.
func TrimListenerSet(s *ListenerSet) *ListenerSet {
	s.ObjectMeta, s.Status.Conditions = trimMeta(s.ObjectMeta), trimConditions(s.Status.Conditions)
	trimListeners(s.Status.Listeners)
	return s
}

func trimMeta(meta metav1.ObjectMeta) metav1.ObjectMeta {
	return metav1.ObjectMeta{Namespace: meta.Namespace, Name: meta.Name, UID: meta.UID, ResourceVersion: meta.ResourceVersion, CreationTimestamp: meta.CreationTimestamp}
}

func trimListeners(all []ListenerStatus) {
	for i := range all {
		all[i].Conditions = trimConditions(all[i].Conditions)
	}
}

// trimConditions leaves those that say whether something is served, without their times.
func trimConditions(all []metav1.Condition) (kept []metav1.Condition) {
	for _, c := range all {
		if slices.Contains([]string{"Accepted", "Programmed", "Conflicted"}, c.Type) {
			kept = append(kept, metav1.Condition{Type: c.Type, Status: c.Status, Reason: c.Reason, Message: c.Message})
		}
	}
	return kept
}
