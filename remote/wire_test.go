package remote

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	kruntime "k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
)

// usual is a Service as an API server sends it, managed fields and all.
func usual(n int) corev1.Service {
	svc := *service("default", fmt.Sprint("svc-", n))
	svc.Annotations = map[string]string{"kubectl.kubernetes.io/last-applied-configuration": string(bytes.Repeat([]byte("a"), 300))}
	svc.ManagedFields = []metav1.ManagedFieldsEntry{{
		Manager: "kubectl-client-side-apply", Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: &metav1.FieldsV1{Raw: []byte(`{"f:metadata":{` + strings.Repeat(`"f:labels":{".":{}},`, 12) + `"f:annotations":{}},"f:spec":{"f:ports":{}}}`)},
	}}
	svc.Spec = corev1.ServiceSpec{
		Type: corev1.ServiceTypeClusterIP, ClusterIP: "10.0.0.1", ClusterIPs: []string{"10.0.0.1"}, IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol},
		Ports:    []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromString("http")}},
		Selector: map[string]string{"app": "web"}, SessionAffinity: corev1.ServiceAffinityNone,
	}
	return svc
}

// allowing is a bound that nothing exceeds.
func allowing() *bound { return &bound{what: "it", bytes: 1 << 40, memory: 1 << 50, noun: "objects"} }

// counted has an answer counted, all of it at once and byte by byte.
func counted(t testing.TB, body []byte) (*wire, error) {
	t.Helper()
	w, bytewise := newWire(allowing()), newWire(allowing())
	err := w.feed(body)
	var other error
	for i := range body {
		if other = bytewise.feed(body[i : i+1]); other != nil {
			break
		}
	}
	if fmt.Sprint(err) != fmt.Sprint(other) || err == nil && (w.memory != bytewise.memory || w.items != bytewise.items) {
		t.Fatalf("at once: %v, %d bytes of memory, %d items; byte by byte: %v, %d, %d", err, w.memory, w.items, other, bytewise.memory, bytewise.items)
	}
	return w, err
}

// What is counted is about what decoding takes, for usual objects and for those that are
// made to take much.
func TestMemoryIsCounted(t *testing.T) {
	list := func(items ...corev1.Service) *corev1.ServiceList { return &corev1.ServiceList{Items: items} }
	many := make([]corev1.Service, 500)
	for n := range many {
		many[n] = usual(n)
	}
	with := func(change func(*corev1.Service)) *corev1.ServiceList {
		svc := usual(0)
		change(&svc)
		return list(svc)
	}
	pairs := map[string]string{}
	for n := range 10_000 {
		pairs[fmt.Sprint(n)] = ""
	}
	for name, test := range map[string]struct {
		obj   kruntime.Object
		items int
	}{
		"usual Services": {list(many...), 500},
		"empty Services": {list(make([]corev1.Service, 10_000)...), 10_000},
		"ports":          {with(func(svc *corev1.Service) { svc.Spec.Ports = make([]corev1.ServicePort, 100_000) }), 1},
		"externalIPs":    {with(func(svc *corev1.Service) { svc.Spec.ExternalIPs = make([]string, 200_000) }), 1},
		"managed fields": {with(func(svc *corev1.Service) { svc.ManagedFields = make([]metav1.ManagedFieldsEntry, 50_000) }), 1},
		"owners":         {with(func(svc *corev1.Service) { svc.OwnerReferences = make([]metav1.OwnerReference, 50_000) }), 1},
		"conditions":     {with(func(svc *corev1.Service) { svc.Status.Conditions = make([]metav1.Condition, 50_000) }), 1},
		"annotations":    {with(func(svc *corev1.Service) { svc.Annotations = pairs }), 1},
		"a ConfigMap":    {&corev1.ConfigMap{Data: pairs}, 0},
		"a namespace":    {&corev1.Namespace{Spec: corev1.NamespaceSpec{Finalizers: make([]corev1.FinalizerName, 200_000)}}, 0},
		"a long name":    {with(func(svc *corev1.Service) { svc.Name = string(make([]byte, 1<<20)) }), 1},
	} {
		body := encode(test.obj)
		w, err := counted(t, body)
		if err != nil || w.items != test.items {
			t.Errorf("%s: %d items, %v", name, w.items, err)
			continue
		}
		var took int64
		for range 5 { // what other tests leave behind comes in between, and is collected in between
			one := decoding(body)
			if took = max(took, one); w.memory >= one-64<<10 && w.memory <= 5*one+64<<10 {
				took = one
				break
			}
		}
		if w.memory < took-64<<10 || w.memory > 5*took+64<<10 {
			t.Errorf("%s: %d bytes of memory are counted, and it takes %d", name, w.memory, took)
		}
		t.Logf("%s: %d bytes, counted as %d, take %d", name, len(body), w.memory, took)
	}
}

// decoding is the memory that a decoded answer takes.
func decoding(body []byte) int64 {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&before)
	obj, err := kruntime.Decode(scheme.Codecs.UniversalDeserializer(), body)
	must(err)
	runtime.GC()
	runtime.ReadMemStats(&after)
	runtime.KeepAlive(obj)
	runtime.KeepAlive(body)
	return int64(after.HeapAlloc) - int64(before.HeapAlloc)
}

// A usual remote of as many Services as are allowed fits into one answer.
func TestUsualServicesFit(t *testing.T) {
	list := &corev1.ServiceList{}
	for n := range DefaultLimits.Services {
		list.Items = append(list.Items, usual(n))
	}
	b := Limits{}.ofExports("paris").list
	if err := newWire(&b).feed(encode(list)); err != nil {
		t.Errorf("in protobuf: %v", err)
	}
	list.Items = list.Items[:pageSize]
	if err := (&text{bound: &b}).feed([]byte(kruntime.EncodeOrDie(scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), list))); err != nil {
		t.Errorf("a page in JSON: %v", err)
	}
}

// What an API server takes is no more than an object of London may be: etcd has at most 1.5 MiB for it.
func TestLargestObjectsFit(t *testing.T) {
	ports, labels := service("default", "bar"), service("default", "bar")
	for n := range 65_535 {
		ports.Spec.Ports = append(ports.Spec.Ports, corev1.ServicePort{Name: strconv.FormatInt(int64(n), 36), Port: int32(n) + 1, Protocol: corev1.ProtocolTCP, TargetPort: intstr.FromInt(n + 1)})
	}
	for n := range 150_000 {
		labels.Labels[strconv.FormatInt(int64(n), 36)] = ""
	}
	for _, svc := range []*corev1.Service{ports, labels} {
		body := encode(svc)
		b := objectBound("it")
		b.memory = maxLocalMemory
		w := newWire(&b)
		if err := w.feed(body); err != nil || len(body) < 1<<20 {
			t.Errorf("of %d bytes: %v", len(body), err)
		}
		t.Logf("%d bytes, counted as %d", len(body), w.memory)
	}
}

// What is no message is refused, however it is malformed.
func TestMalformedProtobuf(t *testing.T) {
	good := encode(&corev1.ServiceList{Items: []corev1.Service{usual(1)}})
	kind := good[4 : 4+2+int(good[5])]
	join := func(parts ...string) []byte {
		var all []byte
		for _, part := range parts {
			all = append(all, part...)
		}
		return all
	}
	for name, body := range map[string][]byte{
		"no type":          join("k8s\x00", "\x12\x02\x12\x00"),
		"a type too late":  join("k8s\x00", "\x12\x00", string(kind)),
		"two types":        join("k8s\x00", string(kind), string(kind)),
		"two objects":      join(string(good), "\x12\x00"),
		"beyond the end":   join("k8s\x00", string(kind), "\x12\x02\x12\x05aaaaa"),
		"a group":          join("k8s\x00", string(kind), "\x12\x02\x13\x00"),
		"a tag of 36 bits": join("k8s\x00", string(kind), "\x12\x07\x92\x80\x80\x80\x80\x01\x00"), // which decodes as an item
		"an endless tag":   join("k8s\x00", string(kind), "\x12\x20", "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"),
		"another resource": join("k8s\x00", "\x0a\x0a\x0a\x02v1\x12\x04Nope", "\x12\x00"),
	} {
		if _, err := counted(t, body); err == nil {
			t.Errorf("%s: it is counted", name)
		}
	}
}

// countedEvent has an event of a watch counted, all of it at once and byte by byte.
func countedEvent(t testing.TB, body []byte) (memory int64, err error) {
	t.Helper()
	frames, bytewise := &wireFrames{bound: allowing()}, &wireFrames{bound: allowing()}
	sent := []byte(framed(string(body)))
	err = frames.feed(sent)
	var other error
	for i := range sent {
		if other = bytewise.feed(sent[i : i+1]); other != nil {
			break
		}
	}
	if fmt.Sprint(err) != fmt.Sprint(other) {
		t.Fatalf("at once: %v; byte by byte: %v", err, other)
	}
	if err == nil && frames.event != nil {
		if memory = frames.event.memory; memory != bytewise.event.memory {
			t.Fatalf("at once: %d bytes of memory; byte by byte: %d", memory, bytewise.event.memory)
		}
	}
	return memory, err
}

// portsOf are those of the Service that an event has for client-go; 0: it has none.
func portsOf(body []byte) int {
	var event metav1.WatchEvent
	if event.Unmarshal(body) != nil {
		return 0
	}
	obj, err := kruntime.Decode(protobuf.Serializer, event.Object.Raw)
	if svc, ok := obj.(*corev1.Service); ok && err == nil {
		return len(svc.Spec.Ports)
	}
	return 0
}

// hiddenEvents are events whose object has a second value, or a tag, that a scan may miss: client-go decodes a
// Service with many ports of each.
func hiddenEvents() map[string][]byte {
	svc := service("default", "bar")
	svc.Spec.Ports = make([]corev1.ServicePort, 50)
	field := func(tag string, value string) string {
		return tag + string(binary.AppendUvarint(nil, uint64(len(value)))) + value
	}
	object := field("\x0a", string(encode(svc)))
	// over is a length of all that follows so many bytes, in four bytes.
	over := func(rest int) string {
		n := rest + len(object)
		return string([]byte{byte(n) | 0x80, byte(n>>7) | 0x80, byte(n>>14) | 0x80, byte(n >> 21)})
	}
	pad := func(n int) string { return strings.Repeat("\xff", n) }
	all := map[string][]byte{}
	for name, parts := range map[string][2]string{ // the first value, and an unknown field
		"a fixed64 without its value": {"k8s\x00\x09", "\x1a\x0b" + pad(6) + "\x1a" + over(0)},
		"a fixed32 without its value": {"k8s\x00\x0d", "\x1a\x07" + pad(2) + "\x1a" + over(0)},
		"half of a varint":            {"k8s\x00\x08\x80", "\x1a\x12" + over(14) + pad(14)},
		"half of a tag":               {"k8s\x00\x80", "\x1a\x12\x12" + over(13) + pad(13)},
		"half of a length":            {"k8s\x00\x1a\x80", "\x1a\x12" + pad(18)},
		"half of the magic":           {"k8s", "\x1a\x12" + over(14) + pad(14)},
		"the magic and nothing else":  {"k8s\x00", ""},
	} {
		all[name] = []byte(field("\x12", field("\x0a", parts[0])+parts[1]+object))
	}
	all["a tag of 36 bits"] = []byte(field("\x12", "\x8a\x80\x80\x80\x80\x01"+object[1:]))
	return all
}

// Whatever client-go makes of an event, its ports are counted, or the event is refused.
func TestHiddenObjectsAreCounted(t *testing.T) {
	for name, body := range hiddenEvents() {
		if n := portsOf(body); n != 50 {
			t.Errorf("%s: %d ports are decoded, so nothing is hidden", name, n)
		}
		checkPorts(t, name, body)
	}
}

func checkPorts(t testing.TB, name string, body []byte) {
	t.Helper()
	least := int64(portsOf(body)) * int64(reflect.TypeFor[corev1.ServicePort]().Size())
	if memory, err := countedEvent(t, body); err == nil && memory < least {
		t.Errorf("%s: %d bytes of memory are counted, and its ports take %d", name, memory, least)
	}
}

func FuzzProtobufEvent(f *testing.F) {
	for _, body := range hiddenEvents() {
		f.Add(body)
	}
	event, err := (&metav1.WatchEvent{Type: "ADDED", Object: kruntime.RawExtension{Raw: encode(service("default", "bar"))}}).Marshal()
	must(err)
	f.Add(event)
	f.Fuzz(func(t *testing.T, body []byte) { checkPorts(t, "it", body) })
}

func FuzzProtobuf(f *testing.F) {
	f.Add(encode(&corev1.ServiceList{Items: []corev1.Service{usual(1), {}}}))
	f.Add(encode(&corev1.ConfigMap{Data: map[string]string{"a": "b"}}))
	f.Add([]byte("k8s\x00\x0a\x11\x0a\x02v1\x12\x0bServiceList\x12\x07\x92\x80\x80\x80\x80\x01\x00"))
	f.Add(encode(&metav1.Status{Details: &metav1.StatusDetails{Causes: []metav1.StatusCause{{Message: "a"}}}}))
	f.Fuzz(func(t *testing.T, body []byte) {
		w, err := counted(t, body)
		if obj, failed := kruntime.Decode(protobuf.Serializer, body); failed == nil && err == nil {
			if list, ok := obj.(*corev1.ServiceList); ok && len(list.Items) != w.items {
				t.Errorf("%d items are counted, and there are %d", w.items, len(list.Items))
			}
		}
	})
}

func BenchmarkBounds(b *testing.B) {
	list := &corev1.ServiceList{}
	for n := range 500 {
		list.Items = append(list.Items, usual(n))
	}
	inProtobuf, inJSON := encode(list), []byte(kruntime.EncodeOrDie(scheme.Codecs.LegacyCodec(corev1.SchemeGroupVersion), list))
	for name, one := range map[string]struct {
		body []byte
		scan func() scan
	}{
		"protobuf": {inProtobuf, func() scan { return newWire(allowing()) }},
		"JSON":     {inJSON, func() scan { return &text{bound: allowing()} }},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(one.body)))
			for b.Loop() {
				if err := one.scan().feed(one.body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Answers of several remotes are read at once; the race detector looks on.
func TestMessagesAreReadConcurrently(t *testing.T) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				items := 0
				for _, field := range messageOf(&corev1.ConfigMapList{}).fields {
					if field.item {
						items++
					}
				}
				if items != 1 {
					t.Errorf("%d fields have the items of a list", items)
				}
			}
		})
	}
	wg.Wait()
}
