package publish

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/remote/failure"
)

// dryRunTime is how long a dry run waits for what must be known of the cluster.
const dryRunTime = 30 * time.Second

// DryRun prints what would be written in the cluster, whose name is given. The error says what is not known.
func (c *Controller) DryRun(ctx context.Context, cluster string, out io.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(dryRunTime):
		return fmt.Errorf("cluster %s: cannot read all required objects: grant the permissions in deploy/publish", cluster)
	case <-c.Ready():
	}
	c.settle(ctx, dryRunTime)
	c.memory.fill(c.caches.records.Informer.All())
	keys := c.caches.keys()
	slices.SortFunc(keys, mirrors.CompareKeys)
	printed := false
	for _, key := range slices.Compact(keys) {
		p := c.decide(ctx, key)
		printed = printPlan(out, p, cluster) || printed
	}
	printed = c.printListeners(out, cluster) || printed
	printed = c.printSets(out, cluster) || printed
	if !printed {
		fmt.Fprintln(out, "no changes in", cluster)
	}
	if !c.caches.settled() {
		return errors.New("cannot read all required objects of the cluster, so there may be more changes: grant the permissions in deploy/publish")
	}
	return nil
}

// printListeners shows which listeners of ours the Gateway itself would have, now that it is known which ports need them.
func (c *Controller) printListeners(to io.Writer, cluster string) (printed bool) {
	if c.caches.gateway == nil {
		return false
	}
	gw := c.caches.gatewayNow()
	if !gw.Exists || !gw.Managed {
		return false
	}
	listeners, changed := c.planListeners(gw)
	if changed {
		fmt.Fprintln(to, failure.Line(fmt.Sprintf("apply listeners of Gateway %v in %s", gw.Name, cluster)))
		io.WriteString(to, report.Diff(gw.LiveListeners(), listeners))
	}
	return changed
}

// printSets shows what would be written of ListenerSets, now that it is known which ports need them.
func (c *Controller) printSets(to io.Writer, cluster string) (printed bool) {
	steps, conflicts := c.planSets(c.caches.gatewayNow())
	if conflicts != nil {
		fmt.Fprintln(to, failure.Line(fmt.Sprintf("! %s in %s: %s: %v", listenersPart, cluster, mirrors.Conflict, conflicts)))
	}
	for _, step := range steps {
		fmt.Fprintln(to, failure.Line(fmt.Sprintf("%s ListenerSet %s in %s", step.Action, cache.MetaObjectToName(step.Object), cluster)))
		printStep(to, step)
	}
	return conflicts != nil || len(steps) > 0
}

// printPlan shows the problems of a plan, and its writes as unified diffs.
func printPlan(to io.Writer, p plan.Plan, cluster string) (printed bool) {
	print := func(format string, args ...any) {
		fmt.Fprintln(to, failure.Line(fmt.Sprintf(format, args...)))
		printed = true
	}
	for _, problem := range p.Problems {
		print("! exported Service %v in %s: %s: %s", p.Key, cluster, problem.Reason, problem.Message)
	}
	for _, step := range p.Steps {
		print("%s %s %s for exported Service %v in %s", step.Action, step.Ref.Kind, step.Ref.Name, p.Key, cluster)
		printStep(to, step)
	}
	return printed
}

// printStep shows a write as a unified diff.
func printStep(to io.Writer, step plan.Step) {
	changes := func(before, after any) { io.WriteString(to, report.Diff(before, after)) }
	switch {
	case step.Action == plan.Delete:
	case step.Record != nil:
		changes(nil, step.Record)
	case step.Action == plan.Create:
		changes(nil, step.Object.Object)
	default:
		changes(step.Live.Object, step.Object.Object)
	}
}
