package gateway

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Options are the operator's decisions for all gateways alike.
type Options struct {
	Filter   Filter
	Resolver Resolver
	Refresh  time.Duration // how often a hostname is resolved
	Probe    Probe
}

// Watch keeps one gateway up to date: from what its Service says, what its
// hostnames resolve to, and which of its addresses answer.
type Watch struct {
	config  Config
	options Options
	changed func(problem error, differs bool)
	// probeOnce makes a probe; replaced in tests.
	probeOnce func(ctx context.Context, target netip.AddrPort) error

	current atomic.Pointer[Gateway]
	dirty   chan struct{} // Run must look at what is to be resolved and probed

	mu       sync.Mutex
	entrance *Entrance // nil: nothing is known yet
	reserved Reserved
	problem  error                     // with the Service
	names    map[string]answer         // by hostname
	health   map[netip.AddrPort]*tally // by what is probed
	seen     map[netip.Addr]bool       // addresses that it has, or had: known ones
	resolve  bool                      // hostnames must be resolved at once

	pending   *change // the call of changed that is due; nil: none
	notifying bool    // a goroutine is making the calls
}

// change are the arguments of changed.
type change struct {
	problem error
	differs bool
}

// NewWatch makes a watch. changed is called whenever the gateway may have changed:
// with what is wrong with it now, and whether it differs from what the last call
// was about. The calls are in order and never overlap; changes that come during a
// call make one more. No lock is held during a call, so it may use the watch.
func NewWatch(config Config, options Options, changed func(problem error, differs bool)) *Watch {
	return &Watch{
		config: config, options: options, changed: changed, probeOnce: options.Probe.once,
		dirty: make(chan struct{}, 1), names: map[string]answer{}, health: map[netip.AddrPort]*tally{}, seen: map[netip.Addr]bool{},
	}
}

// Gateway is the gateway as far as it is known; nil before the first Set. It must not
// be modified.
func (w *Watch) Gateway() *Gateway { return w.current.Load() }

// Set sets what the gateway Service is now, nil where it does not exist or is not
// read, and which ports are reserved.
func (w *Watch) Set(svc *corev1.Service, reserved Reserved) {
	entrance, problem := w.config.Read(svc, w.options.Filter)
	w.set(entrance, problem, reserved)
}

// SetAPI is Set for a Gateway of the Gateway API.
func (w *Watch) SetAPI(gw *APIGateway, reserved Reserved) {
	entrance, problem := w.config.ReadAPI(gw, w.options.Filter)
	w.set(entrance, problem, reserved)
}

func (w *Watch) set(entrance Entrance, problem error, reserved Reserved) {
	w.update(func() bool {
		w.entrance, w.problem, w.reserved, w.resolve = &entrance, problem, reserved, true
		w.publish()
		return true
	})
}

// Refilter checks the addresses again: the filter has changed.
func (w *Watch) Refilter() {
	w.update(func() bool {
		w.publishFiltered(true)
		return true
	})
}

// update changes what is known, under the lock, and calls changed after it. Where
// apply returns true, Run looks again at what must be resolved and probed.
func (w *Watch) update(apply func() bool) {
	w.mu.Lock()
	look := apply()
	w.mu.Unlock()
	w.notify()
	if look {
		w.wake()
	}
}

// notify makes the calls of changed that are due, unless another goroutine is at it
// already: that one makes them all.
func (w *Watch) notify() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.notifying {
		return
	}
	w.notifying = true
	for w.pending != nil {
		due := *w.pending
		w.pending = nil
		w.mu.Unlock()
		w.changed(due.problem, due.differs)
		w.mu.Lock()
	}
	w.notifying = false
}

func (w *Watch) wake() {
	select {
	case w.dirty <- struct{}{}:
	default:
	}
}

// publish puts together what is known. w.mu is held.
func (w *Watch) publish() { w.publishFiltered(false) }

func (w *Watch) publishFiltered(refiltered bool) {
	if w.entrance == nil {
		return
	}
	var found []netip.Addr
	var missing []corev1.IPFamily // of hostnames; empty: both
	problems := []error{w.problem}
	for _, host := range w.entrance.Hostnames {
		known := w.names[host]
		found = append(found, known.addresses()...)
		if !known.good || known.missing != "" {
			missing = append(missing, known.missing)
		}
		if known.problem != nil {
			problems = append(problems, fmt.Errorf("hostname %s: %w; %s", host, known.problem, known.kept()))
		}
	}
	gw, problem := w.entrance.Gateway(found, len(missing) == 0, w.options.Filter)
	if slices.Sort(missing); len(slices.Compact(missing)) == 1 {
		gw.Missing = missing[0]
	}
	gw.Reserved = w.reserved
	w.remember(gw)
	problems = append(problems, problem, w.setHealth(gw))
	before := w.current.Swap(gw)
	next := change{join(slices.DeleteFunc(problems, func(err error) bool { return err == nil })), refiltered && gw.Partial || !before.Equal(gw)}
	if w.pending != nil {
		next.differs = next.differs || w.pending.differs
	}
	w.pending = &next
}

// remember records the addresses that the gateway has, so that one that it has lost
// does not stay as that of an unresolved hostname, unless nothing of its family has
// replaced it; nor does one that is refused.
func (w *Watch) remember(gw *Gateway) {
	replaced := map[corev1.IPFamily]bool{}
	for _, address := range gw.Addresses {
		replaced[FamilyOf(address.Addr)] = true
		if len(w.seen) < maxSeen {
			w.seen[address.Addr] = true
		}
	}
	if gw.Partial {
		lost := maps.Clone(w.seen)
		filter := w.options.Filter
		gw.keeps = func(addr netip.Addr) bool {
			return !(lost[addr] && replaced[FamilyOf(addr)]) && filter.address(addr) == nil
		}
	}
}

// maxSeen bounds what is remembered: a gateway may change its address at any rate.
const maxSeen = 10_000

// setHealth sets the health of each address. The error lists those that do not answer,
// or is that there is no port to probe.
func (w *Watch) setHealth(gw *Gateway) error {
	if w.options.Probe.Kind == ProbeNone || len(gw.Addresses) == 0 {
		for i := range gw.Addresses {
			gw.Addresses[i].Health = NotProbed
		}
		return nil
	}
	port, err := w.options.Probe.Target(gw)
	var problems []error
	for i := range gw.Addresses {
		address := &gw.Addresses[i]
		address.Health = Unprobed
		if err != nil {
			continue
		}
		if known := w.health[netip.AddrPortFrom(address.Addr, port)]; known != nil {
			address.Health = known.health
			if known.health == NotReady {
				problems = append(problems, fmt.Errorf("address %v does not answer on port %d: %w: fix the gateway, or probe another port with --probe-port", address.Addr, port, known.cause))
			}
		}
	}
	return errors.Join(err, join(problems))
}

// Run resolves and probes until the context ends.
func (w *Watch) Run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	names := workers[string]{run: w.resolveName, wg: &wg}
	probes := workers[netip.AddrPort]{run: w.probe, wg: &wg}
	for {
		select {
		case <-ctx.Done():
			return
		case <-w.dirty:
		}
		hosts, targets, resolve := w.wanted()
		names.keep(ctx, hosts, resolve)
		probes.keep(ctx, targets, false)
	}
}

// wanted is what is to be resolved and probed; the results of all else are forgotten.
func (w *Watch) wanted() (hosts []string, targets []netip.AddrPort, resolve bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.entrance == nil {
		return nil, nil, false
	}
	hosts = w.entrance.Hostnames
	for host := range w.names {
		if !slices.Contains(hosts, host) {
			delete(w.names, host)
		}
	}
	gw := w.current.Load()
	if w.options.Probe.Kind != ProbeNone {
		if port, err := w.options.Probe.Target(gw); err == nil {
			for _, address := range gw.Addresses {
				targets = append(targets, netip.AddrPortFrom(address.Addr, port))
			}
		}
	}
	for target := range w.health {
		if !slices.Contains(targets, target) {
			delete(w.health, target)
		}
	}
	resolve, w.resolve = w.resolve, false
	return hosts, targets, resolve
}

// workers keeps one goroutine for each key that is wanted.
type workers[K comparable] struct {
	run     func(ctx context.Context, key K, again <-chan struct{})
	wg      *sync.WaitGroup
	running map[K]worker
}

type worker struct {
	cancel context.CancelFunc
	again  chan struct{}
}

// keep starts and ends goroutines, so that the wanted ones run; again wakes those that
// ran before.
func (w *workers[K]) keep(ctx context.Context, wanted []K, again bool) {
	if w.running == nil {
		w.running = map[K]worker{}
	}
	for key, running := range w.running {
		if !slices.Contains(wanted, key) {
			running.cancel()
			delete(w.running, key)
		}
	}
	for _, key := range wanted {
		if running, ok := w.running[key]; ok {
			if again {
				select {
				case running.again <- struct{}{}:
				default:
				}
			}
			continue
		}
		workerCtx, cancel := context.WithCancel(ctx)
		wake := make(chan struct{}, 1)
		w.running[key] = worker{cancel, wake}
		w.wg.Go(func() { w.run(workerCtx, key, wake) })
	}
}
