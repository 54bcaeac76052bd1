package e2e

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// TestRandomWalkOfFailover is TestRandomWalk with Services that fail over, and with outages of their remotes that the daemon is
// restarted in. SOAK_SEED and SOAK_STEPS are as there. It is not parallel to others: each daemon looks after all Services that fail over.
func TestRandomWalkOfFailover(t *testing.T) { walkAtRandom(t, 150, newFailoverWalk) }

// failoverKinds leave most Services of London's own, and what is exported for them, as they are for long enough to see
// what the daemon makes of outages.
var failoverKinds = []kind{
	{14, (*walk).export},
	{1, (*walk).unexport},
	{1, (*walk).deleteExported},
	{1, (*walk).recreate},
	{2, (*walk).changePorts},
	{1, (*walk).changeLabels},
	{2, (*walk).changeAddresses},
	{1, (*walk).changeGatewayPorts},
	{1, (*walk).deleteGateway},
	{12, (*walk).makeGateway},
	{1, (*walk).removeNamespace},
	{12, (*walk).makeNamespaceAgain},
	{1, (*walk).deleteMirrorService},
	{1, (*walk).editMirrorEndpoints},
	{7, (*walk).trouble},
	{5, (*walk).healOne},
	{3, (*walk).killDaemon},
	{1, (*walk).stopDaemon},
	{12, (*walk).startAgain},
	{1, (*walk).restartInTrouble},
	{2, (*walk).removeRemote},
	{6, (*walk).addRemote},
	{1, (*walk).renameMirrors},
	{14, (*walk).makeOwn},
	{1, (*walk).deleteOwn},
	{1, (*walk).recreateOwn},
	{2, (*walk).labelOwn},
	{2, (*walk).annotateOwn},
	{1, (*walk).portsOfOwn},
	{8, (*walk).readyOwn},
	{3, (*walk).editBeside},
	{10, (*walk).failOver},
	{7, (*walk).failOverInOutage},
}

func newFailoverWalk(t *testing.T, seed uint64) *walk {
	return newWalkIn(t, newFailoverEnv(t), newFailoverModel(), seed)
}

func newFailoverModel() *model {
	m := newWalkModel()
	for _, e := range m.remotes[0].entries {
		m.failing = append(m.failing, &failoverService{namespace: e.namespace, name: e.name})
	}
	return m
}

// beginFailover are steps after which there is something to fail over.
func (w *walk) beginFailover() (all []*step) {
	for range w.entries() {
		all = append(all, w.export())
	}
	for range w.failing {
		all = append(all, w.makeOwn())
	}
	return all
}

// foreseeable: who serves this one once it is ready, or once it is not, follows from what is known.
func (m *model) foreseeable(f *failoverService) bool {
	return m.runs && f.lasts() && m.existing[f.namespace] && f.labelled && len(f.listed) > 0 && !slices.ContainsFunc(f.listed, func(remote string) bool {
		e := m.exportOf(f, remote)
		return e != nil && (e.since != since{} || e.remote.known == uncertain || e.remote.known == unknown && f.flips)
	})
}

// outage is a remote that fails while the daemon restarts, so that nothing is known of it then.
type outage struct {
	remote *modelRemote
	fault  fault
}

// pickOutage picks one, and a Service that lists the remote.
func (w *walk) pickOutage() (o outage, f *failoverService, ok bool) {
	o = outage{any1(w, w.remotes...), any1(w, faults[0], faults[1], removed)}
	if o.remote.fault.silent() && !o.fault.removed {
		o.fault = o.remote.fault // it goes on
	}
	other := w.remotes[1-slices.Index(w.remotes, o.remote)]
	if !w.runs || o.remote.fault.removed || other.fault.removed && o.fault.removed {
		return o, nil, false
	}
	f, ok = pick(w, w.failing, func(f *failoverService) bool { return w.foreseeableIn(o, f) })
	return o, f, ok
}

// foreseeableIn is foreseeable once the daemon has restarted in the outage.
func (m *model) foreseeableIn(o outage, f *failoverService) bool {
	if !f.lasts() || f.flipsNow || !m.existing[f.namespace] || !f.labelled || !slices.Contains(f.listed, o.remote.short) {
		return false
	}
	return !slices.ContainsFunc(f.listed, func(remote string) bool {
		e := m.exportOf(f, remote)
		switch {
		case e == nil:
			return false
		case e.since != since{}:
			return true
		case e.remote == o.remote: // it is not cut off for a moment
			return e.hidden != since{}
		case e.remote.fault.removed:
			return false
		}
		return e.remote.shaken || e.remote.fault != fault{} && !e.remote.fault.silent()
	})
}

// foreseen is who serves a Service with failover: the first remote that has something to serve it with and that is known; if none
// is, the first that nothing is known of.
type foreseen struct {
	listed         []string
	known, unknown map[string]bool
}

func (m *model) foresee(f *failoverService) foreseen {
	s := foreseen{slices.Clone(f.listed), map[string]bool{}, map[string]bool{}}
	for _, r := range m.remotes {
		s.known[r.short] = r.known == known
		s.unknown[r.short] = r.known == unknown && !r.fault.removed
	}
	return s
}

// server is the remote that serves, if none did before; empty: none can. beside are the lines of each.
func (s foreseen) server(beside map[string][]string) string {
	for _, fits := range []map[string]bool{s.known, s.unknown} {
		for _, remote := range s.listed {
			if fits[remote] && len(beside[remote]) > 0 {
				return remote
			}
		}
	}
	return ""
}

// The steps.

// failOver has a Service's own endpoint become ready, or not, and waits until those serve that must.
func (w *walk) failOver() *step {
	f, ok := pick(w, w.failing, w.foreseeable)
	if !ok {
		return nil
	}
	return w.failOverStep(f, "", func() error { return nil })
}

// failOverInOutage has a remote fail and restarts the daemon before that.
func (w *walk) failOverInOutage() *step {
	o, f, ok := w.pickOutage()
	if !ok {
		return nil
	}
	begins := o.fault != o.remote.fault
	if begins {
		w.setFault(o.remote, o.fault)
	}
	w.kill()
	start, far := w.starter(), w.far[o.remote.short]
	w.learn(o.remote, unknown) // as it failed before the daemon was started
	end, proxied := any1(w, (*daemon).kill, (*daemon).stop), o.fault
	if o.fault.removed {
		proxied = fault{}
	}
	return w.failOverStep(f, fmt.Sprintf("%s %s, the daemon is restarted, and ", o.remote.short, o.fault.name), func() error {
		if begins {
			far.suffer(proxied, w.plain[o.remote.short])
		}
		if err := w.endDaemon(end); err != nil {
			return err
		}
		return start()
	})
}

// failOverStep takes a Service from one state that is known to the next one. Remotes from which nothing keeps the daemon are
// known to it before.
func (w *walk) failOverStep(f *failoverService, text string, first func() error) *step {
	f.ready = !f.ready
	f.switched = true
	if f.flips || f.flippedLately && !w.restarted { // an event of before may still come
		f.flipped = true
	} else {
		f.flipped, f.flippedLately = false, false
	}
	f.provisional = slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return r.known == unknown })
	var lit []*modelRemote
	for _, r := range w.remotes {
		if r.known == coming {
			w.learn(r, known)
			lit = append(lit, r)
		}
	}
	ready, who := f.ready, w.foresee(f)
	return &step{text: fmt.Sprintf("%sown %v is ready: %t, which is awaited", text, f, ready), alone: true, act: func() error {
		if err := first(); err != nil {
			return err
		}
		if err := w.lightUp(lit); err != nil {
			return err
		}
		server := who.server(w.byRemote(f))
		from, to := w.onlyServing(f, ""), w.onlyServing(f, server)
		if ready {
			from, to = w.servedByOne(f, server), from
		}
		if err := w.until(from); err != nil {
			return fmt.Errorf("before that: %w", err)
		}
		if err := w.setReady(f, ready); err != nil {
			return err
		}
		if err := w.until(to); err != nil {
			return fmt.Errorf("with remotes that are known %v, and unknown %v: %w", who.known, who.unknown, err)
		}
		var err error
		f.beside, err = w.besideNow(f)
		return err
	}}
}

// lightUp waits until the daemon knows what these remotes are.
func (w *walk) lightUp(remotes []*modelRemote) error {
	if len(remotes) == 0 {
		return nil
	}
	if err := w.light(remotes...); err != nil {
		return err
	}
	return w.until(func() error { return w.lit(remotes...) })
}

// The checks.

// byRemote are the lines that were beside a Service at the last rest.
func (w *walk) byRemote(f *failoverService) map[string][]string {
	all := map[string][]string{}
	for _, r := range w.remotes {
		all[r.short] = f.beside[w.besideName(f, r.short)]
	}
	return all
}

// besideNow reads what is beside a Service.
func (w *walk) besideNow(f *failoverService) (map[string][]string, error) {
	all, err := london.DiscoveryV1().EndpointSlices(w.long(f.namespace)).List(w.ctx, metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + f.name})
	if err != nil {
		return nil, err
	}
	beside := map[string][]string{}
	for _, slice := range all.Items {
		if slice.Name != f.name+"-own" {
			beside[slice.Name] = slices.Sorted(slices.Values(fromSlice(&slice)))
		}
	}
	return beside, nil
}

const notReady = " not ready"

// idle are the same lines, none of which is ready.
func idle(lines []string) (all []string) {
	for _, line := range lines {
		all = append(all, strings.TrimSuffix(line, notReady)+notReady)
	}
	return all
}

// onlyServing checks that a remote serves, and no other; empty: that none does. What was beside the Service must still be there.
func (w *walk) onlyServing(f *failoverService, remote string) func() error {
	want := map[string][]string{}
	for name, lines := range f.beside {
		want[name] = idle(lines)
	}
	if remote != "" {
		name := w.besideName(f, remote)
		for i, line := range want[name] {
			want[name][i] = strings.TrimSuffix(line, notReady)
		}
	}
	return func() error {
		now, err := w.besideNow(f)
		if err == nil && !maps.EqualFunc(now, want, slices.Equal) {
			err = fmt.Errorf("beside %v there is %q, want %q; %s", f, now, want, f.describe())
		}
		return err
	}
}

// servedByOne checks that some remote serves, and no other one, if one can.
func (w *walk) servedByOne(f *failoverService, one string) func() error {
	return func() error {
		now, err := w.besideNow(f)
		if err != nil || one == "" {
			return err
		}
		var serving []string
		for name, lines := range now {
			if slices.ContainsFunc(lines, func(line string) bool { return !strings.HasSuffix(line, notReady) }) {
				serving = append(serving, name)
			}
		}
		if len(serving) != 1 {
			return fmt.Errorf("beside %v, one of %q must serve: %s", f, now, f.describe())
		}
		return nil
	}
}
