package remote

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
)

// turnstile is an API server's address. Each network connection reaches the cluster that was chosen when it
// was made, as through a load balancer.
type turnstile struct {
	*httptest.Server
	cluster  atomic.Value // string: the UID of the chosen one
	status   atomic.Int64 // of reads of kube-system; 0: they succeed
	mu       sync.Mutex
	received map[string]int // requests other than reads of kube-system, by cluster
}

type reached struct{}

func newTurnstile(t *testing.T, http2, keepAlive bool) *turnstile {
	s := &turnstile{received: map[string]int{}}
	s.cluster.Store("london")
	s.Server = httptest.NewUnstartedServer(s)
	s.EnableHTTP2 = http2
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, reached{}, s.cluster.Load())
	}
	s.Config.SetKeepAlivesEnabled(keepAlive)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *turnstile) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	cluster := req.Context().Value(reached{}).(string)
	w.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(req.URL.Path, "/namespaces") {
		if status := int(s.status.Load()); status != 0 {
			w.WriteHeader(status)
			fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","code":%d,"reason":%q}`, status, map[int]metav1.StatusReason{403: metav1.StatusReasonForbidden, 404: metav1.StatusReasonNotFound}[status])
			return
		}
		fmt.Fprintf(w, `{"kind":"PartialObjectMetadataList","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[{"metadata":{"name":"kube-system","uid":%q}}]}`, cluster)
		return
	}
	s.mu.Lock()
	s.received[cluster]++
	s.mu.Unlock()
	if req.Method == http.MethodGet {
		fmt.Fprint(w, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
		return
	}
	io.Copy(io.Discard, req.Body)
	fmt.Fprint(w, `{"kind":"Service","apiVersion":"v1","metadata":{"name":"bar","namespace":"default","uid":"x"}}`)
}

// choose has new connections reach a cluster, and closes the others.
func (s *turnstile) choose(cluster string) {
	s.cluster.Store(cluster)
	s.CloseClientConnections()
}

func (s *turnstile) receivedBy(cluster string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.received[cluster]
}

func (s *turnstile) client(t *testing.T, pin *Pin) Client {
	cfg := ClientOptions{}.Tune(&rest.Config{Host: s.URL, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, "", &Network{})
	cfg.ContentType = "application/json"
	cfg, err := pin.Config(cfg)
	if err != nil {
		t.Fatal(err)
	}
	client, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func list(t *testing.T, client Client) error {
	_, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	return err
}

func create(t *testing.T, client Client) error {
	_, err := client.CoreV1().Services("default").Create(t.Context(), service("default", "bar"), metav1.CreateOptions{})
	return err
}

func TestPin(t *testing.T) {
	for name, test := range map[string]struct{ http2, keepAlive bool }{
		"HTTP/2": {true, true}, "HTTP/1.1": {false, true}, "every connection is closed": {false, false},
	} {
		t.Run(name, func(t *testing.T) {
			s, pin := newTurnstile(t, test.http2, test.keepAlive), &Pin{}
			var reports []error
			pin.OnChange(func(err error) { reports = append(reports, err) })
			client := s.client(t, pin)
			for range 3 {
				if err := errors.Join(list(t, client), create(t, client)); err != nil {
					t.Fatal(err)
				}
			}
			s.choose("oslo")
			for range 3 {
				// The first may fail because its connection was closed.
				if err := create(t, client); err == nil {
					t.Error("a write to another cluster succeeds")
				}
				if err := list(t, client); err == nil {
					t.Error("a read from another cluster succeeds")
				} else if !errors.Is(err, ErrOtherCluster) || !strings.Contains(Cause(err), "kube-system is oslo, but was london") {
					t.Errorf("got %v", err)
				}
			}
			if got := s.receivedBy("oslo"); got != 0 {
				t.Errorf("another cluster received %d requests", got)
			}
			s.choose("london")
			list(t, client) // it may fail because its connection was closed
			if err := errors.Join(list(t, client), create(t, client)); err != nil {
				t.Error(err)
			}
			if len(reports) != 2 || !errors.Is(reports[0], ErrOtherCluster) || reports[1] != nil {
				t.Errorf("reported: %v", reports)
			}
		})
	}
}

// All clients of one Pin are on one cluster, whichever of them reached it first.
func TestPinIsShared(t *testing.T) {
	s, pin := newTurnstile(t, true, true), &Pin{}
	if err := list(t, s.client(t, pin)); err != nil {
		t.Fatal(err)
	}
	s.choose("oslo")
	if err := create(t, s.client(t, pin)); !errors.Is(err, ErrOtherCluster) {
		t.Errorf("got %v", err)
	}
}

// A cluster whose UID cannot be read gets no requests, and no answer is taken for an absence.
func TestPinWithoutUID(t *testing.T) {
	for status, want := range map[int]func(error) bool{
		http.StatusForbidden:           apierrors.IsForbidden,
		http.StatusInternalServerError: apierrors.IsInternalError,
		http.StatusNotFound:            func(err error) bool { return err != nil && !apierrors.IsNotFound(err) },
	} {
		s := newTurnstile(t, true, true)
		s.status.Store(int64(status))
		client := s.client(t, &Pin{})
		if err := list(t, client); !want(err) {
			t.Errorf("%d, and a list: %v", status, err)
		}
		if err := create(t, client); !want(err) {
			t.Errorf("%d, and a create: %v", status, err)
		}
		if got := s.receivedBy("london"); got != 0 {
			t.Errorf("%d: %d requests went through", status, got)
		}
		s.status.Store(0)
		if err := list(t, client); err != nil {
			t.Errorf("later: %v", err)
		}
	}
}

// silent is a server that takes requests and answers each after ten seconds, without success.
type silent struct {
	status   int // 0: the connection is lost
	requests atomic.Int64
}

func (s *silent) RoundTrip(req *http.Request) (*http.Response, error) {
	s.requests.Add(1)
	select {
	case <-req.Context().Done():
		return nil, req.Context().Err()
	case <-time.After(10 * time.Second):
	}
	if s.status == 0 {
		return nil, errDown
	}
	return &http.Response{StatusCode: s.status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("refused"))}, nil
}

// A server that does not answer holds up each request for one read of the UID, however many there are.
func TestManyRequestsWhileTheUIDIsNotRead(t *testing.T) {
	for name, status := range map[string]int{"the connection is lost": 0, "refused": http.StatusServiceUnavailable} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				server := &silent{status: status}
				transport := newPinned(&Pin{}, &Network{}, &url.URL{}, server)
				start := time.Now()
				var wg sync.WaitGroup
				request := func(ctx context.Context, after time.Duration, fits func(*http.Response, error) bool) {
					wg.Go(func() {
						resp, err := transport.RoundTrip((&http.Request{URL: &url.URL{}, Header: http.Header{}}).WithContext(ctx))
						if took := time.Since(start); took != after || !fits(resp, err) {
							t.Errorf("%v, %v after %v, want it after %v", resp, err, took, after)
						}
					})
					synctest.Wait() // it reads the UID, or waits for that
				}
				ended := func(resp *http.Response, err error) bool {
					return resp == nil && errors.Is(err, context.DeadlineExceeded)
				}
				failed := func(resp *http.Response, err error) bool {
					if status == 0 {
						return resp == nil && errors.Is(err, errDown)
					}
					if err != nil {
						return false
					}
					body, _ := io.ReadAll(resp.Body)
					return resp.StatusCode == status && string(body) == "refused"
				}
				sooner, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				soon, cancel := context.WithTimeout(t.Context(), 2*time.Second)
				defer cancel()
				request(soon, 2*time.Second, ended) // it reads the UID: that it ends is no failure of the others
				request(sooner, time.Second, ended)
				for range 40 {
					request(t.Context(), 12*time.Second, failed)
				}
				wg.Wait()
				if got := server.requests.Load(); got != 2 {
					t.Errorf("the UID is read %d times, want two", got)
				}
			})
		})
	}
}

func TestSystemUID(t *testing.T) {
	for _, body := range []string{
		``, `null`, `{}`, `[]`, `<html>`, `{"items":null}`, `{"items":[{}]}`, `{"items":[{"metadata":{"name":"kube-system"}}]}`,
		`{"items":[{"metadata":{"name":"default","uid":"x"}}]}`,
		`{"items":[{"metadata":{"name":"kube-system","uid":"x"}},{"metadata":{"name":"kube-system","uid":"y"}}]}`,
	} {
		if uid, err := systemUID([]byte(body)); err == nil {
			t.Errorf("%s: got %q", body, uid)
		}
	}
}

// A server that has a connection closed when its requests have ended takes new ones over another connection.
func TestPinnedConnectionThatTakesNoMoreRequests(t *testing.T) {
	watching, end := make(chan struct{}), make(chan struct{})
	s := &turnstile{received: map[string]int{}}
	s.cluster.Store("london")
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		switch {
		case req.URL.Query().Get("watch") != "":
			w.Header().Set("Content-Type", "application/json")
			w.(http.Flusher).Flush()
			close(watching)
			<-end
			return
		case req.URL.Path == "/api/v1/services": // an HTTP/2 server makes a GOAWAY of it
			w.Header().Set("Connection", "close")
		}
		s.ServeHTTP(w, req)
	}))
	s.EnableHTTP2 = true
	s.Config.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
		return context.WithValue(ctx, reached{}, "london")
	}
	s.StartTLS()
	defer s.Close()
	defer close(end)
	client := s.client(t, &Pin{})
	if err := create(t, client); err != nil {
		t.Fatal(err)
	}
	w, err := client.CoreV1().Services("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Stop()
	<-watching
	for range 20 {
		if err := errors.Join(list(t, client), create(t, client)); err != nil {
			t.Fatal(err)
		}
	}
}
