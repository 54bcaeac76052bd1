package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"path/filepath"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// options are the checked command line.
type options struct {
	name          string
	dir           string // absolute
	port          uint16 // 0: the one of the last start, or a free one
	bind          netip.Addr
	advertise     netip.Addr
	serviceRanges []netip.Prefix // one, or one of each family
	outliveParent bool
}

// rawOptions are the command line as typed. Values are checked after all of them are read, so
// that every mistake is reported and not only the first.
type rawOptions struct {
	name, dir, port, bind, advertise, serviceRanges string

	outliveParent bool
}

func newFlagSet(raw *rawOptions) *flag.FlagSet {
	fs := flag.NewFlagSet("cluster", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	fs.StringVar(&raw.name, "name", "cluster",
		"`name` of the cluster, of its context in the kubeconfig, and in every line printed; a DNS label")
	fs.StringVar(&raw.dir, "dir", "",
		"`directory` of all its data: etcd, keys, kubeconfig, cluster.log, audit.log; a start with the same one goes on where the last ended (default .clusters/NAME)")
	fs.StringVar(&raw.port, "port", "0",
		"`port` of the API server; 0 is the one of the last start in the same directory, or else a free one")
	fs.StringVar(&raw.bind, "bind-address", "127.0.0.1",
		"IP `address` the API server listens on; 0.0.0.0 or :: for all")
	fs.StringVar(&raw.advertise, "advertise-address", "",
		"IP `address` in the kubeconfig and in the Endpoints of default/kubernetes (which are not written for a loopback address: the API refuses one) (default the bind address, or loopback if that is all addresses)")
	fs.StringVar(&raw.serviceRanges, "service-cluster-ip-range", "10.96.0.0/16",
		"`CIDR` of ClusterIPs; two, one of each IP family and joined by a comma, make the cluster dual-stack")
	fs.BoolVar(&raw.outliveParent, "outlive-parent", false,
		"go on when the process that started this one ends (default false: end too)")
	return fs
}

func printUsage(w io.Writer) {
	fmt.Fprint(w, `Runs a Kubernetes control plane and, once it is ready, prints the path of its kubeconfig.

  cluster [flags]            run a cluster until SIGTERM, SIGINT or the end of the parent
  cluster kubectl ARGS...    kubectl
  cluster kube-proxy ARGS... kube-proxy

`)
	fs := newFlagSet(new(rawOptions))
	fs.SetOutput(w)
	fs.PrintDefaults()
}

// parseOptions returns the checked options or every mistake in args. For -help the only error
// is flag.ErrHelp.
func parseOptions(args []string) (options, []error) {
	var raw rawOptions
	fs := newFlagSet(&raw)
	if err := fs.Parse(args); err != nil {
		return options{}, []error{err}
	}
	opts, errs := raw.check()
	for _, arg := range fs.Args() {
		errs = append(errs, fmt.Errorf("unexpected argument %q", arg))
	}
	return opts, errs
}

func (raw rawOptions) check() (options, []error) {
	opts := options{name: raw.name, outliveParent: raw.outliveParent}
	var errs []error
	fail := func(flag, value, reason string) {
		errs = append(errs, fmt.Errorf("--%s %q: %s", flag, value, reason))
	}

	for _, reason := range validation.IsDNS1123Label(raw.name) {
		fail("name", raw.name, reason)
	}

	if raw.dir == "" {
		raw.dir = filepath.Join(".clusters", raw.name)
	}
	dir, err := filepath.Abs(raw.dir)
	if err != nil {
		fail("dir", raw.dir, err.Error())
	}
	opts.dir = dir

	port, err := strconv.ParseUint(raw.port, 10, 16)
	if err != nil {
		fail("port", raw.port, "must be a number from 0 to 65535")
	}
	opts.port = uint16(port)

	opts.bind, err = parseAddr(raw.bind)
	if err != nil {
		fail("bind-address", raw.bind, err.Error())
	}

	switch {
	case raw.advertise != "":
		opts.advertise, err = parseAddr(raw.advertise)
		if err == nil && opts.advertise.IsUnspecified() {
			err = errors.New("must be an address that clients can connect to")
		}
		if err != nil {
			fail("advertise-address", raw.advertise, err.Error())
		}
	case opts.bind.IsUnspecified():
		opts.advertise = loopback(opts.bind)
	default:
		opts.advertise = opts.bind
	}

	opts.serviceRanges, err = parseServiceRanges(raw.serviceRanges)
	if err != nil {
		fail("service-cluster-ip-range", raw.serviceRanges, err.Error())
	}

	return opts, errs
}

func parseAddr(s string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(s)
	if err != nil || addr.Zone() != "" {
		return netip.Addr{}, errors.New("must be an IP address")
	}
	return addr, nil
}

// loopback returns the loopback address of addr's family.
func loopback(addr netip.Addr) netip.Addr {
	if addr.Is4() {
		return netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	return netip.IPv6Loopback()
}

// parseServiceRanges checks what kube-apiserver would refuse only after etcd has started.
func parseServiceRanges(s string) ([]netip.Prefix, error) {
	var ranges []netip.Prefix
	for cidr := range strings.SplitSeq(s, ",") {
		prefix, err := netip.ParsePrefix(cidr)
		if err != nil {
			return nil, fmt.Errorf("%q must be a CIDR like 10.96.0.0/16", cidr)
		}
		if prefix != prefix.Masked() {
			return nil, fmt.Errorf("%s must be the start of its range, %s", prefix, prefix.Masked())
		}
		if prefix.Addr().BitLen()-prefix.Bits() < 3 {
			return nil, fmt.Errorf("%s must have at least 8 addresses", prefix)
		}
		ranges = append(ranges, prefix)
	}
	if len(ranges) > 2 || len(ranges) == 2 && ranges[0].Addr().Is4() == ranges[1].Addr().Is4() {
		return nil, errors.New("must be one CIDR, or one of each IP family")
	}
	return ranges, nil
}
