// Package command is what the program does, by its first argument: the commands with their flags, and the daemon,
// which is the one without a name.
package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"service-mirror.io/service-mirror/remote/failure"
)

// Version is that of the program; empty: what Go knows of the module.
var Version string

// command is a command of the program, which the first argument selects. Without one it is the daemon.
type command struct {
	name, summary string
	run           func(ctx context.Context, args []string, stdout, stderr io.Writer) int
	flags         func() *pflag.FlagSet // for completion
	words         []string              // arguments that completion knows
}

// commands are set by init: completion is about them, and one of them.
var commands []command

func init() {
	commands = []command{
		{"check", "check the clusters, and list what will not be mirrored", runCheck, flagsOf(parseCheck), nil},
		{"plan", "show what the daemon would write, as a diff", runPlan, flagsOf(parsePlan), nil},
		{"status", "show remotes, mirrors and their problems", runStatus, flagsOf(parseStatus), nil},
		{"verify", "send requests to mirrors and report which arrive", runVerify, flagsOf(parseVerify), nil},
		{"link", "add a remote cluster to the daemon", runLink, flagsOf(parseLink), nil},
		{"unlink", "remove a remote cluster from the daemon", runUnlink, flagsOf(parseUnlink), nil},
		{"prune", "delete the mirrors of removed remotes", runPrune, flagsOf(parsePrune), nil},
		{"publish", "create gateway routes for the Services that this cluster exports", runPublish, flagsOf(parsePublish), nil},
		{"version", "print the version", runVersion, flagsOf(parseVersion), nil},
		{"completion", "print a shell completion script", runCompletion, flagsOf(parseCompletion), shells},
	}
}

// flagsOf are the flags that a command would parse.
func flagsOf[C interface{ set() *pflag.FlagSet }](parse func([]string) (C, error)) func() *pflag.FlagSet {
	return func() *pflag.FlagSet {
		c, _ := parse(nil)
		return c.set()
	}
}

func (cfg *config) set() *pflag.FlagSet { return cfg.flags }

const usage = `service-mirror makes the Services of other Kubernetes clusters reachable in this
one, through the gateways of those clusters. For each Service that a remote cluster
exports, it keeps a mirror Service NAME-REMOTE in the same namespace.

Usage:
  service-mirror FLAGS           run the daemon until it is stopped
  service-mirror COMMAND FLAGS   run a command; see COMMAND --help

Example:
  service-mirror --remote paris=paris.kubeconfig --gateway ingress/gateway

Commands:
`

const usageExits = `
Exit codes:
  0  stopped
  1  failed
  2  invalid flags; a restart does not help
`

// Run runs the command that the first argument names, or else the daemon, and returns the exit code.
func Run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == "help" {
		args = append(slices.Clone(args[1:min(2, len(args))]), "--help")
	}
	if len(args) > 0 {
		if c := commandOf(args[0]); c != nil {
			return c.run(ctx, args[1:], stdout, stderr)
		}
		if word := args[0]; word != "" && word[0] != '-' {
			fmt.Fprintf(stderr, "service-mirror: %s\nservice-mirror: see --help\n", failure.Line(unknownCommand(word)))
			return exitFlags
		}
	}
	cfg, err := parse(args)
	var help strings.Builder
	help.WriteString(usage)
	for _, c := range commands {
		fmt.Fprintf(&help, "  service-mirror %-10s   %s\n", c.name, c.summary)
	}
	return cfg.execute(ctx, cfg.run, err, help.String()+usageExits, stdout, stderr)
}

// commandOf is the command of a name; nil: there is none.
func commandOf(name string) *command {
	if i := slices.IndexFunc(commands, func(c command) bool { return c.name == name }); i >= 0 {
		return &commands[i]
	}
	return nil
}

func unknownCommand(word string) string {
	var names []string
	for _, c := range commands {
		names = append(names, c.name)
	}
	return fmt.Sprintf("unknown command %.70s: use one of %s, or flags for the daemon", word, strings.Join(names, ", "))
}

// Exit codes that all commands share.
const (
	exitFailed = 1
	exitFlags  = 2
)

// exit is an error with an exit code of its own.
type exit struct {
	code int
	error
}

// differs is the end of a command that has found what it looks for, which is no failure: nothing is said of it.
var differs = exit{1, errors.New("")}

// execute does what a command does, unless its flags say that it is to print something instead, or are wrong: err.
func (cfg *config) execute(ctx context.Context, do func(context.Context, io.Writer) error, err error, help string, stdout, stderr io.Writer) int {
	switch {
	case errors.Is(err, pflag.ErrHelp):
		fmt.Fprint(stdout, help, cfg.flagHelp())
		return 0
	case cfg.version:
		fmt.Fprintln(stdout, "service-mirror", programVersion())
		return 0
	case err != nil:
		for line := range strings.SplitSeq(err.Error(), "\n") {
			fmt.Fprintln(stderr, "service-mirror:", line)
		}
		fmt.Fprintln(stderr, "service-mirror: see --help")
		return exitFlags // a restart does not fix it
	}
	err = do(ctx, stdout)
	code := exitFailed
	if coded, ok := errors.AsType[exit](err); ok {
		code = coded.code
	}
	if err == nil {
		return 0
	}
	if err.Error() != "" {
		fmt.Fprintln(stderr, "service-mirror:", failure.Lines(err.Error()))
	}
	return code
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
