package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// latencyServices are those whose changes are followed.
const latencyServices = 300

// change changes the port of a Service of paris.
func (b *bench) change(ctx context.Context, i int) error {
	name := b.service(i)
	services := b.paris.CoreV1().Services(name.Namespace)
	svc, err := services.Get(ctx, name.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	svc.Spec.Ports[0].Port = 80 + (svc.Spec.Ports[0].Port-80+1)%1000
	_, err = services.Update(ctx, svc, metav1.UpdateOptions{})
	return err
}

// delays are the times from the answer to each change in paris to the answer to the
// write that follows in london.
func (b *bench) delays(london *cluster, there, here harness.Mark) ([]time.Duration, error) {
	changes, err := b.paris.requests(there, "admin")
	if err != nil {
		return nil, err
	}
	writes, err := london.writesOf(here)
	if err != nil {
		return nil, err
	}
	written := map[string][]time.Time{}
	for _, w := range writes {
		if w.Verb == "update" && w.ObjectRef.Resource == "services" {
			key := w.ObjectRef.Namespace + "/" + strings.TrimSuffix(w.ObjectRef.Name, "-paris")
			written[key] = append(written[key], w.StageTimestamp)
		}
	}
	var delays []time.Duration
	for _, c := range changes {
		if c.Verb != "update" || c.ObjectRef.Resource != "services" {
			continue
		}
		key := c.ObjectRef.Namespace + "/" + c.ObjectRef.Name
		if len(written[key]) == 0 {
			return nil, fmt.Errorf("the change of %s was not followed", key)
		}
		delays = append(delays, written[key][0].Sub(c.StageTimestamp))
		written[key] = written[key][1:]
	}
	if len(delays) == 0 {
		return nil, errors.New("the audit log of paris shows no change")
	}
	return delays, nil
}

// delay compares one change at a time with a bare informer.
func (b *bench) delay(ctx context.Context) error {
	london, account, err := b.newLondon(ctx)
	if err != nil {
		return err
	}
	defer london.stop()
	args := []string{b.toParis(",namespaces=" + strings.Join(b.namespaces(), ",")), "--export-selector=" + stormSelector}
	daemon := func() (*daemon, error) {
		d, err := b.run(account, args...)
		if err != nil {
			return nil, err
		}
		return d, b.settled(ctx, d, latencyServices)
	}
	var ours, floor []time.Duration
	const each = 60
	for round := range latencyServices / each {
		for _, bare := range []bool{false, true} {
			d, err := daemon()
			if err != nil {
				return err
			}
			if bare {
				d.stop()
				if d, err = b.bare("follow", "--kubeconfig", account, "--remote", b.reader); err != nil {
					return err
				}
				if err := pause(ctx, 2*time.Second); err != nil { // it has no way to say that it is ready
					return err
				}
			}
			since, err := b.mark(london)
			if err != nil {
				return err
			}
			for i := range each {
				before, err := london.Mark()
				if err != nil {
					return err
				}
				if err := b.change(ctx, round*each+i); err != nil {
					return err
				}
				if err := london.wrote(ctx, before, 1, "update", "services"); err != nil {
					return err
				}
			}
			got, err := b.delays(london, since.there, since.here)
			d.stop()
			if err != nil {
				return err
			}
			if bare {
				floor = append(floor, got...)
			} else {
				ours = append(ours, got...)
			}
		}
	}
	var results []result
	for _, q := range []struct {
		percent int
		goal    float64
	}{{50, 1.15}, {99, 1.5}} {
		a, c := percentile(ours, q.percent), percentile(floor, q.percent)
		results = append(results, result{What: fmt.Sprintf("one remote change to the local write, idle, %d changes, p%d", len(ours), q.percent),
			Goal:     fmt.Sprintf("≤ %.2f × the floor", q.goal),
			Measured: fmt.Sprintf("%.2f ms: %.2f × %.2f ms", milliseconds(a), a.Seconds()/c.Seconds(), milliseconds(c)), Met: a.Seconds() <= q.goal*c.Seconds()})
	}
	return b.note(results...)
}

// storm changes Services of one remote while another has 2,000 mirrored for the first time.
func (b *bench) storm(ctx context.Context) error {
	london, account, err := b.newLondon(ctx)
	if err != nil {
		return err
	}
	defer london.stop()
	late := filepath.Join(b.dir, "berlin.kubeconfig")
	defer os.Remove(late)
	d, err := b.run(account, b.toParis(",namespaces="+strings.Join(b.namespaces(), ",")), "--export-selector="+stormSelector,
		"--remote=berlin="+late+",gateway=ingress/gateway,namespaces="+stormNamespace)
	if err != nil {
		return err
	}
	defer d.stop()
	if err := b.settled(ctx, d, latencyServices); err != nil {
		return err
	}
	text, err := os.ReadFile(b.reader)
	if err != nil {
		return err
	}
	here, err := london.Mark()
	if err != nil {
		return err
	}
	if err := os.WriteFile(late, text, 0o600); err != nil {
		return err
	}
	if err := london.wrote(ctx, here, 1, "create", "services"); err != nil {
		return err
	}
	there, err := b.paris.Mark()
	if err != nil {
		return err
	}
	over := make(chan error, 1)
	go func() { over <- london.wrote(ctx, here, stormSize, "create", "endpoints") }()
	var wg sync.WaitGroup
	changes := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	failed := make(chan error, latencyServices)
	for stormed := false; !stormed && changes < latencyServices; {
		select {
		case err := <-over:
			if err != nil {
				return err
			}
			stormed = true
		case <-tick.C:
			i := changes
			changes++
			wg.Go(func() {
				if err := b.change(ctx, i); err != nil {
					failed <- err
				}
			})
		}
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	if err := london.wrote(ctx, here, changes, "update", "services"); err != nil {
		return err
	}
	all, err := london.writesOf(here)
	if err != nil {
		return err
	}
	storm := all[:0:0]
	for _, w := range all {
		if w.Verb == "create" {
			storm = append(storm, w)
		}
	}
	first, last := span(storm)
	got, err := b.delays(london, there, here)
	if err != nil {
		return err
	}
	p50, p99, length := percentile(got, 50), percentile(got, 99), last.Sub(first)
	return b.note(result{What: fmt.Sprintf("the same while %d Services of another remote are being mirrored, p99", stormSize), Goal: "bounded by fairness, not by the storm's end",
		Measured: fmt.Sprintf("p99 %.0f ms, p50 %.0f ms of %d changes; the storm lasts %.1f s", milliseconds(p99), milliseconds(p50), len(got), length.Seconds()), Met: p99 < length/4})
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
