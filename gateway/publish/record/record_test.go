package record

import (
	"reflect"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/tools/cache"
)

var bar = Record{
	Service: cache.NewObjectName("default", "bar"), UID: "bar-uid", Hosts: []string{"bar-paris.default.svc.cluster.local"}, Ready: true,
	Ports: []Port{
		{Port: 80, Protocol: corev1.ProtocolTCP, Gateway: 80, Class: "http", Shared: true},
		{Port: 5432, Protocol: corev1.ProtocolTCP, Gateway: 15000, Class: "tcp"},
		{Port: 53, Protocol: corev1.ProtocolUDP, Class: "udp", Problem: "no gateway port is free"},
	},
}

func TestRecordIsReadAsItWasWritten(t *testing.T) {
	configMap, err := bar.ConfigMap("service-mirror")
	if err != nil {
		t.Fatal(err)
	}
	if configMap.Name != "default.bar" || configMap.Namespace != "service-mirror" {
		t.Errorf("it is %s/%s", configMap.Namespace, configMap.Name)
	}
	got, err := Parse(configMap)
	if err != nil || !reflect.DeepEqual(got, bar) {
		t.Errorf("got %+v, %v; want %+v", got, err, bar)
	}
	if got := bar.Of(5432, corev1.ProtocolTCP); got == nil || got.Gateway != 15000 {
		t.Errorf("port 5432 is %+v", got)
	}
	if got := bar.Of(5432, corev1.ProtocolUDP); got != nil {
		t.Errorf("port 5432/UDP is %+v", got)
	}
}

func TestMalformedRecordIsRefused(t *testing.T) {
	for name, edit := range map[string]func(*corev1.ConfigMap){
		"another version": func(c *corev1.ConfigMap) { c.Labels[Label] = "v2" },
		"no key":          func(c *corev1.ConfigMap) { c.Data = nil },
		"not JSON":        func(c *corev1.ConfigMap) { c.Data[DataKey] = "<html>" },
		"too large":       func(c *corev1.ConfigMap) { c.Data[DataKey] += strings.Repeat(" ", MaxBytes) },
		"another Service": func(c *corev1.ConfigMap) { c.Name = "default.foo" },
		"no UID":          func(c *corev1.ConfigMap) { replace(c, `"bar-uid"`, `""`) },
		"a port twice":    func(c *corev1.ConfigMap) { replace(c, `"port":5432`, `"port":80`) },
		"port 0":          func(c *corev1.ConfigMap) { replace(c, `"port":5432`, `"port":0`) },
		"a gateway port":  func(c *corev1.ConfigMap) { replace(c, `15000`, `150000`) },
		"a protocol":      func(c *corev1.ConfigMap) { replace(c, `"UDP"`, `"ICMP"`) },
		"a host":          func(c *corev1.ConfigMap) { replace(c, `bar-paris.default`, `bar paris`) },
	} {
		t.Run(name, func(t *testing.T) {
			configMap, err := bar.ConfigMap("service-mirror")
			if err != nil {
				t.Fatal(err)
			}
			before := configMap.DeepCopy()
			edit(configMap)
			if reflect.DeepEqual(before, configMap) {
				t.Fatal("nothing was changed")
			}
			if got, err := Parse(configMap); err == nil {
				t.Errorf("it was read: %+v", got)
			}
		})
	}
}

func replace(c *corev1.ConfigMap, old, with string) {
	c.Data[DataKey] = strings.ReplaceAll(c.Data[DataKey], old, with)
}
