package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	authorizationv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

// unbind removes the permissions of a remote's ServiceAccount, and cuts its connections.
func (r *remote) unbind() {
	r.env.Helper()
	r.env.must(r.RbacV1().ClusterRoleBindings().Delete(r.env.ctx, r.env.id, metav1.DeleteOptions{}))
	r.env.authorized(r.cluster, metav1.NamespaceAll, false)
	r.proxy.cutConnections()
}

func TestRestartInAnOutage(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	var all []func() error
	for i := range 50 {
		name := fmt.Sprintf("bar%d", i)
		r.export(name)
		all = append(all, r.mirrored(name, "203.0.113.1"))
	}
	d := e.daemon([]*remote{r})
	e.soon("all mirrors", all...)
	before := e.identities()
	since := london.mark(t)

	d.stop()
	r.proxy.cut()
	d = e.daemon([]*remote{r})
	e.stays("with connections refused", all...)
	d.stop()
	r.proxy.heal()

	r.unbind()
	d = e.daemon([]*remote{r})
	e.logs(d, "forbidden")
	e.stays("with 403", all...)
	e.bind(r.cluster)
	e.logs(d, "recovered")
	d.stop()

	r.proxy.stall()
	d = e.daemon([]*remote{r})
	for range 4 { // a minute
		e.stays("with no answer", all...)
	}
	r.proxy.heal()
	e.eventually(time.Minute, "the remote is back", func() error {
		r.export("probe")
		return nil
	})
	e.eventually(time.Minute, "a change arrives", r.mirrored("probe", "203.0.113.1"))
	e.remove(paris, "probe")
	e.soon("a change arrives", r.gone("probe"))
	e.soon("all mirrors", all...)
	e.sameIdentities(before)
	for _, w := range london.writes(t, e.id, since) {
		if w.ObjectRef.Name != r.mirror("probe") {
			t.Errorf("written without need: %v", w)
		}
	}
}

// A server or a client that does not stream lists, as older ones do not.
func TestPlainLists(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	since := map[*cluster]auditMark{london: london.mark(t), paris: paris.mark(t)}
	args := []string{"KUBE_FEATURE_WatchListClient=false", "--kubeconfig", e.kubeconfig, "--export-selector", exportLabel + "=" + e.id, "--remote", r.flag()}
	d := runDaemon(t, args...)
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.export("baz")
	e.soon("another", r.mirrored("baz", "203.0.113.1"))
	d.kill()
	for c, mark := range since {
		lists := 0
		for _, request := range c.requests(t, e.id, mark) {
			if request.Verb == "list" {
				lists++
				if strings.Contains(request.RequestURI, "resourceVersion=0") {
					t.Errorf("a list that may be out of date: %s", request.RequestURI)
				}
			}
		}
		if lists == 0 {
			t.Errorf("%s: nothing was listed", c.name)
		}
	}
	e.remove(paris, "bar")
	mark := london.mark(t)
	runDaemon(t, args...)
	e.soon("what was deleted meanwhile", r.gone("bar"))
	e.stays("the other", r.mirrored("baz", "203.0.113.1"))
	if writes := london.writes(t, e.id, mark); len(writes) > 2 {
		t.Errorf("writes %v, want two deletes", writes)
	}
}

// A streamed list ends with a bookmark; a proxy may drop it.
func TestBookmarksAreLost(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.proxy.noBookmarks.Store(true)
	r.gateway("203.0.113.1")
	r.export("bar")
	since := paris.mark(t)
	e.daemon([]*remote{r})
	e.eventually(30*time.Second, "the mirror", r.mirrored("bar", "203.0.113.1"))
	if !slices.ContainsFunc(paris.requests(t, e.id, since), func(r request) bool { return r.Verb == "list" }) {
		t.Error("nothing was listed: were there bookmarks after all?")
	}
	r.export("baz")
	e.soon("another", r.mirrored("baz", "203.0.113.1"))
	r.proxy.cutConnections()
	e.remove(paris, "bar")
	e.soon("what went while the connection was lost", r.gone("bar"))
}

func TestDeletesMissedWhileDown(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	for i := range 10 {
		r.export(fmt.Sprintf("bar%d", i))
	}
	d := e.daemon([]*remote{r})
	for i := range 10 {
		e.soon("the mirrors", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.1"))
	}
	d.kill()
	e.foreignService(r.mirror("theirs"))
	theirs := snapshot(e.service(r.mirror("theirs")))
	for i := range 5 {
		e.remove(paris, fmt.Sprintf("bar%d", i))
	}
	e.change(paris, "bar5", e.unlabel)
	e.daemon([]*remote{r})
	for i := range 6 {
		e.soon("what is no longer exported", r.gone(fmt.Sprintf("bar%d", i)))
	}
	for i := 6; i < 10; i++ {
		e.must(r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.1")())
	}
	if now := snapshot(e.service(r.mirror("theirs"))); now != theirs {
		t.Errorf("the foreign Service was %s and is %s", theirs, now)
	}
}

func TestOneBadRemote(t *testing.T) {
	e := newEnv(t)
	good, hole := e.remote(paris), e.remote(berlin)
	good.gateway("203.0.113.1")
	good.export("bar")
	hole.proxy.stall()
	missing := e.remoteNamed(paris, "missing-"+e.id)
	kept := missing.kubeconfig + ".kept"
	e.must(os.Rename(missing.kubeconfig, kept))
	d := e.daemon([]*remote{good, hole, missing})
	e.soon("the good remote's mirror", good.mirrored("bar", "203.0.113.1"))
	e.logs(d, missing.name, "kubeconfig", "no such file")
	e.eventually(20*time.Second, "the cause of the other", func() error {
		if d.logged(hole.name, "mirrors are kept unchanged") == 0 {
			return fmt.Errorf("nothing in the log")
		}
		return nil
	})
	e.must(os.WriteFile(missing.kubeconfig, []byte("not: a: kubeconfig"), 0o600))
	e.must(os.Rename(kept, missing.kubeconfig))
	e.soon("the other one's, once its file is there", missing.mirrored("bar", "203.0.113.1"))
}

func TestConnectionLostForMinutes(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("changed")
	r.export("deleted")
	r.export("kept")
	d := e.daemon([]*remote{r})
	mirrors := []func() error{r.mirrored("deleted", "203.0.113.1"), r.mirrored("kept", "203.0.113.1")}
	e.soon("the mirrors", mirrors...)
	e.soon("the mirrors", r.mirrored("changed", "203.0.113.1"))
	for _, outage := range []struct {
		begin func()
		end   func()
	}{
		{r.proxy.cut, func() {}},
		{r.proxy.stall, r.proxy.cutConnections},
	} {
		outage.begin()
		e.change(paris, "changed", func(svc *corev1.Service) { svc.Spec.Ports[0].Port++ })
		e.remove(paris, "deleted")
		r.export("added")
		before := e.identities()
		for range 6 { // a minute and a half
			e.stays("what was before", func() error {
				e.sameIdentities(before)
				return nil
			})
		}
		outage.end()
		r.proxy.heal()
		// The first attempt after the outage comes within 3 s.
		e.eventually(soon+3*time.Second, "the change", r.mirrored("changed", "203.0.113.1"))
		e.soon("the rest", r.mirrored("added", "203.0.113.1"), r.mirrored("kept", "203.0.113.1"), r.gone("deleted"))
		e.remove(paris, "added")
		r.export("deleted")
		e.soon("as before", append(mirrors, r.gone("added"))...)
	}
	if n := d.logged("mirrors are kept unchanged", "connection refused"); n > 2 {
		t.Errorf("one outage is logged %d times", n)
	}
}

func TestForbiddenAndBack(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	d := e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	r.unbind()
	e.logs(d, "mirrors are kept unchanged", "forbidden")
	since := london.mark(t)
	e.change(paris, "bar", e.unlabel)
	e.stays("what was", func() error {
		if len(e.identities()) != 1 {
			return fmt.Errorf("Services %v", e.identities())
		}
		return nil
	})
	e.noWrites(since)
	e.bind(paris)
	e.eventually(soon+3*time.Second, "the change that was missed", r.gone("bar"))
}

func TestCredentialsRotate(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	// As a Secret is mounted: the file is a link into a directory that is a link.
	dir := t.TempDir()
	e.must(os.Mkdir(filepath.Join(dir, "1"), 0o700))
	e.must(os.Rename(r.kubeconfig, filepath.Join(dir, "1", "kubeconfig")))
	e.must(os.Symlink("1", filepath.Join(dir, "data")))
	r.kubeconfig = filepath.Join(dir, "kubeconfig")
	e.must(os.Symlink("data/kubeconfig", r.kubeconfig))
	e.daemon([]*remote{r})
	e.soon("the mirror", r.mirrored("bar", "203.0.113.1"))
	since := london.mark(t)

	mounted := r.kubeconfig
	r.kubeconfig = filepath.Join(dir, "2", "kubeconfig")
	e.must(os.Mkdir(filepath.Dir(r.kubeconfig), 0o700))
	old := r.proxy
	r.token, r.proxy = e.token(paris, "token2"), newProxy(t, paris) // a new server and CA too
	r.writeKubeconfig()
	r.kubeconfig = mounted
	e.must(os.Symlink("2", filepath.Join(dir, "new")))
	e.must(os.Rename(filepath.Join(dir, "new"), filepath.Join(dir, "data")))
	e.eventually(soon, "the old connection closed", func() error {
		if n := old.open(); n > 0 {
			return fmt.Errorf("%d connections", n)
		}
		return nil
	})
	e.must(paris.CoreV1().Secrets(e.id).Delete(e.ctx, "token", metav1.DeleteOptions{}))
	old.cut()
	e.stays("the mirror", r.mirrored("bar", "203.0.113.1"))
	e.noWrites(since)
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.soon("the next change", r.mirrored("bar", "203.0.113.1"))
}

func TestWrongClusterBehindAKubeconfig(t *testing.T) {
	e := newEnv(t)
	toParis, toBerlin := e.remote(paris), e.remote(berlin)
	toParis.gateway("203.0.113.1")
	toBerlin.gateway("203.0.113.2")
	toParis.export("bar")
	toParis.export("baz")
	d := e.daemon([]*remote{toParis})
	right := []func() error{toParis.mirrored("bar", "203.0.113.1"), toParis.mirrored("baz", "203.0.113.1")}
	e.soon("the mirrors", right...)
	before := e.identities()
	since := london.mark(t)
	uid := func(c *cluster) types.UID {
		system, err := c.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
		e.must(err)
		return system.UID
	}
	replace := func(path string) { // a kubeconfig's file, in one step
		t.Helper()
		content, err := os.ReadFile(path)
		e.must(err)
		e.must(os.WriteFile(toParis.kubeconfig+".new", content, 0o600))
		e.must(os.Rename(toParis.kubeconfig+".new", toParis.kubeconfig))
	}
	kept := toParis.kubeconfig + ".kept"
	e.must(os.Link(toParis.kubeconfig, kept))

	replace(toBerlin.kubeconfig) // an empty cluster: it exports nothing to this test
	e.logs(d, "mirrors are kept unchanged", string(uid(berlin)), string(uid(paris)))
	e.stays("the mirrors", right...)
	toBerlin.export("bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.stays("the mirrors", right...)
	replace(filepath.Join(london.dir, "kubeconfig"))
	e.logs(d, "mirrors are kept unchanged", "points to the local cluster")
	e.stays("the mirrors", right...)
	d.stop()
	d = e.daemon([]*remote{toParis}) // that has seen nothing else
	e.logs(d, "mirrors are kept unchanged", "points to the local cluster")
	replace(toBerlin.kubeconfig)
	e.logs(d, "mirrors are kept unchanged", string(uid(berlin)))
	e.stays("the mirrors", right...)
	e.sameIdentities(before)
	e.noWrites(since)
	replace(kept)
	e.change(paris, "baz", e.unlabel)
	e.soon("paris again", toParis.mirrored("bar", "203.0.113.1"), toParis.gone("baz"))
	replace(e.kubeconfig) // that may not read the cluster's UID
	e.logs(d, "mirrors are kept unchanged", "the UID of the cluster cannot be read")
	e.stays("the mirror", toParis.mirrored("bar", "203.0.113.1"))
	d.stop()
	replace(kept)

	// The network routes elsewhere under an open connection.
	d = e.daemon([]*remote{toParis})
	e.soon("the mirror", toParis.mirrored("bar", "203.0.113.1"))
	toParis.proxy.redirect(berlin, toBerlin.token)
	toParis.proxy.cutConnections()
	e.logs(d, "mirrors are kept unchanged", string(uid(berlin)))
	e.stays("the mirror", toParis.mirrored("bar", "203.0.113.1"))
	d.stop()

	// The operator says that berlin is meant.
	asParis := *toBerlin
	asParis.name = toParis.name
	runDaemon(t, "--kubeconfig", e.kubeconfig, "--export-selector", exportLabel+"="+e.id,
		"--remote", asParis.flag()+",uid="+string(uid(berlin)))
	e.soon("berlin's Service under the name", asParis.mirrored("bar", "203.0.113.2"))
	if got := e.service(asParis.mirror("bar")).Annotations["service-mirror.io/cluster-uid"]; got != string(uid(berlin)) {
		t.Errorf("the mirror's cluster UID is %s", got)
	}
}

func TestServerRestartsWithItsHistoryGone(t *testing.T) {
	e := newEnv(t)
	dir := filepath.Join(t.TempDir(), "rome")
	rome, err := startCluster("rome", dir)
	e.must(err)
	defer func() { rome.stop() }()
	r := e.remote(rome)
	r.gateway("203.0.113.1")
	r.export("changed")
	r.export("deleted")
	e.daemon([]*remote{r})
	e.soon("the mirrors", r.mirrored("changed", "203.0.113.1"), r.mirrored("deleted", "203.0.113.1"))
	r.proxy.cut()
	e.change(rome, "changed", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.remove(rome, "deleted")
	r.export("added")
	e.restart(rome, func(string) error { return nil })
	for range 200 { // beyond the new server's watch cache
		e.change(rome, "changed", func(svc *corev1.Service) { svc.Spec.Ports[0].Port++ })
	}
	r.proxy.heal()
	e.eventually(soon+3*time.Second, "the change", r.mirrored("changed", "203.0.113.1"))
	e.soon("the rest", r.mirrored("added", "203.0.113.1"), r.gone("deleted"))
}

// mayNotBeIdentified takes the permission to read the cluster's UID from the remote's credentials.
func (r *remote) mayNotBeIdentified() {
	e := r.env
	e.Helper()
	role, err := r.RbacV1().ClusterRoles().Get(e.ctx, e.id, metav1.GetOptions{})
	e.must(err)
	role.Rules = []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch"}}}
	_, err = r.RbacV1().ClusterRoles().Update(e.ctx, role, metav1.UpdateOptions{})
	e.must(err)
	e.soon("the authorizer", func() error {
		review, err := r.AuthorizationV1().SubjectAccessReviews().Create(e.ctx, &authorizationv1.SubjectAccessReview{
			Spec: authorizationv1.SubjectAccessReviewSpec{
				User:               "system:serviceaccount:" + e.id + ":" + e.id,
				ResourceAttributes: &authorizationv1.ResourceAttributes{Namespace: "kube-system", Name: "kube-system", Verb: "get", Resource: "namespaces"},
			},
		}, metav1.CreateOptions{})
		if err == nil && review.Status.Allowed {
			err = errors.New("reading kube-system is still allowed")
		}
		return err
	})
}

// uid= means that this UID was read: a flag for safety must not remove the check where it cannot be.
func TestUIDThatMayNotBeRead(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	e.openDoors(address, 8080)
	r.gateway(address)
	r.export("bar")
	r.mayNotBeIdentified()
	system, err := paris.CoreV1().Namespaces().Get(e.ctx, "kube-system", metav1.GetOptions{})
	e.must(err)
	since := london.mark(t)
	r.keys = ",uid=" + string(system.UID)
	d := e.daemon([]*remote{r}, listening...)
	e.logs(d, "mirrors are kept unchanged", "uid="+string(system.UID), "allow the account to get namespace kube-system, or set uid=unverified in --remote "+r.name)
	e.stays("not mirrored", r.gone("bar"))
	e.noWrites(since)
	d.stop()
	e.checked(1, e.once([]*remote{r}, "--check"), []string{"- ", r.name, "uid=" + string(system.UID) + " is configured", "set uid=unverified"},
		[]string{"! ", r.name, "no permission to get namespaces kube-system"})

	r.keys = ",uid=unverified"
	d = e.daemon([]*remote{r}, listening...)
	e.soon("the mirror", r.mirrored("bar", address), d.shows(r, "up"))
	d.stop()

	// Without uid= it is accepted, too, while no mirror records another one.
	r.keys = ""
	d = e.daemon([]*remote{r}, listening...)
	r.export("qux")
	e.soon("a mirror without uid=", r.mirrored("qux", address), d.shows(r, "up", "a replaced cluster cannot be detected"))
	e.logs(d, "its mirrors are still updated", "no permission to get namespace kube-system, so a replaced cluster cannot be detected")
	d.stop()

	// Mirrors that record a UID say nothing to uid=unverified, and all to a daemon without uid=.
	mirror := e.service(r.mirror("bar"))
	mirror.Annotations["service-mirror.io/cluster-uid"] = "another"
	_, err = london.CoreV1().Services(e.id).Update(e.ctx, mirror, metav1.UpdateOptions{})
	e.must(err)
	r.export("baz")
	r.keys = ""
	d = e.daemon([]*remote{r}, listening...)
	e.logs(d, "mirrors are kept unchanged", "UID another", "set uid=unverified in --remote "+r.name)
	e.stays("not mirrored", r.gone("baz"))
	d.stop()
	r.keys = ",uid=unverified"
	d = e.daemon([]*remote{r}, listening...)
	e.soon("another mirror", r.mirrored("baz", address), d.shows(r, "up"))
}
