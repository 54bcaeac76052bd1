package plan

import (
	"maps"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"service-mirror.io/service-mirror/gateway"
)

// A named targetPort is that of the pods, of those that there were while there are none; one that no pod has closes its
// own port alone.
func TestReadOutside(t *testing.T) {
	svc := &corev1.Service{Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{
		{Name: "typo", Port: 9000, TargetPort: intstr.FromString("tpyo")},
		{Name: "web", Port: 80, TargetPort: intstr.FromString("web")},
		{Name: "websecure", Port: 443, TargetPort: intstr.FromString("websecure")},
		{Name: "pg", Port: 5432, TargetPort: intstr.FromInt32(15000)},
		{Name: "same", Port: 15001},
		{Name: "pg-too", Port: 5433, TargetPort: intstr.FromInt32(15000)},
	}}}
	numeric := map[int32]int32{15000: 5432, 15001: 15001}
	with := func(more map[int32]int32) map[int32]int32 {
		all := maps.Clone(numeric)
		maps.Copy(all, more)
		return all
	}
	slice := func(ports map[string]int32) *discoveryv1.EndpointSlice {
		s := &discoveryv1.EndpointSlice{}
		for name, number := range ports {
			s.Ports = append(s.Ports, discoveryv1.EndpointPort{Name: &name, Port: &number})
		}
		return s
	}
	fixed := map[string]int32{"pg": 15000, "same": 15001, "pg-too": 15000}
	pods := func(more map[string]int32) *discoveryv1.EndpointSlice {
		all := maps.Clone(fixed)
		maps.Copy(all, more)
		return slice(all)
	}
	for name, test := range map[string]struct {
		slices  []*discoveryv1.EndpointSlice
		before  map[string]int32
		want    map[int32]int32 // of the pods, to those of the Service; nil: it is not known
		targets map[string]int32
	}{
		"no slices":                  {targets: map[string]int32{}},
		"no pods":                    {slices: []*discoveryv1.EndpointSlice{slice(nil)}, targets: map[string]int32{}},
		"no pods, but some before":   {slices: []*discoveryv1.EndpointSlice{slice(nil)}, before: map[string]int32{"web": 8000, "websecure": 8443}, targets: map[string]int32{"web": 8000, "websecure": 8443}},
		"no pods, nor one name once": {slices: []*discoveryv1.EndpointSlice{slice(nil)}, before: map[string]int32{"web": 8000, "websecure": 8443, "typo": 0}, want: with(map[int32]int32{8000: 80, 8443: 443}), targets: map[string]int32{"web": 8000, "websecure": 8443, "typo": 0}},
		"a name that pods have now":  {slices: []*discoveryv1.EndpointSlice{slice(map[string]int32{"web": 8000, "websecure": 8443, "typo": 9001})}, before: map[string]int32{"typo": 0}, want: with(map[int32]int32{8000: 80, 8443: 443, 9001: 9000}), targets: map[string]int32{"web": 8000, "websecure": 8443, "typo": 9001}},
		"no pods, but all before":    {before: map[string]int32{"web": 8000, "websecure": 8443, "typo": 9001}, want: with(map[int32]int32{8000: 80, 8443: 443, 9001: 9000}), targets: map[string]int32{"web": 8000, "websecure": 8443, "typo": 9001}},
		"pods without one name":      {slices: []*discoveryv1.EndpointSlice{pods(map[string]int32{"web": 8000, "websecure": 8443})}, want: with(map[int32]int32{8000: 80, 8443: 443}), targets: map[string]int32{"web": 8000, "websecure": 8443, "typo": 0, "pg": 15000, "same": 15001, "pg-too": 15000}},
		"pods without any name":      {slices: []*discoveryv1.EndpointSlice{pods(nil)}, want: numeric, targets: map[string]int32{"web": 0, "websecure": 0, "typo": 0, "pg": 15000, "same": 15001, "pg-too": 15000}},
		"pods of two kinds":          {slices: []*discoveryv1.EndpointSlice{slice(map[string]int32{"web": 8000}), slice(map[string]int32{"websecure": 8443}), slice(nil)}, want: with(map[int32]int32{8000: 80, 8443: 443}), targets: map[string]int32{"web": 8000, "websecure": 8443, "typo": 0}},
		"pods that lost one of them": {slices: []*discoveryv1.EndpointSlice{slice(map[string]int32{"web": 8001})}, before: map[string]int32{"web": 8000, "websecure": 8443}, want: with(map[int32]int32{8001: 80, 8443: 443}), targets: map[string]int32{"web": 8001, "websecure": 8443, "typo": 0}},
	} {
		got, targets, known := ReadOutside(svc, test.slices, test.before)
		if known != (test.want != nil) || (got != nil) != known {
			t.Errorf("%s: known: %v, %+v", name, known, got)
			continue
		}
		if !maps.Equal(targets, test.targets) {
			t.Errorf("%s: it remembers %v, not %v", name, targets, test.targets)
		}
		if !known {
			continue
		}
		want := map[gateway.PortNumber]int32{}
		for inside, outside := range test.want {
			want[gateway.PortNumber{Number: inside, Protocol: corev1.ProtocolTCP}] = outside
		}
		if !maps.Equal(got.Ports, want) {
			t.Errorf("%s: got %v, want %v", name, got.Ports, want)
		}
	}
}
