package status

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// published is a publisher with a target and a Service of each kind.
func published() Publisher {
	return Publisher{
		Cluster: "paris", Version: "v1.2.3", ElectionOn: true, Leader: true, Started: noon.Add(-time.Hour), Now: noon, Synced: true,
		Targets: []Target{
			{Kind: "gateway-api", Name: "Gateway ingress/public", State: Up, Listeners: []Listener{
				{Name: "http", Port: 80, Protocol: "HTTP"}, {Name: "service-mirror-tcp-15000", Port: 15000, Protocol: "TCP", Own: true, Problem: "PortUnavailable: no entry point"}}},
			{Kind: "ingress", Name: "IngressClass traefik", State: Connecting},
		},
		Services: []Service{
			{Namespace: "default", Name: "bar", State: Published, Ready: true, Hosts: []string{"bar-paris.default"}, Routes: []string{"HTTPRoute bar.service-mirror"},
				Ports: []Port{{Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 80, Shared: true}, {Port: 53, Protocol: "UDP", Class: "udp", GatewayPort: 15001}}},
			{Namespace: "shop", Name: "db", State: Incomplete, Ports: []Port{{Port: 5432, Protocol: "TCP", Class: "tcp"}}, Problems: []MirrorProblem{{"PortNotServed", "no listener"}}},
			{Namespace: "shop", Name: "new", State: Waiting},
		},
	}
}

func getPublished(t *testing.T, p Publisher, path string) string {
	t.Helper()
	w := httptest.NewRecorder()
	PublisherHandler(func() Publisher { return p }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
	}
	return w.Body.String()
}

// TestPublisherJSON is the contract with programs, as TestJSON.
func TestPublisherJSON(t *testing.T) {
	const head = `{"cluster":"paris","version":"v1.2.3","electionOn":true,"leader":true,"leaderPod":"","started":"2026-03-04T11:00:00Z","now":"2026-03-04T12:00:00Z","synced":true,"problems":[],"targets":[` +
		`{"kind":"gateway-api","name":"Gateway ingress/public","state":"up","problem":"","listeners":[{"name":"http","port":80,"protocol":"HTTP","own":false,"problem":""},` +
		`{"name":"service-mirror-tcp-15000","port":15000,"protocol":"TCP","own":true,"problem":"PortUnavailable: no entry point"}]},` +
		`{"kind":"ingress","name":"IngressClass traefik","state":"connecting","problem":"","listeners":[]}],` +
		`"counts":{"conflict":0,"incomplete":1,"published":1,"refused":0,"waiting":1},"services":[` + "\n"
	const db = `{"namespace":"shop","name":"db","state":"incomplete","ready":false,"hosts":[],"ports":[{"port":5432,"protocol":"TCP","class":"tcp","gatewayPort":0,"shared":false}],"routes":[],"problems":[{"reason":"PortNotServed","message":"no listener"}]}`
	const waiting = `{"namespace":"shop","name":"new","state":"waiting","ready":false,"hosts":[],"ports":[],"routes":[],"problems":[]}`
	const bar = `{"namespace":"default","name":"bar","state":"published","ready":true,"hosts":["bar-paris.default"],"ports":[{"port":80,"protocol":"TCP","class":"http","gatewayPort":80,"shared":true},` +
		`{"port":53,"protocol":"UDP","class":"udp","gatewayPort":15001,"shared":false}],"routes":["HTTPRoute bar.service-mirror"],"problems":[]}`
	if got, want := getPublished(t, published(), "/status.json"), head+waiting+",\n"+db+",\n"+bar+"\n]}\n"; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got, want := getPublished(t, published(), "/status.json?state=unhealthy&q=SHOP%2Fdb+listener"), head+db+"\n]}\n"; got != want {
		t.Errorf("filtered: got  %s\nwant %s", got, want)
	}
	if got := getPublished(t, Publisher{Now: noon}, "/status.json"); got != `{"cluster":"","version":"","electionOn":false,"leader":false,"leaderPod":"","now":"2026-03-04T12:00:00Z","synced":false,"problems":[],"targets":[],`+
		`"counts":{"conflict":0,"incomplete":0,"published":0,"refused":0,"waiting":0},"services":[`+"\n]}\n" {
		t.Errorf("of nothing: %s", got)
	}
}

// TestWhatIsSaidOfAPublisher reads its page.
func TestWhatIsSaidOfAPublisher(t *testing.T) {
	all := func(*Publisher) {}
	healthy := func(p *Publisher) {
		p.Targets[0].Listeners, p.Targets[1].State, p.Services = p.Targets[0].Listeners[:1], Up, p.Services[:1]
	}
	for _, test := range []struct {
		path   string
		change func(*Publisher)
		want   []string
		not    []string
	}{
		{"/", all, []string{"paris: 1 exported Service is not published, 1 exported Service is incomplete, and more, service-mirror", "2 targets 3 exported Services show the 2 unhealthy", "NotPublishedYet 1 exported Service", "leader", "published 1", "incomplete 1", "waiting 1",
			"Gateway ingress/public", "http 80/HTTP", "service-mirror-tcp-15000 15000/TCP (added)", "service-mirror-tcp-15000: PortUnavailable: no entry point",
			"IngressClass traefik", "connecting", "1–3 of 3, the worst first", "80 (http) -> 80, shared", "53/UDP (udp) -> 15001/UDP", "5432 (tcp) -> none", "an endpoint is ready", "no endpoint is ready",
			"bar-paris.default", "HTTPRoute bar.service-mirror", "PortNotServed no listener"}, []string{"Mirror", " mirror", "emote", "orphan", "Cluster IP"}},
		{"/?q=bar-paris", all, []string{"1–1 of 1 that match, of 3", "bar"}, []string{"db shop"}},
		{"/?state=refused", all, []string{"No exported Service matches this filter."}, nil},
		{"/", healthy, []string{"Everything is published"}, []string{"Problems"}},
		{"/", func(p *Publisher) { healthy(p); p.Services = nil }, []string{"Nothing is exported", "No Service is exported", "kubectl label service NAME service-mirror.io/exported=true"}, nil},
		{"/", func(p *Publisher) { p.Synced = false }, []string{"Not ready yet", "The cluster has not been read yet"}, nil},
		{"/", func(p *Publisher) { healthy(p); p.Leader = false }, []string{"This replica is a standby, and knows of no problem", "only the leader knows the problems of exported Services"}, []string{"Everything is published"}},
		{"/", func(p *Publisher) { p.Problems = []Problem{{"records", "refused"}} }, []string{"The cluster is not read as it is", "The cluster, records: refused."}, nil},
		{"/", func(p *Publisher) { healthy(p); p.Problems = []Problem{{Listeners, "forbidden"}} },
			[]string{"paris: The Gateway's listeners cannot be written", "The cluster, listeners of the Gateway: forbidden."}, []string{"not read as"}},
		{"/", func(p *Publisher) { p.Problems = []Problem{{Listeners, "forbidden"}} },
			[]string{"paris: 1 exported Service is not published", "The cluster, listeners of the Gateway: forbidden."}, []string{"not read as"}},
	} {
		p := published()
		test.change(&p)
		text := plain(getPublished(t, p, test.path))
		for _, want := range test.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is missing: %s", test.path, want, text)
			}
		}
		for _, not := range test.not {
			if strings.Contains(text, not) {
				t.Errorf("%s: it says %q: %s", test.path, not, text)
			}
		}
	}
}

func TestHostileTextsOfAPublisher(t *testing.T) {
	for _, hostile := range hostileTexts {
		var p Publisher
		fill(reflect.ValueOf(&p).Elem(), hostile)
		for _, path := range []string{"/", "/?" + url.Values{"q": {hostile}, "state": {hostile}}.Encode()} {
			body := getPublished(t, p, path)
			for _, unwanted := range unwantedTexts {
				if strings.Contains(body, unwanted) {
					t.Errorf("%q as %s: the page has %q", hostile, path, unwanted)
				}
			}
			if !utf8.ValidString(body) {
				t.Errorf("%q as %s: the page is not UTF-8", hostile, path)
			}
		}
	}
}
