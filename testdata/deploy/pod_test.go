package deploy

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// pod is a Pod of the Deployment, made by the test in place of the controllers and run by it
// in place of a kubelet: the Pod's command with its arguments, environment, volumes and user,
// in the image's file system.
type pod struct {
	env     *env
	object  *corev1.Pod
	root    string
	address string // of --listen
	cmd     *harness.Process
	stopped bool
}

// container is the one that the Deployment has in london now.
func (e *env) container() corev1.Container {
	e.Helper()
	deployment, err := london.AppsV1().Deployments(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	if n := len(deployment.Spec.Template.Spec.Containers); n != 1 {
		e.Fatalf("the Deployment has %d containers", n)
	}
	return deployment.Spec.Template.Spec.Containers[0]
}

// podObject makes a Pod of the Deployment in london.
func (e *env) podObject(change func(*corev1.Pod)) (*corev1.Pod, error) {
	e.Helper()
	deployment, err := london.AppsV1().Deployments(ours).Get(e.ctx, ours, metav1.GetOptions{})
	e.must(err)
	template := deployment.Spec.Template
	object := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: ours + "-", Labels: template.Labels, Annotations: template.Annotations},
		Spec:       template.Spec,
	}
	change(object)
	return london.CoreV1().Pods(ours).Create(e.ctx, object, metav1.CreateOptions{})
}

// runPod starts a Pod of the Deployment and waits until it is ready. more is put into its
// environment.
func (e *env) runPod(more ...string) *pod {
	e.Helper()
	object, err := e.podObject(func(*corev1.Pod) {})
	e.must(err)
	img := e.ownImage()
	address, err := harness.FreeAddress()
	e.must(err)
	p := &pod{env: e, object: object, root: filepath.Join(e.TempDir(), "root"), address: address}
	e.must(copyTree(img.root, p.root))
	p.mount()
	container := object.Spec.Containers[0]
	cmd := img.command(p.root)
	cmd.Args = p.listening(slices.Concat(container.Command, container.Args))
	environment, err := london.Environment(object, container)
	e.must(err)
	cmd.Env = slices.Concat(cmd.Env, environment, more)
	security := object.Spec.SecurityContext
	cmd.SysProcAttr.Credential = &syscall.Credential{
		Uid: uint32(*security.RunAsUser), Gid: uint32(*security.RunAsGroup), Groups: []uint32{uint32(*security.FSGroup)},
	}
	p.cmd, err = harness.Start(cmd)
	e.must(err)
	e.Cleanup(func() {
		p.stop()
		if e.Failed() {
			e.Logf("log of %s, %v:\n%s", p.object.Name, p.cmd.Args, p.cmd.Log)
		}
	})
	e.soon("the pod is ready", func() error { return p.probe(container.ReadinessProbe) })
	e.must(p.probe(container.LivenessProbe))
	return p
}

// listening puts an address of this machine in place of the port that is the Pod's own.
func (p *pod) listening(args []string) []string {
	port := p.object.Spec.Containers[0].Ports[0].ContainerPort
	i := slices.Index(args, fmt.Sprintf("--listen=:%d", port))
	if i < 0 {
		p.env.Fatalf("the arguments %q do not listen on the port %d that the container names", args, port)
	}
	args[i] = "--listen=" + p.address
	return args
}

// mount puts what the Pod's volumes hold now where they are mounted.
func (p *pod) mount() {
	p.env.Helper()
	for _, mount := range p.object.Spec.Containers[0].VolumeMounts {
		i := slices.IndexFunc(p.object.Spec.Volumes, func(v corev1.Volume) bool { return v.Name == mount.Name })
		volume := p.object.Spec.Volumes[i]
		files, mode := map[string][]byte{}, int32(0)
		switch {
		case volume.Secret != nil:
			mode = *volume.Secret.DefaultMode
			list, err := london.CoreV1().Secrets(ours).List(p.env.ctx, metav1.ListOptions{FieldSelector: "metadata.name=" + volume.Secret.SecretName})
			p.env.must(err)
			for _, secret := range list.Items {
				files = secret.Data
			}
			if len(list.Items) == 0 && !*volume.Secret.Optional {
				p.env.Fatalf("there is no Secret %s", volume.Secret.SecretName)
			}
		case volume.Projected != nil:
			mode = 0o640 // what a kubelet makes of it where there is an fsGroup
			var err error
			files, err = london.Projected(p.env.ctx, p.object, volume.Projected.Sources)
			p.env.must(err)
		default:
			p.env.Fatalf("the volume %s is of a kind that is not known here", volume.Name)
		}
		p.env.must(p.publish(filepath.Join(p.root, mount.MountPath), files, os.FileMode(mode)))
	}
}

// publish writes a volume as a kubelet does: into a folder of its own, which a symlink that
// is swapped makes current.
func (p *pod) publish(dir string, files map[string][]byte, mode os.FileMode) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	fresh, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	group := int(*p.object.Spec.SecurityContext.FSGroup)
	if err := errors.Join(os.Chmod(fresh, 0o750), os.Chown(fresh, 0, group)); err != nil {
		return err
	}
	for name, content := range files {
		path := filepath.Join(fresh, name)
		if err := errors.Join(os.WriteFile(path, content, mode), os.Chmod(path, mode), os.Chown(path, 0, group)); err != nil {
			return err
		}
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrExist) {
			return err
		}
	}
	current := filepath.Join(dir, "..data")
	if err := os.Symlink(filepath.Base(fresh), current+".new"); err != nil {
		return err
	}
	return os.Rename(current+".new", current)
}

// probe asks what a probe of the container asks.
func (p *pod) probe(probe *corev1.Probe) error {
	get := probe.HTTPGet
	if get.Port.String() != p.object.Spec.Containers[0].Ports[0].Name {
		return fmt.Errorf("the probe asks port %v, which the container has not", get.Port)
	}
	_, err := p.get(get.Path)
	return err
}

func (p *pod) get(path string) (string, error) {
	return harness.GetOK(context.Background(), p.address, path)
}

// leads tells whether this replica is the one that writes.
func (p *pod) leads() bool {
	metrics, err := p.get("/metrics")
	return err == nil && strings.Contains(metrics, "\nservice_mirror_leader 1\n")
}

// stop ends the Pod as a kubelet would, and insists that it succeeds in time.
func (p *pod) stop() {
	p.env.Helper()
	if p.stopped {
		return
	}
	p.stopped = true
	grace := time.Duration(*p.object.Spec.TerminationGracePeriodSeconds) * time.Second
	if err := p.cmd.Stop(grace); err != nil {
		p.env.Errorf("%s was stopped: %v", p.object.Name, err)
	}
}
