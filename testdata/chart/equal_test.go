package chart

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
	"sigs.k8s.io/yaml"

	"service-mirror.io/service-mirror/testdata/harness"
)

// kustomization is one of deploy/.
type kustomization struct {
	dir string
	// on are components that it has as comments, off those that it has.
	on, off []string
	// namespace is that of objects that have none, as kubectl apply --namespace gives it.
	namespace string
}

// The chart and the kustomize files install the same, object by object, each of them with all that is optional.
func TestEqualToKustomize(t *testing.T) {
	local, publish := kustomization{dir: "local"}, kustomization{dir: "publish"}
	const published = "daemon: {enabled: false}\npublisher: {enabled: true, names: [paris], gateway: ingress/public, "
	for name, c := range map[string]struct {
		values string
		is     []kustomization
		change func(objects) // what the kustomize files say in a comment
	}{
		"default values":    {values: "", is: []kustomization{local}},
		"own-ranges off":    {values: "daemon: {ownRanges: false}", is: []kustomization{{dir: "local", off: []string{"own-ranges"}}}},
		"create-namespaces": {values: "daemon: {createNamespaces: true}", is: []kustomization{{dir: "local", on: []string{"create-namespaces"}}}},
		"endpointslices":    {values: "daemon: {endpointSlices: true}", is: []kustomization{{dir: "local", on: []string{"endpointslices"}}}},
		"all of the daemon's": {
			values: "daemon: {createNamespaces: true, endpointSlices: true}",
			is:     []kustomization{{dir: "local", on: []string{"create-namespaces", "endpointslices"}}},
		},
		"publisher": {values: published + "to: [gateway-api]}", is: []kustomization{publish}},
		"listeners": {
			values: published + "to: [gateway-api], listeners: true}",
			is:     []kustomization{{dir: "publish", on: []string{"listeners"}}},
		},
		"names": {
			values: published + "to: [gateway-api, names]}",
			is:     []kustomization{{dir: "publish", on: []string{"names"}}},
			change: func(o objects) { insertArgument(o, "--to=gateway-api", "--to=names") },
		},
		"reader": {values: "daemon: {enabled: false}\nreader: {enabled: true}", is: []kustomization{{dir: "remote"}}},
		"reader of some namespaces": {
			values: "daemon: {enabled: false}\nreader: {enabled: true, namespaces: [a, b], gateways: [ingress/gateway], " +
				"gatewayAPI: [ingress/public], configMaps: [ingress/tcp-services], records: [service-mirror]}",
			is: []kustomization{
				{dir: "remote/account"}, {dir: "remote/identity"}, {dir: "remote/namespace", namespace: "a"}, {dir: "remote/namespace", namespace: "b"},
				{dir: "remote/gateway", namespace: "ingress"}, {dir: "remote/gateway-api", namespace: "ingress"},
				{dir: "remote/configmap", namespace: "ingress"}, {dir: "remote/records", namespace: ours},
			},
		},
		"monitoring": {
			values: "daemon: {enabled: false}\nmonitoring: {podMonitor: {enabled: true}, prometheusRule: {enabled: true}}",
			is:     []kustomization{{dir: "monitoring"}},
		},
		"all": {
			values: "publisher: {enabled: true, names: [paris], to: [gateway-api], gateway: ingress/public}\nreader: {enabled: true}",
			is:     []kustomization{local, publish, {dir: "remote"}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := objects{}
			for _, k := range c.is {
				k.build(t, want)
			}
			if c.change != nil {
				c.change(want)
			}
			same(t, rendered(t, ours, c.values), want)
		})
	}
}

func same(t *testing.T, got, want objects) {
	t.Helper()
	for key, object := range want {
		switch {
		case got[key] == nil:
			t.Errorf("the chart lacks %s", key)
		default:
			differ(t, key, got[key].Object, object.Object)
		}
	}
	for key := range got {
		if want[key] == nil {
			t.Errorf("the chart has %s, which kustomize does not", key)
		}
	}
}

// differ reports where two values are not the same.
func differ(t *testing.T, path string, got, want any) {
	t.Helper()
	switch want := want.(type) {
	case map[string]any:
		got, ok := got.(map[string]any)
		for key := range got {
			if _, has := want[key]; !has {
				t.Errorf("%s.%s: the chart has it, kustomize does not", path, key)
			}
		}
		for key := range want {
			if _, has := got[key]; !has {
				t.Errorf("%s.%s: kustomize has it, the chart does not (%v)", path, key, ok)
				continue
			}
			differ(t, path+"."+key, got[key], want[key])
		}
	case []any:
		got, _ := got.([]any)
		if len(got) != len(want) {
			t.Errorf("%s: the chart has\n%v\nkustomize\n%v", path, got, want)
			return
		}
		for i := range want {
			differ(t, fmt.Sprintf("%s[%d]", path, i), got[i], want[i])
		}
	default:
		if lines(got) != lines(want) {
			t.Errorf("%s: the chart has %v, kustomize %v", path, got, want)
		}
	}
}

// lines is a value without empty lines: where kustomize replaces something, it adds some to folded texts.
func lines(value any) string {
	return regexp.MustCompile(`(\\n)+`).ReplaceAllString(fmt.Sprintf("%#v", value), `\n`)
}

// build adds the objects, but for the namespace that they are in: that of a release is Helm's to create.
func (k kustomization) build(t *testing.T, all objects) {
	t.Helper()
	dir := filepath.Join(deploy, k.dir)
	if len(k.on)+len(k.off) > 0 {
		dir = t.TempDir()
		must(t, harness.WithComponents(filepath.Join(deploy, k.dir), dir, k.on...))
		for _, component := range k.off {
			must(t, without(filepath.Join(dir, "kustomization.yaml"), "\n- "+component))
		}
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(filesys.MakeFsOnDisk(), dir)
	must(t, err)
	for _, resource := range resources.Resources() {
		content, err := resource.MarshalJSON()
		must(t, err)
		object := &unstructured.Unstructured{}
		must(t, yaml.Unmarshal(content, &object.Object))
		if object.GetKind() == "Namespace" && object.GetName() == ours {
			continue
		}
		if k.namespace != "" && !slices.Contains([]string{"ClusterRole", "ClusterRoleBinding"}, object.GetKind()) {
			object.SetNamespace(k.namespace)
		}
		all.add(t, object)
	}
}

// without removes the rest of the line that begins so.
func without(path, begin string) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	before, after, found := strings.Cut(string(content), begin)
	if !found {
		return fmt.Errorf("%s does not have %q", path, begin)
	}
	_, after, _ = strings.Cut(after, "\n")
	return os.WriteFile(path, []byte(before+"\n"+after), 0o644)
}

// insertArgument adds an argument to the publisher's after another one.
func insertArgument(o objects, after, argument string) {
	template := o["Deployment "+ours+"/service-mirror-publish"].Object["spec"].(map[string]any)["template"].(map[string]any)
	container := template["spec"].(map[string]any)["containers"].([]any)[0].(map[string]any)
	args := container["args"].([]any)
	container["args"] = slices.Insert(args, slices.Index(args, any(after))+1, any(argument))
}
