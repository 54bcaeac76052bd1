package main

import (
	"net/url"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// access is what a kubeconfig says.
type access struct {
	cluster string
	server  *url.URL
	ca      []byte // PEM
	user    string
	token   string
}

// write makes a kubeconfig that needs no other file, with the cluster's name for its context.
func (a access) write(path string) error {
	config := api.NewConfig()
	config.Clusters[a.cluster] = &api.Cluster{
		Server:                   a.server.String(),
		CertificateAuthorityData: a.ca,
	}
	user := a.cluster + "-" + a.user
	config.AuthInfos[user] = &api.AuthInfo{Token: a.token}
	config.Contexts[a.cluster] = &api.Context{Cluster: a.cluster, AuthInfo: user}
	config.CurrentContext = a.cluster
	return clientcmd.WriteToFile(*config, path)
}
