package e2e

import (
	"errors"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// daemon is a running service-mirror.
type daemon struct {
	t       *testing.T
	cmd     *harness.Process
	log     *harness.Log
	stopped bool // by the test, or its exit was awaited
}

// runDaemon starts the daemon, built with the race detector. Arguments like
// NAME=VALUE before the first flag are its environment.
func runDaemon(t *testing.T, args ...string) *daemon {
	t.Helper()
	return runProgram(t, "service-mirror-race", args...)
}

// runProgram starts the daemon as it was built under a name.
func runProgram(t *testing.T, name string, args ...string) *daemon {
	t.Helper()
	flags := slices.IndexFunc(args, func(arg string) bool { return strings.HasPrefix(arg, "-") })
	cmd := exec.Command(program(name), args[flags:]...)
	cmd.Env = append(os.Environ(), args[:flags]...)
	process, err := harness.Start(cmd)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{t: t, cmd: process, log: process.Log}
	t.Cleanup(func() {
		if !d.stopped {
			d.stop()
		}
		if d.logged("DATA RACE") > 0 {
			t.Error("the race detector found something")
		}
		if t.Failed() {
			t.Logf("log of service-mirror %s:\n%s", strings.Join(args, " "), d.log)
		}
	})
	return d
}

// stop ends the daemon as a user would, which must succeed.
func (d *daemon) stop() {
	d.t.Helper()
	d.stopped = true
	if err := d.cmd.Stop(15 * time.Second); err != nil {
		d.t.Errorf("the daemon was stopped: %v", err)
	}
}

// kill kills it.
func (d *daemon) kill() {
	d.stopped = true
	d.cmd.Kill()
}

func (d *daemon) signal(signal syscall.Signal) {
	if err := d.cmd.Process.Signal(signal); err != nil {
		d.t.Error(err)
	}
}

// exitCode waits for a daemon that ends by itself.
func (d *daemon) exitCode() int {
	d.t.Helper()
	d.stopped = true
	if err := d.cmd.Wait(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		d.t.Fatal(err)
	}
	return d.cmd.ProcessState.ExitCode()
}

// logged counts the lines of the log that contain all of the words.
func (d *daemon) logged(words ...string) int { return d.log.Count(words...) }

// lockedBuffer is what a process prints.
type lockedBuffer = harness.Log
