package chart

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/yaml"
)

const deploy = "../../deploy"

// ours is the namespace, and the name of what is in it, that the kustomize files have.
const ours = "service-mirror"

// objects are rendered ones by their kind, namespace and name.
type objects map[string]*unstructured.Unstructured

func (o objects) add(t *testing.T, object *unstructured.Unstructured) {
	t.Helper()
	key := object.GetKind() + " " + object.GetNamespace() + "/" + object.GetName()
	if o[key] != nil {
		t.Errorf("%s is there twice", key)
	}
	o[key] = object
}

// get is one that must be there, as its type.
func get[T any](t *testing.T, o objects, key string) T {
	t.Helper()
	object := o[key]
	if object == nil {
		t.Fatalf("there is no %s", key)
	}
	content, err := json.Marshal(object)
	must(t, err)
	var typed T
	must(t, yaml.UnmarshalStrict(content, &typed))
	return typed
}

// render renders the chart as helm install does, and returns the notes, too.
func render(namespace, values string) (map[string]string, error) {
	c, err := loader.Load(filepath.Join(deploy, "chart"))
	if err != nil {
		return nil, err
	}
	parsed, err := chartutil.ReadValues([]byte(values))
	if err != nil {
		return nil, err
	}
	capabilities := chartutil.DefaultCapabilities.Copy()
	capabilities.KubeVersion = chartutil.KubeVersion{Version: "v1.31.0", Major: "1", Minor: "31"}
	all, err := chartutil.ToRenderValues(c, parsed, chartutil.ReleaseOptions{Name: "any", Namespace: namespace, IsInstall: true, Revision: 1}, capabilities)
	if err != nil {
		return nil, err
	}
	return engine.Render(c, all)
}

// rendered are the objects that the chart has in a namespace, with some values.
func rendered(t *testing.T, namespace, values string) objects {
	t.Helper()
	files, err := render(namespace, values)
	must(t, err)
	all := objects{}
	for name, text := range files {
		if strings.HasSuffix(name, ".yaml") {
			read(t, all, []byte(text))
		}
	}
	return all
}

// read adds the objects of a file. Keys that are there twice are an error.
func read(t *testing.T, all objects, text []byte) {
	t.Helper()
	reader := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(text)))
	for {
		document, err := reader.Read()
		if errors.Is(err, io.EOF) {
			return
		}
		must(t, err)
		var content map[string]any
		if err := yaml.UnmarshalStrict(document, &content); err != nil {
			t.Fatalf("%v in\n%s", err, document)
		}
		if len(content) > 0 {
			all.add(t, &unstructured.Unstructured{Object: content})
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func contents(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(deploy, path))
	must(t, err)
	return content
}
