package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// daemon is the program that is measured, or one that it is compared with.
type daemon struct {
	cmd     *harness.Process
	address string // of --listen
	started time.Time
	log     string
}

// run starts the daemon as the Deployment does, but for the election.
func (b *bench) run(account string, args ...string) (*daemon, error) {
	address, err := harness.FreeAddress()
	if err != nil {
		return nil, err
	}
	return b.process(address, b.program, append([]string{"--kubeconfig", account, "--listen", address}, args...)...)
}

func (b *bench) process(address, program string, args ...string) (*daemon, error) {
	log, err := os.CreateTemp(b.dir, "daemon-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := ownGroup(program, args...)
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	cmd.Stdout, cmd.Stderr = log, log
	d := &daemon{address: address, started: time.Now(), log: log.Name()}
	d.cmd, err = harness.Start(cmd)
	return d, err
}

func (d *daemon) stop() { d.cmd.Stop(20 * time.Second) }

// ready waits until the daemon says so.
func (d *daemon) ready(ctx context.Context) error {
	err := harness.Eventually(time.Minute, "the daemon is ready", func() error {
		_, err := harness.GetOK(ctx, d.address, "/readyz")
		return errors.Join(err, d.cmd.Running())
	})
	if err != nil {
		text, _ := os.ReadFile(d.log)
		err = fmt.Errorf("%w; its log:\n%s", err, text)
	}
	return err
}

// measures is the value of one of the daemon's metrics.
func (d *daemon) measures(series string) (float64, error) {
	metrics, err := harness.GetOK(context.Background(), d.address, "/metrics")
	if err != nil {
		return 0, err
	}
	return harness.Metric(metrics, series)
}

// footprint is what a process takes, in bytes: the resident set now, what of it is a file's
// (the program), and the resident set at its largest.
type footprint struct{ now, file, peak int64 }

// footprint is what the daemon takes once it has given its garbage back.
func (d *daemon) footprint(ctx context.Context) (f footprint, err error) {
	if err := pause(ctx, settling); err != nil {
		return f, err
	}
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		return f, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 {
			continue
		}
		value, _ := strconv.ParseInt(fields[1], 10, 64)
		switch fields[0] {
		case "VmRSS:":
			f.now = value << 10
		case "RssFile:":
			f.file = value << 10
		case "VmHWM:":
			f.peak = value << 10
		}
	}
	return f, nil
}

// cpu is the processor time that was used.
func (d *daemon) cpu() (time.Duration, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", d.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, after, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(after)
	if len(fields) < 13 {
		return 0, fmt.Errorf("/proc/%d/stat has only %d fields", d.cmd.Process.Pid, len(fields))
	}
	var ticks int64
	for _, field := range fields[11:13] { // utime and stime
		n, err := strconv.ParseInt(field, 10, 64)
		if err != nil {
			return 0, err
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100, nil // USER_HZ, on every Linux that Go knows
}
