package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"
)

const (
	clockSkew    = time.Hour
	certLifetime = 10 * 365 * 24 * time.Hour

	pemCertificate = "CERTIFICATE"
	pemPrivateKey  = "EC PRIVATE KEY"
)

// Files of the cluster's directory. The first three are made once, so that tokens and
// kubeconfigs handed out stay valid over a restart.
const (
	caFile                = "ca.pem" // certificate and key, so that neither is ever without the other
	serviceAccountKeyFile = "service-account.key"
	tokenPrefix           = "token-" // + user

	caCertFile      = "ca.crt"
	servingCertFile = "serving.crt"
	servingKeyFile  = "serving.key"
)

// persisted returns the file's content, or makes it if there is no such file. The rename keeps a
// half-written file from being believed after a crash.
func persisted(path string, make func() ([]byte, error)) ([]byte, error) {
	data, err := os.ReadFile(path)
	if !errors.Is(err, os.ErrNotExist) {
		return data, err
	}
	data, err = make()
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(path+".new", data, 0o600); err != nil {
		return nil, err
	}
	return data, os.Rename(path+".new", path)
}

// token returns the bearer token of a user.
func token(user string) (string, error) {
	data, err := persisted(tokenPrefix+user, func() ([]byte, error) { return []byte(rand.Text()), nil })
	return string(data), err
}

func ensureServiceAccountKey() error {
	_, err := persisted(serviceAccountKeyFile, func() ([]byte, error) {
		key, err := newKey()
		if err != nil {
			return nil, err
		}
		return encodeKey(key)
	})
	return err
}

// An authority signs the serving certificate.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func ensureAuthority(clusterName string) (*authority, error) {
	data, err := persisted(caFile, func() ([]byte, error) { return newAuthority(clusterName) })
	if err != nil {
		return nil, err
	}
	certBlock, rest := pem.Decode(data)
	keyBlock, _ := pem.Decode(rest)
	if certBlock == nil || keyBlock == nil {
		return nil, fmt.Errorf("read %s: no certificate and key in it", caFile)
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", caFile, err)
	}
	key, err := x509.ParseECPrivateKey(keyBlock.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", caFile, err)
	}
	return &authority{cert: cert, key: key}, nil
}

func newAuthority(clusterName string) ([]byte, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: clusterName + " authority"},
		NotBefore:             time.Now().Add(-clockSkew),
		NotAfter:              time.Now().Add(certLifetime),
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyPEM, err := encodeKey(key)
	return append(encodeCert(cert), keyPEM...), err
}

func (a *authority) certPEM() []byte { return encodeCert(a.cert.Raw) }

// writeServingCert makes the API server's certificate. It is made at every start: the addresses
// may be others now.
func (a *authority) writeServingCert(addrs []netip.Addr, names []string) error {
	key, err := newKey()
	if err != nil {
		return err
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: "kube-apiserver"},
		NotBefore:   time.Now().Add(-clockSkew),
		NotAfter:    a.cert.NotAfter,
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    names,
	}
	for _, addr := range addrs {
		template.IPAddresses = append(template.IPAddresses, net.IP(addr.AsSlice()))
	}
	cert, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(servingCertFile, encodeCert(cert), 0o600),
		os.WriteFile(servingKeyFile, keyPEM, 0o600),
		os.WriteFile(caCertFile, a.certPEM(), 0o600))
}

// newKey makes an elliptic-curve key: an RSA key takes noticeable time to make.
func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

func encodeCert(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: pemPrivateKey, Bytes: der}), err
}
