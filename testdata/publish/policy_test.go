package publish

import (
	"context"
	"fmt"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/dynamic"
	"sigs.k8s.io/yaml"
)

// attempt is a write with the publisher's token.
type attempt struct {
	verb    string
	object  object
	because string // it is denied: a part of the message
}

func (a attempt) try(ctx context.Context, thief, admin dynamic.Interface) error {
	switch a.verb {
	case "create":
		return a.object.create(ctx, thief)
	case "update":
		return a.object.update(ctx, thief, admin)
	case "apply":
		return a.object.apply(ctx, thief)
	}
	return a.object.delete(ctx, thief)
}

// Parts of the policies' messages.
const (
	notOwn       = "may only write routes with its label"
	notOwned     = "owned by the Service in their label"
	otherService = "may only route to the Service that owns them"
	notExported  = "is not exported"
	otherGateway = "may only attach routes to"
	otherClass   = "may only write Ingresses of class"
	otherFilter  = "may only have the filter URLRewrite"
	annotated    = "may only set its own annotations on routes"
	labelled     = "may only set its own labels on routes"
	finalized    = "may not set finalizers on routes"
	notManaged   = "may only change Gateways with the label"
	notListeners = "other fields of a Gateway than listeners"
	others       = "may only change its own listeners of a Gateway"
	otherSet     = "may only write ListenerSets with its label"
	notItsOwn    = "must have only its own listeners"
	alteredSet   = "may only set its own annotations and labels on ListenerSets"
	notRecord    = "may only write its own records"
	otherKey     = "may only have the key record.json"
	alteredOne   = "may only set its own annotations and labels on records"
	keptRecord   = "may not set finalizers or owner references on records"
	otherLease   = "may only write the Lease"
	othersEvent  = "may only write its own Events"
	notAlias     = "may only write aliases with its label"
	otherType    = "of type ExternalName and nothing else"
	otherTarget  = "after the Service that they resolve to"
	altered      = "may only set its own annotations and labels on aliases"
	kept         = "may not set finalizers or owner references on aliases"
)

const owners = "[{apiVersion: v1, kind: Service, name: bar, uid: u}]"

// existing are the objects that are there before any attempt, of the publisher and of others.
func (e *env) existing() []object {
	all := []object{
		withUsers(e.route("old")),
		e.route("users").with("metadata|labels|app.kubernetes.io/managed-by", "helm"),
		e.ingress("old"), e.ingress("users").with("metadata|annotations|service-mirror.io/published", "null"),
		withUsers(e.recordOf("old")), manifest("apiVersion: v1\nkind: ConfigMap\nmetadata: {namespace: service-mirror, name: settings}\ndata: {a: b}\n"),
		e.managedGateway("public"), e.managedGateway("other").with("metadata|labels", "{}"),
		withUsers(e.listenerSet("old")), e.listenerSet("users").with("metadata|labels", "{}"),
		e.alias("old").with("metadata|annotations|team.example.com/owner", "blue"), e.alias("users").with("metadata|labels", "{}"),
	}
	for i := range all { // Kubernetes deletes what has an owner that does not exist
		all[i] = all[i].with("metadata|ownerReferences", "null")
	}
	return all
}

// withUsers is an object with a label and an annotation that a user has added.
func withUsers(o object) object {
	return o.with("metadata|annotations|team.example.com/owner", "blue").with("metadata|labels|team", "blue")
}

// writes are what the publisher does.
func (e *env) legitimate() map[string]attempt {
	gateway := func(own string) attempt { return attempt{verb: "apply", object: e.listeners(own)} }
	old := withUsers(e.route("old"))
	released := e.recordOf("old").with("metadata|labels|service-mirror.io/record", "released").with("data", "null")
	return map[string]attempt{
		"an HTTPRoute":                               {verb: "create", object: e.route("bar")},
		"one without a rewrite":                      {verb: "create", object: e.route("bar").with("spec|rules|0|filters", "[]")},
		"one at a ListenerSet beside the publisher":  {verb: "create", object: e.route("bar").with("spec|parentRefs|0", "{kind: ListenerSet, namespace: service-mirror, name: service-mirror-15000}")},
		"an update that keeps what a user added":     {verb: "update", object: old.with("spec|hostnames", "[a.example.com]")},
		"a deletion":                                 {verb: "delete", object: e.route("old")},
		"a TCPRoute":                                 {verb: "create", object: e.plainRoute("TCPRoute", "bar")},
		"a UDPRoute":                                 {verb: "create", object: e.plainRoute("UDPRoute", "bar")},
		"an Ingress":                                 {verb: "create", object: e.ingress("bar")},
		"another one's listener is left alone":       gateway(ownListener),
		"its listeners go":                           gateway(""),
		"its listener again":                         gateway("{name: service-mirror-tcp-15000, protocol: TCP, port: 15000, allowedRoutes: {namespaces: {from: All}}}, " + ownListener),
		"a ListenerSet":                              {verb: "create", object: e.listenerSet("bar")},
		"a ListenerSet that changes":                 {verb: "update", object: e.listenerSet("old").with("spec|listeners", "["+ownListener+"]")},
		"a ListenerSet that keeps what a user added": {verb: "update", object: withUsers(e.listenerSet("old")).with("spec|listeners", "["+ownListener+"]")},
		"a ListenerSet that goes":                    {verb: "delete", object: e.listenerSet("old")},
		"a record":                                   {verb: "create", object: e.recordOf("bar")},
		"a record that changes":                      {verb: "update", object: e.recordOf("old").with("metadata|labels|service-mirror.io/record", "released")},
		"a record with its ports":                    {verb: "create", object: e.recordOf("bar").with("metadata|annotations|service-mirror.io/allocations", `"[]"`)},
		"a record that keeps what a user added":      {verb: "update", object: withUsers(e.recordOf("old")).with("data|record.json", `"{ }"`)},
		"a record that is released":                  {verb: "update", object: withUsers(released).with("metadata|annotations|service-mirror.io/allocations", `"[]"`)},
		"a record that goes":                         {verb: "delete", object: e.recordOf("old")},
		"an alias":                                   {verb: "create", object: e.alias("bar")},
		"an alias that keeps what a user added":      {verb: "update", object: e.alias("old").with("metadata|annotations|team.example.com/owner", "blue")},
		"an alias that goes":                         {verb: "delete", object: e.alias("old")},
		"its Lease":                                  {verb: "create", object: lease("service-mirror-publish")},
		"its Event":                                  {verb: "create", object: e.event("service-mirror")},
	}
}

// attacks are what must be denied; deploy/guides/security.md has them by kind.
func (e *env) attacks() map[string]attempt {
	all := map[string]attempt{}
	create := func(what string, o object, because string) { all[what] = attempt{"create", o, because} }
	route, tcp, ingress := e.route("bar"), e.plainRoute("TCPRoute", "bar"), e.ingress("bar")
	backend := func(text string) object { return route.with("spec|rules|0|backendRefs", "["+text+"]") }

	create("another Service", route.with("spec|rules|0|backendRefs|0|name", "secret"), otherService)
	create("another Service besides its own", backend("{name: bar, port: 80}, {name: secret, port: 80}"), otherService)
	create("another namespace", backend("{name: bar, namespace: kube-system, port: 80}"), otherService)
	create("a filter of a backend", backend("{name: bar, port: 80, filters: [{type: RequestMirror, requestMirror: {backendRef: {name: bar, port: 80}}}]}"), otherService)
	create("another Service over TCP", tcp.with("spec|rules|0|backendRefs|0|name", "secret"), otherService)
	create("what is not exported", e.route("private"), notExported)
	create("no label", route.with("metadata|labels", "{}"), notOwn)
	create("no label and another Gateway", route.with("metadata|labels", "{}").with("spec|parentRefs|0|name", "other"), notOwn)
	create("another name", route.with("metadata|name", "copy"), notOwn)
	create("no owner", route.with("metadata|ownerReferences", "[]"), notOwned)
	create("another one's own", route.with("metadata|ownerReferences|0|name", "secret"), notOwned)
	create("a Pod for an owner", route.with("metadata|ownerReferences|0|kind", "Pod"), notOwned)

	create("another Gateway", route.with("spec|parentRefs|0|name", "other"), otherGateway)
	create("another namespace's Gateway", route.with("spec|parentRefs|0|namespace", "kube-system"), otherGateway)
	create("another Gateway besides its own", route.with("spec|parentRefs", "[{namespace: TEST, name: public, sectionName: http}, {namespace: kube-system, name: public, sectionName: http}]"), otherGateway)
	create("a Service in the mesh for a parent", route.with("spec|parentRefs|0", "{group: \"\", kind: Service, name: secret}"), otherGateway)
	create("a parent of another group", route.with("spec|parentRefs|0|group", "example.com"), otherGateway)
	create("a ListenerSet beside the Gateway", route.with("spec|parentRefs|0|kind", "ListenerSet").with("spec|parentRefs|0|name", "service-mirror-15000"), otherGateway)
	create("a ListenerSet of another name beside the publisher", route.with("spec|parentRefs|0", "{kind: ListenerSet, namespace: service-mirror, name: own}"), otherGateway)
	create("a ListenerSet in another namespace", route.with("spec|parentRefs|0|kind", "ListenerSet").with("spec|parentRefs|0|namespace", "kube-system"), otherGateway)
	create("another Gateway over TCP", tcp.with("spec|parentRefs|0|name", "other"), otherGateway)
	create("another Gateway over UDP", e.plainRoute("UDPRoute", "bar").with("spec|parentRefs|0|namespace", "kube-system"), otherGateway)

	for kind, filter := range map[string]string{
		"RequestMirror":         "{type: RequestMirror, requestMirror: {backendRef: {name: secret, port: 80}}}",
		"RequestRedirect":       "{type: RequestRedirect, requestRedirect: {hostname: evil.example.com}}",
		"RequestHeaderModifier": "{type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-user, value: admin}]}}",
		"ExtensionRef":          "{type: ExtensionRef, extensionRef: {group: traefik.io, kind: Middleware, name: evil}}",
	} {
		filtered := route.with("spec|rules|0|filters", "["+filter+"]")
		if kind == "RequestRedirect" {
			filtered = filtered.with("spec|rules|0|backendRefs", "null") // the one excludes the other
		}
		create("a filter "+kind, filtered, otherFilter)
	}

	create("a controller's annotation on a route", route.with("metadata|annotations|external-dns.alpha.kubernetes.io/target", "192.0.2.1"), annotated)
	create("a controller's label on a route", route.with("metadata|labels|shard", "internal"), labelled)
	create("a finalizer", route.with("metadata|finalizers", "[example.com/keep]"), finalized)
	create("an Ingress with a snippet", ingress.with("metadata|annotations|nginx.ingress.kubernetes.io/configuration-snippet", "return 200;"), annotated)
	create("an Ingress to another Service", ingress.with("spec|rules|0|http|paths|0|backend|service|name", "secret"), otherService)
	create("an Ingress with a default backend", ingress.with("spec|defaultBackend", "{service: {name: secret, port: {number: 80}}}"), otherService)
	create("an Ingress to what is no Service", ingress.with("spec|rules|0|http|paths|0|backend", "{resource: {apiGroup: example.com, kind: Bucket, name: secret}}"), otherService)
	create("an Ingress of another class", ingress.with("spec|ingressClassName", "internal"), otherClass)
	create("an Ingress without a class", ingress.with("spec|ingressClassName", "null"), otherClass)
	set := e.listenerSet("bar")
	create("a ListenerSet without its label", set.with("metadata|labels", "{}"), otherSet)
	create("a ListenerSet of another name", set.with("metadata|name", "other"), otherSet)
	create("a ListenerSet of another Gateway", set.with("spec|parentRef|name", "other"), otherGateway)
	create("a ListenerSet for one namespace", set.with("spec|listeners|0|allowedRoutes|namespaces|from", "Same"), notItsOwn)
	create("a ListenerSet with another listener", set.with("spec|listeners", "["+ownListener+", {name: http, protocol: HTTP, port: 80}]"), notItsOwn)
	create("a ListenerSet with a finalizer", set.with("metadata|finalizers", "[example.com/keep]"), notItsOwn)
	create("a ListenerSet with an owner", set.with("metadata|ownerReferences", owners), notItsOwn)
	create("a ListenerSet with a controller's annotation", set.with("metadata|annotations|external-dns.alpha.kubernetes.io/hostname", "www.example.com"), alteredSet)
	create("a ListenerSet with another label", set.with("metadata|labels|shard", "internal"), alteredSet)
	e.aliasAttacks(create)
	record := e.recordOf("bar")
	create("a ConfigMap that is no record", record.with("metadata|labels|service-mirror.io/record", "null"), notRecord)
	create("a record with another key", record.with("data|dashboard.json", `"{}"`), otherKey)
	create("a record with another key alone", record.with("data", `{dashboard.json: "{}"}`), otherKey)
	create("a record with binary data", record.with("binaryData", "{dashboard.json: e30=}"), otherKey)
	create("a record that cannot be changed", record.with("immutable", "true"), otherKey)
	create("a record with a dashboard's label", record.with("metadata|labels|grafana_dashboard", `"1"`), alteredOne)
	create("a record with a controller's annotation", record.with("metadata|annotations|k8s-sidecar-target-directory", "/tmp"), alteredOne)
	create("a record with a finalizer", record.with("metadata|finalizers", "[example.com/keep]"), keptRecord)
	create("a record with an owner", record.with("metadata|ownerReferences", owners), keptRecord)
	create("the daemon's Lease", lease("service-mirror"), otherLease)
	create("another program's Event", e.event("kubelet"), othersEvent)

	update := func(what string, o object, because string) { all[what] = attempt{"update", o, because} }
	old := e.route("old")
	update("a user's annotation with another value", old.with("metadata|annotations|team.example.com/owner", "red"), annotated)
	update("another Gateway for an old route", old.with("spec|parentRefs|0|name", "other"), otherGateway)
	update("a user's route adopted", e.route("users"), notOwn)
	update("a user's Ingress adopted", e.ingress("users"), notOwn)
	update("an Ingress passed on", e.ingress("old").with("metadata|annotations|traefik.ingress.kubernetes.io/router.middlewares", "evil"), annotated)
	update("a ListenerSet adopted", e.listenerSet("users"), otherSet)
	update("a ListenerSet moved to another Gateway", e.listenerSet("old").with("spec|parentRef|namespace", "kube-system"), otherGateway)
	update("a user's label of a ListenerSet with another value", withUsers(e.listenerSet("old")).with("metadata|labels|team", "red"), alteredSet)
	update("a user's annotation of a record with another value", withUsers(e.recordOf("old")).with("metadata|annotations|team.example.com/owner", "red"), alteredOne)
	update("a record passed on to a dashboard", e.recordOf("old").with("metadata|labels|grafana_dashboard", `"1"`), alteredOne)
	update("another key for an old record", e.recordOf("old").with("data|dashboard.json", `"{}"`), otherKey)
	update("a finalizer for an old record", e.recordOf("old").with("metadata|finalizers", "[example.com/keep]"), keptRecord)
	update("a ConfigMap adopted", e.recordOf("old").with("metadata|name", "settings"), notRecord)
	update("a user's Service adopted as an alias", e.alias("users"), notAlias)
	update("an alias passed on", e.alias("old").with("spec|externalName", "bar.TEST.svc.cluster.local"), otherTarget)
	all["a user's Service deleted"] = attempt{"delete", e.alias("users"), notAlias}
	all["a user's route deleted"] = attempt{"delete", e.route("users"), notOwn}
	all["a user's Ingress deleted"] = attempt{"delete", e.ingress("users"), notOwn}
	all["a user's ListenerSet deleted"] = attempt{"delete", e.listenerSet("users"), otherSet}
	all["a ConfigMap deleted"] = attempt{"delete", e.recordOf("old").with("metadata|name", "settings"), notRecord}

	apply := func(what string, o object, because string) { all[what] = attempt{"apply", o, because} }
	apply("another listener", e.listeners("{name: evil, protocol: HTTP, port: 8081}"), others)
	apply("a listener that ends TLS", e.listeners("{name: evil, protocol: HTTPS, port: 443, tls: {certificateRefs: [{name: wildcard}]}}"), others)
	apply("a listener of its name that is another", e.listeners("{name: service-mirror-tcp-15001, protocol: TCP, port: 22, allowedRoutes: {namespaces: {from: All}}}"), others)
	apply("a listener of its own for a hostname", e.listeners("{name: service-mirror-tcp-15001, protocol: TCP, port: 15001, allowedRoutes: {namespaces: {from: All}, kinds: [{kind: TLSRoute}]}}"), others)
	apply("a listener of its own for one namespace", e.listeners("{name: service-mirror-tcp-15001, protocol: TCP, port: 15001, allowedRoutes: {namespaces: {from: Same}}}"), others)
	apply("another one's listener moved", e.listeners("{name: http, protocol: HTTP, port: 81}"), others)
	apply("another one's listener opened", e.listeners("{name: http, protocol: HTTP, port: 80, allowedRoutes: {namespaces: {from: All}}}"), others)
	apply("the Gateway's class", e.listeners(ownListener).with("spec|gatewayClassName", "evil"), notListeners)
	apply("the Gateway's addresses", e.listeners(ownListener).with("spec|addresses", "[{value: 192.0.2.1}]"), notListeners)
	apply("the Gateway's infrastructure", e.listeners(ownListener).with("spec|infrastructure", "{labels: {tier: none}}"), notListeners)
	apply("the Gateway's annotations", e.listeners(ownListener).with("metadata|annotations", "{evil: \"yes\"}"), notListeners)
	apply("the Gateway's labels", e.listeners(ownListener).with("metadata|labels", "{evil: \"yes\"}"), notListeners)
	for what, a := range all {
		a.object = a.object.named("TEST", e.id)
		all[what] = a
	}
	return all
}

// aliasAttacks are those on Services: nothing but aliases can be created.
func (e *env) aliasAttacks(create func(what string, o object, because string)) {
	alias := e.alias("bar")
	for what, target := range map[string]string{
		"of another Service": "secret.TEST.svc.cluster.local", "of another namespace": "bar.kube-system.svc.cluster.local",
		"of what is no Service": "bar.TEST.example.com", "of another domain": "bar.TEST.svc.example.com",
	} {
		create("an alias "+what, alias.with("spec|externalName", target), otherTarget)
	}
	create("an alias of another name", alias.with("metadata|name", "default--foo").with("metadata|annotations|service-mirror.io/published", "gateway-exports/default--foo"), otherTarget)
	create("an alias whose name is two Services'", e.alias("a--b"), otherTarget)
	create("an alias that names no Service", alias.with("metadata|labels|service-mirror.io/service", "null"), otherTarget)
	create("an alias without its label", alias.with("metadata|labels", "{}"), notAlias)
	create("a Service that is no alias", alias.with("spec", "{ports: [{port: 80}]}"), otherType)
	create("an alias with a selector", alias.with("spec|selector", "{app: bar}"), otherType)
	create("an alias with an external IP", alias.with("spec|externalIPs", "[192.0.2.1]"), otherType)
	create("an alias with a DNS controller's annotation", alias.with("metadata|annotations|external-dns.alpha.kubernetes.io/hostname", "www.example.com"), altered)
	create("an alias with another label", alias.with("metadata|labels|shard", "internal"), altered)
	create("an alias with a finalizer", alias.with("metadata|finalizers", "[example.com/keep]"), kept)
	create("an alias with an owner", alias.with("metadata|ownerReferences", owners), kept)
}

// A thief has the publisher's token, and its permissions with all components. What it publishes can be written with that,
// and nothing else. Without the policies all of it is admitted, so it is they that deny it.
func TestStolenToken(t *testing.T) {
	e := newEnv(t)
	for _, name := range []string{"bar", "old", "users"} {
		e.export(name, port("http", 80))
	}
	e.export("private", port("http", 80))
	e.unexport("private")
	thief, admin := e.dynamic(kubeconfig), e.dynamic(paris.Kubeconfig)
	for _, o := range e.existing() {
		e.must(o.exist(e.ctx, admin))
	}
	attacks := e.attacks()
	e.soon("the policies apply", func() error { return attacks["no label"].denied(e.ctx, thief, admin) })
	e.soon("Services are known", func() error { return attacks["what is not exported"].denied(e.ctx, thief, admin) })
	e.soon("permissions are known", func() error { return attacks["a ListenerSet without its label"].denied(e.ctx, thief, admin) })
	e.soon("the Gateway's, too", func() error { return attacks["another listener"].denied(e.ctx, thief, admin) })
	for what, a := range attacks {
		if err := a.denied(e.ctx, thief, admin); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, a := range e.legitimate() {
		if err := a.try(e.ctx, thief, admin); err != nil && !apierrors.IsAlreadyExists(err) { // which is found after the policies
			t.Errorf("%s: %v", what, err)
		}
	}
	e.unmanagedGateway(thief, admin)
	e.beyondPermissions(thief)

	e.removeBindings()
	e.soon("nothing is denied any more", func() error { return attacks["no label"].try(e.ctx, thief, admin) })
	for what, a := range attacks {
		if err := a.try(e.ctx, thief, admin); err != nil {
			t.Errorf("without the policies, %s: %v", what, err)
		}
	}
}

func (a attempt) denied(ctx context.Context, thief, admin dynamic.Interface) error {
	return denied(a.try(ctx, thief, admin), a.because)
}

// unmanagedGateway takes the label away that permits changes.
func (e *env) unmanagedGateway(thief, admin dynamic.Interface) {
	e.Helper()
	e.must(e.managedGateway("public").with("metadata|labels", "{}").exist(e.ctx, admin))
	if err := denied(e.listeners(ownListener).apply(e.ctx, thief), notManaged); err != nil {
		e.Errorf("a Gateway without the label: %v", err)
	}
	e.must(e.managedGateway("public").exist(e.ctx, admin))
}

// beyondPermissions tries what RBAC denies.
func (e *env) beyondPermissions(thief dynamic.Interface) {
	e.Helper()
	other := e.listeners(ownListener).with("metadata|name", "other")
	for what, err := range map[string]error{
		"another Gateway":         other.apply(e.ctx, thief),
		"a new Gateway":           e.managedGateway("evil").create(e.ctx, thief),
		"the Gateway deleted":     e.managedGateway("public").delete(e.ctx, thief),
		"a ListenerSet elsewhere": e.listenerSet("bar").with("metadata|namespace", e.id).create(e.ctx, thief),
		"an alias elsewhere":      e.alias("bar").with("metadata|namespace", e.id).create(e.ctx, thief),
		"another namespace's":     e.recordOf("bar").with("metadata|namespace", e.id).create(e.ctx, thief),
		"the daemon's Lease":      lease("service-mirror").delete(e.ctx, thief),
		"a ServiceAccount":        patchAccount(e.ctx, thief),
	} {
		if err := forbidden(err); err != nil {
			e.Errorf("%s: %v", what, err)
		}
	}
}

// patchAccount has the publisher name another Gateway for itself.
func patchAccount(ctx context.Context, thief dynamic.Interface) error {
	o := manifest("apiVersion: v1\nkind: ServiceAccount\nmetadata: {namespace: service-mirror, name: service-mirror-publish, annotations: {service-mirror.io/gateway: a/b}}\n")
	return o.apply(ctx, thief)
}

// removeBindings removes those of the policies until the test is over.
func (e *env) removeBindings() {
	e.Helper()
	e.Cleanup(func() {
		_, err := paris.Kubectl(context.Background(), "apply", "-k", manifests)
		e.must(err)
	})
	bindings := paris.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	for _, name := range e.bindings() {
		e.must(bindings.Delete(e.ctx, name, metav1.DeleteOptions{}))
	}
}

// bindings are the names of those that ship.
func (e *env) bindings() (names []string) {
	e.Helper()
	list, err := paris.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, binding := range list.Items {
		if strings.HasPrefix(binding.Name, account) {
			names = append(names, binding.Name)
		}
	}
	return names
}

// All policies are about who runs in the Pod, and deny.
func TestPoliciesAreAboutThePublisher(t *testing.T) {
	e := newEnv(t)
	deployment := e.deployment(manifests)
	who := fmt.Sprintf("request.userInfo.username == 'system:serviceaccount:%s:%s'", deployment.Namespace, deployment.Spec.Template.Spec.ServiceAccountName)
	names := e.bindings()
	if len(names) != 6 {
		t.Errorf("the bindings are %v, want 6", names)
	}
	for _, name := range names {
		binding, err := paris.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().Get(e.ctx, name, metav1.GetOptions{})
		e.must(err)
		policy, err := paris.AdmissionregistrationV1().ValidatingAdmissionPolicies().Get(e.ctx, binding.Spec.PolicyName, metav1.GetOptions{})
		e.must(err)
		if conditions := policy.Spec.MatchConditions; len(conditions) != 1 || conditions[0].Expression != who {
			t.Errorf("policy %s is about %v, the Pod is %s", policy.Name, conditions, who)
		}
		if *policy.Spec.FailurePolicy != admissionv1.Fail || len(binding.Spec.ValidationActions) != 2 {
			t.Errorf("policy %s does not deny: %v, %v", policy.Name, *policy.Spec.FailurePolicy, binding.Spec.ValidationActions)
		}
	}
}

// The Gateway and the class of Ingresses are written in one place.
func TestGatewayIsConfiguredInOnePlace(t *testing.T) {
	e := newEnv(t)
	spec := e.deployment(manifests).Spec.Template.Spec.Containers[0]
	values := map[string]string{}
	for _, variable := range spec.Env {
		values[variable.Name] = variable.Value
	}
	if values["GATEWAY"] != "default/none" || values["INGRESS_CLASS"] != class || !strings.Contains(strings.Join(spec.Args, " "), "--gateway=$(GATEWAY)") {
		t.Errorf("the Pod has %v, %v", spec.Args, values)
	}
}

// deployment is that of a kustomization.
func (e *env) deployment(dir string) (found appsv1.Deployment) {
	e.Helper()
	text, err := paris.Kubectl(e.ctx, "kustomize", dir)
	e.must(err)
	for document := range strings.SplitSeq(text, "\n---\n") {
		if strings.Contains(document, "kind: Deployment\n") {
			e.must(yaml.Unmarshal([]byte(document), &found))
		}
	}
	return found
}
