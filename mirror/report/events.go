package report

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"os"
	"sync"
	"sync/atomic"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"

	"service-mirror.io/service-mirror/mirror/leader"
	"service-mirror.io/service-mirror/mirror/plan"
	"service-mirror.io/service-mirror/remote"
	"service-mirror.io/service-mirror/remote/failure"
	"service-mirror.io/service-mirror/remote/logging"
)

// Events says what is wrong to the users of the local cluster, where they look for it: when it appears, not at
// every retry. A nil one does nothing.
type Events struct {
	// Cluster is the name of the local cluster, which Events then end with; empty: none. It is set before any are made.
	Cluster string

	recorder    record.EventRecorder
	broadcaster record.EventBroadcaster
	writing     *sink
	pod         *corev1.ObjectReference // the daemon's own; nil: it runs in none
	leading     atomic.Bool             // else another replica makes them

	mu      sync.Mutex
	remotes map[remotePart]string // what is wrong with remotes, as was last reported in this term
}

// remotePart is a part of a remote.
type remotePart struct{ cluster, part string }

// NewEvents makes Events that are written with client. What concerns a whole remote is about the pod, unless
// that is nil.
func NewEvents(ctx context.Context, client remote.Client, pod *corev1.ObjectReference) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	writing := &sink{logger: klog.FromContext(ctx), EventSink: &typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")}}
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

// sink lets requests end before it is closed, and no other begin. It answers the recorder, which holds up all
// Events while it retries one, so that only what may succeed is retried.
type sink struct {
	record.EventSink
	logger   klog.Logger
	open     sync.RWMutex // read-locked while a request is under way
	closed   bool
	mu       sync.Mutex
	refusals failure.Series
}

// errDropped is the answer for an Event that is not retried. A recorder logs any other each time.
var errDropped = apierrors.NewAlreadyExists(corev1.Resource("events"), "")

func (s *sink) Create(event *corev1.Event) (*corev1.Event, error) {
	return s.send(func() (*corev1.Event, error) { return s.EventSink.Create(event) })
}

func (s *sink) Patch(event *corev1.Event, data []byte) (*corev1.Event, error) {
	return s.send(func() (*corev1.Event, error) { return s.EventSink.Patch(event, data) })
}

func (s *sink) send(request func() (*corev1.Event, error)) (*corev1.Event, error) {
	s.open.RLock()
	defer s.open.RUnlock()
	if s.closed {
		return nil, errDropped
	}
	got, err := request()
	var transport *url.Error // the request was not answered
	switch {
	case err == nil:
		s.note(nil)
	case apierrors.IsNotFound(err): // of a patch: the recorder creates it then
		return nil, err
	case errors.Is(err, leader.ErrFenced), apierrors.IsAlreadyExists(err), apierrors.HasStatusCause(err, corev1.NamespaceTerminatingCause):
		return nil, errDropped
	case errors.As(err, &transport):
		return nil, err
	default:
		s.note(err)
		return nil, errDropped
	}
	return got, nil
}

// note logs when Events begin to be refused, and when they are accepted again.
func (s *sink) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var cause string
	if err != nil {
		cause = cmp.Or(string(apierrors.ReasonForError(err)), "invalid") // an error's text has the Event's name
	}
	switch {
	case !s.refusals.Note(cause, time.Now()):
	case err != nil:
		logging.Warn(s.logger, "API server rejected an Event, not retrying; see the log, the metrics and the status page instead", "err", failure.Line(err.Error()))
	default:
		s.logger.Info("API server accepts Events again")
	}
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
		e.mu.Lock()
		defer e.mu.Unlock()
		clear(e.remotes)
		e.leading.Store(leading)
	}
}

// news notes what is wrong with a part of a remote, and tells whether that was not reported yet: what is wrong when a
// replica begins to lead is reported then, and may just have been.
func (e *Events) news(cluster string, p remote.Problem) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	of := remotePart{cluster, p.Part}
	if before, reported := e.remotes[of]; reported && before == p.Cause || !e.leading.Load() {
		return false
	}
	if e.remotes == nil {
		e.remotes = map[remotePart]string{}
	}
	e.remotes[of] = p.Cause
	return true
}

// Forget forgets what was reported of a remote that is no longer configured.
func (e *Events) Forget(cluster string) {
	if e == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	maps.DeleteFunc(e.remotes, func(of remotePart, _ string) bool { return of.cluster == cluster })
}

func (e *Events) event(about *corev1.ObjectReference, kind, reason, message string) {
	if e != nil && about != nil && e.leading.Load() {
		var obj runtime.Object = about
		message = failure.Line(message)
		if e.Cluster != "" { // where Events of several clusters are collected
			message += " (in cluster " + e.Cluster + ")"
		}
		e.recorder.Event(obj, kind, reason, message)
	}
}

// mirror reports a problem of a mirror: on its Service, whether that exists or not. Where there is no
// namespace for the Event, it is about the namespace. A name that a remote made up and that no object can have is
// in no Event's name or namespace: that is about the daemon's pod.
func (e *Events) mirror(key cache.ObjectName, svc *corev1.Service, p plan.Problem) {
	if e == nil {
		return
	}
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: key.Namespace, Name: key.Name}
	if svc != nil {
		about.Name, about.UID = svc.Name, svc.UID
	}
	if p.NoNamespace() {
		about = &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: key.Namespace}
		p.Message += ": exported Services of remote " + p.Cluster + " wait for it"
	}
	if len(validation.IsDNS1123Label(key.Namespace)) > 0 || len(validation.IsDNS1123Subdomain(about.Name)) > 0 {
		about, p.Message = e.pod, fmt.Sprintf("mirror %.320q: %s", key.String(), p.Message)
	}
	if p.Cluster != "" { // else it is not about a remote
		p.Message = "remote " + p.Cluster + ": " + p.Message
	}
	e.event(about, corev1.EventTypeWarning, string(p.Reason), p.Message)
}

// OfService reports what happened to a Service and is no problem.
func (e *Events) OfService(svc *corev1.Service, reason, message string) {
	e.event(&corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: svc.Namespace, Name: svc.Name, UID: svc.UID}, corev1.EventTypeNormal, reason, message)
}

// Remote reports a problem of a whole remote or of a gateway, or that it is over.
func (e *Events) Remote(cluster string, p remote.Problem) {
	if e == nil || !e.news(cluster, p) {
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
