package harness

import (
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ErrEnded is the end of a process that should run.
var ErrEnded = errors.New("a process ended")

// Process is a program that runs beside a test.
type Process struct {
	*exec.Cmd
	// Log has what it prints, unless the command said where that goes.
	Log *Log

	ended chan struct{} // closed when it has, with err
	err   error
}

// Start starts a program and collects what it prints.
func Start(cmd *exec.Cmd) (*Process, error) {
	p := &Process{Cmd: cmd, Log: &Log{}, ended: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = p.Log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = p.Log
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

// Wait waits until the process ends, as often as it is called, and returns how it ended.
func (p *Process) Wait() error {
	<-p.ended
	return p.err
}

// Running says ErrEnded, and how, once the process has ended.
func (p *Process) Running() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%w: %s: %v", ErrEnded, filepath.Base(p.Path), p.ProcessState)
	default:
		return nil
	}
}

// Stop ends the process with SIGTERM and waits until it has ended. One that does not end
// within the grace period is killed, which is an error, as any exit code but 0 is.
func (p *Process) Stop(grace time.Duration) error {
	p.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.ended:
		return p.err
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("it did not end within %v of SIGTERM", grace)
	}
}

// Kill ends the process without notice, and waits until it has ended.
func (p *Process) Kill() {
	p.Process.Kill()
	<-p.ended
}

// Run runs a program to its end and returns all that it printed, which is in the error too.
func Run(cmd *exec.Cmd) (string, error) {
	out, err := cmd.CombinedOutput()
	if err != nil {
		words := append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...)
		err = fmt.Errorf("%s: %w\n%s", strings.Join(words, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), err
}
