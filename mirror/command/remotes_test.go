package command

import (
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

const inlineKubeconfig = `{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: "https://paris.example"}}], users: [{name: u, user: {token: t}}]}`

func secretOf(name string, data map[string]string) *corev1.Secret {
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sm", Name: name, Labels: map[string]string{remote.SecretLabel: name}},
		Data: map[string][]byte{"kubeconfig": []byte(inlineKubeconfig)}}
	for key, value := range data {
		secret.Data[key] = []byte(value)
	}
	return secret
}

// Secrets are enough, and none need exist yet.
func TestSecretsAreEnough(t *testing.T) {
	for _, args := range [][]string{{"--remotes-from", "sm"}, {"--remotes-from", "sm", "--merge=all", "--endpoints-api=endpointslices", "--name-template={service}"}} {
		if cfg, err := parse(args); err != nil || cfg.parts.remotes.From() != "sm" || len(cfg.remotes) != 0 {
			t.Errorf("%q: got %+v, %v", args, cfg.remotes, err)
		}
		if _, err := parseCheck(args); err != nil {
			t.Errorf("check %q: %v", args, err)
		}
		if _, err := parsePlan(args); err != nil {
			t.Errorf("plan %q: %v", args, err)
		}
	}
}

// What the flags say of all remotes holds for those of Secrets, and is checked for each.
func TestFlagsHoldForSecrets(t *testing.T) {
	cfg, err := parse([]string{"--remote", "tokyo=k,name=t-{service}", "--remotes-from", "sm", "--gateway", "ingress/shared", "--gateway-port", "https", "--allow-names",
		"--merge=all", "--endpoints-api=endpointslices", "--name-template={service}"})
	if err != nil {
		t.Fatal(err)
	}
	set := cfg.resolve([]*corev1.Secret{
		secretOf("rome", map[string]string{"name": "r-{service}", "namespace": "a:b", "gateway-port": "80"}),
		secretOf("paris", nil),
		secretOf("oslo", map[string]string{"name": "{service}-{cluster}"}),
		secretOf("bern", map[string]string{"name": "{nothing}"}),
		secretOf("kyiv", map[string]string{"address": "127.0.0.1"}),
	})
	if names := remote.Names(set.Specs()); !slices.Equal(names, []string{"tokyo", "bern", "kyiv", "oslo", "paris", "rome"}) {
		t.Errorf("got %q", names)
	}
	for name, want := range map[string]string{
		"oslo": `name={service}-{cluster} contains {cluster}, which --merge=all does not allow: use {service}`, "bern": "must contain {service} exactly once", "kyiv": "address=127.0.0.1: not a unicast address",
	} {
		if err := set.Problems()[name]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", name, err, want)
		}
	}
	policy := cfg.policy(set)
	rome := policy.Names.Of("rome")
	if rome.Template != "r-{service}" || rome.Namespaces["a"] != "b" || !rome.ObeyNames || policy.Names.Of("paris").Template != "{service}" || policy.Order[5] != "rome" || policy.Merge != plan.MergeAll {
		t.Errorf("got %+v", policy)
	}
	gateways := map[string]string{}
	for _, spec := range set.Specs() {
		if spec.Usable() {
			gateways[spec.Name] = spec.Gateways[0].Name() + " " + spec.Gateways[0].Port
		}
	}
	if gateways["rome"] != "ingress/shared 80" || gateways["paris"] != "ingress/shared https" || len(gateways) != 3 {
		t.Errorf("got %v", gateways)
	}
}
