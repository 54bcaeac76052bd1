package gateway

import (
	"net/netip"
	"reflect"
	"testing"
)

func TestFilter(t *testing.T) {
	prefixes := func(texts ...string) (out []netip.Prefix) {
		for _, text := range texts {
			out = append(out, netip.MustParsePrefix(text))
		}
		return out
	}
	filter := Filter{
		Deny: prefixes("198.51.100.0/24", "2001:db8:bad::/48"),
		Local: func() []Range {
			return []Range{{netip.MustParsePrefix("10.96.0.0/16"), "Service range"}, {netip.MustParsePrefix("fd00:1::/64"), "pod range"},
				{netip.MustParsePrefix("192.0.2.99/32"), "LoadBalancer address"}, {netip.MustParsePrefix("203.0.113.99/32"), "LoadBalancer address"}}
		},
	}
	only := filter
	only.Allow = prefixes("192.0.2.0/25", "198.51.100.0/25", "10.96.7.0/24")
	for _, test := range []struct {
		filter  Filter
		addr    string
		wantErr string
	}{
		{filter, "192.0.2.1", ""},
		{filter, "10.95.0.1", ""},
		{filter, "198.51.100.7", "--gateway-deny has 198.51.100.0/24"},
		{filter, "::ffff:198.51.100.7", "--gateway-deny has 198.51.100.0/24"},
		{filter, "2001:db8:bad::1", "--gateway-deny has 2001:db8:bad::/48"},
		{filter, "10.96.7.7", "it is in this cluster's own Service range 10.96.0.0/16"},
		{filter, "::ffff:10.96.7.7", "it is in this cluster's own Service range 10.96.0.0/16"},
		{filter, "fd00:1::7", "it is in this cluster's own pod range fd00:1::/64"},
		{filter, "169.254.169.254", "not a unicast address"},
		{filter, "192.0.2.99", "it is this cluster's own LoadBalancer address: if that is intended, permit it with --gateway-allow"},
		{only, "192.0.2.1", ""},
		{only, "192.0.2.99", ""},
		{only, "10.96.7.7", ""},
		{only, "::ffff:10.96.7.7", ""},
		{only, "10.96.8.8", "it is in this cluster's own Service range 10.96.0.0/16"},
		{only, "203.0.113.99", "it is this cluster's own LoadBalancer address"},
		{only, "192.0.2.200", "--gateway-allow does not have it"},
		{only, "2001:db8::1", "--gateway-allow does not have it"},
		{only, "198.51.100.7", "--gateway-deny has"},
		{only, "127.0.0.1", "not a unicast address"},
	} {
		t.Run(test.addr, func(t *testing.T) { checkErr(t, test.filter.address(netip.MustParseAddr(test.addr)), test.wantErr) })
	}
}

func TestParsePrefix(t *testing.T) {
	for text, want := range map[string]string{
		"192.0.2.0/24": "192.0.2.0/24", "192.0.2.1": "192.0.2.1/32", "2001:db8::/32": "2001:db8::/32", "::1": "::1/128", "::ffff:192.0.2.1": "192.0.2.1/32", "0.0.0.0/0": "0.0.0.0/0",
		"192.0.2.1/24": "", "192.0.2.0/33": "", "x": "", "": "", "fe80::1%eth0": "", "::ffff:192.0.2.0/120": "",
	} {
		got, err := ParsePrefix(text)
		if want == "" && err == nil || want != "" && (err != nil || got.String() != want) {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
}

func TestParseAddress(t *testing.T) {
	address := func(text string) Config { return Config{Addresses: parse(text)} }
	hostname := func(text string) Config { return Config{Hostnames: []string{text}} }
	for text, want := range map[string]Config{
		"192.0.2.1": address("192.0.2.1"), "2001:db8::1": address("2001:db8::1"), "2001:DB8::1": address("2001:db8::1"),
		"gw.example.com": hostname("gw.example.com"), "a": hostname("a"), "1.example.com": hostname("1.example.com"),
		"GW.Example.COM": hostname("gw.example.com"), "gw.example.com.": hostname("gw.example.com"),
		"": {}, ".": {}, "192.0.2": {}, "192.0.2.256": {}, "192.0.2.1.": {}, "a b": {}, "a..b": {}, "a..": {}, ".a": {}, "1": {}, "1.": {}, "gw_1.example.com": {},
	} {
		var config Config
		err := config.ParseAddress(text)
		if !reflect.DeepEqual(config, want) || (err == nil) != (len(want.Addresses)+len(want.Hostnames) > 0) {
			t.Errorf("%q: got %v, %v, want %v", text, config, err, want)
		}
	}
}
