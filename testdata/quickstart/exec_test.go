package quickstart

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"os/exec"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"
)

// serveExec is the kubelet's part of kubectl exec, without a terminal and without stdin: it sends what a command in a
// container prints, and how it ended.
func (n *node) serveExec(w http.ResponseWriter, r *http.Request) {
	words := strings.Split(strings.Trim(r.URL.Path, "/"), "/") // exec/NAMESPACE/POD/CONTAINER
	var p *pod
	if len(words) == 4 && words[0] == "exec" {
		p = n.find(words[1], words[2])
	}
	if p == nil || p.process == nil {
		http.Error(w, "this kubelet does not serve "+r.URL.Path, http.StatusNotFound)
		return
	}
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
	cmd := p.command(r.URL.Query()["command"])
	cmd.Stdout, cmd.Stderr = streams[corev1.StreamTypeStdout], streams[corev1.StreamTypeStderr]
	fmt.Fprint(streams[corev1.StreamTypeError], statusOf(cmd.Run()))
	for _, stream := range streams {
		stream.Close()
	}
	<-conn.CloseChan() // the client has read it all
}

// statusOf says how a command ended: a Status in JSON, of which a client reads the exit code.
func statusOf(err error) string {
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		return fmt.Sprintf(`{"status": "Failure", "reason": "NonZeroExitCode", "message": "command terminated with non-zero exit code",
			"details": {"causes": [{"reason": "ExitCode", "message": "%d"}]}}`, exit.ExitCode())
	}
	if err != nil {
		return fmt.Sprintf(`{"status": "Failure", "message": %q}`, err)
	}
	return `{"status": "Success"}`
}
