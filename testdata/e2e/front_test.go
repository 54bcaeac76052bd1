package e2e

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/rest"
)

// front is a reverse proxy before a remote's API server that understands the API: a
// fault may answer requests in the API server's place.
type front struct {
	t        *testing.T
	server   *httptest.Server
	upstream atomic.Pointer[http.Handler]
	fault    atomic.Pointer[frontFault]
}

// frontFault answers a request in the place of upstream, or passes it on.
type frontFault func(w http.ResponseWriter, r *http.Request, upstream http.Handler)

// newFront starts a front; configure may change its server before it starts.
func newFront(t *testing.T, to *cluster, configure func(*httptest.Server)) *front {
	t.Helper()
	f := &front{t: t}
	f.redirect(to, "")
	f.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		upstream := *f.upstream.Load()
		if fault := f.fault.Load(); fault != nil {
			(*fault)(w, r, upstream)
			return
		}
		upstream.ServeHTTP(w, r)
	}))
	f.server.EnableHTTP2 = true
	f.server.Config.ErrorLog = log.New(io.Discard, "", 0)
	if configure != nil {
		configure(f.server)
	}
	f.server.StartTLS()
	t.Cleanup(func() {
		f.server.CloseClientConnections()
		f.server.Close()
	})
	return f
}

// behindFront has the daemon reach a remote through a front.
func (r *remote) behindFront(configure func(*httptest.Server)) *front {
	r.env.Helper()
	f := newFront(r.env.T, r.cluster, configure)
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: f.server.Certificate().Raw})
	r.env.writeKubeconfig(r.kubeconfig, f.server.URL, ca, r.token)
	return f
}

// redirect sends new requests to a cluster, with another token if one is given.
func (f *front) redirect(to *cluster, token string) {
	f.t.Helper()
	target, err := url.Parse(to.config.Host)
	if err != nil {
		f.t.Fatal(err)
	}
	config, err := rest.TLSConfigFor(to.config)
	if err != nil {
		f.t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: config.RootCAs}, ForceAttemptHTTP2: true}
	f.t.Cleanup(transport.CloseIdleConnections)
	var upstream http.Handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if token != "" {
				r.Out.Header.Set("Authorization", "Bearer "+token)
			}
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Transport:     transport,
	}
	f.upstream.Store(&upstream)
}

// fail applies a fault to every request from now on, open watches included.
func (f *front) fail(fault frontFault) {
	f.fault.Store(&fault)
	f.server.CloseClientConnections()
}

// recover ends a fault for new requests.
func (f *front) recover() { f.fault.Store(nil) }

// verb is what a request wants, as the daemon's faults distinguish it.
type verb int

const (
	otherRequest verb = iota // the identity, say
	plainList
	streamedList
	resumedWatch
)

func verbOf(r *http.Request) verb {
	query := r.URL.Query()
	watching := query.Get("watch") == "true" || query.Get("watch") == "1"
	switch {
	case r.Method != http.MethodGet || !strings.HasSuffix(r.URL.Path, "/services"):
		return otherRequest
	case !watching:
		return plainList
	case query.Get("sendInitialEvents") == "true":
		return streamedList
	}
	return resumedWatch
}

// ofExports reports whether a request is for exported Services, not for the gateway.
func ofExports(r *http.Request) bool { return r.URL.Query().Get("labelSelector") != "" }

// byVerb applies a fault for each verb, and passes on the rest.
func byVerb(faults map[verb]frontFault) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if fault := faults[verbOf(r)]; fault != nil {
			fault(w, r, upstream)
			return
		}
		upstream.ServeHTTP(w, r)
	}
}

// exportsOnly applies a fault to requests for exported Services.
func exportsOnly(inner frontFault) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if ofExports(r) {
			inner(w, r, upstream)
			return
		}
		upstream.ServeHTTP(w, r)
	}
}

// answers is the same 200 to every request.
func answers(contentType, body string) frontFault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, body)
	}
}

// refuses is the same error to every request.
func refuses(err *apierrors.StatusError) frontFault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		status := err.Status()
		status.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(int(status.Code))
		json.NewEncoder(w).Encode(status)
	}
}

var (
	methodNotAllowed = apierrors.NewMethodNotSupported(schema.GroupResource{Resource: "services"}, "list")
	expired          = apierrors.NewResourceExpired("The resourceVersion is too old.")
	invalid          = apierrors.NewInvalid(schema.GroupKind{Kind: "ListOptions"}, "", nil)
)

// onLists applies a fault to plain lists, and leaves no other way to learn what there is.
func onLists(list frontFault) frontFault {
	return byVerb(map[verb]frontFault{plainList: list, streamedList: refuses(invalid), resumedWatch: refuses(expired)})
}

// fetch is the list that upstream has for a request, whether that lists or watches.
func fetch(r *http.Request, upstream http.Handler) (*corev1.ServiceList, error) {
	plain := r.Clone(r.Context())
	plain.Header.Set("Accept", "application/json")
	query := url.Values{}
	for _, key := range []string{"labelSelector", "fieldSelector"} {
		if value := r.URL.Query().Get(key); value != "" {
			query.Set(key, value)
		}
	}
	plain.URL.RawQuery = query.Encode()
	answer := httptest.NewRecorder()
	upstream.ServeHTTP(answer, plain)
	list := &corev1.ServiceList{}
	if answer.Code != http.StatusOK {
		return nil, fmt.Errorf("upstream answers %d", answer.Code)
	}
	return list, json.Unmarshal(answer.Body.Bytes(), list)
}

// edited answers with upstream's list after a change to it.
func edited(edit func(*corev1.ServiceList)) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		list, err := fetch(r, upstream)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		edit(list)
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(list)
	}
}

// streamed answers with upstream's list after a change to it, as events. Where end is set,
// the bookmark that ends a streamed list follows, and the watch stays open; else it closes.
func streamed(edit func(*corev1.ServiceList), end bool) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		list, err := fetch(r, upstream)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		edit(list)
		for _, svc := range list.Items {
			writeEvent(w, "ADDED", svc)
		}
		if !end {
			return
		}
		writeEvent(w, "BOOKMARK", corev1.Service{ObjectMeta: metav1.ObjectMeta{
			ResourceVersion: list.ResourceVersion, Annotations: map[string]string{metav1.InitialEventsAnnotationKey: "true"},
		}})
		<-r.Context().Done()
	}
}

// deletes answers a watch with the deletion of the first Service of the list, after a change
// to it, and keeps the watch open.
func deletes(edit func(*corev1.ServiceList)) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		list, err := fetch(r, upstream)
		if err != nil || len(list.Items) == 0 {
			http.Error(w, fmt.Sprintf("%v: %v", list, err), http.StatusBadGateway)
			return
		}
		edit(list)
		writeEvent(w, "DELETED", list.Items[0])
		<-r.Context().Done()
	}
}

func writeEvent(w http.ResponseWriter, kind string, svc corev1.Service) {
	svc.TypeMeta = metav1.TypeMeta{Kind: "Service", APIVersion: "v1"}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(map[string]any{"type": kind, "object": svc})
	w.(http.Flusher).Flush()
}

// reportsFailure checks that a remote counts as failing, and that /status.json names a cause.
func (d *daemon) reportsFailure(r *remote) func() error {
	return func() error {
		all, err := d.metrics()
		if err != nil {
			return err
		}
		if all[r.up()] != 0 || all[r.failing("kubeconfig")]+all[r.failing("identity")]+all[r.failing("exports")] == 0 {
			return fmt.Errorf("remote %s counts as up, or has no problem", r.name)
		}
		p, err := d.page()
		if err != nil {
			return err
		}
		for _, row := range p.Remotes {
			if row.Name != r.name {
				continue
			}
			for _, problem := range row.Problems {
				if strings.TrimSpace(problem.Cause) == "" {
					return fmt.Errorf("remote %s is %s without a cause: %v", r.name, row.State, row.Problems)
				}
			}
			if row.State == "up" || row.State == "connecting" || len(row.Problems) == 0 {
				return fmt.Errorf("remote %s is %s with problems %v, want it down with a cause", r.name, row.State, row.Problems)
			}
			return nil
		}
		return fmt.Errorf("remote %s is not on the page", r.name)
	}
}
