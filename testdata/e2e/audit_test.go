package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

// request is a request that an API server has completed.
type request struct{ harness.Request }

func (r request) String() string {
	return fmt.Sprintf("%s %s %s/%s: %d", r.Verb, r.ObjectRef.Resource, r.ObjectRef.Namespace, r.ObjectRef.Name, r.ResponseStatus.Code)
}

func (r request) writes() bool { return r.Writes() }

// auditMark is a place in a cluster's audit log.
type auditMark = harness.Mark

func (c *cluster) mark(t *testing.T) auditMark {
	t.Helper()
	mark, err := c.Mark()
	if err != nil {
		t.Fatal(err)
	}
	return mark
}

// requests are those that the daemon of a test has completed since a mark.
func (c *cluster) requests(t *testing.T, user string, since auditMark) []request {
	t.Helper()
	return c.read(t, since, []byte(user), func(r request) bool { return strings.HasSuffix(r.User.Username, ":"+user) })
}

// writes are those requests that would change something, once none is added any more: an object's watchers may know
// of a write before its answer is logged.
func (c *cluster) writes(t *testing.T, user string, since auditMark) []request {
	t.Helper()
	var all []request
	for before, tries := -1, 0; len(all) != before && tries < 20; tries++ { // a daemon that fights never rests
		time.Sleep(500 * time.Millisecond)
		before = len(all)
		all = slices.DeleteFunc(c.requests(t, user, since), func(r request) bool { return !r.writes() })
	}
	return all
}

// namespaceWrites are what any daemon wrote in a namespace since a mark.
func (c *cluster) namespaceWrites(t *testing.T, namespace string, since auditMark) []request {
	t.Helper()
	return c.read(t, since, []byte(namespace), func(r request) bool {
		return strings.HasPrefix(r.UserAgent, "service-mirror/") && r.ObjectRef.Namespace == namespace && r.writes()
	})
}

func (c *cluster) read(t *testing.T, since auditMark, word []byte, wanted func(request) bool) []request {
	t.Helper()
	all, err := c.Requests(since, string(word), func(r harness.Request) bool {
		return r.Stage == "ResponseComplete" && wanted(request{r})
	})
	if err != nil {
		t.Fatal(err)
	}
	var found []request
	for _, r := range all {
		found = append(found, request{r})
	}
	return found
}
