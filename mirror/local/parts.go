package local

import (
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// Slices of merged mirrors are indexed by the key of the mirror.
const byMirror = "mirror"

// indexParts indexes the slices that are parts of merged mirrors.
func (c *Cluster) indexParts() {
	c.slices.Index(byMirror, func(slice *discoveryv1.EndpointSlice) []string {
		if mirror, _, part := plan.PartOf(plan.SliceKey(slice)); part && !forFailover(slice) {
			return []string{mirror.String()}
		}
		return nil
	})
	c.slices.Index(bySource, func(slice *discoveryv1.EndpointSlice) []string {
		mirror, _, part := plan.PartOf(plan.SliceKey(slice))
		cluster, _ := plan.Labelled(slice)
		source, recorded := plan.RecordedSource(slice)
		if part && recorded && cluster != "" && c.indexed(cluster).KeyByTemplate(source) != mirror {
			return []string{sourceText(cluster, source)}
		}
		return nil
	})
}

// PartsOf are the remotes of which there are slices in a merged mirror; some may occur twice.
func (c *Cluster) PartsOf(mirror cache.ObjectName) (remotes []string) {
	for _, slice := range c.slices.ByIndex(byMirror, mirror.String()) {
		if _, remote, part := plan.PartOf(plan.SliceKey(slice)); part {
			remotes = append(remotes, remote)
		}
	}
	return remotes
}

// Parts are the keys of all parts of merged mirrors of which there are slices.
func (c *Cluster) Parts() (keys []cache.ObjectName) {
	seen := map[cache.ObjectName]bool{}
	for _, mirror := range c.slices.GetIndexer().ListIndexFuncValues(byMirror) {
		for _, slice := range c.slices.ByIndex(byMirror, mirror) {
			if key := plan.SliceKey(slice); !seen[key] {
				seen[key] = true
				keys = append(keys, key)
			}
		}
	}
	return keys
}

// Recorded are the objects of a remote's mirrors that record its UID and the exported Service: Services and, of merged
// mirrors, slices.
func (c *Cluster) Recorded(cluster string) (all []metav1.Object) {
	for _, svc := range c.Mirrors(cluster) {
		all = append(all, svc)
	}
	for _, slice := range c.slices.ByIndex(byCluster, cluster) {
		key := plan.SliceKey(slice)
		if _, _, part := plan.PartOf(key); part && !c.Live(key).Owned(key).Empty() {
			all = append(all, slice)
		}
	}
	return all
}
