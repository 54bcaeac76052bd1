package publish

import (
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/gateway/publish/plan"
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
