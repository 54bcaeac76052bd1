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
	"sync/atomic"
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
	inline        *Inline  // in place of a file; nil: it is one
	secret        string   // that has it, for people
	files         []string // path and what it names
	digest        []byte   // of the files, when they were last read with success
}

// Inline is a kubeconfig in a Secret, which may be replaced while it is in use.
type Inline struct{ content atomic.Pointer[[]byte] }

// NewInline makes one with a content.
func NewInline(content []byte) *Inline {
	i := &Inline{}
	i.Set(content)
	return i
}

// Set replaces the content.
func (i *Inline) Set(content []byte) { i.content.Store(&content) }

// Content is what was last set.
func (i *Inline) Content() []byte { return *i.content.Load() }

// kubeconfig is that of a remote.
func (s *Spec) kubeconfig() kubeconfig {
	return kubeconfig{path: s.Kubeconfig, context: s.Context, inline: s.Inline, secret: s.Secret.String()}
}

// Load reads the kubeconfig of a remote once.
func (s *Spec) Load() (*rest.Config, error) {
	k := s.kubeconfig()
	return k.load()
}

// name is what the kubeconfig is called in messages.
func (k *kubeconfig) name() string {
	if k.inline != nil {
		return "in Secret " + k.secret
	}
	return k.path
}

// KubeconfigName is what the kubeconfig of a remote is called in messages.
func (s *Spec) KubeconfigName() string {
	k := s.kubeconfig()
	return k.name()
}

func (k *kubeconfig) load() (*rest.Config, error) {
	if k.inline == nil {
		return LoadKubeconfig(k.path, k.context)
	}
	cfg, err := ParseKubeconfig(k.inline.Content(), k.context)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", k.name(), err)
	}
	return cfg, nil
}

// ParseKubeconfig reads a kubeconfig that someone else may have written, as in a Secret: nothing of what it has in use
// may have this program read a file or run a program.
func ParseKubeconfig(content []byte, contextName string) (*rest.Config, error) {
	raw, err := clientcmd.Load(content)
	if err != nil {
		return nil, withoutUsers(err)
	}
	if err := checkInline(raw, cmp.Or(contextName, raw.CurrentContext)); err != nil {
		return nil, err
	}
	return clientConfigOf(raw, contextName, nil)
}

// withoutUsers is the error of clientcmd for two users of one name without the list of all users, which has their credentials.
func withoutUsers(err error) error {
	if text, _, listed := strings.Cut(err.Error(), " in list:"); listed {
		return errors.New(text)
	}
	return err
}

// checkInline refuses what is not in the kubeconfig itself, but is read or run where it is used.
func checkInline(config *clientcmdapi.Config, contextName string) error {
	context := config.Contexts[contextName]
	if context == nil { // clientcmd takes the cluster and the user without a name then
		context = clientcmdapi.NewContext()
	}
	var mistakes []error
	refuse := func(given bool, field, of, name, remedy string) {
		if given {
			mistakes = append(mistakes, fmt.Errorf("field %s of %s %.100q is not permitted in a Secret: %s", field, of, name, remedy))
		}
	}
	if cluster := config.Clusters[context.Cluster]; cluster != nil {
		refuse(cluster.CertificateAuthority != "", "certificate-authority", "cluster", context.Cluster, "it is a file: use certificate-authority-data")
	}
	if user := config.AuthInfos[context.AuthInfo]; user != nil {
		for _, file := range []struct {
			path, field, remedy string
		}{
			{user.ClientCertificate, "client-certificate", "client-certificate-data"},
			{user.ClientKey, "client-key", "client-key-data"},
			{user.TokenFile, "tokenFile", "token"},
		} {
			refuse(file.path != "", file.field, "user", context.AuthInfo, "it is a file: use "+file.remedy)
		}
		refuse(user.Exec != nil, "exec", "user", context.AuthInfo, "it runs a program: use a token or a certificate, as service-mirror link does")
		refuse(user.AuthProvider != nil, "auth-provider", "user", context.AuthInfo, "it runs a plugin: use a token or a certificate, as service-mirror link does")
	}
	return joined(mistakes)
}

// joined is one error of several, in one line.
func joined(all []error) error {
	if len(all) == 0 {
		return nil
	}
	var texts []string
	for _, err := range all {
		texts = append(texts, err.Error())
	}
	return errors.New(strings.Join(texts, "; "))
}

// LoadKubeconfig reads a kubeconfig file and no other source: of an empty one,
// clientcmd's usual loading would make the pod's own cluster.
func LoadKubeconfig(path, contextName string) (*rest.Config, error) {
	rules := &clientcmd.ClientConfigLoadingRules{ExplicitPath: path}
	raw, err := rules.Load()
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, withoutUsers(err))
	}
	cfg, err := clientConfigOf(raw, contextName, rules)
	if err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	return cfg, nil
}

// clientConfigOf is the client configuration of a context; empty: of the current one.
func clientConfigOf(raw *clientcmdapi.Config, contextName string, access clientcmd.ConfigAccess) (*rest.Config, error) {
	inUse := cmp.Or(contextName, raw.CurrentContext)
	if err := cmp.Or(checkToken(raw, inUse), checkProxy(raw, inUse)); err != nil {
		return nil, err
	}
	cfg, err := clientcmd.NewNonInteractiveClientConfig(*raw, contextName, &clientcmd.ConfigOverrides{}, access).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("it has no cluster: check its current-context")
	}
	if err != nil {
		return nil, err
	}
	return cfg, separateUser(cfg)
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
	if k.inline != nil {
		return k.reloadInline()
	}
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

// reloadInline is reload without files.
func (k *kubeconfig) reloadInline() (*rest.Config, error) {
	digest := sha256.Sum256(k.inline.Content())
	if bytes.Equal(digest[:], k.digest) {
		return nil, nil
	}
	cfg, err := k.load()
	if err == nil {
		k.digest = digest[:]
	}
	return cfg, err
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
