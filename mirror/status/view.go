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
	unfolded    = 6  // remotes that are shown open, healthy or not
	addressesAt = 8  // of a gateway that are shown at once
	reasonsAt   = 8  // that the page links to
	refreshLink = 15 // seconds
)

// view is what the template shows of a Page.
type view struct {
	*Page
	Style     template.CSS
	Icon      template.URL
	Tone      string // of the headline
	Headline  string
	Notices   []string
	Words     words
	Unhealthy int // rows, whatever the filter
	Total     int // likewise
	Remotes   []remoteView
	Targets   []targetView
	Filter    filter
	Found     found
	Chips     []chip
	Failovers list[*Failover]
	Names     []string   // of remotes, those of mirrors without a remote too
	Rows      []*Mirror  // of the daemon's page
	Services  []*Service // of a publisher's
	Reasons   []chip
	Pager     pager
	Empty     string // why there are no rows
	Hint      string // what to do about it
}

// chip is a link that narrows what is shown.
type chip struct {
	Label, Tone, Link string
	Count             int
	Current           bool
}

type remoteView struct {
	*Remote
	Open      bool
	Tone      string
	Mirrors   int
	Unhealthy int // of its mirrors
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
}

var (
	daemonWords    = words{"mirrors", "Mirrors", "mirror", "remotes", "remote", "The local cluster", Mirrored, states}
	publisherWords = words{"services", "Exported Services", "exported Service", "targets", "target", "The cluster", Published, publisherStates}
)

func newView(page *Page, f filter) *view {
	v := &view{Page: page, Words: daemonWords, Style: template.CSS(styleCSS), Filter: f, Total: len(page.Mirrors)}
	v.addRemotes()
	v.addFailovers()
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

// addRemotes puts unhealthy remotes first, and folds the others if there are many.
func (v *view) addRemotes() {
	mirrors, unhealthyMirrors := map[string]int{}, map[string]int{}
	for i := range v.Page.Mirrors {
		m := &v.Page.Mirrors[i]
		mirrors[m.Cluster]++
		if !m.healthy() {
			unhealthyMirrors[m.Cluster]++
		}
	}
	for i := range v.Page.Remotes {
		r := &v.Page.Remotes[i]
		shown := remoteView{
			Remote: r, Tone: tone(r.State), Open: !r.healthy() || len(v.Page.Remotes) <= unfolded,
			Mirrors: mirrors[r.Name], Unhealthy: unhealthyMirrors[r.Name],
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
		v.Remotes = append(v.Remotes, shown)
		mirrors[r.Name] = 0
	}
	slices.SortStableFunc(v.Remotes, func(a, b remoteView) int { return cmp.Compare(order(!a.healthy()), order(!b.healthy())) })
	for name := range mirrors {
		v.Names = append(v.Names, name)
	}
	for i := range v.Page.Remotes {
		if name := v.Page.Remotes[i].Name; !slices.Contains(v.Names, name) {
			v.Names = append(v.Names, name)
		}
	}
	slices.Sort(v.Names)
}

// addFailovers shows the first few Services that fail over, those first that need attention.
func (v *view) addFailovers() {
	all := make([]*Failover, 0, len(v.Page.Failover))
	for i := range v.Page.Failover {
		all = append(all, &v.Page.Failover[i])
	}
	slices.SortStableFunc(all, func(a, b *Failover) int { return cmp.Compare(order(!a.healthy()), order(!b.healthy())) })
	v.Failovers = newList(all, many)
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

// summarize sets the headline and the notices below it.
func (v *view) summarize() {
	var remotes int
	worst := "ok"
	for i := range v.Page.Remotes {
		if r := &v.Page.Remotes[i]; !r.healthy() {
			remotes++
			if tone(r.State) == "bad" {
				worst = "bad"
			}
		}
	}
	for i := range v.Page.Mirrors {
		if !v.Page.Mirrors[i].healthy() {
			v.Unhealthy++
		}
	}
	v.headline(remotes, worst)
	if v.Synced && len(v.Page.Remotes) == 0 && v.Unhealthy == 0 {
		v.say("off", "Nothing to do")
	} else if v.Synced && remotes+v.Unhealthy == 0 {
		v.say(v.Tone, "Everything is "+v.verification())
	}
	v.failoverNotice(remotes+v.Unhealthy == 0)
	v.notice()
}

func (v *view) say(tone, headline string) { v.Tone, v.Headline = tone, headline }

// headline says how many parts and rows are unhealthy. worst is the tone of the parts.
func (v *view) headline(unhealthy int, worst string) {
	var parts []string
	if unhealthy > 0 {
		parts = append(parts, noun(unhealthy, v.Words.Part))
	}
	if v.Unhealthy > 0 {
		parts = append(parts, noun(v.Unhealthy, v.Words.One))
	}
	if len(parts) > 0 && worst == "ok" {
		worst = "warn"
	}
	switch {
	case !v.Synced:
		v.say("info", "Not ready yet")
		v.Notices = append(v.Notices, v.Words.Cluster+" has not been read yet: nothing is written until it has been.")
	case len(parts) == 0:
		v.say(worst, "Everything is healthy")
	case unhealthy+v.Unhealthy == 1:
		v.say(worst, parts[0]+" is unhealthy")
	default:
		v.say(worst, strings.Join(parts, " and ")+" are unhealthy")
	}
}

// notice adds what else must be known.
func (v *view) notice() {
	if v.ElectionOn && !v.Leader {
		v.Notices = append(v.Notices, "This replica is a standby: it watches, and writes nothing while another one leads. The leader may know of more problems.")
	}
	for _, problem := range v.Page.Problems {
		v.Notices = append(v.Notices, v.Words.Cluster+", "+text(problem.Part)+": "+message(problem.Cause)+".")
		v.say("bad", v.Words.Cluster+" is not read as it is")
	}
	v.Icon = icons[v.Tone]
}

// verification says how much is known of whether requests arrive.
func (v *view) verification() string {
	known := 0
	for i := range v.Page.Mirrors {
		if result := v.Page.Mirrors[i].Verified; result == Reached || result == NotKnown { // of the others there is a problem
			known++
		}
	}
	switch {
	case known == len(v.Page.Mirrors):
		return "healthy"
	case known == 0:
		return "mirrored, " + NotVerified
	}
	return "mirrored, " + count(known) + " of " + count(len(v.Page.Mirrors)) + " verified"
}

// Verified says what the last verification of a mirror found; empty where there is nothing to verify.
func (v *view) Verified(m *Mirror) string {
	if m.State != Mirrored && m.State != Incomplete {
		return ""
	}
	return text(cmp.Or(m.Verified, NotVerified))
}

// addChips links to the mirrors of each state, and of the most frequent reasons.
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
	reasons := slices.SortedFunc(maps.Keys(v.Found.reasons), func(a, b string) int {
		return cmp.Or(cmp.Compare(v.Found.reasons[b], v.Found.reasons[a]), cmp.Compare(a, b))
	})
	for _, reason := range reasons[:min(len(reasons), reasonsAt)] {
		v.Reasons = append(v.Reasons, chip{Label: reason, Count: v.Found.reasons[reason], Link: v.Filter.withText(reason).link(), Current: v.Filter.Text == reason})
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

// Clock is the time at which this was the state.
func (v *view) Clock() moment { return newMoment(v.Now.UTC().Format("15:04:05 UTC"), v.Now) }

// Title is the page's; browsers show its beginning in a tab.
func (v *view) Title() string {
	return fmt.Sprintf("%s: %s, service-mirror", v.Headline, text(v.Local))
}

// HasReasons reports whether any of the rows has a reason to show.
func (v *view) HasReasons() bool {
	return slices.ContainsFunc(v.Rows, func(m *Mirror) bool { return len(m.Problems) > 0 }) ||
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
