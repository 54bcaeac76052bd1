package publish

import (
	"context"
	"fmt"
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

// syncListeners has a Gateway that is labelled for it have just the listeners of ours that are needed, if they may not
// be so or, with force, whatever is known.
func (c *Controller) syncListeners(ctx context.Context, force bool) {
	if c.caches.gateway == nil {
		return
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	if !c.memory.listenersDue(force) {
		return
	}
	problem, err := c.applyListeners(ctx)
	c.problems.Local(listenersPart, err)
	for _, key := range c.memory.listenersDone(problem) {
		c.queue.Add(key)
	}
	switch wait := c.memory.listenersWait(time.Now()); {
	case wait > 0:
		c.queue.AddAfter(listenersKey, wait)
	case err != nil:
		c.queue.AddRateLimited(listenersKey)
	default:
		c.queue.Forget(listenersKey)
	}
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
