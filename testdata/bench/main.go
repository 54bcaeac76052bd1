// Command bench measures the daemon against what the API server itself allows, on this
// machine and in this run: a bare client-go loop of the same writes is the ceiling of its
// speed, a bare informer that answers each event with one write the floor of its delay.
//
// Everything runs with the ServiceAccounts that deploy/ ships, for an administrator is
// exempt from API Priority and Fairness. Runs of the daemon and of what it is compared
// with alternate, and medians count. Times are those of the API servers' audit logs.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 && args[0] == "bare" {
		return bare(ctx, args[1:])
	}
	b := &bench{started: time.Now()}
	var sizes, rows string
	f := flag.NewFlagSet("bench", flag.ExitOnError)
	f.StringVar(&b.build, "build", harness.BuildDir(), "directory of the cluster and service-mirror programs")
	f.StringVar(&b.deploy, "deploy", "../../deploy", "directory of the manifests that are applied")
	f.StringVar(&b.out, "out", "../../deploy/performance", "directory of the table and the plot")
	f.IntVar(&b.runs, "runs", 5, "how often each comparison is made, those of 2,000 mirrors: smaller ones more often, larger ones less; the median counts")
	f.DurationVar(&b.idle, "idle", 5*time.Minute, "how long the idle daemon is watched")
	f.StringVar(&sizes, "sizes", "1000,2000,10000", "numbers of mirrors")
	f.StringVar(&rows, "rows", "", "only these of "+strings.Join(rowNames(), ", ")+": the table keeps the others")
	f.BoolVar(&b.keep, "keep", true, "keep the table, and the plots; else it is only printed")
	f.Parse(args)
	for text := range strings.SplitSeq(sizes, ",") {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 {
			return fmt.Errorf("-sizes: %q is not a number of mirrors", text)
		}
		b.sizes = append(b.sizes, n)
	}
	slices.Sort(b.sizes)
	var wanted []string
	if rows != "" {
		wanted = strings.Split(rows, ",")
	}
	for _, name := range wanted {
		if !slices.Contains(rowNames(), name) {
			return fmt.Errorf("-rows: there is no %q, only %s", name, strings.Join(rowNames(), ", "))
		}
	}
	if err := b.load(); err != nil {
		return err
	}
	defer b.close()
	if err := b.prepare(); err != nil {
		return err
	}
	for _, row := range rowsOf(b) {
		if len(wanted) > 0 && !slices.Contains(wanted, row.name) {
			continue
		}
		if b.paris == nil && !row.own {
			if err := b.startParis(ctx); err != nil {
				return err
			}
		}
		b.say("%s", row.name)
		b.row = row.name
		if err := row.measure(ctx); err != nil {
			return fmt.Errorf("%s: %w", row.name, err)
		}
	}
	page, err := b.report.page()
	os.Stdout.Write(page)
	return err
}

// bench is one run of the whole.
type bench struct {
	build, deploy, out string
	keep               bool
	runs               int
	sizes              []int
	idle               time.Duration

	started time.Time
	dir     string
	program string // the daemon
	paris   *cluster
	reader  string // kubeconfig of the ServiceAccount that reads paris
	report  report
	row     string // the one that is being measured
	empty   int64  // bytes of a daemon without mirrors; 0: not measured

	kubernetes atomic.Value // version of the clusters, of which several may start at once
}

// say shows progress.
func (b *bench) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%6s  %s\n", time.Since(b.started).Round(time.Second), fmt.Sprintf(format, args...))
}

// prepare makes the directory for all files.
func (b *bench) prepare() (err error) {
	b.program = b.build + "/service-mirror"
	b.dir, err = os.MkdirTemp("", "service-mirror-bench-")
	return err
}

// startParis starts paris and fills it with what is exported.
func (b *bench) startParis(ctx context.Context) (err error) {
	if b.paris, err = b.start("paris"); err != nil {
		return err
	}
	if err := b.paris.apply(ctx, b.deploy+"/remote"); err != nil {
		return err
	}
	if b.reader, err = b.paris.account(ctx, "service-mirror-reader"); err != nil {
		return err
	}
	b.say("filling paris with %d Services", b.sizes[len(b.sizes)-1])
	return b.export(ctx)
}

func (b *bench) close() {
	if b.paris != nil {
		b.paris.stop()
	}
	os.RemoveAll(b.dir)
}
