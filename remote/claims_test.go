package remote

import (
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
)

// crowd is a remote of n exported Services, each of which is older than the one before and has port 15000 alone by its
// record. Only the first record can be read: whatever reads another one does not find it.
func crowd(t *testing.T, n int) View {
	keep := func(svc *corev1.Service) *corev1.Service { return svc }
	services := NewInformer(&ListWatch{}, &corev1.Service{}, keep)
	records := NewInformer(&ListWatch{}, &corev1.ConfigMap{}, func(c *corev1.ConfigMap) *corev1.ConfigMap { return c })
	view := View{Services: Services{services}, Records: NewRecords("service-mirror", records, func() bool { return true })}
	for i := range n {
		name, uid := fmt.Sprint("n", i), types.UID(fmt.Sprint("uid-", i))
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: name, UID: uid,
			CreationTimestamp: metav1.NewTime(time.Unix(int64(1_000_000-i), 0))}}
		must(services.GetIndexer().Add(Encode(svc)))
		rec := record.Record{Service: cache.NewObjectName("default", name), UID: uid,
			Ports: []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp"}}}
		configMap, err := rec.ConfigMap("service-mirror")
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			must(records.GetIndexer().Add(Encode(configMap)))
		}
		if change := view.Records.Changed(configMap.Name, configMap); len(change.Had) > 0 || len(change.Has) != 1 || change.Has[0] != "15000/TCP" {
			t.Fatalf("got %+v", change)
		}
	}
	return view
}

// A sync reads the record of its own Service and no other, however many have the same gateway port alone: it costs as much
// for 10,000 of them as for one more than may be.
func TestSyncsReadOneRecord(t *testing.T) {
	cost := map[int]float64{}
	for _, n := range []int{1, maxAlone, maxAlone + 1, 10_000} {
		view := crowd(t, n)
		self := view.Services.Get(cache.NewObjectName("default", "n0"))
		sync := func() (holder cache.ObjectName, crowded bool) {
			published := view.Published(self)
			if published.Record == nil {
				t.Fatalf("its own record: %v", published.Problem)
			}
			return published.Holder("15000/TCP"), published.Crowded("15000/TCP")
		}
		oldest := cache.NewObjectName("default", fmt.Sprint("n", n-1))
		if n > maxAlone {
			oldest = cache.ObjectName{}
		}
		if holder, crowded := sync(); holder != oldest || crowded != (n > maxAlone) {
			t.Errorf("of %d it is %v's, a crowd: %v", n, holder, crowded)
		}
		cost[n] = testing.AllocsPerRun(20, func() { sync() })
	}
	t.Logf("allocations by the number of records: %v", cost)
	if cost[10_000] > cost[maxAlone+1]+5 || cost[maxAlone+1] > cost[maxAlone] {
		t.Errorf("a sync costs more, the more records there are: %v", cost)
	}
}

// What records had is forgotten with them.
func TestClaimsAreForgotten(t *testing.T) {
	view := crowd(t, 300)
	for i := range 300 {
		if change := view.Records.Changed(fmt.Sprint("default.n", i), nil); len(change.Had) != 1 || len(change.Has) > 0 {
			t.Errorf("got %+v", change)
		}
	}
	if c := view.Records.claims; len(c.of)+len(c.alone)+len(c.shared) > 0 {
		t.Errorf("what is left: %v", c)
	}
	if change := view.Records.Changed("no-dot", nil); change.Service.Name != "" || change.Had != nil || change.Has != nil || change.Aliases != nil {
		t.Errorf("a ConfigMap of no Service: %+v", change)
	}
}

// Only the first of a crowd, and the last, concern the others.
func TestCrowds(t *testing.T) {
	for _, test := range []struct {
		records            int
		less               bool
		unaffected, begins bool
	}{
		{maxAlone, false, false, false},
		{maxAlone + 1, false, false, true},
		{maxAlone + 2, false, true, false},
		{maxAlone + 1, true, true, false},
		{maxAlone, true, false, false},
	} {
		if unaffected, begins := crowd(t, test.records).Crowds("15000/TCP", test.less); unaffected != test.unaffected || begins != test.begins {
			t.Errorf("%+v: got %v, %v", test, unaffected, begins)
		}
	}
}

// A gateway port is one of one gateway: what claims it on another one has no say.
func TestClaimsOnTwoGateways(t *testing.T) {
	services := NewInformer(&ListWatch{}, &corev1.Service{}, func(svc *corev1.Service) *corev1.Service { return svc })
	services.Index(ByClaim, Claims)
	records := NewInformer(&ListWatch{}, &corev1.ConfigMap{}, func(c *corev1.ConfigMap) *corev1.ConfigMap { return c })
	public, private := &gateway.Gateway{}, &gateway.Gateway{}
	view := View{
		Services: Services{services}, Records: NewRecords("service-mirror", records, func() bool { return true }),
		Gateways: Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
			{}: public, cache.NewObjectName("ingress", "public"): public, cache.NewObjectName("ingress", "private"): private,
		}},
	}
	export := func(name string, age int, at string) *corev1.Service {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "default", Name: name, UID: types.UID(name), CreationTimestamp: metav1.NewTime(time.Unix(int64(1_000_000+age), 0)),
			Annotations: map[string]string{gateway.PortsAnnotation: "5432=15000", gateway.Annotation: at},
		}}
		must(services.GetIndexer().Add(Encode(svc)))
		return svc
	}
	oldest, younger := export("oldest", 0, ""), export("younger", 1, "ingress/public")
	other := export("other", 2, "ingress/private")
	export("unlisted", -1, "ingress/unlisted")
	export("malformed", -2, "malformed")
	want := func(of *corev1.Service, holder string) {
		t.Helper()
		if got := view.Assigned(of).Holder("15000/TCP").Name; got != holder {
			t.Errorf("for %s it is that of %s, want %s", of.Name, got, holder)
		}
	}
	want(oldest, "oldest")
	want(younger, "oldest")
	want(other, "other")
	rec := record.Record{Service: cache.NewObjectName("default", "younger"), UID: "younger",
		Ports: []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp"}}}
	configMap, err := rec.ConfigMap("service-mirror")
	must(err)
	must(records.GetIndexer().Add(Encode(configMap)))
	view.Records.Changed(configMap.Name, configMap)
	want(oldest, "younger")
	want(other, "other")
	if got := view.Assigned(other).Published.Holder("15000/TCP"); got.Name != "" {
		t.Errorf("by a record it is that of %v on the other gateway", got)
	}
}
