package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/testdata/harness"
)

// cluster is a control plane with the names that the tests use.
type cluster struct {
	*harness.Cluster
	name     string
	dir      string
	config   *rest.Config
	policies bool // that are shipped are applied
}

// startCluster starts a control plane and waits until it is ready.
func startCluster(name, dir string, more ...string) (*cluster, error) {
	c, err := harness.StartCluster(harness.ClusterOptions{Name: name, Dir: dir, Args: more})
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: c, name: name, dir: dir, config: c.Config}, nil
}

func (c *cluster) stop() { c.Stop() }

// startLocal starts a control plane for mirrors, with the policies that are shipped: what the daemons of all tests
// write must pass them. The ServiceAccounts of tests are in namespaces of their own, t1 and so on.
func startLocal(name, dir string, more ...string) (*cluster, error) {
	c, err := startCluster(name, dir, more...)
	if err != nil {
		return nil, err
	}
	if err := c.ApplyPolicies(context.Background(), "../../deploy/local/policy.yaml", "system:serviceaccount:t"); err != nil {
		c.stop()
		return nil, err
	}
	c.policies = true
	return c, nil
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

// gatewayAPI is what has paris serve the Gateway API, for the first test that needs it.
var gatewayAPI = sync.OnceValue(func() error {
	return paris.ApplyGatewayAPI(context.Background(), "../gatewayapi", "gatewayclasses", "gateways", "listenersets", "httproutes", "tlsroutes", "tcproutes", "udproutes")
})

func program(name string) string { return harness.Program(name) }

func TestMain(m *testing.M) {
	os.Exit(harness.Isolated(network, func(dir string) int { return runTests(m, dir) }))
}

func runTests(m *testing.M, dir string) int {
	dualStack = sync.OnceValues(func() (*cluster, error) {
		return startLocal("lisbon", filepath.Join(dir, "lisbon"), "--service-cluster-ip-range", "10.96.0.0/16,fd00:96::/112")
	})
	var wg sync.WaitGroup
	for name, c := range map[string]**cluster{"london": &london, "paris": &paris, "berlin": &berlin} {
		wg.Go(func() {
			start := startCluster
			if name == "london" {
				start = startLocal
			}
			var err error
			if *c, err = start(name, filepath.Join(dir, name)); err != nil {
				fmt.Fprintln(os.Stderr, err)
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
