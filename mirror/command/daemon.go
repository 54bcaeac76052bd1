package command

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/check"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/secrets"
)

// local is how to reach the local cluster.
func (cfg *config) local() (*rest.Config, error) {
	local, err := remote.LoadLocal(cfg.kubeconfig, cfg.kubecontext)
	if err != nil {
		return nil, fmt.Errorf("local cluster: %w", err)
	}
	return cfg.remote.Client.Tune(local, "", &remote.Network{}), nil
}

// localName is what people call the local cluster: its --cluster-name, else the address of its API server.
func (cfg *config) localName(local *rest.Config) string {
	return cmp.Or(cfg.mirror.ClusterName, local.Host)
}

// named has each log line name the local cluster, if it has a name: logs of several clusters are read in one place.
func (cfg *config) named(ctx context.Context) context.Context {
	if cfg.mirror.ClusterName == "" {
		return ctx
	}
	return klog.NewContext(ctx, klog.LoggerWithValues(klog.FromContext(ctx), "localCluster", cfg.mirror.ClusterName))
}

func (cfg *config) run(ctx context.Context, stdout io.Writer) error {
	local, err := cfg.local()
	if err != nil {
		return err
	}
	switch {
	case cfg.check:
		return check.Run(ctx, cfg.checked(ctx, local), stdout).Err(false)
	case cfg.prune != "" || cfg.pruneDryRun != "":
		client, err := remote.NewClient(local)
		if err != nil {
			return fmt.Errorf("local cluster: %w", err)
		}
		name := cmp.Or(cfg.prune, cfg.pruneDryRun)
		if err := cfg.unconfigured(ctx, local, name); err != nil {
			return err
		}
		return write.Prune(ctx, client, cfg.localName(local), name, cfg.prune == "", stdout)
	}
	if cfg.dryRun {
		return cfg.mirrorAll(ctx, local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) error {
			return controller.DryRun(ctx, remotes, cfg.localName(local), stdout)
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
	started := time.Now()
	ctx = cfg.named(ctx)
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "program", cfg.remote.Client.UserAgent, "localServer", local.Host, "remotes", len(cfg.remotes), "remotesFrom", cfg.parts.remotes.From())
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	fleet := &mirror.Fleet{Names: cfg.parts.mirrors.Names}
	defer func() { end(); running.Wait(); fleet.Wait() }()

	cfg.mirror.Metrics = report.NewMetrics(report.Daemon, programVersion(), remote.Names(cfg.remotes))
	cfg.mirror.Metrics.CountRequests()
	cfg.mirror.Events = report.NewEvents(ctx, clients.Write, report.OwnPod())
	cfg.mirror.Events.Cluster = cfg.mirror.ClusterName
	defer cfg.mirror.Events.Shutdown()
	cfg.mirror.Domain = cfg.remote.Gateway.Filter.Domain
	controller := mirror.New(clients, cfg.mirror, logger)
	overview := func() status.Page {
		page := controller.Overview()
		page.Local, page.Version, page.Started, page.ElectionOn = cfg.localName(local), programVersion(), started, cfg.election.On
		page.Leader, page.LeaderPod = page.Leader && election.MayWrite(), election.Leader()
		return page
	}
	cfg.mirror.Metrics.Observe(overview)

	cfg.remote.Gateway.Filter.Local = controller.Ranges
	fleet.Controller = controller
	fleet.New = func(spec remote.Spec, hooks remote.Hooks) mirror.Runner { return remote.New(spec, cfg.remote, hooks) }
	source := secrets.Source{Client: clients.Read, Namespace: cfg.parts.remotes.From()}
	follows := source.Namespace != "" && instead == nil
	var found []*corev1.Secret
	if source.Namespace != "" && instead != nil {
		if found, err = source.List(ctx); err != nil {
			return err
		}
	}
	cfg.configure(ctx, fleet, found, follows)
	if instead == nil { // the daemon beside it may listen there
		if err := cfg.serve(ctx, &running, controller.Handler(overview, cfg.listen)); err != nil {
			return err
		}
	}
	if follows {
		running.Go(func() {
			source.Follow(ctx, controller.Local, func(found []*corev1.Secret) { cfg.configure(ctx, fleet, found, false) })
		})
	}
	running.Go(func() { controller.Run(ctx) })
	if instead != nil {
		return instead(ctx, controller, remotesOf(fleet))
	}
	select {
	case <-ctx.Done():
	case <-controller.Ready():
		err = election.Run(ctx, controller.Lead)
	}
	logger.Info("Stopping")
	return err
}

// serve serves the state of the program, if it is to, until the context ends.
func (cfg *config) serve(ctx context.Context, running *sync.WaitGroup, handler http.Handler) error {
	if cfg.listen.Address == "" {
		return nil
	}
	listener, err := net.Listen("tcp", cfg.listen.Address)
	if err != nil {
		return fmt.Errorf("--listen: %w", err)
	}
	klog.FromContext(ctx).Info("Serving", "address", listener.Addr())
	running.Go(func() { mirror.Serve(ctx, listener, handler) })
	return nil
}
