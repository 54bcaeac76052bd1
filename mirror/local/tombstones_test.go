package local

import (
	"slices"
	"testing"
	"testing/synctest"

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
		"with other ClusterIPs":                   {func(c *Cluster) { c.tombstones.seen(withIPs("10.96.0.8", "fd00::8")) }, plan.Objects{Service: withIPs("10.96.0.8", "fd00::8")}, nil},
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

func TestLostAddresses(t *testing.T) {
	c := &Cluster{}
	_, endpoints := fixture.Stored(fixture.MirrorOfBar())
	c.tombstones.seen(withIPs("10.96.0.7"))
	c.tombstones.lost(key, plan.Endpoints, endpoints)
	if got := c.Tombstone(key, plan.Objects{Service: withIPs("10.96.0.7")}); got == nil || got.Addresses.Endpoints != endpoints {
		t.Errorf("got %+v", got)
	}
	if got := c.Tombstone(key, plan.Objects{Service: withIPs("10.96.0.7"), Endpoints: endpoints}); got != nil {
		t.Errorf("they are live again: got %+v", got)
	}
	if got := c.Tombstone(key, plan.Objects{Service: withIPs("10.96.0.7")}); got != nil {
		t.Errorf("what was live later counts: got %+v", got)
	}
}
