package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// daemon is the program that is measured, or one that it is compared with.
type daemon struct {
	cmd     *exec.Cmd
	address string // of --listen
	started time.Time
	log     string
}

// run starts the daemon as the Deployment does, but for the election.
func (b *bench) run(account string, args ...string) (*daemon, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	address := listener.Addr().String()
	listener.Close()
	return b.process(address, b.program, append([]string{"--kubeconfig", account, "--listen", address}, args...)...)
}

func (b *bench) process(address, program string, args ...string) (*daemon, error) {
	log, err := os.CreateTemp(b.dir, "daemon-*.log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	d := &daemon{cmd: exec.Command(program, args...), address: address, log: log.Name()}
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	d.cmd.Stdout, d.cmd.Stderr = log, log
	d.started = time.Now()
	return d, d.cmd.Start()
}

func (d *daemon) stop() {
	d.cmd.Process.Signal(syscall.SIGTERM)
	killed := time.AfterFunc(20*time.Second, func() { d.cmd.Process.Kill() })
	d.cmd.Wait()
	killed.Stop()
}

// ready waits until the daemon says so.
func (d *daemon) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+d.address+"/readyz", nil)
		if err != nil {
			return err
		}
		if resp, err := http.DefaultClient.Do(req); err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		select {
		case <-ctx.Done():
			text, _ := os.ReadFile(d.log)
			return fmt.Errorf("the daemon is not ready: %w; its log:\n%s", ctx.Err(), text)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// measures is the value of one of the daemon's metrics.
func (d *daemon) measures(series string) (float64, error) {
	resp, err := http.Get("http://" + d.address + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for lines.Scan() {
		if text, found := strings.CutPrefix(lines.Text(), series+" "); found {
			return strconv.ParseFloat(text, 64)
		}
	}
	return 0, fmt.Errorf("there is no series %s: %w", series, io.ErrUnexpectedEOF)
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
