package plan

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
)

var (
	allRemotes = []string{"paris", "berlin", "rome"}
	mergedKey  = cache.NewObjectName("default", "bar")
)

// joint is a merged mirror with all that is known of it.
type joint struct {
	policy  Policy
	known   map[string]bool
	exports map[string]Candidate // of remotes that export it, known or not
	live    Objects              // under the mirror's key
	parts   map[string]Objects
	refused map[string]bool // remotes whose slices the API server refuses to write, which is known
	written []string
	uid     int
}

func newJoint(merge Merge) *joint {
	names := Names{}
	for _, remote := range allRemotes {
		names[remote] = Naming{Template: "{service}"}
	}
	return &joint{
		policy: Policy{EndpointsAPI: UseEndpointSlices, Merge: merge, Order: allRemotes, Names: names},
		known:  map[string]bool{"paris": true, "berlin": true, "rome": true}, exports: map[string]Candidate{}, parts: map[string]Objects{}, refused: map[string]bool{},
	}
}

// export has a remote export bar behind a gateway, as fixture.GatewayAt reads its addresses.
func (j *joint) export(remote string, addresses ...string) {
	j.exports[remote] = Candidate{Cluster: remote, UID: types.UID(remote + "-uid"), Watched: true, Service: exportedBar(), Gateway: gatewayAt(addresses...)}
}

func (j *joint) snapshot(key cache.ObjectName) Snapshot {
	s := Snapshot{Key: key, Families: []corev1.IPFamily{ipv4}, Parts: maps.Clone(j.parts), Refused: maps.Clone(j.refused)}
	for _, remote := range slices.Sorted(slices.Values(allRemotes)) {
		if c, exports := j.exports[remote]; j.known[remote] && exports {
			s.Candidates = append(s.Candidates, c)
		} else if j.known[remote] {
			s.Candidates = append(s.Candidates, Candidate{Cluster: remote, Watched: true})
		}
	}
	if _, remote, part := PartOf(key); part {
		s.Live, s.Mirror = j.parts[remote], j.live.Service
		if source, recorded := s.Live.PartSource(); recorded {
			s.Origin = j.origin(remote, source)
		}
	} else {
		s.Live = j.live
		if source, recorded := j.live.Source(); recorded {
			s.Origin = j.origin(j.live.Cluster(), source)
		}
	}
	return s
}

func (j *joint) origin(remote string, source cache.ObjectName) *Origin {
	origin := &Origin{Candidate: Candidate{Cluster: remote}, Source: source, Known: j.known[remote]}
	if c, exports := j.exports[remote]; exports && origin.Known {
		origin.Candidate = c
	}
	return origin
}

func (j *joint) keys() []cache.ObjectName {
	keys := []cache.ObjectName{mergedKey}
	for _, remote := range allRemotes {
		keys = append(keys, Part(mergedKey, remote))
	}
	return keys
}

// sync takes the steps for one key.
func (j *joint) sync(key cache.ObjectName) Plan {
	p := j.policy.Decide(j.snapshot(key))
	_, remote, part := PartOf(key)
	for _, step := range p.Steps {
		if !step.Action.ofKind() || part && j.refused[remote] && step.Action != Delete {
			continue
		}
		obj := step.Object
		j.written = append(j.written, map[Action]string{Create: "create ", Update: "update ", Delete: "delete "}[step.Action]+obj.GetName())
		if step.Action == Delete {
			obj = nil
		} else {
			var one Objects
			one.Set(step.Kind, obj)
			obj = one.DeepCopy().Get(step.Kind)
			if obj.GetUID() == "" {
				j.uid++
				obj.SetUID(types.UID(fmt.Sprint("uid", j.uid)))
			}
			if svc, ok := obj.(*corev1.Service); ok {
				fixture.Allocated(fixture.Defaulted(svc, nil))
			}
		}
		// A step is for the object that it names, and not for what has the key.
		if of, isPart := strings.CutPrefix(step.Object.GetName(), mergedKey.Name+"."); isPart {
			j.set(strings.TrimSuffix(strings.TrimSuffix(of, ".ipv4"), ".ipv6"), step.Kind, obj)
		} else {
			j.live.Set(step.Kind, obj)
		}
	}
	return p
}

// set sets an object of a remote's part.
func (j *joint) set(remote string, kind Kind, obj metav1.Object) {
	of := j.parts[remote]
	of.Set(kind, obj)
	j.parts[remote] = of
	if of.Empty() {
		delete(j.parts, remote)
	}
}

// settle syncs all keys in an order of its own until nothing is left to do.
func (j *joint) settle(t *testing.T, shuffle func(n int, swap func(i, j int))) {
	t.Helper()
	j.written = nil
	for range 10 {
		before := len(j.written)
		keys := j.keys()
		shuffle(len(keys), func(a, b int) { keys[a], keys[b] = keys[b], keys[a] })
		for _, key := range keys {
			writesItsOwn(t, j.sync(key))
		}
		if len(j.written) == before {
			return
		}
	}
	t.Fatalf("it goes on for ever: %q", j.written)
}

// writesItsOwn checks that a plan is of nothing but the objects of its key: a part's, of no other remote's slices.
func writesItsOwn(t *testing.T, p Plan) {
	t.Helper()
	_, remote, part := PartOf(p.Key)
	for _, step := range p.Steps {
		slice, _ := step.Object.(*discoveryv1.EndpointSlice)
		if !part || !step.Action.ofKind() {
			continue
		}
		if slice == nil || !slices.Contains([]string{SliceName(p.Key, discoveryv1.AddressTypeIPv4), SliceName(p.Key, discoveryv1.AddressTypeIPv6)}, slice.Name) {
			t.Fatalf("the part of %s has the step %s", remote, text(step))
		}
	}
}

func inOrder(int, func(i, j int)) {}

// reasons are those of a remote's part.
func (j *joint) reasons(remote string) (reasons []Reason) {
	for _, problem := range j.policy.Decide(j.snapshot(Part(mergedKey, remote))).Problems {
		reasons = append(reasons, problem.Reason)
	}
	return reasons
}

// said are all addresses, with the remote that they are of.
func (j *joint) said() (texts []string) {
	for _, remote := range allRemotes {
		for _, text := range said(j.parts[remote]) {
			texts = append(texts, remote+" "+text)
		}
	}
	return texts
}

func TestMergedServes(t *testing.T) {
	record := func(ready bool) gateway.Assignments {
		return gateway.Assignments{Published: &gateway.Published{Record: &record.Record{Ready: ready}}}
	}
	for name, test := range map[string]struct {
		merge  Merge
		change func(j *joint)
		want   []string
	}{
		"all":                                  {MergeAll, func(j *joint) {}, []string{"paris 192.0.2.1", "berlin 192.0.2.2"}},
		"all, one dead":                        {MergeAll, func(j *joint) { j.export("paris", "192.0.2.1 dead") }, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2"}},
		"first":                                {MergeFirst, func(j *joint) {}, []string{"paris 192.0.2.1", "berlin 192.0.2.2 dead"}},
		"first, it is dead":                    {MergeFirst, func(j *joint) { j.export("paris", "192.0.2.1 dead") }, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2"}},
		"first, half dead":                     {MergeFirst, func(j *joint) { j.export("paris", "192.0.2.1 dead", "192.0.2.3") }, []string{"paris 192.0.2.1 dead", "paris 192.0.2.3", "berlin 192.0.2.2 dead"}},
		"first, without address":               {MergeFirst, func(j *joint) { j.export("paris") }, []string{"berlin 192.0.2.2"}},
		"first, of a family that mirrors lack": {MergeFirst, func(j *joint) { j.export("paris", "2001:db8::1") }, []string{"berlin 192.0.2.2"}},
		"first, not ready by its record": {MergeFirst, func(j *joint) {
			c := j.exports["paris"]
			c.Assigned = record(false)
			j.exports["paris"] = c
		}, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2"}},
		"first, ready by its record": {MergeFirst, func(j *joint) {
			c := j.exports["paris"]
			c.Assigned = record(true)
			j.exports["paris"] = c
		}, []string{"paris 192.0.2.1", "berlin 192.0.2.2 dead"}},
		"first, no port agrees": {MergeFirst, func(j *joint) {
			c := j.exports["berlin"]
			c.Service = exportedBar()
			c.Service.Spec.Ports[0].Port, c.Service.Spec.Ports[1].Port = 1, 2
			j.exports["berlin"] = c
			j.export("paris", "192.0.2.1 dead")
		}, []string{"paris 192.0.2.1 dead"}},
		"first, none is probed yet": {MergeFirst, func(j *joint) {
			j.export("paris", "192.0.2.1 unprobed")
			j.export("berlin", "192.0.2.2 unprobed")
		}, []string{"paris 192.0.2.1", "berlin 192.0.2.2 dead"}},
		"first, only the second is probed": {MergeFirst, func(j *joint) { j.export("paris", "192.0.2.1 unprobed") }, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2"}},
		"first, its slices are refused":    {MergeFirst, func(j *joint) { j.refused["paris"] = true }, []string{"berlin 192.0.2.2"}},
		"first, its slices are refused, and the others are dead": {MergeFirst, func(j *joint) {
			j.refused["paris"] = true
			j.export("berlin", "192.0.2.2 dead")
		}, []string{"berlin 192.0.2.2 dead"}},
		"first, its slices are foreign": {MergeFirst, func(j *joint) {
			slice := RemoteSlices(mergedKey, "paris", true)[0].desired(nil, []corev1.EndpointPort{{Port: 80}}, []endpoint{{netip.MustParseAddr("192.0.2.9"), false}})
			j.parts["paris"] = Objects{IPv4: slice}
		}, []string{"paris 192.0.2.9 dead", "berlin 192.0.2.2"}},
		"first, its slices wait for finalizers": {MergeFirst, func(j *joint) {
			j.export("paris", "192.0.2.1 dead")
			j.settle(t, inOrder)
			j.parts["paris"].IPv4.DeletionTimestamp = &metav1.Time{Time: time.Unix(0, 0)}
			j.export("paris", "192.0.2.1")
		}, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2"}},
		"first, it serves, and its slices are refused now": {MergeFirst, func(j *joint) {
			j.settle(t, inOrder)
			j.refused["paris"] = true
		}, []string{"paris 192.0.2.1", "berlin 192.0.2.2 dead"}},
		"first, the second is unknown": {MergeFirst, func(j *joint) { j.known["berlin"] = false }, []string{"paris 192.0.2.1"}},
		"first, all are dead": {MergeFirst, func(j *joint) {
			j.export("paris", "192.0.2.1 dead")
			j.export("berlin", "192.0.2.2 dead")
		}, []string{"paris 192.0.2.1 dead", "berlin 192.0.2.2 dead"}},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoint(test.merge)
			j.export("paris", "192.0.2.1")
			j.export("berlin", "192.0.2.2")
			test.change(j)
			j.settle(t, inOrder)
			if got := j.said(); !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// What is not known of a remote is as it was, whichever remote served.
func TestMergedUnknownStays(t *testing.T) {
	for name, change := range map[string]func(j *joint, remote string){
		"the remote":  func(j *joint, remote string) { j.known[remote] = false },
		"its gateway": func(j *joint, remote string) { c := j.exports[remote]; c.Gateway = nil; j.exports[remote] = c },
		"its addresses": func(j *joint, remote string) {
			c := j.exports[remote]
			c.Gateway = &gateway.Gateway{Ports: parisGateway().Ports, Partial: true}
			j.exports[remote] = c
		},
		"their health": func(j *joint, remote string) {
			c := j.exports[remote]
			c.Gateway = gatewayAt(j.said()[slices.Index(allRemotes, remote)][len(remote)+1:][:9] + " unprobed")
			j.exports[remote] = c
		},
		"all of them": func(j *joint, _ string) { clear(j.known) },
		"what is exported by it is refused for now": func(j *joint, remote string) {
			c := j.exports[remote]
			c.Gateway, c.Service = nil, exportedBar()
			for i := range c.Service.Spec.Ports {
				c.Service.Spec.Ports[i].Protocol = corev1.ProtocolUDP
			}
			j.exports[remote] = c
		},
	} {
		for _, first := range []string{"", " dead"} {
			for _, remote := range []string{"paris", "berlin"} {
				t.Run(fmt.Sprintf("%s, %s, first %q", name, remote, first), func(t *testing.T) {
					j := newJoint(MergeFirst)
					j.export("paris", "192.0.2.1"+first)
					j.export("berlin", "192.0.2.2")
					j.settle(t, inOrder)
					want := j.said()
					change(j, remote)
					j.settle(t, inOrder)
					if got := j.said(); !slices.Equal(got, want) || len(j.written) > 0 {
						t.Errorf("endpoints %q, want %q; written %q", got, want, j.written)
					}
				})
			}
		}
	}
}

func TestPortConflict(t *testing.T) {
	j := newJoint(MergeAll)
	j.export("paris", "192.0.2.1")
	j.export("berlin", "192.0.2.2")
	j.settle(t, inOrder)
	if reasons := append(j.reasons("paris"), j.reasons("berlin")...); len(reasons) > 0 {
		t.Errorf("without a difference: %v", reasons)
	}
	j.exports["berlin"].Service.Spec.Ports[0].Name = "other"
	j.settle(t, inOrder)
	if !slices.Equal(j.written, []string{"update bar.berlin.ipv4"}) || !slices.Equal(j.reasons("berlin"), []Reason{PortConflict}) || len(j.reasons("paris")) > 0 {
		t.Errorf("written %q, reasons %v and %v", j.written, j.reasons("paris"), j.reasons("berlin"))
	}
	j.exports["paris"].Service.Spec.Ports[0].Name = "other" // and now they agree again
	j.settle(t, inOrder)
	if reasons := append(j.reasons("paris"), j.reasons("berlin")...); len(reasons) > 0 {
		t.Errorf("without a difference: %v", reasons)
	}
}

// The laws of merged mirrors, of any remotes in any state: it ends, the same way in any order of the syncs; only what
// is wanted is there; the Service stays while it is exported; what is unknown stays; no slice is deleted and created again.
func TestMergedLaws(t *testing.T) {
	for seed := range uint64(1500) {
		g := generator{rand.New(rand.NewPCG(seed, 20))}
		j := newJoint(pickOne(g, MergeAll, MergeFirst))
		for range 6 {
			g.disturb(j)
			service, parts := j.live.Service, maps.Clone(j.parts)
			other := *j
			other.parts, other.written = maps.Clone(j.parts), nil
			j.settle(t, g.Shuffle)
			other.settle(t, g.Shuffle)
			where := fmt.Sprintf("seed %d", seed)
			if a, b := text(contentsOf(j)), text(contentsOf(&other)); a != b {
				t.Fatalf("%s: in one order\n%s\nin another\n%s", where, a, b)
			}
			j.check(t, where, service, parts)
		}
	}
}

// disturb changes what a remote exports, or what is known of it.
func (g generator) disturb(j *joint) {
	remote := pickOne(g, allRemotes...)
	switch g.IntN(7) {
	case 6:
		j.configure(remote, !slices.Contains(j.policy.Order, remote))
	case 5:
		j.refused[remote] = !j.refused[remote]
	case 0:
		j.known[remote] = !j.known[remote] && slices.Contains(j.policy.Order, remote)
	case 1:
		delete(j.exports, remote)
	default:
		var addresses []string
		for i := range 2 {
			if g.IntN(3) > 0 {
				addresses = append(addresses, fmt.Sprintf("192.0.2.%d%d", 1+slices.Index(allRemotes, remote), i)+pickOne(g, "", "", " dead", " unprobed"))
			}
		}
		j.export(remote, addresses...)
		c := j.exports[remote]
		if g.IntN(4) == 0 {
			c.Service.Spec.Ports[0].Port = 81
		}
		if g.IntN(6) == 0 {
			c.Gateway = nil
		}
		j.exports[remote] = c
	}
}

// configure adds a remote to the flags, or removes it from them: nothing is known of it then.
func (j *joint) configure(remote string, configured bool) {
	j.known[remote] = configured
	j.policy.Order = slices.DeleteFunc(slices.Clone(allRemotes), func(one string) bool {
		return one == remote && !configured || one != remote && !slices.Contains(j.policy.Order, one)
	})
}

// anothers: the flags name none of the remotes that the mirror lists, so that no other remote gets a part in it.
func (j *joint) anothers() bool {
	listed := Remotes(j.live.Service)
	return len(listed) > 0 && !slices.ContainsFunc(listed, func(one Listed) bool { return slices.Contains(j.policy.Order, one.Remote) })
}

// check checks the laws of one state, in which nothing is left to do; service and parts were there before.
func (j *joint) check(t *testing.T, where string, service *corev1.Service, parts map[string]Objects) {
	t.Helper()
	wanted, ready := false, []string{}
	for _, remote := range allRemotes {
		_, exports := j.exports[remote]
		wanted = wanted || exports && j.known[remote]
		switch part := j.parts[remote]; {
		case !j.known[remote] && text(part) != text(parts[remote]):
			t.Fatalf("%s: the part of %s, which is unknown, was %s and is %s", where, remote, text(parts[remote]), text(part))
		case j.known[remote] && !exports && !part.Empty():
			t.Fatalf("%s: %s does not export it and has a part", where, remote)
		case part.ready():
			ready = append(ready, remote)
		}
		for _, k := range SliceKinds {
			slice, _ := j.parts[remote].Get(k).(*discoveryv1.EndpointSlice)
			if slice == nil {
				continue
			}
			j.checkSlice(t, where, remote, slice)
			if before := parts[remote].Get(k); before != nil && before.GetUID() != slice.UID {
				t.Fatalf("%s: the slice %s is another one: %q", where, slice.Name, j.written)
			}
		}
	}
	if wanted && j.live.Service == nil {
		t.Fatalf("%s: it is exported and has no Service", where)
	}
	if !wanted && len(j.parts) == 0 && len(j.known) == 3 && !slices.Contains(slices.Collect(maps.Values(j.known)), false) && j.live.Service != nil {
		t.Fatalf("%s: nobody exports it and it has a Service", where)
	}
	if service != nil && wanted && service.UID != j.live.Service.UID {
		t.Fatalf("%s: the Service is another one", where)
	}
	known := slices.DeleteFunc(slices.Clone(ready), func(remote string) bool { return !j.known[remote] || j.refused[remote] })
	if j.policy.Merge == MergeFirst && len(known) > 1 {
		t.Fatalf("%s: %v serve", where, ready)
	}
	if j.policy.Merge == MergeFirst && len(ready) == 0 && !j.anothers() {
		for remote, c := range j.exports {
			if j.known[remote] && !j.refused[remote] && c.Gateway != nil && len(j.reasons(remote)) == 0 && slices.ContainsFunc(c.Gateway.Addresses, func(a gateway.Address) bool { return a.Health == gateway.Ready }) {
				t.Fatalf("%s: %s is healthy, and no remote serves", where, remote)
			}
		}
	}
}

func (j *joint) checkSlice(t *testing.T, where, remote string, slice *discoveryv1.EndpointSlice) {
	t.Helper()
	identity, ours := RemoteSliceOf(slice)
	if !ours || identity.Remote != remote || identity.Failover || identity.Key != mergedKey {
		t.Fatalf("%s: the slice of %s is that of %+v, ours %t", where, remote, identity, ours)
	}
	for _, endpoint := range slice.Endpoints {
		addr := netip.MustParseAddr(endpoint.Addresses[0])
		if endpoint.Conditions.Ready == nil || !strings.HasPrefix(addr.String(), fmt.Sprintf("192.0.2.%d", 1+slices.Index(allRemotes, remote))) {
			t.Fatalf("%s: %s has the endpoint %s", where, remote, text(endpoint))
		}
	}
}

// contentsOf is what there is, without what an API server makes up.
func contentsOf(j *joint) any {
	live, parts := j.live.DeepCopy(), map[string]Objects{}
	if live.Service != nil {
		live.Service.UID = ""
	}
	for remote, objects := range j.parts {
		objects = objects.DeepCopy()
		for _, k := range SliceKinds {
			if slice := objects.Get(k); slice != nil {
				slice.SetUID("")
			}
		}
		parts[remote] = objects
	}
	return []any{live, parts}
}

// A mirror that was not merged keeps its addresses until the part of its remote is complete.
func TestMergingKeepsTheAddresses(t *testing.T) {
	// partly has these addresses be known, and others of a family, or of both, not.
	partly := func(missing corev1.IPFamily, addresses ...string) func(*joint) {
		return func(j *joint) {
			j.export("paris", addresses...)
			j.exports["paris"].Gateway.Partial, j.exports["paris"].Gateway.Missing = true, missing
		}
	}
	for name, test := range map[string]struct {
		of, other string
		change    func(j *joint)
		stays     bool
	}{
		"its remote is known":                          {"paris", "berlin", func(*joint) {}, false},
		"its remote is unknown":                        {"paris", "berlin", func(j *joint) { j.known["paris"] = false }, true},
		"its remote has no gateway":                    {"paris", "berlin", func(j *joint) { c := j.exports["paris"]; c.Gateway = nil; j.exports["paris"] = c }, true},
		"its remote is not exported":                   {"paris", "berlin", func(j *joint) { delete(j.exports, "paris") }, false},
		"the second remote's is known":                 {"berlin", "paris", func(*joint) {}, false},
		"the second remote's is unknown":               {"berlin", "paris", func(j *joint) { j.known["berlin"] = false }, true},
		"the second remote's is unknown, then known":   {"berlin", "paris", func(j *joint) { j.known["berlin"] = false; j.settle(t, inOrder); j.known["berlin"] = true }, false},
		"the second remote's is unknown, then gone":    {"berlin", "paris", func(j *joint) { j.known["berlin"] = false; j.settle(t, inOrder); j.configure("berlin", false) }, true},
		"the second remote's is not configured":        {"berlin", "paris", func(j *joint) { j.configure("berlin", false) }, true},
		"the second remote's is not configured so far": {"berlin", "paris", func(j *joint) { j.configure("berlin", false); j.policy.Pending = true }, true},
		"its addresses are unknown":                    {"paris", "berlin", partly("", "192.0.2.3"), true},
		"its IPv4 ones are unknown":                    {"paris", "berlin", partly(ipv4, "2001:db8::1"), true},
		"its IPv6 ones are unknown":                    {"paris", "berlin", partly(ipv6, "192.0.2.1"), false},
	} {
		t.Run(name, func(t *testing.T) {
			j := newJoint(MergeOff)
			j.export(test.of, "192.0.2.1")
			j.settle(t, inOrder)
			old := j.live
			if old.IPv4 == nil || len(j.parts) > 0 {
				t.Fatalf("not merged, it is %s", text(old))
			}
			j.policy.Merge = MergeFirst
			j.export(test.other, "192.0.2.2")
			test.change(j)
			for range 3 {
				j.settle(t, inOrder)
			}
			if stays := j.live.IPv4 != nil; stays != test.stays {
				t.Errorf("the old slice is left: %t, want %t; %q", stays, test.stays, j.said())
			}
			if j.live.Service.UID != old.Service.UID || j.live.Service.Spec.ClusterIP != old.Service.Spec.ClusterIP {
				t.Error("the Service is another one")
			}
		})
	}
}

// An export that appears after the candidates were read is no absence.
func TestMergedPartOfALateExport(t *testing.T) {
	j := newJoint(MergeAll)
	j.export("paris", "192.0.2.1")
	j.settle(t, inOrder)
	s := j.snapshot(Part(mergedKey, "paris"))
	for i := range s.Candidates {
		s.Candidates[i].Service = nil
	}
	if p := j.policy.Decide(s); len(p.Steps) > 0 {
		t.Errorf("steps %+v", p.Steps)
	}
	s.Origin.Service = nil
	if p := j.policy.Decide(s); !p.Writes(IPv4Slice) {
		t.Error("without the export it stays")
	}
}

// A merged mirror of remotes that the flags do not name, with parts or without, may be another daemon's.
func TestMergedMirrorOfOthers(t *testing.T) {
	for _, merge := range []Merge{MergeOff, MergeAll} {
		j := newJoint(MergeAll)
		j.export("paris", "192.0.2.1")
		j.settle(t, inOrder)
		j.policy.Merge, j.policy.Order = merge, []string{"oslo"}
		delete(j.exports, "paris")
		clear(j.known)
		j.settle(t, inOrder)
		if len(j.written) > 0 {
			t.Errorf("merge=%s: written %q", merge, j.written)
		}
		clear(j.parts) // it has none yet, or they were pruned
		j.settle(t, inOrder)
		if len(j.written) > 0 {
			t.Errorf("merge=%s, without parts: written %q", merge, j.written)
		}
		j.policy.Order, j.known["berlin"] = []string{"berlin"}, true // one that wants the name does not get it
		j.export("berlin", "192.0.2.2")
		j.settle(t, inOrder)
		if problems := j.policy.Decide(j.snapshot(mergedKey)).Problems; len(j.written) > 0 || len(problems) != 1 || problems[0].Reason != Conflict {
			t.Errorf("merge=%s: written %q, problems %v", merge, j.written, problems)
		}
	}
}
