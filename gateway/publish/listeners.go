package publish

import (
	"context"
	"fmt"
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

// syncListeners has a Gateway that is labelled for it have just the listeners of ours that are needed, if they may not
// be so or, with force, whatever is known. It tells when they are looked at again; nil: they have not been.
func (c *Controller) syncListeners(ctx context.Context, force bool) *queue.Next {
	if c.caches.gateway == nil {
		return nil
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	if !c.memory.listenersDue(force) {
		return nil
	}
	problem, err := c.applyListeners(ctx)
	c.problems.Local(listenersPart, err)
	for _, key := range c.memory.listenersDone(problem) {
		c.queue.Add(key)
	}
	wait := c.memory.listenersWait(time.Now())
	return &queue.Next{Retry: err != nil && wait == 0, After: wait}
}

// applyListeners applies them if need be. The Gateway's others are left alone: server-side apply touches what it owns
// and nothing else.
func (c *Controller) applyListeners(ctx context.Context) (problem mirrors.Problem, err error) {
	gw := c.caches.gatewayNow()
	if !gw.Exists || !gw.Managed {
		return problem, nil
	}
	listeners, changed := gw.OwnListeners(c.listened(gw))
	fight := c.memory.undone(gw, listeners, time.Now())
	if changed && c.memory.listenersWait(time.Now()) == 0 {
		if err := c.writeListeners(ctx, gw, listeners); err != nil {
			err = fmt.Errorf("apply listeners of Gateway %v: %w", gw.Name, err)
			return mirrors.Problem{Reason: mirrors.WriteFailed, Message: err.Error()}, err
		}
		c.memory.listenersApplied(listeners, time.Now())
		c.caches.readGateway()
		c.applied.Add(1)
	}
	if fight {
		err = fmt.Errorf("Gateway %v loses its listeners again after they are applied: have the program that manages it ignore them, or remove the label %s and add listeners there. They are applied with back-off", gw.Name, plan.ListenersLabel)
		problem = mirrors.Problem{Reason: mirrors.Overwritten, Message: err.Error()}
	}
	return problem, err
}

// listened are the gateway ports that need listeners: those in use, and those that routes of ours still attach to.
func (c *Controller) listened(gw plan.Gateway) []gatewayPort {
	ports := c.memory.ports()
	for _, l := range gw.Listeners {
		port, kind := l.Attachable()
		if !l.Own() {
			continue
		}
		if _, known := c.caches.routes[kind].state(); !known || len(c.caches.attached(kind, l.Name)) > 0 {
			ports = append(ports, port)
		}
	}
	return ports
}

func (c *Controller) writeListeners(ctx context.Context, gw plan.Gateway, listeners []any) error {
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
