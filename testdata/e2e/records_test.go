package e2e

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// allow allows a remote's account something in the test's namespace; the same again after disallow.
func (r *remote) allow(name string, rule rbacv1.PolicyRule) {
	r.env.Helper()
	_, err := r.RbacV1().Roles(r.env.id).Create(r.env.ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: []rbacv1.PolicyRule{rule}}, metav1.CreateOptions{})
	if !apierrors.IsAlreadyExists(err) {
		r.env.must(err)
	}
	_, err = r.RbacV1().RoleBindings(r.env.id).Create(r.env.ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: r.env.id, Name: r.env.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
	}, metav1.CreateOptions{})
	r.env.must(err)
}

func (r *remote) disallow(name string) {
	r.env.Helper()
	r.env.must(r.RbacV1().RoleBindings(r.env.id).Delete(r.env.ctx, name, metav1.DeleteOptions{}))
}

var recordsRule = rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"configmaps"}, Verbs: []string{"list", "watch"}}

// publishedPort is a port of a record.
type publishedPort struct {
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
	Gateway  int32  `json:"gateway,omitempty"`
	Class    string `json:"class"`
	Shared   bool   `json:"shared,omitempty"`
	Problem  string `json:"problem,omitempty"`
}

// publish writes the record of an exported Service as service-mirror publish does; the namespace of the test is the
// publisher's, too.
func (r *remote) publish(service string, ready bool, ports ...publishedPort) {
	r.env.Helper()
	svc, err := r.CoreV1().Services(r.env.id).Get(r.env.ctx, service, metav1.GetOptions{})
	r.env.must(err)
	text, err := json.Marshal(map[string]any{"namespace": svc.Namespace, "name": svc.Name, "uid": svc.UID, "ports": ports, "ready": ready})
	r.env.must(err)
	r.record(service, string(text))
}

// record writes a record with this text.
func (r *remote) record(service, text string) {
	r.env.Helper()
	api := r.CoreV1().ConfigMaps(r.env.id)
	configMap := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: r.env.id + "." + service, Labels: map[string]string{"service-mirror.io/record": "v1"}},
		Data:       map[string]string{"record.json": text},
	}
	_, err := api.Create(r.env.ctx, configMap, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		_, err = api.Update(r.env.ctx, configMap, metav1.UpdateOptions{})
	}
	r.env.must(err)
}

// publisher is a remote whose gateway has the port 8080 and the TCP ports from 15000 to 15003.
func (e *env) publisher() *remote {
	e.Helper()
	r := e.remote(paris)
	r.keys = ",records=" + e.id
	r.gateway(reservedGateway)
	e.change(paris, "gateway", func(svc *corev1.Service) {
		for port := int32(15000); port <= 15003; port++ {
			svc.Spec.Ports = append(svc.Spec.Ports, gatewayPort(port, corev1.ProtocolTCP))
		}
	})
	return r
}

func pg(gateway int32) publishedPort {
	return publishedPort{Port: 5432, Protocol: "TCP", Gateway: gateway, Class: "tcp"}
}

func TestRecords(t *testing.T) {
	e := newEnv(t)
	r := e.publisher()
	r.allow("records", recordsRule)
	for _, name := range []string{"postgres", "rival"} {
		r.postgres(name)
	}
	r.export("bar")
	r.publish("postgres", true, pg(15000))
	since := paris.mark(t)
	d := e.daemon([]*remote{r})
	e.soon("by its record", r.leads("postgres", to("pg:15000", reservedGateway)...), r.slicesLead("postgres", to("pg:15000", reservedGateway)...))
	e.soon("without one", r.leads("rival"), r.leads("bar", to("http:8080", reservedGateway)...))
	before := e.identities()

	mark := london.mark(t)
	r.publish("rival", true, pg(15001))
	e.soon("one comes", r.leads("rival", to("pg:15001", reservedGateway)...))
	for _, write := range london.writes(t, e.id, mark) {
		if name := write.ObjectRef.Name; name != "" && !strings.HasPrefix(name, r.mirror("rival")) && write.ObjectRef.Resource != "events" {
			t.Errorf("another mirror is written: %v", write)
		}
	}
	r.publish("bar", true, publishedPort{Port: 80, Protocol: "TCP", Gateway: 15003, Class: "http", Shared: true})
	e.soon("HTTP, too", r.leads("bar", to("http:15003", reservedGateway)...))
	r.publish("postgres", true, pg(15002))
	e.soon("it changes", r.leads("postgres", to("pg:15002", reservedGateway)...))
	r.publish("bar", true, publishedPort{Port: 80, Protocol: "TCP", Class: "http", Problem: "the Gateway has no listener for it"})
	e.soon("it is not routed", r.leads("bar"))
	e.logs(d, e.id+"/bar", "PortNotServed", "the Gateway has no listener for it")
	r.publish("bar", false, publishedPort{Port: 80, Protocol: "TCP", Gateway: 8080, Class: "http", Shared: true})
	e.logs(d, e.id+"/bar", "NoReadyEndpoint", "no ready endpoint in the remote")
	e.soon("it stays routed", r.leads("bar", to("http:8080", reservedGateway)...))

	// A record that is malformed is one mirror's problem.
	r.record("rival", "<html>")
	e.soon("a malformed one is ignored", r.leads("rival"))
	e.logs(d, e.id+"/rival", "PortNotServed", "it is not a record")
	e.must(r.leads("postgres", to("pg:15002", reservedGateway)...)())
	// Nor does one give a Service what an older one has alone.
	r.publish("rival", true, pg(15002))
	e.logs(d, e.id+"/rival", "15002/TCP, which "+e.id+"/postgres has alone")
	e.must(paris.CoreV1().ConfigMaps(e.id).Delete(e.ctx, e.id+".postgres", metav1.DeleteOptions{}))
	e.soon("it is free", r.leads("rival", to("pg:15002", reservedGateway)...), r.leads("postgres"))
	r.publish("postgres", true, pg(15002))
	e.soon("the older one has it", r.leads("rival"), r.leads("postgres", to("pg:15002", reservedGateway)...))
	e.sameIdentities(before)

	// One of the Service before it is not its own.
	e.remove(paris, "rival")
	r.postgres("rival")
	e.logs(d, e.id+"/rival", "with another UID")
	r.publish("rival", true, pg(15001))
	e.soon("until it follows", r.leads("rival", to("pg:15001", reservedGateway)...))

	for _, request := range paris.requests(t, e.id, since) {
		if request.ObjectRef.Resource == "configmaps" && (request.ObjectRef.Namespace != e.id || !slices.Contains([]string{"list", "watch"}, request.Verb) ||
			!strings.Contains(request.RequestURI, "labelSelector=service-mirror.io%2Frecord%3Dv1")) {
			t.Errorf("not what is needed: %v of %q", request, request.RequestURI)
		}
	}
}

// Records that must not be read are not known, which is not that there are none.
func TestRecordsThatAreForbidden(t *testing.T) {
	e := newEnv(t)
	r := e.publisher()
	r.allow("records", recordsRule)
	r.postgres("postgres")
	r.publish("postgres", true, pg(15000))
	d := e.daemon([]*remote{r})
	e.soon("by its record", r.leads("postgres", to("pg:15000", reservedGateway)...))
	d.stop()
	mark := london.mark(t)
	r.disallow("records")
	d = e.daemon([]*remote{r})
	e.logs(d, "watch of records in "+e.id, "forbidden")
	r.export("bar")
	e.stays("what was known", r.leads("postgres", to("pg:15000", reservedGateway)...))
	e.logs(d, e.id+"/bar", "the records of the remote's publisher are not known yet")
	for _, write := range london.writes(t, e.id, mark) {
		if strings.HasPrefix(write.ObjectRef.Name, r.mirror("postgres")) {
			t.Errorf("it is written: %v", write)
		}
	}
	// What the gateway says is followed all the same.
	r.gateway("203.0.113.2")
	e.soon("another address", r.leads("postgres", to("pg:15000", "203.0.113.2")...))
	r.allow("records", recordsRule)
	r.publish("postgres", true, pg(15001))
	e.soon("they may be read", r.leads("postgres", to("pg:15001", "203.0.113.2")...), r.leads("bar", to("http:8080", "203.0.113.2")...))
}
