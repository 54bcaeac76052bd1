package deploy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"service-mirror.io/service-mirror/testdata/harness"
)

// gateway makes paris's gateway Service ingress/gateway, with this address.
func (e *env) gateway(ip string, more ...corev1.ServicePort) {
	e.Helper()
	e.namespace("ingress", paris)
	_, err := paris.CoreV1().Services("ingress").Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "gateway"},
		Spec: corev1.ServiceSpec{
			Type:  corev1.ServiceTypeLoadBalancer,
			Ports: append([]corev1.ServicePort{{Name: "http", Port: 8080}}, more...),
		},
	}, metav1.CreateOptions{})
	e.must(err)
	e.gatewayMoves(ip)
}

func (e *env) gatewayMoves(ip string) {
	e.Helper()
	svc, err := paris.CoreV1().Services("ingress").Get(e.ctx, "gateway", metav1.GetOptions{})
	e.must(err)
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	_, err = paris.CoreV1().Services("ingress").UpdateStatus(e.ctx, svc, metav1.UpdateOptions{})
	e.must(err)
}

// export makes an exported Service in paris.
func (e *env) export(namespace, name string, port int32) {
	e.Helper()
	_, err := paris.CoreV1().Services(namespace).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"service-mirror.io/exported": "true"}},
		Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": name}, Ports: []corev1.ServicePort{{Name: "http", Port: port}}},
	}, metav1.CreateOptions{})
	e.must(err)
}

func (e *env) remove(c *cluster, namespace, name string) {
	e.Helper()
	e.must(c.CoreV1().Services(namespace).Delete(e.ctx, name, metav1.DeleteOptions{}))
}

// change updates a Service.
func (e *env) change(c *cluster, namespace, name string, change func(*corev1.Service)) {
	e.Helper()
	e.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		svc, err := c.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		change(svc)
		_, err = c.CoreV1().Services(namespace).Update(e.ctx, svc, metav1.UpdateOptions{})
		return err
	}))
}

// mirrored waits until a mirror has this port, and until all that it routes to are these
// targets, as address:port. by is who manages its EndpointSlices.
func (e *env) mirrored(namespace, name string, port int32, by string, targets ...string) {
	e.Helper()
	e.soon("mirror "+namespace+"/"+name, func() error {
		svc, err := london.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if len(svc.Spec.Ports) != 1 || svc.Spec.Ports[0].Port != port || len(svc.Spec.Selector) > 0 {
			return fmt.Errorf("it has ports %v and selector %v", svc.Spec.Ports, svc.Spec.Selector)
		}
		list, err := london.DiscoveryV1().EndpointSlices(namespace).List(e.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + name})
		if err != nil {
			return err
		}
		var got []string
		for _, slice := range list.Items {
			if manager := slice.Labels[discoveryv1.LabelManagedBy]; manager != by {
				return fmt.Errorf("its EndpointSlice %s is managed by %s", slice.Name, manager)
			}
			for _, endpoint := range slice.Endpoints {
				for _, p := range slice.Ports {
					got = append(got, fmt.Sprintf("%s:%d", endpoint.Addresses[0], *p.Port))
				}
			}
		}
		if slices.Sort(got); !slices.Equal(got, targets) {
			return fmt.Errorf("it routes to %v, want %v", got, targets)
		}
		return nil
	})
}

// Who makes a mirror's EndpointSlices: Kubernetes of its Endpoints, or the daemon.
const (
	byKubernetes = "endpointslicemirroring-controller.k8s.io"
	byDaemon     = "service-mirror.io"
)

// gone waits until there is no Service and no Endpoints of that name.
func (e *env) gone(namespace, name string) {
	e.Helper()
	e.soon(namespace+"/"+name+" is gone", func() error {
		if _, err := london.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Service is there (%v)", err)
		}
		if _, err := london.CoreV1().Endpoints(namespace).Get(e.ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("the Endpoints are there (%v)", err)
		}
		return nil
	})
}

// readyPod makes a ready Pod with a label app on a Node, as a selector would find it.
func (e *env) readyPod(namespace, app, ip string) {
	e.Helper()
	e.must(london.CreateReadyPod(e.ctx, harness.Pod{Namespace: namespace, App: app, Node: app, IP: ip}))
	e.cleanup(func(e *env) { e.must(london.CoreV1().Nodes().Delete(e.ctx, app, metav1.DeleteOptions{})) })
}
