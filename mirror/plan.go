package mirror

import (
	"fmt"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"

	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/util/diff"
	"k8s.io/client-go/tools/cache"
)

// Planned is what would be written for one mirror, and what is wrong with it.
type Planned struct {
	Key      cache.ObjectName
	Cluster  string // the remote
	Changes  Changes
	Live     Objects
	Problems []Problem
	// MakeNamespace tells that its namespace would be made first.
	MakeNamespace bool
}

// Plan is all that would be written now, by key. It writes nothing.
func (c *Controller) Plan() []Planned {
	keys := map[cache.ObjectName]bool{}
	for _, r := range c.remotes {
		for _, key := range c.keysOf(r.Name()) {
			keys[key] = true
		}
	}
	var all []Planned
	for _, key := range slices.SortedFunc(maps.Keys(keys), func(a, b cache.ObjectName) int { return strings.Compare(a.String(), b.String()) }) {
		found, j := c.decide(key)
		planned := Planned{Key: key, Problems: found.problems}
		if j != nil {
			planned.Changes, planned.Live, planned.MakeNamespace, planned.Cluster = j.changes, j.live, j.makeNamespace, j.cluster()
		}
		if len(planned.Problems) > 0 || !planned.Changes.Empty() {
			all = append(all, planned)
		}
	}
	return all
}

// Print shows the problems, and the writes as unified diffs. local is the name of
// the cluster that would be written to.
func (p Planned) Print(to io.Writer, local string) {
	for _, problem := range p.Problems {
		fmt.Fprintf(to, "! mirror %v in %s for remote %s: %s: %s\n", p.Key, local, problem.Cluster, problem.Reason, problem.Message)
	}
	where := fmt.Sprintf("in %s for remote %s", local, p.Cluster)
	if p.MakeNamespace {
		fmt.Fprintf(to, "create Namespace %s %s\n", p.Key.Namespace, where)
	}
	show := func(kind string, create, update, deleted, live any) {
		switch {
		case !reflect.ValueOf(create).IsNil():
			fmt.Fprintf(to, "create %s %v %s\n%s", kind, p.Key, where, lines(diff.Diff(nil, create)))
		case !reflect.ValueOf(update).IsNil():
			fmt.Fprintf(to, "update %s %v %s\n%s", kind, p.Key, where, lines(diff.Diff(live, update)))
		case !reflect.ValueOf(deleted).IsNil():
			fmt.Fprintf(to, "delete %s %v %s\n", kind, p.Key, where)
		}
	}
	ch := p.Changes
	show("Service", ch.Create.Service, ch.Update.Service, ch.Delete.Service, p.Live.Service)
	show("Endpoints", ch.Create.Endpoints, ch.Update.Endpoints, ch.Delete.Endpoints, p.Live.Endpoints)
	show("EndpointSlice "+string(discoveryv1.AddressTypeIPv4), ch.Create.IPv4, ch.Update.IPv4, ch.Delete.IPv4, p.Live.IPv4)
	show("EndpointSlice "+string(discoveryv1.AddressTypeIPv6), ch.Create.IPv6, ch.Update.IPv6, ch.Delete.IPv6, p.Live.IPv6)
}

// lines leaves out the line of a diff that says that before there was nothing.
func lines(text string) string {
	return strings.ReplaceAll(strings.TrimSuffix(text, "\n")+"\n", "-null\n", "")
}
