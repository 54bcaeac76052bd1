package e2e

import (
	"encoding/json"
	"strings"
	"testing"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const gatewayGroup = "gateway.networking.k8s.io"

// listener is one of a Gateway or a ListenerSet.
type listener struct {
	Name     string `json:"name"`
	Port     int32  `json:"port"`
	Protocol string `json:"protocol"`
}

// object creates an object of the Gateway API in the test's namespace.
func (r *remote) object(resource, kind, name string, spec map[string]any) {
	r.env.Helper()
	body, err := json.Marshal(map[string]any{"apiVersion": gatewayGroup + "/v1", "kind": kind, "metadata": map[string]any{"name": name}, "spec": spec})
	r.env.must(err)
	r.env.must(r.CoreV1().RESTClient().Post().AbsPath("/apis", gatewayGroup, "v1", "namespaces", r.env.id, resource).
		SetHeader("Content-Type", "application/json").Body(body).Do(r.env.ctx).Error())
}

// patch changes an object of the Gateway API, or its status, as its controller does.
func (r *remote) patch(resource, name string, content map[string]any, subresource ...string) {
	r.env.Helper()
	body, err := json.Marshal(content)
	r.env.must(err)
	r.env.must(r.CoreV1().RESTClient().Patch(types.MergePatchType).
		AbsPath(append([]string{"/apis", gatewayGroup, "v1", "namespaces", r.env.id, resource, name}, subresource...)...).Body(body).Do(r.env.ctx).Error())
}

// addresses sets those in the status of the Gateway.
func (r *remote) addresses(programmed bool, all ...string) {
	r.env.Helper()
	entries := []map[string]any{}
	for _, value := range all {
		kind := "IPAddress"
		if strings.Trim(value, "0123456789.") != "" {
			kind = "Hostname"
		}
		entries = append(entries, map[string]any{"type": kind, "value": value})
	}
	r.patch("gateways", "gateway", map[string]any{"status": map[string]any{"addresses": entries, "conditions": []any{condition("Programmed", programmed)}}}, "status")
}

func condition(kind string, is bool) map[string]any {
	status := map[bool]string{true: "True", false: "False"}[is]
	return map[string]any{"type": kind, "status": status, "reason": "Tested", "message": "by the test", "lastTransitionTime": metav1.Now()}
}

func TestGatewayAPI(t *testing.T) {
	e := newEnv(t)
	e.must(gatewayAPI())
	r := e.remote(paris)
	r.prefix = "gateway-api:"
	r.allow("gateway", rbacv1.PolicyRule{APIGroups: []string{gatewayGroup}, Resources: []string{"gateways"}, ResourceNames: []string{"gateway"}, Verbs: []string{"list", "watch"}})
	r.export("bar")
	r.postgres("postgres", "5432=15000")
	d := e.daemon([]*remote{r})
	e.logs(d, "Gateway "+e.id+"/gateway does not exist")
	e.soon("no gateway", r.leads("bar"))
	r.object("gateways", "Gateway", "gateway", map[string]any{"gatewayClassName": "tested", "listeners": []listener{{"web", 80, "HTTP"}, {"secure", 443, "TCP"}}})
	e.logs(d, "Gateway "+e.id+"/gateway has no address yet")
	r.addresses(true, "203.0.113.7")
	e.soon("its address", r.leads("bar", to("http:80", "203.0.113.7")...), r.leads("postgres"))
	e.logs(d, e.id+"/postgres", "the Gateway does not have a listener for it")
	before := e.identities()
	r.patch("gateways", "gateway", map[string]any{"spec": map[string]any{"listeners": []listener{{"web", 80, "HTTP"}, {"pg", 15000, "TCP"}}}})
	e.soon("a listener", r.leads("postgres", to("pg:15000", "203.0.113.7")...))
	r.addresses(false, "203.0.113.8", "203.0.113.9")
	e.soon("its addresses", r.leads("bar", to("http:80", "203.0.113.8", "203.0.113.9")...))
	e.logs(d, "Gateway "+e.id+"/gateway is not programmed", "by the test")
	r.addresses(true, "203.0.113.8")
	e.soon("one less", r.leads("bar", to("http:80", "203.0.113.8")...))
	e.logs(d, "recovered", "gateway gateway-api:"+e.id+"/gateway")
	r.patch("gateways", "gateway", map[string]any{"status": map[string]any{"listeners": []map[string]any{
		{"name": "pg", "attachedRoutes": 0, "supportedKinds": []any{}, "conditions": []any{condition("Programmed", false)}}}}}, "status")
	e.soon("a listener that is not programmed", r.leads("postgres"))
	e.logs(d, `listener \"pg\" of Gateway `+e.id+"/gateway is not served", "fix the listener")
	r.patch("gateways", "gateway", map[string]any{"status": map[string]any{"listeners": []any{}}}, "status")
	e.soon("it is", r.leads("postgres", to("pg:15000", "203.0.113.8")...))

	// Over a restart, and an outage, it stays.
	mark := london.mark(t)
	r.proxy.cut()
	d.stop()
	d = e.daemon([]*remote{r})
	e.stays("in an outage", r.leads("bar", to("http:80", "203.0.113.8")...))
	r.proxy.heal()
	e.stays("after it", r.leads("postgres", to("pg:15000", "203.0.113.8")...))
	e.noWrites(mark)
	e.sameIdentities(before)

	// ListenerSets are read once the Gateway allows any.
	r.object("listenersets", "ListenerSet", "databases", map[string]any{"parentRef": map[string]any{"name": "gateway"}, "listeners": []listener{{"pg2", 15001, "TCP"}}})
	r.annotate("postgres", "5432=15001")
	e.soon("the Gateway allows none", r.leads("postgres"))
	r.patch("gateways", "gateway", map[string]any{"spec": map[string]any{"allowedListeners": map[string]any{"namespaces": map[string]any{"from": "Same"}}}})
	e.logs(d, "watch of ListenerSets", "forbidden")
	e.must(r.leads("bar", to("http:80", "203.0.113.8")...)())
	_, err := paris.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: e.id + "-listenersets"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{gatewayGroup}, Resources: []string{"listenersets"}, Verbs: []string{"list", "watch"}}},
	}, metav1.CreateOptions{})
	e.must(err)
	_, err = paris.RbacV1().ClusterRoleBindings().Create(e.ctx, &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: e.id + "-listenersets"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: e.id, Name: e.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: e.id + "-listenersets"},
	}, metav1.CreateOptions{})
	e.must(err)
	e.logs(d, "recovered", "watch of ListenerSets")
	e.soon("it has not accepted it", r.leads("postgres"))
	r.patch("listenersets", "databases", map[string]any{"status": map[string]any{"conditions": []any{condition("Accepted", true)}}}, "status")
	e.soon("it has", r.leads("postgres", to("pg:15001", "203.0.113.8")...))
}
