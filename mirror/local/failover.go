package local

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// The indexes for failover.
const (
	byFailover = "failover" // Services that fail over, by the remotes that they list, and all of them by ""
	byBeside   = "beside"   // the EndpointSlices for failover, by the key of their Service
)

// indexFailover adds the indexes.
func (c *Cluster) indexFailover() {
	c.services.Index(byFailover, func(svc *corev1.Service) []string {
		if !plan.FailsOver(svc) {
			return nil
		}
		return append(plan.FailoverRemotes(svc), "")
	})
	c.slices.Index(byBeside, func(slice *discoveryv1.EndpointSlice) []string {
		if !forFailover(slice) {
			return nil
		}
		return []string{plan.MirrorKey(plan.SliceKey(slice)).String()}
	})
}

// forFailover tells a slice that is added to one of the cluster's own Services.
func forFailover(slice *discoveryv1.EndpointSlice) bool {
	return plan.ForFailover(slice)
}

// failoverService notes that a Service that fails over, or did, has changed; before is nil of one that is new.
func (c *Cluster) failoverService(before, now *corev1.Service) {
	for _, svc := range []*corev1.Service{before, now} {
		if svc != nil && plan.FailsOver(svc) {
			c.hooks.failover(cache.MetaObjectToName(svc))
			return
		}
	}
}

func (h Hooks) failover(key cache.ObjectName) {
	if h.FailoverChanged != nil {
		h.FailoverChanged(key)
	}
}

// FailoverKeys are the keys of the Services that fail over to a remote; empty: of all that fail over.
func (c *Cluster) FailoverKeys(remote string) (keys []cache.ObjectName) {
	texts, _ := c.services.GetIndexer().IndexKeys(byFailover, remote)
	for _, text := range texts {
		if key, err := cache.ParseObjectName(text); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// FailoverSliceKeys are the keys of the Services that there are EndpointSlices for failover of; some may not exist.
func (c *Cluster) FailoverSliceKeys() (keys []cache.ObjectName) {
	for _, text := range c.slices.GetIndexer().ListIndexFuncValues(byBeside) {
		if key, err := cache.ParseObjectName(text); err == nil {
			keys = append(keys, key)
		}
	}
	return keys
}

// FailoverService is a Service that fails over; nil if there is none of this name.
func (c *Cluster) FailoverService(key cache.ObjectName) *corev1.Service {
	if svc := c.ownServices.Latest(key); svc != nil && plan.FailsOver(svc) {
		return svc
	}
	return nil
}

// FailoverSlices are the EndpointSlices of ours beside a Service, those of these remotes included that the cache has
// not seen yet.
func (c *Cluster) FailoverSlices(key cache.ObjectName, remotes []string) (live []*discoveryv1.EndpointSlice) {
	names, _ := c.slices.GetIndexer().IndexKeys(byBeside, key.String())
	for _, remote := range remotes {
		for _, of := range plan.RemoteSlices(key, remote, true) {
			names = append(names, of.ObjectName().String())
		}
	}
	slices.Sort(names)
	for _, text := range slices.Compact(names) {
		name, err := cache.ParseObjectName(text)
		if err != nil {
			continue
		}
		if slice := c.ownSlices.Latest(name); slice != nil {
			if of, ours := plan.RemoteSliceOf(slice); ours && of.Failover && of.Key == key {
				live = append(live, slice)
			}
		}
	}
	return live
}
