package harness

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// The daemon's ServiceAccount as it is shipped, and what begins its annotations that name the configured remotes.
const (
	daemonAccount    = "service-mirror"
	remoteConfigured = "remote.service-mirror.io/"
)

// ApplyPolicies applies those of deploy/local/policy.yaml, which is at from, that say what a mirror is. They are then
// about all ServiceAccounts whose user names begin like this, and not about the shipped one.
func (c *Cluster) ApplyPolicies(ctx context.Context, from, users string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	text, _, found := strings.Cut(string(content), "# Other than mirrors")
	about := fmt.Sprintf("== '%s'", ServiceAccountUser(daemonAccount, daemonAccount))
	if n := strings.Count(text, about); !found || n != 3 {
		return fmt.Errorf("%s: %d policies are about the daemon, want 3 before those for the Lease and Events", from, n)
	}
	text = strings.ReplaceAll(text, about, fmt.Sprintf(".startsWith('%s')", users))
	path := filepath.Join(c.Dir, "policies.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: daemonAccount}}
	if _, err := c.CoreV1().Namespaces().Create(ctx, namespace, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := c.CreateAccount(ctx, Account{daemonAccount, daemonAccount}); err != nil {
		return err
	}
	_, err = c.Kubectl(ctx, "apply", "-f", path)
	return err
}

// ConfigureRemotes names remotes as configured, as a link does.
func (c *Cluster) ConfigureRemotes(ctx context.Context, names ...string) error {
	annotations := map[string]string{}
	for _, name := range names {
		annotations[remoteConfigured+name] = ""
	}
	return c.configure(ctx, annotations)
}

// ConfigureNames says how the mirrors of a remote are called, as a link does.
func (c *Cluster) ConfigureNames(ctx context.Context, remote, rule string) error {
	return c.configure(ctx, map[string]string{remoteConfigured + remote: rule})
}

func (c *Cluster) configure(ctx context.Context, annotations map[string]string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": annotations}})
	if err != nil {
		return err
	}
	_, err = c.CoreV1().ServiceAccounts(daemonAccount).Patch(ctx, daemonAccount, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
