package command

import (
	"context"
	"errors"
	"io"

	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/remote"
)

const planUsage = `service-mirror plan shows what the daemon would write with the same flags: each object as a
YAML diff, each problem with its reason. It writes nothing. The last line is a summary, such
as: 1 create, 1 update, 274 delete.

Usage:
  service-mirror plan [-o json] FLAGS OF THE DAEMON

Exit codes:
  0  no changes
  1  changes, as for kubectl diff
  2  invalid flags
  3  a cluster cannot be read; changes that depend on it are not shown
`

// planCommand is what its own flags say.
type planCommand struct {
	*config
	output string
}

func runPlan(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parsePlan(args)
	return c.execute(ctx, c.run, err, planUsage, stdout, stderr)
}

func parsePlan(args []string) (*planCommand, error) {
	c := &planCommand{config: newConfig("plan")}
	c.addOutput(&c.output)
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	err := c.read()
	return c, errors.Join(validateOutput(c.output), c.validate(), err)
}

// exitUnread is the exit code of commands for which 1 is an answer.
const exitUnread = 3

func (c *planCommand) run(ctx context.Context, stdout io.Writer) error {
	local, err := c.local()
	if err != nil {
		return exit{exitUnread, err}
	}
	var foreseen mirror.Foreseen
	if err := c.mirrorAll(c.quiet(ctx), local, func(ctx context.Context, controller *mirror.Controller, remotes []*remote.Remote) (err error) {
		foreseen, err = controller.Foresee(ctx, remotes, c.localName(local))
		return err
	}); err != nil {
		return exit{exitUnread, err}
	}
	if c.output == "json" {
		if err := foreseen.WriteJSON(stdout, c.localName(local)); err != nil {
			return exit{exitUnread, err}
		}
	} else {
		foreseen.Print(stdout, c.localName(local))
	}
	switch {
	case foreseen.Unknown != nil:
		return exit{exitUnread, foreseen.Unknown}
	case foreseen.Counts().Any():
		return differs
	}
	return nil
}
