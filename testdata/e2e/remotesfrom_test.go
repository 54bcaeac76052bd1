package e2e

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const remoteLabel = "service-mirror.io/remote"

// readSecrets has the test's daemon read the Secrets of its namespace.
func (e *env) readSecrets() {
	e.Helper()
	_, err := e.local.RbacV1().Roles(e.id).Create(e.ctx, &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: "remotes"},
		Rules: []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"secrets"}, Verbs: []string{"list", "watch"}}}}, metav1.CreateOptions{})
	e.must(err)
	_, err = e.local.RbacV1().RoleBindings(e.id).Create(e.ctx, &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: "remotes"},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: "remotes"},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: e.id, Name: e.id}}}, metav1.CreateOptions{})
	e.must(err)
}

// configure has a Secret configure the remote, or changes it. keys are further ones than the kubeconfig and the gateway; one
// without a value is removed.
func (r *remote) configure(keys map[string]string) {
	r.env.Helper()
	data := map[string]any{}
	add := func(key, value string) {
		if data[key] = []byte(value); value == "" {
			data[key] = nil
		}
	}
	add("kubeconfig", r.config())
	add("gateway", r.env.id+"/gateway")
	for key, value := range keys {
		add(key, value)
	}
	secrets := r.env.local.CoreV1().Secrets(r.env.id)
	patch, err := json.Marshal(map[string]any{"data": data})
	r.env.must(err)
	_, err = secrets.Patch(r.env.ctx, "remote-"+r.name, types.MergePatchType, patch, metav1.PatchOptions{})
	if apierrors.IsNotFound(err) {
		secret := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: "remote-" + r.name, Labels: map[string]string{remoteLabel: r.name}}, Data: map[string][]byte{}}
		for key, value := range data {
			if bytes, ok := value.([]byte); ok {
				secret.Data[key] = bytes
			}
		}
		_, err = secrets.Create(r.env.ctx, secret, metav1.CreateOptions{})
	}
	r.env.must(err)
}

func (r *remote) unconfigure() {
	r.env.Helper()
	r.env.must(r.env.local.CoreV1().Secrets(r.env.id).Delete(r.env.ctx, "remote-"+r.name, metav1.DeleteOptions{}))
}

// closed checks that no connection to the remote is open.
func (r *remote) closed() error {
	if n := r.proxy.open(); n > 0 {
		return fmt.Errorf("%d connections to %s are open", n, r.name)
	}
	return nil
}

// forgotten checks that a remote is not on the page, and has no series but those of its orphans.
func (d *daemon) forgotten(r *remote) func() error {
	return func() error {
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Remotes {
			if row.Name == r.name {
				return fmt.Errorf("the page shows remote %+v", row)
			}
		}
		all, err := d.metrics()
		if err != nil {
			return err
		}
		for series := range all {
			if strings.Contains(series, fmt.Sprintf("remote=%q", r.name)) && !strings.HasPrefix(series, "mirrors{") {
				return fmt.Errorf("there is the series %s", series)
			}
		}
		return nil
	}
}

// Remotes come, change and go while the daemon runs; their mirrors stay.
func TestRemotesFromSecrets(t *testing.T) {
	e := newEnv(t)
	first, second := e.remote(paris), e.remote(berlin)
	for i, r := range []*remote{first, second} {
		r.gateway(fmt.Sprintf("203.0.113.%d", i+1))
		r.export("bar")
	}
	from := append([]string{"--remotes-from", e.id}, listening...)
	first.configure(nil)
	d := e.daemon(nil, from...)
	e.logs(d, "annot read from the local API server", "forbidden", "secrets of remotes in namespace "+e.id)
	e.soon("the reason is shown", d.measures(map[string]float64{"local_problems": 1}))
	e.readSecrets()
	e.eventually(2*time.Minute, "the first mirror", first.mirrored("bar", "203.0.113.1"))
	e.eventually(2*time.Minute, "no problem", d.measures(map[string]float64{"local_problems": 0, first.up(): 1}))

	second.configure(nil)
	e.soon("the second mirror", second.mirrored("bar", "203.0.113.2"), d.shows(second, "up"))
	identities, since := e.identities(), london.mark(t)

	// Another gateway: its mirror routes there, and is the same one.
	second.gatewayNamed("other", "203.0.113.9")
	second.configure(map[string]string{"gateway": e.id + "/other"})
	e.soon("the other gateway", second.mirrored("bar", "203.0.113.9"), d.shows(second, "up"))

	// The old token is revoked once the new one is used.
	old := first.token
	first.token = e.token(paris, "second")
	configured := time.Now()
	first.configure(nil)
	e.soon("the new token is used", func() error { return uses(first, old, configured, d) })
	first.revoke("token", old)
	first.export("baz")
	e.soon("a change arrives", first.mirrored("baz", "203.0.113.1"), d.shows(first, "up"))
	identities = maps.Clone(e.identities())

	// A mistake is shown, and what was configured before stays in use.
	second.configure(map[string]string{"gatway": "x/y", "gateway": e.id + "/other"})
	e.soon("the mistake is shown", d.shows(second, "up", "configuration", `unknown key "gatway"`), d.measures(map[string]float64{second.failing("configuration"): 1, second.up(): 1}))
	e.change(berlin, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.soon("a change arrives", second.mirrored("bar", "203.0.113.9"))
	second.configure(map[string]string{"gatway": "", "gateway": e.id + "/other"})
	e.soon("it is corrected", d.shows(second, "up"), d.measures(map[string]float64{second.failing("configuration"): 0}))

	// The commands read the same Secrets.
	plan := e.command(nil, "plan", "--remotes-from", e.id)
	e.ends(plan, 0, "0 create, 0 update, 0 delete\n")
	e.ends(e.command(nil, "prune", "--remotes-from", e.id, second.name), 2, "prune "+second.name+": Secret "+e.id+"/remote-"+second.name+" configures this remote")
	e.ends(e.command(nil, "prune", "--remotes-from", e.id, "nobody"), 1, "nobody")
	check := e.command(nil, "check", "--remotes-from", e.id)
	e.ends(check, check.code, "remote "+first.name, "kubeconfig in Secret "+e.id+"/remote-"+second.name+" points to") // nothing answers at the gateways

	// A removed one is not followed, and nothing but its mirrors is left.
	second.unconfigure()
	e.soon("it is not followed", second.closed, d.forgotten(second))
	second.export("late")
	e.change(berlin, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 82 })
	first.export("qux")
	e.soon("the other is", first.mirrored("qux", "203.0.113.1"))
	e.stays("nothing of it is mirrored", second.gone("late"))
	e.remove(paris, "qux")
	e.soon("the other is", first.gone("qux"))
	e.sameIdentities(identities)

	second.configure(map[string]string{"gateway": e.id + "/other"})
	e.soon("it is followed again", second.mirrored("bar", "203.0.113.9"), second.mirrored("late", "203.0.113.9"), d.shows(second, "up"))
	e.remove(berlin, "late")
	e.soon("a change arrives", second.gone("late"))
	e.sameIdentities(identities)
	for _, w := range london.writes(t, e.id, since) {
		if w.Verb == "delete" && w.ObjectRef.Name != first.mirror("qux") && w.ObjectRef.Name != second.mirror("late") {
			t.Errorf("%v", w)
		}
	}
	if n := d.logged("Starting"); n != 1 {
		t.Errorf("the daemon started %d times", n)
	}
}

// Many remotes that come at once are each followed, and none disturbs another. Of two that have one name, the flag's is
// used and the other is shown.
func TestManyRemotesFromSecrets(t *testing.T) {
	const number = 50
	e := newEnv(t)
	e.readSecrets()
	flagged, other := e.remote(paris), e.remote(berlin)
	flagged.gateway("203.0.113.1")
	other.gateway("203.0.113.2")
	flagged.export("bar")
	other.export("bar")
	d := e.daemon([]*remote{flagged}, append([]string{"--remotes-from", e.id}, listening...)...)
	e.soon("the flag's mirror", flagged.mirrored("bar", "203.0.113.1"))
	since := london.mark(t)
	flagged.configure(map[string]string{"gateway": e.id + "/nowhere"})
	var all []*remote
	var names []string
	for i := range number {
		one := *flagged
		if i%2 == 1 {
			one = *other
		}
		one.name = fmt.Sprintf("r%d-%s", i, e.id)
		all, names = append(all, &one), append(names, one.name)
	}
	e.must(e.local.ConfigureRemotes(e.ctx, names...))
	for _, r := range all {
		r.configure(nil)
	}
	for i, r := range all {
		e.eventually(2*time.Minute, "mirror of "+r.name, r.mirrored("bar", fmt.Sprintf("203.0.113.%d", i%2+1)))
	}
	e.soon("the flag wins, and says so", d.shows(flagged, "up", "configuration", "because --remote "+flagged.name+" configures the remote"), flagged.mirrored("bar", "203.0.113.1"))
	e.change(berlin, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	for i, r := range all {
		e.eventually(2*time.Minute, "a change of "+r.name, r.mirrored("bar", fmt.Sprintf("203.0.113.%d", i%2+1)))
	}
	identities := e.identities()
	for _, r := range all {
		r.unconfigure()
	}
	for _, r := range all {
		e.eventually(2*time.Minute, r.name+" is forgotten", d.forgotten(r))
	}
	e.eventually(2*time.Minute, "berlin is not followed", other.closed)
	e.sameIdentities(identities)
	e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 82 })
	e.soon("the flag's remote is followed", flagged.mirrored("bar", "203.0.113.1"))
	for _, w := range london.writes(t, e.id, since) {
		if w.Verb == "delete" {
			t.Errorf("%v", w)
		}
	}
}
