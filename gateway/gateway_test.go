package gateway

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"
)

var gatewayName = cache.NewObjectName("ingress", "gateway")

// balancer is a gateway Service of type LoadBalancer at these IP addresses.
func balancer(ips ...string) *corev1.Service {
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: gatewayName.Namespace, Name: gatewayName.Name},
		Spec:       corev1.ServiceSpec{Type: corev1.ServiceTypeLoadBalancer, Ports: web},
	}
	for _, ip := range ips {
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{IP: ip})
	}
	return svc
}

// with changes a Service and returns it.
func with(svc *corev1.Service, change func(*corev1.Service)) *corev1.Service {
	change(svc)
	return svc
}

func parse(texts ...string) []netip.Addr {
	var addrs []netip.Addr
	for _, text := range texts {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	return addrs
}

func many(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprintf("192.0.2.%d", n-i))
	}
	return texts
}

func TestRead(t *testing.T) {
	external := func(ips ...string) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Spec.ExternalIPs = ips }
	}
	hostname := func(names ...string) func(*corev1.Service) {
		return func(svc *corev1.Service) {
			for _, name := range names {
				svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: name})
			}
		}
	}
	ofType := func(kind corev1.ServiceType) func(*corev1.Service) {
		return func(svc *corev1.Service) { svc.Spec.Type = kind }
	}
	for _, test := range []struct {
		name      string
		svc       *corev1.Service
		addrs     []netip.Addr
		hostnames []string
		wantErr   string
	}{
		{name: "one address", svc: balancer("192.0.2.1"), addrs: parse("192.0.2.1")},
		{name: "sorted", svc: balancer("192.0.2.10", "192.0.2.9", "2001:db8::1"), addrs: parse("192.0.2.9", "192.0.2.10", "2001:db8::1")},
		{name: "each once", svc: balancer("192.0.2.1", "192.0.2.1", "2001:db8::1", "2001:DB8:0::1"), addrs: parse("192.0.2.1", "2001:db8::1")},
		{name: "IPv4-mapped is IPv4", svc: balancer("::ffff:192.0.2.1", "192.0.2.1"), addrs: parse("192.0.2.1")},
		{name: "private addresses are allowed", svc: balancer("10.0.0.1", "172.16.0.1", "192.168.0.1", "fd00::1", "100.64.0.1"),
			addrs: parse("10.0.0.1", "100.64.0.1", "172.16.0.1", "192.168.0.1", "fd00::1")},
		{name: "no address yet", svc: balancer(), wantErr: "gateway Service ingress/gateway has no address yet"},
		{name: "an empty entry is none", svc: balancer(""), wantErr: "no address yet"},
		{name: "NodePort", svc: with(balancer(), ofType(corev1.ServiceTypeNodePort)),
			wantErr: "is of type NodePort and has no external address: make it a LoadBalancer, or set address=IP with a numeric gateway-port, the port of the gateway at that address"},
		{name: "NodePort with its node ports", svc: with(with(balancer(), ofType(corev1.ServiceTypeNodePort)), func(svc *corev1.Service) {
			svc.Spec.Ports = slices.Clone(web)
			svc.Spec.Ports[0].NodePort, svc.Spec.Ports[1].NodePort = 30080, 30443
		}), wantErr: "address=IP with a numeric gateway-port, the node port: 30080 for http (80/TCP), 30443 for https (443/TCP)"},
		{name: "ClusterIP", svc: with(balancer(), ofType(corev1.ServiceTypeClusterIP)),
			wantErr: "is of type ClusterIP and has no external address: make it a LoadBalancer, or set address=IP with a numeric gateway-port, the port of the gateway"},
		{name: "NodePort with an externalIP", svc: with(with(balancer(), ofType(corev1.ServiceTypeNodePort)), external("192.0.2.7")), addrs: parse("192.0.2.7")},
		{name: "externalIPs where there is no ingress", svc: with(balancer(), external("192.0.2.8", "192.0.2.7")), addrs: parse("192.0.2.7", "192.0.2.8")},
		{name: "ingress counts alone", svc: with(balancer("192.0.2.1"), external("192.0.2.7")), addrs: parse("192.0.2.1")},
		{name: "ingress counts alone even when all of it is refused", svc: with(balancer("127.0.0.1"), external("192.0.2.7")), wantErr: "address 127.0.0.1 is refused"},
		{name: "a hostname counts alone too", svc: with(with(balancer(), hostname("gw.example.com")), external("192.0.2.7")), hostnames: []string{"gw.example.com"}},
		{name: "addresses and hostnames", svc: with(balancer("192.0.2.1"), hostname("b.example.com", "a.example.com")),
			addrs: parse("192.0.2.1"), hostnames: []string{"a.example.com", "b.example.com"}},
		{name: "hostnames once each, however they are written", svc: with(balancer(), hostname("A.Example.com.", "a.example.com", "b.EXAMPLE.com")), hostnames: []string{"a.example.com", "b.example.com"}},
		{name: "hostnames once each", svc: with(balancer(), hostname("a.example.com", "a.example.com")), hostnames: []string{"a.example.com"}},
		{name: "a hostname of this cluster", svc: with(balancer("192.0.2.1"), hostname("bar.default.svc.cluster.local")), addrs: parse("192.0.2.1"),
			wantErr: `hostname "bar.default.svc.cluster.local" is refused: it is in the domain of this cluster, cluster.local`},
		{name: "a hostname of this cluster, written otherwise", svc: with(balancer(), hostname("Bar.Cluster.LOCAL.")), wantErr: "it is in the domain of this cluster"},
		{name: "no hostname", svc: with(balancer(), hostname("gw_1.example.com")), wantErr: `hostname "gw_1.example.com" is refused: not a hostname`},
		{name: "hostnames stay few", svc: with(balancer(), hostname(manyNames(17)...)), hostnames: manyNames(16), wantErr: "the gateway has 17 hostnames: only the first 16 are resolved"},
		{name: "some refused", svc: balancer("127.0.0.1", "192.0.2.1"), addrs: parse("192.0.2.1"), wantErr: "address 127.0.0.1 is refused"},
		{name: "nonsense", svc: balancer("example.com", "192.0.2.1"), addrs: parse("192.0.2.1"), wantErr: `address "example.com" is refused: not an IP address`},
		{name: "refusals stay few", svc: balancer("127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"), wantErr: "127.0.0.3 is refused: not a unicast address that is routable between clusters\nand 2 more"},
		{name: "refused externalIPs", svc: with(balancer(), external("::1")), wantErr: "address ::1 is refused"},
	} {
		t.Run(test.name, func(t *testing.T) {
			entrance, err := Config{Service: gatewayName}.Read(test.svc, Filter{Domain: "cluster.local"})
			gw, refused := entrance.Gateway(nil, true, Filter{})
			err = errors.Join(err, refused)
			addrs, hostnames := plain(gw.Addresses), entrance.Hostnames
			if !slices.Equal(addrs, test.addrs) || !slices.Equal(hostnames, test.hostnames) {
				t.Errorf("got %v and %q, want %v and %q", addrs, hostnames, test.addrs, test.hostnames)
			}
			checkErr(t, err, test.wantErr)
			if want := strings.Contains(fmt.Sprint(err), "is refused") && len(addrs)+len(hostnames) == 0; gw.Refused != want {
				t.Errorf("all is refused: %t, want %t", gw.Refused, want)
			}
		})
	}
}

// failing adds an ingress entry that reports errors of ports, by number.
func failing(svc *corev1.Service, ip string, protocol corev1.Protocol, errs map[int32]string) *corev1.Service {
	entry := corev1.LoadBalancerIngress{IP: ip}
	for _, number := range slices.Sorted(maps.Keys(errs)) {
		status := corev1.PortStatus{Port: number, Protocol: protocol}
		if errs[number] != "" {
			status.Error = new(errs[number])
		}
		entry.Ports = append(entry.Ports, status)
	}
	svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, entry)
	return svc
}

func TestIngressPortErrors(t *testing.T) {
	const mixed = "gateway port 443/TCP is not served: its load balancer reports the error \"MixedProtocolNotSupported\" at 192.0.2.1: fix the load balancer of the gateway Service"
	broken := map[int32]string{443: "MixedProtocolNotSupported"}
	exported := exportedWith(port("http", 80, tcp, ""), port("https", 443, tcp, ""))
	for _, test := range []struct {
		name    string
		svc     *corev1.Service
		config  Config
		want    []int32 // the gateway ports that are used
		wantErr string  // of the gateway and of the mirror
	}{
		{name: "no error", svc: failing(balancer(), "192.0.2.1", tcp, map[int32]string{80: "", 443: ""}), want: []int32{80, 443}},
		{name: "one port", svc: failing(balancer(), "192.0.2.1", tcp, broken), want: []int32{80}, wantErr: mixed},
		{name: "TCP is the default", svc: failing(balancer(), "192.0.2.1", "", broken), want: []int32{80}, wantErr: mixed},
		{name: "of another protocol", svc: failing(balancer(), "192.0.2.1", udp, broken), want: []int32{80, 443}},
		{name: "of a port that the Service lacks", svc: failing(balancer(), "192.0.2.1", tcp, map[int32]string{8443: "X"}), want: []int32{80, 443}},
		{name: "every port", svc: failing(balancer(), "192.0.2.1", tcp, map[int32]string{80: "a.example.com/Quota", 443: "X"}),
			wantErr: `gateway port 80/TCP is not served: its load balancer reports the error "a.example.com/Quota" at 192.0.2.1`},
		{name: "at every address", svc: failing(failing(balancer(), "192.0.2.2", tcp, broken), "192.0.2.1", tcp, broken), want: []int32{80}, wantErr: mixed},
		{name: "at one address of two", svc: failing(balancer("192.0.2.2"), "192.0.2.1", tcp, broken), want: []int32{80}, wantErr: mixed},
		{name: "at a hostname", svc: with(failing(balancer(), "", tcp, broken), func(svc *corev1.Service) {
			svc.Status.LoadBalancer.Ingress[0].Hostname = "gw.example.com"
		}), want: []int32{80}, wantErr: `"MixedProtocolNotSupported" at gw.example.com`},
		{name: "at an entry without an address", svc: with(failing(balancer(), "", tcp, broken), func(svc *corev1.Service) {
			svc.Spec.ExternalIPs = []string{"192.0.2.7"}
		}), want: []int32{80, 443}},
		{name: "at an address that the flags replace", svc: failing(balancer(), "192.0.2.1", tcp, broken), config: Config{Addresses: parse("192.0.2.9")}, want: []int32{80, 443}},
		{name: "the port that all traffic is to use", svc: failing(balancer(), "192.0.2.1", tcp, broken), config: Config{Port: "https"}, wantErr: mixed},
		{name: "a long error", svc: failing(balancer(), "192.0.2.1", tcp, map[int32]string{443: strings.Repeat("x", 5000)}), want: []int32{80}, wantErr: strings.Repeat("x", 100) + `" at`},
	} {
		t.Run(test.name, func(t *testing.T) {
			test.config.Service = gatewayName
			gw, err := resolve(test.config, test.svc, Filter{})
			checkErr(t, err, test.wantErr)
			mapping, err := gw.Map(exported, Assignments{})
			targets, err := Targets(mapping), Problems(mapping, err)
			checkErr(t, err, test.wantErr)
			var got []int32
			for _, target := range targets {
				got = append(got, target.Port)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("ports %v are used, want %v", got, test.want)
			}
			slices.Reverse(test.svc.Status.LoadBalancer.Ingress)
			if reversed, _ := resolve(test.config, test.svc, Filter{}); !reversed.Equal(gw) {
				t.Error("the order of the entries matters")
			}
		})
	}
}

// A port that is reserved is served no more than any other.
func TestReservedPortWithAnError(t *testing.T) {
	svc := failing(balancer(), "192.0.2.1", tcp, map[int32]string{443: "X"})
	gw, _ := resolve(Config{Service: gatewayName}, svc, Filter{})
	gw.Reserved = Reserved{forPort("default/postgres", "5432", tcp): 443}
	mapping, err := gw.Map(exportedWith(port("db", 5432, tcp, "")), Assignments{})
	targets := Targets(mapping)
	if len(targets) > 0 {
		t.Errorf("it is routed to %+v", targets)
	}
	checkErr(t, Problems(mapping, err), "port db (5432/TCP): gateway port 443/TCP is not served")
}

// plain are addresses without their health.
func plain(addresses []Address) (addrs []netip.Addr) {
	for _, address := range addresses {
		addrs = append(addrs, address.Addr)
	}
	return addrs
}

func addresses(texts ...string) (all []Address) {
	for _, addr := range parse(texts...) {
		all = append(all, Address{Addr: addr})
	}
	slices.SortFunc(all, func(a, b Address) int { return a.Compare(b.Addr) })
	return all
}

func manyNames(n int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("gw%02d.example.com", i))
	}
	return names
}

// resolve is Read and Gateway in one, for gateways without hostnames.
func resolve(config Config, svc *corev1.Service, filter Filter) (*Gateway, error) {
	entrance, err := config.Read(svc, filter)
	gw, refused := entrance.Gateway(nil, len(entrance.Hostnames) == 0, filter)
	return gw, errors.Join(err, refused)
}

// checkErr wants an error that contains a text; the empty text wants none.
func checkErr(t *testing.T, err error, want string) {
	t.Helper()
	if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
		t.Errorf("got error %v, want %q", err, want)
	}
}

// refused are addresses that would route back into the local cluster or nowhere.
var refused = []string{
	"127.0.0.1", "127.255.255.254", "::1", "::ffff:127.0.0.1",
	"0.0.0.0", "::", "::ffff:0.0.0.0",
	"169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "::ffff:169.254.169.254",
	"224.0.0.1", "239.255.255.255", "ff02::1", "ff0e::1",
	"255.255.255.255",
	"2001:db8::1%eth0",
}

func TestRefusedAddresses(t *testing.T) {
	for _, text := range refused {
		gw, err := resolve(Config{Service: gatewayName}, balancer(text), Filter{})
		if len(gw.Addresses) != 0 || err == nil || !strings.Contains(err.Error(), "refused") {
			t.Errorf("ingress %s: got %v and %v", text, gw.Addresses, err)
		}
		err = Config{Service: gatewayName, Addresses: parse(text)}.Validate(Filter{})
		if err == nil || !strings.Contains(err.Error(), "address="+text) {
			t.Errorf("flag %s: got %v", text, err)
		}
	}
}

func TestValidate(t *testing.T) {
	for _, test := range []struct {
		name    string
		config  Config
		wantErr string
	}{
		{name: "nothing", wantErr: "no gateway is configured"},
		{name: "a Service", config: Config{Service: gatewayName}},
		{name: "an address and a number", config: Config{Addresses: parse("192.0.2.1"), Port: "443"}},
		{name: "an address and a name", config: Config{Addresses: parse("192.0.2.1"), Port: "https"}, wantErr: "no gateway is configured"},
		{name: "an address alone", config: Config{Addresses: parse("192.0.2.1")}, wantErr: "no gateway is configured"},
		{name: "a number alone", config: Config{Port: "443"}, wantErr: "no gateway is configured"},
		{name: "an address and a Service", config: Config{Service: gatewayName, Addresses: parse("192.0.2.1")}},
		{name: "one address of two refused", config: Config{Service: gatewayName, Addresses: parse("192.0.2.1", "127.0.0.1")}, wantErr: "address=127.0.0.1"},
		{name: "a denied address", config: Config{Service: gatewayName, Addresses: parse("198.51.100.1")}, wantErr: "address=198.51.100.1: --gateway-deny contains 198.51.100.0/24"},
		{name: "a hostname and a number", config: Config{Hostnames: []string{"gw.example.com"}, Port: "443"}},
		{name: "a hostname of this cluster", config: Config{Hostnames: []string{"gw.svc.cluster.local"}, Port: "443"}, wantErr: "address=gw.svc.cluster.local: it is in the domain of this cluster"},
	} {
		t.Run(test.name, func(t *testing.T) {
			checkErr(t, test.config.Validate(Filter{Domain: "cluster.local", Deny: []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}}), test.wantErr)
		})
	}
}

func TestResolve(t *testing.T) {
	service := Config{Service: gatewayName}
	for _, test := range []struct {
		name    string
		config  Config
		svc     *corev1.Service
		want    *Gateway
		wantErr string
	}{
		{name: "ingress", config: service, svc: balancer("192.0.2.2", "192.0.2.1"), want: &Gateway{Addresses: addresses("192.0.2.1", "192.0.2.2"), Ports: web}},
		{name: "gateway-port is handed on", config: Config{Service: gatewayName, Port: "https"}, svc: balancer("192.0.2.1"),
			want: &Gateway{Addresses: addresses("192.0.2.1"), Ports: web, Port: "https"}},
		{name: "no address yet: known to have none", config: service, svc: balancer(), want: &Gateway{Ports: web}, wantErr: "no address yet"},
		{name: "all refused: known to have none", config: service, svc: balancer("127.0.0.1"), want: &Gateway{Ports: web, Refused: true}, wantErr: "refused"},
		{name: "the Service is gone: known to have none", config: service, want: &Gateway{}, wantErr: "gateway Service ingress/gateway does not exist"},
		{name: "the first 64 addresses", config: service, svc: balancer(many(MaxAddresses)...), want: &Gateway{Addresses: addresses(many(64)...), Ports: web}},
		{name: "the 65th is left out", config: service, svc: balancer(many(65)...), want: &Gateway{Addresses: addresses(many(64)...), Ports: web},
			wantErr: "the gateway has 65 addresses: only the first 64 are used"},
		{name: "duplicates do not count", config: service, svc: balancer(append(many(64), many(64)...)...), want: &Gateway{Addresses: addresses(many(64)...), Ports: web}},
		{name: "the flag's addresses, the Service's ports", config: Config{Service: gatewayName, Addresses: parse("192.0.2.9", "::ffff:192.0.2.8", "192.0.2.9")}, svc: balancer("192.0.2.1"),
			want: &Gateway{Addresses: addresses("192.0.2.8", "192.0.2.9"), Ports: web}},
		{name: "the flag's addresses make a NodePort do", config: Config{Service: gatewayName, Addresses: parse("192.0.2.9")},
			svc:  with(balancer(), func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeNodePort }),
			want: &Gateway{Addresses: addresses("192.0.2.9"), Ports: web}},
		{name: "an address and a number need no Service", config: Config{Addresses: parse("192.0.2.9"), Port: "443"},
			want: &Gateway{Addresses: addresses("192.0.2.9"), Port: "443", Static: true, Ports: []corev1.ServicePort{port("", 443, tcp, ""), port("", 443, udp, ""), port("", 443, sctp, "")}}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := test.svc.DeepCopy()
			got, err := resolve(test.config, test.svc, Filter{})
			if !got.Equal(test.want) {
				t.Errorf("got  %+v\nwant %+v", got, test.want)
			}
			checkErr(t, err, test.wantErr)
			if !reflect.DeepEqual(test.svc, before) {
				t.Error("the Service was changed")
			}
		})
	}
}

func TestResolveDoesNotChangeTheFlags(t *testing.T) {
	config := Config{Service: gatewayName, Addresses: parse("192.0.2.9", "192.0.2.8")}
	if _, err := resolve(config, balancer(), Filter{}); err != nil {
		t.Fatal(err)
	}
	if want := parse("192.0.2.9", "192.0.2.8"); !slices.Equal(config.Addresses, want) {
		t.Errorf("the flag's addresses are %v now", config.Addresses)
	}
}

func TestStaticGatewayServesEveryProtocol(t *testing.T) {
	gw, err := resolve(Config{Addresses: parse("192.0.2.9"), Port: "443"}, nil, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	for _, protocol := range []corev1.Protocol{tcp, udp, sctp, ""} {
		if got := gw.one(port("x", 1, protocol, "")); got.Target != 443 {
			t.Errorf("%s: got %v, %v", protocol, got, got.Problem)
		}
	}
}

func TestReadsService(t *testing.T) {
	addrs := parse("192.0.2.1")
	for _, test := range []struct {
		config Config
		want   bool
	}{
		{Config{}, true},
		{Config{Port: "80"}, true},
		{Config{Addresses: addrs}, true},
		{Config{Addresses: addrs, Port: "http"}, true},
		{Config{Addresses: addrs, Port: "80"}, false},
	} {
		if got := test.config.ReadsService(); got != test.want {
			t.Errorf("%+v: got %v", test.config, got)
		}
	}
}

func TestEqual(t *testing.T) {
	make := func(change func(*Gateway)) *Gateway {
		gw := &Gateway{Addresses: addresses("192.0.2.1", "192.0.2.2"), Ports: slices.Clone(web), Port: "http"}
		change(gw)
		return gw
	}
	same := make(func(*Gateway) {})
	for _, test := range []struct {
		name string
		a, b *Gateway
		want bool
	}{
		{"both unknown", nil, nil, true},
		{"one unknown", nil, same, false},
		{"the other unknown", same, nil, false},
		{"unknown is not empty", nil, &Gateway{}, false},
		{"same", same, make(func(*Gateway) {}), true},
		{"nil and empty are one", &Gateway{}, &Gateway{Addresses: []Address{}, Ports: []corev1.ServicePort{}}, true},
		{"fewer addresses", same, make(func(gw *Gateway) { gw.Addresses = gw.Addresses[:1] }), false},
		{"other addresses", same, make(func(gw *Gateway) { gw.Addresses = addresses("192.0.2.1", "192.0.2.3") }), false},
		{"other ports", same, make(func(gw *Gateway) { gw.Ports[0].Port++ }), false},
		{"other appProtocol", same, make(func(gw *Gateway) { gw.Ports[0] = port("http", 80, tcp, "http") }), false},
		{"another health", same, make(func(gw *Gateway) { gw.Addresses[0].Health = NotReady }), false},
		{"not all known", same, make(func(gw *Gateway) { gw.Partial = true }), false},
		{"one family known", make(func(gw *Gateway) { gw.Partial = true }), make(func(gw *Gateway) { gw.Partial, gw.Missing = true, corev1.IPv6Protocol }), false},
		{"all refused", same, make(func(gw *Gateway) { gw.Refused = true }), false},
		{"another default", same, make(func(gw *Gateway) { gw.Default = "http" }), false},
		{"ports of the flags", same, make(func(gw *Gateway) { gw.Static = true }), false},
		{"a reserved port", same, make(func(gw *Gateway) { gw.Reserved = Reserved{{Port: "1"}: 2} }), false},
		{"Linkerd's", same, make(func(gw *Gateway) { gw.Linkerd.Identity = "i" }), false},
		{"a port with an error", same, make(func(gw *Gateway) { gw.Unserved = map[PortNumber]string{{443, tcp}: "X"} }), false},
		{"another port demanded", same, make(func(gw *Gateway) { gw.Port = "https" }), false},
	} {
		if got := test.a.Equal(test.b); got != test.want {
			t.Errorf("%s: got %v", test.name, got)
		}
	}
}

// full is a gateway Service with every field that Read might read.
func full() *corev1.Service {
	svc := balancer("192.0.2.1", "127.0.0.1")
	svc.UID, svc.ResourceVersion = "u", "7"
	svc.Labels, svc.Annotations = map[string]string{"a": "b"}, map[string]string{"c": "d", identityAnnotation: "gw.paris"}
	svc.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: "kubectl"}}
	svc.Spec.ClusterIP, svc.Spec.ClusterIPs = "10.0.0.1", []string{"10.0.0.1"}
	svc.Spec.Selector = map[string]string{"app": "envoy"}
	svc.Spec.ExternalIPs = []string{"192.0.2.7"}
	svc.Spec.LoadBalancerIP, svc.Spec.ExternalName = "192.0.2.8", "gw.example.com"
	svc.Status.Conditions = []metav1.Condition{{Type: "Ready"}}
	return svc
}

func TestTrim(t *testing.T) {
	want := balancer("192.0.2.1", "127.0.0.1")
	want.UID, want.ResourceVersion = "u", "7"
	want.Spec.ExternalIPs = []string{"192.0.2.7"}
	want.Annotations = map[string]string{identityAnnotation: "gw.paris"}
	if got := Trim(full()); !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
}

// TestTrimKeepsWhatReadReads is a law: a trimmed gateway Service gives the same gateway
// as the whole one.
func TestTrimKeepsWhatReadReads(t *testing.T) {
	for _, change := range []func(*corev1.Service){
		func(*corev1.Service) {},
		func(svc *corev1.Service) { svc.Status.LoadBalancer.Ingress = nil },
		func(svc *corev1.Service) { svc.Status.LoadBalancer.Ingress = nil; svc.Spec.ExternalIPs = nil },
		func(svc *corev1.Service) {
			svc.Status.LoadBalancer.Ingress, svc.Spec.ExternalIPs, svc.Spec.Type = nil, nil, corev1.ServiceTypeNodePort
		},
		func(svc *corev1.Service) { svc.Status.LoadBalancer.Ingress[0].IPMode = new(corev1.LoadBalancerIPMode) },
		func(svc *corev1.Service) { failing(svc, "192.0.2.3", tcp, map[int32]string{443: "X"}) },
		func(svc *corev1.Service) { svc.Spec.Ports = nil },
		func(svc *corev1.Service) {
			svc.Spec.Ports = []corev1.ServicePort{port("a", 1, udp, "http"), port("b", 2, "", "tls")}
		},
		func(svc *corev1.Service) {
			svc.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{Hostname: "gw.example.com"}}
		},
	} {
		svc := with(full(), change)
		for _, config := range []Config{
			{Service: gatewayName},
			{Service: gatewayName, Port: "http"},
			{Service: gatewayName, Addresses: parse("192.0.2.9")},
			{Service: gatewayName, Domain: "paris.local"},
		} {
			whole, wholeErr := resolve(config, svc, Filter{})
			cut, cutErr := resolve(config, Trim(svc), Filter{})
			if !reflect.DeepEqual(whole, cut) || fmt.Sprint(wholeErr) != fmt.Sprint(cutErr) {
				t.Errorf("%+v\nwhole: %+v, %v\ncut:   %+v, %v", svc, whole, wholeErr, cut, cutErr)
			}
		}
	}
}

// A reordered status must write nothing.
func TestOrderOfAddressesDoesNotMatter(t *testing.T) {
	config := Config{Service: gatewayName}
	forth, _ := resolve(config, balancer("192.0.2.1", "2001:db8::1", "192.0.2.3"), Filter{})
	back, _ := resolve(config, balancer("192.0.2.3", "2001:db8::1", "192.0.2.1"), Filter{})
	if !forth.Equal(back) {
		t.Errorf("%+v and %+v", forth, back)
	}
}

func FuzzRead(f *testing.F) {
	f.Add("192.0.2.1", "", "192.0.2.7")
	f.Add("", "gw.example.com", "::ffff:192.0.2.1")
	for _, text := range refused {
		f.Add(text, "", text)
	}
	f.Fuzz(func(t *testing.T, ip, hostname, external string) {
		svc := balancer(ip, "192.0.2.1")
		svc.Status.LoadBalancer.Ingress = append(svc.Status.LoadBalancer.Ingress, corev1.LoadBalancerIngress{Hostname: hostname})
		svc.Spec.ExternalIPs = []string{external}
		for _, svc := range []*corev1.Service{svc, with(balancer(), func(s *corev1.Service) { s.Spec = svc.Spec })} {
			read, _ := resolve(Config{Service: gatewayName}, svc, Filter{})
			addrs := plain(read.Addresses)
			for i, addr := range addrs {
				if addr.Zone() != "" || addr.Is4In6() || !addr.IsGlobalUnicast() {
					t.Errorf("%q, %q: %v is not refused", ip, external, addr)
				}
				if i > 0 && addrs[i-1].Compare(addr) >= 0 {
					t.Errorf("%v are not sorted and unique", addrs)
				}
			}
			config := Config{Service: gatewayName}
			gw, err := resolve(config, svc, Filter{})
			if err == nil && len(gw.Addresses) == 0 && !gw.Partial {
				t.Errorf("no address, and no error: %+v", gw)
			}
			if cut, cutErr := resolve(config, Trim(svc), Filter{}); !reflect.DeepEqual(gw, cut) || fmt.Sprint(err) != fmt.Sprint(cutErr) {
				t.Errorf("trimmed it gives another gateway: %+v and %+v", gw, cut)
			}
		}
	})
}
