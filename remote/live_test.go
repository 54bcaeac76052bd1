package remote

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer/streaming"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/scheme"
	restwatch "k8s.io/client-go/rest/watch"
	"k8s.io/client-go/tools/cache"
	"k8s.io/klog/v2"
	"k8s.io/klog/v2/textlogger"

	"service-mirror.io/service-mirror/gateway"
)

// liveServer is a remote's API server over real connections, as far as a Remote
// reads it: default/bar is exported, and there is ingress/gateway.
type liveServer struct {
	*httptest.Server
	uid types.UID
	// list and exports, where set, answer in place of the usual: a list of exported
	// Services, and a watch of them once it is up to date.
	list    http.HandlerFunc
	exports func(ctx context.Context, send func(watch.EventType, runtime.Object) error)

	// initial, where set, sends the events of a streamed list in place of the usual.
	initial func(send func(watch.EventType, runtime.Object) error)

	flush bool // after each event of exports
	// instead, where set, answers a request; false: it leaves that to the rest.
	instead atomic.Pointer[func(http.ResponseWriter, *http.Request) bool]

	open, opened atomic.Int64 // watches: that are open, and that ever were
}

func newLiveServer(t *testing.T, uid types.UID) *liveServer {
	s := newHTTP1Server(uid)
	s.EnableHTTP2 = true
	s.start(t)
	return s
}

// newHTTP1Server is one that speaks HTTP/1.1; it is not started.
func newHTTP1Server(uid types.UID) *liveServer {
	s := &liveServer{uid: uid}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	return s
}

func (s *liveServer) start(t *testing.T) {
	s.StartTLS()
	t.Cleanup(func() {
		s.CloseClientConnections() // a watch would hold up the end
		s.Close()
	})
}

var protobuf, _ = runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), runtime.ContentTypeProtobuf)

func encode(obj runtime.Object) []byte {
	out, err := runtime.Encode(scheme.Codecs.EncoderForVersion(protobuf.Serializer, corev1.SchemeGroupVersion), obj)
	must(err)
	return out
}

func (s *liveServer) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	if instead := s.instead.Load(); instead != nil && (*instead)(w, req) {
		return
	}
	query := req.URL.Query()
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
	var obj runtime.Object
	ofGateway := strings.Contains(query.Get("fieldSelector"), "gateway")
	what := service("default", "bar")
	if parts := strings.Split(req.URL.Path, "/"); len(parts) > 4 && parts[3] == "namespaces" {
		what = service(parts[4], "bar")
	}
	if ofGateway {
		what = gatewayService("192.0.2.1")
	}
	what.ResourceVersion = "5"
	switch {
	case strings.HasSuffix(req.URL.Path, "/namespaces/kube-system"):
		obj = &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: s.uid}}
	case query.Get("watch") != "":
		s.watch(w, req, what, ofGateway)
		return
	case s.list != nil && !ofGateway:
		s.list(w, req)
		return
	default:
		obj = &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}, Items: []corev1.Service{*what}}
	}
	w.Write(encode(obj))
}

// watch streams: first what there is, if that is requested, then what exports sends.
func (s *liveServer) watch(w http.ResponseWriter, req *http.Request, what *corev1.Service, ofGateway bool) {
	initial := req.URL.Query().Get("sendInitialEvents") == "true"
	if initial && s.list != nil && !ofGateway { // a list it must be
		w.WriteHeader(http.StatusMethodNotAllowed)
		w.Write(encode(&metav1.Status{Status: metav1.StatusFailure, Code: http.StatusMethodNotAllowed, Reason: metav1.StatusReasonMethodNotAllowed}))
		return
	}
	w.Header().Set("Content-Type", runtime.ContentTypeProtobuf+";stream=watch")
	encoder := restwatch.NewEncoder(
		streaming.NewEncoder(protobuf.StreamSerializer.Framer.NewFrameWriter(w), scheme.Codecs.EncoderForVersion(protobuf.StreamSerializer.Serializer, corev1.SchemeGroupVersion)),
		scheme.Codecs.EncoderForVersion(protobuf.Serializer, corev1.SchemeGroupVersion))
	send := func(kind watch.EventType, obj runtime.Object) error {
		err := encoder.Encode(&watch.Event{Type: kind, Object: obj})
		if s.exports == nil || s.flush {
			w.(http.Flusher).Flush()
		}
		return err
	}
	switch {
	case initial && s.initial != nil && !ofGateway:
		s.initial(send)
	case initial:
		send(watch.Added, what)
	}
	if initial {
		send(watch.Bookmark, &corev1.Service{ObjectMeta: metav1.ObjectMeta{ResourceVersion: "5", Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"}}})
	}
	w.(http.Flusher).Flush()
	s.opened.Add(1)
	s.open.Add(1)
	defer s.open.Add(-1)
	if s.exports != nil && !ofGateway {
		s.exports(req.Context(), send)
		w.(http.Flusher).Flush()
	}
	<-req.Context().Done()
}

// follower is a Remote that follows a live server.
type follower struct {
	*Remote
	path string // of its kubeconfig
	stop func() // ends it and waits for it

	mu      sync.Mutex
	changed map[string]int // how often, by Service
	deleted []string
}

// follow starts a Remote. Its kubeconfig trusts whoever answers.
func follow(t *testing.T, s *liveServer, name string) *follower {
	t.Helper()
	spec := through()
	spec.Name = name
	return followAs(t, s, spec, func(types.UID) error { return nil })
}

func followAs(t *testing.T, s *liveServer, spec Spec, accept func(types.UID) error, change ...func(*Hooks)) *follower {
	t.Helper()
	f := &follower{path: filepath.Join(t.TempDir(), "config"), changed: map[string]int{}}
	f.pointTo(t, s, "first")
	spec.Kubeconfig = f.path
	hooks := Hooks{
		Trim: func(svc *corev1.Service) *corev1.Service {
			return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: svc.Namespace, Name: svc.Name, ResourceVersion: svc.ResourceVersion}}
		},
		Changed: func(_ string, before, after *corev1.Service) {
			one := after
			f.mu.Lock()
			defer f.mu.Unlock()
			if one == nil {
				one = before
				f.deleted = append(f.deleted, before.Name)
			}
			f.changed[cache.MetaObjectToName(one).String()]++
		},
		Resync: func(string) {},
		Accept: func(_ context.Context, _ Spec, uid types.UID) error { return accept(uid) },
	}
	for _, change := range change {
		change(&hooks)
	}
	f.Remote = New(spec, Options{Selector: selector, Gateway: gateway.Options{Probe: gateway.Probe{Kind: gateway.ProbeNone}}}, hooks)
	ctx, cancel := context.WithCancel(klog.NewContext(t.Context(), textlogger.NewLogger(textlogger.NewConfig(textlogger.Output(io.Discard)))))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		f.Run(ctx)
	}()
	f.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(f.stop)
	return f
}

func (f *follower) pointTo(t *testing.T, s *liveServer, mark string) {
	write(t, f.path, "# "+mark+"\n"+strings.ReplaceAll(kubeconfigFor(strings.TrimPrefix(s.URL, "https://"), "token: secret"), `{server:`, `{insecure-skip-tls-verify: true, server:`))
}

func (f *follower) changes(name string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changed[name]
}

// eventually waits for a condition. How long that takes is no part of it: the machine may be busy.
func eventually(t *testing.T, what func() string) {
	t.Helper()
	const limit = 2 * time.Minute
	deadline := time.Now().Add(limit)
	for {
		missing := what()
		if missing == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, missing)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// known wants each to be known.
func known(all ...*follower) func() string {
	return func() string {
		for _, f := range all {
			if _, ok := f.View(); !ok {
				return fmt.Sprintf("nothing is known of %s: %+v", f.Name(), f.Status())
			}
		}
		return ""
	}
}
