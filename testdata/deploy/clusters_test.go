package deploy

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"service-mirror.io/service-mirror/testdata/harness"
)

type cluster = harness.Cluster

// The clusters that all tests share, one after the other: what is installed has fixed
// names. Mirrors are made in london.
var london, paris *cluster

func TestMain(m *testing.M) {
	os.Exit(runTests(m))
}

func runTests(m *testing.M) int {
	dir, err := os.MkdirTemp("", "service-mirror-deploy-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	imageDir = filepath.Join(dir, "image")
	var wg sync.WaitGroup
	for name, c := range map[string]**cluster{"london": &london, "paris": &paris} {
		wg.Go(func() {
			var err error
			if *c, err = harness.StartCluster(harness.ClusterOptions{Name: name, Dir: filepath.Join(dir, name)}); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		})
	}
	wg.Wait()
	code := 1
	if london != nil && paris != nil {
		code = m.Run()
	}
	for _, c := range []*cluster{london, paris} {
		if c != nil {
			c.Stop()
		}
	}
	return code
}

// shipped is the path of something in deploy/.
func shipped(name string) string {
	path, err := filepath.Abs(filepath.Join("../../deploy", name))
	if err != nil {
		panic(err) // the working directory is gone
	}
	return path
}

// command is a program as a user would run it who has both clusters in one kubeconfig.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "KUBECONFIG="+london.Kubeconfig+":"+paris.Kubeconfig, "KUBECTL="+harness.Program("kubectl"))
	return cmd
}

// run runs it to its end, and returns all that it printed.
func run(ctx context.Context, name string, args ...string) (string, error) {
	return harness.Run(command(ctx, name, args...))
}
