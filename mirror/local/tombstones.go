package local

import (
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
)

// releasePeriod is how long the API server may take to release what a deleted Service had: its
// ClusterIPs, and the Endpoints that the endpoints controller deletes after it.
const releasePeriod = 3 * time.Second

// tombstones remember what mirrors had before someone else deleted or changed them: clients may have
// open connections to their ClusterIPs, and the gateway may be unknown when their addresses are wanted
// back. ClusterIPs are noted while they are live: a sync may see that a Service is gone before its event
// is handled.
type tombstones struct {
	mu    sync.Mutex
	byKey map[cache.ObjectName]tombstone
}

type tombstone struct {
	cluster    string // the remote whose mirror it was; empty: a foreign Service's
	clusterIPs []string
	families   []corev1.IPFamily
	addresses  plan.Objects
	deleted    [plan.Kinds]types.UID // objects with addresses that were deleted here: they are not lost
	gone       time.Time             // when any of it was found missing; zero: all of it is live, as far as is known
}

func (t *tombstones) change(key cache.ObjectName, change func(*tombstone)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.byKey == nil {
		t.byKey = map[cache.ObjectName]tombstone{}
	}
	one := t.byKey[key]
	change(&one)
	t.byKey[key] = one
}

// seen notes the ClusterIPs of a mirror that exists. One that has lost some keeps its record.
func (t *tombstones) seen(svc *corev1.Service) {
	cluster, ours := plan.Owner(svc)
	if !ours {
		return
	}
	t.change(cache.MetaObjectToName(svc), func(one *tombstone) {
		ips := svc.Spec.ClusterIPs
		lost := one.cluster == cluster && len(ips) < len(one.clusterIPs) && slices.Equal(ips, one.clusterIPs[:len(ips)]) ||
			len(ips) > 0 && ips[0] == corev1.ClusterIPNone
		if one.cluster != cluster {
			one.addresses = plan.Objects{}
		}
		switch {
		case !lost:
			one.cluster, one.clusterIPs, one.families, one.gone = cluster, ips, svc.Spec.IPFamilies, time.Time{}
		case one.gone.IsZero():
			one.gone = time.Now()
		}
	})
}

// deleted notes that a Service that concerns us is gone.
func (t *tombstones) deleted(svc *corev1.Service) {
	cluster, ours := plan.Owner(svc)
	t.change(cache.MetaObjectToName(svc), func(one *tombstone) {
		one.gone = time.Now()
		if !ours {
			*one = tombstone{gone: one.gone}
		} else if one.cluster != cluster {
			*one = tombstone{cluster: cluster, deleted: one.deleted, clusterIPs: svc.Spec.ClusterIPs, families: svc.Spec.IPFamilies, gone: one.gone}
		}
	})
}

// lost notes an object that carried a mirror's addresses and is gone.
func (t *tombstones) lost(key cache.ObjectName, kind plan.Kind, last metav1.Object) {
	cluster, _ := plan.Labelled(last)
	t.change(key, func(one *tombstone) {
		if one.cluster == "" {
			one.cluster = cluster
		}
		if one.cluster == cluster && one.deleted[kind] != last.GetUID() {
			one.addresses.Set(kind, last)
		}
	})
}

// deletedHere notes that an object with addresses was deleted by this program. Its event may have come before.
func (t *tombstones) deletedHere(key cache.ObjectName, kind plan.Kind, uid types.UID) {
	t.change(key, func(one *tombstone) {
		one.deleted[kind] = uid
		if lost := one.addresses.Get(kind); lost != nil && lost.GetUID() == uid {
			one.addresses.Set(kind, nil)
		}
	})
}

// sweep drops the records of what is gone that are not needed any more.
func (t *tombstones) sweep(needed func(cache.ObjectName) bool) {
	var gone []cache.ObjectName
	t.mu.Lock()
	for key, one := range t.byKey {
		if !one.gone.IsZero() || !one.addresses.Empty() {
			gone = append(gone, key)
		}
	}
	t.mu.Unlock()
	for _, key := range gone {
		if !needed(key) {
			t.mu.Lock()
			delete(t.byKey, key)
			t.mu.Unlock()
		}
	}
}

// Tombstone is what a mirror had that is not live, nil where nothing is lost.
func (c *Cluster) Tombstone(key cache.ObjectName, live plan.Objects) *plan.Tombstone {
	t := &c.tombstones
	t.mu.Lock()
	defer t.mu.Unlock()
	one, ok := t.byKey[key]
	if !ok {
		return nil
	}
	for _, kind := range []plan.Kind{plan.Endpoints, plan.IPv4Slice, plan.IPv6Slice} {
		if live.Get(kind) != nil {
			one.addresses.Set(kind, nil)
		}
	}
	if live.Service == nil && one.gone.IsZero() {
		one.gone = time.Now() // its event is about to come
	}
	t.byKey[key] = one
	if one.gone.IsZero() && one.addresses.Empty() {
		return nil
	}
	return &plan.Tombstone{
		Cluster: one.cluster, ClusterIPs: one.clusterIPs, Families: one.families, Addresses: one.addresses,
		Releasing: !one.gone.IsZero() && time.Since(one.gone) < releasePeriod,
	}
}

// DropTombstone forgets what a mirror had: no known remote exports its Service any more.
func (c *Cluster) DropTombstone(key cache.ObjectName) {
	c.tombstones.mu.Lock()
	defer c.tombstones.mu.Unlock()
	delete(c.tombstones.byKey, key)
}

// SweepTombstones drops those of keys for which needed is false: a replica that does not lead syncs no keys.
func (c *Cluster) SweepTombstones(needed func(cache.ObjectName) bool) { c.tombstones.sweep(needed) }

// Replaced notes that a mirror has to do with the ClusterIPs that it has now.
func (c *Cluster) Replaced(svc *corev1.Service) {
	cluster, _ := plan.Owner(svc)
	c.tombstones.change(cache.MetaObjectToName(svc), func(one *tombstone) {
		one.cluster, one.clusterIPs, one.families, one.gone = cluster, svc.Spec.ClusterIPs, svc.Spec.IPFamilies, time.Time{}
	})
}
