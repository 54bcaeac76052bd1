// Command assets is one Kubernetes control plane of the programs in a folder, as KUBEBUILDER_ASSETS names one for the tests
// of controllers: etcd and kube-apiserver. For the demo it does what testdata/cluster does, without compiling Kubernetes and
// without kube-controller-manager, which such a folder does not have.
//
// Once it is ready it prints the path of its kubeconfig. It ends with a signal, with the process that started it, or with
// one of its programs. A start with the same directory goes on where the last ended.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// readyLimit is many times what a start takes on a busy machine.
const readyLimit = 3 * time.Minute

type options struct {
	name, dir, assets string
	outliveParent     bool
}

func main() {
	var o options
	flag.StringVar(&o.name, "name", "cluster", "`name` of the cluster and of its context in the kubeconfig")
	flag.StringVar(&o.dir, "dir", "", "`directory` of its data")
	flag.StringVar(&o.assets, "assets", os.Getenv("KUBEBUILDER_ASSETS"), "`directory` with etcd and kube-apiserver")
	flag.BoolVar(&o.outliveParent, "outlive-parent", false, "go on when the process that started this one ends")
	flag.Parse()
	if o.dir == "" || o.assets == "" || flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	parent := os.Getppid()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if !o.outliveParent {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(ctx)
		go watchParent(ctx, parent, cancel)
	}
	if err := o.run(ctx); err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", o.name, err)
		os.Exit(1)
	}
}

// watchParent calls end when the process has another parent than the given one, which is what happens when a parent dies.
func watchParent(ctx context.Context, parent int, end func()) {
	for ctx.Err() == nil {
		if os.Getppid() != parent {
			end()
		}
		select {
		case <-ctx.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// run runs the control plane until ctx ends, which is no error, or one of its programs does.
func (o options) run(ctx context.Context) error {
	start := time.Now()
	assets, err := filepath.Abs(o.assets)
	if err != nil {
		return err
	}
	if err := errors.Join(os.MkdirAll(o.dir, 0o700), os.Chdir(o.dir)); err != nil {
		return err
	}
	files, err := prepare(o.name)
	if err != nil {
		return err
	}
	etcd, err := launch(filepath.Join(assets, "etcd"), etcdArgs()...)
	if err != nil {
		return err
	}
	defer etcd.stop()
	apiserver, err := launch(filepath.Join(assets, "kube-apiserver"), apiserverArgs(files)...)
	if err != nil {
		return err
	}
	defer apiserver.stop()
	ready, cancel := context.WithTimeoutCause(ctx, readyLimit, fmt.Errorf("kube-apiserver is not ready after %v", readyLimit))
	defer cancel()
	if err := await(ready, files, etcd, apiserver); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	fmt.Fprintf(os.Stderr, "%s: ready in %.1fs at %s\n", o.name, time.Since(start).Seconds(), files.server())
	kubeconfig, err := filepath.Abs(kubeconfigFile)
	if err != nil {
		return err
	}
	fmt.Println(kubeconfig)
	select {
	case <-ctx.Done():
		return nil
	case <-etcd.ended:
		return etcd.failure()
	case <-apiserver.ended:
		return apiserver.failure()
	}
}

// etcdSocket is in the working directory, where a path cannot be too long for a socket, and no port can be taken.
const etcdSocket = "unix://etcd.sock"

func etcdArgs() []string {
	return []string{
		"--data-dir=etcd", "--unsafe-no-fsync", "--listen-client-urls=" + etcdSocket, "--advertise-client-urls=" + etcdSocket,
		"--listen-peer-urls=unix://etcd-peer.sock", // nobody uses it
		"--log-level=warn",
	}
}

func apiserverArgs(f files) []string {
	return []string{
		"--advertise-address=127.0.0.1", "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", f.Port),
		"--endpoint-reconciler-type=none", // which would try for ever: the API refuses Endpoints of loopback
		"--allow-privileged", "--authorization-mode=RBAC", "--token-auth-file=" + tokensFile,
		"--etcd-servers=" + etcdSocket,
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + accountKeyFile, "--service-account-signing-key-file=" + accountKeyFile,
		"--service-cluster-ip-range=10.96.0.0/16",
		"--shutdown-watch-termination-grace-period=1s",
		"--tls-cert-file=" + servingCertFile, "--tls-private-key-file=" + servingKeyFile,
	}
}
