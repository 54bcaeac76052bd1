package main

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// aliases is the namespace that has an alias for each exported Service: what a gateway as it ships can reach.
const aliases = "gateway-exports"

// aliasOf is the alias of a Service; empty if it can have none.
func aliasOf(space, name string) string {
	alias := space + "--" + name
	if strings.Contains(space, "--") || strings.Contains(name, "--") || len(alias) > 63 {
		return ""
	}
	return alias
}

// alias has a Service reachable by hand, as the gateways' READMEs say, or takes that back.
func (c *cluster) alias(space, name string, exported bool) error {
	alias := aliasOf(space, name)
	if alias == "" || c.published {
		return nil
	}
	if !exported {
		err := c.CoreV1().Services(aliases).Delete(background, alias, metav1.DeleteOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		return err
	}
	_, err := c.CoreV1().Namespaces().Create(background, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: aliases}}, metav1.CreateOptions{})
	if err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	out, err := c.Kubectl(background, "-n", aliases, "create", "service", "externalname", alias, "--external-name", name+"."+space+".svc.cluster.local")
	if err != nil && strings.Contains(fmt.Sprint(out, err), "already exists") { // the Service was deleted, and its alias left, or the publisher has made it
		return nil
	}
	return err
}
