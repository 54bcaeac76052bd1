package publish

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

type gatewayPort = gateway.PortNumber

// fieldManager is the name under which the Gateway's own listeners are applied.
const fieldManager = "service-mirror-publish"

// listenersPart is the name under which problems with them are reported.
const listenersPart = "listeners of the Gateway"

// listenersKey is the key of the Gateway's listeners in the queue: no Service has it, as all have a namespace.
var listenersKey = cache.NewObjectName("", "listeners")

// syncListeners has the Gateway, if it is labelled for it, and our ListenerSets have just the listeners of ours that are
// needed, if they may not be so or, with force, whatever is known.
func (c *Controller) syncListeners(ctx context.Context, force bool) {
	if c.caches.gateway == nil {
		return
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	if !c.memory.listenersDue(force) {
		return
	}
	gw := c.caches.gatewayNow()
	onGateway := c.applyListeners(ctx, gw)
	inSets := c.writeSets(ctx, gw)
	if onGateway.written || inSets.written {
		c.caches.readGateway()
		c.listened.Add(1)
	}
	err := errors.Join(onGateway.err, inSets.err)
	problem := onGateway.problem()
	if problem.Reason == "" {
		problem = inSets.problem()
	}
	c.problems.Local(listenersPart, err)
	for _, key := range c.memory.listenersDone(problem) {
		c.queue.Add(key)
	}
	c.requeueListeners(onGateway.fails() || inSets.fails(), onGateway.wait, inSets.wait)
}

// requeueListeners looks at them again with the queue's back-off if that failed, and when the first wait is over.
func (c *Controller) requeueListeners(failed bool, waits ...time.Duration) {
	if failed {
		c.queue.AddRateLimited(listenersKey)
		return
	}
	c.queue.Forget(listenersKey)
	waits = slices.DeleteFunc(waits, func(wait time.Duration) bool { return wait <= 0 })
	if len(waits) > 0 {
		c.queue.AddAfter(listenersKey, slices.Min(waits))
	}
}

// outcome is what became of listeners.
type outcome struct {
	written bool
	reason  mirrors.Reason // of the error
	err     error
	wait    time.Duration // how long until they are to be looked at again; 0: not before something changes
}

// fails tells whether they are to be tried again. The end of a conflict is an event.
func (o outcome) fails() bool { return o.err != nil && o.reason != mirrors.Conflict && o.wait == 0 }

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
	listeners, changed := gw.OwnListeners(slices.Concat(c.memory.ports(), c.attached(gw.Added())))
	fight := c.memory.undone(gw, listeners, time.Now())
	if changed && c.memory.gatewayWait(time.Now()) == 0 {
		if err := c.applyToGateway(ctx, gw, listeners); err != nil {
			return outcome{reason: mirrors.WriteFailed, err: fmt.Errorf("apply listeners of Gateway %v: %w", gw.Name, err)}
		}
		c.memory.listenersApplied(listeners, time.Now())
		done.written = true
	}
	if fight {
		done.reason, done.err = mirrors.Overwritten, fmt.Errorf("Gateway %v loses its listeners again after they are applied: have the program that manages it ignore them, or remove the label %s and add listeners there. They are applied with back-off", gw.Name, plan.ListenersLabel)
	}
	done.wait = c.memory.gatewayWait(time.Now())
	return done
}

// attached are those of the gateway ports of listeners to which a route of ours still attaches, as far as is known.
func (c *Controller) attached(listeners map[gatewayPort]string) (ports []gatewayPort) {
	for port, listener := range listeners {
		kind := plan.RoutesOf(port)
		if _, known := c.caches.routes[kind].state(); !known || len(c.caches.attached(kind, listener)) > 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

func (c *Controller) applyToGateway(ctx context.Context, gw plan.Gateway, listeners []any) error {
	version, _ := c.caches.gateway.state()
	resource := c.caches.gateway.resource.WithVersion(version)
	obj := &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": resource.GroupVersion().String(), "kind": "Gateway",
		"metadata": map[string]any{"namespace": gw.Name.Namespace, "name": gw.Name.Name},
		"spec":     map[string]any{"listeners": listeners},
	}}
	if len(listeners) == 0 {
		delete(obj.Object, "spec")
	}
	got, err := c.clients.WriteDynamic.Resource(resource).Namespace(gw.Name.Namespace).Apply(ctx, gw.Name.Name, obj, metav1.ApplyOptions{FieldManager: fieldManager})
	if err != nil {
		return err
	}
	c.caches.gateway.wrote(got)
	c.options.Metrics.Wrote("Gateway", "update")
	return nil
}
