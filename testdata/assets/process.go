package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// stopLimit is how long a program may take to end before it is killed.
const stopLimit = 10 * time.Second

// process is a program that runs until it is stopped. It logs into a file of its name.
type process struct {
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has ended, with err
	err   error
}

func launch(path string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	log, err := os.OpenFile(filepath.Base(path)+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Stdout, p.cmd.Stderr = log, log
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a terminal's interrupt ends them one after the other
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	return p, nil
}

func (p *process) stop() {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // which fails only if it has ended
	select {
	case <-p.ended:
	case <-time.After(stopLimit):
		_ = p.cmd.Process.Kill()
		<-p.ended
	}
}

// failure says that it has ended by itself, and why, as far as its log has it.
func (p *process) failure() error {
	name := filepath.Base(p.cmd.Path)
	log, _ := os.ReadFile(name + ".log")
	const most = 2000
	return fmt.Errorf("%s ended: %v\n%s", name, p.err, log[max(0, len(log)-most):])
}
