package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// request is a line of an API server's audit log.
type request struct {
	Stage          string
	Verb           string
	UserAgent      string
	User           struct{ Username string }
	ObjectRef      struct{ Resource, Subresource, Namespace, Name string }
	RequestURI     string
	ResponseStatus struct{ Code int }
}

func (r request) String() string {
	return fmt.Sprintf("%s %s %s/%s: %d", r.Verb, r.ObjectRef.Resource, r.ObjectRef.Namespace, r.ObjectRef.Name, r.ResponseStatus.Code)
}

var writeVerbs = []string{"create", "update", "patch", "delete", "deletecollection"}

// auditMark is a place in a cluster's audit log.
type auditMark int64

func (c *cluster) mark(t *testing.T) auditMark {
	t.Helper()
	info, err := os.Stat(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	return auditMark(info.Size())
}

// requests are those that the daemon of a test has completed since a mark.
func (c *cluster) requests(t *testing.T, user string, since auditMark) []request {
	t.Helper()
	return c.read(t, since, []byte(user), func(r request) bool { return strings.HasSuffix(r.User.Username, ":"+user) })
}

// writes are those requests that would change something. Events are not among
// them: they tell of mirrors and change none.
func (c *cluster) writes(t *testing.T, user string, since auditMark) []request {
	t.Helper()
	return slices.DeleteFunc(c.requests(t, user, since), func(r request) bool { return !r.writes() })
}

func (r request) writes() bool {
	return slices.Contains(writeVerbs, r.Verb) && r.ObjectRef.Resource != "events"
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
	file, err := os.Open(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.Seek(int64(since), 0); err != nil {
		t.Fatal(err)
	}
	var found []request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), word) {
			continue
		}
		var r request
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			continue // the last line, half written
		}
		if r.Stage == "ResponseComplete" && wanted(r) {
			found = append(found, r)
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}
