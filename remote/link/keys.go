package link

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Key is a KEY=VALUE of --remote. The value of namespaces= is a list with commas.
type Key struct{ Name, Value string }

// Keys are those of one --remote, in their order.
type Keys []Key

// ParseKeys reads KEY=VALUE[,KEY=VALUE]….
func ParseKeys(text string) (keys Keys) {
	for field := range strings.SplitSeq(text, ",") {
		name, value, pair := strings.Cut(field, "=")
		if last := len(keys) - 1; !pair && last >= 0 && keys[last].Name == "namespaces" { // its value goes on
			keys[last].Value += "," + field
			continue
		}
		keys = append(keys, Key{name, value})
	}
	return keys
}

// String is as in --remote, where it follows the kubeconfig.
func (k Keys) String() string {
	var text strings.Builder
	for _, key := range k {
		text.WriteString("," + key.Name + "=" + key.Value)
	}
	return text.String()
}

// list are KEY=VALUE, one for each value.
func (k Keys) list() (all []string) {
	for _, key := range k {
		all = append(all, key.Name+"="+key.Value)
	}
	return all
}

// sorted are the keys by name, with the values of each in their order: a Secret has no other order.
func (k Keys) sorted() Keys {
	return slices.SortedStableFunc(slices.Values(k), func(a, b Key) int { return strings.Compare(a.Name, b.Name) })
}

// values are those of one key.
func (k Keys) values(name string) (values []string) {
	for _, key := range k {
		if key.Name == name {
			values = append(values, key.Value)
		}
	}
	return values
}

// changed are the keys with those of set in place of their like, and without those of removed.
func (k Keys) changed(set Keys, removed []string) (all Keys) {
	placed := map[string]bool{}
	place := func(name string) {
		if placed[name] {
			return
		}
		placed[name] = true
		for _, value := range set.values(name) {
			all = append(all, Key{name, value})
		}
	}
	for _, key := range k {
		switch {
		case slices.Contains(removed, key.Name):
		case len(set.values(key.Name)) > 0:
			place(key.Name)
		default:
			all = append(all, key)
		}
	}
	for _, key := range set {
		place(key.Name)
	}
	return all
}

// ParseArguments reads the arguments of a command: the name of a remote, KEY=VALUE, and KEY- to remove a key. The
// error has a line for each mistake.
func (r *Request) ParseArguments(args []string) error {
	var mistakes []error
	for _, arg := range args {
		name, removes := strings.CutSuffix(arg, "-")
		switch {
		case strings.Contains(arg, "="):
			r.Set = append(r.Set, ParseKeys(arg)...)
		case r.Name == "":
			r.Name = arg
		case removes && known(name):
			r.Remove = append(r.Remove, name)
		case removes:
			mistakes = append(mistakes, fmt.Errorf("%.70s: key %.70q cannot be removed", arg, name))
		default:
			mistakes = append(mistakes, fmt.Errorf("%.70s: the remote name is already %s: set one name", arg, r.Name))
		}
	}
	if r.Name == "" {
		return errors.Join(append(mistakes, errors.New("no remote name: set one such as paris"))...)
	}
	for _, name := range r.Remove {
		if len(r.Set.values(name)) > 0 {
			mistakes = append(mistakes, fmt.Errorf("%s-: the same key is set and removed: remove one", name))
		}
	}
	if len(r.Set.values("context")) > 0 {
		mistakes = append(mistakes, errors.New("context=: not supported by link: use --remote-context to select a context of your kubeconfig"))
	}
	spec, err := r.Set.spec(r.Name)
	if spec.Template != "" {
		if err := plan.ValidateTemplate(spec.Template); err != nil {
			mistakes = append(mistakes, fmt.Errorf("name=%w", err))
		}
	}
	return errors.Join(append(mistakes, lines(err)...)...)
}

// lines are the mistakes in an error, one each.
func lines(err error) (all []error) {
	if err == nil {
		return nil
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		all = append(all, errors.New(line))
	}
	return all
}

// known tells whether --remote has a key.
func known(name string) bool {
	_, err := remote.ParseSpec("x=y," + name + "=x")
	return err == nil || !strings.Contains(err.Error(), "unknown key")
}

// spec is what the daemon will read of the keys.
func (k Keys) spec(name string) (remote.Spec, error) {
	return remote.ParseSpec(name + "=kubeconfig" + k.String())
}

// keys are those of before, with what is to change: those in the remote's Secret or, of an earlier version's link, in the
// daemon's flags.
func (r Request) keys(local Local) (Keys, error) {
	var existing Keys
	if local.Secret != nil {
		existing = keysOf(local.Secret)
	} else if _, before, found := strings.Cut(local.Daemon.remote(r.Name), ","); found {
		existing = ParseKeys(before)
	}
	keys := existing.changed(r.Set, append([]string{"context"}, r.Remove...)).sorted() // the kubeconfig has one context
	if _, err := keys.spec(r.Name); err != nil {
		return nil, fmt.Errorf("remote %s: with the keys %q: %w", r.Name, strings.TrimPrefix(keys.String(), ","), err)
	}
	return keys, nil
}
