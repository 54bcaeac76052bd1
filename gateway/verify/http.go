package verify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/remote/failure"
)

// Bounds of one answer. Of a body, only as much is read as tells two apart.
const (
	maxHeader = 16 << 10
	maxBody   = 8 << 10
	bodyTime  = 500 * time.Millisecond
)

// requester sends the requests of one verification.
type requester struct {
	Target
	roots   *x509.CertPool
	connect dialer
}

// answer is what came of one request.
type answer struct {
	err       error
	connected bool // the gateway accepted the connection
	latency   time.Duration

	status   int
	location string // of a redirect, which is not followed
	grpc     string // the gRPC status; empty: there was none
	print    string // by which two answers are compared

	certificate presented
}

// send sends one request for a name, and awaits its answer for as long as that once it is connected.
func (r requester) send(ctx context.Context, host string, patience time.Duration) answer {
	ctx, cancel := context.WithTimeout(ctx, connectTime+patience)
	defer cancel()
	var got answer
	var connected atomic.Bool
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		conn, err := r.connect(ctx)
		connected.Store(err == nil)
		return conn, err
	}
	transport := &http.Transport{ // it has no proxy
		DialContext: dial, DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: maxHeader, Protocols: new(http.Protocols),
		TLSHandshakeTimeout: patience, ResponseHeaderTimeout: patience,
	}
	defer transport.CloseIdleConnections()
	transport.Protocols.SetUnencryptedHTTP2(r.Class == gateway.GRPC)
	transport.Protocols.SetHTTP1(r.Class != gateway.GRPC)
	check := &certificateCheck{host: host, roots: r.roots, trusting: host == impossible}
	transport.TLSClientConfig = check.config()
	req, err := r.request(ctx, host)
	if err != nil {
		return answer{err: err, connected: true}
	}
	begin := time.Now()
	resp, err := transport.RoundTrip(req)
	got.latency, got.connected, got.err = time.Since(begin), connected.Load(), err
	if err == nil {
		got.read(resp, host, cancel)
	}
	got.certificate = check.presented()
	return got
}

// request is one as clients send it. A gRPC client asks for the health of the server, which changes nothing.
func (r requester) request(ctx context.Context, host string) (*http.Request, error) {
	scheme, method, path := "http", http.MethodGet, "/"
	var body io.Reader
	own := int32(80)
	switch r.Class {
	case gateway.HTTPS:
		scheme, own = "https", 443
	case gateway.GRPC:
		method, path, body = http.MethodPost, "/grpc.health.v1.Health/Check", bytes.NewReader(make([]byte, 5)) // an empty message
	}
	authority := host
	if r.Port != own {
		authority = net.JoinHostPort(host, strconv.Itoa(int(r.Port)))
	}
	req, err := http.NewRequestWithContext(ctx, method, scheme+"://"+authority+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "service-mirror-verify")
	if r.Class == gateway.GRPC {
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("TE", "trailers")
	}
	return req, nil
}

// read reads what is needed of a response. end ends the request: a body need not end by itself.
func (a *answer) read(resp *http.Response, host string, end context.CancelFunc) {
	defer resp.Body.Close()
	defer time.AfterFunc(bodyTime, end).Stop()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	a.status, a.location = resp.StatusCode, resp.Header.Get("Location")
	a.grpc = cmp.Or(resp.Header.Get("Grpc-Status"), resp.Trailer.Get("Grpc-Status"))
	message := cmp.Or(resp.Header.Get("Grpc-Message"), resp.Trailer.Get("Grpc-Message"))
	var print strings.Builder
	for _, part := range []string{a.location, resp.Header.Get("Server"), resp.Header.Get("Content-Type"), a.grpc, message, string(body)} {
		// What differs from request to request, and the name that was requested, make no other answer.
		fmt.Fprintf(&print, "%q ", failure.Key(strings.ReplaceAll(part, host, "HOST")))
	}
	fmt.Fprint(&print, a.status, slices.Sorted(maps.Keys(resp.Header)))
	a.print = print.String()
}
