package gateway

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

var ordinary = []corev1.ServicePort{port("http", 8080, tcp, ""), port("grpc", 50051, tcp, ""), port("dns", 53, tcp, ""), port("dns-udp", 53, udp, "")}

func TestSelected(t *testing.T) {
	const all = "http grpc dns dns-udp"
	for _, test := range []struct {
		text, want, wantErr string
	}{
		{"", all, ""},
		{" , ", all, ""},
		{"http", "http", ""},
		{"grpc, http", "http grpc", ""},
		{"8080,http,8080/TCP", "http", ""},
		{"53", "dns dns-udp", ""},
		{"53/udp", "dns-udp", ""},
		{"http, metrics", "http", `annotation service-mirror.io/ports, entry "metrics": the Service has no such port: it has http (8080/TCP), grpc (50051/TCP), dns (53/TCP), dns-udp (53/UDP): correct the annotation`},
		{"http, 9090", "http", `entry "9090": the Service has no such port`},
		{"http, 8080/UDP", "http", `entry "8080/UDP": the Service has no such port`},
		{"http, A B", "http", `entry "A B": not a port name or number`},
		{"http, 0", "http", `entry "0": not a port name or number`},
		{"metrics", all, "correct the annotation; all of its ports are mirrored"},
		{"http=80", all, `entry "http=80": not a port name or number; all of its ports are mirrored`},
		{"http," + strings.Repeat("x", maxLength), all, "annotation service-mirror.io/ports is longer than 8192 bytes and is ignored: shorten it; all of its ports are mirrored"},
		{strings.Repeat("http,", maxEntries), "http", ""},
		{strings.Repeat("http,", maxEntries+1), "http", "annotation service-mirror.io/ports has more than 256 entries: remove some"},
	} {
		got, err := Selected(annotated(exportedWith(ordinary...), SelectAnnotation, test.text))
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		if strings.Join(names, " ") != test.want {
			t.Errorf("%.100q: got %q, want %s", test.text, names, test.want)
		}
		checkErr(t, err, test.wantErr)
	}
}

func TestChoices(t *testing.T) {
	for _, test := range []struct {
		text, want, wantErr string // the gateway port for each port
	}{
		{"", ",,,", ""},
		{"http", "http,http,http,http", ""},
		{" 80 ", "80,80,80,80", ""},
		{"8080=http, 50051=http", "http,http,,", ""},
		{"grpc = http2,80", "80,http2,80,80", ""},
		{"53=81", ",,81,81", ""},
		{"53/UDP=81", ",,,81", ""},
		{"http,https", "http,http,http,http", `annotation service-mirror.io/gateway-port, entry "https": another entry for the same port`},
		{"8080=a,8080=b", "a,,,", `entry "8080=b": another entry`},
		{"8080=a,metrics=b", "a,,,", `entry "metrics=b": the Service has no such port: it has http (8080/TCP)`},
		{"8080=", ",,,", "expected GATEWAYPORT such as http, or PORT=GATEWAYPORT such as 8080=http"},
		{"=80", ",,,", "expected GATEWAYPORT"},
		{"8080=80=81", ",,,", "expected GATEWAYPORT"},
		{"8080=80/TCP", ",,,", "expected GATEWAYPORT"},
		{"HTTP", ",,,", "expected GATEWAYPORT"},
		{"70000", ",,,", "expected GATEWAYPORT"},
		{"http," + strings.Repeat("x", maxLength), ",,,", "is longer than 8192 bytes"},
	} {
		all, err := choices(annotated(exportedWith(ordinary...), PortAnnotation, test.text))
		var got []string
		for _, p := range ordinary {
			got = append(got, chosen(all, p))
		}
		if strings.Join(got, ",") != test.want {
			t.Errorf("%.100q: got %q, want %s", test.text, got, test.want)
		}
		checkErr(t, err, test.wantErr)
	}
}

// FuzzAnnotations: what is read of annotations is bounded, names what the Service has, and is the same after a
// cache has trimmed it.
func FuzzAnnotations(f *testing.F) {
	f.Add("http, 53/UDP", "8080=http, 50051=http2")
	f.Add("=,,70000", "http,http=")
	f.Add(strings.Repeat("9,", maxLength), strings.Repeat("80=http,", maxLength))
	f.Fuzz(func(t *testing.T, selection, choice string) {
		whole := annotated(exportedWith(ordinary...), SelectAnnotation, selection, PortAnnotation, choice)
		trimmed := annotated(exportedWith(ordinary...), SelectAnnotation, TrimAnnotation(SelectAnnotation, selection), PortAnnotation, TrimAnnotation(PortAnnotation, choice))
		if held := len(trimmed.Annotations[SelectAnnotation]) + len(trimmed.Annotations[PortAnnotation]); held > 2*(maxLength+1) {
			t.Errorf("%d bytes are held", held)
		}
		ports, err := Selected(whole)
		again, againErr := Selected(trimmed)
		if len(ports) == 0 || !slices.EqualFunc(ports, again, func(a, b corev1.ServicePort) bool { return a.Name == b.Name }) || fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Errorf("whole %v (%v), trimmed %v (%v)", ports, err, again, againErr)
		}
		if err == nil && strings.Trim(selection, ", \t\n\v\f\r\u0085\u00a0") == "" && len(ports) != len(ordinary) {
			t.Errorf("%q selects %v", selection, ports)
		}
		all, err := choices(whole)
		trimmedChoices, againErr := choices(trimmed)
		if !slices.Equal(all, trimmedChoices) || fmt.Sprint(err) != fmt.Sprint(againErr) {
			t.Errorf("whole %v (%v), trimmed %v (%v)", all, err, trimmedChoices, againErr)
		}
		if err != nil && len(err.Error()) > 2000 {
			t.Errorf("a message of %d characters", len(err.Error()))
		}
		for _, p := range ordinary {
			if target := chosen(all, p); target != "" && ValidatePort(target) != nil {
				t.Errorf("%q has %s go to %q", choice, describe(p), target)
			}
		}
	})
}
