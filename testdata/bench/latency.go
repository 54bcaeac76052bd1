package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// way is what was measured of requests on one way, as package traffic writes it.
type way struct {
	P50, P99 time.Duration
	Rate     float64 // requests per second
}

// cost is what a gateway adds to a request.
type cost struct {
	Gateway                       string
	Straight, Through             way // one request at a time
	StraightAtOnce, ThroughAtOnce way // sixteen at once
	Kubernetes                    string
}

// latency has the traffic test's clusters, nodes and pods measure each gateway.
func (b *bench) latency(ctx context.Context) error {
	program, err := filepath.Abs(filepath.Join(b.build, "traffic.test"))
	if err != nil {
		return err
	}
	file := filepath.Join(b.dir, "latency.json")
	cmd := exec.CommandContext(ctx, program, "-test.run", "^TestLatency$", "-test.v")
	cmd.Dir = "../traffic"
	build, err := filepath.Abs(b.build)
	if err != nil {
		return err
	}
	cmd.Env = append(os.Environ(), "SERVICE_MIRROR_BUILD="+build, "LATENCY="+file)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w", program, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var costs []cost
	if err := json.Unmarshal(text, &costs); err != nil {
		return err
	}
	for _, c := range costs {
		b.kubernetes.Store(c.Kubernetes)
		if err := b.note(c.results()...); err != nil {
			return err
		}
	}
	return nil
}

func (c cost) results() []result {
	more := func(name string, through, straight time.Duration) string {
		return fmt.Sprintf("%s %.2f ms: %.1f × %.2f ms, %.2f ms more", name, milliseconds(through), through.Seconds()/straight.Seconds(), milliseconds(straight), milliseconds(through-straight))
	}
	return []result{
		{What: "a request over " + c.Gateway + ", beside one straight to the backend", Measured: more("p50", c.Through.P50, c.Straight.P50) + "; " + more("p99", c.Through.P99, c.Straight.P99)},
		{What: "requests a second over " + c.Gateway + ", 16 at once", Measured: fmt.Sprintf("%.0f: %.2f × %.0f", c.ThroughAtOnce.Rate, c.ThroughAtOnce.Rate/c.StraightAtOnce.Rate, c.StraightAtOnce.Rate)},
	}
}
