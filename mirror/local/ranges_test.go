package local

import (
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/remote"
)

// pausing is an informer whose first reader waits until the test lets it go on.
type pausing struct {
	cache.SharedIndexInformer
	paused          atomic.Bool
	reached, resume chan struct{}
}

func (p *pausing) GetIndexer() cache.Indexer {
	if !p.paused.Swap(true) {
		close(p.reached)
		<-p.resume
	}
	return p.SharedIndexInformer.GetIndexer()
}

// balancedAt is a Service whose load balancer has an address.
func balancedAt(name, addr string) *corev1.Service {
	svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name}}
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: addr}}
	return svc
}

// Two reads at once, as when the caches are filled, end with the ranges of the later one.
func TestRangesAreReadInOrder(t *testing.T) {
	services := remote.NewInformer(&remote.ListWatch{}, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
	add := func(svc *corev1.Service) {
		if err := services.GetIndexer().Add(remote.Encode(svc)); err != nil {
			t.Fatal(err)
		}
	}
	var changes atomic.Int32
	r := newRanges(Options{Client: fake.NewSimpleClientset(), Hooks: Hooks{RangesChanged: func() { changes.Add(1) }}}, services)
	slow := &pausing{SharedIndexInformer: r.serviceCIDRs.SharedIndexInformer, reached: make(chan struct{}), resume: make(chan struct{})}
	r.serviceCIDRs.SharedIndexInformer = slow
	add(balancedAt("old", "203.0.113.1"))
	var reads sync.WaitGroup
	defer reads.Wait()
	reads.Go(r.read)
	<-slow.reached // it has read the addresses of load balancers
	add(balancedAt("new", "203.0.113.2"))
	later := make(chan struct{})
	reads.Go(func() { defer close(later); r.read() })
	select {
	case <-later:
	case <-time.After(100 * time.Millisecond): // it waits for the first one
	}
	close(slow.resume)
	reads.Wait()
	var got []netip.Addr
	for _, known := range *r.known.Load() {
		got = append(got, known.Prefix.Addr())
	}
	if want := []netip.Addr{netip.MustParseAddr("203.0.113.1"), netip.MustParseAddr("203.0.113.2")}; !slices.Equal(got, want) || changes.Load() != 2 {
		t.Errorf("%v are known after %d changes, want %v after two", got, changes.Load(), want)
	}
}
