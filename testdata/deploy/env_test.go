package deploy

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

const (
	ours = "service-mirror" // the namespace, and the name of what is in it
	// reader is who reads in a remote cluster.
	reader = "service-mirror-reader"
	// soon is how long a change may take to arrive: two cores carry it all.
	soon = 20 * time.Second
)

// env is one test's, with nothing installed in the clusters but what it installs.
type env struct {
	*testing.T
	ctx context.Context
}

func newEnv(t *testing.T) *env { return &env{T: t, ctx: t.Context()} }

// cleanup does something when the test is over, however it ended.
func (e *env) cleanup(do func(*env)) {
	e.Cleanup(func() { do(&env{T: e.T, ctx: context.Background()}) })
}

// apply applies a kustomization, and deletes it when the test is over, as a user would.
func (e *env) apply(c *cluster, dir string) {
	e.Helper()
	e.kubectl(c, "apply", "-k", dir)
	e.cleanup(func(e *env) { e.kubectl(c, "delete", "--ignore-not-found", "-k", dir) })
}

// localWith is deploy/local with components that it has as comments.
func (e *env) localWith(components ...string) string {
	e.Helper()
	dir := e.TempDir()
	e.must(harness.WithComponents(shipped("local"), dir, components...))
	return dir
}

func (e *env) kubectl(c *cluster, args ...string) string {
	e.Helper()
	out, err := c.Kubectl(e.ctx, args...)
	e.must(err)
	return out
}

// link links paris, as a user in london's context, and returns what it says.
func (e *env) link(args ...string) string {
	e.Helper()
	e.cleanup(func(e *env) {
		e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote"))
		e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote/identity"))
	})
	return e.linkAgain(args...)
}

// linkAgain is link where something else cleans up. No rollout is awaited: what controls Deployments is not here.
func (e *env) linkAgain(args ...string) string {
	e.Helper()
	out, err := e.tryLink(append([]string{"paris", "--server", paris.Config.Host, "--wait=0"}, args...)...)
	e.must(err)
	return out
}

func (e *env) tryLink(args ...string) (string, error) { return e.tryCommand("link", args...) }

func (e *env) tryUnlink(args ...string) (string, error) { return e.tryCommand("unlink", args...) }

// tryCommand runs a command of the program in london's context.
func (e *env) tryCommand(name string, args ...string) (string, error) {
	return run(e.ctx, harness.Program("service-mirror-race"), append([]string{name, "--context", london.Name}, args...)...)
}

// namespace makes a namespace in some clusters that goes with the test.
func (e *env) namespace(name string, clusters ...*cluster) {
	e.Helper()
	for _, c := range clusters {
		_, err := c.CoreV1().Namespaces().Create(e.ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		e.must(err)
		e.cleanup(func(e *env) { e.removeNamespace(c, name) })
	}
}

// removeNamespace deletes a namespace and waits until it is gone.
func (e *env) removeNamespace(c *cluster, name string) {
	e.Helper()
	if err := c.CoreV1().Namespaces().Delete(e.ctx, name, metav1.DeleteOptions{}); !apierrors.IsNotFound(err) {
		e.must(err)
	}
	e.soon("namespace "+name+" is gone", func() error {
		if _, err := c.CoreV1().Namespaces().Get(e.ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("it is there (%v)", err)
		}
		return nil
	})
}

// soon waits until a check passes.
func (e *env) soon(what string, check func() error) {
	e.Helper()
	e.must(harness.Eventually(soon, what, check))
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}
