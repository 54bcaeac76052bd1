package publish

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	gatewayv1alpha2 "sigs.k8s.io/gateway-api/apis/v1alpha2"
	"sigs.k8s.io/yaml"
)

// typed are Go types of the kinds, by apiVersion and kind.
var typed = map[string]func() any{
	"gateway.networking.k8s.io/v1 HTTPRoute":      func() any { return &gatewayv1.HTTPRoute{} },
	"gateway.networking.k8s.io/v1 TLSRoute":       func() any { return &gatewayv1.TLSRoute{} },
	"gateway.networking.k8s.io/v1 TCPRoute":       func() any { return &gatewayv1.TCPRoute{} },
	"gateway.networking.k8s.io/v1 UDPRoute":       func() any { return &gatewayv1.UDPRoute{} },
	"gateway.networking.k8s.io/v1alpha2 TCPRoute": func() any { return &gatewayv1alpha2.TCPRoute{} },
	"gateway.networking.k8s.io/v1 ListenerSet":    func() any { return &gatewayv1.ListenerSet{} },
	"networking.k8s.io/v1 Ingress":                func() any { return &networkingv1.Ingress{} },
	"v1 Service":                                  func() any { return &corev1.Service{} },
}

var resources = map[string]string{"HTTPRoute": "httproutes", "TLSRoute": "tlsroutes", "TCPRoute": "tcproutes", "UDPRoute": "udproutes", "Ingress": "ingresses",
	"ListenerSet": "listenersets", "Service": "services"}

// The routes and ListenerSets in the outputs of the fixtures of gateway/publish/plan are what Gateway API's own types have,
// no field more, and an API server stores them as they are: with a default that is not written out, each would be written
// again and again.
func TestFixturesAreWhatTheAPIServerStores(t *testing.T) {
	outputs, err := filepath.Glob("../../gateway/publish/plan/testdata/*.out.yaml")
	if err != nil || len(outputs) == 0 {
		t.Fatal(outputs, err)
	}
	client, err := dynamic.NewForConfig(paris.Config)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]int{}
	for _, path := range outputs {
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range strings.Split(string(content), "---\n") {
			var obj unstructured.Unstructured
			if err := yaml.Unmarshal([]byte(document), &obj.Object); err != nil {
				t.Fatal(path, err)
			}
			if resources[obj.GetKind()] == "" {
				continue
			}
			of := obj.GetAPIVersion() + " " + obj.GetKind()
			seen[of]++
			t.Run(fmt.Sprintf("%s %s %s", filepath.Base(path), of, obj.GetName()), func(t *testing.T) {
				checkTyped(t, of, document)
				if strings.Contains(of, "v1alpha2") {
					return // another test has it served
				}
				checkStored(t, client, &obj)
			})
		}
	}
	for of := range typed {
		if seen[of] == 0 {
			t.Errorf("no fixture has a %s", of)
		}
	}
}

func checkTyped(t *testing.T, of, document string) {
	make, known := typed[of]
	if !known {
		t.Fatalf("no type is known for %s", of)
	}
	if err := yaml.UnmarshalStrict([]byte(document), make()); err != nil {
		t.Errorf("its type does not have it: %v", err)
	}
}

func checkStored(t *testing.T, client dynamic.Interface, obj *unstructured.Unstructured) {
	version, err := schema.ParseGroupVersion(obj.GetAPIVersion())
	if err != nil {
		t.Fatal(err)
	}
	got, err := client.Resource(version.WithResource(resources[obj.GetKind()])).Namespace(obj.GetNamespace()).
		Create(t.Context(), obj, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}, FieldValidation: metav1.FieldValidationStrict})
	if err != nil {
		t.Fatal(err)
	}
	plain := func(value any) (plain any) {
		text, err := json.Marshal(value)
		if err == nil {
			err = json.Unmarshal(text, &plain)
		}
		if err != nil {
			t.Fatal(err)
		}
		return plain
	}
	if want, got := plain(obj.Object["spec"]), plain(got.Object["spec"]); !equality.Semantic.DeepEqual(want, got) {
		t.Errorf("written %v\nstored %v", want, got)
	}
}
