package mirror

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// dryRunTime is how long a dry run waits for what must be known of the local cluster,
// and then for the remotes.
const dryRunTime = 30 * time.Second

// DryRun prints what would be written in the local cluster, whose name is given, once
// every remote is known or time is up. The error lists what is not known: nothing
// would be written for it.
func (c *Controller) DryRun(ctx context.Context, remotes []*remote.Remote, local string, out io.Writer) error {
	foreseen, err := c.Foresee(ctx, remotes, local)
	if err != nil {
		return err
	}
	for _, p := range foreseen.Plans {
		printPlan(out, p, local)
	}
	for _, p := range foreseen.Failovers {
		printFailover(out, p, local)
	}
	if len(foreseen.Plans)+len(foreseen.Failovers) == 0 {
		fmt.Fprintln(out, "no changes in", local)
	}
	return foreseen.Unknown
}

// awaitRemotes waits until every remote is known, and lists those that are not in time.
func awaitRemotes(ctx context.Context, remotes []*remote.Remote) []error {
	for deadline := time.Now().Add(dryRunTime); ; time.Sleep(50 * time.Millisecond) {
		var unknown []error
		for _, r := range remotes {
			if err := r.Unknown(); err != nil {
				unknown = append(unknown, fmt.Errorf("remote %s cannot be read, so its changes are not shown: %w", r.Name(), err))
			}
		}
		if len(unknown) == 0 || ctx.Err() != nil || time.Now().After(deadline) {
			return unknown
		}
	}
}

// Plans are the plans for all keys of all remotes that have a step to take or a problem, by key. Nothing is
// written.
func (c *Controller) Plans() []plan.Plan {
	keys := map[cache.ObjectName]bool{}
	for _, r := range c.remotes.all() {
		for _, key := range c.keysOf(r.Name()) {
			keys[key] = true
			for remote := range c.partsOf(plan.MirrorKey(key)) {
				keys[plan.Part(plan.MirrorKey(key), remote)] = true
			}
		}
	}
	var all []plan.Plan
	for _, key := range slices.SortedFunc(maps.Keys(keys), plan.CompareKeys) {
		if p := c.planned(key); p.Writes() || p.Successor != nil || len(p.Problems) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// printPlan shows the problems of a plan, and its writes as unified diffs. local is the name of the cluster that
// would be written to. What a remote wrote is printable, and makes no line of its own.
func printPlan(to io.Writer, p plan.Plan, local string) {
	print := func(format string, args ...any) { fmt.Fprintln(to, failure.Line(fmt.Sprintf(format, args...))) }
	changes := func(before, after any) { io.WriteString(to, report.Diff(before, after)) }
	key := plan.MirrorKey(p.Key)
	if _, remote, part := plan.PartOf(p.Key); part && p.Standby {
		print("mirror %v in %s: remote %s is on standby", key, local, remote)
	}
	for _, problem := range p.Problems {
		print("! mirror %v in %s for remote %s: %s: %s", key, local, problem.Cluster, problem.Reason, problem.Message)
	}
	where := fmt.Sprintf("in %s for remote %s", local, p.Cluster)
	if p.Source != nil {
		if all := p.Source.Mapping(); len(all) > 0 {
			print("ports of mirror %v %s: %s", key, where, gateway.Texts(all, 20))
		}
	}
	switch {
	case p.Successor == nil:
	case p.Successor.Circular && !p.Successor.Complete:
		print("rename mirror %v to %v %s: it is deleted first, because mirrors swap names", key, p.Successor.Key, where)
	default:
		print("rename mirror %v to %v %s: it is deleted as soon as the new one is complete", key, p.Successor.Key, where)
	}
	for _, step := range p.Steps {
		switch step.Action {
		case plan.CreateNamespace:
			print("create Namespace %s %s", p.Key.Namespace, where)
		case plan.Create:
			print("create %s %v %s", step.Kind.Title(), key, where)
			changes(nil, step.Object)
		case plan.Update:
			print("update %s %v %s", step.Kind.Title(), key, where)
			changes(step.Live, step.Object)
		case plan.Delete:
			print("delete %s %v %s", step.Kind.Title(), key, where)
		case plan.DeleteLeftover:
			print("delete leftover EndpointSlice %v of a selector %s", cache.MetaObjectToName(step.Object), where)
		}
	}
}

// printFailover shows the same of a Service that fails over.
func printFailover(to io.Writer, p plan.FailoverPlan, local string) {
	print := func(format string, args ...any) { fmt.Fprintln(to, failure.Line(fmt.Sprintf(format, args...))) }
	changes := func(before, after any) { io.WriteString(to, report.Diff(before, after)) }
	for _, problem := range p.Problems {
		print("! failover of Service %v in %s to remote %s: %s: %s", p.Key, local, cmp.Or(problem.Cluster, "any"), problem.Reason, problem.Message)
	}
	for _, step := range p.Steps {
		where := fmt.Sprintf("in %s for failover of Service %v to remote %s", local, p.Key, step.Remote)
		name := cache.MetaObjectToName(step.Slice)
		switch step.Action {
		case plan.Create:
			if step.Replaces != nil {
				print("delete EndpointSlice %v, which lacks its label, %s", name, where)
			}
			print("create EndpointSlice %v %s", name, where)
			changes(nil, step.Slice)
		case plan.Update:
			print("update EndpointSlice %v %s", name, where)
			changes(step.Live, step.Slice)
		case plan.Delete:
			print("delete EndpointSlice %v %s", name, where)
		}
	}
}
