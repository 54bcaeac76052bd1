// Package command is what the program does, by its first argument: the commands with their flags, and the daemon,
// which is the one without a name.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"strings"

	"github.com/spf13/pflag"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/remote/failure"
)

// Version is that of the program; empty: what Go knows of the module.
var Version string

// command is a command of the program, which the first argument selects. Without one it is the daemon.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) int
}

var commands = []command{
	{"publish", "route this cluster's gateway to the Services that it exports", runPublish},
	{"verify", "send requests to mirrors, and say which of them arrive", runVerify},
}

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through those clusters' gateways. For each Service that a remote cluster
exports it keeps a Service NAME-REMOTE in the same namespace.

  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

Other commands have flags of their own: --help after them lists these.

`

// Run runs the command that the first argument names, or else the daemon, and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
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
		if err == mirror.ErrNoMirror {
			return 3
		}
		return 1
	}
	return 0
}

func programVersion() string {
	if Version != "" {
		return Version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return "dev"
}
