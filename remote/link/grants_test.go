package link

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"

	"service-mirror.io/service-mirror/remote"
)

// shippedGrants are the objects of deploy/remote that a link grants, with other names in place of the examples.
func shippedGrants(t *testing.T, parts ...string) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, part := range parts { // FILE, or FILE:NAMESPACE, or FILE:NAMESPACE:EXAMPLE:NAME
		fields := append(strings.Split(part, ":"), "", "", "")
		content, err := os.ReadFile(filepath.Join("../../deploy/remote", fields[0]))
		if err != nil {
			t.Fatal(err)
		}
		kustomization, err := os.ReadFile(filepath.Join("../../deploy/remote", filepath.Dir(fields[0]), "kustomization.yaml"))
		if err != nil {
			t.Fatal(err)
		}
		decoder := yaml.NewYAMLOrJSONDecoder(bytes.NewReader(content), 4096)
		for {
			var object unstructured.Unstructured
			if err := decoder.Decode(&object); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if fields[1] != "" && object.GetKind() != "ClusterRole" && object.GetKind() != "ClusterRoleBinding" {
				object.SetNamespace(fields[1])
			}
			if bytes.Contains(kustomization, []byte("{app.kubernetes.io/name: service-mirror-reader}")) {
				object.SetLabels(map[string]string{"app.kubernetes.io/name": "service-mirror-reader"})
			}
			if fields[2] != "" {
				rename(object.Object, fields[2], fields[3])
			}
			all[title(&object)] = object.Object
		}
	}
	return all
}

// rename puts a name in place of an example, where it is whole or ends a name with parts.
func rename(value any, example, name string) any {
	switch value := value.(type) {
	case map[string]any:
		for key, inner := range value {
			if key != "resources" && key != "verbs" {
				value[key] = rename(inner, example, name)
			}
		}
	case []any:
		for i := range value {
			value[i] = rename(value[i], example, name)
		}
	case string:
		if value == example {
			return name
		}
		if before, found := strings.CutSuffix(value, ":"+example); found {
			return before + ":" + name
		}
	}
	return value
}

// A link grants what the kustomizations of deploy/remote do: who applies these has the same.
func TestGrantsAreAsShipped(t *testing.T) {
	account := []string{"account/namespace.yaml", "account/account.yaml"}
	for _, test := range []struct {
		keys  string
		parts []string
	}{
		{"gateway=ingress/gw", []string{"everywhere.yaml"}},
		{"gateway=gateway-api:ingress/front", []string{"everywhere.yaml", "gateway-api/listenersets.yaml", "gateway-api/role.yaml:ingress:public:front"}},
		{"gateway=gateway-api:ingress/front,gateway=gateway-api:ingress/back", []string{"everywhere.yaml", "gateway-api/listenersets.yaml",
			"gateway-api/role.yaml:ingress:public:front", "gateway-api/role.yaml:ingress:public:back"}},
		{"gateway=ingress/gw,records=pub", []string{"everywhere.yaml", "records/role.yaml:pub"}},
		{"gateway=ingress/gw,tcp-services=ingress/tcp,udp-services=ingress/udp", []string{"everywhere.yaml",
			"configmap/role.yaml:ingress:tcp-services:tcp", "configmap/role.yaml:ingress:tcp-services:udp"}},
		{"gateway=ingress/gw,namespaces=a,b", []string{"identity/role.yaml", "namespace/role.yaml:a", "namespace/role.yaml:b", "gateway/role.yaml:ingress:gateway:gw"}},
		{"gateway=a/gw,namespaces=a", []string{"identity/role.yaml", "namespace/role.yaml:a"}},
		{"address=192.0.2.1,gateway-port=443,namespaces=a", []string{"identity/role.yaml", "namespace/role.yaml:a"}},
	} {
		spec, err := ParseKeys(test.keys).spec("paris")
		if err != nil {
			t.Fatal(err)
		}
		want := shippedGrants(t, append(account[:2:2], test.parts...)...)
		got := granted(t, spec)
		for name := range want {
			if !reflect.DeepEqual(got[name], want[name]) {
				t.Errorf("%s: %s is\n%v, as shipped\n%v", test.keys, name, got[name], want[name])
			}
			delete(got, name)
		}
		for name := range got {
			t.Errorf("%s: %s is not needed", test.keys, name)
		}
	}
}

func granted(t *testing.T, spec remote.Spec) map[string]map[string]any {
	t.Helper()
	all := map[string]map[string]any{}
	for _, object := range grantsFor(DefaultName, spec, gatewaysOf(spec, Daemon{})) {
		sent, err := content(object)
		if err != nil {
			t.Fatal(err)
		}
		all[title(object.(runtime.Object))] = sent.Object
	}
	return all
}
