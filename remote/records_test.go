package remote

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// published is what flags say of a remote with a publisher.
func published() Spec {
	spec := through()
	spec.Records = "service-mirror"
	return spec
}

var barRecord = record.Record{Service: cache.NewObjectName("default", "bar"), UID: "default-bar", Ready: true,
	Ports: []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp"}}}

// publish writes a record into cluster a.
func (r *rig) publish(rec record.Record) {
	r.Helper()
	configMap, err := rec.ConfigMap("service-mirror")
	if err != nil {
		r.Fatal(err)
	}
	configMap.UID, configMap.ResourceVersion = "record-uid", "1"
	configMaps := r.a().CoreV1().ConfigMaps("service-mirror")
	if _, err := configMaps.Update(r.Context(), configMap, metav1.UpdateOptions{}); err == nil {
		return
	}
	if _, err := configMaps.Create(r.Context(), configMap, metav1.CreateOptions{}); err != nil {
		r.Fatal(err)
	}
}

// says wants the records to say that default/bar has a gateway port; 0: none, -1: they are not known.
func (r *rig) says(want int32) {
	r.Helper()
	view, ok := r.View()
	if !ok {
		r.Fatalf("the remote is not known; log:\n%s", r.log)
	}
	switch says := view.Published(service("default", "bar")); {
	case says.Unknown != (want < 0):
		r.Errorf("unknown: %v; log:\n%s", says.Unknown, r.log)
	case want <= 0 && says.Record != nil, want > 0 && says.Record == nil:
		r.Errorf("got %+v, %v, want port %d", says.Record, says.Problem, want)
	case want > 0 && says.Record.Ports[0].Gateway != want:
		r.Errorf("got %+v, want port %d", says.Record, want)
	}
}

func configMapReads(err error) func(clienttesting.Action) error {
	return func(action clienttesting.Action) error {
		if action.GetResource().Resource == "configmaps" {
			return err
		}
		return nil
	}
}

func TestRecordsAreFollowed(t *testing.T) {
	connecting(t, published(), true, func(r *rig) {
		r.wait(time.Second)
		r.says(0)
		r.resyncs()
		r.publish(barRecord)
		r.wait(time.Millisecond)
		r.says(15000)
		if got := r.recordsChanged(); len(got) != 1 || got[0] != "default/bar:  -> 15000/TCP" {
			r.Errorf("changes %q", got)
		}
		moved := barRecord
		moved.Ports = []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15001, Class: "tcp"}}
		r.publish(moved)
		r.wait(time.Millisecond)
		r.says(15001)
		if err := r.a().CoreV1().ConfigMaps("service-mirror").Delete(r.Context(), record.NameOf(barRecord.Service), metav1.DeleteOptions{}); err != nil {
			r.Fatal(err)
		}
		r.wait(time.Millisecond)
		r.says(0)
		if got := r.recordsChanged(); strings.Join(got, "; ") != "default/bar: 15000/TCP -> 15001/TCP; default/bar: 15001/TCP -> " {
			r.Errorf("changes %q", got)
		}
		if got := r.resyncs(); got != 0 {
			r.Errorf("%d times everything is synced for records", got)
		}
		for _, action := range r.a().Actions() {
			if action.GetResource().Resource != "configmaps" || action.GetVerb() == "create" || action.GetVerb() == "update" || action.GetVerb() == "delete" {
				continue
			}
			if action.GetNamespace() != "service-mirror" {
				r.Errorf("%s of ConfigMaps in %q", action.GetVerb(), action.GetNamespace())
			}
			if list, ok := action.(clienttesting.ListActionImpl); ok && list.ListOptions.LabelSelector != "service-mirror.io/record=v1" {
				r.Errorf("a list of %q", list.ListOptions.LabelSelector)
			}
		}
	})
}

// Records that may not be read hold nothing else up for longer than the grace, and are not taken for none.
func TestRecordsThatMayNotBeRead(t *testing.T) {
	connecting(t, published(), false, func(r *rig) {
		r.publish(barRecord)
		r.a().refusing(configMapReads(errForbidden))
		r.pointTo("a.example.com")
		r.wait(reloadPeriod + gatewayGrace + time.Millisecond)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.says(-1)
		r.wait(time.Hour)
		r.logged(1, `part="watch of records in service-mirror"`)
		if err := r.Unknown(); err == nil || !strings.Contains(err.Error(), "watch of records in service-mirror") {
			r.Errorf("what is not known: %v", err)
		}
		if status := r.Status(); status.State != Up || status.Problems[0].Kind() != GatewayProblem {
			r.Errorf("it is %+v", status)
		}
		r.resyncs()
		r.a().refusing(nil)
		r.wait(4 * time.Second)
		r.says(15000)
		if got := r.resyncs(); got != 1 {
			r.Errorf("%d resyncs once they are known, want one", got)
		}
	})
}

// More records than exported Services are allowed are refused, and cost the exports nothing.
func TestTooManyRecords(t *testing.T) {
	spec := published()
	spec.Limits.Services = 3
	connecting(t, spec, false, func(r *rig) {
		for _, name := range []string{"bar", "a", "b", "c"} {
			rec := barRecord
			rec.Service.Name = name
			r.publish(rec)
		}
		r.pointTo("a.example.com")
		r.wait(time.Minute)
		r.known("a-uid", "192.0.2.1", "default/bar")
		r.says(-1)
		problems := r.Status().Problems
		if len(problems) != 1 || problems[0].Reason() != RemoteTooLarge || !strings.Contains(problems[0].Cause, "more than 3 records: raise max-services= of --remote paris") {
			t.Errorf("its problems are %+v", problems)
		}
		if err := r.a().CoreV1().ConfigMaps("service-mirror").Delete(r.Context(), "default.c", metav1.DeleteOptions{}); err != nil {
			r.Fatal(err)
		}
		r.wait(10 * time.Minute)
		r.says(15000)
	})
}

// Without records= there is nothing to be read, nor to be known.
func TestNoRecords(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(time.Second)
		if view, _ := r.View(); view.Published(service("default", "bar")) != nil || r.Unknown() != nil {
			r.Errorf("got %+v, %v", view.Published(service("default", "bar")), r.Unknown())
		}
		for _, action := range r.a().Actions() {
			if action.GetResource().Resource == "configmaps" {
				r.Errorf("it does %s", action.GetVerb())
			}
		}
	})
}

// 10,000 records fit, and a cache takes no more of a large one than what is read.
func TestRecordsFit(t *testing.T) {
	rec := barRecord
	for i := range int32(6) {
		rec.Ports = append(rec.Ports, record.Port{Port: i + 1, Protocol: corev1.ProtocolTCP, Gateway: 80, Class: "http", Shared: true})
	}
	rec.Hosts = []string{"bar-paris.default", "bar-paris.default.svc", "bar-paris.default.svc.cluster.local", "bar.default", "bar.default.svc", "bar.default.svc.cluster.local"}
	configMap, err := rec.ConfigMap("service-mirror")
	if err != nil {
		t.Fatal(err)
	}
	bounds := Limits{}.ofRecords("paris")
	if size := int64(trimRecord(configMap).Size()); size*10_000 > bounds.kept.bound.memory || bounds.kept.bound.items < 10_000 {
		t.Errorf("a record takes %d bytes: 10,000 do not fit into %d, or %d records", size, bounds.kept.bound.memory, bounds.kept.bound.items)
	}
	configMap.Data[record.DataKey] += strings.Repeat(" ", 1<<20)
	configMap.Data["more"] = strings.Repeat(" ", 1<<20)
	trimmed := trimRecord(configMap)
	if trimmed.Size() > record.MaxBytes+1<<10 {
		t.Errorf("one that is too large takes %d bytes", trimmed.Size())
	}
	if _, err := record.Parse(trimmed); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("it is read: %v", err)
	}
}
