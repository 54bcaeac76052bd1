package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What is exported: Services in these namespaces, of which each size is a subset.
const (
	namespaceCount = 10
	stormNamespace = "storm"
	stormSize      = 2000
)

func (b *bench) namespaces() (names []string) {
	for i := range namespaceCount {
		names = append(names, fmt.Sprintf("shop-%d", i))
	}
	return names
}

// selector exports the first n Services.
func selector(n int) string { return fmt.Sprintf("bench-%d=true", n) }

// stormSelector exports those of the storm's namespace too.
const stormSelector = "bench-storm=true"

// service is the i-th exported Service.
func (b *bench) service(i int) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("svc-%05d", i), Namespace: b.namespaces()[i%namespaceCount], Labels: map[string]string{"app": "bench"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "bench"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	for _, n := range b.sizes {
		if i < n {
			svc.Labels[fmt.Sprintf("bench-%d", n)] = "true"
		}
	}
	if i < latencyServices {
		svc.Labels["bench-storm"] = "true"
	}
	return svc
}

// export fills paris.
func (b *bench) export(ctx context.Context) error {
	if err := b.paris.namespaces(ctx, append(b.namespaces(), stormNamespace, "ingress")); err != nil {
		return err
	}
	gateway := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway", Namespace: "ingress"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	}
	if _, err := b.paris.CoreV1().Services("ingress").Create(ctx, gateway, metav1.CreateOptions{}); err != nil {
		return err
	}
	if err := b.gatewayAt(ctx, "203.0.113.1"); err != nil {
		return err
	}
	all := b.sizes[len(b.sizes)-1]
	return inParallel(64, all+stormSize, func(i int) error {
		svc := b.service(i)
		if i >= all {
			svc = b.service(latencyServices)
			svc.Name, svc.Namespace = fmt.Sprintf("storm-%05d", i), stormNamespace
			svc.Labels = map[string]string{"bench-storm": "true"}
		}
		_, err := b.paris.CoreV1().Services(svc.Namespace).Create(ctx, svc, metav1.CreateOptions{})
		return err
	})
}

// gatewayAt gives paris's gateway an address.
func (b *bench) gatewayAt(ctx context.Context, address string) error {
	gateway, err := b.paris.CoreV1().Services("ingress").Get(ctx, "gateway", metav1.GetOptions{})
	if err != nil {
		return err
	}
	gateway.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: address}}
	_, err = b.paris.CoreV1().Services("ingress").UpdateStatus(ctx, gateway, metav1.UpdateOptions{})
	return err
}

// inParallel does n things with so many workers, and gives the first error.
func inParallel(workers, n int, do func(i int) error) error {
	var next atomic.Int64
	var failed atomic.Pointer[error]
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for failed.Load() == nil {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if err := do(i); err != nil {
					failed.CompareAndSwap(nil, &err)
				}
			}
		})
	}
	wg.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	return nil
}
