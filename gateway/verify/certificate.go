package verify

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"service-mirror.io/service-mirror/remote/failure"
)

// presented is what a gateway presented in a TLS handshake.
type presented struct {
	names    []string // of its certificate, the first few
	problem  string   // why clients do not trust it; empty: they do
	remedy   string
	demanded bool // it requests a client's certificate, whether it requires one or not
}

// certificateCheck checks what a gateway presents.
type certificateCheck struct {
	host     string
	roots    *x509.CertPool // nil: those of the system
	trusting bool           // any certificate will do: it is asked for a name that cannot exist

	mu    sync.Mutex
	found presented
}

func (c *certificateCheck) presented() presented {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.found
}

// config has the check made in place of Go's own, so that the certificate of one that fails is known.
func (c *certificateCheck) config() *tls.Config {
	return &tls.Config{
		ServerName: c.host, InsecureSkipVerify: true,
		VerifyConnection: c.verify,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.found.demanded = true
			return &tls.Certificate{}, nil
		},
	}
}

var errUntrusted = errors.New("the certificate is not trusted")

func (c *certificateCheck) verify(state tls.ConnectionState) error {
	leaf := state.PeerCertificates[0]
	options := x509.VerifyOptions{Roots: c.roots, DNSName: c.host, Intermediates: x509.NewCertPool()}
	for _, more := range state.PeerCertificates[1:] {
		options.Intermediates.AddCert(more)
	}
	names := namesOf(leaf)
	var problem, remedy string
	if !c.trusting {
		if _, err := leaf.Verify(options); err != nil {
			problem, remedy = c.explain(leaf, names, err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.found.names, c.found.problem, c.found.remedy = names, problem, remedy
	if problem != "" {
		return errUntrusted // before anything is sent
	}
	return nil
}

// explain says why a certificate is not trusted, and what to do about it.
func (c *certificateCheck) explain(leaf *x509.Certificate, names []string, err error) (problem, remedy string) {
	_, parent, _ := strings.Cut(c.host, ".")
	var wrongName x509.HostnameError
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &wrongName):
		return fmt.Sprintf("the certificate is for %s, not for %s%s", list(names), c.host, otherNamespace(names, c.host)),
			fmt.Sprintf("use a gateway certificate for *.%s, or for %s", parent, c.host)
	case errors.As(err, &unknown):
		return fmt.Sprintf("the certificate for %s is signed by the untrusted CA %.100q", list(names), leaf.Issuer.CommonName),
			"set its root certificate with --ca-file, or use a gateway certificate that clients trust"
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return fmt.Sprintf("the certificate for %s is valid from %s to %s", list(names), leaf.NotBefore.UTC().Format(time.DateTime), leaf.NotAfter.UTC().Format(time.DateTime)),
			"renew the gateway's certificate, and check the clock of this machine"
	}
	return fmt.Sprintf("the certificate for %s is not valid: %.200s", list(names), failure.Line(failure.Cause(err))), "use a valid gateway certificate"
}

// namesOf are the first few names of a certificate, which its owner chose.
func namesOf(cert *x509.Certificate) (names []string) {
	const few = 5
	all := slices.Clone(cert.DNSNames)
	for _, ip := range cert.IPAddresses {
		all = append(all, ip.String())
	}
	for _, name := range all[:min(few, len(all))] {
		names = append(names, fmt.Sprintf("%.253s", failure.Printable(name)))
	}
	if len(all) > few {
		names = append(names, fmt.Sprintf("%d more", len(all)-few))
	}
	return names
}

func list(names []string) string {
	if len(names) == 0 {
		return "no name"
	}
	return strings.Join(names, ", ")
}

// otherNamespace names the namespace of a wildcard that would do for the Services of another one.
func otherNamespace(names []string, host string) string {
	_, parent, _ := strings.Cut(host, ".")
	_, domain, _ := strings.Cut(parent, ".")
	for _, name := range names {
		below, wildcard := strings.CutPrefix(name, "*.")
		if namespace, rest, _ := strings.Cut(below, "."); wildcard && rest == domain && below != parent {
			return ": it is a wildcard for namespace " + namespace
		}
	}
	return ""
}

// alert tells a handshake that the gateway has ended, by an alert or without a word.
func alert(err error) bool {
	return strings.Contains(err.Error(), "remote error: tls") || closedBy(err)
}
