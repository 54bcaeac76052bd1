package deploy

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

type request = harness.Request

// mark is where a cluster's audit log ends now.
func (e *env) mark(c *cluster) harness.Mark {
	e.Helper()
	mark, err := c.Mark()
	e.must(err)
	return mark
}

// requests are those of a ServiceAccount since a mark, open watches included.
func (e *env) requests(c *cluster, account string, since harness.Mark) []request {
	e.Helper()
	user := harness.ServiceAccountUser(ours, account)
	found, err := c.Requests(since, user, func(r request) bool { return r.User.Username == user })
	e.must(err)
	return found
}

// grant is one thing that a ServiceAccount may do.
type grant struct {
	namespace                   string // empty: all
	group, resource, name, verb string // name empty: all
}

func (g grant) String() string {
	return fmt.Sprintf("%s %s of %q named %q in namespace %q", g.verb, g.resource, g.group, g.name, g.namespace)
}

// allows tells whether a grant is one that a request needed.
func (g grant) allows(r request) bool {
	resource := r.ObjectRef.Resource
	if r.ObjectRef.Subresource != "" {
		resource += "/" + r.ObjectRef.Subresource
	}
	return g.verb == r.Verb && g.group == r.ObjectRef.APIGroup && g.resource == resource &&
		(g.namespace == "" || g.namespace == r.ObjectRef.Namespace) && (g.name == "" || g.name == r.ObjectRef.Name)
}

// grants are all that a ServiceAccount may do in a cluster.
func (e *env) grants(c *cluster, account string) []grant {
	e.Helper()
	var all []grant
	add := func(namespace string, rules []rbacv1.PolicyRule) {
		for _, rule := range rules {
			for _, group := range rule.APIGroups {
				for _, resource := range rule.Resources {
					for _, verb := range rule.Verbs {
						for _, name := range append(rule.ResourceNames, "")[:max(1, len(rule.ResourceNames))] {
							all = append(all, grant{namespace, group, resource, name, verb})
						}
					}
				}
			}
			if len(rule.NonResourceURLs) > 0 {
				e.Errorf("%s may ask for %v", account, rule.NonResourceURLs)
			}
		}
	}
	about := func(subjects []rbacv1.Subject) bool {
		return slices.Contains(subjects, rbacv1.Subject{Kind: "ServiceAccount", Namespace: ours, Name: account})
	}
	wide, err := c.RbacV1().ClusterRoleBindings().List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, binding := range wide.Items {
		if about(binding.Subjects) {
			role, err := c.RbacV1().ClusterRoles().Get(e.ctx, binding.RoleRef.Name, metav1.GetOptions{})
			e.must(err)
			add("", role.Rules)
		}
	}
	narrow, err := c.RbacV1().RoleBindings("").List(e.ctx, metav1.ListOptions{})
	e.must(err)
	for _, binding := range narrow.Items {
		if about(binding.Subjects) {
			role, err := c.RbacV1().Roles(binding.Namespace).Get(e.ctx, binding.RoleRef.Name, metav1.GetOptions{})
			e.must(err)
			add(binding.Namespace, role.Rules)
		}
	}
	return all
}

// permissions checks what a ServiceAccount did since a mark against what it may: nothing was
// refused, and nothing is granted that was not used, but for what is excused.
func (e *env) permissions(c *cluster, account string, since harness.Mark, excused func(grant) bool) {
	e.Helper()
	unused := map[grant]bool{}
	for _, g := range e.grants(c, account) {
		unused[g] = true
	}
	if len(unused) == 0 {
		e.Errorf("%s: %s may do nothing", c.Name, account)
	}
	e.soon("every permission of "+account+" in "+c.Name+" is used", func() error { // the last requests may be under way
		for _, r := range e.requests(c, account, since) {
			if code := r.ResponseStatus.Code; code != http.StatusForbidden && code != http.StatusUnauthorized { // it was let through, whatever came of it
				maps.DeleteFunc(unused, func(g grant, _ bool) bool { return g.allows(r) })
			}
		}
		maps.DeleteFunc(unused, func(g grant, _ bool) bool { return excused(g) })
		if len(unused) > 0 {
			return fmt.Errorf("it never did %v", slices.SortedFunc(maps.Keys(unused), func(a, b grant) int { return cmp.Compare(a.String(), b.String()) }))
		}
		return nil
	})
	for _, r := range e.requests(c, account, since) {
		if r.ResponseStatus.Code == http.StatusForbidden {
			e.Errorf("%s: %s was refused: %v", c.Name, account, r)
		}
	}
}

// streams excuses what is not used where an API server streams lists: a watch is then all.
func streams(g grant) bool { return g.verb == "list" }

func nothing(grant) bool { return false }
