package e2e

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// decided are the texts of a walk's steps, which are made and not taken. look is called after each.
func decided(t *testing.T, m *model, seed uint64, look func(*walk)) (steps []string) {
	e := &env{T: t, id: "x"}
	w := &walk{env: e, model: m, rnd: rand.New(rand.NewPCG(seed, 0)), far: map[string]*remote{}}
	for _, r := range w.remotes {
		w.far[r.short] = &remote{env: e, name: r.short}
	}
	for range 200 {
		for _, s := range w.heal() {
			steps = append(steps, s.text)
		}
		w.taken++ // the gateways are there now
		w.rested()
		for range w.untilRest() {
			w.begin()
			steps = append(steps, w.choose().text)
			look(w)
		}
	}
	return steps
}

// checkDecided checks that the steps of a walk can be repeated: they do not depend on their effects. And they are of
// all kinds, so that every check has something to find.
func checkDecided(t *testing.T, newModel func() *model, look func(w *walk, met func(what string, yes bool)), want []string) {
	times := map[string]int{}
	decide := func(seed uint64) []string {
		return decided(t, newModel(), seed, func(w *walk) {
			look(w, func(what string, yes bool) {
				if times[what] += 0; yes {
					times[what]++
				}
			})
		})
	}
	first := decide(1)
	if !slices.Equal(first, decide(1)) {
		t.Error("one seed, but other steps")
	}
	if slices.Equal(first, decide(2)) {
		t.Error("two seeds, and the same steps")
	}
	for what, n := range times {
		if n == 0 {
			t.Errorf("never: %s", what)
		}
	}
	all := strings.Join(first, "\n")
	for _, what := range want {
		if !strings.Contains(all, what) {
			t.Errorf("never: %s", what)
		}
	}
}

func namesOfFaults() (names []string) {
	for _, f := range faults {
		names = append(names, f.name)
	}
	return names
}

func TestWalkIsDecidedByItsSeed(t *testing.T) {
	checkDecided(t, newWalkModel, func(w *walk, met func(string, bool)) {
		for _, e := range w.entries() {
			met("a mirror exists though it is no longer exported", e.exists() && e.hidden.interrupted)
			met("a mirror routes where it did though that changed", e.exists() && !e.since.changed && e.hidden.changed)
			met("a mirror exists while its remote is in trouble", e.exists() && e.remote.fault != fault{})
			met("a mirror exists while its remote is not in the flags", e.exists() && e.remote.fault.removed)
			met("a deleted mirror comes back with its ClusterIP", e.deleted && e.keepsAddress() && w.mirrored(e))
			met("a foreign object has the name of an exported Service", e.foreign != none && e.mirrorable())
			met("a foreign object has the name of a Service not exported", e.foreign != none && !e.exported)
			met("a mirror moves, and is exported all the time", e.moves && e.exists() && w.mirrored(e))
			met("a mirror moves to another namespace", e.moves && e.exists() && e.home() != e.remote.before.home(e.namespace))
			met("a mirror moves, and routes where it did", e.moves && e.exists() && !e.since.changed && !e.edited && len(e.leads()) > 0)
			met("a mirror moves while its remote is in trouble", e.moves && e.exists() && e.remote.fault.blackout)
			met("a mirror is in another namespace", !e.moves && e.exists() && e.home() != e.namespace)
			met("an exported Service has no TCP port", e.exported && !e.mirrorable())
			met("a mirror has some of its ports served", len(e.leads()) > 0 && len(e.leads()) < len(e.ports)*len(e.remote.usable()))
		}
	}, append(namesOfFaults(),
		"is exported", "is made, exported", "not exported any more", "is deleted and recreated", "has ports", "team=red",
		"has other addresses", "has other ports", "gateway of paris is deleted", "gateway of berlin is made",
		"namespace one is deleted", "namespace two is recreated",
		"makes "+string(withSelector), "makes "+string(withEndpoints), "makes "+string(loneEndpoints), "makes "+string(underTheMirror),
		"deletes "+string(withSelector), "deletes "+string(withEndpoints), "deletes "+string(loneEndpoints), "deletes "+string(underTheMirror),
		"Service is deleted by hand", "Endpoints are deleted by hand", "Endpoints are edited by hand",
		"by hand: port", "by hand: selector", "by hand: type", "by hand: label", "by hand: own label",
		"daemon is killed", "daemon is stopped", "daemon is started", "time passes", "berlin is healthy",
		"restarted without paris", "restarted with berlin again",
		"mirrors of paris have the rule {template:{cluster}-{service} swaps:false}", "mirrors of berlin have the rule {template: swaps:false}",
		"swaps:true", "--name-template is "+templates[0], "--name-template is "+templates[1],
	))
}

// The same of the walk with failover.
func TestFailoverWalkIsDecidedByItsSeed(t *testing.T) {
	checkDecided(t, newFailoverModel, func(w *walk, met func(string, bool)) {
		for _, f := range w.failing {
			beside := w.isBeside(f)
			first := w.remotes[0]
			met("a remote serves", !f.ready && len(beside) == 1)
			met("one of two remotes serves", !f.ready && len(beside) == 2)
			met("what is beside a Service must stay", w.staysBeside(f) && len(beside) > 0)
			met("and stays though its remote is in trouble", w.staysBeside(f) && len(beside) > 0 && first.fault != fault{})
			met("and stays though nothing is known of its remote", w.staysBeside(f) && beside[first.short] != nil && first.known == unknown)
			met("and stays though its remote is not in the flags", w.staysBeside(f) && beside[first.short] != nil && first.fault.removed)
			met("its remote serves, though nothing is known of it", w.staysBeside(f) && beside[first.short] != nil && first.known == unknown && !f.ready && f.listed[0] == first.short)
			met("a slice stays though who serves changes", !w.staysBeside(f) && w.isKept(f, first.short) && beside[first.short] != nil)
			met("a Service is ready, with changing remotes", f.steady() && f.ready && !w.staysBeside(f))
			met("no remote can serve a Service", f.there && f.labelled && !f.ready && len(beside) == 0)
			met("the first remote of the list cannot serve", len(f.listed) == 2 && len(beside) == 1 && beside[f.listed[1]] != nil)
			met("a Service with an annotation has no label", f.there && !f.labelled && len(f.listed) > 0)
			met("it fails over to a remote behind one of which nothing is known",
				f.provisional && f.switched && !f.ready && len(f.listed) == 2 && len(beside) == 2 && w.exportOf(f, f.listed[0]).remote.known == unknown && w.exportOf(f, f.listed[1]).remote.known == known)
			met("it fails over to a remote of which nothing is known",
				f.provisional && f.switched && !f.ready && len(beside) == 1 && len(f.listed) == 1 && w.exportOf(f, f.listed[0]).remote.known == unknown)
		}
	}, append(namesOfFaults(),
		"own one/a is made", "own two/b is deleted", "is deleted and recreated: labelled", "is labelled: true", "is labelled: false",
		"lists [paris berlin]", "lists [nowhere paris berlin]", "lists []", "own one/b has ports", "is ready: true", "is ready: false",
		"edited by hand: ready", "edited by hand: port", "edited by hand: address", "edited by hand: deleted",
		"own two/d is ready: true, which is awaited", "is ready: false, which is awaited",
		"paris refuses connections, the daemon is restarted, and own", "berlin stalls, the daemon is restarted, and own",
		"paris is removed from the flags, the daemon is restarted, and own",
		"restarted without paris", "restarted with berlin again", "time passes",
		"namespace one is deleted", "namespace two is recreated",
	))
}

// The same of the walk with merged mirrors.
func TestMergedWalkIsDecidedByItsSeed(t *testing.T) {
	checkDecided(t, newMergedModel, func(w *walk, met func(string, bool)) {
		for _, s := range w.sharedMirrors() {
			parts := w.parts(s)
			first, last := s.entries[0], s.entries[1]
			met("two remotes serve", len(parts) == 2 && !w.merged.first)
			met("one is on standby", len(parts) == 2 && w.merged.first)
			met("only the last one can serve, though two export", len(parts) == 1 && parts[last] != nil && first.mirrorable())
			met("ports of the last one differ", first.mirrorable() && len(parts[last]) > 0 && len(parts[last]) < len(last.leads()))
			met("a part stays though the remote behind it changed", first.exists() && s.partStays(first) && !s.partStays(last))
			met("a part stays while its remote is in trouble", last.exists() && s.partStays(last) && last.remote.fault != fault{})
			met("a part stays while nothing is known of its remote", s.partStays(first) && parts[first] != nil && first.remote.known == unknown)
			met("a part stays while its remote is not in the flags", s.partStays(first) && parts[first] != nil && first.remote.fault.removed)
			met("a part is renamed", s.renamed() && first.keepsService() && s.partWould(first) && parts[first] != nil)
			met("two parts are renamed", s.renamed() && last.keepsService() && s.partWould(last) && len(parts) == 2)
			met("a part keeps ports though the first remote is gone", len(s.keeps(last)) > 0 && last.remote.there && first.existed && first.since.interrupted)
			met("a part keeps ports though those of the first remote changed", len(s.keeps(last)) > 0 && last.remote.there && first.exported && first.since.changed)
			met("a part keeps ports while nothing is known of its remote, and others change", len(s.keeps(last)) > 0 && last.remote.known == unknown && first.since.changed)
			met("a part keeps ports and is renamed while another remote changes", s.renamed() && len(s.keeps(last)) > 0 && first.since.changed)
			met("a Service stays though the first remote is gone", last.exists() && !first.exported && first.since.interrupted)
			met("a deleted Service comes back with its ClusterIP", last.deleted && last.existed && !last.forgotten && !last.since.interrupted)
		}
	}, []string{
		"Service is deleted by hand", "by hand: port", "by hand: type", "by hand: label", "by hand: affinity",
		"slice of paris is edited by hand: deleted", "slice of berlin is edited by hand: ready", "edited by hand: address",
		"the first one alone serves: true", "the first one alone serves: false", "in the other order: true", "in the other order: false",
		"restarted without paris", "restarted with berlin again", "--name-template is " + sharedTemplates[0], "--name-template is " + sharedTemplates[1],
	})
}
