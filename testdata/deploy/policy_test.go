package deploy

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	authenticationv1 "k8s.io/api/authentication/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"
)

// daemonClient has the daemon's own credentials in london, and nothing of its manners.
func (e *env) daemonClient() dynamic.Interface {
	e.Helper()
	token, err := london.CoreV1().ServiceAccounts(ours).CreateToken(e.ctx, ours, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	e.must(err)
	config := rest.AnonymousClientConfig(london.Config)
	config.BearerToken = token.Status.Token
	return e.dynamic(config)
}

func (e *env) dynamic(config *rest.Config) dynamic.Interface {
	e.Helper()
	config = rest.CopyConfig(config)
	config.WarningHandler, config.QPS = rest.NoWarnings{}, -1
	client, err := dynamic.NewForConfig(config)
	e.must(err)
	return client
}

// bySelector manages the EndpointSlices of Services with a selector.
const bySelector = "endpointslice-controller.k8s.io"

// The kinds that the daemon writes.
var resources = map[string]schema.GroupVersionResource{
	"Service":       corev1.SchemeGroupVersion.WithResource("services"),
	"Endpoints":     corev1.SchemeGroupVersion.WithResource("endpoints"),
	"EndpointSlice": discoveryv1.SchemeGroupVersion.WithResource("endpointslices"),
	"Lease":         coordinationv1.SchemeGroupVersion.WithResource("leases"),
	"Event":         corev1.SchemeGroupVersion.WithResource("events"),
}

// attempt is a write, with the object that it is of and what exists before it.
type attempt struct {
	verb    string
	object  object
	given   []object
	because []string // it is denied: a part of the message, which is that of one of several policies
}

func creates(o object, given ...object) attempt {
	return attempt{verb: "create", object: o, given: given}
}

func updates(before, after object) attempt {
	return attempt{verb: "update", object: after, given: []object{before}}
}

// overwrites updates what the cluster has anyway.
func overwrites(after object) attempt { return attempt{verb: "update", object: after} }

func deletes(o object) attempt { return attempt{verb: "delete", object: o, given: []object{o}} }

// deletesExisting deletes what the cluster has anyway.
func deletesExisting(o object) attempt { return attempt{verb: "delete", object: o} }

// and adds to what exists before an attempt.
func (a attempt) and(given ...object) attempt {
	a.given = append(given, a.given...)
	return a
}

// against says which rule denies an attempt, or which ones do.
func (a attempt) against(because ...string) attempt {
	a.because = because
	return a
}

// prepare creates what exists before an attempt; what exists already stays.
func (a attempt) prepare(ctx context.Context, admin dynamic.Interface, stem string) error {
	for _, o := range a.given {
		obj := o(stem)
		if _, err := of(admin, obj).Create(ctx, obj, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
			return fmt.Errorf("prepare %s %s: %w", obj.GetKind(), obj.GetName(), err)
		}
	}
	return nil
}

// try makes an attempt, of which nothing is stored.
func (a attempt) try(ctx context.Context, client, admin dynamic.Interface, stem string) error {
	obj, dry := a.object(stem), []string{metav1.DryRunAll}
	if a.verb == "create" {
		_, err := of(client, obj).Create(ctx, obj, metav1.CreateOptions{DryRun: dry})
		return err
	}
	if a.verb == "delete" {
		return of(client, obj).Delete(ctx, obj.GetName(), metav1.DeleteOptions{DryRun: dry})
	}
	live, err := of(admin, obj).Get(ctx, obj.GetName(), metav1.GetOptions{})
	if err != nil {
		return err
	}
	obj.SetResourceVersion(live.GetResourceVersion())
	_, err = of(client, obj).Update(ctx, obj, metav1.UpdateOptions{DryRun: dry})
	return err
}

// tryUntilHeard prepares and makes an attempt, again where a controller was quicker: Kubernetes deletes its own
// EndpointSlices of what does not exist.
func (a attempt) tryUntilHeard(ctx context.Context, client, admin dynamic.Interface, stem string) (err error) {
	for range 100 {
		if err := a.prepare(ctx, admin, stem); err != nil {
			return err
		}
		if err = a.try(ctx, client, admin, stem); !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			return err
		}
	}
	return err
}

func of(client dynamic.Interface, obj *unstructured.Unstructured) dynamic.ResourceInterface {
	return client.Resource(resources[obj.GetKind()]).Namespace(obj.GetNamespace())
}

// configure names remotes as configured, as a link and the manifests do.
func (e *env) configure(remotes ...string) {
	e.Helper()
	for _, name := range remotes {
		e.kubectl(london, "--namespace", ours, "annotate", "--overwrite", "serviceaccount", ours, configured+name+"=")
	}
}

// configured begins the annotations of the daemon's ServiceAccount that name the configured remotes.
const configured = "remote.service-mirror.io/"

// configured checks which remotes are.
func (e *env) configured(want ...string) {
	e.Helper()
	account, err := london.CoreV1().ServiceAccounts(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	var names []string
	for key := range account.Annotations {
		if name, found := strings.CutPrefix(key, configured); found {
			names = append(names, name)
		}
	}
	if slices.Sort(names); !slices.Equal(names, want) {
		e.Errorf("the ServiceAccount names the remotes %q, want %q", names, want)
	}
}

// A thief has the daemon's token, and its permissions with all components. What a mirror is can be written with
// it, and nothing else. Without the policies all of it is admitted, so it is they that deny it.
func TestStolenToken(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london)
	e.apply(london, e.localWith("create-namespaces", "endpointslices"))
	e.configure("paris", "berlin", "eu-paris")
	for _, merged := range []string{"oslo", "rome"} {
		e.kubectl(london, "--namespace", ours, "annotate", "--overwrite", "serviceaccount", ours, configured+merged+"=name={service}")
	}
	daemon, admin := e.daemonClient(), e.dynamic(london.Config)
	e.soon("the policies apply", func() error {
		return denied(attacks["a Service without labels"].try(e.ctx, daemon, admin, "early"), "labels")
	})
	e.soon("the configured remotes are known", func() error {
		return writes["a new Service"].try(e.ctx, daemon, admin, "early")
	})
	stems := map[string]string{}
	each := func(table map[string]attempt, judge func(a attempt, err error) error) {
		t.Helper()
		for what, a := range table {
			if stems[what] == "" {
				stems[what] = fmt.Sprintf("n%d", len(stems))
			}
			if err := judge(a, a.tryUntilHeard(e.ctx, daemon, admin, stems[what])); err != nil {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	e.cleanup(func(e *env) { e.removeEverything(admin, stems) })
	const beside = "failover of an unlabelled Service"
	stems[beside] = "n0"
	e.soon("the policy on failover applies", func() error {
		return denied(attacks[beside].tryUntilHeard(e.ctx, daemon, admin, stems[beside]), attacks[beside].because...)
	})

	each(attacks, func(a attempt, err error) error { return denied(err, a.because...) })
	each(writes, func(_ attempt, err error) error { return err })
	e.removeBindings()
	// Each policy is heard of by itself.
	for what, a := range attacks {
		e.soon(what+" is not denied any more", func() error { return admitted(a.tryUntilHeard(e.ctx, daemon, admin, stems[what])) })
	}
}

// removeEverything deletes what attempts needed outside the test's own namespace.
func (e *env) removeEverything(admin dynamic.Interface, stems map[string]string) {
	for what, stem := range stems {
		for _, table := range []map[string]attempt{attacks, writes} {
			for _, o := range table[what].given {
				obj := o(stem)
				name, live := obj.GetName(), of(admin, obj)
				if len(obj.GetFinalizers()) > 0 {
					_, err := live.Patch(e.ctx, name, types.MergePatchType, []byte(`{"metadata": {"finalizers": null}}`), metav1.PatchOptions{})
					e.must(err)
				}
				if err := live.Delete(e.ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
					e.Errorf("%s: %v", what, err)
				}
			}
		}
	}
}

func (e *env) removeBindings() {
	e.Helper()
	bindings := london.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings()
	list, err := bindings.List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, binding := range list.Items {
		e.must(bindings.Delete(e.ctx, binding.Name, metav1.DeleteOptions{}))
	}
}

// denied is nil for a denial by one of the policies, for this reason, and for nothing else.
func denied(err error, because ...string) error {
	switch {
	case err == nil:
		return fmt.Errorf("it was admitted")
	case !apierrors.IsForbidden(err) && !strings.Contains(err.Error(), noneFailing) || !strings.Contains(err.Error(), "ValidatingAdmissionPolicy 'service-mirror-only-"):
		return fmt.Errorf("another refusal: %w", err)
	case !slices.ContainsFunc(because, func(text string) bool { return strings.Contains(err.Error(), text) }):
		return fmt.Errorf("not because of %q: %w", because, err)
	}
	return nil
}

// admitted is nil for what no policy denied.
func admitted(err error) error {
	if apierrors.IsAlreadyExists(err) { // which is found after the policies
		return nil
	}
	return err
}

// A remote must be configured for its mirrors to be written, and not for them to be deleted. While what names the
// remotes is missing, the daemon's token is worth nothing, and what are not mirrors can be written as ever.
func TestConfiguredRemotes(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london)
	e.apply(london, shipped("local"))
	daemon, admin := e.daemonClient(), e.dynamic(london.Config)
	const unknown = "remote paris is not configured"
	create, update, remove := writes["a new Service"], writes["an unchanged Service"], writes["the deletion of a Service"]
	try := func(a attempt, want func(error) error) {
		t.Helper()
		e.soon("an attempt to "+a.verb, func() error {
			return want(a.tryUntilHeard(e.ctx, daemon, admin, "bar-"+a.verb))
		})
	}
	refused := func(err error) error { return denied(err, unknown) }

	try(create, refused) // as installed, without a remote
	try(update, refused)
	try(remove, admitted)
	e.configure("berlin")
	try(create, refused)
	e.configure("paris")
	try(create, admitted)
	try(update, admitted)
	e.kubectl(london, "apply", "-k", shipped("local")) // which keeps what a link has added
	e.configured("berlin", "paris")

	e.must(london.CoreV1().ServiceAccounts(ours).Delete(e.ctx, ours, metav1.DeleteOptions{}))
	try(create, func(err error) error {
		if !apierrors.IsUnauthorized(err) {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	e.soon("mirrors cannot be written, by nobody", func() error {
		if err := create.try(e.ctx, admin, admin, "mine"); err == nil || !strings.Contains(err.Error(), "no params found") {
			return fmt.Errorf("the answer is %v", err)
		}
		return nil
	})
	users := creates(serviceOf("paris").with(unlabelled))
	if err := users.try(e.ctx, admin, admin, "users"); err != nil {
		t.Errorf("a user's Service: %v", err)
	}
}

// The names that the flags choose are permitted where the annotation says them: during a change those of before, too.
func TestRulesForNames(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london)
	e.apply(london, shipped("local"))
	daemon, admin := e.daemonClient(), e.dynamic(london.Config)
	mirror := func(name, source string) attempt {
		return creates(serviceOf("paris", func(svc *corev1.Service) {
			svc.Name = name
			svc.Annotations[mirrorKey], svc.Annotations[sourceKey] = "shop/"+name, source
		}))
	}
	addresses := func(name string) attempt {
		return creates(endpointsOf("paris", func(endpoints *corev1.Endpoints) {
			endpoints.Name = name
			endpoints.Annotations[mirrorKey] = "shop/" + name
		}))
	}
	e.soon("the policies apply", func() error {
		return denied(mirror("bar-paris", "shop/bar").try(e.ctx, daemon, admin, "x"), "remote paris is not configured")
	})
	for _, test := range []struct {
		rule       string
		yes, no    []attempt
		recognized attempt // of those that are permitted, one that no rule before this one permits
	}{
		{rule: "name={cluster}-{service}", recognized: mirror("paris-bar", "shop/bar"), yes: []attempt{addresses("paris-bar")},
			no: []attempt{mirror("bar-paris", "shop/bar"), mirror("paris-foo", "shop/bar"), mirror("paris-bar", "web/bar"), addresses("bar-paris")}},
		{rule: "name={cluster}-{service};", recognized: mirror("bar-paris", "shop/bar"), yes: []attempt{mirror("paris-bar", "shop/bar"), addresses("bar-paris"), addresses("paris-bar")},
			no: []attempt{mirror("bar", "shop/bar"), addresses("bar")}},
		{rule: "name={namespace}-{service},namespace=web:shop;namespace=old:shop", recognized: mirror("web-bar", "web/bar"),
			yes: []attempt{mirror("bar-paris", "old/bar"), mirror("shop-bar", "shop/bar"), addresses("web-bar"), addresses("bar-paris")},
			no:  []attempt{mirror("old-bar", "old/bar"), mirror("bar-paris", "web/bar"), addresses("old-bar")}},
		{rule: "namespace=shop:web;name={service}", recognized: mirror("bar", "shop/bar"), no: []attempt{mirror("bar-paris", "shop/bar")}},
		{rule: "allow-names", recognized: mirror("till", "shop/bar"), yes: []attempt{mirror("bar-paris", "shop/bar")}, no: []attempt{mirror("till", "web/bar")}},
	} {
		e.kubectl(london, "--namespace", ours, "annotate", "--overwrite", "serviceaccount", ours, configured+"paris="+test.rule)
		e.soon("the rule "+test.rule+" applies", func() error { return admitted(test.recognized.try(e.ctx, daemon, admin, "x")) })
		for _, one := range test.yes {
			if err := admitted(one.try(e.ctx, daemon, admin, "x")); err != nil {
				t.Errorf("%s: %v", test.rule, err)
			}
		}
		for _, one := range test.no {
			if err := denied(one.try(e.ctx, daemon, admin, "x"), "does not have the name of a mirror of remote paris"); err != nil {
				t.Errorf("%s: %s %s: %v", test.rule, one.object("x").GetKind(), one.object("x").GetName(), err)
			}
		}
	}
}

// All policies are about who runs in the Pod, who can change neither them nor what they read.
func TestPoliciesAreAboutTheDaemon(t *testing.T) {
	e := newEnv(t)
	e.apply(london, shipped("local"))
	deployment, err := london.AppsV1().Deployments(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	who := fmt.Sprintf("request.userInfo.username == 'system:serviceaccount:%s:%s'", deployment.Namespace, deployment.Spec.Template.Spec.ServiceAccountName)
	policies, err := london.AdmissionregistrationV1().ValidatingAdmissionPolicies().List(e.ctx, metav1.ListOptions{})
	e.must(err)
	bindings, err := london.AdmissionregistrationV1().ValidatingAdmissionPolicyBindings().List(e.ctx, metav1.ListOptions{})
	e.must(err)
	bound := map[string]admissionv1.ValidatingAdmissionPolicyBindingSpec{}
	for _, binding := range bindings.Items {
		bound[binding.Spec.PolicyName] = binding.Spec
		if len(binding.Spec.ValidationActions) != 2 {
			t.Errorf("binding %s does not deny: %v", binding.Name, binding.Spec.ValidationActions)
		}
	}
	if len(policies.Items) != 4 || len(bound) != 4 {
		t.Errorf("there are %d policies, of which %d are bound, want 4", len(policies.Items), len(bound))
	}
	for _, policy := range policies.Items {
		conditions := policy.Spec.MatchConditions
		if len(conditions) != 1 || conditions[0].Expression != who {
			t.Errorf("policy %s is about %v, the Pod is %s", policy.Name, conditions, who)
		}
		if *policy.Spec.FailurePolicy != admissionv1.Fail {
			t.Errorf("policy %s does not deny: %v", policy.Name, *policy.Spec.FailurePolicy)
		}
		if ref := bound[policy.Name].ParamRef; ref != nil && ref.Selector == nil && (ref.Namespace != ours || ref.Name != deployment.Spec.Template.Spec.ServiceAccountName || *ref.ParameterNotFoundAction != admissionv1.DenyAction) {
			t.Errorf("policy %s reads %v", policy.Name, ref)
		}
	}
	for _, g := range e.grants(london, ours) {
		remotes := g.Resource == "secrets" && g.Namespace == ours && (g.Verb == "list" || g.Verb == "watch") // which are in no policy
		if strings.HasPrefix(g.Resource, "serviceaccounts") || strings.HasPrefix(g.Resource, "secrets") && !remotes || g.Group == "admissionregistration.k8s.io" {
			t.Errorf("the daemon may %v", g)
		}
	}
}

// The daemon reads the Secrets of one namespace, and writes none: RBAC cannot select those of remotes by their label.
func TestSecretsOfTheDaemon(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london)
	e.apply(london, shipped("local"))
	secrets := e.daemonClient().Resource(corev1.SchemeGroupVersion.WithResource("secrets"))
	e.soon("the Role is known", func() error {
		_, err := secrets.Namespace(ours).List(e.ctx, metav1.ListOptions{LabelSelector: remoteLabel})
		return err
	})
	object := made(&corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{Namespace: ours, Name: "any"}})
	for what, try := range map[string]func() error{
		"list in another namespace": func() error { _, err := secrets.Namespace("shop").List(e.ctx, metav1.ListOptions{}); return err },
		"list in all":               func() error { _, err := secrets.List(e.ctx, metav1.ListOptions{}); return err },
		"get":                       func() error { _, err := secrets.Namespace(ours).Get(e.ctx, "any", metav1.GetOptions{}); return err },
		"create": func() error {
			_, err := secrets.Namespace(ours).Create(e.ctx, object, metav1.CreateOptions{})
			return err
		},
		"update": func() error {
			_, err := secrets.Namespace(ours).Update(e.ctx, object, metav1.UpdateOptions{})
			return err
		},
		"delete": func() error { return secrets.Namespace(ours).Delete(e.ctx, "any", metav1.DeleteOptions{}) },
	} {
		if err := try(); !apierrors.IsForbidden(err) {
			t.Errorf("%s: %v, want it forbidden", what, err)
		}
	}
}
