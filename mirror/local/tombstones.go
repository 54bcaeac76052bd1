package local

import (
	"maps"
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
// back. All of it is noted while it is live: a sync may see that an object is gone before its event is
// handled.
type tombstones struct {
	mu    sync.Mutex
	byKey map[cache.ObjectName]tombstone
}

type tombstone struct {
	cluster    string // the remote whose mirror it was; empty: a foreign Service's
	clusterIPs []string
	replaced   []string // ClusterIPs that it had until someone recreated it with others
	families   []corev1.IPFamily
	addresses  plan.Objects          // as they were last seen
	deleted    [plan.Kinds]types.UID // objects with addresses that were deleted here: they are not lost
	gone       time.Time             // when the Service or ClusterIPs of it were found missing; zero: they are live, as far as is known
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
		ips, same := svc.Spec.ClusterIPs, one.cluster == cluster
		lost := same && len(ips) < len(one.clusterIPs) && slices.Equal(ips, one.clusterIPs[:len(ips)]) ||
			len(ips) > 0 && ips[0] == corev1.ClusterIPNone
		if lost {
			if one.gone.IsZero() {
				one.gone = time.Now()
			}
			return
		}
		if same && len(one.replaced) == 0 && len(ips) > 0 && len(one.clusterIPs) > 0 && ips[0] != one.clusterIPs[0] {
			one.replaced = one.clusterIPs
		}
		one.cluster, one.clusterIPs, one.families, one.gone = cluster, ips, svc.Spec.IPFamilies, time.Time{}
	})
}

// Remember notes what a remote's mirrors have that exist: while the remote was not configured it was of no interest.
func (c *Cluster) Remember(cluster string) {
	for _, svc := range c.Mirrors(cluster) {
		c.tombstones.seen(svc)
	}
	for _, endpoints := range c.endpoints.ByIndex(byCluster, cluster) {
		c.carries(cache.MetaObjectToName(endpoints), plan.Endpoints, endpoints)
	}
	for _, slice := range c.slices.ByIndex(byCluster, cluster) {
		if !forFailover(slice) {
			c.sliceCarries(slice)
		}
	}
}

// ForgetRemote forgets what the mirrors of a remote had that is no longer configured.
func (c *Cluster) ForgetRemote(cluster string) {
	t := &c.tombstones
	var keys []cache.ObjectName
	t.mu.Lock()
	for key, one := range t.byKey {
		if one.cluster == cluster || one.cluster == "" && one.addresses.Cluster() == cluster {
			keys = append(keys, key)
		}
	}
	t.mu.Unlock()
	for _, key := range keys {
		t.drop(key)
	}
}

// deleted notes that a Service that concerns us is gone.
func (t *tombstones) deleted(svc *corev1.Service) {
	cluster, ours := plan.Owner(svc)
	t.change(cache.MetaObjectToName(svc), func(one *tombstone) {
		one.gone = time.Now()
		if !ours {
			*one = tombstone{gone: one.gone}
		} else if one.cluster != cluster {
			one.cluster, one.clusterIPs, one.replaced, one.families = cluster, svc.Spec.ClusterIPs, nil, svc.Spec.IPFamilies
		}
	})
}

// carries notes an object that carries a mirror's addresses, or carried them until it was deleted.
func (t *tombstones) carries(key cache.ObjectName, kind plan.Kind, obj metav1.Object) {
	t.change(key, func(one *tombstone) {
		if one.deleted[kind] != obj.GetUID() {
			one.addresses.Set(kind, obj)
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

// lost are the objects that are not live and carried the addresses of the mirror whose record it is.
func (one tombstone) lost(live plan.Objects) (lost plan.Objects) {
	for _, kind := range []plan.Kind{plan.Endpoints, plan.IPv4Slice, plan.IPv6Slice} {
		obj := one.addresses.Get(kind)
		if obj == nil || live.Get(kind) != nil {
			continue
		}
		if cluster, labelled := plan.Labelled(obj); labelled && (cluster == one.cluster || one.cluster == "") {
			lost.Set(kind, obj)
		}
	}
	return lost
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
	if live.Service == nil && one.gone.IsZero() && len(one.clusterIPs) > 0 {
		one.gone = time.Now() // its event is about to come
		t.byKey[key] = one
	}
	lost := one.lost(live)
	if one.gone.IsZero() && lost.Empty() && len(one.replaced) == 0 {
		return nil
	}
	if one.cluster == "" {
		one.cluster = lost.Cluster()
	}
	return &plan.Tombstone{
		Cluster: one.cluster, ClusterIPs: one.clusterIPs, Replaced: one.replaced, Families: one.families, Addresses: lost,
		Releasing: !one.gone.IsZero() && time.Since(one.gone) < releasePeriod,
	}
}

// DropTombstone forgets what a mirror had: no known remote exports its Service any more. That it was deleted
// a moment ago still counts: if the Service is exported again, Kubernetes may not have released its name.
func (c *Cluster) DropTombstone(key cache.ObjectName) { c.tombstones.drop(key) }

func (t *tombstones) drop(key cache.ObjectName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	one, ok := t.byKey[key]
	if !ok || time.Since(one.gone) >= releasePeriod {
		delete(t.byKey, key)
		return
	}
	t.byKey[key] = tombstone{gone: one.gone}
	time.AfterFunc(releasePeriod-time.Since(one.gone), func() { t.deleteBare(key, one.gone) })
}

// deleteBare deletes what drop has left of a record, unless the key has a mirror again.
func (t *tombstones) deleteBare(key cache.ObjectName, gone time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if one, ok := t.byKey[key]; ok && one.gone.Equal(gone) && one.cluster == "" {
		delete(t.byKey, key)
	}
}

// SweepTombstones drops those of keys for which needed is false: a replica that does not lead syncs no keys.
func (c *Cluster) SweepTombstones(needed func(cache.ObjectName) bool) {
	t := &c.tombstones
	t.mu.Lock()
	keys := slices.Collect(maps.Keys(t.byKey))
	t.mu.Unlock()
	for _, key := range keys {
		if c.Tombstone(key, c.Live(key)) != nil && !needed(key) {
			t.drop(key)
		}
	}
}

// Replaced notes that a mirror has to do with the ClusterIPs that it has now, and that this was reported.
func (c *Cluster) Replaced(svc *corev1.Service) {
	cluster, _ := plan.Owner(svc)
	c.tombstones.change(cache.MetaObjectToName(svc), func(one *tombstone) {
		one.cluster, one.clusterIPs, one.replaced, one.families, one.gone = cluster, svc.Spec.ClusterIPs, nil, svc.Spec.IPFamilies, time.Time{}
	})
}
