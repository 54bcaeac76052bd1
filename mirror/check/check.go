// Package check finds out, before the daemon runs or when it does not do what is expected, whether the clusters
// can be reached, read and written, and what will not be mirrored. It writes nothing, and keeps nothing. What is
// mirrored is decided by package plan.
package check

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
)

// Options are what the flags say.
type Options struct {
	Local   *rest.Config
	Remotes []remote.Spec
	Remote  remote.Options
	Policy  plan.Policy
	Lease   cache.ObjectName // zero: no election
}

// timeout bounds the check of one cluster.
const timeout = 30 * time.Second

// Run prints a line for each thing that was checked, with a mark: + it is in order, ! something will not work as
// expected, - it must be fixed. It tells whether nothing must be.
func Run(ctx context.Context, options Options, out io.Writer) bool {
	local := &report{cluster: "local cluster " + options.Local.Host, out: out}
	found, ok := local.localCluster(ctx, options)
	var wg sync.WaitGroup
	outs := make([]bytes.Buffer, len(options.Remotes))
	healthy := make([]bool, len(options.Remotes))
	for i, spec := range options.Remotes {
		wg.Go(func() {
			r := &report{cluster: "remote " + spec.Name + " of local cluster " + options.Local.Host, out: &outs[i]}
			r.remoteCluster(ctx, options, spec, found)
			healthy[i] = !r.failed
		})
	}
	wg.Wait()
	for i := range outs {
		io.Copy(out, &outs[i])
		ok = ok && healthy[i]
	}
	return ok && !local.failed
}

// report is the lines about one cluster.
type report struct {
	cluster string
	out     io.Writer
	client  remote.Client // once it is reached
	failed  bool
	missing bool // a permission, which was reported
}

// line prints one line, whatever is in the texts of a remote.
func (r *report) line(mark, format string, args ...any) {
	fmt.Fprintf(r.out, "%s %s: %s\n", mark, failure.Line(r.cluster), failure.Line(fmt.Sprintf(format, args...)))
}

func (r *report) ok(format string, args ...any)   { r.line("+", format, args...) }
func (r *report) warn(format string, args ...any) { r.line("!", format, args...) }
func (r *report) fail(format string, args ...any) {
	r.failed = true
	r.line("-", format, args...)
}

// unread reports what could not be read, unless the permission is missing that was reported.
func (r *report) unread(what string, err error) {
	if !r.missing || !apierrors.IsForbidden(err) {
		r.fail("%s cannot be read: %s", what, remote.Cause(err))
	}
}

// localCluster checks the cluster that is written to.
func (r *report) localCluster(ctx context.Context, options Options) (*target, bool) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	if !r.reach(ctx, options.Local) {
		return nil, false
	}
	r.permissions(ctx, localNeeds(options))
	return r.look(ctx), true
}

// remoteCluster checks one that is read from. local is nil where the local cluster cannot be reached.
func (r *report) remoteCluster(ctx context.Context, options Options, spec remote.Spec, local *target) {
	within := func(check func(ctx context.Context)) { // what is slow leaves time for the rest
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		check(ctx)
	}
	cfg, err := remote.LoadKubeconfig(spec.Kubeconfig, spec.Context)
	if err != nil {
		r.fail("%v", err)
		return
	}
	r.ok("kubeconfig %s is for %s", spec.Kubeconfig, cfg.Host)
	reached := false
	within(func(ctx context.Context) {
		reached = r.reach(ctx, options.Remote.Client.Tune(cfg, spec.Name, &remote.Network{}))
	})
	if !reached {
		return
	}
	var gateways remote.Gateways
	within(func(ctx context.Context) { r.permissions(ctx, remoteNeeds(spec)) })
	within(func(ctx context.Context) { r.identity(ctx, local, spec) })
	within(func(ctx context.Context) { gateways = r.gateways(ctx, spec, options.Remote.Gateway) })
	within(func(ctx context.Context) { r.exports(ctx, local, options, spec, gateways) })
}
