package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// named says how the mirrors of a remote are called, to the daemon and to the policy. What comes after ; is for the policy
// alone.
func (r *remote) named(rule string) {
	r.env.Helper()
	now, _, _ := strings.Cut(rule, ";")
	r.keys = strings.Join(append([]string{""}, slices.DeleteFunc(strings.Split(now, ","), func(field string) bool { return !strings.Contains(field, "=") })...), ",")
	r.env.must(r.env.local.ConfigureNames(r.env.ctx, r.name, rule))
}

// hasMirror checks that a Service in London is the mirror of a remote's, with an address.
func (r *remote) hasMirror(namespace, name, source string) func() error {
	return r.hasMirrorAt(namespace, name, source, "203.0.113.1")
}

func (r *remote) hasMirrorAt(namespace, name, source, address string) func() error {
	return func() error {
		svc, err := r.env.local.CoreV1().Services(namespace).Get(r.env.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if got := svc.Annotations["service-mirror.io/remote-service"]; got != source {
			return fmt.Errorf("%s is the mirror of %s, want %s", name, got, source)
		}
		endpoints, err := r.env.local.CoreV1().Endpoints(namespace).Get(r.env.ctx, name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if addresses, _ := contents(endpoints); !slices.Equal(addresses, []string{address}) {
			return fmt.Errorf("%s has the addresses %v", name, addresses)
		}
		return nil
	}
}

// goneIn checks that London has neither a Service nor Endpoints of a name.
func (e *env) goneIn(namespace, name string) func() error {
	return func() error {
		_, err := e.local.CoreV1().Services(namespace).Get(e.ctx, name, metav1.GetOptions{})
		_, errEndpoints := e.local.CoreV1().Endpoints(namespace).Get(e.ctx, name, metav1.GetOptions{})
		if !apierrors.IsNotFound(err) || !apierrors.IsNotFound(errEndpoints) {
			return fmt.Errorf("%s/%s: Service %v, Endpoints %v", namespace, name, err, errEndpoints)
		}
		return nil
	}
}

// The policy permits the names that the operator chose, and only these.
func TestNames(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	there := e.id + "-there"
	e.makeNamespace(e.local, there)
	source := func(name string) string { return e.id + "/" + name }
	for _, name := range []string{"bar", "foo"} {
		r.export(name)
	}
	r.named("name={cluster}-{service}")
	d := e.daemon([]*remote{r})
	e.soon("the mirrors", r.hasMirror(e.id, r.name+"-bar", source("bar")), r.hasMirror(e.id, r.name+"-foo", source("foo")))

	d.stop() // another name, and another namespace
	users := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: there, Name: "bar-of-" + e.id}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}}}
	_, err := e.local.CoreV1().Services(there).Create(e.ctx, users, metav1.CreateOptions{})
	e.must(err)
	since := e.local.mark(t)
	r.named("name={service}-of-{namespace},namespace=" + e.id + ":" + there + ";name={cluster}-{service}")
	if text := e.once([]*remote{r}, "--dry-run").stdout; !strings.Contains(text, fmt.Sprintf("rename mirror %s/%s-bar to %s/bar-of-%s", e.id, r.name, there, e.id)) {
		t.Errorf("the dry run prints\n%s", text)
	}
	d = e.daemon([]*remote{r})
	e.logs(d, "Renaming", there+"/bar-of-"+e.id)
	r.gateway("203.0.113.2")
	e.soon("the mirror under its old name follows the gateway while a user's Service has the new name", r.hasMirrorAt(e.id, r.name+"-bar", source("bar"), "203.0.113.2"))
	r.gateway("203.0.113.1")
	e.must(e.local.CoreV1().Services(there).Delete(e.ctx, users.Name, metav1.DeleteOptions{}))
	for _, name := range []string{"bar", "foo"} {
		e.soon("the mirror under its new name", r.hasMirror(there, name+"-of-"+e.id, source(name)), e.goneIn(e.id, r.name+"-"+name))
	}
	for _, name := range []string{"bar", "foo"} {
		var order []string
		for _, w := range e.local.writes(t, e.id, since) {
			if w.ObjectRef.Resource == "services" && strings.Contains(w.ObjectRef.Name, name) {
				order = append(order, w.Verb)
			}
		}
		if !slices.Equal(order, []string{"create", "delete"}) {
			t.Errorf("%s: Services were written in this order: %v", name, order)
		}
	}

	e.remove(paris, "foo")
	e.soon("a mirror goes with its Service", e.goneIn(there, "foo-of-"+e.id))
	d.stop()

	r.named(";name={service}-of-{namespace},namespace=" + e.id + ":" + there) // chosen by the export, once that is allowed
	e.change(paris, "bar", func(svc *corev1.Service) {
		metav1.SetMetaDataAnnotation(&svc.ObjectMeta, "service-mirror.io/name", "till")
	})
	d = e.daemon([]*remote{r})
	e.soon("the default name", r.hasMirror(e.id, r.mirror("bar"), source("bar")), e.goneIn(there, "bar-of-"+e.id))
	d.stop()
	d = e.daemon([]*remote{r}, "--allow-names")
	e.logs(d, "Rejected", "does not have the name of a mirror of remote "+r.name)
	e.soon("the mirror stays", r.hasMirror(e.id, r.mirror("bar"), source("bar")))
	r.named("allow-names")
	d.stop()
	e.daemon([]*remote{r}, "--allow-names")
	e.soon("the chosen name", r.hasMirror(e.id, "till", source("bar")), e.goneIn(e.id, r.mirror("bar")))
}

// An export for other clusters is not mirrored.
func TestExportTo(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	to := func(clusters string) func(*corev1.Service) {
		return func(svc *corev1.Service) {
			metav1.SetMetaDataAnnotation(&svc.ObjectMeta, "service-mirror.io/export-to", clusters)
		}
	}
	r.export("all")
	r.export("here", to("berlin, london"))
	r.export("elsewhere", to("berlin"))
	d := e.daemon([]*remote{r}, "--cluster-name", "london")
	e.logs(d, `localCluster="london"`, "Created mirror")
	e.soon("the mirrors", r.mirrored("all", "203.0.113.1"), r.mirrored("here", "203.0.113.1"))
	e.must(e.goneIn(e.id, r.mirror("elsewhere"))())
	e.change(paris, "elsewhere", to("london"))
	e.change(paris, "here", to("berlin"))
	e.soon("the change", r.mirrored("elsewhere", "203.0.113.1"), e.goneIn(e.id, r.mirror("here")))
}
