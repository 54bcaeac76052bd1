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

// address refuses addresses that would route traffic back into the local cluster or
// nowhere, or that the API server does not accept in Endpoints: loopback, unspecified,
// link-local (cloud metadata included), multicast and broadcast; and those that the
// operator does not allow.
func (f Filter) address(addr netip.Addr) error {
	addr, zone := addr.Unmap(), addr.Zone()
	if zone != "" || !addr.IsGlobalUnicast() {
		return errors.New("not a unicast address that another cluster can be reached at")
	}
	contains := func(prefix netip.Prefix) bool { return prefix.Contains(addr) }
	if i := slices.IndexFunc(f.Deny, contains); i >= 0 {
		return fmt.Errorf("--gateway-deny has %v", f.Deny[i])
	}
	if slices.ContainsFunc(f.Allow, contains) {
		return nil
	}
	if own, ok := f.local(addr); ok {
		return fmt.Errorf("%s: if that is intended, permit it with --gateway-allow", own.describe())
	}
	if len(f.Allow) > 0 {
		return errors.New("--gateway-allow does not have it")
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
		return fmt.Errorf("it is a name of this cluster, whose domain is %s", f.Domain)
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
		return prefix, fmt.Errorf("%v is IPv4 in IPv6: give it as an IPv4 range", prefix)
	case prefix != prefix.Masked():
		return prefix, fmt.Errorf("%v has bits beyond its length: give %v", prefix, prefix.Masked())
	}
	return prefix, nil
}
