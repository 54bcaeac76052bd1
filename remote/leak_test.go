package remote

import (
	"fmt"
	"os"
	"runtime"
	"testing"
)

// level is what a process uses.
type level struct {
	goroutines, files int
	heap              int64 // bytes
}

func measure(t *testing.T) level {
	t.Helper()
	runtime.GC()
	runtime.GC() // what finalizers let go of
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return level{runtime.NumGoroutine(), len(files), int64(memory.HeapAlloc)}
}

// settles wants the process to come down to what it had before, and some more.
func settles(t *testing.T, when string, before, tolerance level) {
	t.Helper()
	var now level
	eventually(t, func() string {
		now = measure(t)
		if now.goroutines > before.goroutines+tolerance.goroutines || now.files > before.files+tolerance.files || now.heap > before.heap+tolerance.heap {
			return fmt.Sprintf("%s there are %+v, before %+v", when, now, before)
		}
		return ""
	})
	t.Logf("%s %+v, before %+v", when, now, before)
}

// TestNothingLeaks cuts connections 200 times and swaps kubeconfigs 50 times, of
// many remotes at once: a watch lives for a second, and a file is read every
// two. What leaks leaks each time. So the tolerances of goroutines and files are far
// below one for each time, and above what comes and goes by itself: the server's own,
// a connection that is closed at this moment. Of the heap each time may cost 40 kB:
// some 20 kB of a connection that was cut stay with its idle timer, for 90 s, and a
// client that is not used any more until its next health check, 30 s, is due. After
// 100 s the heap is what it was; to wait for that in each run would be too long.
func TestNothingLeaks(t *testing.T) {
	const remotes, cuts, swaps = 25, 8, 2
	server := newLiveServer(t, "paris-uid")
	empty := measure(t)
	var all []*follower
	for n := range remotes {
		all = append(all, follow(t, server, fmt.Sprint("paris-", n)))
	}
	watching := func(opened int64) func() string {
		return func() string {
			if open, ever := server.open.Load(), server.opened.Load(); open != 2*remotes || ever < opened {
				return fmt.Sprintf("%d watches are open, want %d; %d ever were, want %d", open, 2*remotes, ever, opened)
			}
			return ""
		}
	}
	eventually(t, known(all...))
	eventually(t, watching(2*remotes))
	cut := func() {
		before := server.opened.Load()
		server.CloseClientConnections()
		eventually(t, watching(before+2*remotes))
	}
	cut() // the first has caches grow
	before := measure(t)
	for range cuts {
		cut()
	}
	tolerance := level{goroutines: 20, files: 10, heap: remotes * (cuts + swaps) * 40e3}
	settles(t, "after 200 reconnects", before, tolerance)
	for swap := range swaps {
		opened := server.opened.Load()
		for _, f := range all {
			f.pointTo(t, server, fmt.Sprint("swap ", swap))
		}
		eventually(t, watching(opened+2*remotes))
	}
	settles(t, "after 50 kubeconfigs", before, tolerance)
	eventually(t, known(all...))
	for _, f := range all {
		f.stop()
	}
	all = nil
	server.CloseClientConnections()
	tolerance.heap *= 2 // what has just ended waits for its health checks
	settles(t, "in the end", empty, tolerance)
}
