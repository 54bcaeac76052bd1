package main

import (
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/sets"
	cliflag "k8s.io/component-base/cli/flag"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
)

const (
	auditLogFile    = "audit.log"
	auditPolicyFile = "audit-policy.yaml"
	portFile        = "port"
	tokensFile      = "tokens.csv"

	serviceAccountIssuer = "https://kubernetes.default.svc.cluster.local"
)

// auditPolicy records who asked for what, once it has been answered and, for a watch, once it
// is open: a test that looks for a watch cannot wait for its end.
const auditPolicy = `apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: Metadata
`

// listen takes the API server's port before the server starts, so that a port in use is an error
// of ours and no other process gets the port in between. An asked-for port of 0 is the port of
// the last start or, at the first one, a free port.
func listen(bind netip.Addr, port uint16) (net.Listener, error) {
	if port == 0 {
		last, err := os.ReadFile(portFile)
		if err == nil {
			n, err := strconv.ParseUint(string(last), 10, 16)
			if err != nil {
				return nil, fmt.Errorf("read %s: %w", portFile, err)
			}
			port = uint16(n)
		} else if !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	listener, err := net.Listen("tcp", netip.AddrPortFrom(bind, port).String())
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(portFile, []byte(strconv.Itoa(portOf(listener))), 0o600); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener, nil
}

func portOf(listener net.Listener) int { return listener.Addr().(*net.TCPAddr).Port }

// writeTokens makes the file the API server knows its first users from. All of them are
// cluster-admins: the controllers, too, since nothing here gives each of them a role of its own.
func writeTokens(tokens map[string]string) error {
	var file strings.Builder
	w := csv.NewWriter(&file)
	for _, user := range sets.List(sets.KeySet(tokens)) {
		if err := w.Write([]string{tokens[user], user, user, "system:masters"}); err != nil {
			return err
		}
	}
	w.Flush()
	return os.WriteFile(tokensFile, []byte(file.String()), 0o600)
}

// servingNames returns all the addresses and names by which the API server may be called.
func servingNames(opts options) ([]netip.Addr, []string) {
	addrs := sets.New(netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback(), opts.advertise)
	if !opts.bind.IsUnspecified() {
		addrs.Insert(opts.bind)
	}
	for _, r := range opts.serviceRanges {
		addrs.Insert(r.Addr().Next()) // the ClusterIP of default/kubernetes
	}
	names := []string{"localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"}
	return addrs.UnsortedList(), names
}

func apiServerArgs(opts options, port int) []string {
	var ranges []string
	for _, r := range opts.serviceRanges {
		ranges = append(ranges, r.String())
	}
	// The API refuses Endpoints with a loopback address, and the server would try for ever.
	reconciler := "lease"
	if opts.advertise.IsLoopback() {
		reconciler = "none"
	}
	return []string{
		"--advertise-address=" + opts.advertise.String(),
		"--allow-privileged",
		"--audit-log-maxsize=1000000", // megabytes
		"--audit-log-mode=blocking",   // written before the request is answered
		"--audit-log-path=" + auditLogFile,
		"--audit-policy-file=" + auditPolicyFile,
		"--authorization-mode=RBAC",
		"--bind-address=" + opts.bind.String(),
		"--endpoint-reconciler-type=" + reconciler,
		"--etcd-servers=" + etcdEndpoint,
		"--secure-port=" + strconv.Itoa(port),
		"--service-account-issuer=" + serviceAccountIssuer,
		"--service-account-key-file=" + serviceAccountKeyFile,
		"--service-account-signing-key-file=" + serviceAccountKeyFile,
		"--service-cluster-ip-range=" + strings.Join(ranges, ","),
		// Without this, a stop waits up to a minute for clients to give up their watches.
		"--shutdown-watch-termination-grace-period=1s",
		"--tls-cert-file=" + servingCertFile,
		"--tls-private-key-file=" + servingKeyFile,
		"--token-auth-file=" + tokensFile,
	}
}

// runAPIServer runs kube-apiserver until ctx ends. It does what the server's own command does,
// but for signals and for the process-wide log settings, of which there can be only one owner.
func runAPIServer(ctx context.Context, args []string, listener net.Listener) error {
	opts := apiserveroptions.NewServerRunOptions()
	if err := parseFlags(opts.Flags(), args); err != nil {
		return err
	}
	if err := opts.GenericServerRunOptions.ComponentGlobalsRegistry.Set(); err != nil {
		return fmt.Errorf("set feature gates: %w", err)
	}
	opts.SecureServing.Listener = listener

	completed, err := completeAPIServer(ctx, opts)
	if err != nil {
		return fmt.Errorf("complete options: %w", err)
	}
	if err := errors.Join(completed.Validate()...); err != nil {
		return fmt.Errorf("check options: %w", err)
	}
	return apiserver.Run(ctx, completed)
}

// parseFlags sets a server's options by its own flags: unlike the fields, they are documented.
func parseFlags(sets cliflag.NamedFlagSets, args []string) error {
	all := pflag.NewFlagSet("", pflag.ContinueOnError)
	for _, set := range sets.FlagSets {
		all.AddFlagSet(set)
	}
	return all.Parse(args)
}
