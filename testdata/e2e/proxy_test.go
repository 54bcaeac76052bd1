package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"encoding/pem"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/rest"
	"service-mirror.io/service-mirror/testdata/harness"
)

// proxy is between the daemon and a remote's API server: it can be cut,
// so that connections are refused, and stalled, so that nothing passes while
// connections stay open. It terminates TLS with a certificate of its own.
type proxy struct {
	t       *testing.T
	address string
	ca      []byte
	server  *http.Server

	// noBookmarks drops the BOOKMARK events of protobuf watches.
	noBookmarks atomic.Bool

	mu       sync.Mutex
	handler  http.Handler
	listener net.Listener // nil while it is cut
	reserved int          // the socket that keeps the address for it then
	conns    map[*stallable]bool
	stalled  chan struct{} // closed when traffic may pass
}

func newProxy(t *testing.T, to *cluster) *proxy {
	t.Helper()
	certificate, ca := selfSigned(t)
	p := &proxy{t: t, ca: ca, conns: map[*stallable]bool{}, stalled: make(chan struct{})}
	close(p.stalled)
	p.redirect(to, "")
	p.server = &http.Server{
		TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: []string{"h2", "http/1.1"}},
		ErrorLog:  log.New(io.Discard, "", 0),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			p.mu.Lock()
			handler := p.handler
			p.mu.Unlock()
			handler.ServeHTTP(w, r)
		}),
	}
	p.listen("127.0.0.1:0")
	t.Cleanup(func() { p.server.Close() })
	return p
}

// redirect sends new requests to a cluster, with another token if one is given.
func (p *proxy) redirect(to *cluster, token string) {
	p.t.Helper()
	target, err := url.Parse(to.config.Host)
	if err != nil {
		p.t.Fatal(err)
	}
	tlsConfig, err := rest.TLSConfigFor(to.config)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.handler = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			if token != "" {
				r.Out.Header.Set("Authorization", "Bearer "+token)
			}
		},
		ModifyResponse: func(response *http.Response) error {
			if p.noBookmarks.Load() && response.StatusCode == http.StatusOK && response.Request.URL.Query().Get("watch") != "" {
				response.Body = &bookmarkFilter{ReadCloser: response.Body}
			}
			return nil
		},
		FlushInterval: -1,
		ErrorLog:      log.New(io.Discard, "", 0),
		Transport:     &http.Transport{TLSClientConfig: &tls.Config{RootCAs: tlsConfig.RootCAs}, ForceAttemptHTTP2: true},
	}
}

// bookmarkFilter removes the bookmarks from a watch: frames of four bytes with the
// length, and a protobuf WatchEvent whose first field is the type.
type bookmarkFilter struct {
	io.ReadCloser
	pending []byte
}

func (f *bookmarkFilter) Read(b []byte) (int, error) {
	for len(f.pending) == 0 {
		var length [4]byte
		if _, err := io.ReadFull(f.ReadCloser, length[:]); err != nil {
			return 0, err
		}
		frame := make([]byte, binary.BigEndian.Uint32(length[:]))
		if _, err := io.ReadFull(f.ReadCloser, frame); err != nil {
			return 0, err
		}
		if !bytes.Contains(frame, []byte("\x0a\x08BOOKMARK")) {
			f.pending = append(length[:], frame...)
		}
	}
	n := copy(b, f.pending)
	f.pending = f.pending[n:]
	return n, nil
}

// open counts the connections.
func (p *proxy) open() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.conns)
}

func selfSigned(t *testing.T) (tls.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "proxy"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key},
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

func (p *proxy) listen(address string) {
	p.t.Helper()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.listener = listener
	p.address = listener.Addr().String()
	p.mu.Unlock()
	go p.server.ServeTLS(&stallingListener{Listener: listener, proxy: p}, "", "")
}

// cut closes every connection and refuses new ones until heal.
func (p *proxy) cut() {
	p.mu.Lock()
	if p.listener != nil {
		p.listener.Close()
		p.listener = nil
		p.reserve()
	}
	p.mu.Unlock()
	p.cutConnections()
}

// reserve binds a socket to the address that does not listen: connections are refused, and no other server takes the
// port meanwhile. p.mu is held.
func (p *proxy) reserve() {
	p.t.Helper()
	address, err := netip.ParseAddrPort(p.address)
	if err == nil {
		p.reserved, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	}
	if err == nil {
		err = syscall.SetsockoptInt(p.reserved, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = harness.Eventually(soon, "the listener is closed", func() error {
			return syscall.Bind(p.reserved, &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()})
		})
	}
	if err != nil {
		p.t.Errorf("reserve %s: %v", p.address, err)
	}
}

// cutConnections closes every connection; new ones are accepted.
func (p *proxy) cutConnections() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Conn.Close()
	}
	clear(p.conns)
}

// stall lets nothing pass until heal.
func (p *proxy) stall() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stalled = make(chan struct{})
}

// heal ends what cut and stall began.
func (p *proxy) heal() {
	p.mu.Lock()
	select {
	case <-p.stalled:
	default:
		close(p.stalled)
	}
	isCut := p.listener == nil
	p.mu.Unlock()
	if isCut {
		p.listen(p.address)
		syscall.Close(p.reserved)
	}
}

type stallingListener struct {
	net.Listener
	proxy *proxy
}

func (l *stallingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	wrapped := &stallable{Conn: conn, proxy: l.proxy}
	l.proxy.mu.Lock()
	l.proxy.conns[wrapped] = true
	l.proxy.mu.Unlock()
	return wrapped, nil
}

type stallable struct {
	net.Conn
	proxy *proxy
}

func (c *stallable) wait() {
	c.proxy.mu.Lock()
	pass := c.proxy.stalled
	c.proxy.mu.Unlock()
	<-pass
}

func (c *stallable) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.wait() // what was read while stalled is delayed
	return n, err
}

func (c *stallable) Close() error {
	c.proxy.mu.Lock()
	delete(c.proxy.conns, c)
	c.proxy.mu.Unlock()
	return c.Conn.Close()
}

func (c *stallable) Write(b []byte) (int, error) {
	c.wait()
	return c.Conn.Write(b)
}
