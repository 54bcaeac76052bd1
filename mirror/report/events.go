package report

import (
	"context"
	"errors"
	"os"
	"sync"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
)

// Events says what is wrong to the users of the local cluster, where they look for it: when it appears, not at
// every retry. A nil one does nothing.
type Events struct {
	recorder    record.EventRecorder
	broadcaster record.EventBroadcaster
	writing     *sink
	pod         *corev1.ObjectReference // the daemon's own; nil: it runs in none
	leading     atomic.Bool             // else another replica makes them
}

// NewEvents makes Events that are written with client. What concerns a whole remote is about the pod, unless
// that is nil.
func NewEvents(ctx context.Context, client remote.Client, pod *corev1.ObjectReference) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	writing := &sink{EventSink: &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}}
	broadcaster.StartRecordingToSink(writing)
	e := NewEventsTo(broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "service-mirror"}), pod)
	e.broadcaster, e.writing = broadcaster, writing
	return e
}

// NewEventsTo makes Events that go to a recorder.
func NewEventsTo(recorder record.EventRecorder, pod *corev1.ObjectReference) *Events {
	return &Events{recorder: recorder, pod: pod}
}

// Shutdown ends the writing of Events, and returns when none is being written any more.
func (e *Events) Shutdown() {
	if e != nil && e.broadcaster != nil {
		e.broadcaster.Shutdown()
		e.writing.close()
	}
}

// sink lets requests end before it is closed, and no other begin.
type sink struct {
	record.EventSink
	open   sync.RWMutex // read-locked while a request is under way
	closed bool
}

var errClosed = errors.New("the program ends")

func (s *sink) Create(event *corev1.Event) (*corev1.Event, error) {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	return s.EventSink.Create(event)
}

func (s *sink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return nil, errClosed
	}
	return s.EventSink.Patch(event, data)
}

func (s *sink) close() {
	s.open.Lock()
	defer s.open.Unlock()
	s.closed = true
}

// OwnPod is the pod that the program runs in, as its environment says; nil where it runs in none.
func OwnPod() *corev1.ObjectReference {
	pod := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: os.Getenv("POD_NAMESPACE"), Name: os.Getenv("POD_NAME"), UID: types.UID(os.Getenv("POD_UID")),
	}
	if pod.Namespace == "" || pod.Name == "" {
		return nil
	}
	return pod
}

// Lead has Events made, or not any more.
func (e *Events) Lead(leading bool) {
	if e != nil {
		e.leading.Store(leading)
	}
}

func (e *Events) event(about *corev1.ObjectReference, kind, reason, message string) {
	if e != nil && about != nil && e.leading.Load() {
		var obj runtime.Object = about
		e.recorder.Event(obj, kind, reason, message)
	}
}

// mirror reports a problem of a mirror: on its Service, whether that exists or not. Where there is no
// namespace for the Event, it is about the namespace.
func (e *Events) mirror(key cache.ObjectName, svc *corev1.Service, p plan.Problem) {
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: key.Namespace, Name: key.Name}
	if svc != nil {
		about.UID = svc.UID
	}
	if p.NoNamespace() {
		about = &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: key.Namespace}
		p.Message += ": exported Services of remote " + p.Cluster + " wait for it"
	}
	e.event(about, corev1.EventTypeWarning, string(p.Reason), "remote "+p.Cluster+": "+p.Message)
}

// Remote reports a problem of a whole remote or of a gateway, or that it is over.
func (e *Events) Remote(cluster string, p remote.Problem) {
	if e == nil {
		return
	}
	what := "Remote"
	if p.Kind() == remote.GatewayProblem {
		what = "Gateway"
	}
	if p.Cause == "" {
		e.event(e.pod, corev1.EventTypeNormal, what+"Recovered", "remote "+cluster+": "+p.Part+" has recovered")
		return
	}
	e.event(e.pod, corev1.EventTypeWarning, p.Reason(), "remote "+cluster+": "+p.Part+": "+p.Cause)
}
