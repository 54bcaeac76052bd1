package plan

import (
	"reflect"
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
)

// The fields of an exported Service, by what becomes of them. A field that the
// API gains is in neither list: decide, then add it here.
var (
	copiedSpec  = []string{"Ports", "SessionAffinity", "SessionAffinityConfig"}
	ignoredSpec = []string{
		"Selector", "ClusterIP", "ClusterIPs", "Type", "ExternalIPs", "LoadBalancerIP", "LoadBalancerSourceRanges",
		"ExternalName", "ExternalTrafficPolicy", "HealthCheckNodePort", "PublishNotReadyAddresses", "IPFamilies",
		"IPFamilyPolicy", "AllocateLoadBalancerNodePorts", "LoadBalancerClass", "InternalTrafficPolicy", "TrafficDistribution",
	}
	copiedPort  = []string{"Name", "Protocol", "AppProtocol", "Port"}
	ignoredPort = []string{"TargetPort", "NodePort"}
)

func TestEveryFieldOfAServiceIsDecidedUpon(t *testing.T) {
	checkFields(t, copiedSpec, ignoredSpec, func(svc *corev1.Service) reflect.Value { return reflect.ValueOf(&svc.Spec).Elem() })
}

func TestEveryFieldOfAPortIsDecidedUpon(t *testing.T) {
	checkFields(t, copiedPort, ignoredPort, func(svc *corev1.Service) reflect.Value { return reflect.ValueOf(&svc.Spec.Ports[0]).Elem() })
}

// checkFields sets one field after the other on an exported Service and looks
// whether its mirror changes.
func checkFields(t *testing.T, copied, ignored []string, part func(*corev1.Service) reflect.Value) {
	t.Helper()
	kind := part(exportedBar()).Type()
	for i := range kind.NumField() {
		field := kind.Field(i).Name
		source := parisBar()
		before, _ := Policy{}.Desired(source, Objects{}, nil, nil)
		fill(part(source.Service).Field(i))
		after, _ := Policy{}.Desired(source, Objects{}, nil, nil)
		changed := !equality.Semantic.DeepEqual(before.Service, after.Service)
		switch {
		case slices.Contains(copied, field) && !changed:
			t.Errorf("%s.%s is copied, yet the mirror does not change with it", kind.Name(), field)
		case slices.Contains(ignored, field) && changed:
			t.Errorf("%s.%s is ignored, yet the mirror changes with it", kind.Name(), field)
		case !slices.Contains(copied, field) && !slices.Contains(ignored, field):
			t.Errorf("%s.%s is new: is it to be copied?", kind.Name(), field)
		}
		trimmed := source
		trimmed.Service = Policy{}.TrimExported(source.Service)
		if cut, _ := (Policy{}).Desired(trimmed, Objects{}, nil, nil); !equality.Semantic.DeepEqual(cut, after) {
			t.Errorf("%s.%s is lost at the cache's door", kind.Name(), field)
		}
	}
	for _, field := range slices.Concat(copied, ignored) {
		if _, ok := kind.FieldByName(field); !ok {
			t.Errorf("%s has no field %s", kind.Name(), field)
		}
	}
}

// fill sets a value and everything in it to something that it was not.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString("filled")
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt(4711)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0))
	case reflect.Map:
		key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
		fill(key)
		fill(value)
		v.Set(reflect.MakeMap(v.Type()))
		v.SetMapIndex(key, value)
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i))
		}
	default:
		panic("fill does not know " + v.Type().String())
	}
}
