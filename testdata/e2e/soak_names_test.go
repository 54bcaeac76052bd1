package e2e

import (
	"fmt"
	"slices"
	"strings"
)

// namingRule says what the mirrors of a remote are called. What must exist during a change is derived from
// deploy/guides/names.md.
type namingRule struct {
	template string
	swaps    bool // the mirrors of each namespace are in the other one
}

// templates are values of --name-template, the default one first.
var templates = []string{"{service}-{cluster}", "{service}-in-{cluster}"}

// ownRules are those of one remote, in --remote. No two Services of one remote or of two ever have mirrors of one name, and no two
// mirrors exchange names: these are not without a gap.
var ownRules = []namingRule{
	{},
	{template: "{cluster}-{service}"},
	{template: "{service}-of-{namespace}-{cluster}"},
	{template: "{service}-of-{namespace}-{cluster}", swaps: true},
}

// otherNamespace is where swapped mirrors are.
var otherNamespace = map[string]string{"one": "two", "two": "one"}

// home is London's namespace of the mirrors of a namespace in the remote.
func (n namingRule) home(namespace string) string {
	if n.swaps {
		return otherNamespace[namespace]
	}
	return namespace
}

// home is London's namespace of the mirror.
func (e *entry) home() string { return e.remote.naming.home(e.namespace) }

// rename applies the rules of the flags.
func (m *model) rename() {
	for _, r := range m.remotes {
		if r.naming = r.own; r.own.template == "" {
			r.naming.template = m.template
		}
		if r.naming == r.before {
			continue
		}
		for _, e := range r.entries {
			e.moves = true
		}
	}
}

// swapping: mirrors may be on their way from one namespace to the other.
func (m *model) swapping() bool {
	return slices.ContainsFunc(m.remotes, func(r *modelRemote) bool { return r.naming.swaps != r.before.swaps })
}

// place is a name in London, in a namespace by its short name.
type place struct{ namespace, name string }

func (p place) String() string { return p.namespace + "/" + p.name }

// place is that of a mirror by a rule.
func (w *walk) place(e *entry, by namingRule) place {
	return place{by.home(e.namespace), w.nameBy(by, e.remote, w.long(e.namespace), e.name)}
}

func (w *walk) nameBy(rule namingRule, of *modelRemote, namespace, name string) string {
	return strings.NewReplacer("{service}", name, "{namespace}", namespace, "{cluster}", w.far[of.short].name).Replace(rule.template)
}

// keys are those of --remote that say the same as the rule, as a link writes them down.
func (w *walk) keys(n namingRule) string {
	keys := []string{"name=" + n.template}
	for _, namespace := range w.namespaces {
		if n.swaps {
			keys = append(keys, "namespace="+w.long(namespace)+":"+w.long(n.home(namespace)))
		}
	}
	return strings.Join(keys, ",")
}

// renameMirrors restarts the daemon with other rules for the names of one remote's mirrors, or of all.
func (w *walk) renameMirrors() *step {
	if !w.runs || slices.ContainsFunc(w.namespaces, func(name string) bool { return !w.existing[name] }) {
		return nil
	}
	var text string
	if w.rnd.IntN(3) > 0 {
		r, ok := pick(w, w.remotes, (*modelRemote).movable)
		if !ok {
			return nil
		}
		rule := any1(w, ownRules...)
		if rule == r.own {
			return nil
		}
		r.own, text = rule, fmt.Sprintf("the mirrors of %s have the rule %+v", r.short, rule)
	} else {
		if slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return r.own == namingRule{} && !r.movable() }) {
			return nil
		}
		w.template = templates[1-slices.Index(templates, w.template)]
		text = "--name-template is " + w.template
	}
	return w.renameStep(text)
}

// renameAtOnce is now and then the first step after a rest: most mirrors must route where they do then, whatever they are called.
func (w *walk) renameAtOnce() *step {
	first := w.first
	w.first = false
	switch {
	case !first || w.failing != nil || w.rnd.IntN(3) > 0:
		return nil
	case w.merged != nil:
		return w.renameMerged()
	}
	return w.renameMirrors()
}

func (w *walk) renameStep(text string) *step {
	w.rename()
	flags, rules := map[*remote]string{}, map[*remote]string{}
	for _, m := range w.remotes {
		r := w.far[m.short]
		rules[r] = w.keys(m.naming) + ";" + w.keys(m.before)
		if (m.own != namingRule{}) {
			flags[r] = "," + w.keys(m.own)
		}
	}
	moving := w.moving()
	s := w.restart("the daemon is restarted: "+text, (*daemon).stop, func() error {
		for r, rule := range rules {
			r.keys = flags[r]
			if err := london.ConfigureNames(w.ctx, r.name, rule); err != nil {
				return err
			}
		}
		return nil
	})
	restart := s.act
	s.act = func() error {
		if err := restart(); err != nil {
			return err
		}
		return w.until(func() error { return w.haveMoved(moving) })
	}
	return s
}

// moving are the places that mirrors move from now, as nothing keeps the daemon from that: what else happens later, could.
func (w *walk) moving() map[place]place {
	all := map[place]place{}
	if slices.ContainsFunc(w.remotes, func(r *modelRemote) bool { return r.fault != fault{} }) {
		return all
	}
	for _, e := range w.entries() {
		if e.moves && w.mirrored(e) {
			all[w.place(e, e.remote.before)] = w.place(e, e.remote.naming)
		}
	}
	return all
}

// haveMoved checks that no mirror is at its place of before, and each at the new one.
func (w *walk) haveMoved(moving map[place]place) error {
	if err := w.see(); err != nil {
		return err
	}
	for from, to := range moving {
		if w.seen[from.namespace].services[from.name] != nil || w.seen[to.namespace].services[to.name] == nil {
			return fmt.Errorf("the mirror %v does not move to %v", from, to)
		}
	}
	return nil
}
