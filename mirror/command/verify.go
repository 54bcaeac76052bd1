package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/remote"
)

const verifyUsage = `service-mirror verify sends a request to mirrors, as pods of this cluster would, at each
address of their gateways, and prints which of them arrive. Nothing is written.

Usage:
  service-mirror verify [MIRROR...] [--remote NAME] [--all] FLAGS OF THE DAEMON

MIRROR is NAMESPACE/NAME, or NAME in any namespace. --remote NAME, beside the --remote
NAME=KUBECONFIG of the daemon, selects the mirrors of one remote, and --all those of all.

Exit codes:
  0  all were reached; UDP ports, of which nothing can be known, do not count
  1  some were not, or a cluster cannot be read
  2  a flag is wrong
  3  there is no mirror
`

// verifyCommand is what its own flags say.
type verifyCommand struct {
	*config
	wanted mirror.Wanted
	all    bool
	output string
}

// runVerify runs the command verify.
func runVerify(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	v, err := parseVerify(args)
	return v.execute(ctx, v.run, err, verifyUsage, stdout, stderr)
}

func parseVerify(args []string) (*verifyCommand, error) {
	v := &verifyCommand{config: newConfig("verify")}
	v.own().BoolVar(&v.all, "all", false, "verify the mirrors of all remotes")
	v.addOutput(&v.output)
	if err := v.parse(args); err != nil || v.version {
		return v, err
	}
	selected := v.parts.remotes.Selected()
	err := v.read()
	return v, errors.Join(v.validate(selected), err)
}

// validate finds what is wrong with the command's own arguments.
func (v *verifyCommand) validate(selected []string) error {
	v.wanted = mirror.Wanted{Mirrors: v.flags.Args(), JSON: v.output == "json", From: origin()}
	mistakes := []error{validateOutput(v.output)}
	switch len(selected) {
	case 0:
	case 1:
		v.wanted.Remote = selected[0]
	default:
		mistakes = append(mistakes, fmt.Errorf("--remote %s: only one remote can be selected: remove it, or give --all", selected[1]))
	}
	narrow := len(v.wanted.Mirrors) > 0 || len(selected) > 0
	switch {
	case !narrow && !v.all:
		mistakes = append(mistakes, errors.New("verify: nothing is named: name mirrors, give --remote NAME, or give --all"))
	case narrow && v.all:
		mistakes = append(mistakes, errors.New("--all: mirrors or a remote are named, too: remove these, or --all"))
	}
	return errors.Join(mistakes...)
}

func (v *verifyCommand) run(ctx context.Context, stdout io.Writer) error {
	if err := v.selects(remote.Names(v.remotes)); err != nil && v.parts.remotes.From() == "" {
		return err
	}
	local, err := v.local()
	if err != nil {
		return err
	}
	set, err := v.configured(ctx, local)
	if err != nil {
		return err
	}
	if err := v.selects(remote.Names(set.Specs())); err != nil {
		return err
	}
	return v.mirrorAll(v.quiet(ctx), local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) error {
		return controller.Verify(ctx, remotes, v.wanted, stdout)
	})
}

// selects finds that the remote that is selected is not configured.
func (v *verifyCommand) selects(configured []string) error {
	if name := v.wanted.Remote; name != "" && !slices.Contains(configured, name) {
		return fmt.Errorf("--remote %s: this remote is not configured: give its --remote NAME=KUBECONFIG, or --remotes-from, too", name)
	}
	return nil
}

// origin is where requests are sent from, for people.
func origin() string {
	if pod := report.OwnPod(); pod != nil {
		return "pod " + pod.Namespace + "/" + pod.Name
	}
	host, err := os.Hostname()
	if err != nil {
		host = "this machine"
	}
	return host
}
