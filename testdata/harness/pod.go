package harness

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod is a Pod that nothing runs.
type Pod struct{ Namespace, App, Node, IP string }

// CreateReadyPod makes a ready Pod with a label app, as a selector would find it, and its Node.
func (c *Cluster) CreateReadyPod(ctx context.Context, p Pod) error {
	_, err := c.CoreV1().Nodes().Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: p.Node}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	if err := Eventually(20*time.Second, "the namespace's ServiceAccount", func() error { // which a controller makes
		_, err := c.CoreV1().ServiceAccounts(p.Namespace).Get(ctx, "default", metav1.GetOptions{})
		return err
	}); err != nil {
		return err
	}
	pods, zero := c.CoreV1().Pods(p.Namespace), int64(0)
	pod, err := pods.Create(ctx, &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: p.App, Labels: map[string]string{"app": p.App}},
		Spec: corev1.PodSpec{
			NodeName: p.Node, TerminationGracePeriodSeconds: &zero,
			Containers: []corev1.Container{{Name: "c", Image: "none"}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	pod.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: p.IP, PodIPs: []corev1.PodIP{{IP: p.IP}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}},
	}
	_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}
