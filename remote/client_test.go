package remote

import (
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/util/flowcontrol"
)

// A limit on requests is one for all API groups; without one nothing limits.
func TestClientLimit(t *testing.T) {
	limiters := func(options ClientOptions) (all []flowcontrol.RateLimiter) {
		c, err := NewClient(options.Tune(&rest.Config{Host: "https://paris"}, "paris", &Network{}))
		if err != nil {
			t.Fatal(err)
		}
		for _, group := range []rest.Interface{
			c.AuthorizationV1().RESTClient(), c.CoordinationV1().RESTClient(), c.CoreV1().RESTClient(),
			c.DiscoveryV1().RESTClient(), c.NetworkingV1().RESTClient(),
		} {
			all = append(all, group.GetRateLimiter())
		}
		return all
	}
	for _, limiter := range limiters(ClientOptions{}) {
		if limiter != nil {
			t.Errorf("without a limit there is one of %v a second", limiter.QPS())
		}
	}
	limited := limiters(ClientOptions{QPS: 7, Burst: 7})
	for i, limiter := range limited {
		if limiter == nil || limiter != limited[0] || limiter.QPS() != 7 {
			t.Errorf("group %d has a limit of its own, or none", i)
		}
	}
}
