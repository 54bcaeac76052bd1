package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/remote"
)

// config is what the flags say.
type config struct {
	flags                   *pflag.FlagSet
	kubeconfig, kubecontext string // of the local cluster
	remotes                 []remote.Spec
	remote                  remote.Options
	mirror                  mirror.Options
	election                leader.Options
	listen                  mirror.Listen
	check, dryRun, version  bool
	prune, pruneDryRun      string
}

// parse reads and validates the flags. The error has a line for each mistake.
func parse(args []string) (*config, error) {
	cfg := &config{flags: pflag.NewFlagSet("service-mirror", pflag.ContinueOnError)}
	var remotes remote.Flags
	var gateways gateway.Flags
	var mirrors mirror.Flags
	election := leader.Flags{Namespace: os.Getenv("POD_NAMESPACE")}
	f := cfg.flags
	f.Usage, f.SortFlags = func() {}, false
	remotes.Add(f)
	f.StringVar(&cfg.kubeconfig, "kubeconfig", "", "kubeconfig `PATH` of the local cluster (default: in a pod its own ServiceAccount, else as kubectl does)")
	f.StringVar(&cfg.kubecontext, "context", "", "context `NAME` for the local cluster (default: the kubeconfig's current one)")
	gateways.Add(f)
	mirrors.Add(f)
	cfg.listen.Add(f)
	election.Add(f)
	f.BoolVar(&cfg.check, "check", false, "check whether all clusters can be reached, read and written, and what will not be mirrored; write nothing, and exit: with code 1 if something must be fixed")
	f.BoolVar(&cfg.dryRun, "dry-run", false, "print what would be written as a diff, write nothing, and exit")
	f.StringVar(&cfg.prune, "prune", "", "delete all mirrors of the remote `NAME`, which --remote must not name, and exit")
	f.StringVar(&cfg.pruneDryRun, "prune-dry-run", "", "print what --prune `NAME` would delete, and exit")
	f.BoolVar(&cfg.version, "version", false, "print the version and exit")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	f.AddGoFlagSet(logging)
	if err := f.Parse(args); err != nil || cfg.version {
		return cfg, err
	}
	var errs [6]error
	cfg.remote, errs[1] = remotes.Options()
	cfg.remote.Client.UserAgent = "service-mirror/" + programVersion()
	cfg.remote.Gateway, errs[2] = gateways.Options()
	cfg.remotes, errs[3] = remotes.Remotes(gateways.Shared(), cfg.remote.Gateway.Filter)
	cfg.mirror, errs[4] = mirrors.Options()
	cfg.election, errs[5] = election.Options()
	errs[0] = cfg.validate()
	return cfg, errors.Join(errs[:]...)
}

// validate finds what no package can find in its own flags.
func (cfg *config) validate() error {
	var mistakes []error
	for _, arg := range cfg.flags.Args() {
		mistakes = append(mistakes, fmt.Errorf("%s: not a flag: remove it, there are no other arguments", arg))
	}
	mistakes = append(mistakes, cfg.validateModes(), cfg.listen.Validate())
	// A Deployment may exist before the first remote is linked.
	if !cfg.flags.Changed("remote") && !cfg.prunes() && !cfg.election.On {
		mistakes = append(mistakes, errors.New("--remote: no remote cluster is given: give one as NAME=KUBECONFIG"))
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
			mistakes = append(mistakes, fmt.Errorf("--%s: %.70q is not the name of a remote, a DNS label", one.flag, one.name))
		case slices.ContainsFunc(cfg.remotes, func(spec remote.Spec) bool { return spec.Name == one.name }):
			mistakes = append(mistakes, fmt.Errorf("--%s %s: --remote names it too, and would create its mirrors again: remove that first", one.flag, one.name))
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
		mistakes = append(mistakes, fmt.Errorf("--%s and --%s: only one of these can be done at once: remove the other", modes[0], modes[1]))
	}
	return errors.Join(mistakes...)
}
