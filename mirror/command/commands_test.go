package command

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

func TestMistakesOfCommands(t *testing.T) {
	paris := []string{"--remote", "paris=a,gateway=ingress/gateway"}
	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{"check"}, []string{"--remote is required"}},
		{append([]string{"check", "-o", "yaml", "now"}, paris...), []string{`--output: unknown format "yaml": set text or json`, "unexpected argument now"}},
		{append([]string{"check", "--dry-run"}, paris...), []string{"unknown flag: --dry-run"}},
		{append([]string{"plan", "--check"}, paris...), []string{"unknown flag: --check"}},
		{append([]string{"plan", "--output="}, paris...), []string{`--output: unknown format ""`}},
		{[]string{"prune"}, []string{"prune: no remote name"}},
		{[]string{"prune", "x!=y", "b", "b"}, []string{`prune: "x!=y" is not a valid remote name`, "prune: b is set twice"}},
		{append([]string{"prune", "paris"}, paris...), []string{"prune paris: the remote is still configured"}},
		{[]string{"status", "now", "--port=70000"}, []string{"unexpected argument now", "--port: 70000 is not"}},
		{[]string{"status", "--url=localhost:8080", "--port=1"}, []string{`--url: "localhost:8080" is not an http or https URL`, "--port and --url are mutually exclusive"}},
		{[]string{"status", "--wait=-1s"}, []string{"--wait: -1s is negative"}},
		{append([]string{"check", "--wait=-1s"}, paris...), []string{"--wait: -1s is negative: set a duration, or 0 to check once"}},
		{append([]string{"verify", "--all", "--wait=-1s"}, paris...), []string{"--wait: -1s is negative: set a duration, or 0 to verify once"}},
		{append([]string{"verify", "--all", "--wait=5"}, paris...), []string{`invalid argument "5" for "--wait" flag`}},
		{[]string{"version", "now", "-o=x"}, []string{`--output: unknown format "x"`, "unexpected argument now"}},
		{[]string{"completion"}, []string{"completion: unknown or missing shell"}},
		{[]string{"completion", "csh"}, []string{"completion: unknown or missing shell"}},
		{[]string{"statsu"}, []string{"unknown command statsu: use one of check, plan, status, "}},
	} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), test.args, &stdout, &stderr); code != 2 || stdout.Len() > 0 {
			t.Errorf("%q: exit code %d, stdout %s", test.args, code, &stdout)
		}
		lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
		want := append(test.want[:len(test.want):len(test.want)], "see --help")
		if len(lines) != len(want) {
			t.Errorf("%q: got %s\nwant %q", test.args, &stderr, want)
			continue
		}
		for i := range want {
			if !strings.HasPrefix(lines[i], "service-mirror: "+want[i]) {
				t.Errorf("%q: line %d is %q, want %q", test.args, i+1, lines[i], want[i])
			}
		}
	}
}

// Each help says how to call it and what its exit codes are; it has every flag of its own, and no file of a log.
func TestHelpOfEveryCommand(t *testing.T) {
	for _, c := range append(slices.Clone(commands), command{name: "", flags: daemonFlags}) {
		help := printed(t, 0, append(strings.Fields(c.name), "--help")...)
		for _, part := range []string{"\nUsage:\n  service-mirror " + c.name, "\nExit codes:\n  0  ", "\n  2  "} {
			if !strings.Contains(help, part) {
				t.Errorf("the help of %q does not have %q", c.name, part)
			}
		}
		if c.name != "" && printed(t, 0, "help", c.name) != help {
			t.Errorf("help %s differs from %s --help", c.name, c.name)
		}
		visible := 0
		c.flags().VisitAll(func(f *pflag.Flag) {
			if named := regexp.MustCompile(`--` + regexp.QuoteMeta(f.Name) + `\b`).MatchString(help); named == f.Hidden && f.Name != "dry-run" {
				t.Errorf("the help of %q has --%s: %v", c.name, f.Name, named)
			}
			if !f.Hidden {
				visible++
			}
		})
		if visible == 0 || strings.Contains(help, "log_file") || strings.Contains(help, "alsologtostderr") {
			t.Errorf("the help of %q has %d flags, or those for log files", c.name, visible)
		}
	}
}

// The help's text is as it was written, with its values and defaults.
func TestUsages(t *testing.T) {
	f := pflag.NewFlagSet("x", pflag.ContinueOnError)
	f.SortFlags = false
	f.StringP("output", "o", "text", "`FORMAT` of it")
	f.Bool("on", false, "it is on")
	f.String("a-name-that-is-rather-long", "", "VALUE that "+strings.Repeat("goes ", 16)+"on")
	f.String("hidden", "", "x")
	f.Lookup("hidden").Hidden = true
	const want = `  -o, --output FORMAT       FORMAT of it (default text)
      --on                  it is on
      --a-name-that-is-rather-long string
                            VALUE that goes goes goes goes goes goes goes goes goes goes goes goes
                            goes goes goes goes on
`
	if got := usages(f); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

// printed is what a command prints that is to end with an exit code, and says nothing else.
func printed(t *testing.T, code int, args ...string) string {
	t.Helper()
	var stdout, stderr bytes.Buffer
	if got := Run(t.Context(), args, &stdout, &stderr); got != code || stderr.Len() > 0 {
		t.Errorf("%q: exit code %d, want %d; stderr %s", args, got, code, &stderr)
	}
	return stdout.String()
}

func TestVersionCommand(t *testing.T) {
	defer func(before string) { Version = before }(Version)
	Version = "v1.2.3"
	if got := printed(t, 0, "version"); got != "service-mirror v1.2.3\n" || got != printed(t, 0, "--version") {
		t.Errorf("got %q", got)
	}
	var read struct{ Version, GoVersion, Platform string }
	if err := json.Unmarshal([]byte(printed(t, 0, "version", "-o", "json")), &read); err != nil || read.Version != "v1.2.3" || read.GoVersion == "" || !strings.Contains(read.Platform, "/") {
		t.Errorf("%v: %+v", err, read)
	}
}

// What bash itself makes of the script.
func TestCompletionInBash(t *testing.T) {
	script := filepath.Join(t.TempDir(), "completion")
	if err := os.WriteFile(script, []byte(printed(t, 0, "completion", "bash")), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		words   []string // the last is completed
		want    string   // all of them
		without string
	}{
		{[]string{"service-mirror", ""}, "check plan status verify prune publish version completion", "--remote"},
		{[]string{"service-mirror", "p"}, "plan prune publish", "check"},
		{[]string{"service-mirror", "--kube-api"}, "--kube-api-qps --kube-api-burst", "--kubeconfig"},
		{[]string{"service-mirror", "--remote", "paris=x", "--max"}, "--max-deletes", ""},
		{[]string{"service-mirror", "check", "--st"}, "--strict", ""},
		{[]string{"service-mirror", "check", "-o", ""}, "text json", "--strict"},
		{[]string{"service-mirror", "plan", "--output", "=", "j"}, "json", "text"},
		{[]string{"service-mirror", "publish", "--to", ""}, "gateway-api ingress names", ""},
		{[]string{"service-mirror", "publish", "--n"}, "--name --names-namespace", "--remote"},
		{[]string{"service-mirror", "completion", "z"}, "zsh", "fish"},
		{[]string{"service-mirror", "--prun"}, "", "--prune"}, // deprecated
		{[]string{"service-mirror", "--log"}, "", "--log"},
	} {
		run := fmt.Sprintf("source %s; COMP_WORDS=(%s); COMP_CWORD=%d; _service_mirror; echo \"${COMPREPLY[@]}\"", script, "'"+strings.Join(test.words, "' '")+"'", len(test.words)-1)
		out, err := exec.Command("bash", "-c", run).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		got := strings.Fields(string(out))
		for _, want := range strings.Fields(test.want) {
			if !slices.Contains(got, want) {
				t.Errorf("%q: got %q, without %s", test.words, got, want)
			}
		}
		if test.without != "" && slices.ContainsFunc(got, func(word string) bool { return strings.HasPrefix(word, test.without) }) {
			t.Errorf("%q: got %q, with %s", test.words, got, test.without)
		}
	}
}

// The scripts for zsh and fish have each command, and each flag that the help has.
func TestCompletionHasEveryFlag(t *testing.T) {
	scripts := map[string]string{"zsh": printed(t, 0, "completion", "zsh"), "fish": printed(t, 0, "completion", "fish")}
	for _, c := range commands {
		part := map[string]*regexp.Regexp{
			"zsh": regexp.MustCompile(`(?m)^\t` + c.name + `\).*$`), "fish": regexp.MustCompile(`(?m)^complete .*__fish_seen_subcommand_from ` + c.name + `'.*$`)}
		for shell, script := range scripts {
			own := strings.Join(part[shell].FindAllString(script, -1), "\n")
			if !strings.Contains(script, c.name) || !strings.Contains(script, c.summary) {
				t.Errorf("%s does not have %s", shell, c.name)
			}
			for _, f := range completed(c.flags()) {
				if !regexp.MustCompile(`(--|-l )` + f.Name + `\b`).MatchString(own) {
					t.Errorf("%s does not have --%s of %s", shell, f.Name, c.name)
				}
			}
		}
	}
}

// writeLocal writes the kubeconfig of a server without TLS.
func writeLocal(t *testing.T, server string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"london": {Server: server}},
		Contexts:       map[string]*clientcmdapi.Context{"london": {Cluster: "london"}},
		CurrentContext: "london",
	}, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// In a cluster without mirrors nothing differs, and the log stays out of it.
func TestPlanOfNothing(t *testing.T) {
	args := []string{"plan", "--leader-elect", "--leader-elect-lease", "a/b", "--kubeconfig", writeLocal(t, apiServer(t).Host)}
	if got := printed(t, 0, args...); got != "0 create, 0 update, 0 delete\n" {
		t.Errorf("got %q", got)
	}
	var read struct {
		Create *int
		Steps  []any
	}
	if err := json.Unmarshal([]byte(printed(t, 0, append(args, "-o=json")...)), &read); err != nil || read.Create == nil || read.Steps == nil {
		t.Errorf("%v: %+v", err, read)
	}
}

// A plan fails with another code than the one for differences.
func TestPlanOfAnUnreadableCluster(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"plan", "--remote", "paris=a,gateway=ingress/gateway", "--kubeconfig", "/does/not/exist"}
	if code := Run(t.Context(), args, &stdout, &stderr); code != 3 || !strings.Contains(stderr.String(), "/does/not/exist") || strings.Count(stderr.String(), "\n") != 1 {
		t.Errorf("exit code %d, stderr %s", code, &stderr)
	}
}

// Where the Lease may not be read, the state of the local cluster alone is worked out.
func TestStatusOfTheLocalClusterAlone(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	args := []string{"status", "--kubeconfig", writeLocal(t, apiServer(t).Host)}
	got := printed(t, 0, args...)
	for _, part := range []string{"computed from this cluster alone: the leader's status cannot be read: ", "Lease service-mirror/service-mirror", "Healthy: 0 mirrors of 0 remotes.\n"} {
		if !strings.Contains(got, part) {
			t.Errorf("%q is not in\n%s", part, got)
		}
	}
	if got := printed(t, 0, append(args, "--cluster-name=london")...); !strings.HasPrefix(got, "Local cluster london, computed") {
		t.Errorf("with a name it prints\n%s", got)
	}
	var read struct {
		Source  struct{ From, Why string }
		Healthy bool
	}
	if err := json.Unmarshal([]byte(printed(t, 0, append(args, "-o=json")...)), &read); err != nil || read.Source.From != "local cluster" || read.Source.Why == "" || !read.Healthy {
		t.Errorf("%v: %+v", err, read)
	}
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"status", "--kubeconfig", "/does/not/exist"}, &stdout, &stderr); code != 3 || !strings.Contains(stderr.String(), "/does/not/exist") {
		t.Errorf("exit code %d, stderr %s", code, &stderr)
	}
}

const aStatus = `{"local":"https://london","version":"v9","electionOn":true,"leader":%v,"synced":true,"remotes":[],"mirrors":[{"namespace":"shop","name":"a-paris","cluster":"paris","state":"orphan"}]}`

// leading is an API server whose Lease names a leader, and which passes requests on to it.
func leading(t *testing.T, pod http.HandlerFunc) *rest.Config {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/apis/coordination.k8s.io/v1/namespaces/sm/leases/service-mirror":
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"kind":"Lease","apiVersion":"coordination.k8s.io/v1","metadata":{"name":"service-mirror","namespace":"sm","uid":"u"},"spec":{"holderIdentity":"sm-1_x","leaseDurationSeconds":15,"renewTime":%q}}`,
				time.Now().UTC().Format("2006-01-02T15:04:05.000000Z"))
		case "/api/v1/namespaces/sm/pods/sm-1/proxy/status.json", "/api/v1/namespaces/sm/pods/sm-1:9090/proxy/status.json":
			pod(w, r)
		default:
			w.WriteHeader(http.StatusForbidden)
		}
	}))
	t.Cleanup(server.Close)
	return &rest.Config{Host: server.URL}
}

func TestStatusOfTheLeader(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "sm")
	local := leading(t, func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, aStatus, true) })
	for _, more := range [][]string{nil, {"--port=9090"}, {"--leader-elect-lease=sm/service-mirror"}} {
		got := printed(t, 1, append([]string{"status", "--kubeconfig", writeLocal(t, local.Host)}, more...)...)
		if !strings.HasPrefix(got, "Local cluster https://london, service-mirror v9, from the leader, pod sm/sm-1\n") || !strings.Contains(got, "1 orphan") {
			t.Errorf("got\n%s", got)
		}
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/status.json" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintf(w, aStatus, false)
	}))
	defer server.Close()
	if got := printed(t, 1, "status", "--url", server.URL+"/"); !strings.Contains(got, "from "+server.URL) {
		t.Errorf("got\n%s", got)
	}
}

// With --wait the status is that of the moment when all is healthy, and the progress is no part of it.
func TestStatusIsAwaited(t *testing.T) {
	waitsShortly(t)
	requests := 0
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch requests++; requests {
		case 1:
			http.Error(w, "starting", http.StatusServiceUnavailable)
		case 2, 3:
			fmt.Fprintf(w, aStatus, true)
		default:
			fmt.Fprint(w, `{"local":"london","synced":true,"remotes":[],"mirrors":[]}`)
		}
	}))
	defer server.Close()
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"status", "--url", server.URL, "--wait=1h", "-o=json"}, &stdout, &stderr); code != 0 || requests != 4 || !json.Valid(stdout.Bytes()) {
		t.Errorf("exit code %d after %d requests, stdout %s", code, requests, &stdout)
	}
	lines := strings.Split(stderr.String(), "\n")
	if len(lines) != 3 || !strings.Contains(lines[0], "waiting: --url") || !strings.Contains(lines[1], "waiting: Unhealthy: ") {
		t.Errorf("the progress is\n%s", &stderr)
	}
	never := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, aStatus, true) }))
	defer never.Close()
	if code := Run(t.Context(), []string{"status", "--url", never.URL, "--wait=20ms"}, &stdout, &stderr); code != 1 {
		t.Errorf("when the time is over, exit code %d", code)
	}
}

// What else may come from a pod, and what is said of it.
func TestStatusThatALeaderDoesNotGive(t *testing.T) {
	answer := func(code int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); fmt.Fprint(w, body) }
	}
	for name, test := range map[string]struct {
		pod  http.HandlerFunc
		want string // empty: none
	}{
		"its status": {answer(200, fmt.Sprintf(aStatus, true)), ""},
		"by another name": {func(w http.ResponseWriter, r *http.Request) {
			if r.Host != "kubernetes.default" {
				w.WriteHeader(http.StatusMisdirectedRequest)
				return
			}
			fmt.Fprintf(w, aStatus, true)
		}, ""},
		"by no name":    {answer(http.StatusMisdirectedRequest, "host name is not accepted"), "pod sm/sm-1: "},
		"forbidden":     {answer(403, ""), "grant get on pods/proxy in namespace sm"},
		"gone":          {answer(404, ""), "check --leader-elect-lease and --port"},
		"a standby":     {answer(200, fmt.Sprintf(aStatus, false)), "it is no longer the leader"},
		"an empty one":  {answer(200, "{}"), "it has no remotes and mirrors"},
		"a publisher's": {answer(200, `{"services":[],"targets":[]}`), "it has no remotes and mirrors"},
		"a page":        {answer(200, "<html>"), "the answer is not the daemon's status"},
		"an endless one": {func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, `{"local":"`)
			for text := []byte(strings.Repeat("x", 1<<20)); ; {
				if _, err := w.Write(text); err != nil {
					return
				}
			}
		}, "the answer has more than 64 MiB"},
	} {
		t.Run(name, func(t *testing.T) {
			local := leading(t, test.pod)
			c, err := parseStatus([]string{"--leader-elect-lease=sm/service-mirror", "--kubeconfig", writeLocal(t, local.Host)})
			if err != nil || c.election.Lease != cache.NewObjectName("sm", "service-mirror") {
				t.Fatal(err, c.election)
			}
			page, pod, err := c.fromLeader(t.Context(), local)
			if test.want == "" {
				if err != nil || pod != "sm/sm-1" || len(page.Mirrors) != 1 {
					t.Errorf("got %+v of %s, %v", page, pod, err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}

// Of a cluster that does not say its version, a check's JSON has the error, and nothing else is on stdout.
func TestChecksAsJSON(t *testing.T) {
	kubeconfig := writeLocal(t, apiServer(t).Host)
	for _, args := range [][]string{
		{"check", "--leader-elect", "--leader-elect-lease=a/b"},
		{"publish", "--check", "--name=paris", "--to=names"},
	} {
		var stdout, stderr bytes.Buffer
		code := Run(t.Context(), append(args, "-o=json", "--kubeconfig", kubeconfig), &stdout, &stderr)
		var read struct {
			Errors   int
			Clusters []struct {
				Findings []struct{ Level, Message string }
			}
		}
		if err := json.Unmarshal(stdout.Bytes(), &read); err != nil || code != 1 || read.Errors != 1 || !strings.HasPrefix(stderr.String(), "service-mirror: check failed: 1 error, 0 warnings") {
			t.Fatalf("%q: exit code %d, %v, stdout %s, stderr %s", args, code, err, &stdout, &stderr)
		}
		if f := read.Clusters[0].Findings[0]; f.Level != "error" || !strings.Contains(f.Message, "check the credentials") {
			t.Errorf("%q: got %+v", args, f)
		}
	}
}
