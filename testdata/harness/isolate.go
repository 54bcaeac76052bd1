package harness

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
)

// isolatedVariable is set, to a directory, in a process that runs in namespaces of its own.
const isolatedVariable = "SERVICE_MIRROR_ISOLATED"

// Isolation says which namespaces a program has for itself.
type Isolation struct {
	// Namespaces are CLONE_ flags.
	Namespaces uintptr
	// UserNamespace lets a user who is not root make them.
	UserNamespace bool
	// Setup makes in the new namespaces what programs expect to find. dir is Isolated's.
	Setup func(dir string) error
}

// Isolated runs this same program again in namespaces of its own and has it call f there: what
// is sent must not leave the machine. Everything that f starts is in the namespaces too, and
// those of processes and networks end with it, however that comes about. dir is a directory
// that is removed then. It returns the exit code.
func Isolated(i Isolation, f func(dir string) int) int {
	if dir := os.Getenv(isolatedVariable); dir != "" {
		if err := i.Setup(dir); err != nil {
			fmt.Fprintln(os.Stderr, "set up the namespaces:", err)
			return 1
		}
		return f(dir)
	}
	code, err := i.again()
	if errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf("%w: namespaces need root, or a machine where users may make them", err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return code
}

// again runs this program in the namespaces and returns its exit code.
func (i Isolation) again() (int, error) {
	runtime.LockOSThread() // Pdeathsig is of the thread, not of the process
	defer runtime.UnlockOSThread()
	self, err := os.Executable()
	if err != nil {
		return 1, err
	}
	dir, err := os.MkdirTemp("", "service-mirror-"+filepath.Base(self)+"-")
	if err != nil {
		return 1, err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedVariable+"="+dir)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: i.Namespaces, Pdeathsig: syscall.SIGKILL}
	if i.UserNamespace && os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode(), nil
	}
	if err != nil {
		return 1, err
	}
	return 0, nil
}
