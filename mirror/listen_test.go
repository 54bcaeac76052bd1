package mirror

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"service-mirror.io/service-mirror/mirror/report"
)

// A name that anyone may resolve to an address of the pod is refused; no other way to get here is.
func TestHosts(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	hosts := (&Listen{Address: "london.example.com:8080", Hosts: []string{"SM.example.com.", "service-mirror.ops.svc"}}).hosts()
	for host, want := range map[string]bool{
		"localhost": true, "localhost:8080": true, "LOCALHOST:8080": true, "localhost.:80": true, "a.localhost:8080": true,
		"127.0.0.1": true, "127.0.0.1:8080": true, "[::1]:8080": true, "[::1]": true, "::1": true, "10.244.1.7:8080": true, "[2001:db8::1]:8080": true,
		hostname: true, hostname + ":8080": true, "": true, "kubernetes.default.svc": true, "kubernetes.default.svc:443": true,
		"sm.example.com": true, "sm.example.com:443": true, "service-mirror.ops.svc:8080": true, "london.example.com:8080": true,
		"evil.example.com": false, "evil.example.com:8080": false, "sm.example.com.evil.com": false, "xsm.example.com": false, "localhost.evil.com": false,
		"evillocalhost": false, "127.0.0.1.nip.io": false, "10.244.1.7.evil.com:8080": false, "localhost@evil.com": false, "[evil.com]:8080": false,
		"2130706433": false, "0x7f000001": false, "127.1": false, "svc": false,
	} {
		if hosts.serves(host) != want {
			t.Errorf("%q is served: %v", host, !want)
		}
	}
}

// Each path that shows something is behind the check, and probes are not.
func TestHandlerRefusesOtherHosts(t *testing.T) {
	metrics := report.NewMetrics(report.Daemon, "v1", nil)
	run(t, Options{Metrics: metrics}, paris, func(w *world) {
		w.settle()
		handler := w.controller.Handler(w.controller.Overview, Listen{Address: ":8080", Profile: true})
		for path, want := range map[string]int{
			"/": 421, "/status.json": 421, "/metrics": 421, "/debug/pprof/": 421, "/debug/pprof/cmdline": 421, "/nowhere": 421, "/healthz": 200, "/readyz": 200,
		} {
			for host, want := range map[string]int{"evil.example.com": want, "10.244.1.7:8080": 200} {
				recorder := httptest.NewRecorder()
				handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "http://"+host+path, nil))
				if path == "/nowhere" && want == 200 {
					want = 404
				}
				if recorder.Code != want {
					w.Errorf("%s at %s: status %d, want %d: %s", path, host, recorder.Code, want, recorder.Body)
				}
				if body := recorder.Body.String(); want == 421 && (!strings.Contains(body, `"evil.example.com" is not accepted: add it to --listen-host`) || strings.Contains(body, "paris")) {
					w.Errorf("%s: %s", path, body)
				}
			}
		}
	})
}

// A few requests are answered at once; the others are refused, and probes are not among them.
func TestRequestsAreLimited(t *testing.T) {
	release := make(chan struct{})
	var answering sync.WaitGroup
	handler := limited(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answering.Done()
		<-release
		fmt.Fprint(w, "ok")
	}))
	answering.Add(maxRequests)
	var all sync.WaitGroup
	for range maxRequests {
		all.Go(func() {
			recorder := httptest.NewRecorder()
			if handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil)); recorder.Code != 200 {
				t.Errorf("status %d", recorder.Code)
			}
		})
	}
	answering.Wait()
	recorder := httptest.NewRecorder()
	if handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil)); recorder.Code != 503 || recorder.Header().Get("Retry-After") == "" {
		t.Errorf("one more: status %d", recorder.Code)
	}
	close(release)
	all.Wait()
	answering.Add(1)
	recorder = httptest.NewRecorder()
	if handler.ServeHTTP(recorder, httptest.NewRequest(http.MethodGet, "/", nil)); recorder.Code != 200 {
		t.Errorf("afterwards: status %d", recorder.Code)
	}
}

// pipes is a listener whose connections are within the process, so that time is virtual.
type pipes struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case conn := <-p.conns:
		return conn, nil
	case <-p.closed:
		return nil, net.ErrClosed
	}
}
func (p *pipes) Close() error   { p.once.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr { return &net.TCPAddr{} }

// A client that does not send its request, or does not read the answer, is not waited for.
func TestSlowClients(t *testing.T) {
	for name, test := range map[string]struct {
		send   string
		within time.Duration
	}{
		"no request":             {"", idleTimeout},
		"half a request":         {"GET /metrics HTTP/1.1\r\nHost: loc", readTimeout},
		"a body that never ends": {"POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n", readTimeout},
		"an answer half read":    {"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n", writeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				listener := &pipes{conns: make(chan net.Conn), closed: make(chan struct{})}
				var serving sync.WaitGroup
				answered := false
				serving.Go(func() {
					Serve(ctx, listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if _, err := io.Copy(io.Discard, r.Body); err != nil {
							return
						}
						for range 1000 {
							if _, err := w.Write(make([]byte, 64<<10)); err != nil {
								answered = true
								return
							}
						}
						t.Error("all of it was written")
					}))
				})
				client, server := net.Pipe()
				listener.conns <- server
				begin := time.Now()
				if _, err := io.WriteString(client, test.send); err != nil {
					t.Fatal(err)
				}
				if strings.HasPrefix(name, "an answer") {
					if _, err := bufio.NewReader(client).ReadString('\n'); err != nil {
						t.Fatal(err)
					}
					time.Sleep(writeTimeout + time.Second)
					synctest.Wait()
					if !answered {
						t.Error("it is waited for")
					}
				} else {
					io.Copy(io.Discard, client) // until it is closed
					if took := time.Since(begin); took > test.within+time.Second {
						t.Errorf("it is closed after %v, want %v", took, test.within)
					}
				}
				client.Close()
				cancel()
				serving.Wait()
			})
		})
	}
}
