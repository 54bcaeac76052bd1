package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// cluster is a real control plane in a process of its own.
type cluster struct {
	kubernetes.Interface
	name, dir, program, kubeconfig string
	config                         *rest.Config
	proc                           *exec.Cmd
}

// start starts a control plane whose data are new.
func (b *bench) start(ctx context.Context, name string) (*cluster, error) {
	dir, err := os.MkdirTemp(b.dir, name+"-")
	if err != nil {
		return nil, err
	}
	c := &cluster{name: name, dir: dir, program: b.build + "/cluster"}
	log, err := os.Create(dir + ".log")
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c.proc = exec.Command(c.program, "--name", name, "--dir", dir)
	// A terminal's Ctrl-C is for this program, which then ends its clusters.
	c.proc.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	c.proc.Stderr = log
	out, err := c.proc.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.proc.Start(); err != nil {
		return nil, err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		c.stop()
		return nil, fmt.Errorf("%s did not start: see %s.log", name, dir)
	}
	go io.Copy(io.Discard, out)
	c.kubeconfig = strings.TrimSpace(line)
	if c.config, err = clientcmd.BuildConfigFromFlags("", c.kubeconfig); err != nil {
		c.stop()
		return nil, err
	}
	if c.Interface, err = connect(c.config); err != nil {
		c.stop()
		return nil, err
	}
	return c, nil
}

// connect makes a client without limits of its own, and with the encoding that is
// cheapest for the server.
func connect(config *rest.Config) (kubernetes.Interface, error) {
	config = rest.CopyConfig(config)
	config.QPS = -1
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.WarningHandler = rest.NoWarnings{}
	return kubernetes.NewForConfig(config)
}

func (c *cluster) stop() {
	c.proc.Process.Signal(syscall.SIGTERM)
	killed := time.AfterFunc(20*time.Second, func() { c.proc.Process.Kill() })
	c.proc.Wait()
	killed.Stop()
	os.RemoveAll(c.dir)
}

// apply applies a directory of manifests as its user does.
func (c *cluster) apply(ctx context.Context, dir string) error {
	out, err := exec.CommandContext(ctx, c.program, "kubectl", "--kubeconfig", c.kubeconfig, "apply", "--server-side", "-k", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: kubectl apply -k %s: %w\n%s", c.name, dir, err, out)
	}
	return nil
}

// account makes a kubeconfig of a ServiceAccount in the namespace service-mirror.
func (c *cluster) account(ctx context.Context, name string) (string, error) {
	seconds := int64(24 * 60 * 60)
	token, err := c.CoreV1().ServiceAccounts("service-mirror").CreateToken(ctx, name,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("%s: token of ServiceAccount %s: %w", c.name, name, err)
	}
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: c.config.Host, CertificateAuthorityData: c.config.CAData, CertificateAuthority: c.config.CAFile}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: token.Status.Token}
	config.Contexts["x"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "x"
	path := filepath.Join(c.dir, name+".kubeconfig")
	return path, clientcmd.WriteToFile(*config, path)
}

// newLondon starts an empty local cluster with the manifests applied, and gives the
// kubeconfig of the daemon's ServiceAccount.
func (b *bench) newLondon(ctx context.Context, components ...string) (*cluster, string, error) {
	london, err := b.start(ctx, "london")
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
	overlay := filepath.Join(london.dir, "overlay")
	if err := os.CopyFS(overlay, os.DirFS(b.deploy+"/local")); err != nil {
		return "", err
	}
	file := filepath.Join(overlay, "kustomization.yaml")
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	for _, component := range components {
		text = []byte(strings.Replace(string(text), "# - "+component, "- "+component, 1))
	}
	if err := os.WriteFile(file, text, 0o644); err != nil {
		return "", err
	}
	if err := london.apply(ctx, overlay); err != nil {
		return "", err
	}
	if err := london.namespaces(ctx, append(b.namespaces(), stormNamespace)); err != nil {
		return "", err
	}
	account, err := london.account(ctx, "service-mirror")
	if err != nil {
		return "", err
	}
	return account, london.mayWrite(ctx, account)
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
