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
	"net/netip"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/remote"
)

// version is set by the linker for releases.
var version = ""

func main() {
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
	case err != nil:
		for _, line := range strings.Split(err.Error(), "\n") {
			fmt.Fprintln(stderr, "service-mirror:", line)
		}
		fmt.Fprintln(stderr, "service-mirror: see --help")
		return exitUsage
	}
	if err := mirrorAll(ctx, cfg); err != nil {
		fmt.Fprintln(stderr, "service-mirror:", err)
		return exitFailure
	}
	return 0
}

// mirrorAll wires the remotes to the controller and runs them until the context
// ends.
func mirrorAll(ctx context.Context, cfg *config) error {
	local, err := cfg.localConfig()
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	local = cfg.remote.Client.Tune(local, "", &remote.Network{})
	client, err := kubernetes.NewForConfig(local)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	meta, err := metadata.NewForConfig(local)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "program", cfg.remote.Client.UserAgent, "localCluster", local.Host, "remotes", len(cfg.remotes))
	controller := mirror.New(client, meta, cfg.options, logger)
	cfg.remote.Gateway.Filter.Local = controller.LocalRanges
	var remotes []*remote.Remote
	for _, spec := range cfg.remotes {
		r := remote.New(spec, cfg.remote, controller.Hooks(spec.Name))
		controller.Add(r)
		remotes = append(remotes, r)
	}
	var wg sync.WaitGroup
	for _, r := range remotes {
		wg.Go(func() { r.Run(ctx) })
	}
	controller.Run(ctx)
	wg.Wait()
	logger.Info("Stopped")
	return nil
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
	gateway                 gatewayFlags
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
	cfg.addGatewayFlags()
	f.IntVar(&cfg.options.Workers, "workers", 32, "`NUMBER` of mirrors worked on in parallel, 1 to 1000")
	f.Float32Var(&cfg.remote.Client.QPS, "kube-api-qps", 0, "`NUMBER` of requests a second to each API server; 0 is no limit on this side: API Priority and Fairness is the server's own")
	f.IntVar(&cfg.remote.Client.Burst, "kube-api-burst", 0, "`NUMBER` of requests at once above --kube-api-qps; 0 is as many as that")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	f.AddGoFlagSet(logging)
	if err := f.Parse(args); err != nil {
		return cfg, err
	}
	var wrong mistakes
	for _, arg := range f.Args() {
		wrong.add(arg, errors.New("not a flag: this program takes flags alone"))
	}
	shared, filter := cfg.checkGateway(&wrong)
	if len(*remotes) == 0 {
		wrong.add("--remote", errors.New("no remote cluster is given"))
	}
	for _, text := range *remotes {
		cfg.addRemote(text, shared, filter, &wrong)
	}
	wrong.add("--export-selector", checkSelector(cfg.remote.Selector))
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
	cfg.remote.Client.UserAgent = "service-mirror/" + programVersion()
	return cfg, errors.Join(wrong...)
}

// gatewayFlags are the flags about gateways, as they are typed.
type gatewayFlags struct {
	name, port, domain, dnsServer string
	deny, allow                   []string
}

func (cfg *config) addGatewayFlags() {
	f, raw, options := cfg.flags, &cfg.gateway, &cfg.remote.Gateway
	f.StringVar(&raw.name, "gateway", "", "gateway Service `NS/NAME` of the remotes that name none")
	f.StringVar(&raw.port, "gateway-port", "", "`NAME|NUMBER` of the gateway port that all traffic goes to, for the remotes that name none (default: chosen for each port by name, protocol and number)")
	f.StringSliceVar(&raw.deny, "gateway-deny", nil, "`CIDR,…` of addresses that no gateway may have, besides this cluster's own and those that lead nowhere")
	f.StringSliceVar(&raw.allow, "gateway-allow", nil, "`CIDR,…` of the only addresses that gateways may have")
	f.StringVar(&raw.domain, "cluster-domain", "cluster.local", "DNS `DOMAIN` of this cluster, under which no gateway may have its hostname, and of the remotes that name no other")
	f.DurationVar(&options.Refresh, "dns-refresh", 30*time.Second, "`DURATION` after which a gateway's hostname is resolved again, at least 1s")
	f.StringVar(&raw.dnsServer, "dns-server", "", "`ADDRESS:PORT` of a DNS server to ask instead of the system's, for debugging")
	probe := &options.Probe
	f.StringVar((*string)(&probe.Kind), "probe", string(gateway.ProbeNone), "`KIND` of probe that tells whether a gateway's address lives: tcp, http or none. One that does not becomes not ready")
	f.StringVar(&probe.Port, "probe-port", "", "`NAME|NUMBER` of the gateway port to probe (default: the port that all traffic goes to, else the lowest TCP port)")
	f.StringVar(&probe.Path, "probe-path", "/", "`PATH` that an http probe asks for; any answer below 400 will do")
	f.DurationVar(&probe.Period, "probe-period", 5*time.Second, "`DURATION` between two probes of an address")
	f.DurationVar(&probe.Timeout, "probe-timeout", 2*time.Second, "`DURATION` after which a probe has failed")
	f.IntVar(&probe.Threshold, "probe-threshold", 3, "`NUMBER` of probes in a row that must fail; one that succeeds makes the address ready again")
}

// checkGateway reads the flags about gateways: what remotes share, and which
// addresses are refused.
func (cfg *config) checkGateway(wrong *mistakes) (shared gateway.Config, filter gateway.Filter) {
	raw, options := cfg.gateway, &cfg.remote.Gateway
	var err error
	if raw.name != "" {
		shared.Service, err = remote.ParseObjectName(raw.name)
		wrong.add("--gateway", err)
	}
	if raw.port != "" {
		shared.Port = raw.port
		wrong.add("--gateway-port", gateway.ValidatePort(raw.port))
	}
	wrong.add("--cluster-domain", remote.ValidateDomain(raw.domain))
	shared.Domain, filter.Domain = raw.domain, raw.domain
	for _, list := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{{"--gateway-deny", raw.deny, &filter.Deny}, {"--gateway-allow", raw.allow, &filter.Allow}} {
		for _, text := range list.texts {
			prefix, err := gateway.ParsePrefix(text)
			wrong.add(list.flag, err)
			*list.to = append(*list.to, prefix)
		}
	}
	if options.Refresh < time.Second {
		wrong.add("--dns-refresh", fmt.Errorf("%v is less than 1s", options.Refresh))
	}
	if raw.dnsServer != "" {
		if _, err := netip.ParseAddrPort(raw.dnsServer); err != nil {
			wrong.add("--dns-server", fmt.Errorf("%q is not ADDRESS:PORT", raw.dnsServer))
		}
	}
	if err := options.Probe.Validate(); err != nil {
		*wrong = append(*wrong, err)
	}
	options.Filter, options.Resolver = filter, gateway.NewResolver(raw.dnsServer)
	return shared, filter
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
func (cfg *config) addRemote(text string, shared gateway.Config, filter gateway.Filter, wrong *mistakes) {
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
		wrong.add("--remote "+spec.Name, config.Validate(filter))
	}
	for _, other := range cfg.remotes {
		if other.Name == spec.Name {
			wrong.add("--remote "+spec.Name, errors.New("two remotes have this name: their mirrors would be one another's"))
		}
	}
	cfg.remotes = append(cfg.remotes, spec)
}

// checkSelector refuses the empty selector: it would export everything.
func checkSelector(text string) error {
	selector, err := labels.Parse(text)
	if err == nil && selector.Empty() {
		err = errors.New("an empty selector would export every Service")
	}
	return err
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
