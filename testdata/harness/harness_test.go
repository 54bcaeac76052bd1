package harness

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// run starts a shell script and waits until it has printed "ready".
func run(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(exec.Command("sh", "-c", script))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	if err := Eventually(10*time.Second, "ready", func() error {
		if p.Log.Count("ready") == 0 {
			return errors.New("it is not ready")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return p
}

func TestStop(t *testing.T) {
	for name, c := range map[string]struct {
		script string
		grace  time.Duration
		says   string // of the error; empty: none
	}{
		"ends":           {`trap 'kill $!; exit 0' TERM; sleep 60 & echo ready; wait`, 10 * time.Second, ""},
		"ends badly":     {`trap 'kill $!; exit 3' TERM; sleep 60 & echo ready; wait`, 10 * time.Second, "exit status 3"},
		"does not end":   {`trap '' TERM; echo ready; exec sleep 60`, 100 * time.Millisecond, "did not end within 100ms"},
		"was killed":     {`echo ready; exec sleep 60`, 10 * time.Second, "signal: terminated"},
		"ended before":   {`echo ready`, 10 * time.Second, ""},
		"failed already": {`echo ready; exit 4`, 10 * time.Second, "exit status 4"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := run(t, c.script)
			if strings.Contains(name, "before") || strings.Contains(name, "already") {
				p.Wait()
			}
			err := p.Stop(c.grace)
			if c.says == "" && err != nil || c.says != "" && (err == nil || !strings.Contains(err.Error(), c.says)) {
				t.Errorf("Stop: %v, want %q", err, c.says)
			}
			if err := p.Running(); !errors.Is(err, ErrEnded) {
				t.Errorf("after Stop, Running says %v", err)
			}
		})
	}
}

func TestRunning(t *testing.T) {
	p := run(t, `echo ready; exec sleep 60`)
	if err := p.Running(); err != nil {
		t.Errorf("Running says %v of a process that runs", err)
	}
}

func TestRunSaysWhatFailed(t *testing.T) {
	out, err := Run(exec.Command("sh", "-c", "echo out; echo err >&2; exit 5"))
	if out != "out\nerr\n" || err == nil {
		t.Fatalf("printed %q, %v", out, err)
	}
	for _, want := range []string{"sh -c", "exit status 5", "out\nerr"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not say %q: %v", want, err)
		}
	}
}

func TestEventually(t *testing.T) {
	transient := errors.New("not yet")
	for name, c := range map[string]struct {
		within time.Duration
		errs   []error // of one check after the other; the last repeats
		want   error
		checks int // 0: more than one
	}{
		"at once":          {time.Minute, []error{nil}, nil, 1},
		"later":            {time.Minute, []error{transient, transient, nil}, nil, 3},
		"never":            {200 * time.Millisecond, []error{transient}, transient, 0},
		"a process ended":  {time.Minute, []error{transient, ErrEnded}, ErrEnded, 2},
		"a context is off": {time.Minute, []error{context.Canceled}, context.Canceled, 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			checks := 0
			err := Eventually(c.within, "it", func() error {
				checks++
				return c.errs[min(checks, len(c.errs))-1]
			})
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if checks != c.checks && (c.checks > 0 || checks < 2) {
				t.Errorf("it was checked %d times, want %d", checks, c.checks)
			}
		})
	}
}

func TestLogCountsLinesWithAllWords(t *testing.T) {
	var log Log
	log.Write([]byte("a b\nb c\na c b\n"))
	for words, want := range map[string]int{"a": 2, "a b": 2, "a c": 1, "b": 3, "d": 0} {
		if got := log.Count(strings.Fields(words)...); got != want {
			t.Errorf("%q: %d lines, want %d", words, got, want)
		}
	}
	if log.Reset(); log.String() != "" {
		t.Errorf("after a reset the log is %q", log.String())
	}
}

func TestRequests(t *testing.T) {
	c := &Cluster{Dir: t.TempDir()}
	entry := func(verb, user, resource, name string, received time.Time) string {
		return fmt.Sprintf(`{"verb":%q,"user":{"username":%q},"objectRef":{"resource":%q,"name":%q},"requestReceivedTimestamp":%q}`+"\n",
			verb, user, resource, name, received.UTC().Format(time.RFC3339Nano))
	}
	before := entry("create", "me", "services", "before", time.Now())
	if err := os.WriteFile(c.AuditLog(), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	since, err := c.Mark()
	if err != nil {
		t.Fatal(err)
	}
	text := before +
		entry("create", "me", "services", "received before, logged later", since.at.Add(-time.Microsecond)) +
		entry("create", "me", "services", "a", since.at) +
		entry("create", "other", "services", "b", time.Now()) +
		entry("create", "me", "events", "c", time.Now()) +
		entry("list", "me", "services", "", time.Now()) +
		`{"verb":"create","user":{"username":"me"},"objectRef":{"resour`
	if err := os.WriteFile(c.AuditLog(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string][]string{`"me"`: {"a", "c", ""}, `"services"`: {"a", "b", ""}, "nobody": nil} {
		var names []string
		found, err := c.Requests(since, word, func(Request) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range found {
			names = append(names, r.ObjectRef.Name)
		}
		if !slices.Equal(names, want) {
			t.Errorf("with %q: %q, want %q", word, names, want)
		}
	}
	writes, err := c.Requests(since, `"me"`, func(r Request) bool { return r.User.Username == "me" && r.Writes() })
	if err != nil || len(writes) != 1 || writes[0].ObjectRef.Name != "a" {
		t.Errorf("the writes are %v, %v", writes, err)
	}
}

func TestMetric(t *testing.T) {
	const metrics = "# TYPE up gauge\nup{a=\"b\"} 1\nup{a=\"c\"} 2.5\nupper 3\n"
	for series, want := range map[string]float64{`up{a="b"}`: 1, `up{a="c"}`: 2.5, "upper": 3} {
		if got, err := Metric(metrics, series); err != nil || got != want {
			t.Errorf("%s is %v, %v, want %v", series, got, err, want)
		}
	}
	if got, err := Metric(metrics, "up"); err == nil {
		t.Errorf("up without labels is %v", got)
	}
}

func TestWithComponents(t *testing.T) {
	from := "../../deploy/local"
	to := t.TempDir()
	if err := WithComponents(from, to, "endpointslices"); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(filepath.Join(to, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	if text := string(content); !strings.Contains(text, "\n- endpointslices ") || !strings.Contains(text, "\n# - create-namespaces ") {
		t.Errorf("the kustomization is\n%s", text)
	}
	if err := WithComponents(from, t.TempDir(), "none-such"); err == nil {
		t.Error("a component that does not exist was turned on")
	}
}

// What a cluster's program says when it ends early is not lost, and nothing is left of it.
func TestClusterThatDoesNotStart(t *testing.T) {
	progress, err := os.Create(filepath.Join(t.TempDir(), "progress"))
	if err != nil {
		t.Fatal(err)
	}
	defer progress.Close()
	_, err = StartCluster(ClusterOptions{Name: "rome", Dir: t.TempDir(), Program: "rome", Progress: progress,
		Command: func(string, ...string) *exec.Cmd { return exec.Command("sh", "-c", "echo no disk >&2; exit 1") }})
	if err == nil || !strings.Contains(err.Error(), "start cluster rome: it ended before it was ready") {
		t.Errorf("StartCluster: %v", err)
	}
	if text, _ := os.ReadFile(progress.Name()); string(text) != "no disk\n" {
		t.Errorf("its progress is %q", text)
	}
}
