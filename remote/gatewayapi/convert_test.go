package gatewayapi

import (
	"reflect"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

func of[T any](value T) *T { return &value }

func state(kind string, status metav1.ConditionStatus, reason, message string) metav1.Condition {
	return metav1.Condition{Type: kind, Status: status, Reason: reason, Message: message, LastTransitionTime: metav1.Now()}
}

// gatewayOf is ingress/public, which allows ListenerSets from there.
func gatewayOf(from string, status GatewayStatus, listeners ...Listener) *Gateway {
	g := &Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "public"}, Spec: GatewaySpec{Listeners: listeners}, Status: status}
	g.Spec.AllowedListeners = &AllowedListeners{Namespaces: &AllowedNamespaces{from}}
	return g
}

func setOf(namespace, name string, parent ParentRef, accepted metav1.ConditionStatus, listeners ...Listener) *ListenerSet {
	return &ListenerSet{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}, Spec: ListenerSetSpec{ParentRef: parent, Listeners: listeners},
		Status: ListenerSetStatus{Conditions: []metav1.Condition{state("Accepted", accepted, "x", "")}}}
}

func createdAt(second int64, set *ListenerSet) *ListenerSet {
	set.CreationTimestamp = metav1.Unix(second, 0)
	return set
}

func TestConvert(t *testing.T) {
	web, pg := Listener{"web", 80, "HTTP"}, Listener{"pg", 15000, "TCP"}
	has := func(l Listener, problem string) gateway.Listener {
		return gateway.Listener{Name: l.Name, Port: l.Port, Protocol: l.Protocol, Problem: problem}
	}
	const yes, no = metav1.ConditionTrue, metav1.ConditionFalse
	here := ParentRef{Name: "public"}
	there := ParentRef{Group: of(Group), Kind: of("Gateway"), Namespace: of("ingress"), Name: "public"}
	for _, test := range []struct {
		name string
		from *Gateway
		sets []*ListenerSet
		want *gateway.APIGateway
	}{
		{name: "none"},
		{name: "nothing is known of it", from: gatewayOf("", GatewayStatus{}, web), want: &gateway.APIGateway{Listeners: []gateway.Listener{has(web, "")}}},
		{name: "addresses", from: gatewayOf("", GatewayStatus{Addresses: []Address{{nil, "192.0.2.1"}, {of("IPAddress"), "2001:db8::1"}, {of("Hostname"), "lb.example.com"}, {of("example.com/x"), "y"}, {nil, ""}}}),
			want: &gateway.APIGateway{IPs: []string{"192.0.2.1", "2001:db8::1"}, Hostnames: []string{"lb.example.com"}}},
		{name: "it is not programmed", from: gatewayOf("", GatewayStatus{Conditions: []metav1.Condition{state("Programmed", no, "AddressNotAssigned", "no address")}}),
			want: &gateway.APIGateway{Problems: []string{"is not programmed (AddressNotAssigned: no address): check its status and its controller"}}},
		{name: "it is not accepted", from: gatewayOf("", GatewayStatus{Conditions: []metav1.Condition{state("Programmed", no, "Invalid", ""), state("Accepted", no, "Invalid", "")}}),
			want: &gateway.APIGateway{Problems: []string{"is not accepted (Invalid): check its status and its controller"}}},
		{name: "it is as it should be", from: gatewayOf("", GatewayStatus{Conditions: []metav1.Condition{state("Programmed", yes, "Programmed", ""), state("Accepted", yes, "Accepted", "")}}),
			want: &gateway.APIGateway{}},
		{name: "nobody has looked at it", from: gatewayOf("", GatewayStatus{Conditions: []metav1.Condition{state("Programmed", metav1.ConditionUnknown, "Pending", "")}}),
			want: &gateway.APIGateway{}},
		{name: "listeners", from: gatewayOf("", GatewayStatus{Listeners: []ListenerStatus{
			{"web", []metav1.Condition{state("Programmed", no, "Invalid", "no certificate")}},
			{"other", []metav1.Condition{state("Programmed", no, "Invalid", "")}},
			{"pg", []metav1.Condition{state("Programmed", no, "Pending", ""), state("Accepted", yes, "Accepted", ""), state("Conflicted", no, "NoConflicts", "")}},
			{"pg2", []metav1.Condition{state("Conflicted", yes, "ProtocolConflict", "")}},
		}}, web, pg, Listener{"pg2", 15000, "UDP"}), want: &gateway.APIGateway{Listeners: []gateway.Listener{has(web, "Invalid: no certificate"), has(pg, ""), has(Listener{"pg2", 15000, "UDP"}, "ProtocolConflict")}}},
		{name: "sets", from: gatewayOf("All", GatewayStatus{}, web), sets: []*ListenerSet{
			setOf("z", "z", there, yes, Listener{"z", 15002, "TCP"}), setOf("ingress", "a", here, yes, pg),
			setOf("b", "not-accepted", there, no, Listener{"x", 1, "TCP"}), setOf("b", "another-gateway", here, yes, Listener{"x", 1, "TCP"}),
			setOf("ingress", "another-kind", ParentRef{Kind: of("Service"), Name: "public"}, yes, Listener{"x", 1, "TCP"}),
			{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "no-status"}, Spec: ListenerSetSpec{ParentRef: here, Listeners: []Listener{{"x", 1, "TCP"}}}},
		}, want: &gateway.APIGateway{Listeners: []gateway.Listener{has(web, ""), has(pg, ""), has(Listener{"z", 15002, "TCP"}, "")}}},
		{name: "sets with the same names", from: gatewayOf("All", GatewayStatus{}, web, pg), sets: []*ListenerSet{
			createdAt(2, setOf("a", "younger", there, yes, Listener{"x", 15002, "TCP"})), createdAt(1, setOf("z", "older", there, yes, Listener{"x", 15001, "TCP"}, Listener{"pg", 15003, "TCP"}, web)),
		}, want: &gateway.APIGateway{Listeners: []gateway.Listener{has(web, ""), has(pg, ""), has(Listener{"x", 15001, "TCP"}, ""), has(Listener{"", 15003, "TCP"}, ""), has(web, ""), has(Listener{"", 15002, "TCP"}, "")}}},
		{name: "sets with the same names for TCP and UDP", from: gatewayOf("All", GatewayStatus{}, pg), sets: []*ListenerSet{
			setOf("ingress", "a", here, yes, Listener{"pg", 15000, "UDP"}, Listener{"x", 15001, "UDP"}, Listener{"x", 15001, "TCP"}, Listener{"x", 15002, "UDP"}),
		}, want: &gateway.APIGateway{Listeners: []gateway.Listener{
			has(pg, ""), has(Listener{"pg", 15000, "UDP"}, ""), has(Listener{"x", 15001, "UDP"}, ""), has(Listener{"x", 15001, "TCP"}, ""), has(Listener{"", 15002, "UDP"}, "")}}},
		{name: "sets that it does not allow", from: gatewayOf("None", GatewayStatus{}, web), sets: []*ListenerSet{setOf("ingress", "a", here, yes, pg)},
			want: &gateway.APIGateway{Listeners: []gateway.Listener{has(web, "")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if test.from != nil { // as a cache has it
				data, err := TrimGateway(test.from).Marshal()
				if err != nil {
					t.Fatal(err)
				}
				test.from = &Gateway{}
				if err := test.from.Unmarshal(data); err != nil || test.from.Size() != len(data) {
					t.Fatal(err, test.from.Size(), len(data))
				}
			}
			for i := range test.sets {
				test.sets[i] = TrimListenerSet(test.sets[i]).DeepCopyObject().(*ListenerSet)
			}
			if got := Convert(test.from, test.sets); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got %+v\nwant %+v", got, test.want)
			}
		})
	}
}
