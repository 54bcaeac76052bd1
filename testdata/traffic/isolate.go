package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
)

const isolatedVariable = "SERVICE_MIRROR_TRAFFIC_ISOLATED"

// isolated runs this same command again in a network, mount and process
// namespace of its own and has it call f there. When this process ends, so does
// that one, and with it every process and every namespace that it made.
//
// The calling goroutine must be locked to its thread.
func isolated(f func() int) int {
	if os.Getenv(isolatedVariable) != "" {
		if err := settle(); err != nil {
			fmt.Fprintln(os.Stderr, "traffic:", err)
			return 1
		}
		return f()
	}
	if os.Getuid() != 0 {
		fmt.Fprintln(os.Stderr, "traffic: network namespaces need root")
		return 1
	}
	dir, err := os.MkdirTemp("", "service-mirror-traffic-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		return 1
	}
	defer os.RemoveAll(dir)
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "traffic:", err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedVariable+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL,
	}
	if err := cmd.Run(); err != nil {
		if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > 0 {
			return exit.ExitCode()
		}
		fmt.Fprintln(os.Stderr, "traffic:", err)
		return 1
	}
	return 0
}

// settle gives the new namespaces what programs expect to find, none of it to
// be seen outside: /proc of the own processes, an empty /run, an /etc that may
// be written, an interface lo.
func settle() error {
	dir := os.Getenv(isolatedVariable)
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
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, strings.TrimSpace(string(out)))
	}
	return nil
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
