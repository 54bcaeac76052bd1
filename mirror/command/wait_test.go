package command

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

// waitsShortly makes the commands retry almost at once.
func waitsShortly(t *testing.T) {
	before := waitInterval
	waitInterval = time.Millisecond
	t.Cleanup(func() { waitInterval = before })
}

// Only what the last attempt prints is on stdout, and progress that repeats is printed once.
func TestAwaitedOutput(t *testing.T) {
	waitsShortly(t)
	fails := errors.New("2 missing")
	for name, test := range map[string]struct {
		time     time.Duration
		missing  []string // by attempt; the last one is for all that follow
		attempts int      // 0: at least one
		progress []string
	}{
		"there at once":      {time.Hour, []string{""}, 1, nil},
		"there later":        {time.Hour, []string{"a, b", "a, b", "b", ""}, 4, []string{"a, b", "b"}},
		"missing to the end": {20 * time.Millisecond, []string{"a"}, 0, []string{"a"}},
		"not awaited":        {0, []string{"a"}, 1, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			n, last := 0, ""
			err := wait{test.time, &stderr}.printed(t.Context(), &stdout, func(out io.Writer) (string, error) {
				last = test.missing[min(n, len(test.missing)-1)]
				n++
				fmt.Fprintf(out, "attempt %d\n", n)
				if last == "" {
					return "", nil
				}
				return last, fails
			})
			if (err == nil) != (last == "") || n == 0 || test.attempts > 0 && n != test.attempts || stdout.String() != fmt.Sprintf("attempt %d\n", n) {
				t.Errorf("%d attempts, %v, stdout %s", n, err, &stdout)
			}
			want := ""
			for _, line := range test.progress {
				want += "service-mirror: waiting: " + line + "\n"
			}
			if stderr.String() != want {
				t.Errorf("the progress is\n%s\nwant\n%s", &stderr, want)
			}
		})
	}
}

// When the time is over, a command ends as it does without --wait.
func TestCommandsThatWaitInVain(t *testing.T) {
	waitsShortly(t)
	args := []string{"-o=json", "--leader-elect", "--leader-elect-lease=a/b", "--kubeconfig", writeLocal(t, apiServer(t).Host)}
	for name, command := range map[string][]string{"check": {"check"}, "verify": {"verify", "--all"}} {
		var once, stdout, problem, stderr bytes.Buffer
		command = append(command, args...)
		want := Run(t.Context(), command, &once, &problem)
		code := Run(t.Context(), append(command, "--wait=20ms"), &stdout, &stderr)
		if code != want || code == 0 || stdout.String() != once.String() || !json.Valid(stdout.Bytes()) {
			t.Errorf("%s: exit code %d, want %d, stdout\n%s\nwant\n%s", name, code, want, &stdout, &once)
		}
		if got := stderr.String(); !strings.HasPrefix(got, "service-mirror: waiting: ") || !strings.HasSuffix(got, problem.String()) || strings.Count(got, "\n") != 2 {
			t.Errorf("%s: stderr\n%s", name, got)
		}
	}
}

// What waiting does not fix ends a command at once.
func TestKubeconfigsAreNotAwaited(t *testing.T) {
	local := writeLocal(t, apiServer(t).Host)
	broken := []string{"--wait=1h", "--kubeconfig=/does/not/exist", "--remote=paris=a,gateway=ingress/gateway"}
	for _, args := range [][]string{
		append([]string{"status"}, broken...),
		append([]string{"check"}, broken...),
		append([]string{"verify", "--all"}, broken...),
		{"check", "--wait=1h", "--kubeconfig", local, "--remote=paris=/does/not/exist,gateway=ingress/gateway"},
	} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), args, &stdout, &stderr)
		if said := stdout.String() + stderr.String(); code == 0 || !strings.Contains(said, "/does/not/exist") || strings.Contains(said, "waiting") {
			t.Errorf("%q: exit code %d, %s", args, code, said)
		}
	}
}

// cancels is stderr of a user who presses Ctrl-C at the first progress.
type cancels struct {
	bytes.Buffer
	cancel context.CancelFunc
}

func (c *cancels) Write(p []byte) (int, error) {
	c.cancel()
	return c.Buffer.Write(p)
}

func TestWaitingIsCanceled(t *testing.T) {
	local := writeLocal(t, apiServer(t).Host)
	for _, command := range [][]string{{"check"}, {"verify", "--all"}} {
		ctx, cancel := context.WithCancel(t.Context())
		stderr := &cancels{cancel: cancel}
		var stdout bytes.Buffer
		code := Run(ctx, append(command, "--wait=1h", "--leader-elect", "--leader-elect-lease=a/b", "--kubeconfig", local), &stdout, stderr)
		if code != 1 || stdout.Len() > 0 || !strings.HasSuffix(stderr.String(), "context canceled\n") {
			t.Errorf("%q: exit code %d, stdout %s, stderr %s", command, code, &stdout, &stderr.Buffer)
		}
	}
}
