package publish

import (
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An export is one label: all of its ports are routed and recorded, nothing is written while nothing changes, and what
// is unexported is closed.
func TestExportIsPublished(t *testing.T) {
	e := newEnv(t)
	e.gatewayOf(http, tls, tcp0, tcp1, udp0)
	e.export("bar", port("http", 80), port("https", 443), port("grpc", 50051), port("postgres", 5432), udp("dns", 53))
	e.start()
	e.soon("record", e.recorded("bar", 80, 443, 15000, 15001, 15000))
	routes := gateway.GatewayV1()
	route, err := routes.HTTPRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	if len(route.Spec.Hostnames) != 6 || string(route.Spec.Hostnames[2]) != "bar-paris."+e.id+".svc.cluster.local" {
		t.Errorf("the names are %v", route.Spec.Hostnames)
	}
	if owner := route.OwnerReferences; len(owner) != 1 || owner[0].Name != "bar" || owner[0].BlockOwnerDeletion == nil || *owner[0].BlockOwnerDeletion {
		t.Errorf("the owners are %+v", owner)
	}
	_, err = routes.TLSRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
	e.must(err)
	_, err = routes.TCPRoutes(e.id).Get(e.ctx, "bar.5432.service-mirror", metav1.GetOptions{})
	e.must(err)
	_, err = routes.UDPRoutes(e.id).Get(e.ctx, "bar.53.service-mirror", metav1.GetOptions{})
	e.must(err)

	mark, err := paris.Mark()
	e.must(err)
	time.Sleep(5 * time.Second)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written while nothing changed: %v", writes)
	}

	e.unexport("bar")
	begin := time.Now()
	e.soon("the routes are gone", func() error {
		tcp, err := routes.TCPRoutes(e.id).List(e.ctx, metav1.ListOptions{})
		if err != nil || len(tcp.Items) > 0 {
			return fmt.Errorf("%d TCPRoutes, %v", len(tcp.Items), err)
		}
		_, err = routes.HTTPRoutes(e.id).Get(e.ctx, "bar.service-mirror", metav1.GetOptions{})
		return gone(err)
	})
	t.Logf("closed after %v", time.Since(begin).Round(time.Millisecond))
	e.soon("the record is released", func() error {
		configMap, err := paris.CoreV1().ConfigMaps(e.records).Get(e.ctx, e.id+".bar", metav1.GetOptions{})
		if err != nil || configMap.Labels["service-mirror.io/record"] != "released" || len(configMap.Data) > 0 {
			return fmt.Errorf("%+v, %v", configMap, err)
		}
		return nil
	})
}
