package status

import (
	"fmt"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"service-mirror.io/service-mirror/mirror/plan"
)

func names(rows []*Mirror) (names []string) {
	for _, m := range rows {
		names = append(names, m.Name)
	}
	return names
}

func TestFilter(t *testing.T) {
	for _, test := range []struct {
		query string
		want  []string
	}{
		{"", []string{"db-paris", "cart-berlin", "bar-paris"}},
		{"state=&remote=&q=", []string{"db-paris", "cart-berlin", "bar-paris"}},
		{"state=mirrored", []string{"bar-paris"}},
		{"state=unhealthy", []string{"db-paris", "cart-berlin"}},
		{"state=unwell", []string{"db-paris", "cart-berlin"}}, // as links of version 0.1.0 have it
		{"state=nonsense", nil},
		{"remote=berlin", []string{"cart-berlin"}},
		{"remote=Berlin", nil},
		{"remote=paris&state=unhealthy", []string{"db-paris"}},
		{"q=PARIS", []string{"db-paris", "bar-paris"}},
		{"q=default/bar-paris", []string{"bar-paris"}},
		{"q=shop%2Fcart", []string{"cart-berlin"}},
		{"reason=PortNotServed", []string{"db-paris"}},
		{"reason=PortNotServed&remote=berlin", nil},
		{"reason=portnotserved", nil},
		{"q=10.96.0.11", []string{"db-paris"}},
		{"q=203.0.113.1:80", []string{"bar-paris"}},
		{"q=80/tcp", []string{"bar-paris"}},
		{"q=namespacemissing", []string{"cart-berlin"}},
		{"q=serves+5432", []string{"db-paris"}},
		{"q=5432+paris", []string{"db-paris"}},
		{"q=5432+berlin", nil},
		{"q=waiting", []string{"cart-berlin"}},
		{"q=++", []string{"db-paris", "cart-berlin", "bar-paris"}},
	} {
		query, err := url.ParseQuery(test.query)
		if err != nil {
			t.Fatal(err)
		}
		if got := names(parseFilter(query).choose(small().Mirrors).rows); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %q, want %q", test.query, got, test.want)
		}
	}
}

// TestCountsAreOfTheOtherFilters: a count by state is the number of rows behind its
// link.
func TestCountsAreOfTheOtherFilters(t *testing.T) {
	p := large()
	for _, base := range []filter{{}, {Remote: "paris"}, {Text: "team-7 service-1"}, {State: Conflict, Remote: "paris", Text: "missing"}} {
		found := base.choose(p.Mirrors)
		if n := len(base.withState("").choose(p.Mirrors).rows); n != found.all {
			t.Errorf("%+v: all %d, but %d rows", base, found.all, n)
		}
		if n := len(base.withState(unhealthy).choose(p.Mirrors).rows); n != found.unhealthy {
			t.Errorf("%+v: unhealthy %d, but %d rows", base, found.unhealthy, n)
		}
		for _, state := range states {
			if n := len(base.withState(state).choose(p.Mirrors).rows); n != found.states[state] {
				t.Errorf("%+v: %s %d, but %d rows", base, state, found.states[state], n)
			}
		}
	}
	if found := (filter{}).choose(p.Mirrors); found.all != 10_000 || found.unhealthy != 100 || found.states[Waiting] != 100 {
		t.Errorf("of all: %d, %d, %v", found.all, found.unhealthy, found.states)
	}
}

// TestStatesAreThoseOfPlan: the page orders the states by urgency, and has all of them.
func TestStatesAreThoseOfPlan(t *testing.T) {
	var want []string
	for _, state := range plan.States {
		want = append(want, string(state))
	}
	if got := slices.Sorted(slices.Values(states)); !slices.Equal(got, slices.Sorted(slices.Values(want))) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOrder(t *testing.T) {
	blemish := []MirrorProblem{{"ClusterIPLost", ""}}
	want := []Mirror{
		{Namespace: "z", Name: "z", State: Incomplete},
		{Namespace: "y", Name: "y", State: Conflict},
		{Namespace: "x", Name: "x", State: Refused},
		{Namespace: "w", Name: "w", State: Waiting},
		{Namespace: "t", Name: "t", State: "of a later version"},
		{Namespace: "p", Name: "p", State: Incomplete, Endpoints: []string{"192.0.2.1:80"}},
		{Namespace: "v", Name: "v", State: Orphan},
		{Namespace: "u", Name: "u", State: Mirrored, Problems: blemish},
		{Namespace: "a", Name: "a", Cluster: "a", State: Mirrored},
		{Namespace: "a", Name: "a", Cluster: "b", State: Mirrored},
		{Namespace: "a", Name: "b", Cluster: "a", State: Mirrored},
		{Namespace: "b", Name: "a", Cluster: "a", State: Mirrored},
	}
	mirrors := slices.Clone(want)
	slices.Reverse(mirrors)
	var got []string
	for _, m := range (filter{}).choose(mirrors).rows {
		got = append(got, m.Namespace+m.Name+m.Cluster)
	}
	var wanted []string
	for _, m := range want {
		wanted = append(wanted, m.Namespace+m.Name+m.Cluster)
	}
	if !slices.Equal(got, wanted) {
		t.Errorf("got %q, want %q", got, wanted)
	}
	// A state that is not known here is shown, counted, and can be selected.
	p := small()
	p.Mirrors = mirrors
	for _, path := range []string{"/", "/?state=of+a+later+version"} {
		if text := read(t, p, path); !strings.Contains(text, "of a later version 1") {
			t.Errorf("%s: %s", path, text)
		}
	}
}

func TestPages(t *testing.T) {
	p := large()
	p.Mirrors = p.Mirrors[:2050]
	seen := map[string]int{}
	for page := range 21 {
		body := get(t, p, fmt.Sprintf("/?page=%d", page+1)).Body.String()
		rows := regexp.MustCompile(`<span class="title">([^<]*)`).FindAllStringSubmatch(body, -1)
		if want := min(rowsPerPage, 2050-page*rowsPerPage); len(rows) != want {
			t.Fatalf("page %d has %d rows, want %d", page+1, len(rows), want)
		}
		for _, row := range rows {
			seen[row[1]]++
		}
	}
	if len(seen) != 2050 {
		t.Errorf("all pages have %d mirrors", len(seen))
	}
	p = large()
	for query, want := range map[string]string{
		"":                                 "1–100 of 10,000, the worst first",
		"page=1":                           "1–100 of 10,000, the worst first",
		"page=0":                           "1–100 of 10,000, the worst first",
		"page=-3":                          "1–100 of 10,000, the worst first",
		"page=x":                           "1–100 of 10,000, the worst first",
		"page=100":                         "9,901–10,000 of 10,000, the worst first",
		"page=101":                         "9,901–10,000 of 10,000, the worst first",
		"page=9" + strings.Repeat("0", 17): "9,901–10,000 of 10,000, the worst first",
		"page=9" + strings.Repeat("0", 30): "1–100 of 10,000, the worst first",
		"state=mirrored&page=99":           "9,801–9,900 of 9,900 that match, of 10,000",
		"state=waiting&page=7":             "1–100 of 100 that match, of 10,000",
	} {
		if text := read(t, p, "/?"+query); !strings.Contains(text, want) {
			t.Errorf("%s: the page lacks %q", query, want)
		}
	}
}

func TestPager(t *testing.T) {
	for _, test := range []struct {
		at, pages int
		want      string
	}{
		{1, 1, ""},
		{1, 2, "[1] 2 next=2"},
		{2, 2, "prev=1 1 [2]"},
		{1, 3, "[1] 2 3 next=2"},
		{1, 9, "[1] 2 … 9 next=2"},
		{3, 9, "prev=2 1 2 [3] 4 … 9 next=4"},
		{4, 9, "prev=3 1 2 3 [4] 5 … 9 next=5"},
		{5, 9, "prev=4 1 … 4 [5] 6 … 9 next=6"},
		{7, 9, "prev=6 1 … 6 [7] 8 9 next=8"},
		{9, 9, "prev=8 1 … 8 [9]"},
	} {
		f := filter{State: Waiting, Text: "a b", Page: test.at}
		p := newPager(f, test.at, test.pages, test.pages*rowsPerPage)
		page := func(link string) string {
			u, err := url.Parse(link)
			if err != nil || u.Query().Get("state") != Waiting || u.Query().Get("q") != "a b" {
				t.Errorf("the link %s loses the filter", link)
			}
			if n := u.Query().Get("page"); n != "" {
				return n
			}
			return "1"
		}
		var got []string
		if p.Prev != "" {
			got = append(got, "prev="+page(p.Prev))
		}
		for _, link := range p.Links {
			text := fmt.Sprint(link.Number)
			switch {
			case link.Number == 0:
				text = "…"
			case page(link.Link) != text:
				t.Errorf("%d of %d: %d links to %s", test.at, test.pages, link.Number, link.Link)
			case link.Current:
				text = "[" + text + "]"
			}
			got = append(got, text)
		}
		if p.Next != "" {
			got = append(got, "next="+page(p.Next))
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%d of %d: got %q, want %q", test.at, test.pages, got, test.want)
		}
	}
}

// TestLinksKeepTheFilter: what a link of the page selects is what it was made of.
func TestLinksKeepTheFilter(t *testing.T) {
	f := filter{State: Waiting, Remote: "a&b", Reason: "c=d", Text: "100% of #1 +", Page: 3, Refresh: 15}
	for link, want := range map[string]filter{
		f.link():                      f,
		f.withState(unhealthy).link(): {State: unhealthy, Remote: f.Remote, Reason: f.Reason, Text: f.Text, Page: 1, Refresh: 15},
		f.withRemote("paris").link():  {State: Waiting, Remote: "paris", Reason: f.Reason, Text: f.Text, Page: 1, Refresh: 15},
		f.withText("x").link():        {State: Waiting, Remote: f.Remote, Reason: f.Reason, Text: "x", Page: 1, Refresh: 15},
		f.withReason("x").link():      {State: Waiting, Remote: f.Remote, Reason: "x", Text: f.Text, Page: 1, Refresh: 15},
		f.none().link():               {Page: 1, Refresh: 15},
		filter{Page: 1}.link():        {Page: 1},
	} {
		u, err := url.Parse(link)
		if err != nil || u.Path != "./" || u.Fragment != "" {
			t.Errorf("%s: %v", link, err)
			continue
		}
		if got := parseFilter(u.Query()); got != want {
			t.Errorf("%s: got %+v, want %+v", link, got, want)
		}
	}
}

func FuzzQuery(f *testing.F) {
	f.Add("state=waiting&remote=paris&q=a+b&page=2&refresh=15")
	f.Add("q=%ff%fe&page=1e9&refresh=-1")
	f.Add("q=" + strings.Repeat("é", 150))
	p := small()
	f.Fuzz(func(t *testing.T, text string) {
		query, _ := url.ParseQuery(text) // the valid part of it, as in net/http
		got := parseFilter(query)
		if got.Page < 1 || got.Refresh != 0 && (got.Refresh < 5 || got.Refresh > 3600) || len(got.Text) > maxText {
			t.Errorf("%+v", got)
		}
		if utf8.ValidString(query.Get("q")) && !utf8.ValidString(got.Text) {
			t.Errorf("a character of %q was cut", got.Text)
		}
		body := get(t, p, "/?"+url.Values{"q": query["q"], "state": query["state"], "remote": query["remote"], "reason": query["reason"], "page": query["page"]}.Encode()).Body.String()
		if !strings.HasSuffix(body, "</html>\n") || strings.Contains(body, "ZgotmplZ") {
			t.Errorf("the page ends with %q", body[max(0, len(body)-80):])
		}
	})
}
