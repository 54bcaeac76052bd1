package remote

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"
)

// inlineConfig is a kubeconfig for a server.
func inlineConfig(server, more string) []byte {
	return fmt.Appendf(nil, `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: %q}}], users: [{name: u, user: {token: t%s}}]}`, server, more)
}

func TestInlineKubeconfig(t *testing.T) {
	inline := NewInline(inlineConfig("https://a.example.com", ""))
	spec := Spec{Name: "paris", Secret: cache.NewObjectName("sm", "p"), Inline: inline}
	k := spec.kubeconfig()
	reload := func(want string) {
		t.Helper()
		got := "unchanged"
		switch cfg, err := k.reload(); {
		case err != nil:
			got = err.Error()
		case cfg != nil:
			got = cfg.Host
		}
		if !strings.HasPrefix(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	reload("https://a.example.com")
	reload("unchanged")
	inline.Set(inlineConfig("https://a.example.com", ""))
	reload("unchanged")
	inline.Set(inlineConfig("https://b.example.com", ""))
	reload("https://b.example.com")
	inline.Set(inlineConfig("https://c.example.com", ", tokenFile: /etc/passwd"))
	reload(`kubeconfig in Secret sm/p: field tokenFile of user "u" is not permitted in a Secret`)
	reload("kubeconfig in Secret sm/p: ") // until it is corrected
	inline.Set(inlineConfig("https://b.example.com", ""))
	reload("unchanged")
	k.again()
	reload("https://b.example.com")
}

// A remote whose Secret cannot be used is down, says why, and is not known.
func TestUnusableRemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var problems []Problem
		log := &logBuffer{}
		r := New(Spec{Name: "paris", Secret: cache.NewObjectName("sm", "p")}, Options{Selector: selector}, Hooks{OnProblem: func(_ string, p Problem) { problems = append(problems, p) }})
		r.Misconfigured(fmt.Errorf("Secret sm/p cannot be used: it has no kubeconfig"))
		ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(log)))))
		ended := make(chan struct{})
		go func() { defer close(ended); r.Run(ctx) }()
		time.Sleep(time.Minute)
		synctest.Wait()
		s := r.Status()
		if s.State != Down || len(s.Problems) != 1 || len(s.Gateways) != 0 || s.Problems[0].Kind() != ConfigurationProblem || s.Problems[0].Reason() != RemoteMisconfigured {
			t.Errorf("got %+v", s)
		}
		if _, known := r.View(); known {
			t.Error("something is known of it")
		}
		r.Refilter()
		if err := r.Unknown(); err == nil || !strings.Contains(err.Error(), "configuration: Secret sm/p cannot be used: it has no kubeconfig") {
			t.Errorf("unknown: %v", err)
		}
		if n := strings.Count(log.String(), "it has no kubeconfig"); n != 1 || len(problems) != 1 {
			t.Errorf("said %d times, problems %+v", n, problems)
		}
		r.Misconfigured(nil)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if s := r.Status(); s.State != Down || len(s.Problems) != 0 {
			t.Errorf("got %+v", s)
		}
		cancel()
		<-ended
	})
}

// A mistake in the configuration of a remote that is followed does not have it be down.
func TestMisconfiguredRemoteIsUp(t *testing.T) {
	connecting(t, through(), true, func(r *rig) {
		r.wait(5 * time.Second)
		r.Misconfigured(fmt.Errorf("Secret sm/p is not used"))
		r.wait(5 * time.Second)
		s := r.Status()
		if s.State != Up || len(s.Problems) != 1 || s.Problems[0].Cause != "Secret sm/p is not used" {
			r.Errorf("got %+v", s)
		}
	})
}

// Remedies name where the remote is configured.
func TestWhereARemoteIsConfigured(t *testing.T) {
	flag, secret := Spec{Name: "paris"}, Spec{Name: "paris", Secret: cache.NewObjectName("sm", "p")}
	if flag.Where() != "--remote paris" || secret.Where() != "Secret sm/p" {
		t.Errorf("got %q and %q", flag.Where(), secret.Where())
	}
	bounds := Limits{Services: 3}.ofExports("paris")
	ctx := context.WithValue(context.WithValue(t.Context(), clusterKey{}, "paris"), whereKey{}, secret.Where())
	list := bounds.list
	bounded(ctx, &list)
	if err := list.refuseItems(); !strings.Contains(err.Error(), "raise max-services= of Secret sm/p and") {
		t.Errorf("got %v", err)
	}
	if err := bounds.list.refuseItems(); !strings.Contains(err.Error(), "raise max-services= of --remote paris and") {
		t.Errorf("got %v", err)
	}
	c := newConnection(New(secret, Options{}, Hooks{}))
	if err := c.allowance.kept.bound.refuseItems(); !strings.Contains(err.Error(), "of Secret sm/p and") {
		t.Errorf("got %v", err)
	}
}

// Where no context is in use, clientcmd takes the cluster and the user whose name is empty: what a Secret must not have
// is refused of these, too.
func TestInlineWithoutContext(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("OWN"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, user := range []string{
		`{tokenFile: ` + file + `}`,
		`{exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/sh, interactiveMode: Never}}`,
		`{client-certificate: ` + file + `, client-key: ` + file + `}`,
	} {
		cfg, err := ParseKubeconfig([]byte(`apiVersion: v1
kind: Config
clusters: [{name: "", cluster: {server: "https://203.0.113.1", insecure-skip-tls-verify: true}}]
users: [{name: "", user: `+user+`}]
`), "")
		if err == nil {
			t.Errorf("%s is accepted: token %q of file %q, exec %v, certificate %q", user, cfg.BearerToken, cfg.BearerTokenFile, cfg.ExecProvider != nil, cfg.CertFile)
		}
	}
}

// What is wrong with a kubeconfig is logged and shown: no credentials are in it.
func TestInlineErrorsHaveNoCredentials(t *testing.T) {
	_, err := ParseKubeconfig([]byte(`apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: "https://203.0.113.1"}}]
users: [{name: a, user: {token: TOPSECRET}}, {name: a, user: {token: TOPSECRET}}]
`), "")
	if err == nil || strings.Contains(err.Error(), "TOPSECRET") {
		t.Errorf("%v", err)
	}
}

// The fields of a cluster that deploy/guides/security.md says are honored.
func TestInlineFieldsThatAreHonored(t *testing.T) {
	for server, insecure := range map[string]bool{"https://203.0.113.1": true, "http://203.0.113.1": false} { // the latter has no certificate
		cfg, err := ParseKubeconfig(fmt.Appendf(nil, `apiVersion: v1
kind: Config
current-context: a
contexts: [{name: a, context: {cluster: a, user: a}}]
clusters: [{name: a, cluster: {server: %q, insecure-skip-tls-verify: true, proxy-url: "socks5://203.0.113.2:1080"}}]
users: [{name: a, user: {token: t}}]
`, server), "")
		if err != nil {
			t.Fatal(err)
		}
		if cfg.Insecure != insecure || cfg.Host != server || cfg.Proxy == nil {
			t.Fatalf("server %q, insecure %v, has a proxy: %v", cfg.Host, cfg.Insecure, cfg.Proxy != nil)
		}
		tuned := ClientOptions{}.Tune(cfg, "paris", &Network{})
		if via, err := tuned.Proxy(httptest.NewRequest(http.MethodGet, server+"/api", nil)); err != nil || via == nil || via.String() != "socks5://203.0.113.2:1080" {
			t.Errorf("requests to %s go through %v: %v", server, via, err)
		}
	}
}
