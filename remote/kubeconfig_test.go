package remote

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"k8s.io/client-go/rest"
)

// kubeconfigFor is a kubeconfig of two contexts; user is part of it as it is.
func kubeconfigFor(host, user string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: one
clusters:
- {name: one, cluster: {server: "https://%[1]s"}}
- {name: two, cluster: {server: "https://two.%[1]s"}}
users:
- {name: u, user: {%[2]s}}
contexts:
- {name: one, context: {cluster: one, user: u}}
- {name: two, context: {cluster: two, user: u}}
`, host, user)
}

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// reloaded wants a new configuration for a host.
func reloaded(t *testing.T, k *kubeconfig, host string) *rest.Config {
	t.Helper()
	cfg, err := k.reload()
	if err != nil || cfg == nil || cfg.Host != "https://"+host {
		t.Fatalf("got %v, %v, want a configuration for %s", cfg, err, host)
	}
	return cfg
}

func unchanged(t *testing.T, k *kubeconfig) {
	t.Helper()
	if cfg, err := k.reload(); cfg != nil || err != nil {
		t.Fatalf("got %v, %v, want nothing new", cfg, err)
	}
}

func failing(t *testing.T, k *kubeconfig, want string) {
	t.Helper()
	cfg, err := k.reload()
	if cfg != nil || err == nil || !strings.Contains(err.Error(), want) {
		t.Fatalf("got %v, %v, want an error of %q", cfg, err, want)
	}
}

func TestKubeconfigIsReadWhenItChanges(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	k := &kubeconfig{path: path}
	failing(t, k, "no such file")
	write(t, path, kubeconfigFor("a.example.com", "token: secret"))
	if cfg := reloaded(t, k, "a.example.com"); cfg.BearerToken != "secret" {
		t.Errorf("got token %q", cfg.BearerToken)
	}
	unchanged(t, k)
	write(t, path, kubeconfigFor("a.example.com", "token: secret")) // another time, the same content
	unchanged(t, k)
	write(t, path, kubeconfigFor("a.example.com", "token: rotated"))
	if cfg := reloaded(t, k, "a.example.com"); cfg.BearerToken != "rotated" {
		t.Errorf("got token %q", cfg.BearerToken)
	}
	unchanged(t, k)
}

func TestBrokenKubeconfig(t *testing.T) {
	good := kubeconfigFor("a.example.com", "token: secret")
	for name, broken := range map[string]string{
		"no YAML":         "{",
		"half of it":      good[:len(good)/2],
		"no context":      strings.ReplaceAll(good, "current-context: one", "current-context: three"),
		"nothing in it":   "",
		"no server":       strings.ReplaceAll(good, `server: "https://a.example.com"`, ""),
		"a missing token": strings.ReplaceAll(good, "token: secret", "tokenFile: /does/not/exist"),
		"no current one":  strings.ReplaceAll(good, "current-context: one", ""),
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "config")
			k := &kubeconfig{path: path}
			write(t, path, good)
			reloaded(t, k, "a.example.com")
			write(t, path, broken)
			for range 3 {
				failing(t, k, "")
			}
			// As it was: the connection that it made is still in use.
			write(t, path, good)
			if cfg, err := k.reload(); err != nil {
				t.Errorf("got %v, %v", cfg, err)
			}
			write(t, path, kubeconfigFor("b.example.com", "token: secret"))
			reloaded(t, k, "b.example.com")
		})
	}
}

func TestKubeconfigIsRemovedAndComesBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	k := &kubeconfig{path: path}
	write(t, path, kubeconfigFor("a.example.com", "token: secret"))
	reloaded(t, k, "a.example.com")
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	failing(t, k, "no such file")
	write(t, path, kubeconfigFor("b.example.com", "token: secret"))
	reloaded(t, k, "b.example.com")
}

// A token that no HTTP header can carry is one error that names the file and the field;
// a token file may end with a newline, as most do.
func TestKubeconfigToken(t *testing.T) {
	dir := t.TempDir()
	path, file := filepath.Join(dir, "config"), filepath.Join(dir, "token")
	write(t, file, "secret\n")
	for user, bad := range map[string]bool{
		`token: secret`:                           false,
		`token: "secret\n"`:                       true,
		`token: "sec\r\nret"`:                     true,
		`token: "secret\x00"`:                     true,
		`token: "secret\u007f"`:                   true,
		`tokenFile: token`:                        false,
		`tokenFile: token, token: "overridden\n"`: false,
	} {
		write(t, path, kubeconfigFor("a.example.com", user))
		_, err := LoadKubeconfig(path, "")
		if bad && (err == nil || strings.Contains(err.Error(), "\n") || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "the token of user")) || !bad && err != nil {
			t.Errorf("%s: got %v", user, err)
		}
	}
}

func TestKubeconfigContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "config")
	write(t, path, kubeconfigFor("a.example.com", "token: secret"))
	reloaded(t, &kubeconfig{path: path, context: "two"}, "two.a.example.com")
	failing(t, &kubeconfig{path: path, context: "three"}, "three")
}

// A mounted Secret changes by a symlink that is swapped: the file that is named
// never changes itself.
func TestSecretMountIsSwapped(t *testing.T) {
	dir := t.TempDir()
	version := func(name, content string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name, "config"), content)
		next := filepath.Join(dir, "..data_tmp")
		if err := os.Symlink(name, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "config")
	if err := os.Symlink(filepath.Join("..data", "config"), path); err != nil {
		t.Fatal(err)
	}
	k := &kubeconfig{path: path}
	failing(t, k, "no such file")
	version("..1", kubeconfigFor("a.example.com", "token: secret"))
	reloaded(t, k, "a.example.com")
	unchanged(t, k)
	version("..2", kubeconfigFor("b.example.com", "token: secret"))
	reloaded(t, k, "b.example.com")
	unchanged(t, k)
	version("..3", kubeconfigFor("b.example.com", "token: secret"))
	unchanged(t, k)
}

func TestFilesThatAKubeconfigNames(t *testing.T) {
	dir := t.TempDir()
	path, token, other := filepath.Join(dir, "config"), filepath.Join(dir, "token"), filepath.Join(dir, "other")
	write(t, path, kubeconfigFor("a.example.com", "tokenFile: token")) // beside the kubeconfig
	write(t, token, "secret")
	write(t, other, "secret")
	k := &kubeconfig{path: path}
	if cfg := reloaded(t, k, "a.example.com"); cfg.BearerTokenFile != token {
		t.Errorf("got token file %q", cfg.BearerTokenFile)
	}
	unchanged(t, k)
	write(t, token, "rotated")
	reloaded(t, k, "a.example.com")
	unchanged(t, k)

	write(t, path, kubeconfigFor("a.example.com", "tokenFile: other"))
	reloaded(t, k, "a.example.com")
	write(t, token, "of no interest any more")
	unchanged(t, k)
	write(t, other, "rotated")
	reloaded(t, k, "a.example.com")

	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	failing(t, k, "no such file")
	// The file that is gone need not come back, if the kubeconfig names another.
	write(t, path, kubeconfigFor("a.example.com", "tokenFile: token"))
	reloaded(t, k, "a.example.com")
}

// What one file loses the next must not gain: the content of each counts.
func TestDigestTellsFilesApart(t *testing.T) {
	dir := t.TempDir()
	a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
	digestOf := func(first, second string) string {
		write(t, a, first)
		write(t, b, second)
		sum, err := digest([]string{a, b})
		if err != nil {
			t.Fatal(err)
		}
		return string(sum)
	}
	if digestOf("xy", "z") == digestOf("x", "yz") || digestOf("", "x") == digestOf("x", "") {
		t.Error("two contents have one digest")
	}
	if digestOf("x", "y") != digestOf("x", "y") {
		t.Error("one content has two digests")
	}
}

// A password in a URL is printed nowhere: in the server's it becomes the credentials that it is there.
func TestKubeconfigWithPassword(t *testing.T) {
	const password = "hunter2"
	path := filepath.Join(t.TempDir(), "config")
	for server, test := range map[string]struct {
		user string // of the kubeconfig
		host string // empty: it is refused
	}{
		"https://admin:hunter2@paris:6443/path":               {"", "https://paris:6443/path"},
		"https://admin:hun%74er2@paris":                       {"", "https://paris"},
		"admin:hunter2@paris:6443":                            {"", "paris:6443"},
		"https://paris/@":                                     {"token: secret", "https://paris/@"},
		"https://admin:hunter2@paris":                         {"token: secret", ""},
		"https://admin:hunter2@paris/a":                       {"tokenFile: token", ""},
		"https://admin:hunter2/@paris":                        {"", ""},
		"https://admin:hunter2 @paris":                        {"", ""},
		"https://paris}, proxy-url: 'ftp://u:hunter2@proxy'":  {"", ""},
		"https://paris, proxy-url: 'http://u:hunter2 @proxy'": {"", ""},
	} {
		text := strings.Replace(kubeconfigFor("HOST", test.user), `"https://HOST"`, `"`+server+`"`, 1)
		if name, proxy, found := strings.Cut(server, ", proxy-url: "); found {
			text = strings.Replace(kubeconfigFor("HOST", test.user), `"https://HOST"`, `"`+strings.TrimSuffix(name, "}")+`", proxy-url: `+proxy, 1)
		}
		write(t, path, text)
		cfg, err := LoadKubeconfig(path, "")
		switch {
		case test.host == "":
			if err == nil || strings.Contains(err.Error(), password) {
				t.Errorf("%s: got %v", server, err)
			}
		case err != nil || cfg.Host != test.host || strings.Contains(server, "admin") != (cfg.Username == "admin" && cfg.Password == password):
			t.Errorf("%s: got %v, %v", server, cfg, err)
		}
		if local, err := LoadLocal(path, ""); fmt.Sprint(err) != "<nil>" && strings.Contains(err.Error(), password) || err == nil && local.Host != test.host {
			t.Errorf("%s as the local cluster: got %v, %v", server, local, err)
		}
	}
}
