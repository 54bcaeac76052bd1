package mirror

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// If the local cluster cannot be read, a plan would be wrong: a dry run fails.
func TestDryRunFailsOnAnUnreadableCluster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		clients, err := NewClients(&rest.Config{Host: "london"}, func(*rest.Config) {})
		if err != nil {
			t.Fatal(err)
		}
		// It does not run before the end, so it is never ready.
		controller := New(clients, Options{}, klog.Background())
		ctx, cancel := context.WithTimeout(t.Context(), 2*dryRunTime)
		defer cancel()
		var stdout bytes.Buffer
		if err := controller.DryRun(ctx, nil, "london", &stdout); err == nil || !strings.Contains(err.Error(), "local cluster london: ") || stdout.Len() > 0 {
			t.Errorf("got %v, and on stdout %q", err, &stdout)
		}
		cancel()
		controller.Run(ctx) // stops what it has started
	})
}
