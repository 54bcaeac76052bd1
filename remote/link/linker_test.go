package link

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"

	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/util/exec"
)

func TestCovers(t *testing.T) {
	parse := func(text string) (value any) {
		if err := yaml.Unmarshal([]byte(text), &value); err != nil {
			t.Fatal(err)
		}
		return value
	}
	for _, test := range []struct {
		live, desired string
		want          bool
	}{
		{"{a: 1, b: {c: x, d: y}}", "{b: {c: x}}", true},
		{"{a: 1}", "{b: 1}", false},
		{"{a: 1}", "{a: 2}", false},
		{"{a: [1, 2]}", "{a: [1]}", false},
		{"{a: [1]}", "{a: [1, 2]}", false},
		{"{a: [{b: 1, c: 2}]}", "{a: [{b: 1}]}", true},
		{"{a: x}", "{a: {b: x}}", false},
		{"{}", "{a: {}}", false},
		{"{a: {}}", "{a: []}", false},
	} {
		if got := covers(parse(test.live), parse(test.desired)); got != test.want {
			t.Errorf("%s covers %s: got %v", test.live, test.desired, got)
		}
	}
}

func TestProgress(t *testing.T) {
	two := int32(2)
	for _, test := range []struct {
		generation, observed         int64
		updated, replicas, available int32
		want                         string
	}{
		{2, 1, 2, 2, 2, "waiting for the Deployment controller"},
		{2, 2, 1, 3, 2, "waiting: 1 of 2 pods updated"},
		{2, 2, 2, 3, 2, "waiting: 1 old pods remain"},
		{2, 2, 2, 2, 1, "waiting: 1 of 2 pods ready"},
		{2, 2, 2, 2, 2, "rolled out"},
	} {
		d := &appsv1.Deployment{}
		d.Generation, d.Spec.Replicas = test.generation, &two
		d.Status = appsv1.DeploymentStatus{ObservedGeneration: test.observed, UpdatedReplicas: test.updated, Replicas: test.replicas, AvailableReplicas: test.available}
		if got, done := progressOf(d); got != test.want || done != (got == "rolled out") {
			t.Errorf("got %s, %v, want %s", got, done, test.want)
		}
	}
}

// Without a WebSocket on the way, the protocol of before is tried.
func TestNoUpgrade(t *testing.T) {
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	executor, err := remotecommand.NewWebSocketExecutor(&rest.Config{Host: server.URL}, "GET", server.URL)
	if err != nil {
		t.Fatal(err)
	}
	if err = executor.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdout: io.Discard}); err == nil || !noUpgrade(err) {
		t.Errorf("of a server without it: %v", err)
	}
	if err := error(exec.CodeExitError{Err: errors.New("command terminated with exit code 1"), Code: 1}); noUpgrade(err) {
		t.Errorf("a command that has run would run again: %v", err)
	}
}

func TestLogFilter(t *testing.T) {
	var out bytes.Buffer
	var progress []string
	f := &logFilter{to: &out, progress: func(line string) { progress = append(progress, line) }}
	for _, part := range []string{"I1127 03:00:00 starting\nservice-mirror: waiting: a", ", b\nservice-mirror: 1 of", " 2 not reached\nE1127 failed", "\nI was here\n", "\x1b[2J"} {
		f.Write([]byte(part))
	}
	f.flush()
	if want := "service-mirror: 1 of 2 not reached\nE1127 failed\nI was here\n\ufffd[2J\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if !slices.Equal(progress, []string{"waiting: a, b"}) {
		t.Errorf("the progress is %q", progress)
	}
}

// What is printed for the local side is what a link writes, and nothing of the Deployment.
func TestManifests(t *testing.T) {
	plan, err := usual("gateway=a/b", "gateway=c/d", "name={service}-p").decide()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := printManifests(&out, plan.manifests(newDaemon("sm", "sm"), []byte("x"))); err != nil {
		t.Fatal(err)
	}
	const want = `apiVersion: v1
kind: ServiceAccount
metadata:
  annotations:
    remote.service-mirror.io/paris: name={service}-p
  name: service-mirror
  namespace: sm
---
apiVersion: v1
data:
  gateway: YS9iCmMvZA==
  kubeconfig: eA==
  name: e3NlcnZpY2V9LXA=
kind: Secret
metadata:
  labels:
    service-mirror.io/remote: paris
  name: service-mirror-remote-paris
  namespace: service-mirror
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
