package status

import (
	"cmp"
	"maps"
	"slices"
	"strings"

	"service-mirror.io/service-mirror/mirror/plan"
)

// How much of the problems the page shows; all of them are in the JSON.
const (
	groupsAt   = 3  // that a phone shows at once
	groupsMax  = 60 // that are shown at all
	messagesAt = 12 // different ones of a problem
	namesAt    = 8  // of what has the same message
)

// group is one problem, however many it is about: one line, which opens to the list.
type group struct {
	severity
	Tone   string
	Title  string // a reason, or what has the problem
	What   string // how many have it
	Remedy string // empty: the messages say what to do
	Lines  list[groupLine]
	Links  []chip // to the rows
	size   int
}

// groupLine is what is wrong with some of them.
type groupLine struct {
	Message string
	Names   []string // the first few
	More    int      // how many more have it
}

// collected is a group in the making.
type collected struct {
	severity severity
	title    string
	noun     string
	remedy   string
	link     string
	rows     int
	last     string         // the row that was added last: twice of one is once
	byText   map[string]int // index of lines
	lines    []groupLine
	remotes  []string
}

// collection has the groups of a page, by title.
type collection map[string]*collected

// entry is one problem of one row.
type entry struct {
	severity
	title, noun, remedy, link string // of the group
	name, remote, message     string
}

func (all collection) add(e entry) {
	c := all[e.title]
	if c == nil {
		c = &collected{severity: e.severity, title: e.title, noun: e.noun, remedy: e.remedy, link: e.link, byText: map[string]int{}}
		all[e.title] = c
	}
	c.severity = min(c.severity, e.severity)
	if c.noun != e.noun {
		c.noun = "mirror"
	}
	if id := e.name + " " + e.remote; id != c.last {
		c.rows, c.last = c.rows+1, id
	}
	if e.remote != "" && !slices.Contains(c.remotes, e.remote) {
		c.remotes = append(c.remotes, e.remote)
	}
	c.note(e.message, e.name)
}

// note adds a name to those with the same message.
func (c *collected) note(message, name string) {
	at, known := c.byText[message]
	if !known {
		at = len(c.lines)
		c.byText[message] = at
		c.lines = append(c.lines, groupLine{Message: message})
	}
	line := &c.lines[at]
	if name == "" || slices.Contains(line.Names, name) {
		return
	}
	if len(line.Names) == namesAt {
		line.More++
		return
	}
	line.Names = append(line.Names, name)
}

// group is what the page shows of it.
func (c *collected) group() group {
	what := noun(c.rows, c.noun)
	if len(c.remotes) > 0 {
		slices.Sort(c.remotes)
		if len(c.remotes) > few {
			what += " of " + noun(len(c.remotes), "remote")
		} else {
			what += " of " + strings.Join(c.remotes, ", ")
		}
	}
	slices.SortStableFunc(c.lines, func(a, b groupLine) int { return cmp.Compare(b.size(), a.size()) })
	g := group{severity: c.severity, Tone: c.severity.tone(), Title: c.title, What: what, Remedy: c.remedy, Lines: newList(c.lines, messagesAt), size: c.rows}
	if c.link != "" {
		label := "Show it in the table"
		if c.rows > 1 {
			label = "Show the " + count(c.rows) + " in the table"
		}
		g.Links = []chip{{Label: label, Link: c.link}}
	}
	return g
}

func (l *groupLine) size() int { return len(l.Names) + l.More }

// groups are all of them, the worst first, then the most frequent.
func (all collection) groups() []group {
	groups := make([]group, 0, len(all))
	for _, title := range slices.Sorted(maps.Keys(all)) {
		groups = append(groups, all[title].group())
	}
	slices.SortStableFunc(groups, compareGroups)
	return groups
}

func compareGroups(a, b group) int {
	return cmp.Or(cmp.Compare(a.severity, b.severity), cmp.Compare(b.size, a.size))
}

// addGroups sets the problems that the page shows.
func (v *view) addGroups(groups []group) {
	slices.SortStableFunc(groups, compareGroups)
	v.Problems = newList(groups[:min(len(groups), groupsMax)], groupsAt)
	v.Problems.Left = max(0, len(groups)-groupsMax)
	v.ProblemCount = len(groups)
}

// ofMirrors are the problems of mirrors and of Services that fail over. What follows from a remote's own problem is
// shown with that.
func (v *view) groupAll() []group {
	all := collection{}
	boxes := v.boxes()
	for i := range v.Page.Mirrors {
		m := &v.Page.Mirrors[i]
		if m.healthy() {
			continue
		}
		for _, p := range m.shownProblems() {
			if box := boxes[m.Cluster]; box != nil && box.explains(p.Reason) {
				box.follow(m)
				continue
			}
			all.add(v.entryOf(m, p))
		}
	}
	for i := range v.Page.Failover {
		f := &v.Page.Failover[i]
		for _, p := range f.Problems {
			message := p.Message
			if p.Remote != "" {
				message = "remote " + p.Remote + ": " + message
			}
			all.add(entry{severity: f.severity(), title: "Failover: " + p.Reason, noun: "Service", remedy: remedyOf(p.Reason),
				link: "#failover", name: f.Namespace + "/" + f.Name, message: message})
		}
	}
	var groups []group
	for i := range v.Page.Remotes {
		if box := boxes[v.Page.Remotes[i].Name]; box != nil {
			groups = append(groups, box.group(v))
		}
	}
	return append(groups, all.groups()...)
}

func (v *view) entryOf(m *Mirror, p MirrorProblem) entry {
	severity := m.severityOf(p.Reason)
	e := entry{severity: severity, title: p.Reason, noun: "mirror", remedy: remedyOf(p.Reason),
		link: v.rowsLink(v.Filter.none().withReason(p.Reason)), name: m.Namespace + "/" + m.Name, remote: m.Cluster, message: p.Message}
	if severity == absent {
		e.noun = "exported Service"
	}
	return e
}

// rowsLink links to the rows of a filter.
func (v *view) rowsLink(f filter) string { return f.link() + "#" + v.Words.ID }

// Reasons of mirrors that have no problem and are not healthy: what they wait for is not recorded as one.
const (
	reasonOrphan  = "Orphan"
	reasonWaiting = "NotCreatedYet"
	reasonUnready = string(plan.NoHealthyAddress)
	reasonEmpty   = "NoEndpointYet"
	// reasonUnpublished is of an exported Service, by its publisher.
	reasonUnpublished = "NotPublishedYet"
)

// unrecorded are their messages and remedies.
var unrecorded = map[string]struct{ message, remedy string }{
	reasonOrphan:      {"no configured remote exports its Service", "configure its remote, or run service-mirror prune"},
	reasonWaiting:     {"the mirror is not created yet", "wait a few seconds; if it stays, see the leader's log"},
	reasonUnready:     {"no address of the gateway answers its probes", ""},
	reasonEmpty:       {"its endpoints are not written yet", "wait a few seconds; if it stays, see the leader's log"},
	reasonUnpublished: {"it is not published yet", "wait a few seconds; if it stays, see the leader's log"},
}

// shownProblems are its problems; of a mirror that is unhealthy, one at least.
func (m *Mirror) shownProblems() []MirrorProblem {
	reason := reasonWaiting
	switch {
	case len(m.Problems) > 0 || m.healthy():
		return m.Problems
	case m.noneReady():
		reason = reasonUnready
	case m.State == Orphan:
		reason = reasonOrphan
	case m.State == Incomplete:
		reason = reasonEmpty
	}
	return []MirrorProblem{{Reason: reason, Message: unrecorded[reason].message}}
}

// remedyOf is what can be done about problems of a reason.
func remedyOf(reason string) string {
	return cmp.Or(plan.Reason(reason).Remedy(), unrecorded[reason].remedy)
}

// groupServices are the problems of a publisher.
func (v *view) groupServices(p *Publisher) []group {
	all := collection{}
	for i := range p.Services {
		s := &p.Services[i]
		for _, problem := range s.problems() {
			all.add(entry{severity: s.severity(), title: problem.Reason, noun: v.Words.One, remedy: remedyOf(problem.Reason),
				link: v.rowsLink(v.Filter.none().withReason(problem.Reason)), name: s.Namespace + "/" + s.Name, message: problem.Message})
		}
	}
	return all.groups()
}
