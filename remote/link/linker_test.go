package link

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
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
	f := &logFilter{to: &out}
	for _, part := range []string{"I1127 03:00:00 starting\nservice-mirror: 1 of", " 2 not reached\nE1127 failed", "\nI was here\n", "\x1b[2J"} {
		f.Write([]byte(part))
	}
	f.flush()
	if want := "service-mirror: 1 of 2 not reached\nE1127 failed\nI was here\n\ufffd[2J\n"; out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
}

// What is printed for the local side names the remote among those that are there, where it is.
func TestManifests(t *testing.T) {
	s := usual("gateway=a/b")
	s.local.Daemon.Args = []string{"--remote=berlin=/b"}
	plan, err := s.decide()
	if err != nil {
		t.Fatal(err)
	}
	printed := func(d Daemon) string {
		var out bytes.Buffer
		if err := printManifests(&out, plan.manifests(d, []byte("x"))); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	text := printed(s.local.Daemon)
	for _, want := range []string{"paris.kubeconfig: eA==\n", "remote.service-mirror.io/paris: \"\"\n", "- args:\n        - --remote=berlin=/b\n        - --remote=paris=/etc/service-mirror/remotes/paris.kubeconfig,gateway=a/b\n        name: service-mirror\n"} {
		if !strings.Contains(text, want) {
			t.Errorf("it does not have %q:\n%s", want, text)
		}
	}
	d := s.local.Daemon
	d.Command = []string{"service-mirror", "--remote=paris=/old", "--leader-elect"}
	if text := printed(d); !strings.Contains(text, "- command:\n        - service-mirror\n        - --remote=paris=/etc/service-mirror/remotes/paris.kubeconfig,gateway=a/b\n        - --leader-elect\n        name: service-mirror\n") {
		t.Errorf("with the flag in the command:\n%s", text)
	}
}
