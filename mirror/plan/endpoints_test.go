package plan

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway"
)

// TestWhatIsNotKnownIsReadFromWhatIsLive is the rule that lets a restart write nothing.
func TestWhatIsNotKnownIsReadFromWhatIsLive(t *testing.T) {
	live := []string{"192.0.2.1", "192.0.2.2 dead"}
	for _, test := range []struct {
		name    string
		gateway []string
		partial bool
		missing corev1.IPFamily
		want    []string
	}{
		{name: "all known", gateway: []string{"192.0.2.1 dead", "192.0.2.2"}, want: []string{"192.0.2.1 dead", "192.0.2.2"}},
		{name: "health unprobed", gateway: []string{"192.0.2.1 unprobed", "192.0.2.2 unprobed"}, want: live},
		{name: "a new one is ready", gateway: []string{"192.0.2.2 unprobed", "192.0.2.3 unprobed"}, want: []string{"192.0.2.2 dead", "192.0.2.3"}},
		{name: "no hostname resolved", partial: true, want: live},
		{name: "some resolved", gateway: []string{"192.0.2.2", "192.0.2.3"}, partial: true, want: []string{"192.0.2.1", "192.0.2.2", "192.0.2.3"}},
		{name: "IPv4 is not known", gateway: []string{"2001:db8::1"}, partial: true, missing: ipv4, want: live},
		{name: "IPv6 is not known", gateway: []string{"192.0.2.2", "192.0.2.3"}, partial: true, missing: ipv6, want: []string{"192.0.2.2", "192.0.2.3"}},
		{name: "known to have none"},
	} {
		for _, api := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} {
			for _, before := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} { // the flag may have changed
				t.Run(fmt.Sprintf("%s/%s after %s", test.name, api, before), func(t *testing.T) {
					source := parisBar()
					source.Gateway = gatewayAt(live...)
					had, _ := Policy{EndpointsAPI: before}.Desired(source, Objects{Service: storedBar().Service}, nil, nil)
					source.Gateway = gatewayAt(test.gateway...)
					source.Gateway.Partial, source.Gateway.Missing = test.partial, test.missing
					want, err := Policy{EndpointsAPI: api}.Desired(source, had, nil, nil)
					if got := said(want); (err != nil) != (len(test.want) == 0) || !slices.Equal(got, test.want) {
						t.Errorf("got %q, %v, want %q", got, err, test.want)
					}
					if usesSlices := want.IPv4 != nil; usesSlices != (api == UseEndpointSlices && len(test.want) > 0) || (want.Endpoints != nil) != (api == UseEndpoints) {
						t.Errorf("got %s", text(want))
					}
				})
			}
		}
	}
}

// What is not known of a family is not what the gateway lacks.
func TestNoAddressOfAFamily(t *testing.T) {
	for _, test := range []struct {
		name    string
		partial bool
		missing corev1.IPFamily
		want    string
	}{
		{"all is known", false, "", "the gateway has only IPv6 addresses"},
		{"IPv4 is not known", true, ipv4, "the gateway's hostnames have not been resolved yet"},
		{"IPv6 is not known", true, ipv6, "the gateway has only IPv6 addresses"},
		{"neither is known", true, "", "the gateway's hostnames have not been resolved yet"},
	} {
		source := parisBar()
		source.Gateway = gatewayAt("2001:db8::1")
		source.Gateway.Partial, source.Gateway.Missing = test.partial, test.missing
		_, problems := (Policy{}).Desired(source, Objects{}, []corev1.IPFamily{ipv4}, nil)
		if len(problems) != 1 || problems[0].Reason != NoAddress || !strings.Contains(problems[0].Message, test.want) {
			t.Errorf("%s: got %v, want %q", test.name, problems, test.want)
		}
	}
}

func TestSlices(t *testing.T) {
	source := parisBar()
	source.Gateway = gatewayAt("192.0.2.1", "192.0.2.2 dead", "2001:db8::1")
	policy := Policy{EndpointsAPI: UseEndpointSlices}
	got, err := policy.Desired(source, Objects{}, nil, nil)
	if err != nil || got.Endpoints != nil {
		t.Fatalf("got %s, %v", text(got), err)
	}
	slice := func(family discoveryv1.AddressType, name string) *discoveryv1.EndpointSlice {
		port := func(name string, number int32) discoveryv1.EndpointPort {
			tcp := corev1.ProtocolTCP
			return discoveryv1.EndpointPort{Name: &name, Port: &number, Protocol: &tcp}
		}
		return &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, Labels: map[string]string{
				"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": "paris",
				"kubernetes.io/service-name": "bar-paris", "endpointslice.kubernetes.io/managed-by": "service-mirror.io",
			}, Annotations: map[string]string{"service-mirror.io/mirror": "default/bar-paris"}},
			AddressType: family,
			Ports:       []discoveryv1.EndpointPort{port("http", 8080), port("https", 8443)},
		}
	}
	endpoint := func(addr string, ready bool) discoveryv1.Endpoint {
		return discoveryv1.Endpoint{Addresses: []string{addr}, Conditions: discoveryv1.EndpointConditions{Ready: &ready}}
	}
	want4, want6 := slice(discoveryv1.AddressTypeIPv4, "bar-paris-ipv4"), slice(discoveryv1.AddressTypeIPv6, "bar-paris-ipv6")
	want4.Endpoints = []discoveryv1.Endpoint{endpoint("192.0.2.1", true), endpoint("192.0.2.2", false)}
	want6.Endpoints = []discoveryv1.Endpoint{endpoint("2001:db8::1", true)}
	if !equality.Semantic.DeepEqual(got.IPv4, want4) || !equality.Semantic.DeepEqual(got.IPv6, want6) {
		t.Errorf("got\n%s\n%s\nwant\n%s\n%s", text(got.IPv4), text(got.IPv6), text(want4), text(want6))
	}
	only4, _ := policy.Desired(source, Objects{}, []corev1.IPFamily{ipv4}, nil)
	if only4.Service = nil; only4.IPv6 != nil || !equality.Semantic.DeepEqual(only4.IPv4, want4) {
		t.Errorf("of an IPv4 mirror: %s", text(only4))
	}
}

func TestLinkerd(t *testing.T) {
	source := parisBar()
	source.Gateway.Linkerd = gateway.Linkerd{Identity: "gateway.paris", Domain: "paris.local"}
	wantAnnotations := map[string]string{
		"service-mirror.io/mirror":                  "default/bar-paris",
		"mirror.linkerd.io/remote-gateway-identity": "gateway.paris",
		"mirror.linkerd.io/remote-svc-fq-name":      "bar.default.svc.paris.local",
	}
	for _, api := range []EndpointsAPI{UseEndpoints, UseEndpointSlices} {
		policy := Policy{EndpointsAPI: api}
		part := func(o Objects) metav1.Object {
			if api == UseEndpoints {
				return o.Endpoints
			}
			return o.IPv4
		}
		got, _ := policy.Desired(source, Objects{}, nil, nil)
		if obj := part(got); !maps.Equal(obj.GetAnnotations(), wantAnnotations) || obj.GetLabels()["mirror.linkerd.io/cluster-name"] != "paris" {
			t.Errorf("%s: got %s", api, text(obj))
		}
		if svc := got.Service; strings.Contains(text(svc), "linkerd") {
			t.Errorf("the Service: %s", text(svc))
		}
		plain := parisBar()
		after, _ := policy.Desired(plain, got, nil, nil)
		if strings.Contains(text(after), "linkerd") {
			t.Errorf("%s: what stood for a gateway that is Linkerd's no more stays: %s", api, text(after))
		}
		own := part(got)
		own.SetAnnotations(map[string]string{"mirror.linkerd.io/remote-svc-fq-name": "x.y.svc.z", "mirror.linkerd.io/remote-gateway-identity": "i"})
		theirs, _ := policy.Desired(plain, got, nil, nil)
		if obj := part(theirs); obj.GetAnnotations()["mirror.linkerd.io/remote-svc-fq-name"] != "x.y.svc.z" {
			t.Errorf("%s: another's annotations are touched: %s", api, text(obj))
		}
	}
}
