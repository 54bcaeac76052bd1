package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"service-mirror.io/service-mirror/testdata/harness"
)

// isolation is what everything happens in.
var isolation = harness.Isolation{
	Namespaces: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
	Setup:      settle,
}

// settle gives the new namespaces what programs expect to find, none of it to
// be seen outside: /proc of the own processes, an empty /run, an /etc that may
// be written, an interface lo.
func settle(dir string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := syscall.Mount("proc", "/proc", "proc", 0, ""); err != nil {
		return fmt.Errorf("mount /proc: %w", err)
	}
	if err := syscall.Mount("tmpfs", "/run", "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount /run: %w", err)
	}
	// Upper and work directory may not lie on an overlay themselves.
	etc := filepath.Join(dir, "etc")
	if err := os.MkdirAll(etc, 0o755); err != nil {
		return err
	}
	if err := syscall.Mount("tmpfs", etc, "tmpfs", 0, "mode=755"); err != nil {
		return fmt.Errorf("mount %s: %w", etc, err)
	}
	upper, work := filepath.Join(etc, "upper"), filepath.Join(etc, "work")
	if err := errors.Join(os.Mkdir(upper, 0o755), os.Mkdir(work, 0o755)); err != nil {
		return err
	}
	options := fmt.Sprintf("lowerdir=/etc,upperdir=%s,workdir=%s", upper, work)
	if err := syscall.Mount("overlay", "/etc", "overlay", 0, options); err != nil {
		return fmt.Errorf("mount /etc: %w", err)
	}
	os.Setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	return run("ip", "link", "set", "lo", "up")
}

// run runs a command to its end; what it says is the error.
func run(name string, args ...string) error {
	_, err := harness.Run(exec.Command(name, args...))
	return err
}

// runAll runs commands, one a line.
func runAll(script string) error {
	for line := range strings.Lines(script) {
		if words := strings.Fields(line); len(words) > 0 {
			if err := run(words[0], words[1:]...); err != nil {
				return err
			}
		}
	}
	return nil
}
