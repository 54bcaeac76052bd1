package status

import (
	"encoding/json"
	"reflect"
	"strings"
	"testing"
)

func TestFailoverOnThePage(t *testing.T) {
	p := small()
	p.Remotes, p.Mirrors = p.Remotes[:1], p.Mirrors[:1]
	fine := Failover{Namespace: "shop", Name: "cart", State: "local", Remotes: []string{"paris", "berlin"}}
	away := Failover{Namespace: "shop", Name: "till", State: "failed over", Serving: "paris", Remotes: []string{"paris"}}
	both := Failover{Namespace: "shop", Name: "desk", State: "both", Serving: "paris", Remotes: []string{"paris"}}
	dead := Failover{Namespace: "shop", Name: "lost", State: "unavailable", Remotes: []string{"paris"},
		Problems: []FailoverProblem{{"paris", "NoHealthyAddress", "no address answers <b>"}, {"", "NoHealthyRemote", "none can serve"}}}
	for name, test := range map[string]struct {
		all            []Failover
		want, unwanted []string
	}{
		"none":         {nil, []string{"Everything is healthy"}, []string{"Failover"}},
		"local":        {[]Failover{fine}, []string{"Everything is healthy", "Failover 1 local 1 Service", "local cart shop local endpoints paris berlin"}, []string{"failed over to remotes"}},
		"away":         {[]Failover{fine, away}, []string{"1 Service with failover: see why", "1 Service of the local cluster failed over to remotes.", "failed over till shop paris paris"}, []string{"Everything"}},
		"both":         {[]Failover{both}, []string{"both desk shop local endpoints and paris"}, []string{"Everything"}},
		"nobody":       {[]Failover{fine, dead}, []string{"1 Service with failover", "unavailable lost shop nobody paris NoHealthyAddress remote paris: no address answers <b> NoHealthyRemote none can serve local cart"}, []string{"Everything"}},
		"of many some": {append(make([]Failover, 100), away), []string{"101 Services", "37 more in status.json"}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			p.Failover = test.all
			got := read(t, p, "/")
			for _, want := range test.want {
				if !strings.Contains(got, want) {
					t.Errorf("%q is not in: %s", want, got)
				}
			}
			for _, unwanted := range test.unwanted {
				if strings.Contains(got, unwanted) {
					t.Errorf("%q is in: %s", unwanted, got)
				}
			}
		})
	}
	p.Failover = []Failover{dead}
	var decoded Page
	if err := json.Unmarshal(get(t, p, "/status.json").Body.Bytes(), &decoded); err != nil || !reflect.DeepEqual(decoded.Failover, p.Failover) {
		t.Errorf("got %+v, %v, want %+v", decoded.Failover, err, p.Failover)
	}
}
