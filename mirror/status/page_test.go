package status

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// noon is the time of the pages of these tests.
var noon = time.Date(2026, time.March, 4, 12, 0, 0, 0, time.UTC)

// small has a remote and a mirror of each kind.
func small() Page {
	return Page{
		Local: "london", Version: "v1.2.3", ElectionOn: true, Leader: true, Started: noon.Add(-3 * time.Hour), Now: noon, Synced: true,
		Remotes: []Remote{
			{
				Name: "paris", State: Up, Since: noon.Add(-2 * time.Hour), LastSync: noon.Add(-90 * time.Minute), LastEvent: noon.Add(-3 * time.Minute),
				UID: "uid-of-paris", Exported: 2,
				Gateways: []Gateway{{Name: "ingress/gateway", Known: true, Addresses: []Address{{"203.0.113.1", Ready}, {"2001:db8::1", Unprobed}}}},
			},
			{
				Name: "berlin", State: Down, Since: noon.Add(-10 * time.Second), LastSync: noon.Add(-72 * time.Hour),
				Problems: []Problem{{"services", "connection refused"}},
				Gateways: []Gateway{{Name: "ingress/old", Problem: "there is no such Service"}},
			},
		},
		Mirrors: []Mirror{
			{Namespace: "default", Name: "bar-paris", Cluster: "paris", Source: "default/bar", State: Mirrored, ClusterIP: "10.96.0.10", Ports: []string{"http 80/TCP"}, Endpoints: []string{"203.0.113.1:80"},
				Mapping:  []Mapping{{Name: "http", Port: 80, Protocol: "TCP", Class: "http", GatewayPort: 8080, Line: "same class (http)"}},
				Verified: Reached, VerifiedAt: noon.Add(-2 * time.Minute)},
			{Namespace: "shop", Name: "cart-berlin", Cluster: "berlin", Source: "shop/cart", State: Waiting, Problems: []MirrorProblem{{"NamespaceMissing", "the namespace shop does not exist"}}},
			{Namespace: "default", Name: "db-paris", Cluster: "paris", Source: "default/db", State: Incomplete, ClusterIP: "10.96.0.11", Problems: []MirrorProblem{{"PortNotServed", "nothing serves 5432"}}},
		},
	}
}

// large has ten thousand mirrors, of which every hundredth is waiting.
func large() Page {
	p := small()
	p.Mirrors = make([]Mirror, 0, 10_000)
	for i := range 10_000 {
		remote := p.Remotes[i%2].Name
		m := Mirror{
			Namespace: fmt.Sprintf("team-%d", i%37), Name: fmt.Sprintf("service-%d-%s", i, remote), Cluster: remote, Source: fmt.Sprintf("team-%d/service-%d", i%37, i),
			State: Mirrored, ClusterIP: fmt.Sprintf("10.96.%d.%d", i/250, i%250+1), Ports: []string{"http 80/TCP", "https 443/TCP"}, Endpoints: []string{"203.0.113.1:80", "203.0.113.1:443"},
		}
		if i%100 == 0 {
			m.State, m.Problems = Waiting, []MirrorProblem{{"NamespaceMissing", "the namespace " + m.Namespace + " does not exist"}}
		}
		p.Mirrors = append(p.Mirrors, m)
	}
	return p
}

// get requests a path of a page from the handler.
func get(t testing.TB, p Page, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	Handler(func() Page { return p }).ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		t.Fatalf("%s: status %d: %s", path, w.Code, w.Body)
	}
	return w
}

func BenchmarkPage(b *testing.B)   { bench(b, "/") }
func BenchmarkFilter(b *testing.B) { bench(b, "/?remote=paris&q=missing+team-3") }
func BenchmarkJSON(b *testing.B)   { bench(b, "/status.json") }

func bench(b *testing.B, path string) {
	p := large()
	h := Handler(func() Page { return p })
	r := httptest.NewRequest(http.MethodGet, path, nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(sink{http.Header{}}, r)
	}
}

// sink is a client that discards everything.
type sink struct{ header http.Header }

func (s sink) Header() http.Header         { return s.header }
func (s sink) Write(p []byte) (int, error) { return len(p), nil }
func (s sink) WriteHeader(int)             {}
