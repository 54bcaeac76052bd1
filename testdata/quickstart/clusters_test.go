package quickstart

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// soon is how long a change may take to arrive, on two cores that everything shares.
const soon = time.Minute

// The addresses of the clusters' nodes, of the tests' own network: not of loopback, which neither link nor the daemon take.
const (
	londonNode = "192.0.2.10"
	parisNode  = "192.0.2.20"
)

func TestMain(m *testing.M) {
	os.Exit(harness.Isolated(harness.Isolation{Namespaces: syscall.CLONE_NEWNET, Setup: network}, func(string) int { return m.Run() }))
}

// network gives the machine of the tests its addresses, and no other way out.
func network(string) error {
	for _, command := range []string{"link set lo up", "address add " + londonNode + "/32 dev lo", "address add " + parisNode + "/32 dev lo"} {
		if _, err := harness.Run(exec.Command("ip", strings.Fields(command)...)); err != nil {
			return err
		}
	}
	return nil
}

// env is what one test has. Its commands find kubectl and helm first, and no Go modules but those that are here.
type env struct {
	*testing.T
	ctx           context.Context
	london, paris *harness.Cluster
	registry      *registry
	source        string // a clone, where commands are run
	variables     []string
	path          string
}

func newEnv(t *testing.T) *env {
	t.Helper()
	e := &env{T: t, ctx: t.Context(), registry: newRegistry(), path: os.Getenv("PATH")}
	e.registry.listen(t)
	e.clone()
	e.variables = append(variables(), e.registry.trusted(t), "HELM_CACHE_HOME="+t.TempDir(), "HELM_CONFIG_HOME="+t.TempDir(), "HELM_DATA_HOME="+t.TempDir())
	e.programs("kubectl", "helm")
	return e
}

// variables are those of this process, without the one by which programs know that they have namespaces of their own.
func variables() []string {
	isolated := func(v string) bool { return strings.HasPrefix(v, "SERVICE_MIRROR_ISOLATED=") }
	return append(slices.DeleteFunc(os.Environ(), isolated), "GOPROXY=off")
}

// clusters starts both control planes.
func (e *env) clusters() {
	e.Helper()
	dir := e.TempDir()
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, c := range []struct {
		name, node string
		to         **harness.Cluster
	}{{"london", londonNode, &e.london}, {"paris", parisNode, &e.paris}} {
		wg.Go(func() {
			*c.to, errs[i] = harness.StartCluster(harness.ClusterOptions{
				Name: c.name, Dir: filepath.Join(dir, c.name), Args: []string{"--bind-address", c.node},
			})
		})
	}
	wg.Wait()
	for i, c := range []*harness.Cluster{e.london, e.paris} {
		if errs[i] == nil {
			e.Cleanup(c.Stop)
		}
	}
	for _, err := range errs {
		e.must(err)
	}
	e.variables = append(e.variables, "KUBECONFIG="+e.london.Kubeconfig+":"+e.paris.Kubeconfig)
}

// clone copies what git would check out.
func (e *env) clone() {
	e.Helper()
	e.source = filepath.Join(e.TempDir(), "service-mirror")
	cmd := exec.Command("sh", "-c", `mkdir "$1" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T - --ignore-failed-read | tar -x -C "$1"`, "sh", e.source)
	cmd.Dir = "../.."
	_, err := harness.Run(cmd)
	e.must(err)
}

// programs puts built programs where a shell finds them first.
func (e *env) programs(names ...string) {
	e.Helper()
	dir := e.TempDir()
	for _, name := range names {
		e.must(os.Symlink(harness.Program(name), filepath.Join(dir, name)))
	}
	e.first(dir)
}

// first has a shell find what is in a directory first.
func (e *env) first(dir string) { e.path = dir + ":" + e.path }

// run runs a command as a user types it, and returns what it prints.
func (e *env) run(command string) (string, error) {
	e.Helper()
	start := time.Now()
	cmd := exec.CommandContext(e.ctx, "bash", "-c", command)
	cmd.Dir, cmd.Env = e.source, append(slices.Clone(e.variables), "PATH="+e.path)
	out, err := harness.Run(cmd)
	e.Logf("$ %s\n%s(%v)", command, out, time.Since(start).Round(time.Second/10))
	return out, err
}

func (e *env) kubectl(c *harness.Cluster, args ...string) string {
	e.Helper()
	out, err := c.Kubectl(e.ctx, args...)
	e.must(err)
	return out
}

// apply applies objects in YAML.
func (e *env) apply(c *harness.Cluster, text string) {
	e.Helper()
	path := filepath.Join(e.TempDir(), "objects.yaml")
	e.must(os.WriteFile(path, []byte(text), 0o600))
	e.kubectl(c, "apply", "--server-side", "-f", path)
}

// mirrored waits until London's mirror of bar routes to this address and port.
func (e *env) mirrored(address string) {
	e.Helper()
	e.must(harness.Eventually(soon, "the mirror", func() error {
		got, err := e.london.Kubectl(e.ctx, "get", "endpoints", "bar-paris", "-o", "jsonpath={.subsets[*].addresses[*].ip}:{.subsets[*].ports[*].port}")
		if err == nil && got != address {
			err = fmt.Errorf("bar-paris routes to %q, want %q", got, address)
		}
		return err
	}))
}

func (e *env) must(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}
