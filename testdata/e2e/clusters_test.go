package e2e

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// cluster is a real control plane in a process of its own.
type cluster struct {
	kubernetes.Interface
	name   string
	dir    string
	config *rest.Config
	proc   *exec.Cmd
}

// The clusters that all tests share: the daemon runs in london.
var london, paris, berlin *cluster

// dualStack is a local cluster with both IP families, started for the first test
// that needs it.
var dualStack func() (*cluster, error)

// newDualStackEnv is newEnv in that cluster.
func newDualStackEnv(t *testing.T, more ...rbacv1.PolicyRule) *env {
	t.Parallel()
	local, err := dualStack()
	if err != nil {
		t.Fatal(err)
	}
	dualStackRuns.Store(local)
	return newEnvIn(t, local, slices.Concat(localRules, more)...)
}

var dualStackRuns atomic.Pointer[cluster]

// program is the path of a program under test or one that it needs, built by the Makefile.
func program(name string) string {
	dir := os.Getenv("SERVICE_MIRROR_BUILD")
	if dir == "" {
		dir = "../../.build"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err == nil {
		_, err = os.Stat(path)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "%v: run the tests with make, which builds it\n", err)
		os.Exit(1)
	}
	return path
}

func TestMain(m *testing.M) {
	os.Exit(isolated(func() int { return runTests(m) }))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "service-mirror-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	dualStack = sync.OnceValues(func() (*cluster, error) {
		return startCluster("lisbon", filepath.Join(dir, "lisbon"), "--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112")
	})
	var wg sync.WaitGroup
	for name, c := range map[string]**cluster{"london": &london, "paris": &paris, "berlin": &berlin} {
		wg.Go(func() {
			var err error
			if *c, err = startCluster(name, filepath.Join(dir, name)); err != nil {
				fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
			}
		})
	}
	wg.Wait()
	code := 1
	if london != nil && paris != nil && berlin != nil {
		code = m.Run()
	}
	for _, c := range []*cluster{london, paris, berlin, dualStackRuns.Load()} {
		if c != nil {
			c.stop()
		}
	}
	return code
}

// startCluster starts a control plane and waits until it is ready.
func startCluster(name, dir string, more ...string) (*cluster, error) {
	server := "cluster"
	if slices.Contains(strings.Split(os.Getenv("SERVICE_MIRROR_OLDEST"), ","), name) {
		server = "oldest/cluster" // the oldest Kubernetes that is supported
	}
	cmd := exec.Command(program(server), append([]string{"--name", name, "--dir", dir}, more...)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		cmd.Wait()
		return nil, fmt.Errorf("ended before it was ready: %w", err)
	}
	go io.Copy(io.Discard, out)
	config, err := clientcmd.BuildConfigFromFlags("", strings.TrimSpace(line))
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	config.WarningHandler = rest.NoWarnings{}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	return &cluster{Interface: client, name: name, dir: dir, config: config, proc: cmd}, nil
}

func (c *cluster) stop() {
	c.proc.Process.Signal(syscall.SIGTERM)
	ended := time.AfterFunc(20*time.Second, func() { c.proc.Process.Kill() })
	c.proc.Wait()
	ended.Stop()
}
