package remote

import (
	"errors"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

// LoadLocal finds the local cluster: by the kubeconfig and the context that are given,
// else the pod's own ServiceAccount, else kubectl's rules.
func LoadLocal(kubeconfig, context string) (*rest.Config, error) {
	if kubeconfig != "" {
		return LoadKubeconfig(kubeconfig, context)
	}
	if context == "" {
		if inCluster, err := rest.InClusterConfig(); !errors.Is(err, rest.ErrNotInCluster) {
			return inCluster, err
		}
	}
	cfg, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(clientcmd.NewDefaultClientConfigLoadingRules(),
		&clientcmd.ConfigOverrides{CurrentContext: context}).ClientConfig()
	if err == nil {
		err = separateUser(cfg)
	}
	return cfg, err
}
