package secrets

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote"
)

// kubeconfig is one whose user has the field, and whose cluster has the other one.
func kubeconfig(user, cluster string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: c
contexts:
- {name: c, context: {cluster: c, user: u}}
- {name: laptop, context: {cluster: c, user: person}}
clusters:
- {name: c, cluster: {server: "https://paris.example"%s}}
users:
- {name: u, user: {%s}}
- {name: person, user: {exec: {command: login, apiVersion: client.authentication.k8s.io/v1}}}
`, cluster, user)
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// secret configures a remote with a kubeconfig and these keys; it was created so many seconds after the epoch.
func secret(name, label string, age int, data map[string]string) *corev1.Secret {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: "sm", Name: name, UID: types.UID(name + "-uid"), Labels: map[string]string{remote.SecretLabel: label},
		CreationTimestamp: metav1.NewTime(epoch.Add(time.Duration(age) * time.Second))},
		Data: map[string][]byte{"kubeconfig": []byte(kubeconfig("token: t", "")), "gateway": []byte("ingress/gateway\n")}}
	for key, value := range data {
		if value == "-" {
			delete(s.Data, key)
			continue
		}
		s.Data[key] = []byte(value)
	}
	return s
}

func flag(t *testing.T, text string) remote.Spec {
	t.Helper()
	spec, err := remote.ParseSpec(text)
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

func complete(spec *remote.Spec) error {
	if spec.Template == "{oops}" {
		return errors.New("name= is no template")
	}
	return spec.Complete(gateway.Config{}, gateway.Filter{Domain: "cluster.local"})
}

func TestResolve(t *testing.T) {
	none := map[string]string{}
	for name, test := range map[string]struct {
		flags    []string
		secrets  []*corev1.Secret
		want     []string          // remotes in order, with the Secret that configures them
		problems map[string]string // of remotes, in part
		unusable []string
		misnamed string
	}{
		"nothing": {},
		"flags in their order, then Secrets by the names of remotes": {
			flags:   []string{"tokyo=t,gateway=a/b", "berlin=b,gateway=a/b"},
			secrets: []*corev1.Secret{secret("a", "rome", 1, none), secret("z", "paris", 2, none)},
			want:    []string{"tokyo", "berlin", "paris by sm/z", "rome by sm/a"},
		},
		"the flag wins": {
			flags:    []string{"paris=p,gateway=a/b"},
			secrets:  []*corev1.Secret{secret("a", "paris", 1, none), secret("b", "paris", 2, none)},
			want:     []string{"paris"},
			problems: map[string]string{"paris": "Secrets sm/a, sm/b are not used, because --remote paris configures the remote: remove one of them"},
		},
		"the older Secret wins": {
			secrets:  []*corev1.Secret{secret("a", "paris", 2, none), secret("b", "paris", 1, none)},
			want:     []string{"paris by sm/b"},
			problems: map[string]string{"paris": "Secret sm/a is not used, because the older Secret sm/b configures the remote"},
		},
		"of one age, the first name wins": {
			secrets:  []*corev1.Secret{secret("b", "paris", 1, none), secret("a", "paris", 1, none), secret("c", "paris", 1, none), secret("d", "paris", 1, none), secret("e", "paris", 1, none)},
			want:     []string{"paris by sm/a"},
			problems: map[string]string{"paris": "Secrets sm/b, sm/c, sm/d and 1 more are not used"},
		},
		"an older Secret that cannot be used wins, too": {
			secrets:  []*corev1.Secret{secret("a", "paris", 2, none), secret("b", "paris", 1, map[string]string{"gatway": "a/b"})},
			want:     []string{"paris by sm/b"},
			unusable: []string{"paris"},
			problems: map[string]string{"paris": "; Secret sm/a is not used"},
		},
		"an unknown key": {
			secrets:  []*corev1.Secret{secret("a", "paris", 1, map[string]string{"gatway": "a/b"}), secret("b", "rome", 1, none)},
			want:     []string{"paris by sm/a", "rome by sm/b"},
			unusable: []string{"paris"},
			problems: map[string]string{"paris": `Secret sm/a cannot be used: unknown key "gatway": the keys are`},
		},
		"several mistakes": {
			secrets:  []*corev1.Secret{secret("a", "paris", 1, map[string]string{"kubeconfig": "-", "max-bytes": "x", "records": "A"})},
			want:     []string{"paris by sm/a"},
			unusable: []string{"paris"},
			problems: map[string]string{"paris": "max-bytes=x is not a size from 1Mi to 4Gi, such as 64Mi; records=A is not a valid namespace name; it has no kubeconfig: add one"},
		},
		"no gateway": {
			secrets:  []*corev1.Secret{secret("a", "paris", 1, map[string]string{"gateway": "-"})},
			want:     []string{"paris by sm/a"},
			unusable: []string{"paris"},
			problems: map[string]string{"paris": "no gateway is configured"},
		},
		"a mistake that only the flags' packages find": {
			secrets:  []*corev1.Secret{secret("a", "paris", 1, map[string]string{"name": "{oops}"})},
			want:     []string{"paris by sm/a"},
			unusable: []string{"paris"},
			problems: map[string]string{"paris": "cannot be used: name= is no template"},
		},
		"labels that are no names of remotes": {
			secrets:  []*corev1.Secret{secret("a", "Paris", 1, none), secret("b", "merged.service-mirror.io", 2, none), secret("c", "", 3, none), secret("d", "rome", 4, none)},
			want:     []string{"rome by sm/d"},
			misnamed: "Secret sm/a has the label service-mirror.io/remote=Paris, which is not a valid remote name (a DNS label): change the label; Secret sm/b has",
		},
	} {
		t.Run(name, func(t *testing.T) {
			var flags []remote.Spec
			for _, text := range test.flags {
				flags = append(flags, flag(t, text))
			}
			set := Resolve(flags, test.secrets, complete)
			var got, unusable []string
			for _, one := range set.Remotes {
				text := one.Name
				if one.Secret != (cache.ObjectName{}) {
					text += " by " + one.Secret.String()
				}
				got = append(got, text)
				if !one.Usable() {
					unusable = append(unusable, one.Name)
				}
			}
			if !slices.Equal(got, test.want) || !slices.Equal(unusable, test.unusable) {
				t.Errorf("got %q, unusable %q, want %q and %q", got, unusable, test.want, test.unusable)
			}
			problems := set.Problems()
			if names := slices.Sorted(maps.Keys(problems)); !slices.Equal(names, slices.Sorted(maps.Keys(test.problems))) {
				t.Errorf("problems of %q: %v", names, problems)
			}
			for name, want := range test.problems {
				if problems[name] == nil || !strings.Contains(problems[name].Error(), want) {
					t.Errorf("the problem of %s is %v, want %q", name, problems[name], want)
				}
			}
			if test.misnamed == "" && set.Misnamed != nil || test.misnamed != "" && (set.Misnamed == nil || !strings.HasPrefix(set.Misnamed.Error(), test.misnamed)) {
				t.Errorf("misnamed: %v, want %q", set.Misnamed, test.misnamed)
			}
		})
	}
}

// The keys are those of the flag: what it makes of a text is made of the same in a Secret.
func TestKeysAreThoseOfTheFlag(t *testing.T) {
	const text = "paris=k,context=c,uid=u-1,namespaces=a,b,c,name={service}-p,namespace=x:y,namespace=v:w,gateway=a/b,gateway=gateway-api:c/d," +
		"gateway-port=8443,default-gateway-port=tcp,tcp-services=a/t,udp-services=a/u,records=sm,max-services=7,max-bytes=2Mi,cluster-domain=paris.local"
	want := flag(t, text)
	data := map[string]string{
		"context": "c\n", "uid": "u-1", "namespaces": "a, b\nc\n", "name": "{service}-p", "namespace": "x:y\nv:w\n", "gateway": "a/b\r\n\ngateway-api:c/d",
		"gateway-port": "8443", "default-gateway-port": " tcp ", "tcp-services": "a/t", "udp-services": "a/u", "records": "sm", "max-services": "7", "max-bytes": "2Mi", "cluster-domain": "paris.local",
	}
	set := Resolve(nil, []*corev1.Secret{secret("s", "paris", 1, data)}, func(*remote.Spec) error { return nil })
	if err := set.Problems()["paris"]; err != nil || len(set.Remotes) != 1 {
		t.Fatalf("got %+v, %v", set, err)
	}
	want.Kubeconfig, want.Secret, want.Inline = "", cache.NewObjectName("sm", "s"), set.Remotes[0].Inline
	if got := set.Remotes[0].Spec; !got.Same(want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	addresses := flag(t, "paris=k,address=192.0.2.1,address=gw.example,gateway-port=80")
	set = Resolve(nil, []*corev1.Secret{secret("s", "paris", 1, map[string]string{"address": "192.0.2.1\ngw.example", "gateway-port": "80", "gateway": "-"})}, complete)
	addresses.Kubeconfig, addresses.Secret, addresses.Inline = "", want.Secret, set.Remotes[0].Inline
	if err := complete(&addresses); err != nil {
		t.Fatal(err)
	}
	if got := set.Remotes[0].Spec; !got.Same(addresses) {
		t.Errorf("got  %+v\nwant %+v: %v", got, addresses, set.Problems())
	}
}

func TestValuesThatAreNotRepeatable(t *testing.T) {
	for key, values := range map[string]string{"records": "a\nb", "uid": "a\nb", "gateway-port": "80\n81", "name": "{service}\n{service}-x", "context": ""} {
		set := Resolve(nil, []*corev1.Secret{secret("s", "paris", 1, map[string]string{key: values})}, complete)
		want := key + "= is set twice"
		if values == "" {
			want = `"context=" is not KEY=VALUE`
		}
		if err := set.Problems()["paris"]; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", key, err, want)
		}
	}
}

// Whoever may write a Secret must not have the daemon read its files or run a program.
func TestKubeconfigsInSecrets(t *testing.T) {
	for name, test := range map[string]struct {
		user, cluster string
		data          map[string]string
		want          string // the reason; empty: it is used
	}{
		"a token":       {user: "token: t"},
		"a certificate": {user: "client-certificate-data: YQ==, client-key-data: YQ==", cluster: ", certificate-authority-data: YQ=="},
		"a password":    {user: "username: u, password: p"},
		"an exec plugin of a user who is not used": {user: "token: t", data: map[string]string{"context": "c"}},
		"an exec plugin": {user: "token: t", data: map[string]string{"context": "laptop"},
			want: `field exec of user "person" is not permitted in a Secret: it runs a program`},
		"an auth provider":         {user: "auth-provider: {name: oidc}", want: `field auth-provider of user "u" is not permitted in a Secret`},
		"a token file":             {user: "tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token", want: `field tokenFile of user "u" is not permitted in a Secret: it is a file: use token`},
		"a token and a token file": {user: "token: t, tokenFile: /etc/passwd", want: "field tokenFile"},
		"certificate files": {user: "client-certificate: c.pem, client-key: k.pem", cluster: ", certificate-authority: ca.pem",
			want: `field certificate-authority of cluster "c" is not permitted in a Secret: it is a file: use certificate-authority-data; field client-certificate of user "u" is not permitted in a Secret: it is a file: use client-certificate-data; field client-key`},
		"no such context":         {user: "token: t", data: map[string]string{"context": "rome"}, want: "rome"},
		"nothing":                 {data: map[string]string{"kubeconfig": ""}, want: "it has no kubeconfig"},
		"an empty one":            {data: map[string]string{"kubeconfig": "{}"}, want: "it has no cluster: check its current-context"},
		"something else":          {data: map[string]string{"kubeconfig": "top-secret-token"}, want: "kubeconfig: "},
		"a token of two lines":    {user: `token: "a\nb"`, want: "contains a control character"},
		"a password in the proxy": {user: "token: t", cluster: `, proxy-url: "ftp://u:secret@proxy"`, want: "the proxy-url of cluster"},
	} {
		t.Run(name, func(t *testing.T) {
			data := map[string]string{"kubeconfig": kubeconfig(test.user, test.cluster)}
			maps.Copy(data, test.data)
			set := Resolve(nil, []*corev1.Secret{secret("s", "paris", 1, data)}, complete)
			err := set.Problems()["paris"]
			if used := set.Remotes[0].Usable(); used != (test.want == "") {
				t.Errorf("used: %v, %v", used, err)
			}
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Fatalf("got %v, want %q", err, test.want)
			}
			if err != nil && (strings.Contains(err.Error(), "secret@") || strings.Contains(err.Error(), "top-secret") || strings.Contains(err.Error(), "\n")) {
				t.Errorf("the reason tells a secret, or has more than a line: %v", err)
			}
		})
	}
}

// A trimmed Secret configures the same.
func TestTrim(t *testing.T) {
	whole := secret("s", "paris", 1, map[string]string{"records": "sm"})
	whole.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": "{…}"}
	whole.Labels["team"] = "a"
	whole.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	trimmed := Trim(whole)
	if len(trimmed.Annotations)+len(trimmed.ManagedFields) > 0 || len(trimmed.Labels) != 1 {
		t.Errorf("kept: %+v", trimmed)
	}
	other := secret("t", "paris", 2, nil)
	a, b := Resolve(nil, []*corev1.Secret{whole, other}, complete), Resolve(nil, []*corev1.Secret{Trim(other), trimmed}, complete)
	if !a.Remotes[0].Same(b.Remotes[0].Spec) || a.Problems()["paris"].Error() != b.Problems()["paris"].Error() || a.Remotes[0].Records != "sm" {
		t.Errorf("got %+v, want %+v", b, a)
	}
}
