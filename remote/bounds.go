package remote

import (
	"fmt"
	"io"
	"mime"
	"net/http"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
)

// bounds is a transport that bounds each answer before anything decodes it: client-go itself
// reads whatever is sent. Bytes are counted as they are read, after any decompression.
type bounds struct {
	next  http.RoundTripper
	local bool // the cluster is London: what it lists is its operator's own
}

// newBounds bounds a transport; of the base transport it bounds the headers.
func newBounds(next http.RoundTripper, local bool) http.RoundTripper {
	for base := next; base != nil; {
		if transport, ok := base.(*http.Transport); ok {
			transport.MaxResponseHeaderBytes = maxHeader
			break
		}
		wrapper, ok := base.(utilnet.RoundTripperWrapper)
		if !ok {
			break
		}
		base = wrapper.WrappedRoundTripper()
	}
	return &bounds{next, local}
}

// WrappedRoundTripper has client-go find the transport below.
func (t *bounds) WrappedRoundTripper() http.RoundTripper { return t.next }

func (t *bounds) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if err := t.bound(req, resp); err != nil {
		resp.Body.Close()
		return nil, err
	}
	return resp, nil
}

func (t *bounds) bound(req *http.Request, resp *http.Response) error {
	switch {
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		// Followed, the request would take the credentials along.
		return fmt.Errorf("the server redirects to %.200q, which is not followed: set the API server's own address in the kubeconfig", resp.Header.Get("Location"))
	case resp.StatusCode >= 400:
		resp.Body = readCloser{io.LimitReader(resp.Body, maxFailure), resp.Body}
		return nil
	case !slices.Contains([]string{"", "identity"}, resp.Header.Get("Content-Encoding")):
		return fmt.Errorf("malformed answer: unexpected compression %.40q", resp.Header.Get("Content-Encoding"))
	}
	b := t.of(req)
	if b.bytes == 0 {
		return nil
	}
	if watches(req) {
		resp.Body = newFrames(resp, b)
		return nil
	}
	if resp.ContentLength > b.bytes {
		return b.refuseBytes()
	}
	resp.Body = &boundedBody{resp.Body, newScan(resp, b), b}
	return nil
}

// of is the bound of the answer to a request.
func (t *bounds) of(req *http.Request) *bound {
	ctx := req.Context()
	if b, ok := ctx.Value(boundKey{}).(*bound); ok {
		return b
	}
	b := objectBound("an answer")
	b.cluster = ClusterOf(ctx)
	if t.local {
		b.memory = maxLocalMemory
		if req.Method == http.MethodGet && !watches(req) {
			b.bytes = 0
		}
	}
	return &b
}

func watches(req *http.Request) bool {
	watch := req.URL.Query().Get("watch")
	return watch == "1" || watch == "true"
}

// scan counts what an answer takes as it is read.
type scan interface {
	// feed looks at the next bytes; an error ends the answer.
	feed([]byte) error
}

// newScan is the scan of an answer with one object or a list.
func newScan(resp *http.Response, b *bound) scan {
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	switch mediaType {
	case runtime.ContentTypeProtobuf:
		return newWire(b)
	case runtime.ContentTypeJSON:
		return &text{bound: b}
	}
	return &plain{bound: b}
}

// plain counts bytes.
type plain struct {
	*bound
	read int64
}

func (p *plain) feed(data []byte) error {
	if p.read += int64(len(data)); p.read > p.bytes {
		return p.refuseBytes()
	}
	return nil
}

// boundedBody is the body of an answer; what is beyond its bound is not passed on.
type boundedBody struct {
	io.ReadCloser
	scan  scan
	bound *bound
}

func (b *boundedBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if refused := b.scan.feed(p[:n]); refused != nil {
		b.bound.refused = refused
		return 0, refused
	}
	return n, err
}

// frames is the body of a watch, in which each event is bounded. Time counts while it is
// waited for: a slow reader is not the server's fault.
type frames struct {
	body   io.ReadCloser
	bound  *bound
	split  splitter
	waited time.Duration // for the rest of the event that has begun
	err    error
}

// splitter is a scan that knows where events end.
type splitter interface {
	scan
	// between is whether nothing of an event was read since the last one.
	between() bool
	// events is how many have ended.
	events() int
}

func newFrames(resp *http.Response, b *bound) io.ReadCloser {
	f := &frames{body: resp.Body, bound: b}
	mediaType, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if mediaType == runtime.ContentTypeProtobuf {
		f.split = &wireFrames{bound: b}
	} else {
		f.split = &text{bound: b, frames: true}
	}
	return f
}

func (f *frames) Close() error { return f.body.Close() }

func (f *frames) Read(p []byte) (int, error) {
	if f.err != nil {
		return 0, f.err
	}
	f.bound.pause() // not only between events: in JSON one read has the end of one and the beginning of the next
	n, err := f.read(p)
	ended := f.split.events()
	if refused := f.split.feed(p[:n]); refused != nil {
		return 0, f.refuse(refused)
	}
	if f.split.events() > ended || f.split.between() {
		f.waited = 0
	}
	if err != nil && f.waited >= eventTimeout {
		return 0, f.refuse(fmt.Errorf("a watch event was not complete within %v", eventTimeout))
	}
	return n, err
}

// read reads, for as long as the rest of an event may take.
func (f *frames) read(p []byte) (int, error) {
	if f.split.between() {
		return f.body.Read(p)
	}
	begin := time.Now()
	timer := time.AfterFunc(eventTimeout-f.waited, func() { f.body.Close() })
	n, err := f.body.Read(p)
	timer.Stop()
	f.waited += time.Since(begin)
	return n, err
}

func (f *frames) refuse(err error) error {
	f.err = err
	if f.bound.overrun != nil {
		f.bound.overrun(err)
	}
	return err
}
