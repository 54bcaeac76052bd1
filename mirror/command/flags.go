package command

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/remote"
)

// config is what the flags say.
type config struct {
	flags                   *pflag.FlagSet
	groups                  []group // the flags, as the help shows them
	kubeconfig, kubecontext string  // of the local cluster
	remotes                 []remote.Spec
	remote                  remote.Options
	mirror                  mirror.Options
	election                leader.Options
	listen                  mirror.Listen
	check, dryRun, version  bool
	prune, pruneDryRun      string

	parts struct { // the flags of the packages, as they are typed
		remotes  remote.Flags
		gateways gateway.Flags
		mirrors  mirror.Flags
		election leader.Flags
		verify   verify.Flags
	}
}

// parse reads and validates the daemon's flags. The error has a line for each mistake.
func parse(args []string) (*config, error) {
	cfg := newConfig("service-mirror")
	f := cfg.group("Deprecated flags, removed in the next release")
	f.BoolVar(&cfg.check, "check", false, "deprecated: use service-mirror check")
	f.BoolVar(&cfg.dryRun, "dry-run", false, "deprecated: use service-mirror plan")
	f.StringVar(&cfg.prune, "prune", "", "deprecated: use service-mirror prune `NAME`")
	f.StringVar(&cfg.pruneDryRun, "prune-dry-run", "", "deprecated: use service-mirror prune `NAME` --dry-run")
	if err := cfg.parse(args); err != nil || cfg.version {
		return cfg, err
	}
	err := cfg.read()
	return cfg, errors.Join(cfg.validate(), err)
}

// newConfig has the flags that the daemon shares with commands that know what it would do.
func newConfig(name string) *config {
	cfg := emptyConfig(name)
	cfg.parts.election.Namespace = os.Getenv("POD_NAMESPACE")
	cfg.addKubeconfig("the local cluster")
	cfg.parts.remotes.Add(cfg.group("Remote clusters"))
	cfg.parts.gateways.Add(cfg.group("Gateways"))
	cfg.parts.mirrors.Add(cfg.group("Mirrors"))
	cfg.parts.verify.Add(cfg.group("Verification"))
	cfg.listen.Add(cfg.group("Status page and metrics"))
	cfg.parts.election.Add(cfg.group("Leader election"))
	return cfg
}

// emptyConfig has no flags yet.
func emptyConfig(name string) *config {
	cfg := &config{flags: pflag.NewFlagSet(name, pflag.ContinueOnError)}
	cfg.flags.Usage, cfg.flags.SortFlags = func() {}, false
	return cfg
}

// addKubeconfig adds the flags that say how to reach a cluster.
func (cfg *config) addKubeconfig(cluster string) {
	f := cfg.group(strings.ToUpper(cluster[4:5]) + cluster[5:]) // without "the"
	f.StringVar(&cfg.kubeconfig, "kubeconfig", "", "kubeconfig `PATH` of "+cluster+" (default: the pod's ServiceAccount, otherwise the same as kubectl)")
	f.StringVar(&cfg.kubecontext, "context", "", "context `NAME` of "+cluster+" (default: the current context)")
}

// parse reads the flags, with those that come last in every command.
func (cfg *config) parse(args []string) error {
	f := cfg.group("Other flags")
	f.BoolVar(&cfg.version, "version", false, "print the version and exit")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	f.AddGoFlagSet(logging)
	f.VisitAll(func(one *pflag.Flag) {
		one.Hidden = logging.Lookup(one.Name) != nil && one.Name != "v" && one.Name != "vmodule"
	}) // it logs to stderr
	for _, g := range cfg.groups {
		cfg.flags.AddFlagSet(g.flags)
	}
	return cfg.flags.Parse(args)
}

// read has the packages read their flags. The error has a line for each mistake.
func (cfg *config) read() error {
	var errs [6]error
	parts := &cfg.parts
	cfg.remote, errs[0] = parts.remotes.Options()
	cfg.remote.Client.UserAgent = "service-mirror/" + programVersion()
	cfg.remote.Gateway, errs[1] = parts.gateways.Options()
	cfg.remotes, errs[2] = parts.remotes.Remotes(parts.gateways.Shared(), cfg.remote.Gateway.Filter)
	cfg.mirror, errs[3] = parts.mirrors.Options(cfg.remotes)
	cfg.mirror.Verify, errs[4] = parts.verify.Options()
	cfg.election, errs[5] = parts.election.Options()
	return errors.Join(errs[:]...)
}

// validate finds what no package can find in its own flags.
func (cfg *config) validate() error {
	var mistakes []error
	for _, arg := range cfg.flags.Args() {
		mistakes = append(mistakes, fmt.Errorf("unexpected argument %s: remove it; a command must come first", arg))
	}
	mistakes = append(mistakes, cfg.validateModes(), cfg.listen.Validate())
	// A Deployment may exist before the first remote is linked.
	if !cfg.flags.Changed("remote") && cfg.parts.remotes.From() == "" && !cfg.prunes() && !cfg.election.On {
		mistakes = append(mistakes, errors.New("--remote is required: set NAME=KUBECONFIG, or set --remotes-from"))
	}
	return errors.Join(mistakes...)
}

// prunes tells whether mirrors are to be pruned, or listed for that.
func (cfg *config) prunes() bool {
	return cfg.flags.Changed("prune") || cfg.flags.Changed("prune-dry-run")
}

// validateModes finds what is wrong with the flags that have the program do something else and exit.
func (cfg *config) validateModes() error {
	var mistakes []error
	for _, one := range []struct{ flag, name string }{{"prune", cfg.prune}, {"prune-dry-run", cfg.pruneDryRun}} {
		switch {
		case !cfg.flags.Changed(one.flag):
		case len(validation.IsDNS1123Label(one.name)) > 0:
			mistakes = append(mistakes, fmt.Errorf("--%s: %.70q is not a valid remote name (a DNS label)", one.flag, one.name))
		case slices.ContainsFunc(cfg.remotes, func(spec remote.Spec) bool { return spec.Name == one.name }):
			mistakes = append(mistakes, fmt.Errorf("--%s %s: the remote is still configured and its mirrors would be recreated: remove its --remote first", one.flag, one.name))
		}
	}
	var modes []string
	for _, one := range []struct {
		flag string
		on   bool
	}{{"check", cfg.check}, {"dry-run", cfg.dryRun}, {"prune", cfg.flags.Changed("prune")}, {"prune-dry-run", cfg.flags.Changed("prune-dry-run")}} {
		if one.on {
			modes = append(modes, one.flag)
		}
	}
	if len(modes) > 1 {
		mistakes = append(mistakes, onlyOne(modes[0], modes[1]))
	}
	return errors.Join(mistakes...)
}

func onlyOne(a, b string) error {
	return fmt.Errorf("--%s and --%s are mutually exclusive: remove one", a, b)
}
