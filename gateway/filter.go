package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"
)

// Filter decides which addresses of a gateway are used: a remote must not be
// able to point the local cluster's traffic back into it, or to where its
// operator does not want it.
type Filter struct {
	Deny   []netip.Prefix // refused
	Allow  []netip.Prefix // where there are any, nothing else is used
	Domain string         // of the local cluster: names under it are refused
	// Local gives the local cluster's own ranges, as far as they are known; nil:
	// none are.
	Local func() []Range
}

// Range is a range of the local cluster's own addresses.
type Range struct {
	netip.Prefix
	Name string // what it is, for a message
}

// address refuses what would lead traffic back into the local cluster or
// nowhere, and what the API server does not take in Endpoints: loopback,
// unspecified, link-local (cloud metadata included), multicast and broadcast;
// and what the operator does not want.
func (f Filter) address(addr netip.Addr) error {
	addr, zone := addr.Unmap(), addr.Zone()
	if zone != "" || !addr.IsGlobalUnicast() {
		return errors.New("not a unicast address that another cluster can be reached at")
	}
	for _, prefix := range f.Deny {
		if prefix.Contains(addr) {
			return fmt.Errorf("--gateway-deny has %v", prefix)
		}
	}
	if f.Local != nil {
		for _, own := range f.Local() {
			if own.Contains(addr) {
				return fmt.Errorf("it is in this cluster's own %s %v", own.Name, own.Prefix)
			}
		}
	}
	for _, prefix := range f.Allow {
		if prefix.Contains(addr) {
			return nil
		}
	}
	if len(f.Allow) > 0 {
		return errors.New("--gateway-allow does not have it")
	}
	return nil
}

// hostname refuses what is no hostname, and names of the local cluster.
func (f Filter) hostname(name string) error {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		return errors.New("not a hostname")
	}
	if f.Domain != "" && (name == f.Domain || strings.HasSuffix(name, "."+f.Domain)) {
		return fmt.Errorf("it is a name of this cluster, whose domain is %s", f.Domain)
	}
	return nil
}

// ParsePrefix reads a CIDR or a single address.
func ParsePrefix(text string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr.Unmap(), addr.Unmap().BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	switch {
	case err != nil:
		return prefix, fmt.Errorf("%.64q is neither a CIDR nor an IP address", text)
	case prefix.Addr().Is4In6():
		return prefix, fmt.Errorf("%v: write IPv4 ranges as such", prefix)
	case prefix != prefix.Masked():
		return prefix, fmt.Errorf("%v has bits beyond its length: %v is meant?", prefix, prefix.Masked())
	}
	return prefix, nil
}
