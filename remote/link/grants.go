package link

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// Account is the name of the account that reads in the remote cluster, and of what belongs to it.
const Account = "service-mirror-reader"

const reader = Account

// grants are the objects that the remote cluster must have for one link: those of deploy/remote, which a test
// compares.
type grants struct {
	namespace string // of the account
	objects   []runtime.Object
}

// grantsFor are those for what a --remote and its gateways read.
func grantsFor(namespace string, spec remote.Spec, gateways []gateway.Config) []runtime.Object {
	g := &grants{namespace: namespace}
	g.account()
	if len(spec.Namespaces) == 0 {
		g.role("", reader, false, read("", "services", ""), identify())
	} else {
		g.role("kube-system", reader+":identity", true, identify())
		for _, one := range spec.Namespaces {
			g.role(one, reader, true, read("", "services", ""))
		}
	}
	for _, one := range gateways {
		switch {
		case one.Service == cache.ObjectName{} || !one.ReadsService():
		case one.API:
			g.role(one.Service.Namespace, reader+":gateway:"+one.Service.Name, true, read("gateway.networking.k8s.io", "gateways", one.Service.Name))
			g.role("", reader+":listenersets", true, read("gateway.networking.k8s.io", "listenersets", ""))
		case len(spec.Namespaces) > 0 && !slices.Contains(spec.Namespaces, one.Service.Namespace):
			g.role(one.Service.Namespace, reader+":service:"+one.Service.Name, true, read("", "services", one.Service.Name))
		}
	}
	if spec.Records != "" {
		g.role(spec.Records, reader+":records", true, read("", "configmaps", ""))
	}
	for _, one := range []cache.ObjectName{spec.Gateways[0].TCPServices, spec.Gateways[0].UDPServices} {
		if one != (cache.ObjectName{}) {
			g.role(one.Namespace, reader+":configmap:"+one.Name, true, read("", "configmaps", one.Name))
		}
	}
	return g.objects
}

// account adds who reads, with a token that lasts: nobody in another cluster could renew one that expires.
func (g *grants) account() {
	namespace := &corev1.Namespace{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Namespace"}, ObjectMeta: metav1.ObjectMeta{
		Name: g.namespace, Labels: map[string]string{"pod-security.kubernetes.io/enforce": "restricted"},
	}}
	mount := false
	account := &corev1.ServiceAccount{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ServiceAccount"}, ObjectMeta: metav1.ObjectMeta{Namespace: g.namespace, Name: reader},
		AutomountServiceAccountToken: &mount,
	}
	token := &corev1.Secret{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Secret"}, ObjectMeta: metav1.ObjectMeta{
		Namespace: g.namespace, Name: reader, Annotations: map[string]string{corev1.ServiceAccountNameKey: reader},
	}, Type: corev1.SecretTypeServiceAccountToken}
	g.objects = append(g.objects, namespace, account, token)
}

// subject is the account of a namespace, in a binding.
func subject(namespace string) rbacv1.Subject {
	return rbacv1.Subject{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: reader}
}

// read permits to list and watch: all of a resource, or the one of a name.
func read(group, resource, name string) rbacv1.PolicyRule {
	rule := rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{resource}, Verbs: []string{"list", "watch"}}
	if name != "" {
		rule.ResourceNames = []string{name}
	}
	return rule
}

// identify permits to read the UID by which a cluster is known.
func identify() rbacv1.PolicyRule {
	return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"kube-system"}, Verbs: []string{"get"}}
}

// role adds a Role and its binding, or a ClusterRole where there is no namespace. What kustomizations of deploy/remote
// label is labelled, so that all of it is found.
func (g *grants) role(namespace, name string, labelled bool, rules ...rbacv1.PolicyRule) {
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
	if labelled {
		meta.Labels = map[string]string{"app.kubernetes.io/name": reader}
	}
	kind, scope := "Role", ""
	if namespace == "" {
		scope = "Cluster"
	}
	kind = scope + kind
	types := func(kind string) metav1.TypeMeta {
		return metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: kind}
	}
	ref := rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: kind, Name: name}
	subjects := []rbacv1.Subject{subject(g.namespace)}
	if namespace == "" {
		g.add(&rbacv1.ClusterRole{TypeMeta: types(kind), ObjectMeta: meta, Rules: rules},
			&rbacv1.ClusterRoleBinding{TypeMeta: types(kind + "Binding"), ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
		return
	}
	g.add(&rbacv1.Role{TypeMeta: types(kind), ObjectMeta: meta, Rules: rules},
		&rbacv1.RoleBinding{TypeMeta: types(kind + "Binding"), ObjectMeta: meta, RoleRef: ref, Subjects: subjects})
}

// add leaves out what is there already: several gateways need some of it once.
func (g *grants) add(objects ...runtime.Object) {
	for _, object := range objects {
		if !slices.ContainsFunc(g.objects, func(other runtime.Object) bool { return title(other) == title(object) }) {
			g.objects = append(g.objects, object)
		}
	}
}

// title names an object, as kubectl does.
func title(object runtime.Object) string {
	meta := object.(metav1.Object)
	name := strings.ToLower(object.GetObjectKind().GroupVersionKind().Kind) + "/" + meta.GetName()
	if namespace := meta.GetNamespace(); namespace != "" {
		return fmt.Sprintf("%s in namespace %s", name, namespace)
	}
	return name
}
