package install

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// The clusters that the tests share, one after the other. Mirrors are made in london.
var london, paris *harness.Cluster

// soon is how long a change may take to arrive, on two cores that everything shares.
const soon = time.Minute

func TestMain(m *testing.M) { os.Exit(run(m)) }

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "service-mirror-chart-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	var wg sync.WaitGroup
	for name, c := range map[string]**harness.Cluster{"london": &london, "paris": &paris} {
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
	for _, c := range []*harness.Cluster{london, paris} {
		if c != nil {
			c.Stop()
		}
	}
	return code
}
