package remote

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
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
	if err := checkToken(raw, cmp.Or(contextName, raw.CurrentContext)); err != nil {
		return nil, fmt.Errorf("kubeconfig %s: %w", path, err)
	}
	cfg, err := clientcmd.NewNonInteractiveClientConfig(*raw, contextName, &clientcmd.ConfigOverrides{}, rules).ClientConfig()
	if clientcmd.IsEmptyConfig(err) {
		err = errors.New("it names no cluster: is its current-context set?")
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
		return fmt.Errorf("field token of user %.100q has a line break or another control character: write the token on one line without a trailing newline, or use tokenFile", context.AuthInfo)
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
