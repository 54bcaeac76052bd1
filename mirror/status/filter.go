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

// filter is what a query selects.
type filter struct {
	State   string // empty: all; unhealthy
	Remote  string // empty: all
	Text    string // words that must all occur
	Page    int    // from 1
	Refresh int    // seconds; 0: no automatic refresh
}

// parseFilter ignores what it does not understand: an old link must still work.
func parseFilter(query url.Values) filter {
	f := filter{State: text(query.Get("state")), Remote: text(query.Get("remote")), Text: strings.TrimSpace(text(query.Get("q"))), Page: 1}
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
	for key, value := range map[string]string{"state": f.State, "remote": f.Remote, "q": f.Text} {
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
func (f filter) withText(text string) filter     { f.Text, f.Page = text, 1; return f }

// narrow reports whether it leaves out any mirror.
func (f filter) narrow() bool { return f.State != "" || f.Remote != "" || f.Text != "" }

// none is the filter that leaves out no mirror.
func (f filter) none() filter { return filter{Page: 1, Refresh: f.Refresh} }

// chosen is the result of a filter.
type chosen struct {
	rows      []*Mirror      // in order, of all pages
	all       int            // of every state
	unhealthy int            // of every state
	states    map[string]int // likewise
	reasons   map[string]int // of the rows
}

func (f filter) choose(mirrors []Mirror) chosen {
	c := chosen{states: map[string]int{}, reasons: map[string]int{}, rows: make([]*Mirror, 0, len(mirrors))}
	var words [][]byte
	for word := range strings.FieldsSeq(strings.ToLower(f.Text)) {
		words = append(words, []byte(word))
	}
	var text []byte
	for i := range mirrors {
		m := &mirrors[i]
		if f.Remote != "" && m.Cluster != f.Remote {
			continue
		}
		if len(words) > 0 {
			text = m.appendText(text[:0])
			if slices.ContainsFunc(words, func(word []byte) bool { return !bytes.Contains(text, word) }) {
				continue
			}
		}
		c.all++
		c.states[m.State]++
		healthy := m.healthy()
		if !healthy {
			c.unhealthy++
		}
		if f.State != "" && f.State != m.State && (f.State != unhealthy || healthy) {
			continue
		}
		c.rows = append(c.rows, m)
		for _, p := range m.Problems {
			c.reasons[p.Reason]++
		}
	}
	sort(c.rows)
	return c
}

// appendText appends what can be searched for.
func (m *Mirror) appendText(text []byte) []byte {
	add := func(parts ...string) {
		for _, part := range parts {
			text = append(append(text, strings.ToLower(part)...), '\n')
		}
	}
	// As users write it: a search for NAMESPACE/NAME finds one mirror.
	add(m.Namespace+"/"+m.Name, m.Cluster, m.Source, m.State, m.ClusterIP, cmp.Or(m.Verified, NotVerified))
	add(m.Ports...)
	for _, one := range m.Mapping {
		add(one.Line)
	}
	add(m.Endpoints...)
	for _, p := range m.Problems {
		add(p.Reason, p.Message)
	}
	return text
}

// sort puts the most urgent first, then sorts by name.
func sort(rows []*Mirror) {
	var ranks [][]*Mirror
	for _, m := range rows {
		rank := m.rank()
		for len(ranks) <= rank {
			ranks = append(ranks, nil)
		}
		ranks[rank] = append(ranks[rank], m)
	}
	rows = rows[:0]
	for _, rank := range ranks {
		slices.SortFunc(rank, compare)
		rows = append(rows, rank...)
	}
}

func (m *Mirror) rank() int {
	switch {
	case m.healthy():
		return len(states) + 1
	case m.State == Mirrored:
		return len(states)
	}
	if at := slices.Index(states, m.State); at >= 0 {
		return at
	}
	return len(states) // a state that is not known here
}

func compare(a, b *Mirror) int {
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(a.Cluster, b.Cluster), strings.Compare(a.Source, b.Source))
}

// window is the part of the rows that a page shows; a page beyond the last one is
// the last one.
func window(rows []*Mirror, page int) (shown []*Mirror, at, pages int) {
	pages = max(1, (len(rows)+rowsPerPage-1)/rowsPerPage)
	at = min(page, pages)
	first := (at - 1) * rowsPerPage
	return rows[first:min(first+rowsPerPage, len(rows))], at, pages
}
