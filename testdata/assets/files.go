package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"time"
)

// Files of the directory. They are made once, so that a kubeconfig that was handed out is valid after a restart.
const (
	kubeconfigFile  = "kubeconfig"
	stateFile       = "state.json"
	tokensFile      = "tokens.csv"
	accountKeyFile  = "service-account.key"
	servingCertFile = "serving.crt"
	servingKeyFile  = "serving.key"
)

// files are what must be known of their content.
type files struct {
	Port  int
	Token string
	CA    []byte // PEM
}

func (f files) server() string { return fmt.Sprintf("https://127.0.0.1:%d", f.Port) }

// prepare writes the files, or reads those of an earlier start.
func prepare(name string) (f files, err error) {
	content, err := os.ReadFile(stateFile)
	if err == nil {
		return f, json.Unmarshal(content, &f)
	}
	if !errors.Is(err, os.ErrNotExist) {
		return f, err
	}
	f.Token = rand.Text()
	if f.Port, err = freePort(); err != nil {
		return f, err
	}
	if f.CA, err = writeServing(); err != nil {
		return f, err
	}
	if _, err = newKey(accountKeyFile); err != nil {
		return f, err
	}
	if content, err = json.Marshal(f); err != nil {
		return f, err
	}
	return f, errors.Join(
		os.WriteFile(tokensFile, []byte(f.Token+",admin,admin,system:masters\n"), 0o600),
		os.WriteFile(kubeconfigFile, []byte(f.kubeconfig(name)), 0o600),
		os.WriteFile(stateFile, content, 0o600), // last: it says that the others are complete
	)
}

func (f files) kubeconfig(name string) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters:
- name: %[1]s
  cluster: {server: %[2]q, certificate-authority-data: %[3]s}
users:
- name: %[1]s-admin
  user: {token: %[4]s}
contexts:
- name: %[1]s
  context: {cluster: %[1]s, user: %[1]s-admin}
`, name, f.server(), base64.StdEncoding.EncodeToString(f.CA), f.Token)
}

// freePort is a port that is free now. Another process could take it before the API server does, which then says so.
func freePort() (int, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	return listener.Addr().(*net.TCPAddr).Port, listener.Close()
}

// writeServing writes the API server's key and certificate, which is its own authority.
func writeServing() ([]byte, error) {
	key, err := newKey(servingKeyFile)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "kube-apiserver"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(10 * 365 * 24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true, IsCA: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"localhost", "kubernetes.default.svc"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	content := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return content, os.WriteFile(servingCertFile, content, 0o600)
}

// newKey writes a new private key.
func newKey(path string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return key, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600)
}

// await waits until the API server is ready and the kubeconfig's credentials work.
func await(ctx context.Context, f files, programs ...*process) error {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(f.CA)
	client := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer client.CloseIdleConnections()
	for {
		if f.ready(ctx, client) {
			return nil
		}
		for _, p := range programs {
			select {
			case <-p.ended:
				return p.failure()
			default:
			}
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ready requests what is there only once the first objects are: the namespace default.
func (f files) ready(ctx context.Context, client *http.Client) bool {
	for _, path := range []string{"/readyz", "/api/v1/namespaces/default"} {
		request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.server()+path, nil)
		if err != nil {
			return false
		}
		request.Header.Set("Authorization", "Bearer "+f.Token)
		response, err := client.Do(request)
		if err != nil {
			return false
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return false
		}
	}
	return true
}
