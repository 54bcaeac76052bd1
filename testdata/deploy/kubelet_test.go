package deploy

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// kubelet has a Node run a pod: of all that a kubelet does, what kubectl exec needs.
func (e *env) kubelet(p *pod) {
	e.Helper()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if want := "/exec/" + ours + "/" + p.object.Name + "/" + ours; r.URL.Path != want {
			http.Error(w, "this kubelet serves "+want, http.StatusNotFound)
			return
		}
		p.serveExec(w, r)
	}))
	e.Cleanup(server.Close)
	nodes, pods := london.CoreV1().Nodes(), london.CoreV1().Pods(ours)
	node, err := nodes.Create(e.ctx, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node"}}, metav1.CreateOptions{})
	e.must(err)
	e.cleanup(func(e *env) { e.must(nodes.Delete(e.ctx, node.Name, metav1.DeleteOptions{})) })
	address := server.Listener.Addr().(*net.TCPAddr)
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address.IP.String()}}
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = int32(address.Port)
	_, err = nodes.UpdateStatus(e.ctx, node, metav1.UpdateOptions{})
	e.must(err)
	e.must(pods.Bind(e.ctx, &corev1.Binding{
		ObjectMeta: metav1.ObjectMeta{Name: p.object.Name}, Target: corev1.ObjectReference{Kind: "Node", Name: node.Name},
	}, metav1.CreateOptions{}))
	e.cleanup(func(e *env) { // which a kubelet would have to confirm
		now := int64(0)
		if err := pods.Delete(e.ctx, p.object.Name, metav1.DeleteOptions{GracePeriodSeconds: &now}); !apierrors.IsNotFound(err) {
			e.must(err)
		}
	})
	e.must(retry.RetryOnConflict(retry.DefaultRetry, func() error {
		object, err := pods.Get(e.ctx, p.object.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		object.Status.Phase = corev1.PodRunning
		object.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		_, err = pods.UpdateStatus(e.ctx, object, metav1.UpdateOptions{})
		return err
	}))
}

// serveExec runs a command in the pod and sends what it prints, and how it ended, as a kubelet does.
func (p *pod) serveExec(w http.ResponseWriter, r *http.Request) {
	const protocol = "v4.channel.k8s.io"
	if !slices.Contains(r.Header[http.CanonicalHeaderKey(httpstream.HeaderProtocolVersion)], protocol) {
		http.Error(w, "this kubelet has only "+protocol, http.StatusForbidden)
		return
	}
	w.Header().Set(httpstream.HeaderProtocolVersion, protocol)
	opened := make(chan httpstream.Stream, 3) // error, stdout, stderr
	conn := spdy.NewResponseUpgrader().UpgradeResponse(w, r, func(stream httpstream.Stream, _ <-chan struct{}) error {
		opened <- stream
		return nil
	})
	if conn == nil {
		return
	}
	defer conn.Close()
	streams := map[string]io.WriteCloser{}
	for range cap(opened) {
		select {
		case stream := <-opened:
			streams[stream.Headers().Get(corev1.StreamType)] = stream
		case <-conn.CloseChan():
			return
		}
	}
	ended := p.run(r.URL.Query()["command"], streams[corev1.StreamTypeStdout], streams[corev1.StreamTypeStderr])
	fmt.Fprint(streams[corev1.StreamTypeError], ended)
	for _, stream := range streams {
		stream.Close()
	}
	<-conn.CloseChan() // the client has read it all
}

// run runs a command in the pod, and says how it ended: a Status in JSON, of which a client reads the exit code.
func (p *pod) run(command []string, stdout, stderr io.Writer) string {
	if program := p.env.ownImage().Config.Entrypoint[0]; command[0] != program { // there is nothing else in the image
		return fmt.Sprintf(`{"status": "Failure", "message": "exec: %q: executable file not found in $PATH"}`, strings.ReplaceAll(command[0], `"`, ""))
	}
	var args []string
	for _, arg := range command[1:] { // the pod's own port is an address of this machine here
		args = append(args, strings.Replace(arg, "http://localhost:8080", "http://"+p.address, 1))
	}
	cmd := p.command(args...)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return fmt.Sprintf(`{"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
			"details": {"causes": [{"reason": "ExitCode", "message": "%d"}]}}`, exit.ExitCode())
	}
	if err != nil {
		return fmt.Sprintf(`{"status": "Failure", "message": %q}`, err)
	}
	return `{"status": "Success"}`
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
