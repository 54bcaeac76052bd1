package remote

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

func TestParseSpec(t *testing.T) {
	one := []gateway.Config{{}} // of which the shared flags say more
	host := cache.NewObjectName
	for _, test := range []struct {
		text string
		want Spec
	}{
		{"paris=paris.kubeconfig", Spec{Name: "paris", Kubeconfig: "paris.kubeconfig", Gateways: one}},
		{"paris=/etc/a=b/config", Spec{Name: "paris", Kubeconfig: "/etc/a=b/config", Gateways: one}},
		{"eu-1=a,context=admin@eu", Spec{Name: "eu-1", Kubeconfig: "a", Context: "admin@eu", Gateways: one}},
		{"paris=a,context=x=y", Spec{Name: "paris", Kubeconfig: "a", Context: "x=y", Gateways: one}},
		{"paris=a,gateway=ingress/gateway", Spec{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{{Service: cache.NewObjectName("ingress", "gateway")}}}},
		{"paris=a,gateway=gateway-api:ingress/public.v1,records=service-mirror", Spec{Name: "paris", Kubeconfig: "a", Records: "service-mirror",
			Gateways: []gateway.Config{{Service: cache.NewObjectName("ingress", "public.v1"), API: true}}}},
		{"paris=a,gateway-port=https", Spec{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{{Port: "https"}}}},
		{"paris=a,default-gateway-port=web", Spec{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{{Default: "web"}}}},
		{"paris=a,gateway-port=443", Spec{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{{Port: "443"}}}},
		{"paris=a,address=192.0.2.1,address=2001:db8::1", Spec{Name: "paris", Kubeconfig: "a",
			Gateways: []gateway.Config{{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("2001:db8::1")}}}}},
		{"paris=a,namespaces=b", Spec{Name: "paris", Kubeconfig: "a", Namespaces: []string{"b"}, Gateways: one}},
		{"paris=a,namespaces=b,c,d,uid=u", Spec{Name: "paris", Kubeconfig: "a", UID: "u", Namespaces: []string{"b", "c", "d"}, Gateways: one}},
		{"paris=a,name={cluster}-{service},namespace=web:shop,namespaces=web,b,namespace=b:c", Spec{Name: "paris", Kubeconfig: "a", Namespaces: []string{"web", "b"}, Gateways: one,
			Template: "{cluster}-{service}", Local: map[string]string{"web": "shop", "b": "c"}}},
		{"paris=a,max-services=50000,max-bytes=64Mi", Spec{Name: "paris", Kubeconfig: "a", Limits: Limits{Services: 50_000, Bytes: 64 << 20}, Gateways: one}},
		{"paris=a,uid=d6f5", Spec{Name: "paris", Kubeconfig: "a", UID: "d6f5", Gateways: one}},
		{"paris=a,uid=u,gateway-port=443,context=c,gateway=n/s,address=192.0.2.1", Spec{Name: "paris", Kubeconfig: "a", Context: "c", UID: "u",
			Gateways: []gateway.Config{{Service: cache.NewObjectName("n", "s"), Port: "443", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}}}}},
		{"paris=a,address=gw.example.com,address=192.0.2.1,address=lb.example.com", Spec{Name: "paris", Kubeconfig: "a",
			Gateways: []gateway.Config{{Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, Hostnames: []string{"gw.example.com", "lb.example.com"}}}}},
		{"paris=a,gateway=a/b,tcp-services=c/d.e,udp-services=f/g,cluster-domain=paris.local,gateway=h/i", Spec{Name: "paris", Kubeconfig: "a", Gateways: []gateway.Config{
			{Service: host("a", "b"), TCPServices: host("c", "d.e"), UDPServices: host("f", "g"), Domain: "paris.local"},
			{Service: host("h", "i"), TCPServices: host("c", "d.e"), UDPServices: host("f", "g"), Domain: "paris.local"}}}},
	} {
		got, err := ParseSpec(test.text)
		if err != nil || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s:\ngot  %+v, %v\nwant %+v", test.text, got, err, test.want)
		}
	}
}

func TestParseSpecMistakes(t *testing.T) {
	const noName, noPath = "is not a DNS label", "no kubeconfig: set NAME=PATH"
	for _, test := range []struct {
		text string
		want []string // a part of each line
	}{
		{"", []string{`name "" ` + noName, noPath}},
		{"paris", []string{noPath}},
		{"paris=", []string{noPath}},
		{"=a", []string{`name "" ` + noName}},
		{"Paris=a", []string{`name "Paris" ` + noName}},
		{"pa.ris=a", []string{`name "pa.ris" ` + noName}},
		{"-paris=a", []string{noName}},
		{strings.Repeat("a", 64) + "=a", []string{noName}},
		{"paris=a,", []string{`"" is not KEY=VALUE`}},
		{"paris=a,context", []string{`"context" is not KEY=VALUE`}},
		{"paris=a,context=", []string{`"context=" is not KEY=VALUE`}},
		{"paris=a,contxt=b", []string{`unknown key "contxt": the keys are context=, namespaces=, namespace=, name=, gateway=, gateway-port=, default-gateway-port=, address=, tcp-services=, udp-services=, records=, cluster-domain=, max-services=, max-bytes= and uid=`}},
		{"paris=a,context=b,context=c", []string{"context= is set twice: remove one"}},
		{"paris=a,namespace=web", []string{"namespace=web is not REMOTE:LOCAL, two namespace names"}},
		{"paris=a,namespace=web:Shop", []string{"namespace=web:Shop is not REMOTE:LOCAL"}},
		{"paris=a,namespace=web:shop,namespace=web:b", []string{"namespace= is set twice for web: remove one"}},
		{"paris=a,max-services=0", []string{"max-services=0 is not a number from 1 to 1000000"}},
		{"paris=a,max-services=-1", []string{"max-services=-1 is not a number"}},
		{"paris=a,max-services=1e9", []string{"max-services=1e9 is not a number"}},
		{"paris=a,max-services=1000001", []string{"max-services=1000001 is not a number"}},
		{"paris=a,max-bytes=1Mb", []string{"max-bytes=1Mb is not a size from 1Mi to 4Gi, such as 64Mi"}},
		{"paris=a,max-bytes=1000", []string{"max-bytes=1000 is not a size"}},
		{"paris=a,max-bytes=5Gi", []string{"max-bytes=5Gi is not a size"}},
		{"paris=a,max-bytes=NaN", []string{"max-bytes=NaN is not a size"}},
		{"paris=a,max-bytes=1e999999", []string{"is not a size"}},
		{"paris=a,uid=b,uid=b", []string{"uid= is set twice: remove one"}},
		{"paris=a,gateway=a/b,gateway=a/b", []string{"gateway=a/b is set twice: remove one"}},
		{"paris=a,namespaces=B,c", []string{`namespaces= contains "B", which is not a valid namespace name`}},
		{"paris=a,namespaces=b,c,b", []string{"namespaces= contains b twice: remove one"}},
		{"paris=a,namespaces=b,namespaces=c", []string{"namespaces= is set twice: remove one"}},
		{"paris=a,namespaces=b,uid=u,c", []string{`"c" is not KEY=VALUE`}},
		{"paris=a,gateway=b", []string{`gateway "b" is not NAMESPACE/NAME`}},
		{"paris=a,gateway=a/b/c", []string{`gateway "a/b/c" is not NAMESPACE/NAME`}},
		{"paris=a,gateway=gateway-api:b", []string{`gateway "gateway-api:b" is not gateway-api:NAMESPACE/NAME`}},
		{"paris=a,gateway=a/b,gateway=gateway-api:a/b", []string{"gateway=a/b is set twice: remove one"}},
		{"paris=a,records=a/b", []string{"records=a/b is not a valid namespace name"}},
		{"paris=a,records=a,records=b", []string{"records= is set twice: remove one"}},
		{"paris=a,gateway=/b", []string{"is not NAMESPACE/NAME"}},
		{"paris=a,gateway=a/", []string{"is not NAMESPACE/NAME"}},
		{"paris=a,gateway=A/b", []string{"is not NAMESPACE/NAME"}},
		{"paris=a,gateway-port=0", []string{`gateway-port "0" is neither a port's name nor a number`}},
		{"paris=a,default-gateway-port=0", []string{`default-gateway-port "0" is neither a port's name nor a number`}},
		{"paris=a,gateway-port=65536", []string{`gateway-port "65536"`}},
		{"paris=a,gateway-port=HTTP", []string{`gateway-port "HTTP"`}},
		{"paris=a,address=gw_1.example.com", []string{"address=gw_1.example.com is neither an IP address nor a hostname"}},
		{"paris=a,address=192.0.2.0/24", []string{"address=192.0.2.0/24 is neither an IP address nor a hostname"}},
		{"paris=a,address=192.0.2.1:80", []string{"is neither an IP address"}},
		{"paris=a,gateway=a/b,gateway=a/c,address=192.0.2.1", []string{"address= is ambiguous with several gateways"}},
		{"paris=a,tcp-services=x", []string{"tcp-services=x is not NAMESPACE/NAME of a ConfigMap"}},
		{"paris=a,udp-services=x/Y", []string{"udp-services=x/Y is not NAMESPACE/NAME"}},
		{"paris=a,cluster-domain=x_y", []string{`cluster domain "x_y" is not a DNS domain`}},
		{"Paris,gateway=b,address=c_,x=y,uid=", []string{noName, noPath, "NAMESPACE/NAME", "IP address", `unknown key "x"`, `"uid=" is not KEY=VALUE`}},
	} {
		_, err := ParseSpec(test.text)
		if err == nil {
			t.Errorf("%s: no mistake is found", test.text)
			continue
		}
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != len(test.want) {
			t.Errorf("%s: got %d mistakes, want %d:\n%v", test.text, len(lines), len(test.want), err)
			continue
		}
		for i, line := range lines {
			if !strings.Contains(line, test.want[i]) {
				t.Errorf("%s: mistake %d is %q, want %q", test.text, i+1, line, test.want[i])
			}
		}
	}
}

func TestParseObjectName(t *testing.T) {
	if got, err := ParseObjectName("ingress/gateway"); err != nil || got != cache.NewObjectName("ingress", "gateway") {
		t.Errorf("got %v, %v", got, err)
	}
	for _, text := range []string{"", "gateway", "/", "a/", "/a", "a/b/c", "a b/c", "a/B"} {
		if got, err := ParseObjectName(text); err == nil || got != (cache.ObjectName{}) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func FuzzParseSpec(f *testing.F) {
	f.Add("paris=paris.kubeconfig,context=c,gateway=ingress/gateway,gateway-port=https,address=192.0.2.1,uid=u")
	f.Add("paris=a,address=::ffff:192.0.2.1,address=fe80::1%eth0")
	f.Add("paris=a,gateway=gateway-api:ingress/public,records=service-mirror")
	f.Add("=,,=,gateway=//,\x00=\xff")
	f.Fuzz(func(t *testing.T, text string) {
		spec, err := ParseSpec(text)
		if err != nil {
			return
		}
		if len(validation.IsDNS1123Label(spec.Name)) > 0 || spec.Kubeconfig == "" {
			t.Errorf("%q is accepted: %+v", text, spec)
		}
		if port := spec.Gateways[0].Port; port != "" && gateway.ValidatePort(port) != nil {
			t.Errorf("%q: port %q is accepted", text, port)
		}
		if name := spec.Gateways[0].Service; name != (cache.ObjectName{}) {
			if again, api, err := gateway.ParseName(spec.Gateways[0].Name()); err != nil || again != name || api != spec.Gateways[0].API {
				t.Errorf("%q: gateway %v is accepted", text, name)
			}
		}
		if !strings.HasPrefix(text, spec.Name+"="+spec.Kubeconfig) {
			t.Errorf("%q: got %+v", text, spec)
		}
	})
}
