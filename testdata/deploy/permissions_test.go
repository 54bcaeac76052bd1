package deploy

import (
	"cmp"
	"fmt"
	"maps"
	"net/http"
	"slices"

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

type grant = harness.Grant

// grants are all that a ServiceAccount may do in a cluster.
func (e *env) grants(c *cluster, account string) []grant {
	e.Helper()
	all, err := c.Grants(e.ctx, harness.Account{Namespace: ours, Name: account})
	e.must(err)
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
	network, err := c.Discovery().ServerResourcesForGroupVersion("networking.k8s.io/v1")
	e.must(err)
	// From Kubernetes 1.33.
	ranges := slices.ContainsFunc(network.APIResources, func(r metav1.APIResource) bool { return r.Name == "servicecidrs" })
	e.soon("every permission of "+account+" in "+c.Name+" is used", func() error { // the last requests may be under way
		for _, r := range e.requests(c, account, since) {
			if code := r.ResponseStatus.Code; code != http.StatusForbidden && code != http.StatusUnauthorized { // it was let through, whatever came of it
				maps.DeleteFunc(unused, func(g grant, _ bool) bool { return g.Allows(r) })
			}
		}
		maps.DeleteFunc(unused, func(g grant, _ bool) bool { return excused(g) || !ranges && g.Resource == "servicecidrs" })
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
func streams(g grant) bool { return g.Verb == "list" }

func nothing(grant) bool { return false }
