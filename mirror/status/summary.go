package status

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Summary is a Page in short, for a terminal and for scripts.
type Summary struct {
	Source  Source    `json:"source"`
	Local   string    `json:"local"`
	Version string    `json:"version"`
	Now     time.Time `json:"now,omitzero"`
	Healthy bool      `json:"healthy"` // nothing has to be done, as far as is known
	// How many are not.
	UnhealthyRemotes int             `json:"unhealthyRemotes"`
	UnhealthyMirrors int             `json:"unhealthyMirrors"`
	Synced           bool            `json:"synced"`   // the local cluster was read
	Problems         []Problem       `json:"problems"` // of parts of the local cluster
	Unknown          int             `json:"unknown"`  // as in Page
	Remotes          []RemoteSummary `json:"remotes"`
	Causes           []Cause         `json:"causes"` // of mirrors that are not healthy, the worst first, then the most frequent
}

// Source is where a summary comes from.
type Source struct {
	From string `json:"from"`          // leader, url, clusters or local cluster
	Name string `json:"name"`          // of what was read
	Why  string `json:"why,omitempty"` // the leader was not
}

// Sources.
const (
	FromLeader   = "leader"
	FromURL      = "url"
	FromClusters = "clusters"      // worked out from the local cluster and the remotes
	FromLocal    = "local cluster" // worked out from that alone: nothing is known of remotes
)

// NotKnown states of remotes: of one that only its mirrors name.
const (
	stateNotKnown      = "not known"
	stateNotConfigured = "not configured"
)

// RemoteSummary is one remote cluster.
type RemoteSummary struct {
	Name     string         `json:"name"`
	State    string         `json:"state"` // as in Remote, or not known, or not configured
	Since    time.Time      `json:"since,omitzero"`
	Exported int            `json:"exported"` // Services; -1: not known
	Counts   map[string]int `json:"counts"`   // of its mirrors, by state
	Gateways []Gateway      `json:"gateways"`
	Problems []Problem      `json:"problems"`
}

// Cause is what is wrong with some mirrors.
type Cause struct {
	Reason   string   `json:"reason"`
	Remedy   string   `json:"remedy"`
	Remotes  []string `json:"remotes"`
	Mirrors  []string `json:"mirrors"`  // namespace/name, of all
	Messages int      `json:"messages"` // how many differ
	Message  string   `json:"message"`  // of the first mirror
	severity severity // of the worst mirror
}

// LocalOnly is what is known of mirrors where no remote is: whether they have endpoints.
func LocalOnly(page Page) Page {
	for i := range page.Mirrors {
		if m := &page.Mirrors[i]; m.State == Orphan {
			if m.State = Mirrored; len(m.Endpoints) == 0 {
				m.State = Incomplete
			}
		}
	}
	return page
}

// Summarize summarizes a page.
func Summarize(page *Page, source Source) Summary {
	s := Summary{Source: source, Local: page.Local, Version: page.Version, Now: page.Now, Synced: page.Synced, Problems: some(page.Problems), Unknown: page.Unknown,
		Remotes: []RemoteSummary{}, Causes: causesOf(page.Mirrors)}
	counts := map[string]map[string]int{}
	for i := range page.Mirrors {
		m := &page.Mirrors[i]
		if counts[m.Cluster] == nil {
			counts[m.Cluster] = countsOf[*Mirror](states, nil)
		}
		counts[m.Cluster][m.State]++
		if !m.healthy() {
			s.UnhealthyMirrors++
		}
	}
	for _, r := range withoutNull(page).Remotes {
		one := RemoteSummary{Name: r.Name, State: r.State, Since: r.Since, Exported: r.Exported, Counts: counts[r.Name], Gateways: r.Gateways, Problems: r.Problems}
		if r.State != Up && r.LastSync.IsZero() {
			one.Exported = -1
		}
		if one.Counts == nil {
			one.Counts = countsOf[*Mirror](states, nil)
		}
		delete(counts, r.Name)
		s.Remotes = append(s.Remotes, one)
		if !r.healthy() {
			s.UnhealthyRemotes++
		}
	}
	s.Healthy = page.Synced && len(page.Problems) == 0 && s.UnhealthyRemotes+s.UnhealthyMirrors == 0
	state := stateNotConfigured
	if source.From == FromLocal {
		state = stateNotKnown
	}
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		s.Remotes = append(s.Remotes, RemoteSummary{Name: name, State: state, Exported: -1, Counts: counts[name], Gateways: []Gateway{}, Problems: []Problem{}})
	}
	return s
}

// causesOf groups what is wrong with mirrors by reason.
func causesOf(mirrors []Mirror) []Cause {
	byReason, messages := map[string]*Cause{}, map[string]map[string]bool{}
	for i := range mirrors {
		m := &mirrors[i]
		problems := m.Problems
		if m.State == Mirrored {
			problems = m.shownProblems() // why it is not healthy, also if no sync found that
		}
		for _, problem := range problems {
			c := byReason[problem.Reason]
			if c == nil {
				c = &Cause{Reason: problem.Reason, Remedy: remedyOf(problem.Reason), Message: problem.Message, severity: fine}
				byReason[problem.Reason], messages[problem.Reason] = c, map[string]bool{}
			}
			c.severity = min(c.severity, m.severityOf(problem.Reason))
			if name := m.Namespace + "/" + m.Name; !slices.Contains(c.Mirrors[max(0, len(c.Mirrors)-1):], name) { // twice of one mirror is once
				c.Mirrors = append(c.Mirrors, name)
			}
			if !slices.Contains(c.Remotes, m.Cluster) {
				c.Remotes = append(c.Remotes, m.Cluster)
			}
			messages[problem.Reason][problem.Message] = true
		}
	}
	causes := []Cause{}
	for reason, c := range byReason {
		c.Messages = len(messages[reason])
		causes = append(causes, *c)
	}
	slices.SortFunc(causes, func(a, b Cause) int {
		return cmp.Or(cmp.Compare(a.severity, b.severity), cmp.Compare(len(b.Mirrors), len(a.Mirrors)), strings.Compare(a.Reason, b.Reason))
	})
	return causes
}

// WriteJSON prints it for programs.
func (s Summary) WriteJSON(out io.Writer) error {
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(s)
}

// WriteText prints it for people.
func (s Summary) WriteText(out io.Writer) error {
	fmt.Fprintf(out, "%s\n\n", message(s.origin()))
	s.table(out)
	s.writeProblems(out)
	for _, c := range s.Causes {
		fmt.Fprintf(out, "\n%s\n", text(c.title()))
		about := ""
		if c.Messages > 1 {
			about = fmt.Sprintf("%d messages, for example %s: ", c.Messages, c.Mirrors[0])
		}
		fmt.Fprintf(out, "  %s\n", message(about+c.Message))
		if c.Remedy != "" {
			fmt.Fprintf(out, "  Fix: %s.\n", c.Remedy)
		}
	}
	_, err := fmt.Fprintf(out, "\n%s\n", s.Verdict())
	return err
}

// origin says what the summary is of and where it comes from.
func (s Summary) origin() string {
	what := "Local cluster " + s.Local
	why := mark(": the leader's status cannot be read: ", s.Source.Why)
	switch s.Source.From {
	case FromLeader:
		return fmt.Sprintf("%s, service-mirror %s, from the leader, %s", what, s.Version, s.Source.Name)
	case FromURL:
		return fmt.Sprintf("%s, service-mirror %s, from %s", what, s.Version, s.Source.Name)
	case FromClusters:
		return what + ", computed from the clusters" + why
	}
	return what + ", computed from this cluster alone" + why
}

// table has a line for each remote, and one more for each further gateway.
func (s Summary) table(out io.Writer) {
	if len(s.Remotes) == 0 {
		fmt.Fprintln(out, "No remotes are configured, and there are no mirrors.")
		return
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "REMOTE\tSTATE\tEXPORTED\tMIRRORS\tGATEWAY")
	for _, r := range s.Remotes {
		state, exported := r.State, "?"
		if !r.Since.IsZero() {
			state += " for " + span(max(0, orNow(s.Now).Sub(r.Since)))
		}
		if r.Exported >= 0 {
			exported = count(r.Exported)
		}
		gateways := []string{"?"}
		if len(r.Gateways) > 0 {
			gateways = gateways[:0]
		}
		for _, g := range r.Gateways {
			gateways = append(gateways, text(g.line()))
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", text(r.Name), state, exported, r.mirrors(), gateways[0])
		for _, more := range gateways[1:] {
			fmt.Fprintf(w, "\t\t\t\t%s\n", more)
		}
	}
	w.Flush()
}

// mirrors are how many there are in each state, the one where nothing has to be done first.
func (r RemoteSummary) mirrors() string {
	var parts []string
	for _, state := range slices.Concat([]string{Mirrored}, states[:len(states)-1]) {
		if n := r.Counts[state]; n > 0 {
			parts = append(parts, count(n)+" "+state)
		}
	}
	return cmp.Or(strings.Join(parts, ", "), "none")
}

// line is a gateway with the health of its addresses.
func (g *Gateway) line() string {
	byHealth := map[string]int{}
	for _, a := range g.Addresses {
		byHealth[text(a.Health)]++
	}
	var parts []string
	for _, one := range slices.Sorted(maps.Keys(byHealth)) {
		parts = append(parts, fmt.Sprintf("%d %s", byHealth[one], one))
	}
	switch {
	case !g.Known:
		return g.Name + ": not known"
	case len(parts) == 0:
		return g.Name + ": no address"
	case len(parts) > 1:
		return fmt.Sprintf("%s: %d addresses: %s", g.Name, len(g.Addresses), strings.Join(parts, ", "))
	case len(g.Addresses) > 1:
		return fmt.Sprintf("%s: %d addresses %s", g.Name, len(g.Addresses), text(g.Addresses[0].Health))
	}
	return g.Name + ": 1 address " + text(g.Addresses[0].Health)
}

// writeProblems prints what is wrong with the clusters.
func (s Summary) writeProblems(out io.Writer) {
	if !s.Synced {
		fmt.Fprintln(out, "\nThe local cluster has not been read yet; nothing is written until then.")
	}
	for _, p := range s.Problems {
		fmt.Fprintf(out, "\nLocal cluster, %s: %s\n", text(p.Part), message(p.Cause))
	}
	for _, r := range s.Remotes {
		for _, p := range r.Problems {
			fmt.Fprintf(out, "\nRemote %s, %s: %s\n", text(r.Name), text(p.Part), message(p.Cause))
		}
		for _, g := range r.Gateways {
			if problem := g.unreported(r.Problems); problem != "" {
				fmt.Fprintf(out, "\nRemote %s, gateway %s: %s\n", text(r.Name), text(g.Name), message(problem))
			}
		}
	}
	if s.Unknown > 0 && s.Source.From != FromLocal {
		fmt.Fprintf(out, "\n%s with a mirror's labels belong to remotes that are not configured\n  Fix: configure the remote, or run service-mirror prune.\n", noun(s.Unknown, "object"))
	}
}

// title says how many mirrors a cause is about, and which.
func (c *Cause) title() string {
	names := strings.Join(c.Mirrors[:min(few, len(c.Mirrors))], ", ")
	if more := len(c.Mirrors) - few; more > 0 {
		names += fmt.Sprintf(" and %s more", count(more))
	}
	return fmt.Sprintf("%s: %s of %s: %s", c.Reason, noun(len(c.Mirrors), "mirror"), strings.Join(c.Remotes, ", "), names)
}

// Verdict is the last line.
func (s Summary) Verdict() string {
	total := 0
	for _, r := range s.Remotes {
		for _, n := range r.Counts {
			total += n
		}
	}
	if s.Healthy {
		return fmt.Sprintf("Healthy: %s of %s.", noun(total, "mirror"), noun(len(s.Remotes), "remote"))
	}
	return fmt.Sprintf("Unhealthy: %s of %s, %s of %s.", count(s.UnhealthyRemotes), noun(len(s.Remotes), "remote"), count(s.UnhealthyMirrors), noun(total, "mirror"))
}
