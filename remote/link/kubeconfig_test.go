package link

import (
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"testing"

	"k8s.io/client-go/tools/clientcmd"
)

func TestParseServer(t *testing.T) {
	for text, want := range map[string]string{
		"https://192.0.2.1":             "192.0.2.1 443",
		"https://192.0.2.1:6443":        "192.0.2.1 6443",
		"https://api.example.com/k8s/x": "api.example.com 443",
		"https://[2001:db8::1]:6443":    "2001:db8::1 6443",
		"https://[2001:db8::1]":         "2001:db8::1 443",
		"http://192.0.2.1":              "",
		"192.0.2.1:6443":                "",
		"https://":                      "",
		"https://a:b@192.0.2.1":         "",
		"https://192.0.2.1:0":           "",
		"https://192.0.2.1:65536":       "",
		"https://192.0.2.1:http":        "",
	} {
		got := ""
		if host, port, err := parseServer(text); err == nil {
			got = fmt.Sprint(host, " ", port)
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}

func TestKubeconfig(t *testing.T) {
	content, err := kubeconfig("paris", Endpoint{Server: "https://192.0.2.1:6443", CA: []byte("ca"), TLSName: "api.example.com", Insecure: true}, "token")
	if err != nil {
		t.Fatal(err)
	}
	config, err := clientcmd.RESTConfigFromKubeConfig(content)
	if err != nil || config.Host != "https://192.0.2.1:6443" || string(config.CAData) != "ca" || config.ServerName != "api.example.com" || config.BearerToken != "token" || config.Insecure {
		t.Errorf("%v, %v, of\n%s", config, err, content)
	}
	if again, _ := kubeconfig("paris", Endpoint{Server: "https://192.0.2.1:6443", CA: []byte("ca"), TLSName: "api.example.com"}, "token"); string(again) != string(content) {
		t.Errorf("the same is another text:\n%s", again)
	}
	for text, want := range map[string]string{string(content): "https://192.0.2.1:6443", "": "", "berlin's": "", "apiVersion: v1\nkind: Config\n": ""} {
		if got := serverOf([]byte(text)); got != want {
			t.Errorf("the server of %q is %q, want %q", text, got, want)
		}
	}
}

func TestValidateCA(t *testing.T) {
	for text, valid := range map[string]bool{
		"": false, "x": false,
		"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n": true,
		"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n": false,
	} {
		if err := ValidateCA([]byte(text)); (err == nil) != valid {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestUntrusted(t *testing.T) {
	if !untrusted(&url.Error{Op: "Get", URL: "https://x", Err: x509.UnknownAuthorityError{}}) || untrusted(errors.New("connection refused")) || untrusted(nil) {
		t.Error("it is not the certificate that counts")
	}
}
