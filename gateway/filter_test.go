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
	wide, exact := filter, filter
	wide.Allow = prefixes("0.0.0.0/0", "100.64.0.0/10", "64:ff9b::/96")
	exact.Allow = prefixes("100.100.100.200/32", "240.0.0.0/4", "192.0.0.9/32")
	for _, test := range []struct {
		filter  Filter
		addr    string
		wantErr string
	}{
		{filter, "192.0.2.1", ""},
		{filter, "10.95.0.1", ""},
		{filter, "198.51.100.7", "--gateway-deny contains 198.51.100.0/24"},
		{filter, "::ffff:198.51.100.7", "--gateway-deny contains 198.51.100.0/24"},
		{filter, "2001:db8:bad::1", "--gateway-deny contains 2001:db8:bad::/48"},
		{filter, "10.96.7.7", "it is in this cluster's own Service range 10.96.0.0/16"},
		{filter, "::ffff:10.96.7.7", "it is in this cluster's own Service range 10.96.0.0/16"},
		{filter, "fd00:1::7", "it is in this cluster's own pod range fd00:1::/64"},
		{filter, "169.254.169.254", "not a unicast address"},
		{filter, "192.0.2.99", "it is this cluster's own LoadBalancer address: if this is intended, add it to --gateway-allow"},
		{only, "192.0.2.1", ""},
		{only, "192.0.2.99", ""},
		{only, "10.96.7.7", ""},
		{only, "::ffff:10.96.7.7", ""},
		{only, "10.96.8.8", "it is in this cluster's own Service range 10.96.0.0/16"},
		{only, "203.0.113.99", "it is this cluster's own LoadBalancer address"},
		{only, "192.0.2.200", "--gateway-allow does not contain it"},
		{only, "2001:db8::1", "--gateway-allow does not contain it"},
		{only, "198.51.100.7", "--gateway-deny contains"},
		{only, "127.0.0.1", "not a unicast address"},
		{filter, "100.100.100.200", "it is a cloud metadata service: if this is intended, add it to --gateway-allow"},
		{filter, "::ffff:100.100.100.200", "it is a cloud metadata service"},
		{filter, "100.100.100.201", ""},
		{filter, "168.63.129.16", "it is a cloud metadata service"},
		{filter, "fd00:ec2::254", "it is in fd00:ec2::/32, which is reserved for cloud host services"},
		{filter, "fd20:ce::254", "it is a cloud metadata service"},
		{filter, "240.0.0.1", "it is in 240.0.0.0/4, which is reserved (RFC 1112): if this is intended, add it to --gateway-allow"},
		{filter, "254.255.255.255", "it is in 240.0.0.0/4"},
		{filter, "192.0.0.1", "it is in 192.0.0.0/24"},
		{filter, "192.0.1.1", ""},
		{filter, "0.1.2.3", "it is in 0.0.0.0/8"},
		{filter, "::192.0.2.1", "it is in ::/96"},
		{filter, "fec0::1", "it is in fec0::/10"},
		{filter, "64:ff9b::192.0.2.1", ""},
		{filter, "64:ff9b::127.0.0.1", "it embeds 127.0.0.1: not a unicast address"},
		{filter, "64:ff9b::169.254.169.254", "it embeds 169.254.169.254: not a unicast address"},
		{filter, "64:ff9b::100.100.100.200", "it embeds 100.100.100.200: it is a cloud metadata service"},
		{filter, "64:ff9b::10.96.7.7", "it embeds 10.96.7.7: it is in this cluster's own Service range"},
		{filter, "64:ff9b::198.51.100.7", "it embeds 198.51.100.7: --gateway-deny contains"},
		{filter, "2002:7f00:1::1", "it embeds 127.0.0.1: not a unicast address"},
		{filter, "2002:c000:201::1", ""},
		{wide, "100.100.100.200", "it is a cloud metadata service"},
		{wide, "240.0.0.1", "it is in 240.0.0.0/4"},
		{wide, "64:ff9b::10.96.7.7", ""},
		{exact, "100.100.100.200", ""},
		{exact, "240.0.0.1", ""},
		{exact, "192.0.0.9", ""},
		{exact, "192.0.0.10", "it is in 192.0.0.0/24"},
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
