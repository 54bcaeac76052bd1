package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/testdata/harness"
)

// command runs a command of the program to its end, with the flags of a daemon that has the given remotes.
func (e *env) command(remotes []*remote, name string, args ...string) ran {
	e.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(e.ctx, program("service-mirror-race"), append([]string{name}, e.args(remotes, args...)...)...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil && !errors.As(err, new(*exec.ExitError)) {
		e.Fatal(err)
	}
	if strings.Contains(stderr.String(), "DATA RACE") {
		e.Errorf("the race detector found something:\n%s", &stderr)
	}
	return ran{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// ends wants an exit code, and texts in what was printed.
func (e *env) ends(got ran, code int, texts ...string) {
	e.Helper()
	if got.code != code {
		e.Errorf("%v\nwant exit code %d", got, code)
	}
	for _, text := range texts {
		if !strings.Contains(got.stdout+got.stderr, text) {
			e.Errorf("%v\nwant %q in it", got, text)
		}
	}
}

// decode reads what was printed as JSON.
func (e *env) decode(got ran, into any) {
	e.Helper()
	if err := json.Unmarshal([]byte(got.stdout), into); err != nil {
		e.Fatalf("%v\nis no JSON: %v", got, err)
	}
}

// The exit code of a plan says whether there are differences, and its last line how many.
func TestPlanCommand(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	for _, name := range []string{"same", "changed", "gone"} {
		r.export(name)
	}
	all := []*remote{r}
	d := e.daemon(all)
	for _, name := range []string{"same", "changed", "gone"} {
		e.soon("the mirrors", r.mirrored(name, "203.0.113.1"))
	}
	d.stop()
	reader := e.reader()
	since := london.mark(t)
	if got := reader.command(all, "plan"); got.code != 0 || got.stdout != "0 create, 0 update, 0 delete\n" || got.stderr != "" {
		t.Errorf("with everything as desired: %v", got)
	}
	e.change(paris, "changed", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	e.remove(paris, "gone")
	r.export("new")
	got := reader.command(all, "plan")
	if e.ends(got, 1, "\n-    port: 80\n+    port: 81\n"); !strings.HasSuffix(got.stdout, "\n2 create, 1 update, 2 delete\n") || got.stderr != "" {
		t.Errorf("with differences: %v", got)
	}
	var read struct {
		Create, Update, Delete int
		Steps                  []struct{ Action, Kind, Name, Remote string }
	}
	got = reader.command(all, "plan", "-o", "json")
	if e.decode(got, &read); got.code != 1 || read.Create != 2 || read.Update != 1 || read.Delete != 2 || len(read.Steps) != 5 || read.Steps[0].Remote != r.name {
		t.Errorf("as JSON: %v", got)
	}
	e.ends(reader.once(all, "--dry-run"), 0, "update Service ")
	if writes := london.writes(t, e.id+"-reader", since); len(writes) > 0 {
		t.Errorf("a plan wrote %v", writes)
	}
	r.proxy.cut()
	e.ends(reader.command(all, "plan"), 3, "0 create, 0 update, 0 delete\n", "remote "+r.name+" cannot be read", "connection refused")
}

// Many exports with one problem are one line, and a warning is a failure only where the check is strict.
func TestCheckCommand(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	e.openDoors(address, 8080)
	r.gateway(address)
	r.export("bar")
	all := []*remote{r}
	e.ends(e.command(all, "check", "--strict"), 0, "1 of 1 exported Services can be mirrored")

	const n = 40
	elsewhere := e.id + "-elsewhere" // which London does not have
	e.makeNamespace(paris, elsewhere)
	for i := range n {
		svc := r.exported(fmt.Sprintf("bar%d", i), func(svc *corev1.Service) { svc.Namespace = elsewhere })
		_, err := paris.CoreV1().Services(elsewhere).Create(e.ctx, svc, metav1.CreateOptions{})
		e.must(err)
	}
	words := []string{"! ", "remote " + r.name, fmt.Sprintf("%d exported Services will not be mirrored: NamespaceMissing: %s/bar0, ", n, elsewhere), "and 37 more: namespace " + elsewhere + " does not exist"}
	e.checked(0, e.command(all, "check"), words)
	e.checked(0, e.once(all, "--check"), words)
	strict := e.command(all, "check", "--strict")
	e.checked(1, strict, words)
	e.ends(strict, 1, "check failed: 0 errors, 1 warning")
	var read struct {
		Errors, Warnings int
		Clusters         []struct {
			Name     string
			Findings []struct {
				Level, Reason string
				Services      []string
			}
		}
	}
	got := e.command(all, "check", "-o", "json")
	e.decode(got, &read)
	if got.code != 0 || read.Errors != 0 || read.Warnings != 1 || len(read.Clusters) != 2 {
		t.Fatalf("as JSON: %v", got)
	}
	named := 0
	for _, finding := range read.Clusters[1].Findings {
		if finding.Level == "warning" && finding.Reason == "NamespaceMissing" {
			named += len(finding.Services)
		}
	}
	if named != n {
		t.Errorf("%d Services are named, want %d: %v", named, n, got)
	}
	r.proxy.cut()
	e.ends(e.command(all, "check"), 1, "check failed: 1 error, 0 warnings", "connection refused")
}

// A check that begins before what it awaits exists passes once that does, and prints only the last result.
func TestCheckIsAwaited(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	address := e.healthyAddress()
	e.openDoors(address, 8080)
	r.gateway(address)
	elsewhere := e.id + "-awaited"
	e.makeNamespace(paris, elsewhere)
	_, err := paris.CoreV1().Services(elsewhere).Create(e.ctx, r.exported("bar", func(svc *corev1.Service) { svc.Namespace = elsewhere }), metav1.CreateOptions{})
	e.must(err)

	var stdout bytes.Buffer
	cmd := exec.CommandContext(e.ctx, program("service-mirror-race"), append([]string{"check"}, e.args([]*remote{r}, "--strict", "--wait=5m", "-o=json")...)...)
	cmd.Stdout = &stdout
	check, err := harness.Start(cmd)
	e.must(err)
	e.eventually(time.Minute, "the progress of the check", func() error {
		if said := check.Log.String(); !strings.Contains(said, "service-mirror: waiting: ") || !strings.Contains(said, "namespace "+elsewhere+" does not exist") {
			return fmt.Errorf("it says %s", said)
		}
		return check.Running()
	})
	e.makeNamespace(london, elsewhere)
	if err := check.Wait(); err != nil || strings.Contains(check.Log.String(), "DATA RACE") {
		t.Fatalf("%v: %s\n%s", err, check.Log, &stdout)
	}
	var read struct {
		Errors, Warnings int
		Clusters         []struct{ Name string }
	}
	if err := json.Unmarshal(stdout.Bytes(), &read); err != nil || read.Errors+read.Warnings > 0 || len(read.Clusters) != 2 {
		t.Errorf("%v: %s", err, &stdout)
	}
}

// A name that has no mirrors is an error, and nothing is deleted.
func TestPruneCommand(t *testing.T) {
	e := newEnv(t)
	gone, kept := e.remote(paris), e.remote(berlin)
	gone.gateway("203.0.113.1")
	kept.gateway("203.0.113.2")
	gone.export("bar")
	kept.export("bar")
	d := e.daemon([]*remote{gone, kept})
	e.soon("the mirrors", gone.mirrored("bar", "203.0.113.1"), kept.mirrored("bar", "203.0.113.2"))
	d.stop()
	since := london.mark(t)
	unknown := e.command([]*remote{kept}, "prune", gone.name, gone.name+"x")
	e.ends(unknown, 1, "service-mirror: "+gone.name+"x: no mirrors of this remote in "+london.config.Host+": there are mirrors of remotes ", gone.name+" (1)", kept.name+" (1)")
	if unknown.stdout != "" {
		t.Errorf("of a remote that is not known: %v", unknown)
	}
	e.ends(e.command([]*remote{gone}, "prune", gone.name), 2, "the remote is still configured")
	dry := e.command(nil, "prune", gone.name, "--dry-run")
	if want := e.once(nil, "--prune-dry-run", gone.name); dry.code != 0 || dry.stdout != want.stdout || !strings.HasSuffix(dry.stdout, fmt.Sprintf("\n2 objects in %s of remote %s\n", london.config.Host, gone.name)) {
		t.Errorf("%v\nand with the flag\n%v", dry, want)
	}
	e.noWrites(since)
	var read struct {
		Remotes []struct {
			Remote  string
			Objects []struct{ Kind, Name string }
			Removed int
		}
	}
	got := e.command([]*remote{kept}, "prune", gone.name, "-o", "json")
	if e.decode(got, &read); got.code != 0 || len(read.Remotes) != 1 || len(read.Remotes[0].Objects) != 2 || read.Remotes[0].Removed != 2 {
		t.Errorf("%v", got)
	}
	e.soon("it is gone", gone.gone("bar"))
	e.must(kept.mirrored("bar", "203.0.113.2")())
	e.ends(e.command(nil, "prune", gone.name), 1, "there are mirrors of remotes ")
}

// leaderPod is a Pod that is this test's leader: a daemon with its name and address.
func (e *env) leaderPod(r *remote, name string, args ...string) *daemon {
	e.Helper()
	address := e.healthyAddress()
	e.eventually(soon, "the namespace's ServiceAccount", func() error { // which a controller makes
		_, err := e.local.CoreV1().ServiceAccounts(e.id).Get(e.ctx, "default", metav1.GetOptions{})
		return err
	})
	pods := e.local.CoreV1().Pods(e.id)
	pod, err := pods.Create(e.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		Containers: []corev1.Container{{Name: "c", Image: "none", Ports: []corev1.ContainerPort{{ContainerPort: 8080}}}},
	}}, metav1.CreateOptions{})
	e.must(err)
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}}}
	_, err = pods.UpdateStatus(e.ctx, pod, metav1.UpdateOptions{})
	e.must(err)
	// In a host name of its own, which is a pod's name.
	args = append([]string{"--uts", "sh", "-c", `hostname "$0" && exec "$@"`, name, program("service-mirror-race")}, e.args([]*remote{r}, append(args, "--listen", address+":8080")...)...)
	process, err := harness.Start(exec.Command("unshare", args...))
	e.must(err)
	d := &daemon{t: e.T, cmd: process, log: process.Log}
	e.Cleanup(func() {
		if !d.stopped {
			d.stop()
		}
		if e.Failed() {
			e.Logf("log of the leader:\n%s", d.log)
		}
	})
	return d
}

// statusOf is what status prints as JSON.
type statusOf struct {
	Source  struct{ From, Name, Why string }
	Healthy bool
	Remotes []remoteOf
	Causes  []causeOf
}

type remoteOf struct {
	Name, State string
	Exported    int
	Counts      map[string]int
}

type causeOf struct {
	Reason, Remedy string
	Mirrors        []string
}

// The state is the leader's, which is read through the API server with two permissions, or else is worked out.
func TestStatusCommand(t *testing.T) {
	t.Parallel()
	e := newEnvIn(t, london, slices.Concat(localRules, leaseRules)...)
	r := e.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	r.export("headless", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	lease := []string{"--leader-elect-lease", e.id + "/mirror"}
	d := e.leaderPod(r, "leader-"+e.id, append(lease, "--leader-elect")...)
	e.soon("a mirror", r.mirrored("bar", "203.0.113.1"))

	viewer := e.viewer("viewer", rbacv1.PolicyRule{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get"}},
		rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"pods/proxy"}, Verbs: []string{"get"}})
	headless := []string{"Headless: 1 mirror of " + r.name + ": " + e.id + "/" + r.mirror("headless"), "\n  Fix: ", "1 mirrored, ", "Unhealthy: "}
	e.eventually(time.Minute, "the status of the leader", func() error {
		got := viewer.command(nil, "status", lease...)
		if got.code != 1 || !strings.Contains(got.stdout, "from the leader, pod "+e.id+"/leader-"+e.id) || !strings.Contains(got.stdout, headless[0]) {
			return fmt.Errorf("%v", got)
		}
		e.ends(got, 1, headless...)
		return nil
	})
	var read statusOf
	e.decode(viewer.command(nil, "status", append(lease, "-o", "json")...), &read)
	if read.Source.From != "leader" || read.Healthy || !slices.ContainsFunc(read.Causes, func(c causeOf) bool {
		return c.Reason == "Headless" && c.Remedy != "" && slices.Contains(c.Mirrors, e.id+"/"+r.mirror("headless"))
	}) {
		t.Errorf("as JSON: %+v", read)
	}
	e.ends(viewer.command(nil, "status", append(lease, "--url", "http://"+d.serves())...), 1, headless...)

	// Without these permissions it is worked out, with the daemon's flags or without; the other tests' mirrors
	// are orphans then.
	since := london.mark(t)
	reader := e.reader()
	e.ends(reader.command([]*remote{r}, "status", lease...), 1, append(headless, "computed from the clusters: the leader's status cannot be read: read Lease "+e.id+"/mirror: ")...)
	read = statusOf{}
	e.decode(reader.command(nil, "status", append(lease, "-o", "json")...), &read)
	own := slices.IndexFunc(read.Remotes, func(one remoteOf) bool { return one.Name == r.name })
	if read.Source.From != "local cluster" || read.Source.Why == "" || own < 0 || read.Remotes[own].Counts["mirrored"] != 1 || read.Remotes[own].Exported != -1 {
		t.Errorf("of the local cluster alone: %+v", read)
	}
	if writes := london.writes(t, e.id+"-reader", since); len(writes) > 0 {
		t.Errorf("status wrote %v", writes)
	}
	// Nobody leads any more, and nothing may be read.
	d.stop()
	e.ends(viewer.command(nil, "status", lease...), 3, "no replica has Lease "+e.id+"/mirror", "it cannot be computed from the clusters")
}

// viewer is the test with credentials that have these permissions alone.
func (e *env) viewer(name string, rules ...rbacv1.PolicyRule) *env {
	e.Helper()
	name = e.id + "-" + name
	_, err := e.local.RbacV1().ClusterRoles().Create(e.ctx, &rbacv1.ClusterRole{ObjectMeta: metav1.ObjectMeta{Name: name}, Rules: rules}, metav1.CreateOptions{})
	e.must(err)
	e.Cleanup(func() { e.local.RbacV1().ClusterRoles().Delete(context.Background(), name, metav1.DeleteOptions{}) })
	as := *e
	as.kubeconfig += "." + name
	e.writeKubeconfig(as.kubeconfig, e.local.config.Host, e.local.config.CAData, e.user(name, name))
	return &as
}
