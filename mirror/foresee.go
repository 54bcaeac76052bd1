package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"k8s.io/apimachinery/pkg/util/sets"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
)

// Foreseen is what would be written, and what is in its way.
type Foreseen struct {
	Plans     []plan.Plan
	Failovers []plan.FailoverPlan // of local Services that fail over
	Unknown   error               // lists what is not known, as remotes: nothing would be written for it
}

// Foresee finds out what would be written in the local cluster, whose name is given, once every remote is known or
// time is up. The error is that the local cluster is not known.
func (c *Controller) Foresee(ctx context.Context, remotes []*remote.Remote, local string) (Foreseen, error) {
	select {
	case <-ctx.Done():
		return Foreseen{}, ctx.Err()
	case <-time.After(dryRunTime):
		return Foreseen{}, fmt.Errorf("local cluster %s: cannot read all required objects: run service-mirror check for the cause", local)
	case <-c.Ready():
	}
	unknown := awaitRemotes(ctx, remotes)
	for deadline := time.Now().Add(dryRunTime); !c.failover.Awaited() && ctx.Err() == nil && time.Now().Before(deadline); {
		time.Sleep(50 * time.Millisecond)
	}
	if !c.failover.Awaited() {
		unknown = append(unknown, errors.New("the endpoints of local Services that fail over cannot be read, so their changes are not shown: allow the account to list and watch EndpointSlices"))
	}
	return Foreseen{c.Plans(), c.failover.Plans(), errors.Join(unknown...)}, nil
}

// ForeseenOverview is the overview that a leader would have before its first write.
func (c *Controller) ForeseenOverview(ctx context.Context, remotes []*remote.Remote, local string) (status.Page, error) {
	foreseen, err := c.Foresee(ctx, remotes, local)
	if err != nil {
		return status.Page{}, err
	}
	for _, p := range foreseen.Plans {
		c.problems.Set(p.Key, p.Problems, false)
	}
	c.failover.Foresee(foreseen.Failovers)
	return c.Overview(), nil
}

// Print prints the plans, and last how many objects would be written.
func (f Foreseen) Print(out io.Writer, local string) {
	for _, p := range f.Plans {
		printPlan(out, p, local)
	}
	for _, p := range f.Failovers {
		printFailover(out, p, local)
	}
	fmt.Fprintln(out, f.Counts())
}

// Counts are numbers of objects.
type Counts struct {
	Create int `json:"create"`
	Update int `json:"update"`
	Delete int `json:"delete"`
}

func (n Counts) String() string {
	return fmt.Sprintf("%d create, %d update, %d delete", n.Create, n.Update, n.Delete)
}

// Any tells whether there is an object to write.
func (n Counts) Any() bool { return n != Counts{} }

// Counts counts the objects that would be written. Many mirrors may need one namespace.
func (f Foreseen) Counts() (n Counts) {
	namespaces := sets.New[string]()
	for _, p := range f.Plans {
		for _, step := range p.Steps {
			switch step.Action {
			case plan.CreateNamespace:
				namespaces.Insert(p.Key.Namespace)
			case plan.Create:
				n.Create++
			case plan.Update:
				n.Update++
			case plan.Delete, plan.DeleteLeftover:
				n.Delete++
			}
		}
	}
	for _, p := range f.Failovers {
		for _, step := range sliceSteps(p) {
			switch step.Action {
			case plan.Create:
				n.Create++
			case plan.Update:
				n.Update++
			case plan.Delete:
				n.Delete++
			}
		}
	}
	n.Create += namespaces.Len()
	return n
}

// foreseenStep is a write, for programs.
type foreseenStep struct {
	Action    string `json:"action"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
	Remote    string `json:"remote"`
	Before    any    `json:"before,omitempty"` // as it is live
	After     any    `json:"after,omitempty"`
}

type foreseenProblem struct {
	Mirror   string      `json:"mirror,omitempty"`   // that has it
	Failover string      `json:"failover,omitempty"` // or the local Service that has it and fails over
	Remote   string      `json:"remote"`
	Reason   plan.Reason `json:"reason"`
	Message  string      `json:"message"`
}

// WriteJSON prints the same for programs.
func (f Foreseen) WriteJSON(out io.Writer, local string) error {
	steps, problems, unknown := []foreseenStep{}, []foreseenProblem{}, []string{}
	namespaces := sets.New[string]()
	for _, p := range f.Plans {
		for _, problem := range p.Problems {
			problems = append(problems, foreseenProblem{Mirror: p.Key.String(), Remote: problem.Cluster, Reason: problem.Reason, Message: problem.Message})
		}
		for _, step := range p.Steps {
			if !step.Action.Writes() || step.Action == plan.CreateNamespace && namespaces.Has(p.Key.Namespace) {
				continue
			}
			if step.Action == plan.CreateNamespace {
				namespaces.Insert(p.Key.Namespace)
			}
			steps = append(steps, stepOf(p, step))
		}
	}
	for _, p := range f.Failovers {
		for _, problem := range p.Problems {
			problems = append(problems, foreseenProblem{Failover: p.Key.String(), Remote: problem.Cluster, Reason: problem.Reason, Message: problem.Message})
		}
		for _, step := range sliceSteps(p) {
			steps = append(steps, sliceStepOf(step))
		}
	}
	if f.Unknown != nil {
		unknown = messages(f.Unknown)
	}
	encoder := json.NewEncoder(out)
	encoder.SetIndent("", "  ")
	return encoder.Encode(struct {
		Local string `json:"local"`
		Counts
		Steps    []foreseenStep    `json:"steps"`
		Problems []foreseenProblem `json:"problems"`
		Unknown  []string          `json:"unknown"` // what could not be read, as remotes: nothing would be written for it
	}{local, f.Counts(), steps, problems, unknown})
}

// sliceSteps are the writes of a plan: a slice that is replaced is deleted first.
func sliceSteps(p plan.FailoverPlan) (all []plan.SliceStep) {
	for _, step := range p.Steps {
		if step.Replaces != nil {
			all = append(all, plan.SliceStep{Action: plan.Delete, Remote: step.Remote, Slice: step.Replaces})
		}
		all = append(all, step)
	}
	return all
}

func sliceStepOf(step plan.SliceStep) foreseenStep {
	one := foreseenStep{Action: "delete", Kind: plan.IPv4Slice.String(), Namespace: step.Slice.Namespace, Name: step.Slice.Name, Remote: step.Remote}
	switch step.Action {
	case plan.Create:
		one.Action, one.After = "create", step.Slice
	case plan.Update:
		one.Action, one.Before, one.After = "update", step.Live, step.Slice
	}
	return one
}

func stepOf(p plan.Plan, step plan.Step) foreseenStep {
	one := foreseenStep{Action: "delete", Kind: step.Kind.String(), Namespace: p.Key.Namespace, Remote: p.Cluster}
	switch step.Action {
	case plan.CreateNamespace:
		one.Action, one.Kind, one.Namespace, one.Name = "create", "Namespace", "", p.Key.Namespace
		return one
	case plan.Create:
		one.Action, one.After = "create", step.Object
	case plan.Update:
		one.Action, one.Before, one.After = "update", step.Live, step.Object
	case plan.DeleteLeftover:
		one.Kind = plan.IPv4Slice.String()
	}
	one.Name = step.Object.GetName()
	return one
}

// messages are those of errors that were joined.
func messages(err error) (all []string) {
	if joined, ok := errors.AsType[interface {
		error
		Unwrap() []error
	}](err); ok {
		for _, one := range joined.Unwrap() {
			all = append(all, one.Error())
		}
		return all
	}
	return []string{err.Error()}
}
