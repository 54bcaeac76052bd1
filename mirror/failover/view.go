package failover

import (
	"slices"
	"time"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
)

// Rows are the states of the Services that fail over now, by key.
func (c *Controller) Rows() (rows []status.Failover) {
	keys, now := c.options.Local.FailoverKeys(""), time.Now()
	slices.SortFunc(keys, plan.CompareKeys)
	for _, key := range keys {
		s := c.observe(key)
		if s.Service == nil {
			continue
		}
		c.memory.peek(&s, now)
		p := c.options.Policy().Decide(s)
		row := status.Failover{Namespace: key.Namespace, Name: key.Name, State: string(p.State), Serving: p.Serving, Remotes: plan.FailoverRemotes(s.Service)}
		for _, problem := range c.problems.Of(key) {
			row.Problems = append(row.Problems, status.FailoverProblem{Remote: problem.Cluster, Reason: string(problem.Reason), Message: problem.Message})
		}
		rows = append(rows, row)
	}
	return rows
}

// Plans are the plans for all Services that fail over, or did, that have a step to take or a problem, by key. Nothing is
// written.
func (c *Controller) Plans() (all []plan.FailoverPlan) {
	keys := c.keys()
	slices.SortFunc(keys, plan.CompareKeys)
	for _, key := range keys {
		if p := c.options.Policy().Decide(c.observe(key)); len(p.Steps)+len(p.Problems) > 0 {
			all = append(all, p)
		}
	}
	return all
}

// Foresee notes the problems of plans that are not applied, for Rows.
func (c *Controller) Foresee(all []plan.FailoverPlan) {
	for _, p := range all {
		c.problems.Set(p.Key, p.Problems, false)
	}
}

// Awaited tells whether the local endpoints of all Services that fail over are known.
func (c *Controller) Awaited() bool {
	for _, key := range c.options.Local.FailoverKeys("") {
		if _, known := c.watches.of(key); !known {
			return false
		}
	}
	return true
}
