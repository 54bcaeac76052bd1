package remote

import (
	"bufio"
	"bytes"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// What begins an answer in protobuf is read as client-go reads it, and stays in place.
func TestProtobufKind(t *testing.T) {
	for _, test := range []struct {
		body []byte
		want string // empty: an error
	}{
		{encode(&corev1.ServiceList{}), "/v1, Kind=ServiceList"},
		{encode(&corev1.ServiceList{Items: make([]corev1.Service, 1000)}), "/v1, Kind=ServiceList"},
		{encode(&metav1.Status{}), "/v1, Kind=Status"},
		{nil, ""}, {[]byte("k8s"), ""}, {[]byte("k8s\x00"), ""}, {[]byte("k8s\x00\x0a"), ""},
		{[]byte("k8s\x00\x0a\xff"), ""}, {[]byte("k8s\x00\x0a\x05a"), ""}, {[]byte("{}"), ""},
		{append([]byte("k8s\x00\x0a"), bytes.Repeat([]byte{0xff}, 11)...), ""},
	} {
		reader := bufio.NewReaderSize(bytes.NewReader(test.body), 1<<10)
		kind, err := protobufKind(reader)
		if test.want == "" && err == nil || test.want != "" && (err != nil || kind.String() != test.want) {
			t.Errorf("%.20q: got %v, %v; want %q", test.body, kind, err, test.want)
		}
		if rest, _ := reader.Peek(4); !bytes.HasPrefix(test.body, rest) {
			t.Errorf("%.20q: the body begins with %q now", test.body, rest)
		}
	}
}
