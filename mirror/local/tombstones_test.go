package local

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/plan/fixture"
)

var key = cache.NewObjectName("default", "bar-paris")

// withIPs is the mirror of default/bar with these ClusterIPs.
func withIPs(ips ...string) *corev1.Service {
	svc, _ := fixture.Stored(fixture.MirrorOfBar())
	svc.Spec.ClusterIPs, svc.Spec.IPFamilies = ips, []corev1.IPFamily{corev1.IPv4Protocol, corev1.IPv6Protocol}[:len(ips)]
	return svc
}

func TestTombstone(t *testing.T) {
	both := []string{"10.96.0.7", "fd00::7"}
	external := withIPs()
	external.Spec.Type = corev1.ServiceTypeExternalName
	headless := withIPs()
	headless.Spec.ClusterIPs = []string{corev1.ClusterIPNone}
	for name, test := range map[string]struct {
		happens func(c *Cluster)
		live    plan.Objects
		want    []string // ClusterIPs; nil: no tombstone
	}{
		"a mirror that is live": {func(*Cluster) {}, plan.Objects{Service: withIPs(both...)}, nil},
		"deleted":               {func(c *Cluster) { c.tombstones.deleted(withIPs(both...)) }, plan.Objects{}, both},
		"deleted, and its event is still to come": {func(*Cluster) {}, plan.Objects{}, both},
		"of type ExternalName":                    {func(c *Cluster) { c.tombstones.seen(external) }, plan.Objects{Service: external}, both},
		"headless":                                {func(c *Cluster) { c.tombstones.seen(headless) }, plan.Objects{Service: headless}, both},
		"single-stack":                            {func(c *Cluster) { c.tombstones.seen(withIPs(both[0])) }, plan.Objects{Service: withIPs(both[0])}, both},
		"and back":                                {func(c *Cluster) { c.tombstones.seen(external); c.tombstones.seen(withIPs(both...)) }, plan.Objects{Service: withIPs(both...)}, nil},
		"given other ClusterIPs":                  {func(c *Cluster) { c.Replaced(withIPs("10.96.0.8", "fd00::8")) }, plan.Objects{Service: withIPs("10.96.0.8", "fd00::8")}, nil},
		"given up":                                {func(c *Cluster) { c.Replaced(withIPs("10.96.0.7")) }, plan.Objects{Service: withIPs("10.96.0.7")}, nil},
		"dropped":                                 {func(c *Cluster) { c.DropTombstone(key) }, plan.Objects{}, nil},
		"a foreign Service in its place, deleted": {func(c *Cluster) {
			c.tombstones.deleted(&corev1.Service{ObjectMeta: withIPs().ObjectMeta})
			foreign := withIPs()
			foreign.Labels = nil
			c.tombstones.deleted(foreign)
		}, plan.Objects{}, []string{}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Cluster{}
				c.tombstones.seen(withIPs(both...))
				test.happens(c)
				got := c.Tombstone(key, test.live)
				switch {
				case (got == nil) != (test.want == nil):
					t.Errorf("got %+v, want %v", got, test.want)
				case got != nil && !slices.Equal(got.ClusterIPs, test.want):
					t.Errorf("got %v, want %v", got.ClusterIPs, test.want)
				case got != nil && !got.Releasing:
					t.Error("its ClusterIPs count as released already")
				}
			})
		})
	}
}

// Addresses count as lost from the moment when they are not live, before any event says so.
func TestLostAddresses(t *testing.T) {
	c := &Cluster{}
	svc := withIPs("10.96.0.7")
	_, endpoints := fixture.Stored(fixture.MirrorOfBar())
	c.tombstones.seen(svc)
	c.tombstones.carries(key, plan.Endpoints, endpoints)
	if got := c.Tombstone(key, plan.Objects{Service: svc, Endpoints: endpoints}); got != nil {
		t.Errorf("they are live: got %+v", got)
	}
	if got := c.Tombstone(key, plan.Objects{Service: svc}); got == nil || got.Addresses.Endpoints != endpoints {
		t.Errorf("got %+v", got)
	}
	c.tombstones.deletedHere(key, plan.Endpoints, endpoints.UID)
	c.tombstones.carries(key, plan.Endpoints, endpoints) // the event of their deletion
	if got := c.Tombstone(key, plan.Objects{Service: svc}); got != nil {
		t.Errorf("they were deleted here: got %+v", got)
	}
	theirs := endpoints.DeepCopy()
	theirs.UID, theirs.Labels[plan.ClusterLabel] = "other", "berlin"
	c.tombstones.carries(key, plan.Endpoints, theirs)
	if got := c.Tombstone(key, plan.Objects{Service: svc}); got != nil {
		t.Errorf("they are another remote's: got %+v", got)
	}
}

// What is dropped is forgotten, but not that it was there a moment ago.
func TestDroppedTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Cluster{}
		c.tombstones.seen(withIPs("10.96.0.7"))
		c.tombstones.deleted(withIPs("10.96.0.7"))
		c.DropTombstone(key)
		if got := c.Tombstone(key, plan.Objects{}); got == nil || !got.Releasing || got.Cluster != "" || len(got.ClusterIPs) > 0 {
			t.Errorf("at once: %+v", got)
		}
		time.Sleep(releasePeriod)
		synctest.Wait()
		if len(c.tombstones.byKey) > 0 {
			t.Errorf("later: %+v", c.tombstones.byKey)
		}
	})
}

func TestReplacedClusterIPs(t *testing.T) {
	c := &Cluster{}
	c.tombstones.seen(withIPs("10.96.0.7"))
	for _, ip := range []string{"10.96.0.8", "10.96.0.9"} {
		c.tombstones.seen(withIPs(ip))
		if got := c.Tombstone(key, plan.Objects{Service: withIPs(ip)}); got == nil || !slices.Equal(got.Replaced, []string{"10.96.0.7"}) {
			t.Errorf("with %s: %+v", ip, got)
		}
	}
	c.Replaced(withIPs("10.96.0.9"))
	if got := c.Tombstone(key, plan.Objects{Service: withIPs("10.96.0.9")}); got != nil {
		t.Errorf("reported: %+v", got)
	}
}
