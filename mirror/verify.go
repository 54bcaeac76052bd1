package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/verify"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// Wanted are the mirrors to verify.
type Wanted struct {
	Mirrors []string // NAMESPACE/NAME, or NAME in any namespace; empty: all
	Remote  string   // of these only; empty: of all
	JSON    bool
	From    string // where requests are sent from
}

// verifyWorkers is how many ports are verified at once.
const verifyWorkers = 8

// verification is what came of one port at one address.
type verification struct {
	Mirror  string                `json:"mirror"`
	Remote  string                `json:"remote"`
	Port    string                `json:"port"`
	Class   gateway.Class         `json:"class,omitempty"`
	Address string                `json:"address,omitempty"` // of the gateway, with its port
	Result  verify.Result         `json:"result"`
	Answer  string                `json:"answer"`
	Remedy  string                `json:"remedy"`
	Latency float64               `json:"latencySeconds,omitempty"`
	Names   []string              `json:"certificateNames,omitempty"`
	Lasting bool                  `json:"lasting,omitempty"` // waiting does not change it
	outcome <-chan verify.Outcome // nil: there is nothing to dial
}

// Verify sends a request to each port of the mirrors that are wanted, at each address of their gateways, and
// prints what came of it. They need not exist yet: what is dialled is what the daemon would write. The error says
// that something was not reached, or is not known, or is ErrNoMirror or Unverifiable; Awaited says which part
// of it waiting may change.
func (c *Controller) Verify(ctx context.Context, remotes []*remote.Remote, want Wanted, out io.Writer) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(dryRunTime):
		return errors.New("local cluster: cannot read all required objects: run service-mirror check for the cause")
	case <-c.Ready():
	}
	if want.Remote != "" {
		remotes = slices.DeleteFunc(slices.Clone(remotes), func(r *remote.Remote) bool { return r.Name() != want.Remote })
	}
	unknown := errors.Join(awaitRemotes(ctx, remotes)...)
	var all []*verification
	var missing []error
	plans := c.wanted(want)
	for _, name := range want.Mirrors {
		if !slices.ContainsFunc(plans, func(p plan.Plan) bool { return meant(p.Key, name) }) {
			missing = append(missing, fmt.Errorf("mirror %.320s: no remote exports its Service: check the name, and that the Service matches --export-selector", name))
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() { cancel(); running.Wait() }()
	slots := make(chan struct{}, verifyWorkers)
	for _, p := range plans {
		list, checks := verificationsOf(p, c.options.Domain)
		c.explain(list, p)
		for i, v := range list {
			if checks[i].None != "" {
				continue
			}
			outcome := make(chan verify.Outcome, 1)
			v.outcome = outcome
			running.Go(func() {
				select {
				case <-ctx.Done():
				case slots <- struct{}{}:
					outcome <- c.verified.check(ctx, checks[i].Target)
					<-slots
				}
			})
		}
		all = append(all, list...)
	}
	if err := printVerifications(ctx, all, want, out); err != nil {
		return err
	}
	if err := errors.Join(append(missing, unknown)...); err != nil {
		return errors.Join(err, verdict(all))
	}
	if len(all) == 0 {
		return ErrNoMirror
	}
	return verdict(all)
}

// wanted are the plans of the mirrors that are wanted, by key.
func (c *Controller) wanted(want Wanted) (plans []plan.Plan) {
	keys := map[cache.ObjectName]bool{}
	for _, r := range c.remotes.all() {
		for _, key := range c.remotes.reported(r.Name()) {
			if want.Remote != "" && r.Name() != want.Remote {
				continue
			}
			if len(want.Mirrors) == 0 || slices.ContainsFunc(want.Mirrors, func(name string) bool { return meant(key, name) }) {
				keys[key] = true
			}
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(keys), plan.CompareKeys) {
		plans = append(plans, c.planned(key))
	}
	return plans
}

// meant tells whether a user means a mirror.
func meant(key cache.ObjectName, name string) bool {
	key = plan.MirrorKey(key)
	return name == key.String() || name == key.Name || name == key.Name+"."+key.Namespace
}

// verificationsOf are those of a mirror, before they are made: one at least.
func verificationsOf(p plan.Plan, domain string) (all []*verification, checks []checkable) {
	cluster := p.Cluster
	if checks = checkables(p, domain); len(checks) == 0 { // there is to be no mirror
		checks = []checkable{{None: noEndpoint(p), Lasting: lasting(p)}}
		if len(p.Problems) > 0 {
			cluster = p.Problems[0].Cluster
		}
	}
	for _, one := range checks {
		v := &verification{Mirror: plan.MirrorKey(p.Key).String(), Remote: cluster, Port: one.Port, Result: verify.NoEndpoint, Answer: one.None, Lasting: one.Lasting}
		if one.None == "" {
			v.Class, v.Address = one.Target.Class, one.Target.Address.String()
		}
		all = append(all, v)
	}
	return all, checks
}

// explain adds the problems of the remote's gateway to what refers to them: the command shows them nowhere else.
func (c *Controller) explain(list []*verification, p plan.Plan) {
	i := slices.IndexFunc(p.Problems, func(problem plan.Problem) bool { return problem.Reason == plan.NoAddress })
	if i < 0 {
		return
	}
	r := c.remotes.get(p.Problems[i].Cluster)
	if r == nil {
		return
	}
	for _, problem := range r.Status().Problems {
		if problem.Kind() != remote.GatewayProblem {
			continue
		}
		for _, v := range list {
			if v.Result == verify.NoEndpoint {
				v.Answer += ": " + problem.Part + ": " + problem.Cause
			}
		}
	}
}

// await fills in what came of it.
func (v *verification) await(ctx context.Context) error {
	if v.outcome == nil {
		return nil
	}
	select {
	case <-ctx.Done():
	case got := <-v.outcome:
		v.Result, v.Answer, v.Remedy, v.Latency, v.Names, v.Lasting = got.Result, got.Answer, got.Remedy, got.Latency.Seconds(), got.Names, got.Lasting
	}
	return ctx.Err() // an outcome may come of the interruption
}

func printVerifications(ctx context.Context, all []*verification, want Wanted, out io.Writer) error {
	if !want.JSON {
		fmt.Fprintf(out, "Verified from %s; pods may use another network.\n", failure.Line(want.From))
	}
	for _, v := range all {
		if err := v.await(ctx); err != nil {
			return err
		}
		if !want.JSON {
			fmt.Fprintln(out, failure.Line(v.String()))
		}
	}
	if want.JSON {
		encoder := json.NewEncoder(out)
		encoder.SetIndent("", "  ")
		return encoder.Encode(struct {
			From    string          `json:"from"`
			Results []*verification `json:"results"`
		}{want.From, append([]*verification{}, all...)})
	}
	return nil
}

// String is the line for people: the result, what was verified, and what to do.
func (v *verification) String() string {
	text := fmt.Sprintf("%-12s %s", v.Result, v.Mirror)
	if v.Port != "" {
		text += ", port " + v.Port
	}
	if v.Address != "" {
		text += fmt.Sprintf(", %s to %s", v.Class, v.Address)
	}
	if v.Latency > 0 {
		text += fmt.Sprintf(", %.0f ms", max(1, 1000*v.Latency))
	}
	text += ": " + v.Answer
	if v.Remedy != "" {
		text += ": " + v.Remedy
	}
	if len(v.Names) > 0 && v.Result != verify.Certificate { // whose answer names them
		text += ", certificate for " + strings.Join(v.Names, ", ")
	}
	return text
}
