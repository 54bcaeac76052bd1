package status

import (
	"fmt"
	"html"
	"net/url"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

var tags = regexp.MustCompile(`(?s)<style>.*</style>|<option.*?</option>|<[^>]*>`)

// read is the visible text of a page.
func read(t testing.TB, p Page, path string) string {
	t.Helper()
	return plain(get(t, p, path).Body.String())
}

func plain(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(tags.ReplaceAllString(page, " "))), " ")
}

func TestWhatIsSaid(t *testing.T) {
	healthy := small()
	healthy.Remotes = healthy.Remotes[:1]
	healthy.Mirrors = healthy.Mirrors[:1]
	standby := small()
	standby.Leader, standby.LeaderPod = false, "system/sm-1"
	idler := healthy
	idler.Leader = false
	unverified := healthy
	unverified.Mirrors = slices.Clone(healthy.Mirrors)
	unverified.Mirrors[0].Verified, unverified.Mirrors[0].VerifiedAt = NotVerified, time.Time{}
	half := healthy
	half.Mirrors = slices.Concat(healthy.Mirrors, unverified.Mirrors)
	unprobed := unverified
	unprobed.Remotes = slices.Clone(unprobed.Remotes)
	unprobed.Remotes[0].Gateways = []Gateway{{Name: "ingress/gateway", Known: true, Addresses: []Address{{IP: "203.0.113.1", Health: NotProbed}}}}
	alone := healthy
	alone.ElectionOn = false
	misnamed := healthy
	misnamed.Problems = []Problem{{Misnamed + " in namespace sm", "Secret paris: Paris_1 is not a DNS label"}}
	misnamedAndDown := small()
	misnamedAndDown.Problems = misnamed.Problems
	misnamedAndUnread := misnamed
	misnamedAndUnread.Problems = append(slices.Clone(misnamed.Problems), Problem{"services", "forbidden"})
	misnamedOnStandby := misnamed
	misnamedOnStandby.Leader = false
	unsynced := Page{Local: "london", Now: noon}
	orphaned := Page{Local: "london", Now: noon, Synced: true, Mirrors: []Mirror{{Namespace: "default", Name: "bar-oslo", Cluster: "oslo", State: Orphan}}}
	unread := Page{Local: "london", Now: noon, Synced: true, Remotes: []Remote{{Name: "paris", State: Connecting}}}
	idle := Page{Local: "london", Now: noon, Synced: true, Remotes: []Remote{{Name: "paris", State: Up, LastSync: noon, Gateways: []Gateway{{Name: "ingress/gateway", Known: true}}}}}
	for name, test := range map[string]struct {
		page     Page
		path     string
		want     []string
		unwanted []string
	}{
		"all": {page: small(), want: []string{
			"service-mirror london leader v1.2.3 started 3 h ago as of 12:00:00 UTC refresh every 15 s JSON",
			"london: 1 remote is unreachable, 1 mirror has no endpoints, and more, service-mirror", "and more 2 remotes 2 exported Services 2 mirrors show the 2 unhealthy",
			// Unhealthy ones come first.
			"Remotes 1 down, 1 up berlin down for 10 s Exported 0 Services Mirrors 0 Unhealthy 1 Last full sync 2026-03-01 12:00 UTC, 3 days ago Last event none yet " +
				"Gateway ingress/old Not known at the moment: its mirrors keep their endpoints. " +
				"paris up for 2 h Exported 2 Services Mirrors 2 Unhealthy 1 Last full sync 10:30:00 UTC, 1 h ago Last event 3 min ago " +
				"Gateway ingress/gateway 203.0.113.1 ready 2001:db8::1 not probed yet UID uid-of-paris",
			"All 3 Unhealthy 2 mirrored 1 incomplete 1 conflict 0 refused 0 waiting 1 orphan 0",
			"Problems PortNotServed 1 mirror of paris set the port's appProtocol",
			"Remote berlin lost contact 10 s ago check that its API server runs and can be reached from this cluster; contact is retried connection refused services there is no such Service gateway ingress/old",
			"NamespaceMissing 1 exported Service of berlin create the namespace in the local cluster, or set --create-namespaces the namespace shop does not exist shop/cart-berlin Show it in the table",
			"Filter 1–3 of 3, the worst first",
			"incomplete not verified db-paris default 10.96.0.11 paris default/db none none PortNotServed nothing serves 5432 " +
				"waiting cart-berlin shop berlin shop/cart none none NamespaceMissing the namespace shop does not exist " +
				"mirrored reached 2 min ago bar-paris default 10.96.0.10 paris default/bar 80 -> 8080 (same class (http)) 203.0.113.1:80",
		}, unwanted: []string{"standby", "Not ready yet", "Show all", "Next"}},
		"healthy":                         {page: healthy, want: []string{"Everything is healthy 1 remote 2 exported Services 1 mirror", "gateway port Endpoints mirrored reached 2 min ago bar-paris"}, unwanted: []string{"unhealthy 1", "Reason", "Problems"}},
		"unverified":                      {page: unverified, want: []string{"Everything is mirrored, not verified 1 remote 2 exported Services 1 mirror", "Endpoints mirrored not verified bar-paris"}, unwanted: []string{"healthy 1"}},
		"half":                            {page: half, want: []string{"Everything is mirrored, 1 of 2 verified"}},
		"not probed":                      {page: unprobed, want: []string{"203.0.113.1 not probed"}, unwanted: []string{"ready"}},
		"standby":                         {page: standby, want: []string{"london standby", "This replica is a standby: it writes nothing, and only the leader knows the problems of mirrors. Pod sm-1 leads; open its page: kubectl -n system port-forward pod/sm-1 8080"}, unwanted: []string{"leader v1"}},
		"a standby that knows of nothing": {page: idler, want: []string{"This replica is a standby, and knows of no problem", "No leader is known."}, unwanted: []string{"healthy 1", "kubectl"}},
		"a misnamed Secret": {page: misnamed, want: []string{"london: Secrets with invalid labels are not used", "The local cluster, labels of Secrets in namespace sm: Secret paris: Paris_1 is not a DNS label."},
			unwanted: []string{"not read as", "Everything"}},
		"a misnamed Secret, and worse":            {page: misnamedAndDown, want: []string{"london: 1 remote is unreachable,", "The local cluster, labels of Secrets"}, unwanted: []string{"not read as"}},
		"a misnamed Secret, and what is not read": {page: misnamedAndUnread, want: []string{"london: The local cluster is not read as it is", "The local cluster, services: forbidden."}},
		"a misnamed Secret on a standby":          {page: misnamedOnStandby, want: []string{"london: Secrets with invalid labels are not used"}, unwanted: []string{"knows of no problem"}},
		"no election":                             {page: alone, unwanted: []string{"standby", "leader"}},
		"nothing":                                 {page: Page{Local: "london", Now: noon, Synced: true}, want: []string{"Nothing to do Remotes No remote cluster is configured. Configure each one with --remote NAME=KUBECONFIG . Mirrors There is nothing to mirror: no remote cluster is configured."}},
		"unsynced":                                {page: unsynced, want: []string{"Not ready yet The local cluster has not been read yet"}, unwanted: []string{"started"}},
		"orphans":                                 {page: orphaned, want: []string{"1 mirror is an orphan", "No remote cluster is configured.", "orphan bar-oslo default oslo none none Orphan no configured remote exports its Service"}},
		"unread":                                  {page: unread, want: []string{"1 remote is unhealthy", "No gateway is known.", "No remote has been read yet"}, unwanted: []string{"connecting for"}},
		"idle": {page: idle, want: []string{"No address: its mirrors have no endpoints.",
			"No remote exports a Service. Unless --export-selector is set, label a Service there: kubectl label service NAME service-mirror.io/exported=true"}},
		"no match": {page: small(), path: "?q=nowhere", want: []string{"Show all No mirror matches this filter.", "All 0 Unhealthy 0"}, unwanted: []string{"bar-paris"}},
		"a filter": {page: small(), path: "?remote=paris&state=unhealthy", want: []string{"All 2 Unhealthy 1", "Show all", "1–1 of 1 that match, of 3 State"},
			unwanted: []string{"bar-paris", "cart-berlin shop"}},
		"a refreshed one": {page: small(), path: "?refresh=60", want: []string{"refreshed every 60 s: stop"}},
	} {
		t.Run(name, func(t *testing.T) {
			text := read(t, test.page, "/"+test.path)
			for _, want := range test.want {
				if !strings.Contains(text, want) {
					t.Errorf("the page lacks %q", want)
				}
			}
			for _, unwanted := range test.unwanted {
				if strings.Contains(text, unwanted) {
					t.Errorf("the page has %q", unwanted)
				}
			}
			if t.Failed() {
				t.Log(text)
			}
		})
	}
}

func TestTimesAreAbsoluteToo(t *testing.T) {
	for _, want := range []string{
		`last event`,
		`<time datetime="2026-03-04T11:57:00Z" title="2026-03-04 11:57:00 UTC">3 min ago</time>`,
		`<time datetime="2026-03-04T10:00:00Z" title="2026-03-04 10:00:00 UTC">for 2 h</time>`,
		`<time datetime="2026-03-04T12:00:00Z" title="2026-03-04 12:00:00 UTC">12:00:00 UTC</time>`,
	} {
		if !strings.Contains(strings.ToLower(get(t, small(), "/").Body.String()), strings.ToLower(want)) {
			t.Errorf("the page lacks %s", want)
		}
	}
	if text := read(t, Page{}, "/"); strings.Contains(text, "0001") || strings.Contains(text, "00:00:00 UTC started") {
		t.Errorf("a time that never was: %s", text)
	}
}

// fill sets every string of a value to a text, and puts one item into each list.
func fill(v reflect.Value, text string) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fill(v.Index(0), text)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(noon))
			return
		}
		for i := range v.NumField() {
			fill(v.Field(i), text)
		}
	}
}

// hostileTexts are some that a remote could send, and unwantedTexts what no page may have of them.
var (
	hostileTexts = []string{
		`"><script>alert(1)</script>`, `'><img src=x onerror=alert(1)>`, `</style><style>*{display:none}</style>`, `javascript:alert(1)`,
		"--><!--", "{{.}}", "a\u202eb\u2066c\u200fd", "a\x00b\x1bc", "\xff\xfe", `</option></select><base href=//evil>`,
	}
	unwantedTexts = []string{"<script", "<img", "<base", "</style><style>*", "</option></select><base", "<!--", `href="javascript`, "\u202e", "\u2066", "\u200f", "\x00", "\x1b", "ZgotmplZ"}
)

// TestHostileTexts puts one into every field, and into the query.
func TestHostileTexts(t *testing.T) {
	for _, hostile := range hostileTexts {
		var p Page
		fill(reflect.ValueOf(&p).Elem(), hostile)
		query := url.Values{"q": {hostile}, "state": {hostile}, "remote": {hostile}, "page": {hostile}, "refresh": {hostile}}
		for _, path := range []string{"/", "/?" + query.Encode(), "/?" + url.Values{"q": {hostile}}.Encode()} {
			w := get(t, p, path)
			body := w.Body.String()
			for _, unwanted := range unwantedTexts {
				if strings.Contains(body, unwanted) {
					t.Errorf("%q as %s: the page has %q: %.300s", hostile, path, unwanted, body[strings.Index(body, unwanted)-100:])
				}
			}
			if !utf8.ValidString(body) {
				t.Errorf("%q as %s: the page is not UTF-8", hostile, path)
			}
			if found := strings.Contains(body, "<tbody"); !found && (path == "/" || text(hostile) == hostile) {
				t.Errorf("%q as %s: it is not found", hostile, path)
			}
		}
	}
}

// TestLengthsAreLimited: a remote chooses the length of some texts and lists, not that
// of the page.
func TestLengthsAreLimited(t *testing.T) {
	p := small()
	m := &p.Mirrors[0]
	for i := range 5000 {
		m.Mapping = append(m.Mapping, Mapping{Port: int32(i), GatewayPort: 80, Line: "same class (http)"})
		p.Remotes[0].Gateways[0].Addresses = append(p.Remotes[0].Gateways[0].Addresses, Address{fmt.Sprintf("192.0.2.%d", i), Ready})
	}
	m.Problems = []MirrorProblem{{"WriteFailed", strings.Repeat("é", 1_000_000)}}
	w := get(t, p, "/")
	if size := w.Body.Len(); size > 100_000 {
		t.Errorf("the page has %d bytes", size)
	}
	text := read(t, p, "/")
	for _, want := range []string{"4,998 more", "4,937 more in status.json", "4,994 more", "4,938 more in status.json", "é … é"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %.40q", want)
		}
	}
	m.Name, m.State = strings.Repeat("n", 5000), strings.Repeat("s", 5000)
	if size := get(t, p, "/").Body.Len(); size > 110_000 {
		t.Errorf("the page has %d bytes", size)
	}
}

// TestMessagesAreWhole: the fix is at the end of a message.
func TestMessagesAreWhole(t *testing.T) {
	const fix = "set gateway-port to one of these"
	message := strings.Repeat("port db (5432/TCP): no TCP port of the gateway fits: it has http (80/TCP)\n", 20) + fix
	p := small()
	p.Mirrors[0].Problems = []MirrorProblem{{"PortNotServed", message}, {"WriteFailed", "the second one"}}
	p.Remotes[0].Problems = []Problem{{"services", message}}
	p.Remotes[0].Gateways[0].Problem = "gone: " + message
	text := read(t, p, "/")
	whole := strings.ReplaceAll(message, "\n", "; ")
	for _, want := range []string{"PortNotServed " + whole + " WriteFailed the second one", whole + " services", "gone: " + whole + " gateway ingress/gateway"} {
		if !strings.Contains(text, want) {
			t.Errorf("the page lacks %q", want)
		}
	}
	p.Mirrors[0].Problems[0].Message = strings.Repeat(message, 10)
	if text := read(t, p, "/"); !strings.Contains(text, fix+" WriteFailed") {
		t.Error("the end of a long message is lost")
	}
}

// fails has a remote's gateway fail as the daemon reports it: with the gateway, and among the problems of the remote.
func fails(r *Remote, problem string) {
	g := &r.Gateways[0]
	g.Problem = problem
	r.Problems = append(r.Problems, Problem{"gateway " + g.Name, problem})
}

// unready has addresses of a remote's gateway answer no probe, likewise.
func unready(r *Remote, addresses ...int) {
	var problems []string
	for _, i := range addresses {
		a := &r.Gateways[0].Addresses[i]
		a.Health = NotReady
		problems = append(problems, "address "+a.IP+" does not answer on port 80: probe timed out")
	}
	fails(r, strings.Join(problems, "; "))
}

func TestUnhealthyRemotes(t *testing.T) {
	const unhealthy = "1 remote is unhealthy"
	for name, test := range map[string]struct {
		change func(*Remote)
		want   []string
	}{
		"down":       {func(r *Remote) { r.State = Down }, []string{"1 remote is unreachable", "Remote paris lost contact 2 h ago check that its API server runs"}},
		"never up":   {func(r *Remote) { r.State, r.LastSync = Down, time.Time{} }, []string{"1 remote is unreachable", "Remote paris no contact yet"}},
		"connecting": {func(r *Remote) { r.State = Connecting }, []string{unhealthy, "Remote paris connecting wait a few seconds"}},
		"refused":    {func(r *Remote) { r.State = Refused }, []string{"1 remote is answered by another cluster", "Remote paris another cluster answers in its name fix its kubeconfig"}},
		"a problem": {func(r *Remote) {
			r.Problems = []Problem{{"watch of records in sm", "configmaps is forbidden"}}
		},
			[]string{unhealthy, "Remote paris not all of it can be read grant its account what the message names, as with service-mirror link configmaps is forbidden watch of records in sm"}},
		"a ConfigMap": {func(r *Remote) {
			r.Problems = []Problem{{"ConfigMap ingress/tcp-services", "it does not exist, so no ports are reserved: create it"}}
		},
			[]string{unhealthy, "Remote paris its configuration has a problem fix what the message names; it is retried it does not exist, so no ports are reserved: create it ConfigMap ingress/tcp-services"}},
		"credentials": {func(r *Remote) {
			r.State, r.Problems = Down, []Problem{{"identity", "Unauthorized"}, {"exports", "Unauthorized"}}
		},
			[]string{"lost contact 2 h ago renew its credentials", "Unauthorized identity exports"}},
		"it may not say which it is": {func(r *Remote) {
			r.Problems = []Problem{{"identity", "no permission to get namespace kube-system, so a replaced cluster cannot be detected: forbidden"}}
		},
			[]string{unhealthy, "Remote paris a replaced cluster cannot be detected; its mirrors are updated grant its account what the message names, as with service-mirror link no permission to get namespace kube-system"}},
		"a certificate": {func(r *Remote) { r.State, r.Problems = Down, []Problem{{"identity", "x509: certificate has expired"}} }, []string{"fix the certificate of its API server"}},
		"a kubeconfig":  {func(r *Remote) { r.State, r.Problems = Down, []Problem{{"kubeconfig", "x: no such file"}} }, []string{"fix its kubeconfig; it is read again"}},
		"a refused address": {func(r *Remote) { fails(r, "address 127.0.0.1 is refused: it is a loopback address") },
			[]string{unhealthy, "Remote paris its gateway has a problem fix what the message names; it is retried address 127.0.0.1 is refused: it is a loopback address gateway ingress/gateway"}},
		"all addresses refused": {func(r *Remote) {
			r.Gateways[0].Addresses = nil
			fails(r, "address 127.0.0.1 is refused: it is a loopback address")
		},
			[]string{unhealthy, "Remote paris its gateway has no address give the gateway an address, or set address= in --remote address 127.0.0.1 is refused: it is a loopback address gateway ingress/gateway"}},
		"a name that is not resolved": {func(r *Remote) {
			r.Gateways[0].Name, r.Problems = "address=", []Problem{{"gateway", "hostname gw.example.com: server misbehaving; the last answer is kept"}}
			r.Gateways[0].Problem = r.Problems[0].Cause
		},
			[]string{unhealthy, "its gateway has a problem fix what the message names; it is retried hostname gw.example.com: server misbehaving; the last answer is kept gateway"}},
		"an unknown gateway": {func(r *Remote) { r.Gateways[0].Known = false }, []string{unhealthy, "its gateway is not known; its mirrors keep their endpoints wait a few seconds"}},
		"a forbidden gateway": {func(r *Remote) {
			r.Gateways[0].Known, r.Gateways[0].Addresses = false, nil
			r.Problems = []Problem{{"watch of the gateway Service ingress/gateway", "services is forbidden"}}
		},
			[]string{unhealthy, "its gateway is not known; its mirrors keep their endpoints grant its account what the message names"}},
		"a gateway without one": {func(r *Remote) { r.Gateways[0].Addresses = nil }, []string{unhealthy, "its gateway has no address give the gateway an address", "it has no address gateway ingress/gateway"}},
		"an unhealthy address": {func(r *Remote) { unready(r, 0) }, []string{unhealthy, "Remote paris 1 of 2 gateway addresses is not ready start the remote's gateway",
			"address 203.0.113.1 does not answer on port 80: probe timed out gateway ingress/gateway does not answer probes 203.0.113.1"}},
		"none healthy": {func(r *Remote) { unready(r, 0, 1) },
			[]string{unhealthy, "no address of its gateway is ready start the remote's gateway", "does not answer probes 203.0.113.1 2001:db8::1"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := small()
			p.Mirrors, p.Remotes = nil, p.Remotes[:1]
			if !p.Remotes[0].healthy() {
				t.Fatal("it is unhealthy before the change")
			}
			test.change(&p.Remotes[0])
			got := read(t, p, "/")
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("the page lacks %q: %s", want, got)
				}
			}
			if n := strings.Count(got, "Remote paris"); n != 1 {
				t.Errorf("%d boxes of one remote", n)
			}
			for _, g := range p.Remotes[0].Gateways {
				if n := strings.Count(got, g.Problem); g.Problem != "" && n != 1 {
					t.Errorf("its gateway's problem is there %d times: %s", n, got)
				}
			}
		})
	}
}

// TestManyRemotes folds them, the unhealthy ones first, if there are many: the problems are above.
func TestManyRemotes(t *testing.T) {
	p := small()
	for i := range 7 {
		r := p.Remotes[0]
		r.Name = fmt.Sprintf("remote-%d", i)
		p.Remotes = append(p.Remotes, r)
	}
	found := regexp.MustCompile(`<details class="remote \w+"( open)?>\s*<summary>.*?<h3>([^<]*)`).FindAllStringSubmatch(get(t, p, "/").Body.String(), -1)
	var got []string
	for _, f := range found {
		got = append(got, f[2]+f[1])
	}
	want := []string{"berlin", "paris", "remote-0", "remote-1", "remote-2", "remote-3", "remote-4", "remote-5", "remote-6"}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// TestSnapshotIsOnlyRead: requests may share it.
func TestSnapshotIsOnlyRead(t *testing.T) {
	p := small()
	for _, path := range []string{"/", "/status.json", "/?state=unhealthy&q=a&remote=paris"} {
		get(t, p, path)
	}
	if !reflect.DeepEqual(p, small()) {
		t.Errorf("it is now %+v", p)
	}
}
