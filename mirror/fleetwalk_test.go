package mirror

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/secrets"
)

// fleetWalk is a fleet to which anything happens, and what should be of it.
type fleetWalk struct {
	*fleet
	random   *rand.Rand
	secrets  map[string]secrets.Configured // what is configured, by remote
	template map[string]string             // of remotes that are
	exports  map[string]map[string]bool    // what remotes export, configured or not
	steps    []string
}

var fleetTemplates = []string{"{service}-{cluster}", "{cluster}-{service}"}

// TestRemotesWalk configures remotes at random, changes and removes them, while they export and unexport Services, become
// known and fail. No mirror is ever deleted of a remote that is not configured, or of which nothing is known; and whatever
// happened, in the end all is as it would be if only the end had been configured.
func TestRemotesWalk(t *testing.T) {
	for seed := range uint64(20) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			runFleet(t, Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}, func(f *fleet) {
				w := &fleetWalk{fleet: f, random: rand.New(rand.NewPCG(seed, 1)), secrets: map[string]secrets.Configured{}, template: map[string]string{},
					exports: map[string]map[string]bool{"paris": {}, "rome": {}, "a-paris": {}}}
				f.configure()
				for range 40 {
					w.step()
				}
				w.end()
				if t.Failed() {
					t.Logf("steps:\n%s\nlog:\n%s", strings.Join(w.steps, "\n"), f.log)
				}
			})
		})
	}
}

func (w *fleetWalk) step() {
	names := slices.Sorted(maps.Keys(w.exports))
	name := names[w.random.IntN(len(names))]
	_, configured := w.secrets[name]
	switch w.random.IntN(8) {
	case 0, 1:
		w.set(name)
	case 2:
		delete(w.secrets, name)
		w.apply(name + " is removed")
	case 3:
		if configured {
			wrong := broken(name)
			w.secrets[name] = wrong
			w.apply(name + " is broken")
		}
	case 4, 5:
		service := []string{"bar", "baz", "paris"}[w.random.IntN(3)]
		w.exports[name][service] = !w.exports[name][service]
		w.note(name, "exports", service, w.exports[name][service])
		if r := w.running(name); r != nil && !r.unknown {
			w.follow(r)
		}
	default:
		if r := w.running(name); r != nil {
			if r.unknown {
				w.follow(r)
			}
			w.note(name, "is known", r.unknown)
			r.know(r.unknown)
		}
	}
	w.wait(time.Duration(w.random.IntN(3)) * time.Second)
	w.check()
}

func (w *fleetWalk) note(what ...any) { w.steps = append(w.steps, fmt.Sprint(what...)) }

func (w *fleetWalk) set(name string) {
	template := fleetTemplates[w.random.IntN(2)]
	w.secrets[name] = bySecret(name, "name="+template)
	w.template[name] = template
	w.apply(name + " is called " + template)
}

func (w *fleetWalk) apply(what string) {
	w.note(what)
	var all []secrets.Configured
	for _, name := range slices.Sorted(maps.Keys(w.secrets)) {
		all = append(all, w.secrets[name])
	}
	w.Set(w.ctx, secrets.Set{Remotes: all}, false)
	w.world.start()
}

// running is the remote of a name that runs; nil: none does.
func (w *fleetWalk) running(name string) *runner {
	r, _ := w.world.controller.remotes.get(name).(*runner)
	return r
}

// follow has the cache of a remote be what it exports.
func (w *fleetWalk) follow(r *runner) {
	for _, service := range slices.Sorted(maps.Keys(w.exports[r.name])) {
		svc := named("default", service)
		before := r.services.Get(nameOfService(service))
		switch exported := w.exports[r.name][service]; {
		case exported && before == nil:
			after := r.hooks.Trim(svc)
			must(r.services.GetIndexer().Add(remote.Encode(after)))
			r.hooks.Changed(r.name, nil, after)
		case !exported && before != nil:
			must(r.services.GetIndexer().Delete(before))
			r.hooks.Changed(r.name, before, nil)
		}
	}
}

// check wants no mirror to have been deleted of a remote of which nothing is known.
func (w *fleetWalk) check() {
	for _, write := range w.server.wrote() {
		mirror, deleted := strings.CutPrefix(write.what, "delete services default/")
		if !deleted {
			continue
		}
		if r := w.running(w.owner(mirror)); r == nil || r.unknown {
			w.Errorf("after %s: %s", w.steps[len(w.steps)-1], write.what)
		}
	}
}

// owner is the remote that a mirror is of.
func (w *fleetWalk) owner(mirror string) string {
	for name, services := range w.exports {
		for _, template := range fleetTemplates {
			for service := range services {
				if (plan.Naming{Cluster: name, Template: template}).KeyByTemplate(nameOfService(service)).Name == mirror {
					return name
				}
			}
		}
	}
	return ""
}

// end configures all remotes, and wants exactly the mirrors of what they export.
func (w *fleetWalk) end() {
	for _, name := range slices.Sorted(maps.Keys(w.exports)) {
		if one, configured := w.secrets[name]; !configured || !one.Usable() {
			w.set(name)
		}
	}
	w.wait(time.Second)
	want := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.exports)) {
		r := w.running(name)
		w.follow(r)
		r.know(true)
		naming := plan.Naming{Cluster: name, Template: w.template[name]}
		for service, exported := range w.exports[name] {
			if key := naming.KeyByTemplate(nameOfService(service)); exported && want[key.Name] == "" {
				want[key.Name] = name
			}
		}
	}
	w.wait(5 * time.Minute)
	w.check()
	got := map[string]string{}
	for _, name := range slices.Sorted(maps.Keys(w.exports)) {
		for _, svc := range w.world.controller.local.Mirrors(name) {
			got[svc.Name] = name
			if slice := w.server.slice("default", svc.Name+"-ipv4"); slice == nil || len(slice.Endpoints) == 0 {
				w.Errorf("mirror %s has no endpoints", svc.Name)
			}
		}
	}
	if !slices.Equal(slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))) {
		w.Errorf("mirrors %v, want %v", got, want)
	}
	if page := w.world.controller.Overview(); page.Unknown > 0 || len(page.Remotes) != len(w.exports) {
		w.Errorf("the page shows %d objects of unknown remotes, and %+v", page.Unknown, page.Remotes)
	}
}

func nameOfService(name string) cache.ObjectName { return cache.NewObjectName("default", name) }
