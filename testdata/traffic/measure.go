package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"sync"
	"time"
)

// way is one way to a backend, and what was measured of it.
type way struct {
	url    string
	client *http.Client
	times  []time.Duration
	failed int
	last   error
	took   time.Duration
}

// measured is what came of a way's requests.
type measured struct {
	Requests int           `json:"requests"`
	Failed   int           `json:"failed"`
	Error    string        `json:"error,omitempty"` // the last
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
	Rate     float64       `json:"rate"` // requests per second
}

// measure compares two ways to one backend: it takes them in turn, in short slices, so that whatever else the machine
// does concerns both alike. Each connection makes its next request when the last one is answered, and is kept.
//
//	measure [--slices N] [--slice DURATION] [--connections N] URL HOST:PORT URL HOST:PORT
//
// HOST:PORT is what to connect to. It prints what was measured of either, as JSON.
func measure(args []string) int {
	flags := flag.NewFlagSet("measure", flag.ExitOnError)
	number := flags.Int("slices", 20, "how often it turns to each way")
	slice := flags.Duration("slice", 250*time.Millisecond, "how long it stays there")
	connections := flags.Int("connections", 1, "requests at once")
	flags.Parse(args)
	if flags.NArg() != 4 {
		fmt.Fprintln(os.Stderr, "measure: two ways, each a URL and HOST:PORT")
		return 2
	}
	var ways []*way
	for i := 0; i < flags.NArg(); i += 2 {
		ways = append(ways, newWay(flags.Arg(i), flags.Arg(i+1), *connections))
	}
	for _, w := range ways { // opens the connections
		w.slice(*slice, *connections)
		w.times, w.failed, w.took = nil, 0, 0
	}
	for range *number {
		for _, w := range ways {
			w.slice(*slice, *connections)
		}
	}
	var results []measured
	for _, w := range ways {
		results = append(results, w.result())
	}
	json.NewEncoder(os.Stdout).Encode(results)
	return 0
}

func newWay(url, to string, connections int) *way {
	return &way{url: url, client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp4", to)
		},
		MaxIdleConnsPerHost: connections,
	}}}
}

// slice makes requests for a while.
func (w *way) slice(length time.Duration, connections int) {
	var mu sync.Mutex
	var wg sync.WaitGroup
	begin := time.Now()
	for range connections {
		wg.Go(func() {
			var times []time.Duration
			var failed int
			var last error
			for time.Since(begin) < length {
				at := time.Now()
				if err := w.request(); err != nil {
					failed, last = failed+1, err
					continue
				}
				times = append(times, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			w.times = append(w.times, times...)
			w.failed += failed
			if last != nil {
				w.last = last
			}
		})
	}
	wg.Wait()
	w.took += time.Since(begin)
}

func (w *way) request() error {
	resp, err := w.client.Get(w.url)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}

func (w *way) result() measured {
	m := measured{Requests: len(w.times), Failed: w.failed}
	if w.last != nil {
		m.Error = w.last.Error()
	}
	if len(w.times) == 0 {
		return m
	}
	slices.Sort(w.times)
	m.P50, m.P99 = w.times[len(w.times)/2], w.times[len(w.times)*99/100]
	m.Rate = float64(len(w.times)) / w.took.Seconds()
	return m
}
