package verify

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/pflag"
	"service-mirror.io/service-mirror/gateway"
)

const bar = "bar-paris.default.svc.cluster.local"

// serve starts a server on loopback, and returns its address.
func serve(t *testing.T, change func(*httptest.Server), handler http.HandlerFunc) netip.AddrPort {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = nil
	server.Config.Protocols = new(http.Protocols)
	server.Config.Protocols.SetHTTP1(true)
	if change != nil {
		change(server)
	}
	switch {
	case server.TLS != nil:
		server.StartTLS()
	default:
		server.Start()
	}
	t.Cleanup(server.Close)
	return netip.MustParseAddrPort(server.Listener.Addr().String())
}

// raw starts a server that does this with each connection.
func raw(t *testing.T, handle func(net.Conn)) netip.AddrPort {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() { defer conn.Close(); handle(conn) }()
		}
	}()
	return netip.MustParseAddrPort(listener.Addr().String())
}

// noRoute answers for a name that the gateway does not know: with the name, and what differs each time.
func noRoute(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Server", "gateway")
		http.Error(w, fmt.Sprintf("no route for %s, request_id=%d", r.Host, time.Now().UnixNano()), code)
	}
}

// routed is a gateway that knows the name bar alone.
func routed(unknown int, known http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if host, _, _ := strings.Cut(r.Host, ":"); host != bar {
			noRoute(unknown)(w, r)
			return
		}
		known(w, r)
	}
}

func status(code int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { http.Error(w, text, code) }
}

// closed is an address at which nothing listens.
func closed(t *testing.T) netip.AddrPort {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return netip.MustParseAddrPort(listener.Addr().String())
}

func TestOutcomes(t *testing.T) {
	h2c := func(s *httptest.Server) {
		s.Config.Protocols.SetHTTP1(false)
		s.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	grpc := func(status, message string) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", status)
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", message)
			w.WriteHeader(http.StatusOK)
		}
	}
	for _, test := range []struct {
		name     string
		class    gateway.Class
		reserved bool
		at       netip.AddrPort
		want     Result
		answer   string // a part of it
	}{
		{"an answer", gateway.HTTP, false, serve(t, nil, routed(404, status(200, "hello"))), Reached, "status 200"},
		{"the application's own 404", gateway.HTTP, false, serve(t, nil, routed(404, status(404, "no such page"))), Reached, "status 404"},
		{"the application's own 500", gateway.HTTP, false, serve(t, nil, routed(404, status(500, "oh"))), Reached, "status 500"},
		{"what is not known is assumed to be HTTP", gateway.Unknown, false, serve(t, nil, routed(404, status(200, "hello"))), Reached, "status 200"},
		{"the gateway's 404", gateway.HTTP, false, serve(t, nil, noRoute(404)), NotRouted, "status 404, the same as for an unknown host name: the gateway has no route for " + bar},
		{"one page for all names", gateway.HTTP, false, serve(t, nil, status(200, "Welcome to nginx!")), NotRouted, "status 200, the same as for an unknown host name"},
		{"one page for all names, of a reserved port", gateway.HTTP, true, serve(t, nil, status(200, "hello")), Reached, "status 200"},
		{"421", gateway.HTTP, false, serve(t, nil, routed(421, status(421, "not here"))), NotRouted, "status 421"},
		{"503", gateway.HTTP, false, serve(t, nil, routed(404, status(503, "no backend"))), Unavailable, "status 503: the gateway has a route"},
		{"502", gateway.HTTP, false, serve(t, nil, routed(404, status(502, "no backend"))), Unavailable, "status 502"},
		{"503 for all names", gateway.HTTP, false, serve(t, nil, status(503, "no backend")), NotRouted, "status 503, the same as for an unknown host name"},
		{"a redirect", gateway.HTTP, false, serve(t, nil, routed(404, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://"+bar+"/", 308) })), Reached, "redirect to https://" + bar},
		{"a redirect of all names", gateway.HTTP, false, serve(t, nil, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "https://"+r.Host+"/", 308) }), NotRouted, "status 308"},
		{"a dead address", gateway.HTTP, false, closed(t), Refused, "connection refused"},
		{"a dead address for gRPC", gateway.GRPC, false, closed(t), Refused, "connection refused"},
		{"a dead address for TCP", gateway.TCP, true, closed(t), Refused, "connection refused"},
		{"a dead address for TLS", gateway.HTTPS, false, closed(t), Refused, "connection refused"},
		{"closed without an answer", gateway.HTTP, false, raw(t, func(c net.Conn) { c.Read(make([]byte, 1)) }), Closed, "closed the connection"},
		{"another protocol", gateway.HTTP, false, raw(t, func(c net.Conn) { fmt.Fprint(c, "220 mail ESMTP\r\n"); io.Copy(io.Discard, c) }), Failed, "no valid http answer"},
		{"h2c, gRPC", gateway.GRPC, false, serve(t, h2c, routed(404, grpc("0", ""))), Reached, "gRPC status 0"},
		{"h2c, gRPC without a health service", gateway.GRPC, false, serve(t, h2c, routed(404, grpc("12", "unknown service"))), Reached, "gRPC status 12"},
		{"h2c, gRPC, unknown", gateway.GRPC, false, serve(t, h2c, grpc("12", "no route")), NotRouted, "gRPC status 12, the same as for an unknown host name"},
		{"h2c, gRPC, no backend", gateway.GRPC, false, serve(t, h2c, routed(404, grpc("14", "no healthy upstream"))), Unavailable, "gRPC status 14"},
		{"h2c, no gRPC", gateway.GRPC, false, serve(t, h2c, routed(404, status(200, "hello"))), Reached, "status 200"},
		{"TCP", gateway.TCP, true, raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }), Reached, "stays open"},
		{"a reserved port of which nothing is known", gateway.Unknown, true, raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }), Reached, "stays open"},
		{"TCP, a server that begins", gateway.TCP, true, raw(t, func(c net.Conn) { fmt.Fprint(c, "220"); io.Copy(io.Discard, c) }), Reached, "sends data"},
		{"TCP, closed immediately", gateway.TCP, true, raw(t, func(net.Conn) {}), Closed, "closed immediately"},
		{"UDP", gateway.UDP, true, closed(t), NotKnown, "UDP cannot be verified"},
		{"SCTP", gateway.SCTP, true, closed(t), NotKnown, "SCTP cannot be verified"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Options{}.Check(t.Context(), Target{Address: test.at, Class: test.class, Host: bar, Port: 8080, Reserved: test.reserved})
			if got.Result != test.want || !strings.Contains(got.Answer, test.answer) {
				t.Errorf("got %s: %s, want %s: %s", got.Result, got.Message(), test.want, test.answer)
			}
			if (got.Result == Reached) != (got.Remedy == "") {
				t.Errorf("%s has the remedy %q", got.Result, got.Remedy)
			}
			if got.Lasting != (got.Result == NotKnown) {
				t.Errorf("%s is lasting: %t", got.Message(), got.Lasting)
			}
			if got.Result == Reached && got.Latency <= 0 {
				t.Error("it has no latency")
			}
		})
	}
}

// A server of another protocol answers and closes, and the connection is reset if it has not read all: the answer may
// be lost with it. Either way the remedy names the protocol.
func TestAnotherProtocol(t *testing.T) {
	for _, test := range []struct {
		name  string
		class gateway.Class
		at    netip.AddrPort
	}{
		{"HTTP/1 where HTTP/2 should be", gateway.GRPC, serve(t, nil, routed(404, status(200, "hello")))},
		{"TLS where there is none", gateway.HTTPS, serve(t, nil, status(200, "hello"))},
		{"closed without an answer, gRPC", gateway.GRPC, raw(t, func(c net.Conn) { c.Read(make([]byte, 1)) })},
		{"closed without an answer, TLS", gateway.HTTPS, raw(t, func(c net.Conn) { c.Read(make([]byte, 1)) })},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := Options{}.Check(t.Context(), Target{Address: test.at, Class: test.class, Host: bar, Port: 8080})
			if got.Result != Failed && got.Result != Closed || !strings.Contains(got.Remedy, "of the gateway speaks "+string(test.class)) {
				t.Errorf("got %s: %s", got.Result, got.Message())
			}
		})
	}
}

// authority issues certificates; its own is in the file ca.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	ca   string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, ca: filepath.Join(t.TempDir(), "ca.crt")}
	a.cert, a.key = a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "the root"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
	if err := os.WriteFile(a.ca, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *authority) sign(template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber = big.NewInt(1)
	template.NotBefore = time.Now().Add(-2 * time.Hour)
	if template.NotAfter.IsZero() {
		template.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

// config is that of a server whose certificate has these names.
func (a *authority) config(notAfter time.Time, names ...string) *tls.Config {
	cert, key := a.sign(&x509.Certificate{DNSNames: names, NotAfter: notAfter})
	return &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: key}}}
}

func TestCertificates(t *testing.T) {
	ours, other := newAuthority(t), newAuthority(t)
	never := time.Time{}
	demanding := func(version uint16) *tls.Config {
		config := ours.config(never, "*.default.svc.cluster.local")
		config.ClientAuth, config.MaxVersion = tls.RequireAnyClientCert, version
		return config
	}
	unrecognized := ours.config(never, bar)
	unrecognized.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) { return nil, io.EOF }
	passthrough := ours.config(never, bar)
	passthrough.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != bar {
			return nil, io.EOF
		}
		return nil, nil
	}
	many := make([]string, 100)
	for i := range many {
		many[i] = fmt.Sprintf("a%d.example.com", i)
	}
	for _, test := range []struct {
		name    string
		ca      string
		config  *tls.Config
		handler http.HandlerFunc
		want    Result
		answer  string
		names   []string
	}{
		{"its own name", ours.ca, ours.config(never, bar), routed(404, status(200, "")), Reached, "status 200", []string{bar}},
		{"a wildcard", ours.ca, ours.config(never, "*.default.svc.cluster.local"), routed(404, status(200, "")), Reached, "status 200", []string{"*.default.svc.cluster.local"}},
		{"the gateway's 404", ours.ca, ours.config(never, "*.default.svc.cluster.local"), noRoute(404), NotRouted, "status 404", []string{"*.default.svc.cluster.local"}},
		{"passed through by SNI", ours.ca, passthrough, status(200, "hello"), Reached, "status 200", []string{bar}},
		{"an SNI that nobody knows", ours.ca, unrecognized, status(200, "hello"), Failed, "no valid https answer", nil},
		{"the wildcard of another namespace", ours.ca, ours.config(never, "*.team.svc.cluster.local"), routed(404, status(200, "")), Certificate,
			"the certificate is for *.team.svc.cluster.local, not for " + bar + ": it is a wildcard for namespace team", []string{"*.team.svc.cluster.local"}},
		{"another name", ours.ca, ours.config(never, "gateway.example.com"), routed(404, status(200, "")), Certificate,
			"the certificate is for gateway.example.com, not for " + bar, []string{"gateway.example.com"}},
		{"many names", ours.ca, ours.config(never, many...), routed(404, status(200, "")), Certificate, "95 more", nil},
		{"another root", other.ca, ours.config(never, bar), routed(404, status(200, "")), Certificate, `signed by the untrusted CA "the root"`, []string{bar}},
		{"the system's roots", "", ours.config(never, bar), routed(404, status(200, "")), Certificate, "signed by the untrusted CA", []string{bar}},
		{"expired", ours.ca, ours.config(time.Now().Add(-time.Hour), bar), routed(404, status(200, "")), Certificate, "is valid from", []string{bar}},
		{"a client certificate is demanded, TLS 1.3", ours.ca, demanding(tls.VersionTLS13), routed(404, status(200, "")), Certificate, "requires a client certificate", nil},
		{"a client certificate is demanded, TLS 1.2", ours.ca, demanding(tls.VersionTLS12), routed(404, status(200, "")), Certificate, "requires a client certificate", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int32
			at := serve(t, func(s *httptest.Server) { s.TLS = test.config }, func(w http.ResponseWriter, r *http.Request) {
				if r.Host == bar {
					requests.Add(1)
				}
				test.handler(w, r)
			})
			got := Options{CAFile: test.ca}.Check(t.Context(), Target{Address: at, Class: gateway.HTTPS, Host: bar, Port: 443})
			if got.Result != test.want || !strings.Contains(got.Answer, test.answer) {
				t.Errorf("got %s: %s, want %s: %s", got.Result, got.Message(), test.want, test.answer)
			}
			if test.names != nil && !slices.Equal(got.Names, test.names) {
				t.Errorf("the certificate's names are %q, want %q", got.Names, test.names)
			}
			if want := strings.Contains(test.answer, "requires a client certificate"); got.Lasting != want { // others may be about to be issued
				t.Errorf("%s is lasting: %t", got.Message(), got.Lasting)
			}
			if got.Result == Certificate && requests.Load() > 0 {
				t.Error("a request was sent to a gateway that is not trusted")
			}
		})
	}
}

// A gateway may demand a client certificate by its answer, unlike one that requests a certificate of everyone and requires
// none. What it may also answer while it has no route may change.
func TestCertificateDemandedByAnAnswer(t *testing.T) {
	ours := newAuthority(t)
	requesting, ofBar := ours.config(time.Time{}, bar), ours.config(time.Time{}, bar)
	requesting.ClientAuth = tls.RequestClientCert
	ofBar.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName == bar {
			return requesting, nil
		}
		return nil, nil
	}
	refusal := func(code int) http.HandlerFunc { return status(code, "No required SSL certificate was sent") }
	for _, test := range []struct {
		name     string
		config   *tls.Config
		handler  http.HandlerFunc
		reserved bool
		want     Result
		lasting  bool
	}{
		{"400", requesting, refusal(400), false, Certificate, true},
		{"403", requesting, refusal(403), false, Certificate, false},
		{"495", requesting, refusal(495), false, Certificate, true},
		{"496", requesting, refusal(496), false, Certificate, true},
		{"400, of this name alone", ofBar, routed(404, refusal(400)), false, Certificate, true},
		{"400, of a reserved port", requesting, refusal(400), true, Certificate, true},
		{"496, to this name alone", requesting, routed(404, refusal(496)), false, Certificate, true},
		{"the application's own 400", requesting, routed(404, status(400, "no such page")), false, Reached, false},
		{"the application's own 403", requesting, routed(404, status(403, "not you")), false, Reached, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			at := serve(t, func(s *httptest.Server) { s.TLS = test.config }, test.handler)
			got := Options{CAFile: ours.ca}.Check(t.Context(), Target{Address: at, Class: gateway.HTTPS, Host: bar, Port: 443, Reserved: test.reserved})
			if got.Result != test.want || got.Lasting != test.lasting {
				t.Errorf("got %s: %s, lasting: %t", got.Result, got.Message(), got.Lasting)
			}
		})
	}
}

// slowly is a dialer that takes so long, to a gateway that does this with the connection.
func slowly(connecting time.Duration, handle func(net.Conn)) dialer {
	return func(ctx context.Context) (net.Conn, error) {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(connecting):
		}
		near, far := net.Pipe()
		go func() { defer far.Close(); handle(far) }()
		return near, nil
	}
}

// However long it takes to connect, what follows has its own time.
func TestSlowConnections(t *testing.T) {
	const connecting = connectTime - settled/2
	t.Run("TCP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			got := connect(t.Context(), Target{Class: gateway.TCP}, slowly(connecting, func(c net.Conn) { io.Copy(io.Discard, c) }))
			if got.Result != Reached || got.Latency != connecting {
				t.Errorf("after %v: %s: %s", got.Latency, got.Result, got.Message())
			}
		})
	})
	t.Run("HTTP", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			r := requester{Target: Target{Class: gateway.HTTP, Port: 80}, connect: slowly(connecting, func(c net.Conn) {
				if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
					t.Error(err)
				}
				time.Sleep(connectTime - time.Second) // so slow is the gateway
				fmt.Fprint(c, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
				io.Copy(io.Discard, c)
			})}
			if got := r.send(t.Context(), bar, connectTime); got.err != nil || got.status != 404 {
				t.Errorf("status %d, %v", got.status, got.err)
			}
		})
	})
}

// busy is what a busy machine may add to a time.
const busy = 30 * time.Second

// A gateway that accepts and is silent takes no longer than the timeout.
func TestSilenceTimesOut(t *testing.T) {
	for _, class := range []gateway.Class{gateway.HTTP, gateway.GRPC, gateway.HTTPS} {
		t.Run(string(class), func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			got := Options{}.Check(t.Context(), Target{Address: raw(t, func(c net.Conn) { io.Copy(io.Discard, c) }), Class: class, Host: bar, Port: 80})
			if got.Result != TimedOut || !strings.Contains(got.Answer, "accepts the connection but does not answer") {
				t.Errorf("got %s: %s", got.Result, got.Message())
			}
			if took := time.Since(begin); took > connectTime+answerTime+busy {
				t.Errorf("it took %v", took)
			}
		})
	}
}

// Whatever a gateway answers takes little memory and time, and nothing in a terminal.
func TestHostileAnswers(t *testing.T) {
	endless := func(w io.Writer, text string) {
		for {
			if _, err := io.WriteString(w, text); err != nil {
				return
			}
		}
	}
	for _, test := range []struct {
		name string
		at   netip.AddrPort
		want Result
	}{
		{"an endless body", serve(t, nil, routed(404, func(w http.ResponseWriter, _ *http.Request) { endless(w, strings.Repeat("x", 4096)) })), Reached},
		{"a body that never ends", serve(t, nil, routed(404, func(w http.ResponseWriter, r *http.Request) {
			w.(http.Flusher).Flush()
			<-r.Context().Done()
		})), Reached},
		{"endless headers", raw(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 200 OK\r\n")
			endless(c, "A: "+strings.Repeat("x", 4096)+"\r\n")
		}), Failed},
		{"endless continues", raw(t, func(c net.Conn) { endless(c, "HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n") }), Failed},
		{"a redirect with control characters", serve(t, nil, routed(404, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/\u202e"+strings.Repeat("x", 5000))
			w.WriteHeader(302)
		})), Reached},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			got := Options{}.Check(t.Context(), Target{Address: test.at, Class: gateway.HTTP, Host: bar, Port: 80})
			if got.Result != test.want {
				t.Errorf("got %s: %s, want %s", got.Result, got.Message(), test.want)
			}
			if took := time.Since(begin); took > connectTime+busy {
				t.Errorf("it took %v", took)
			}
			if text := got.Message(); len(text) > 1000 || strings.ContainsAny(text, "\u202e\x1b\n") {
				t.Errorf("it says %.2000q", text)
			}
		})
	}
}

// What is sent has the Host that clients send, no credentials, and follows no redirect.
func TestRequestsAreThoseOfClients(t *testing.T) {
	var hosts atomic.Value
	hosts.Store([]string{})
	at := serve(t, nil, func(w http.ResponseWriter, r *http.Request) {
		hosts.Store(append(hosts.Load().([]string), r.Method+" "+r.Host+r.URL.Path))
		for _, key := range []string{"Authorization", "Cookie", "Proxy-Authorization"} {
			if r.Header.Get(key) != "" {
				t.Errorf("it has the header %s", key)
			}
		}
		if r.Host == bar+":8080" {
			http.Redirect(w, r, "/elsewhere", http.StatusFound)
			return
		}
		http.NotFound(w, r)
	})
	t.Setenv("HTTP_PROXY", "http://user:password@127.0.0.1:1")
	Options{}.Check(t.Context(), Target{Address: at, Class: gateway.HTTP, Host: bar, Port: 8080})
	Options{}.Check(t.Context(), Target{Address: at, Class: gateway.HTTP, Host: bar, Port: 80})
	want := []string{"GET service-mirror-verify.invalid:8080/", "GET " + bar + ":8080/", "GET service-mirror-verify.invalid/", "GET " + bar + "/"}
	if got := hosts.Load().([]string); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFlags(t *testing.T) {
	ca := newAuthority(t).ca
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		args []string
		want Options
		err  string
	}{
		{nil, Options{}, ""},
		{[]string{"--verify=10m", "--ca-file=" + ca}, Options{Period: 10 * time.Minute, CAFile: ca}, ""},
		{[]string{"--verify=1s"}, Options{}, "--verify: 1s is less than 10s"},
		{[]string{"--verify=-1m"}, Options{}, "--verify: -1m0s is less than 10s"},
		{[]string{"--ca-file="}, Options{}, "--ca-file: the path is empty"},
		{[]string{"--ca-file=/does/not/exist"}, Options{}, "--ca-file: open /does/not/exist"},
		{[]string{"--ca-file=" + empty}, Options{}, "--ca-file: " + empty + " has no PEM certificate"},
	} {
		var raw Flags
		f := pflag.NewFlagSet("", pflag.ContinueOnError)
		raw.Add(f)
		if err := f.Parse(test.args); err != nil {
			t.Fatal(err)
		}
		got, err := raw.Options()
		if test.err == "" && (err != nil || got != test.want) || test.err != "" && (err == nil || !strings.HasPrefix(err.Error(), test.err)) {
			t.Errorf("%q: got %+v, %v, want %+v, %q", test.args, got, err, test.want, test.err)
		}
	}
}
