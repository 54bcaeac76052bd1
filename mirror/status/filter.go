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
	// rowsPerPage is what a browser shows at once and a person can look through.
	rowsPerPage = 100
	maxText     = 200 // bytes of the text to look for
	// unwell stands for all states but the one of a mirror that is well.
	unwell = "unwell"
)

// states of a mirror, those first about which something should be done soonest:
// traffic that fails before traffic that there never was.
var states = []string{Incomplete, Conflict, Refused, Waiting, Orphan, Mirrored}

// filter is what a query asks for.
type filter struct {
	State   string // empty: all; unwell
	Remote  string // empty: all
	Text    string // words that must all occur
	Page    int    // from 1
	Refresh int    // seconds; 0: not by itself
}

// parseFilter takes what it understands: a link that someone kept must lead to
// something.
func parseFilter(query url.Values) filter {
	f := filter{State: text(query.Get("state")), Remote: text(query.Get("remote")), Text: strings.TrimSpace(text(query.Get("q"))), Page: 1}
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

// link leads to the same page with this filter. It is relative, so that it holds
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

// Changes of a filter begin at the first page again.

func (f filter) withState(state string) filter   { f.State, f.Page = state, 1; return f }
func (f filter) withRemote(remote string) filter { f.Remote, f.Page = remote, 1; return f }
func (f filter) withText(text string) filter     { f.Text, f.Page = text, 1; return f }

// narrow tells whether it leaves any mirror out.
func (f filter) narrow() bool { return f.State != "" || f.Remote != "" || f.Text != "" }

// none is the filter that leaves out nothing.
func (f filter) none() filter { return filter{Page: 1, Refresh: f.Refresh} }

// chosen is what a filter finds.
type chosen struct {
	rows    []*Mirror      // in order, of all pages
	all     int            // of every state
	unwell  int            // of every state
	states  map[string]int // likewise
	reasons map[string]int // of the rows
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
		well := m.well()
		if !well {
			c.unwell++
		}
		if f.State != "" && f.State != m.State && (f.State != unwell || well) {
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

// appendText appends what can be looked for.
func (m *Mirror) appendText(text []byte) []byte {
	add := func(parts ...string) {
		for _, part := range parts {
			text = append(append(text, strings.ToLower(part)...), '\n')
		}
	}
	// As it is written, so that one of the two can be told from the other.
	add(m.Namespace+"/"+m.Name, m.Cluster, m.Source, m.State, m.ClusterIP)
	add(m.Ports...)
	add(m.Endpoints...)
	for _, p := range m.Problems {
		add(p.Reason, p.Message)
	}
	return text
}

// sort puts first what is not well, then goes by name.
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
	case m.well():
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

// window is the part of the rows that a page of them shows; a page that there is
// not is the last one.
func window(rows []*Mirror, page int) (shown []*Mirror, at, pages int) {
	pages = max(1, (len(rows)+rowsPerPage-1)/rowsPerPage)
	at = min(page, pages)
	first := (at - 1) * rowsPerPage
	return rows[first:min(first+rowsPerPage, len(rows))], at, pages
}
