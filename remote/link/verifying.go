package link

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"

	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// ErrNotReached says that the remote is linked, but not all requests to its mirrors arrive.
var ErrNotReached = errors.New("linked, but not all requests arrive")

// Exit codes of service-mirror verify.
const (
	allReached     = 0
	someNotReached = 1
	wrongFlags     = 2
	noMirror       = 3
	onlyUDP        = 4
)

// verify sends requests to the mirrors of the remote, from the daemon's pod. The error is ErrNotReached.
func (l *Linker) verify(ctx context.Context, request Request) error {
	d, err := l.readDaemon(ctx)
	if err != nil {
		return err
	}
	verified := &Verified{State: Unknown, Command: l.byHand(d, d.verification(request.Name, false, 0))}
	l.result.Verified = verified
	switch {
	case request.Wait == 0:
		verified.Reason = "no requests were sent because of --wait 0"
	case d.Replicas == 0:
		verified.Reason = fmt.Sprintf("the Deployment %s/%s is scaled to 0", d.Namespace, d.Name)
	default:
		if err := l.rollout(ctx, d, request.Wait); err != nil {
			verified.Reason = err.Error() + ": kubectl " + l.Local.kubectl(d.Namespace) + " get pods"
			return ctx.Err()
		}
		status, err := l.connected(ctx, d, request.Name, request.Wait)
		if err != nil {
			verified.Reason = err.Error()
			return ctx.Err()
		}
		return l.send(ctx, d, min(request.Wait, routingTime), status, verified)
	}
	return nil
}

// routingTime is how long verify waits for requests to arrive: the publisher in the remote may have just been installed.
const routingTime = 30 * time.Second

// send runs the verification in the daemon's pod, which waits until all requests arrive, the time is over, or waiting does
// not help.
func (l *Linker) send(ctx context.Context, d Daemon, limit time.Duration, status remoteStatus, verified *Verified) error {
	if status.empty() {
		limit = 0
	}
	l.step(l.Local, "sending requests to the mirrors of %s from the daemon's pod%s", l.result.Name, upTo(limit))
	pod, err := l.pod(ctx, d)
	if err != nil {
		verified.Reason = errExec.Error() + ": " + err.Error()
		return nil
	}
	var results, errs bytes.Buffer
	filtered := &logFilter{to: &errs, progress: l.line}
	code, err := l.Local.exec(ctx, d.Namespace, pod, d.Container, d.verification(l.result.Name, l.JSON, limit), &results, filtered)
	filtered.flush()
	if json.Valid(results.Bytes()) {
		verified.Results = slices.Clone(results.Bytes())
	}
	if !l.JSON {
		results.WriteTo(l.Out)
	}
	errs.WriteTo(l.Out)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		verified.Reason = errExec.Error() + ": " + failure.Line(err.Error())
		return nil
	}
	return verified.conclude(l.result.Name, code, status.Exported)
}

// upTo is the time limit, for a step.
func upTo(limit time.Duration) string {
	if limit == 0 {
		return ""
	}
	return fmt.Sprintf(", for up to %v until they arrive", limit)
}

// conclude says what the exit code of verify means. exported is the number of Services that the remote exports; negative:
// not known. The error is ErrNotReached.
func (v *Verified) conclude(name string, code, exported int) error {
	v.Exports = exported > 0
	switch code {
	case allReached:
		v.State = Reached
	case someNotReached:
		v.State = NotReached
		return ErrNotReached
	case wrongFlags:
		v.Reason = "verify in the daemon's pod rejects its flags, see above: update the daemon's image to the version of this command"
	case noMirror:
		v.Reason = name + " exports nothing yet, so there was nothing to verify"
		if exported > 0 {
			v.Reason = fmt.Sprintf("none of the %d exported Services of %s is for this cluster: check their annotation service-mirror.io/export-to", exported, name)
		}
	case onlyUDP:
		v.Exports = true
		v.Reason = "only UDP ports in the mirrors of " + name + ", which cannot be verified: test them with a client in a pod"
	default:
		v.Reason = fmt.Sprintf("verify exited with code %d", code)
	}
	return nil
}

// verification is the daemon's own command line, as that of verify for one remote. The image has no shell.
func (d Daemon) verification(name string, asJSON bool, limit time.Duration) []string {
	command := []string{d.program(), "verify", "--remote", name}
	if asJSON {
		command = append(command, "--output=json")
	}
	if limit > 0 {
		command = append(command, "--wait="+limit.String())
	}
	flags := d.words()
	if len(d.Command) > 0 {
		flags = flags[1:]
	}
	return append(command, flags...)
}

// program is the daemon's, in its image.
func (d Daemon) program() string {
	if len(d.Command) == 0 {
		return DefaultName
	}
	return d.Command[0]
}

// kubectl is what kubectl needs to be about a namespace of the cluster.
func (c *Cluster) kubectl(namespace string) string {
	return strings.TrimSpace(c.Flags + " --namespace " + quoted(namespace))
}

// byHand is a command that runs another one in the daemon's pod, for a shell.
func (l *Linker) byHand(d Daemon, command []string) string {
	text := fmt.Sprintf("kubectl %s exec deployment/%s --container %s --", l.Local.kubectl(d.Namespace), quoted(d.Name), quoted(d.Container))
	for _, word := range command {
		text += " " + quoted(word)
	}
	return text
}

var plain = regexp.MustCompile(`^[-A-Za-z0-9_.:/=,@%+]+$`)

// quoted is a word for a shell.
func quoted(word string) string {
	if plain.MatchString(word) {
		return word
	}
	return "'" + strings.ReplaceAll(word, "'", `'\''`) + "'"
}

// pod is a running pod of the daemon, one that is ready if there is one.
func (l *Linker) pod(ctx context.Context, d Daemon) (string, error) {
	selector := d.selector()
	all, err := l.Local.list(ctx, pods, d.Namespace, metav1.ListOptions{LabelSelector: metav1.FormatLabelSelector(&selector)})
	if err != nil {
		return "", err
	}
	running := ""
	for _, object := range all {
		var pod corev1.Pod
		if err := runtime.DefaultUnstructuredConverter.FromUnstructured(object.Object, &pod); err != nil {
			return "", err
		}
		if pod.Status.Phase != corev1.PodRunning || pod.DeletionTimestamp != nil {
			continue
		}
		if running = pod.Name; ready(&pod) {
			break
		}
	}
	if running == "" {
		return "", errors.New("no pod is running")
	}
	return running, nil
}

func ready(pod *corev1.Pod) bool {
	return slices.ContainsFunc(pod.Status.Conditions, func(c corev1.PodCondition) bool {
		return c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue
	})
}

// exec runs a command in a container. The error says that it could not be run.
func (c *Cluster) exec(ctx context.Context, namespace, pod, container string, command []string, stdout, stderr io.Writer) (code int, err error) {
	client, err := remote.NewClient(rest.CopyConfig(c.Config))
	if err != nil {
		return 0, err
	}
	url := client.CoreV1().RESTClient().Post().Resource("pods").Namespace(namespace).Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Container: container, Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec).URL()
	socket, err := remotecommand.NewWebSocketExecutor(c.Config, "GET", url.String())
	if err != nil {
		return 0, err
	}
	older, err := remotecommand.NewSPDYExecutor(c.Config, "POST", url)
	if err != nil {
		return 0, err
	}
	executor, err := remotecommand.NewFallbackExecutor(socket, older, noUpgrade)
	if err != nil {
		return 0, err
	}
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: stdout, Stderr: stderr})
	if ended, ok := errors.AsType[exec.CodeExitError](err); ok {
		return ended.Code, nil
	}
	return 0, err
}

// noUpgrade tells that there is no WebSocket on the way to the pod. By its text: the error's type is in a module on which
// this one does not depend, and apimachinery's of the same name is another one.
func noUpgrade(err error) bool {
	return strings.Contains(err.Error(), "unable to upgrade streaming request: ") || strings.Contains(err.Error(), "proxy: unknown scheme: https")
}

// logFilter passes on what a program prints as errors, without its log of what is normal, and of problems, which it prints, too.
type logFilter struct {
	to       io.Writer
	progress func(line string) // called with what it waits for; nil: that is passed on like the rest
	line     []byte
}

var logLine = regexp.MustCompile(`^[IW]\d{4} `)

func (f *logFilter) Write(data []byte) (int, error) {
	f.line = append(f.line, data...)
	for {
		i := bytes.IndexByte(f.line, '\n')
		if i < 0 {
			return len(data), nil
		}
		f.print(f.line[:i])
		f.line = f.line[i+1:]
	}
}

// flush prints a last line without an end.
func (f *logFilter) flush() {
	if len(f.line) > 0 {
		f.print(f.line)
	}
	f.line = nil
}

func (f *logFilter) print(line []byte) {
	if logLine.Match(line) {
		return
	}
	if text, found := strings.CutPrefix(string(line), "service-mirror: waiting: "); found && f.progress != nil {
		f.progress("waiting: " + text)
		return
	}
	fmt.Fprintf(f.to, "%s\n", failure.Printable(string(line)))
}
