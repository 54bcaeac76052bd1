package remote

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// A record's aliases are the names of other Services that it had or has; the name of none of them is routed once it is
// gone, or malformed, or that of an earlier Service of the name.
func TestAliases(t *testing.T) {
	services := NewInformer(&ListWatch{}, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
	records := NewRecords("service-mirror", NewInformer(&ListWatch{}, &corev1.ConfigMap{}, trimRecord), func() bool { return true })
	view := View{Services: Services{services}, Records: records}
	for i, name := range []string{"old", "new"} {
		if err := services.GetIndexer().Add(Encode(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name),
			CreationTimestamp: metav1.Unix(int64(i), 0)}})); err != nil {
			t.Fatal(err)
		}
	}
	text := func(names []cache.ObjectName) string {
		var all []string
		for _, name := range names {
			all = append(all, name.String())
		}
		slices.Sort(all)
		return strings.Join(all, " ")
	}
	routed := func(want string) {
		t.Helper()
		got := ""
		if svc, known := view.Routed(cache.NewObjectName("default", "bar")); svc != nil && known {
			got = svc.Name
		}
		if got != want {
			t.Errorf("bar.default is routed to %q, want %q", got, want)
		}
	}
	for _, step := range []struct {
		service, uid, hosts string
		malformed           bool
		changed, has        string
		routed              string
	}{
		{"new", "new", "new.shop new.shop.svc.cluster.local", false, "", "", ""},
		{"new", "new", "new.shop bar.default bar.default.svc bar.default", false, "default/bar", "default/bar", "new"},
		{"old", "old", "bar.default baz.default", false, "default/bar default/baz", "default/bar default/baz", "old"},
		{"old", "old", "baz.default", false, "default/bar default/baz", "default/baz", "new"},
		{"new", "another", "bar.default", false, "default/bar", "default/bar", ""},
		{"new", "new", "bar.default", false, "default/bar", "default/bar", "new"},
		{"new", "new", "bar.default", true, "default/bar", "", ""},
		{"new", "new", "bar.default", false, "default/bar", "default/bar", "new"},
		{"new", "", "", false, "default/bar", "", ""},
		{"old", "", "", false, "default/baz", "", ""},
	} {
		rec := record.Record{Service: cache.NewObjectName("shop", step.service), UID: types.UID(step.uid), Hosts: strings.Fields(step.hosts)}
		configMap, err := rec.ConfigMap("service-mirror")
		if err != nil && step.uid != "" {
			t.Fatal(err)
		}
		if step.malformed {
			configMap.Data[record.DataKey] = "{"
		}
		if step.uid == "" {
			configMap = nil
		}
		change := records.Changed(record.NameOf(rec.Service), configMap)
		if got := text(change.Aliases); got != step.changed || change.Service != rec.Service {
			t.Errorf("%+v: changed are %q of %v", step, got, change.Service)
		}
		if got := text(view.Aliases(rec.Service)); got != step.has {
			t.Errorf("%+v: it has %q", step, got)
		}
		routed(step.routed)
	}
	if a := records.aliases; len(a.of)+len(a.by) > 0 {
		t.Errorf("what is left: %v", a)
	}
}
