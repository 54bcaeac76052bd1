package local

import (
	"context"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// ranges are the cluster's own addresses: those of its Services, of its load balancers and, by node, of its
// pods. A gateway must not have one of them. Where they may not be read, or the API server has no such
// objects, mirroring goes on without.
type ranges struct {
	serviceCIDRs *remote.Informer[*networkingv1.ServiceCIDR]
	nodes        *remote.Informer[*corev1.Node]
	services     *remote.Informer[*corev1.Service]
	logger       klog.Logger
	changed      func() // called when the ranges differ from before

	refused [2]chan struct{} // closed when a kind may not be read
	dirty   chan struct{}
	reading sync.Mutex // what was read earlier must not replace what was read later
	known   atomic.Pointer[[]gateway.Range]
}

func newRanges(options Options, services *remote.Informer[*corev1.Service]) *ranges {
	r := &ranges{logger: options.Logger, services: services, changed: options.Hooks.RangesChanged, dirty: make(chan struct{}, 1)}
	r.known.Store(&[]gateway.Range{})
	client, report := options.Client, options.Hooks.Report
	r.serviceCIDRs = optional(r, 0, source[*networkingv1.ServiceCIDRList]{client, client.NetworkingV1().ServiceCIDRs(), "", "servicecidrs", report, nil}, &networkingv1.ServiceCIDR{}, trimServiceCIDR)
	r.nodes = optional(r, 1, source[*corev1.NodeList]{client, client.CoreV1().Nodes(), "", "nodes", report, nil}, &corev1.Node{}, trimNode)
	r.serviceCIDRs.Index(byRange, func(cidr *networkingv1.ServiceCIDR) []string { return cidr.Spec.CIDRs })
	r.nodes.Index(byRange, func(node *corev1.Node) []string { return node.Spec.PodCIDRs })
	services.Index(byRange, balanced)
	services.Handle(remote.Handler[*corev1.Service]{
		Added: func(svc *corev1.Service) { r.touchIf(len(balanced(svc)) > 0) },
		Updated: func(before, svc *corev1.Service) {
			r.touchIf(!slices.Equal(balanced(before), balanced(svc)))
		},
		Deleted: func(_ cache.ObjectName, last *corev1.Service) {
			r.touchIf(last == nil || len(balanced(last)) > 0)
		},
	})
	return r
}

// balanced are the addresses at which a Service's load balancer is reached.
func balanced(svc *corev1.Service) (addrs []string) {
	for _, ingress := range svc.Status.LoadBalancer.Ingress {
		if ingress.IP != "" {
			addrs = append(addrs, ingress.IP)
		}
	}
	return addrs
}

// optional makes an informer of a kind that may not be there to be read.
func optional[T remote.Object, L runtime.Object](r *ranges, i int, from source[L], example T, trim func(T) T) *remote.Informer[T] {
	r.refused[i] = make(chan struct{})
	refuse := sync.OnceFunc(func() { close(r.refused[i]) })
	lw := remote.NewListWatch(from.objects, func(*metav1.ListOptions) {})
	lw.Client, lw.Optional = from.client, true
	lw.Report = func(err error) {
		if !remote.Unavailable(err) {
			from.report(from.part, err)
			return
		}
		r.logger.V(1).Info("No permission to read resource; gateway addresses of this cluster may not be recognized", "resource", from.part, "err", err)
		refuse()
	}
	informer := remote.NewInformer(lw, example, trim)
	informer.Handle(remote.Handler[T]{
		Added:   func(T) { r.touch() },
		Updated: func(_, _ T) { r.touch() },
		Deleted: func(cache.ObjectName, T) { r.touch() },
	})
	return informer
}

func (r *ranges) touchIf(differs bool) {
	if differs {
		r.touch()
	}
}

func (r *ranges) touch() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// run follows the ranges until the context ends.
func (r *ranges) run(ctx context.Context, wg *sync.WaitGroup) {
	wg.Go(func() { r.serviceCIDRs.RunWithContext(ctx) })
	wg.Go(func() { r.nodes.RunWithContext(ctx) })
	wg.Go(func() {
		for {
			select {
			case <-ctx.Done():
				return
			case <-r.dirty:
				r.read()
			}
		}
	})
}

// settled waits until the ranges are read, or may not be; false if the context
// ends first.
func (r *ranges) settled(ctx context.Context) bool {
	for i, done := range []<-chan struct{}{r.serviceCIDRs.HasSyncedChecker().Done(), r.nodes.HasSyncedChecker().Done()} {
		select {
		case <-ctx.Done():
			return false
		case <-r.refused[i]:
		case <-done:
		}
	}
	r.update()
	r.changed() // also if another goroutine has read them, and not said so yet
	return true
}

// read reads the ranges.
func (r *ranges) read() {
	if r.update() {
		r.changed()
	}
}

// update reads the ranges; true where they differ from before.
func (r *ranges) update() bool {
	r.reading.Lock()
	defer r.reading.Unlock()
	var now []gateway.Range
	add := func(name string, cidrs []string) {
		for _, text := range cidrs {
			if prefix, err := netip.ParsePrefix(text); err == nil {
				now = append(now, gateway.Range{Prefix: prefix, Name: name})
			}
		}
	}
	for _, text := range r.services.GetIndexer().ListIndexFuncValues(byRange) {
		if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
			now = append(now, gateway.Range{Prefix: netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), Name: "LoadBalancer address"})
		}
	}
	add("Service range", r.serviceCIDRs.GetIndexer().ListIndexFuncValues(byRange))
	add("pod range", r.nodes.GetIndexer().ListIndexFuncValues(byRange))
	slices.SortFunc(now, func(a, b gateway.Range) int { return a.Compare(b.Prefix) })
	return !slices.Equal(*r.known.Swap(&now), now)
}

// Ranges are the cluster's own addresses, as far as they are known.
func (c *Cluster) Ranges() []gateway.Range { return *c.ranges.known.Load() }

func trimServiceCIDR(cidr *networkingv1.ServiceCIDR) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: trimmedMeta(cidr), Spec: cidr.Spec}
}

// A kubelet writes its Node's status over and over: of that nothing is kept.
func trimNode(node *corev1.Node) *corev1.Node {
	return &corev1.Node{ObjectMeta: trimmedMeta(node), Spec: corev1.NodeSpec{PodCIDRs: node.Spec.PodCIDRs}}
}

func trimmedMeta(obj metav1.Object) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: obj.GetName(), UID: obj.GetUID(), ResourceVersion: obj.GetResourceVersion()}
}
