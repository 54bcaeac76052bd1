package deploy

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// A remote is linked, changed and unlinked while one pod runs, which is never restarted: by link, and by what link prints,
// edited and applied as GitOps does.
func TestLinkedWhileItRuns(t *testing.T) {
	e := newEnv(t)
	e.namespace("shop", london, paris)
	e.gateway("203.0.113.1")
	e.otherGateway("203.0.113.9")
	e.export("shop", "bar", 80)
	e.apply(london, shipped("local"))
	p := e.runPod()
	e.cleanup(func(e *env) { e.kubectl(paris, "delete", "--ignore-not-found", "-k", shipped("remote")) })

	e.kubectl(paris, "apply", "-f", e.printed("remote", "gateway=ingress/gateway"))
	local := e.printed("local", "gateway=ingress/gateway", "--server="+paris.Config.Host)
	e.kubectl(london, "apply", "--server-side", "-f", local)
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.1:8080")
	had := e.clusterIP("shop", "bar-paris")

	content, err := os.ReadFile(local)
	e.must(err)
	encoded := func(text string) string { return base64.StdEncoding.EncodeToString([]byte(text)) }
	edited := strings.Replace(string(content), "gateway: "+encoded("ingress/gateway"), "gateway: "+encoded("ingress/other"), 1)
	if edited == string(content) {
		t.Fatalf("there is no gateway to edit in\n%s", content)
	}
	e.must(os.WriteFile(local, []byte(edited), 0o600))
	e.kubectl(london, "apply", "--server-side", "-f", local)
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.9:8080")
	e.linkAgain("gateway-port=http") // a link goes on from what was applied
	e.linked("gateway=ingress/other", "gateway-port=http")
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.9:8080")

	_, err = e.tryUnlink("paris")
	e.must(err)
	e.soon("the remote is removed", func() error {
		page, err := p.get("/status.json")
		if err == nil && strings.Contains(page, `"gateway":"ingress/other"`) {
			err = fmt.Errorf("its gateway is on the page")
		}
		if metrics, failed := p.get("/metrics"); failed != nil || strings.Contains(metrics, `service_mirror_remote_up{remote="paris"}`) {
			err = fmt.Errorf("its metrics remain (%v)", failed)
		}
		return err
	})
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.9:8080")

	e.linkAgain("gateway=ingress/gateway")
	e.mirrored("shop", "bar-paris", 80, byKubernetes, "203.0.113.1:8080")
	if now := e.clusterIP("shop", "bar-paris"); now != had {
		t.Errorf("its ClusterIP was %s and is %s", had, now)
	}
	e.must(p.cmd.Running())
}

// otherGateway makes paris's gateway Service ingress/other.
func (e *env) otherGateway(ip string) {
	e.Helper()
	services := paris.CoreV1().Services("ingress")
	svc, err := services.Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "other"},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: []corev1.ServicePort{{Name: "http", Port: 8080}}},
	}, metav1.CreateOptions{})
	e.must(err)
	svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	_, err = services.UpdateStatus(e.ctx, svc, metav1.UpdateOptions{})
	e.must(err)
}

// printed is a file with what link prints for one side, once the account in paris has its token.
func (e *env) printed(side string, args ...string) string {
	e.Helper()
	path := filepath.Join(e.TempDir(), side+".yaml")
	e.soon("the manifests of the "+side+" side", func() error {
		cmd := command(e.ctx, harness.Program("service-mirror-race"), append([]string{"link", "paris", "--context", london.Name, "--print", side}, args...)...)
		out, err := cmd.Output()
		if err != nil {
			return err
		}
		return os.WriteFile(path, out, 0o600)
	})
	return path
}

func (e *env) clusterIP(namespace, name string) string {
	e.Helper()
	svc, err := london.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		e.Fatalf("mirror %s/%s does not exist", namespace, name)
	}
	e.must(err)
	return svc.Spec.ClusterIP
}
