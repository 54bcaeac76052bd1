package harness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Request is a line of an API server's audit log: a request that was answered, or a watch
// that was opened.
type Request struct {
	Stage          string // ResponseStarted, of a watch; ResponseComplete
	Verb           string
	UserAgent      string
	User           struct{ Username string }
	ObjectRef      struct{ APIGroup, Resource, Subresource, Namespace, Name string }
	RequestURI     string
	ResponseStatus struct {
		Code    int
		Message string
	}
	RequestReceivedTimestamp time.Time
	StageTimestamp           time.Time // when it was answered; of a watch, when it ended
}

func (r Request) String() string {
	text := fmt.Sprintf("%s %s: %d", r.Verb, r.RequestURI, r.ResponseStatus.Code)
	if r.ResponseStatus.Message != "" {
		text += " " + r.ResponseStatus.Message
	}
	return text
}

// Writes says whether the request would change something. Events do not count: they are about
// objects and change none.
func (r Request) Writes() bool {
	return slices.Contains([]string{"create", "update", "patch", "delete", "deletecollection"}, r.Verb) && r.ObjectRef.Resource != "events"
}

// ServiceAccountUser is a ServiceAccount's name in requests.
func ServiceAccountUser(namespace, name string) string {
	return "system:serviceaccount:" + namespace + ":" + name
}

// Mark is a moment in a cluster's audit log. A request that was received before may be logged later.
type Mark struct {
	offset int64
	at     time.Time
}

// AuditLog is the path of the cluster's audit log.
func (c *Cluster) AuditLog() string { return filepath.Join(c.Dir, "audit.log") }

// Mark is where the cluster's audit log ends now.
func (c *Cluster) Mark() (Mark, error) {
	info, err := os.Stat(c.AuditLog())
	if err != nil {
		return Mark{}, err
	}
	return Mark{info.Size(), time.Now().Truncate(time.Microsecond)}, nil // as precise as the log
}

// OpenAudit opens the cluster's audit log at a mark.
func (c *Cluster) OpenAudit(since Mark) (*os.File, error) {
	file, err := os.Open(c.AuditLog())
	if err != nil {
		return nil, err
	}
	if _, err := file.Seek(since.offset, io.SeekStart); err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// Requests are those since a mark that are wanted, in the order of the log. Only lines with
// the word are looked at: the log is long, and all tests of a cluster share it.
func (c *Cluster) Requests(since Mark, word string, wanted func(Request) bool) ([]Request, error) {
	file, err := c.OpenAudit(since)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	var found []Request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(word)) {
			continue
		}
		var r Request
		if json.Unmarshal(lines.Bytes(), &r) != nil { // the last line, half written
			continue
		}
		if !r.RequestReceivedTimestamp.Before(since.at) && wanted(r) {
			found = append(found, r)
		}
	}
	return found, lines.Err()
}
