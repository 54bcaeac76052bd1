package e2e

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/scheme"

	"service-mirror.io/service-mirror/testdata/harness"
)

const (
	// maxResident is what the daemon may take whatever one remote sends: half of what its Deployment has.
	maxResident = 128 << 20
	// attack is how long each remote attacks.
	attack = 12 * time.Second
)

// hostility is what a hostile server answers, and what is said of it.
type hostility struct {
	name  string
	fault frontFault
	says  string
	check bool // --check meets it, too: it opens no watch
}

// justBelow ends the name of an answer that is within all limits.
const justBelow = "-just-below"

var attacks = sync.OnceValue(func() []hostility {
	return []hostility{
		{"identity", onIdentity(endless(inJSON, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","annotations":{"a":"`, long)), "too large: namespace kube-system is larger than 1Mi", true},
		{"identity-header", onIdentity(longHeader), "", true},
		{"identity-failure", onIdentity(failing(endless(inJSON, `{"kind":"Status","message":"`, long))), "", true},
		{"list-of-items", exportsOnly(onLists(endless(inJSON, listStart+`{}`, func(int) string { return strings.Repeat(",{}", 10_000) }))), "too large: a list of exported Services", true},
		{"list-of-services", exportsOnly(onLists(endless(inJSON, listStart+`null`, func(n int) string { return "," + jsonService(n) }))), "too large: a list of exported Services", true},
		{"list-item", exportsOnly(onLists(endless(inJSON, listStart+`{"metadata":{"name":"bar","annotations":{"a":"`, long))), "too large: a list of exported Services has an item that takes more than 3Mi of memory", true},
		{"list-of-items-protobuf", exportsOnly(onLists(sends(inProtobuf, manyEmptyItems(11<<20)))), "too large: a list of exported Services has more than 10000 Services", true},
		{"list-of-ports-protobuf", exportsOnly(onLists(sends(inProtobuf, manyEmptyPorts(11<<20)))), "too large: a list of exported Services has an item that takes more than 3Mi of memory", true},
		{"list-item-protobuf", exportsOnly(onLists(endless(inProtobuf, string(protobufList(protobufField(2, 1<<40))), long))), "too large: a list of exported Services is larger than 12Mi", true},
		{"list-just-below", exportsOnly(onLists(sends(inProtobuf, manyServices(9_000, 1100)))), "", true},
		{"list-of-claims", exportsOnly(onLists(sends(inProtobuf, manyClaims(4_500)))), "too large: the set of exported Services takes more than 12Mi of memory", true},
		{"pages-full", exportsOnly(onLists(pages(500))), "too large: ", true},
		{"pages-empty", exportsOnly(onLists(pages(0))), "too large: a list of exported Services has more than 50 pages", true},
		{"list-bomb", exportsOnly(onLists(bomb(inJSON, listStart))), "malformed answer: unexpected compression", true},
		{"identity-bomb", onIdentity(bomb(inJSON, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"`)), "malformed answer: unexpected compression", true},
		{"list-trickle", exportsOnly(onLists(trickle(inJSON, listStart))), "", false},
		{"stream-of-items", exportsOnly(byVerb(map[verb]frontFault{plainList: refuses(methodNotAllowed), streamedList: endless(inJSONStream, "", jsonEvent), resumedWatch: refuses(expired)})), "too large: ", false},
		{"watch-of-items", exportsOnly(onWatches(endless(inJSONStream, "", jsonEvent))), "too large: the set of exported Services has more than 10000 Services", false},
		{"event", exportsOnly(onWatches(endless(inJSONStream, `{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"`, long))), "too large: an event of a watch takes more than 3Mi of memory", false},
		{"event-protobuf", exportsOnly(onWatches(endless(inProtobufStream, "\x7f\xff\xff\xff\x0a", long))), "too large: an event of a watch is larger than 4Mi", false},
		{"pages-of-ports", exportsOnly(onLists(pagesOf(4, 11, portsOf(17_000)))), "too large: the set of exported Services takes more than 12Mi of memory", true},
		{"pages-just-below", exportsOnly(onLists(pagesOf(40, 11, externalIPsOf(63_000)))), "", true},
		{"pages-with-a-long-token", exportsOnly(onLists(sends(inProtobuf, listOf(metav1.ListMeta{ResourceVersion: "1", Continue: strings.Repeat("%", 11<<20)}, nil)))), "malformed answer: the token for the next page has 11534336 characters", true},
		{"list-of-a-long-version", exportsOnly(onLists(sends(inProtobuf, listOf(metav1.ListMeta{ResourceVersion: strings.Repeat("1", 11<<20)}, nil)))), "malformed answer: the list has a resourceVersion of 11534336 characters", false},
		{"event-of-ports", exportsOnly(onWatches(endless(inProtobufStream, "", eventsOfPorts(1, 50_000)))), "too large: an event of a watch takes more than 3Mi of memory", false},
		{"events-just-below", exportsOnly(onWatches(endless(inProtobufStream, "", eventsOfPorts(3, 16_000)))), "", false},
		{"events-in-JSON-just-below", exportsOnly(onWatches(endless(inJSONStream, "", jsonEventOfPorts(11_000)))), "", false},
		{"gateway-events-just-below", onWatches(gatewayOfPorts(18_000)), "", false},
		{"event-of-spaces", exportsOnly(onWatches(endless(inJSONStream, "", spaces))), "too large: an event of a watch is larger than 4Mi", false},
		{"event-trickle", exportsOnly(onWatches(trickle(inJSONStream, `{"type":"ADDED","object":{"kind":"Service","apiVersion":"v1","metadata":{"name":"`))), "", false},
	}
})

const (
	inJSON           = runtime.ContentTypeJSON
	inJSONStream     = runtime.ContentTypeJSON + ";stream=watch"
	inProtobuf       = runtime.ContentTypeProtobuf
	inProtobufStream = runtime.ContentTypeProtobuf + ";stream=watch"

	listStart = `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[`
)

// Whatever one remote answers, without an end or by the million, costs the daemon at most its
// share of memory, and another remote nothing; what is known of it stays.
func TestEndlessAnswers(t *testing.T) {
	for _, a := range attacks() {
		t.Run(a.name, func(t *testing.T) {
			e := newEnv(t)
			healthy := e.remoteNamed(paris, "healthy-"+e.id)
			hostile := e.remoteNamed(paris, "hostile-"+e.id)
			front := hostile.behindFront(nil)
			healthy.gateway("203.0.113.1")
			healthy.export("bar")
			d := runProgram(t, "service-mirror", e.args([]*remote{healthy, hostile}, listening...)...)
			e.soon("the mirrors", healthy.mirrored("bar", "203.0.113.1"), hostile.mirrored("bar", "203.0.113.1"))
			before := e.identities()[hostile.mirror("bar")]
			var requests atomic.Int64
			front.fail(func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
				requests.Add(1)
				a.fault(w, r, upstream)
			})
			begin := time.Now()
			e.attacked(d, healthy)
			if n, took := requests.Load(), time.Since(begin); n > int64(25*took.Seconds()) {
				t.Errorf("%d requests in %v", n, took)
			}
			if a.says != "" {
				e.logs(d, "remote cluster", hostile.name, a.says)
			}
			if now := e.identities()[hostile.mirror("bar")]; now != before && !strings.HasSuffix(a.name, justBelow) {
				t.Errorf("the mirror was %q and is %q", before, now)
			}
			t.Logf("%d MB at most, %d requests", d.resident()>>20, requests.Load())
			front.recover()
			front.server.CloseClientConnections()
			// What the network's buffers hold of large events is read at their pace.
			e.eventually(2*time.Minute, "the answers are right again", hostile.mirrored("bar", "203.0.113.1"))
			e.eventually(time.Minute, "no problem is left", d.shows(hostile, "up"))
		})
	}
}

// attacked has exports of a healthy remote change while another attacks.
func (e *env) attacked(d *daemon, healthy *remote) {
	e.Helper()
	var delays []time.Duration
	port := int32(1000)
	for end := time.Now().Add(attack); len(delays) < 10 || time.Now().Before(end); {
		begin := time.Now()
		port++
		e.change(paris, "bar", func(svc *corev1.Service) { svc.Spec.Ports[0].Port = port })
		for {
			if resident := d.resident(); resident > maxResident {
				d.kill() // before it takes the machine
				e.Fatalf("the daemon takes %d MB", resident>>20)
			}
			svc, err := e.local.CoreV1().Services(e.id).Get(e.ctx, healthy.mirror("bar"), metav1.GetOptions{})
			e.must(err)
			if svc.Spec.Ports[0].Port == port {
				break
			}
			if time.Since(begin) > soon {
				e.Fatalf("the other remote is not followed for %v", soon)
			}
			time.Sleep(20 * time.Millisecond)
		}
		delays = append(delays, time.Since(begin))
		time.Sleep(500 * time.Millisecond) // more often, it would look like a fight
	}
	slices.Sort(delays)
	if median := delays[len(delays)/2]; median > 5*time.Second {
		e.Errorf("the other remote was followed with a median delay of %v", median)
	}
}

// The check has the same bounds.
func TestCheckOfEndlessAnswers(t *testing.T) {
	e := newEnv(t)
	r := e.remote(paris)
	front := r.behindFront(nil)
	r.gateway("203.0.113.1")
	r.export("bar")
	for _, a := range attacks() {
		if !a.check {
			continue
		}
		front.fail(a.fault)
		cmd := exec.CommandContext(e.ctx, program("service-mirror"), e.args([]*remote{r}, "--check")...)
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		p, err := harness.Start(cmd)
		e.must(err)
		d := &daemon{t: t, cmd: p, log: p.Log}
		for p.Running() == nil {
			if resident := d.resident(); resident > maxResident {
				d.kill()
				t.Errorf("%s: the check takes %d MB", a.name, resident>>20)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if strings.HasPrefix(a.name, "list") && strings.HasPrefix(a.says, "too large") && d.logged("- remote "+r.name, a.says) != 1 {
			t.Errorf("%s: the check says\n%s", a.name, d.log)
		}
	}
}

// A remote within raised limits is mirrored; beyond them it has its reason in an Event, too.
func TestRaisedLimits(t *testing.T) {
	e := newEnv(t)
	r, more := e.remoteNamed(paris, "few-"+e.id), e.remoteNamed(paris, "more-"+e.id)
	r.keys, more.keys = ",max-services=3", ",max-services=4,max-bytes=2Mi"
	r.gateway("203.0.113.1")
	for n := range 4 {
		r.export(fmt.Sprint("svc-", n))
	}
	d := e.inPod([]*remote{r, more})
	e.soon("within the limit", more.mirrored("svc-3", "203.0.113.1"))
	e.soon("beyond it", d.shows(r, "down", "too large", "3 Services", "max-services= of --remote "+r.name),
		func() error { // one for the list, and one for the watch, if it came to that
			got, messages, err := e.events(e.id, "Pod/daemon", "remote "+r.name+":")
			if err == nil && !slices.ContainsFunc(got, func(one event) bool { return one.kind == corev1.EventTypeWarning && one.reason == "RemoteTooLarge" }) {
				err = fmt.Errorf("Events %v %q about the pod", got, messages)
			}
			return err
		})
	e.remove(paris, "svc-3")
	e.eventually(time.Minute, "within the limit again", r.mirrored("svc-2", "203.0.113.1"))
}

// resident is the most memory that a daemon ever had, in bytes; 0 where it has ended.
func (d *daemon) resident() int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if errors.Is(err, os.ErrNotExist) {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "VmHWM:"); found {
			kilobytes, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				d.t.Fatal(err)
			}
			return kilobytes << 10
		}
	}
	return 0 // it is a zombie
}

// onWatches applies a fault to watches that resume a list, and leaves no others.
func onWatches(watch frontFault) frontFault {
	return byVerb(map[verb]frontFault{streamedList: refuses(invalid), resumedWatch: watch})
}

// onIdentity applies a fault to requests for the cluster's identity.
func onIdentity(inner frontFault) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		if strings.HasSuffix(r.URL.Path, "/namespaces/kube-system") {
			inner(w, r, upstream)
			return
		}
		upstream.ServeHTTP(w, r)
	}
}

// endless is an answer that goes on for as long as it is read.
func endless(contentType, start string, part func(n int) string) frontFault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, start)
		for n := 0; r.Context().Err() == nil; n++ {
			if _, err := io.WriteString(w, part(n)); err != nil {
				return
			}
		}
	}
}

// Parts of endless answers.
var (
	// filler has the buffers on the way hold a few of the events that are paced: each of them takes a moment after the attack.
	filler    = strings.Repeat("a", 200<<10)
	longText  = strings.Repeat("a", 64<<10)
	manySpace = strings.Repeat(" \n", 32<<10)
)

func long(int) string   { return longText }
func spaces(int) string { return manySpace }

func jsonService(n int) string {
	return fmt.Sprintf(`{"kind":"Service","apiVersion":"v1","metadata":{"namespace":"missing","name":"svc-%d","uid":"uid-%d","resourceVersion":"%d"},"spec":{"clusterIP":"10.0.0.1","ports":[{"port":80,"protocol":"TCP"}]}}`, n, n, n+1)
}

func jsonEvent(n int) string { return `{"type":"ADDED","object":` + jsonService(n) + "}\n" }

// failing has an answer be no success.
func failing(inner frontFault) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		w.WriteHeader(http.StatusInternalServerError)
		inner(w, r, upstream)
	}
}

func longHeader(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
	for n := range 100 {
		w.Header().Add("Warning", fmt.Sprintf(`299 - "%d %s"`, n, longText))
	}
	w.WriteHeader(http.StatusOK)
}

// sends is the same body to every request.
func sends(contentType string, body []byte) frontFault {
	return func(w http.ResponseWriter, _ *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		w.Write(body)
	}
}

// trickle sends a byte now and then.
func trickle(contentType, start string) frontFault {
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		w.Header().Set("Content-Type", contentType)
		io.WriteString(w, start)
		ticker := time.NewTicker(100 * time.Millisecond)
		defer ticker.Stop()
		for {
			w.(http.Flusher).Flush()
			select {
			case <-r.Context().Done():
				return
			case <-ticker.C:
				io.WriteString(w, "a")
			}
		}
	}
}

// bomb is an answer that is small until it is decompressed.
func bomb(contentType, start string) frontFault {
	var body bytes.Buffer
	w := gzip.NewWriter(&body)
	io.WriteString(w, start)
	for range 1 << 12 { // 256 MiB
		io.WriteString(w, manySpace)
	}
	w.Close()
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		w.Header().Set("Content-Encoding", "gzip")
		sends(contentType, body.Bytes())(w, r, upstream)
	}
}

// pages is a list of endless pages.
func pages(items int) frontFault {
	var page atomic.Int64
	return func(w http.ResponseWriter, r *http.Request, _ http.Handler) {
		first := int(page.Add(1)) * items
		list := make([]string, items)
		for n := range list {
			list[n] = jsonService(first + n)
		}
		w.Header().Set("Content-Type", inJSON)
		fmt.Fprintf(w, `{"kind":"ServiceList","apiVersion":"v1","metadata":{"resourceVersion":"1","continue":"%d"},"items":[%s]}`, first+1, strings.Join(list, ","))
	}
}

// protobufField is the beginning of a field of so many bytes.
func protobufField(number, length uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(nil, number<<3|2), length)
}

// protobufList is an answer with a ServiceList: what is encoded, or its beginning.
func protobufList(list []byte) []byte { return protobufObject("ServiceList", list) }

func protobufObject(kind string, object []byte) []byte {
	meta, err := (&runtime.TypeMeta{APIVersion: "v1", Kind: kind}).Marshal()
	if err != nil {
		panic(err)
	}
	all := append([]byte("k8s\x00"), append(protobufField(1, uint64(len(meta))), meta...)...)
	return append(append(all, protobufField(2, uint64(max(len(object), 1<<10)))...), object...)
}

// manyEmptyItems is a list of so many bytes whose items have nothing.
func manyEmptyItems(size int) []byte {
	return protobufList(bytes.Repeat(protobufField(2, 0), size/2))
}

// manyEmptyPorts is a list of so many bytes of one item, whose ports have nothing.
func manyEmptyPorts(size int) []byte {
	ports := bytes.Repeat(protobufField(1, 0), size/2)
	spec := append(protobufField(2, uint64(len(ports))), ports...)
	return protobufList(append(protobufField(2, uint64(len(spec))), spec...))
}

// jsonEventOfPorts is an event of a Service with so many ports, each as short as it can be.
func jsonEventOfPorts(ports int) func(int) string {
	list := "{}" + strings.Repeat(",{}", ports-1)
	return func(n int) string {
		return fmt.Sprintf(`{"type":"MODIFIED","object":{"kind":"Service","apiVersion":"v1","metadata":{"namespace":"missing","name":"svc","uid":"uid","resourceVersion":"%d","annotations":{"a":"%s"}},"spec":{"ports":[%s]}}}`+"\n", n+1, filler, list)
	}
}

// eventsOfPorts are events of so many Services in turn, each with ports that take nearly as much memory as one may.
func eventsOfPorts(services, ports int) func(int) string {
	return func(n int) string {
		return eventOfPorts(metav1.ObjectMeta{Namespace: "missing", Name: fmt.Sprint("svc-", n%services), UID: "uid", ResourceVersion: strconv.Itoa(n + 1)}, ports)
	}
}

// gatewayOfPorts answers watches of gateway Services with events of so many ports.
func gatewayOfPorts(ports int) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		name, found := strings.CutPrefix(r.URL.Query().Get("fieldSelector"), "metadata.name=")
		if !found || !strings.HasSuffix(r.URL.Path, "/services") {
			upstream.ServeHTTP(w, r)
			return
		}
		namespace := strings.Split(r.URL.Path, "/")[4]
		endless(inProtobufStream, "", func(n int) string {
			return eventOfPorts(metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "uid", ResourceVersion: strconv.Itoa(n + 1_000_000)}, ports)
		})(w, r, upstream)
	}
}

// eventOfPorts is an event of a Service with so many ports.
func eventOfPorts(meta metav1.ObjectMeta, ports int) string {
	meta.Annotations = map[string]string{"a": filler}
	event, err := (&metav1.WatchEvent{Type: "MODIFIED", Object: runtime.RawExtension{Raw: protobufObject("Service", serviceOf(meta, portsOf(ports)))}}).Marshal()
	if err != nil {
		panic(err)
	}
	return string(append(binary.BigEndian.AppendUint32(nil, uint32(len(event))), event...))
}

// pagesOf is a list of so many pages, each of so many Services with such a spec.
func pagesOf(pages, services int, spec []byte) frontFault {
	return func(w http.ResponseWriter, r *http.Request, upstream http.Handler) {
		page, _ := strconv.Atoi(r.URL.Query().Get("continue")) // none is the first
		meta := metav1.ListMeta{ResourceVersion: "1"}
		if page+1 < pages {
			meta.Continue = strconv.Itoa(page + 1)
		}
		all := make([][]byte, services)
		for n := range all {
			all[n] = serviceOf(metav1.ObjectMeta{Namespace: "missing", Name: fmt.Sprint("svc-", page*services+n), UID: "uid", ResourceVersion: "1"}, spec)
		}
		sends(inProtobuf, listOf(meta, all))(w, r, upstream)
	}
}

// listOf encodes a list, or a page of one.
func listOf(meta metav1.ListMeta, services [][]byte) []byte {
	encoded, err := meta.Marshal()
	if err != nil {
		panic(err)
	}
	list := append(protobufField(1, uint64(len(encoded))), encoded...)
	for _, svc := range services {
		list = append(append(list, protobufField(2, uint64(len(svc)))...), svc...)
	}
	return protobufList(list)
}

// serviceOf encodes a Service.
func serviceOf(meta metav1.ObjectMeta, spec []byte) []byte {
	encoded, err := meta.Marshal()
	if err != nil {
		panic(err)
	}
	return append(append(append(protobufField(1, uint64(len(encoded))), encoded...), protobufField(2, uint64(len(spec)))...), spec...)
}

// portsOf encodes a Service's spec with so many ports, and externalIPsOf one with so many external IPs, which no mirror has, each as
// short as it can be.
func portsOf(number int) []byte       { return bytes.Repeat(protobufField(1, 0), number) }
func externalIPsOf(number int) []byte { return bytes.Repeat(protobufField(5, 0), number) }

// manyServices is a list as a large remote sends it, each item of so many bytes.
func manyServices(items, size int) []byte {
	return annotated(items, func(int) map[string]string { return map[string]string{"a": strings.Repeat("a", size)} })
}

// manyClaims is a list of Services that claim gateway ports, each of a gateway that no other one names.
func manyClaims(items int) []byte {
	var claims strings.Builder
	for i := range 256 {
		fmt.Fprintf(&claims, "%d=%d,", i+1, i+1)
	}
	return annotated(items, func(n int) map[string]string {
		return map[string]string{"service-mirror.io/gateway": fmt.Sprint("a/n", n), "service-mirror.io/gateway-ports": claims.String()}
	})
}

func annotated(items int, annotations func(n int) map[string]string) []byte {
	list := &corev1.ServiceList{ListMeta: metav1.ListMeta{ResourceVersion: "1"}}
	for n := range items {
		list.Items = append(list.Items, corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "missing", Name: fmt.Sprint("svc-", n), UID: "uid", ResourceVersion: "1", Annotations: annotations(n),
			},
			Spec: corev1.ServiceSpec{ClusterIP: "10.0.0.1", Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
		})
	}
	info, _ := runtime.SerializerInfoForMediaType(scheme.Codecs.SupportedMediaTypes(), inProtobuf)
	body, err := runtime.Encode(scheme.Codecs.EncoderForVersion(info.Serializer, corev1.SchemeGroupVersion), list)
	if err != nil {
		panic(err)
	}
	return body
}
