//go:build oldest

package main

import (
	"context"

	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/config"
	controllersoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// What is called otherwise in the Kubernetes of today: current.go.

func completeAPIServer(_ context.Context, opts *apiserveroptions.ServerRunOptions) (apiserveroptions.CompletedOptions, error) {
	return opts.Complete()
}

func controllersConfig(_ context.Context, opts *controllersoptions.KubeControllerManagerOptions, known, disabled []string, aliases map[string]string) (*config.Config, error) {
	return opts.Config(known, disabled, aliases)
}

func setVerbosity() {}
