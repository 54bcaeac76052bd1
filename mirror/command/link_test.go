package command

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"service-mirror.io/service-mirror/remote/link"
)

func TestLinkArguments(t *testing.T) {
	c, err := parseLink([]string{"paris", "gateway=a/b", "uid-", "--context", "london", "--server=https://192.0.2.1:6443", "--wait=0", "-o", "json", "--namespace=sm", "--remote-namespace=reading"})
	if err != nil {
		t.Fatal(err)
	}
	r := c.request
	if r.Name != "paris" || r.Set.String() != ",gateway=a/b" || len(r.Remove) != 1 || r.Server != "https://192.0.2.1:6443" || r.Wait != 0 || r.Reader != "reading" ||
		c.kubecontext != "london" || c.output != "json" || c.namespace != "sm" || c.deployment != "service-mirror" {
		t.Errorf("got %+v", c)
	}
	if c, err = parseLink([]string{"paris"}); err != nil || c.request.Wait != 2*time.Minute || c.request.Reader != "service-mirror" {
		t.Errorf("by default: %+v, %v", c, err)
	}
}

// The remote cluster is in the context that has its name, unless another one or another kubeconfig is given.
func TestContextOfTheRemote(t *testing.T) {
	for _, test := range []struct{ flags, kubeconfig, context string }{
		{"", "", "paris"},
		{"--kubeconfig=k", "k", "paris"},
		{"--remote-context=c", "", "c"},
		{"--remote-kubeconfig=r --kubeconfig=k", "r", ""},
		{"--remote-kubeconfig=r --remote-context=c", "r", "c"},
	} {
		c, err := parseLink(append(strings.Fields(test.flags), "paris"))
		if err != nil {
			t.Fatal(err)
		}
		if kubeconfig, context := c.reached(); kubeconfig != test.kubeconfig || context != test.context {
			t.Errorf("%s: got %s, %s", test.flags, kubeconfig, context)
		}
	}
}

func TestLinkMistakes(t *testing.T) {
	notPEM := filepath.Join(t.TempDir(), "ca")
	if err := os.WriteFile(notPEM, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args string
		want []string
	}{
		{"link", []string{"no remote name"}},
		{"link Paris", []string{`name "Paris" is not a DNS label`}},
		{"link paris berlin", []string{"berlin: the remote name is already paris"}},
		{"link paris --sever=x", []string{"unknown flag: --sever"}},
		{"link paris --server", []string{"flag needs an argument: --server"}},
		{"link paris --server=http://x", []string{`--server: "http://x" is not https://HOST:PORT`}},
		{"link paris --wait=5", []string{`invalid argument "5" for "--wait" flag`}},
		{"link paris --wait=-5s", []string{"--wait: -5s is negative"}},
		{"link paris --ca=" + notPEM, []string{"--ca " + notPEM + ": no certificate found"}},
		{"link paris --ca=/does/not/exist", []string{"--ca /does/not/exist: open"}},
		{"link paris gatway=a/b -o yaml", []string{`--output: unknown format "yaml"`, `unknown key "gatway"`}},
		{"link paris context=x", []string{"context=: not supported by link"}},
		{"link paris --print=both", []string{`--print: unknown side "both": set remote or local`}},
		{"link paris --print=local -o json", []string{"--output and --print are mutually exclusive"}},
		{"link paris --remote=x=y", []string{"unknown flag: --remote"}},
		{"unlink", []string{"no remote name"}},
		{"unlink paris gateway=a/b", []string{"unlink: unexpected KEY=VALUE"}},
		{"unlink paris --server=x", []string{"unknown flag: --server"}},
	} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), strings.Fields(test.args), &stdout, &stderr); code != 2 || stdout.Len() > 0 {
			t.Errorf("%s: exit code %d, stdout %s", test.args, code, &stdout)
		}
		lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
		if len(lines) != len(test.want)+1 {
			t.Errorf("%s: got %s\nwant %q", test.args, &stderr, test.want)
			continue
		}
		for i, want := range test.want {
			if !strings.HasPrefix(lines[i], "service-mirror: "+want) {
				t.Errorf("%s: line %d is %q, want %q", test.args, i+1, lines[i], want)
			}
		}
	}
}

// A context that does not exist is named, with the files that were read.
func TestLinkWithoutAContext(t *testing.T) {
	local := writeLocal(t, "https://127.0.0.1:1")
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), []string{"link", "paris", "--kubeconfig", local, "gateway=a/b"}, &stdout, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "remote cluster paris: context paris does not exist in "+local+": use --remote-context or --remote-kubeconfig") {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
	stderr.Reset()
	code = Run(t.Context(), []string{"unlink", "paris", "--kubeconfig", local, "--context", "rome"}, &stdout, &stderr)
	if code != 1 || !strings.Contains(stderr.String(), "local cluster: context rome does not exist in "+local) {
		t.Errorf("exit code %d, %s", code, &stderr)
	}
}

// A link that is not verified says why, and how to verify it; how to export a Service only if none may be exported.
func TestConclusionOfLink(t *testing.T) {
	for _, test := range []struct {
		verified link.Verified
		want     string
	}{
		{link.Verified{State: link.Reached}, "Linked and verified: requests to the mirrors of paris arrive.\n"},
		{link.Verified{State: link.NotReached, Exports: true}, "\nLinked, but not all requests arrive, see above. To verify again:\n    VERIFY\n"},
		{link.Verified{State: link.Unknown, Reason: "only UDP ports", Exports: true}, "\nLinked, NOT verified: only UDP ports.\nTo verify:\n    VERIFY\n"},
		{link.Verified{State: link.Unknown, Reason: "nothing"}, "\nLinked, NOT verified: nothing.\nTo export a Service, and to verify:\n    kubectl --context paris label service SERVICE service-mirror.io/exported=true\n    VERIFY\n"},
	} {
		test.verified.Command = "VERIFY"
		var out bytes.Buffer
		new(linkCommand).conclude(&out, link.Result{Name: "paris", Verified: &test.verified}, "--context paris")
		if out.String() != test.want {
			t.Errorf("got %q, want %q", &out, test.want)
		}
	}
}

// The daemon may read remotes in another namespace than its own: prune is to look there for those that are configured.
func TestWhatUnlinkLeaves(t *testing.T) {
	c, err := parseUnlink([]string{"paris", "--namespace=sm", "--remote-namespace=reading"})
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	c.remains(&out, link.Result{Name: "paris", RemotesFrom: "remotes"}, "--context london")
	for _, want := range []string{"service-mirror prune paris --context london --remotes-from=remotes\n", "kubectl --context paris --namespace reading delete serviceaccount service-mirror-reader\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got %s, want %q", &out, want)
		}
	}
}

// No cluster is read for what the remote one must have: its own team can print it.
func TestPrintForTheRemote(t *testing.T) {
	t.Setenv("KUBECONFIG", "/does/not/exist")
	var stdout, stderr bytes.Buffer
	code := Run(t.Context(), []string{"link", "paris", "--print=remote", "gateway=gateway-api:ingress/public"}, &stdout, &stderr)
	if code != 0 || stderr.Len() > 0 || !strings.HasPrefix(stdout.String(), "# ") || strings.Count(stdout.String(), "\n---\n") != 8 ||
		!strings.Contains(stdout.String(), "name: service-mirror-reader:gateway:public\n  namespace: ingress\n") {
		t.Errorf("exit code %d, %s\n%s", code, &stderr, &stdout)
	}
}
