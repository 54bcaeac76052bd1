package publish

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

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
	e.soon("a name that can have no alias is logged", logs(p, "InvalidName", "could conflict with that of another Service"))
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

// A check says what will have an alias and what will not, and what is missing for it; prune deletes aliases alone.
func TestAliasesAreCheckedAndPruned(t *testing.T) {
	e := newEnv(t)
	aliases := paris.CoreV1().Services(exports)
	e.export("bar", port("http", 80))
	e.export("a--b", port("http", 80))
	e.export("foo", port("http", 80))
	_, err := aliases.Create(e.ctx, &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: e.aliasOf("foo")}, Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "foo.example.com"}}, metav1.CreateOptions{})
	e.must(err)
	e.says(e.once(0, e.args("--to", "names", "--check")...),
		[]string{"+ ", "all required permissions are granted"}, []string{"+ ", "namespace " + exports + " has 0 aliases"},
		[]string{"! ", e.id + "/a--b will not be published", "could conflict with that of another Service"},
		[]string{"! ", e.id + "/foo will not be published", "has the name of its alias"},
		[]string{"+ ", "1 of 3 exported Services can be published"})
	e.says(e.once(1, append(e.args("--to", "names", "--names-namespace", "nowhere", "--check"), "--kubeconfig", paris.Kubeconfig)...),
		[]string{"- ", "namespace nowhere of the aliases does not exist", "--names-namespace"})
	p := e.start("--to", "names")
	e.soon("bar's alias", e.aliased("bar"))
	e.soon("bar's record", e.recorded("bar"))
	e.must(p.Stop(10 * time.Second))
	e.says(e.once(0, e.args("--to", "names", "--prune")...), []string{exports + "/" + e.aliasOf("bar")})
	e.must(e.notAliased("bar")())
	_, err = aliases.Get(e.ctx, e.aliasOf("foo"), metav1.GetOptions{})
	e.must(err)
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
	e.soon("the conflict is logged", logs(p, "Conflict", "Service "+exports+"/"+e.aliasOf("foo")+", the name of its alias, already exists"))
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
