package chart

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/chart/loader"
)

// The package that is released is the chart, with the versions and the image that are asked for, and the same bytes
// each time.
func TestPackage(t *testing.T) {
	for version, want := range map[string]string{"v1.2.3": "1.2.3", "v1.2.3-4-gabcdef0": "1.2.3-4-gabcdef0", "0123456-dirty": "0.0.0-g0123456-dirty"} {
		first := pack(t, "022", "-t", version)
		if filepath.Base(first) != "service-mirror-"+want+".tgz" {
			t.Errorf("%s: the package is %s", version, first)
		}
		packed, err := loader.Load(first)
		must(t, err)
		must(t, packed.Validate())
		if packed.Metadata.Version != want || packed.AppVersion() != version {
			t.Errorf("%s: the package has version %s of %s", version, packed.Metadata.Version, packed.AppVersion())
		}
		source, err := loader.Load(filepath.Join(deploy, "chart"))
		must(t, err)
		if len(packed.Templates) == 0 || len(packed.Templates) != len(source.Templates) || len(packed.Schema) == 0 {
			t.Errorf("%s: the package has %d templates, the chart %d", version, len(packed.Templates), len(source.Templates))
		}
		for _, file := range packed.Raw {
			if strings.HasSuffix(file.Name, ".sh") {
				t.Errorf("%s: the package has %s", version, file.Name)
			}
		}
		a, err := os.ReadFile(first)
		must(t, err)
		b, err := os.ReadFile(pack(t, "077", "-t", version))
		must(t, err)
		if !bytes.Equal(a, b) {
			t.Errorf("%s: two packages are different", version)
		}
	}
	packed, err := loader.Load(pack(t, "022", "-t", "v1.2.3", "-i", "registry.example.com/service-mirror"))
	must(t, err)
	if image := packed.Values["image"].(map[string]any); image["repository"] != "registry.example.com/service-mirror" || image["tag"] != "" {
		t.Errorf("the image is %v", image)
	}
}

func pack(t *testing.T, umask string, args ...string) string {
	t.Helper()
	args = append([]string{"-c", "umask " + umask + ` && exec "$@"`, "sh", filepath.Join(deploy, "chart/package.sh"), "-o", t.TempDir()}, args...)
	cmd := exec.Command("sh", args...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	must(t, err)
	return strings.TrimSpace(string(out))
}
