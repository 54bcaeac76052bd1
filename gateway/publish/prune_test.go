package publish

import (
	"bytes"
	"strings"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

// pruned has everything pruned that w's controller published, which is stopped, and returns what is printed.
func (w *world) pruned(dry bool) string {
	w.Helper()
	w.stop()
	var out bytes.Buffer
	if err := (Pruning{Clients: w.controller.clients, Policy: w.controller.options.Policy, Cluster: "paris", Dry: dry}).Prune(w.Context(), &out); err != nil {
		w.Errorf("%v: %s", err, &out)
	}
	return out.String()
}

func TestPruneDeletesAllThatWasPublished(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(w *world)
		change  []func(*Options)
		want    []string
	}{
		"routes":       {func(*world) {}, nil, []string{"configmaps sm/default.bar", "httproutes default/bar.service-mirror", "tcproutes default/bar.5432.service-mirror"}},
		"ListenerSets": {func(w *world) { w.sets("ListenerSet") }, nil, []string{"configmaps sm/default.bar", "httproutes default/bar.service-mirror", "tcproutes default/bar.5432.service-mirror", "listenersets sm/" + firstSet}},
		"aliases":      {func(*world) {}, []func(*Options){toNames}, []string{"configmaps sm/default.bar", alias}},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				test.prepare(w)
				w.start(test.change...)
				w.server.wrote()
				list := w.pruned(true)
				w.wrote()
				if lines := strings.Count(list, "\n"); lines != len(test.want)+1 || !strings.HasSuffix(list, "objects in paris\n") {
					t.Errorf("a dry run prints %s", list)
				}
				if out := w.pruned(false); !strings.HasPrefix(out, list) || !strings.HasSuffix(out, "removed\n") {
					t.Errorf("it prints %s, and a dry run %s", out, list)
				}
				var deletions []string
				for _, one := range test.want {
					deletions = append(deletions, "delete "+one)
				}
				w.wrote(deletions...)
				if again := w.pruned(false); again != "0 objects in paris\n0 removed\n" {
					t.Errorf("once more it prints %s", again)
				}
			})
		})
	}
}

// While a publisher holds the Lease, nothing is deleted; one that has released or lost it is none.
func TestPruneWaitsForNoPublisher(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.stop()
		w.server.wrote()
		holder, seconds, renewed := "publisher-1", int32(15), metav1.NewMicroTime(time.Now())
		lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{Namespace: "sm", Name: "lease"}, Spec: coordinationv1.LeaseSpec{HolderIdentity: &holder, LeaseDurationSeconds: &seconds, RenewTime: &renewed}}
		w.server.put("leases", lease)
		p := Pruning{Clients: w.controller.clients, Policy: w.controller.options.Policy, Cluster: "paris", Lease: cache.NewObjectName("sm", "lease")}
		var out bytes.Buffer
		if err := p.Prune(w.Context(), &out); err == nil || !strings.Contains(err.Error(), "publisher-1 has Lease sm/lease") || out.Len() > 0 {
			t.Errorf("got %v: %s", err, &out)
		}
		w.wrote()
		w.wait(15 * time.Second)
		if err := p.Prune(w.Context(), &out); err != nil || !strings.HasSuffix(out.String(), "3 removed\n") {
			t.Errorf("after the Lease has ended: %v: %s", err, &out)
		}
	})
}
