package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/testdata/harness"
)

// cluster is a control plane whose data are gone when it is stopped.
type cluster struct{ *harness.Cluster }

// start starts a control plane whose data are new.
func (b *bench) start(name string) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	started, err := harness.StartCluster(harness.ClusterOptions{
		Name: name, Dir: dir, Program: filepath.Join(b.build, "cluster"), Command: ownGroup, Progress: log,
	})
	if err != nil {
		return nil, fmt.Errorf("%w: see %s", err, log.Name())
	}
	c := &cluster{started}
	if c.Interface, err = connect(c.Config); err != nil {
		c.stop()
		return nil, err
	}
	if version, err := c.Discovery().ServerVersion(); err == nil {
		b.kubernetes.Store(version.GitVersion)
	}
	return c, nil
}

// ownGroup is a command that a terminal's Ctrl-C does not end: it is for this program, which
// then ends what it started.
func ownGroup(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd
}

// connect makes a client with the encoding that is cheapest for the server.
func connect(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.ContentType = "application/vnd.kubernetes.protobuf"
	return harness.Connect(config)
}

func (c *cluster) stop() {
	c.Stop()
	os.RemoveAll(c.Dir)
}

// apply applies a directory of manifests as its user does.
func (c *cluster) apply(ctx context.Context, dir string) error {
	_, err := c.Kubectl(ctx, "apply", "--server-side", "-k", dir)
	return err
}

// account makes a kubeconfig of a ServiceAccount in the namespace service-mirror.
func (c *cluster) account(ctx context.Context, name string) (string, error) {
	token, err := c.RequestToken(ctx, harness.Account{Namespace: "service-mirror", Name: name})
	if err != nil {
		return "", err
	}
	path := filepath.Join(c.Dir, name+".kubeconfig")
	return path, c.WriteKubeconfig(path, token)
}

// newLondon starts an empty local cluster with the manifests applied, and gives the
// kubeconfig of the daemon's ServiceAccount.
func (b *bench) newLondon(ctx context.Context, components ...string) (*cluster, string, error) {
	london, err := b.start("london")
	if err != nil {
		return nil, "", err
	}
	account, err := b.install(ctx, london, components)
	if err != nil {
		london.stop()
		return nil, "", err
	}
	return london, account, nil
}

func (b *bench) install(ctx context.Context, london *cluster, components []string) (string, error) {
	overlay := filepath.Join(london.Dir, "overlay")
	if err := harness.WithComponents(b.deploy+"/local", overlay, components...); err != nil {
		return "", err
	}
	if err := london.apply(ctx, overlay); err != nil {
		return "", err
	}
	if err := london.namespaces(ctx, append(b.namespaces(), stormNamespace)); err != nil {
		return "", err
	}
	if err := london.ConfigureRemotes(ctx, remoteNames()...); err != nil {
		return "", err
	}
	account, err := london.account(ctx, "service-mirror")
	if err != nil {
		return "", err
	}
	return account, london.mayWrite(ctx, account)
}

// remoteNames are those of the remotes of all measurements, which the shipped policies must know.
func remoteNames() []string {
	names := []string{"paris", "berlin", "dead"}
	for i := range 50 {
		names = append(names, fmt.Sprintf("r%02d", i))
	}
	return names
}

// mayWrite waits until the ServiceAccount's permissions count.
func (c *cluster) mayWrite(ctx context.Context, kubeconfig string) error {
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		return err
	}
	client, err := connect(config)
	if err != nil {
		return err
	}
	// A name that no API server takes: allowed, it is invalid, and else forbidden.
	invalid := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: "_", Labels: map[string]string{
		"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/cluster": "paris"}}}
	return wait.PollUntilContextTimeout(ctx, 100*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		_, err := client.CoreV1().Services("default").Create(ctx, invalid, metav1.CreateOptions{})
		if err == nil {
			return false, errors.New("a Service named _ was made")
		}
		return apierrors.IsInvalid(err), nil
	})
}

// namespaces makes them.
func (c *cluster) namespaces(ctx context.Context, names []string) error {
	for _, name := range names {
		_, err := c.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name}}, metav1.CreateOptions{})
		if err != nil && !apierrors.IsAlreadyExists(err) {
			return err
		}
	}
	return nil
}
