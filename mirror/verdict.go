package mirror

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"service-mirror.io/service-mirror/gateway/verify"
)

// ErrNoMirror says that there is nothing to verify, and nothing else is wrong. A Service may be exported later.
var ErrNoMirror = errors.New("no mirrors to verify: export a Service first")

// NotReached is the error of a verification that has reached some mirrors at most.
type NotReached struct {
	Wrong, Reached, All int      // ports, once for each address of the gateway
	Pending             []string // mirrors that have one that was not reached, but may be later
	Lasting             []string // mirrors that have one that was not reached, which waiting does not change
}

func (e NotReached) Error() string {
	text := fmt.Sprintf("%d of %d not reached", e.Wrong, e.All)
	if len(e.Pending) == 0 {
		text += e.inVain()
	}
	return text
}

// Awaited says how many are reached, and names the first mirrors that are not.
func (e NotReached) Awaited() string {
	if len(e.Pending) == 0 {
		return ""
	}
	return fmt.Sprintf("%d of %d verified: %d of %d not reached: %s%s", e.Reached, e.All, e.Wrong, e.All, few(e.Pending), e.inVain())
}

func (e NotReached) inVain() string {
	if len(e.Lasting) == 0 {
		return ""
	}
	return "; waiting does not help " + few(e.Lasting)
}

// Unverifiable is the error of a verification that has sent no request, because no port is of a protocol that has one
// which all servers answer.
type Unverifiable struct {
	Protocols []string // of the ports
	Mirrors   []string
}

func (e Unverifiable) Error() string {
	return fmt.Sprintf("only %s ports, which cannot be verified: %s: test them with a client in a pod", strings.Join(e.Protocols, " and "), few(e.Mirrors))
}

// Awaited is nothing.
func (e Unverifiable) Awaited() string { return "" }

// Awaited says why a verification has failed, without what waiting does not change; empty: waiting does not help.
func Awaited(err error) string {
	switch err := err.(type) {
	case nil:
		return ""
	case interface{ Awaited() string }:
		return err.Awaited()
	case interface{ Unwrap() []error }:
		var texts []string
		for _, one := range err.Unwrap() {
			if text := Awaited(one); text != "" {
				texts = append(texts, text)
			}
		}
		return strings.Join(texts, "\n")
	case interface{ Unwrap() error }:
		if inner := err.Unwrap(); inner != nil && Awaited(inner) == "" {
			return ""
		}
	}
	return err.Error()
}

// few lists a few names.
func few(names []string) string {
	first := names[:min(3, len(names))]
	text := strings.Join(first, ", ")
	if more := len(names) - len(first); more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// verdict is nil if all was reached. What cannot be known counts neither way, unless there is nothing else.
func verdict(all []*verification) error {
	wrong := NotReached{All: len(all)}
	protocols, mirrors := map[string]bool{}, map[string]bool{}
	add := func(to *[]string, mirror string) {
		if n := len(*to); n == 0 || (*to)[n-1] != mirror { // they are in order
			*to = append(*to, mirror)
		}
	}
	for _, v := range all {
		switch {
		case v.Result.Wrong() && v.Lasting:
			wrong.Wrong++
			add(&wrong.Lasting, v.Mirror)
		case v.Result.Wrong():
			wrong.Wrong++
			add(&wrong.Pending, v.Mirror)
		case v.Result == verify.Reached:
			wrong.Reached++
		default:
			protocols[strings.ToUpper(string(v.Class))], mirrors[v.Mirror] = true, true
		}
	}
	switch {
	case wrong.Wrong > 0:
		return wrong
	case wrong.Reached == 0 && len(all) > 0:
		return Unverifiable{slices.Sorted(maps.Keys(protocols)), slices.Sorted(maps.Keys(mirrors))}
	}
	return nil
}
