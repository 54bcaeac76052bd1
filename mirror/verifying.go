package mirror

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
)

// Bounds of what the daemon sends by itself: with two requests for each port, four a second.
const (
	verifyPace  = 2 * time.Second // between the verifications of two mirrors, at least
	verifyPorts = 4               // ports and addresses of one mirror that are verified in one turn
	verifyAgain = time.Second     // after a failure, until it is confirmed
)

// verifications are what the last verification of each mirror found.
type verifications struct {
	mu      sync.Mutex
	found   map[cache.ObjectName]verified
	running map[cache.ObjectName]bool
	turn    int // of mirrors that have more ports than are verified in one
}

type verified struct {
	cluster string
	result  verify.Result
	at      time.Time
	failed  verify.Target // what was not reached; zero: all was
}

func (v *verifications) of(key cache.ObjectName, cluster string) (verify.Result, time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if found, ok := v.found[key]; ok && found.cluster == cluster {
		return found.result, found.at
	}
	return verify.NotVerified, time.Time{}
}

func (v *verifications) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.found)
}

// begin tells whether a mirror is to be verified now: not while it already is.
func (v *verifications) begin(key cache.ObjectName) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.running[key] {
		return false
	}
	if v.running == nil {
		v.running = map[cache.ObjectName]bool{}
	}
	v.running[key] = true
	return true
}

func (v *verifications) end(key cache.ObjectName) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.running, key)
}

// note keeps what was found; a result of NotVerified is that nothing is known.
func (v *verifications) note(key cache.ObjectName, found verified) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if found.result == verify.NotVerified {
		delete(v.found, key)
		return
	}
	if v.found == nil {
		v.found = map[cache.ObjectName]verified{}
	}
	v.found[key] = found
}

// keys are the mirrors of which something is known.
func (v *verifications) keys() []cache.ObjectName {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.found))
}

// keepVerifying verifies a sample of the mirrors in each period, spread over it, until the context ends. A gateway
// that is slow holds up no other mirror.
func (c *Controller) keepVerifying(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	if !pauseFor(ctx, verifyPace) { // the first mirrors are being written
		return
	}
	for next := 0; ; {
		keys := c.exported()
		c.forgetVerified(keys)
		sample := min(len(keys), max(1, int(c.options.Verify.Period/verifyPace)))
		pause := verifyPace // until there is a mirror
		if sample > 0 {
			pause = max(c.options.Verify.Period/time.Duration(sample), verifyPace)
		}
		for range max(1, sample) {
			if sample > 0 {
				key := keys[next%len(keys)]
				next = (next + 1) % len(keys)
				if c.verified.begin(key) {
					running.Go(func() { defer c.verified.end(key); c.verifyMirror(ctx, key) })
				}
			}
			if !pauseFor(ctx, pause) {
				return
			}
		}
	}
}

// exported are the keys of all that the remotes export, in an order that is the same each time.
func (c *Controller) exported() []cache.ObjectName {
	keys := map[cache.ObjectName]bool{}
	for _, r := range c.remotes.list {
		for _, key := range c.remotes.keys(r.Name()) {
			keys[key] = true
		}
	}
	return slices.SortedFunc(maps.Keys(keys), compareKeys)
}

// forgetVerified forgets what was found of mirrors that are not among these.
func (c *Controller) forgetVerified(keys []cache.ObjectName) {
	for _, key := range c.verified.keys() {
		if _, found := slices.BinarySearchFunc(keys, key, compareKeys); !found {
			c.unverified(key)
		}
	}
}

func (c *Controller) unverified(key cache.ObjectName) {
	c.verified.note(key, verified{result: verify.NotVerified})
	c.problems.Verified(key, nil)
}

// verifyMirror verifies the ports of one mirror, and reports what came of it.
func (c *Controller) verifyMirror(ctx context.Context, key cache.ObjectName) {
	p := c.options.Decide(c.observe(key))
	var targets []verify.Target
	for _, one := range checkables(p, c.options.Domain) {
		if one.None == "" { // what has none is reported by the sync
			targets = append(targets, one.Target)
		}
	}
	if len(targets) == 0 || p.Live.Service == nil {
		c.unverified(key)
		return
	}
	found, problems := verified{cluster: p.Cluster, result: verify.NotKnown}, []plan.Problem(nil)
	for _, target := range c.verified.sample(key, targets) {
		got := c.check(ctx, target)
		if got.Result.Wrong() && pauseFor(ctx, verifyAgain) {
			got = c.check(ctx, target)
		}
		if ctx.Err() != nil {
			return
		}
		if got.Result.Wrong() {
			found.result, found.failed = got.Result, target
			problems = []plan.Problem{{Reason: plan.NotReached, Cluster: p.Cluster, Source: cache.MetaObjectToName(p.Source.Service),
				Message: string(got.Result) + ": gateway " + target.Address.String() + ": " + got.Message()}}
			break
		}
		if got.Result == verify.Reached {
			found.result = verify.Reached
		}
	}
	if now := c.options.Decide(c.observe(key)); !sameTargets(targets, checkables(now, c.options.Domain)) {
		c.unverified(key) // it changed meanwhile: nothing is known of what it is now
		return
	}
	found.at = time.Now()
	c.verified.note(key, found)
	c.problems.Verified(key, problems)
}

// sample is a few of the targets of a mirror, other ones each time where there are more. What was not reached is
// among them: only then can it be over.
func (v *verifications) sample(key cache.ObjectName, targets []verify.Target) []verify.Target {
	if len(targets) <= verifyPorts {
		return targets
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.turn++
	at := v.turn * verifyPorts % len(targets)
	rotated := slices.Concat(targets[at:], targets[:at])
	if i := slices.Index(rotated, v.found[key].failed); i >= 0 {
		rotated[0], rotated[i] = rotated[i], rotated[0]
	}
	return rotated[:verifyPorts]
}

func sameTargets(targets []verify.Target, now []checkable) bool {
	now = slices.DeleteFunc(now, func(one checkable) bool { return one.None != "" })
	return slices.EqualFunc(targets, now, func(target verify.Target, one checkable) bool { return target == one.Target })
}

// pauseFor waits; false: the context ended before.
func pauseFor(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
