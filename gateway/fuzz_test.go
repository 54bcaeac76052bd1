package gateway

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

// FuzzPrefix: a CIDR flag is parsed as it is written, or refused.
func FuzzPrefix(f *testing.F) {
	for _, seed := range []string{"10.0.0.0/8", "192.0.2.1", "2001:db8::/32", "::ffff:10.0.0.0/104", "10.0.0.1/8", "fe80::1%eth0", "0.0.0.0/0", "::/0", "10.0.0.0/33", "010.0.0.0/8", "", " 10.0.0.0/8", "::ffff:10.0.0.1"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		prefix, err := ParsePrefix(text)
		if err != nil {
			if len(err.Error()) > 1000 {
				t.Errorf("a message of %d characters", len(err.Error()))
			}
			return
		}
		again, err := ParsePrefix(prefix.String())
		if err != nil || again != prefix {
			t.Errorf("%q is read as %v, and that as %v, %v", text, prefix, again, err)
		}
		// It must contain its own address.
		if !prefix.IsValid() || prefix != prefix.Masked() || prefix.Addr().Is4In6() || prefix.Addr().Zone() != "" || !prefix.Contains(prefix.Addr()) {
			t.Errorf("%q is read as %v, which contains nothing", text, prefix)
		}
		if (Filter{Deny: []netip.Prefix{prefix}}).address(prefix.Addr()) == nil {
			t.Errorf("%v is denied, but used", prefix)
		}
	})
}

// answers is a DNS server that gives every name the same answer.
type answers struct {
	v4, v6  []netip.Addr
	err     error
	queries chan string
}

func (a *answers) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	a.queries <- network + " " + host
	if network == "ip4" {
		return a.v4, a.err
	}
	return a.v6, a.err
}

// FuzzAnswer: whatever DNS answers, a gateway has only allowed addresses, sorted, unique
// and limited in number; and a failed query keeps the last ones.
func FuzzAnswer(f *testing.F) {
	f.Add("lb.example.com", []byte{192, 0, 2, 1, 192, 0, 2, 1}, []byte{0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 0)
	f.Add("lb.example.com.", []byte{127, 0, 0, 1, 169, 254, 169, 254, 0, 0, 0, 0, 255, 255, 255, 255, 10, 96, 0, 1}, []byte{}, 0)
	f.Add("bar.default.svc.cluster.local", []byte{}, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 96, 0, 1}, 1)
	f.Add("*.example.com", slices.Repeat([]byte{192, 0, 2, 1}, 300), []byte{}, 2)
	f.Fuzz(func(t *testing.T, host string, four, six []byte, failure int) {
		from := &answers{queries: make(chan string, 2), err: map[int]error{
			1: &net.DNSError{Err: host, IsNotFound: true}, 2: &net.DNSError{Err: host, IsTimeout: true}, 3: errors.New(host),
		}[failure]}
		for chunk := range slices.Chunk(four, 4) {
			if addr, ok := netip.AddrFromSlice(chunk); ok {
				from.v4 = append(from.v4, addr)
			}
		}
		for chunk := range slices.Chunk(six, 16) {
			if addr, ok := netip.AddrFromSlice(chunk); ok {
				from.v6 = append(from.v6, addr)
			}
		}
		last := answer{good: true, v4: []netip.Addr{netip.MustParseAddr("198.51.100.7")}}
		now := lookup(t.Context(), from, host, last)
		for range 2 {
			if query := <-from.queries; !strings.HasSuffix(query, ".") || strings.HasSuffix(query, "..") != strings.HasSuffix(host, "..") {
				t.Errorf("%q is queried as %q", host, query)
			}
		}
		if len(now.addresses()) == 0 {
			t.Error("what was known is lost")
		}
		own := netip.MustParsePrefix("10.96.0.0/12")
		filter := Filter{Domain: "cluster.local", Local: func() []Range { return []Range{{Prefix: own}} }}
		gw, _ := Entrance{}.Gateway(now.addresses(), true, filter)
		if len(gw.Addresses) > MaxAddresses {
			t.Errorf("%d addresses", len(gw.Addresses))
		}
		for i, address := range gw.Addresses {
			if i > 0 && !gw.Addresses[i-1].Less(address.Addr) {
				t.Errorf("%v are not sorted, or not once each", gw.Addresses)
			}
			if own.Contains(address.Addr) || address.Is4In6() || address.IsLoopback() || address.IsLinkLocalUnicast() || address.IsMulticast() || address.IsUnspecified() {
				t.Errorf("%v is used", address)
			}
		}
		for _, name := range []string{"cluster.local", "bar.default.svc.cluster.local", "BAR.Cluster.Local."} {
			if filter.hostname(name) == nil {
				t.Errorf("%s is used", name)
			}
		}
		if filter.hostname(host) == nil && strings.HasSuffix(strings.ToLower(strings.TrimSuffix(host, ".")), ".cluster.local") {
			t.Errorf("%q is a name of the local cluster, but used", host)
		}
	})
}
