package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"service-mirror.io/service-mirror/testdata/harness"
)

type request = harness.Request

// The ServiceAccounts of the manifests.
var (
	writer = harness.ServiceAccountUser("service-mirror", "service-mirror")
	reader = harness.ServiceAccountUser("service-mirror", "service-mirror-reader")
)

// requests are a user's since a mark, as far as they are answered.
func (c *cluster) requests(since harness.Mark, user string) ([]request, error) {
	return c.Requests(since, `"`+user+`"`, func(r request) bool { return r.User.Username == user })
}

// marks are places in the audit logs of London and Paris.
type marks struct {
	london, paris *cluster
	here, there   harness.Mark
}

// mark is where both audit logs end now.
func (b *bench) mark(london *cluster) (m marks, err error) {
	m = marks{london: london, paris: b.paris}
	if m.here, err = london.Mark(); err != nil {
		return m, err
	}
	m.there, err = b.paris.Mark()
	return m, err
}

// requests are the daemon's since then, in London and in Paris.
func (m marks) requests() (ours, theirs []request, err error) {
	if ours, err = m.london.requests(m.here, writer); err != nil {
		return nil, nil, err
	}
	theirs, err = m.paris.requests(m.there, reader)
	return ours, theirs, err
}

// wrote waits until n requests of the daemon's account with this verb and resource are
// in the log.
func (c *cluster) wrote(ctx context.Context, since harness.Mark, n int, verb, resource string) error {
	return c.logged(ctx, since, n, logged{writer, verb, resource})
}

// logged is what lines of the log are about.
type logged struct{ user, verb, resource string }

// logged waits until n requests are in the log. Lines are counted and not parsed, for that
// would take from what is measured.
func (c *cluster) logged(ctx context.Context, since harness.Mark, n int, what logged) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Minute)
	defer cancel()
	words := [][]byte{[]byte(`"` + what.user + `"`), []byte(`"verb":"` + what.verb + `"`), []byte(`"objectRef":{"resource":"` + what.resource + `"`)}
	file, err := c.OpenAudit(since)
	if err != nil {
		return err
	}
	defer file.Close()
	var rest []byte
	count, buffer := 0, make([]byte, 1<<20)
	for count < n {
		read, err := file.Read(buffer)
		if err == io.EOF {
			select {
			case <-ctx.Done():
				return fmt.Errorf("%d of %d %s of %s were seen: %w", count, n, what.verb, what.resource, ctx.Err())
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

// writesOf are the writes of the daemon's account since a mark, but for those of its lease.
func (c *cluster) writesOf(since harness.Mark) ([]request, error) { return c.writesBy(since, writer) }

// writesBy are those of any user.
func (c *cluster) writesBy(since harness.Mark, user string) ([]request, error) {
	all, err := c.requests(since, user)
	return slices.DeleteFunc(all, func(r request) bool { return !r.Writes() || r.ObjectRef.Resource == "leases" }), err
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
		counts[fmt.Sprintf("%s %s", r.Verb, cmp.Or(resource, "discovery documents"))]++
	}
	var parts []string
	for what, n := range counts {
		parts = append(parts, fmt.Sprintf("%d %s", n, what))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}
