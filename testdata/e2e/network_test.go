package e2e

import (
	"fmt"
	"net"
	"sync/atomic"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"service-mirror.io/service-mirror/testdata/harness"
)

// The addresses outside all clusters, of the documentation ranges. Those of healthyRange
// are this machine's own: a gateway listens there, or the connection is refused. Those of
// deadRange do not answer at all, like a machine that is down.
const (
	healthyRange = "198.51.100.0/24"
	deadRange    = "203.0.113.0/24"
	deadRouter   = "203.0.113.254/24"
)

// network is what all tests run in: gateways need addresses that the daemon does not refuse,
// which loopback ones are, and what is sent to them must not leave the machine.
var network = harness.Isolation{
	Namespaces:    syscall.CLONE_NEWNET,
	UserNamespace: true,
	Setup:         func(string) error { return makeNetwork() },
}

// makeNetwork adds these ranges to the namespace. With netlink, for the program ip may be
// missing.
func makeNetwork() error {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	_, living, err := net.ParseCIDR(healthyRange)
	if err != nil {
		return err
	}
	if err := netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: living, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Scope: unix.RT_SCOPE_HOST,
	}); err != nil {
		return fmt.Errorf("add route local %s: %w", living, err)
	}
	// A bridge without a port; without ARP, which would notice that.
	silent := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "silent"}}
	if err := netlink.LinkAdd(silent); err != nil {
		return fmt.Errorf("add a bridge: %w", err)
	}
	if err := netlink.LinkSetARPOff(silent); err != nil {
		return fmt.Errorf("set ARP off: %w", err)
	}
	router, err := netlink.ParseAddr(deadRouter)
	if err != nil {
		return err
	}
	if err := netlink.AddrAdd(silent, router); err != nil {
		return fmt.Errorf("add address %s: %w", router, err)
	}
	if err := netlink.LinkSetUp(silent); err != nil {
		return fmt.Errorf("set the bridge up: %w", err)
	}
	return nil
}

var livingAddresses atomic.Int32

// healthyAddress is an address of healthyRange that no other test has.
func (e *env) healthyAddress() string {
	e.Helper()
	n := livingAddresses.Add(1)
	if n > 254 {
		e.Fatal("no address is left in " + healthyRange)
	}
	return fmt.Sprintf("198.51.100.%d", n)
}

// healthyAddress6 is another, of IPv6.
func (e *env) healthyAddress6() string {
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

// deadAddress does not answer.
const deadAddress = "203.0.113.1"
