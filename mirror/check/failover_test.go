package check

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Each Service that cannot fail over is a line, with the reason; what concerns a remote is with that remote.
func TestFailoverIsChecked(t *testing.T) {
	local := &target{services: map[cache.ObjectName]*corev1.Service{}}
	add := func(name, remotes, clusterIP string) {
		local.services[cache.NewObjectName("shop", name)] = &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{plan.FailoverLabel: "true"}, Annotations: map[string]string{plan.FailoverAnnotation: remotes}},
			Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Port: 80}}},
		}
	}
	add("fine", "paris", "10.0.0.1")
	add("lost", "paris,berlin", "10.0.0.2")
	add("nowhere", "", "10.0.0.3")
	add("pods", "paris", "None")
	spec := remote.Spec{Name: "paris"}
	options := Options{Remotes: []remote.Spec{spec}}

	var out bytes.Buffer
	r := &Report{cluster: "london", out: &out, client: fake.NewClientset()}
	r.failover(t.Context(), options, local)
	for _, want := range []string{
		"! london: failover of Service shop/lost: UnknownRemote: remote berlin: ", "! london: failover of Service shop/nowhere: NoRemote: ",
		"! london: failover of Service shop/pods: Headless: ", "+ london: 4 Services are configured to fail over to remotes",
	} {
		if strings.Count(out.String(), want) != 1 {
			t.Errorf("%q is not there once:\n%s", want, &out)
		}
	}
	if strings.Contains(out.String(), "fine") {
		t.Errorf("got\n%s", &out)
	}

	exported := local.services[cache.NewObjectName("shop", "fine")].DeepCopy()
	gateways := remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{{}: {
		Addresses: []gateway.Address{{Addr: netip.MustParseAddr("192.0.2.1")}}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}}}}
	out.Reset()
	r = &Report{cluster: "paris", out: &out}
	r.failoverTo(local, options, "paris", remote.ListedView([]*corev1.Service{exported}, gateways))
	if got := out.String(); strings.Count(got, "NotExported") != 1 || !strings.Contains(got, "failover of Service shop/lost: NotExported: remote paris: ") || !strings.Contains(got, "+ paris: 3 local Services are configured to fail over to it") {
		t.Errorf("got\n%s", got)
	}

	// It does not depend on whether mirrors are merged.
	out.Reset()
	r = &Report{cluster: "paris", out: &out, client: fake.NewClientset(exported)}
	r.exports(t.Context(), local, Options{Policy: plan.Policy{Merge: plan.MergeAll}}, spec, gateways)
	if got := out.String(); strings.Count(got, "NotExported") != 1 || len(r.exported) != 1 {
		t.Errorf("merged: got\n%s", got)
	}

	out.Reset()
	r.failover(t.Context(), options, &target{})
	r.failoverTo(nil, options, "paris", remote.View{})
	if out.Len() > 0 {
		t.Errorf("of nothing:\n%s", &out)
	}
}

// A Service fails over to the one to which the remote's publisher routes its name, as the daemon has it: to the oldest of
// several. While that is not known, nothing is wrong.
func TestFailoverToRoutedNames(t *testing.T) {
	svc := func(name string, created int64, clusterIP string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(created, 0)},
			Spec:       corev1.ServiceSpec{ClusterIP: clusterIP, Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}},
		}
	}
	routed := func(name string) *corev1.ConfigMap {
		configMap, err := record.Record{Service: cache.NewObjectName("shop", name), UID: types.UID(name), Ready: true, Hosts: []string{"bar.shop"},
			Ports: []record.Port{{Port: 80, Protocol: corev1.ProtocolTCP, Gateway: 8080, Shared: true}}}.ConfigMap("service-mirror")
		if err != nil {
			t.Fatal(err)
		}
		return configMap
	}
	bar := svc("bar", 0, "10.0.0.1")
	bar.Labels, bar.Annotations = map[string]string{plan.FailoverLabel: "true"}, map[string]string{plan.FailoverAnnotation: "paris"}
	local := &target{services: map[cache.ObjectName]*corev1.Service{cache.MetaObjectToName(bar): bar}}
	gateways := remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{{}: {
		Addresses: []gateway.Address{{Addr: netip.MustParseAddr("192.0.2.1")}}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}}}}
	young, old := svc("a", 2, "10.0.0.2"), svc("b", 1, "10.0.0.3")
	headless := svc("b", 1, corev1.ClusterIPNone)
	for name, test := range map[string]struct {
		exported []*corev1.Service
		records  []*corev1.ConfigMap
		unread   bool
		want     string // reason
	}{
		"not routed":             {[]*corev1.Service{young}, nil, false, "NotExported"},
		"routed":                 {[]*corev1.Service{young}, []*corev1.ConfigMap{routed("a")}, false, ""},
		"to two":                 {[]*corev1.Service{young, old}, []*corev1.ConfigMap{routed("a"), routed("b")}, false, ""},
		"the older one does not": {[]*corev1.Service{young, headless}, []*corev1.ConfigMap{routed("a"), routed("b")}, false, "Headless"},
		"not known":              {[]*corev1.Service{young}, nil, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			view := remote.ListedView(test.exported, gateways)
			view.Records = remote.ListedRecords("service-mirror", test.records, !test.unread)
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out}
			r.failoverTo(local, Options{}, "paris", view)
			want := "+ paris: 1 local Services are configured to fail over to it\n"
			if test.want != "" {
				want = "! paris: failover of Service shop/bar: " + test.want + ": "
			}
			if !strings.HasPrefix(out.String(), want) {
				t.Errorf("got\n%swant\n%s", &out, want)
			}
		})
	}
}
