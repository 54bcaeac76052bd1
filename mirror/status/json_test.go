package status

import (
	"encoding/json"
	"errors"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// TestJSON is the contract with programs: names, order, and lists that are never
// null.
func TestJSON(t *testing.T) {
	const want = `{"local":"london","version":"v1.2.3","electionOn":true,"leader":true,"leaderPod":"","started":"2026-03-04T09:00:00Z","now":"2026-03-04T12:00:00Z","synced":true,"verifying":false,"problems":[],"unknown":0,"remotes":[` +
		`{"name":"paris","state":"up","since":"2026-03-04T10:00:00Z","lastSync":"2026-03-04T10:30:00Z","lastEvent":"2026-03-04T11:57:00Z","uid":"uid-of-paris","problems":[],"exported":2,` +
		`"gateways":[{"name":"ingress/gateway","known":true,"addresses":[{"ip":"203.0.113.1","health":"ready"},{"ip":"2001:db8::1","health":"not probed yet"}],"problem":""}]},` +
		`{"name":"berlin","state":"down","since":"2026-03-04T11:59:50Z","lastSync":"2026-03-01T12:00:00Z","uid":"","problems":[{"part":"services","cause":"connection refused"}],"exported":0,` +
		`"gateways":[{"name":"ingress/old","known":false,"addresses":[],"problem":"there is no such Service"}]}],` +
		`"failover":[],"counts":{"conflict":0,"incomplete":1,"mirrored":1,"orphan":0,"refused":0,"waiting":1},"mirrors":[` + "\n" +
		`{"namespace":"default","name":"db-paris","cluster":"paris","source":"default/db","state":"incomplete","clusterIP":"10.96.0.11","ports":[],"mapping":[],"endpoints":[],"problems":[{"reason":"PortNotServed","message":"nothing serves 5432"}],"verified":""},` + "\n" +
		`{"namespace":"shop","name":"cart-berlin","cluster":"berlin","source":"shop/cart","state":"waiting","clusterIP":"","ports":[],"mapping":[],"endpoints":[],"problems":[{"reason":"NamespaceMissing","message":"the namespace shop does not exist"}],"verified":""},` + "\n" +
		`{"namespace":"default","name":"bar-paris","cluster":"paris","source":"default/bar","state":"mirrored","clusterIP":"10.96.0.10","ports":["http 80/TCP"],"mapping":[{"name":"http","port":80,"protocol":"TCP","class":"http","gatewayPort":8080,"line":"same class (http)"}],"endpoints":["203.0.113.1:80"],"problems":[],"verified":"reached","verifiedAt":"2026-03-04T11:58:00Z"}` + "\n]}\n"
	if got := get(t, small(), "/status.json").Body.String(); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if got := get(t, Page{Now: noon}, "/status.json").Body.String(); got != `{"local":"","version":"","electionOn":false,"leader":false,"leaderPod":"","now":"2026-03-04T12:00:00Z","synced":false,"verifying":false,"problems":[],"unknown":0,"remotes":[],`+
		`"failover":[],"counts":{"conflict":0,"incomplete":0,"mirrored":0,"orphan":0,"refused":0,"waiting":0},"mirrors":[`+"\n]}\n" {
		t.Errorf("of nothing: %s", got)
	}
}

// TestRoundTrip: what is decoded is what was encoded.
func TestRoundTrip(t *testing.T) {
	var hostile Page
	fill(reflect.ValueOf(&hostile).Elem(), "\"\\</script>\u2028\u202e\n")
	for name, p := range map[string]Page{"small": small(), "large": large(), "hostile": hostile} {
		var got Page
		if err := json.Unmarshal(get(t, p, "/status.json").Body.Bytes(), &got); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want := *withoutNull(&p)
		want.Mirrors = nil
		for _, m := range (filter{}).choose(p.Mirrors).rows {
			m.Ports, m.Mapping, m.Endpoints, m.Problems = some(m.Ports), some(m.Mapping), some(m.Endpoints), some(m.Problems)
			want.Mirrors = append(want.Mirrors, *m)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %.500v\nwant %.500v", name, got, want)
		}
	}
}

func TestJSONIsFilteredToo(t *testing.T) {
	var got struct {
		Page
		Counts map[string]int `json:"counts"`
	}
	if err := json.Unmarshal(get(t, large(), "/status.json?state=waiting&remote=paris&q=team-7&page=4").Body.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	want := filter{State: Waiting, Remote: "paris", Text: "team-7"}.choose(large().Mirrors).rows
	if len(got.Mirrors) != len(want) || len(want) == 0 || got.Mirrors[0].Name != want[0].Name {
		t.Errorf("got %d mirrors, want %q", len(got.Mirrors), names(want))
	}
	if got.Counts[Mirrored] != 9900 || got.Counts[Waiting] != 100 {
		t.Errorf("counts of all: %v", got.Counts)
	}
}

// chunks is a client that records the size of each write, and fails after a number
// of them.
type chunks struct {
	sink
	sizes []int
	most  int
}

func (c *chunks) Write(p []byte) (int, error) {
	if c.sizes = append(c.sizes, len(p)); len(c.sizes) > c.most {
		return 0, errors.New("gone")
	}
	return len(p), nil
}

// TestJSONIsStreamed: only the part that is being sent is in memory, and nothing is
// encoded for a client that has left.
func TestJSONIsStreamed(t *testing.T) {
	p := large()
	all := &chunks{sink: sink{http.Header{}}, most: 1 << 20}
	if err := writeJSON(all, &p, filter{}); err != nil {
		t.Fatal(err)
	}
	if len(all.sizes) < 50 || slices.Max(all.sizes) > 32<<10 {
		t.Errorf("%d writes, of up to %d bytes", len(all.sizes), slices.Max(all.sizes))
	}
	gone := &chunks{sink: sink{http.Header{}}, most: 2}
	if err := writeJSON(gone, &p, filter{}); err == nil || err.Error() != "gone" || len(gone.sizes) != 3 {
		t.Errorf("%d writes to a client that is gone after 2: %v", len(gone.sizes), err)
	}
}

func TestFieldNames(t *testing.T) {
	for _, of := range []any{Page{}, Remote{}, Problem{}, Gateway{}, Address{}, Mirror{}, MirrorProblem{}, Publisher{}, Target{}, Listener{}, Service{}, Port{}} {
		typ := reflect.TypeOf(of)
		for i := range typ.NumField() {
			f := typ.Field(i)
			name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" || !strings.EqualFold(name, f.Name) || name[0] < 'a' {
				t.Errorf("%s.%s is %q in the JSON", typ.Name(), f.Name, name)
			}
			// Programs rely on fields that are always present.
			if isTime := f.Type.String() == "time.Time"; isTime != (options == "omitzero") {
				t.Errorf("%s.%s has the option %q", typ.Name(), f.Name, options)
			}
		}
	}
}
