package mirror

import (
	"context"
	"os"
	"sync/atomic"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/record"

	"service-mirror.io/service-mirror/remote"
)

// Events tells the users of the local cluster what is wrong, where they look for
// it. It is told only of what appears, not of every try. A nil one does nothing.
type Events struct {
	recorder record.EventRecorder
	pod      *corev1.ObjectReference // the daemon's own; nil: it runs in none
	leading  atomic.Bool             // another replica tells it, too
}

// NewEvents makes Events that are written with client until the context ends.
// What concerns a whole remote is told of the pod, unless that is nil.
func NewEvents(ctx context.Context, client remote.Client, pod *corev1.ObjectReference) *Events {
	broadcaster := record.NewBroadcaster(record.WithContext(ctx))
	broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: client.CoreV1().Events("")})
	return &Events{recorder: broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "service-mirror"}), pod: pod}
}

// OwnPod is the pod that the program runs in, as its environment tells; nil
// where it does not.
func OwnPod() *corev1.ObjectReference {
	pod := &corev1.ObjectReference{
		APIVersion: "v1", Kind: "Pod", Namespace: os.Getenv("POD_NAMESPACE"), Name: os.Getenv("POD_NAME"), UID: types.UID(os.Getenv("POD_UID")),
	}
	if pod.Namespace == "" || pod.Name == "" {
		return nil
	}
	return pod
}

func (e *Events) lead(leading bool) {
	if e != nil {
		e.leading.Store(leading)
	}
}

func (e *Events) tell(about *corev1.ObjectReference, kind, reason, message string) {
	if e != nil && about != nil && e.leading.Load() {
		var obj runtime.Object = about
		e.recorder.Event(obj, kind, reason, message)
	}
}

// mirror tells of a problem with a mirror: of its Service, whether that is
// there or not; in a namespace that is not there nothing can be told, so of that.
func (e *Events) mirror(key cache.ObjectName, svc *corev1.Service, p Problem) {
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: key.Namespace, Name: key.Name}
	if svc != nil {
		about.UID = svc.UID
	}
	if p.missing() {
		about = &corev1.ObjectReference{APIVersion: "v1", Kind: "Namespace", Name: key.Namespace}
		p.Message += ": exported Services of " + p.Cluster + " wait for it"
	}
	e.tell(about, corev1.EventTypeWarning, string(p.Reason), "remote "+p.Cluster+": "+p.Message)
}

// remote tells of a problem with a whole remote or with a gateway, or that it is over.
func (e *Events) remote(cluster string, p remote.Problem) {
	if e == nil {
		return
	}
	what := "Remote"
	if p.Kind() == remote.GatewayProblem {
		what = "Gateway"
	}
	if p.Cause == "" {
		e.tell(e.pod, corev1.EventTypeNormal, what+"Recovered", "remote "+cluster+": "+p.Part+" is well again")
		return
	}
	e.tell(e.pod, corev1.EventTypeWarning, what+"Failing", "remote "+cluster+": "+p.Part+": "+p.Cause)
}
