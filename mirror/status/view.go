package status

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"

	"service-mirror.io/service-mirror/mirror/plan"
)

const (
	unfolded    = 3  // remotes that are shown open
	addressesAt = 8  // of a gateway that are shown at once
	refreshLink = 15 // seconds
)

// view is what the template shows of a Page.
type view struct {
	*Page
	Style          template.CSS
	Icon           template.URL
	Tone           string // of the headline
	Headline       string
	Notices        []string
	Standby        *standby // nil: this replica leads, or there is no election
	Words          words
	Total          int           // rows, whatever the filter
	Unhealthy      int           // likewise
	Exported       int           // Services that remotes export, as far as is known
	Existing       int           // mirrors that exist
	bySeverity     [fine + 1]int // rows
	perRemote      map[string]perRemote
	Problems       list[group]
	ProblemCount   int
	Remotes        []remoteView
	RemoteStates   string // how many are up
	Targets        []targetView
	Filter         filter
	Found          found
	Chips          []chip
	Failovers      list[*Failover]
	FailoverStates string     // how many are in which
	Names          []string   // of remotes, those of mirrors without a remote too
	Rows           []*Mirror  // of the daemon's page
	Services       []*Service // of a publisher's
	Pager          pager
	Empty          string // why there are no rows
	Hint           string // what to do about it
}

// chip is a link that narrows what is shown.
type chip struct {
	Label, Tone, Link string
	Count             int
	Current           bool
}

// perRemote counts the rows of one remote.
type perRemote struct{ rows, exist, unhealthy int }

type remoteView struct {
	*Remote
	Open      bool
	Tone      string
	Mirrors   int // that exist
	Unhealthy int // of its rows
	// Links to its mirrors.
	Link, UnhealthyLink string
	Gateways            []gatewayView
}

type gatewayView struct {
	*Gateway
	List list[Address]
}

// words are what a page calls its parts.
type words struct {
	ID, Title, One string   // of the rows
	Parts, Part    string   // of what is above them
	Cluster        string   // as the beginning of a sentence
	Done           string   // the state in which nothing has to be done
	States         []string // all of them, the most urgent first
	Texts          *texts   // of unhealthy rows
}

var (
	daemonWords    = words{"mirrors", "Mirrors", "mirror", "remotes", "remote", "The local cluster", Mirrored, states, &mirrorTexts}
	publisherWords = words{"services", "Exported Services", "exported Service", "targets", "target", "The cluster", Published, publisherStates, &serviceTexts}
)

func newView(page *Page, f filter) *view {
	v := &view{Page: page, Words: daemonWords, Style: template.CSS(styleCSS), Filter: f, Total: len(page.Mirrors)}
	v.countMirrors()
	v.addRemotes()
	v.addFailovers()
	v.addGroups(v.groupAll())
	v.summarize()
	v.Rows = addRows(v, f.choose(page.Mirrors))
	if len(v.Rows) == 0 {
		v.explain()
	}
	return v
}

// addRows adds all about the rows of the page, and returns those that it shows.
func addRows[R row](v *view, c chosen[R]) []R {
	v.Found = c.found
	v.addChips()
	shown, at, pages := window(c.rows, v.Filter.Page)
	v.Pager = newPager(v.Filter, at, pages, len(c.rows))
	return shown
}

// countMirrors counts what there is: a row is an exported Service with its mirror, if it has one, or an orphan; of a
// merged mirror there is a row for each remote.
func (v *view) countMirrors() {
	v.perRemote = map[string]perRemote{}
	existing := make(map[[2]string]bool, len(v.Page.Mirrors))
	for i := range v.Page.Mirrors {
		m := &v.Page.Mirrors[i]
		of := v.perRemote[m.Cluster]
		of.rows++
		if m.exists() {
			of.exist++
			existing[[2]string{m.Namespace, m.Name}] = true
		}
		severity := m.severity()
		if v.bySeverity[severity]++; severity != fine {
			of.unhealthy++
			v.Unhealthy++
		}
		v.perRemote[m.Cluster] = of
	}
	v.Existing = len(existing)
	for i := range v.Page.Remotes {
		v.Exported += v.Page.Remotes[i].Exported
	}
}

// addRemotes puts unhealthy remotes first, and folds all if there are many.
func (v *view) addRemotes() {
	byState := map[string]int{}
	names := map[string]bool{}
	for i := range v.Page.Remotes {
		r := &v.Page.Remotes[i]
		v.Remotes = append(v.Remotes, v.remote(r))
		byState[text(r.State)]++
		names[r.Name] = true
	}
	slices.SortStableFunc(v.Remotes, func(a, b remoteView) int { return cmp.Compare(order(!a.healthy()), order(!b.healthy())) })
	for name := range v.perRemote {
		names[name] = true
	}
	v.Names = slices.Sorted(maps.Keys(names))
	v.RemoteStates = countsText(byState)
}

// countsText is how many there are of each state, the most frequent first.
func countsText(byState map[string]int) string {
	var parts []string
	for _, state := range slices.SortedFunc(maps.Keys(byState), func(a, b string) int { return cmp.Or(cmp.Compare(byState[b], byState[a]), cmp.Compare(a, b)) }) {
		parts = append(parts, count(byState[state])+" "+state)
	}
	return strings.Join(parts[:min(len(parts), many)], ", ")
}

func (v *view) remote(r *Remote) remoteView {
	of := v.perRemote[r.Name]
	shown := remoteView{
		Remote: r, Tone: tone(r.State), Open: len(v.Page.Remotes) <= unfolded, Mirrors: of.exist, Unhealthy: of.unhealthy,
		Link: v.Filter.none().withRemote(r.Name).link(), UnhealthyLink: v.Filter.none().withRemote(r.Name).withState(unhealthy).link(),
	}
	if r.State == Up && !r.healthy() {
		shown.Tone = "warn"
	}
	for j := range r.Gateways {
		g := &r.Gateways[j]
		byHealth := slices.Clone(g.Addresses)
		slices.SortStableFunc(byHealth, func(a, b Address) int {
			return cmp.Compare(order(a.Health == NotReady), order(b.Health == NotReady))
		})
		shown.Gateways = append(shown.Gateways, gatewayView{g, newList(byHealth, addressesAt)})
	}
	return shown
}

// addFailovers shows the first few Services that fail over, those first that need attention.
func (v *view) addFailovers() {
	all := make([]*Failover, 0, len(v.Page.Failover))
	for i := range v.Page.Failover {
		all = append(all, &v.Page.Failover[i])
	}
	slices.SortStableFunc(all, func(a, b *Failover) int { return cmp.Compare(order(!a.healthy()), order(!b.healthy())) })
	v.Failovers = newList(all, many)
	byState := map[string]int{}
	for _, f := range all {
		byState[text(f.State)]++
	}
	v.FailoverStates = countsText(byState)
}

// failoverNotice says how many Services that fail over do not have local endpoints serve them as they should; alone: nothing
// else is unhealthy.
func (v *view) failoverNotice(alone bool) {
	away, attention, tone := 0, 0, "warn"
	for i := range v.Page.Failover {
		f := &v.Page.Failover[i]
		if f.Serving != "" {
			away++
		}
		if f.State == string(plan.FailoverUnavailable) {
			tone = "bad"
		}
		if !f.healthy() {
			attention++
		}
	}
	if away > 0 {
		v.Notices = append(v.Notices, noun(away, "Service")+" of the local cluster failed over to remotes.")
	}
	if attention > 0 && alone && v.Synced {
		v.say(tone, noun(attention, "Service")+" with failover: see why local endpoints alone do not serve")
	}
}

// FailoverTotal is how many Services fail over.
func (v *view) FailoverTotal() int { return len(v.Page.Failover) }

// By says who serves a Service that fails over.
func (f *Failover) By() string {
	switch plan.FailoverState(f.State) {
	case plan.FailoverBoth:
		return "local endpoints and " + f.Serving
	case plan.FailoverLocal, plan.FailoverRefused:
		return "local endpoints"
	case plan.FailoverRemoteOnly:
		return f.Serving
	case plan.FailoverUnknown:
		return "not known yet"
	}
	return "nobody"
}

// order sorts true before false.
func order(first bool) int {
	if first {
		return 0
	}
	return 1
}

// notice adds what else must be known.
func (v *view) notice() {
	if v.ElectionOn && !v.Leader {
		v.Standby = v.standby()
		if v.Tone == "ok" || v.Tone == "off" {
			v.say("off", "This replica is a standby, and knows of no problem")
		}
	}
	for _, problem := range v.Page.Problems {
		v.Notices = append(v.Notices, v.Words.Cluster+", "+text(problem.Part)+": "+message(problem.Cause)+".")
		if tone, headline := v.local(problem); tone == "bad" || v.Tone == "ok" || v.Tone == "off" { // else there is worse
			v.say(tone, headline)
		}
	}
	v.Icon = icons[v.Tone]
}

// local is the headline for a problem of a part of the local cluster, and its tone.
func (v *view) local(p Problem) (tone, headline string) {
	switch {
	case p.IsMisnamed():
		return "warn", "Secrets with invalid labels are not used"
	case p.Part == Listeners:
		return "warn", "The Gateway's listeners cannot be written"
	}
	return "bad", v.Words.Cluster + " is not read as it is"
}

// Verified says what the last verification of a mirror found; empty where there is nothing to verify.
func (v *view) Verified(m *Mirror) string {
	if m.State != Mirrored && m.State != Incomplete {
		return ""
	}
	return text(cmp.Or(m.Verified, NotVerified))
}

// addChips links to the rows of each state.
func (v *view) addChips() {
	known := append([]string{v.Words.Done}, v.Words.States[:len(v.Words.States)-1]...)
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(v.Found.states)), func(state string) bool { return slices.Contains(known, state) })
	v.Chips = []chip{
		{"All", "", v.Filter.withState("").link(), v.Found.all, v.Filter.State == ""},
		{"Unhealthy", "", v.Filter.withState(unhealthy).link(), v.Found.unhealthy, v.Filter.State == unhealthy},
	}
	for _, state := range append(known, others...) {
		v.Chips = append(v.Chips, chip{state, tone(state), v.Filter.withState(state).link(), v.Found.states[state], v.Filter.State == state})
	}
}

// explain sets why there are no rows.
func (v *view) explain() {
	switch {
	case len(v.Page.Mirrors) > 0:
		v.Empty = "No mirror matches this filter."
	case len(v.Page.Remotes) == 0:
		v.Empty = "There is nothing to mirror: no remote cluster is configured."
	case !slices.ContainsFunc(v.Page.Remotes, func(r Remote) bool { return !r.LastSync.IsZero() }):
		v.Empty = "No remote has been read yet, so there is nothing to mirror."
	default:
		v.Empty = "No remote exports a Service. Unless --export-selector is set, label a Service there:"
		v.Hint = "kubectl label service NAME service-mirror.io/exported=true"
	}
}

// States are the states to filter by.
func (v *view) States() []chip { return v.Chips[2:] }

// Ago is how long ago a time was.
func (v *view) Ago(t time.Time) moment { return newMoment(ago(t, v.Now), t) }

// For is how long something has lasted.
func (v *view) For(t time.Time) moment { return newMoment("for "+span(max(0, v.Now.Sub(t))), t) }

// At is a time and how long ago it was.
func (v *view) At(t time.Time) moment { return newMoment(clock(t, v.Now)+", "+ago(t, v.Now), t) }

// Unnamed reports whether the cluster has no name but the URL of its API server.
func (v *view) Unnamed() bool { return strings.Contains(v.Local, "://") }

// Clock is the time at which this was the state.
func (v *view) Clock() moment { return newMoment(v.Now.UTC().Format("15:04:05 UTC"), v.Now) }

// Title is the page's; browsers show its beginning in a tab.
func (v *view) Title() string {
	return fmt.Sprintf("%s: %s, service-mirror", text(v.Local), v.Headline)
}

// HasReasons reports whether any of the rows has a reason to show.
func (v *view) HasReasons() bool {
	return slices.ContainsFunc(v.Rows, func(m *Mirror) bool { return len(m.problems()) > 0 }) ||
		slices.ContainsFunc(v.Services, func(s *Service) bool { return len(s.Problems) > 0 })
}

// Parts is how many there are of what is above the rows.
func (v *view) Parts() int { return len(v.Remotes) + len(v.Targets) }

// Clear links to all rows.
func (v *view) Clear() string { return v.Filter.none().link() }

// Narrow reports whether the filter leaves out any rows.
func (v *view) Narrow() bool { return v.Filter.narrow() }

// UnhealthyLink links to all unhealthy rows.
func (v *view) UnhealthyLink() string { return v.Filter.none().withState(unhealthy).link() }

// JSON links to the same data for programs.
func (v *view) JSON() string {
	f := v.Filter
	f.Page, f.Refresh = 1, 0
	return "status.json" + strings.TrimPrefix(f.link(), "./")
}

// Toggle links to the same page, with automatic refresh or without.
func (v *view) Toggle() string {
	f := v.Filter
	if f.Refresh = refreshLink; v.Filter.Refresh > 0 {
		f.Refresh = 0
	}
	return f.link()
}

// icons has the page's icon for each tone: a dot that is visible among tabs.
var icons = func() map[string]template.URL {
	icons := map[string]template.URL{}
	for tone, colour := range map[string]string{"ok": "2f9e6b", "warn": "e0932b", "bad": "d5473c", "info": "3b7de0", "off": "8a93a1"} {
		icons[tone] = template.URL("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E" +
			"%3Ccircle cx='8' cy='8' r='7' fill='%23" + colour + "'/%3E%3C/svg%3E")
	}
	return icons
}()
