package publish

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/write"
	"service-mirror.io/service-mirror/remote"
)

// newSets makes the cache of ListenerSets, of all namespaces: others' have gateway ports, too. Where no Gateway is given,
// it is of ours alone: those that other flags have made are deleted.
func (c *caches) newSets() {
	c.sets = &kind{resource: plan.ListenerSet.Resource(), versions: plan.ListenerSet.Versions(), changed: c.setChanged,
		synced: func() { c.readGateway(); c.hooks.changed(listenersKey) }, narrow: func(*metav1.ListOptions) {}}
	if c.gateway == nil {
		c.sets.namespace = c.policy.Records
	}
}

// setChanged has the Gateway read again for a ListenerSet that concerns it. Most others' do not, and each may change often.
func (c *caches) setChanged(before, after *remote.Unstructured) {
	for _, obj := range []*remote.Unstructured{before, after} {
		switch {
		case obj == nil:
		case obj.GetNamespace() == c.policy.Records: // it may have drifted
			c.readGateway()
			c.hooks.changed(listenersKey)
			return
		case c.policy.Adds(&obj.Unstructured):
			c.readGateway()
			return
		}
	}
}

// reportSets passes on why ListenerSets cannot be read, but where the Gateway has no use for them.
func (c *caches) reportSets(part string, err error) {
	if err != nil && c.gateway != nil {
		c.readGateway() // what it says of them has the cause
		if use := c.gatewayNow().Sets; !use.Used && use.Unknown == "" {
			err = nil
		}
	}
	c.hooks.report(part, err)
}

// readSets is what is known of ListenerSets.
func (c *caches) readSets() plan.Sets {
	version, known := c.sets.state()
	sets := plan.Sets{Served: version != "", Known: known, Err: c.sets.problem(), Namespace: c.policy.Records}
	if ns := c.namespaces.Get(cache.NewObjectName("", c.policy.Records)); ns != nil {
		sets.Labels = ns.Labels
	}
	if objects := c.sets.cached(); known && objects != nil {
		sets.Objects = latest(objects)
	}
	return sets
}

// latest are all objects of a cache, those just written included.
func latest(objects *remote.Written[*remote.Unstructured]) (all []*unstructured.Unstructured) {
	for _, obj := range objects.All() {
		all = append(all, &obj.Unstructured)
	}
	return all
}

// planSets is what is to be written of our ListenerSets.
func (c *Controller) planSets(gw plan.Gateway) ([]plan.Step, error) {
	objects := c.caches.readSets().Objects
	return c.options.PlanSets(gw, objects, c.memory.ports(), c.attached(plan.AttachableSets(objects, c.options.Records)))
}

// writeSets writes our ListenerSets if need be, each whatever becomes of the others. Unless forced, it leaves alone those
// that fail.
func (c *Controller) writeSets(ctx context.Context, gw plan.Gateway, force bool) (done map[string]outcome, conflicts error) {
	steps, conflicts := c.planSets(gw)
	due := map[string]*plan.Step{}
	for _, name := range c.memory.setNames() {
		due[name] = nil
	}
	for i, step := range steps {
		due[step.Ref.Name] = &steps[i]
	}
	done = map[string]outcome{}
	for _, name := range slices.Sorted(maps.Keys(due)) {
		if force || !c.memory.listenersFail(name) {
			done[name] = c.writeSet(ctx, name, due[name])
		}
	}
	return done, conflicts
}

// writeSet writes one of them, if there is anything to write.
func (c *Controller) writeSet(ctx context.Context, name string, step *plan.Step) (done outcome) {
	fight := c.memory.setUndone(name, step, time.Now())
	if step != nil && c.memory.listenersWait(name, time.Now()) == 0 {
		err := c.requestSet(ctx, *step)
		switch {
		case err == nil:
			done.written = true
			c.memory.setWritten(*step, time.Now())
		case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err), apierrors.IsNotFound(err): // the cache is behind
			done.wait = staleWait
		default:
			done.reason, done.err = mirrors.WriteFailed, fmt.Errorf("%s ListenerSet %s/%s: %w", step.Action, c.options.Records, name, err)
		}
	}
	if fight && done.err == nil {
		done.reason, done.err = mirrors.Overwritten, fmt.Errorf("ListenerSet %s/%s is changed back as soon as it is written: stop the other program that manages it. The write is retried with back-off", c.options.Records, name)
	}
	done.wait = max(done.wait, c.memory.listenersWait(name, time.Now()))
	return done
}

// staleWait is how long the cache is given to catch up with what a write found.
const staleWait = time.Second

func (c *Controller) requestSet(ctx context.Context, step plan.Step) (err error) {
	version, _ := c.caches.sets.state()
	client := c.clients.WriteDynamic.Resource(plan.ListenerSet.Resource().WithVersion(version)).Namespace(step.Object.GetNamespace())
	cached := c.caches.sets.cached()
	if cached == nil {
		return errors.New("the API server no longer serves the kind")
	}
	var got *unstructured.Unstructured
	switch step.Action {
	case plan.Create:
		got, err = client.Create(ctx, step.Object, metav1.CreateOptions{})
	case plan.Update:
		got, err = client.Update(ctx, step.Object, metav1.UpdateOptions{})
	case plan.Delete:
		if err = client.Delete(ctx, step.Object.GetName(), write.Exactly(step.Object)); err == nil || apierrors.IsNotFound(err) {
			cached.Delete(&remote.Unstructured{Unstructured: *step.Object})
			err = nil
		}
	}
	if err != nil {
		return err
	}
	if got != nil {
		c.caches.sets.wrote(got)
	}
	c.options.Metrics.Wrote(string(plan.ListenerSet), string(step.Action))
	c.logger.Info("Wrote ListenerSet", "action", step.Action, "listenerSet", cache.MetaObjectToName(step.Object))
	return nil
}
