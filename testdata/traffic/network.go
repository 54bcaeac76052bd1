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

// The addresses. Pods and Services have the same ones in every cluster, so that
// only a node's address and what a load balancer routes to it can be meant from
// outside. Outer addresses are of the documentation ranges.
const (
	wireAddress = "192.0.2.1"   // this process's
	podRouter   = "10.0.0.1"    // the node's, for its pods
	podRange    = "10.0.0.0/24" // pods, in each cluster
	serviceCIDR = "10.96.0.0/16"
	dnsAddress  = "10.96.0.10"
)

// The same in IPv6, where a cluster has that.
const (
	wireAddress6 = "2001:db8::1"
	podRouter6   = "fd00:10::1"
	podRange6    = "fd00:10::/64"
	serviceCIDR6 = "fd00:96::/112"
)

// podAddresses are those of the n-th pod of any cluster.
func podAddresses(n byte) (v4, v6 string) {
	return fmt.Sprintf("10.0.0.%d", n), fmt.Sprintf("fd00:10::%x", n)
}

// namespace is a network namespace: a node's or a pod's.
type namespace struct {
	name string
	dir  string // for the logs of what runs in it
}

func newNamespace(dir, name string) (*namespace, error) {
	if err := run("ip", "netns", "add", name); err != nil {
		return nil, err
	}
	n := &namespace{name: name, dir: dir}
	// The addresses are known to be nobody else's: none is to wait until that is found out.
	if err := n.set("net/ipv6/conf/default/accept_dad", "0"); err != nil {
		return nil, err
	}
	return n, run("ip", "-n", name, "link", "set", "lo", "up")
}

// set sets one of the kernel's switches.
func (n *namespace) set(name, value string) error {
	out, err := n.command("sh", "-c", "echo "+value+" >/proc/sys/"+name).CombinedOutput()
	if err != nil {
		return fmt.Errorf("set %s in %s: %w: %s", name, n.name, err, out)
	}
	return nil
}

// command is a command that will run in the namespace.
func (n *namespace) command(name string, args ...string) *exec.Cmd {
	return exec.Command("ip", append([]string{"netns", "exec", n.name, name}, args...)...)
}

// openLog opens the log of a server that runs in the namespace, NAMESPACE-NAME.log.
func (n *namespace) openLog(name string) (*os.File, error) {
	log, err := os.OpenFile(filepath.Join(n.dir, n.name+"-"+name+".log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	return log, log.Chmod(0o666) // a container's user may open its /dev/stdout
}

// process is a server that runs in a namespace.
type process struct {
	*harness.Process
	log string // its path
}

// start starts a server, with a log of its name.
func (n *namespace) start(name, program string, args ...string) (*process, error) {
	log, err := n.openLog(name)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := n.command(program, args...)
	cmd.Stdout, cmd.Stderr = log, log
	started, err := harness.Start(cmd)
	if err != nil {
		return nil, err
	}
	return &process{started, log.Name()}, nil
}

// stop ends a server and waits for that.
func (p *process) stop(signal syscall.Signal) {
	p.Cmd.Process.Signal(signal)
	p.Wait()
}

// running is an error, with the end of the log, once the server has ended.
func (p *process) running() error {
	err := p.Running()
	if err != nil {
		text, _ := os.ReadFile(p.log)
		err = fmt.Errorf("%s: %w\n%s", filepath.Base(p.log), err, tail(string(text), 30))
	}
	return err
}

func tail(text string, n int) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// newWire makes the network between the nodes, in this process's own namespace.
// It forwards nothing: nodes reach one another, and nothing else.
func newWire() error {
	return runAll(fmt.Sprintf(`
		ip link add wire type bridge
		ip address add %s/24 dev wire
		ip address add %s/64 dev wire nodad
		ip link set wire up`, wireAddress, wireAddress6))
}

// newNode makes a cluster's one node: on the wire, with a range of load balancer
// addresses led to it.
func newNode(dir string, at place) (*namespace, error) {
	n, err := newNamespace(dir, at.name)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(n.set("net/ipv4/ip_forward", "1"), n.set("net/ipv6/conf/all/forwarding", "1"),
		// What a Service without endpoints refuses is refused each time, not six times and then in silence.
		n.set("net/ipv4/icmp_ratelimit", "0"), n.set("net/ipv6/icmp/ratelimit", "0")); err != nil {
		return nil, err
	}
	if err := runAll(fmt.Sprintf(`
		ip link add %[1]s type veth peer name eth0 netns %[1]s
		ip link set %[1]s master wire up
		ip -n %[1]s address add %[2]s/24 dev eth0
		ip -n %[1]s link set eth0 up
		ip -n %[1]s route add default via %[3]s
		ip -n %[1]s route add unreachable %[4]s
		ip netns exec %[1]s nft add table ip node
		ip netns exec %[1]s nft add chain ip node postrouting {type nat hook postrouting priority 100;}
		ip netns exec %[1]s nft add rule ip node postrouting ip saddr %[5]s oifname eth0 masquerade`,
		at.name, at.node, wireAddress, at.loadBalancers, podRange)); err != nil {
		return nil, err
	}
	if !at.dualStack() {
		return n, nil
	}
	return n, runAll(fmt.Sprintf(`
		ip -n %[1]s address add %[2]s/64 dev eth0
		ip -n %[1]s route add default via %[3]s
		ip -n %[1]s route add unreachable %[4]s
		ip netns exec %[1]s nft add table ip6 node
		ip netns exec %[1]s nft add chain ip6 node postrouting {type nat hook postrouting priority 100;}
		ip netns exec %[1]s nft add rule ip6 node postrouting ip6 saddr %[5]s oifname eth0 masquerade`,
		at.name, at.node6, wireAddress6, at.loadBalancers6, podRange6))
}

// newPod makes the n-th pod on a node: an address of each family, a way to it,
// and the node's for all else. Its resolver is asked over IPv4.
func newPod(node *namespace, name string, n byte, dualStack bool) (*namespace, error) {
	full := node.name + "-" + name
	pod, err := newNamespace(node.dir, full)
	if err != nil {
		return nil, err
	}
	// An interface's name has 15 characters at most, and only the number is short and unique.
	link := fmt.Sprintf("pod%d", n)
	if err := run("ip", "-n", node.name, "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", full); err != nil {
		return nil, err
	}
	v4, v6 := podAddresses(n)
	for _, family := range []struct{ router, address, mask string }{{podRouter, v4, "32"}, {podRouter6, v6, "128"}} {
		if family.address == v6 && !dualStack {
			break
		}
		if err := runAll(fmt.Sprintf(`
			ip -n %[1]s address add %[2]s/%[6]s dev %[3]s
			ip -n %[1]s link set %[3]s up
			ip -n %[1]s route add %[5]s/%[6]s dev %[3]s
			ip -n %[4]s address add %[5]s/%[6]s dev eth0
			ip -n %[4]s link set eth0 up
			ip -n %[4]s route add %[2]s dev eth0
			ip -n %[4]s route add default via %[2]s`, node.name, family.router, link, full, family.address, family.mask)); err != nil {
			return nil, err
		}
	}
	return pod, writeFile(filepath.Join(pod.etc(), "resolv.conf"),
		"search default.svc.cluster.local svc.cluster.local cluster.local\nnameserver "+dnsAddress+"\noptions ndots:5\n")
}

// etc is the directory whose entries are the pod's own in /etc.
func (n *namespace) etc() string { return filepath.Join("/etc/netns", n.name) }

func (n *namespace) remove() error { return run("ip", "netns", "delete", n.name) }

func writeFile(path, text string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(text), 0o644)
}
