package link

import (
	"reflect"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"service-mirror.io/service-mirror/remote"
)

// What is written into a Secret is read from it again, and is what the same keys of --remote are.
func TestSecret(t *testing.T) {
	for text, want := range map[string]map[string]string{
		"gateway=a/b": {"gateway": "a/b"},
		"gateway=a/b,gateway=gateway-api:c/d,uid=unverified": {"gateway": "a/b\ngateway-api:c/d", "uid": "unverified"},
		"namespace=a:b,namespaces=b,c,namespace=c:d":         {"namespace": "a:b\nc:d", "namespaces": "b,c"},
		"address=192.0.2.1,address=192.0.2.2,gateway-port=1": {"address": "192.0.2.1\n192.0.2.2", "gateway-port": "1"},
	} {
		keys := ParseKeys(text).sorted()
		secret := newSecret("n", "s", "paris", keys, []byte("k"))
		if got := keysOf(secret); got.String() != keys.String() {
			t.Errorf("%s: read again, it is %s", text, got)
		}
		flag, err := keys.spec("paris")
		if err != nil {
			t.Fatal(err)
		}
		flag.Kubeconfig = ""
		if spec, err := remote.ParseData("paris", secret.Data); err != nil || !reflect.DeepEqual(spec, flag) {
			t.Errorf("%s: the daemon reads %+v, %v", text, spec, err)
		}
		if len(secret.Data) != len(want)+1 || string(secret.Data["kubeconfig"]) != "k" {
			t.Errorf("%s: the data is %q", text, secret.Data)
		}
		for name, value := range want {
			if string(secret.Data[name]) != value {
				t.Errorf("%s: %s is %q, want %q", text, name, secret.Data[name], value)
			}
		}
	}
}

// Someone else's Secret may have empty lines, and lists of namespaces in either form.
func TestSecretOfSomeoneElse(t *testing.T) {
	secret := &corev1.Secret{Data: map[string][]byte{"gateway": []byte("\na/b\r\n\nc/d\n"), "namespaces": []byte("a,b\nc\n"), "kubeconfig": []byte("x=y")}}
	if got := keysOf(secret).String(); got != ",gateway=a/b,gateway=c/d,namespaces=a,b,c" {
		t.Errorf("got %s", got)
	}
	if _, err := remote.ParseData("paris", secret.Data); err != nil {
		t.Error(err)
	}
}

// What the daemon reads of a Secret is what link reads of it.
func TestKeysOfAsTheDaemon(t *testing.T) {
	for _, text := range []string{"a, b", "a\n, b", "a,\nb"} {
		data := map[string][]byte{"namespaces": []byte(text)}
		if _, err := remote.ParseData("paris", data); err != nil {
			t.Fatal(err)
		}
		keys := keysOf(&corev1.Secret{Data: data})
		if _, err := keys.spec("paris"); err != nil {
			t.Errorf("%q: %q: %v", text, keys, err)
		}
	}
}
