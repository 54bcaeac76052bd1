package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Tally is what will become of exported Services.
type Tally struct {
	Done                string // what becomes of them: mirrored
	all, refused        int
	notDone, incomplete []cause
}

// cause is what is wrong with exported Services.
type cause struct {
	reason   plan.Reason
	why      string
	services []string
}

// Add adds a Service, with what is wrong with it.
func (t *Tally) Add(service cache.ObjectName, problems []plan.Problem) {
	t.all++
	switch state, reason, why := judge(problems); state {
	case plan.StateMirrored:
	case plan.StateIncomplete:
		t.incomplete = append(t.incomplete, cause{reason, why, []string{service.String()}})
	default:
		t.refused++
		t.notDone = append(t.notDone, cause{reason, why, []string{service.String()}})
	}
}

// judge is the state that problems make of what has them, the reason that makes it, and why. That a gateway has no
// address is reported of the gateway.
func judge(problems []plan.Problem) (state plan.State, reason plan.Reason, why string) {
	state = plan.StateMirrored
	var texts []string
	for _, problem := range problems {
		if problem.Reason == plan.NoAddress {
			continue
		}
		if worse := state.Worse(problem.Reason.State()); worse != state || reason == "" {
			state, reason = worse, problem.Reason
		}
		texts = append(texts, strings.ReplaceAll(problem.Message, "\n", "; "))
	}
	return state, reason, strings.Join(texts, "; ")
}

// NoExports says that there are none.
func (r *Report) NoExports(selector string) {
	r.Warn("no exported Services: label one with %s", selector)
}

// Exports says what will become of exported Services.
func (r *Report) Exports(t Tally) {
	r.causes(t.notDone, "will not be "+t.Done, "")
	r.causes(t.incomplete, "will be "+t.Done, ", but not all of %s ports will be reachable")
	r.OK("%d of %d exported Services can be %s", t.all-t.refused, t.all, t.Done)
}

// apart is how many causes of one reason have a line each, and how many Services of one cause are named.
const apart = 3

// causes warns of what is wrong: of Services with one cause at once, and with one reason if that has many causes.
func (r *Report) causes(all []cause, do, but string) {
	for _, c := range grouped(all) {
		n := len(c.services)
		of, whose := c.services[0], "its"
		if n > 1 {
			of, whose = fmt.Sprintf("%d exported Services", n), "their"
		}
		text := of + " " + do
		if but != "" {
			text += fmt.Sprintf(but, whose)
		}
		if n > 1 {
			text += fmt.Sprintf(": %s: %s", c.reason, Names(c.services))
		}
		r.add(Finding{Level: LevelWarning, Message: text + ": " + c.why, Reason: c.reason, Services: c.services})
	}
}

// Names are the first of many names, and how many more there are.
func Names(all []string) string {
	text := strings.Join(all[:min(apart, len(all))], ", ")
	if more := len(all) - apart; more > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return text
}

// grouped are causes without repetition, in the order in which they were found.
func grouped(all []cause) (merged []cause) {
	causes := map[plan.Reason]int{} // that differ
	for _, c := range all {
		i := slices.IndexFunc(merged, func(m cause) bool { return m.reason == c.reason && m.why == c.why })
		if i < 0 {
			causes[c.reason]++
			merged = append(merged, c)
			continue
		}
		merged[i].services = append(slices.Clip(merged[i].services), c.services...)
	}
	return mergeReasons(merged, causes)
}

// mergeReasons makes one cause of all those of a reason that has too many: the most frequent one is the example.
func mergeReasons(all []cause, causes map[plan.Reason]int) (merged []cause) {
	byReason := map[plan.Reason][]cause{}
	for _, c := range all {
		byReason[c.reason] = append(byReason[c.reason], c)
	}
	for _, c := range all {
		same := byReason[c.reason]
		if causes[c.reason] <= apart {
			merged = append(merged, c)
			continue
		}
		if len(same) == 0 {
			continue // it was merged
		}
		byReason[c.reason] = nil
		example := slices.MaxFunc(same, func(a, b cause) int { return cmp.Compare(len(a.services), len(b.services)) })
		one := cause{reason: c.reason, why: fmt.Sprintf("%d causes, for example %s: %s", len(same), example.services[0], example.why)}
		for _, s := range same {
			one.services = append(one.services, s.services...)
		}
		merged = append(merged, one)
	}
	return merged
}
