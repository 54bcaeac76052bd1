package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"service-mirror.io/service-mirror/testdata/harness"
)

var leaseRules = []rbacv1.PolicyRule{
	{APIGroups: []string{"coordination.k8s.io"}, Resources: []string{"leases"}, Verbs: []string{"get", "create", "update"}},
}

// replica is one of several daemons that share a Lease. Each has a ServiceAccount of its
// own, which identifies it in the audit log.
type replica struct {
	*daemon
	user string
}

// replicas is an env whose daemons elect a leader.
type replicas struct {
	*env
	flags []string // of the election
}

func newReplicas(t *testing.T, duration time.Duration) *replicas {
	t.Helper()
	e := newEnvIn(t, london, slices.Concat(localRules, leaseRules)...)
	return &replicas{e, []string{"--leader-elect", "--leader-elect-lease", e.id + "/mirror", "--leader-elect-duration", duration.String()}}
}

// user makes another ServiceAccount with a ClusterRole, as the test's own which has
// the test's name, and returns its token.
func (e *env) user(name, role string) string {
	e.Helper()
	account := harness.Account{Namespace: e.id, Name: name}
	e.must(e.local.CreateAccount(e.ctx, account))
	e.must(e.local.Bind(e.ctx, account, role))
	e.Cleanup(func() {
		e.local.RbacV1().ClusterRoleBindings().Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	token, err := e.local.RequestToken(e.ctx, account)
	e.must(err)
	return token
}

// start starts a replica; through is a proxy before the local API server, nil for
// none.
func (rs *replicas) start(name string, through *proxy, remotes ...*remote) *replica {
	rs.Helper()
	user := rs.id + "-" + name
	kubeconfig := rs.TempDir() + "/" + name
	token := rs.user(user, rs.id)
	server, ca := rs.local.config.Host, rs.local.config.CAData
	if through != nil {
		server, ca = "https://"+through.address, through.ca
	}
	rs.writeKubeconfig(kubeconfig, server, ca, token)
	return rs.run(user, kubeconfig, remotes...)
}

func (rs *replicas) run(user, kubeconfig string, remotes ...*remote) *replica {
	rs.Helper()
	as := *rs.env
	as.kubeconfig = kubeconfig
	return &replica{as.daemon(remotes, slices.Concat(rs.flags, listening)...), user}
}

func (r *replica) leads() func() error { return r.measures(map[string]float64{"leader": 1}) }

func (r *replica) isStandby() func() error { return r.measures(map[string]float64{"leader": 0}) }

// history is what the replicas have written since a mark, leases included, in the
// order in which it was done: each line of the log is written before the request
// is answered.
func (rs *replicas) history(since auditMark) []request {
	rs.Helper()
	return rs.local.read(rs.T, since, []byte(rs.id), func(r request) bool {
		return strings.HasPrefix(r.User.Username, "system:serviceaccount:"+rs.id+":") && r.ResponseStatus.Code < 300 && r.writes()
	})
}

func (r request) user() string {
	return r.User.Username[strings.LastIndexByte(r.User.Username, ':')+1:]
}

func (r request) isLease() bool { return r.ObjectRef.Resource == "leases" }

// fenced checks that no replica's write succeeded after another one led and had written,
// until it led again; it counts the changes of leader, and the writes.
func (rs *replicas) fenced(since auditMark) (terms, writes int) {
	rs.Helper()
	leader, wrote := "", false
	for _, r := range rs.history(since) {
		switch user := r.user(); {
		case r.isLease() && user != leader:
			leader, wrote = user, false
			terms++
		case r.isLease():
		case user == leader:
			wrote = true
			writes++
		case wrote:
			rs.Errorf("%s wrote when %s led and had written: %v", user, leader, r)
		}
	}
	return terms, writes
}

// wrote are a replica's writes except those of the Lease, as VERB RESOURCE NAME.
func (rs *replicas) wrote(r *replica, since auditMark) []string {
	rs.Helper()
	var all []string
	for _, w := range rs.local.writes(rs.T, r.user, since) {
		if !w.isLease() {
			all = append(all, fmt.Sprintf("%s %s %s: %d", w.Verb, w.ObjectRef.Resource, w.ObjectRef.Name, w.ResponseStatus.Code))
		}
	}
	return slices.Sorted(slices.Values(all))
}

// TestStandbyTakesOver has the default times.
func TestStandbyTakesOver(t *testing.T) {
	const duration = 15 * time.Second
	t.Parallel()
	rs := newReplicas(t, duration)
	r := rs.remote(paris)
	r.gateway("203.0.113.1")
	const n = 20
	var all []func() error
	for i := range n {
		name := fmt.Sprintf("bar%d", i)
		r.export(name)
		all = append(all, r.mirrored(name, "203.0.113.1"))
	}
	start := rs.local.mark(t)
	a := rs.start("a", nil, r)
	rs.soon("a leader", a.leads())
	rs.soon("the mirrors", all...)
	before := rs.identities()
	since := rs.local.mark(t)
	b := rs.start("b", nil, r)
	rs.soon("a standby with all that is known", b.answers("/readyz", 200), b.answers("/healthz", 200), b.isStandby(),
		b.measures(map[string]float64{r.up(): 1, r.state("mirrored"): n, r.state("waiting"): 0}))
	r.gateway("203.0.113.2")
	for i := range n {
		rs.soon("another gateway", r.mirrored(fmt.Sprintf("bar%d", i), "203.0.113.2"))
	}
	rs.must(a.leads()())
	rs.must(b.isStandby()())
	rs.must(b.measures(map[string]float64{r.up(): 1, r.state("mirrored"): n})())
	if writes := rs.local.writes(t, b.user, since); len(writes) > 0 {
		t.Errorf("the standby wrote %v", writes)
	}
	if got := len(rs.wrote(a, since)); got != n {
		t.Errorf("the leader wrote %d times, want %d times", got, n)
	}

	// Killed, while exports change.
	since = rs.local.mark(t)
	killed := time.Now()
	a.kill()
	rs.change(paris, "bar0", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = 81 })
	rs.remove(paris, "bar1")
	rs.change(paris, "bar2", rs.unlabel)
	r.export("new")
	rs.eventually(duration+soon, "the other leads", b.leads())
	took := time.Since(killed)
	t.Logf("killed: the other led after %v", took.Round(10*time.Millisecond))
	// A standby sees a renewal up to 4.4 s late, and looks as much later whether it has expired: client-go
	// waits for 2 s and up to 1.2 times as long again.
	if limit := duration + 15*time.Second; took > limit {
		t.Errorf("the other led after %v, want %v at most", took, limit)
	}
	rs.soon("what changed meanwhile", r.mirrored("bar0", "203.0.113.2"), r.gone("bar1"), r.gone("bar2"), r.mirrored("new", "203.0.113.2"))
	rs.stays("the rest", r.mirrored("bar3", "203.0.113.2"), r.mirrored("bar19", "203.0.113.2"), b.leads())
	want := slices.Sorted(slices.Values([]string{
		"update services " + r.mirror("bar0") + ": 200",
		"delete services " + r.mirror("bar1") + ": 200", "delete endpoints " + r.mirror("bar1") + ": 200",
		"delete services " + r.mirror("bar2") + ": 200", "delete endpoints " + r.mirror("bar2") + ": 200",
		"create endpoints " + r.mirror("new") + ": 201", "create services " + r.mirror("new") + ": 201",
	}))
	// Kubernetes deletes Endpoints with their Service: the second deletion finds none.
	wrote := rs.wrote(b, since)
	for i, line := range wrote {
		if strings.HasPrefix(line, "delete endpoints") {
			wrote[i] = strings.Replace(line, ": 404", ": 200", 1)
		}
	}
	if !slices.Equal(wrote, want) {
		t.Errorf("after the take-over %q was written, want %q", wrote, want)
	}
	after := rs.identities()
	for name, identity := range before {
		if now, there := after[name]; there && now != identity {
			t.Errorf("%s was %s and is %s", name, identity, now)
		}
	}

	// Stopped by a signal.
	c := rs.start("c", nil, r)
	rs.soon("a new standby", c.answers("/readyz", 200), c.measures(map[string]float64{r.state("mirrored"): n - 1}), c.isStandby())
	since = rs.local.mark(t)
	ended := time.Now()
	b.stop()
	t.Logf("SIGTERM: ended after %v", time.Since(ended).Round(10*time.Millisecond))
	rs.eventually(duration-3*time.Second, "the other leads, for the lease is released", c.leads())
	t.Logf("SIGTERM: the other led after %v", time.Since(ended).Round(10*time.Millisecond))
	rs.stays("the mirrors", r.mirrored("new", "203.0.113.2"))
	if wrote := rs.wrote(c, since); len(wrote) > 0 {
		t.Errorf("with everything as desired %q was written", wrote)
	}
	rs.sameIdentities(after)
	if terms, _ := rs.fenced(start); terms != 3 {
		t.Errorf("there were %d leaders, want 3", terms)
	}
}

// churn changes the exports of a remote all the time, until the test ends or the
// returned function is called, which returns the number of changes.
func (r *remote) churn(names []string) func() int {
	ctx, cancel := context.WithCancel(r.env.ctx)
	var wg sync.WaitGroup
	changes := 0
	wg.Go(func() {
		services := r.CoreV1().Services(r.env.id)
		exported := map[string]bool{}
		for ctx.Err() == nil {
			name := names[rand.IntN(len(names))]
			patch := map[string]any{"spec": map[string]any{"ports": []any{map[string]any{"name": "http", "port": 1 + rand.IntN(60000)}}}}
			if rand.IntN(4) == 0 {
				patch = map[string]any{"metadata": map[string]any{"labels": map[string]any{exportLabel: r.env.id}}}
				if exported[name] = !exported[name]; exported[name] {
					patch = map[string]any{"metadata": map[string]any{"labels": map[string]any{exportLabel: nil}}}
				}
			}
			body, err := json.Marshal(patch)
			if err == nil {
				_, err = services.Patch(ctx, name, types.MergePatchType, body, metav1.PatchOptions{})
			}
			if err != nil && ctx.Err() == nil {
				r.env.Errorf("change %s: %v", name, err)
				return
			}
			changes++
			time.Sleep(10 * time.Millisecond) // the machine runs other tests too
		}
	})
	stop := func() int {
		cancel()
		wg.Wait()
		return changes
	}
	r.env.Cleanup(func() { stop() })
	return stop
}

// changed counts the changes in the test's namespace, from now on: an identical write is
// in the audit log, but changes nothing.
func (e *env) changed() func() map[string]int {
	e.Helper()
	services, err := e.local.CoreV1().Services(e.id).List(e.ctx, metav1.ListOptions{})
	e.must(err)
	options := metav1.ListOptions{ResourceVersion: services.ResourceVersion, LabelSelector: "app.kubernetes.io/managed-by=service-mirror"}
	var mu sync.Mutex
	counts := map[string]int{}
	for resource, open := range map[string]func(context.Context, metav1.ListOptions) (watch.Interface, error){
		"services": e.local.CoreV1().Services(e.id).Watch, "endpoints": e.local.CoreV1().Endpoints(e.id).Watch,
	} {
		watcher, err := open(e.ctx, options)
		e.must(err)
		e.Cleanup(watcher.Stop)
		go func() {
			for event := range watcher.ResultChan() {
				mu.Lock()
				counts[string(event.Type)+" "+resource]++
				mu.Unlock()
			}
		}()
	}
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[string]int{}
		for what, n := range counts {
			out[what] = n
		}
		return out
	}
}

// onlyChanges checks that each write since a mark that succeeded changed something.
func (rs *replicas) onlyChanges(since auditMark, changed func() map[string]int) {
	rs.Helper()
	rs.soon("every write is a change", func() error {
		writes := map[string]int{}
		for _, r := range rs.history(since) {
			if kind, ok := map[string]watch.EventType{"create": watch.Added, "update": watch.Modified}[r.Verb]; ok && !r.isLease() {
				writes[string(kind)+" "+r.ObjectRef.Resource]++
			}
		}
		got := changed()
		for what, n := range writes {
			if got[what] != n {
				return fmt.Errorf("%s: %d were written, %d changed anything (all: %v)", what, n, got[what], got)
			}
		}
		return nil
	})
}

// A replica that is suspended for longer than the lease and continues does not know at
// first that another one leads. Its writes are refused, every time.
func TestStoppedReplicaWritesNothing(t *testing.T) {
	const duration, stops = 3 * time.Second, 10
	rs := newReplicas(t, duration) // not in parallel: a busy machine uses up much of a lease of three seconds
	r := rs.remote(paris)
	r.gateway("203.0.113.1")
	var names []string
	for i := range 40 {
		names = append(names, fmt.Sprintf("bar%d", i))
		r.export(names[i])
	}
	r.export("steady")
	changed, since := rs.changed(), rs.local.mark(t)
	both := [2]*replica{rs.start("a", nil, r), rs.start("b", nil, r)}
	rs.eventually(30*time.Second, "the mirrors", r.mirrored("steady", "203.0.113.1"))
	before := rs.identities()
	stopChurn := r.churn(names)
	stopped, tookOver := 0, []time.Duration{}
	for i := range stops {
		var leader, other *replica
		rs.soon("a leader and a standby", func() error {
			for j := range both {
				if both[j].leads()() == nil && both[1-j].isStandby()() == nil {
					leader, other = both[j], both[1-j]
					return nil
				}
			}
			return fmt.Errorf("there is none")
		})
		// Every mirror is about to be written, or is being written, when it stops.
		r.gateway(fmt.Sprintf("203.0.113.%d", 2+i))
		time.Sleep(rand.N(60 * time.Millisecond))
		leader.signal(syscall.SIGSTOP)
		stopped++
		begin, mark := time.Now(), rs.local.mark(t)
		rs.eventually(duration+10*time.Second, "the other leads", other.leads())
		tookOver = append(tookOver, time.Since(begin))
		rs.soon("the other writes", func() error {
			if len(rs.wrote(other, mark)) == 0 {
				return fmt.Errorf("it has not yet")
			}
			return nil
		})
		leader.signal(syscall.SIGCONT)
		rs.soon("the one that was stopped is a standby", leader.isStandby(), leader.answers("/readyz", 200), leader.answers("/healthz", 200))
	}
	changes := stopChurn()
	for _, name := range names {
		rs.change(paris, name, rs.label)
	}
	address := fmt.Sprintf("203.0.113.%d", 1+stops)
	for _, name := range append(names, "steady") {
		rs.soon("all mirrors in the end", r.mirrored(name, address))
	}
	terms, writes := rs.fenced(since)
	if terms <= stops {
		t.Errorf("another led %d times, want more than %d", terms, stops)
	}
	rs.onlyChanges(since, changed)
	if now := rs.identities()[r.mirror("steady")]; now != before[r.mirror("steady")] {
		t.Errorf("the mirror that was always exported was %s and is %s", before[r.mirror("steady")], now)
	}
	slices.Sort(tookOver)
	t.Logf("%d stops, %d terms, %d changes of exports, %d writes; the other led after %v to %v, median %v", stopped, terms, changes, writes,
		tookOver[0].Round(10*time.Millisecond), tookOver[len(tookOver)-1].Round(10*time.Millisecond), tookOver[len(tookOver)/2].Round(10*time.Millisecond))
	for _, one := range both {
		if n := one.logged("This replica is the leader"); n == 0 {
			t.Errorf("%s never led", one.user)
		}
		one.stop()
	}
}

// A replica that cannot reach the local API server loses the lease, and takes part again
// when it can, in the same process.
func TestLeaseIsLostWithTheAPIServer(t *testing.T) {
	const duration = 6 * time.Second
	t.Parallel()
	rs := newReplicas(t, duration)
	r := rs.remote(paris)
	r.gateway("203.0.113.1")
	r.export("bar")
	changed, since := rs.changed(), rs.local.mark(t)
	toA, toB := newProxy(t, london), newProxy(t, london)
	a := rs.start("a", toA, r)
	rs.soon("a leader", a.leads(), r.mirrored("bar", "203.0.113.1"))
	b := rs.start("b", toB, r)
	rs.soon("a standby", b.answers("/readyz", 200), b.isStandby())
	before := rs.identities()
	port := int32(80)
	moved := func() {
		t.Helper()
		port++
		rs.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
	}
	leader, other, toLeader, toOther := a, b, toA, toB
	for _, away := range []struct {
		what  string
		begin func(*proxy)
		end   func(*proxy)
	}{
		{"refused", (*proxy).cut, (*proxy).heal},
		{"stalled", (*proxy).stall, func(p *proxy) { p.cutConnections(); p.heal() }},
	} {
		begin := time.Now()
		away.begin(toLeader)
		moved()
		rs.eventually(duration+10*time.Second, "the other leads", other.leads())
		t.Logf("%s: the other led after %v", away.what, time.Since(begin).Round(10*time.Millisecond))
		rs.soon("what changed", r.mirrored("bar", "203.0.113.1"), leader.isStandby(), leader.answers("/healthz", 200), leader.answers("/readyz", 200))
		rs.logs(leader.daemon, "Lost the Lease")
		away.end(toLeader)
		moved()
		rs.soon("what changed", r.mirrored("bar", "203.0.113.1"))
		rs.stays("one leader", other.leads(), leader.isStandby())
		leader, other, toLeader, toOther = other, leader, toOther, toLeader
	}

	// Unreachable for all.
	toLeader.cut()
	toOther.cut()
	moved()
	rs.soon("no replica leads", leader.isStandby(), other.isStandby())
	rs.stays("both wait", leader.answers("/healthz", 200), other.answers("/healthz", 200), leader.isStandby(), other.isStandby())
	toOther.heal()
	rs.soon("the one that can", other.leads(), r.mirrored("bar", "203.0.113.1"))
	toLeader.heal()
	rs.stays("the other is a standby", leader.isStandby(), other.leads())
	rs.sameIdentities(before)
	rs.fenced(since)
	rs.onlyChanges(since, changed)
	a.stop()
	b.stop()
}
