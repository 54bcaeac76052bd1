package harness

import (
	"context"
	"fmt"
	"net"
	"net/url"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
)

// What a kubelet does, for tests that run a Pod's program themselves.

// RegisterNode creates a Node whose kubelet listens at an address.
func (c *Cluster) RegisterNode(ctx context.Context, name string, kubelet *net.TCPAddr) error {
	nodes := c.CoreV1().Nodes()
	node, err := nodes.Create(ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: kubelet.IP.String()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(kubelet.Port)
	_, err = nodes.UpdateStatus(ctx, node, metav1.UpdateOptions{})
	return err
}

// MarkReady sets the status of a Pod that runs and is ready. ip is its address; empty: it has none.
func (c *Cluster) MarkReady(ctx context.Context, namespace, name, ip string) error {
	pods := c.CoreV1().Pods(namespace)
	return retry.RetryOnConflict(retry.DefaultRetry, func() error {
		pod, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if ip != "" {
			pod.Status.PodIP, pod.Status.PodIPs = ip, []corev1.PodIP{{IP: ip}}
		}
		_, err = pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
		return err
	})
}

// Environment is that of a Pod's container, with the address of the API server.
func (c *Cluster) Environment(pod *corev1.Pod, container corev1.Container) ([]string, error) {
	server, err := url.Parse(c.Config.Host)
	if err != nil {
		return nil, err
	}
	env := []string{"KUBERNETES_SERVICE_HOST=" + server.Hostname(), "KUBERNETES_SERVICE_PORT=" + server.Port()}
	for _, v := range container.Env {
		if v.ValueFrom != nil {
			if v.Value, err = downward(pod, v.ValueFrom.FieldRef); err != nil {
				return nil, err
			}
		}
		env = append(env, v.Name+"="+v.Value)
	}
	return env, nil
}

// downward is what the downward API says of a Pod.
func downward(pod *corev1.Pod, ref *corev1.ObjectFieldSelector) (string, error) {
	switch ref.FieldPath {
	case "metadata.name":
		return pod.Name, nil
	case "metadata.namespace":
		return pod.Namespace, nil
	case "metadata.uid":
		return string(pod.UID), nil
	}
	return "", fmt.Errorf("field %s of the downward API is not supported here", ref.FieldPath)
}

// Projected are the files of a projected volume of a Pod.
func (c *Cluster) Projected(ctx context.Context, pod *corev1.Pod, sources []corev1.VolumeProjection) (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, source := range sources {
		if err := c.project(ctx, pod, source, files); err != nil {
			return nil, err
		}
	}
	return files, nil
}

func (c *Cluster) project(ctx context.Context, pod *corev1.Pod, source corev1.VolumeProjection, files map[string][]byte) error {
	switch {
	case source.ServiceAccountToken != nil:
		token, err := c.CoreV1().ServiceAccounts(pod.Namespace).CreateToken(ctx, pod.Spec.ServiceAccountName, &authenticationv1.TokenRequest{
			Spec: authenticationv1.TokenRequestSpec{
				ExpirationSeconds: source.ServiceAccountToken.ExpirationSeconds,
				BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID},
			},
		}, metav1.CreateOptions{})
		if err != nil {
			return err
		}
		files[source.ServiceAccountToken.Path] = []byte(token.Status.Token)
	case source.ConfigMap != nil:
		configMap, err := c.CoreV1().ConfigMaps(pod.Namespace).Get(ctx, source.ConfigMap.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, item := range source.ConfigMap.Items {
			files[item.Path] = []byte(configMap.Data[item.Key])
		}
	case source.DownwardAPI != nil:
		for _, item := range source.DownwardAPI.Items {
			value, err := downward(pod, item.FieldRef)
			if err != nil {
				return err
			}
			files[item.Path] = []byte(value)
		}
	}
	return nil
}
