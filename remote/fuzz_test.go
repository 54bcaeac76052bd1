package remote

import (
	"bufio"
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/gateway"
)

// FuzzKubeconfig: a kubeconfig leads to the server that it says, or is an error that
// names the file. What the machine has besides, environment and home, says nothing.
func FuzzKubeconfig(f *testing.F) {
	good := kubeconfigFor("a.example.com", "token: secret")
	f.Add([]byte(good), "")
	f.Add([]byte(good), "two")
	f.Add([]byte(good[:len(good)/2]), "one")
	f.Add([]byte(""), "")
	f.Add([]byte("{"), "")
	f.Add([]byte("\xff\xfe\x00"), "")
	f.Add([]byte(strings.ReplaceAll(good, `server: "https://a.example.com"`, "")), "")
	f.Add([]byte(strings.ReplaceAll(good, "https://", "file:///")), "")
	f.Add([]byte(strings.ReplaceAll(good, "token: secret", "tokenFile: nowhere")), "")
	f.Add([]byte(strings.ReplaceAll(good, "token: secret", "exec: {apiVersion: client.authentication.k8s.io/v1, command: /bin/false, interactiveMode: Never}")), "")
	f.Add([]byte(strings.ReplaceAll(good, "token: secret", "auth-provider: {name: gcp}")), "")
	f.Add([]byte(strings.ReplaceAll(good, "token: secret", "client-certificate-data: AAAA, client-key-data: AAAA")), "")
	f.Add([]byte(strings.ReplaceAll(good, "cluster: one", "cluster: three")), "")
	path := filepath.Join(f.TempDir(), "paris.kubeconfig")
	f.Setenv("KUBECONFIG", "/does/not/exist")
	f.Setenv("KUBERNETES_SERVICE_HOST", "192.0.2.66")
	f.Setenv("KUBERNETES_SERVICE_PORT", "6443")
	f.Fuzz(func(t *testing.T, content []byte, context string) {
		raw, err := clientcmd.Load(content)
		if err == nil {
			for _, user := range raw.AuthInfos {
				if user.TokenFile != "" || user.ClientCertificate != "" || user.ClientKey != "" {
					return // what they name is read: that is theirs to say
				}
			}
			for _, cluster := range raw.Clusters {
				if cluster.CertificateAuthority != "" {
					return
				}
			}
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		k := &kubeconfig{path: path, context: context}
		cfg, err := k.reload()
		switch {
		case err != nil:
			if cfg != nil || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, %v: it does not name %s", cfg, err, path)
			}
		case cfg == nil:
			t.Error("neither a configuration nor an error")
		default:
			if context == "" {
				context = raw.CurrentContext
			}
			if c := raw.Contexts[context]; c == nil || raw.Clusters[c.Cluster] == nil || raw.Clusters[c.Cluster].Server != cfg.Host || cfg.Host == "" {
				t.Errorf("context %q leads to %q", context, cfg.Host)
			}
			if again, err := k.reload(); again != nil || err != nil {
				t.Errorf("unchanged, it is read as %v, %v", again, err)
			}
		}
	})
}

// FuzzGatewayChoice: an exported Service leads through a gateway that the flags list,
// or through none.
func FuzzGatewayChoice(f *testing.F) {
	for _, seed := range []string{"", "ingress/public", "ingress/private", "ingress/other", "/", "ingress/", "a/b/c", "ingress/public ", "\x00/\xff", strings.Repeat("x", 300) + "/y"} {
		f.Add(seed)
	}
	public, private := &gateway.Gateway{Port: "1"}, &gateway.Gateway{Port: "2"}
	gateways := Gateways{Known: map[cache.ObjectName]*gateway.Gateway{
		{}: public, cache.NewObjectName("ingress", "public"): public, cache.NewObjectName("ingress", "private"): private,
	}}
	f.Fuzz(func(t *testing.T, text string) {
		got, err := gateways.For(&corev1.Service{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{gateway.Annotation: text}}})
		want := map[string]*gateway.Gateway{"": public, "ingress/public": public, "ingress/private": private}[text]
		switch {
		case want != nil && (got != want || err != nil):
			t.Errorf("%q leads through %v, %v", text, got, err)
		case want == nil && (err == nil || got == nil || len(got.Addresses)+len(got.Ports) > 0 || len(err.Error()) > 2000):
			t.Errorf("%q leads through %v, %v", text, got, err)
		}
	})
}

// Whatever begins an answer, its kind is read or it has none.
func FuzzProtobufKind(f *testing.F) {
	f.Add(encode(&corev1.ServiceList{}))
	f.Add([]byte("k8s\x00\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"))
	f.Fuzz(func(t *testing.T, body []byte) {
		kind, err := protobufKind(bufio.NewReader(bytes.NewReader(body)))
		if (kind == nil) == (err == nil) {
			t.Errorf("got %v and %v", kind, err)
		}
	})
}
