package remote

import (
	"bytes"
	"cmp"
	"context"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/rest"
)

// clientOf is a client of a server that answers everything with one handler.
func clientOf(t *testing.T, cluster string, handler http.HandlerFunc) (client Client, server *httptest.Server) {
	t.Helper()
	server = httptest.NewUnstartedServer(handler)
	server.EnableHTTP2 = true
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	t.Cleanup(server.Close)
	network := &Network{}
	t.Cleanup(network.close)
	cfg := &rest.Config{Host: server.URL, BearerToken: "secret"}
	cfg.CAData = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	client, err := NewClient(ClientOptions{}.Tune(cfg, cluster, network))
	if err != nil {
		t.Fatal(err)
	}
	return client, server
}

// endless sends its start, and then a part again and again; sent counts bytes.
func endless(sent *atomic.Int64, contentType, start, part string) http.HandlerFunc {
	part = strings.Repeat(part, 1+(16<<10)/len(part))
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		n, err := io.WriteString(w, start)
		for ; err == nil; n, err = io.WriteString(w, part) {
			sent.Add(int64(n))
		}
	}
}

func same(contentType string, body []byte) func(*atomic.Int64) http.HandlerFunc {
	return func(*atomic.Int64) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", contentType)
			w.Write(body)
		}
	}
}

func without(contentType, start, part string) func(*atomic.Int64) http.HandlerFunc {
	return func(sent *atomic.Int64) http.HandlerFunc { return endless(sent, contentType, start, part) }
}

// Each kind of answer is bounded before it is decoded.
func TestAnswersAreBounded(t *testing.T) {
	const kind = `"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"}`
	limits := Limits{Services: 1000, Bytes: 2 << 20}
	list := func(ctx context.Context, c Client) error {
		_, err := Spec{Name: "paris", Limits: limits}.ListServices(ctx, c, "", metav1.ListOptions{}, func(svc *corev1.Service) *corev1.Service { return svc })
		return err
	}
	get := func(ctx context.Context, c Client) error {
		_, err := c.CoreV1().Namespaces().Get(ctx, "kube-system", metav1.GetOptions{})
		return err
	}
	identity := func(_ context.Context, c Client) error {
		_, _, err := (&connection{client: c}).readUID(context.WithValue(t.Context(), clusterKey{}, "paris"))
		return err
	}
	protobuf := func(list *corev1.ServiceList) []byte { return encode(list) }
	for name, test := range map[string]struct {
		answer  func(*atomic.Int64) http.HandlerFunc
		request func(context.Context, Client) error
		most    int64 // bytes that are read
		want    string
	}{
		"an endless identity":         {without(runtime.ContentTypeJSON, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"`, "a"), identity, maxIdentity, "namespace kube-system is larger than 1Mi: an API server does not send this: check the server in the kubeconfig of remote paris"},
		"an identity in protobuf":     {without(runtime.ContentTypeProtobuf, string(encode(&corev1.Namespace{}))[:20], "a"), identity, maxIdentity, ""},
		"an endless object":           {without(runtime.ContentTypeJSON, `{"kind":"Namespace","metadata":{"name":"`, "a"), get, maxObject, "an answer takes more than 4Mi of memory"},
		"an endless object as HTML":   {without("text/html", ``, "a"), get, maxObject, ""},
		"an object of many values":    {same(runtime.ContentTypeJSON, []byte(`{"kind":"Namespace","apiVersion":"v1","metadata":{"finalizers":[`+strings.Repeat(`"",`, 1<<20)+`""]}}`)), get, 0, "an answer takes more than 4Mi of memory"},
		"a list of items":             {without(runtime.ContentTypeJSON, `{`+kind+`,"items":[`, "{},"), list, 2 << 20, "a list of exported Services has more than 1000 Services: raise max-services= of --remote paris"},
		"a list of null":              {without(runtime.ContentTypeJSON, `{`+kind+`,"items":[`, "null,"), list, 2 << 20, "more than 1000 Services"},
		"an endless item":             {without(runtime.ContentTypeJSON, `{`+kind+`,"items":[{"metadata":{"name":"`, `\"a`), list, 2 << 20, "a list of exported Services has an item that takes more than 512Ki of memory: raise max-bytes= of --remote paris"},
		"an endless list":             {without(runtime.ContentTypeJSON, `{`+kind+`,"items":[`, `{"metadata":{"name":"`+strings.Repeat("a", 4<<10)+`"}},`), list, 2 << 20, "a list of exported Services is larger than 2Mi: raise max-bytes= of --remote paris"},
		"an endless token":            {without(runtime.ContentTypeJSON, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"continue":"`, "a"), list, 2 << 20, "a list of exported Services is larger than 2Mi"},
		"a list of items in protobuf": {same(runtime.ContentTypeProtobuf, protobuf(&corev1.ServiceList{Items: make([]corev1.Service, 1001)})), list, 0, "more than 1000 Services"},
		"an item in protobuf":         {same(runtime.ContentTypeProtobuf, protobuf(&corev1.ServiceList{Items: []corev1.Service{{ObjectMeta: metav1.ObjectMeta{Name: strings.Repeat("a", 2<<20)}}}})), list, 0, "larger than 2Mi"},
		"an item of many ports":       {same(runtime.ContentTypeProtobuf, protobuf(&corev1.ServiceList{Items: []corev1.Service{{Spec: corev1.ServiceSpec{Ports: make([]corev1.ServicePort, 100_000)}}}})), list, 0, "a list of exported Services has an item that takes more than 512Ki of memory: raise max-bytes= of --remote paris"},
		"an item of many ports, JSON": {same(runtime.ContentTypeJSON, []byte(`{`+kind+`,"items":[{"spec":{"ports":[{`+strings.Repeat(`},{`, 5_000)+`}]}}]}`)), list, 0, "has an item that takes more than 512Ki of memory"},
		"many items of some ports":    {same(runtime.ContentTypeProtobuf, protobuf(&corev1.ServiceList{Items: slices.Repeat([]corev1.Service{{Spec: corev1.ServiceSpec{Ports: make([]corev1.ServicePort, 1000)}}}, 100)})), list, 0, "a list of exported Services takes more than 6Mi of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var sent atomic.Int64
			client, server := clientOf(t, "paris", test.answer(&sent))
			err := test.request(t.Context(), client)
			server.CloseClientConnections()
			if err == nil || test.want != "" && (!IsTooLarge(err) || !strings.Contains(Cause(err), test.want)) {
				t.Errorf("got %v, want %q", err, test.want)
			}
			if n := sent.Load(); test.most > 0 && n > test.most+12<<20 { // what the network's buffers take
				t.Errorf("%d bytes are sent", n)
			}
		})
	}
}

// The limits are of what is listed in all, not of a page, and what is within them is listed whole.
func TestListsWithinLimits(t *testing.T) {
	client, _ := clientOf(t, "paris", func(w http.ResponseWriter, req *http.Request) {
		query := req.URL.Query()
		list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}}
		from := 0
		fmt.Sscan(query.Get("continue"), &from)
		for n := from; n < 1200 && n < from+500; n++ {
			list.Items = append(list.Items, *service("default", fmt.Sprint("svc-", n)))
			list.Continue = fmt.Sprint(n + 1)
		}
		if from+500 >= 1200 {
			list.Continue = ""
		}
		if query.Get("limit") != "500" {
			t.Errorf("requested %v", query)
		}
		w.Header().Set("Content-Type", runtime.ContentTypeProtobuf)
		w.Write(encode(list))
	})
	for limit, want := range map[int]string{1200: "", 1199: "the set of exported Services has more than 1199 Services: raise max-services="} {
		all, err := Spec{Name: "paris", Limits: Limits{Services: limit}}.ListServices(t.Context(), client, "", metav1.ListOptions{}, func(svc *corev1.Service) *corev1.Service { return svc })
		if want == "" && (err != nil || len(all) != 1200) || want != "" && (!IsTooLarge(err) || !strings.Contains(err.Error(), want)) {
			t.Errorf("limit %d: %d Services, %v", limit, len(all), err)
		}
	}
}

// What London lists is its operator's own: there may be any number.
func TestLocalListsAreNotBounded(t *testing.T) {
	body := encode(&corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "5"}, Items: make([]corev1.Service, 30_000)})
	client, _ := clientOf(t, "", same(runtime.ContentTypeProtobuf, body)(nil))
	list, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	if err != nil || len(list.Items) != 30_000 {
		t.Errorf("got %v", err)
	}
	endlessly, _ := clientOf(t, "", endless(new(atomic.Int64), runtime.ContentTypeJSON, `{"metadata":{"name":"`, "a"))
	if _, err := endlessly.CoreV1().Services("a").Create(t.Context(), service("a", "b"), metav1.CreateOptions{}); !IsTooLarge(err) {
		t.Errorf("an endless answer to a write: got %v", err)
	}
}

// What is compressed though that was not requested is refused, however small it is.
func TestCompressedAnswers(t *testing.T) {
	client, _ := clientOf(t, "paris", func(w http.ResponseWriter, req *http.Request) {
		if encoding := req.Header.Get("Accept-Encoding"); encoding != "" {
			t.Errorf("requested %q", encoding)
		}
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Type", runtime.ContentTypeJSON)
	})
	if _, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err == nil || !strings.Contains(err.Error(), "malformed answer: unexpected compression") {
		t.Errorf("got %v", err)
	}
}

// Of an answer that is no success only the beginning is read.
func TestEndlessFailure(t *testing.T) {
	var sent atomic.Int64
	long := endless(&sent, runtime.ContentTypeJSON, `{"message":"`, "a")
	client, server := clientOf(t, "paris", func(w http.ResponseWriter, req *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		long(w, req)
	})
	_, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
	server.CloseClientConnections()
	if err == nil || len(err.Error()) > 3*maxFailure || sent.Load() > 12<<20 {
		t.Errorf("got %.200v after %d bytes", err, sent.Load())
	}
}

// A header has a bound, too, and so has what is remembered of warnings.
func TestEndlessHeaders(t *testing.T) {
	client, _ := clientOf(t, "paris", func(w http.ResponseWriter, _ *http.Request) {
		for n := range 200 {
			w.Header().Add("Warning", fmt.Sprintf(`299 - "%d %s"`, n, strings.Repeat("a", 1<<10)))
		}
	})
	if _, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{}); err == nil {
		t.Errorf("got %v", err)
	}
	var w warnings
	w.HandleWarningHeaderWithContext(t.Context(), 299, "", strings.Repeat("a", 10*maxWarning))
	for text := range w.seen {
		if len(text) > maxWarning {
			t.Errorf("%d bytes are remembered", len(text))
		}
	}
}

// A redirect is not followed: the credentials would go along.
func TestRedirectsAreRefused(t *testing.T) {
	for _, code := range []int{http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther, http.StatusTemporaryRedirect, http.StatusPermanentRedirect} {
		var stolen atomic.Int64
		thief := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { stolen.Add(1) }))
		defer thief.Close()
		for _, cluster := range []string{"", "paris"} {
			client, _ := clientOf(t, cluster, func(w http.ResponseWriter, req *http.Request) {
				http.Redirect(w, req, thief.URL+req.URL.Path, code)
			})
			_, err := client.CoreV1().Services("").List(t.Context(), metav1.ListOptions{})
			if err == nil || !strings.Contains(Cause(err), "the server redirects to "+fmt.Sprintf("%q", thief.URL+"/api/v1/services")) {
				t.Errorf("%d: got %v", code, err)
			}
			_, err = client.CoreV1().Services("").Watch(t.Context(), metav1.ListOptions{})
			if err == nil || stolen.Load() > 0 {
				t.Errorf("%d: %d requests went on; got %v", code, stolen.Load(), err)
			}
		}
	}
}

// streamOf makes the body of a watch of what is read.
func streamOf(body io.Reader, contentType string, note func(error)) io.ReadCloser {
	resp := &http.Response{Header: http.Header{"Content-Type": {contentType}}, Body: io.NopCloser(body)}
	b := objectBound("an event of a watch")
	b.overrun = note
	return newFrames(resp, &b)
}

// framed is an event in protobuf, as a server sends it.
func framed(data string) string {
	return string([]byte{byte(len(data) >> 24), byte(len(data) >> 16), byte(len(data) >> 8), byte(len(data))}) + data
}

// Events are bounded one by one; any number may come.
func TestEventsAreBounded(t *testing.T) {
	const inJSON, inProtobuf = runtime.ContentTypeJSON + ";stream=watch", runtime.ContentTypeProtobuf + ";stream=watch"
	big := strings.Repeat("a", maxObject-1<<10)
	event, err := (&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: encode(service("default", "bar"))}}).Marshal()
	must(err)
	large, err := (&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: encode(service("default", big[:maxObject/4]))}}).Marshal()
	must(err)
	ports := service("default", "bar")
	ports.Spec.Ports = make([]corev1.ServicePort, 200_000)
	many, err := (&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: encode(ports)}}).Marshal()
	must(err)
	for name, test := range map[string]struct {
		contentType, body, want string
	}{
		"many":                      {inJSON, strings.Repeat(`{"a":"}\"{"}`+"\n", 1_000_000), ""},
		"many large":                {inJSON, strings.Repeat(`{"a":"`+big+`"}`+"\n", 5), ""},
		"too large":                 {inJSON, `{"a":"` + big + big + `"}`, "an event of a watch takes more than 4Mi of memory"},
		"spaces":                    {inJSON, strings.Repeat(" ", 5<<20), "an event of a watch is larger than 4Mi"},
		"no end":                    {inJSON, strings.Repeat("1 ", 5<<20), "larger than 4Mi"},
		"too many values":           {inJSON, `{"a":[` + strings.Repeat("0,", 1<<20), "takes more than 4Mi of memory"},
		"many in protobuf":          {inProtobuf, strings.Repeat(framed(string(event)), 100_000), ""},
		"many large in protobuf":    {inProtobuf, strings.Repeat(framed(string(large)), 5), ""},
		"too large in protobuf":     {inProtobuf, "\x00\x40\x00\x01", "an event of a watch is larger than 4Mi"},
		"too many ports":            {inProtobuf, framed(string(many)), "takes more than 4Mi of memory"},
		"empty in protobuf":         {inProtobuf, strings.Repeat(framed(""), 1000), ""},
		"not protobuf, in protobuf": {inProtobuf, framed("\x12\x05\x0a\x03abc"), ""},
	} {
		t.Run(name, func(t *testing.T) {
			var noted error
			_, err := io.Copy(io.Discard, streamOf(strings.NewReader(test.body), test.contentType, func(err error) { noted = err }))
			if test.want == "" && err != nil || test.want != "" && (!IsTooLarge(err) || !strings.Contains(err.Error(), test.want)) || noted != err {
				t.Errorf("got %v, noted %v, want %q", err, noted, test.want)
			}
		})
	}
}

// slow is a body that sends a byte now and then until it is closed.
type slow struct {
	data   io.Reader
	every  time.Duration
	closed chan struct{}
	once   sync.Once // a body may be closed by two at once
}

func (s *slow) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *slow) Read(p []byte) (int, error) {
	select {
	case <-s.closed:
		return 0, errClosedBody
	case <-time.After(s.every):
		return s.data.Read(p[:1])
	}
}

var errClosedBody = errors.New("closed")

// The rest of an event must come soon; the next event need not, and a reader that waits is
// not the server's fault.
func TestSlowEvents(t *testing.T) {
	for name, test := range map[string]struct {
		body  string
		every time.Duration // a byte
		pause time.Duration // between reads
		ends  bool
	}{
		"rarely an event": {strings.Repeat("{}\n", 4), 15 * time.Second, 0, false},
		"only spaces":     {strings.Repeat("\n", 10), time.Minute, 0, false},
		"a slow event":    {`{"a":"` + strings.Repeat("a", 100) + `"}`, time.Second, 0, true},
		"a slow reader":   {`{"a":"aa"}`, time.Second, time.Minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := objectBound("an event of a watch")
				resp := &http.Response{Header: http.Header{"Content-Type": {runtime.ContentTypeJSON}},
					Body: &slow{data: bytes.NewReader([]byte(test.body)), every: test.every, closed: make(chan struct{})}}
				body := newFrames(resp, &b)
				begin := time.Now()
				var err error
				for err == nil {
					_, err = body.Read(make([]byte, 10))
					time.Sleep(test.pause)
				}
				if test.ends != (err != io.EOF) || test.ends && (!strings.Contains(err.Error(), "was not complete within 30s") || time.Since(begin) > eventTimeout+time.Second) {
					t.Errorf("after %v: %v", time.Since(begin), err)
				}
			})
		})
	}
}

// Large events are read at a pace that what they take sets; however many usual ones there are, they are not held up.
func TestLargeEventsArePaced(t *testing.T) {
	const inJSON, inProtobuf = runtime.ContentTypeJSON + ";stream=watch", runtime.ContentTypeProtobuf + ";stream=watch"
	of := func(ports int) string {
		svc := service("default", "bar")
		svc.Spec.Ports = make([]corev1.ServicePort, ports)
		event, err := (&metav1.WatchEvent{Type: "ADDED", Object: runtime.RawExtension{Raw: encode(svc)}}).Marshal()
		must(err)
		return framed(string(event))
	}
	for name, test := range map[string]struct {
		contentType string
		event       string
		times       int
		read        int // bytes at once; 0: an event
		want        time.Duration
	}{
		"usual":         {inProtobuf, of(3), 10_000, 0, 0},
		"large":         {inProtobuf, of(1000), 100, 0, 12 * heavyPause}, // each takes 0.25 MB
		"very large":    {inProtobuf, of(10_000), 10, 0, 10 * heavyPause},
		"usual in JSON": {inJSON, `{"type":"ADDED","object":{"spec":{"ports":[{},{},{}]}}}` + "\n", 10_000, 4000, 0},
		"large in JSON": {inJSON, `{"type":"ADDED","object":{"spec":{"ports":[{}` + strings.Repeat(",{}", 4999) + `]}}}` + "\n", 10, 4000, 5 * heavyPause},
		"long in JSON":  {inJSON, `{"type":"ADDED","object":{"metadata":{"name":"` + strings.Repeat("a", 3<<20) + `"}}}` + "\n", 5, 4000, 5 * heavyPause},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				stream := streamOf(strings.NewReader(strings.Repeat(test.event, test.times)), test.contentType, func(error) {})
				for buffer := make([]byte, cmp.Or(test.read, len(test.event))); ; {
					if _, err := stream.Read(buffer); err == io.EOF {
						break
					}
				}
				if took := time.Since(start); took != test.want {
					t.Errorf("it took %v, want %v", took, test.want)
				}
			})
		})
	}
}
