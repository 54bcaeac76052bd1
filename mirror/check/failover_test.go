package check

import (
	"bytes"
	"net/netip"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
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
	candidate := plan.Candidate{Cluster: "paris", Watched: true, Service: exported, Gateway: &gateway.Gateway{
		Addresses: []gateway.Address{{Addr: netip.MustParseAddr("192.0.2.1")}}, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}}}
	out.Reset()
	r = &Report{cluster: "paris", out: &out}
	r.failoverTo(local, options, spec, []plan.Candidate{candidate})
	if got := out.String(); strings.Count(got, "NotExported") != 1 || !strings.Contains(got, "failover of Service shop/lost: NotExported: remote paris: ") || !strings.Contains(got, "+ paris: 3 local Services are configured to fail over to it") {
		t.Errorf("got\n%s", got)
	}

	out.Reset()
	r.failover(t.Context(), options, &target{})
	r.failoverTo(nil, options, spec, nil)
	if out.Len() > 0 {
		t.Errorf("of nothing:\n%s", &out)
	}
}
