// Package check finds out, before the daemon runs or when it does not do what is expected, whether the clusters
// can be reached, read and written, and what will not be mirrored. It writes nothing, and keeps nothing. What is
// mirrored is decided by package plan. Report and Tally are for the checks of other commands, too.
package check

import (
	"bytes"
	"context"
	"io"
	"sync"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Options are what the flags say.
type Options struct {
	Local   *rest.Config
	Remotes []remote.Spec
	// Problems are what is wrong with how remotes are configured, by their names.
	Problems map[string]error
	From     string // namespace of Secrets that configure remotes; empty: none do
	Unread   error  // why not all of these are used
	Remote   remote.Options
	Policy   plan.Policy
	Lease    cache.ObjectName // zero: no election
	Name     string           // of the local cluster, in the report
}

// timeout bounds the check of one cluster.
const timeout = 30 * time.Second

// Run prints a line for each thing that was checked, with a mark: + it is in order, ! something will not work as
// expected, - it must be fixed. It returns the same as data.
func Run(ctx context.Context, options Options, out io.Writer) Result {
	local := NewReport("local cluster "+options.Name, out)
	found := local.localCluster(ctx, options)
	var wg sync.WaitGroup
	outs := make([]bytes.Buffer, len(options.Remotes))
	reports := []*Report{local}
	for i, spec := range options.Remotes {
		r := NewReport("remote "+spec.Name+" of local cluster "+options.Name, &outs[i])
		reports = append(reports, r)
		wg.Go(func() { r.remoteCluster(ctx, options, spec, found) })
	}
	wg.Wait()
	reportMerged(options.Policy, found, reports[1:])
	for i := range outs {
		io.Copy(out, &outs[i])
	}
	return ResultOf(reports...)
}

// localCluster checks the cluster that is written to, and returns what exists there; nil where it cannot be reached.
func (r *Report) localCluster(ctx context.Context, options Options) *target {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !r.Reach(ctx, options.Local) {
		return nil
	}
	r.Permissions(ctx, localNeeds(options))
	if options.Unread != nil {
		r.Fail("%v", options.Unread)
	}
	t := r.look(ctx)
	if options.Policy.Merges() {
		r.lookAtParts(ctx, t)
	}
	r.failover(ctx, options, t)
	return t
}

// remoteCluster checks one that is read from. local is nil where the local cluster cannot be reached.
func (r *Report) remoteCluster(ctx context.Context, options Options, spec remote.Spec, local *target) {
	within := func(check func(ctx context.Context)) { // what is slow leaves time for the rest
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		check(ctx)
	}
	if problem := options.Problems[spec.Name]; problem != nil {
		if !spec.Usable() {
			r.Fail("%v", problem)
			return
		}
		r.Warn("%v", problem)
	}
	cfg, err := spec.Load()
	if err != nil {
		r.Fail("%v", err)
		return
	}
	r.OK("kubeconfig %s points to %s", spec.KubeconfigName(), cfg.Host)
	reached := false
	within(func(ctx context.Context) {
		reached = r.Reach(ctx, options.Remote.Client.Tune(cfg, spec.Name, &remote.Network{}))
	})
	if !reached {
		return
	}
	var gateways remote.Gateways
	within(func(ctx context.Context) { r.Permissions(ctx, remoteNeeds(spec)) })
	within(func(ctx context.Context) { r.identity(ctx, local, spec) })
	within(func(ctx context.Context) { gateways = r.gateways(ctx, spec, options.Remote.Gateway) })
	within(func(ctx context.Context) { r.exports(ctx, local, options, spec, gateways) })
}
