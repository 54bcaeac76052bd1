package leader

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
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
	r := &replica{T: t, election: Election{Client: client, Lease: lease, Identity: name, Duration: duration, Fence: NewFence(duration)}}
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
		wait(3 * time.Second) // it was released
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

type answering func(*http.Request) (*http.Response, error)

func (f answering) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestFence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fence := NewFence(duration)
		var sent []string
		transport := fence.Wrap(answering(func(req *http.Request) (*http.Response, error) {
			sent = append(sent, req.Method)
			return &http.Response{StatusCode: http.StatusOK}, nil
		}))
		try := func(want string) {
			t.Helper()
			sent = nil
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete} {
				req, err := http.NewRequestWithContext(t.Context(), method, "http://local.example.com/", strings.NewReader("x"))
				if err != nil {
					t.Fatal(err)
				}
				if _, err := transport.RoundTrip(req); err != nil && !errors.Is(err, errFenced) {
					t.Error(err)
				}
			}
			if got := strings.Join(sent, " "); got != want {
				t.Errorf("sent %s, want %s", got, want)
			}
		}
		const reads, all = "GET HEAD", "GET HEAD POST PUT PATCH DELETE"
		try(reads)
		fence.open(time.Now())
		try(all)
		wait(duration - time.Millisecond)
		try(all)
		wait(time.Millisecond)
		try(reads)
		fence.open(time.Now().Add(-duration / 2)) // the answer was long in coming
		wait(duration / 2)
		try(reads)
		fence.open(time.Now())
		fence.close()
		try(reads)
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
