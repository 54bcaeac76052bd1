package leader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
	coordinationv1 "k8s.io/api/coordination/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"
)

var lease = cache.NewObjectName("service-mirror", "service-mirror")

const duration = 15 * time.Second

// replica takes part in an election, in a bubble of virtual time.
type replica struct {
	*testing.T
	election *Election
	leads    atomic.Bool
	terms    atomic.Int32
	stop     func() // ends it and waits for that
	writing  time.Duration
}

func start(t *testing.T, client *fake.Clientset, name string) *replica {
	return startLogging(t, client, name, klog.Background())
}

func startLogging(t *testing.T, client *fake.Clientset, name string, logger klog.Logger) *replica {
	r := &replica{T: t, election: New(Options{On: true, Lease: lease, Duration: duration})}
	r.election.Client, r.election.Identity = client.CoordinationV1(), name
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), logger))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.election.Run(ctx, func(ctx context.Context, grace time.Duration) {
			if grace != duration/4 {
				t.Errorf("a write under way has %v", grace)
			}
			r.leads.Store(true)
			r.terms.Add(1)
			<-ctx.Done()
			time.Sleep(r.writing) // a write under way
			r.leads.Store(false)
		}); err != nil {
			t.Error(err)
		}
	}()
	r.stop = func() { cancel(); <-ended }
	return r
}

func wait(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

func (r *replica) is(leads, mayWrite bool) {
	r.Helper()
	if r.leads.Load() != leads || r.election.fence.isOpen() != mayWrite {
		r.Errorf("%s leads: %v, may write: %v, want %v and %v", r.election.Identity, r.leads.Load(), r.election.fence.isOpen(), leads, mayWrite)
	}
}

func TestOneLeadsAndTheOtherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		a := start(t, client, "a")
		wait(time.Second)
		a.is(true, true)
		b := start(t, client, "b")
		wait(time.Hour)
		a.is(true, true)
		b.is(false, false)

		a.stop()
		a.is(false, false)
		wait(5 * time.Second) // it was released: the lease need not expire
		b.is(true, true)
		b.stop()
		if b.terms.Load() != 1 {
			t.Errorf("b has led %d times", b.terms.Load())
		}
	})
}

// Every replica knows which pod leads, once it has read the Lease.
func TestWhoLeads(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		leads := func(e *Election, want string) {
			t.Helper()
			if got := e.Leader(); got != want {
				t.Errorf("%s takes %q for the leader, want %q", e.Identity, got, want)
			}
		}
		leads(New(Options{}), "")
		leads(New(Options{On: true, Lease: lease, Duration: duration}), "") // it has not read the Lease
		a := start(t, client, "pod-a_1")
		wait(time.Second)
		b := start(t, client, "pod-b_2")
		wait(time.Minute)
		leads(a.election, "service-mirror/pod-a")
		leads(b.election, "service-mirror/pod-a")
		a.stop()
		leads(a.election, "")
		wait(time.Minute)
		leads(b.election, "service-mirror/pod-b")
		b.stop()
	})
}

// A leader that cannot renew stops in time, and leads again once it can.
func TestLeaderThatCannotRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		var away atomic.Bool
		client.PrependReactor("*", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
			if away.Load() {
				return true, nil, errors.New("connection refused")
			}
			return false, nil, nil
		})
		a := start(t, client, "a")
		wait(time.Minute)
		a.is(true, true)
		away.Store(true)
		wait(duration)
		a.is(false, false)
		wait(time.Hour)
		a.is(false, false)
		away.Store(false)
		wait(time.Minute)
		a.is(true, true)
		a.stop()
	})
}

// The lease is not released before what is being written has been.
func TestLeaseIsReleasedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		a := start(t, client, "a")
		a.writing = 4 * time.Second
		wait(time.Second)
		go a.stop()
		wait(3 * time.Second)
		held, err := client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil || held.Spec.HolderIdentity == nil || *held.Spec.HolderIdentity != "a" || !a.election.fence.isOpen() {
			t.Errorf("the lease is %+v, %v", held, err)
		}
		wait(2 * time.Second)
		held, err = client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil || held.Spec.HolderIdentity != nil && *held.Spec.HolderIdentity != "" || a.election.fence.isOpen() {
			t.Errorf("the lease is %+v, %v", held, err)
		}
	})
}

func TestFence(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	fence := NewFence(time.Hour)
	cfg := &rest.Config{Host: server.URL, Dial: (&net.Dialer{}).DialContext}
	fence.Guard(cfg)
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	try := func(want bool) {
		t.Helper()
		before := requests.Load()
		resp, err := client.Post(server.URL, "text/plain", strings.NewReader("x"))
		if err == nil {
			resp.Body.Close()
		} else if !errors.Is(err, ErrFenced) {
			t.Error(err)
		}
		if got := requests.Load() > before; got != want {
			t.Errorf("it was sent: %v, want %v (%v)", got, want, err)
		}
	}
	try(false)
	fence.open(time.Now())
	try(true)
	try(true)
	fence.open(time.Now().Add(-time.Hour)) // the answer took long
	try(false)
	fence.open(time.Now())
	try(true)
	fence.close()
	try(false)
}

// A process may be suspended when a request has begun and is not sent yet.
func TestFenceClosesUnderARequest(t *testing.T) {
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requests.Add(1) }))
	defer server.Close()
	fence := NewFence(time.Hour)
	cfg := &rest.Config{Host: server.URL, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
		fence.close()
		return conn, err
	}}
	fence.Guard(cfg)
	client, err := rest.HTTPClientFor(cfg)
	if err != nil {
		t.Fatal(err)
	}
	fence.open(time.Now())
	if resp, err := client.Post(server.URL, "text/plain", strings.NewReader("x")); err == nil || requests.Load() > 0 {
		t.Errorf("it was sent: %v, %v", resp, err)
	}
}

// A replica that was suspended, and believes to be the holder, must not release what
// is another's by now.
func TestAnothersLeaseIsNotReleased(t *testing.T) {
	client := fake.NewSimpleClientset()
	lock := func(name string) *timedLock {
		return &timedLock{lost: func() {}, fence: NewFence(duration), beforeRelease: func(context.Context) {}, Interface: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: lease.Namespace, Name: lease.Name}, Client: client.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: name},
		}}
	}
	a, b := lock("a"), lock("b")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(a.Create(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "a"}))
	_, _, err := b.Get(t.Context())
	must(err)
	must(b.Update(t.Context(), resourcelock.LeaderElectionRecord{HolderIdentity: "b"}))
	_, _, err = a.Get(t.Context()) // as client-go does before it releases
	must(err)
	if err := a.Update(t.Context(), resourcelock.LeaderElectionRecord{}); !errors.Is(err, errNotOurs) {
		t.Errorf("got %v", err)
	}
	if record, _, err := b.Get(t.Context()); err != nil || record.HolderIdentity != "b" {
		t.Errorf("got %+v, %v", record, err)
	}
	must(b.Update(t.Context(), resourcelock.LeaderElectionRecord{}))
}

// Others see one renewal a second at most: the fence must not count from a later one.
func TestFenceCountsFromWhatOthersSee(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const short = 3 * time.Second // renewed every 0.4 s
		fence := NewFence(short)
		lock := &timedLock{lost: func() {}, fence: fence, Interface: &resourcelock.LeaseLock{LockConfig: resourcelock.ResourceLockConfig{Identity: "a"}}}
		renew := func() {
			record := resourcelock.LeaderElectionRecord{HolderIdentity: "a", RenewTime: metav1.Now()}
			if err := lock.write(t.Context(), record, func() error { return nil }); err != nil {
				t.Fatal(err)
			}
		}
		renew() // the bubble's time begins with a whole second
		wait(400 * time.Millisecond)
		renew()
		wait(400 * time.Millisecond)
		renew()
		wait(short - 800*time.Millisecond)
		if fence.isOpen() {
			t.Error("it is open when another may have taken over")
		}
		renew()
		if !fence.isOpen() {
			t.Error("it is closed after a renewal in another second")
		}
	})
}

func TestFenceOpensForItsLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fence := NewFence(duration)
		fence.open(time.Now())
		wait(duration - time.Millisecond)
		if !fence.isOpen() {
			t.Error("it is closed before its time")
		}
		wait(time.Millisecond)
		if fence.isOpen() {
			t.Error("it is open after its time")
		}
	})
}

func TestFlags(t *testing.T) {
	for _, test := range []struct {
		args      string
		namespace string
		want      Options
		wantErr   string // the lines, in order
	}{
		{"", "", Options{Duration: duration}, ""},
		{"--leader-elect-lease=a/b", "sm", Options{Duration: duration}, ""},
		{"--leader-elect", "sm", Options{On: true, Duration: duration, Lease: cache.NewObjectName("sm", "service-mirror")}, ""},
		{"--leader-elect --leader-elect-lease=a/b.c", "sm", Options{On: true, Duration: duration, Lease: cache.NewObjectName("a", "b.c")}, ""},
		{"--leader-elect --leader-elect-duration=1m", "sm", Options{On: true, Duration: time.Minute, Lease: cache.NewObjectName("sm", "service-mirror")}, ""},
		{"--leader-elect", "", Options{}, "--leader-elect-lease is required because POD_NAMESPACE is not set: set NS/NAME"},
		{"--leader-elect --leader-elect-lease=a", "", Options{}, `--leader-elect-lease: "a" is not NS/NAME of a Lease`},
		{"--leader-elect-lease=A/b", "", Options{}, `--leader-elect-lease: "A/b" is not NS/NAME of a Lease`},
		{"--leader-elect-duration=2999ms", "", Options{}, "--leader-elect-duration: 2.999s is less than 3s: set a longer duration"},
		{"--leader-elect --leader-elect-duration=1s", "", Options{}, "--leader-elect-duration: 1s is less than 3s: set a longer duration\n--leader-elect-lease is required because POD_NAMESPACE is not set: set NS/NAME"},
	} {
		flags := Flags{Namespace: test.namespace}
		set := pflag.NewFlagSet("", pflag.ContinueOnError)
		flags.Add(set)
		if err := set.Parse(strings.Fields(test.args)); err != nil {
			t.Fatal(err)
		}
		got, err := flags.Options()
		if test.wantErr == "" && (err != nil || got != test.want) || test.wantErr != "" && (err == nil || err.Error() != test.wantErr) {
			t.Errorf("%q: got %+v, %v, want %+v, %q", test.args, got, err, test.want, test.wantErr)
		}
	}
}

// What no retry fixes must not leave a replica that runs and never leads.
func TestElectionThatCannotBegin(t *testing.T) {
	election := New(Options{On: true, Lease: lease})
	election.Client = fake.NewSimpleClientset().CoordinationV1()
	lead := func(context.Context, time.Duration) { t.Error("it leads") }
	if err := election.Run(t.Context(), lead); err == nil || !strings.HasPrefix(err.Error(), "leader election with Lease service-mirror/service-mirror: ") {
		t.Errorf("without a duration: got %v", err)
	}
	election.Identity, election.Duration = "", duration
	if err := election.Run(t.Context(), lead); err == nil {
		t.Error("without an identity it runs")
	}
}

func TestElectionThatIsOff(t *testing.T) {
	election := New(Options{Duration: duration})
	cfg := &rest.Config{}
	if election.Guard(cfg); cfg.WrapTransport != nil || cfg.Dial != nil {
		t.Error("writes are guarded")
	}
	led := 0
	err := election.Run(t.Context(), func(ctx context.Context, grace time.Duration) {
		if led++; ctx != t.Context() || grace != 5*time.Second {
			t.Errorf("it leads with %v and %v", ctx, grace)
		}
	})
	if err != nil || led != 1 {
		t.Errorf("it has led %d times, %v", led, err)
	}
}

// A Lease that is forbidden may be permitted later: that is retried, and logged once.
func TestForbiddenLeaseIsRetried(t *testing.T) {
	for _, verb := range []string{"get", "create", "update"} {
		t.Run(verb, func(t *testing.T) {
			logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
			logged := func(text string) int {
				return strings.Count(logger.GetSink().(ktesting.Underlier).GetBuffer().String(), text)
			}
			synctest.Test(t, func(t *testing.T) {
				client := fake.NewSimpleClientset()
				if verb == "update" {
					first := start(t, client, "first") // so that there is a Lease
					wait(time.Second)
					first.stop()
				}
				var forbidden atomic.Bool
				forbidden.Store(true)
				client.PrependReactor(verb, "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
					if !forbidden.Load() {
						return false, nil, nil
					}
					return true, nil, apierrors.NewForbidden(coordinationv1.Resource("leases"), lease.Name, errors.New("no rule"))
				})
				a := startLogging(t, client, "a", logger)
				wait(time.Hour)
				a.is(false, false)
				if n := logged("Requests for the Lease fail"); n != 1 {
					t.Errorf("it is logged %d times in an hour, want once", n)
				}
				forbidden.Store(false)
				wait(time.Minute)
				a.is(true, true)
				if n := logged("Requests for the Lease succeed again"); n != 1 {
					t.Errorf("that it is over is logged %d times, want once", n)
				}
				a.stop()
			})
		})
	}
}

// A leader that was suspended notices with its first attempt to renew that another leads, and not when its
// attempts have failed for long enough. Until then it may not write, and says so.
func TestSuspendedLeaderNoticesAnother(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		var taken atomic.Bool // the fake knows no resourceVersions
		client.PrependReactor("update", "leases", func(action clienttesting.Action) (bool, runtime.Object, error) {
			update := action.(clienttesting.UpdateAction).GetObject().(*coordinationv1.Lease)
			if taken.Load() && *update.Spec.HolderIdentity != "b" {
				return true, nil, apierrors.NewConflict(coordinationv1.Resource("leases"), lease.Name, errors.New("it has changed"))
			}
			return false, nil, nil
		})
		a := startLogging(t, client, "a", logger)
		wait(time.Minute)
		a.is(true, true)
		if !a.election.MayWrite() {
			t.Error("the leader may not write")
		}
		// While it is suspended, another takes the lease.
		held, err := client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		taken.Store(true)
		other, now := "b", metav1.NowMicro()
		held.Spec.HolderIdentity, held.Spec.RenewTime = &other, &now
		if _, err := client.CoordinationV1().Leases(lease.Namespace).Update(t.Context(), held, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		a.election.fence.open(time.Now().Add(-duration)) // as much time has passed
		if a.election.MayWrite() {
			t.Error("it may write although its lease has expired")
		}
		wait(duration*2/15 + time.Second) // one attempt
		a.is(false, false)
		if n := strings.Count(logger.GetSink().(ktesting.Underlier).GetBuffer().String(), "Lost the Lease"); n != 1 {
			t.Errorf("that the lease is lost is logged %d times", n)
		}
		a.stop()
		held, err = client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil || *held.Spec.HolderIdentity != other {
			t.Errorf("the other's lease is %+v, %v", held, err)
		}
	})
}

// Requests that alternate, and fail in other words each time, are a few lines.
func TestLeaseRequestsThatAlternate(t *testing.T) {
	logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
	synctest.Test(t, func(t *testing.T) {
		f := &failures{logger: logger, lease: lease}
		for n := range 1000 {
			var err error
			if n%2 == 0 {
				err = fmt.Errorf("Put https://192.0.2.1:%d: %w", n, fmt.Errorf("stream error: stream ID %d; CANCEL", n))
			}
			f.note("update", err)
			time.Sleep(2 * time.Second)
		}
	})
	log := logger.GetSink().(ktesting.Underlier).GetBuffer().String()
	if n := strings.Count(log, "Requests for the Lease"); n < 3 || n > 4 {
		t.Errorf("%d lines:\n%s", n, log)
	}
}
