package link

import (
	"bytes"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Endpoint is an API server, and how its certificate is checked.
type Endpoint struct {
	Server   string // URL
	CA       []byte // PEM; empty: public CAs
	TLSName  string // that the certificate is for, if it is not that of the URL
	Insecure bool   // it is not checked at all
}

// parseServer reads the URL of an API server.
func parseServer(text string) (host string, port int32, err error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", 0, fmt.Errorf("%.200q is not https://HOST:PORT", text)
	}
	if u.Port() == "" {
		return u.Hostname(), 443, nil
	}
	number, err := strconv.ParseUint(u.Port(), 10, 16)
	if err != nil || number == 0 {
		return "", 0, fmt.Errorf("%.200q has no valid port number", text)
	}
	return u.Hostname(), int32(number), nil
}

// ValidateServer checks the URL of an API server.
func ValidateServer(text string) error {
	_, _, err := parseServer(text)
	return err
}

// ValidateCA checks certificates in PEM.
func ValidateCA(text []byte) error {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "CERTIFICATE" {
		return errors.New("no certificate found: use a PEM file with BEGIN CERTIFICATE")
	}
	return nil
}

// ownHost tells a host that is another one for each who connects to it, so that pods cannot reach what is meant.
func ownHost(host string) bool {
	addr, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && (addr.Unmap().IsLoopback() || addr.IsUnspecified())
}

// kubeconfig has a token for an API server, and one context.
func kubeconfig(name string, at Endpoint, token string) ([]byte, error) {
	config := clientcmdapi.NewConfig()
	config.CurrentContext = name
	config.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	config.Clusters[name] = &clientcmdapi.Cluster{Server: at.Server, CertificateAuthorityData: at.CA, TLSServerName: at.TLSName}
	config.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	return clientcmd.Write(*config)
}

// serverOf is the API server of a kubeconfig that a link made; empty: it is another file.
func serverOf(content []byte) string {
	if len(bytes.TrimSpace(content)) == 0 {
		return ""
	}
	config, err := clientcmd.Load(content)
	if err != nil || config.Contexts[config.CurrentContext] == nil {
		return ""
	}
	if cluster := config.Clusters[config.Contexts[config.CurrentContext].Cluster]; cluster != nil {
		return cluster.Server
	}
	return ""
}
