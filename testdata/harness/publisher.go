package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PublisherAccount is that of service-mirror publish as it is shipped.
var PublisherAccount = Account{Namespace: "service-mirror", Name: "service-mirror-publish"}

// InstallPublisher applies a copy of deploy/publish, which is at from, for a Gateway and changed by edits of its directory,
// and writes a kubeconfig with the credentials of its ServiceAccount.
func (c *Cluster) InstallPublisher(ctx context.Context, from, gateway, kubeconfig string, edits ...func(dir string) error) error {
	dir, err := os.MkdirTemp(c.Dir, "publish")
	if err != nil {
		return err
	}
	if err := WithComponents(from, dir); err != nil {
		return err
	}
	if err := ConfigurePublisher(dir, gateway, ""); err != nil {
		return err
	}
	for _, edit := range edits {
		if err := edit(dir); err != nil {
			return err
		}
	}
	if _, err := c.Kubectl(ctx, "apply", "-k", dir); err != nil {
		return err
	}
	return c.PublisherKubeconfig(ctx, kubeconfig)
}

// PublisherKubeconfig writes a kubeconfig with the credentials of the publisher's ServiceAccount.
func (c *Cluster) PublisherKubeconfig(ctx context.Context, path string) error {
	token, err := c.RequestToken(ctx, PublisherAccount)
	if err != nil {
		return err
	}
	return c.WriteKubeconfig(path, token)
}

// ConfigurePublisher changes in a copy of deploy/publish which Gateway and which class of Ingresses the publisher has.
func ConfigurePublisher(dir, gateway, class string) error {
	path := filepath.Join(dir, "account.yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	text := string(content)
	for key, value := range map[string]string{"gateway": gateway, "ingress-class": class} {
		before, rest, found := strings.Cut(text, "\n    service-mirror.io/"+key+": ")
		if !found {
			return fmt.Errorf("%s does not have the annotation service-mirror.io/%s", path, key)
		}
		_, rest, _ = strings.Cut(rest, "\n")
		text = fmt.Sprintf("%s\n    service-mirror.io/%s: %q\n%s", before, key, value, rest)
	}
	return os.WriteFile(path, []byte(text), 0o644)
}

// ExportByAnyValue has the policies in a copy of deploy/publish take a Service for exported whatever its label says: each
// test has a value of its own.
func ExportByAnyValue(dir string) error {
	path := filepath.Join(dir, "policy.yaml")
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	const shipped = `operator: NotIn, values: ["true"]`
	if !strings.Contains(string(content), shipped) {
		return fmt.Errorf("%s does not have %s", path, shipped)
	}
	return os.WriteFile(path, []byte(strings.Replace(string(content), shipped, "operator: DoesNotExist", 1)), 0o644)
}
