package gateway

import (
	"maps"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

func forPort(service, port string, protocol corev1.Protocol) ReservedFor {
	namespace, name, _ := strings.Cut(service, "/")
	return ReservedFor{Service: cache.NewObjectName(namespace, name), Port: port, Protocol: protocol}
}

func TestParseReserved(t *testing.T) {
	for _, test := range []struct {
		name    string
		data    map[string]string
		want    Reserved
		wantErr string
	}{
		{name: "none", want: Reserved{}},
		{name: "by number and by name", data: map[string]string{"15432": "default/postgres:5432", "6000": "a/redis:redis"},
			want: Reserved{forPort("default/postgres", "5432", tcp): 15432, forPort("a/redis", "redis", tcp): 6000}},
		{name: "towards the Service the PROXY protocol does not concern clients", data: map[string]string{"1": "a/b:2::PROXY"},
			want: Reserved{forPort("a/b", "2", tcp): 1}},
		{name: "HAProxy's TLS is too", data: map[string]string{"1": "a/b:2:ssl"}, want: Reserved{forPort("a/b", "2", tcp): 1}},
		{name: "the PROXY protocol from clients is not supported", data: map[string]string{"1": "a/b:2:PROXY", "3": "a/c:4"},
			want: Reserved{forPort("a/c", "4", tcp): 3}, wantErr: "expects the PROXY protocol"},
		{name: "malformed entries are named, the others count", data: map[string]string{"x": "a/b:1", "0": "a/b:1", "070": "a/b:1", "70000": "a/b:1", "7": "a/b:1"},
			want: Reserved{forPort("a/b", "1", tcp): 7}, wantErr: `entry "0": "a/b:1": the key is not a port number`},
		{name: "malformed values", data: map[string]string{"1": "b:1", "2": "a/b", "3": "a/b:", "4": "A/b:1", "5": "a/b:0", "6": "a/b/c:1", "7": ""},
			want: Reserved{}, wantErr: "expected NAMESPACE/SERVICE:PORT"},
		{name: "one Service at two ports", data: map[string]string{"9": "a/b:1", "8": "a/b:1"},
			want: Reserved{forPort("a/b", "1", tcp): 8}, wantErr: "ports 8 and 9 are both reserved for a/b:1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := ParseReserved(test.data, tcp)
			if !maps.Equal(got, test.want) {
				t.Errorf("got  %v\nwant %v", got, test.want)
			}
			checkErr(t, err, test.wantErr)
		})
	}
}

func TestParseReservations(t *testing.T) {
	for _, test := range []struct {
		text    string
		want    []Reservation
		wantErr string
	}{
		{text: ""},
		{text: " , "},
		{text: "5432=15432", want: []Reservation{{5432, 15432, tcp}}},
		{text: "5432=15432, 53/UDP=15353/udp,7/sctp=8", want: []Reservation{{5432, 15432, tcp}, {53, 15353, udp}, {7, 8, sctp}}},
		{text: "53=1,53/UDP=1", want: []Reservation{{53, 1, tcp}, {53, 1, udp}}},
		{text: "1=2,1=3", want: []Reservation{{1, 2, tcp}}, wantErr: `entry "1=3": port 1 is set twice`},
		{text: "1", wantErr: "expected PORT=GATEWAYPORT"},
		{text: "http=1", wantErr: "expected PORT=GATEWAYPORT"},
		{text: "1=2=3", wantErr: "expected PORT=GATEWAYPORT"},
		{text: "1/ICMP=2", wantErr: "expected PORT=GATEWAYPORT"},
		{text: "1/TCP=2/UDP", wantErr: "TCP cannot be routed to UDP"},
		{text: "0=1,1=65536,2=3", want: []Reservation{{2, 3, tcp}}, wantErr: `entry "0=1"`},
	} {
		got, err := ParseReservations(test.text)
		if !slices.Equal(got, test.want) {
			t.Errorf("%q: got %v, want %v", test.text, got, test.want)
		}
		checkErr(t, err, test.wantErr)
	}
	got, err := ParseReservations(strings.Repeat("1=2,", 100_000))
	if len(got) != 1 || len(err.Error()) > 1000 {
		t.Errorf("%d entries, %.100s…", len(got), err)
	}
}

// TestReservedPorts is the first line of the port rule.
func TestReservedPorts(t *testing.T) {
	ports := append(slices.Clone(web), port("", 15432, tcp, ""), port("", 15433, tcp, ""), port("", 15353, udp, ""))
	postgres := func(annotation string) *corev1.Service {
		svc := exportedWith(port("db", 5432, tcp, ""), port("http", 8080, tcp, ""))
		if strings.Contains(annotation, "UDP") {
			svc = exportedWith(append(svc.Spec.Ports, port("dns", 53, udp, ""))...)
		}
		svc.Annotations = map[string]string{PortsAnnotation: annotation}
		return svc
	}
	for _, test := range []struct {
		name       string
		annotation string
		reserved   Reserved
		holder     string // of each port that is claimed
		only       string
		static     bool
		want       map[string]int32 // by the exported port's name
		wantErr    string
	}{
		{name: "none", want: map[string]int32{"http": 80}, wantErr: "port db (5432/TCP): it is not HTTP, and no gateway port is reserved for it"},
		{name: "by number", reserved: Reserved{forPort("default/postgres", "5432", tcp): 15432}, want: map[string]int32{"db": 15432, "http": 80}},
		{name: "by name", reserved: Reserved{forPort("default/postgres", "db", tcp): 15432}, want: map[string]int32{"db": 15432, "http": 80}},
		{name: "before the same name", reserved: Reserved{forPort("default/postgres", "8080", tcp): 15433, forPort("default/postgres", "db", tcp): 15432},
			want: map[string]int32{"db": 15432, "http": 15433}},
		{name: "before gateway-port", reserved: Reserved{forPort("default/postgres", "db", tcp): 15432}, only: "http",
			want: map[string]int32{"db": 15432, "http": 80}},
		{name: "of another protocol it does not count", reserved: Reserved{forPort("default/postgres", "5432", udp): 15353},
			want: map[string]int32{"http": 80}, wantErr: "port db (5432/TCP): it is not HTTP"},
		{name: "another Service's does not count", reserved: Reserved{forPort("other/postgres", "5432", tcp): 15432, forPort("default/mysql", "5432", tcp): 15433},
			want: map[string]int32{"http": 80}, wantErr: "port db (5432/TCP)"},
		{name: "not on the gateway Service", reserved: Reserved{forPort("default/postgres", "5432", tcp): 15434}, want: map[string]int32{"http": 80},
			wantErr: "port db (5432/TCP): port 15434/TCP is reserved for it, but the gateway Service does not have that port"},
		{name: "on a gateway whose Service is not read it is trusted", static: true, reserved: Reserved{forPort("default/postgres", "5432", tcp): 15434},
			want: map[string]int32{"db": 15434, "http": 80}},
		{name: "an annotation", annotation: "5432=15432,53/UDP=15353", want: map[string]int32{"db": 15432, "http": 80, "dns": 15353}},
		{name: "an annotation counts before a ConfigMap", annotation: "5432=15433", reserved: Reserved{forPort("default/postgres", "5432", tcp): 15432},
			want: map[string]int32{"db": 15433, "http": 80}},
		{name: "an annotation of a port that the gateway lacks", annotation: "5432=1", want: map[string]int32{"http": 80}, wantErr: "port 1/TCP is reserved for it, but"},
		{name: "an annotation of a port that a ConfigMap gives to another", annotation: "5432=15432", reserved: Reserved{forPort("default/mysql", "3306", tcp): 15432},
			want: map[string]int32{"http": 80}, wantErr: "gateway port 15432/TCP is reserved for default/mysql"},
		{name: "one that an older Service claims", annotation: "5432=15432", holder: "z",
			want: map[string]int32{"http": 80}, wantErr: "gateway port 15432/TCP is reserved for default/z, an older Service that also claims it"},
		{name: "one that it has", annotation: "5432=15432", holder: "postgres", want: map[string]int32{"db": 15432, "http": 80}},
		{name: "a malformed entry is named", annotation: "5432=15432,x", want: map[string]int32{"db": 15432, "http": 80}, wantErr: `entry "x": expected PORT=GATEWAYPORT`},
	} {
		t.Run(test.name, func(t *testing.T) {
			gw := &Gateway{Ports: ports, Port: test.only, Static: test.static, Reserved: test.reserved}
			all, err := gw.Map(postgres(test.annotation), Assignments{Holder: func(string) cache.ObjectName {
				if test.holder == "" {
					return cache.ObjectName{}
				}
				return cache.NewObjectName("default", test.holder)
			}})
			got := map[string]int32{}
			for _, target := range Targets(all) {
				got[target.Name] = target.Port
			}
			if !maps.Equal(got, test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			checkErr(t, Problems(all, err), test.wantErr)
		})
	}
}

func TestExplicit(t *testing.T) {
	dns := exportedWith(port("dns", 53, udp, ""))
	for _, test := range []struct {
		name       string
		annotation string
		choice     string // PortAnnotation
		reserved   Reserved
		want       bool
	}{
		{name: "no"},
		{name: "chosen", choice: "dns", want: true},
		{name: "chosen by its number", choice: "53/UDP=15353", want: true},
		{name: "chosen for another port", choice: "54=15353"},
		{name: "by a ConfigMap", reserved: Reserved{forPort("default/postgres", "53", udp): 1}, want: true},
		{name: "by an annotation", annotation: "53/UDP=1", want: true},
		{name: "of another protocol", annotation: "53=1", reserved: Reserved{forPort("default/postgres", "53", tcp): 1}},
	} {
		dns.Annotations = map[string]string{PortsAnnotation: test.annotation, PortAnnotation: test.choice}
		if got := (&Gateway{Reserved: test.reserved}).Explicit(dns, Assignments{}); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

// What a remote writes is read without harm, and what is read can be used.
func FuzzReserved(f *testing.F) {
	f.Add("15432", "default/postgres:5432", "5432=15432,53/UDP=15353")
	f.Add("0", "a/b:c:PROXY", "1/tcp=2/sctp, =,x")
	f.Fuzz(func(t *testing.T, key, value, annotation string) {
		reserved, err := ParseReserved(map[string]string{key: value}, tcp)
		if len(reserved) == 0 && err == nil {
			t.Errorf("%q: %q is dropped without an error", key, value)
		}
		all, err := ParseReservations(annotation)
		if len(all) == 0 && err == nil && strings.Trim(annotation, ", \t\n\v\f\r\u0085\u00a0") == annotation && annotation != "" {
			t.Errorf("%q is dropped without an error", annotation)
		}
		svc := exportedWith()
		svc.Annotations = map[string]string{PortsAnnotation: annotation}
		for _, r := range all {
			svc.Spec.Ports = append(svc.Spec.Ports, corev1.ServicePort{Port: r.Port, Protocol: r.Protocol})
		}
		mapping, _ := (&Gateway{Ports: web, Static: true, Reserved: reserved}).Map(svc, Assignments{})
		for i, r := range all {
			if len(reserved) == 0 && (mapping[i].Target != r.Gateway || mapping[i].Line != ReservedByAnnotation) {
				t.Errorf("%+v is mapped to %+v", r, mapping[i])
			}
		}
		for target, n := range reserved {
			if n < 1 || n > 65535 || target.Service.Namespace == "" || target.Service.Name == "" || ValidatePort(target.Port) != nil {
				t.Errorf("%+v: %d", target, n)
			}
		}
	})
}
