package e2e

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// The addresses outside all clusters, of the documentation ranges. Those of
// livingRange are this machine's own: a gateway listens there, or the
// connection is refused. Those of deadRange answer nothing, as a machine does
// that is gone.
const (
	livingRange = "198.51.100.0/24"
	deadRange   = "203.0.113.0/24"
	deadRouter  = "203.0.113.254/24"
)

const isolatedVariable = "SERVICE_MIRROR_E2E_ISOLATED"

// isolated runs this same program again in a network namespace of its own and
// has it call f there: gateways need addresses that the daemon does not refuse,
// which loopback ones are, and what is sent to them must not leave the machine.
// Everything that f starts is in the namespace too, which ends with it.
func isolated(f func() int) int {
	if os.Getenv(isolatedVariable) != "" {
		if err := makeNetwork(); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: the tests' own network:", err)
			return 1
		}
		return f()
	}
	runtime.LockOSThread() // Pdeathsig is of the thread, not of the process
	self, err := os.Executable()
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env = append(os.Environ(), isolatedVariable+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	err = cmd.Run()
	if exit := new(exec.ExitError); errors.As(err, &exit) && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if errors.Is(err, syscall.EPERM) {
		err = fmt.Errorf("%w: the tests need a network namespace of their own: run them as root, or where users may make namespaces", err)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		return 1
	}
	return 0
}

// makeNetwork furnishes the namespace. With netlink, for the program ip may be
// missing.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	_, living, err := net.ParseCIDR(livingRange)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: living, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
	}); err != nil {
		return fmt.Errorf("add route local %s: %w", living, err)
	}
	// A bridge that leads nowhere; without ARP, which would notice that.
	dead := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "dead"}}
	if err := netlink.LinkAdd(dead); err != nil {
		return fmt.Errorf("add a bridge: %w", err)
	}
	if err := netlink.LinkSetARPOff(dead); err != nil {
		return fmt.Errorf("set ARP off: %w", err)
	}
	router, err := netlink.ParseAddr(deadRouter)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(dead, router); err != nil {
		return fmt.Errorf("add address %s: %w", router, err)
	}
	if err := netlink.LinkSetUp(dead); err != nil {
		return fmt.Errorf("set the bridge up: %w", err)
	}
	return nil
}

var livingAddresses atomic.Int32

// livingAddress is an address of livingRange that no other test has.
func (e *env) livingAddress() string {
	e.Helper()
	n := livingAddresses.Add(1)
	if n > 254 {
		e.Fatal("no address is left in " + livingRange)
	}
	return fmt.Sprintf("198.51.100.%d", n)
}

// livingAddress6 is another, of IPv6.
func (e *env) livingAddress6() string {
	e.Helper()
	text := fmt.Sprintf("2001:db8:100::%x", livingAddresses.Add(1))
	lo, err := netlink.LinkByName("lo")
	e.must(err)
	addr, err := netlink.ParseAddr(text + "/128")
	e.must(err)
	addr.Flags = unix.IFA_F_NODAD
	e.must(netlink.AddrAdd(lo, addr))
	return text
}

// deadAddress answers nothing.
const deadAddress = "203.0.113.1"
