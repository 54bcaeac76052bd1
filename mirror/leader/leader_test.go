package leader

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/rest"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

var lease = cache.NewObjectName("service-mirror", "service-mirror")

const duration = 15 * time.Second

// replica is one that stands for election, in a bubble of virtual time.
type replica struct {
	*testing.T
	election Election
	leads    atomic.Bool
	terms    atomic.Int32
	stop     func() // ends it and waits for that
	writing  time.Duration
}

func stand(t *testing.T, client *fake.Clientset, name string) *replica {
	r := &replica{T: t, election: Election{Client: client.CoordinationV1(), Lease: lease, Identity: name, Duration: duration, Fence: NewFence(duration)}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if err := r.election.Run(ctx, func(ctx context.Context) {
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
	if r.leads.Load() != leads || r.election.Fence.isOpen() != mayWrite {
		r.Errorf("%s leads: %v, may write: %v, want %v and %v", r.election.Identity, r.leads.Load(), r.election.Fence.isOpen(), leads, mayWrite)
	}
}

func TestOneLeadsAndTheOtherTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client := fake.NewSimpleClientset()
		a := stand(t, client, "a")
		wait(time.Second)
		a.is(true, true)
		b := stand(t, client, "b")
		wait(time.Hour)
		a.is(true, true)
		b.is(false, false)

		a.stop()
		a.is(false, false)
		wait(5 * time.Second) // it was released: not the whole lease is waited for
		b.is(true, true)
		b.stop()
		if b.terms.Load() != 1 {
			t.Errorf("b has led %d times", b.terms.Load())
		}
	})
}

// Who cannot renew stops in time, and stands for election again.
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
		a := stand(t, client, "a")
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
		a := stand(t, client, "a")
		a.writing = 4 * time.Second
		wait(time.Second)
		go a.stop()
		wait(3 * time.Second)
		held, err := client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil || held.Spec.HolderIdentity == nil || *held.Spec.HolderIdentity != "a" || !a.election.Fence.isOpen() {
			t.Errorf("the lease is %+v, %v", held, err)
		}
		wait(2 * time.Second)
		held, err = client.CoordinationV1().Leases(lease.Namespace).Get(t.Context(), lease.Name, metav1.GetOptions{})
		if err != nil || held.Spec.HolderIdentity != nil && *held.Spec.HolderIdentity != "" || a.election.Fence.isOpen() {
			t.Errorf("the lease is %+v, %v", held, err)
		}
	})
}

func TestFence(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
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
		before := asked.Load()
		resp, err := client.Post(server.URL, "text/plain", strings.NewReader("x"))
		if err == nil {
			resp.Body.Close()
		} else if !errors.Is(err, errFenced) {
			t.Error(err)
		}
		if got := asked.Load() > before; got != want {
			t.Errorf("it was sent: %v, want %v (%v)", got, want, err)
		}
	}
	try(false)
	fence.open(time.Now())
	try(true)
	try(true)
	fence.open(time.Now().Add(-time.Hour)) // the answer was long in coming
	try(false)
	fence.open(time.Now())
	try(true)
	fence.close()
	try(false)
}

// A process may be stopped when a request is begun and not yet sent.
func TestFenceClosesUnderARequest(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
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
	if resp, err := client.Post(server.URL, "text/plain", strings.NewReader("x")); err == nil || asked.Load() > 0 {
		t.Errorf("it was sent: %v, %v", resp, err)
	}
}

// One that was stopped, and takes itself for the holder, must not release what
// is another's by now.
func TestAnothersLeaseIsNotReleased(t *testing.T) {
	client := fake.NewSimpleClientset()
	lock := func(name string) *timedLock {
		return &timedLock{fence: NewFence(duration), beforeRelease: func(context.Context) {}, Interface: &resourcelock.LeaseLock{
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
		lock := &timedLock{fence: fence, Interface: &resourcelock.LeaseLock{LockConfig: resourcelock.ResourceLockConfig{Identity: "a"}}}
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
		flags     Flags
		namespace string
		want      cache.ObjectName
		wantErr   string
	}{
		{Flags{Duration: duration}, "", cache.ObjectName{}, ""},
		{Flags{On: true, Duration: duration}, "sm", cache.NewObjectName("sm", "service-mirror"), ""},
		{Flags{On: true, Duration: duration, lease: "a/b"}, "sm", cache.NewObjectName("a", "b"), ""},
		{Flags{On: true, Duration: duration}, "", cache.ObjectName{}, "POD_NAMESPACE is not set"},
		{Flags{On: true, Duration: duration, lease: "a"}, "", cache.NewObjectName("a", ""), `"a" is not NAMESPACE/NAME`},
		{Flags{Duration: time.Second}, "", cache.ObjectName{}, "--leader-elect-duration: 1s is less than 3s"},
	} {
		err := test.flags.Complete(test.namespace)
		if test.flags.Lease != test.want || (err == nil) != (test.wantErr == "") || err != nil && !strings.Contains(err.Error(), test.wantErr) {
			t.Errorf("%+v: %v, want %q", test.flags, err, test.wantErr)
		}
	}
}
