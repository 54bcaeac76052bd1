package e2e

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// daemon is a running service-mirror.
type daemon struct {
	t   *testing.T
	cmd *exec.Cmd
	log *lockedBuffer
}

// runDaemon starts the daemon, built with the race detector. Arguments like
// NAME=VALUE before the first flag are its environment.
func runDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	flags := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") })
	d := &daemon{t: t, log: &lockedBuffer{}, cmd: exec.Command(program("service-mirror-race"), args[flags:]...)}
	d.cmd.Env = append(os.Environ(), args[:flags]...)
	d.cmd.Stderr, d.cmd.Stdout = d.log, d.log
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if d.cmd.ProcessState == nil {
			d.stop()
		}
		if strings.Contains(d.log.String(), "DATA RACE") {
			t.Error("the race detector found something")
		}
		if t.Failed() {
			t.Logf("log of service-mirror %s:\n%s", strings.Join(args, " "), d.log)
		}
	})
	return d
}

// stop ends the daemon as a user would, and insists that it ends well.
func (d *daemon) stop() {
	d.t.Helper()
	d.signal(syscall.SIGTERM)
	timer := time.AfterFunc(15*time.Second, func() {
		d.t.Error("the daemon did not end within 15 s of SIGTERM")
		d.signal(syscall.SIGKILL)
	})
	defer timer.Stop()
	if err := d.cmd.Wait(); err != nil {
		d.t.Errorf("the daemon ended with %v", err)
	}
}

// kill ends it without notice.
func (d *daemon) kill() {
	d.signal(syscall.SIGKILL)
	d.cmd.Wait()
}

func (d *daemon) signal(signal syscall.Signal) {
	if err := d.cmd.Process.Signal(signal); err != nil {
		d.t.Error(err)
	}
}

// exitCode waits for a daemon that ends by itself.
func (d *daemon) exitCode() int {
	d.t.Helper()
	var exit *exec.ExitError
	if err := d.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		d.t.Fatal(err)
	}
	return d.cmd.ProcessState.ExitCode()
}

// logged counts the lines of the log that contain all of the words.
func (d *daemon) logged(words ...string) int {
	count := 0
lines:
	for line := range strings.Lines(d.log.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue lines
			}
		}
		count++
	}
	return count
}

type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}
