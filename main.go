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
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"

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
	local = cfg.client.Tune(local, "", &remote.Network{})
	client, err := kubernetes.NewForConfig(local)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	meta, err := metadata.NewForConfig(local)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	logger := klog.FromContext(ctx)
	logger.Info("Starting", "program", cfg.client.UserAgent, "localCluster", local.Host, "remotes", len(cfg.remotes))
	controller := mirror.New(client, meta, cfg.options, logger)
	var remotes []*remote.Remote
	for _, spec := range cfg.remotes {
		r := remote.New(spec, cfg.selector, cfg.client, controller.Hooks(spec.Name))
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
	selector                string
	remotes                 []remote.Spec
	options                 mirror.Options
	client                  remote.ClientOptions
}

// parse reads and checks the flags. The error has a line for each mistake.
func parse(args []string) (*config, error) {
	cfg := &config{flags: pflag.NewFlagSet("service-mirror", pflag.ContinueOnError)}
	cfg.flags.Usage = func() {}
	f := cfg.flags
	f.SortFlags = false
	remotes := f.StringArray("remote", nil, "a remote cluster, as `NAME=KUBECONFIG[,KEY=VALUE]…`; repeat it for each. NAME is a DNS label and ends its mirrors' names. "+
		"The keys: context=NAME in the kubeconfig; gateway=NS/NAME and gateway-port=NAME|NUMBER in place of the flags of those names; "+
		"address=IP, repeatable, in place of the addresses that the gateway Service has; "+
		"uid=UID of the cluster to expect, which is that of its kube-system namespace")
	f.StringVar(&cfg.kubeconfig, "kubeconfig", "", "kubeconfig `PATH` of the local cluster (default: in a pod its own ServiceAccount, else as kubectl does)")
	f.StringVar(&cfg.kubecontext, "context", "", "context `NAME` for the local cluster (default: the kubeconfig's current one)")
	gatewayName := f.String("gateway", "", "gateway Service `NS/NAME` of the remotes that name none")
	gatewayPort := f.String("gateway-port", "", "`NAME|NUMBER` of the gateway port that all traffic goes to, for the remotes that name none (default: chosen for each port by name, protocol and number)")
	f.StringVar(&cfg.selector, "export-selector", "service-mirror.io/exported=true", "label `SELECTOR` of the Services that remotes export")
	f.StringSliceVar(&cfg.options.CopyLabels, "copy-labels", nil, "label `KEY,…` copied from exported Services to their mirrors")
	f.StringSliceVar(&cfg.options.CopyAnnotations, "copy-annotations", nil, "annotation `KEY,…` likewise")
	f.BoolVar(&cfg.options.IncludeSystem, "include-system", false, "mirror exported Services of kube-system too")
	f.BoolVar(&cfg.options.CreateNamespaces, "create-namespaces", false, "make a namespace that an exported Service needs, instead of waiting for it")
	f.IntVar(&cfg.options.Workers, "workers", 32, "`NUMBER` of mirrors worked on in parallel, 1 to 1000")
	f.Float32Var(&cfg.client.QPS, "kube-api-qps", 0, "`NUMBER` of requests a second to each API server; 0 is no limit on this side: API Priority and Fairness is the server's own")
	f.IntVar(&cfg.client.Burst, "kube-api-burst", 0, "`NUMBER` of requests at once above --kube-api-qps; 0 is as many as that")
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
	var shared gateway.Config
	var err error
	if *gatewayName != "" {
		shared.Service, err = remote.ParseObjectName(*gatewayName)
		wrong.add("--gateway", err)
	}
	if *gatewayPort != "" {
		shared.Port = *gatewayPort
		wrong.add("--gateway-port", gateway.ValidatePort(*gatewayPort))
	}
	if len(*remotes) == 0 {
		wrong.add("--remote", errors.New("no remote cluster is given"))
	}
	for _, text := range *remotes {
		cfg.addRemote(text, shared, &wrong)
	}
	wrong.add("--export-selector", checkSelector(cfg.selector))
	wrong.add("--copy-labels", mirror.ValidateKeys(cfg.options.CopyLabels))
	wrong.add("--copy-annotations", mirror.ValidateKeys(cfg.options.CopyAnnotations))
	if n := cfg.options.Workers; n < 1 || n > 1000 {
		wrong.add("--workers", fmt.Errorf("%d is not from 1 to 1000", n))
	}
	if cfg.client.QPS < 0 {
		wrong.add("--kube-api-qps", errors.New("must not be negative"))
	}
	if cfg.client.Burst < 0 {
		wrong.add("--kube-api-burst", errors.New("must not be negative"))
	} else if cfg.client.Burst == 0 {
		cfg.client.Burst = max(1, int(cfg.client.QPS))
	}
	cfg.client.UserAgent = "service-mirror/" + programVersion()
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

// addRemote reads one --remote; what it does not say of its gateway, shared does.
func (cfg *config) addRemote(text string, shared gateway.Config, wrong *mistakes) {
	spec, err := remote.ParseSpec(text)
	if err != nil {
		wrong.add("--remote "+text, err)
		return
	}
	spec.Gateway.Service = cmp.Or(spec.Gateway.Service, shared.Service)
	spec.Gateway.Port = cmp.Or(spec.Gateway.Port, shared.Port)
	wrong.add("--remote "+spec.Name, spec.Gateway.Validate())
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
