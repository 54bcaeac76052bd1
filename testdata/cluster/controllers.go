package main

import (
	"context"
	"fmt"
	"strings"

	"k8s.io/kubernetes/cmd/kube-controller-manager/app"
	controllersoptions "k8s.io/kubernetes/cmd/kube-controller-manager/app/options"
)

const (
	controllersUser       = "system:kube-controller-manager"
	controllersKubeconfig = "controllers.kubeconfig"
)

// enabledControllers are those that are of use without nodes. The pod garbage
// collector is left out on purpose: it deletes Pods whose node does not exist.
var enabledControllers = []string{
	"clusterrole-aggregation-controller",
	"endpoints-controller",
	"endpointslice-controller",
	"endpointslice-mirroring-controller",
	"garbage-collector-controller",
	"namespace-controller",
	"resourcequota-controller",
	"root-ca-certificate-publisher-controller",
	"serviceaccount-controller",
	"serviceaccount-token-controller",
}

func controllersArgs() []string {
	return []string{
		"--controllers=" + strings.Join(enabledControllers, ","),
		"--kube-api-burst=1000", // the default, 30, makes a start and a deleted namespace slow
		"--kube-api-qps=1000",
		"--kubeconfig=" + controllersKubeconfig,
		"--leader-elect=false",
		"--root-ca-file=" + caCertFile,
		"--secure-port=0",
		"--service-account-private-key-file=" + serviceAccountKeyFile,
	}
}

// runControllers runs kube-controller-manager until ctx ends, as its own command does.
func runControllers(ctx context.Context, args []string) error {
	opts, err := controllersoptions.NewKubeControllerManagerOptions()
	if err != nil {
		return err
	}
	known, disabled, aliases := app.KnownControllers(), app.ControllersDisabledByDefault(), app.ControllerAliases()
	if err := parseFlags(opts.Flags(known, disabled, aliases), args); err != nil {
		return err
	}
	config, err := controllersConfig(ctx, opts, known, disabled, aliases)
	if err != nil {
		return fmt.Errorf("complete options: %w", err)
	}
	return app.Run(ctx, config.Complete())
}
