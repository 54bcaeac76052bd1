package e2e

import (
	"encoding/base64"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// A redirect is not followed: the token would go along.
func TestRedirectIsNotFollowed(t *testing.T) {
	e := newEnv(t)
	var stolen atomic.Int64
	thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
	t.Cleanup(thief.Close)
	r := e.remote(paris)
	front := r.behindFront(nil)
	r.gateway("203.0.113.1")
	r.export("bar")
	front.fail(func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		http.Redirect(w, r, thief.URL+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	})
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the cause", d.shows(r, "down", "redirects to", thief.URL))
	check := runDaemon(t, e.args([]*remote{r}, "--check")...)
	if code := check.exitCode(); code != 1 || check.logged("redirects to", thief.URL) == 0 {
		t.Errorf("the check exits with %d and says\n%s", code, check.log)
	}
	if n := stolen.Load(); n > 0 {
		t.Errorf("%d requests went on", n)
	}
	front.recover()
	e.soon("without a redirect", r.mirrored("bar", "203.0.113.1"))
}

// A password in the server's URL is used, and printed nowhere.
func TestPasswordInServerURL(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	front := r.behindFront(nil)
	front.redirect(paris, r.token) // in place of the password
	var used atomic.Int64
	front.fault.Store(new(frontFault(func(w http.ResponseWriter, req *http.Request, upstream http.Handler) {
		if user, password, _ := req.BasicAuth(); user == "admin" && password == "hunter2" {
			used.Add(1)
		}
		upstream.ServeHTTP(w, req)
	})))
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: front.server.Certificate().Raw})
	e.writeKubeconfig(r.kubeconfig, strings.Replace(front.server.URL, "https://", "https://admin:hunter2@", 1), ca, "")
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r}, append(listening, "-v=10")...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	if used.Load() == 0 {
		t.Error("the password is not used")
	}
	check := runDaemon(t, e.args([]*remote{r}, "--check", "-v=10")...)
	check.exitCode()
	_, page, err := d.get("/status.json")
	e.must(err)
	for _, secret := range []string{"hunter2", base64.StdEncoding.EncodeToString([]byte("admin:hunter2"))} {
		for what, text := range map[string]string{"log": d.log.String(), "check": check.log.String(), "page": page} {
			if strings.Contains(text, secret) {
				t.Errorf("the %s has %q", what, secret)
			}
		}
	}
}
