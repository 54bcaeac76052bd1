package remote

import (
	"reflect"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

func parseFlags(t *testing.T, args ...string) *Flags {
	t.Helper()
	var raw Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	raw.Add(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return &raw
}

func TestFlagDefaults(t *testing.T) {
	raw := parseFlags(t)
	options, err := raw.Options()
	if want := (Options{Selector: selector, Client: ClientOptions{Burst: 1}}); err != nil || !reflect.DeepEqual(options, want) {
		t.Errorf("got %+v, %v; want %+v", options, err, want)
	}
	if specs, err := raw.Remotes(gateway.Config{}, gateway.Filter{}); len(specs) != 0 || err != nil {
		t.Errorf("got %+v, %v; want no remotes", specs, err)
	}
}

func TestFlagOptions(t *testing.T) {
	options, err := parseFlags(t, "--export-selector", "a=b,c!=d", "--kube-api-qps", "10.5").Options()
	if want := (Options{Selector: "a=b,c!=d", Client: ClientOptions{QPS: 10.5, Burst: 10}}); err != nil || !reflect.DeepEqual(options, want) {
		t.Errorf("got %+v, %v; want %+v", options, err, want)
	}
	options, err = parseFlags(t, "--kube-api-qps", "10", "--kube-api-burst", "20").Options()
	if err != nil || options.Client.Burst != 20 {
		t.Errorf("got burst %d, %v; want 20", options.Client.Burst, err)
	}
}

func TestFlagRemotes(t *testing.T) {
	name := cache.NewObjectName
	shared := gateway.Config{Service: name("ingress", "gateway"), API: true, Port: "http", Default: "web", Domain: "cluster.local"}
	own := gateway.Config{Service: name("a", "b"), Port: "443", Default: "9", Domain: "paris.local"}
	second := own
	second.Service = name("c", "d")
	specs, err := parseFlags(t, "--remote", "berlin=b", "--remote", "paris=p,gateway=a/b,gateway=c/d,gateway-port=443,default-gateway-port=9,cluster-domain=paris.local").Remotes(shared, gateway.Filter{})
	want := []Spec{
		{Name: "berlin", Kubeconfig: "b", Gateways: []gateway.Config{shared}},
		{Name: "paris", Kubeconfig: "p", Gateways: []gateway.Config{own, second}},
	}
	if err != nil || !reflect.DeepEqual(specs, want) {
		t.Errorf("got %+v, %v; want %+v", specs, err, want)
	}
}

// All mistakes are listed at once, each under its flag.
func TestFlagMistakes(t *testing.T) {
	shared := gateway.Config{Service: cache.NewObjectName("ingress", "gateway")}
	raw := parseFlags(t, "--export-selector", "", "--kube-api-qps", "-1", "--kube-api-burst", "-2",
		"--remote", "paris=a", "--remote", "paris=b", "--remote", "Bad=,color=red", "--remote", "none=c")
	_, optionsErr := raw.Options()
	_, remotesErr := raw.Remotes(shared, gateway.Filter{})
	_, noGateway := raw.Remotes(gateway.Config{}, gateway.Filter{})
	for _, test := range []struct {
		err  error
		want []string
	}{
		{optionsErr, []string{"--export-selector: an empty selector", "--kube-api-qps: -1 is negative", "--kube-api-burst: -2 is negative"}},
		{remotesErr, []string{"--remote paris: two remotes have the same name", "--remote Bad=,color=red: name ", "--remote Bad=,color=red: no kubeconfig", `--remote Bad=,color=red: unknown key "color"`}},
		{noGateway, []string{"--remote none: "}},
	} {
		for _, want := range test.want {
			if test.err == nil || !strings.Contains("\n"+test.err.Error(), "\n"+want) {
				t.Errorf("got %v, want a line %q", test.err, want)
			}
		}
	}
	if specs, _ := raw.Remotes(shared, gateway.Filter{}); len(specs) != 3 {
		t.Errorf("got %d remotes, want the three that can be read", len(specs))
	}
}
