package command

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"service-mirror.io/service-mirror/remote/failure"
)

// wait is the flag --wait of a command, and where the progress is printed.
type wait struct {
	time   time.Duration
	stderr io.Writer
}

// add adds the flag. What is awaited is for the help.
func (w *wait) add(f *pflag.FlagSet, awaited string) {
	f.DurationVar(&w.time, "wait", 0, "`DURATION` to wait until "+awaited+", such as 90s or 5m; the progress is printed to stderr")
}

// validate finds a negative duration; instead is what 0 does.
func (w *wait) validate(instead string) error {
	if w.time < 0 {
		return fmt.Errorf("--wait: %v is negative: set a duration, or 0 to %s", w.time, instead)
	}
	return nil
}

// waitInterval is the time between two attempts. A variable, for tests.
var waitInterval = 2 * time.Second

// attempt is the result of one attempt.
type attempt[R any] struct {
	result  R
	err     error
	missing string // what is still awaited; empty: nothing
}

// await repeats an attempt until nothing is missing or the time is over, and returns the last one. Progress that
// repeats is printed once.
func await[R any](ctx context.Context, w wait, try func() attempt[R]) (R, error) {
	end, said := time.After(w.time), ""
	for {
		a := try()
		if w.time == 0 || a.missing == "" {
			return a.result, a.err
		}
		if a.missing != said && ctx.Err() == nil {
			fmt.Fprintln(w.stderr, "service-mirror: waiting:", failure.Line(a.missing))
		}
		said = a.missing
		select {
		case <-ctx.Done():
			return a.result, ctx.Err()
		case <-end:
			return a.result, a.err
		case <-time.After(waitInterval):
		}
	}
}

// printed awaits a command that prints its result: only what the last attempt prints gets to stdout. Without a time
// to wait each line is printed as soon as it is known. An attempt returns what is missing, and why it fails.
func (w wait) printed(ctx context.Context, stdout io.Writer, try func(out io.Writer) (missing string, err error)) error {
	if w.time == 0 {
		_, err := try(stdout)
		return err
	}
	last, err := await(ctx, w, func() attempt[[]byte] {
		var out bytes.Buffer
		missing, err := try(&out)
		return attempt[[]byte]{out.Bytes(), err, missing}
	})
	if err != nil && ctx.Err() != nil {
		return ctx.Err()
	}
	if _, failed := stdout.Write(last); failed != nil {
		return failed
	}
	return err
}

// loads finds a kubeconfig file of --remote that cannot be used. Waiting does not fix it.
func (cfg *config) loads() bool {
	for _, spec := range cfg.remotes {
		if _, err := spec.Load(); err != nil {
			return false
		}
	}
	return true
}
