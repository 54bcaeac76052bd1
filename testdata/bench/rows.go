package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// row is a thing to measure, of which results come.
type row struct {
	name    string
	measure func(context.Context) error
	own     bool // it has clusters of its own, and does not need paris
}

func rowNames() (names []string) {
	for _, row := range rowsOf(nil) {
		names = append(names, row.name)
	}
	return names
}

func rowsOf(b *bench) []row {
	return []row{
		{name: "cold", measure: func(ctx context.Context) error { return b.cold(ctx, "endpoints") }},
		{name: "cold-slices", measure: func(ctx context.Context) error { return b.cold(ctx, "endpointslices") }},
		{name: "gateway", measure: b.gateway},
		{name: "delay", measure: b.delay},
		{name: "storm", measure: b.storm},
		{name: "restart", measure: b.restart},
		{name: "idle", measure: b.idleRow},
		{name: "memory", measure: b.memory},
		{name: "remotes", measure: b.remotes},
		{name: "churn", measure: b.churn},
		{name: "publish", measure: b.publishCold, own: true},
		{name: "publish-idle", measure: b.publishIdle, own: true},
		{name: "latency", measure: b.latency, own: true},
	}
}

// toParis is the --remote of paris.
func (b *bench) toParis(keys string) string {
	return "--remote=paris=" + b.reader + ",gateway=ingress/gateway" + keys
}

// mirrors are the arguments of a daemon that mirrors the first n Services.
func (b *bench) mirrors(n int, more ...string) []string {
	return append([]string{b.toParis(""), "--export-selector=" + selector(n)}, more...)
}

// bareLoop is what writes are compared with.
const bareLoop = "the bare loop"

// cold compares the daemon's first minutes with a bare loop of the same creates, each in
// a new and empty cluster.
func (b *bench) cold(ctx context.Context, api string) error {
	components, resource := []string{}, "endpoints"
	if api == "endpointslices" {
		components, resource = []string{"endpointslices"}, "endpointslices"
	}
	for i, n := range b.sizes {
		file := filepath.Join(b.dir, fmt.Sprintf("%s-%d.json", api, n))
		daemon := func() (time.Duration, error) {
			london, account, err := b.newLondon(ctx, components...)
			if err != nil {
				return 0, err
			}
			defer london.stop()
			since, err := london.Mark()
			if err != nil {
				return 0, err
			}
			d, err := b.run(account, b.mirrors(n, "--endpoints-api="+api)...)
			if err != nil {
				return 0, err
			}
			defer d.stop()
			for _, resource := range []string{resource, "services"} {
				if err := london.wrote(ctx, since, n, "create", resource); err != nil {
					return 0, err
				}
			}
			all, err := london.writesOf(since)
			if err != nil {
				return 0, err
			}
			if len(all) != 2*n {
				return 0, fmt.Errorf("%d mirrors took %s", n, summary(all))
			}
			if _, err := os.Stat(file); err != nil { // for the loop
				if err := dump(ctx, london, file); err != nil {
					return 0, err
				}
			}
			_, last := span(all)
			return last.Sub(d.started), nil
		}
		ceiling := func() (time.Duration, error) {
			london, account, err := b.newLondon(ctx, components...)
			if err != nil {
				return 0, err
			}
			defer london.stop()
			since, err := london.Mark()
			if err != nil {
				return 0, err
			}
			loop, err := b.bare("create", "--kubeconfig", account, "--objects", file)
			if err != nil {
				return 0, err
			}
			if err := loop.cmd.Wait(); err != nil {
				text, _ := os.ReadFile(loop.log)
				return 0, fmt.Errorf("bare loop: %w: %s", err, text)
			}
			all, err := london.writesOf(since)
			if err != nil {
				return 0, err
			}
			if len(all) != 2*n {
				return 0, fmt.Errorf("the bare loop made %s", summary(all))
			}
			first, last := span(all)
			return last.Sub(first), nil
		}
		if i == 0 { // warms the machine
			if _, err := daemon(); err != nil {
				return err
			}
		}
		ours, bare, err := b.alternate(b.runsOf(n), daemon, ceiling)
		if err != nil {
			return err
		}
		b.draw("Cold start with --endpoints-api="+api, "cold-"+api+".svg", group{N: n, Ours: median(ours).Seconds(), Bare: median(bare).Seconds()})
		if err := b.note(compare(fmt.Sprintf("cold start, %d mirrors, %s", n, api), n, 1.10, bareLoop, ours, bare)); err != nil {
			return err
		}
	}
	return nil
}

// bare starts a program that the daemon is compared with.
func (b *bench) bare(args ...string) (*daemon, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return b.process("", self, append([]string{"bare"}, args...)...)
}

// runsOf is how often n mirrors are measured. Short runs differ more, by a third here, and
// long ones take minutes.
func (b *bench) runsOf(n int) int {
	return min(max(3, b.runs*2000/n|1), 2*b.runs+1)
}

// alternate measures two things in turn, so often.
func (b *bench) alternate(runs int, ours, bare func() (time.Duration, error)) (a, c []time.Duration, err error) {
	for i := range runs {
		one, err := ours()
		if err != nil {
			return nil, nil, err
		}
		other, err := bare()
		if err != nil {
			return nil, nil, err
		}
		a, c = append(a, one), append(c, other)
		b.say("  run %d: %.2f s, bare %.2f s: %.2f", i+1, one.Seconds(), other.Seconds(), one.Seconds()/other.Seconds())
	}
	return a, c, nil
}

// gateway moves all mirrors to another address, and a bare loop does too.
func (b *bench) gateway(ctx context.Context) error {
	for _, n := range b.sizes {
		if err := b.gatewayMoves(ctx, n); err != nil {
			return err
		}
	}
	return b.gatewayAt(ctx, "203.0.113.1")
}

func (b *bench) gatewayMoves(ctx context.Context, n int) error {
	london, account, err := b.newLondon(ctx)
	if err != nil {
		return err
	}
	defer london.stop()
	if err := b.gatewayAt(ctx, "203.0.113.1"); err != nil {
		return err
	}
	since, err := london.Mark()
	if err != nil {
		return err
	}
	d, err := b.run(account, b.mirrors(n)...)
	if err != nil {
		return err
	}
	defer func() { d.stop() }()
	if err := london.wrote(ctx, since, n, "create", "endpoints"); err != nil {
		return err
	}
	address := 1
	move := func() (since harness.Mark, asked time.Time, err error) {
		if since, err = london.Mark(); err != nil {
			return
		}
		address++
		asked = time.Now()
		err = b.gatewayAt(ctx, fmt.Sprintf("203.0.113.%d", address))
		return
	}
	daemon := func() (time.Duration, error) {
		since, asked, err := move()
		if err != nil {
			return 0, err
		}
		if err := london.wrote(ctx, since, n, "update", "endpoints"); err != nil {
			return 0, err
		}
		all, err := london.writesOf(since)
		if err != nil {
			return 0, err
		}
		if len(all) != n {
			return 0, fmt.Errorf("%d mirrors took %s", n, summary(all))
		}
		_, last := span(all)
		return last.Sub(asked), nil
	}
	loop := func(more ...string) (time.Duration, error) {
		d.stop()
		since, _, err := move()
		if err != nil {
			return 0, err
		}
		bare, err := b.bare(append([]string{"update", "--kubeconfig", account, "--address", fmt.Sprintf("203.0.113.%d", address)}, more...)...)
		if err != nil {
			return 0, err
		}
		if err := bare.cmd.Wait(); err != nil {
			return 0, err
		}
		all, err := london.writesOf(since)
		if err != nil {
			return 0, err
		}
		if len(all) != n {
			return 0, fmt.Errorf("the bare loop made %s", summary(all))
		}
		first, last := span(all)
		if d, err = b.run(account, b.mirrors(n)...); err != nil {
			return 0, err
		}
		return last.Sub(first), b.settled(ctx, d, n)
	}
	if err := b.settled(ctx, d, n); err != nil {
		return err
	}
	ours, bare, err := b.alternate(b.runsOf(n), daemon, func() (time.Duration, error) { return loop() })
	if err != nil {
		return err
	}
	if err := b.note(compare(fmt.Sprintf("gateway's address changes, %d Endpoints follow", n), n, 1.10, bareLoop, ours, bare)); err != nil {
		return err
	}
	ours, watching, err := b.alternate(b.runsOf(n), daemon, func() (time.Duration, error) { return loop("--watch") })
	if err != nil {
		return err
	}
	const follower = "a loop that watches what it writes, as every controller must"
	return b.note(compare(fmt.Sprintf("the same %d, beside a loop with a watch", n), n, 1.10, follower, ours, watching))
}

// settled waits until the daemon's mirrors are as they should be, and it has nothing
// more to do.
func (b *bench) settled(ctx context.Context, d *daemon, n int) error {
	if err := d.ready(ctx); err != nil {
		return err
	}
	for most, since := -1.0, time.Now(); ; {
		mirrored, err := d.measures(`service_mirror_mirrors{remote="paris",state="mirrored"}`)
		if err != nil {
			return err
		}
		depth, err := d.measures("service_mirror_queue_depth")
		if err != nil {
			return err
		}
		if int(mirrored) == n && depth == 0 {
			return pause(ctx, time.Second) // its garbage, and the audit log's last lines
		}
		if mirrored > most {
			most, since = mirrored, time.Now()
		} else if time.Since(since) > 2*time.Minute {
			return fmt.Errorf("%v of %d mirrors are as they should be, %v wait, and nothing happens any more", mirrored, n, depth)
		}
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return err
		}
	}
}

// pause is a time in which nothing is to be awaited: what is measured is that nothing happens.
func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// median is that of an odd number of times, and the later of the two in the middle else.
func median(times []time.Duration) time.Duration { return percentile(times, 50) }

// percentile is the smallest of the times that so many percent do not exceed.
func percentile(times []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(times))
	return sorted[min(len(sorted)-1, len(sorted)*percent/100)]
}
