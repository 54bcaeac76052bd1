package mirror

import (
	"context"
	"sync"

	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/secrets"
)

// Runner is a remote that reads its cluster while it runs.
type Runner interface {
	Remote
	Run(ctx context.Context)
	// Misconfigured says what is wrong with how it is configured; nil: nothing is.
	Misconfigured(err error)
}

// Fleet runs the remotes that are configured, each alone, and has the controller know them.
type Fleet struct {
	Controller *Controller
	New        func(spec remote.Spec, hooks remote.Hooks) Runner
	Names      func([]remote.Spec) plan.Names

	running sync.WaitGroup
	mu      sync.Mutex
	members map[string]*member
	ending  map[string]<-chan struct{} // of former members that may still run, by name
}

// member is a remote that runs.
type member struct {
	spec  remote.Spec
	found Runner
	stop  context.CancelFunc
	after <-chan struct{} // closed when the one of this name before it has ended; nil: there is none
	ended chan struct{}
}

// Set has these remotes run until the context ends, and no others. pending tells that there may be more, which are not known
// yet. Changed credentials are taken up by the remote that runs; one of which anything else has changed is replaced. It is
// not called concurrently.
func (f *Fleet) Set(ctx context.Context, set secrets.Set, pending bool) {
	logger := klog.FromContext(ctx)
	next := Configuration{Pending: pending}
	members, fresh := map[string]*member{}, []*member{}
	var specs []remote.Spec
	for _, one := range set.Remotes {
		m := f.members[one.Name]
		if m == nil || !m.keeps(one) {
			m = f.replace(m, one)
			fresh = append(fresh, m)
		}
		m.found.Misconfigured(one.Problem)
		members[one.Name] = m
		next.Remotes = append(next.Remotes, m.found)
		next.Order = append(next.Order, one.Name)
		specs = append(specs, m.spec)
	}
	next.Names = f.Names(specs)
	before := f.members
	f.mu.Lock()
	f.members = members
	f.mu.Unlock()
	f.Controller.Configure(next)
	for name, m := range before {
		switch {
		case members[name] == m:
			continue
		case members[name] == nil:
			logger.Info("Remote is no longer configured; its mirrors are kept until they are pruned", "cluster", name, "before", m.spec.Where())
		default:
			logger.Info("Remote is configured differently; its mirrors are kept unchanged until it has been read", "cluster", name, "by", members[name].spec.Where())
		}
		m.stop()
	}
	for _, m := range fresh {
		if before[m.spec.Name] == nil && m.spec.Inline != nil {
			logger.Info("Remote is configured", "cluster", m.spec.Name, "by", m.spec.Where())
		}
		f.start(ctx, m)
	}
}

// keeps tells whether a member is as it is to be now, but for credentials, which it takes up. What cannot be used replaces
// nothing that can: a mistake in a Secret, or another Secret in its place,
// does not end a remote that is followed.
func (m *member) keeps(one secrets.Configured) bool {
	if !one.Usable() {
		return m.spec.Usable() || m.spec.Secret == one.Secret
	}
	if !m.spec.Same(one.Spec) {
		return false
	}
	if one.Inline != nil {
		m.spec.Inline.Set(one.Inline.Content())
	}
	return true
}

// replace makes the member for a remote, in place of one that is there or has been.
func (f *Fleet) replace(old *member, one secrets.Configured) *member {
	m := &member{spec: one.Spec, ended: make(chan struct{})}
	m.found = f.New(one.Spec, f.Controller.Hooks(one.Name))
	f.mu.Lock()
	defer f.mu.Unlock()
	m.after = f.ending[one.Name]
	if old != nil {
		m.after = old.ended
	}
	if f.ending == nil {
		f.ending = map[string]<-chan struct{}{}
	}
	f.ending[one.Name] = m.ended
	return m
}

// start runs a member once the one before it has ended.
func (f *Fleet) start(ctx context.Context, m *member) {
	name := m.spec.Name
	running, stop := context.WithCancel(ctx)
	m.stop = stop
	f.running.Go(func() {
		defer stop()
		if m.after != nil {
			<-m.after
		}
		f.Controller.options.Metrics.Begin(name)
		m.found.Run(running)
		if ctx.Err() == nil { // else the program ends
			f.Controller.Forget(name)
		}
		f.mu.Lock()
		if f.ending[name] == m.ended {
			delete(f.ending, name)
		}
		f.mu.Unlock()
		close(m.ended)
	})
}

// Wait waits until all have ended.
func (f *Fleet) Wait() { f.running.Wait() }

// Running are the remotes that run, or are about to, by the order of their names.
func (f *Fleet) Running() (all []Runner) {
	for _, r := range f.Controller.remotes.all() {
		if runner, ok := r.(Runner); ok {
			all = append(all, runner)
		}
	}
	return all
}
