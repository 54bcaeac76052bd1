package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// addressRules let the daemon see when the ClusterIPs of a deleted Service are free again.
var addressRules = []rbacv1.PolicyRule{
	{APIGroups: []string{"networking.k8s.io"}, Resources: []string{"ipaddresses"}, Verbs: []string{"get", "list"}},
}

// edit is what a user does to a mirror Service in one request.
type edit struct {
	what   string
	change func(*corev1.ServiceSpec)
}

// edits are of fields that a mirror does not have. The first is one that the API server
// refuses to keep once the type is ClusterIP again.
var edits = []edit{
	{"a LoadBalancer with source ranges and a selector", func(spec *corev1.ServiceSpec) {
		spec.Type = corev1.ServiceTypeLoadBalancer
		spec.LoadBalancerSourceRanges = []string{"192.0.2.0/24"}
		spec.Selector = map[string]string{"app": "theirs"}
	}},
	{"a LoadBalancer with a class and a health check port", func(spec *corev1.ServiceSpec) {
		class, no := "example.com/theirs", false
		spec.Type, spec.LoadBalancerClass, spec.AllocateLoadBalancerNodePorts = corev1.ServiceTypeLoadBalancer, &class, &no
		spec.ExternalTrafficPolicy = corev1.ServiceExternalTrafficPolicyLocal
	}},
	{"a LoadBalancer with an IP", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.LoadBalancerIP = corev1.ServiceTypeLoadBalancer, "192.0.2.9"
	}},
	{"a NodePort with a traffic policy", func(spec *corev1.ServiceSpec) {
		spec.Type, spec.ExternalTrafficPolicy = corev1.ServiceTypeNodePort, corev1.ServiceExternalTrafficPolicyLocal
	}},
	{"externalIPs", func(spec *corev1.ServiceSpec) { spec.ExternalIPs = []string{"192.0.2.9"} }},
	{"externalName", func(spec *corev1.ServiceSpec) { spec.ExternalName = "theirs.example.com" }},
	{"trafficDistribution", func(spec *corev1.ServiceSpec) {
		near := corev1.ServiceTrafficDistributionPreferClose
		spec.TrafficDistribution = &near
	}},
	{"publishNotReadyAddresses", func(spec *corev1.ServiceSpec) { spec.PublishNotReadyAddresses = true }},
	{"internalTrafficPolicy", func(spec *corev1.ServiceSpec) {
		node := corev1.ServiceInternalTrafficPolicyLocal
		spec.InternalTrafficPolicy = &node
	}},
	{"sessionAffinity", func(spec *corev1.ServiceSpec) {
		seconds := int32(7)
		spec.SessionAffinity = corev1.ServiceAffinityClientIP
		spec.SessionAffinityConfig = &corev1.SessionAffinityConfig{ClientIP: &corev1.ClientIPConfig{TimeoutSeconds: &seconds}}
	}},
	{"the ports", func(spec *corev1.ServiceSpec) {
		app := "theirs"
		spec.Ports[0].AppProtocol = &app
		spec.Ports = append(spec.Ports, corev1.ServicePort{Name: "theirs", Port: 1234})
	}},
}

// An edit of any field is undone, a change of the export arrives in spite of it, and the
// user's labels and annotations stay.
func TestEditsAreUndone(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := func(i int) string { return fmt.Sprintf("bar%d", i) }
	for i := range edits {
		r.export(name(i))
	}
	e.daemon([]*remote{r})
	for i := range edits {
		e.soon("the mirrors", r.mirrored(name(i), "203.0.113.1"))
	}
	before := e.identities()
	want := map[string]corev1.ServiceSpec{}
	for i, edit := range edits {
		want[name(i)] = e.service(r.mirror(name(i))).Spec
		e.change(london, r.mirror(name(i)), func(svc *corev1.Service) {
			edit.change(&svc.Spec)
			svc.Labels["team"], svc.Annotations["note"] = "theirs", "theirs"
		})
	}
	for i := range edits {
		e.change(paris, name(i), func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
		spec := want[name(i)]
		spec.Ports[0].Port, spec.Ports[0].TargetPort.IntVal = 81, 81
	}
	for i, edit := range edits {
		t.Run(edit.what, func(t *testing.T) {
			one := *e
			one.T = t
			one.eventually(lasting, "as it was, with the new port", e.hasSpec(r.mirror(name(i)), want[name(i)]), r.mirrored(name(i), "203.0.113.1"),
				r.slicesLead(name(i), to("http:8080", "203.0.113.1")...))
			if svc := one.service(r.mirror(name(i))); svc.Labels["team"] != "theirs" || svc.Annotations["note"] != "theirs" {
				t.Errorf("labels %v and annotations %v: the user's are gone", svc.Labels, svc.Annotations)
			}
		})
	}
	e.sameIdentities(before)
}

// hasSpec checks a Service's spec, every field of it.
func (e *env) hasSpec(name string, want corev1.ServiceSpec) func() error {
	return func() error {
		svc, err := e.local.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{})
		if err == nil && snapshot(svc.Spec) != snapshot(want) {
			err = fmt.Errorf("%s has\n%s\nwant\n%s", name, snapshot(svc.Spec), snapshot(want))
		}
		return err
	}
}

// An annotation that is valid for a LoadBalancer alone has the API server refuse the Service
// once it is a ClusterIP. It is removed, and nothing else of the user's.
func TestInvalidAnnotationIsDropped(t *testing.T) {
	const invalid = "service.beta.kubernetes.io/load-balancer-source-ranges"
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	name := r.mirror("bar")
	want := e.service(name).Spec
	e.change(london, name, func(svc *corev1.Service) {
		svc.Spec.Type = corev1.ServiceTypeLoadBalancer
		svc.Labels["team"] = "theirs"
		svc.Annotations[invalid], svc.Annotations["note"] = "192.0.2.0/24", "theirs"
	})
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	want.Ports[0].Port, want.Ports[0].TargetPort.IntVal = 81, 81
	e.soon("as it was, with the new port", e.hasSpec(name, want), r.mirrored("bar", "203.0.113.1"))
	svc := e.service(name)
	if _, kept := svc.Annotations[invalid]; kept || svc.Annotations["note"] != "theirs" || svc.Labels["team"] != "theirs" {
		t.Errorf("labels %v and annotations %v: want those that are valid", svc.Labels, svc.Annotations)
	}
	e.soon("it is reported", e.warnedOnce(name, invalid))
	since := london.mark(t)
	e.stays("the mirror", e.hasSpec(name, want), e.warnedOnce(name, invalid), d.measures(map[string]float64{r.state("mirrored"): 1}))
	e.noWrites(since)
}

// warnedOnce checks that there is one Warning about a Service, seen once, with all of the words.
func (e *env) warnedOnce(service string, words ...string) func() error {
	return func() error {
		got, messages, err := e.events(e.id, "Service/"+service, "")
		if err != nil {
			return err
		}
		count := int32(0)
		for i, one := range got {
			if one.kind == corev1.EventTypeWarning && !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(one.reason+": "+messages[i], word) }) {
				count += one.count
			}
		}
		if count != 1 {
			return fmt.Errorf("Events %v %q about %s: %d with %q, want one", got, messages, service, count, words)
		}
		return nil
	}
}

// patch changes a local Service as kubectl patch does, which sends only the changed fields.
func (e *env) patch(name string, change any) {
	e.Helper()
	body, err := json.Marshal(change)
	e.must(err)
	_, err = e.local.CoreV1().Services(e.id).Patch(context.Background(), name, types.MergePatchType, body, metav1.PatchOptions{})
	e.must(err)
}

// familyEdits have the API server release a Service's ClusterIPs, or the second of them.
var familyEdits = map[string]any{
	"ExternalName": map[string]any{"type": "ExternalName", "externalName": "theirs.example.com"},
	"ExternalName without ports": map[string]any{
		"type": "ExternalName", "externalName": "theirs.example.com", "ports": nil, "clusterIP": nil, "clusterIPs": nil,
	},
	"ExternalName with a selector": map[string]any{
		"type": "ExternalName", "externalName": "theirs.example.com", "selector": map[string]any{"app": "theirs"},
	},
	"SingleStack": map[string]any{"ipFamilyPolicy": "SingleStack"},
}

// keepsClusterIPs has each of the edits undone, a few times: the release may be late.
func (e *env) keepsClusterIPs(r *remote, addresses ...string) {
	e.Helper()
	r.gateway(addresses...)
	r.export("bar")
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", addresses...))
	name := r.mirror("bar")
	before, want := e.identities(), e.service(name).Spec
	for range 4 {
		for what, edit := range familyEdits {
			e.patch(name, map[string]any{"spec": edit})
			e.soon(what+" undone", e.hasSpec(name, want), r.mirrored("bar", addresses...))
		}
	}
	e.eventually(lasting, "the gateway in the slices", r.slicesLead("bar", to("http:8080", addresses...)...))
	e.sameIdentities(before)
	if lost, messages, err := e.events(e.id, "Service/"+name, "ClusterIP"); err != nil || len(lost) > 0 {
		e.Errorf("Events %v %q, %v: no ClusterIP was lost", lost, messages, err)
	}
}

func TestTypeChangeKeepsTheClusterIP(t *testing.T) {
	t.Parallel()
	e := newEnvIn(t, london, slices.Concat(localRules, addressRules)...)
	e.keepsClusterIPs(e.remote(paris), "203.0.113.1")
}

func TestTypeChangeKeepsBothClusterIPs(t *testing.T) {
	e := newDualStackEnv(t, addressRules...)
	e.keepsClusterIPs(e.remote(paris), "203.0.113.1", "2001:db8::1")
}
