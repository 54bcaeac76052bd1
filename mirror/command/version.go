package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
)

const versionUsage = `service-mirror version prints the version of this program.

Usage:
  service-mirror version [-o json]

Exit codes:
  0  printed
  2  invalid flags
`

// versionCommand is what its own flags say.
type versionCommand struct {
	*config
	output string
}

func runVersion(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parseVersion(args)
	return c.execute(ctx, c.run, err, versionUsage, stdout, stderr)
}

func parseVersion(args []string) (*versionCommand, error) {
	c := &versionCommand{config: emptyConfig("version")}
	c.addOutput(&c.output)
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	return c, errors.Join(validateOutput(c.output), c.noArguments())
}

func (c *versionCommand) run(_ context.Context, stdout io.Writer) error {
	if c.output == "text" {
		_, err := fmt.Fprintln(stdout, "service-mirror", programVersion())
		return err
	}
	return printJSON(stdout, struct {
		Version   string `json:"version"`
		GoVersion string `json:"goVersion"`
		Platform  string `json:"platform"`
	}{programVersion(), runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH})
}

// noArguments finds arguments that are no flags.
func (cfg *config) noArguments() error {
	var mistakes []error
	for _, arg := range cfg.flags.Args() {
		mistakes = append(mistakes, fmt.Errorf("unexpected argument %s: remove it", arg))
	}
	return errors.Join(mistakes...)
}
