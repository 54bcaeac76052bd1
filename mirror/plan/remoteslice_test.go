package plan

import (
	"net/netip"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

var barOwn = cache.NewObjectName("default", "bar")

func TestSliceOfARemote(t *testing.T) {
	of := RemoteSlices(barOwn, "paris", true)
	targets := []corev1.EndpointPort{{Name: "", Port: 8080, Protocol: corev1.ProtocolTCP}}
	addrs := []endpoint{{netip.MustParseAddr("192.0.2.1"), false}, {netip.MustParseAddr("2001:db8::1"), true}}
	got := of[0].desired(nil, targets, addrs)
	name, port, tcp, no := "", int32(8080), corev1.ProtocolTCP, false
	want := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar.paris.ipv4", Labels: map[string]string{
			"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": "paris", "service-mirror.io/failover": "true",
			"kubernetes.io/service-name": "bar", "endpointslice.kubernetes.io/managed-by": "service-mirror.io",
		}, Annotations: map[string]string{"service-mirror.io/mirror": "default/bar", "service-mirror.io/failover": "true"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}}},
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port, Protocol: &tcp}},
	}
	if !equality.Semantic.DeepEqual(got, want) {
		t.Fatalf("got %+v, want %+v", got, want)
	}
	if got.Endpoints[0].Conditions.Ready == nil || got.Ports[0].Name == nil {
		t.Error("readiness or a port's name is nil")
	}
	if got := of[1].desired(nil, targets, addrs); got.Name != "bar.paris.ipv6" || len(got.Endpoints) != 1 || !*got.Endpoints[0].Conditions.Ready {
		t.Errorf("got %+v", got)
	}
	if of[0].desired(nil, nil, addrs) != nil || of[0].desired(nil, targets, addrs[1:]) != nil {
		t.Error("a slice without ports or endpoints is desired")
	}
	merged := RemoteSlices(barOwn, "paris", false)[0].desired(nil, targets, addrs)
	if _, has := merged.Labels[FailoverLabel]; has || !SliceDiffers(merged, got) {
		t.Errorf("got %+v", merged)
	}
}

// TestSliceOfARemoteIsKept changes what is live as users may: only what they added to the metadata stays.
func TestSliceOfARemoteIsKept(t *testing.T) {
	of := RemoteSlices(barOwn, "paris", true)[0]
	targets := []corev1.EndpointPort{{Name: "http", Port: 8080, Protocol: corev1.ProtocolTCP}}
	addrs := []endpoint{{netip.MustParseAddr("192.0.2.1"), true}, {netip.MustParseAddr("192.0.2.2"), true}}
	stored := of.desired(nil, targets, addrs)
	for _, test := range []struct {
		name string
		edit func(*discoveryv1.EndpointSlice)
		same bool
	}{
		{"nothing", func(*discoveryv1.EndpointSlice) {}, true},
		{"users' metadata", func(s *discoveryv1.EndpointSlice) { s.Labels["team"], s.Annotations["note"] = "a", "b" }, true},
		{"the order", func(s *discoveryv1.EndpointSlice) { slices.Reverse(s.Endpoints) }, true},
		{"readiness", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = new(bool) }, false},
		{"readiness unset", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Conditions.Ready = nil }, false},
		{"a hint", func(s *discoveryv1.EndpointSlice) { s.Endpoints[0].Hints = &discoveryv1.EndpointHints{} }, false},
		{"a port", func(s *discoveryv1.EndpointSlice) { s.Ports[0].Port = new(int32) }, false},
		{"another Service", func(s *discoveryv1.EndpointSlice) { s.Labels["kubernetes.io/service-name"] = "baz" }, false},
		{"a proxy's name", func(s *discoveryv1.EndpointSlice) { s.Labels["service.kubernetes.io/service-proxy-name"] = "x" }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			live := stored.DeepCopy()
			test.edit(live)
			want := of.desired(live, targets, addrs)
			if SliceDiffers(live, want) == test.same {
				t.Errorf("live %+v, desired %+v", live, want)
			}
			if again := of.desired(want, targets, addrs); SliceDiffers(want, again) || !of.Owns(want) {
				t.Errorf("desired %+v, then %+v", want, again)
			}
		})
	}
}

func TestWhoseASliceOfARemoteIs(t *testing.T) {
	of := RemoteSlices(barOwn, "paris", true)[0]
	stored := of.desired(nil, []corev1.EndpointPort{{Port: 80}}, []endpoint{{netip.MustParseAddr("192.0.2.1"), true}})
	for _, test := range []struct {
		name string
		edit func(*discoveryv1.EndpointSlice)
		ours bool
	}{
		{"as made", func(*discoveryv1.EndpointSlice) {}, true},
		{"copied to another name", func(s *discoveryv1.EndpointSlice) { s.Name = "bar.paris.ipv4-copy" }, false},
		{"copied to another namespace", func(s *discoveryv1.EndpointSlice) { s.Namespace = "other" }, false},
		{"given to another Service", func(s *discoveryv1.EndpointSlice) { s.Labels["kubernetes.io/service-name"] = "baz" }, true}, // which is corrected
		{"labelled with another remote", func(s *discoveryv1.EndpointSlice) { s.Labels["service-mirror.io/cluster"] = "berlin" }, false},
		{"without the annotation", func(s *discoveryv1.EndpointSlice) { s.Annotations = nil }, false},
		{"without the label", func(s *discoveryv1.EndpointSlice) { delete(s.Labels, "app.kubernetes.io/managed-by") }, false},
		{"of another manager", func(s *discoveryv1.EndpointSlice) { s.Labels["endpointslice.kubernetes.io/managed-by"] = "me" }, false},
		{"without the label for failover", func(s *discoveryv1.EndpointSlice) { delete(s.Labels, "service-mirror.io/failover") }, true},
		{"without the annotation for failover", func(s *discoveryv1.EndpointSlice) { delete(s.Annotations, "service-mirror.io/failover") }, true},
		{"with an exported Service", func(s *discoveryv1.EndpointSlice) { s.Annotations["service-mirror.io/remote-service"] = "default/bar" }, true},
		{"of a merged mirror", func(s *discoveryv1.EndpointSlice) {
			delete(s.Labels, "service-mirror.io/failover")
			s.Annotations["service-mirror.io/remote-service"] = "default/bar"
		}, false},
		{"of another family", func(s *discoveryv1.EndpointSlice) { s.AddressType = discoveryv1.AddressTypeIPv6 }, false},
	} {
		live := stored.DeepCopy()
		if test.edit(live); of.Owns(live) != test.ours {
			t.Errorf("%s: ours is %t", test.name, of.Owns(live))
		}
	}
}
