package report

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/ktesting"

	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// slowSink holds up a request until it is released.
type slowSink struct {
	record.EventSink
	begun, release chan struct{}
	writes         int
}

func (s *slowSink) Create(event *corev1.Event) (*corev1.Event, error) {
	close(s.begun)
	<-s.release
	s.writes++
	return event, nil
}

// The end waits for a request that is under way, and lets no other begin.
func TestSinkCloses(t *testing.T) {
	slow := &slowSink{begun: make(chan struct{}), release: make(chan struct{})}
	s := &sink{EventSink: slow}
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := s.Create(&corev1.Event{}); err != nil {
			t.Error(err)
		}
	})
	<-slow.begun
	closed := make(chan struct{})
	go func() { defer close(closed); s.close() }()
	select {
	case <-closed:
		t.Error("it is closed while a request is under way")
	default:
	}
	close(slow.release)
	<-closed
	wg.Wait()
	if slow.writes != 1 {
		t.Errorf("%d writes", slow.writes)
	}
	if _, err := s.Create(&corev1.Event{}); !errors.Is(err, errDropped) {
		t.Errorf("a request after the end: %v", err)
	}
	if _, err := s.Patch(&corev1.Event{}, nil); !errors.Is(err, errDropped) {
		t.Errorf("a request after the end: %v", err)
	}
}

// answering answers each request with an error.
type answering struct {
	record.EventSink
	err    error
	writes int
}

func (s *answering) Create(event *corev1.Event) (*corev1.Event, error) {
	s.writes++
	return event, s.err
}

// What is refused for good is not retried, nor logged each time; what is not answered is retried.
func TestSinkAnswers(t *testing.T) {
	forbidden := apierrors.NewForbidden(corev1.Resource("events"), "x", errors.New("no rule"))
	for name, test := range map[string]struct {
		err     error
		retried bool
		lines   int
	}{
		"accepted":           {nil, false, 0},
		"forbidden":          {forbidden, false, 1},
		"invalid":            {apierrors.NewInvalid(corev1.SchemeGroupVersion.WithKind("Event").GroupKind(), "x", nil), false, 1},
		"an invalid request": {fmt.Errorf("invalid namespace %q: [may not contain '/']", "a/b"), false, 1},
		"no namespace":       {apierrors.NewForbidden(corev1.Resource("events"), "x", errors.New("terminating")), false, 1},
		"no answer":          {&url.Error{Op: "Post", URL: "https://london", Err: errors.New("connection refused")}, true, 0},
		"fenced":             {&url.Error{Op: "Post", URL: "https://london", Err: leader.ErrFenced}, false, 0},
	} {
		t.Run(name, func(t *testing.T) {
			logger := ktesting.NewLogger(t, ktesting.NewConfig(ktesting.BufferLogs(true)))
			s := &sink{EventSink: &answering{err: test.err}, logger: logger}
			for range 10 {
				_, err := s.Create(&corev1.Event{})
				var final *apierrors.StatusError // else a recorder retries
				if retried := err != nil && !errors.As(err, &final); retried != test.retried {
					t.Errorf("it is retried: %v (%v)", retried, err)
				}
			}
			if log := logger.GetSink().(ktesting.Underlier).GetBuffer().String(); strings.Count(log, "API server rejected an Event") != test.lines {
				t.Errorf("logged: %s", log)
			}
		})
	}
}

// A whole recorder, with a sink to which one namespace is invalid: the other Events are not held up.
func TestInvalidEventHoldsUpNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		client := fake.NewSimpleClientset()
		client.PrependReactor("create", "events", func(action clienttesting.Action) (bool, runtime.Object, error) {
			if action.GetNamespace() == "a/b" {
				return true, nil, errors.New("invalid namespace")
			}
			return false, nil, nil
		})
		events := NewEvents(ctx, client, nil)
		events.Lead(true)
		for _, namespace := range []string{"a/b", "default"} {
			events.event(&corev1.ObjectReference{Kind: "Service", Namespace: namespace, Name: "bar-paris"}, corev1.EventTypeWarning, "Conflict", "x")
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if created := client.Actions(); len(created) != 2 || created[1].GetNamespace() != "default" {
			t.Errorf("requests: %v", created)
		}
		events.Shutdown()
	})
}

// seen is what Events are about.
type seen struct{ about []string }

func (s *seen) Event(obj runtime.Object, _, reason, message string) {
	ref := obj.(*corev1.ObjectReference)
	s.about = append(s.about, fmt.Sprintf("%s %s/%s %s %s", ref.Kind, ref.Namespace, ref.Name, reason, message))
}
func (s *seen) Eventf(runtime.Object, string, string, string, ...any)                             {}
func (s *seen) AnnotatedEventf(runtime.Object, map[string]string, string, string, string, ...any) {}
func (s *seen) WithLogger(klog.Logger) record.EventRecorderLogger                                 { return s }

// What a remote wrote is in the namespace and the name of no Event unless an object can be called so.
func TestEventsAreAboutWhatCanExist(t *testing.T) {
	for _, test := range []struct {
		key    cache.ObjectName
		reason plan.Reason
		want   string
	}{
		{cache.NewObjectName("default", "bar-paris"), plan.Conflict, "Service default/bar-paris Conflict remote paris: why"},
		{cache.NewObjectName("shop", "bar-paris"), plan.NamespaceMissing, "Namespace /shop NamespaceMissing remote paris: why: exported Services of remote paris wait for it"},
		{cache.NewObjectName("a/b", "bar-paris"), plan.Conflict, `Pod sm/sm-1 Conflict remote paris: mirror "a/b/bar-paris": why`},
		{cache.NewObjectName("a/b", "bar-paris"), plan.NamespaceMissing, `Pod sm/sm-1 NamespaceMissing remote paris: mirror "a/b/bar-paris": why: exported Services of remote paris wait for it`},
		{cache.NewObjectName("..", "bar-paris"), plan.Conflict, `Pod sm/sm-1 Conflict remote paris: mirror "../bar-paris": why`},
		{cache.NewObjectName("", "bar-paris"), plan.Conflict, `Pod sm/sm-1 Conflict remote paris: mirror "bar-paris": why`},
		{cache.NewObjectName("default", "../x"), plan.InvalidName, `Pod sm/sm-1 InvalidName remote paris: mirror "default/../x": why`},
		{cache.NewObjectName("default", "a\x1b[31m-paris"), plan.InvalidName, `Pod sm/sm-1 InvalidName remote paris: mirror "default/a\x1b[31m-paris": why`},
	} {
		recorder := &seen{}
		events := NewEventsTo(recorder, &corev1.ObjectReference{Kind: "Pod", Namespace: "sm", Name: "sm-1"})
		events.Lead(true)
		events.mirror(test.key, nil, plan.Problem{Reason: test.reason, Cluster: "paris", Message: "why"})
		if len(recorder.about) != 1 || recorder.about[0] != test.want {
			t.Errorf("%q: got %q, want %q", test.key.String(), recorder.about, test.want)
		}
	}
	recorder := &seen{}
	events := NewEventsTo(recorder, nil)
	events.Lead(true)
	events.mirror(cache.NewObjectName("a/b", "bar"), nil, plan.Problem{Reason: plan.Conflict, Cluster: "paris"})
	if len(recorder.about) > 0 {
		t.Errorf("outside of a pod: got %q", recorder.about)
	}
	events.mirror(cache.NewObjectName("default", "bar"), nil, plan.Problem{Reason: plan.Conflict, Cluster: "paris", Message: "a\nb\x1b[31m\u202e"})
	if want := []string{"Service default/bar Conflict remote paris: a; b\ufffd[31m\ufffd"}; !slices.Equal(recorder.about, want) {
		t.Errorf("got %q, want %q", recorder.about, want)
	}
}

// A problem that comes just when a replica begins to lead is found twice.
func TestProblemOfARemoteIsOneEvent(t *testing.T) {
	recorder := record.NewFakeRecorder(10)
	e := NewEventsTo(recorder, &corev1.ObjectReference{Kind: "Pod", Namespace: "default", Name: "daemon"})
	down, up := remote.Problem{Part: "identity", Cause: "connection refused"}, remote.Problem{Part: "identity"}
	e.Remote("paris", down) // of a standby
	e.Lead(true)
	for _, p := range []remote.Problem{down, down, up, up, down} {
		e.Remote("paris", p)
	}
	e.Remote("berlin", down)
	e.Lead(false)
	e.Lead(true)
	e.Remote("paris", down)
	close(recorder.Events)
	var got []string
	for event := range recorder.Events {
		got = append(got, event)
	}
	const failing, recovered = "Warning RemoteFailing remote paris: identity: connection refused", "Normal RemoteRecovered remote paris: identity has recovered"
	want := []string{failing, recovered, failing, strings.Replace(failing, "paris", "berlin", 1), failing}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// Events name the local cluster if it has a name.
func TestEventsNameTheCluster(t *testing.T) {
	recorder := record.NewFakeRecorder(1)
	e := NewEventsTo(recorder, nil)
	e.Cluster = "london"
	e.Lead(true)
	e.mirror(cache.NewObjectName("default", "bar-paris"), nil, plan.Problem{Reason: plan.Conflict, Cluster: "paris", Message: "it is taken"})
	if got, want := <-recorder.Events, "Warning Conflict remote paris: it is taken (in cluster london)"; !strings.HasPrefix(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
