package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	published "service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/report"
)

// synced is how many keys were taken from the queues.
func synced(t *testing.T, metrics *report.Metrics) (n uint64) {
	t.Helper()
	families, err := metrics.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if strings.HasSuffix(family.GetName(), "queue_latency_seconds") {
			return family.GetMetric()[0].GetHistogram().GetSampleCount()
		}
	}
	t.Fatal("the metric of the queue does not exist")
	return 0
}

// An event of one record, or of the Service that it is about, concerns the one local Service whose name is routed to that,
// and not each of a thousand that fail over to the same remote.
func TestFailoverSyncsWhatARecordConcerns(t *testing.T) {
	const services = 1000
	options := failoverTimes
	options.Metrics = report.NewMetrics(report.Daemon, "", []string{"paris"})
	run(t, options, []string{"paris"}, func(w *world) {
		paris := w.remotes["paris"]
		paris.publishes()
		exported := func(i int) *corev1.Service {
			pub := named("shop", fmt.Sprint("pub", i))
			pub.UID = types.UID(fmt.Sprint("pub", i))
			return pub
		}
		record := func(i int) published.Record {
			return published.Record{Service: cache.NewObjectName("shop", fmt.Sprint("pub", i)), UID: types.UID(fmt.Sprint("pub", i)), Ready: true,
				Hosts: []string{fmt.Sprintf("pub%d.shop", i), fmt.Sprintf("bar%d.default", i)}}
		}
		for i := range services {
			svc := ownBar("paris")
			svc.Name, svc.Spec.ClusterIP, svc.Spec.ClusterIPs = fmt.Sprint("bar", i), "", nil
			w.server.put(svc)
			paris.export(exported(i))
			paris.publish(record(i))
		}
		w.settle()
		w.wait(time.Minute)
		if w.server.slice("default", "bar7.paris.ipv4") == nil {
			t.Fatalf("nothing fails over\n%.2000s", w.log)
		}
		other := record(7)
		other.Hosts = other.Hosts[:1]
		for _, step := range []struct {
			name  string
			event func()
			slice bool // beside bar7
		}{
			{"the record has no alias any more", func() { paris.publish(other) }, false},
			{"it has it again", func() { paris.publish(record(7)) }, true},
			{"the Service is not exported any more", func() { paris.unexport(exported(7)) }, false},
			{"it is exported again", func() { paris.export(exported(7)) }, true},
			{"the record is gone", func() { paris.unpublish(record(7)) }, false},
		} {
			before, views := synced(t, options.Metrics), paris.views
			step.event()
			w.wait(time.Minute)
			if got := w.server.slice("default", "bar7.paris.ipv4") != nil; got != step.slice {
				t.Errorf("%s: bar7 has a slice of paris: %t", step.name, got)
			}
			// The mirror, and the Service that fails over, and each once more for what was written.
			if n := synced(t, options.Metrics) - before; n < 2 || n > 12 {
				t.Errorf("%s: %d syncs", step.name, n)
			}
			if n := paris.views - views; n > 100 {
				t.Errorf("%s: the remote was looked at %d times", step.name, n)
			}
		}
	})
}

// A local Service fails over through a gateway port only for as long as that is the exported Service's.
func TestFailoverYieldsAGatewayPort(t *testing.T) {
	claiming := func(name string, age int) *corev1.Service {
		svc, _ := database(name, age)
		svc.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15000"}
		return svc
	}
	_, rec := database("pg", 9)
	headless := claiming("first", 0)
	headless.Spec.ClusterIP = corev1.ClusterIPNone
	run(t, failoverTimes, []string{"paris"}, func(w *world) {
		paris := w.remotes["paris"]
		paris.publishes()
		paris.gateway.Ports = append(paris.gateway.Ports, corev1.ServicePort{Name: "tcp-15000", Port: 15000, Protocol: corev1.ProtocolTCP})
		local := ownBar("paris")
		local.Name, local.Spec.Ports = "db", claiming("db", 5).Spec.Ports
		w.server.put(local)
		paris.export(claiming("db", 5))
		w.settle()
		for _, step := range []struct {
			name  string
			event func()
			slice bool
		}{
			{"nobody else claims it", func() {}, true},
			{"an older Service claims it", func() { paris.export(claiming("pg", 4)) }, false},
			{"that is not exported any more", func() { paris.unexport(claiming("pg", 4)) }, true},
			{"a younger one claims it", func() { paris.export(claiming("pg", 9)) }, true},
			{"a record gives it to that", func() { paris.publish(rec) }, false},
			{"the record is gone", func() { paris.unpublish(rec) }, true},
			{"a Service that is not mirrored claims it", func() { paris.export(headless) }, true},
		} {
			step.event()
			w.wait(time.Second)
			if got := w.server.slice("default", "db.paris.ipv4") != nil; got != step.slice {
				t.Errorf("%s: a slice exists: %t; log:\n%s", step.name, got, w.log)
			}
		}
	})
}
