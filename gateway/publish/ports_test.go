package publish

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// twoListeners has two gateway ports to give.
func (w *world) twoListeners() {
	w.gateway(listener("http", "HTTP", 80), listener("a", "TCP", 15000), listener("b", "TCP", 15001))
}

func (w *world) wantPort(service string, port int32) {
	w.Helper()
	if got := w.record(service).Of(5432, corev1.ProtocolTCP).Gateway; got != port {
		w.Errorf("%s has gateway port %d, not %d\n%s", service, got, port, w.log)
	}
}

// A Service whose record is deleted, or is no longer ours, keeps its gateway port, and no other Service gets it.
func TestControllerKeepsThePortOfALostRecord(t *testing.T) {
	for name, lose := range map[string]func(w *world){
		"deleted": func(w *world) { w.server.drop("configmaps", "sm", "default.bar") },
		"unlabelled": func(w *world) {
			configMap := w.server.get("configmaps", "sm", "default.bar").(*corev1.ConfigMap)
			delete(configMap.Labels, "app.kubernetes.io/managed-by")
			w.server.put("configmaps", configMap)
			w.wait(time.Second)
			w.server.drop("configmaps", "sm", "default.bar")
		},
		"deleted while no replica leads": func(w *world) {
			w.stop()
			w.server.drop("configmaps", "sm", "default.bar")
			w.server.put("services", exportedService("aaa", 5432))
			w.start()
		},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.twoListeners()
				w.start()
				w.wantPort("bar", 15000)
				lose(w)
				w.wait(time.Minute)
				w.server.put("services", exportedService("aaa", 5432))
				w.wait(time.Second)
				w.wantPort("bar", 15000)
				w.wantPort("aaa", 15001)
				if got, ok := w.server.get("configmaps", "sm", "default.bar").(*corev1.ConfigMap); !ok || len(plan.Allocations(got)) != 1 {
					t.Errorf("its record is %v", got)
				}
			})
		})
	}
}

// A replica that takes over asks the server for the records: its cache may be behind.
func TestControllerListsTheRecordsBeforeItLeads(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.start()
		records, ok := w.controller.listRecords(w.Context())
		if !ok || len(records) != 1 || records[0].Name != "default.bar" {
			t.Errorf("%v, %v", records, ok)
		}
		w.server.mu.Lock()
		w.server.unreadable = "configmaps"
		w.server.mu.Unlock()
		begin := time.Now()
		time.AfterFunc(10*time.Second, func() {
			w.server.mu.Lock()
			defer w.server.mu.Unlock()
			w.server.unreadable = ""
		})
		if records, ok := w.controller.listRecords(w.Context()); !ok || len(records) != 1 || time.Since(begin) < 10*time.Second {
			t.Errorf("%v, %v after %v", records, ok, time.Since(begin))
		}
	})
}

// While a kind of routes cannot be discovered, or not be listed, what is published through it stays as it is.
func TestControllerKeepsWhatItCannotRead(t *testing.T) {
	for name, set := range map[string]func(s *apiserver, resource string){
		"discovery": func(s *apiserver, resource string) { s.undiscovered = resource },
		"list":      func(s *apiserver, resource string) { s.unreadable = resource },
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				w.managed(0)
				w.start()
				w.wantPort("bar", 15000)
				w.stop()
				w.server.wrote()
				fail := func(resource string) {
					w.server.mu.Lock()
					defer w.server.mu.Unlock()
					set(w.server, resource)
				}
				fail("tcproutes")
				w.server.put("services", exportedService("new", 80, 5432))
				w.start()
				w.wait(time.Hour)
				w.wrote("create configmaps sm/default.new", "create httproutes default/new.service-mirror")
				w.wantPort("bar", 15000)
				w.wantPort("new", 0)
				problems := fmt.Sprint(w.controller.problems.Of(cache.NewObjectName("default", "bar")))
				if !strings.Contains(problems, "TCPRoute cannot be read: ") {
					t.Errorf("the problems are %s", problems)
				}
				fail("")
				w.wait(5 * time.Minute)
				w.wantPort("bar", 15000)
				w.wantPort("new", 15001)
				if w.has(mirrors.PortNotServed) {
					t.Errorf("problems are left: %s", w.log)
				}
			})
		})
	}
}

// A Service that annotates an older one's port does not get it, and an older one that annotates a younger one's does not
// take it away: age decides only while the port is free.
func TestControllerKeepsAPortInUse(t *testing.T) {
	in(t, func(w *world) {
		w.twoListeners()
		w.server.drop("services", "default", "bar")
		annotated := func(name string, age int64) *corev1.Service {
			svc := exportedService(name, 5432)
			svc.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15001"}
			svc.CreationTimestamp = metav1.NewTime(time.Unix(age, 0))
			return svc
		}
		w.server.put("services", annotated("young", 2000))
		w.start()
		w.wantPort("young", 15001)
		w.server.put("services", annotated("old", 1000))
		w.wait(time.Minute)
		w.wantPort("young", 15001)
		w.wantPort("old", 0)
		w.server.drop("services", "default", "young")
		w.wait(plan.ReleasedFor + time.Second)
		w.wantPort("old", 15001)
	})
}

// A gateway port that becomes free goes to a Service that was refused one, without a change of that Service.
func TestControllerGivesAFreedPort(t *testing.T) {
	in(t, func(w *world) {
		w.start()
		w.wantPort("bar", 15000)
		w.server.put("services", exportedService("next", 5432))
		w.wait(time.Minute)
		w.wantPort("next", 0)
		w.server.drop("services", "default", "bar")
		w.wait(plan.ReleasedFor + time.Second)
		w.wantPort("next", 15000)
	})
}

// A Service that is another one now, and younger, frees the name that it claimed.
func TestControllerWakesRivals(t *testing.T) {
	in(t, func(w *world) {
		service := func(name string, age int64) *corev1.Service {
			svc := exportedService(name, 80)
			svc.Annotations = map[string]string{plan.HostsAnnotation: "shop.example.com"}
			svc.CreationTimestamp = metav1.NewTime(time.Unix(age, 0))
			return svc
		}
		w.server.put("services", service("old", 1000))
		w.server.put("services", service("young", 2000))
		w.start(func(o *Options) { o.HostSuffixes = []string{"example.com"} })
		w.server.put("services", service("old", 3000))
		w.wait(time.Minute)
		if got := w.record("young").Hosts; !slices.Contains(got, "shop.example.com") {
			t.Errorf("the hosts of the older one are %v", got)
		}
	})
}

// A Service that is refused, such as a headless one of the same chart, claims no gateway port and no name; once it is not
// refused any more, it has what an older one has.
func TestControllerRefusesClaims(t *testing.T) {
	for name, test := range map[string]struct {
		refuse func(*corev1.Service)
		accept func(*corev1.Service) // nil: it never is
	}{
		"headless":     {refuse: func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone }},
		"ExternalName": {func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeExternalName }, func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeClusterIP }},
	} {
		t.Run(name, func(t *testing.T) {
			in(t, func(w *world) {
				const host = "redis.example.com"
				w.twoListeners()
				w.server.drop("services", "default", "bar")
				refused, rival := exportedService("redis-headless", 80, 5432), exportedService("redis-master", 80, 5432)
				for _, svc := range []*corev1.Service{refused, rival} { // created in the same second
					svc.Annotations = map[string]string{gateway.PortsAnnotation: "5432=15001", plan.HostsAnnotation: host}
				}
				test.refuse(refused)
				w.server.put("services", refused)
				w.server.put("services", rival)
				w.start(func(o *Options) { o.HostSuffixes = []string{"example.com"} })
				w.wantPort("redis-master", 15001)
				if hosts := w.record("redis-master").Hosts; !slices.Contains(hosts, host) {
					t.Errorf("its hosts are %v\n%s", hosts, w.log)
				}
				if test.accept == nil {
					return
				}
				refused = refused.DeepCopy()
				test.accept(refused)
				w.server.put("services", refused)
				w.wait(time.Second)
				first, second := w.record("redis-headless"), w.record("redis-master")
				if !slices.Contains(first.Hosts, host) || slices.Contains(second.Hosts, host) {
					t.Errorf("then the hosts are %v and %v", first.Hosts, second.Hosts)
				}
				w.wantPort("redis-master", 15001) // which it has
			})
		})
	}
}
