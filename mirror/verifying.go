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

// verifier verifies mirrors by itself, and knows what the last verification of each found.
type verifier struct {
	check    func(context.Context, verify.Target) verify.Outcome // sends the requests
	period   time.Duration                                       // in which a sample of the mirrors is verified; 0: none is
	exported func() []cache.ObjectName                           // mirrors that could be, in an order that stays
	targets  func(cache.ObjectName) (plan.Plan, []verify.Target) // of one mirror, as it is decided now
	report   func(cache.ObjectName, []plan.Problem)              // what is wrong; nil: nothing

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

func (v *verifier) of(key cache.ObjectName, cluster string) (verify.Result, time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if found, ok := v.found[key]; ok && found.cluster == cluster {
		return found.result, found.at
	}
	return verify.NotVerified, time.Time{}
}

func (v *verifier) clear() {
	v.mu.Lock()
	defer v.mu.Unlock()
	clear(v.found)
}

// begin tells whether a mirror is to be verified now: not while it already is.
func (v *verifier) begin(key cache.ObjectName) bool {
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

func (v *verifier) end(key cache.ObjectName) {
	v.mu.Lock()
	defer v.mu.Unlock()
	delete(v.running, key)
}

// note keeps what was found; a result of NotVerified is that nothing is known.
func (v *verifier) note(key cache.ObjectName, found verified) {
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
func (v *verifier) keys() []cache.ObjectName {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.found))
}

// run verifies a sample of the mirrors in each period, spread over it, until the context ends. A gateway
// that is slow holds up no other mirror.
func (v *verifier) run(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	if v.period == 0 || !pauseFor(ctx, verifyPace) { // the first mirrors are being written
		return
	}
	for next := 0; ; {
		keys := v.exported()
		v.forgetOthers(keys)
		sample := min(len(keys), max(1, int(v.period/verifyPace)))
		pause := verifyPace // until there is a mirror
		if sample > 0 {
			pause = max(v.period/time.Duration(sample), verifyPace)
		}
		for range max(1, sample) {
			if sample > 0 {
				key := keys[next%len(keys)]
				next = (next + 1) % len(keys)
				if v.begin(key) {
					running.Go(func() { defer v.end(key); v.verify(ctx, key) })
				}
			}
			if !pauseFor(ctx, pause) {
				return
			}
		}
	}
}

// forgetOthers forgets what was found of mirrors that are not among these.
func (v *verifier) forgetOthers(keys []cache.ObjectName) {
	for _, key := range v.keys() {
		if _, found := slices.BinarySearchFunc(keys, key, plan.CompareKeys); !found {
			v.forget(key)
		}
	}
}

func (v *verifier) forget(key cache.ObjectName) {
	v.note(key, verified{result: verify.NotVerified})
	v.report(key, nil)
}

// verify verifies the ports of one mirror, and reports what came of it.
func (v *verifier) verify(ctx context.Context, key cache.ObjectName) {
	p, targets := v.targets(key)
	if len(targets) == 0 || p.Live.Service == nil {
		v.forget(key)
		return
	}
	found, problems := verified{cluster: p.Cluster, result: verify.NotKnown}, []plan.Problem(nil)
	for _, target := range v.sample(key, targets) {
		got := v.check(ctx, target)
		if got.Result.Wrong() && pauseFor(ctx, verifyAgain) {
			got = v.check(ctx, target)
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
	if _, now := v.targets(key); !slices.Equal(targets, now) {
		v.forget(key) // it changed meanwhile: nothing is known of what it is now
		return
	}
	found.at = time.Now()
	v.note(key, found)
	v.report(key, problems)
}

// sample is a few of the targets of a mirror, other ones each time where there are more. What was not reached is
// among them: only then can it be over.
func (v *verifier) sample(key cache.ObjectName, targets []verify.Target) []verify.Target {
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
