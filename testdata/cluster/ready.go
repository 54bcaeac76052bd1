package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

const readyPollInterval = 50 * time.Millisecond

// newClient takes the kubeconfig that is handed out, so that it is known to work.
func newClient(kubeconfig string) (kubernetes.Interface, error) {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return nil, err
	}
	config.UserAgent = "cluster"
	config.QPS = -1 // no limit
	config.Timeout = 10 * time.Second
	return kubernetes.NewForConfig(config)
}

func awaitAPIServer(ctx context.Context, client kubernetes.Interface) error {
	return poll(ctx, func(ctx context.Context) error {
		return client.Discovery().RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

// awaitControllers waits for what every cluster has a moment after its start, and for the
// controllers to work. After a restart, all that they make is there already; so one thing is
// taken away, and its return is the proof.
func awaitControllers(ctx context.Context, client kubernetes.Interface) error {
	const witness = "kube-root-ca.crt"
	witnesses := client.CoreV1().ConfigMaps(metav1.NamespacePublic)
	if err := witnesses.Delete(ctx, witness, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("delete %s: %w", witness, err)
	}
	return poll(ctx, func(ctx context.Context) error {
		_, err := witnesses.Get(ctx, witness, metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = client.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
		if err != nil {
			return err
		}
		_, err = client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Get(ctx, "default", metav1.GetOptions{})
		return err
	})
}

// poll calls try until it succeeds. When ctx ends first, the error is why it did.
func poll(ctx context.Context, try func(context.Context) error) error {
	err := wait.PollUntilContextCancel(ctx, readyPollInterval, true, func(ctx context.Context) (bool, error) {
		return try(ctx) == nil, nil
	})
	if err != nil {
		return context.Cause(ctx)
	}
	return nil
}
