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

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through those clusters' gateways. For each Service that a remote cluster
exports it keeps a Service NAME-REMOTE in the same namespace.

  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

`

// run runs the command that the flags name, and returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, usage, cfg.flags.FlagUsagesWrapped(100))
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
	if err := cfg.run(ctx, stdout); err != nil {
		fmt.Fprintln(stderr, "service-mirror:", failure.Lines(err.Error()))
		return 1
	}
	return 0
}

func (cfg *config) run(ctx context.Context, stdout io.Writer) error {
	local, err := remote.LoadLocal(cfg.kubeconfig, cfg.kubecontext)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	local = cfg.remote.Client.Tune(local, "", &remote.Network{})
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
	return cfg.mirrorAll(ctx, local, stdout)
}

// mirrorAll connects the remotes to the controller and runs them until the context
// ends, the dry run has ended, or the election fails.
func (cfg *config) mirrorAll(ctx context.Context, local *rest.Config, stdout io.Writer) (err error) {
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
	if cfg.listen.Address != "" && !cfg.dryRun { // the daemon beside a dry run may listen there
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
	if cfg.dryRun {
		return controller.DryRun(ctx, remotes, local.Host, stdout)
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
