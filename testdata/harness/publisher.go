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

// Publisher says how service-mirror publish is installed.
type Publisher struct {
	From       string                 // deploy/publish
	Gateway    string                 // NAMESPACE/NAME
	Class      string                 // of Ingresses
	Components []string               // of deploy/publish
	Edit       func(dir string) error // changes the copy that is applied; nil: nothing
}

// InstallPublisher applies a copy of deploy/publish, and writes a kubeconfig with the credentials of its ServiceAccount.
func (c *Cluster) InstallPublisher(ctx context.Context, p Publisher, kubeconfig string) error {
	dir, err := os.MkdirTemp(c.Dir, "publish")
	if err != nil {
		return err
	}
	if err := WithComponents(p.From, dir, p.Components...); err != nil {
		return err
	}
	if err := ConfigurePublisher(dir, p.Gateway, p.Class); err != nil {
		return err
	}
	if p.Edit != nil {
		if err := p.Edit(dir); err != nil {
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
