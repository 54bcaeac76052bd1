package e2e

import (
	"os"
	"strings"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// A line break in a kubeconfig's token makes no header: that is one clear error, and does
// not sound as if the cluster were away.
func TestLineBreakInCredentials(t *testing.T) {
	e := newEnv(t)
	after, inside := e.remoteNamed(paris, "after-"+e.id), e.remoteNamed(paris, "inside-"+e.id)
	all := []*remote{after, inside}
	after.gateway("203.0.113.1")
	after.export("bar")
	half := len(after.token) / 2
	tokens := map[*remote]string{after: after.token + "\n", inside: inside.token[:half] + "\n" + inside.token[half:]}
	for r, token := range tokens {
		e.must(os.WriteFile(r.kubeconfig, []byte(r.config(func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) { user.Token = token })), 0o600))
	}
	secret := after.token[half:]

	for _, r := range all {
		got := e.once([]*remote{r}, "--check")
		bad := got.marked("-")
		if got.code != 1 || len(bad) != 1 || !strings.Contains(bad[0], r.kubeconfig) || !strings.Contains(bad[0], "token") || strings.Contains(bad[0], "reach") {
			t.Errorf("%v\nwant exit code 1 and one line about the token in %s", got, r.kubeconfig)
		}
		if strings.Contains(got.String(), secret) {
			t.Error("--check prints the token")
		}
	}
	d := e.daemon(all, listening...)
	for _, r := range all {
		e.soon("the cause", d.shows(r, "down", "kubeconfig", "token"), d.measures(map[string]float64{r.failing("kubeconfig"): 1, r.up(): 0}))
	}
	e.stays("the cause", d.shows(after, "down", "kubeconfig", "token"), d.shows(inside, "down", "kubeconfig", "token"))
	for _, r := range all {
		if n := d.logged(`cluster="`+r.name+`"`, "token"); n != 1 {
			t.Errorf("the log has %d lines about the token of %s, want one", n, r.name)
		}
	}
	if strings.Contains(d.log.String(), secret) {
		t.Error("the log has the token in it")
	}
	for _, r := range all {
		e.must(os.WriteFile(r.kubeconfig, []byte(r.config()), 0o600))
	}
	for _, r := range all {
		e.soon("the mirror, once the token is right", r.mirrored("bar", "203.0.113.1"), d.shows(r, "up"))
	}
}
