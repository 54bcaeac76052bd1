package mirror

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// What the walk knows of names: how mirrors are called, that an operator changes this at a restart, and that no mirror
// goes before the one that takes its place is there.

// fate is what becomes of a mirror, by what is known of its source.
type fate int

const (
	unknown fate = iota
	stays
	moves
	goes
)

// modelNaming is how the mirrors of a remote are called.
type modelNaming struct {
	template string // empty: {service}-{cluster}
	merged   bool   // those of its namespace shop are in default
	obey     bool   // exports choose names
}

func (n modelNaming) naming() plan.Naming {
	naming := plan.Naming{Template: n.template, ObeyNames: n.obey}
	if n.merged {
		naming.Namespaces = map[string]string{"shop": "default"}
	}
	return naming
}

func (n modelNaming) namespace(of string) string {
	if n.merged {
		return "default"
	}
	return of
}

func (n modelNaming) name(remote, service string) string {
	switch n.template {
	case "{cluster}-{service}":
		return remote + "-" + service
	case "{service}":
		return service
	}
	return service + "-" + remote
}

func (n modelNaming) key(remote string, source cache.ObjectName, chosen string) cache.ObjectName {
	name := n.name(remote, source.Name)
	if n.obey && chosen != "" {
		name = chosen
	}
	return cache.NewObjectName(n.namespace(source.Namespace), name)
}

// makes tells whether a mirror of the remote can have the key.
func (n modelNaming) makes(remote string, key cache.ObjectName) bool {
	if n.obey {
		return true
	}
	if n.merged && key.Namespace == "shop" {
		return false
	}
	switch n.template {
	case "{cluster}-{service}":
		return strings.HasPrefix(key.Name, remote+"-")
	case "{service}":
		return true
	}
	return strings.HasSuffix(key.Name, "-"+remote)
}

// names are the rules as the operator gives them.
func (w *walk) names() plan.Names {
	names := plan.Names{}
	for remote, n := range w.rules {
		if n != (modelNaming{}) {
			names[remote] = n.naming()
		}
	}
	return names
}

// walkChosen are the names that exports may choose; the last one is not valid.
var walkChosen = []string{"till", "b-paris", "no_good"}

// keys are all that a mirror may have in a walk.
func (w *walk) keys() map[cache.ObjectName]bool {
	rules := []modelNaming{{}}
	if w.renaming {
		rules = append(rules, modelNaming{template: "{cluster}-{service}"}, modelNaming{template: "{service}"})
	}
	keys := map[cache.ObjectName]bool{}
	for _, namespace := range walkNamespaces {
		for _, remote := range walkRemotes {
			for _, exported := range walkNames {
				for _, n := range rules {
					keys[n.key(remote, cache.NewObjectName(namespace, exported), "")] = true
				}
			}
		}
		for _, name := range walkChosen[:2] {
			if w.renaming {
				keys[cache.NewObjectName(namespace, name)] = true
			}
		}
	}
	return keys
}

// exported is what is to become of an exported Service, as far as it is known.
func (w *walk) exported(r *walkRemote, source cache.ObjectName) (fate, *modelCandidate, cache.ObjectName) {
	e, ok := r.exports[source]
	switch {
	case !r.known:
		return unknown, nil, cache.ObjectName{}
	case !ok || e.refused != "" || e.ports == "dns" && r.gateway != nil:
		return goes, nil, cache.ObjectName{}
	case e.ports == "dns": // without a TCP port; the gateway says whether one is reserved for it
		return unknown, nil, cache.ObjectName{}
	}
	key := w.rules[r.name].key(r.name, source, e.name)
	return stays, &modelCandidate{remote: r.name, source: source.String(), export: e, gateway: r.gateway}, key
}

// surroundings are those of a key.
func (w *walk) surroundings(key cache.ObjectName) surroundings {
	s := surroundings{known: map[string]bool{}, namespace: key.Namespace != "shop" || w.shop == "there"}
	for _, name := range walkRemotes {
		r := w.remotes[name]
		if !r.known {
			continue
		}
		sources, settled := 0, 0
		for _, source := range w.sources() {
			e, ok := r.exports[source]
			if !ok || w.rules[name].key(name, source, e.name) != key {
				continue
			}
			sources++
			switch fate, c, _ := w.exported(r, source); {
			case fate == stays && valid(key):
				s.candidates = append(s.candidates, *c)
				fallthrough
			case fate != unknown:
				settled++
			}
		}
		s.known[name] = sources == 0 || settled > 0
	}
	s.makes = func(remote string) bool { return w.rules[remote].makes(remote, key) }
	s.fate = func(remote, text string) (fate, *modelCandidate) {
		r, source := w.remotes[remote], objectName(text)
		if r == nil || source.Name == "" {
			return unknown, nil
		}
		fate, c, to := w.exported(r, source)
		if fate == stays && to != key {
			fate = moves
		}
		return fate, c
	}
	return s
}

func valid(key cache.ObjectName) bool { return len(key.Name) <= 63 && !strings.Contains(key.Name, "_") }

func objectName(text string) cache.ObjectName {
	namespace, name, _ := strings.Cut(text, "/")
	return cache.NewObjectName(namespace, name)
}

// sources are all Services that may be exported, in order.
func (w *walk) sources() (all []cache.ObjectName) {
	for _, namespace := range walkNamespaces {
		for _, name := range walkNames {
			all = append(all, cache.NewObjectName(namespace, name))
		}
	}
	return all
}

// atRest are the surroundings of a key when nothing is being written any more.
func (w *walk) atRest(key cache.ObjectName) surroundings {
	s := w.surroundings(key)
	s.complete = func(now halves) bool {
		_, _, to := w.exported(w.remotes[now.svc.owner], objectName(now.svc.source))
		svc, eps := serviceHalf(w.server.service(to.Namespace, to.Name)), endpointsHalf(w.server.endpoints(to.Namespace, to.Name))
		return svc.kind == ours && svc.owner == now.svc.owner && svc.source == now.svc.source && eps.kind == ours &&
			(eps.where != "" || now.eps.kind != ours || now.eps.where == "")
	}
	return s
}

// affects are the keys that a change of one remote's exports may concern.
func (w *walk) affects(fits func(cache.ObjectName) bool) func(cache.ObjectName) bool {
	if w.renaming {
		return func(cache.ObjectName) bool { return true }
	}
	return fits
}

// moved notes that any mirror may be recreated, as another one's.
func (w *walk) moved() {
	for _, p := range w.places {
		p.another, p.newIP = true, true
	}
}

// renames restarts all with other rules for names.
func (w *walk) renames(g generator) {
	r := w.remote(g)
	rule := modelNaming{template: pickOne(g, "", "{cluster}-{service}", "{service}"), merged: g.IntN(3) == 0, obey: g.IntN(3) == 0}
	if !w.renaming {
		return
	}
	w.note("the mirrors of %s are called by %+v", r.name, rule)
	for len(w.replicas) > 0 {
		w.stopReplica(0)
	}
	if !w.paused {
		w.seen()
	}
	w.rules[r.name] = rule
	w.startReplica()
	w.moved()
	w.lead(0)
	w.happened(func(cache.ObjectName) bool { return true })
}

// excuse notes which mirrors may go, because of what their sources are now.
func (w *walk) excuse() {
	for _, r := range w.remotes {
		for _, source := range w.sources() {
			if fate, _, _ := w.exported(r, source); fate == goes {
				w.excused[r.name+" "+source.String()] = true
			}
		}
	}
}

// touch notes that someone else changed what has a key.
func (w *walk) touch(key cache.ObjectName) { w.touched[key] = true }

// noGap checks that no mirror has gone before another one of its source was there, with addresses if it had some: of those
// whose sources were exported all the time, and that nobody else has changed.
func (w *walk) noGap() {
	w.Helper()
	w.server.mu.Lock()
	changes := slices.Clone(w.server.history[w.rested:])
	w.server.mu.Unlock()
	for _, c := range changes {
		svc, ok := c.before.(*corev1.Service)
		if now := c.now != nil; ok && !now {
			w.replaced(svc)
		}
		switch obj := c.now; {
		case c.resource != "services" && c.resource != "endpoints":
		case obj == nil:
			delete(w.was, c.resource+" "+nameOf(c.before))
		default:
			w.was[c.resource+" "+nameOf(obj)] = obj
		}
	}
	clear(w.excused)
	clear(w.touched)
	w.excuse()
}

// replaced checks that another mirror of its source is there when one goes.
func (w *walk) replaced(svc *corev1.Service) {
	w.Helper()
	key, had := cache.MetaObjectToName(svc), serviceHalf(svc)
	if had.kind != ours || had.source == "" || w.touched[key] || w.remotes[had.owner] == nil || w.excused[had.owner+" "+had.source] {
		return
	}
	w.Renamed++
	addresses, _ := w.was["endpoints "+key.String()].(*corev1.Endpoints)
	for what, obj := range w.was {
		other, ok := obj.(*corev1.Service)
		if !ok || what == "services "+key.String() {
			continue
		}
		if is := serviceHalf(other); is.kind == ours && is.owner == had.owner && is.source == had.source {
			eps, _ := w.was["endpoints "+nameOf(other)].(*corev1.Endpoints)
			if endpointsHalf(addresses).where == "" || endpointsHalf(eps).where != "" || w.touched[cache.MetaObjectToName(other)] {
				return
			}
		}
	}
	if w.exchanged(had) {
		return
	}
	w.wrong("%v, the mirror of %s in %s, has gone, and no other one was there\n  %s", key, had.source, had.owner, w.listed())
}

// exchanged tells that another mirror has the name that a source is to have: they may wait for each other.
func (w *walk) exchanged(had half) bool {
	_, _, to := w.exported(w.remotes[had.owner], objectName(had.source))
	svc, _ := w.was["services "+to.String()].(*corev1.Service)
	return serviceHalf(svc).kind == ours
}

func (w *walk) listed() string {
	var all []string
	for what, obj := range w.was {
		if svc, ok := obj.(*corev1.Service); ok {
			all = append(all, fmt.Sprint(what, " ", svc.Annotations[plan.RemoteServiceAnnotation], " ", svc.Labels[plan.ClusterLabel]))
		}
	}
	slices.Sort(all)
	return strings.Join(all, "\n  ")
}

func nameOf(obj any) string {
	one, err := meta.Accessor(obj)
	must(err)
	return cache.MetaObjectToName(one).String()
}
