package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"
)

// ErrOtherCluster is the error of a request to the local cluster that another cluster would answer.
var ErrOtherCluster = errors.New("another cluster answered at the local API server's address")

// otherCluster is ErrOtherCluster with its details. It is the innermost error, so that Cause has its text.
type otherCluster struct{ pinned, answers types.UID }

func (e otherCluster) Is(target error) bool { return target == ErrOtherCluster }

func (e otherCluster) Error() string {
	return fmt.Sprintf("%v: the UID of its namespace kube-system is %.64s, but was %s when this program started. It is neither read nor written: if the cluster was replaced on purpose, restart this program", ErrOtherCluster, e.answers, e.pinned)
}

// Pin keeps the clients of the local cluster on the cluster that they reached first, by the UID of its
// kube-system namespace: from what another cluster answers, or is written to it, that one's mirrors would be
// created and deleted as if it were this one.
type Pin struct {
	mu     sync.Mutex
	uid    types.UID
	other  types.UID   // what answers now, if that is another cluster
	report func(error) // nil: nobody
}

// OnChange has report called when another cluster begins to answer, and with nil when the right one does
// again; never under a lock.
func (p *Pin) OnChange(report func(error)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report = report
}

// Config makes a client configuration fail requests that another cluster would answer. A network connection
// reaches one cluster for as long as it is open, so the UID is read once on each; where connections are not
// shared (HTTP/1.1), before and after each request.
func (p *Pin) Config(cfg *rest.Config) (*rest.Config, error) {
	cfg = rest.CopyConfig(cfg)
	base, _, err := rest.DefaultServerUrlFor(cfg)
	if err != nil {
		return nil, err
	}
	network := &Network{}
	cfg.Dial = network.dial
	read := *base // which may have a path
	read.Path = strings.TrimSuffix(base.Path, "/") + "/api/v1/namespaces"
	read.RawQuery = url.Values{"fieldSelector": {"metadata.name=" + metav1.NamespaceSystem}, "limit": {"1"}}.Encode()
	cfg.Wrap(func(next http.RoundTripper) http.RoundTripper {
		return newPinned(p, network, &read, next)
	})
	return cfg, nil
}

// Configs makes the client configurations of a program, which share no connections. guard makes the last one, of the
// clients that write, refuse requests while this replica does not lead.
func (p *Pin) Configs(cluster *rest.Config, number int, guard func(*rest.Config)) ([]*rest.Config, error) {
	configs := make([]*rest.Config, number)
	for i := range configs {
		var err error
		if configs[i], err = p.Config(cluster); err != nil {
			return nil, err
		}
	}
	guard(configs[number-1])
	return configs, nil
}

// saw notes the UID of the cluster that answers.
func (p *Pin) saw(uid types.UID) error {
	p.mu.Lock()
	if p.uid == "" {
		p.uid = uid
	}
	before := p.other
	p.other = ""
	var err error
	if uid != p.uid {
		p.other, err = uid, otherCluster{p.uid, uid}
	}
	report, changed := p.report, before != p.other
	p.mu.Unlock()
	if changed && report != nil {
		report(err)
	}
	return err
}

// pinned is a transport to the pinned cluster.
type pinned struct {
	pin     *Pin
	network *Network
	read    *url.URL // of the UID
	next    http.RoundTripper
	reading chan struct{} // full during a read of the UID, which serves all that wait for it
	failed  *readFailure  // the latest; who fills reading has it; nil: there was none
}

func newPinned(pin *Pin, network *Network, read *url.URL, next http.RoundTripper) *pinned {
	return &pinned{pin: pin, network: network, read: read, next: next, reading: make(chan struct{}, 1)}
}

// RoundTrip implements http.RoundTripper.
func (t *pinned) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.try(req, false)
	for again := 0; errors.Is(err, errNoConnection) && again < maxAgain && (req.Body == nil || req.GetBody != nil); again++ {
		next := req.Clone(req.Context())
		if req.GetBody != nil {
			if next.Body, err = req.GetBody(); err != nil {
				return nil, err
			}
		}
		resp, err = t.try(next, true) // nothing was sent
	}
	return resp, err
}

// maxAgain is how often a request is sent again whose connection was closed before it was sent.
const maxAgain = 3

// try sends a request once. Where connections are shared, it goes over one that is verified: if that is closed
// meanwhile, another cluster might receive it over the next one. afresh has one verified although there is one: it
// takes no more requests after a GOAWAY, and stays open for those that are under way.
func (t *pinned) try(req *http.Request, afresh bool) (*http.Response, error) {
	if refusal, err := t.verify(req, afresh); refusal != nil || err != nil {
		if req.Body != nil {
			req.Body.Close()
		}
		return refusal, err
	}
	ctx, sent := traced(req.Context())
	if t.network.shares() {
		ctx = overOpen(ctx)
	}
	resp, err := t.next.RoundTrip(req.WithContext(ctx))
	if err != nil || t.network.verifies(sent) {
		return resp, err
	}
	// It went over a new connection.
	if refusal, err := t.verify(req, false); refusal != nil || err != nil {
		resp.Body.Close()
		return refusal, err
	}
	return resp, nil
}

// WrappedRoundTripper has client-go find the transport below.
func (t *pinned) WrappedRoundTripper() http.RoundTripper { return t.next }

// verify makes sure that the right cluster answers. Where the UID may not be read, or not now, the refusal is
// the answer to the request, too. Where connections are shared, or that is not known yet, one read serves all that wait
// for it, also if it fails: each read of a server that does not answer takes its whole time.
func (t *pinned) verify(req *http.Request, afresh bool) (refusal *http.Response, err error) {
	if t.network.exclusive() {
		return t.readUID(req).answer()
	}
	waiting := time.Now()
	select {
	case <-req.Context().Done():
		return nil, context.Cause(req.Context())
	case t.reading <- struct{}{}:
		defer func() { <-t.reading }()
	}
	switch {
	case !afresh && t.network.shares():
		return nil, nil
	case t.failed != nil && t.failed.at.After(waiting):
		return t.failed.answer()
	}
	failed := t.readUID(req)
	if req.Context().Err() == nil { // else this request ended, and the server may answer others
		t.failed = failed
	}
	return failed.answer()
}

// readUID reads the UID as a request would be made; nil: it is the right one.
func (t *pinned) readUID(req *http.Request) *readFailure {
	ctx, cancel := context.WithTimeout(req.Context(), requestTimeout)
	defer cancel()
	ctx, over := traced(bounded(ctx, identityBound()))
	read := req.Clone(ctx)
	read.Method, read.URL, read.Body, read.GetBody, read.ContentLength = http.MethodGet, t.read, nil, nil, 0
	read.Header.Del("Content-Type")
	read.Header.Set("Accept", "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1")
	resp, err := t.next.RoundTrip(read)
	if err != nil {
		return failedRead(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxIdentity))
	switch {
	case err != nil:
		return failedRead(err)
	case resp.StatusCode == http.StatusOK:
		uid, err := systemUID(body)
		if err == nil {
			err = t.pin.saw(uid)
		}
		if err == nil {
			t.network.verify(over)
			return nil
		}
		return failedRead(err)
	case resp.StatusCode == http.StatusNotFound: // else it would count as the absence of what was requested
		return failedRead(malformed(errors.New("the local cluster has no namespaces")))
	}
	return &readFailure{at: time.Now(), refusal: resp, body: body}
}

// readFailure is why the UID was not read, or is not the right one.
type readFailure struct {
	at      time.Time
	err     error          // nil: there is a refusal
	refusal *http.Response // which several requests may have as their answer
	body    []byte         // of the refusal
}

func failedRead(err error) *readFailure { return &readFailure{at: time.Now(), err: err} }

// answer is a failure as the answer to a request. Without a failure there is none.
func (f *readFailure) answer() (refusal *http.Response, err error) {
	switch {
	case f == nil:
		return nil, nil
	case f.err != nil:
		return nil, f.err
	}
	copied := *f.refusal
	copied.Header = f.refusal.Header.Clone()
	copied.Body, copied.ContentLength = io.NopCloser(bytes.NewReader(f.body)), int64(len(f.body))
	return &copied, nil
}

// maxIdentity bounds the metadata of one namespace, in bytes: its annotations may have 256 KiB, and so may
// the record of their managers.
const maxIdentity = 1 << 20

// systemUID is the UID in an answer to the read of kube-system.
func systemUID(body []byte) (types.UID, error) {
	var list metav1.PartialObjectMetadataList
	if err := json.Unmarshal(body, &list); err != nil {
		return "", malformed(err)
	}
	if len(list.Items) != 1 || list.Items[0].Name != metav1.NamespaceSystem || list.Items[0].UID == "" {
		return "", malformed(errors.New("the list of namespace kube-system contains other namespaces"))
	}
	return list.Items[0].UID, nil
}
