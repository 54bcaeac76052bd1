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
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/queue"
)

type gatewayPort = gateway.PortNumber

// fieldManager is the name under which the Gateway's own listeners are applied.
const fieldManager = "service-mirror-publish"

// listenersPart is the name under which problems with them are reported.
const listenersPart = "listeners of the Gateway"

// listenersKey is the key of the Gateway's listeners in the queue: no Service has it, as all have a namespace.
var listenersKey = cache.NewObjectName("", "listeners")

// syncListenersFor syncs the listeners for a Service, if what is needed of them may have changed.
func (c *Controller) syncListenersFor(ctx context.Context) {
	if next := c.syncListeners(ctx, false); next != nil {
		c.queue.Again(listenersKey, *next)
	}
}

// syncListeners has the Gateway, if it is labelled for it, and our ListenerSets have just the listeners of ours that are
// needed, if they may not be so or, with force, whatever is known. It returns when they are looked at again; nil: they have
// not been.
func (c *Controller) syncListeners(ctx context.Context, force bool) *queue.Next {
	if c.caches.gateway == nil {
		return nil
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	if !c.memory.listenersDue(force) {
		return nil
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
	return &queue.Next{Retry: onGateway.fails() || inSets.fails(), After: queue.Sooner(onGateway.wait, inSets.wait)}
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
		if _, known := c.caches.routes[kind].state(); !known || c.memory.awaits(kind) || len(c.caches.attached(kind, listener)) > 0 {
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
