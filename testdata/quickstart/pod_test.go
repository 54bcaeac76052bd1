package quickstart

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// pod is one that runs: its container's command with its arguments, environment, volumes and user, in its image's files.
type pod struct {
	node     *node
	object   *corev1.Pod
	template string // of the Deployment, as it was
	address  string // of loopback, in place of an address of its own
	root     string
	env      []string
	process  *harness.Process
}

func (p *pod) container() corev1.Container { return p.object.Spec.Containers[0] }

// run pulls the image, starts the container and waits until it is ready.
func (p *pod) run(ctx context.Context) error {
	p.root = filepath.Join(p.node.TempDir(), "root")
	err := errors.Join(os.MkdirAll(p.root, 0o755), p.node.registry.pull(p.container().Image, p.root))
	if err == nil { // each pod has its own localhost
		err = os.WriteFile(filepath.Join(p.root, "etc/hosts"), []byte(p.address+" localhost\n"), 0o644)
	}
	if err == nil {
		err = p.mount(ctx)
	}
	if err == nil {
		err = p.environment()
	}
	if err != nil {
		return err
	}
	container := p.container()
	if p.process, err = harness.Start(p.command(slices.Concat(container.Command, container.Args))); err != nil {
		return err
	}
	return harness.Eventually(soon, p.object.Name+" is ready", func() error {
		if err := p.process.Running(); err != nil {
			return fmt.Errorf("%w\n%s", err, p.process.Log)
		}
		get := container.ReadinessProbe.HTTPGet
		for _, port := range container.Ports {
			if port.Name == get.Port.StrVal {
				_, err = harness.GetOK(ctx, net.JoinHostPort(p.address, fmt.Sprint(port.ContainerPort)), get.Path)
			}
		}
		return err
	})
}

// command is a command in the container.
func (p *pod) command(words []string) *exec.Cmd {
	words = slices.Clone(words)
	for i, word := range words {
		for _, variable := range p.env {
			name, value, _ := strings.Cut(variable, "=")
			word = strings.ReplaceAll(word, "$("+name+")", value)
		}
		words[i] = strings.Replace(word, "--listen=:", "--listen="+p.address+":", 1)
	}
	credential := &syscall.Credential{}
	if security := p.object.Spec.SecurityContext; security != nil {
		credential.Uid, credential.Gid = uint32(*security.RunAsUser), uint32(*security.RunAsGroup)
		if security.FSGroup != nil {
			credential.Groups = []uint32{uint32(*security.FSGroup)}
		}
	}
	return &exec.Cmd{
		Path: "/usr/bin/" + words[0], Args: words, Dir: "/", Env: p.env,
		SysProcAttr: &syscall.SysProcAttr{Chroot: p.root, Credential: credential},
	}
}

func (p *pod) environment() error {
	env, err := p.node.cluster.Environment(p.object, p.container())
	p.env = append([]string{"PATH=/usr/bin"}, env...)
	return err
}

// mount writes what the Pod's volumes have when it starts.
func (p *pod) mount(ctx context.Context) error {
	for _, mount := range p.container().VolumeMounts {
		i := slices.IndexFunc(p.object.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		files, err := p.files(ctx, p.object.Spec.Volumes[i])
		if err != nil {
			return fmt.Errorf("volume %s: %w", mount.Name, err)
		}
		dir := filepath.Join(p.root, mount.MountPath)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		for name, content := range files {
			if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
				return err
			}
		}
	}
	return nil
}

func (p *pod) files(ctx context.Context, volume corev1.Volume) (map[string][]byte, error) {
	switch {
	case volume.Secret != nil:
		secret, err := p.node.cluster.CoreV1().Secrets(p.object.Namespace).Get(ctx, volume.Secret.SecretName, metav1.GetOptions{})
		if apierrors.IsNotFound(err) && volume.Secret.Optional != nil && *volume.Secret.Optional {
			return nil, nil
		}
		return secret.Data, err
	case volume.Projected != nil:
		return p.node.cluster.Projected(ctx, p.object, volume.Projected.Sources)
	case volume.EmptyDir != nil:
		return nil, nil
	}
	return nil, errors.New("it is of a kind that is not known here")
}

// end ends the container, if one runs.
func (p *pod) end() {
	if p.process == nil {
		return
	}
	err := p.process.Stop(30 * time.Second)
	if p.node.Failed() {
		p.node.Logf("%s %s in %s, %q, ended (%v). Its log:\n%s", p.container().Image, p.object.Name, p.node.cluster.Name, p.process.Args, err, p.process.Log)
	}
	p.process = nil
}
