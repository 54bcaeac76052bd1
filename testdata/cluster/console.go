package main

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/klog/v2"
)

// console is what the user reads: short lines on the original stderr, and on the original stdout
// nothing but the kubeconfig's path.
type console struct {
	name           string
	stdout, stderr *os.File
}

// openConsole moves the process's own stdout and stderr into the log file, because the servers
// write there from everywhere, panics included.
func openConsole(name, logPath string) (*console, error) {
	log, err := os.OpenFile(logPath, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()

	c := &console{name: name}
	for _, move := range []struct {
		from *os.File
		to   **os.File
	}{{os.Stdout, &c.stdout}, {os.Stderr, &c.stderr}} {
		fd, err := unix.FcntlInt(move.from.Fd(), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return nil, fmt.Errorf("duplicate %s: %w", move.from.Name(), err)
		}
		*move.to = os.NewFile(uintptr(fd), move.from.Name())
		if err := unix.Dup3(int(log.Fd()), int(move.from.Fd()), 0); err != nil {
			return nil, fmt.Errorf("redirect %s: %w", move.from.Name(), err)
		}
	}

	// A fatal log line of a server ends the process without a return.
	klog.OsExit = func(code int) {
		c.printf("a server gave up; the end of %s says why", logPath)
		os.Exit(code)
	}
	return c, nil
}

func (c *console) printf(format string, args ...any) {
	fmt.Fprintf(c.stderr, "%s: %s\n", c.name, fmt.Sprintf(format, args...))
}

func (c *console) announce(kubeconfig string) error {
	_, err := fmt.Fprintln(c.stdout, kubeconfig)
	return err
}
