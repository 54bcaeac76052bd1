package install

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"service-mirror.io/service-mirror/testdata/harness"
)

// run runs what a Deployment of the release does in a Pod: with its ServiceAccount, command, arguments and environment.
func (h *helm) run(deployment string) *harness.Process {
	h.Helper()
	object, err := h.cluster.AppsV1().Deployments(h.namespace).Get(h.Context(), deployment, metav1.GetOptions{})
	h.must(err)
	spec := object.Spec.Template.Spec
	token, err := h.cluster.RequestToken(h.Context(), harness.Account{Namespace: h.namespace, Name: spec.ServiceAccountName})
	h.must(err)
	dir := h.TempDir()
	h.must(h.cluster.WriteKubeconfig(filepath.Join(dir, "kubeconfig"), token))
	address, err := harness.FreeAddress()
	h.must(err)
	container := spec.Containers[0]
	environment := variables(container, h.namespace)
	args := slices.Concat(container.Command[1:], container.Args, []string{"--kubeconfig", filepath.Join(dir, "kubeconfig")})
	for i, arg := range args {
		for name, value := range environment {
			arg = strings.ReplaceAll(arg, "$("+name+")", value)
		}
		args[i] = strings.Replace(arg, "--listen=:8080", "--listen="+address, 1)
	}
	cmd := exec.Command(harness.Program("service-mirror-race"), args...)
	for name, value := range environment {
		cmd.Env = append(cmd.Env, name+"="+value)
	}
	process, err := harness.Start(cmd)
	h.must(err)
	h.Cleanup(func() {
		process.Stop(20 * time.Second)
		if h.Failed() {
			h.Logf("log of %s, %q:\n%s", deployment, args, process.Log)
		}
	})
	h.soon(deployment+" is ready", func() error {
		if err := process.Running(); err != nil {
			return err
		}
		_, err := harness.GetOK(h.Context(), address, container.ReadinessProbe.HTTPGet.Path)
		return err
	})
	return process
}

func variables(container corev1.Container, namespace string) map[string]string {
	all := map[string]string{}
	for _, v := range container.Env {
		all[v.Name] = v.Value
	}
	maps.Copy(all, map[string]string{"POD_NAME": "of-a-test", "POD_NAMESPACE": namespace, "POD_UID": "of-a-test"})
	return all
}

// client has the credentials of a ServiceAccount of the release.
func (h *helm) client(account string) kubernetes.Interface {
	h.Helper()
	token, err := h.cluster.RequestToken(h.Context(), harness.Account{Namespace: h.namespace, Name: account})
	h.must(err)
	config := rest.AnonymousClientConfig(h.cluster.Config)
	config.BearerToken = token
	client, err := harness.Connect(config)
	h.must(err)
	return client
}

// denied waits until a policy of the chart, and not RBAC, denies the ServiceAccount a Service that is none of its own.
func (h *helm) denied(account, namespace, policy string) {
	h.Helper()
	client := h.client(account)
	h.soon(fmt.Sprintf("policy %s denies %s a Service in %s", policy, account, namespace), func() error {
		_, err := client.CoreV1().Services(namespace).Create(h.Context(), &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: "foreign"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if !apierrors.IsForbidden(err) || !strings.Contains(err.Error(), policy) {
			return fmt.Errorf("got %v", err)
		}
		return nil
	})
}

// kubeconfig is one with the token that the chart made for daemons elsewhere.
func (h *helm) kubeconfig(secret string) string {
	h.Helper()
	var token string
	h.soon("a token", func() error {
		got, err := h.cluster.CoreV1().Secrets(h.namespace).Get(h.Context(), secret, metav1.GetOptions{})
		if err == nil && len(got.Data["token"]) == 0 {
			err = fmt.Errorf("the Secret %s has none", secret)
		}
		if err == nil {
			token = string(got.Data["token"])
		}
		return err
	})
	path := filepath.Join(h.TempDir(), "kubeconfig")
	h.must(h.cluster.WriteKubeconfig(path, token))
	content, err := os.ReadFile(path)
	h.must(err)
	return string(content)
}
