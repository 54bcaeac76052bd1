package mirror

import (
	"context"
	"slices"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/klog/v2/textlogger"
)

// replica is a running controller.
type replica struct {
	controller *Controller
	stop       context.CancelFunc
	ended      chan struct{}
	depose     context.CancelFunc // nil: it does not lead
	deposed    chan struct{}
}

// startReplica starts a controller, which does not lead yet.
func (w *walk) startReplica() {
	logger := textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w.log)))
	options := Options{Workers: 3, Policy: Policy{CopyLabels: []string{"team"}, CopyAnnotations: []string{"note"}, Names: w.names()}}
	r := &replica{controller: New(Clients{Read: w.server.client, Metadata: w.server.meta, Write: w.client}, options, logger), ended: make(chan struct{})}
	var ctx context.Context
	ctx, r.stop = context.WithCancel(w.Context())
	for _, name := range walkRemotes {
		add(r.controller, w.remotes[name].fakeRemote)
	}
	w.replicas = append(w.replicas, r)
	w.hook()
	go func() {
		defer close(r.ended)
		r.controller.Run(ctx)
	}()
	// It cannot remember what it did not see.
	for _, p := range w.places {
		for now := range p.may {
			p.newIP = p.newIP || now.svc.kind != ours
		}
	}
}

// hook connects the remotes to all replicas.
func (w *walk) hook() {
	for _, name := range walkRemotes {
		r := w.remotes[name]
		r.hooks = w.replicas[0].controller.Hooks(name)
		r.hooks.Changed = func(cluster string, before, after *corev1.Service) {
			for _, one := range w.replicas {
				one.controller.exportChanged(cluster, before, after)
			}
		}
		r.hooks.Resync = func(cluster string) {
			for _, one := range w.replicas {
				one.controller.resync(cluster)
			}
		}
	}
}

func (w *walk) lead(i int) {
	r, before := w.replicas[i], w.replicas[i].deposed
	ctx, cancel := context.WithCancel(w.Context())
	r.depose, r.deposed = cancel, make(chan struct{})
	go func(deposed chan struct{}) {
		defer close(deposed)
		if before != nil {
			<-before
		}
		select {
		case <-ctx.Done():
		case <-r.ended:
		case <-r.controller.Ready():
			r.controller.Lead(ctx, 5*time.Second)
		}
	}(r.deposed)
}

func (w *walk) stopReplica(i int) {
	r := w.replicas[i]
	if w.replicas = slices.Delete(w.replicas, i, i+1); len(w.replicas) > 0 {
		w.hook()
	}
	if r.depose != nil {
		r.depose()
	}
	r.stop()
	<-r.ended
	if r.deposed != nil {
		<-r.deposed
	}
	synctest.Wait()
}

func (w *walk) end() {
	for len(w.replicas) > 0 {
		w.stopReplica(0)
	}
}

func (w *walk) replicasChange(g generator) {
	what, n, leads := g.IntN(4), g.IntN(2), g.IntN(5) > 0
	switch {
	case what == 0 && len(w.replicas) < 2:
		w.note("another replica starts")
		w.startReplica()
	case what == 1 && len(w.replicas) > 0:
		w.note("a replica ends")
		w.stopReplica(n % len(w.replicas))
	}
	for _, r := range w.replicas {
		if r.depose != nil {
			r.depose()
			r.depose = nil
		}
	}
	if leads && len(w.replicas) > 0 {
		// A replica that takes over just when a Service is deleted, after its cache has
		// lost it and before the event, does not know the ClusterIP.
		synctest.Wait()
		w.lead(n % len(w.replicas))
		synctest.Wait()
	}
	w.note("of %d replicas one leads: %v", len(w.replicas), leads)
}
