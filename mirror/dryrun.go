package mirror

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"service-mirror.io/service-mirror/remote"
)

// dryRunTime is how long a dry run waits for what must be known of the local cluster,
// and then for the remotes.
const dryRunTime = 30 * time.Second

// DryRun prints what would be written in the local cluster, whose name is given, once
// every remote is known or time is up. The error lists what is not known: nothing
// would be written for it.
func (c *Controller) DryRun(ctx context.Context, remotes []*remote.Remote, local string, out io.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(dryRunTime):
		return fmt.Errorf("local cluster %s: not all that is needed of it can be read: --check may say why", local)
	case <-c.Ready():
	}
	unknown := awaitRemotes(ctx, remotes)
	all := c.Plan()
	for _, planned := range all {
		planned.Print(out, local)
	}
	if len(all) == 0 {
		fmt.Fprintln(out, "nothing would be written in", local)
	}
	return unknown
}

// awaitRemotes waits until every remote is known, and lists those that are not in time.
func awaitRemotes(ctx context.Context, remotes []*remote.Remote) error {
	for deadline := time.Now().Add(dryRunTime); ; time.Sleep(50 * time.Millisecond) {
		var unknown []error
		for _, r := range remotes {
			if err := r.Unknown(); err != nil {
				unknown = append(unknown, fmt.Errorf("remote %s is not known, and nothing would be written for it: %w", r.Name(), err))
			}
		}
		if len(unknown) == 0 || ctx.Err() != nil || time.Now().After(deadline) {
			return errors.Join(unknown...)
		}
	}
}
