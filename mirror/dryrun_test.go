package mirror

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
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

// What a remote wrote makes no line of its own, and does nothing to a terminal.
func TestDryRunIsPrintable(t *testing.T) {
	const hostile = "x\x1b[2J\n+ forged\u202e\u009b"
	note := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "bar-paris", Annotations: map[string]string{"note": hostile}}}
	p := plan.Plan{Key: cache.NewObjectName("default", hostile), Cluster: "paris",
		Problems: []plan.Problem{{Reason: plan.InvalidName, Cluster: "paris", Message: hostile}},
		Steps:    []plan.Step{{Action: plan.Create, Object: note}, {Action: plan.Update, Object: note, Live: &corev1.Service{}}, {Action: plan.Delete, Object: note}}}
	var out bytes.Buffer
	printPlan(&out, p, "london")
	if strings.ContainsAny(out.String(), "\x1b\u202e\u009b") || strings.Contains(out.String(), "\n+ forged") || strings.Count(out.String(), "forged") != 7 {
		t.Errorf("got %q", &out)
	}
}
