package check

import (
	"fmt"
	"strings"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Tally is what will become of exported Services.
type Tally struct {
	Done                string // what becomes of them: mirrored
	all                 int
	refused, incomplete []string
}

// Add adds a Service, with what is wrong with it.
func (t *Tally) Add(service cache.ObjectName, problems []plan.Problem) {
	t.all++
	switch state, why := judge(problems); state {
	case plan.StateMirrored:
	case plan.StateIncomplete:
		t.incomplete = append(t.incomplete, fmt.Sprintf("%v will be %s, but not all of its ports will be reachable: %s", service, t.Done, why))
	default:
		t.refused = append(t.refused, fmt.Sprintf("%v will not be %s: %s", service, t.Done, why))
	}
}

// judge is the state that problems make of what has them, and why. That a gateway has no address is reported of the
// gateway.
func judge(problems []plan.Problem) (state plan.State, why string) {
	state = plan.StateMirrored
	var texts []string
	for _, problem := range problems {
		if problem.Reason == plan.NoAddress {
			continue
		}
		state = state.Worse(problem.Reason.State())
		texts = append(texts, strings.ReplaceAll(problem.Message, "\n", "; "))
	}
	return state, strings.Join(texts, "; ")
}

// NoExports says that there are none.
func (r *Report) NoExports(selector string) {
	r.Warn("no Service is exported: label one with %s", selector)
}

// Exports says what will become of exported Services.
func (r *Report) Exports(t Tally) {
	r.some(t.refused, "will not be "+t.Done)
	r.some(t.incomplete, "will have ports that are not reachable")
	r.OK("%d Services are exported, %d of them can be %s", t.all, t.all-len(t.refused), t.Done)
}

// some warns of the first of many, and says of the others how many do, or do not.
func (r *Report) some(lines []string, do string) {
	const most = 20
	for _, line := range lines[:min(most, len(lines))] {
		r.Warn("%s", line)
	}
	if more := len(lines) - most; more > 0 {
		r.Warn("and %d more %s", more, do)
	}
}
