package status

import (
	"bytes"
	"cmp"
	"net/url"
	"slices"
	"strconv"
	"strings"
)

const (
	// rowsPerPage is as many as a person can look through and a browser shows without delay.
	rowsPerPage = 100
	maxText     = 200 // bytes of the text to search for
	// unhealthy selects every mirror that is not mirrored or has a problem.
	unhealthy = "unhealthy"
	// unwell is what links of version 0.1.0 have for unhealthy.
	unwell = "unwell"
)

// states of a mirror, the most urgent first: traffic that fails comes before traffic
// that never was possible. The order of plan.States is by severity instead.
var states = []string{Incomplete, Conflict, Refused, Waiting, Orphan, Mirrored}

// publisherStates are those of an exported Service, likewise.
var publisherStates = []string{Incomplete, Conflict, Refused, Waiting, Published}

// filter is what a query selects.
type filter struct {
	State   string // empty: all; unhealthy
	Remote  string // empty: all
	Reason  string // empty: all
	Text    string // words that must all occur
	Page    int    // from 1
	Refresh int    // seconds; 0: no automatic refresh
}

// parseFilter ignores what it does not understand: an old link must still work.
func parseFilter(query url.Values) filter {
	f := filter{State: text(query.Get("state")), Remote: text(query.Get("remote")), Reason: text(query.Get("reason")), Text: strings.TrimSpace(text(query.Get("q"))), Page: 1}
	if f.State == unwell {
		f.State = unhealthy
	}
	if len(f.Text) > maxText {
		f.Text = strings.ToValidUTF8(f.Text[:maxText], "")
	}
	if n, err := strconv.Atoi(query.Get("page")); err == nil && n > 1 {
		f.Page = n
	}
	if n, err := strconv.Atoi(query.Get("refresh")); err == nil && n > 0 {
		f.Refresh = min(max(n, 5), 3600)
	}
	return f
}

// link is a link to the page with this filter. It is relative, so that it works
// behind a proxy too.
func (f filter) link() string {
	query := url.Values{}
	for key, value := range map[string]string{"state": f.State, "remote": f.Remote, "reason": f.Reason, "q": f.Text} {
		if value != "" {
			query.Set(key, value)
		}
	}
	if f.Page > 1 {
		query.Set("page", strconv.Itoa(f.Page))
	}
	if f.Refresh > 0 {
		query.Set("refresh", strconv.Itoa(f.Refresh))
	}
	return "./" + mark("?", query.Encode())
}

func mark(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// A filter that changes starts at the first page again.

func (f filter) withState(state string) filter   { f.State, f.Page = state, 1; return f }
func (f filter) withRemote(remote string) filter { f.Remote, f.Page = remote, 1; return f }
func (f filter) withReason(reason string) filter { f.Reason, f.Page = reason, 1; return f }
func (f filter) withText(text string) filter     { f.Text, f.Page = text, 1; return f }

// narrow reports whether it leaves out any mirror.
func (f filter) narrow() bool {
	return f.State != "" || f.Remote != "" || f.Reason != "" || f.Text != ""
}

// none is the filter that leaves out no mirror.
func (f filter) none() filter { return filter{Page: 1, Refresh: f.Refresh} }

// row is a line of the table: a *Mirror or a *Service.
type row interface {
	key() (namespace, name string)
	origin() (cluster, source string) // in a remote; empty: there is none
	state() string
	healthy() bool
	severity() severity
	problems() []MirrorProblem     // one at least of what is unhealthy
	appendText(text []byte) []byte // what can be searched for, in lower case
}

// found is what a filter finds.
type found struct {
	all       int            // of every state
	unhealthy int            // of every state
	states    map[string]int // likewise
}

// chosen is the result of a filter.
type chosen[R row] struct {
	found
	rows []R // in order, of all pages
}

func (f filter) choose(mirrors []Mirror) chosen[*Mirror] { return choose[*Mirror](f, mirrors) }

// choose applies a filter.
func choose[R interface {
	*T
	row
}, T any](f filter, all []T) chosen[R] {
	c := chosen[R]{found{states: map[string]int{}}, make([]R, 0, len(all))}
	var words [][]byte
	for word := range strings.FieldsSeq(strings.ToLower(f.Text)) {
		words = append(words, []byte(word))
	}
	var text []byte
	for i := range all {
		row := R(&all[i])
		if cluster, _ := row.origin(); f.Remote != "" && cluster != f.Remote {
			continue
		}
		if len(words) > 0 {
			text = row.appendText(text[:0])
			if slices.ContainsFunc(words, func(word []byte) bool { return !bytes.Contains(text, word) }) {
				continue
			}
		}
		if f.Reason != "" && !slices.ContainsFunc(row.problems(), func(p MirrorProblem) bool { return p.Reason == f.Reason }) {
			continue
		}
		c.found.all++
		c.states[row.state()]++
		healthy := row.healthy()
		if !healthy {
			c.unhealthy++
		}
		if f.State != "" && f.State != row.state() && (f.State != unhealthy || healthy) {
			continue
		}
		c.rows = append(c.rows, row)
	}
	sort(c.rows)
	return c
}

func (m *Mirror) key() (namespace, name string)    { return m.Namespace, m.Name }
func (m *Mirror) origin() (cluster, source string) { return m.Cluster, m.Source }
func (m *Mirror) state() string                    { return m.State }
func (m *Mirror) problems() []MirrorProblem        { return m.shownProblems() }

// appendLower appends texts in lower case, each on a line of its own.
func appendLower(text []byte, parts ...string) []byte {
	for _, part := range parts {
		text = append(append(text, strings.ToLower(part)...), '\n')
	}
	return text
}

// appendText appends what can be searched for.
func (m *Mirror) appendText(text []byte) []byte {
	// As users write it: a search for NAMESPACE/NAME finds one mirror.
	text = appendLower(text, m.Namespace+"/"+m.Name, m.Cluster, m.Source, m.State, m.Role, m.ClusterIP, cmp.Or(m.Verified, NotVerified))
	text = appendLower(text, m.Ports...)
	for _, one := range m.Mapping {
		text = appendLower(text, one.Line)
	}
	text = appendLower(text, m.Endpoints...)
	for _, p := range m.problems() {
		text = appendLower(text, p.Reason, p.Message)
	}
	return text
}

// sort puts the most urgent first, then sorts by name.
func sort[R row](rows []R) {
	var ranks [][]R
	for _, row := range rows {
		rank := rankOf(row)
		for len(ranks) <= rank {
			ranks = append(ranks, nil)
		}
		ranks[rank] = append(ranks[rank], row)
	}
	rows = rows[:0]
	for _, rank := range ranks {
		slices.SortFunc(rank, compare[R])
		rows = append(rows, rank...)
	}
}

// rankOf orders by severity, then by state.
func rankOf[R row](r R) int {
	rank := int(r.severity()) * (len(states) + 1)
	if at := slices.Index(states, r.state()); at >= 0 {
		return rank + at
	}
	return rank + len(states) // a state that is not known here
}

func compare[R row](a, b R) int {
	namespace, name := a.key()
	otherNamespace, otherName := b.key()
	if c := strings.Compare(namespace, otherNamespace); c != 0 {
		return c
	}
	if c := strings.Compare(name, otherName); c != 0 {
		return c
	}
	cluster, source := a.origin()
	otherCluster, otherSource := b.origin()
	return cmp.Or(strings.Compare(cluster, otherCluster), strings.Compare(source, otherSource))
}

// window is the part of the rows that a page shows; a page beyond the last one is
// the last one.
func window[R row](rows []R, page int) (shown []R, at, pages int) {
	pages = max(1, (len(rows)+rowsPerPage-1)/rowsPerPage)
	at = min(page, pages)
	first := (at - 1) * rowsPerPage
	return rows[first:min(first+rowsPerPage, len(rows))], at, pages
}
