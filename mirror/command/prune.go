package command

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

const pruneUsage = `service-mirror prune lists and deletes all mirrors of removed remotes. If one of the remotes
has no mirrors, it deletes nothing and lists the remotes that have. A remote that is still
configured, with --remote or a Secret of --remotes-from, is refused, because the daemon would
recreate its mirrors; the daemon's flags are accepted for this check.

Usage:
  service-mirror prune NAME... [--dry-run] [-o json] [FLAGS OF THE DAEMON]

The Service of a merged mirror is kept while it lists another remote; only the pruned
remotes are removed from its list.

It requires list and delete on Services, Endpoints and EndpointSlices in all namespaces and,
for merged mirrors, update on Services.

Exit codes:
  0  all deleted, or listed with --dry-run
  1  a remote has no mirrors, or some were not deleted
  2  invalid flags or names
`

// pruneCommand is what its own flags say.
type pruneCommand struct {
	*config
	dry    bool
	output string
}

func runPrune(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	c, err := parsePrune(args)
	return c.execute(ctx, c.run, err, pruneUsage, stdout, stderr)
}

func parsePrune(args []string) (*pruneCommand, error) {
	c := &pruneCommand{config: newConfig("prune")}
	c.own().BoolVar(&c.dry, "dry-run", false, "only list what would be deleted")
	c.addOutput(&c.output)
	for _, g := range c.groups { // of these only two have an effect
		if g.listed {
			g.flags.VisitAll(func(f *pflag.Flag) { f.Hidden = f.Name != "remote" && f.Name != "remotes-from" })
		}
	}
	if err := c.parse(args); err != nil || c.version {
		return c, err
	}
	err := c.read()
	return c, errors.Join(validateOutput(c.output), c.validate(), err)
}

// validate finds what is wrong with the names.
func (c *pruneCommand) validate() error {
	var mistakes []error
	names := c.flags.Args()
	if len(names) == 0 {
		mistakes = append(mistakes, errors.New("prune: no remote name: set at least one"))
	}
	for i, name := range names {
		switch {
		case len(validation.IsDNS1123Label(name)) > 0:
			mistakes = append(mistakes, fmt.Errorf("prune: %.70q is not a valid remote name (a DNS label)", name))
		case slices.Contains(names[:i], name):
			mistakes = append(mistakes, fmt.Errorf("prune: %s is set twice: remove one", name))
		case slices.Contains(remote.Names(c.remotes), name):
			mistakes = append(mistakes, fmt.Errorf("prune %s: the remote is still configured and its mirrors would be recreated: remove its --remote first", name))
		}
	}
	return errors.Join(mistakes...)
}

func (c *pruneCommand) run(ctx context.Context, stdout io.Writer) error {
	local, err := c.local()
	if err != nil {
		return err
	}
	client, err := remote.NewClient(local)
	if err != nil {
		return fmt.Errorf("local cluster: %w", err)
	}
	if err := c.unconfigured(ctx, local, c.flags.Args()...); err != nil {
		return err
	}
	lines := stdout
	if c.output == "json" {
		lines = io.Discard
	}
	all, err := write.Pruning{Client: client, Local: c.localName(local), Remotes: c.flags.Args(), Dry: c.dry}.Prune(ctx, lines)
	if c.output == "json" && all != nil {
		return errors.Join(printJSON(stdout, struct {
			Local   string         `json:"local"`
			DryRun  bool           `json:"dryRun"`
			Remotes []write.Pruned `json:"remotes"`
		}{c.localName(local), c.dry, all}), err)
	}
	return err
}
