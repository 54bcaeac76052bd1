package gateway

import (
	"errors"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// publishing is what the record of default/postgres says of its ports.
func publishing(ports ...record.Port) *Published {
	return &Published{Record: &record.Record{Service: cache.NewObjectName("default", "postgres"), UID: "postgres-uid", Ports: ports, Ready: true}}
}

// crowded has a remote in which too many records have port 15432.
func crowded(p *Published) *Published {
	p.Crowded = func(claim string) bool { return claim == "15432/TCP" }
	return p
}

func TestPublishedPorts(t *testing.T) {
	name := func(text string) cache.ObjectName { return cache.NewObjectName("default", text) }
	is := func(text string) func(string) cache.ObjectName {
		return func(claim string) cache.ObjectName {
			if claim != "15432/TCP" {
				t.Errorf("%q is claimed", claim)
			}
			return name(text)
		}
	}
	ports := append(slices.Clone(web), port("tcp-15432", 15432, tcp, ""), port("udp", 15353, udp, ""))
	db, http, dns := port("db", 5432, tcp, ""), port("http", 8080, tcp, ""), port("dns", 53, udp, "")
	alone := record.Port{Port: 5432, Protocol: tcp, Gateway: 15432, Class: "tcp"}
	shared := record.Port{Port: 5432, Protocol: tcp, Gateway: 15432, Class: "http", Shared: true}
	for _, test := range []struct {
		name        string
		exported    corev1.ServicePort
		published   *Published
		holder      func(string) cache.ObjectName
		annotations []string
		gateway     Gateway
		want        int32
		line        Line
		alone       bool
		wantErr     string
	}{
		{name: "no records are read", exported: http, want: 80, line: SameClassHTTP},
		{name: "there is no record", exported: http, published: &Published{}, want: 80, line: SameClassHTTP},
		{name: "alone", exported: db, published: publishing(alone), want: 15432, line: ByRecord, alone: true},
		{name: "shared", exported: db, published: publishing(shared), want: 15432, line: ByRecord},
		{name: "HTTP is decided by it, too", exported: http, published: publishing(record.Port{Port: 8080, Protocol: tcp, Gateway: 15432, Shared: true}), want: 15432, line: ByRecord},
		{name: "gRPC through a port for HTTP", exported: port("grpc", 50051, tcp, ""), published: publishing(record.Port{Port: 50051, Protocol: tcp, Gateway: 80, Shared: true}), want: 80, line: ByRecord},
		{name: "UDP", exported: dns, published: publishing(record.Port{Port: 53, Protocol: udp, Gateway: 15353}), want: 15353, line: ByRecord, alone: true},
		{name: "a port that it does not list", exported: http, published: publishing(alone), want: 80, line: SameClassHTTP},
		{name: "a port of another protocol", exported: port("db", 5432, udp, ""), published: publishing(alone), wantErr: "no UDP port of the gateway is reserved"},
		{name: "before the annotation", exported: db, published: publishing(alone), annotations: []string{PortsAnnotation, "5432=80"}, want: 15432, line: ByRecord, alone: true},
		{name: "an annotation that it refuses", exported: db, published: publishing(record.Port{Port: 5432, Protocol: tcp, Problem: "given to default/pg"}), annotations: []string{PortsAnnotation, "5432=15432"},
			line: ByRecord, wantErr: "has no route to it: given to default/pg"},
		{name: "an annotation of a port that it does not list", exported: db, published: publishing(record.Port{Port: 1, Protocol: tcp, Gateway: 80}), annotations: []string{PortsAnnotation, "5432=15432"},
			want: 15432, line: ReservedByAnnotation, alone: true},
		{name: "an annotation of what another record has alone", exported: db, published: &Published{Holder: is("z")}, holder: is("z"), annotations: []string{PortsAnnotation, "5432=15432"},
			line: ReservedByAnnotation, wantErr: "gateway port 15432/TCP is reserved for default/z, to which the remote's publisher assigned it"},
		{name: "before the ConfigMap", exported: db, published: publishing(alone), gateway: Gateway{Reserved: Reserved{forPort("default/postgres", "5432", tcp): 80}},
			want: 15432, line: ByRecord, alone: true},
		{name: "before gateway-port", exported: db, published: publishing(alone), gateway: Gateway{Port: "http"}, want: 15432, line: ByRecord, alone: true},
		{name: "it is not routed", exported: http, published: publishing(record.Port{Port: 8080, Protocol: tcp, Problem: "no listener"}), line: ByRecord,
			wantErr: "the remote's publisher has no route to it: no listener"},
		{name: "the gateway lacks it", exported: db, published: publishing(record.Port{Port: 5432, Protocol: tcp, Gateway: 7}), line: ByRecord,
			wantErr: "gateway port 7/TCP, which the gateway does not have: it has"},
		{name: "a gateway whose Service is not read is trusted", exported: db, published: publishing(record.Port{Port: 5432, Protocol: tcp, Gateway: 7}), gateway: Gateway{Static: true},
			want: 7, line: ByRecord, alone: true},
		{name: "its load balancer reports an error", exported: db, published: publishing(alone), gateway: Gateway{Unserved: map[PortNumber]string{{15432, tcp}: "x"}}, line: ByRecord,
			wantErr: "is not served"},
		{name: "a ConfigMap reserves it for another", exported: db, published: publishing(alone), gateway: Gateway{Reserved: Reserved{forPort("other/x", "1", tcp): 15432}}, line: ByRecord,
			wantErr: "allocated gateway port 15432/TCP, which is reserved for other/x"},
		{name: "an older one has it alone", exported: db, published: publishing(alone), holder: is("z"), line: ByRecord, wantErr: "gateway port 15432/TCP, which is exclusive to default/z"},
		{name: "it is the oldest", exported: db, published: publishing(alone), holder: is("postgres"), want: 15432, line: ByRecord, alone: true},
		{name: "an annotation takes no port that is shared", exported: db, published: publishing(shared), holder: is("z"), want: 15432, line: ByRecord},
		{name: "another record has what is shared here alone", exported: db, published: &Published{Record: publishing(shared).Record, Holder: is("z")}, line: ByRecord,
			wantErr: "which is exclusive to default/z"},
		{name: "a choice of what another record has alone", exported: db, published: &Published{Holder: is("z")}, annotations: []string{PortAnnotation, "5432=15432"},
			line: ByAnnotation, wantErr: "gateway port 15432/TCP is allocated to default/z by the remote's publisher: correct the annotation"},
		{name: "a choice of what its own record has alone", exported: db, published: &Published{Holder: is("postgres")}, annotations: []string{PortAnnotation, "5432=15432"},
			want: 15432, line: ByAnnotation},
		{name: "too many have it alone", exported: db, published: crowded(publishing(alone)), line: ByRecord, wantErr: "gateway port 15432/TCP is not used"},
		{name: "an annotation of what too many have alone", exported: db, published: crowded(&Published{}), annotations: []string{PortsAnnotation, "5432=15432"},
			line: ReservedByAnnotation, wantErr: "gateway port 15432/TCP is not used"},
		{name: "a choice of what too many have alone", exported: db, published: crowded(&Published{}), annotations: []string{PortAnnotation, "5432=15432"},
			line: ByAnnotation, wantErr: "gateway port 15432/TCP is not used"},
		{name: "not known yet", exported: http, published: &Published{Unknown: true}, line: Undecided, wantErr: "have not been read yet: see the problems of the remote"},
		{name: "not known yet, and the annotation may claim another one's", exported: db, published: &Published{Unknown: true}, annotations: []string{PortsAnnotation, "5432=15432"},
			line: Undecided, wantErr: "have not been read yet"},
		{name: "it cannot be used", exported: http, published: &Published{Problem: errors.New("it is malformed")}, want: 80, line: SameClassHTTP, wantErr: "it is malformed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			gw := test.gateway
			gw.Ports = ports
			assigned := Assignments{Holder: test.holder, Published: test.published}
			all, err := gw.Map(annotated(exportedWith(test.exported), test.annotations...), assigned)
			if got := all[0]; got.Target != test.want || got.Line != test.line || got.Alone != test.alone {
				t.Errorf("got %v (%+v), want %d by %q, alone: %v", got, got, test.want, test.line, test.alone)
			}
			checkErr(t, Problems(all, err), test.wantErr)
		})
	}
}

func TestPublishedFor(t *testing.T) {
	exported := &corev1.Service{ObjectMeta: metav1.ObjectMeta{UID: "a"}}
	for name, test := range map[string]struct {
		read    record.Record
		err     error
		wantErr string
	}{
		"it is the Service's": {read: record.Record{UID: "a"}},
		"another one's":       {read: record.Record{UID: "b"}, wantErr: "another UID"},
		"malformed":           {read: record.Record{UID: "a"}, err: errors.New("it has no key"), wantErr: "it has no key"},
	} {
		got := PublishedFor(exported, test.read, test.err)
		if (got.Record != nil) != (test.wantErr == "") || got.Unknown {
			t.Errorf("%s: got %+v", name, got)
		}
		checkErr(t, got.Problem, test.wantErr)
	}
}

// A Service of UDP ports alone is mirrored if its record has one of them.
func TestPublishedIsExplicit(t *testing.T) {
	dns := exportedWith(port("dns", 53, udp, ""))
	for want, published := range map[bool]*Published{
		true:  publishing(record.Port{Port: 53, Protocol: udp, Gateway: 15353}),
		false: publishing(record.Port{Port: 54, Protocol: udp, Gateway: 15353}),
	} {
		if got := (&Gateway{}).Explicit(dns, Assignments{Published: published}); got != want {
			t.Errorf("got %v, want %v", got, want)
		}
	}
}

// FuzzRecord: whatever a record has, it sends a port to one that the gateway has, that no other Service has, and
// that is the record's own, or it says why not.
func FuzzRecord(f *testing.F) {
	configMap, err := publishing(record.Port{Port: 5432, Protocol: tcp, Gateway: 15432}, record.Port{Port: 8080, Protocol: tcp, Gateway: 80, Shared: true}).Record.ConfigMap("x")
	if err != nil {
		f.Fatal(err)
	}
	good := configMap.Data[record.DataKey]
	for _, edit := range []string{`"gateway":9`, `"gateway":70000`, `"gateway":-1`, `"gateway":0,"problem":"p"`, `"protocol":"UDP"`, `"shared":1`} {
		f.Add(strings.ReplaceAll(good, `"gateway":15432`, edit))
	}
	f.Add(good)
	f.Add(`{"namespace":"default","name":"postgres","uid":"postgres-uid","ports":null}`)
	f.Add(`{"namespace":"default","name":"postgres","uid":["x"]`)
	f.Fuzz(func(t *testing.T, text string) {
		configMap.Data[record.DataKey] = text
		read, err := record.Parse(configMap)
		exported := exportedWith(port("db", 5432, tcp, ""), port("http", 8080, tcp, ""))
		exported.UID = "postgres-uid"
		published := PublishedFor(exported, read, err)
		taken := func(claim string) cache.ObjectName {
			if claim == "9/TCP" {
				return cache.NewObjectName("other", "x")
			}
			return cache.ObjectName{}
		}
		published.Holder = taken
		gw := &Gateway{Ports: append(slices.Clone(web), port("tcp", 15432, tcp, ""), port("taken", 9, tcp, ""))}
		all, problem := gw.Map(exported, Assignments{Holder: taken, Published: &published})
		if (published.Record == nil) != (problem != nil) {
			t.Fatalf("the record %+v, the problem %v", published.Record, problem)
		}
		for _, m := range all {
			switch {
			case m.Target == 0 && m.Problem == nil:
				t.Fatalf("%v has no reason", m)
			case m.Target == 9 || m.Target != 0 && !hasPort(gw.Ports, PortNumber{m.Target, tcp}):
				t.Fatalf("%v: %s", m, text)
			case m.Line == ByRecord && m.Target != 0 && m.Target != published.Record.Of(m.Port.Port, tcp).Gateway:
				t.Fatalf("%v, and the record is %+v", m, published.Record)
			}
		}
		if problem := Problems(all, problem); problem != nil && len(problem.Error()) > 8000 {
			t.Fatalf("a message of %d characters", len(problem.Error()))
		}
	})
}

func TestRecordClaims(t *testing.T) {
	alone, shared := RecordClaims(*publishing(record.Port{Port: 1, Protocol: tcp, Gateway: 15432}, record.Port{Port: 2, Protocol: udp, Gateway: 53}, record.Port{Port: 3, Protocol: tcp, Gateway: 80, Shared: true},
		record.Port{Port: 4, Protocol: tcp, Problem: "none"}).Record)
	if !slices.Equal(alone, []string{"15432/TCP", "53/UDP"}) || !slices.Equal(shared, []string{"80/TCP"}) {
		t.Errorf("got %q, %q", alone, shared)
	}
	if got := Claims(annotated(exportedWith(port("db", 5432, tcp, "")), PortsAnnotation, "5432=15432")); got[0] != alone[0] {
		t.Errorf("an annotation claims %q, a record %q", got, alone)
	}
}
