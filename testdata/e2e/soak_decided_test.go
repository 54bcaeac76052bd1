package e2e

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The steps of a walk can be repeated: they do not depend on their effects. And they are of
// all kinds, so that every check has something to find.
func TestWalkIsDecidedByItsSeed(t *testing.T) {
	met := map[string]int{}
	decide := func(seed uint64) (steps []string) {
		e := &env{T: t, id: "x"}
		w := &walk{env: e, model: newWalkModel(), rnd: rand.New(rand.NewPCG(seed, 0)), far: map[string]*remote{}}
		for _, r := range w.remotes {
			w.far[r.short] = &remote{env: e, name: r.short}
		}
		for range 200 {
			for _, s := range w.heal() {
				steps = append(steps, s.text)
			}
			w.taken++ // the gateways are there now
			w.rested()
			for range 30 {
				w.begin()
				steps = append(steps, w.choose().text)
				for _, f := range w.failing {
					beside := w.isBeside(f)
					for what, yes := range map[string]bool{
						"a remote serves":                           !f.ready && len(beside) == 1,
						"one of two remotes serves":                 !f.ready && len(beside) == 2,
						"what is beside a Service must stay":        w.staysBeside(f) && len(beside) > 0,
						"and stays though its remote is in trouble": w.staysBeside(f) && len(beside) > 0 && w.remotes[0].fault != fault{},
						"a Service is ready, with changing remotes": f.steady() && f.ready && !w.staysBeside(f),
						"no remote can serve a Service":             f.there && f.labelled && !f.ready && len(beside) == 0,
						"the first remote of the list cannot serve": len(f.listed) == 2 && len(beside) == 1 && beside[f.listed[1]] != nil,
						"a Service with an annotation has no label": f.there && !f.labelled && len(f.listed) > 0,
					} {
						if yes {
							met[what]++
						} else {
							met[what] += 0
						}
					}
				}
				for _, e := range w.entries() {
					for what, yes := range map[string]bool{
						"a mirror exists though it is no longer exported":         e.exists() && e.hidden.interrupted,
						"a mirror routes where it did though that changed":        e.exists() && !e.since.changed && e.hidden.changed,
						"a mirror exists while its remote is in trouble":          e.exists() && e.remote.fault != fault{},
						"a deleted mirror comes back with its ClusterIP":          e.deleted && e.keepsAddress() && w.mirrored(e),
						"a foreign object has the name of an exported Service":    e.foreign != none && e.mirrorable(),
						"a foreign object has the name of a Service not exported": e.foreign != none && !e.exported,
						"a mirror moves, and is exported all the time":            e.moves && e.exists() && w.mirrored(e),
						"an exported Service has no TCP port":                     e.exported && !e.mirrorable(),
						"a mirror has some of its ports served":                   len(e.leads()) > 0 && len(e.leads()) < len(e.ports)*len(e.remote.usable()),
					} {
						if yes {
							met[what]++
						} else {
							met[what] += 0
						}
					}
				}
			}
		}
		return steps
	}
	first := decide(1)
	if !slices.Equal(first, decide(1)) {
		t.Error("one seed, but other steps")
	}
	if slices.Equal(first, decide(2)) {
		t.Error("two seeds, and the same steps")
	}
	for what, times := range met {
		if times == 0 {
			t.Errorf("never: %s", what)
		}
	}
	all := strings.Join(first, "\n")
	for _, f := range faults {
		if !strings.Contains(all, f.name) {
			t.Errorf("no remote %s", f.name)
		}
	}
	for _, what := range []string{
		"is exported", "is made, exported", "not exported any more", "is deleted and recreated", "has ports", "team=red",
		"has other addresses", "has other ports", "gateway of paris is deleted", "gateway of berlin is made",
		"namespace one is deleted", "namespace two is recreated",
		"makes " + string(withSelector), "makes " + string(withEndpoints), "makes " + string(loneEndpoints), "makes " + string(underTheMirror),
		"deletes " + string(withSelector), "deletes " + string(withEndpoints), "deletes " + string(loneEndpoints), "deletes " + string(underTheMirror),
		"Service is deleted by hand", "Endpoints are deleted by hand", "Endpoints are edited by hand",
		"by hand: port", "by hand: selector", "by hand: type", "by hand: label", "by hand: own label",
		"daemon is killed", "daemon is stopped", "daemon is started", "time passes", "berlin is healthy",
		"own one/a is made", "own two/b is deleted", "is deleted and recreated: labelled", "is labelled: true", "is labelled: false",
		"lists [paris berlin]", "lists [nowhere paris berlin]", "lists []", "own one/b has ports", "is ready: true", "is ready: false",
		"edited by hand: ready", "edited by hand: port", "edited by hand: address", "edited by hand: deleted",
		"mirrors of paris have its name first: true", "mirrors of berlin have its name first: false",
	} {
		if !strings.Contains(all, what) {
			t.Errorf("never: %s", what)
		}
	}
}

// The same of the walk with merged mirrors.
func TestMergedWalkIsDecidedByItsSeed(t *testing.T) {
	met := map[string]int{}
	decide := func(seed uint64) (steps []string) {
		w := &walk{env: &env{T: t, id: "x"}, model: newMergedModel(), rnd: rand.New(rand.NewPCG(seed, 0)), far: map[string]*remote{}}
		for _, r := range w.remotes {
			w.far[r.short] = &remote{env: w.env, name: r.short, shared: true}
		}
		for range 100 {
			for _, s := range w.heal() {
				steps = append(steps, s.text)
			}
			w.taken++
			w.rested()
			for range 30 {
				w.begin()
				steps = append(steps, w.choose().text)
				for _, s := range w.sharedMirrors() {
					parts := w.parts(s)
					last := s.entries[1]
					for what, yes := range map[string]bool{
						"two remotes serve": len(parts) == 2 && !w.merged.first,
						"one is on standby": len(parts) == 2 && w.merged.first,
						"only the last one can serve, though two export":   len(parts) == 1 && parts[last] != nil && s.entries[0].mirrorable(),
						"ports of the last one differ":                     s.entries[0].mirrorable() && len(parts[last]) > 0 && len(parts[last]) < len(last.leads()),
						"a part stays though the remote behind it changed": s.entries[0].exists() && s.partStays(s.entries[0]) && !s.partStays(last),
						"a part stays while its remote is in trouble":      last.exists() && s.partStays(last) && last.remote.fault != fault{},
						"a Service stays though the first remote is gone":  last.exists() && !s.entries[0].exported && s.entries[0].since.interrupted,
						"a deleted Service comes back with its ClusterIP":  last.deleted && last.existed && !last.forgotten && !last.since.interrupted,
					} {
						if met[what] += 0; yes {
							met[what]++
						}
					}
				}
			}
		}
		return steps
	}
	first := decide(1)
	if !slices.Equal(first, decide(1)) {
		t.Error("one seed, but other steps")
	}
	for what, times := range met {
		if times == 0 {
			t.Errorf("never: %s", what)
		}
	}
	all := strings.Join(first, "\n")
	for _, what := range []string{
		"Service is deleted by hand", "by hand: port", "by hand: type", "by hand: label", "by hand: affinity",
		"slice of paris is edited by hand: deleted", "slice of berlin is edited by hand: ready", "edited by hand: address",
		"the first one alone serves: true", "the first one alone serves: false", "in the other order: true", "in the other order: false",
	} {
		if !strings.Contains(all, what) {
			t.Errorf("never: %s", what)
		}
	}
}
