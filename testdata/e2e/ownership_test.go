package e2e

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// foreignService creates a user's own Service in london, with a selector.
func (e *env) foreignService(name string) {
	e.Helper()
	_, err := london.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app.kubernetes.io/managed-by": "helm"}},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": "mine"},
			Ports:    []corev1.ServicePort{{Name: "mine", Port: 1234}},
		},
	}, metav1.CreateOptions{})
	e.must(err)
	e.soon("the user's Endpoints", func() error {
		_, err := london.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
		return err
	})
}

func TestForeignServiceHasTheName(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := r.mirror("bar")
	e.foreignService(name)
	before := snapshot(e.service(name)) + snapshot(e.endpoints(name))
	untouched := func() error {
		if now := snapshot(e.service(name)) + snapshot(e.endpoints(name)); now != before {
			return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	}
	d := e.daemon([]*remote{r})
	r.export("bar")
	e.logs(d, "Conflict", name)
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.change(paris, "bar", e.unlabel)
	e.change(paris, "bar", e.label)
	r.gateway("203.0.113.2")
	e.stays("the user's objects", untouched)
	e.remove(paris, "bar")
	d.stop()
	e.must(untouched())
	r.export("bar")
	r.export("other")
	d = e.daemon([]*remote{r})
	e.soon("another mirror", r.mirrored("other", "203.0.113.2"))
	e.logs(d, "Conflict", name)
	e.stays("the user's objects", untouched)
	if n := d.logged("Conflict", name); n != 1 {
		t.Errorf("the conflict is logged %d times, want once", n)
	}
	e.must(london.CoreV1().Services(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
	e.soon("the mirror, once the name is free", r.mirrored("bar", "203.0.113.2"))
}

func TestForeignServiceTakesTheName(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	name := r.mirror("bar")
	d := e.daemon([]*remote{r})
	for range 10 { // the user gets the name before the daemon or after it
		e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
		e.eventually(30*time.Second, "a Service of the user's own", func() error {
			if err := london.CoreV1().Services(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
				return err
			}
			_, err := london.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
				ObjectMeta: metav1.ObjectMeta{Name: name},
				Spec:       corev1.ServiceSpec{Selector: map[string]string{"app": "mine"}, Ports: []corev1.ServicePort{{Port: 1234}}},
			}, metav1.CreateOptions{})
			return err
		})
		e.logs(d, "Conflict", name)
		e.soon("the user's Endpoints", func() error {
			endpoints, err := london.CoreV1().Endpoints(e.id).Get(e.ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			if addresses, _ := contents(endpoints); len(addresses) > 0 {
				return fmt.Errorf("the user's Service routes to %v", addresses)
			}
			return nil
		})
		before := snapshot(e.service(name))
		r.gateway("203.0.113.2")
		r.gateway("203.0.113.1")
		if now := snapshot(e.service(name)); now != before {
			t.Fatalf("before:\n%s\nnow:\n%s", before, now)
		}
		e.must(london.CoreV1().Services(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
	}
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
}

// loneEndpoints creates a user's own Endpoints in london, without a Service.
func (e *env) loneEndpoints(name string) *corev1.Endpoints {
	e.Helper()
	endpoints, err := london.CoreV1().Endpoints(e.id).Create(e.ctx, &corev1.Endpoints{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: "192.0.2.1"}}, Ports: []corev1.EndpointPort{{Port: 1}},
		}},
	}, metav1.CreateOptions{})
	e.must(err)
	return endpoints
}

func TestForeignLoneEndpoints(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	name := r.mirror("bar")
	theirs := e.loneEndpoints(name)
	d := e.daemon([]*remote{r})
	r.export("bar")
	e.logs(d, "Conflict", name)
	since := london.mark(t)
	e.stays("no Service over them", func() error {
		if _, err := london.CoreV1().Services(e.id).Get(e.ctx, name, metav1.GetOptions{}); !apierrors.IsNotFound(err) {
			return fmt.Errorf("there is one: %v", err)
		}
		if now := snapshot(e.endpoints(name)); now != snapshot(theirs) {
			return fmt.Errorf("they are changed: %s", now)
		}
		return nil
	})
	if tries := london.writes(t, e.id, since); len(tries) > 1 {
		t.Errorf("%d attempts in %v, want at most one every 30 s: %v", len(tries), stays, tries)
	}
	e.must(london.CoreV1().Endpoints(e.id).Delete(e.ctx, name, metav1.DeleteOptions{}))
	e.eventually(35*time.Second, "the mirror, once the name is free", r.mirrored("bar", "203.0.113.1"))
}

func TestReleasedMirror(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	name := r.mirror("bar")
	e.change(london, name, func(svc *corev1.Service) { svc.Labels = nil })
	e.logs(d, "Conflict", name)
	before := snapshot(e.service(name)) + snapshot(e.endpoints(name))
	r.gateway("203.0.113.2")
	e.remove(paris, "bar")
	e.stays("the pair that is the user's now", func() error {
		if now := snapshot(e.service(name)) + snapshot(e.endpoints(name)); now != before {
			return fmt.Errorf("before:\n%s\nnow:\n%s", before, now)
		}
		return nil
	})
}

func TestTwoRemotesWantOneName(t *testing.T) {
	e := newEnv(t)
	one := e.remoteNamed(paris, "x"+e.id)
	two := e.remoteNamed(berlin, "eu-x"+e.id)
	one.gateway("203.0.113.1")
	two.gateway("203.0.113.2")
	one.export("api-eu")
	d := e.daemon([]*remote{one, two})
	e.soon("the first one's mirror", one.mirrored("api-eu", "203.0.113.1"))
	two.export("api")
	if one.mirror("api-eu") != two.mirror("api") {
		t.Fatal("the names differ")
	}
	e.logs(d, "Conflict", two.name)
	e.stays("the mirror that existed first", one.mirrored("api-eu", "203.0.113.1"))
	d.stop()
	since := london.mark(t)
	d = e.daemon([]*remote{two, one})
	e.logs(d, "Conflict", two.name)
	e.must(one.mirrored("api-eu", "203.0.113.1")())
	e.noWrites(since)
	e.change(paris, "api-eu", e.unlabel)
	e.soon("the other takes over", two.mirrored("api", "203.0.113.2"))
	e.change(paris, "api-eu", e.label)
	e.logs(d, "Conflict", one.name)
	e.stays("the mirror of the other", two.mirrored("api", "203.0.113.2"))

	twice := runDaemon(t, "--kubeconfig", e.kubeconfig, "--remote", one.flag(), "--remote", one.flag())
	if code := twice.exitCode(); code != 2 || twice.logged("two remotes have the same name") != 1 {
		t.Errorf("two remotes of one name: exit code %d and log %s", code, twice.log)
	}
}

func TestRemovedRemoteKeepsItsMirrors(t *testing.T) {
	e := newEnv(t)
	one, two := e.remote(paris), e.remote(berlin)
	one.gateway("203.0.113.1")
	two.gateway("203.0.113.2")
	one.export("bar")
	two.export("bar")
	d := e.daemon([]*remote{one, two})
	e.soon("both mirrors", one.mirrored("bar", "203.0.113.1"), two.mirrored("bar", "203.0.113.2"))
	d.stop()
	since := london.mark(t)
	d = e.daemon([]*remote{two})
	e.soon("it says that the remote is not named", func() error { // by its name, unless other tests have ten more of them
		if d.logged("Remote cluster is not configured", one.name) == 0 && d.logged("More remote clusters are not configured") == 0 {
			return errors.New("nothing in the log")
		}
		return nil
	})
	e.stays("both mirrors", one.mirrored("bar", "203.0.113.1"), two.mirrored("bar", "203.0.113.2"))
	e.noWrites(since)
}

func TestTwoClustersMirrorEachOther(t *testing.T) {
	e := newEnv(t)
	toParis := e.remote(paris) // london's view of paris
	toParis.gateway("203.0.113.1")
	toParis.export("bar")
	// paris' view of london: a daemon the other way round.
	back := &env{T: t, id: e.id, ctx: e.ctx}
	toLondon := &remote{cluster: london, env: back, name: "london-" + e.id}
	toLondon.gateway("192.0.2.222")
	toLondon.export("foo")
	admin := func(c *cluster) string { return filepath.Join(c.dir, "kubeconfig") }
	selector := exportLabel + "=" + e.id
	// Mirrors carry the export label too: each looks exported to the other side.
	one := runDaemon(t, "--kubeconfig", admin(london), "--export-selector", selector, "--remote", fmt.Sprintf("%s=%s,gateway=%s/gateway", toParis.name, admin(paris), e.id))
	two := runDaemon(t, "--kubeconfig", admin(paris), "--export-selector", selector, "--remote", fmt.Sprintf("%s=%s,gateway=%s/gateway", toLondon.name, admin(london), e.id))
	e.soon("the mirror in london", toParis.mirrored("bar", "203.0.113.1"))
	e.soon("the mirror in paris", func() error {
		_, err := paris.CoreV1().Services(e.id).Get(e.ctx, toLondon.mirror("foo"), metav1.GetOptions{})
		return err
	})
	e.change(london, toParis.mirror("bar"), e.label)
	e.change(paris, toLondon.mirror("foo"), e.label)
	e.logs(one, "IsMirror")
	e.logs(two, "IsMirror")
	since := map[*cluster]auditMark{london: london.mark(t), paris: paris.mark(t)}
	e.stays("one mirror each", func() error {
		for c, want := range map[*cluster]int{london: 3, paris: 3} { // gateway, exported, mirror
			list, err := c.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
			if err != nil || len(list.Items) != want {
				return fmt.Errorf("%s has %d Services, want %d (%v)", c.name, len(list.Items), want, err)
			}
		}
		return nil
	})
	for c, mark := range since {
		for _, r := range c.namespaceWrites(t, e.id, mark) {
			t.Errorf("not quiet: %v", r)
		}
	}
}
