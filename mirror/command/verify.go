package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"

	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/remote"
)

const verifyUsage = `service-mirror verify sends requests to mirrors, as pods of this cluster would, at each
address of their gateways, and prints which of them arrive. It writes nothing.

Usage:
  service-mirror verify [MIRROR...] [--remote NAME] [--all] [--wait DURATION] FLAGS OF THE DAEMON

MIRROR is NAMESPACE/NAME, or NAME in any namespace. --remote NAME selects the mirrors of one
remote (in addition to the daemon's --remote NAME=KUBECONFIG), --all those of all remotes.
--wait ends early if waiting does not help, for example if an exported Service is headless.

Exit codes:
  0  all reached, except UDP ports, which cannot be verified
  1  some not reached, or a cluster cannot be read
  2  invalid flags
  3  no mirrors
  4  no requests sent: only UDP ports
`

const (
	exitNoMirror     = 3
	exitUnverifiable = 4
)

// verifyCommand is what its own flags say.
type verifyCommand struct {
	*config
	wanted mirror.Wanted
	all    bool
	output string
	wait   wait
}

// runVerify runs the command verify.
func runVerify(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	v, err := parseVerify(args)
	v.wait.stderr = stderr
	return v.execute(ctx, v.run, err, verifyUsage, stdout, stderr)
}

func parseVerify(args []string) (*verifyCommand, error) {
	v := &verifyCommand{config: newConfig("verify")}
	v.own().BoolVar(&v.all, "all", false, "verify the mirrors of all remotes")
	v.addOutput(&v.output)
	v.wait.add(v.own(), "all are reached")
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
	mistakes := []error{validateOutput(v.output), v.wait.validate("verify once")}
	switch len(selected) {
	case 0:
	case 1:
		v.wanted.Remote = selected[0]
	default:
		mistakes = append(mistakes, fmt.Errorf("--remote %s: only one remote can be selected: remove it, or use --all", selected[1]))
	}
	narrow := len(v.wanted.Mirrors) > 0 || len(selected) > 0
	switch {
	case !narrow && !v.all:
		mistakes = append(mistakes, errors.New("verify: nothing selected: set mirrors, --remote NAME, or --all"))
	case narrow && v.all:
		mistakes = append(mistakes, errors.New("--all: mirrors or a remote are selected, too: remove them, or --all"))
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
	wait := v.wait
	if !v.loads() {
		wait.time = 0
	}
	return wait.printed(ctx, stdout, func(out io.Writer) (string, error) {
		err := v.once(ctx, local, out)
		return mirror.Awaited(err), coded(err)
	})
}

// coded gives an error of a verification that has sent no request its exit code. Joined with another error, it is a failure
// like any other.
func coded(err error) error {
	if _, only := err.(mirror.Unverifiable); only {
		return exit{exitUnverifiable, err}
	}
	if err == mirror.ErrNoMirror {
		return exit{exitNoMirror, err}
	}
	return err
}

// once verifies what is configured and exported at the moment.
func (v *verifyCommand) once(ctx context.Context, local *rest.Config, out io.Writer) error {
	set, err := v.configured(ctx, local)
	if err != nil {
		return err
	}
	if err := v.selects(remote.Names(set.Specs())); err != nil {
		return err
	}
	return v.mirrorAll(v.quiet(ctx), local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) error {
		return controller.Verify(ctx, remotes, v.wanted, out)
	})
}

// selects finds that the remote that is selected is not configured.
func (v *verifyCommand) selects(configured []string) error {
	if name := v.wanted.Remote; name != "" && !slices.Contains(configured, name) {
		return fmt.Errorf("--remote %s: the remote is not configured: add its --remote NAME=KUBECONFIG, or --remotes-from", name)
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
