package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// request is a line of an API server's audit log.
type request struct {
	Verb                     string
	User                     struct{ Username string }
	ObjectRef                struct{ Resource, Namespace, Name string }
	RequestURI               string
	ResponseStatus           struct{ Code int }
	RequestReceivedTimestamp time.Time
	StageTimestamp           time.Time // it was answered; of a watch, it ended
}

// The ServiceAccounts of the manifests.
const (
	writer = "system:serviceaccount:service-mirror:service-mirror"
	reader = "system:serviceaccount:service-mirror:service-mirror-reader"
)

// mark is a place in a cluster's audit log.
func (c *cluster) mark() (int64, error) {
	info, err := os.Stat(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// requests are a user's since a mark, as far as they are answered.
func (c *cluster) requests(since int64, user string) ([]request, error) {
	file, err := os.Open(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	if _, err := file.Seek(since, io.SeekStart); err != nil {
		return nil, err
	}
	var found []request
	lines := bufio.NewScanner(file)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		if !bytes.Contains(lines.Bytes(), []byte(`"`+user+`"`)) {
			continue
		}
		var r request
		if json.Unmarshal(lines.Bytes(), &r) == nil && r.User.Username == user { // else it is half written
			found = append(found, r)
		}
	}
	return found, lines.Err()
}

// wrote waits until n requests of the daemon's account with this verb and resource are
// in the log. Lines are counted and not parsed, for that would take from what is measured.
func (c *cluster) wrote(ctx context.Context, since int64, n int, verb, resource string) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	words := [][]byte{[]byte(`"` + writer + `"`), []byte(`"verb":"` + verb + `"`), []byte(`"objectRef":{"resource":"` + resource + `"`)}
	file, err := os.Open(filepath.Join(c.dir, "audit.log"))
	if err != nil {
		return err
	}
	defer file.Close()
	if _, err := file.Seek(since, io.SeekStart); err != nil {
		return err
	}
	var rest []byte
	count, buffer := 0, make([]byte, 1<<20)
	for count < n {
		read, err := file.Read(buffer)
		if err == io.EOF {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%d of %d %s of %s were seen: %w", count, n, verb, resource, ctx.Err())
			case <-time.After(20 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return err
		}
		rest = append(rest, buffer[:read]...)
		for {
			line, after, found := bytes.Cut(rest, []byte("\n"))
			if !found {
				break
			}
			if !slices.ContainsFunc(words, func(word []byte) bool { return !bytes.Contains(line, word) }) {
				count++
			}
			rest = after
		}
	}
	return nil
}

// isWrite tells requests that change something; Events tell of it.
func (r request) isWrite() bool {
	return slices.Contains([]string{"create", "update", "patch", "delete"}, r.Verb) && r.ObjectRef.Resource != "events" &&
		r.ObjectRef.Resource != "leases"
}

// writesOf are the writes of the daemon's account since a mark.
func (c *cluster) writesOf(since int64) ([]request, error) {
	all, err := c.requests(since, writer)
	return slices.DeleteFunc(all, func(r request) bool { return !r.isWrite() }), err
}

// span is from the first request of a list to the last answer.
func span(all []request) (first, last time.Time) {
	for _, r := range all {
		if first.IsZero() || r.RequestReceivedTimestamp.Before(first) {
			first = r.RequestReceivedTimestamp
		}
		if r.StageTimestamp.After(last) {
			last = r.StageTimestamp
		}
	}
	return first, last
}

// summary counts requests by verb, resource and code.
func summary(all []request) string {
	counts := map[string]int{}
	for _, r := range all {
		resource, _, _ := strings.Cut(r.ObjectRef.Resource, "/")
		counts[fmt.Sprintf("%s %s", r.Verb, resource)]++
	}
	var parts []string
	for what, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
