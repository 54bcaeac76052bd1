package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
	"service-mirror.io/service-mirror/mirror/report"
)

type gatewayPort = gateway.PortNumber

// fieldManager is the name under which the Gateway's own listeners are applied.
const fieldManager = "service-mirror-publish"

// listenersPart is the name under which problems with them are reported.
const listenersPart = report.Listeners

// listenersKey is the key of the Gateway's listeners in the queue: no Service has it, as all have a namespace.
var listenersKey = cache.NewObjectName("", "listeners")

// syncListenersFor syncs the listeners for a Service, if what is needed of them may have changed.
func (c *Controller) syncListenersFor(ctx context.Context) {
	switch next := c.syncListeners(ctx, false); {
	case next.Retry:
		c.queue.AddRateLimited(listenersKey)
	case next.After > 0:
		c.queue.AddAfter(listenersKey, next.After)
	}
}

// syncListeners has the Gateway, if it is labelled for it, and our ListenerSets have just the listeners of ours that are
// needed, if they may not be so or, with force, whatever is known. It returns when those that it has looked at are looked
// at again.
func (c *Controller) syncListeners(ctx context.Context, force bool) (next queue.Next) {
	if !force && !c.memory.listenersDirty() && !c.listening.busy() { // one that is being written may be what is needed
		return next
	}
	if !c.listening.begin(ctx, force) {
		return next
	}
	if c.memory.listenersDue(force) {
		next = c.writeListeners(ctx, force)
	}
	if late := c.listening.end(); late { // its listeners are due
		c.queue.Add(listenersKey)
	}
	return next
}

// writeListeners writes those that are not as they should be. Unless forced, it leaves alone what fails.
func (c *Controller) writeListeners(ctx context.Context, force bool) (next queue.Next) {
	gw := c.caches.gatewayNow()
	parts, conflicts := c.writeSets(ctx, gw, force)
	if force || !c.memory.listenersFail(onGateway) {
		parts[onGateway] = c.applyListeners(ctx, gw)
	}
	written := false
	for _, done := range parts {
		written = written || done.written
		next.Retry = next.Retry || done.fails()
		next.After = queue.Sooner(next.After, done.wait)
	}
	if written {
		c.caches.readGateway()
		c.listened.Add(1)
	}
	news := c.memory.listenersDone(parts, conflicts)
	c.problems.Local(listenersPart, c.memory.listenersError())
	for _, key := range news {
		c.queue.Add(key)
	}
	return next
}

// outcome is what became of a part of the listeners.
type outcome struct {
	written bool
	reason  mirrors.Reason // of the error
	err     error
	wait    time.Duration // how long until they are to be looked at again; 0: not before something changes
}

// fails tells whether they are to be tried again with back-off.
func (o outcome) fails() bool { return o.err != nil && o.wait == 0 }

func (o outcome) problem() mirrors.Problem {
	if o.err == nil {
		return mirrors.Problem{}
	}
	return mirrors.Problem{Reason: o.reason, Message: strings.ReplaceAll(o.err.Error(), "\n", "; ")}
}

// applyListeners applies those of the Gateway if need be. Its others are left alone: server-side apply touches what it
// owns and nothing else.
func (c *Controller) applyListeners(ctx context.Context, gw plan.Gateway) (done outcome) {
	if !gw.Exists || !gw.Managed {
		return done
	}
	listeners, changed := c.planListeners(gw)
	fight := c.memory.undone(gw, listeners, time.Now())
	if changed && c.memory.listenersWait(onGateway, time.Now()) == 0 {
		if done = c.applyWithin(ctx, gw, listeners); done.err != nil {
			return done
		}
	}
	if fight {
		done.reason, done.err = mirrors.Overwritten, fmt.Errorf("Gateway %v loses its added listeners again: configure the program that manages it to ignore them, or remove the label %s and add the listeners there. They are applied with back-off", gw.Name, plan.ListenersLabel)
	}
	done.wait = c.memory.listenersWait(onGateway, time.Now())
	return done
}

// planListeners are those that the Gateway itself is to have of ours; changed tells whether it does not have just these.
func (c *Controller) planListeners(gw plan.Gateway) (listeners []any, changed bool) {
	return gw.OwnListeners(slices.Concat(c.memory.ports(), c.attached(gw.Added())))
}

// ownedPeriod is how often it is tried to set listeners back that another program has changed, and owns.
const ownedPeriod = time.Minute

// applyWithin applies listeners. What another program has changed of them it owns, and nothing is taken from it: those are
// left as they are, and the others are applied.
func (c *Controller) applyWithin(ctx context.Context, gw plan.Gateway, listeners []any) (done outcome) {
	err := c.applyToGateway(ctx, gw, listeners)
	if !apierrors.IsConflict(err) {
		done.written = err == nil
		if err != nil {
			done.reason, done.err = mirrors.WriteFailed, fmt.Errorf("apply listeners of Gateway %v: %w", gw.Name, err)
		}
		return done
	}
	owned := fmt.Errorf("Gateway %v has listeners %s that another program changed and now owns: revert or remove them there: %w", gw.Name, strings.Join(gw.Edited(listeners), ", "), err)
	done = outcome{reason: mirrors.Overwritten, err: owned, wait: ownedPeriod}
	if rest, changed := gw.Yield(listeners); changed {
		if err := c.applyToGateway(ctx, gw, rest); err != nil {
			done.err = errors.Join(owned, err)
			return done
		}
		done.written = true
	}
	return done
}

// attached are those of the gateway ports of listeners to which a route of ours still attaches, as far as is known.
func (c *Controller) attached(listeners map[gatewayPort]string) (ports []gatewayPort) {
	for port, listener := range listeners {
		kind := plan.RoutesOf(port)
		if _, known := c.caches.routes[kind].state(); !known || c.memory.awaits(kind) || len(c.caches.routes[kind].attached(listener)) > 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

func (c *Controller) applyToGateway(ctx context.Context, gw plan.Gateway, listeners []any) error {
	version, _ := c.caches.gateway.state()
	got, err := applyListeners(ctx, c.clients.WriteDynamic, c.caches.gateway.resource.WithVersion(version), gw.Name, listeners)
	if err != nil {
		return err
	}
	c.caches.gateway.wrote(got)
	c.memory.listenersApplied(listeners, time.Now())
	c.options.Metrics.Wrote("Gateway", "update")
	return nil
}

// applyListeners applies just these listeners to a Gateway; those that this program applied before go.
func applyListeners(ctx context.Context, client dynamic.Interface, resource schema.GroupVersionResource, name cache.ObjectName, listeners []any) (*unstructured.Unstructured, error) {
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": resource.GroupVersion().String(), "kind": "Gateway",
		"metadata": map[string]any{"namespace": name.Namespace, "name": name.Name},
		"spec":     map[string]any{"listeners": listeners},
	}}
	if len(listeners) == 0 {
		delete(obj.Object, "spec")
	}
	return client.Resource(resource).Namespace(name.Namespace).Apply(ctx, name.Name, obj, metav1.ApplyOptions{FieldManager: fieldManager})
}
