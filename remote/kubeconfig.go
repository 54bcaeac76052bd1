package remote

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/url"
	"os"
	"slices"
	"strings"
	"unicode"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// kubeconfig is a file that is read again when it changes: its own bytes or
// those of a certificate, key or token file that it names. Content counts, not
// times or inodes: a mounted Secret changes by swapping a symlink.
type kubeconfig struct {
	path, context string
	files         []string // path and what it names
	digest        []byte   // of the files, when they were last read with success
}

// LoadKubeconfig reads a kubeconfig file and no other source: of an empty one,
// clientcmd's usual loading would make the pod's own cluster.
func LoadKubeconfig(path, contextName string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	raw, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	inUse := cmp.Or(contextName, raw.CurrentContext)
	if err := cmp.Or(checkToken(raw, inUse), checkProxy(raw, inUse)); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	cfg, err := clientcmd.NewNonInteractiveClientConfig(*raw, contextName, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("it has no cluster: check its current-context")
	}
	if err == nil {
		err = separateUser(cfg)
	}
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return cfg, nil
}

// checkToken refuses a token that no HTTP header can carry: each request would fail as if
// the server could not be reached. Of a token file client-go trims the content.
func checkToken(config *clientcmdapi.Config, contextName string) error {
	context := config.Contexts[contextName]
	if context == nil {
		return nil // which is another error
	}
	user := config.AuthInfos[context.AuthInfo]
	if user != nil && user.TokenFile == "" && strings.ContainsFunc(user.Token, unicode.IsControl) {
		return fmt.Errorf("the token of user %.100q contains a control character: write it on one line without a trailing newline, or use tokenFile", context.AuthInfo)
	}
	return nil
}

// checkProxy refuses the URL of a proxy that client-go would refuse too, and print with
// its password.
func checkProxy(config *clientcmdapi.Config, contextName string) error {
	context := config.Contexts[contextName]
	if context == nil || config.Clusters[context.Cluster] == nil {
		return nil // which is another error
	}
	proxy := config.Clusters[context.Cluster].ProxyURL
	if !strings.Contains(proxy, "@") {
		return nil
	}
	if parsed, err := url.Parse(proxy); err != nil || !slices.Contains([]string{"http", "https", "socks5"}, parsed.Scheme) {
		return fmt.Errorf("the proxy-url of cluster %.100q is not an http, https or socks5 URL: write it as http://USER:PASSWORD@HOST:PORT, with special characters escaped", context.Cluster)
	}
	return nil
}

// separateUser takes user and password out of the server's URL, which is printed in
// many places, and makes them the credentials that they would be there.
func separateUser(cfg *rest.Config) error {
	scheme, address, found := strings.Cut(cfg.Host, "://")
	if !found {
		scheme, address = "https", cfg.Host
	}
	if !strings.Contains(address, "@") {
		return nil
	}
	server, err := url.Parse(scheme + "://" + address)
	switch {
	case err == nil && server.User == nil:
		return nil
	case err != nil:
		return errors.New("the server's URL is malformed: write it as https://HOST:PORT, without user and password")
	case cfg.BearerToken != "" || cfg.BearerTokenFile != "" || cfg.Username != "" || cfg.ExecProvider != nil || cfg.AuthProvider != nil:
		return errors.New("the server's URL contains a user name, but the user has other credentials: remove the user name and password from the URL")
	}
	cfg.Username = server.User.Username()
	cfg.Password, _ = server.User.Password()
	server.User = nil
	if cfg.Host = server.String(); !found {
		cfg.Host = strings.TrimPrefix(cfg.Host, "https://")
	}
	return nil
}

// again has the next reload give the configuration even if nothing changed.
func (k *kubeconfig) again() { k.digest = nil }

// reload gives the client configuration if it is new, else nil.
func (k *kubeconfig) reload() (*rest.Config, error) {
	if k.files == nil {
		k.files = []string{k.path}
	}
	digest, err := digest(k.files)
	if err != nil {
		k.files = nil // it may name others by now
		return nil, err
	}
	if bytes.Equal(digest, k.digest) {
		return nil, nil
	}
	cfg, err := LoadKubeconfig(k.path, k.context)
	if err != nil {
		return nil, err
	}
	files := []string{k.path}
	for _, file := range []string{cfg.CAFile, cfg.CertFile, cfg.KeyFile, cfg.BearerTokenFile} {
		if file != "" {
			files = append(files, file)
		}
	}
	if !slices.Equal(files, k.files) {
		k.files = files
		return k.reload() // a digest must be older than what was read
	}
	k.digest = digest
	return cfg, nil
}

func digest(files []string) ([]byte, error) {
	hash := sha256.New()
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(hash, "%d\n", len(content))
		hash.Write(content)
	}
	return hash.Sum(nil), nil
}
