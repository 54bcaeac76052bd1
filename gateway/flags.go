package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"
)

// Flags are the flags about gateways, as they are typed.
type Flags struct {
	gateway, port, domain  string
	defaultPort, dnsServer string
	deny, allow            []string
	options                Options
	given                  func(flag string) bool
}

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	raw.given = f.Changed
	f.StringVar(&raw.gateway, "gateway", "", "`NS/NAME` of the gateway Service of remotes that set no gateway=, or gateway-api:NS/NAME for a Gateway of the Gateway API")
	f.StringVar(&raw.port, "gateway-port", "", "`NAME|NUMBER` of the gateway port that receives all traffic, for remotes that set no gateway-port= (default: chosen for each port by its class: HTTP, HTTPS or gRPC)")
	f.StringVar(&raw.defaultPort, "default-gateway-port", "", "`NAME|NUMBER` of the gateway port for ports that no other gateway port serves, such as plain TCP, for remotes that set no default-gateway-port= (default: such ports have no endpoints)")
	f.StringSliceVar(&raw.deny, "gateway-deny", nil, "`CIDR,...` of denied gateway addresses, in addition to those of this cluster and special ranges")
	f.StringSliceVar(&raw.allow, "gateway-allow", nil, "`CIDR,...` of allowed gateway addresses; all others are denied. Addresses of this cluster are allowed if listed")
	f.StringVar(&raw.domain, "cluster-domain", "cluster.local", "DNS `DOMAIN` of this cluster, in which gateway hostnames are denied, and of remotes that set no cluster-domain=")
	f.DurationVar(&raw.options.Refresh, "dns-refresh", 30*time.Second, "`DURATION` between two lookups of a gateway's hostname, at least 1s")
	f.StringVar(&raw.dnsServer, "dns-server", "", "`ADDRESS:PORT` of a DNS server to use instead of the system's, for debugging")
	probe := &raw.options.Probe
	f.StringVar((*string)(&probe.Kind), "probe", string(ProbeNone), "`KIND` of health probe of gateway addresses: tcp, http or none. Addresses that fail it become not ready")
	f.StringVar(&probe.Port, "probe-port", "", "`NAME|NUMBER` of the gateway port to probe (default: the port that receives all traffic, else the lowest TCP port)")
	f.StringVar(&probe.Path, "probe-path", "/", "`PATH` of an http probe; any status below 400 is a success")
	f.DurationVar(&probe.Period, "probe-period", 5*time.Second, "`DURATION` between two probes of an address")
	f.DurationVar(&probe.Timeout, "probe-timeout", 2*time.Second, "`DURATION` after which a probe times out")
	f.IntVar(&probe.Threshold, "probe-threshold", 3, "`NUMBER` of consecutive failures after which an address is not ready; one success makes it ready again")
}

// Options are the values for all gateways; the error lists the mistakes, by flag.
func (raw *Flags) Options() (Options, error) {
	var mistakes []error
	add := func(flag string, err error) {
		if err != nil {
			mistakes = append(mistakes, fmt.Errorf("%s: %w", flag, err))
		}
	}
	options := raw.options
	if raw.gateway != "" {
		_, _, err := ParseName(raw.gateway)
		add("--gateway", err)
	}
	if raw.port != "" {
		add("--gateway-port", ValidatePort(raw.port))
	}
	if raw.defaultPort != "" {
		add("--default-gateway-port", ValidatePort(raw.defaultPort))
	}
	for _, list := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{{"--gateway-deny", raw.deny, &options.Filter.Deny}, {"--gateway-allow", raw.allow, &options.Filter.Allow}} {
		if len(list.texts) == 0 && raw.given(strings.TrimPrefix(list.flag, "--")) { // as of a variable that is not set
			add(list.flag, errors.New("an empty value has no effect: set a CIDR, or remove the flag"))
		}
		for _, text := range list.texts {
			prefix, err := ParsePrefix(text)
			add(list.flag, err)
			*list.to = append(*list.to, prefix)
		}
	}
	add("--cluster-domain", ValidateDomain(raw.domain))
	options.Filter.Domain = raw.domain
	if options.Refresh < time.Second {
		add("--dns-refresh", fmt.Errorf("%v is less than 1s: set a longer duration", options.Refresh))
	}
	if raw.dnsServer != "" {
		if _, err := netip.ParseAddrPort(raw.dnsServer); err != nil {
			add("--dns-server", fmt.Errorf("%q is not ADDRESS:PORT", raw.dnsServer))
		}
	}
	options.Resolver = NewResolver(raw.dnsServer)
	return options, errors.Join(append(mistakes, options.Probe.Validate())...)
}

// Shared is the configuration of the gateways of remotes that do not set their own. It is
// valid only if Options returns no error.
func (raw *Flags) Shared() Config {
	name, api, _ := ParseName(raw.gateway)
	return Config{Service: name, API: api, Port: raw.port, Default: raw.defaultPort, Domain: raw.domain}
}

// ParseName reads NS/NAME of a gateway Service, or gateway-api:NS/NAME of a Gateway.
func ParseName(text string) (_ cache.ObjectName, api bool, _ error) {
	name, api := strings.CutPrefix(text, APIPrefix)
	namespace, name, _ := strings.Cut(name, "/")
	switch {
	case len(validation.IsDNS1123Label(namespace)) > 0, !api && len(validation.IsDNS1123Label(name)) > 0, api && len(validation.IsDNS1123Subdomain(name)) > 0:
		return cache.ObjectName{}, false, fmt.Errorf("%.320q is not NS/NAME of a Service, or %sNS/NAME of a Gateway", text, APIPrefix)
	}
	return cache.NewObjectName(namespace, name), api, nil
}
