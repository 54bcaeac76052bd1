package deploy

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"service-mirror.io/service-mirror/testdata/harness/kubelet"
)

// kubelet has a Node run a pod: of all that a kubelet does, what kubectl exec needs.
func (e *env) kubelet(p *pod) {
	e.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := "/exec/" + ours + "/" + p.object.Name + "/" + ours; r.URL.Path != want {
			http.Error(w, "this kubelet serves "+want, http.StatusNotFound)
			return
		}
		kubelet.ServeExec(w, r, p.requested)
	}))
	e.Cleanup(server.Close)
	const node = "node"
	pods := london.CoreV1().Pods(ours)
	e.must(london.RegisterNode(e.ctx, node, server.Listener.Addr().(*net.TCPAddr)))
	e.cleanup(func(e *env) { e.must(london.CoreV1().Nodes().Delete(e.ctx, node, metav1.DeleteOptions{})) })
	e.must(pods.Bind(e.ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.object.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node},
	}, metav1.CreateOptions{}))
	e.cleanup(func(e *env) { // which a kubelet would have to confirm
		now := int64(0)
		if err := pods.Delete(e.ctx, p.object.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); !apierrors.IsNotFound(err) {
			e.must(err)
		}
	})
	e.must(london.MarkReady(e.ctx, ours, p.object.Name, ""))
}

// requested is a command in the pod, as kubectl exec requests it.
func (p *pod) requested(words []string) (*exec.Cmd, error) {
	if program := p.env.ownImage().Config.Entrypoint[0]; words[0] != program { // there is nothing else in the image
		return nil, fmt.Errorf("exec: %q: executable file not found in $PATH", words[0])
	}
	var args []string
	for _, arg := range words[1:] { // the pod's own port is an address of this machine here
		args = append(args, strings.Replace(arg, "http://localhost:8080", "http://"+p.address, 1))
	}
	return p.command(args...), nil
}

// rolledOut has the Deployment say what the controllers say of it when all its pods are ready.
func (e *env) rolledOut() {
	e.Helper()
	deployments := london.AppsV1().Deployments(ours)
	e.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		d, err := deployments.Get(e.ctx, ours, metav1.GetOptions{})
		if err != nil {
			return err
		}
		n := *d.Spec.Replicas
		d.Status.ObservedGeneration = d.Generation
		d.Status.Replicas, d.Status.UpdatedReplicas, d.Status.ReadyReplicas, d.Status.AvailableReplicas = n, n, n, n
		_, err = deployments.UpdateStatus(e.ctx, d, metav1.UpdateOptions{})
		return err
	}))
}
