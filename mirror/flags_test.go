package mirror

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

func optionsOf(t *testing.T, args ...string) (Options, error) {
	t.Helper()
	return optionsFor(t, nil, args...)
}

func optionsFor(t *testing.T, remotes []remote.Spec, args ...string) (Options, error) {
	t.Helper()
	var raw Flags
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	raw.Add(set)
	if err := set.Parse(args); err != nil {
		t.Fatal(err)
	}
	return raw.Options(remotes)
}

func TestFlags(t *testing.T) {
	options, err := optionsOf(t)
	if want := (Options{Policy: Policy{EndpointsAPI: UseEndpoints, Merge: plan.MergeOff}, Workers: 32, FailoverAfter: time.Second, FailbackAfter: 10 * time.Second}); err != nil || !reflect.DeepEqual(options, want) {
		t.Errorf("by default: got %+v, %v, want %+v", options, err, want)
	}
	options, err = optionsOf(t, "--copy-labels", "team,tier", "--copy-labels", "x", "--copy-annotations", "note",
		"--include-system", "--create-namespaces", "--endpoints-api", "endpointslices", "--workers", "1000", "--max-deletes", "50", "--cluster-name", "london", "--failover-after", "0", "--failback-after", "1m")
	want := Options{
		Policy:  Policy{CopyLabels: []string{"team", "tier", "x"}, CopyAnnotations: []string{"note"}, IncludeSystem: true, EndpointsAPI: UseEndpointSlices, CreateNamespaces: true, ClusterName: "london", Merge: plan.MergeOff},
		Workers: 1000, MaxDeletes: 50, FailbackAfter: time.Minute,
	}
	if err != nil || !reflect.DeepEqual(options, want) {
		t.Errorf("got %+v, %v, want %+v", options, err, want)
	}
}

func TestFlagMistakes(t *testing.T) {
	for _, test := range []struct {
		args string
		want []string // the start of each line
	}{
		{"--copy-labels=team,service-mirror.io/cluster,kubernetes.io/x", []string{"--copy-labels: service-mirror.io/cluster cannot be copied", "--copy-labels: kubernetes.io/x cannot be copied"}},
		{"--copy-annotations=a/b/c", []string{`--copy-annotations: "a/b/c" is not a valid key`}},
		{"--endpoints-api=slices", []string{`--endpoints-api: unknown kind "slices": set endpoints or endpointslices`}},
		{"--workers=0", []string{"--workers: 0 is out of range: set a number from 1 to 1000"}},
		{"--failover-after=-1s --failback-after=-2s", []string{"--failover-after: -1s is negative: set a time, or 0", "--failback-after: -2s is negative: set a time, or 0"}},
		{"--max-deletes=-1", []string{"--max-deletes: -1 is negative: set a number, or 0 for no limit"}},
		{"--name-template={cluster}", []string{`--name-template: "{cluster}" must contain {service} exactly once`}},
		{"--cluster-name=London", []string{`--cluster-name: "London" is not a DNS label`}},
		{"--merge=some", []string{`--merge: unknown mode "some": set all, first or off`}},
		{"--merge=all", []string{"--merge=all requires --endpoints-api=endpointslices and a --name-template, and name= in --remote, without {cluster}, such as {service}"}},
		{"--merge=first --name-template={service}", []string{"--merge=first requires --endpoints-api=endpointslices"}},
		{"--workers=1001", []string{"--workers: 1001 is out of range"}},
		{"--workers=0 --endpoints-api= --copy-labels=_", []string{"--copy-labels: ", "--endpoints-api: unknown kind ", "--workers: "}},
	} {
		_, err := optionsOf(t, strings.Fields(test.args)...)
		if err == nil {
			t.Errorf("%s: no error", test.args)
			continue
		}
		if lines := strings.Split(err.Error(), "\n"); !slices.EqualFunc(lines, test.want, strings.HasPrefix) {
			t.Errorf("%s: got %q, want %q", test.args, lines, test.want)
		}
	}
}

func TestFlagsOfNames(t *testing.T) {
	remotes := []remote.Spec{{Name: "paris"}, {Name: "berlin", Template: "{cluster}-{service}", Local: map[string]string{"web": "shop"}}}
	options, err := optionsFor(t, remotes, "--name-template={service}", "--allow-names")
	want := plan.Names{
		"paris":  {Cluster: "paris", Template: "{service}", ObeyNames: true},
		"berlin": {Cluster: "berlin", Template: "{cluster}-{service}", Namespaces: map[string]string{"web": "shop"}, ObeyNames: true},
	}
	if err != nil || !reflect.DeepEqual(options.Names, want) {
		t.Errorf("got %+v, %v, want %+v", options.Names, err, want)
	}
	remotes[0].Template = "x"
	if _, err := optionsFor(t, remotes); err == nil || err.Error() != `--remote paris: name= "x" must contain {service} exactly once, not 0 times` {
		t.Errorf("got %v", err)
	}
}

func TestFlagsOfMerging(t *testing.T) {
	remotes := []remote.Spec{{Name: "paris"}, {Name: "berlin", Template: "{service}-x"}}
	args := []string{"--name-template={service}", "--endpoints-api=endpointslices", "--merge=first"}
	options, err := optionsFor(t, remotes, args...)
	if err != nil || options.Merge != plan.MergeFirst || !options.Merges() || !slices.Equal(options.Order, []string{"paris", "berlin"}) {
		t.Errorf("got %+v, %v", options, err)
	}
	remotes[1].Template = "{service}-{cluster}"
	if _, err := optionsFor(t, remotes, args...); err == nil || err.Error() != "--merge=first requires a --name-template, and name= in --remote, without {cluster}, such as {service}" {
		t.Errorf("got %v", err)
	}
}

// What comes later is called by the template of all, unless it has one of its own.
func TestValidateRemoteWithTheTemplateOfAll(t *testing.T) {
	flags := Flags{template: plan.DefaultTemplate}
	flags.options.Merge, flags.options.EndpointsAPI = plan.MergeAll, plan.UseEndpointSlices
	if err := flags.validateMerge([]remote.Spec{{Name: "tokyo", Template: "{service}"}}); err != nil {
		t.Fatal(err)
	}
	if err := flags.ValidateRemote(remote.Spec{Name: "paris"}); err == nil {
		t.Error("a Secret without name= is accepted, though its mirrors are bar-paris")
	}
}
