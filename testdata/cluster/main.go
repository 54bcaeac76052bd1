// Command cluster is one real Kubernetes control plane in one process: etcd, kube-apiserver and
// kube-controller-manager, for tests and for trying things out by hand. There are no nodes:
// Pods are objects that whoever made them also marks as ready.
//
// It knows how to start and to end these three servers, and what they need: keys, certificates,
// tokens, a kubeconfig. It knows nothing about what is tested with it.
//
// The same binary is kubectl when it is called by that name or as "cluster kubectl", and
// kube-proxy as "cluster kube-proxy": all of them share the libraries that make the binary
// large and its build slow.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"k8s.io/component-base/cli"
	kubectl "k8s.io/kubectl/pkg/cmd"
	kubectlutil "k8s.io/kubectl/pkg/cmd/util"
	kubeproxy "k8s.io/kubernetes/cmd/kube-proxy/app"
)

const (
	exitFailure = 1
	exitUsage   = 2
)

func main() {
	// The commands below take their arguments, and the name they go by, from os.Args.
	if len(os.Args) > 1 && (os.Args[1] == "kubectl" || os.Args[1] == "kube-proxy") {
		os.Args = os.Args[1:]
	}
	switch filepath.Base(os.Args[0]) {
	case "kubectl":
		runKubectl()
	case "kube-proxy":
		os.Exit(cli.Run(kubeproxy.NewProxyCommand()))
	default:
		os.Exit(runCluster(os.Args[1:]))
	}
}

func runKubectl() {
	setVerbosity()
	if err := cli.RunNoErrOutput(kubectl.NewDefaultKubectlCommand()); err != nil {
		kubectlutil.CheckErr(err)
	}
}

// runCluster runs a control plane until a signal or the parent's end, and returns the exit code.
func runCluster(args []string) int {
	parent := os.Getppid()

	opts, errs := parseOptions(args)
	if len(errs) == 1 && errors.Is(errs[0], flag.ErrHelp) {
		printUsage(os.Stdout)
		return 0
	}
	for _, err := range errs {
		fmt.Fprintf(os.Stderr, "cluster: %v\n", err)
	}
	if len(errs) > 0 {
		return exitUsage
	}

	// Further signals change nothing: who signals a process group, as a terminal or timeout(1)
	// does, often signals its leader too; and a stop has a limit.
	ctx, ignoreSignals := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer ignoreSignals()

	if !opts.outliveParent {
		if parent == 1 {
			fmt.Fprintf(os.Stderr, "%s: %v\n", opts.name, errParentUnknown)
			return exitFailure
		}
		var cancel context.CancelCauseFunc
		ctx, cancel = context.WithCancelCause(ctx)
		var watch sync.WaitGroup
		watch.Go(func() { watchParent(ctx, parent, cancel) })
		defer watch.Wait()
		defer cancel(nil)
	}

	if err := enter(opts.dir); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", opts.name, err)
		return exitFailure
	}
	out, err := openConsole(opts.name, filepath.Join(opts.dir, logFile))
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: open log: %v\n", opts.name, err)
		return exitFailure
	}
	if err := run(ctx, opts, out); err != nil {
		out.printf("%v", err)
		return exitFailure
	}
	return 0
}
