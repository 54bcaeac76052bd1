//go:build !oldest

package main

import (
	"context"
	"os"

	"k8s.io/component-base/logs"
	kubectl "k8s.io/kubectl/pkg/cmd"
	apiserveroptions "k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	"k8s.io/kubernetes/cmd/kube-controller-manager/app/config"
	controllersoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

// What is called otherwise in the oldest Kubernetes that is supported: oldest.go.

func completeAPIServer(ctx context.Context, opts *apiserveroptions.ServerRunOptions) (apiserveroptions.CompletedOptions, error) {
	return opts.Complete(ctx)
}

func controllersConfig(ctx context.Context, opts *controllersoptions.KubeControllerManagerOptions, known, disabled []string, aliases map[string]string) (*config.Config, error) {
	return opts.Config(ctx, known, disabled, aliases)
}

// setVerbosity sets that of kubectl, which counts while the command is being made, long
// before it reads its flags.
func setVerbosity() { _, _ = logs.GlogSetter(kubectl.GetLogVerbosity(os.Args)) }
