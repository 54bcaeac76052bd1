package publish

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"

	"service-mirror.io/service-mirror/testdata/harness"
)

// aliasOf is the name of the alias of a Service.
func (e *env) aliasOf(name string) string { return e.id + "--" + name }

// aliased wants a Service to have its alias, just as it is written.
func (e *env) aliased(name string) func() error {
	return func() error {
		got, err := paris.CoreV1().Services(exports).Get(e.ctx, e.aliasOf(name), metav1.GetOptions{})
		if err != nil {
			return err
		}
		want := corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: name + "." + e.id + ".svc.cluster.local", SessionAffinity: corev1.ServiceAffinityNone}
		if !equality.Semantic.DeepEqual(got.Spec, want) {
			return fmt.Errorf("it is %+v", got.Spec)
		}
		return nil
	}
}

func (e *env) notAliased(name string) func() error {
	return func() error {
		_, err := paris.CoreV1().Services(exports).Get(e.ctx, e.aliasOf(name), metav1.GetOptions{})
		return gone(err)
	}
}

func logs(p *harness.Process, words ...string) func() error {
	return func() error {
		if p.Log.Count(words...) == 0 {
			return fmt.Errorf("it does not log %q", words)
		}
		return nil
	}
}

// To names: an export has an alias and a record without ports, nothing is written while nothing changes, and what is
// unexported has none. A dry run prints the same and writes nothing.
func TestAlias(t *testing.T) {
	e := newEnv(t)
	e.export("bar", port("http", 80), port("postgres", 5432))
	mark, err := paris.Mark()
	e.must(err)
	out, err := harness.Run(exec.Command(harness.Program("service-mirror-race"), e.args("--to", "names", "--dry-run")...))
	e.must(err)
	for _, want := range []string{"create Service " + e.aliasOf("bar") + " for exported Service " + e.id + "/bar", "externalName"} {
		if !strings.Contains(out, want) {
			t.Errorf("the dry run does not print %q:\n%s", want, out)
		}
	}
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("the dry run wrote %v", writes)
	}
	p := e.start("--to", "names")
	e.soon("alias", e.aliased("bar"))
	e.soon("record", e.recorded("bar"))
	r, err := e.record("bar")
	e.must(err)
	if len(r.Hosts) != 6 || r.Hosts[2] != "bar-paris."+e.id+".svc.cluster.local" {
		t.Errorf("the record is %+v", r)
	}
	e.export("a--b", port("http", 80))
	e.soon("a name that can have no alias is logged", logs(p, "InvalidName", "could be that of another Service"))
	mark, err = paris.Mark()
	e.must(err)
	time.Sleep(5 * time.Second)
	if writes := e.writes(mark); len(writes) > 0 {
		t.Errorf("written while nothing changed: %v", writes)
	}
	e.unexport("bar")
	begin := time.Now()
	e.soon("the alias is gone", e.notAliased("bar"))
	t.Logf("gone after %v", time.Since(begin).Round(time.Millisecond))
}

// What someone changes, deletes or has in the way.
func TestDriftOfAliases(t *testing.T) {
	e := newEnv(t)
	aliases := paris.CoreV1().Services(exports)
	byHand := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: e.aliasOf("foo")}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "foo.example.com"}}
	foreign, err := aliases.Create(e.ctx, byHand, metav1.CreateOptions{})
	e.must(err)
	e.export("bar", port("http", 80))
	e.export("foo", port("http", 80))
	p := e.start("--to", "names")
	e.soon("bar's alias", e.aliased("bar"))
	e.soon("the conflict is logged", logs(p, "Conflict", "a foreign Service "+exports+"/"+e.aliasOf("foo")+" has the name of its alias"))
	e.soon("foo's record says that it is not reached", e.recorded("foo", 0))
	for name, patch := range map[string]string{
		"another target": `{"spec":{"externalName":"secret.kube-system.svc.cluster.local"}}`,
		"another type":   `{"spec":{"type":"ClusterIP","externalName":null,"selector":{"app":"x"},"ports":[{"port":80}]}}`,
	} {
		_, err := aliases.Patch(e.ctx, e.aliasOf("bar"), types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		e.must(err)
		e.soon(name+" is undone", e.aliased("bar"))
	}
	e.must(aliases.Delete(e.ctx, e.aliasOf("bar"), metav1.DeleteOptions{}))
	e.soon("it is recreated", e.aliased("bar"))
	got, err := aliases.Get(e.ctx, foreign.Name, metav1.GetOptions{})
	if err != nil || got.ResourceVersion != foreign.ResourceVersion {
		t.Errorf("the foreign one has changed: %+v, %v", got, err)
	}
	e.must(aliases.Delete(e.ctx, foreign.Name, metav1.DeleteOptions{}))
	e.soon("foo's alias", e.aliased("foo"))
	e.soon("foo's record", e.recorded("foo"))

	// What is deleted while nothing runs has no alias afterwards.
	e.must(p.Stop(10 * time.Second))
	e.must(paris.CoreV1().Services(e.id).Delete(e.ctx, "bar", metav1.DeleteOptions{}))
	e.start("--to", "names")
	e.soon("bar's alias is gone", e.notAliased("bar"))
	e.soon("foo's stays", e.aliased("foo"))
}

// Whoever has the program's credentials creates no Services but aliases.
func TestPolicyOfAliases(t *testing.T) {
	e := newEnv(t)
	config, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	e.must(err)
	thief, err := kubernetes.NewForConfig(config)
	e.must(err)
	good := func() *corev1.Service {
		return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: exports, Name: "default--bar",
			Labels:      map[string]string{"app.kubernetes.io/managed-by": "service-mirror", "service-mirror.io/service": "bar", "service-mirror.io/service-namespace": "default"},
			Annotations: map[string]string{"service-mirror.io/published": exports + "/default--bar"}},
			Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "bar.default.svc.cluster.local"}}
	}
	dryRun := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
	for name, change := range map[string]func(*corev1.Service){
		"another target":    func(s *corev1.Service) { s.Spec.ExternalName = "secret.default.svc.cluster.local" },
		"another namespace": func(s *corev1.Service) { s.Spec.ExternalName = "bar.kube-system.svc.cluster.local" },
		"a public target":   func(s *corev1.Service) { s.Spec.ExternalName = "bar.default.example.com" },
		"another name":      func(s *corev1.Service) { s.Name = "default--foo" },
		"another place":     func(s *corev1.Service) { s.Namespace = e.id },
		"no label":          func(s *corev1.Service) { s.Labels = nil },
		"no Service":        func(s *corev1.Service) { delete(s.Labels, "service-mirror.io/service") },
		"a ClusterIP":       func(s *corev1.Service) { s.Spec = corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}} },
		"an externalIP":     func(s *corev1.Service) { s.Spec.ExternalIPs = []string{"203.0.113.1"} },
		"an unclear name": func(s *corev1.Service) {
			s.Name, s.Spec.ExternalName = "default--a--b", "a--b.default.svc.cluster.local"
			s.Labels["service-mirror.io/service"], s.Annotations["service-mirror.io/published"] = "a--b", exports+"/default--a--b"
		},
	} {
		e.soon(name+" is denied", func() error { // once the API server has the policy
			svc := good()
			change(svc)
			if _, err := thief.CoreV1().Services(svc.Namespace).Create(e.ctx, svc, dryRun); !apierrors.IsForbidden(err) {
				return fmt.Errorf("got %v", err)
			}
			return nil
		})
	}
	_, err = thief.CoreV1().Services(exports).Create(e.ctx, good(), dryRun)
	e.must(err)
	byHand := good()
	byHand.Labels = nil
	_, err = paris.CoreV1().Services(exports).Create(e.ctx, byHand, metav1.CreateOptions{})
	e.must(err)
	if err := thief.CoreV1().Services(exports).Delete(e.ctx, byHand.Name, metav1.DeleteOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("a foreign one is deleted: %v", err)
	}
}
