package mirror

import (
	"context"
	"fmt"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// BenchmarkSnapshot is the cost of a sync that finds everything in order, and of one that finds that the
// gateway has moved, without the write: the snapshot and the decision.
func BenchmarkSnapshot(b *testing.B) {
	for name, moved := range map[string]bool{"unchanged": false, "gateway moved": true} {
		b.Run(name, func(b *testing.B) {
			server := newAPIServer()
			server.put(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}})
			c := New(Clients{Read: server.client, Metadata: server.meta, Write: server.client}, Options{Workers: 1}, klog.Background())
			r := newFakeRemote("paris")
			add(c, r)
			const n = 1000
			var keys []cache.ObjectName
			for i := range n {
				svc := named("default", fmt.Sprintf("svc-%d", i))
				must(r.services.GetIndexer().Add(remote.Encode(c.options.TrimExported(svc.DeepCopy()))))
				source := plan.Candidate{Cluster: "paris", UID: "paris-uid", Service: svc, Gateway: parisGateway()}
				objects, _ := c.options.Desired(source, Objects{}, nil, nil)
				server.put(objects.Service)
				server.put(objects.Endpoints)
				keys = append(keys, c.remotes.policy().Names.Of("paris").Key(svc))
			}
			ctx, cancel := context.WithCancel(b.Context())
			ended := make(chan struct{})
			go func() { defer close(ended); c.Run(ctx) }()
			defer func() { cancel(); <-ended }()
			<-c.Ready()
			if moved {
				r.gateway = gatewayAt("192.0.2.9")
			}
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if p := c.remotes.policy().Decide(c.snapshot(keys[i%n])); p.Writes() != moved || p.Source == nil {
					b.Fatalf("it would write %v, problems %v", p.Steps, p.Problems)
				}
				i++
			}
		})
	}
}
