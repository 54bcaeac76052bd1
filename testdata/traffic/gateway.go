package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"service-mirror.io/service-mirror/testdata/harness"
)

// gatewayPod is a gateway that runs: what deploy/gateways says, in a pod.
type gatewayPod struct {
	cluster *cluster
	pod     *namespace
	process *process
	name    string

	address, address6 string // of the pod
}

// edit changes one of the files that a user may change; without old, all of it.
type edit struct{ file, old, new string }

// installGateway applies deploy/gateways/KIND to a cluster, with these edits, as
// a user does, and then does what a kubelet does with the Deployment's Pod and
// what a load balancer does with the Service: it has these addresses.
func (c *cluster) installGateway(kind string, addresses []string, edits ...edit) (*gatewayPod, error) {
	manifests, err := os.MkdirTemp(c.world.dir, kind+"-")
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(manifests, os.DirFS(filepath.Join("../../deploy/gateways", kind))); err != nil {
		return nil, err
	}
	for _, e := range edits {
		path := filepath.Join(manifests, e.file)
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		if e.old == "" {
			text, e.old = []byte("all"), "all"
		}
		if strings.Count(string(text), e.old) != 1 {
			return nil, fmt.Errorf("%s/%s does not have %q once", kind, e.file, e.old)
		}
		if err := os.WriteFile(path, []byte(strings.Replace(string(text), e.old, e.new, 1)), 0o644); err != nil {
			return nil, err
		}
	}
	if _, err := c.Kubectl(background, "apply", "-k", manifests); err != nil {
		return nil, err
	}
	if err := c.createTLS("gateway"); err != nil {
		return nil, err
	}
	deployment, err := c.AppsV1().Deployments("gateway").Get(background, "gateway", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	g := &gatewayPod{cluster: c, name: fmt.Sprintf("gateway-%s-%d", kind, c.used)}
	pod := &corev1.Pod{ObjectMeta: deployment.Spec.Template.ObjectMeta, Spec: deployment.Spec.Template.Spec}
	pod.Namespace, pod.Name = "gateway", g.name
	if g.pod, err = c.podOf(pod); err != nil {
		return nil, err
	}
	g.address, g.address6 = podAddresses(c.used)
	if err := g.start(deployment); err != nil {
		return nil, err
	}
	if err := c.ready("gateway", g.name); err != nil {
		return nil, err
	}
	return g, c.loadBalancer("gateway", "gateway", addresses...)
}

// createTLS makes the Secret that the READMEs ask for.
func (c *cluster) createTLS(space string) error {
	// As cert-manager makes it. Skipper wants this type.
	secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "gateway-tls"}, Type: corev1.SecretTypeTLS, Data: map[string][]byte{}}
	name := c.name + "-gateway"
	for key, path := range map[string]string{"tls.crt": c.world.root.file(name), "tls.key": c.world.root.keyFile(name), "ca.crt": c.world.root.file("ca")} {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		secret.Data[key] = data
	}
	_, err := c.CoreV1().Secrets(space).Create(background, secret, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// start runs the container as the manifest has it: its command, its
// environment, its volumes, its user. Different from a cluster are only the
// program, which is the machine's and not the image's, and an nginx whose
// stream module is a file to be loaded, as Debian's is.
func (g *gatewayPod) start(deployment *appsv1.Deployment) error {
	spec := deployment.Spec.Template.Spec
	container := spec.Containers[0]
	if err := g.mount(spec, container); err != nil {
		return err
	}
	user := *spec.SecurityContext.RunAsUser
	args := []string{"env", "-i", "PATH=/run/bin:" + os.Getenv("PATH")}
	for _, e := range container.Env {
		args = append(args, e.Name+"="+e.Value)
	}
	args = append(args, "setpriv", fmt.Sprintf("--reuid=%d", user), fmt.Sprintf("--regid=%d", user), "--clear-groups", "--no-new-privs",
		"--bounding-set=-all", "--inh-caps=-all", "--")
	for _, arg := range append(container.Command, container.Args...) {
		for _, e := range container.Env {
			arg = strings.ReplaceAll(arg, "$("+e.Name+")", e.Value)
		}
		if arg == "daemon off;" {
			arg = "load_module /usr/lib/nginx/modules/ngx_stream_module.so; " + arg
		}
		args = append(args, arg)
	}
	var err error
	script := `cd / && mount -t tmpfs -o mode=1777 tmpfs /tmp && exec "$@"`
	if g.process, err = g.pod.start("gateway", "sh", append([]string{"-c", script, "sh"}, args...)...); err != nil {
		return err
	}
	probe := container.ReadinessProbe.HTTPGet
	number := probe.Port.IntVal
	for _, p := range container.Ports {
		if probe.Port == intstr.FromString(p.Name) {
			number = p.ContainerPort
		}
	}
	return eventually("the readiness probe of "+g.name, func() error {
		if err := g.process.running(); err != nil {
			return err
		}
		_, err := callFrom(g.pod, fmt.Sprintf("http://127.0.0.1:%d%s", number, probe.Path))
		return err
	})
}

// mount puts ConfigMaps and Secrets where the container will see them.
func (g *gatewayPod) mount(spec corev1.PodSpec, container corev1.Container) error {
	for _, program := range []string{"caddy", "envoy"} {
		if program != container.Command[0] {
			continue
		}
		if err := installProgram(harness.Program(program)); err != nil {
			return err
		}
	}
	for _, mount := range container.VolumeMounts {
		for _, volume := range spec.Volumes {
			if volume.Name != mount.Name || volume.EmptyDir != nil {
				continue
			}
			below, ok := strings.CutPrefix(mount.MountPath, "/etc/")
			if !ok {
				return fmt.Errorf("%s is mounted at %s: nothing but /etc is the pod's own here", mount.Name, mount.MountPath)
			}
			files, err := g.files(volume)
			if err != nil {
				return err
			}
			for name, data := range files {
				if err := writeFile(filepath.Join(g.pod.etc(), below, name), data); err != nil {
					return err
				}
			}
			// What is bound over it must be there.
			if err := os.MkdirAll(filepath.Join("/etc", strings.Split(below, "/")[0]), 0o755); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *gatewayPod) files(volume corev1.Volume) (map[string]string, error) {
	files := map[string]string{}
	switch {
	case volume.ConfigMap != nil:
		config, err := g.cluster.CoreV1().ConfigMaps("gateway").Get(background, volume.ConfigMap.Name, metav1.GetOptions{})
		return config.Data, err
	case volume.Secret != nil:
		secret, err := g.cluster.CoreV1().Secrets("gateway").Get(background, volume.Secret.SecretName, metav1.GetOptions{})
		if err != nil {
			return nil, err
		}
		for key, data := range secret.Data {
			files[key] = string(data)
		}
		for _, item := range volume.Secret.Items {
			data := files[item.Key]
			delete(files, item.Key)
			files[item.Path] = data
		}
		return files, nil
	}
	return nil, errors.New("a volume of a kind unknown here: " + volume.Name)
}

// installProgram copies a program to where any user may run it.
func installProgram(from string) error {
	to := filepath.Join("/run/bin", filepath.Base(from))
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return errors.Join(os.MkdirAll("/run/bin", 0o755), os.WriteFile(to, data, 0o755))
}

// remove takes the gateway away with all that was applied, but for the
// namespace and what is in it by other hands.
func (g *gatewayPod) remove() error {
	g.process.stop(syscall.SIGTERM)
	var now int64
	reserved := g.cluster.CoreV1().ConfigMaps("gateway").Delete(background, "tcp-services", metav1.DeleteOptions{})
	if apierrors.IsNotFound(reserved) { // not every kind has one
		reserved = nil
	}
	return errors.Join(
		reserved,
		g.cluster.CoreV1().Pods("gateway").Delete(background, g.name, metav1.DeleteOptions{GracePeriodSeconds: &now}),
		g.cluster.AppsV1().Deployments("gateway").Delete(background, "gateway", metav1.DeleteOptions{}),
		g.cluster.CoreV1().Services("gateway").Delete(background, "gateway", metav1.DeleteOptions{}),
		g.pod.remove(),
		os.RemoveAll(g.pod.etc()),
	)
}
