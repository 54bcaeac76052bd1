package command

import (
	"context"
	"errors"
	"io"

	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/mirror/check"
)

const checkUsage = `service-mirror check checks whether the clusters can be reached, read and written, and
lists what will not be mirrored and why. It writes nothing. Each line starts with a mark:
+ for ok, ! for a warning, - for an error.

Usage:
  service-mirror check [--strict] [-o json] [--wait DURATION] FLAGS OF THE DAEMON

Exit codes:
  0  no errors; with --strict, no warnings either
  1  errors; with --strict, errors or warnings
  2  invalid flags
`

// checkCommand is what its own flags say.
type checkCommand struct {
	*config
	strict bool
	output string
	wait   wait
}

func runCheck(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseCheck(args)
	c.wait.stderr = stderr
	return c.execute(ctx, c.run, err, checkUsage, stdout, stderr)
}

func parseCheck(args []string) (*checkCommand, error) {
	c := &checkCommand{config: newConfig("check")}
	c.own().BoolVar(&c.strict, "strict", false, "fail on warnings, too")
	c.addOutput(&c.output)
	c.wait.add(c.own(), "the check passes")
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	err := c.read()
	return c, errors.Join(validateOutput(c.output), c.wait.validate("check once"), c.validate(), err)
}

func (c *checkCommand) run(ctx context.Context, stdout io.Writer) error {
	local, err := c.local()
	if err != nil {
		return err
	}
	wait := c.wait
	if !c.loads() {
		wait.time = 0
	}
	return wait.printed(ctx, stdout, func(out io.Writer) (missing string, err error) {
		err = checkResult(c.output, out, c.strict, func(lines io.Writer) check.Result {
			result := check.Run(ctx, c.checked(ctx, local), lines)
			missing = result.Missing(c.strict)
			return result
		})
		return missing, err
	})
}

// checkResult prints what a check finds, its lines or JSON, and returns why it fails.
func checkResult(output string, stdout io.Writer, strict bool, run func(lines io.Writer) check.Result) error {
	if output != "json" {
		return run(stdout).Err(strict)
	}
	result := run(io.Discard)
	if err := result.WriteJSON(stdout); err != nil {
		return err
	}
	return result.Err(strict)
}

// checked is what is checked.
func (cfg *config) checked(ctx context.Context, local *rest.Config) check.Options {
	set, err := cfg.configured(ctx, local)
	return check.Options{Local: local, Remotes: set.Specs(), Problems: set.Problems(), From: cfg.parts.remotes.From(), Unread: errors.Join(err, set.Misnamed), Remote: cfg.remote, Policy: cfg.policy(set), Lease: cfg.election.Lease, Name: cfg.localName(local)}
}
