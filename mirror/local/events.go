package local

import (
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// handle turns what happens in the cluster into keys.
func (c *Cluster) handle() {
	c.services.Handle(remote.Handler[*corev1.Service]{
		Added: func(svc *corev1.Service) {
			c.failoverService(nil, svc)
			c.tombstones.seen(svc)
			c.changed(svc)
		},
		Updated: c.serviceUpdated,
		Deleted: func(key cache.ObjectName, last *corev1.Service) {
			if last != nil {
				c.failoverService(last, nil)
			}
			if last != nil && c.concerns(last) {
				c.serviceLost(last)
				c.hooks.Interrupted(key)
			}
			c.hooks.Changed("", key)
		},
	})
	c.endpoints.Handle(remote.Handler[*corev1.Endpoints]{
		Added: func(endpoints *corev1.Endpoints) {
			c.carries(cache.MetaObjectToName(endpoints), plan.Endpoints, endpoints)
			c.changed(endpoints)
		},
		Updated: func(before, endpoints *corev1.Endpoints) {
			if before.UID != endpoints.UID || !plan.Mirrored(before) && plan.Mirrored(endpoints) {
				c.hooks.Interrupted(cache.MetaObjectToName(endpoints))
			}
			c.carries(cache.MetaObjectToName(endpoints), plan.Endpoints, endpoints)
			c.changed(endpoints)
		},
		Deleted: func(key cache.ObjectName, last *corev1.Endpoints) {
			if last != nil {
				c.carries(key, plan.Endpoints, last)
			}
			c.hooks.Interrupted(key)
			c.hooks.Changed("", key)
		},
	})
	c.slices.Handle(remote.Handler[*discoveryv1.EndpointSlice]{
		Added: c.sliceChanged,
		Updated: func(before, slice *discoveryv1.EndpointSlice) {
			if forFailover(before) && !forFailover(slice) {
				c.hooks.failover(plan.MirrorKey(plan.SliceKey(before)))
			}
			if key := plan.SliceKey(before); !forFailover(before) && key != plan.SliceKey(slice) {
				c.hooks.Changed("", key) // which has lost it
			}
			c.sliceChanged(slice)
		},
		Deleted: func(_ cache.ObjectName, last *discoveryv1.EndpointSlice) {
			if last != nil {
				c.sliceDeleted(last)
			}
		},
	})
	c.namespaces.Handle(remote.Handler[*metav1.PartialObjectMetadata]{
		Added: func(ns *metav1.PartialObjectMetadata) { c.hooks.NamespaceChanged(ns.Name) },
		Updated: func(before, ns *metav1.PartialObjectMetadata) {
			if before.UID != ns.UID || (before.DeletionTimestamp == nil) != (ns.DeletionTimestamp == nil) {
				c.hooks.NamespaceChanged(ns.Name)
			}
		},
		Deleted: func(name cache.ObjectName, _ *metav1.PartialObjectMetadata) { c.hooks.NamespaceChanged(name.Name) },
	})
	c.leftovers.Handle(remote.Handler[*metav1.PartialObjectMetadata]{
		Added:   c.leftoverChanged,
		Updated: func(_, slice *metav1.PartialObjectMetadata) { c.leftoverChanged(slice) },
		Deleted: func(name cache.ObjectName, _ *metav1.PartialObjectMetadata) {
			c.ownLeftovers.Latest(name) // forgets that it was deleted
		},
	})
}

func (c *Cluster) serviceUpdated(before, svc *corev1.Service) {
	c.failoverService(before, svc)
	_, was := plan.Owner(before)
	_, is := plan.Owner(svc)
	if !was && !is {
		return // a foreign Service that stays one
	}
	if before.UID != svc.UID || len(before.Spec.Selector) > 0 && len(svc.Spec.Selector) == 0 {
		c.hooks.Interrupted(cache.MetaObjectToName(svc))
	}
	if before.UID != svc.UID && was {
		c.serviceLost(before)
	}
	c.tombstones.seen(svc)
	c.changed(svc)
	if was && !is && !c.concerns(svc) { // released, and wanted by nobody
		c.hooks.Changed("", cache.MetaObjectToName(svc))
	}
}

func (c *Cluster) changed(obj metav1.Object) {
	if c.concerns(obj) {
		cluster, _ := plan.Labelled(obj)
		c.hooks.Changed(cluster, cache.MetaObjectToName(obj))
	}
}

// concerns tells whether an object looks like ours, or has the name of a mirror that is wanted.
func (c *Cluster) concerns(obj metav1.Object) bool {
	_, labelled := plan.Labelled(obj)
	return labelled || c.hooks.Wanted(cache.MetaObjectToName(obj))
}

func (c *Cluster) leftoverChanged(slice *metav1.PartialObjectMetadata) {
	c.hooks.Changed(slice.Labels[plan.ClusterLabel], serviceOf(slice))
}

func (c *Cluster) sliceChanged(slice *discoveryv1.EndpointSlice) {
	if forFailover(slice) {
		c.hooks.failover(plan.MirrorKey(plan.SliceKey(slice)))
		return
	}
	c.sliceCarries(slice)
	cluster, _ := plan.Labelled(slice)
	c.hooks.Changed(cluster, plan.SliceKey(slice))
}

func (c *Cluster) sliceDeleted(last *discoveryv1.EndpointSlice) {
	if forFailover(last) {
		c.hooks.failover(plan.MirrorKey(plan.SliceKey(last)))
		return
	}
	c.sliceCarries(last)
	c.hooks.Changed("", plan.SliceKey(last))
}

func (c *Cluster) sliceCarries(slice *discoveryv1.EndpointSlice) {
	key := plan.SliceKey(slice)
	for _, kind := range plan.SliceKinds {
		if kind.ObjectName(key).Name == slice.Name {
			c.carries(key, kind, slice)
		}
	}
}

// serviceLost notes what a mirror had, if it may come back.
func (c *Cluster) serviceLost(last *corev1.Service) {
	key := cache.MetaObjectToName(last)
	if cluster, ours := plan.Owner(last); ours && !c.hooks.Configured(cluster) {
		c.DropTombstone(key)
		return
	}
	c.tombstones.deleted(last)
}

// carries notes the addresses of a mirror that may be wanted back.
func (c *Cluster) carries(key cache.ObjectName, kind plan.Kind, obj metav1.Object) {
	if cluster, labelled := plan.Labelled(obj); labelled && c.hooks.Configured(cluster) {
		c.tombstones.carries(key, kind, obj)
	}
}
