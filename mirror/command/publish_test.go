package command

import (
	"bytes"
	"flag"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/gateway/publish"
	"service-mirror.io/service-mirror/gateway/publish/plan"
)

func TestPublishFlags(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	got, err := parsePublish([]string{"--name", "paris", "--name", "france", "--to", "gateway-api", "--to", "ingress", "--gateway", "ingress/public",
		"--gateway-service", "ingress/traefik", "--ingress-class", "traefik", "--tls-secret", "wildcard", "--cluster-domain", "paris.local", "--host-template", "{service}.{namespace}.example.com", "--caller-namespace", "web:shop", "--host-suffix", "shop.example.com", "--host-suffix", "example.org",
		"--ports", "20000-20010", "--export-selector", "a=b", "--record-namespace", "records", "--include-system", "--dry-run",
		"--kubeconfig", "k", "--context", "c", "--listen", ":8080", "--leader-elect", "--leader-elect-lease", "a/b"})
	if err != nil {
		t.Fatal(err)
	}
	want := publish.Options{Selector: "a=b", Policy: plan.Policy{Names: []string{"paris", "france"}, Targets: []plan.Target{plan.ToGatewayAPI, plan.ToIngress},
		Gateway: cache.NewObjectName("ingress", "public"), GatewayService: cache.NewObjectName("ingress", "traefik"), IngressClass: "traefik", TLSSecret: "wildcard", Domain: "paris.local",
		HostTemplates: []string{"{service}.{namespace}.example.com"}, HostSuffixes: []string{"shop.example.com", "example.org"}, CallerNamespaces: map[string][]string{"web": {"shop"}}, Ports: plan.PortRange{First: 20000, Last: 20010}, Records: "records", IncludeSystem: true}}
	if !reflect.DeepEqual(got.publish, want) {
		t.Errorf("got  %+v\nwant %+v", got.publish, want)
	}
	if !got.dryRun || got.kubeconfig != "k" || got.kubecontext != "c" || got.listen.Address != ":8080" || got.election.Lease != cache.NewObjectName("a", "b") {
		t.Errorf("got %+v", got.config)
	}
}

func TestPublishToNames(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "")
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "gateway-exports"},
		{[]string{"--names-namespace", "exports"}, "exports"},
		{[]string{"--to", "ingress", "--ingress-class", "x", "--host-suffix", "example.com"}, "gateway-exports"},
	} {
		got, err := parsePublish(append([]string{"--name", "paris", "--to", "names"}, test.args...))
		if err != nil || got.publish.Aliases != test.want || !got.publish.To(plan.ToNames) {
			t.Errorf("%v: aliases are in %q, %v", test.args, got.publish.Aliases, err)
		}
	}
}

// In a pod its namespace has the records and the Lease, which is not the daemon's own: a cluster may run both.
func TestPublishInAPod(t *testing.T) {
	t.Setenv("POD_NAMESPACE", "sm")
	got, err := parsePublish([]string{"--name", "paris", "--to", "gateway-api", "--gateway", "ingress/public", "--leader-elect"})
	if err != nil || got.publish.Records != "sm" || got.election.Lease != cache.NewObjectName("sm", "service-mirror-publish") {
		t.Errorf("records in %q, Lease %v, %v", got.publish.Records, got.election.Lease, err)
	}
}

func TestPublishMistakes(t *testing.T) {
	good := []string{"publish", "--name=paris", "--to=gateway-api", "--gateway=ingress/public"}
	with := func(args ...string) []string { return append(good[:4:4], args...) }
	for name, test := range map[string]struct {
		args []string
		want []string
	}{
		"nothing":              {[]string{"publish"}, []string{"--name is required", "--to is required"}},
		"a name":               {with("--name=Paris"), []string{`--name: "Paris" is not a DNS label`}},
		"a name twice":         {with("--name=paris"), []string{"--name: paris is set twice: remove one"}},
		"a target":             {with("--to=dns"), []string{`--to: unknown target "dns": set gateway-api, ingress or names`}},
		"a target twice":       {with("--to=gateway-api"), []string{"--to: gateway-api is set twice: remove one"}},
		"no Gateway":           {[]string{"publish", "--name=paris", "--to=gateway-api"}, []string{"--gateway is required with --to gateway-api"}},
		"no namespace":         {[]string{"publish", "--name=paris", "--to=gateway-api", "--gateway=public"}, []string{`--gateway: "public" is not NS/NAME of a`}},
		"a Gateway in vain":    {[]string{"publish", "--name=paris", "--to=ingress", "--ingress-class=x", "--gateway=a/b"}, []string{"--gateway requires --to gateway-api"}},
		"a Service":            {with("--gateway-service=traefik"), []string{`--gateway-service: "traefik" is not NS/NAME of a`}},
		"a Service in vain":    {[]string{"publish", "--name=paris", "--to=ingress", "--ingress-class=x", "--gateway-service=a/b"}, []string{"--gateway-service requires --gateway"}},
		"no class":             {[]string{"publish", "--name=paris", "--to=ingress"}, []string{"--ingress-class is required with --to ingress"}},
		"a class in vain":      {with("--ingress-class=x"), []string{"--ingress-class and --tls-secret require --to ingress"}},
		"a Secret in vain":     {with("--tls-secret=x"), []string{"--ingress-class and --tls-secret require --to ingress"}},
		"aliases in vain":      {with("--names-namespace=x"), []string{"--names-namespace requires --to names"}},
		"a place of aliases":   {with("--to=names", "--names-namespace=x/y"), []string{`--names-namespace: "x/y" is not a valid namespace name`}},
		"names in vain":        {[]string{"publish", "--name=paris", "--to=names", "--host-suffix=example.com"}, []string{"--host-template, --host-suffix and --caller-namespace have no effect with --to names alone"}},
		"a domain":             {with("--cluster-domain=_"), []string{"--cluster-domain: "}},
		"no pair":              {with("--caller-namespace=web"), []string{`--caller-namespace: "web" is not OWN:CALLERS`}},
		"a namespace in vain":  {with("--caller-namespace=web:web"), []string{"--caller-namespace: names in web are always routed to web"}},
		"a template":           {with("--host-template={service}.example.com"), []string{"--host-template: "}},
		"an unclear template":  {with("--host-template={service}-{namespace}.example.com"), []string{`--host-template: "{service}-{namespace}.example.com" produces the same name for a in b-c`}},
		"two templates":        {with("--host-template={service}.{namespace}.a.com", "--host-template={namespace}.{service}.a.com"), []string{`--host-template: "{service}.{namespace}.a.com" and "{namespace}.{service}.a.com" can produce the same name`}},
		"a suffix":             {with("--host-suffix=.example.com"), []string{`--host-suffix: ".example.com" is not a DNS name`}},
		"a suffix of Services": {with("--host-suffix=default.svc.cluster.local"), []string{"--host-suffix: "}},
		"no range":             {with("--ports=15000"), []string{"--ports: "}},
		"a range of no ports":  {with("--ports=0-10"), []string{"--ports: "}},
		"a range backwards":    {with("--ports=15001-15000"), []string{"--ports: 15001-15000 is reversed"}},
		"no selector":          {with("--export-selector="), []string{"--export-selector: an empty selector"}},
		"a selector":           {with("--export-selector=a in b"), []string{"--export-selector: "}},
		"a namespace":          {with("--record-namespace=a/b"), []string{"--record-namespace: "}},
		"two modes":            {with("--check", "--prune"), []string{"--check and --prune are mutually exclusive"}},
		"a dry check":          {with("--check", "--dry-run"), []string{"--check and --dry-run are mutually exclusive"}},
		"a format":             {with("--check", "-o", "yaml"), []string{`--output: unknown format "yaml"`}},
		"a format in vain":     {with("-o", "json"), []string{"--output json requires --check"}},
		"another argument":     {with("now"), []string{"unexpected argument now"}},
		"an address":           {with("--listen=x"), []string{"--listen: "}},
		"a flag of the daemon": {with("--remote=paris=a"), []string{"unknown flag: --remote"}},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			if code := Run(t.Context(), test.args, &stdout, &stderr); code != 2 || stdout.Len() > 0 {
				t.Errorf("exit code %d, stdout %s", code, &stdout)
			}
			lines := strings.Split(strings.TrimSuffix(stderr.String(), "\n"), "\n")
			want := append(test.want[:len(test.want):len(test.want)], "see --help")
			if len(lines) != len(want) {
				t.Fatalf("got %s\nwant %q", &stderr, want)
			}
			for i := range want {
				if !strings.HasPrefix(lines[i], "service-mirror: "+want[i]) {
					t.Errorf("line %d is %q, want %q", i+1, lines[i], want[i])
				}
			}
		})
	}
}

func TestPublishHelpAndFlagsPageHaveEveryFlag(t *testing.T) {
	var stdout, stderr bytes.Buffer
	if code := Run(t.Context(), []string{"publish", "--help"}, &stdout, &stderr); code != 0 || stderr.Len() > 0 {
		t.Fatalf("exit code %d, stderr %s", code, &stderr)
	}
	_, table, found := strings.Cut(page(t, guides+"/flags.md"), "| flag of `publish` |")
	if !found {
		t.Fatal("flags.md has no table of the flags of publish")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	logging := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logging)
	p, _ := parsePublish(nil)
	p.flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		if !regexp.MustCompile(`(?m)^.*--` + regexp.QuoteMeta(f.Name) + `\b`).MatchString(stdout.String()) {
			t.Errorf("--help does not have --%s", f.Name)
		}
		if logging.Lookup(f.Name) == nil && !regexp.MustCompile("`--"+regexp.QuoteMeta(f.Name)+"[` ]").MatchString(table) {
			t.Errorf("the table in flags.md does not have --%s", f.Name)
		}
	})
}
