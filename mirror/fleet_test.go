package mirror

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"k8s.io/client-go/tools/cache"
	toolsrecord "k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/mirror/report"
	"service-mirror.io/service-mirror/mirror/status"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/secrets"
)

// runner is a fake remote that a fleet runs.
type runner struct {
	*fakeRemote
	spec    remote.Spec
	running atomic.Bool
	wrong   atomic.Pointer[error]
	linger  chan struct{} // if not nil, it ends only when this is closed
}

func (r *runner) Run(ctx context.Context) {
	r.running.Store(true)
	defer r.running.Store(false)
	<-ctx.Done()
	if r.linger != nil {
		<-r.linger
	}
}

func (r *runner) Misconfigured(err error) { r.wrong.Store(&err) }

// fleet is a world whose remotes come, change and go.
type fleet struct {
	*world
	*Fleet
	ctx     context.Context
	made    []*runner         // all, in the order in which they were
	exports map[string]string // the Service in default that a remote exports; of others: bar
}

// runFleet runs a test with a fleet in which nothing is configured yet.
func runFleet(t *testing.T, options Options, test func(f *fleet)) {
	t.Helper()
	run(t, options, nil, func(w *world) {
		ctx, cancel := context.WithCancel(klog.NewContext(w.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(w.log)))))
		f := &fleet{world: w, ctx: ctx, exports: map[string]string{}}
		flags := Flags{template: options.Template}
		if flags.template == "" {
			flags.template = plan.DefaultTemplate
		}
		f.Fleet = &Fleet{Controller: w.controller, Names: flags.Names, New: func(spec remote.Spec, hooks remote.Hooks) Runner {
			r := &runner{fakeRemote: newFakeRemote(spec.Name), spec: spec}
			r.hooks, r.unknown = hooks, true
			f.made = append(f.made, r)
			return r
		}}
		defer func() { cancel(); f.Wait() }()
		test(f)
	})
}

// bySecret is a remote that a Secret configures; of the text, KEY=VALUE with commas, set makes the keys.
func bySecret(name, text string) secrets.Configured {
	spec, err := remote.ParseSpec(strings.TrimSuffix(name+"=k,gateway=a/b,"+text, ","))
	must(err)
	spec.Kubeconfig, spec.Secret, spec.Inline = "", cache.NewObjectName("sm", name), remote.NewInline([]byte("k"))
	return secrets.Configured{Spec: spec}
}

// byFlag is one that the flags configure.
func byFlag(name string) secrets.Configured {
	one := bySecret(name, "")
	one.Secret, one.Inline, one.Kubeconfig = cache.ObjectName{}, nil, "k"
	return one
}

// broken is one whose Secret cannot be used.
func broken(name string) secrets.Configured {
	return secrets.Configured{Spec: remote.Spec{Name: name, Secret: cache.NewObjectName("sm", name)}, Problem: errors.New("unknown key")}
}

// configure has these remotes run.
func (f *fleet) configure(all ...secrets.Configured) {
	f.Helper()
	f.Set(f.ctx, secrets.Set{Remotes: all}, false)
	f.settle()
}

// latest is the remote of a name that was made last.
func (f *fleet) latest(name string) *runner {
	f.Helper()
	for _, r := range slices.Backward(f.made) {
		if r.name == name {
			return r
		}
	}
	f.Fatalf("there is no remote %s", name)
	return nil
}

// known has what a remote exports known.
func (f *fleet) known(name string) {
	f.Helper()
	r := f.latest(name)
	if !r.running.Load() {
		f.Fatalf("%s does not run", name)
	}
	svc := named("default", "bar")
	if other := f.exports[name]; other != "" {
		svc.Name = other
	}
	must(r.services.GetIndexer().Add(remote.Encode(r.hooks.Trim(svc))))
	r.know(true)
	f.settle()
}

func mirrorWrites(verb string, mirrors ...string) (writes []string) {
	for _, name := range mirrors {
		writes = append(writes, verb+" endpoints default/"+name, verb+" services default/"+name)
	}
	return writes
}

func (f *fleet) clusterIP(mirror string) string {
	f.Helper()
	svc := f.server.service("default", mirror)
	if svc == nil {
		f.Fatalf("there is no mirror %s", mirror)
	}
	return svc.Spec.ClusterIP
}

// A remote that is configured while the daemon runs is mirrored; one that is not any more leaves its mirrors, which are
// the same when it comes back.
func TestRemoteComesAndGoes(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		f.expect()
		f.known("paris")
		f.expect(mirrorWrites("create", "bar-paris")...)
		ip := f.clusterIP("bar-paris")
		f.logged(1, `"Remote is configured" cluster="paris" by="Secret sm/paris"`)

		f.configure(bySecret("paris", ""), bySecret("rome", ""))
		f.known("rome")
		f.expect(mirrorWrites("create", "bar-rome")...)
		if len(f.made) != 2 {
			f.Errorf("%d remotes were made", len(f.made))
		}

		f.configure(bySecret("rome", ""))
		f.expect()
		f.logged(1, `"Remote is no longer configured`)
		gone := f.made[0]
		if gone.running.Load() {
			f.Error("paris still runs")
		}
		// What is still under way of it changes nothing.
		gone.hooks.Changed("paris", named("default", "bar"), nil)
		gone.hooks.Resync("paris")
		gone.hooks.RecordChanged("paris", remote.RecordChange{Service: cache.NewObjectName("default", "bar")})
		f.settle()
		f.expect()
		page := f.world.controller.Overview()
		if len(page.Remotes) != 1 || page.Remotes[0].Name != "rome" || page.Unknown != 2 {
			f.Errorf("the page shows %+v, and %d objects of unknown remotes", page.Remotes, page.Unknown)
		}

		f.configure(bySecret("paris", ""), bySecret("rome", ""))
		f.expect()
		f.known("paris")
		f.expect()
		if now := f.clusterIP("bar-paris"); now != ip {
			f.Errorf("its ClusterIP was %s, and is %s", ip, now)
		}
		f.latest("paris").unexport(named("default", "bar"))
		f.settle()
		f.expect(mirrorWrites("delete", "bar-paris")...)
	})
}

// What a mirror has is remembered of a remote that came back: it gets it again, although the gateway is not known.
func TestMirrorsOfARemoteThatCameBack(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		f.known("paris")
		f.expect(mirrorWrites("create", "bar-paris")...)
		before := f.pair()
		f.configure()
		f.configure(bySecret("paris", ""))
		f.server.remove("services", "default", "bar-paris")
		f.server.remove("endpoints", "default", "bar-paris")
		f.settle()
		f.expect()
		f.latest("paris").gateway = nil
		f.known("paris")
		f.wait(10 * time.Second)
		f.expect(mirrorWrites("create", "bar-paris")...)
		after := f.pair()
		if after.Service.Spec.ClusterIP != before.Service.Spec.ClusterIP || len(after.Endpoints.Subsets) != 1 {
			f.Errorf("it had %s and %s, and has %s and %s", text(before.Service), text(before.Endpoints), text(after.Service), text(after.Endpoints))
		}
		// While the remote is not known, nothing is lost of a mirror; once it is not configured, nothing is remembered.
		key := cache.NewObjectName("default", "bar-paris")
		remembered := func() bool { return f.world.controller.local.Tombstone(key, plan.Objects{}) != nil }
		f.configure(bySecret("paris", "records=sm"))
		f.server.remove("services", "default", "bar-paris")
		f.settle()
		if !remembered() {
			f.Error("what the mirror had is not remembered")
		}
		f.configure()
		f.wait(time.Minute)
		if remembered() {
			f.Error("what the mirror had is still remembered")
		}
		f.configure(bySecret("paris", ""))
		f.known("paris")
		f.wait(10 * time.Second)
		f.server.wrote()
		f.configure()
		f.server.remove("services", "default", "bar-paris")
		f.server.remove("endpoints", "default", "bar-paris")
		f.settle()
		f.configure(bySecret("paris", ""))
		f.latest("paris").gateway = nil
		f.known("paris")
		f.wait(10 * time.Second)
		f.expect(mirrorWrites("create", "bar-paris")...)
		if after := f.pair(); len(after.Endpoints.Subsets) != 0 {
			f.Errorf("it has %s", text(after.Endpoints))
		}
	})
}

// Changed credentials go to the remote that runs. Changed keys replace it, and until it is known nothing is written.
func TestRemoteChanges(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		f.known("paris")
		f.expect(mirrorWrites("create", "bar-paris")...)
		first := f.latest("paris")

		rotated := bySecret("paris", "")
		rotated.Inline.Set([]byte("other"))
		f.configure(rotated)
		f.expect()
		if f.latest("paris") != first || !first.running.Load() || string(first.spec.Inline.Content()) != "other" {
			f.Errorf("the remote that ran has the credentials %s", first.spec.Inline.Content())
		}

		first.linger = make(chan struct{})
		f.configure(bySecret("paris", "records=sm"))
		f.expect()
		second := f.latest("paris")
		if second == first || second.running.Load() {
			f.Error("the second one runs before the first one has ended")
		}
		f.configure(bySecret("paris", "records=other"))
		close(first.linger)
		f.settle()
		third := f.latest("paris")
		if second.running.Load() || first.running.Load() || !third.running.Load() {
			f.Errorf("running: %v, %v, %v", first.running.Load(), second.running.Load(), third.running.Load())
		}
		f.logged(2, `"Remote is configured differently`)
		f.expect()
		f.known("paris")
		f.expect()
		third.setGateway(gatewayAt("192.0.2.9"))
		f.settle()
		f.expect(updateEndpoints)
	})
}

// A mistake in a Secret ends no remote that is followed, and keeps its mirrors if nothing of it was known.
func TestRemoteMisconfigured(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.configure(bySecret("paris", ""), broken("rome"))
		f.known("paris")
		f.expect(mirrorWrites("create", "bar-paris")...)
		first, wrong := f.latest("paris"), f.latest("rome")
		if err := *wrong.wrong.Load(); err == nil || !wrong.running.Load() {
			f.Errorf("rome: %v, runs %v", err, wrong.running.Load())
		}

		f.configure(broken("paris"), broken("rome"))
		f.expect()
		if f.latest("paris") != first || !first.running.Load() || *first.wrong.Load() == nil || f.latest("rome") != wrong {
			f.Errorf("paris was replaced, or does not say what is wrong: %v", *first.wrong.Load())
		}
		f.configure(bySecret("paris", ""), bySecret("rome", ""))
		if f.latest("paris") != first || *first.wrong.Load() != nil {
			f.Errorf("paris was replaced, or is still wrong: %v", *first.wrong.Load())
		}
		f.known("rome")
		f.expect(mirrorWrites("create", "bar-rome")...)
	})
}

// Many remotes at once: each is mirrored, none disturbs another, and nothing is left of those that go.
func TestManyRemotesComeAndGo(t *testing.T) {
	const number = 50
	recorder := toolsrecord.NewFakeRecorder(1000)
	metrics := report.NewMetrics(report.Daemon, "", nil)
	options := Options{Metrics: metrics, Events: report.NewEventsTo(recorder, report.OwnPod()), MaxDeletes: 1}
	runFleet(t, options, func(f *fleet) {
		metrics.Observe(func() status.Page { return f.world.controller.Overview() })
		var all, half []secrets.Configured
		var created, names []string
		for i := range number {
			name := fmt.Sprintf("r%02d", i)
			if i == number-1 {
				name = "x-r00" // which ends with another one's name
			}
			f.exports[name] = "bar"
			names = append(names, name)
			created = append(created, "bar-"+name)
			all = append(all, bySecret(name, "name="+[]string{"{service}-{cluster}", "{service}-" + name}[i%2]))
			if i%2 == 0 {
				half = append(half, all[i])
			}
		}
		f.configure(all...)
		for _, name := range names {
			f.known(name)
		}
		f.expect(mirrorWrites("create", created...)...)
		page := f.world.controller.Overview()
		if len(page.Remotes) != number || len(page.Mirrors) != number || slices.ContainsFunc(page.Mirrors, func(m status.Mirror) bool { return m.State != status.Mirrored }) {
			f.Errorf("the page shows %d remotes and %+v", len(page.Remotes), page.Mirrors)
		}
		for _, name := range names {
			f.latest(name).setGateway(gatewayAt("192.0.2.8"))
			f.world.controller.options.Metrics.Begin(name)
			f.world.controller.options.Events.Remote(name, remote.Problem{Part: "identity", Cause: "refused"})
		}
		f.settle()
		f.server.wrote()

		f.configure(half...)
		f.expect()
		for i, name := range names {
			if got := f.latest(name).running.Load(); got != (i%2 == 0) {
				f.Errorf("%s runs: %v", name, got)
			}
		}
		f.latest(names[0]).setGateway(gatewayAt("192.0.2.7"))
		f.latest(names[1]).setGateway(gatewayAt("192.0.2.7"))
		f.settle()
		f.expect("update endpoints default/bar-r00")

		f.configure()
		f.expect()
		f.holdsNothing(metrics)
		f.configure(all...)
		for _, name := range names {
			f.latest(name).gateway = gatewayAt("192.0.2.8")
			f.known(name)
		}
		f.expect("update endpoints default/bar-r00") // whose gateway was another one
		f.configure()
		f.holdsNothing(metrics)
	})
}

// holdsNothing wants nothing to be left of any remote.
func (f *fleet) holdsNothing(metrics *report.Metrics) {
	f.Helper()
	c := f.world.controller
	f.mu.Lock()
	held := map[string]int{"members": len(f.members), "ending": len(f.ending)}
	f.mu.Unlock()
	c.remotes.ports.mu.Lock()
	held["gateways"] = len(c.remotes.ports.last)
	c.remotes.ports.mu.Unlock()
	c.memory.mu.Lock()
	for key, r := range c.memory.records {
		if !r.updatesOnly() {
			held["records of "+key.String()] = 1
		}
	}
	c.memory.mu.Unlock()
	c.memory.deletes.mu.Lock()
	held["deletions"] = len(c.memory.deletes.remotes)
	c.memory.deletes.mu.Unlock()
	held["remotes"], held["names"] = len(c.remotes.all()), len(c.remotes.policy().Names)
	for what, n := range held {
		if n > 0 {
			f.Errorf("held: %s: %d", what, n)
		}
	}
	recorder := httptest.NewRecorder()
	c.Handler(c.Overview, Listen{}).ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "http://localhost:8080/metrics", nil))
	for line := range strings.Lines(recorder.Body.String()) {
		if strings.Contains(line, `remote="r`) && !strings.Contains(line, `state="orphan"`) && !strings.Contains(line, `_mirrors{`) {
			f.Errorf("a series is left: %s", line)
		}
	}
}

// updatesOnly tells a record that only counts updates, and is swept.
func (r *record) updatesOnly() bool {
	return r.backoffs == [plan.Kinds]*backoff{} && r.paused.IsZero() && r.noSlices.IsZero() && r.stray.Empty()
}

// moving wants these to be the mirrors of default/bar of paris that are to have another name.
func (f *fleet) moving(want ...cache.ObjectName) {
	f.Helper()
	if got := f.world.controller.local.Moving("paris", cache.NewObjectName("default", "bar")); !slices.Equal(got, want) {
		f.Errorf("moving: %v, want %v", got, want)
	}
}

// A remote's mirrors get other names while the daemon runs, as they do by a restart.
func TestNamesOfARemoteChange(t *testing.T) {
	runFleet(t, Options{Policy: Policy{EndpointsAPI: UseEndpointSlices}}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		f.known("paris")
		f.expect(created("default/bar-paris")...)
		for _, step := range []struct{ name, from, to string }{
			{"p-{service}", "bar-paris", "p-bar"},
			{"{service}", "p-bar", "bar"},
			{"{service}-{cluster}", "bar", "bar-paris"},
		} {
			f.configure(bySecret("paris", "name="+step.name))
			f.expect()
			f.moving(cache.NewObjectName("default", step.from))
			f.known("paris")
			f.wait(5 * time.Second)
			f.expect(slices.Concat(created("default/"+step.to), deleted("default/"+step.from))...)
			f.moving()
		}
		// It moves to another namespace, too.
		f.server.put(shopNamespace())
		f.configure(bySecret("paris", "namespace=default:shop"))
		f.known("paris")
		f.wait(5 * time.Second)
		f.expect(slices.Concat(created("shop/bar-paris"), deleted("default/bar-paris"))...)
		f.latest("paris").unexport(named("default", "bar"))
		f.settle()
		f.expect(deleted("shop/bar-paris")...)
	})
}

// Of merged mirrors, remotes serve in the order of the flags and then of the names of those that Secrets configure.
func TestMergedRemotesComeAndGo(t *testing.T) {
	options := Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Merge: plan.MergeFirst}, Template: "{service}"}
	lists := func(f *fleet, want string) {
		f.Helper()
		if got := f.server.service("default", "bar").Annotations[plan.RemotesAnnotation]; got != want {
			f.Errorf("the mirror lists %q, want %q", got, want)
		}
	}
	runFleet(t, options, func(f *fleet) {
		f.configure(byFlag("tokyo"), bySecret("rome", ""))
		f.known("rome")
		f.known("tokyo")
		f.configure(byFlag("tokyo"), bySecret("paris", ""), bySecret("rome", ""))
		f.known("paris")
		lists(f, "tokyo=default/bar,paris=default/bar,rome=default/bar")
		f.server.wrote()
		// It leaves its part, as by a restart; when it comes back all is as before.
		f.configure(byFlag("tokyo"), bySecret("rome", ""))
		for _, write := range f.server.wrote() {
			if strings.HasPrefix(write.what, "delete") {
				f.Errorf("%s", write.what)
			}
		}
		if f.server.slice("default", "bar.paris.ipv4") == nil {
			f.Error("the part of paris is gone")
		}
		f.configure(byFlag("tokyo"), bySecret("paris", ""), bySecret("rome", ""))
		f.known("paris")
		lists(f, "tokyo=default/bar,paris=default/bar,rome=default/bar")
	})
}

// Until the Secrets are known, every remote may be one that they configure: nothing is concluded from its absence.
func TestSecretsAreNotKnownYet(t *testing.T) {
	options := Options{Policy: Policy{EndpointsAPI: UseEndpointSlices, Merge: plan.MergeAll}, Template: "{service}"}
	runFleet(t, options, func(f *fleet) {
		f.configure(byFlag("tokyo"), bySecret("paris", ""))
		f.known("paris")
		f.known("tokyo")
		f.server.wrote()
		// As by a restart without the Secrets.
		f.Set(f.ctx, secrets.Set{Remotes: []secrets.Configured{byFlag("tokyo")}}, true)
		f.settle()
		f.known("tokyo")
		f.expect()
		if page := f.world.controller.Overview(); page.Unknown != 0 {
			f.Errorf("%d objects are of unknown remotes", page.Unknown)
		}
		f.server.remove("services", "default", "bar") // what it had comes back
		f.settle()
		if got := f.server.service("default", "bar"); got == nil || got.Annotations[plan.RemotesAnnotation] != "tokyo=default/bar,paris=default/bar" {
			f.Errorf("the mirror is %s", text(got))
		}
		f.server.wrote()
		f.Set(f.ctx, secrets.Set{Remotes: []secrets.Configured{byFlag("tokyo")}}, false)
		f.settle()
		if page := f.world.controller.Overview(); page.Unknown == 0 {
			f.Error("now that the Secrets are known, no object is of an unknown remote")
		}
	})
}

// A Service fails over to a remote that is configured later, and stays with it when that is configured no more.
func TestFailoverToARemoteThatComes(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.server.put(ownBar("paris"))
		f.server.put(ownSlice(false))
		f.Set(f.ctx, secrets.Set{}, true)
		f.settle()
		f.hasBeside("")
		for _, p := range f.world.controller.Overview().Failover {
			if len(p.Problems) > 0 && slices.ContainsFunc(p.Problems, func(one status.FailoverProblem) bool { return one.Reason == string(plan.UnknownRemote) }) {
				f.Errorf("while the Secrets are not known, %+v", p.Problems)
			}
		}
		f.configure()
		f.logged(1, `reason="UnknownRemote"`)
		f.configure(bySecret("paris", ""))
		f.known("paris")
		f.wait(5 * time.Second)
		before := f.beside()
		if !strings.Contains(before, "paris") {
			f.Fatalf("beside it are %q", before)
		}
		f.server.wrote()
		f.configure()
		f.wait(5 * time.Second)
		if now := f.beside(); now != before {
			f.Errorf("beside it are %q, before %q", now, before)
		}
	})
}

// What is decided while the remotes are replaced is decided again: it must not be of some of before and some of after.
func TestDecidedWithOneConfiguration(t *testing.T) {
	r := newRemotes(Policy{})
	tries := 0
	got := decided(r, func() string {
		tries++
		before := r.policy().ClusterName
		if tries < 3 {
			r.set(Policy{ClusterName: fmt.Sprint(tries)}, nil)
		}
		return before + "-" + r.policy().ClusterName
	})
	if got != "2-2" || tries != 3 {
		t.Errorf("got %s after %d tries", got, tries)
	}
}

// Only what differs in more than credentials replaces a remote.
func TestSame(t *testing.T) {
	a := bySecret("paris", "namespace=a:b,address=192.0.2.1,gateway-port=80").Spec
	same := bySecret("paris", "namespace=a:b,address=192.0.2.1,gateway-port=80").Spec
	same.Inline.Set([]byte("other"))
	if !a.Same(same) {
		t.Error("other credentials make another remote")
	}
	for name, change := range map[string]func(*remote.Spec){
		"namespace": func(s *remote.Spec) { s.Local = map[string]string{"a": "c"} },
		"gateway":   func(s *remote.Spec) { s.Gateways = slices.Clone(s.Gateways); s.Gateways[0].Port = "81" },
		"secret":    func(s *remote.Spec) { s.Secret.Name = "x" },
		"uid":       func(s *remote.Spec) { s.UID = "x" },
		"unusable":  func(s *remote.Spec) { s.Inline = nil },
	} {
		other := a
		other.Local = maps.Clone(a.Local)
		change(&other)
		if a.Same(other) {
			t.Errorf("%s makes no other remote", name)
		}
	}
}

// Deletions that wait for an operator go on waiting when a remote's Secret changes.
func TestMaxDeletesOfARemoteThatChanges(t *testing.T) {
	runFleet(t, Options{MaxDeletes: 2}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		r := f.latest("paris")
		r.know(true)
		for n := range 9 {
			r.export(named("default", fmt.Sprintf("svc-%d", n)))
		}
		f.settle()
		f.server.wrote()
		for n := range 9 {
			r.unexport(named("default", fmt.Sprintf("svc-%d", n)))
		}
		f.settle()
		if got := len(f.left("paris", 9)); got != 7 {
			t.Fatalf("%d are left", got)
		}
		for i, text := range []string{"records=a", "records=b", "records=c"} {
			f.configure(bySecret("paris", text))
			f.latest("paris").know(true)
			f.wait(time.Second)
			if got := len(f.left("paris", 9)); got != 7 {
				t.Errorf("after change %d: %d are left, want 7", i+1, got)
			}
		}
	})
}

// A mistake in a Secret does not end a remote that is followed, whatever the Secret is called.
func TestBrokenSecretOfAnotherName(t *testing.T) {
	runFleet(t, Options{}, func(f *fleet) {
		f.configure(bySecret("paris", ""))
		f.known("paris")
		first := f.latest("paris")
		one := broken("paris")
		one.Secret = cache.NewObjectName("sm", "paris-older")
		f.configure(one)
		if f.latest("paris") != first || !first.running.Load() {
			t.Error("the remote that was followed has ended")
		}
	})
}
