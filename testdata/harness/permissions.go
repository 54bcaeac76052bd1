package harness

import (
	"context"
	"errors"
	"fmt"
	"slices"

	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Grant is one thing that a ServiceAccount may do.
type Grant struct {
	Namespace                   string // empty: all
	Group, Resource, Name, Verb string // Name empty: all
}

func (g Grant) String() string {
	return fmt.Sprintf("%s %s of %q named %q in namespace %q", g.Verb, g.Resource, g.Group, g.Name, g.Namespace)
}

// Allows is whether a grant is one that a request needed.
func (g Grant) Allows(r Request) bool {
	resource := r.ObjectRef.Resource
	if r.ObjectRef.Subresource != "" {
		resource += "/" + r.ObjectRef.Subresource
	}
	return g.Verb == r.Verb && g.Group == r.ObjectRef.APIGroup && g.Resource == resource &&
		(g.Namespace == "" || g.Namespace == r.ObjectRef.Namespace) && (g.Name == "" || g.Name == r.ObjectRef.Name)
}

// Grants are all that a ServiceAccount may do in a cluster.
func (c *Cluster) Grants(ctx context.Context, a Account) (all []Grant, err error) {
	about := func(subjects []rbacv1.Subject) bool {
		return slices.Contains(subjects, rbacv1.Subject{Kind: "ServiceAccount", Namespace: a.Namespace, Name: a.Name})
	}
	wide, err := c.RbacV1().ClusterRoleBindings().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, binding := range wide.Items {
		if about(binding.Subjects) {
			role, err := c.RbacV1().ClusterRoles().Get(ctx, binding.RoleRef.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			all = append(all, grantsOf("", role.Rules)...)
		}
	}
	narrow, err := c.RbacV1().RoleBindings("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, err
	}
	for _, binding := range narrow.Items {
		if about(binding.Subjects) {
			role, err := c.RbacV1().Roles(binding.Namespace).Get(ctx, binding.RoleRef.Name, metav1.GetOptions{})
			if err != nil {
				return nil, err
			}
			all = append(all, grantsOf(binding.Namespace, role.Rules)...)
		}
	}
	if slices.ContainsFunc(all, func(g Grant) bool { return g.Resource == "" }) {
		err = errors.New(a.Name + " may request URLs that are no resources")
	}
	return all, err
}

func grantsOf(namespace string, rules []rbacv1.PolicyRule) (all []Grant) {
	for _, rule := range rules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				for _, verb := range rule.Verbs {
					for _, name := range append(slices.Clone(rule.ResourceNames), "")[:max(1, len(rule.ResourceNames))] {
						all = append(all, Grant{namespace, group, resource, name, verb})
					}
				}
			}
		}
		if len(rule.NonResourceURLs) > 0 {
			all = append(all, Grant{Verb: rule.Verbs[0]})
		}
	}
	return all
}
