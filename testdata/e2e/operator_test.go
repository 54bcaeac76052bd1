package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ran is the result of a program that ends by itself.
type ran struct {
	code           int
	stdout, stderr string
}

// once runs the program to its end, with the given remotes.
func (e *env) once(remotes []*remote, args ...string) ran {
	e.Helper()
	args = append([]string{"--kubeconfig", e.kubeconfig, "--export-selector", exportLabel + "=" + e.id}, args...)
	for _, r := range remotes {
		args = append(args, "--remote", r.flag())
	}
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(e.ctx, program("service-mirror-race"), args...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		e.Fatal(err)
	}
	if strings.Contains(stderr.String(), "DATA RACE") {
		e.Errorf("the race detector found something:\n%s", stderr.String())
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// marked are the lines with a mark: + is right, ! is a warning, - must be fixed.
func (r ran) marked(mark string) (lines []string) {
	for line := range strings.Lines(r.stdout) {
		if strings.HasPrefix(line, mark+" ") {
			lines = append(lines, line)
		}
	}
	return lines
}

func (r ran) String() string {
	return fmt.Sprintf("exit code %d, printed\n%s%s", r.code, r.stdout, r.stderr)
}

// realWrites are a user's writes except reviews, which are creates to an API server.
func (e *env) realWrites(since auditMark) []request {
	e.Helper()
	return slices.DeleteFunc(e.local.writes(e.T, e.id, since), func(w request) bool { return w.ObjectRef.Resource == "selfsubjectaccessreviews" })
}

// checked is a test of --check: of the lines that report a problem, the program must print
// one with all words of each of these, and no others.
func (e *env) checked(code int, got ran, want ...[]string) {
	e.Helper()
	bad := append(got.marked("-"), got.marked("!")...)
	if got.code != code || len(bad) != len(want) || len(got.marked("+"))+len(bad) != strings.Count(got.stdout, "\n") {
		e.Errorf("%v\nwant exit code %d, marks on all lines, and these that have another mark: %q", got, code, want)
		return
	}
wanted:
	for _, words := range want {
		for _, line := range bad {
			if !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) }) {
				continue wanted
			}
		}
		e.Errorf("%v\nwant a line with %q", got, words)
	}
}

func TestCheck(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	doors := e.openDoors(address, 8080)
	r.gateway(address)
	r.export("bar")
	since, there := london.mark(t), paris.mark(t)
	all := []*remote{r}
	localName, remoteName := "local cluster "+london.config.Host, "remote "+r.name

	good := e.once(all, "--check")
	e.checked(0, good)
	for _, words := range [][]string{
		{localName, "Kubernetes v1."}, {localName, "all required permissions"},
		{remoteName, localName, r.kubeconfig, r.proxy.address}, {remoteName, "Kubernetes v1."}, {remoteName, "all required permissions"}, {remoteName, "UID"},
		{remoteName, "gateway " + e.id + "/gateway answers at " + address + ":8080"}, {remoteName, "1 of 1 exported Services can be mirrored"},
	} {
		if !slices.ContainsFunc(good.marked("+"), func(line string) bool {
			return !slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(line, word) })
		}) {
			t.Errorf("%v\nwant a line with %q", good, words)
		}
	}

	// A warning is no reason to fail.
	r.export(strings.Repeat("x", 61))
	r.export("headless", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	e.foreignService(r.mirror("theirs"))
	r.export("theirs")
	e.makeNamespace(paris, e.id+"-other")
	r.export("database", func(svc *corev1.Service) {
		svc.Spec.Ports = []corev1.ServicePort{{Name: "db", Port: 5432, Protocol: corev1.ProtocolSCTP}, {Name: "http", Port: 80}}
	})
	elsewhere := r.exported("bar", func(svc *corev1.Service) { svc.Namespace = e.id + "-other" })
	_, err := paris.CoreV1().Services(elsewhere.Namespace).Create(e.ctx, elsewhere, metav1.CreateOptions{})
	e.must(err)
	doors.close()
	hoped := [][]string{
		{"! ", remoteName, "xxx will not be mirrored", "characters"}, {"! ", remoteName, "headless will not be mirrored"},
		{"! ", remoteName, "theirs will not be mirrored", "already exists and is not managed by service-mirror"}, {"! ", remoteName, "-other/bar will not be mirrored", "namespace " + e.id + "-other does not exist"},
		{"! ", remoteName, "database will be mirrored", "port db (5432/SCTP)", "no SCTP port of the gateway is reserved for it"},
		{"! ", remoteName, "does not answer at " + address + ":8080", "connection refused"},
	}
	e.checked(0, e.once(all, "--check"), hoped...)

	// What must be fixed is, whatever else there is.
	r.keys = ",uid=11111111-2222-3333-4444-555555555555"
	e.checked(1, e.once(all, "--check"), append(hoped, []string{"- ", remoteName, "uid=11111111-2222-3333-4444-555555555555 is configured"})...)
	r.keys = ""
	e.checked(1, e.once(all, "--check", "--endpoints-api", "endpointslices"), append(hoped,
		[]string{"- ", localName, "no permission to create, update endpointslices.discovery.k8s.io"})...)
	two := []*remote{r, e.remote(berlin)}
	two[1].proxy.cut()
	e.checked(1, e.once(two, "--check"), append(hoped, []string{"- ", "remote " + two[1].name, "does not answer", "connection refused", two[1].proxy.address})...)
	two[1].proxy.heal()
	doors.open()
	hoped = hoped[:5]
	two[1].gateway() // without an address
	two[1].export("bar")
	e.checked(1, e.once(two, "--check"), append(hoped, []string{"- ", "remote " + two[1].name, "no address"})...)
	e.remove(berlin, "gateway")
	e.checked(1, e.once(two, "--check"), append(hoped, []string{"- ", "remote " + two[1].name, e.id + "/gateway does not exist"})...)

	// Credentials.
	kept, err := os.ReadFile(r.kubeconfig)
	e.must(err)
	for _, test := range []struct {
		write func()
		words []string
	}{
		{func() { e.must(os.Remove(r.kubeconfig)) }, []string{"kubeconfig", "no such file"}},
		{func() { e.must(os.WriteFile(r.kubeconfig, []byte("not: a: kubeconfig"), 0o600)) }, []string{"kubeconfig", "mapping values"}},
		{func() { e.writeKubeconfig(r.kubeconfig, "https://"+r.proxy.address, r.proxy.ca, "none") }, []string{"401"}},
		{func() {
			e.writeKubeconfig(r.kubeconfig, "https://"+r.proxy.address, two[1].proxy.ca, r.token)
		}, []string{"unknown authority"}},
	} {
		test.write()
		e.checked(1, e.once(all, "--check"), append([]string{"- ", remoteName}, test.words...))
	}
	e.must(os.WriteFile(r.kubeconfig, kept, 0o600))
	r.unbind()
	got := e.once(all, "--check")
	e.bind(paris)
	if got.code != 1 || !slices.ContainsFunc(got.marked("-"), func(line string) bool {
		return strings.Contains(line, remoteName) && strings.Contains(line, "no permission to list, watch services")
	}) || !slices.ContainsFunc(got.marked("!"), func(line string) bool { return strings.Contains(line, "no permission to get namespaces kube-system") }) {
		t.Errorf("%v\nwant the permissions that are missing", got)
	}
	toLondon := newProxy(t, london)
	toLondon.cut()
	e.writeKubeconfig(e.kubeconfig, "https://"+toLondon.address, toLondon.ca, e.tokenOf(e.kubeconfig))
	if got := e.once(all, "--check"); got.code != 1 || len(got.marked("-")) != 1 || !strings.Contains(got.marked("-")[0], toLondon.address) || len(got.marked("+")) < 5 {
		t.Errorf("%v\nwant the local cluster's trouble, and + on all else", got)
	}
	if writes := e.realWrites(since); len(writes) > 0 {
		t.Errorf("--check wrote %v", writes)
	}
	if writes := slices.DeleteFunc(paris.writes(t, e.id, there), func(w request) bool { return w.ObjectRef.Resource == "selfsubjectaccessreviews" }); len(writes) > 0 {
		t.Errorf("--check wrote %v in the remote", writes)
	}
}

func TestCheckMissingPermissions(t *testing.T) {
	t.Parallel()
	e := newEnvIn(t, london,
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services"}, Verbs: []string{"list", "watch", "update"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"endpoints"}, Verbs: []string{"list", "watch", "create", "update", "delete"}},
		rbacv1.PolicyRule{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch", "delete"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"namespaces"}, Verbs: []string{"list", "watch"}})
	r := e.remote(paris)
	address := e.healthyAddress()
	e.openDoors(address, 8080)
	r.gateway(address)
	r.export("bar")
	optional := [][]string{
		{"! ", "no permission to create, patch events", "no Events"}, {"! ", "no permission to list, watch servicecidrs"}, {"! ", "no permission to get ipaddresses"}, {"! ", "no permission to list, watch nodes"},
	}
	missing := append(optional, []string{"- ", "local cluster", "no permission to create, delete services:", "grant it"})
	e.checked(1, e.once([]*remote{r}, "--check"), missing...)
	e.checked(1, e.once([]*remote{r}, "--check", "--leader-elect", "--leader-elect-lease", e.id+"/lease", "--create-namespaces"), append(missing,
		[]string{"- ", "no permission to get, update leases.coordination.k8s.io lease in namespace " + e.id}, []string{"- ", "no permission to create leases.coordination.k8s.io in namespace " + e.id},
		[]string{"- ", "no permission to create namespaces"})...)
}

var planned = regexp.MustCompile(`(?m)^(create|update|delete) (Service|Endpoints) (\S+) in (\S+) for remote (\S+)$`)

// A dry run prints what the daemon then does, with credentials that may not write.
func TestDryRun(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	for _, name := range []string{"same", "changed", "gone", "unlabelled"} {
		r.export(name)
	}
	d := e.daemon([]*remote{r})
	for _, name := range []string{"same", "changed", "gone", "unlabelled"} {
		e.soon("the mirrors", r.mirrored(name, "203.0.113.1"))
	}
	d.stop()
	reader := e.reader()
	dryRun := func() ran {
		t.Helper()
		return reader.once([]*remote{r}, "--dry-run")
	}
	since := london.mark(t)
	if got := dryRun(); got.code != 0 || got.stdout != "no changes in "+london.config.Host+"\n" {
		t.Errorf("with everything as desired: %v", got)
	}
	e.change(paris, "changed", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.remove(paris, "gone")
	e.change(paris, "unlabelled", e.unlabel)
	r.export("new")
	r.export(strings.Repeat("x", 61))
	e.foreignService(r.mirror("theirs"))
	r.export("theirs")
	before := e.identities()
	got := dryRun()
	// The port is the Service's alone: the Endpoints have the gateway's.
	var want []string
	for _, line := range []string{"create Service new", "create Endpoints new", "update Service changed", "delete Service gone", "delete Endpoints gone",
		"delete Service unlabelled", "delete Endpoints unlabelled"} {
		words := strings.Fields(line)
		want = append(want, fmt.Sprintf("%s %s %s/%s in %s for remote %s", words[0], words[1], e.id, r.mirror(words[2]), london.config.Host, r.name))
	}
	lines := planned.FindAllString(got.stdout, -1)
	slices.Sort(lines)
	if slices.Sort(want); got.code != 0 || !slices.Equal(lines, want) {
		t.Errorf("%v\nplanned %q, want %q", got, lines, want)
	}
	for _, part := range []string{
		"\n-    port: 80\n", "\n+    port: 81\n",
		"! mirror " + e.id + "/" + r.mirror("theirs") + " in " + london.config.Host + " for remote " + r.name + ": Conflict", ": InvalidName: ",
		"service-mirror.io/remote-service: " + e.id + "/new", `ip: "203.0.113.1"`,
	} {
		if !strings.Contains(got.stdout, part) {
			t.Errorf("%v\nwant %q in it", got, part)
		}
	}
	if strings.Contains(got.stdout, r.mirror("same")) {
		t.Errorf("%v\nnothing of the mirror that stays as it is is wanted", got)
	}
	if again := dryRun(); again.stdout != got.stdout {
		t.Errorf("the same twice differs:\n%s\n%s", got.stdout, again.stdout)
	}
	e.sameIdentities(before)
	for _, user := range []string{e.id, e.id + "-reader"} {
		if writes := london.writes(t, user, since); len(writes) > 0 {
			t.Errorf("a dry run wrote: %v", writes)
		}
	}
	if len(london.requests(t, e.id+"-reader", since)) == 0 {
		t.Error("the audit log has no request of a dry run")
	}

	// The daemon does just that.
	since = london.mark(t)
	d = e.daemon([]*remote{r})
	e.soon("it is done", r.mirrored("new", "203.0.113.1"), r.mirrored("changed", "203.0.113.1"), r.gone("gone"), r.gone("unlabelled"))
	var done []string
	for _, w := range london.writes(t, e.id, since) {
		kind := map[string]string{"services": "Service", "endpoints": "Endpoints"}[w.ObjectRef.Resource]
		name := w.ObjectRef.Name
		done = append(done, fmt.Sprintf("%s %s %s/%s in %s for remote %s", w.Verb, kind, e.id, name, london.config.Host, r.name))
	}
	// Looking whether a foreign object's name is free is one try more, which fails.
	done = slices.DeleteFunc(done, func(line string) bool { return strings.Contains(line, r.mirror("theirs")) })
	if slices.Sort(done); !slices.Equal(done, want) {
		t.Errorf("the daemon wrote %q, and the dry run said %q", done, want)
	}
	d.stop()

	// What is not known is reported, and no step is printed for it.
	r.proxy.cut()
	got = dryRun()
	if got.code != 1 || planned.MatchString(got.stdout) || !strings.Contains(got.stderr, "remote "+r.name) || !strings.Contains(got.stderr, "connection refused") {
		t.Errorf("with a remote that is unreachable: %v", got)
	}
}

// reader is the test with credentials that may list and watch, and write nothing.
func (e *env) reader() *env {
	e.Helper()
	var rules []rbacv1.PolicyRule
	for _, rule := range localRules {
		if rule.Resources[0] != "events" {
			rule.Verbs = []string{"list", "watch"}
			rules = append(rules, rule)
		}
	}
	name := e.id + "-reader"
	_, err := e.local.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
	e.must(err)
	e.Cleanup(func() { e.local.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}) })
	as := *e
	as.kubeconfig += ".reader"
	e.writeKubeconfig(as.kubeconfig, e.local.config.Host, e.local.config.CAData, e.user(name, name))
	return &as
}

func TestPrune(t *testing.T) {
	t.Parallel()
	e := newEnvIn(t, london, slices.Concat(localRules, sliceRules)...)
	gone, kept := e.remote(paris), e.remote(berlin)
	gone.gateway("203.0.113.1")
	kept.gateway("203.0.113.2")
	const n = 5
	for i := range n {
		gone.export(fmt.Sprintf("bar%d", i))
		kept.export(fmt.Sprintf("bar%d", i))
	}
	mirrored := func(r *remote, address string) func() error {
		return func() error {
			for i := range n {
				if err := r.mirrored(fmt.Sprintf("bar%d", i), address)(); err != nil {
					return err
				}
			}
			return nil
		}
	}
	both := []*remote{gone, kept}
	d := e.daemon(both)
	e.soon("the mirrors", mirrored(gone, "203.0.113.1"), mirrored(kept, "203.0.113.2"))
	d.stop()
	// What only looks like the remote's.
	e.foreignService("theirs-" + gone.name)
	e.change(london, "theirs-"+gone.name, func(svc *corev1.Service) { svc.Labels["service-mirror.io/cluster"] = gone.name })
	theirs := snapshot(e.service("theirs-" + gone.name))

	since := london.mark(t)
	d = e.daemon([]*remote{kept}, listening...)
	orphans := func(want float64) func() error {
		return d.measures(map[string]float64{gone.state("orphan"): want, kept.state("mirrored"): n, kept.state("orphan"): 0})
	}
	e.soon("they are counted", orphans(n))
	e.stays("all mirrors", mirrored(gone, "203.0.113.1"), mirrored(kept, "203.0.113.2"), orphans(n))

	var want []string
	for _, kind := range []string{"Service", "Endpoints"} {
		for i := range n {
			want = append(want, fmt.Sprintf("%s %s/%s in %s of remote %s", kind, e.id, gone.mirror(fmt.Sprintf("bar%d", i)), london.config.Host, gone.name))
		}
	}
	want = append(want, fmt.Sprintf("%d objects in %s of remote %s", 2*n, london.config.Host, gone.name))
	list := strings.Join(want, "\n") + "\n"
	dry := e.once(nil, "--prune-dry-run", gone.name)
	if dry.code != 0 || dry.stdout != list {
		t.Errorf("%v\nwant\n%s", dry, list)
	}
	// Not while it is configured.
	if got := e.once(both, "--prune", gone.name); got.code != 2 || !strings.Contains(got.stderr, "--prune "+gone.name) {
		t.Errorf("for a configured remote: %v", got)
	}
	if got := e.once([]*remote{kept}, "--prune-dry-run", "unknown"); got.code != 0 || got.stdout != fmt.Sprintf("0 objects in %s of remote unknown\n", london.config.Host) {
		t.Errorf("for an unknown remote: %v", got)
	}
	e.noWrites(since)

	reader := e.reader()
	if got := reader.once(nil, "--prune-dry-run", gone.name); got.code != 0 || got.stdout != list {
		t.Errorf("with the right to read alone: %v\nwant\n%s", got, list)
	}
	if got := reader.once(nil, "--prune", gone.name); got.code != 1 || !strings.Contains(got.stderr, "forbidden") || !strings.HasSuffix(got.stdout, "\n0 removed\n") {
		t.Errorf("without the right to delete: %v", got)
	}
	e.must(mirrored(gone, "203.0.113.1")())

	since = london.mark(t)
	got := e.once([]*remote{kept}, "--prune", gone.name)
	if got.code != 0 || got.stdout != list+fmt.Sprintf("%d removed\n", 2*n) {
		t.Errorf("%v\nwant\n%s%d removed", got, list, 2*n)
	}
	for i := range n {
		e.soon("it is gone", gone.gone(fmt.Sprintf("bar%d", i)))
	}
	e.soon("none is counted", func() error {
		all, err := d.metrics()
		if n := all[gone.state("orphan")]; err == nil && n != 0 {
			err = fmt.Errorf("%v are counted", n)
		}
		return err
	})
	e.must(mirrored(kept, "203.0.113.2")())
	if now := snapshot(e.service("theirs-" + gone.name)); now != theirs {
		t.Errorf("the foreign Service was %s and is %s", theirs, now)
	}
	for _, w := range london.writes(t, e.id, since) {
		if w.Verb != "delete" || !strings.HasSuffix(w.ObjectRef.Name, "-"+gone.name) || strings.HasPrefix(w.ObjectRef.Name, "theirs") {
			t.Errorf("%v", w)
		}
	}
	if again := e.once(nil, "--prune", gone.name); again.code != 0 || again.stdout != fmt.Sprintf("0 objects in %s of remote %s\n0 removed\n", london.config.Host, gone.name) {
		t.Errorf("once more: %v", again)
	}
	d.stop()
	// It is configured again: it is mirrored again.
	d = e.daemon(both, append(listening, "--endpoints-api", "endpointslices")...)
	e.soon("slices", gone.slicesLead("bar0", to("http:8080", "203.0.113.1")...), kept.slicesLead("bar0", to("http:8080", "203.0.113.2")...),
		d.measures(map[string]float64{gone.state("mirrored"): n, kept.state("mirrored"): n}))
	d.stop()
	pruned := e.once([]*remote{kept}, "--prune", gone.name)
	slicesListed := 0
	for line := range strings.Lines(pruned.stdout) {
		if strings.HasPrefix(line, "EndpointSlice "+e.id+"/bar") {
			slicesListed++
		}
	}
	if pruned.code != 0 || slicesListed != n || !strings.HasSuffix(pruned.stdout, fmt.Sprintf("\n%d removed\n", 2*n)) {
		t.Errorf("EndpointSlices: %v", pruned)
	}
	for i := range n {
		e.soon("it is gone", gone.gone(fmt.Sprintf("bar%d", i)), gone.slicesLead(fmt.Sprintf("bar%d", i)))
	}
	e.soon("the other's slices", kept.slicesLead("bar0", to("http:8080", "203.0.113.2")...))
}
