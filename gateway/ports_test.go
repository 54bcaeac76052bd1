package gateway

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
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

func TestPortRule(t *testing.T) {
	for _, test := range []struct {
		name     string
		gateway  []corev1.ServicePort
		only     string // Gateway.Port
		exported corev1.ServicePort
		want     int32
		wantErr  string // part of the error; empty: none
	}{
		{name: "same name", gateway: web, exported: port("https", 8443, tcp, ""), want: 443},
		{name: "same name is exact", gateway: web, exported: port("HTTPS", 8443, tcp, ""), wantErr: "http (80/TCP), https (443/TCP)"},
		{name: "same name beats appProtocol", gateway: []corev1.ServicePort{port("api", 81, tcp, ""), port("web", 80, tcp, "http")},
			exported: port("api", 80, tcp, "http"), want: 81},
		{name: "same name beats number", gateway: []corev1.ServicePort{port("a", 1, tcp, ""), port("b", 2, tcp, "")},
			exported: port("a", 2, tcp, ""), want: 1},
		{name: "no name is not a name", gateway: []corev1.ServicePort{port("", 1, tcp, ""), port("b", 2, tcp, "")},
			exported: port("", 2, tcp, ""), want: 2},
		{name: "same appProtocol beats number", gateway: []corev1.ServicePort{port("a", 80, tcp, ""), port("b", 8080, tcp, "http")},
			exported: port("web", 80, tcp, "http"), want: 8080},
		{name: "http serves WebSockets", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "https")},
			exported: port("", 9, tcp, "kubernetes.io/ws"), want: 1},
		{name: "https serves TLS", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "https")},
			exported: port("", 9, tcp, "tls"), want: 2},
		{name: "tls serves WebSockets over TLS", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "tls")},
			exported: port("", 9, tcp, "kubernetes.io/wss"), want: 2},
		{name: "h2c serves gRPC", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "kubernetes.io/h2c")},
			exported: port("", 9, tcp, "grpc"), want: 2},
		{name: "gRPC serves h2c", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "grpc")},
			exported: port("", 9, tcp, "h2c"), want: 2},
		{name: "http does not serve h2c", gateway: []corev1.ServicePort{port("a", 1, tcp, "http"), port("b", 2, tcp, "https")},
			exported: port("", 9, tcp, "h2c"), wantErr: "no TCP port of the gateway fits: it has a (1/TCP), b (2/TCP)"},
		{name: "an unknown appProtocol has no family", gateway: []corev1.ServicePort{port("a", 1, tcp, "x.io/y"), port("b", 2, tcp, "x.io/z")},
			exported: port("", 2, tcp, "x.io/y"), want: 2},
		{name: "of one family the lowest", gateway: []corev1.ServicePort{port("a", 8080, tcp, "http"), port("b", 80, tcp, "kubernetes.io/ws")},
			exported: port("web", 9, tcp, "http"), want: 80},
		{name: "same number", gateway: web, exported: port("web", 443, tcp, ""), want: 443},
		{name: "same number beats the only one", gateway: []corev1.ServicePort{port("a", 80, tcp, ""), port("b", 80, udp, "")},
			exported: port("", 80, udp, ""), want: 80},
		{name: "the only one", gateway: []corev1.ServicePort{port("a", 80, tcp, "")}, exported: port("db", 5432, tcp, ""), want: 80},
		{name: "the only one of its protocol", gateway: []corev1.ServicePort{port("a", 80, tcp, ""), port("b", 81, tcp, ""), port("dns", 53, udp, "")},
			exported: port("x", 5353, udp, ""), want: 53},
		{name: "none fits", gateway: web, exported: port("db", 5432, tcp, ""), wantErr: "http (80/TCP), https (443/TCP)"},
		{name: "no ports at all", exported: port("db", 5432, tcp, ""), wantErr: "it has none"},

		{name: "another protocol does not count for the name", gateway: []corev1.ServicePort{port("dns", 53, udp, ""), port("a", 1, tcp, ""), port("b", 2, tcp, "")},
			exported: port("dns", 5353, tcp, ""), wantErr: "no TCP port of the gateway fits"},
		{name: "another protocol does not count for appProtocol", gateway: []corev1.ServicePort{port("a", 1, udp, "http"), port("b", 2, tcp, ""), port("c", 3, tcp, "")},
			exported: port("x", 9, tcp, "http"), wantErr: "no TCP port"},
		{name: "another protocol does not count for the number", gateway: []corev1.ServicePort{port("a", 9, tcp, ""), port("b", 2, udp, ""), port("c", 3, udp, "")},
			exported: port("x", 9, udp, ""), wantErr: "no UDP port"},
		{name: "another protocol does not count for the only one", gateway: []corev1.ServicePort{port("a", 9, tcp, "")},
			exported: port("x", 9, sctp, ""), wantErr: "no SCTP port of the gateway fits: it has a (9/TCP)"},
		{name: "no protocol is TCP", gateway: []corev1.ServicePort{port("a", 9, "", ""), port("a", 10, udp, "")},
			exported: port("a", 80, tcp, ""), want: 9},
		{name: "no protocol is TCP, on the exported side", gateway: []corev1.ServicePort{port("a", 9, tcp, ""), port("a", 10, udp, "")},
			exported: port("a", 80, "", ""), want: 9},

		{name: "gateway-port by name", gateway: web, only: "https", exported: port("http", 80, tcp, "http"), want: 443},
		{name: "gateway-port by number", gateway: web, only: "443", exported: port("http", 80, tcp, "http"), want: 443},
		{name: "gateway-port that the gateway lacks", gateway: web, only: "grpc", exported: port("http", 80, tcp, ""),
			wantErr: `the gateway has no TCP port "grpc": it has http (80/TCP), https (443/TCP)`},
		{name: "gateway-port by a number that the gateway lacks", gateway: web, only: "8080", exported: port("http", 80, tcp, ""),
			wantErr: `the gateway has no TCP port "8080": it has http (80/TCP), https (443/TCP)`},
		{name: "gateway-port of another protocol", gateway: web, only: "http", exported: port("http", 80, udp, ""),
			wantErr: `the gateway has no UDP port "http"`},
	} {
		t.Run(test.name, func(t *testing.T) {
			before, ports := slices.Clone(test.gateway), slices.Clone(test.gateway)
			random := rand.New(rand.NewPCG(1, 2))
			for range 10 { // their order does not matter
				got, err := (&Gateway{Ports: ports, Port: test.only}).port(test.exported)
				if got != test.want {
					t.Fatalf("got port %d (%v), want %d, of %v", got, err, test.want, describeAll(ports))
				}
				if (err != nil) != (test.wantErr != "") {
					t.Fatalf("got error %v, want %q", err, test.wantErr)
				}
				random.Shuffle(len(ports), func(i, j int) { ports[i], ports[j] = ports[j], ports[i] })
			}
			if _, err := (&Gateway{Ports: test.gateway, Port: test.only}).port(test.exported); err != nil && !strings.Contains(err.Error(), test.wantErr) {
				t.Errorf("got error %q, want it to say %q", err, test.wantErr)
			}
			if !reflect.DeepEqual(test.gateway, before) {
				t.Error("the gateway's ports were changed")
			}
		})
	}
}

func describeAll(ports []corev1.ServicePort) []string {
	var out []string
	for _, p := range ports {
		out = append(out, describe(p))
	}
	return out
}

func TestPortErrorStaysShort(t *testing.T) {
	var ports []corev1.ServicePort
	for n := range int32(1000) {
		ports = append(ports, port("", n+1, tcp, ""))
	}
	_, err := (&Gateway{Ports: ports}).port(port("", 2000, tcp, ""))
	if err == nil || len(err.Error()) > 400 || !strings.Contains(err.Error(), "10/TCP, …: set gateway-port") {
		t.Errorf("got %v", err)
	}
}

// exportedWith is an exported Service default/postgres with these ports.
func exportedWith(ports ...corev1.ServicePort) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "postgres"}, Spec: corev1.ServiceSpec{Ports: ports}}
}

func TestTargets(t *testing.T) {
	http := "http"
	for _, test := range []struct {
		name     string
		gateway  []corev1.ServicePort
		exported []corev1.ServicePort
		want     []corev1.EndpointPort
		wantErr  string
	}{
		{
			name:    "every port, with the exported one's name, protocol and appProtocol",
			gateway: append(slices.Clone(web), port("dns", 53, udp, "")),
			exported: []corev1.ServicePort{
				{Name: "https", Port: 8443, Protocol: tcp, NodePort: 30001},
				port("web", 8080, "", "http"),
				port("any", 80, tcp, ""),
				port("names", 5353, udp, ""),
			},
			want: []corev1.EndpointPort{
				{Name: "https", Port: 443, Protocol: tcp},
				{Name: "any", Port: 80, Protocol: tcp},
				{Name: "names", Port: 53, Protocol: udp},
			},
			wantErr: "port web (8080/TCP): no TCP port of the gateway fits",
		},
		{
			name:     "appProtocol is kept",
			gateway:  []corev1.ServicePort{port("", 80, tcp, "")},
			exported: []corev1.ServicePort{port("", 8080, "", "http")},
			want:     []corev1.EndpointPort{{Port: 80, Protocol: tcp, AppProtocol: &http}},
		},
		{
			name:     "every port that is not served is named",
			gateway:  web,
			exported: []corev1.ServicePort{port("a", 1, tcp, ""), port("b", 2, udp, "")},
			wantErr:  "port b (2/UDP)",
		},
		{name: "a gateway without ports is none", exported: web},
		{name: "no ports", gateway: web},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := (&Gateway{Ports: test.gateway}).Targets(exportedWith(test.exported...), nil)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			checkErr(t, err, test.wantErr)
		})
	}
}

func TestValidatePort(t *testing.T) {
	for text, valid := range map[string]bool{
		"1": true, "80": true, "65535": true, "http": true, "a-b": true, "h2c": true, "web-1": true,
		"": false, "0": false, "65536": false, "99999999999": false, "-1": false, "+80": false, "8 0": false,
		"080": false, "HTTP": false, "http_2": false, "-http": false, "a-name-of-16-chr": false, "a--b": false,
	} {
		if err := ValidatePort(text); (err == nil) != valid {
			t.Errorf("%q: got %v, want valid %v", text, err, valid)
		}
	}
}

func FuzzPort(f *testing.F) {
	f.Add("http", int32(80), "TCP", "http", "web", int32(8080), "TCP", "kubernetes.io/ws", "")
	f.Add("", int32(53), "UDP", "", "", int32(53), "", "", "80")
	f.Add("https", int32(443), "", "tls", "https", int32(0), "SCTP", "", "https")
	f.Fuzz(func(t *testing.T, name1 string, number1 int32, protocol1, app1, name2 string, number2 int32, protocol2, app2, only string) {
		a, b := port(name1, number1, corev1.Protocol(protocol1), app1), port(name2, number2, corev1.Protocol(protocol2), app2)
		third := port("third", 7, tcp, "")
		for _, exported := range []corev1.ServicePort{a, b} {
			gw := &Gateway{Ports: []corev1.ServicePort{a, third}, Port: only}
			got, err := gw.port(exported)
			again, againErr := (&Gateway{Ports: []corev1.ServicePort{third, a}, Port: only}).port(exported)
			if got != again || (err == nil) != (againErr == nil) {
				t.Fatalf("the order of the gateway's ports counts: %d (%v) and %d (%v)", got, err, again, againErr)
			}
			if err == nil && !slices.ContainsFunc(gw.Ports, func(p corev1.ServicePort) bool {
				return p.Port == got && protocol(p) == protocol(exported)
			}) {
				t.Fatalf("%s is sent to port %d, which the gateway does not have for its protocol: %s", describe(exported), got, gw.list())
			}
			if err == nil && only != "" && ValidatePort(only) == nil && !slices.ContainsFunc(gw.Ports, func(p corev1.ServicePort) bool {
				n, numeric := number(only)
				return p.Port == got && (p.Name == only || numeric && p.Port == n)
			}) {
				t.Fatalf("port %d is taken, but %q was demanded", got, only)
			}
		}
	})
}
