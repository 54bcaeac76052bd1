package plan

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

// originOf is what is known of default/bar of paris.
func originOf(change func(*Origin)) Origin {
	o := Origin{Candidate: parisBar(), Source: cache.NewObjectName("default", "bar"), Known: true}
	if change != nil {
		change(&o)
	}
	return o
}

func TestFate(t *testing.T) {
	renamed := Policy{Names: Names{"paris": {Template: "{service}"}}}
	limited := func(o *Origin) { o.Service.Annotations[ExportToAnnotation] = "london" }
	udp := func(o *Origin) {
		o.Service.Spec.Ports = []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}
	}
	for name, test := range map[string]struct {
		policy Policy
		change func(*Origin)
		want   Fate
	}{
		"exported":                        {want: Stays},
		"under another name":              {policy: renamed, want: Moves},
		"in another namespace":            {policy: Policy{Names: Names{"paris": {Namespaces: map[string]string{"default": "shop"}}}}, want: Moves},
		"under a name that is too long":   {policy: Policy{Names: Names{"paris": {Template: "{service}-" + string(slices.Repeat([]byte("x"), 60))}}}, want: Moves},
		"not known":                       {change: func(o *Origin) { o.Known = false }, want: Unknown},
		"not known, under another name":   {policy: renamed, change: func(o *Origin) { o.Known = false }, want: Unknown},
		"not exported":                    {change: func(o *Origin) { o.Service = nil }, want: Gone},
		"not known to be exported":        {change: func(o *Origin) { o.Known, o.Service = false, nil }, want: Unknown},
		"refused":                         {policy: renamed, change: func(o *Origin) { o.Service.Spec.ClusterIP = corev1.ClusterIPNone }, want: Gone},
		"for this cluster":                {policy: Policy{ClusterName: "london"}, change: limited, want: Stays},
		"for another cluster":             {policy: Policy{ClusterName: "rome"}, change: limited, want: Gone},
		"for whom is not known":           {policy: renamed, change: limited, want: Unknown},
		"UDP, and no port is reserved":    {policy: renamed, change: udp, want: Gone},
		"UDP, and the gateway is unknown": {policy: renamed, change: func(o *Origin) { udp(o); o.Gateway = nil }, want: Unknown},
	} {
		if got, _ := test.policy.Fate(originOf(test.change), barKey); got != test.want {
			t.Errorf("%s: got %d, want %d", name, got, test.want)
		}
	}
}

// A mirror whose source moves is kept as it should be, and goes once its successor is complete, or at once where mirrors
// wait for each other.
func TestRename(t *testing.T) {
	policy := Policy{Names: Names{"paris": {Template: "{service}"}, "berlin": {Template: "{service}-paris"}}}
	moved, berlin := parisBar(), parisBar()
	moved.Gateway = gatewayAt("192.0.2.9")
	berlin.Cluster, berlin.UID, berlin.Watched = "berlin", "berlin-uid", true
	to := cache.NewObjectName("default", "bar")
	for name, test := range map[string]struct {
		origin     Candidate
		successor  Successor
		candidates []Candidate
		steps      []string
		problems   []string
	}{
		"it waits":                           {origin: parisBar(), problems: []string{"Renaming paris"}},
		"it waits, and the gateway moved":    {origin: moved, steps: []string{"update Endpoints"}, problems: []string{"Renaming paris"}},
		"and another remote wants the name":  {origin: parisBar(), candidates: []Candidate{berlin}, problems: []string{"Conflict berlin", "Renaming paris"}},
		"the successor is complete":          {origin: parisBar(), successor: Successor{Complete: true}, steps: []string{"delete Service", "delete Endpoints"}},
		"it is, with Endpoints":              {origin: parisBar(), successor: Successor{Complete: true, Endpoints: storedBar().Endpoints}, steps: []string{"await slices", "delete Service", "delete Endpoints"}},
		"the first of a circle":              {origin: parisBar(), successor: Successor{Circular: true}, candidates: []Candidate{berlin}, steps: []string{"delete Service", "delete Endpoints"}, problems: []string{"Conflict berlin"}},
		"complete, and another one wants it": {origin: parisBar(), successor: Successor{Complete: true}, candidates: []Candidate{berlin}, steps: []string{"delete Service", "delete Endpoints"}, problems: []string{"Conflict berlin"}},
	} {
		t.Run(name, func(t *testing.T) {
			test.successor.Key = to
			origin := originOf(func(o *Origin) { o.Candidate, o.Successor = test.origin, &test.successor })
			p := policy.Decide(Snapshot{Key: barKey, Live: storedBar(), Candidates: test.candidates, Origin: &origin})
			if got := steps(p); !slices.Equal(got, test.steps) {
				t.Errorf("steps %q, want %q", got, test.steps)
			}
			if got := reasonsOf(p); !slices.Equal(got, test.problems) {
				t.Errorf("problems %q, want %q", got, test.problems)
			}
			if p.Successor == nil || p.DeletesMirror() {
				t.Errorf("it counts as a mirror that is not exported any more: %+v", p.Successor)
			}
		})
	}
}

// The same of a remote's part of a merged mirror: it goes once the part that takes its place is complete, and the other
// remotes' parts do not go with it.
func TestRenamePart(t *testing.T) {
	delete4 := "delete bar.paris.ipv4"
	for name, test := range map[string]struct {
		successor *Successor
		change    func(*Origin)
		want      []string
		waits     bool
	}{
		"only this key is looked at":   {change: func(*Origin) {}, waits: true},
		"it waits":                     {successor: &Successor{}, waits: true},
		"it waits, the gateway moved":  {successor: &Successor{}, change: func(o *Origin) { o.Gateway = gatewayAt("192.0.2.9") }, want: []string{"update bar.paris.ipv4"}, waits: true},
		"the successor is complete":    {successor: &Successor{Complete: true}, want: []string{delete4}},
		"its remote is unknown":        {successor: &Successor{Complete: true}, change: func(o *Origin) { o.Known = false }},
		"it is not exported any more":  {change: func(o *Origin) { o.Service = nil }, want: []string{delete4}},
		"unknown whether it is so":     {change: func(o *Origin) { o.Service, o.Known = nil, false }},
		"the new one is not merged":    {successor: &Successor{Complete: true, Endpoints: storedBar().Endpoints}, want: []string{"await slices", delete4}},
		"and it is not complete, then": {successor: &Successor{Endpoints: storedBar().Endpoints}, waits: true},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoint(MergeAll)
			j.export("paris", "192.0.2.1")
			j.export("berlin", "192.0.2.2")
			j.settle(t, inOrder)
			for _, remote := range allRemotes {
				j.policy.Names[remote] = Naming{Template: "the-{service}"}
			}
			s := j.snapshot(Part(mergedKey, "paris"))
			s.Origin.Successor = test.successor
			for i := range s.Candidates {
				s.Candidates[i].Service = nil // under this name
			}
			if test.change != nil {
				test.change(s.Origin)
			}
			p := j.policy.Decide(s)
			var got []string
			for _, step := range p.Steps {
				text := map[Action]string{Update: "update ", Delete: "delete "}[step.Action] + step.Object.GetName()
				if step.Action == AwaitSlices {
					text = "await slices"
				}
				got = append(got, text)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("steps %q, want %q", got, test.want)
			}
			waits := slices.ContainsFunc(p.Problems, func(problem Problem) bool { return problem.Reason == Renaming })
			if waits != test.waits || waits != (p.Requeue == RequeueWithDelay) {
				t.Errorf("it waits: %t, want %t; problems %v, requeue %v", waits, test.waits, p.Problems, p.Requeue)
			}
		})
	}
}

// Whose a mirror is: the label says it, unless the cluster's UID says that someone has edited it.
func TestOwnerOfAnEditedMirror(t *testing.T) {
	paris, rome := parisBar(), parisBar()
	rome.Cluster, rome.UID = "rome", "rome-uid"
	plain := Policy{Names: Names{"paris": {Template: "{service}"}, "rome": {Template: "{service}"}}}
	for name, test := range map[string]struct {
		policy Policy
		label  string
		uid    string
		wanted []Candidate
		want   string
	}{
		"as it was written":                               {plain, "paris", "paris-uid", []Candidate{paris, rome}, "paris"},
		"edited to one that wants the name":               {plain, "rome", "paris-uid", []Candidate{paris, rome}, "paris"},
		"edited to one that does not":                     {plain, "rome", "paris-uid", []Candidate{paris}, "paris"},
		"edited to one that nobody configures":            {plain, "oslo", "paris-uid", []Candidate{paris, rome}, "paris"},
		"without a UID":                                   {plain, "rome", "", []Candidate{paris, rome}, "rome"},
		"without a UID, to one that cannot have the name": {Policy{}, "rome", "", []Candidate{paris}, "paris"},
		"of a remote that is not configured any more":     {plain, "oslo", "oslo-uid", []Candidate{rome}, "oslo"},
	} {
		live := storedBar()
		live.Service.Labels[ClusterLabel] = test.label
		live.Service.Annotations[ClusterUIDAnnotation] = test.uid
		d := decision{policy: test.policy, snapshot: Snapshot{Key: barKey, Live: live}, wanted: test.wanted}
		if got := d.owner(live); got != test.want {
			t.Errorf("%s: got %s, want %s", name, got, test.want)
		}
	}
}
