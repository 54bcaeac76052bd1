package status

import (
	"cmp"
	"fmt"
	"html/template"
	"maps"
	"slices"
	"strings"
	"time"
)

const (
	unfolded    = 6  // remotes of which all is shown at once, however well they are
	addressesAt = 8  // of a gateway, likewise
	reasonsAt   = 8  // by which the page offers to filter
	refreshLink = 15 // seconds
)

// view is what the template shows of a Page.
type view struct {
	*Page
	Style   template.CSS
	Icon    template.URL
	Tone    string // of the whole
	Verdict string
	Notices []string
	Unwell  int // mirrors, whatever the filter
	Remotes []remoteView
	Filter  filter
	Found   chosen
	Chips   []chip
	Names   []string // of remotes, those of mirrors without a remote too
	Rows    []*Mirror
	Reasons []chip
	Pager   pager
	Empty   string // why there are no rows
	Hint    string // what to do about it
}

// chip is a link that narrows what is shown.
type chip struct {
	Label, Tone, Link string
	Count             int
	Current           bool
}

type remoteView struct {
	*Remote
	Open    bool
	Tone    string
	Mirrors int
	Unwell  int
	// Links to its mirrors.
	Link, UnwellLink string
	Gateways         []gatewayView
}

type gatewayView struct {
	*Gateway
	List list[Address]
}

func newView(page *Page, f filter) *view {
	v := &view{Page: page, Style: template.CSS(styleCSS), Filter: f}
	v.addRemotes()
	v.judge()
	v.Found = f.choose(page.Mirrors)
	v.addChips()
	shown, at, pages := window(v.Found.rows, f.Page)
	v.Rows = shown
	v.Pager = newPager(f, at, pages, len(v.Found.rows))
	if len(shown) == 0 {
		v.explain()
	}
	return v
}

// addRemotes shows those first that are not well, and folds the others where
// there are many.
func (v *view) addRemotes() {
	mirrors, unwellOnes := map[string]int{}, map[string]int{}
	for i := range v.Page.Mirrors {
		m := &v.Page.Mirrors[i]
		mirrors[m.Cluster]++
		if !m.well() {
			unwellOnes[m.Cluster]++
		}
	}
	for i := range v.Page.Remotes {
		r := &v.Page.Remotes[i]
		shown := remoteView{
			Remote: r, Tone: tone(r.State), Open: !r.well() || len(v.Page.Remotes) <= unfolded,
			Mirrors: mirrors[r.Name], Unwell: unwellOnes[r.Name],
			Link: v.Filter.none().withRemote(r.Name).link(), UnwellLink: v.Filter.none().withRemote(r.Name).withState(unwell).link(),
		}
		if r.State == Up && !r.well() {
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
	slices.SortStableFunc(v.Remotes, func(a, b remoteView) int { return cmp.Compare(order(!a.well()), order(!b.well())) })
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

// order sorts what is so before what is not.
func order(so bool) int {
	if so {
		return 0
	}
	return 1
}

// judge says in one sentence how all of it is.
func (v *view) judge() {
	var remotes, mirrors int
	worst := "ok"
	for i := range v.Page.Remotes {
		if r := &v.Page.Remotes[i]; !r.well() {
			remotes++
			if tone(r.State) == "bad" {
				worst = "bad"
			}
		}
	}
	for i := range v.Page.Mirrors {
		if !v.Page.Mirrors[i].well() {
			mirrors++
		}
	}
	v.Unwell = mirrors
	var parts []string
	if remotes > 0 {
		parts = append(parts, noun(remotes, "remote"))
	}
	if mirrors > 0 {
		parts = append(parts, noun(mirrors, "mirror"))
	}
	if len(parts) > 0 && worst == "ok" {
		worst = "warn"
	}
	v.Tone = worst
	switch {
	case !v.Synced:
		v.Tone, v.Verdict = "info", "Not ready yet"
		v.Notices = append(v.Notices, "What the local cluster holds is not known yet; nothing is written until it is.")
	case len(v.Page.Remotes) == 0 && mirrors == 0:
		v.Tone, v.Verdict = "off", "Nothing to do"
	case len(parts) == 0:
		v.Verdict = "All is well"
	case remotes+mirrors == 1:
		v.Verdict = parts[0] + " is not well"
	default:
		v.Verdict = strings.Join(parts, " and ") + " are not well"
	}
	if v.ElectionOn && !v.Leader {
		v.Notices = append(v.Notices, "This replica stands by: it watches, and writes nothing while another one leads. The leader may know more of what is not well.")
	}
	v.Icon = icons[v.Tone]
}

// addChips offers to narrow by state, and by reason what is not well.
func (v *view) addChips() {
	known := append([]string{Mirrored}, states[:len(states)-1]...)
	others := slices.DeleteFunc(slices.Sorted(maps.Keys(v.Found.states)), func(state string) bool { return slices.Contains(known, state) })
	v.Chips = []chip{
		{"All", "", v.Filter.withState("").link(), v.Found.all, v.Filter.State == ""},
		{"Not well", "", v.Filter.withState(unwell).link(), v.Found.unwell, v.Filter.State == unwell},
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

// explain says why there are no rows.
func (v *view) explain() {
	switch {
	case len(v.Page.Mirrors) > 0:
		v.Empty = "No mirror fits this filter."
	case len(v.Page.Remotes) == 0:
		v.Empty = "There is nothing to mirror: no remote cluster is configured."
	case !slices.ContainsFunc(v.Page.Remotes, func(r Remote) bool { return !r.LastSync.IsZero() }):
		v.Empty = "No remote has been read yet, so there is nothing to mirror."
	default:
		v.Empty = "No remote exports a Service. Where nothing else is configured, a label on it does:"
		v.Hint = "kubectl label service NAME service-mirror.io/exported=true"
	}
}

// States lists what can be filtered by.
func (v *view) States() []chip { return v.Chips[2:] }

// Ago is how long ago a time was.
func (v *view) Ago(t time.Time) moment { return newMoment(ago(t, v.Now), t) }

// For is how long something has lasted.
func (v *view) For(t time.Time) moment { return newMoment("for "+span(max(0, v.Now.Sub(t))), t) }

// Clock is the time at which all of this was true.
func (v *view) Clock() moment { return newMoment(v.Now.UTC().Format("15:04:05 UTC"), v.Now) }

// Title is the page's; browsers show its beginning in a tab.
func (v *view) Title() string { return fmt.Sprintf("%s: %s, service-mirror", v.Verdict, text(v.Local)) }

// Blemished tells whether any of the rows has a reason to show.
func (v *view) Blemished() bool {
	return slices.ContainsFunc(v.Rows, func(m *Mirror) bool { return len(m.Problems) > 0 })
}

// Clear leads to all mirrors.
func (v *view) Clear() string { return v.Filter.none().link() }

// Narrow tells whether there are mirrors that are left out.
func (v *view) Narrow() bool { return v.Filter.narrow() }

// UnwellLink leads to all mirrors that are not well.
func (v *view) UnwellLink() string { return v.Filter.none().withState(unwell).link() }

// JSON leads to the same for programs.
func (v *view) JSON() string {
	f := v.Filter
	f.Page, f.Refresh = 1, 0
	return "status.json" + strings.TrimPrefix(f.link(), "./")
}

// Toggle leads to the same page, refreshed by itself or not.
func (v *view) Toggle() string {
	f := v.Filter
	if f.Refresh = refreshLink; v.Filter.Refresh > 0 {
		f.Refresh = 0
	}
	return f.link()
}

// icons has the page's icon for each tone: a dot that can be seen among tabs.
var icons = func() map[string]template.URL {
	icons := map[string]template.URL{}
	for tone, colour := range map[string]string{"ok": "2f9e6b", "warn": "e0932b", "bad": "d5473c", "info": "3b7de0", "off": "8a93a1"} {
		icons[tone] = template.URL("data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E" +
			"%3Ccircle cx='8' cy='8' r='7' fill='%23" + colour + "'/%3E%3C/svg%3E")
	}
	return icons
}()
