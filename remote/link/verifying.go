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
	someNotReached = 1
	wrongFlags     = 2
	noMirror       = 3
)

// verify sends requests to the mirrors of the remote, from the daemon's pod. The error is ErrNotReached.
func (l *Linker) verify(ctx context.Context, request Request) error {
	d, err := l.readDaemon(ctx)
	if err != nil {
		return err
	}
	command := d.verification(request.Name, l.JSON)
	verified := &Verified{State: Unknown, Command: l.byHand(d, d.verification(request.Name, false))}
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
		exported, err := l.connected(ctx, d, request.Name, request.Wait)
		if err != nil {
			verified.Reason = err.Error()
			return ctx.Err()
		}
		return l.send(ctx, d, attempts{command, min(request.Wait, routingTime)}, exported, verified)
	}
	return nil
}

const (
	routingTime = 30 * time.Second // for requests to arrive: the publisher in the remote may have just been installed
	retryTime   = 2 * time.Second
)

// attempts are those of one command, repeated until all requests arrive or the time is over.
type attempts struct {
	command []string
	time    time.Duration
}

// send runs the verification in the daemon's pod.
func (l *Linker) send(ctx context.Context, d Daemon, try attempts, exported int, verified *Verified) error {
	l.step(l.Local, "sending requests to the mirrors of %s from the daemon's pod", l.result.Name)
	pod, err := l.pod(ctx, d)
	if err != nil {
		verified.Reason = errExec.Error() + ": " + err.Error()
		return nil
	}
	var results, errs bytes.Buffer
	code, err := l.repeat(ctx, try, func() (int, error) {
		results.Reset()
		errs.Reset()
		filtered := &logFilter{to: &errs}
		defer filtered.flush()
		return l.Local.exec(ctx, d.Namespace, pod, d.Container, try.command, &results, filtered)
	})
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
	case code == 0:
		verified.State = Reached
	case code == noMirror && exported > 0:
		verified.Reason = fmt.Sprintf("none of the %d exported Services of %s has a mirror: run service-mirror status to see why", exported, l.result.Name)
	case code == noMirror:
		verified.Reason = l.result.Name + " exports nothing yet"
	case code == someNotReached, code == wrongFlags:
		verified.State = NotReached
		return ErrNotReached
	default:
		verified.Reason = fmt.Sprintf("verify exited with code %d", code)
	}
	return nil
}

// repeat runs a command until all requests arrive, or the time is over. It retries only if the command ran and requests failed.
func (l *Linker) repeat(ctx context.Context, try attempts, run func() (code int, err error)) (code int, err error) {
	end := time.Now().Add(try.time)
	for first := true; ; first = false {
		if code, err = run(); err != nil || code != someNotReached || !time.Now().Before(end) {
			return code, err
		}
		if first {
			l.line(fmt.Sprintf("not all requests arrive: waiting up to %v for the routes of the gateway", try.time))
		}
		select {
		case <-ctx.Done():
			return code, ctx.Err()
		case <-time.After(retryTime):
		}
	}
}

// verification is the daemon's own command line, as that of verify for one remote. The image has no shell.
func (d Daemon) verification(name string, asJSON bool) []string {
	command := []string{d.program(), "verify", "--remote", name}
	if asJSON {
		command = append(command, "--output=json")
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
	to   io.Writer
	line []byte
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
	if !logLine.Match(line) {
		fmt.Fprintf(f.to, "%s\n", failure.Printable(string(line)))
	}
}
