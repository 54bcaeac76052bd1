// Package kubelet answers requests that the API server sends to kubelets. It is separate from the harness because few tests
// need the modules for that.
package kubelet

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// ServeExec answers kubectl exec, without a terminal and without stdin: it runs what command makes of the words of the
// request, and sends what that prints, and how it ended.
func ServeExec(w http.ResponseWriter, r *http.Request, command func(words []string) (*exec.Cmd, error)) {
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
	cmd, err := command(r.URL.Query()["command"])
	if err == nil {
		cmd.Stdout, cmd.Stderr = streams[corev1.StreamTypeStdout], streams[corev1.StreamTypeStderr]
		err = cmd.Run()
	}
	fmt.Fprint(streams[corev1.StreamTypeError], exitStatus(err))
	for _, stream := range streams {
		stream.Close()
	}
	<-conn.CloseChan() // the client has read it all
}

// exitStatus is how a command ended: a Status in JSON, of which a client reads the exit code.
func exitStatus(err error) string {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return fmt.Sprintf(`{"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
			"details": {"causes": [{"reason": "ExitCode", "message": "%d"}]}}`, exit.ExitCode())
	}
	if err != nil {
		return fmt.Sprintf(`{"status": "Failure", "message": %q}`, err)
	}
	return `{"status": "Success"}`
}
