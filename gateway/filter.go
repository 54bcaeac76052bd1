package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Filter decides which addresses of a gateway are used: a remote must not be able to route
// the local cluster's traffic back into it, or to where its operator does not allow it.
type Filter struct {
	Deny   []netip.Prefix // refused, even if they are in Allow
	Allow  []netip.Prefix // if there are any, only these are used, the local cluster's own among them
	Domain string         // of the local cluster: names under it are refused
	// Local returns the local cluster's own addresses, as far as they are known;
	// nil: none are. It must not block.
	Local func() []Range
}

// Range is a range of the local cluster's own addresses.
type Range struct {
	netip.Prefix
	Name string // what it is, for a message: "Service range", or "LoadBalancer address" of a single one
}

// describe is what an address in the range is, for a message.
func (r Range) describe() string {
	if r.IsSingleIP() {
		return "it is this cluster's own " + r.Name
	}
	return fmt.Sprintf("it is in this cluster's own %s %v", r.Name, r.Prefix)
}

// special are ranges that no other cluster's gateway is in, though their addresses look like any. They are used
// only if --gateway-allow has the range, or a part of it: a larger one does not mean them.
var special = []Range{
	{netip.MustParsePrefix("100.100.100.200/32"), "a cloud metadata service"},    // Alibaba Cloud
	{netip.MustParsePrefix("168.63.129.16/32"), "a cloud metadata service"},      // Azure
	{netip.MustParsePrefix("fd00:ec2::/32"), "reserved for cloud host services"}, // AWS: metadata, DNS, time
	{netip.MustParsePrefix("fd20:ce::254/128"), "a cloud metadata service"},      // Google Cloud
	{netip.MustParsePrefix("0.0.0.0/8"), "reserved for this network (RFC 791)"},
	{netip.MustParsePrefix("192.0.0.0/24"), "reserved for protocols (RFC 6890)"}, // 192.0.0.192 was Oracle Cloud's metadata service
	{netip.MustParsePrefix("240.0.0.0/4"), "reserved (RFC 1112)"},
	{netip.MustParsePrefix("::/96"), "IPv4 in IPv6 (RFC 4291), deprecated"},
	{netip.MustParsePrefix("fec0::/10"), "site-local (RFC 3879), deprecated"},
}

// translated are the ranges in which the last or a middle part is an IPv4 address that a network may send packets to.
var translated = []struct {
	netip.Prefix
	at int // the first byte of the IPv4 address
}{
	{netip.MustParsePrefix("64:ff9b::/96"), 12}, // NAT64 (RFC 6052)
	{netip.MustParsePrefix("2002::/16"), 2},     // 6to4 (RFC 3056)
}

// inner is the IPv4 address in one that is translated.
func inner(addr netip.Addr) (netip.Addr, bool) {
	for _, one := range translated {
		if one.Contains(addr) {
			bytes := addr.As16()
			return netip.AddrFrom4([4]byte(bytes[one.at:])), true
		}
	}
	return netip.Addr{}, false
}

// special refuses an address of a special range.
func (f Filter) special(addr netip.Addr) error {
	for _, one := range special {
		permits := func(prefix netip.Prefix) bool { return prefix.Contains(addr) && prefix.Bits() >= one.Bits() }
		if one.Contains(addr) && !slices.ContainsFunc(f.Allow, permits) {
			what := "it is "
			if !one.IsSingleIP() {
				what = fmt.Sprintf("it is in %v, which is ", one.Prefix)
			}
			return fmt.Errorf("%s%s: if this is intended, add it to --gateway-allow", what, one.Name)
		}
	}
	return nil
}

// address refuses addresses that would route traffic back into the local cluster or
// nowhere, or that the API server does not accept in Endpoints: loopback, unspecified,
// link-local (cloud metadata included), multicast and broadcast; those of special ranges; IPv6
// addresses in which there is such an IPv4 address; and those that the operator does not allow.
func (f Filter) address(addr netip.Addr) error {
	addr, zone := addr.Unmap(), addr.Zone()
	if zone != "" || !addr.IsGlobalUnicast() {
		return errors.New("not a unicast address that is routable between clusters")
	}
	if err := f.special(addr); err != nil {
		return err
	}
	if v4, ok := inner(addr); ok {
		if err := f.address(v4); err != nil && !slices.ContainsFunc(f.Allow, func(prefix netip.Prefix) bool { return prefix.Contains(addr) }) {
			return fmt.Errorf("it embeds %v: %w", v4, err)
		}
	}
	contains := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
	if i := slices.IndexFunc(f.Deny, contains); i >= 0 {
		return fmt.Errorf("--gateway-deny contains %v", f.Deny[i])
	}
	if slices.ContainsFunc(f.Allow, contains) {
		return nil
	}
	if own, ok := f.local(addr); ok {
		return fmt.Errorf("%s: if this is intended, add it to --gateway-allow", own.describe())
	}
	if len(f.Allow) > 0 {
		return errors.New("--gateway-allow does not contain it")
	}
	return nil
}

// local finds an address among the local cluster's own.
func (f Filter) local(addr netip.Addr) (Range, bool) {
	if f.Local == nil {
		return Range{}, false
	}
	all := f.Local()
	if i := slices.IndexFunc(all, func(own Range) bool { return own.Contains(addr) }); i >= 0 {
		return all[i], true
	}
	return Range{}, false
}

// normalHostname is the form of a hostname that is compared and resolved: DNS ignores case
// (RFC 4343), and the final dot is optional.
func normalHostname(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// hostname refuses invalid hostnames, and names of the local cluster.
func (f Filter) hostname(name string) error {
	name = normalHostname(name)
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return errors.New("not a hostname")
	}
	if f.Domain != "" && (name == f.Domain || strings.HasSuffix(name, "."+f.Domain)) {
		return fmt.Errorf("it is in the domain of this cluster, %s", f.Domain)
	}
	return nil
}

// ParsePrefix parses a CIDR or a single address.
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return prefix, fmt.Errorf("%.64q is neither a CIDR nor an IP address", text)
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("%v is an IPv4-mapped IPv6 range: write it as an IPv4 range", prefix)
	case prefix != prefix.Masked():
		return prefix, fmt.Errorf("%v has host bits set: write %v", prefix, prefix.Masked())
	}
	return prefix, nil
}
