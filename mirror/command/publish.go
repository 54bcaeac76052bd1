package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/check"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
)

const publishUsage = `service-mirror publish runs in a cluster that exports Services. It keeps routes to them on
that cluster's gateway, for the host names that other clusters use, and a record of each
with its gateway ports, which other clusters read.

Usage:
  service-mirror publish FLAGS

Example:
  service-mirror publish --name paris --to gateway-api --gateway ingress/public

Exit codes:
  0  stopped, or no errors
  1  failed, or --check found an error
  2  invalid flags
`

// publishCommand is what its own flags say.
type publishCommand struct {
	*config
	publish  publish.Options
	raw      publish.Flags
	pruneAll bool
	output   string
}

// runPublish runs the command publish.
func runPublish(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	p, err := parsePublish(args)
	return p.execute(ctx, p.run, err, publishUsage, stdout, stderr)
}

func parsePublish(args []string) (*publishCommand, error) {
	namespace := os.Getenv("POD_NAMESPACE")
	p := &publishCommand{config: emptyConfig("publish"), raw: publish.Flags{Namespace: namespace}}
	f := p.group("Flags")
	p.raw.Add(f)
	p.addKubeconfig("the cluster")
	p.listen.Add(p.group("Status page and metrics"))
	p.parts.election.Namespace, p.parts.election.Name = namespace, "service-mirror-publish"
	p.parts.election.Add(p.group("Leader election"))
	f.BoolVar(&p.check, "check", false, "check the cluster, its permissions and its gateway, list what will not be published, and exit; with code 1 if there is an error")
	f.StringVarP(&p.output, "output", "o", "text", "output `FORMAT` of --check: text or json")
	f.BoolVar(&p.dryRun, "dry-run", false, "print what would be written as a diff and exit")
	f.BoolVar(&p.pruneAll, "prune", false, "delete everything that was published and exit; with --dry-run, only print it")
	if err := p.parse(args); err != nil || p.version {
		return p, err
	}
	var errs [4]error
	if errs[3] = validateOutput(p.output); p.output == "json" && !p.check {
		errs[3] = errors.New("--output json requires --check: add that, or remove --output")
	}
	p.publish, errs[0] = p.raw.Options()
	p.election, errs[1] = p.parts.election.Options()
	errs[2] = p.listen.Validate()
	for _, arg := range p.flags.Args() {
		errs[2] = errors.Join(errs[2], fmt.Errorf("unexpected argument %s: remove it", arg))
	}
	for _, one := range []struct {
		flag string
		on   bool
	}{{"dry-run", p.dryRun}, {"prune", p.pruneAll}} {
		if p.check && one.on {
			errs[2] = errors.Join(errs[2], onlyOne("check", one.flag))
		}
	}
	p.remote.Client.UserAgent = "service-mirror/" + programVersion()
	return p, errors.Join(errs[:]...)
}

func (p *publishCommand) run(ctx context.Context, stdout io.Writer) error {
	cluster, err := p.local()
	if err != nil {
		return err
	}
	switch {
	case p.check:
		return checkResult(p.output, stdout, false, func(lines io.Writer) check.Result {
			return publish.Check(ctx, cluster, p.publish, p.election.Lease, lines)
		})
	case p.pruneAll:
		clients, err := publish.NewClients(cluster, func(*rest.Config) {})
		if err != nil {
			return fmt.Errorf("the cluster: %w", err)
		}
		return publish.Pruning{Clients: clients, Policy: p.publish.Policy, Lease: p.election.Lease, Cluster: cluster.Host, Dry: p.dryRun}.Prune(ctx, stdout)
	}
	return p.publishAll(ctx, cluster, stdout)
}

// publishAll runs the controller until the context ends, the election fails or, of a dry run, it is done.
func (p *publishCommand) publishAll(ctx context.Context, cluster *rest.Config, stdout io.Writer) (err error) {
	election := leader.New(p.election)
	clients, err := publish.NewClients(cluster, election.Guard)
	if err != nil {
		return fmt.Errorf("the cluster: %w", err)
	}
	election.Client = clients.Read.CoordinationV1()
	logger, started := klog.FromContext(ctx), time.Now()
	logger.Info("Starting", "program", p.remote.Client.UserAgent, "cluster", cluster.Host, "names", p.publish.Names)
	ctx, end := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() { end(); running.Wait() }()

	metrics := report.NewMetrics(report.Publisher, programVersion(), nil)
	metrics.CountRequests()
	p.publish.Metrics, p.publish.Events = metrics, report.NewEvents(ctx, clients.Write, report.OwnPod())
	defer p.publish.Events.Shutdown()
	controller := publish.New(clients, p.publish, logger)
	metrics.Observe(func() status.Page {
		page := controller.Overview()
		page.Leader = page.Leader && election.MayWrite()
		return page
	})
	if !p.dryRun { // the program beside it may listen there
		page := status.PublisherHandler(func() status.Publisher {
			page := controller.Page()
			page.Cluster, page.Version, page.Started, page.ElectionOn = cluster.Host, programVersion(), started, p.election.On
			page.Leader, page.LeaderPod = page.Leader && election.MayWrite(), election.Leader()
			return page
		})
		served := mirror.Served{Status: page, Metrics: metrics.Gatherer(), Stuck: controller.Stuck, Ready: controller.Ready()}
		if err := p.serve(ctx, &running, served.Handler(p.listen)); err != nil {
			return err
		}
	}
	running.Go(func() { controller.Run(ctx) })
	if p.dryRun {
		return controller.DryRun(ctx, cluster.Host, stdout)
	}
	select {
	case <-ctx.Done():
	case <-controller.Ready():
		err = election.Run(ctx, controller.Lead)
	}
	logger.Info("Stopping")
	return err
}
