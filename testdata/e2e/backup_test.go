package e2e

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ownCluster starts a control plane that ends with the test.
func ownCluster(t *testing.T, name string) *cluster {
	t.Helper()
	c, err := startCluster(name, filepath.Join(t.TempDir(), name))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.stop() })
	return c
}

// restart stops a cluster, has change work on the directory of its etcd, and starts it again
// at the same address.
func (e *env) restart(c *cluster, change func(etcd string) error) {
	e.Helper()
	c.stop()
	e.must(change(filepath.Join(c.dir, "etcd")))
	e.eventually(time.Minute, "the cluster at its address, which something else may use for a moment", func() error {
		again, err := startCluster(c.name, c.dir)
		if err == nil {
			*c = *again
		}
		return err
	})
}

// backup copies the data of a cluster's etcd; restore puts the copy in their place.
func backup(etcd string) error { return copyData(etcd, etcd+".backup") }

func restore(etcd string) error {
	if err := os.RemoveAll(etcd); err != nil {
		return err
	}
	return copyData(etcd+".backup", etcd)
}

func copyData(from, to string) error {
	if out, err := exec.Command("cp", "-a", from, to).CombinedOutput(); err != nil {
		return fmt.Errorf("cp: %w: %s", err, out)
	}
	return nil
}

// advance makes writes of another kind, which no watch of the daemon sees: it raises the
// resourceVersion of a cluster beyond what it was before a restore.
func (e *env) advance(c *cluster, writes int) {
	e.Helper()
	configMaps := c.CoreV1().ConfigMaps(e.id)
	for i := range writes {
		_, err := configMaps.Create(e.ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: fmt.Sprintf("advance%d-", i)}}, metav1.CreateOptions{})
		e.must(err)
	}
}

// edits changes the port of a Service many times.
func (e *env) edits(c *cluster, name string, times int) {
	e.Helper()
	for range times {
		e.change(c, name, func(svc *corev1.Service) { svc.Spec.Ports[0].Port++ })
	}
}

// noise makes 60 writes of a user's Service, which the daemon's watches see.
func (e *env) noise(c *cluster) {
	e.Helper()
	_, err := c.CoreV1().Services(e.id).Create(e.ctx, &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "noise"}, Spec: corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 1000}}},
	}, metav1.CreateOptions{})
	e.must(err)
	e.edits(c, "noise", 59)
}

// A remote that is restored from a backup has lower resourceVersions than the daemon has
// seen: a watch that resumes would wait for them.
func TestRemoteRestoredFromABackup(t *testing.T) {
	t.Parallel()
	rome := ownCluster(t, "rome")
	e := newLoneEnv(t)
	r := e.remote(rome)
	r.gateway("203.0.113.1")
	for _, name := range []string{"kept", "changed", "removed"} {
		r.export(name)
	}
	e.restart(rome, backup)
	d := e.daemon([]*remote{r}, listening...)
	mirrored := func(names ...string) {
		t.Helper()
		for _, name := range names {
			e.soon(name, r.mirrored(name, "203.0.113.1"))
		}
	}
	mirrored("kept", "changed", "removed")
	kept := e.identities()[r.mirror("kept")]

	r.export("added")
	e.remove(rome, "removed")
	e.edits(rome, "changed", 60)
	mirrored("kept", "changed", "added")
	e.soon("removed", r.gone("removed"))
	r.proxy.cut()
	e.restart(rome, restore)
	r.proxy.heal()
	r.export("late")
	// The first try after the end of the outage comes within 3 s.
	e.eventually(soon+3*time.Second, "what the backup lacks", r.gone("added"))
	mirrored("kept", "changed", "removed", "late")
	e.soon("the remote", d.shows(r, "up"), d.measures(map[string]float64{r.state("mirrored"): 4}))

	// Again, but it has passed what the daemon has seen before the daemon sees it.
	r.export("added")
	e.remove(rome, "removed")
	e.edits(rome, "changed", 20)
	mirrored("kept", "changed", "added")
	e.soon("removed", r.gone("removed"))
	r.proxy.cut()
	ended := time.Now().Add(10 * time.Second)
	e.restart(rome, restore)
	e.advance(rome, 120)
	time.Sleep(time.Until(ended)) // shorter than this, it was no restore
	r.proxy.heal()
	e.eventually(soon+3*time.Second, "what the backup lacks", r.gone("added"))
	e.soon("what it lacks too", r.gone("late"))
	mirrored("kept", "changed", "removed")
	r.export("late")
	mirrored("late")
	if now := e.identities()[r.mirror("kept")]; now != kept {
		t.Errorf("the mirror of kept was %s and is %s", kept, now)
	}
	if n := d.logged("Starting"); n > 1 {
		t.Errorf("the daemon started %d times", n)
	}
}

// The same with the local cluster: mirrors that its backup lacks are created again.
func TestLocalClusterRestoredFromABackup(t *testing.T) {
	t.Parallel()
	oslo := ownCluster(t, "oslo")
	e := newEnvIn(t, oslo, localRules...)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	for _, name := range []string{"kept", "changed", "removed"} {
		r.export(name)
	}
	d := e.daemon([]*remote{r}, listening...)
	mirrored := func(names ...string) {
		t.Helper()
		for _, name := range names {
			e.soon(name, r.mirrored(name, "203.0.113.1"))
		}
	}
	mirrored("kept", "changed", "removed")
	e.restart(oslo, backup)
	kept := e.identities()[r.mirror("kept")]
	r.export("added")
	e.edits(paris, "changed", 1)
	e.remove(paris, "removed")
	e.eventually(soon+3*time.Second, "added", r.mirrored("added", "203.0.113.1"))
	mirrored("kept", "changed")
	e.soon("removed", r.gone("removed"))
	e.noise(oslo)
	e.watched(r, "kept")

	e.restart(oslo, restore)
	e.eventually(soon+3*time.Second, "what the backup lacks", r.mirrored("added", "203.0.113.1"))
	mirrored("kept", "changed")
	e.soon("what only the backup has", r.gone("removed"))
	r.export("late")
	mirrored("late")
	e.soon("the states", d.measures(map[string]float64{r.state("mirrored"): 4, r.state("orphan"): 0}))
	if now := e.identities()[r.mirror("kept")]; now != kept {
		t.Errorf("the mirror of kept was %s and is %s", kept, now)
	}
}

// watched checks that the daemon sees what happens to a mirror, and with it all before that.
func (e *env) watched(r *remote, name string) {
	e.Helper()
	e.change(e.local, r.mirror(name), func(svc *corev1.Service) { svc.Spec.Ports[0].Port++ })
	e.must(e.local.CoreV1().Endpoints(e.id).Delete(e.ctx, r.mirror(name), metav1.DeleteOptions{}))
	e.eventually(soon+3*time.Second, "hand edits are undone", r.mirrored(name, "203.0.113.1"))
}

// The daemon has not seen its own last writes when the local cluster is restored, and the
// resourceVersions have passed all that it has seen.
func TestLocalClusterRestoredBeforeWritesAreSeen(t *testing.T) {
	t.Parallel()
	oslo := ownCluster(t, "oslo")
	e := newEnvIn(t, oslo, localRules...)
	proxy := newProxy(t, oslo)
	token := e.tokenOf(e.kubeconfig)
	e.kubeconfig += ".proxied"
	e.writeKubeconfig(e.kubeconfig, "https://"+proxy.address, proxy.ca, token)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("kept")
	r.export("removed")
	d := e.daemon([]*remote{r}, listening...)
	e.soon("the mirrors", r.mirrored("kept", "203.0.113.1"), r.mirrored("removed", "203.0.113.1"))
	e.restart(oslo, backup)
	e.watched(r, "kept")

	e.mayNotRead(oslo)
	proxy.cutConnections() // an open watch goes on
	e.advance(oslo, 300)
	r.export("added")
	e.remove(paris, "removed")
	e.eventually(soon+3*time.Second, "a write", r.mirrored("added", "203.0.113.1"))
	e.soon("a deletion", r.gone("removed"))
	proxy.cut()
	e.restart(oslo, restore)
	e.advance(oslo, 100)
	proxy.heal()
	e.eventually(soon+3*time.Second, "what the backup lacks", r.mirrored("added", "203.0.113.1"))
	e.soon("what only the backup has", r.gone("removed"))
	e.soon("the states", d.measures(map[string]float64{r.state("mirrored"): 2, r.state("orphan"): 0}))
	r.export("late")
	e.soon("late", r.mirrored("late", "203.0.113.1"))
}

// mayNotRead leaves the daemon the permissions to write in a local cluster and to read its UID, and waits
// until the authorizer knows.
func (e *env) mayNotRead(c *cluster) {
	e.Helper()
	role, err := c.RbacV1().ClusterRoles().Get(e.ctx, e.id, metav1.GetOptions{})
	e.must(err)
	for i := range role.Rules {
		if slices.Contains(role.Rules[i].Resources, "namespaces") {
			continue
		}
		role.Rules[i].Verbs = slices.DeleteFunc(role.Rules[i].Verbs, func(verb string) bool { return verb == "list" || verb == "watch" })
	}
	role.Rules = slices.DeleteFunc(role.Rules, func(rule rbacv1.PolicyRule) bool { return len(rule.Verbs) == 0 })
	_, err = c.RbacV1().ClusterRoles().Update(e.ctx, role, metav1.UpdateOptions{})
	e.must(err)
	e.authorized(c, e.id, false)
}

// A local cluster whose etcd is emptied is another one, with another UID: a daemon that knew the one before
// writes nothing, and one that starts creates all mirrors.
func TestLocalClusterEmptied(t *testing.T) {
	t.Parallel()
	oslo := ownCluster(t, "oslo")
	e := newEnvIn(t, oslo, localRules...)
	e.kubeconfig = filepath.Join(oslo.dir, "kubeconfig") // its user outlives etcd
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	names := []string{"bar0", "bar1", "bar2", "bar3", "bar4"}
	for _, name := range names {
		r.export(name)
	}
	d := e.daemon([]*remote{r}, listening...)
	for _, name := range names {
		e.soon(name, r.mirrored(name, "203.0.113.1"))
	}
	all := float64(len(names))
	e.soon("all are mirrored", d.measures(map[string]float64{r.state("mirrored"): all}))
	e.noise(oslo)

	e.restart(oslo, os.RemoveAll)
	e.must(e.create(oslo, e.id))
	e.eventually(soon+3*time.Second, "the daemon says so", d.localFails(true))
	e.stays("nothing is written", r.gone("bar0"))
	d.stop()
	d = e.daemon([]*remote{r}, listening...)
	for _, name := range names {
		e.eventually(soon+3*time.Second, name, r.mirrored(name, "203.0.113.1"))
	}
	e.soon("all are mirrored again", d.measures(map[string]float64{r.state("mirrored"): all}), d.answers("/readyz", http.StatusOK))
	r.export("late")
	e.soon("late", r.mirrored("late", "203.0.113.1"))
	e.remove(paris, "bar0")
	e.soon("bar0", r.gone("bar0"))
}
