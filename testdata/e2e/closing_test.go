package e2e

import (
	"fmt"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

// oneRequestEach has a front close every connection after its first answer, as nginx does
// with keepalive_timeout 0.
func oneRequestEach(server *httptest.Server) {
	server.EnableHTTP2 = false
	server.Config.SetKeepAlivesEnabled(false)
}

// oneAtATime has a front speak HTTP/1.1, so that each watch has a connection of its own.
func oneAtATime(server *httptest.Server) { server.EnableHTTP2 = false }

// explains checks that a remote is not connecting without a cause.
func (d *daemon) explains(r *remote) error {
	p, err := d.page()
	if err != nil {
		return err
	}
	for _, row := range p.Remotes {
		if row.Name == r.name && row.State == "connecting" && len(row.Problems) == 0 {
			return fmt.Errorf("remote %s is connecting without a cause", r.name)
		}
	}
	return nil
}

// A proxy that closes every connection: it works as kubectl does, and still no other
// cluster is believed.
func TestProxyClosesEveryConnection(t *testing.T) {
	e := newEnv(t)
	r, other := e.remote(paris), e.remote(berlin)
	f := r.behindFront(oneRequestEach)
	r.gateway("203.0.113.1")
	r.export("bar")
	r.export("baz")
	start := time.Now()
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirrors", r.mirrored("bar", "203.0.113.1"), r.mirrored("baz", "203.0.113.1"))
	if took := time.Since(start); took > soon {
		t.Errorf("the mirrors took %v", took)
	}
	e.soon("the remote", d.shows(r, "up"))
	since := london.mark(t)
	for i := range 5 { // watches that end, as each does sooner or later
		e.edits(paris, "bar", 1)
		e.soon(fmt.Sprint("change ", i), r.mirrored("bar", "203.0.113.1"))
		f.server.CloseClientConnections()
	}
	for _, w := range london.writes(t, e.id, since) {
		if w.Verb != "update" || w.ObjectRef.Name != r.mirror("bar") {
			t.Errorf("written without need: %v", w)
		}
	}
	e.remove(paris, "baz")
	e.soon("an export that went", r.gone("baz"))
	r.gateway("203.0.113.2")
	e.soon("another gateway address", r.mirrored("bar", "203.0.113.2"))
	e.soon("the remote", d.shows(r, "up"), func() error { return d.explains(r) })

	// An empty cluster behind the same address, before and after a restart.
	before, since := e.identities(), london.mark(t)
	f.redirect(berlin, other.token)
	f.server.CloseClientConnections()
	e.soon("the other cluster is noticed", d.reportsFailure(r))
	d.stop()
	d = e.daemon([]*remote{r}, listening...)
	e.soon("the other cluster is noticed", d.reportsFailure(r))
	e.stays("the mirror", r.mirrored("bar", "203.0.113.2"))
	e.sameIdentities(before)
	e.noWrites(since)
	f.redirect(paris, "")
	f.server.CloseClientConnections()
	e.edits(paris, "bar", 1)
	e.eventually(soon+3*time.Second, "the right cluster again", r.mirrored("bar", "203.0.113.2"))
}

// Many watches do not wait for one another, whatever connections they share.
func TestManyNamespaces(t *testing.T) {
	e := newEnv(t)
	namespaces := []string{e.id}
	for i := range 15 {
		namespaces = append(namespaces, fmt.Sprintf("%s-%d", e.id, i))
		e.makeNamespace(london, namespaces[i+1])
		e.makeNamespace(paris, namespaces[i+1])
	}
	var all []*remote
	for name, configure := range map[string]func(*httptest.Server){"closing": oneRequestEach, "http1": oneAtATime, "http2": nil} {
		r := e.remoteNamed(paris, name+"-"+e.id)
		r.keys = ",namespaces=" + strings.Join(namespaces, ",")
		r.behindFront(configure)
		all = append(all, r)
	}
	all[0].gateway("203.0.113.1")
	for _, namespace := range namespaces {
		all[0].exportIn(namespace, "bar")
	}
	start := time.Now()
	d := e.daemon(all, listening...)
	for _, r := range all {
		for _, namespace := range namespaces {
			e.soon("a mirror of each", r.mirroredIn(namespace, "bar", true))
		}
		t.Logf("%s: all after %v", r.name, time.Since(start))
	}
	if took := time.Since(start); took > soon {
		t.Errorf("all of %d namespaces took %v", len(namespaces), took)
	}
	for _, r := range all {
		e.soon("no problem", d.shows(r, "up"))
	}
}
