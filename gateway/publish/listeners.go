package publish

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
)

type gatewayPort = gateway.PortNumber

// fieldManager is the name under which the Gateway's own listeners are applied.
const fieldManager = "service-mirror-publish"

// listenersPart is the name under which problems with them are reported.
const listenersPart = "listeners of the Gateway"

// applyListeners has a Gateway that is labelled for it have just the listeners of ours that are needed. Its others are
// left alone: server-side apply touches what it owns and nothing else.
func (c *Controller) applyListeners(ctx context.Context) {
	if c.caches.gateway == nil {
		return
	}
	c.listening.Lock()
	defer c.listening.Unlock()
	gw, _ := c.caches.lookAtGateway()
	if !gw.Exists || !gw.Managed {
		return
	}
	listeners, changed := gw.OwnListeners(c.memory.ports())
	if !changed {
		c.problems.Local(listenersPart, nil)
		return
	}
	if err := c.memory.mayApply(time.Now()); err != nil {
		c.problems.Local(listenersPart, err)
		return
	}
	err := c.writeListeners(ctx, gw, listeners)
	if err != nil {
		err = fmt.Errorf("apply listeners of Gateway %v: %w", gw.Name, err)
	}
	c.problems.Local(listenersPart, err)
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
