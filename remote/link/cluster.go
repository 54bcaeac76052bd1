package link

import (
	"fmt"
	"strings"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// LoadCluster finds a cluster as kubectl does: by a kubeconfig, or else the usual ones, and a context, or else the
// current one.
func LoadCluster(kubeconfig, context, agent string) (*Cluster, error) {
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = kubeconfig
	loader := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, &clientcmd.ConfigOverrides{CurrentContext: context})
	raw, err := loader.RawConfig()
	if err != nil {
		return nil, err
	}
	if context != "" {
		raw.CurrentContext = context
	}
	if raw.CurrentContext == "" {
		return nil, fmt.Errorf("no context is set, and %s has no current context", sources(rules))
	}
	if raw.Contexts[raw.CurrentContext] == nil {
		return nil, fmt.Errorf("context %s does not exist in %s", raw.CurrentContext, sources(rules))
	}
	config, err := loader.ClientConfig()
	if err != nil {
		return nil, err
	}
	config.UserAgent = agent
	c := &Cluster{Name: raw.CurrentContext, Config: config, Flags: KubectlFlags(kubeconfig, raw.CurrentContext)}
	c.Endpoint, err = endpointOf(raw)
	return c, err
}

// KubectlFlags are those of kubectl for a context of a kubeconfig, which may be empty, for a shell.
func KubectlFlags(kubeconfig, context string) string {
	var flags []string
	if kubeconfig != "" {
		flags = append(flags, "--kubeconfig "+quoted(kubeconfig))
	}
	if context != "" {
		flags = append(flags, "--context "+quoted(context))
	}
	return strings.Join(flags, " ")
}

// sources are the files of a kubeconfig.
func sources(rules *clientcmd.ClientConfigLoadingRules) string {
	return strings.Join(rules.GetLoadingPrecedence(), ", ")
}

// endpointOf is the API server of the current context.
func endpointOf(config clientcmdapi.Config) (Endpoint, error) {
	if err := clientcmdapi.MinifyConfig(&config); err != nil {
		return Endpoint{}, err
	}
	if err := clientcmdapi.FlattenConfig(&config); err != nil {
		return Endpoint{}, err
	}
	for _, cluster := range config.Clusters { // the only one
		return Endpoint{Server: cluster.Server, CA: cluster.CertificateAuthorityData, TLSName: cluster.TLSServerName, Insecure: cluster.InsecureSkipTLSVerify}, nil
	}
	return Endpoint{}, fmt.Errorf("context %s has no cluster", config.CurrentContext)
}
