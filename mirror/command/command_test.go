package command

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/mirror"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

var shared = gateway.Config{Service: cache.NewObjectName("ingress", "gateway"), Domain: "cluster.local"}

func TestDefaults(t *testing.T) {
	cfg, err := parse([]string{"--remote", "paris=a.kubeconfig", "--gateway", "ingress/gateway"})
	if err != nil {
		t.Fatal(err)
	}
	if cfg.remote.Selector != "service-mirror.io/exported=true" {
		t.Errorf("selector %q", cfg.remote.Selector)
	}
	if want := (mirror.Options{Policy: plan.Policy{EndpointsAPI: plan.UseEndpoints, Merge: plan.MergeOff, Order: []string{"paris"}}, Workers: 32, FailoverAfter: time.Second, FailbackAfter: 10 * time.Second}); !reflect.DeepEqual(cfg.mirror, want) {
		t.Errorf("options %+v, want %+v", cfg.mirror, want)
	}
	if want := []remote.Spec{{Name: "paris", Kubeconfig: "a.kubeconfig", Gateways: []gateway.Config{shared}}}; !reflect.DeepEqual(cfg.remotes, want) {
		t.Errorf("remotes %+v, want %+v", cfg.remotes, want)
	}
	if cfg.remote.Client.QPS != 0 || cfg.remote.Client.Burst < 1 || !strings.HasPrefix(cfg.remote.Client.UserAgent, "service-mirror/") {
		t.Errorf("client %+v", cfg.remote.Client)
	}
	gw := cfg.remote.Gateway
	if want := (gateway.Probe{Kind: gateway.ProbeNone, Path: "/", Period: 5 * time.Second, Timeout: 2 * time.Second, Threshold: 3}); gw.Probe != want ||
		gw.Refresh != 30*time.Second || gw.Filter.Domain != "cluster.local" || len(gw.Filter.Deny)+len(gw.Filter.Allow) > 0 {
		t.Errorf("gateways %+v", gw)
	}
	if cfg.kubeconfig != "" || cfg.kubecontext != "" {
		t.Errorf("local cluster %q, %q", cfg.kubeconfig, cfg.kubecontext)
	}
}

func TestEveryFlag(t *testing.T) {
	cfg, err := parse([]string{
		"--remote", "paris=a", "--remote", "berlin=b,gateway=own/gw,gateway-port=http,default-gateway-port=81,context=c,uid=u,cluster-domain=berlin.local,gateway=own/more",
		"--remote", "rome=c,address=192.0.2.1",
		"--gateway", "ingress/gateway", "--gateway-port", "8443", "--default-gateway-port", "tcp",
		"--kubeconfig", "k", "--context", "x", "--export-selector", "a=b,c!=d",
		"--copy-labels", "team,tier", "--copy-labels", "x", "--copy-annotations", "note",
		"--gateway-deny", "198.51.100.0/24,203.0.113.9", "--gateway-allow", "192.0.2.0/24", "--cluster-domain", "london.local",
		"--dns-refresh", "1m", "--dns-server", "192.0.2.53:53", "--endpoints-api", "endpointslices",
		"--probe", "http", "--probe-port", "8081", "--probe-path", "/healthz", "--probe-period", "3s", "--probe-timeout", "1s", "--probe-threshold", "2",
		"--include-system", "--create-namespaces", "--workers", "5", "--failover-after", "2s", "--failback-after", "1m", "--kube-api-qps", "10", "--kube-api-burst", "20",
	})
	if err != nil {
		t.Fatal(err)
	}
	wantRemotes := []remote.Spec{
		{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{{Service: shared.Service, Port: "8443", Default: "tcp", Domain: "london.local"}}},
		{Name: "berlin", Kubeconfig: "b", Context: "c", UID: "u", Gateways: []gateway.Config{
			{Service: cache.NewObjectName("own", "gw"), Port: "http", Default: "81", Domain: "berlin.local"},
			{Service: cache.NewObjectName("own", "more"), Port: "http", Default: "81", Domain: "berlin.local"}}},
		{Name: "rome", Kubeconfig: "c", Gateways: []gateway.Config{{Service: shared.Service, Port: "8443", Default: "tcp", Domain: "london.local", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}},
	}
	if !reflect.DeepEqual(cfg.remotes, wantRemotes) {
		t.Errorf("remotes:\ngot  %+v\nwant %+v", cfg.remotes, wantRemotes)
	}
	wantOptions := mirror.Options{
		Policy: plan.Policy{CopyLabels: []string{"team", "tier", "x"}, CopyAnnotations: []string{"note"}, IncludeSystem: true, EndpointsAPI: plan.UseEndpointSlices, CreateNamespaces: true,
			Merge: plan.MergeOff, Order: []string{"paris", "berlin", "rome"}},
		Workers: 5, FailoverAfter: 2 * time.Second, FailbackAfter: time.Minute,
	}
	if !reflect.DeepEqual(cfg.mirror, wantOptions) {
		t.Errorf("options:\ngot  %+v\nwant %+v", cfg.mirror, wantOptions)
	}
	gw := cfg.remote.Gateway
	if want := (gateway.Probe{Kind: gateway.ProbeHTTP, Port: "8081", Path: "/healthz", Period: 3 * time.Second, Timeout: time.Second, Threshold: 2}); gw.Probe != want ||
		gw.Refresh != time.Minute || gw.Filter.Domain != "london.local" ||
		fmt.Sprint(gw.Filter.Deny, gw.Filter.Allow) != "[198.51.100.0/24 203.0.113.9/32] [192.0.2.0/24]" {
		t.Errorf("gateways %+v", gw)
	}
	if cfg.kubeconfig != "k" || cfg.kubecontext != "x" || cfg.remote.Selector != "a=b,c!=d" || cfg.remote.Client.QPS != 10 || cfg.remote.Client.Burst != 20 {
		t.Errorf("got %+v", cfg)
	}
}

func TestMistakes(t *testing.T) {
	paris := []string{"--remote", "paris=a,gateway=ingress/gateway"}
	for _, test := range []struct {
		name string
		args []string
		want []string // the start of each line
	}{
		{"nothing", nil, []string{"--remote is required: set NAME=KUBECONFIG"}},
		{"no namespace of Secrets", []string{"--remotes-from", ""}, []string{"--remote is required: set NAME=KUBECONFIG"}},
		{"no name of a namespace", append(paris[:2:2], "--remotes-from", "a/b"), []string{`--remotes-from: "a/b" is not the name of a namespace`}},
		{"no flag", append(paris[:2:2], "run", "now"), []string{"unexpected argument run: remove it", "unexpected argument now: remove it"}},
		{"unknown flag", append(paris[:2:2], "--frobnicate"), []string{"unknown flag: --frobnicate"}},
		{"no value", []string{"--remote"}, []string{"flag needs an argument: --remote"}},
		{"no number", append(paris[:2:2], "--workers", "many"), []string{`invalid argument "many" for "--workers" flag`}},
		{"bad remote", []string{"--remote", "Paris=,x=y"}, []string{
			`--remote Paris=,x=y: name "Paris" is not a DNS label`, "--remote Paris=,x=y: no kubeconfig: set NAME=PATH", `--remote Paris=,x=y: unknown key "x"`}},
		{"no gateway", []string{"--remote", "paris=a"}, []string{"--remote paris: no gateway is configured"}},
		{"address without a port", []string{"--remote", "paris=a,address=192.0.2.1"}, []string{"--remote paris: no gateway is configured"}},
		{"loopback", []string{"--remote", "paris=a,address=127.0.0.1,gateway-port=80"}, []string{"--remote paris: address=127.0.0.1: not a unicast address"}},
		{"two of one name", append(paris[:2:2], "--remote", "paris=b,gateway=ingress/gateway"), []string{"--remote paris: two remotes have the same name"}},
		{"bad gateway", append(paris[:2:2], "--gateway", "gw"), []string{`--gateway: "gw" is not NS/NAME of a Service`}},
		{"bad gateway port", append(paris[:2:2], "--gateway-port", "0"), []string{`--gateway-port: "0" is neither`}},
		{"bad default gateway port", append(paris[:2:2], "--default-gateway-port", "a b"), []string{`--default-gateway-port: "a b" is neither`}},
		{"bad ranges", append(paris[:2:2], "--gateway-deny", "192.0.2.1/24,x", "--gateway-allow", "y"), []string{
			"--gateway-deny: 192.0.2.1/24 has host bits set", `--gateway-deny: "x" is neither`, `--gateway-allow: "y" is neither`}},
		{"a denied address", []string{"--remote", "paris=a,address=192.0.2.1,gateway-port=80", "--gateway-deny", "192.0.2.0/24"}, []string{"--remote paris: address=192.0.2.1: --gateway-deny contains"}},
		{"bad DNS", append(paris[:2:2], "--dns-refresh", "10ms", "--dns-server", "ns.example.com", "--cluster-domain", "_"), []string{
			"--cluster-domain: ", "--dns-refresh: 10ms is less than 1s", `--dns-server: "ns.example.com" is not ADDRESS:PORT`}},
		{"bad probe", append(paris[:2:2], "--probe", "icmp", "--probe-port", "0", "--probe-path", "x", "--probe-period", "1ms", "--probe-timeout", "1s", "--probe-threshold", "0"), []string{
			`--probe: unknown kind "icmp": set tcp, http or none`, "--probe-port: ", "--probe-path: ", "--probe-period: 1ms is less", "--probe-timeout: 1s is out of range", "--probe-threshold: 0 is less"}},
		{"bad API", append(paris[:2:2], "--endpoints-api", "slices"), []string{`--endpoints-api: unknown kind "slices"`}},
		{"bad Lease", append(paris[:2:2], "--leader-elect", "--leader-elect-lease", "a", "--leader-elect-duration", "1s"), []string{"--leader-elect-duration: 1s is less than 3s", `--leader-elect-lease: "a" is not`}},
		{"profiles nowhere", append(paris[:2:2], "--pprof"), []string{"--pprof requires --listen"}},
		{"a prune of what is mirrored", append(paris[:2:2], "--prune", "paris"), []string{"--prune paris: the remote is still configured"}},
		{"its dry run", append(paris[:2:2], "--prune-dry-run", "paris"), []string{"--prune-dry-run paris: the remote is still configured"}},
		{"a prune of a selector", []string{"--prune", "paris,x!=y"}, []string{`--prune: "paris,x!=y" is not a valid remote name`}},
		{"a prune of nothing", []string{"--prune="}, []string{`--prune: "" is not a valid remote name`}},
		{"a list of nothing", []string{"--prune-dry-run="}, []string{`--prune-dry-run: "" is not a valid remote name`}},
		{"a prune and a list", []string{"--prune", "x", "--prune-dry-run", "y"}, []string{"--prune and --prune-dry-run are mutually exclusive"}},
		{"a prune of two", []string{"--prune", "x", "--prune-dry-run", "X"}, []string{`--prune-dry-run: "X" is not`, "--prune and --prune-dry-run are mutually exclusive"}},
		{"a check and a dry run", append(paris[:2:2], "--check", "--dry-run"), []string{"--check and --dry-run are mutually exclusive"}},
		{"a dry run and a prune", append(paris[:2:2], "--dry-run", "--prune", "x"), []string{"--dry-run and --prune are mutually exclusive"}},
		{"no address to listen at", append(paris[:2:2], "--listen=nonsense"), []string{`--listen: "nonsense" is not ADDRESS:PORT`}},
		{"a bad port", append(paris[:2:2], "--listen=:65536"), []string{`--listen: ":65536" has no port number`}},
		{"a named port", append(paris[:2:2], "--listen=:http"), []string{`--listen: ":http" has no port number`}},
		{"no port", append(paris[:2:2], "--listen=localhost:"), []string{`--listen: "localhost:" has no port number`}},
		{"a bad host", append(paris[:2:2], "--listen=a_b:80"), []string{`--listen: "a_b:80" has an invalid host`}},
		{"names of nothing", append(paris[:2:2], "--listen-host=a"), []string{"--listen-host requires --listen"}},
		{"a bad name", append(paris[:2:2], "--listen=:8080", "--listen-host=a,b:80,*"), []string{`--listen-host: "b:80" is not a host name`, `--listen-host: "*" is not a host name`}},
		{"no ranges", append(paris[:2:2], "--gateway-allow=", "--gateway-deny="), []string{"--gateway-deny: an empty value", "--gateway-allow: an empty value"}},
		{"an empty range", append(paris[:2:2], "--gateway-allow=192.0.2.1,"), []string{`--gateway-allow: "" is neither`}},
		{"a line break in the path", append(paris[:2:2], "--probe=http", "--probe-path=/x\r\nHost: evil"), []string{`--probe-path: "/x\r\nHost: evil" has a character`}},
		{"a space in the path", append(paris[:2:2], "--probe-path=/a b"), []string{`--probe-path: "/a b" has a character`}},
		{"a bad escape in the path", append(paris[:2:2], "--probe-path=/%zz"), []string{`--probe-path: "/%zz" is not a valid path`}},
		{"no rate", append(paris[:2:2], "--kube-api-qps=NaN"), []string{"--kube-api-qps: NaN is not a number"}},
		{"an infinite rate", append(paris[:2:2], "--kube-api-qps=-Inf"), []string{"--kube-api-qps: -Inf is not a number"}},
		{"a namespace twice", []string{"--remote", "paris=a,namespaces=a,b,a,gateway=ingress/gateway"}, []string{"--remote paris=a,namespaces=a,b,a,gateway=ingress/gateway: namespaces= contains a twice"}},
		{"a metadata service", []string{"--remote", "paris=a,address=100.100.100.200,gateway-port=80"}, []string{"--remote paris: address=100.100.100.200: it is a cloud metadata service"}},
		{"empty selector", append(paris[:2:2], "--export-selector", ""), []string{"--export-selector: an empty selector would mirror every Service"}},
		{"blank selector", append(paris[:2:2], "--export-selector", " "), []string{"--export-selector: an empty selector"}},
		{"no selector", append(paris[:2:2], "--export-selector", "a in b"), []string{"--export-selector: "}},
		{"our own label", append(paris[:2:2], "--copy-labels", "team,service-mirror.io/cluster,kubernetes.io/x"), []string{
			"--copy-labels: service-mirror.io/cluster cannot be copied from a remote", "--copy-labels: kubernetes.io/x cannot be copied"}},
		{"no annotation", append(paris[:2:2], "--copy-annotations", "a b"), []string{`--copy-annotations: "a b" is not a valid key`}},
		{"too few workers", append(paris[:2:2], "--workers", "0"), []string{"--workers: 0 is out of range: set a number from 1 to 1000"}},
		{"too many workers", append(paris[:2:2], "--workers", "1001"), []string{"--workers: 1001 is out of range"}},
		{"negative rates", append(paris[:2:2], "--kube-api-qps", "-1", "--kube-api-burst", "-1"), []string{
			"--kube-api-qps: -1 is negative", "--kube-api-burst: -1 is negative"}},
		{"all at once", []string{"--gateway", "gw", "--workers", "0", "--export-selector", ""}, []string{
			"--remote is required", "--export-selector: ", "--gateway: ", "--workers: "}},
	} {
		t.Run(test.name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Run(t.Context(), test.args, &stdout, &stderr); code != 2 {
				t.Errorf("exit code %d, want 2", code)
			}
			if stdout.Len() > 0 {
				t.Errorf("stdout: %s", &stdout)
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			want := append(test.want[:len(test.want):len(test.want)], "see --help")
			if len(lines) != len(want) {
				t.Fatalf("got %d lines, want %d:\n%s", len(lines), len(want), &stderr)
			}
			for i, line := range lines {
				if !strings.HasPrefix(line, "service-mirror: "+want[i]) {
					t.Errorf("line %d is %q, want %q", i+1, line, want[i])
				}
			}
		})
	}
}

// What is valid must not be refused with what is not.
func TestNoMistakes(t *testing.T) {
	paris := []string{"--remote", "paris=a,gateway=ingress/gateway"}
	for _, args := range [][]string{
		{"--prune", "x"}, {"--prune-dry-run", "x", "--check=false"},
		append(paris[:2:2], "--listen=:8080"), append(paris[:2:2], "--listen=[::1]:0"), append(paris[:2:2], "--listen=localhost:80", "--listen-host", "sm.example.com,Other."),
		append(paris[:2:2], "--gateway-allow=192.0.2.1", "--gateway-deny", "2001:db8::/32"), append(paris[:2:2], "--probe-path=/a%20b?c=d&e"),
		append(paris[:2:2], "--kube-api-qps=1e30"),
	} {
		if cfg, err := parse(args); err != nil || cfg.remote.Client.Burst < 0 {
			t.Errorf("%q: %v", args, err)
		}
	}
}

// One that takes part in an election is a Deployment, which may wait for its remotes.
func TestRemotesMayComeLater(t *testing.T) {
	if _, err := parse([]string{"--leader-elect", "--leader-elect-lease", "a/b"}); err != nil {
		t.Error(err)
	}
}

func TestHelpMentionsEveryFlag(t *testing.T) {
	for _, flag := range []string{"--help", "-h"} {
		var stdout, stderr bytes.Buffer
		if code := Run(t.Context(), []string{flag}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
			t.Fatalf("%s: exit code %d, stderr %s", flag, code, &stderr)
		}
		cfg, _ := parse(nil)
		count := 0
		cfg.flags.VisitAll(func(f *pflag.Flag) {
			if f.Hidden || f.Name == "help" {
				return
			}
			count++
			if !regexp.MustCompile(`(?m)^.*--` + regexp.QuoteMeta(f.Name) + `\b`).MatchString(stdout.String()) {
				t.Errorf("%s does not mention --%s", flag, f.Name)
			}
		})
		if count < 10 {
			t.Errorf("there are only %d flags", count)
		}
		for _, line := range strings.Split(stdout.String(), "\n") {
			if len([]rune(line)) > 100 {
				t.Errorf("this line is long: %s", line)
			}
		}
	}
}

// Without a local cluster there is nothing to do: that is no mistake in the flags.
func TestMissingLocalClusterIsAFailure(t *testing.T) {
	var stdout, stderr bytes.Buffer
	args := []string{"--remote", "paris=a,gateway=ingress/gateway", "--kubeconfig", "/does/not/exist"}
	if code := Run(context.Background(), args, &stdout, &stderr); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	if lines := strings.Count(stderr.String(), "\n"); lines != 1 || !strings.HasPrefix(stderr.String(), "service-mirror: local cluster: ") {
		t.Errorf("stderr: %s", &stderr)
	}
}

// apiServer is a local cluster in which there is nothing, and nothing may be read but
// what is necessary.
func apiServer(t *testing.T) *rest.Config {
	lists := map[string][2]string{ // by resource
		"services": {"v1", "Service"}, "endpoints": {"v1", "Endpoints"}, "endpointslices": {"discovery.k8s.io/v1", "EndpointSlice"},
		"namespaces": {"meta.k8s.io/v1", "PartialObjectMetadata"},
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		kind, known := lists[path.Base(req.URL.Path)]
		switch {
		case strings.HasSuffix(req.URL.Path, "/namespaces/kube-system"):
			fmt.Fprint(w, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":"uid-of-london","resourceVersion":"1"}}`)
		case !known:
			w.WriteHeader(http.StatusForbidden)
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Forbidden","code":403}`)
		case req.URL.Query().Get("sendInitialEvents") == "true":
			w.WriteHeader(http.StatusUnprocessableEntity) // it has no streamed lists
			fmt.Fprint(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Invalid","code":422}`)
		case req.URL.Query().Get("watch") == "true":
			w.(http.Flusher).Flush()
			<-req.Context().Done()
		default:
			if strings.Contains(req.Header.Get("Accept"), "PartialObjectMetadata") {
				kind = lists["namespaces"]
			}
			items := ""
			if path.Base(req.URL.Path) == "namespaces" {
				items = `{"metadata":{"name":"kube-system","uid":"uid-of-london","resourceVersion":"1"}}`
			}
			fmt.Fprintf(w, `{"kind":"%sList","apiVersion":%q,"metadata":{"resourceVersion":"1"},"items":[%s]}`, kind[1], kind[0], items)
		}
	}))
	t.Cleanup(server.Close)
	t.Cleanup(server.CloseClientConnections)
	return &rest.Config{Host: server.URL}
}

// An election that cannot begin must not leave a program that runs and never writes.
func TestElectionThatCannotBeginEndsTheProgram(t *testing.T) {
	cfg, err := parse([]string{"--leader-elect", "--leader-elect-lease", "a/b"})
	if err != nil {
		t.Fatal(err)
	}
	cfg.election.Duration = 0
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	local := cfg.remote.Client.Tune(apiServer(t), "", &remote.Network{})
	if err := cfg.mirrorAll(ctx, local, nil); err == nil || !strings.HasPrefix(err.Error(), "leader election with Lease a/b: ") {
		t.Errorf("got %v (%v)", err, ctx.Err())
	}
}

// A dry run beside the daemon has its flags, and leaves it its address.
func TestDryRunDoesNotListen(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	config := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(clientcmdapi.Config{
		Clusters:       map[string]*clientcmdapi.Cluster{"london": {Server: "https://" + taken.Addr().String()}},
		Contexts:       map[string]*clientcmdapi.Context{"london": {Cluster: "london"}},
		CurrentContext: "london",
	}, config); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel() // it has nothing to wait for
	args := []string{"--remote", "paris=a,gateway=ingress/gateway", "--kubeconfig", config, "--listen", taken.Addr().String()}
	var stdout, stderr bytes.Buffer
	if Run(ctx, append(args, "--dry-run"), &stdout, &stderr); !strings.HasSuffix(stderr.String(), "service-mirror: "+context.Canceled.Error()+"\n") {
		t.Errorf("stderr: %s", &stderr)
	}
}

// The name of the local cluster is on the page and in each log line; without one the page has its API server's address.
func TestClusterName(t *testing.T) {
	local := &rest.Config{Host: "https://192.0.2.1:6443"}
	for _, test := range []struct {
		args          []string
		name, logline string
	}{
		{nil, local.Host, "\"x\" a=1\n"},
		{[]string{"--cluster-name=london"}, "london", "\"x\" localCluster=\"london\" a=1\n"},
	} {
		cfg, err := parse(append([]string{"--remote", "paris=a,gateway=ingress/gateway"}, test.args...))
		if err != nil {
			t.Fatal(err)
		}
		if got := cfg.localName(local); got != test.name {
			t.Errorf("%v: the page has %s", test.args, got)
		}
		var log bytes.Buffer
		ctx := klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(&log))))
		klog.FromContext(cfg.named(ctx)).Info("x", "a", 1)
		if !strings.HasSuffix(log.String(), test.logline) {
			t.Errorf("%v: logged %q", test.args, log.String())
		}
	}
}

func TestVersion(t *testing.T) {
	defer func(before string) { Version = before }(Version)
	Version = "v1.2.3"
	cfg, err := parse([]string{"--remote", "paris=a,gateway=ingress/gateway"})
	if err != nil || cfg.remote.Client.UserAgent != "service-mirror/v1.2.3" {
		t.Errorf("got %q, %v", cfg.remote.Client.UserAgent, err)
	}
}

// The page is where flags are looked up.
func TestFlagsPageHasEveryFlag(t *testing.T) {
	table, _, found := strings.Cut(page(t, guides+"/flags.md"), "\n## Publish\n")
	if !found {
		t.Fatal("flags.md has no section on publish")
	}
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	cfg, _ := parse(nil)
	cfg.flags.VisitAll(func(f *pflag.Flag) {
		if logging.Lookup(f.Name) == nil && !regexp.MustCompile("`--"+regexp.QuoteMeta(f.Name)+"[` ]").MatchString(table) {
			t.Errorf("flags.md does not have --%s", f.Name)
		}
	})
}
