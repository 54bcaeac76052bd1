package quickstart

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"service-mirror.io/service-mirror/testdata/harness"
)

// added is what a user adds to what installs an image: another image, and values that are not the image's.
var added = map[string]string{
	"kustomization.yaml": "- name: sidecar\n  newName: registry.example.com/sidecar\n  newTag: \"3\"\n# edited\n",
	"values.yaml":        "sidecar:\n  repository: registry.example.com/sidecar\n  tag: \"3\"\n# edited\n",
}

// What installs an image is written once, and later only the image in it changes.
func TestOverlay(t *testing.T) {
	dir := t.TempDir()
	overlay := func(image string) error {
		_, err := harness.Run(exec.CommandContext(t.Context(), "../../deploy/image/overlay.sh", "-o", dir, image))
		return err
	}
	images := func(side string) string {
		t.Helper()
		manifests, err := harness.Run(exec.CommandContext(t.Context(), harness.Program("kubectl"), "kustomize", filepath.Join(dir, side)))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for line := range strings.Lines(manifests) {
			if _, image, found := strings.Cut(line, " image: "); found {
				all = append(all, strings.TrimSpace(image))
			}
		}
		return strings.Join(all, " ")
	}
	if err := overlay("registry.example.com:5000/a/service-mirror:1.0"); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"local", "publish"} {
		if got := images(side); got != "registry.example.com:5000/a/service-mirror:1.0" {
			t.Errorf("%s has the image %q", side, got)
		}
		for _, file := range []string{"kustomization.yaml", "values.yaml"} {
			f, err := os.OpenFile(filepath.Join(dir, side, file), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			f.WriteString(added[file])
			f.Close()
		}
	}
	if err := overlay("service-mirror:2"); err != nil {
		t.Fatal(err)
	}
	for _, side := range []string{"local", "publish"} {
		if got := images(side); got != "service-mirror:2" {
			t.Errorf("%s has the image %q", side, got)
		}
		for _, file := range []string{"kustomization.yaml", "values.yaml"} {
			text, err := os.ReadFile(filepath.Join(dir, side, file))
			if err != nil || !strings.HasSuffix(string(text), added[file]) || strings.Contains(string(text), "1.0") {
				t.Errorf("%s/%s was not kept, but for the image: %v\n%s", side, file, err, text)
			}
		}
	}
	for _, image := range []string{"", "service-mirror", "registry.example.com:5000/service-mirror", "service-mirror:", ":1", "a b:1"} {
		if err := overlay(image); err == nil || !strings.Contains(err.Error(), "usage:") {
			t.Errorf("the image %q: %v", image, err)
		}
	}
}
