package mirror

import (
	"fmt"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	published "service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/remote"
)

// publishes has a remote read records.
func (r *fakeRemote) publishes() {
	r.configMaps = remote.NewInformer(&remote.ListWatch{}, &corev1.ConfigMap{}, func(configMap *corev1.ConfigMap) *corev1.ConfigMap { return configMap })
	r.records = remote.NewRecords("service-mirror", r.configMaps, func() bool { return !r.recordsUnknown })
}

// publish has the remote's publisher write a record.
func (r *fakeRemote) publish(rec published.Record, edits ...func(*corev1.ConfigMap)) {
	configMap, err := rec.ConfigMap("service-mirror")
	must(err)
	for _, edit := range edits {
		edit(configMap)
	}
	must(r.configMaps.GetIndexer().Add(remote.Encode(configMap)))
	r.hooks.RecordChanged(r.name, r.records.Changed(configMap.Name, configMap))
}

// unpublish deletes the record of a Service.
func (r *fakeRemote) unpublish(rec published.Record) {
	configMap, err := rec.ConfigMap("service-mirror")
	must(err)
	must(r.configMaps.GetIndexer().Delete(remote.Encode(configMap)))
	r.hooks.RecordChanged(r.name, r.records.Changed(configMap.Name, nil))
}

// database is an exported Service of one TCP port, created some seconds after others, and its record.
func database(name string, age int) (*corev1.Service, published.Record) {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: types.UID(name + "-uid"), CreationTimestamp: metav1.Unix(int64(1_000_000+age), 0)},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.9", Ports: []corev1.ServicePort{{Name: "postgres", Port: 5432, Protocol: corev1.ProtocolTCP}}},
	}
	return svc, published.Record{Service: cache.MetaObjectToName(svc), UID: svc.UID, Ready: true,
		Ports: []published.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp"}}}
}

// publishing runs a test with a remote whose gateway has ports 80, 15000 and 15001, and whose publisher writes records.
func publishing(t *testing.T, test func(w *world, paris *fakeRemote)) {
	publishingWith(t, Options{}, test)
}

func publishingWith(t *testing.T, options Options, test func(w *world, paris *fakeRemote)) {
	run(t, options, []string{"paris"}, func(w *world) {
		paris := w.remotes["paris"]
		paris.publishes()
		for _, n := range []int32{15000, 15001} {
			paris.gateway.Ports = append(paris.gateway.Ports, corev1.ServicePort{Name: fmt.Sprint("tcp-", n), Port: n, Protocol: corev1.ProtocolTCP})
		}
		test(w, paris)
	})
}

// port is the gateway port that a mirror has; 0: none.
func (w *world) port(name string) (n int32) {
	if endpoints := w.server.endpoints("default", name+"-paris"); endpoints != nil {
		for _, subset := range endpoints.Subsets {
			n = subset.Ports[0].Port
		}
	}
	return n
}

func (w *world) ports(want map[string]int32) {
	w.Helper()
	w.wait(time.Second)
	for name, n := range want {
		if got := w.port(name); got != n {
			w.Errorf("%s has gateway port %d, want %d; log:\n%s", name, got, n, w.log)
		}
	}
}

// problem is what is wrong with a mirror; empty: nothing.
func (w *world) problem(name string) string {
	var texts []string
	for _, problem := range w.controller.problems.Of(cache.NewObjectName("default", name+"-paris")) {
		texts = append(texts, problem.Error())
	}
	return strings.Join(texts, "; ")
}

func TestMirrorFollowsItsRecord(t *testing.T) {
	publishing(t, func(w *world, paris *fakeRemote) {
		svc, rec := database("db", 0)
		other, _ := database("other", 0)
		paris.export(svc)
		paris.export(other)
		w.settle()
		w.ports(map[string]int32{"db": 0})
		w.server.wrote()
		paris.publish(rec)
		w.ports(map[string]int32{"db": 15000, "other": 0})
		w.expect("update endpoints default/db-paris") // and nothing of the other one
		if got := w.problem("db"); got != "" {
			t.Errorf("its problem is %q", got)
		}
		paris.publish(rec)
		w.ports(map[string]int32{"db": 15000})
		w.expect()
		rec.Ports[0].Gateway = 15001
		paris.publish(rec)
		w.ports(map[string]int32{"db": 15001})
		rec.Ports[0].Gateway, rec.Ports[0].Problem = 0, "all of --ports are taken"
		paris.publish(rec)
		w.ports(map[string]int32{"db": 0})
		if got := w.problem("db"); !strings.Contains(got, "PortNotServed") || !strings.Contains(got, "all of --ports are taken") {
			t.Errorf("its problem is %q", got)
		}
	})
}

// A record that cannot be used is a problem of one mirror.
func TestRecordThatCannotBeUsed(t *testing.T) {
	for name, test := range map[string]struct {
		change func(*published.Record)
		edit   func(*corev1.ConfigMap)
		want   string
	}{
		"malformed":     {edit: func(c *corev1.ConfigMap) { c.Data[published.DataKey] = "<html>" }, want: "malformed record"},
		"without data":  {edit: func(c *corev1.ConfigMap) { c.Data = nil }, want: "it has no key record.json"},
		"too large":     {edit: func(c *corev1.ConfigMap) { c.Data[published.DataKey] += strings.Repeat(" ", published.MaxBytes) }, want: "more than 16384"},
		"of another":    {change: func(r *published.Record) { r.UID = "before" }, want: "another UID"},
		"no such port":  {change: func(r *published.Record) { r.Ports[0].Gateway = 9 }, want: "which the gateway does not have"},
		"not a port":    {change: func(r *published.Record) { r.Ports[0].Gateway = 99_999 }, want: "is not a port number"},
		"100,000 ports": {change: func(r *published.Record) { r.Ports = make([]published.Port, 100_000) }, want: "bytes, more than 16384"},
	} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(w *world, paris *fakeRemote) {
				svc, rec := database("db", 0)
				good, itsRecord := database("good", 0)
				itsRecord.Ports[0].Gateway = 15001
				paris.export(svc)
				paris.export(good)
				if test.change != nil {
					test.change(&rec)
				}
				edit := func(*corev1.ConfigMap) {}
				if test.edit != nil {
					edit = test.edit
				}
				paris.publish(rec, edit)
				paris.publish(itsRecord)
				w.settle()
				w.ports(map[string]int32{"db": 0, "good": 15001})
				if got := w.problem("db"); !strings.Contains(got, "PortNotServed") || !strings.Contains(got, test.want) {
					t.Errorf("its problem is %q, want %q", got, test.want)
				}
				if got := w.problem("good"); got != "" {
					t.Errorf("the other one's problem is %q", got)
				}
				_, rec = database("db", 0)
				paris.publish(rec)
				w.ports(map[string]int32{"db": 15000})
				if got := w.problem("db"); got != "" {
					t.Errorf("its problem is still %q", got)
				}
			})
		})
	}
}

// Unknown is not empty: what a mirror has stays, but not for a port that is another one now. What the gateway says
// is followed all the same.
func TestRecordsThatAreNotKnown(t *testing.T) {
	for _, api := range []plan.EndpointsAPI{plan.UseEndpoints, plan.UseEndpointSlices} {
		run(t, Options{Policy: plan.Policy{EndpointsAPI: api}}, []string{"paris"}, func(w *world) {
			paris := w.remotes["paris"]
			paris.publishes()
			paris.gateway.Ports = append(paris.gateway.Ports, corev1.ServicePort{Name: "tcp", Port: 15000, Protocol: corev1.ProtocolTCP})
			svc, rec := database("db", 0)
			paris.export(svc)
			paris.publish(rec)
			w.settle()
			key := cache.NewObjectName("default", "db-paris")
			served := func() int {
				n := 0
				for _, port := range w.controller.local.Live(key).Ports() {
					if port.Port == 15000 {
						n++
					}
				}
				return n
			}
			w.wait(time.Second)
			if served() != 1 {
				t.Fatalf("%s: it is not served; log:\n%s", api, w.log)
			}
			paris.recordsUnknown = true
			w.stop()
			w.server.wrote()
			w.use(Options{Policy: plan.Policy{EndpointsAPI: api}}, "paris")
			fresh, _ := database("fresh", 0)
			paris.export(fresh)
			w.settle()
			w.wait(time.Second)
			if served() != 1 || w.problem("db") != "" {
				t.Errorf("%s: it has %v, its problem is %q", api, w.controller.local.Live(key).Ports(), w.problem("db"))
			}
			for _, write := range w.server.wrote() {
				if strings.Contains(write.what, "/db-paris") {
					t.Errorf("%s: %s", api, write.what)
				}
			}
			if got := w.problem("fresh"); !strings.Contains(got, "have not been read yet") {
				t.Errorf("%s: the problem of one without endpoints is %q", api, got)
			}
			moved := *paris.gateway
			moved.Addresses = []gateway.Address{{Addr: moved.Addresses[0].Addr.Next(), Health: gateway.NotProbed}}
			paris.setGateway(&moved)
			w.wait(time.Second)
			if got := w.controller.local.Live(key).Addresses(); served() != 1 || len(got) != 1 || got[0] != moved.Addresses[0].Addr.String() {
				t.Errorf("%s: it has the addresses %v and ports %v", api, got, w.controller.local.Live(key).Ports())
			}
			svc.Spec.Ports[0].Port = 3306
			paris.export(svc)
			w.wait(time.Second)
			if served() != 0 {
				t.Errorf("%s: another port of that name leads where the old one did", api)
			}
		})
	}
}

// A mirror of UDP ports alone exists because of its record: while that is not known it stays, and a new one waits.
func TestUDPMirrorWhileRecordsAreNotKnown(t *testing.T) {
	publishing(t, func(w *world, paris *fakeRemote) {
		paris.gateway.Ports = append(paris.gateway.Ports, corev1.ServicePort{Name: "udp", Port: 15353, Protocol: corev1.ProtocolUDP})
		udp := func(name string) (*corev1.Service, published.Record) {
			svc, rec := database(name, 0)
			svc.Spec.Ports[0].Protocol = corev1.ProtocolUDP
			rec.Ports[0].Protocol, rec.Ports[0].Gateway = corev1.ProtocolUDP, 15353
			return svc, rec
		}
		svc, rec := udp("dns")
		paris.export(svc)
		paris.publish(rec)
		w.settle()
		w.ports(map[string]int32{"dns": 15353})
		paris.recordsUnknown = true
		fresh, _ := udp("fresh")
		paris.export(fresh)
		w.server.wrote()
		paris.hooks.Resync("paris")
		w.ports(map[string]int32{"dns": 15353})
		w.expect()
		if got := w.problem("fresh"); !strings.Contains(got, "the records of the remote's publisher have not been read yet") {
			t.Errorf("the problem of a new one is %q", got)
		}
		paris.recordsUnknown = false
		paris.unpublish(rec)
		w.wait(time.Second)
		w.expect("delete services default/dns-paris", "delete endpoints default/dns-paris")
	})
}

// What two records have alone is the older Service's, whatever the order of events.
func TestRecordsThatClaimOnePort(t *testing.T) {
	old, oldRecord := database("old", 0)
	young, youngRecord := database("young", 5)
	sharing, sharingRecord := database("sharing", -5)
	sharingRecord.Ports[0].Shared = true
	for name, begin := range map[string]func(*fakeRemote){
		"the older first":   func(r *fakeRemote) { r.publish(oldRecord); r.publish(youngRecord); r.publish(sharingRecord) },
		"the younger first": func(r *fakeRemote) { r.publish(sharingRecord); r.publish(youngRecord); r.publish(oldRecord) },
	} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(w *world, paris *fakeRemote) {
				w.settle()
				paris.export(young)
				paris.export(old)
				paris.export(sharing)
				begin(paris)
				w.ports(map[string]int32{"old": 15000, "young": 0, "sharing": 0})
				for _, name := range []string{"young", "sharing"} {
					if got := w.problem(name); !strings.Contains(got, "which is exclusive to default/old") {
						t.Errorf("the problem of %s is %q", name, got)
					}
				}
				paris.unexport(old) // its record stays for a while
				w.ports(map[string]int32{"young": 15000, "sharing": 0})
				paris.export(old)
				w.ports(map[string]int32{"old": 15000, "young": 0, "sharing": 0})
				paris.unpublish(oldRecord)
				w.ports(map[string]int32{"old": 0, "young": 15000, "sharing": 0})
				paris.unpublish(youngRecord)
				w.ports(map[string]int32{"young": 0, "sharing": 15000})
			})
		})
	}
}

// What one Service has alone by its record no annotation takes, whatever the Services' ages; nor does one that the
// Service's own record refuses.
func TestRecordAndAnnotationThatClaimOnePort(t *testing.T) {
	for name, ages := range map[string][2]int{"the record's is older": {0, 5}, "the annotation's is older": {5, 0}} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(w *world, paris *fakeRemote) {
				recorded, rec := database("recorded", ages[0])
				annotated, refusing := database("annotated", ages[1])
				annotated.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15000"}
				w.settle()
				paris.export(recorded)
				paris.export(annotated)
				w.ports(map[string]int32{"recorded": 0, "annotated": 15000})
				paris.publish(rec)
				w.ports(map[string]int32{"recorded": 15000, "annotated": 0})
				if got := w.problem("annotated"); !strings.Contains(got, "15000/TCP is reserved for default/recorded, to which the remote's publisher assigned it") {
					t.Errorf("the problem of the annotated one is %q", got)
				}
				refusing.Ports[0].Gateway, refusing.Ports[0].Problem = 0, "gateway port 15000/TCP is given to default/recorded"
				paris.publish(refusing)
				w.ports(map[string]int32{"recorded": 15000, "annotated": 0})
				paris.unpublish(rec)
				w.ports(map[string]int32{"recorded": 0, "annotated": 0})
				paris.unpublish(refusing)
				w.ports(map[string]int32{"recorded": 0, "annotated": 15000})
				paris.unexport(annotated)
				paris.publish(rec)
				w.ports(map[string]int32{"recorded": 15000})
			})
		})
	}
}

func TestRecordWithoutAReadyEndpoint(t *testing.T) {
	publishing(t, func(w *world, paris *fakeRemote) {
		svc, rec := database("db", 0)
		rec.Ready = false
		paris.export(svc)
		paris.publish(rec)
		w.settle()
		w.ports(map[string]int32{"db": 15000}) // endpoints stay as they are
		if got := w.problem("db"); !strings.Contains(got, "NoReadyEndpoint: the exported Service has no ready endpoint") {
			t.Errorf("its problem is %q", got)
		}
		row := w.controller.Overview().Mirrors[0]
		if row.State != string(plan.StateIncomplete) || row.Mapping[0].String() != "5432 -> 15000 (published)" {
			t.Errorf("the page has %+v", row)
		}
		w.server.wrote()
		rec.Ready = true
		paris.publish(rec)
		w.ports(map[string]int32{"db": 15000})
		w.expect()
		if got := w.problem("db"); got != "" {
			t.Errorf("its problem is still %q", got)
		}
	})
}

// Of a crowd of records that have one port alone it is not used, and each says so. Whatever the order in which they come
// and go, the oldest has it once they are few enough; what comes to a crowd, or goes, has no other one looked at.
func TestCrowdOfRecords(t *testing.T) {
	metrics := report.NewMetrics(report.Daemon, "", paris)
	syncs := func() (n uint64) {
		families, err := metrics.Gatherer().Gather()
		must(err)
		for _, family := range families {
			if family.GetName() == "service_mirror_sync_duration_seconds" {
				n = family.GetMetric()[0].GetHistogram().GetSampleCount()
			}
		}
		return n
	}
	publishingWith(t, Options{Metrics: metrics}, func(w *world, paris *fakeRemote) {
		const few = 100
		annotated, _ := database("annotated", -1)
		annotated.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15000"}
		paris.export(annotated)
		good, itsRecord := database("good", 0)
		itsRecord.Ports[0].Gateway = 15001
		paris.export(good)
		paris.publish(itsRecord)
		w.settle()
		records := map[int]published.Record{}
		for i := range few + 20 {
			svc, rec := database(fmt.Sprint("n", i), 1000-i) // each is older than the one before
			paris.export(svc)
			records[i] = rec
		}
		w.wait(time.Second)
		w.ports(map[string]int32{"annotated": 15000})
		for i := range few {
			paris.publish(records[i])
		}
		w.ports(map[string]int32{"n99": 15000, "n98": 0, "n0": 0, "annotated": 0, "good": 15001})
		for i := few; i < few+20; i++ {
			paris.publish(records[i])
		}
		w.ports(map[string]int32{"n119": 0, "n99": 0, "n0": 0, "annotated": 0, "good": 15001})
		for _, name := range []string{"n119", "n99", "n0", "annotated"} {
			if got := w.problem(name); !strings.Contains(got, "15000/TCP is not used") {
				t.Errorf("the problem of %s is %q", name, got)
			}
		}
		before := syncs()
		paris.unpublish(records[0])
		paris.publish(records[0])
		w.wait(time.Second)
		if n := syncs() - before; n == 0 || n > 2 {
			t.Errorf("%d syncs for one record of a crowd", n)
		}
		for i := few + 19; i >= few; i-- {
			paris.unpublish(records[i])
		}
		w.ports(map[string]int32{"n119": 0, "n99": 15000, "n0": 0, "annotated": 0, "good": 15001})
		for i := range few {
			paris.unpublish(records[i])
		}
		w.ports(map[string]int32{"n99": 0, "annotated": 15000, "good": 15001})
	})
}

// A mirror whose host name the gateway does not route has a reason, if a port is routed by it.
func TestHostThatIsNotRouted(t *testing.T) {
	for name, test := range map[string]struct {
		hosts []string
		port  published.Port
		want  int
	}{
		"routed":               {[]string{"bar.default", "bar-paris.default.svc.cluster.local"}, published.Port{Shared: true}, 0},
		"by another name":      {[]string{"bar.default", "bar-lutetia.default"}, published.Port{Shared: true}, 1},
		"in another namespace": {[]string{"bar-paris.shop.svc.cluster.local"}, published.Port{Shared: true}, 1},
		"a longer name":        {[]string{"bar-paris.default-2.svc.cluster.local"}, published.Port{Shared: true}, 1},
		"by a port":            {[]string{"bar.default"}, published.Port{}, 0},
		"not known":            {nil, published.Port{Shared: true}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(w *world, paris *fakeRemote) {
				svc, record := database("bar", 1)
				test.port.Port, test.port.Protocol, test.port.Gateway, test.port.Class = 5432, corev1.ProtocolTCP, 15000, "tcp"
				record.Hosts, record.Ports = test.hosts, []published.Port{test.port}
				paris.export(svc)
				paris.publish(record)
				w.settle()
				w.logged(test.want, `"Mirror has a problem" reason="NotRouted"`)
			})
		})
	}
}

// Whoever chooses a gateway port by its name or number yields it to the Service that has it alone by its record.
func TestChosenPortIsYielded(t *testing.T) {
	for name, choose := range map[string]func(*corev1.Service, *gateway.Gateway){
		"by number":         func(svc *corev1.Service, _ *gateway.Gateway) { svc.Annotations[gateway.PortAnnotation] = "5432=15000" },
		"by name":           func(svc *corev1.Service, _ *gateway.Gateway) { svc.Annotations[gateway.PortAnnotation] = "tcp-15000" },
		"gateway-port":      func(_ *corev1.Service, gw *gateway.Gateway) { gw.Port = "15000" },
		"a default for all": func(_ *corev1.Service, gw *gateway.Gateway) { gw.Default = "tcp-15000" },
	} {
		t.Run(name, func(t *testing.T) {
			publishing(t, func(w *world, paris *fakeRemote) {
				svc, _ := database("db", 0)
				svc.Annotations = map[string]string{}
				choose(svc, paris.gateway)
				owner, rec := database("pg", 1)
				paris.export(svc)
				paris.export(owner)
				w.settle()
				w.ports(map[string]int32{"db": 15000})
				paris.publish(rec)
				w.ports(map[string]int32{"db": 0, "pg": 15000})
				paris.unpublish(rec)
				w.ports(map[string]int32{"db": 15000})
			})
		})
	}
}

// Which Service has a gateway port depends on the gateway that each names.
func TestGatewayPortOfAnotherGateway(t *testing.T) {
	publishing(t, func(w *world, paris *fakeRemote) {
		at := func(age int, name, text string) *corev1.Service {
			svc, _ := database(name, age)
			svc.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15000", gateway.Annotation: text}
			return svc
		}
		paris.export(at(0, "pg", "ingress/private"))
		paris.export(at(1, "db", ""))
		w.settle()
		w.ports(map[string]int32{"pg": 0, "db": 15000})
		paris.export(at(0, "pg", ""))
		w.ports(map[string]int32{"pg": 15000, "db": 0})
		paris.export(at(0, "pg", "ingress/private"))
		w.ports(map[string]int32{"pg": 0, "db": 15000})
	})
}

// What the publisher gives to a Service is that Service's, even if it names a gateway that is not configured here.
func TestPublishedPortOfAServiceOnAnotherGateway(t *testing.T) {
	for _, key := range []string{gateway.PortsAnnotation, gateway.PortAnnotation} {
		publishing(t, func(w *world, paris *fakeRemote) {
			pg, record := database("pg", 1)
			pg.Annotations = map[string]string{gateway.Annotation: "ingress/private"}
			db, _ := database("db", 0)
			db.Annotations = map[string]string{key: "5432=15000"}
			paris.export(pg)
			paris.export(db)
			w.settle()
			w.ports(map[string]int32{"pg": 0, "db": 15000})
			paris.publish(record)
			w.ports(map[string]int32{"pg": 0, "db": 0})
			paris.unpublish(record)
			w.ports(map[string]int32{"pg": 0, "db": 15000})
		})
	}
}
