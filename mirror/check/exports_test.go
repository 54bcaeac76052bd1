package check

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// A Service with UDP alone is mirrored where a ConfigMap reserves a port for it: the
// check must not say that it is not.
func TestReservedPortsCount(t *testing.T) {
	dns := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "dns"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 53, Protocol: corev1.ProtocolUDP}}},
	}
	reserves := func(entry string) *corev1.ConfigMap {
		return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Namespace: "ingress", Name: "udp-services"}, Data: map[string]string{"15353": entry}}
	}
	const none = "! paris: shop/dns will not be mirrored: it has no TCP port, and no gateway port is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports or a ConfigMap\n+ paris: 0 of 1 exported Services can be mirrored\n"
	for name, test := range map[string]struct {
		objects []runtime.Object
		config  gateway.Config
		want    string
	}{
		"none is named": {[]runtime.Object{dns, reserves("shop/dns:53")}, gateway.Config{}, none},
		"for it":        {[]runtime.Object{dns, reserves("shop/dns:53")}, named, "+ paris: 1 of 1 exported Services can be mirrored\n"},
		"for another":   {[]runtime.Object{dns, reserves("shop/other:53")}, named, none},
		"missing":       {[]runtime.Object{dns}, named, "! paris: ConfigMap ingress/udp-services does not exist, so no ports are reserved: create it\n" + none},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: fake.NewClientset(test.objects...)}
			spec := remote.Spec{Name: "paris", Gateways: []gateway.Config{test.config}}
			r.exports(t.Context(), nil, Options{}, spec, remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
				{}: {Static: true, Reserved: r.reserved(t.Context(), test.config)},
			}})
			if out.String() != test.want {
				t.Errorf("it says\n%swant\n%s", &out, test.want)
			}
		})
	}
}

// Of two Services whose mirrors would have one name, one gets it: the one whose mirror exists, else the first.
func TestTwoSourcesOfOneName(t *testing.T) {
	svc := func(namespace string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "bar"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80}}},
		}
	}
	gateways := remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{{}: {Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}}
	policy := plan.Policy{Names: plan.Names{"paris": {Namespaces: map[string]string{"web": "shop", "old": "shop"}}}}
	loses := func(loser, winner string) string {
		return "! paris: " + loser + "/bar will not be mirrored: the mirror of " + winner + "/bar in remote paris already has this name: stop exporting one of the two, or set another name template or namespace for one of them\n+ paris: 1 of 2 exported Services can be mirrored\n"
	}
	mirror := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bar-paris",
		Labels:      map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: "paris"},
		Annotations: map[string]string{plan.MirrorAnnotation: "shop/bar-paris", plan.RemoteServiceAnnotation: "web/bar"}}}
	for name, test := range map[string]struct {
		local *target
		want  string
	}{
		"none has it":    {&target{}, loses("web", "old")},
		"web's has it":   {&target{services: map[cache.ObjectName]*corev1.Service{cache.MetaObjectToName(mirror): mirror}}, loses("old", "web")},
		"it is not read": {nil, loses("web", "old")},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: fake.NewClientset(svc("web"), svc("old"))}
			r.exports(t.Context(), test.local, Options{Policy: policy}, remote.Spec{Name: "paris"}, gateways)
			if out.String() != test.want {
				t.Errorf("it says\n%swant\n%s", &out, test.want)
			}
		})
	}
}

var named = gateway.Config{UDPServices: cache.NewObjectName("ingress", "udp-services")}

// What the gateway does not serve is reported before anyone tries to connect.
func TestPortsThatTheGatewayDoesNotServe(t *testing.T) {
	svc := func(name, chosen string, ports ...corev1.ServicePort) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, Annotations: map[string]string{gateway.Annotation: chosen}},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: ports},
		}
	}
	http, db := corev1.ServicePort{Name: "http", Port: 80}, corev1.ServicePort{Name: "db", Port: 5432}
	var out bytes.Buffer
	r := &Report{cluster: "paris", out: &out, client: fake.NewClientset(
		svc("a-web", "", http), svc("b-postgres", "", db), svc("c-private", "ingress/private", http), svc("d-lost", "ingress/other", http))}
	public := &gateway.Gateway{Ports: []corev1.ServicePort{http, {Name: "https", Port: 443}}}
	r.exports(t.Context(), nil, Options{}, remote.Spec{Name: "paris"}, remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
		{}: public, cache.NewObjectName("ingress", "private"): {Ports: []corev1.ServicePort{http}},
	}})
	const want = `! paris: shop/b-postgres will be mirrored, but not all of its ports will be reachable: port db (5432/TCP): it is not HTTP, and no gateway port is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports on the exported Service, or in the ConfigMap of tcp-services=; or, if it is HTTP, set its appProtocol to http
! paris: shop/d-lost will be mirrored, but not all of its ports will be reachable: annotation service-mirror.io/gateway sets "ingress/other", which is not a configured gateway: add gateway=ingress/other to how the remote is configured
+ paris: 4 of 4 exported Services can be mirrored
`
	if out.String() != want {
		t.Errorf("it says\n%swant\n%s", &out, want)
	}
}

// What the remote's publisher says is known to the check, and that it cannot be read.
func TestRecordsCount(t *testing.T) {
	db := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: "db-uid"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Name: "postgres", Port: 5432, Protocol: corev1.ProtocolTCP}}},
	}
	records := func(uid string) *corev1.ConfigMap {
		configMap, err := record.Record{Service: cache.MetaObjectToName(db), UID: types.UID(uid), Ready: true,
			Ports: []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000}}}.ConfigMap("service-mirror")
		if err != nil {
			t.Fatal(err)
		}
		return configMap
	}
	const has, all = "+ paris: namespace service-mirror has the records of 1 exported Services\n", "+ paris: 1 of 1 exported Services can be mirrored\n"
	const partly = "! paris: shop/db will be mirrored, but not all of its ports will be reachable: "
	for name, test := range map[string]struct {
		objects []runtime.Object
		refused error
		want    []string
	}{
		"its record":     {[]runtime.Object{db, records("db-uid")}, nil, []string{has, all}},
		"another one's":  {[]runtime.Object{db, records("before")}, nil, []string{has, partly + "its record is for a Service with the same name and another UID", all}},
		"none":           {[]runtime.Object{db}, nil, []string{"! paris: namespace service-mirror has no records: check that records= is", partly, all}},
		"not to be read": {[]runtime.Object{db}, errors.New("no"), []string{"- paris: records in namespace service-mirror cannot be read: no\n", partly + "port postgres (5432/TCP): the records of the remote's publisher have not been read yet", all}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			client := fake.NewClientset(test.objects...)
			if test.refused != nil {
				client.PrependReactor("list", "configmaps", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, test.refused })
			}
			r := &Report{cluster: "paris", out: &out, client: client}
			r.exports(t.Context(), nil, Options{}, remote.Spec{Name: "paris", Records: "service-mirror"}, remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
				{}: {Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "tcp", Port: 15000}}},
			}})
			if lines := slices.Collect(strings.Lines(out.String())); len(lines) != len(test.want) || !slices.EqualFunc(lines, test.want, strings.HasPrefix) {
				t.Errorf("it says\n%swant\n%s", &out, test.want)
			}
		})
	}
}

// A gateway port that several Services claim is the oldest one's, or its whose record has it alone, as the daemon decides:
// the check must not say that the others can be reached.
func TestClaimsCount(t *testing.T) {
	created := func(name string, second int64, annotations map[string]string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(second, 0), Annotations: annotations},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Name: "postgres", Port: 5432, Protocol: corev1.ProtocolTCP}}},
		}
	}
	claiming := map[string]string{gateway.PortsAnnotation: "5432=15432"}
	recorded := func(name string, shared bool) *corev1.ConfigMap {
		configMap, err := record.Record{Service: cache.NewObjectName("shop", name), UID: types.UID(name), Ready: true,
			Ports: []record.Port{{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15432, Shared: shared}}}.ConfigMap("service-mirror")
		if err != nil {
			t.Fatal(err)
		}
		return configMap
	}
	const lost = "! paris: shop/%s will be mirrored, but not all of its ports will be reachable: port postgres (5432/TCP): "
	const all = "+ paris: 2 of 2 exported Services can be mirrored\n"
	a, b := created("a", 2, claiming), created("b", 1, claiming)
	for name, test := range map[string]struct {
		objects []runtime.Object
		want    []string
	}{
		"two annotations": {[]runtime.Object{a, b},
			[]string{fmt.Sprintf(lost, "a") + "gateway port 15432/TCP is reserved for shop/b, an older Service that also claims it", all}},
		"one is for another cluster": {[]runtime.Object{a, created("b", 1, map[string]string{gateway.PortsAnnotation: "5432=15432", plan.ExportToAnnotation: "berlin"})},
			[]string{fmt.Sprintf(lost, "a") + "gateway port 15432/TCP is reserved for shop/b", "+ paris: 1 of 1 exported Services can be mirrored\n"}},
		"a record and an older annotation": {[]runtime.Object{created("a", 2, nil), b, recorded("a", false)},
			[]string{"+ ", fmt.Sprintf(lost, "b") + "gateway port 15432/TCP is reserved for shop/a, to which the remote's publisher assigned it", all}},
		"two records, one of which has it alone": {[]runtime.Object{created("a", 2, nil), created("b", 1, nil), recorded("a", false), recorded("b", true)},
			[]string{"+ ", fmt.Sprintf(lost, "b") + "the remote's publisher allocated gateway port 15432/TCP, which is exclusive to shop/a", all}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: fake.NewClientset(test.objects...)}
			spec := remote.Spec{Name: "paris"}
			if strings.Contains(name, "record") {
				spec.Records = "service-mirror"
			}
			r.exports(t.Context(), nil, Options{Policy: plan.Policy{ClusterName: "london"}}, spec, remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
				{}: {Ports: []corev1.ServicePort{{Name: "http", Port: 80}, {Name: "tcp", Port: 15432}}},
			}})
			if lines := slices.Collect(strings.Lines(out.String())); len(lines) != len(test.want) || !slices.EqualFunc(lines, test.want, strings.HasPrefix) {
				t.Errorf("it says\n%swant\n%q", &out, test.want)
			}
		})
	}
}

// What is in a mirror's way in the local cluster is what the daemon reports, too.
func TestObstacles(t *testing.T) {
	http := []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}}
	bar := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-eu"}, Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: http}}
	external := bar.DeepCopy()
	external.Spec = corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}
	namespace := func(deleted bool) *corev1.Namespace {
		ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop"}}
		if now := metav1.Now(); deleted {
			ns.DeletionTimestamp = &now
		}
		return ns
	}
	mirror := func(cluster string) *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "api-eu-paris",
			Labels:      map[string]string{plan.ManagedByLabel: plan.ManagedBy, plan.ClusterLabel: cluster},
			Annotations: map[string]string{plan.MirrorAnnotation: "shop/api-eu-paris"},
		}}
	}
	for name, test := range map[string]struct {
		exported, live *corev1.Service
		namespace      *corev1.Namespace
		policy         plan.Policy
		want           string // empty: it can be mirrored
	}{
		"nothing":                       {exported: bar, namespace: namespace(false)},
		"its own mirror":                {exported: bar, live: mirror("paris"), namespace: namespace(false)},
		"another remote's mirror":       {exported: bar, live: mirror("eu-paris"), namespace: namespace(false), want: "the mirror of remote eu-paris already has this name"},
		"a foreign Service":             {exported: bar, live: &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "api-eu-paris"}}, namespace: namespace(false), want: "Service shop/api-eu-paris already exists and is not managed by service-mirror"},
		"no namespace":                  {exported: bar, want: "namespace shop does not exist in the local cluster"},
		"no namespace, but permission":  {exported: bar, policy: plan.Policy{CreateNamespaces: true}},
		"a namespace that is deleted":   {exported: bar, namespace: namespace(true), want: "namespace shop is being deleted"},
		"an exported Service of a kind": {exported: external, namespace: namespace(false), want: "it is of type ExternalName"},
	} {
		t.Run(name, func(t *testing.T) {
			local := &target{services: map[cache.ObjectName]*corev1.Service{}, namespaces: map[string]*corev1.Namespace{}}
			if test.live != nil {
				local.services[cache.MetaObjectToName(test.live)] = test.live
			}
			if test.namespace != nil {
				local.namespaces["shop"] = test.namespace
			}
			var out bytes.Buffer
			r := &Report{cluster: "paris", out: &out, client: fake.NewClientset(test.exported)}
			r.exports(t.Context(), local, Options{Policy: test.policy}, remote.Spec{Name: "paris"}, remote.Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
				{}: {Ports: http},
			}})
			last := "+ paris: 1 of 1 exported Services can be mirrored\n"
			if test.want != "" {
				last = "0 of 1 exported Services can be mirrored\n"
			}
			if !strings.Contains(out.String(), test.want) || !strings.HasSuffix(out.String(), last) {
				t.Errorf("it says\n%s", &out)
			}
		})
	}
}

// What becomes of exports that are merged is said when those of all remotes are known.
func TestMergedExports(t *testing.T) {
	exported := func(cluster string, port int32) plan.Candidate {
		return plan.Candidate{Cluster: cluster, Watched: true, Gateway: &gateway.Gateway{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}, Service: &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bar"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: port}}},
		}}
	}
	policy := plan.Policy{Merge: plan.MergeAll, EndpointsAPI: plan.UseEndpointSlices, Order: []string{"paris", "berlin"},
		Names: plan.Names{"paris": {Template: "{service}"}, "berlin": {Template: "{service}"}}}
	foreign := &target{services: map[cache.ObjectName]*corev1.Service{cache.NewObjectName("shop", "bar"): {ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "bar"}}}}
	const fine = "+ paris: 1 of 1 exported Services can be mirrored\n"
	for name, test := range map[string]struct {
		local  *target
		berlin int32
		want   []string
	}{
		"alike":     {nil, 80, []string{fine, "+ berlin: 1 of 1 exported Services can be mirrored\n"}},
		"different": {nil, 81, []string{fine, "! berlin: shop/bar will be mirrored, but not all of its ports will be reachable: its ports differ from those of remote paris"}},
		"foreign":   {foreign, 80, []string{"! paris: shop/bar will not be mirrored: Service shop/bar already exists", "! berlin: shop/bar will not be mirrored: Service shop/bar already exists"}},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			reports := []*Report{{cluster: "paris", out: &out, exported: []plan.Candidate{exported("paris", 80)}},
				{cluster: "berlin", out: &out, exported: []plan.Candidate{exported("berlin", test.berlin)}}}
			reportMerged(policy, test.local, reports)
			for _, want := range test.want {
				if !strings.Contains(out.String(), want) {
					t.Errorf("it says\n%swant %q", &out, want)
				}
			}
		})
	}
}
