package gateway

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"service-mirror.io/service-mirror/gateway/publish/record"
)

// port makes a ServicePort of "name", a number, a protocol and an appProtocol;
// the empty ones stay unset.
func port(name string, number int32, protocol corev1.Protocol, app string) corev1.ServicePort {
	p := corev1.ServicePort{Name: name, Port: number, Protocol: protocol}
	if app != "" {
		p.AppProtocol = &app
	}
	return p
}

const (
	tcp  = corev1.ProtocolTCP
	udp  = corev1.ProtocolUDP
	sctp = corev1.ProtocolSCTP
)

// web is what most ingress controllers listen on.
var web = []corev1.ServicePort{port("http", 80, tcp, ""), port("https", 443, tcp, "")}

// plus is the gateway's ports with one more.
func plus(ports []corev1.ServicePort, more ...corev1.ServicePort) []corev1.ServicePort {
	return append(slices.Clone(ports), more...)
}

// TestPortTable is what must come out for the gateways and Services that are most common: exported port by
// gateway, 0 where no gateway port serves it.
func TestPortTable(t *testing.T) {
	gateways := []struct {
		name  string
		ports []corev1.ServicePort
	}{
		{"http 80, https 443", web},
		{"the same with appProtocol", []corev1.ServicePort{port("http", 80, tcp, "http"), port("https", 443, tcp, "https")}},
		{"web 80, websecure 443", []corev1.ServicePort{port("web", 80, tcp, ""), port("websecure", 443, tcp, "")}},
		{"http2 80, https 443", []corev1.ServicePort{port("http2", 80, tcp, ""), port("https", 443, tcp, "")}},
		{"http-80 alone", []corev1.ServicePort{port("http-80", 80, tcp, "")}},
		{"port-80, port-443", []corev1.ServicePort{port("port-80", 80, tcp, ""), port("port-443", 443, tcp, "")}},
		{"http 80, grpc 9090, postgres 15432", []corev1.ServicePort{port("http", 80, tcp, ""), port("grpc", 9090, tcp, ""), port("postgres", 15432, tcp, "")}},
	}
	for _, row := range []struct {
		exported []corev1.ServicePort
		want     [7]int32
	}{
		{
			exported: []corev1.ServicePort{port("http", 80, tcp, ""), port("http", 8080, tcp, ""), port("http-web", 8080, tcp, "")},
			want:     [7]int32{80, 80, 80, 80, 80, 80, 80},
		},
		{
			exported: []corev1.ServicePort{port("", 8080, tcp, ""), port("", 3000, tcp, ""), port("api", 3000, tcp, ""), port("metrics", 9090, tcp, "")},
			want:     [7]int32{80, 80, 80, 80, 80, 80, 80},
		},
		{
			exported: []corev1.ServicePort{port("any", 9000, tcp, "http"), port("", 443, tcp, "http"), port("postgres", 5432, tcp, "http"), port("https", 443, tcp, "kubernetes.io/ws")},
			want:     [7]int32{80, 80, 80, 80, 80, 80, 80},
		},
		{
			exported: []corev1.ServicePort{port("https", 443, tcp, ""), port("https", 8443, tcp, ""), port("websecure", 8443, tcp, "")},
			want:     [7]int32{443, 443, 443, 443, 0, 443, 0},
		},
		{
			exported: []corev1.ServicePort{port("grpc", 50051, tcp, ""), port("", 50051, tcp, ""), port("any", 80, tcp, "kubernetes.io/h2c"), port("http", 80, tcp, "grpc")},
			want:     [7]int32{0, 0, 0, 80, 0, 0, 9090},
		},
		{
			exported: []corev1.ServicePort{port("postgres", 5432, tcp, ""), port("tcp-foo", 7000, tcp, ""), port("", 5432, tcp, ""), port("tcp", 80, tcp, ""), port("postgres", 15432, tcp, "")},
			want:     [7]int32{},
		},
		{
			exported: []corev1.ServicePort{port("http", 80, udp, ""), port("", 443, udp, "https"), port("http", 80, sctp, "")},
			want:     [7]int32{},
		},
	} {
		for _, exported := range row.exported {
			for i, want := range row.want {
				got := (&Gateway{Ports: gateways[i].ports}).one(exported)
				if got.Target != want || (got.Problem == nil) != (want != 0) {
					t.Errorf("%s, %q, at %s: got %v (%v), want %d", describe(exported), app(exported), gateways[i].name, got, got.Problem, want)
				}
			}
		}
	}
}

func app(port corev1.ServicePort) string {
	if port.AppProtocol == nil {
		return ""
	}
	return *port.AppProtocol
}

// one is the mapping of a Service's only port.
func (g *Gateway) one(port corev1.ServicePort, annotations ...string) Mapping {
	all, _ := g.Map(annotated(exportedWith(port), annotations...), Assignments{})
	return all[0]
}

// annotated sets annotations: key, value and so on.
func annotated(svc *corev1.Service, annotations ...string) *corev1.Service {
	svc.Annotations = map[string]string{}
	for pair := range slices.Chunk(annotations, 2) {
		svc.Annotations[pair[0]] = pair[1]
	}
	return svc
}

func TestClass(t *testing.T) {
	for _, test := range []struct {
		port   corev1.ServicePort
		want   Class
		serves []Class // as a gateway's port
	}{
		{port("http-api", 1, tcp, ""), HTTP, []Class{HTTP}},
		{port("grpc-web", 1, tcp, ""), HTTP, []Class{HTTP}},
		{port("grpc-web-2", 1, tcp, ""), HTTP, []Class{HTTP}},
		{port("grpc-api", 1, tcp, ""), GRPC, []Class{GRPC}},
		{port("http2", 1, tcp, ""), GRPC, []Class{HTTP, GRPC}},
		{port("http2-web", 1, tcp, ""), GRPC, []Class{HTTP, GRPC}},
		{port("https-webhook", 1, tcp, ""), HTTPS, []Class{HTTPS}},
		{port("tls", 1, tcp, ""), HTTPS, []Class{HTTPS}},
		{port("httpd", 1, tcp, ""), Unknown, nil},
		{port("my-http", 1, tcp, ""), Unknown, nil},
		{port("-http", 1, tcp, ""), Unknown, nil},
		{port("-", 1, tcp, ""), Unknown, nil},
		{port("", 1, tcp, ""), Unknown, nil},
		{port("mc-gateway", 4143, tcp, ""), Unknown, nil},
		{port("", 80, "", ""), HTTP, []Class{HTTP}},
		{port("api", 8443, tcp, ""), HTTPS, []Class{HTTPS}},
		{port("api", 6379, tcp, ""), TCP, []Class{TCP}},
		{port("redis-http", 80, tcp, ""), TCP, []Class{TCP}},
		{port("http", 5432, tcp, ""), HTTP, []Class{HTTP}},
		{port("http", 80, tcp, "https"), HTTPS, []Class{HTTPS}},
		{port("http", 80, tcp, "TLS"), HTTPS, []Class{HTTPS}},
		{port("x", 80, tcp, "postgresql"), TCP, []Class{TCP}},
		{port("grpc", 80, tcp, "example.com/own"), GRPC, []Class{GRPC}},
		{port("x", 81, tcp, "example.com/own"), Unknown, nil},
		{port("x", 81, tcp, ""), Unknown, nil},
		{port("http", 80, udp, "http"), UDP, nil},
		{port("http", 80, sctp, "http"), SCTP, nil},
	} {
		if got := ClassOf(test.port); got != test.want {
			t.Errorf("%s, %q, needs %s, want %s", describe(test.port), app(test.port), got, test.want)
		}
		for _, class := range []Class{HTTP, HTTPS, GRPC, TCP, UDP, SCTP, Unknown} {
			if got := serves(test.port, class); got != slices.Contains(test.serves, class) {
				t.Errorf("%s, %q, serves %s: %v", describe(test.port), app(test.port), class, got)
			}
		}
	}
}

// TestProtocols: one word, or number, has one meaning, and the guide has all of them.
func TestProtocols(t *testing.T) {
	guide, err := os.ReadFile("../deploy/guides/ports.md")
	if err != nil {
		t.Fatal(err)
	}
	words, numbers := map[string]bool{}, map[int32]bool{}
	for _, p := range Protocols {
		cells := []string{string(p.Needs), "", "", ""}
		for _, class := range p.Serves {
			cells[1] = strings.TrimPrefix(cells[1]+", "+string(class), ", ")
		}
		if p.Needs == TCP {
			cells[1] = "" // none without being named
		}
		for _, word := range p.Words {
			if words[word] || word != strings.ToLower(word) {
				t.Errorf("%q has two meanings, or capitals", word)
			}
			words[word] = true
			cells[2] = strings.TrimPrefix(cells[2]+", `"+word+"`", ", ")
		}
		for _, number := range p.Numbers {
			if numbers[number] {
				t.Errorf("%d has two meanings", number)
			}
			numbers[number] = true
			cells[3] = strings.TrimPrefix(fmt.Sprintf("%s, %d", cells[3], number), ", ")
		}
		row := strings.ReplaceAll("| "+strings.Join(cells, " | ")+" |", "  ", " ")
		if !strings.Contains(string(guide), row+"\n") {
			t.Errorf("the guide lacks the row\n%s", row)
		}
	}
}

var shippedPort = regexp.MustCompile(`(?m)^  - \{name: ([-a-z0-9]+), port: (\d+), targetPort: [-a-z0-9]+(?:, appProtocol: ([a-z0-9./]+))?(?:, protocol: ([A-Z]+))?\}`)

// TestShippedGateways: the gateways in deploy/gateways say what their ports serve.
func TestShippedGateways(t *testing.T) {
	for kind, want := range map[string][]int32{
		"nginx":   {80, 80, 443, 443, 9443, 9444, 50051, 50051, 0},
		"haproxy": {80, 80, 443, 443, 9443, 9444, 50051, 80, 0},
		"caddy":   {80, 80, 443, 443, 443, 9444, 50051, 80, 0},
	} {
		manifest, err := os.ReadFile("../deploy/gateways/" + kind + "/service.yaml")
		if err != nil {
			t.Fatal(err)
		}
		var ports []corev1.ServicePort
		for _, match := range shippedPort.FindAllStringSubmatch(string(manifest), -1) {
			n, _ := number(match[2])
			ports = append(ports, port(match[1], n, corev1.Protocol(match[4]), match[3]))
		}
		if lines := strings.Count(string(manifest), "targetPort:"); len(ports) != lines || lines == 0 {
			t.Errorf("%s: %d ports of %d are read", kind, len(ports), lines)
		}
		for i, exported := range []corev1.ServicePort{
			port("http", 8080, tcp, ""), port("metrics", 9090, tcp, ""), port("https", 8443, tcp, ""), port("tls", 8443, tcp, ""),
			port("tls-443", 443, tcp, ""), port("https-edge", 443, tcp, ""), port("grpc", 50051, tcp, ""), port("api", 7000, tcp, "kubernetes.io/h2c"), port("postgres", 5432, tcp, ""),
		} {
			if got := (&Gateway{Ports: ports}).one(exported); got.Target != want[i] {
				t.Errorf("%s: got %v for %s, want %d", kind, got, describe(exported), want[i])
			}
		}
	}
}

// TestTies: within a class, the name counts first, then 80 and 443, then the number, then the lowest.
func TestTies(t *testing.T) {
	for _, test := range []struct {
		name     string
		gateway  []corev1.ServicePort
		exported corev1.ServicePort
		want     int32
		line     Line
	}{
		{"the name before 80", plus(web, port("http-b", 81, tcp, "")), port("http-b", 82, tcp, ""), 81, SameClassHTTP},
		{"the name is exact", plus(web, port("http-b", 81, tcp, "")), port("http-b2", 82, tcp, ""), 80, SameClassHTTP},
		{"a name of another class does not count", plus(web, port("api", 81, tcp, "grpc")), port("api", 82, tcp, "http"), 80, SameClassHTTP},
		{"no name is not a name", []corev1.ServicePort{port("", 8080, tcp, ""), port("http", 80, tcp, "")}, port("", 1, tcp, ""), 80, AssumedHTTP},
		{"80 before the number", plus(web, port("http-b", 8080, tcp, "")), port("http", 8080, tcp, "http"), 80, SameClassHTTP},
		{"443 before the number", []corev1.ServicePort{port("tls", 8443, tcp, ""), port("https", 443, tcp, "")}, port("x", 8443, tcp, ""), 443, SameClassHTTPS},
		{"of 80 and 443 the one with the number", []corev1.ServicePort{port("a", 443, tcp, "http"), port("b", 80, tcp, "http")}, port("x", 443, tcp, "http"), 443, SameClassHTTP},
		{"the number before the lowest", []corev1.ServicePort{port("http-a", 81, tcp, ""), port("http-b", 82, tcp, "")}, port("x", 82, tcp, ""), 82, AssumedHTTP},
		{"the lowest", []corev1.ServicePort{port("http-b", 82, tcp, ""), port("http-a", 81, tcp, "")}, port("x", 83, tcp, ""), 81, AssumedHTTP},
		{"a number alone is no class", plus(web, port("foo", 7000, tcp, "")), port("foo", 7000, tcp, ""), 80, AssumedHTTP},
		{"one of another protocol does not count", []corev1.ServicePort{port("http", 80, udp, ""), port("http", 81, tcp, "")}, port("http", 80, tcp, ""), 81, SameClassHTTP},
		{"gRPC at a port that serves HTTP/1.1 too", []corev1.ServicePort{port("http2", 80, tcp, ""), port("grpc", 9090, tcp, "")}, port("h2c", 1, tcp, ""), 80, SameClassGRPC},
		{"gRPC at a port of its name", []corev1.ServicePort{port("http2", 80, tcp, ""), port("grpc", 9090, tcp, "")}, port("grpc", 1, tcp, ""), 9090, SameClassGRPC},
	} {
		ports := slices.Clone(test.gateway)
		random := rand.New(rand.NewPCG(1, 2))
		for range 10 { // their order does not matter
			if got := (&Gateway{Ports: ports}).one(test.exported); got.Target != test.want || got.Line != test.line {
				t.Errorf("%s: got %v (%v), want %d (%s)", test.name, got, got.Problem, test.want, test.line)
			}
			random.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
		}
	}
}

// TestExplicitLines: what someone has set counts before the class, and default-gateway-port after it.
func TestExplicitLines(t *testing.T) {
	ports := plus(web, port("postgres", 15432, tcp, ""), port("alt", 81, tcp, ""), port("dns", 53, udp, ""))
	http, db, dns := port("http", 80, tcp, ""), port("db", 5432, tcp, ""), port("dns", 53, udp, "")
	taken := Reserved{forPort("other/mysql", "3306", tcp): 15432, forPort("default/postgres", "x", tcp): 81}
	for _, test := range []struct {
		name       string
		gateway    Gateway
		annotation string // PortAnnotation
		exported   corev1.ServicePort
		want       int32
		line       Line
		wantErr    string
	}{
		{name: "gateway-port by name", gateway: Gateway{Port: "https"}, exported: http, want: 443, line: ByGatewayPort},
		{name: "gateway-port by number", gateway: Gateway{Port: "81"}, exported: http, want: 81, line: ByGatewayPort},
		{name: "gateway-port for what is not HTTP", gateway: Gateway{Port: "alt"}, exported: db, want: 81, line: ByGatewayPort},
		{name: "gateway-port before the annotation", gateway: Gateway{Port: "alt"}, annotation: "https", exported: http, want: 81, line: ByGatewayPort},
		{name: "gateway-port that the gateway lacks", gateway: Gateway{Port: "absent", Default: "http"}, exported: http, line: ByGatewayPort,
			wantErr: `the gateway has no TCP port "absent": it has http (80/TCP), https (443/TCP), postgres (15432/TCP), alt (81/TCP), dns (53/UDP): set gateway-port in --remote`},
		{name: "gateway-port of another protocol", gateway: Gateway{Port: "http"}, exported: dns, line: ByGatewayPort, wantErr: `the gateway has no UDP port "http"`},
		{name: "gateway-port that is reserved", gateway: Gateway{Port: "postgres", Reserved: taken}, exported: http, line: ByGatewayPort, wantErr: "gateway port 15432/TCP is reserved for other/mysql:3306: set gateway-port"},
		{name: "the annotation for all ports", annotation: "alt", exported: http, want: 81, line: ByAnnotation},
		{name: "the annotation for what is not HTTP", annotation: "postgres", exported: db, want: 15432, line: ByAnnotation},
		{name: "the annotation by number", annotation: "5432 = 15432", exported: db, want: 15432, line: ByAnnotation},
		{name: "the annotation by name", annotation: "db=postgres,http", exported: db, want: 15432, line: ByAnnotation},
		{name: "the annotation by number and protocol", annotation: "53/UDP=53", exported: dns, want: 53, line: ByAnnotation},
		{name: "the annotation's port of another protocol", annotation: "53/UDP=http", exported: dns, line: ByAnnotation, wantErr: `no UDP port "http"`},
		{name: "the annotation of a port that the gateway lacks", annotation: "absent", gateway: Gateway{Default: "http"}, exported: http, line: ByAnnotation,
			wantErr: "correct the annotation service-mirror.io/gateway-port on the exported Service"},
		{name: "the annotation of a port that is another Service's", annotation: "15432", gateway: Gateway{Reserved: taken}, exported: db, line: ByAnnotation,
			wantErr: "gateway port 15432/TCP is reserved for other/mysql:3306"},
		{name: "the annotation of a port that is another port's", annotation: "81", gateway: Gateway{Reserved: taken}, exported: http, line: ByAnnotation,
			wantErr: "gateway port 81/TCP is reserved for default/postgres:x"},
		{name: "a reserved one before all others", gateway: Gateway{Port: "http", Reserved: Reserved{forPort("default/postgres", "5432", tcp): 15432}}, annotation: "alt",
			exported: db, want: 15432, line: ReservedByConfigMap},
		{name: "the default by name", gateway: Gateway{Default: "alt"}, exported: db, want: 81, line: ByDefault},
		{name: "the default by number", gateway: Gateway{Default: "81"}, exported: db, want: 81, line: ByDefault},
		{name: "the default for UDP", gateway: Gateway{Default: "53"}, exported: dns, want: 53, line: ByDefault},
		{name: "the default after the class", gateway: Gateway{Default: "alt"}, exported: http, want: 80, line: SameClassHTTP},
		{name: "a default that the gateway lacks", gateway: Gateway{Default: "absent"}, exported: db,
			wantErr: `no gateway port is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports on the exported Service, or in the ConfigMap of tcp-services=; or, if it is HTTP, set its appProtocol to http; the default gateway port cannot be used: the gateway has no TCP port "absent"`},
		{name: "a default that is reserved", gateway: Gateway{Default: "81", Reserved: taken}, exported: db, wantErr: "81/TCP is reserved for default/postgres:x: set default-gateway-port"},
	} {
		t.Run(test.name, func(t *testing.T) {
			gw := test.gateway
			gw.Ports = ports
			got := gw.one(test.exported, PortAnnotation, test.annotation)
			if got.Target != test.want || got.Line != test.line {
				t.Errorf("got %v, line %q, want %d, %q", got, got.Line, test.want, test.line)
			}
			checkErr(t, got.Problem, test.wantErr)
		})
	}
}

// What the class line cannot choose is skipped: else a port that is added could take an endpoint away.
func TestClassLineSkipsPorts(t *testing.T) {
	ports := plus(web, port("http-alt", 8080, tcp, ""))
	reserved := &Gateway{Ports: ports, Reserved: Reserved{forPort("other/x", "1", tcp): 80}}
	if got := reserved.one(port("http", 80, tcp, "")); got.Target != 8080 {
		t.Errorf("port 80 is another Service's: got %v", got)
	}
	failed := &Gateway{Ports: ports, Unserved: map[PortNumber]string{{80, tcp}: `"x"`}}
	if got := failed.one(port("http", 80, tcp, "")); got.Target != 8080 {
		t.Errorf("port 80 has an error: got %v", got)
	}
	failed.Unserved[PortNumber{8080, tcp}] = `"y"`
	if got := failed.one(port("http", 80, tcp, "")); got.Target != 0 || got.Problem == nil || !strings.Contains(got.Problem.Error(), `gateway port 80/TCP is not served: its load balancer reports the error "x"`) {
		t.Errorf("all have an error: got %v, %v", got, got.Problem)
	}
	failed.Default = "https"
	if got := failed.one(port("http", 80, tcp, "")); got.Target != 443 || got.Line != ByDefault {
		t.Errorf("with a default: got %v", got)
	}
}

// TestReasonsNameTheirRemedy: what to set, on which object.
func TestReasonsNameTheirRemedy(t *testing.T) {
	none := []corev1.ServicePort{port("mesh", 4143, tcp, "")}
	for _, test := range []struct {
		exported corev1.ServicePort
		want     string
	}{
		{port("http", 80, tcp, ""), `no port of the gateway serves HTTP: it has mesh (4143/TCP): in the gateway Service, name the one that does "http" or choose one with the annotation service-mirror.io/gateway-port on the exported Service`},
		{port("api", 3000, tcp, ""), `no port of the gateway serves HTTP (assumed): it has mesh (4143/TCP): in the gateway Service, name the one that does "http" or choose`},
		{port("", 443, tcp, ""), `serves HTTPS: it has mesh (4143/TCP): in the gateway Service, name the one that does "https" or choose`},
		{port("grpc", 1, tcp, ""), `serves HTTP/2 without TLS, which gRPC requires: it has mesh (4143/TCP): in the gateway Service, name the one that does "grpc", or "http2" if it serves HTTP/1.1 too, or choose`},
		{port("db", 5432, tcp, ""), `it is not HTTP, and no gateway port is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports on the exported Service, or in the ConfigMap of tcp-services=; or, if it is HTTP, set its appProtocol to http`},
		{port("dns", 53, udp, ""), `no UDP port of the gateway is reserved for it: reserve one with the annotation service-mirror.io/gateway-ports on the exported Service, or in the ConfigMap of udp-services=`},
		{port("s", 7, sctp, ""), `no SCTP port of the gateway is reserved for it: reserve one with`},
	} {
		got := (&Gateway{Ports: none}).one(test.exported)
		checkErr(t, got.Problem, test.want)
	}
}

func TestPortErrorStaysShort(t *testing.T) {
	var ports []corev1.ServicePort
	for n := range int32(1000) {
		ports = append(ports, port("", n+1, udp, ""))
	}
	err := (&Gateway{Ports: ports}).one(port("", 2000, tcp, "")).Problem
	if err == nil || len(err.Error()) > 500 || !strings.Contains(err.Error(), "10/UDP, …: in the gateway Service") {
		t.Errorf("got %v", err)
	}
}

// exportedWith is an exported Service default/postgres with these ports.
func exportedWith(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "postgres"}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func TestMap(t *testing.T) {
	http := "http"
	for _, test := range []struct {
		name        string
		gateway     []corev1.ServicePort
		exported    []corev1.ServicePort
		annotations []string
		want        []corev1.EndpointPort
		mapping     string
		wantErr     string
	}{
		{
			name:    "every port, with the exported one's name, protocol and appProtocol",
			gateway: web,
			exported: []corev1.ServicePort{
				{Name: "https", Port: 8443, Protocol: tcp, NodePort: 30001},
				port("web", 8080, "", "http"),
				port("any", 3000, tcp, ""),
				port("names", 5353, udp, ""),
			},
			want: []corev1.EndpointPort{
				{Name: "https", Port: 443, Protocol: tcp},
				{Name: "web", Port: 80, Protocol: tcp, AppProtocol: &http},
				{Name: "any", Port: 80, Protocol: tcp},
			},
			mapping: "8443 -> 443 (same class (https)), 8080 -> 80 (same class (http)), 3000 -> 80 (assumed HTTP), 5353/UDP -> none",
			wantErr: "port names (5353/UDP): no UDP port of the gateway is reserved for it",
		},
		{
			name:     "what is right is said with what is wrong",
			gateway:  web,
			exported: []corev1.ServicePort{port("a", 5432, tcp, ""), port("b", 3000, tcp, "")},
			want:     []corev1.EndpointPort{{Name: "b", Port: 80, Protocol: tcp}},
			mapping:  "5432 -> none, 3000 -> 80 (assumed HTTP)",
			wantErr:  "\nserved ports: 3000 -> 80 (assumed HTTP)",
		},
		{
			name:     "every port that is not served is named",
			gateway:  web,
			exported: []corev1.ServicePort{port("a", 5432, tcp, ""), port("b", 2, udp, "")},
			mapping:  "5432 -> none, 2/UDP -> none",
			wantErr:  "port b (2/UDP)",
		},
		{
			name:        "reserved for UDP",
			gateway:     plus(web, port("x", 15353, udp, "")),
			exported:    []corev1.ServicePort{port("", 53, udp, "")},
			annotations: []string{PortsAnnotation, "53/UDP=15353"},
			want:        []corev1.EndpointPort{{Port: 15353, Protocol: udp}},
			mapping:     "53/UDP -> 15353/UDP (reserved by annotation)",
		},
		{
			name:        "selected ports alone",
			gateway:     web,
			exported:    []corev1.ServicePort{port("http", 8080, tcp, ""), port("db", 5432, tcp, ""), port("https", 443, tcp, "")},
			annotations: []string{SelectAnnotation, "443, http"},
			want:        []corev1.EndpointPort{{Name: "http", Port: 80, Protocol: tcp}, {Name: "https", Port: 443, Protocol: tcp}},
			mapping:     "8080 -> 80 (same class (http)), 443 -> 443 (same class (https))",
		},
		{name: "a gateway without ports is none", exported: web, mapping: "80 -> none, 443 -> none"},
		{name: "no ports", gateway: web},
	} {
		t.Run(test.name, func(t *testing.T) {
			exported := annotated(exportedWith(test.exported...), test.annotations...)
			before := exported.DeepCopy()
			all, err := (&Gateway{Ports: test.gateway}).Map(exported, Assignments{})
			if got := Targets(all); !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			if got := texts(all); got != test.mapping {
				t.Errorf("got  %s\nwant %s", got, test.mapping)
			}
			checkErr(t, Problems(all, err), test.wantErr)
			if !reflect.DeepEqual(exported, before) {
				t.Error("the exported Service was changed")
			}
		})
	}
}

func texts(all []Mapping) string { return Texts(all, 100) }

// generated are ports as Services have them: their names are unique, and so are their numbers for a protocol.
func generated(random *rand.Rand, most int) (ports []corev1.ServicePort) {
	one := func(list ...string) string { return list[random.IntN(len(list))] }
	numbers := []int32{1, 53, 80, 81, 443, 3000, 5432, 8080, 8443, 9090, 15432, 50051}
	for range random.IntN(most + 1) {
		p := port(one("", "http", "http-a", "web", "https", "tls", "grpc", "http2", "tcp-a", "postgres", "api", "mesh"), numbers[random.IntN(len(numbers))],
			corev1.Protocol(one("TCP", "TCP", "TCP", "", "UDP", "SCTP")), one("", "", "", "http", "https", "h2c", "tcp", "x"))
		if !slices.ContainsFunc(ports, func(q corev1.ServicePort) bool {
			return p.Name == q.Name || p.Port == q.Port && protocol(p) == protocol(q)
		}) {
			ports = append(ports, p)
		}
	}
	return ports
}

// TestAddedPortsLaw is the law of the port rule: a port that is added to a gateway never takes an endpoint
// away, and it moves one only if it is of the class that the exported port needs, and is then the new target.
func TestAddedPortsLaw(t *testing.T) {
	moved, gained, same := 0, 0, 0
	for seed := range uint64(20_000) {
		random := rand.New(rand.NewPCG(seed, 5))
		one := func(list ...string) string { return list[random.IntN(len(list))] }
		after := Gateway{
			Ports: generated(random, 6), Port: one("", "", "", "", "http", "5432"), Default: one("", "", "mesh", "80"),
			Reserved: Reserved{forPort(one("default/postgres", "other/x"), one("5432", "http", "80"), tcp): int32(1 + random.IntN(90)), forPort("default/postgres", "53", udp): 53},
		}
		if len(after.Ports) == 0 {
			continue
		}
		if random.IntN(3) == 0 {
			p := after.Ports[random.IntN(len(after.Ports))]
			after.Unserved = map[PortNumber]string{{p.Port, protocol(p)}: "x"}
		}
		before, at := after, random.IntN(len(after.Ports))
		before.Ports = slices.Delete(slices.Clone(after.Ports), at, at+1)
		added := after.Ports[at]
		exported := annotated(exportedWith(generated(random, 4)...),
			PortsAnnotation, one("", "", "5432=15432,53/UDP=53", "80=81"), PortAnnotation, one("", "", "", "http", "80=https,5432=80", "53=53", "x="), SelectAnnotation, one("", "", "", "http, 5432", "80"))
		var assigned Assignments
		if random.IntN(3) == 0 {
			assigned.Published = publishing(record.Port{Port: []int32{80, 443, 5432}[random.IntN(3)], Protocol: tcp, Gateway: int32(random.IntN(90)), Shared: random.IntN(2) == 0})
		}
		was, _ := before.Map(exported, assigned)
		now, _ := after.Map(exported, assigned)
		for i, had := range was {
			has := now[i]
			needs := had.Class
			if needs == Unknown {
				needs = HTTP
			}
			switch {
			case had.Target == has.Target:
				same++
			case had.Target == 0:
				gained++
			case has.Target == 0:
				t.Fatalf("seed %d: %s is added to %v, and %v becomes %v: %v", seed, describe(added), before.Ports, had, has, has.Problem)
			case has.Target != added.Port || protocol(added) != protocol(has.Port) || !serves(added, needs):
				t.Fatalf("seed %d: %s is added to %v, of another class, and %v becomes %v", seed, describe(added), before.Ports, had, has)
			default:
				moved++
			}
		}
	}
	if moved < 100 || gained < 1000 || same < 10_000 {
		t.Errorf("%d endpoints moved, %d were gained, %d stayed: what is generated is too tame", moved, gained, same)
	}
}

func TestValidatePort(t *testing.T) {
	for text, valid := range map[string]bool{
		"1": true, "80": true, "65535": true, "http": true, "a-b": true, "h2c": true, "web-1": true,
		"": false, "0": false, "65536": false, "99999999999": false, "-1": false, "+80": false, "8 0": false,
		"080": false, "HTTP": false, "http_2": false, "-http": false, "1-a": true,
		// As Services have them, not containers.
		"a-name-of-16-chr": true, "a--b": true, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false,
	} {
		if err := ValidatePort(text); (err == nil) != valid {
			t.Errorf("%q: got %v, want valid %v", text, err, valid)
		}
	}
}

// FuzzPort: whatever a remote has as names, protocols and annotations, a port goes to a port that the
// gateway has for its protocol, which does not depend on the order of the gateway's ports, is never one that is reserved for
// another Service, and is of the class unless it was named.
func FuzzPort(f *testing.F) {
	f.Add("http", int32(80), "TCP", "http", "web", int32(8080), "TCP", "kubernetes.io/ws", "", "", "")
	f.Add("", int32(53), "UDP", "", "", int32(53), "", "", "80", "53=7", "53/UDP")
	f.Add("https", int32(443), "", "tls", "https", int32(0), "SCTP", "", "https", "third", "https, 443")
	f.Add("grpc-web-", int32(5432), "TCP", "tcp", "-", int32(7), "TCP", "x", "", "5432=http,=,7", ",,")
	f.Fuzz(func(t *testing.T, name1 string, number1 int32, protocol1, app1, name2 string, number2 int32, protocol2, app2, only, choice, selection string) {
		a, b := port(name1, number1, corev1.Protocol(protocol1), app1), port(name2, number2, corev1.Protocol(protocol2), app2)
		third, taken := port("third", 7, tcp, ""), port("http-taken", 9, tcp, "")
		reserved := Reserved{forPort("other/x", "1", tcp): 9}
		exported := annotated(exportedWith(a, b), PortAnnotation, choice, SelectAnnotation, selection)
		for _, ports := range [][]corev1.ServicePort{{a, third, taken}, {b, third, taken}} {
			gw := &Gateway{Ports: ports, Port: only, Reserved: reserved}
			all, err := gw.Map(exported, Assignments{})
			reversed := slices.Clone(ports)
			slices.Reverse(reversed)
			again, againErr := (&Gateway{Ports: reversed, Port: only, Reserved: reserved}).Map(exported, Assignments{})
			if texts(all) != texts(again) || (err == nil) != (againErr == nil) {
				t.Fatalf("the order of the gateway's ports counts: %v (%v) and %v (%v)", all, err, again, againErr)
			}
			if problem := Problems(all, err); problem != nil && len(problem.Error()) > 8000+4*(len(name1)+len(name2)+len(protocol1)+len(protocol2)) {
				t.Fatalf("a message of %d characters", len(problem.Error()))
			}
			if len(all) == 0 {
				t.Fatal("no port is left")
			}
			for _, m := range all {
				if m.Target == 0 {
					if m.Problem == nil {
						t.Fatalf("%v has no reason", m)
					}
					continue
				}
				i := slices.IndexFunc(gw.Ports, func(p corev1.ServicePort) bool { return p.Port == m.Target && protocol(p) == protocol(m.Port) })
				if i < 0 || m.Target == 9 && protocol(m.Port) == tcp && ports[i].Name == "http-taken" {
					t.Fatalf("%v: the gateway does not have that port for it: %s", m, ListPorts(gw.Ports))
				}
				if explicit := m.Line == ByGatewayPort || m.Line == ByAnnotation; !explicit && !serves(gw.Ports[i], cmp.Or(map[Class]Class{Unknown: HTTP}[m.Class], m.Class)) {
					t.Fatalf("%v, of class %s, is not of the class of %s", m, m.Class, describe(gw.Ports[i]))
				}
				if only != "" && m.Line != ByGatewayPort {
					t.Fatalf("%v, but %q was demanded", m, only)
				}
			}
		}
	})
}
