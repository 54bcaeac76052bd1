package report

import (
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote/failure"
	"service-mirror.io/service-mirror/remote/logging"
)

// alike is what problems have in common that are one line of the log.
type alike struct {
	cluster, namespace string
	reason             plan.Reason
}

func alikeOf(key cache.ObjectName, p plan.Problem) alike {
	switch p.Reason {
	case plan.WriteFailed, plan.NoAddress, plan.NoGateway, plan.TooManyDeletes: // of the API server, of the gateway, of the remote
		return alike{cluster: p.Cluster, reason: p.Reason}
	}
	return alike{p.Cluster, key.Namespace, p.Reason}
}

// batch are the mirrors that have got an alike problem, or no longer have it, and that are not logged yet.
type batch struct {
	begun, over map[cache.ObjectName]plan.Problem
	due         time.Time // when they are logged; zero: there are none
	counted     time.Time // when lines were first counted
	lines       int       // since then
}

const (
	// batchDelay is how long alike problems are collected before they are logged.
	batchDelay = 500 * time.Millisecond
	// batchPeriod is how long they are collected where there have just been maxLines lines of them.
	batchPeriod = 10 * time.Second
	maxLines    = 10
	// few problems are logged one by one, with their mirrors' names and all that is said of them.
	few = 3
)

// begins has it logged that a mirror has a problem. r.mu is held.
func (r *Problems) begins(key cache.ObjectName, p plan.Problem) {
	b := r.batch(key, p)
	b.begun[key] = p
	delete(b.over, key)
}

// ends has it logged that a mirror's problem is over. r.mu is held.
func (r *Problems) ends(key cache.ObjectName, p plan.Problem) { r.batch(key, p).over[key] = p }

func (r *Problems) batch(key cache.ObjectName, p plan.Problem) *batch {
	what := alikeOf(key, p)
	b := r.batches[what]
	if b == nil {
		b = &batch{begun: map[cache.ObjectName]plan.Problem{}, over: map[cache.ObjectName]plan.Problem{}}
		r.batches[what] = b
	}
	if now := time.Now(); b.due.IsZero() {
		if now.Sub(b.counted) >= batchPeriod {
			b.counted, b.lines = now, 0
		}
		if b.due = now.Add(batchDelay); b.lines >= maxLines {
			b.due = b.counted.Add(batchPeriod)
		}
		r.wake()
	}
	return b
}

func (r *Problems) wake() {
	select {
	case r.dirty <- struct{}{}:
	default:
	}
}

// Run logs what is collected until the context ends.
func (r *Problems) Run(ctx context.Context) {
	for {
		var timer <-chan time.Time
		lines, next := r.due(time.Now(), false)
		r.log(lines)
		if !next.IsZero() {
			timer = time.After(time.Until(next))
		}
		select {
		case <-ctx.Done():
			lines, _ = r.due(time.Now(), true)
			r.log(lines)
			return
		case <-timer:
		case <-r.dirty:
		}
	}
}

// line is one of the log: a warning, or news that something is over.
type line struct {
	warning bool
	text    string
	values  []any
}

// log writes lines; not under r.mu, since what reads the log may be slow.
func (r *Problems) log(lines []line) {
	for _, one := range lines {
		if one.warning {
			logging.Warn(r.logger, one.text, one.values...)
		} else {
			r.logger.Info(one.text, one.values...)
		}
	}
}

// due takes the lines that are due, or all. next is when more will be due; zero: none.
func (r *Problems) due(now time.Time, all bool) (lines []line, next time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	soonest := func(due time.Time) {
		if next.IsZero() || due.Before(next) {
			next = due
		}
	}
	for what, b := range r.batches {
		switch {
		case b.due.IsZero():
			if now.Sub(b.counted) >= batchPeriod {
				delete(r.batches, what)
			}
		case all || !now.Before(b.due):
			lines = append(lines, b.take(what, r.words)...)
		default:
			soonest(b.due)
		}
	}
	for name, p := range r.local {
		if p.Settle(now) {
			lines = append(lines, p.line(name))
		}
		if due, pending := p.Pending(); pending {
			soonest(due)
		}
	}
	return lines, next
}

// take takes the lines of a batch.
func (b *batch) take(what alike, words Words) (lines []line) {
	for _, list := range []struct {
		problems  map[cache.ObjectName]plan.Problem
		one, many string
		message   bool
	}{{b.begun, words.One + " has a problem", words.Many + " have a problem", true}, {b.over, words.One + " no longer has this problem", words.Many + " no longer have this problem", false}} {
		keys := slices.SortedFunc(maps.Keys(list.problems), func(a, b cache.ObjectName) int { return strings.Compare(a.String(), b.String()) })
		first := line{list.message, list.one, []any{"reason", what.reason, "cluster", what.cluster}}
		if len(keys) > few {
			first = line{list.message, list.many, append(first.values, "mirrors", len(keys))}
			keys = keys[:1] // an example
		}
		for _, key := range keys {
			p := list.problems[key]
			next := line{first.warning, first.text, append(slices.Clip(first.values), "service", p.Source, "mirror", key)}
			if list.message {
				next.values = append(next.values, "message", failure.Line(p.Message))
			}
			lines = append(lines, next)
		}
		clear(list.problems)
	}
	b.due = time.Time{}
	b.lines += len(lines)
	return lines
}
