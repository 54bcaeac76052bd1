package harness

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// ApplyGatewayAPI creates the CRDs of some resources of the Gateway API, those of the standard channel in the version of
// the module in a directory, and waits until they are served.
func (c *Cluster) ApplyGatewayAPI(ctx context.Context, module string, resources ...string) error {
	cmd := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "sigs.k8s.io/gateway-api")
	cmd.Dir = module
	out, err := Run(cmd)
	dir := strings.TrimSpace(out)
	if err == nil && dir == "" {
		err = fmt.Errorf("it is not downloaded: run go mod download in %s", module)
	}
	if err != nil {
		return fmt.Errorf("the module of the Gateway API: %w", err)
	}
	for _, resource := range resources {
		file := filepath.Join(dir, "config/crd/standard", "gateway.networking.k8s.io_"+resource+".yaml")
		if _, err := c.Kubectl(ctx, "apply", "--server-side", "-f", file); err != nil { // its annotations would be too long
			return err
		}
		if err := c.AwaitCRDs(ctx, "crd/"+resource+".gateway.networking.k8s.io"); err != nil {
			return err
		}
	}
	return nil
}

// AwaitCRDs waits until CustomResourceDefinitions, as kubectl names them, are served. kubectl fails where one has no
// conditions yet.
func (c *Cluster) AwaitCRDs(ctx context.Context, which ...string) error {
	return Eventually(time.Minute, "the CustomResourceDefinitions are served", func() error {
		_, err := c.Kubectl(ctx, append([]string{"wait", "--for=condition=Established", "--timeout=10s"}, which...)...)
		return err
	})
}
