package e2e

import (
	"fmt"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// onlyNamespaces has the daemon watch some namespaces of the remote, and replaces the
// permission to read the Services of all namespaces by Roles in those permitted.
func (r *remote) onlyNamespaces(watched string, permitted ...string) {
	e := r.env
	e.Helper()
	r.keys += ",namespaces=" + watched
	role, err := r.RbacV1().ClusterRoles().Get(e.ctx, e.id, metav1.GetOptions{})
	e.must(err)
	role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"namespaces"}, ResourceNames: []string{"kube-system"}, Verbs: []string{"get"}}}
	_, err = r.RbacV1().ClusterRoles().Update(e.ctx, role, metav1.UpdateOptions{})
	e.must(err)
	e.authorized(r.cluster, "nowhere", false)
	for _, namespace := range permitted {
		r.permit(namespace)
	}
}

// permit makes a Role to read the Services of a namespace, and forbid deletes its binding.
func (r *remote) permit(namespace string) {
	e := r.env
	e.Helper()
	meta := metav1.ObjectMeta{Name: e.id}
	_, err := r.RbacV1().Roles(namespace).Create(e.ctx, &rbacv1.Role{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}},
	}}, metav1.CreateOptions{})
	e.must(err)
	_, err = r.RbacV1().RoleBindings(namespace).Create(e.ctx, &rbacv1.RoleBinding{
		ObjectMeta: meta,
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: e.id, Name: e.id}},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: e.id},
	}, metav1.CreateOptions{})
	e.must(err)
	e.authorized(r.cluster, namespace, true)
}

func (r *remote) forbid(namespace string) {
	e := r.env
	e.Helper()
	e.must(r.RbacV1().RoleBindings(namespace).Delete(e.ctx, e.id, metav1.DeleteOptions{}))
	e.must(r.RbacV1().Roles(namespace).Delete(e.ctx, e.id, metav1.DeleteOptions{}))
	e.authorized(r.cluster, namespace, false)
	r.proxy.cutConnections() // a watch that is open goes on
}

// authorized waits until the authorizer knows whether the daemon may read the Services of a
// namespace.
func (e *env) authorized(c *cluster, namespace string, want bool) {
	e.Helper()
	e.soon("the authorizer", func() error {
		review, err := c.AuthorizationV1().SubjectAccessReviews().Create(e.ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User:               "system:serviceaccount:" + e.id + ":" + e.id,
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: namespace, Verb: "list", Resource: "services"},
			},
		}, metav1.CreateOptions{})
		if err == nil && review.Status.Allowed != want {
			err = fmt.Errorf("reading Services of %s is allowed: %v, want %v", namespace, review.Status.Allowed, want)
		}
		return err
	})
}

// exportIn exports a Service of another namespace than the test's.
func (r *remote) exportIn(namespace, name string) {
	r.env.Helper()
	_, err := r.CoreV1().Services(namespace).Create(r.env.ctx,
		r.exported(name, func(svc *corev1.Service) { svc.Namespace = namespace }), metav1.CreateOptions{})
	r.env.must(err)
}

// mirroredIn checks whether there is a mirror in another namespace than the test's.
func (r *remote) mirroredIn(namespace, name string, want bool) func() error {
	return func() error {
		list, err := r.env.local.CoreV1().Services(namespace).List(r.env.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + r.mirror(name)})
		if err == nil && len(list.Items) == 1 != want {
			err = fmt.Errorf("there are %d Services %s/%s, want it there: %v", len(list.Items), namespace, r.mirror(name), want)
		}
		return err
	}
}

// hasProblem checks that the page has a problem of a remote that names all of the words.
func (d *daemon) hasProblem(r *remote, words ...string) func() error {
	return func() error {
		var err error
		for _, state := range []string{"up", "down"} {
			if err = d.shows(r, state, words...)(); err == nil {
				return nil
			}
		}
		return err
	}
}

// One namespace that may not be read costs the others nothing.
func TestOneNamespaceIsForbidden(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	team := e.id + "-team"
	e.makeNamespace(london, team)
	e.makeNamespace(paris, team)
	r.gateway("203.0.113.1")
	r.onlyNamespaces(e.id+","+team, e.id)
	r.export("bar")
	r.exportIn(team, "baz")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the namespace that may be read", r.mirrored("bar", "203.0.113.1"))
	e.soon("the other's reason", d.hasProblem(r, team, "forbidden"), d.measures(map[string]float64{r.failing("exports"): 1}))
	e.must(r.mirroredIn(team, "baz", false)())
	e.edits(paris, "bar", 1)
	e.soon("a change", r.mirrored("bar", "203.0.113.1"))

	r.permit(team)
	e.eventually(soon+3*time.Second, "the other, once it may be read", r.mirroredIn(team, "baz", true))
	e.soon("no problem", d.shows(r, "up"), d.measures(map[string]float64{r.failing("exports"): 0, r.up(): 1}))

	// Unknown is not empty, over a restart too.
	r.forbid(team)
	e.soon("the reason again", d.hasProblem(r, team, "forbidden"))
	e.must(paris.CoreV1().Services(team).Delete(e.ctx, "baz", metav1.DeleteOptions{}))
	e.edits(paris, "bar", 1)
	e.soon("a change", r.mirrored("bar", "203.0.113.1"))
	d.stop()
	r.export("more")
	d = e.daemon([]*remote{r}, listening...)
	e.soon("after a restart", r.mirrored("more", "203.0.113.1"), d.hasProblem(r, team, "forbidden"))
	e.stays("what was mirrored", r.mirroredIn(team, "baz", true), r.mirrored("bar", "203.0.113.1"))
	r.permit(team)
	e.eventually(soon+3*time.Second, "what went meanwhile", r.mirroredIn(team, "baz", false))
	e.soon("no problem", d.shows(r, "up"))
}
