package status

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// problemsOf are the lines of the problems on a page, in order, and what they open to.
func problemsOf(t *testing.T, p Page) (lines, lists []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?s)<details class="problem (\w+)">\s*<summary>(.*?)</summary>(.*?)</details>`).FindAllStringSubmatch(get(t, p, "/").Body.String(), -1) {
		lines, lists = append(lines, found[1]+" "+plain(found[2])), append(lists, plain(found[3]))
	}
	return lines, lists
}

// hundreds has 310 exported Services, with few causes of many problems.
func hundreds() Page {
	p := small()
	p.Remotes[0].Exported, p.Remotes[0].Gateways[0].Addresses[1].Health = 270, Ready
	p.Remotes[1].Exported, p.Remotes[1].Gateways = 40, nil
	p.Remotes[1].Problems = []Problem{{"identity", "connection refused"}, {"watch of exported Services", "connection refused"}}
	p.Mirrors = nil
	add := func(n int, m Mirror) {
		for range n {
			m.Namespace, m.Name = fmt.Sprintf("team-%d", len(p.Mirrors)%2), fmt.Sprintf("s%03d-%s", len(p.Mirrors), m.Cluster)
			p.Mirrors = append(p.Mirrors, m)
		}
	}
	problem := func(reason, message string) []MirrorProblem { return []MirrorProblem{{reason, message}} }
	endpoints := []string{"192.0.2.1:80"}
	add(100, Mirror{Cluster: "paris", State: Mirrored, ClusterIP: "10.96.0.1", Endpoints: endpoints})
	add(3, Mirror{Cluster: "paris", State: Mirrored, ClusterIP: "10.96.0.1", Endpoints: endpoints, Problems: problem("ClusterIPLost", "it was 10.96.0.9")})
	add(2, Mirror{Cluster: "paris", State: Incomplete, ClusterIP: "10.96.0.1", Endpoints: endpoints, Problems: problem("PortConflict", "port 81 differs")})
	add(120, Mirror{Cluster: "paris", State: Waiting, Problems: problem("NamespaceMissing", "it does not exist")})
	add(4, Mirror{Cluster: "paris", State: Incomplete, ClusterIP: "10.96.0.1", Endpoints: endpoints, Problems: problem("NotRouted", "the name is not routed")})
	add(41, Mirror{Cluster: "paris", State: Incomplete, ClusterIP: "10.96.0.1",
		Problems: []MirrorProblem{{"PortNotServed", "port 5432"}, {"PortNotServed", "port 5433"}, {"ClusterIPLost", "it was 10.96.0.9"}}})
	add(40, Mirror{Cluster: "berlin", State: Mirrored, ClusterIP: "10.96.0.1", Endpoints: endpoints, Verified: "timed out", Problems: problem("NotReached", "timed out")})
	return p
}

// TestProblemsAreGrouped: one line for each problem, however many mirrors have it, and those first of which nothing serves.
func TestProblemsAreGrouped(t *testing.T) {
	p := hundreds()
	got, lists := problemsOf(t, p)
	want := []string{
		"bad PortNotServed 41 mirrors of paris set the port's appProtocol if it is HTTP, reserve a gateway port for it, or fix the annotation or the gateway named in the message",
		"bad Remote berlin lost contact 10 s ago; 40 mirrors are unreachable check that its API server runs and can be reached from this cluster; contact is retried",
		"bad NotRouted 4 mirrors of paris add the host name that clients send to the remote's publisher with --name, --host-template or --caller-namespace, or to the exported Service with the annotation service-mirror.io/hosts",
		"warn NamespaceMissing 120 exported Services of paris create the namespace in the local cluster, or set --create-namespaces",
		"warn PortConflict 2 mirrors of paris export the same port names, numbers and protocols in all merged remotes",
		"warn ClusterIPLost 44 mirrors of paris restart clients that use the old ClusterIP",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	for at, want := range map[int]string{
		0: "port 5432 team-1/s229-paris team-0/s230-paris team-1/s231-paris team-0/s232-paris team-1/s233-paris team-0/s234-paris team-1/s235-paris team-0/s236-paris and 33 more " +
			"port 5433 team-1/s229-paris team-0/s230-paris team-1/s231-paris team-0/s232-paris team-1/s233-paris team-0/s234-paris team-1/s235-paris team-0/s236-paris and 33 more Show the 41 in the table",
		1: "connection refused identity watch of exported Services Affected mirrors: team-0/s270-berlin team-1/s271-berlin team-0/s272-berlin team-1/s273-berlin team-0/s274-berlin " +
			"team-1/s275-berlin team-0/s276-berlin team-1/s277-berlin and 32 more Show its unhealthy mirrors in the table",
	} {
		if at >= len(lists) || lists[at] != want {
			t.Errorf("%d: got %q, want %q", at, lists, want)
		}
	}
	// What a line links to is what it counts.
	if rows := (filter{Reason: "PortNotServed"}).choose(p.Mirrors).rows; len(rows) != 41 {
		t.Errorf("%d rows of 41", len(rows))
	}
	if text := read(t, p, "/"); !strings.Contains(text, "1 remote is unreachable, 41 mirrors have no endpoints, and more 2 remotes 310 exported Services 190 mirrors show the 210 unhealthy") {
		t.Errorf("the page counts otherwise: %.600s", text)
	}
}

// TestOneBoxForOneCause: what the state of a remote explains is no problem of its own, and what it does not explain is.
func TestOneBoxForOneCause(t *testing.T) {
	row := func(state string, reason ...string) Mirror {
		m := Mirror{Namespace: "a", Name: "b-paris", Cluster: "paris", State: state, ClusterIP: "10.96.0.1"}
		for _, r := range reason {
			m.Problems = append(m.Problems, MirrorProblem{r, "as it is"})
		}
		return m
	}
	none := func(r *Remote) { unready(r, 0, 1) }
	one := func(r *Remote) { unready(r, 0) }
	two := func(r *Remote) {
		none(r)
		r.Gateways = append(r.Gateways, Gateway{Name: "ingress/private", Known: true, Addresses: []Address{{"203.0.113.9", Ready}}})
	}
	allUnready := row(Mirrored)
	allUnready.Endpoints = []string{"203.0.113.1:80 (not ready)"}
	standby := allUnready
	standby.Role = Standby
	notReached := row(Mirrored, "NotReached")
	notReached.Endpoints = []string{"203.0.113.1:80"}
	for name, test := range map[string]struct {
		change func(*Remote)
		mirror Mirror
		want   []string
	}{
		"no address":                     {func(r *Remote) { r.Gateways[0].Addresses = nil }, row(Incomplete, "NoAddress"), []string{"bad Remote paris its gateway has no address; 1 mirror has no endpoints"}},
		"no address of the mirror alone": {func(*Remote) {}, row(Incomplete, "NoAddress"), []string{"bad NoAddress 1 mirror of paris"}},
		"down":                           {func(r *Remote) { r.State = Down }, row(Incomplete, "NoAddress", "NotReached"), []string{"bad Remote paris lost contact 2 h ago; 1 mirror has no endpoints"}},
		"down, and nothing follows":      {func(r *Remote) { r.State = Down }, row(Mirrored), []string{"bad Remote paris lost contact 2 h ago; its 1 mirror is kept unchanged"}},
		"down, and something else": {func(r *Remote) { r.State = Down }, row(Incomplete, "PortNotServed"),
			[]string{"bad PortNotServed 1 mirror of paris", "bad Remote paris lost contact 2 h ago; its 1 mirror is kept unchanged"}},
		"probes fail":                        {none, allUnready, []string{"bad Remote paris no address of its gateway is ready; 1 mirror has no endpoints"}},
		"probes fail of a standby":           {none, standby, []string{"bad Remote paris no address of its gateway is ready start"}},
		"probes fail of one remote":          {func(*Remote) {}, allUnready, []string{"bad NoHealthyAddress 1 mirror of paris start the remote's gateway"}},
		"probes fail of one of two gateways": {two, allUnready, []string{"bad Remote paris 2 of 3 gateway addresses are not ready; 1 mirror has no endpoints"}},
		"one probe fails":                    {one, row(Mirrored), []string{"warn Remote paris 1 of 2 gateway addresses is not ready start"}},
		"one probe fails, and a mirror is not reached": {one, notReached,
			[]string{"bad NotReached 1 mirror of paris", "warn Remote paris 1 of 2 gateway addresses is not ready start"}},
		"one address is refused, and a mirror lacks its family": {func(r *Remote) { fails(r, "address 127.0.0.1 is refused") }, row(Incomplete, "NoAddress"),
			[]string{"bad NoAddress 1 mirror of paris", "warn Remote paris its gateway has a problem fix"}},
		"not known, and a mirror waits for it": {func(r *Remote) { r.Gateways = []Gateway{{Name: "ingress/gateway"}} }, row(Incomplete, "NoAddress"),
			[]string{"bad Remote paris its gateway is not known; 1 mirror has no endpoints wait a few seconds"}},
		"connecting": {func(r *Remote) { r.State = Connecting }, Mirror{Namespace: "a", Name: "b", Cluster: "paris", State: Waiting}, []string{"info Remote paris connecting; 1 exported Service is not mirrored"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := small()
			p.Remotes, p.Mirrors = p.Remotes[:1], []Mirror{test.mirror}
			test.change(&p.Remotes[0])
			got, _ := problemsOf(t, p)
			if len(got) != len(test.want) {
				t.Fatalf("got %q, want %q", got, test.want)
			}
			for i, want := range test.want {
				if !strings.HasPrefix(got[i], want) {
					t.Errorf("got %q, want %q", got[i], want)
				}
			}
		})
	}
}

// TestEveryUnhealthyRowHasAReason, and every reason has a remedy.
func TestEveryUnhealthyRowHasAReason(t *testing.T) {
	for _, state := range append(slices.Clone(states), "of a later version") {
		for _, endpoints := range [][]string{nil, {"192.0.2.1:80"}, {"192.0.2.1:80 (not ready)"}} {
			m := Mirror{Name: "a", State: state, Endpoints: endpoints}
			healthy := m.healthy()
			if healthy != (m.severity() == fine) || healthy != (len(m.problems()) == 0) {
				t.Errorf("%s, %q: healthy %t, severity %d, problems %q", state, endpoints, healthy, m.severity(), m.problems())
			}
			for _, problem := range m.problems() {
				if problem.Message == "" || remedyOf(problem.Reason) == "" {
					t.Errorf("%s, %q: %+v has no message or no remedy", state, endpoints, problem)
				}
			}
		}
	}
	for _, state := range publisherStates {
		s := Service{Name: "a", State: state}
		if s.healthy() != (s.severity() == fine) || s.healthy() != (len(s.problems()) == 0) {
			t.Errorf("%s: severity %d, problems %q", state, s.severity(), s.problems())
		}
	}
}

// TestSeverities: one mirror of each.
func TestSeverities(t *testing.T) {
	some, none, unready := []string{"192.0.2.1:80"}, []string(nil), []string{"192.0.2.1:80 (not ready)"}
	problem := func(reason string) []MirrorProblem { return []MirrorProblem{{reason, "x"}} }
	for name, test := range map[string]struct {
		mirror Mirror
		want   severity
	}{
		"mirrored":                      {Mirror{State: Mirrored, Endpoints: some}, fine},
		"without endpoints":             {Mirror{State: Incomplete, Endpoints: none, Problems: problem("NoAddress")}, dead},
		"none ready":                    {Mirror{State: Mirrored, Endpoints: unready}, dead},
		"none ready, since on standby":  {Mirror{State: Mirrored, Endpoints: unready, Role: Standby}, fine},
		"not routed":                    {Mirror{State: Incomplete, Endpoints: some, Problems: problem("NotRouted")}, unreachable},
		"verified, and it is not there": {Mirror{State: Incomplete, Endpoints: some, Problems: problem("WriteFailed"), Verified: "refused"}, unreachable},
		"not verified":                  {Mirror{State: Incomplete, Endpoints: some, Problems: problem("WriteFailed"), Verified: NotVerified}, partial},
		"one port":                      {Mirror{State: Incomplete, Endpoints: some, Problems: problem("PortNotServed")}, partial},
		"waits":                         {Mirror{State: Waiting, Problems: problem("NamespaceMissing")}, absent},
		"the name is taken":             {Mirror{State: Conflict, Problems: problem("Conflict")}, absent},
		"refused, and it exists":        {Mirror{State: Refused, ClusterIP: "10.96.0.1", Endpoints: some, Problems: problem("Rejected")}, partial},
		"orphan":                        {Mirror{State: Orphan, Endpoints: some}, orphaned},
		"a warning":                     {Mirror{State: Mirrored, Endpoints: some, Problems: problem("ClusterIPLost")}, warned},
	} {
		if got := test.mirror.severity(); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// TestMergedMirrorsAreCountedOnce: of a merged mirror there is a row for each remote.
func TestMergedMirrorsAreCountedOnce(t *testing.T) {
	p := small()
	p.Mirrors = []Mirror{
		{Namespace: "a", Name: "b", Cluster: "paris", State: Mirrored, Role: Serving, ClusterIP: "10.96.0.1", Endpoints: []string{"192.0.2.1:80"}},
		{Namespace: "a", Name: "b", Cluster: "berlin", State: Mirrored, Role: Standby, ClusterIP: "10.96.0.1", Endpoints: []string{"192.0.2.2:80 (not ready)"}},
	}
	if text := read(t, p, "/"); !strings.Contains(text, "2 exported Services 1 mirror ") {
		t.Errorf("%.500s", text)
	}
}
