// Command service-mirror runs in one Kubernetes cluster and keeps there, for
// every Service that other clusters export, a Service that leads to that
// cluster's gateway.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/preflight"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// version is set by the linker for releases.
var version = ""

func main() {
	// Garbage is a large part of what a small program takes, and time it has.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	klog.Flush()
	os.Exit(code)
}

// The exit codes: a mistake in the flags will not mend itself.
const (
	exitFailure = 1
	exitUsage   = 2
)

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	cfg, err := parse(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, usage, cfg.describe())
		return 0
	case cfg.version:
		fmt.Fprintln(stdout, "service-mirror", programVersion())
		return 0
	case err != nil:
		for _, line := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(stderr, "service-mirror:", line)
		}
		fmt.Fprintln(stderr, "service-mirror: see --help")
		return exitUsage
	}
	if err := do(ctx, cfg, stdout); err != nil {
		fmt.Fprintln(stderr, "service-mirror:", err)
		return exitFailure
	}
	return 0
}

// do does what the flags ask for.
func do(ctx context.Context, cfg *config, stdout io.Writer) error {
	local, err := cfg.localConfig()
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	local = cfg.remote.Client.Tune(local, "", &remote.Network{})
	switch {
	case cfg.check:
		options := preflight.Options{Local: local, Remotes: cfg.remotes, Remote: cfg.remote, Mirror: cfg.options}
		if cfg.election.On {
			options.Lease = cfg.election.Lease
		}
		if !preflight.Run(ctx, options, stdout) {
			return errors.New("something must be mended")
		}
		return nil
	case cfg.prune != "" || cfg.prunePlan != "":
		client, err := remote.NewClient(local)
		if err != nil {
			return fmt.Errorf("local cluster: %w", err)
		}
		return mirror.Prune(ctx, client, local.Host, cmp.Or(cfg.prune, cfg.prunePlan), cfg.prune == "", stdout)
	}
	return mirrorAll(ctx, cfg, local, stdout)
}

// mirrorAll wires the remotes to the controller and runs them until the context
// ends.
func mirrorAll(ctx context.Context, cfg *config, local *rest.Config, stdout io.Writer) error {
	fence := leader.NewFence(cfg.election.Duration)
	writing := rest.CopyConfig(local)
	if cfg.election.On {
		fence.Guard(writing)
	}
	var clients mirror.Clients
	var err error
	if clients.Read, err = remote.NewClient(local); err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	if clients.Metadata, err = metadata.NewForConfig(local); err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	if clients.Write, err = remote.NewClient(writing); err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	logger, started := klog.FromContext(ctx), time.Now()
	logger.Info("Starting", "program", cfg.remote.Client.UserAgent, "localCluster", local.Host, "remotes", len(cfg.remotes))

	var controller *mirror.Controller
	overview := func() status.Page {
		page := controller.Overview()
		page.Local, page.Version, page.Started, page.ElectionOn = local.Host, programVersion(), started, cfg.election.On
		return page
	}
	cfg.options.Metrics = mirror.NewMetrics(programVersion(), names(cfg.remotes), overview)
	cfg.options.Metrics.CountRequests()
	cfg.options.Events = mirror.NewEvents(ctx, clients.Write, mirror.OwnPod())
	controller = mirror.New(clients, cfg.options, logger)
	cfg.remote.Gateway.Filter.Local = controller.LocalRanges
	ctx, end := context.WithCancel(ctx)
	defer end()
	var remotes []*remote.Remote
	for _, spec := range cfg.remotes {
		r := remote.New(spec, cfg.remote, controller.Hooks(spec.Name))
		controller.Add(r)
		remotes = append(remotes, r)
	}
	var wg sync.WaitGroup
	if cfg.listen != "" && !cfg.dryRun { // the daemon beside it may listen there
		listener, err := net.Listen("tcp", cfg.listen)
		if err != nil {
			return fmt.Errorf("--listen: %w", err)
		}
		logger.Info("Serving", "address", listener.Addr())
		wg.Go(func() { mirror.Serve(ctx, listener, controller.Handler(overview, cfg.profile)) })
	}
	for _, r := range remotes {
		wg.Go(func() { r.Run(ctx) })
	}
	var missing error
	if cfg.dryRun {
		wg.Go(func() {
			defer end()
			missing = plan(ctx, controller, remotes, local.Host, stdout)
		})
	} else {
		wg.Go(func() { cfg.lead(ctx, controller, clients.Read, fence) })
	}
	controller.Run(ctx)
	wg.Wait()
	if cfg.dryRun {
		return missing
	}
	logger.Info("Stopped")
	return nil
}

// planTime is how long a dry run waits for what is to be known of the local cluster,
// and then for that of the remotes.
const planTime = 30 * time.Second

// plan prints what would be written once every remote is known, or time is up.
func plan(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote, local string, stdout io.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(planTime):
		return fmt.Errorf("local cluster %s: not all that is needed of it can be read; --check may say why", local)
	case <-controller.Ready():
	}
	var unknown []error
	for deadline := time.Now().Add(planTime); ; time.Sleep(50 * time.Millisecond) {
		unknown = nil
		for _, r := range remotes {
			if err := r.Unknown(); err != nil {
				unknown = append(unknown, fmt.Errorf("remote %s is not known, and nothing would be done for it: %w", r.Name(), err))
			}
		}
		if len(unknown) == 0 || ctx.Err() != nil || time.Now().After(deadline) {
			break
		}
	}
	all := controller.Plan()
	for _, planned := range all {
		planned.Print(stdout, local)
	}
	if len(all) == 0 {
		fmt.Fprintln(stdout, "nothing would be written in", local)
	}
	return errors.Join(unknown...)
}

// grace is how long a write under way may take when the program ends, or when
// another replica is about to lead.
const grace = 5 * time.Second

// lead has the controller write, for as long as this replica leads.
func (cfg *config) lead(ctx context.Context, controller *mirror.Controller, client remote.Client, fence *leader.Fence) {
	select {
	case <-ctx.Done():
		return
	case <-controller.Ready():
	}
	if !cfg.election.On {
		controller.Lead(ctx, grace)
		return
	}
	host, _ := os.Hostname()
	err := leader.Election{
		Client: client.CoordinationV1(), Lease: cfg.election.Lease, Identity: host + "_" + string(uuid.NewUUID()), Duration: cfg.election.Duration, Fence: fence,
	}.Run(ctx, func(ctx context.Context) { controller.Lead(ctx, min(grace, cfg.election.Duration/4)) })
	if err != nil {
		klog.FromContext(ctx).Error(err, "This replica cannot stand for election")
	}
}

func names(specs []remote.Spec) (names []string) {
	for _, spec := range specs {
		names = append(names, spec.Name)
	}
	return names
}

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through those clusters' gateways. For each Service that a remote cluster
exports it keeps a Service NAME-REMOTE in the same namespace.

  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

`

// describe is the help on every flag: the name and the kind of its value on one
// line, what it does below.
func (cfg *config) describe() string {
	var text strings.Builder
	cfg.flags.VisitAll(func(f *pflag.Flag) {
		kind, help := pflag.UnquoteUsage(f)
		name := "--" + f.Name
		if f.Shorthand != "" {
			name = "-" + f.Shorthand + ", " + name
		}
		if f.DefValue != "" && f.DefValue != "[]" && f.DefValue != "false" {
			help += fmt.Sprintf(" (default %s)", f.DefValue)
		}
		fmt.Fprintf(&text, "  %s\n", strings.TrimSpace(name+" "+kind))
		line := "     "
		for word := range strings.FieldsSeq(help) {
			if len(line)+1+len(word) > 80 {
				fmt.Fprintln(&text, line)
				line = "     "
			}
			line += " " + word
		}
		fmt.Fprintln(&text, line)
	})
	return text.String()
}

// config is what the flags say.
type config struct {
	flags                   *pflag.FlagSet
	kubeconfig, kubecontext string
	remotes                 []remote.Spec
	remote                  remote.Options
	options                 mirror.Options
	gateway                 gateway.Flags
	listen                  string
	profile                 bool
	election                leader.Flags
	check, dryRun, version  bool
	prune, prunePlan        string
}

// parse reads and checks the flags. The error has a line for each mistake.
func parse(args []string) (*config, error) {
	cfg := &config{flags: pflag.NewFlagSet("service-mirror", pflag.ContinueOnError)}
	cfg.flags.Usage = func() {}
	f := cfg.flags
	f.SortFlags = false
	remotes := f.StringArray("remote", nil, "a remote cluster, as `NAME=KUBECONFIG[,KEY=VALUE]…`; repeat it for each. NAME is a DNS label and ends its mirrors' names. "+
		"The keys: context=NAME in the kubeconfig; namespaces=NS,… that are watched, all others being left alone; gateway=NS/NAME and gateway-port=NAME|NUMBER in place of the flags of those names; "+
		"more gateway=NS/NAME for Services that choose one with the annotation service-mirror.io/gateway; "+
		"address=IP|HOSTNAME, repeatable, in place of the addresses that the gateway Service has; "+
		"tcp-services=NS/NAME and udp-services=NS/NAME of a ConfigMap with reserved gateway ports, as ingress-nginx has them; "+
		"cluster-domain=DOMAIN in place of the flag of that name; "+
		"uid=UID of the cluster to expect, which is that of its kube-system namespace")
	f.StringVar(&cfg.kubeconfig, "kubeconfig", "", "kubeconfig `PATH` of the local cluster (default: in a pod its own ServiceAccount, else as kubectl does)")
	f.StringVar(&cfg.kubecontext, "context", "", "context `NAME` for the local cluster (default: the kubeconfig's current one)")
	f.StringVar(&cfg.remote.Selector, "export-selector", "service-mirror.io/exported=true", "label `SELECTOR` of the Services that remotes export")
	f.StringSliceVar(&cfg.options.CopyLabels, "copy-labels", nil, "label `KEY,…` copied from exported Services to their mirrors")
	f.StringSliceVar(&cfg.options.CopyAnnotations, "copy-annotations", nil, "annotation `KEY,…` likewise")
	f.BoolVar(&cfg.options.IncludeSystem, "include-system", false, "mirror exported Services of kube-system too")
	f.BoolVar(&cfg.options.CreateNamespaces, "create-namespaces", false, "make a namespace that an exported Service needs, instead of waiting for it")
	f.StringVar((*string)(&cfg.options.EndpointsAPI), "endpoints-api", string(mirror.UseEndpoints), "`KIND` of object that carries a mirror's addresses: endpoints or endpointslices; to change it on a running cluster loses none")
	cfg.gateway.Add(f)
	f.IntVar(&cfg.options.Workers, "workers", 32, "`NUMBER` of mirrors worked on in parallel, 1 to 1000")
	f.Float32Var(&cfg.remote.Client.QPS, "kube-api-qps", 0, "`NUMBER` of requests a second to each API server; 0 is no limit on this side: API Priority and Fairness is the server's own")
	f.IntVar(&cfg.remote.Client.Burst, "kube-api-burst", 0, "`NUMBER` of requests at once above --kube-api-qps; 0 is as many as that")
	f.StringVar(&cfg.listen, "listen", "", "`ADDRESS:PORT` of the status page, /status.json, /metrics, /healthz and /readyz, as :8080 (default: none)")
	f.BoolVar(&cfg.profile, "pprof", false, "serve Go's profiles at /debug/pprof/, too")
	cfg.election.Add(f)
	f.BoolVar(&cfg.check, "check", false, "look whether all clusters can be reached, may be read and written, and what will not be mirrored; write nothing, and end: with exit code 1 if something must be mended")
	f.BoolVar(&cfg.dryRun, "dry-run", false, "print what would be written as a diff, write nothing, and end")
	f.StringVar(&cfg.prune, "prune", "", "remove all mirrors of the remote `NAME`, which --remote must not name, and end")
	f.StringVar(&cfg.prunePlan, "prune-dry-run", "", "print what --prune `NAME` would remove, and end")
	f.BoolVar(&cfg.version, "version", false, "print the version and end")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	f.AddGoFlagSet(logging)
	if err := f.Parse(args); err != nil || cfg.version {
		return cfg, err
	}
	var wrong mistakes
	for _, arg := range f.Args() {
		wrong.add(arg, errors.New("not a flag: this program takes flags alone"))
	}
	shared := gateway.Config{Port: cfg.gateway.Port, Domain: cfg.gateway.Domain}
	var err error
	if cfg.gateway.Gateway != "" {
		shared.Service, err = remote.ParseObjectName(cfg.gateway.Gateway)
		wrong.add("--gateway", err)
	}
	if cfg.remote.Gateway, err = cfg.gateway.Options(); err != nil {
		wrong = append(wrong, err)
	}
	pruned := cmp.Or(cfg.prune, cfg.prunePlan)
	// A Deployment stands before the first remote is linked.
	if len(*remotes) == 0 && pruned == "" && !cfg.election.On {
		wrong.add("--remote", errors.New("no remote cluster is given"))
	}
	for _, text := range *remotes {
		cfg.addRemote(text, shared, &wrong)
	}
	if slices.Contains(names(cfg.remotes), pruned) {
		wrong.add("--prune "+pruned, errors.New("--remote names it too: its mirrors would be made again"))
	}
	wrong.add("--export-selector", remote.ValidateSelector(cfg.remote.Selector))
	wrong.add("--copy-labels", mirror.ValidateKeys(cfg.options.CopyLabels))
	wrong.add("--copy-annotations", mirror.ValidateKeys(cfg.options.CopyAnnotations))
	if api := cfg.options.EndpointsAPI; api != mirror.UseEndpoints && api != mirror.UseEndpointSlices {
		wrong.add("--endpoints-api", fmt.Errorf("%q is neither endpoints nor endpointslices", api))
	}
	if n := cfg.options.Workers; n < 1 || n > 1000 {
		wrong.add("--workers", fmt.Errorf("%d is not from 1 to 1000", n))
	}
	if cfg.remote.Client.QPS < 0 {
		wrong.add("--kube-api-qps", errors.New("must not be negative"))
	}
	if cfg.remote.Client.Burst < 0 {
		wrong.add("--kube-api-burst", errors.New("must not be negative"))
	} else if cfg.remote.Client.Burst == 0 {
		cfg.remote.Client.Burst = max(1, int(cfg.remote.Client.QPS))
	}
	if err := cfg.election.Complete(os.Getenv("POD_NAMESPACE")); err != nil {
		wrong = append(wrong, err)
	}
	if cfg.profile && cfg.listen == "" {
		wrong.add("--pprof", errors.New("--listen says where, and is not given"))
	}
	cfg.remote.Client.UserAgent = "service-mirror/" + programVersion()
	return cfg, errors.Join(wrong...)
}

// mistakes are what is wrong with the flags, one line each.
type mistakes []error

// add notes every line of err under the flag it is about.
func (m *mistakes) add(flag string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		*m = append(*m, fmt.Errorf("%s: %s", flag, line))
	}
}

// addRemote reads one --remote; what it does not say of its gateways, shared does.
func (cfg *config) addRemote(text string, shared gateway.Config, wrong *mistakes) {
	spec, err := remote.ParseSpec(text)
	if err != nil {
		wrong.add("--remote "+text, err)
		return
	}
	for i := range spec.Gateways {
		config := &spec.Gateways[i]
		config.Service = cmp.Or(config.Service, shared.Service)
		config.Port = cmp.Or(config.Port, shared.Port)
		config.Domain = cmp.Or(config.Domain, shared.Domain)
		wrong.add("--remote "+spec.Name, config.Validate(cfg.remote.Gateway.Filter))
	}
	for _, other := range cfg.remotes {
		if other.Name == spec.Name {
			wrong.add("--remote "+spec.Name, errors.New("two remotes have this name: their mirrors would be one another's"))
		}
	}
	cfg.remotes = append(cfg.remotes, spec)
}

// localConfig finds the local cluster: the flags, else the pod's own
// ServiceAccount, else kubectl's rules.
func (cfg *config) localConfig() (*rest.Config, error) {
	if cfg.kubeconfig == "" && cfg.kubecontext == "" {
		inCluster, err := rest.InClusterConfig()
		if !errors.Is(err, rest.ErrNotInCluster) {
			return inCluster, err
		}
	}
	if cfg.kubeconfig != "" {
		return remote.LoadKubeconfig(cfg.kubeconfig, cfg.kubecontext)
	}
	return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(),
		&clientcmd.ConfigOverrides{CurrentContext: cfg.kubecontext}).ClientConfig()
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
