package status

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// busy is a page with all that a summary groups.
func busy() Page {
	page := Page{Local: "https://london", Version: "v1", Now: noon, Synced: true, Unknown: 2, Remotes: []Remote{
		{Name: "paris", State: Up, Since: noon.Add(-3 * time.Hour), Exported: 310, Gateways: []Gateway{
			{Name: "ingress/gateway", Known: true, Addresses: []Address{{"192.0.2.1", Ready}, {"192.0.2.2", Ready}, {"192.0.2.3", Ready}}},
			{Name: "ingress/more"}}},
		{Name: "berlin", State: Down, Since: noon.Add(-5 * time.Minute), Problems: []Problem{{"exports", "connection refused"}}},
	}}
	for i := range 310 {
		m := Mirror{Namespace: "shop", Name: fmt.Sprintf("s%03d-paris", i), Cluster: "paris", State: Mirrored}
		switch {
		case i < 200:
			m.State, m.Problems = Waiting, []MirrorProblem{{"NamespaceMissing", "namespace shop does not exist"}}
		case i < 260: // twice of one mirror
			m.State, m.Problems = Incomplete, []MirrorProblem{{"PortNotServed", fmt.Sprintf("port %d is not served", i)}, {"PortNotServed", "nor is another"}}
		}
		page.Mirrors = append(page.Mirrors, m)
	}
	unready(&page.Remotes[0], 2)
	page.Mirrors = append(page.Mirrors, Mirror{Namespace: "shop", Name: "old-rome", Cluster: "rome", State: Orphan})
	return page
}

func TestSummaryText(t *testing.T) {
	page := busy()
	var out bytes.Buffer
	if err := Summarize(&page, Source{From: FromLeader, Name: "pod sm/sm-1"}).WriteText(&out); err != nil {
		t.Fatal(err)
	}
	const want = `Local cluster https://london, service-mirror v1, from the leader, pod sm/sm-1

REMOTE   STATE            EXPORTED   MIRRORS                                   GATEWAY
paris    up for 3 h       310        50 mirrored, 60 incomplete, 200 waiting   ingress/gateway: 3 addresses: 1 not ready, 2 ready
                                                                               ingress/more: not known
berlin   down for 5 min   ?          none                                      ?
rome     not configured   ?          1 orphan                                  ?

Remote paris, gateway ingress/gateway: address 192.0.2.3 does not answer on port 80: probe timed out

Remote berlin, exports: connection refused

2 objects with a mirror's labels belong to remotes that are not configured
  Fix: configure the remote, or run service-mirror prune.

PortNotServed: 60 mirrors of paris: shop/s200-paris, shop/s201-paris, shop/s202-paris and 57 more
  61 messages, for example shop/s200-paris: port 200 is not served
  Fix: set the port's appProtocol if it is HTTP, reserve a gateway port for it, or fix the annotation or the gateway named in the message.

NamespaceMissing: 200 mirrors of paris: shop/s000-paris, shop/s001-paris, shop/s002-paris and 197 more
  namespace shop does not exist
  Fix: create the namespace in the local cluster, or set --create-namespaces.

Unhealthy: 2 of 3 remotes, 261 of 311 mirrors.
`
	if out.String() != want {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}

func TestSummaryJSON(t *testing.T) {
	page := busy()
	var out bytes.Buffer
	if err := Summarize(&page, Source{From: FromClusters, Why: "forbidden"}).WriteJSON(&out); err != nil {
		t.Fatal(err)
	}
	var got Summary
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got.Healthy || got.Source.Why != "forbidden" || len(got.Remotes) != 3 || got.Remotes[0].Counts[Waiting] != 200 || got.Remotes[2].Exported != -1 ||
		len(got.Causes) != 2 || len(got.Causes[0].Mirrors) != 60 || got.Causes[0].Remedy == "" || len(got.Causes[1].Mirrors) != 200 {
		t.Errorf("got %+v", got)
	}
	if strings.Contains(out.String(), "null") {
		t.Errorf("a list is null:\n%s", &out)
	}
}

// What serves nothing has a cause, though the mirror is as it should be.
func TestSummaryOfAGatewayThatAnswersNoProbe(t *testing.T) {
	page := busy()
	page.Mirrors = []Mirror{{Namespace: "shop", Name: "cart-paris", Cluster: "paris", State: Mirrored, Endpoints: []string{"192.0.2.1:80 (not ready)"}}}
	s := Summarize(&page, Source{From: FromLeader})
	if len(s.Causes) != 1 || s.Causes[0].Reason != "NoHealthyAddress" || s.Causes[0].Remedy == "" || s.UnhealthyMirrors != 1 {
		t.Errorf("got %d unhealthy, %+v", s.UnhealthyMirrors, s.Causes)
	}
}

// Healthy is only that in which nothing has to be done.
func TestSummaryIsHealthy(t *testing.T) {
	gateways := []Gateway{{Name: "a/b", Known: true, Addresses: []Address{{"192.0.2.1", NotProbed}}}}
	good := func() Page {
		return Page{Synced: true, Remotes: []Remote{{Name: "paris", State: Up, Gateways: gateways}}, Mirrors: []Mirror{{Cluster: "paris", State: Mirrored}}}
	}
	for name, test := range map[string]struct {
		change func(*Page)
		want   bool
	}{
		"as it should be": {func(*Page) {}, true},
		"nothing at all":  {func(p *Page) { *p = Page{Synced: true} }, true},
		"not read":        {func(p *Page) { p.Synced = false }, false},
		"a local problem": {func(p *Page) { p.Problems = []Problem{{"services", "forbidden"}} }, false},
		"a remote down":   {func(p *Page) { p.Remotes[0].State = Down }, false},
		"no gateway":      {func(p *Page) { p.Remotes[0].Gateways = []Gateway{{Name: "a/b"}} }, false},
		"a mirror":        {func(p *Page) { p.Mirrors[0].State = Refused }, false},
		"an orphan":       {func(p *Page) { p.Mirrors = append(p.Mirrors, Mirror{Cluster: "x", State: Orphan}) }, false},
	} {
		page := good()
		test.change(&page)
		if got := Summarize(&page, Source{}).Healthy; got != test.want {
			t.Errorf("%s: healthy %v", name, got)
		}
	}
}

// Without remotes nothing is an orphan: it is only known whether there are endpoints.
func TestSummaryOfTheLocalClusterAlone(t *testing.T) {
	page := LocalOnly(Page{Local: "https://london", Synced: true, Unknown: 4, Mirrors: []Mirror{
		{Namespace: "shop", Name: "a-paris", Cluster: "paris", State: Orphan, Endpoints: []string{"192.0.2.1:80"}},
		{Namespace: "shop", Name: "b-paris", Cluster: "paris", State: Orphan}}})
	var out bytes.Buffer
	s := Summarize(&page, Source{From: FromLocal, Why: "read Lease a/b: forbidden\x1b[2J"})
	if err := s.WriteText(&out); err != nil {
		t.Fatal(err)
	}
	const want = "Local cluster https://london, computed from this cluster alone: the leader's status cannot be read: read Lease a/b: forbidden\ufffd[2J\n\n" +
		"REMOTE   STATE       EXPORTED   MIRRORS                    GATEWAY\n" +
		"paris    not known   ?          1 mirrored, 1 incomplete   ?\n\n" +
		"Unhealthy: 0 of 1 remote, 1 of 2 mirrors.\n"
	if out.String() != want || s.Healthy {
		t.Errorf("got\n%s\nwant\n%s", &out, want)
	}
}
