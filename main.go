// Command service-mirror runs in one Kubernetes cluster and keeps there, for
// every Service that other clusters export, a Service whose endpoints are that
// cluster's gateway.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/check"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// version is set by the linker for releases.
var version = ""

func main() {
	// Garbage is a large part of what a small program takes, and it has time to collect it.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	klog.Flush()
	os.Exit(code)
}

// command is a command of the program, which the first argument selects. Without one it is the daemon.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

var commands = []command{
	{"verify", "send requests to mirrors, and say which of them arrive", runVerify},
}

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through those clusters' gateways. For each Service that a remote cluster
exports it keeps a Service NAME-REMOTE in the same namespace.

  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

Other commands have flags of their own: --help after them lists these.

`

// run runs the command that the first argument names, or else the daemon, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 {
		for _, c := range commands {
			if c.name == args[0] {
				return c.run(ctx, args[1:], stdout, stderr)
			}
		}
	}
	cfg, err := parse(args)
	var help strings.Builder
	help.WriteString(usage)
	for _, c := range commands {
		fmt.Fprintf(&help, "  service-mirror %-10s %s\n", c.name, c.summary)
	}
	return cfg.execute(ctx, cfg.run, err, help.String()+"\n", stdout, stderr)
}

// execute does what a command does, unless its flags say that it is to print something instead, or are wrong: err.
func (cfg *config) execute(ctx context.Context, do func(context.Context, io.Writer) error, err error, help string, stdout, stderr io.Writer) int {
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, help, cfg.flags.FlagUsagesWrapped(100))
		return 0
	case cfg.version:
		fmt.Fprintln(stdout, "service-mirror", programVersion())
		return 0
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(stderr, "service-mirror:", line)
		}
		fmt.Fprintln(stderr, "service-mirror: see --help")
		return 2 // a restart does not fix it
	}
	if err := do(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "service-mirror:", failure.Lines(err.Error()))
		return 1
	}
	return 0
}

// local is how to reach the local cluster.
func (cfg *config) local() (*rest.Config, error) {
	local, err := remote.LoadLocal(cfg.kubeconfig, cfg.kubecontext)
	if err != nil {
		return nil, fmt.Errorf("local cluster: %w", err)
	}
	return cfg.remote.Client.Tune(local, "", &remote.Network{}), nil
}

func (cfg *config) run(ctx context.Context, stdout io.Writer) error {
	local, err := cfg.local()
	if err != nil {
		return err
	}
	switch {
	case cfg.check:
		options := check.Options{Local: local, Remotes: cfg.remotes, Remote: cfg.remote, Policy: cfg.mirror.Policy, Lease: cfg.election.Lease}
		if !check.Run(ctx, options, stdout) {
			return errors.New("something must be fixed")
		}
		return nil
	case cfg.prune != "" || cfg.pruneDryRun != "":
		client, err := remote.NewClient(local)
		if err != nil {
			return fmt.Errorf("local cluster: %w", err)
		}
		return write.Prune(ctx, client, local.Host, cmp.Or(cfg.prune, cfg.pruneDryRun), cfg.prune == "", stdout)
	}
	if cfg.dryRun {
		return cfg.mirrorAll(ctx, local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) error {
			return controller.DryRun(ctx, remotes, local.Host, stdout)
		})
	}
	return cfg.mirrorAll(ctx, local, nil)
}

// once does something with what is known of the clusters, instead of keeping mirrors.
type once func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) error

// mirrorAll connects the remotes to the controller and runs them until the context
// ends, the election fails or, where instead is not nil, that has been done.
func (cfg *config) mirrorAll(ctx context.Context, local *rest.Config, instead once) (err error) {
	election := leader.New(cfg.election)
	clients, err := mirror.NewClients(local, election.Guard)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	election.Client = clients.Read.CoordinationV1()
	logger, started := klog.FromContext(ctx), time.Now()
	logger.Info("Starting", "program", cfg.remote.Client.UserAgent, "localCluster", local.Host, "remotes", len(cfg.remotes))
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() { end(); running.Wait() }()

	cfg.mirror.Metrics = report.NewMetrics(programVersion(), remote.Names(cfg.remotes))
	cfg.mirror.Metrics.CountRequests()
	cfg.mirror.Events = report.NewEvents(ctx, clients.Write, report.OwnPod())
	defer cfg.mirror.Events.Shutdown()
	cfg.mirror.Domain = cfg.remote.Gateway.Filter.Domain
	controller := mirror.New(clients, cfg.mirror, logger)
	overview := func() status.Page {
		page := controller.Overview()
		page.Local, page.Version, page.Started, page.ElectionOn = local.Host, programVersion(), started, cfg.election.On
		page.Leader = page.Leader && election.MayWrite()
		return page
	}
	cfg.mirror.Metrics.Observe(overview)

	cfg.remote.Gateway.Filter.Local = controller.Ranges
	var remotes []*remote.Remote
	for _, spec := range cfg.remotes {
		r := remote.New(spec, cfg.remote, controller.Hooks(spec.Name))
		controller.Add(r)
		remotes = append(remotes, r)
	}
	if cfg.listen.Address != "" && instead == nil { // the daemon beside it may listen there
		listener, err := net.Listen("tcp", cfg.listen.Address)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		logger.Info("Serving", "address", listener.Addr())
		running.Go(func() { mirror.Serve(ctx, listener, controller.Handler(overview, cfg.listen)) })
	}
	for _, r := range remotes {
		running.Go(func() { r.Run(ctx) })
	}
	running.Go(func() { controller.Run(ctx) })
	if instead != nil {
		return instead(ctx, controller, remotes)
	}
	select {
	case <-ctx.Done():
	case <-controller.Ready():
		err = election.Run(ctx, controller.Lead)
	}
	logger.Info("Stopping")
	return err
}

func programVersion() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
