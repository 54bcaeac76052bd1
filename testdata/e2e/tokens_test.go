package e2e

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// boundToken is a token of the test's ServiceAccount in a cluster that is valid for a while. The API server
// itself gives none for less than ten minutes, so it is signed with the cluster's own key.
func (e *env) boundToken(c *cluster, valid time.Duration) string {
	e.Helper()
	account, err := c.CoreV1().ServiceAccounts(e.id).Get(e.ctx, e.id, metav1.GetOptions{})
	e.must(err)
	text, err := os.ReadFile(filepath.Join(c.dir, "service-account.key"))
	e.must(err)
	block, _ := pem.Decode(text)
	key, err := x509.ParseECPrivateKey(block.Bytes)
	e.must(err)
	const issuer = "https://kubernetes.default.svc.cluster.local"
	now := time.Now()
	encode := func(part any) string {
		text, err := json.Marshal(part)
		e.must(err)
		return base64.RawURLEncoding.EncodeToString(text)
	}
	signed := encode(map[string]string{"alg": "ES256", "typ": "JWT"}) + "." + encode(map[string]any{
		"iss": issuer, "aud": []string{issuer}, "sub": "system:serviceaccount:" + e.id + ":" + e.id,
		"iat": now.Unix(), "nbf": now.Unix(), "exp": now.Add(valid).Unix(),
		"kubernetes.io": map[string]any{
			"namespace": e.id, "serviceaccount": map[string]any{"name": e.id, "uid": account.UID},
		},
	})
	digest := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, digest[:])
	e.must(err)
	signature := make([]byte, 64)
	r.FillBytes(signature[:32])
	s.FillBytes(signature[32:])
	return signed + "." + base64.RawURLEncoding.EncodeToString(signature)
}

// Tokens that expire in minutes and are renewed in time, as the kubelet does it, interrupt nothing on either
// side. One that is not renewed has its remote reported, and costs no mirror.
func TestTokensExpire(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	// client-go reads the file of a token again after a minute.
	const valid, renewed = 90 * time.Second, 15 * time.Second
	ours, theirs := e.mount(map[string]string{"token": e.boundToken(london, valid)}), e.mount(map[string]string{"token": e.boundToken(paris, valid)})
	withFile := func(file string) func(*clientcmdapi.Cluster, *clientcmdapi.AuthInfo) {
		return func(_ *clientcmdapi.Cluster, user *clientcmdapi.AuthInfo) { user.Token, user.TokenFile = "", file }
	}
	e.must(os.WriteFile(r.kubeconfig, []byte(r.config(withFile(theirs.path("token")))), 0o600))
	e.kubeconfig += ".file"
	london := &remote{cluster: london, env: e, proxy: &proxy{address: strings.TrimPrefix(london.config.Host, "https://"), ca: london.config.CAData}}
	e.must(os.WriteFile(e.kubeconfig, []byte(london.config(withFile(ours.path("token")))), 0o600))
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))

	port := int32(1000)
	for end := time.Now().Add(valid + 30*time.Second); time.Now().Before(end); {
		time.Sleep(renewed)
		ours.swap(map[string]string{"token": e.boundToken(e.local, valid)})
		theirs.swap(map[string]string{"token": e.boundToken(paris, valid)})
		r.proxy.cutConnections() // so that it must authenticate again
		port++
		e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
		e.soon("a change", r.mirrored("bar", "203.0.113.1"), d.localFails(false))
	}
	if lines := d.logged("Unauthorized"); lines > 0 {
		t.Errorf("%d lines of the log say Unauthorized", lines)
	}

	// Whoever has a token uses it for up to a minute without another look at the file, and the API server
	// believes in one that it knows for ten seconds more.
	theirs.swap(map[string]string{"token": e.boundToken(paris, time.Second)})
	time.Sleep(75 * time.Second)
	r.proxy.cutConnections()
	e.eventually(soon+3*time.Second, "it is reported", d.shows(r, "down", "Unauthorized"))
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	theirs.swap(map[string]string{"token": e.boundToken(paris, valid)})
	e.eventually(40*time.Second, "it is up again", d.shows(r, "up"))
}
