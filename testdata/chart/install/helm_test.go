package install

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"helm.sh/helm/v3/pkg/action"
	"helm.sh/helm/v3/pkg/chart"
	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/release"
	"k8s.io/cli-runtime/pkg/genericclioptions"

	"service-mirror.io/service-mirror/testdata/harness"
)

// deploy is where the chart is.
const deploy = "../../../deploy"

// helm is Helm, for one release in a cluster.
type helm struct {
	*testing.T
	cluster            *harness.Cluster
	release, namespace string
	config             *action.Configuration
	installed          bool
}

// newHelm has the release, if there is one when the test ends, uninstalled, and its namespace deleted.
func newHelm(t *testing.T, c *harness.Cluster, releaseName, namespace string) *helm {
	t.Helper()
	flags := genericclioptions.NewConfigFlags(false)
	flags.KubeConfig, flags.Namespace = &c.Kubeconfig, &namespace
	h := &helm{T: t, cluster: c, release: releaseName, namespace: namespace, config: new(action.Configuration)}
	h.must(h.config.Init(flags, namespace, "secret", func(string, ...any) {}))
	t.Cleanup(func() {
		if h.installed {
			if _, err := action.NewUninstall(h.config).Run(h.release); err != nil {
				t.Logf("uninstall %s: %v", h.release, err)
			}
		}
		_, err := c.Kubectl(context.Background(), "delete", "namespace", namespace, "--ignore-not-found")
		h.must(err)
	})
	return h
}

func (h *helm) chart() *chart.Chart {
	h.Helper()
	c, err := loader.Load(filepath.Join(deploy, "chart"))
	h.must(err)
	return c
}

func (h *helm) values(text string) chartutil.Values {
	h.Helper()
	values, err := chartutil.ReadValues([]byte(text))
	h.must(err)
	return values
}

func (h *helm) tryInstall(values string) (*release.Release, error) {
	h.Helper()
	install := action.NewInstall(h.config)
	install.ReleaseName, install.Namespace, install.CreateNamespace = h.release, h.namespace, true
	installed, err := install.RunWithContext(h.Context(), h.chart(), h.values(values))
	h.installed = h.installed || err == nil
	return installed, err
}

func (h *helm) install(values string) *release.Release {
	h.Helper()
	installed, err := h.tryInstall(values)
	h.must(err)
	if out := h.live(installed); strings.Count(out, "\n") != strings.Count(installed.Manifest, "\nkind: ") {
		h.Errorf("installed are\n%sand the manifest has %d objects", out, strings.Count(installed.Manifest, "\nkind: "))
	}
	return installed
}

func (h *helm) upgrade(values string) *release.Release {
	h.Helper()
	upgrade := action.NewUpgrade(h.config)
	upgrade.Namespace = h.namespace
	upgraded, err := upgrade.RunWithContext(h.Context(), h.release, h.chart(), h.values(values))
	h.must(err)
	return upgraded
}

func (h *helm) rollback() {
	h.Helper()
	h.must(action.NewRollback(h.config).Run(h.release))
}

// uninstall uninstalls the release: nothing is left of what it installed.
func (h *helm) uninstall(installed *release.Release) {
	h.Helper()
	_, err := action.NewUninstall(h.config).Run(h.release)
	h.must(err)
	h.installed = false
	h.soon("everything of the release is gone", func() error {
		if out := h.live(installed); out != "" {
			return fmt.Errorf("there are still\n%s", out)
		}
		return nil
	})
}

// live are the objects of a release's manifest that exist, a line for each.
func (h *helm) live(of *release.Release) string {
	h.Helper()
	path := filepath.Join(h.TempDir(), "manifest.yaml")
	h.must(os.WriteFile(path, []byte(of.Manifest), 0o600))
	out, err := h.cluster.Kubectl(h.Context(), "get", "--ignore-not-found", "-o", "name", "-f", path)
	h.must(err)
	return out
}

func (h *helm) createNamespace(name string) {
	h.Helper()
	_, err := h.cluster.Kubectl(h.Context(), "create", "namespace", name)
	h.must(err)
	h.Cleanup(func() {
		_, err := h.cluster.Kubectl(context.Background(), "delete", "namespace", name) // until it is gone
		h.must(err)
	})
}

func (h *helm) soon(what string, check func() error) {
	h.Helper()
	h.must(harness.Eventually(soon, what, check))
}

func (h *helm) must(err error) {
	h.Helper()
	if err != nil {
		h.Fatal(err)
	}
}
