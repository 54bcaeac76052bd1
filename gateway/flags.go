package gateway

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/spf13/pflag"
)

// Flags are the flags about gateways, as they are typed.
type Flags struct {
	Gateway, Port, Domain string // for the remotes that name none
	dnsServer             string
	deny, allow           []string
	options               Options
}

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	f.StringVar(&raw.Gateway, "gateway", "", "gateway Service `NS/NAME` of the remotes that name none")
	f.StringVar(&raw.Port, "gateway-port", "", "`NAME|NUMBER` of the gateway port that all traffic goes to, for the remotes that name none (default: chosen for each port by name, protocol and number)")
	f.StringSliceVar(&raw.deny, "gateway-deny", nil, "`CIDR,…` of addresses that no gateway may have, besides this cluster's own and those that lead nowhere")
	f.StringSliceVar(&raw.allow, "gateway-allow", nil, "`CIDR,…` of the only addresses that gateways may have, this cluster's own included where a CIDR has them")
	f.StringVar(&raw.Domain, "cluster-domain", "cluster.local", "DNS `DOMAIN` of this cluster, under which no gateway may have its hostname, and of the remotes that name no other")
	f.DurationVar(&raw.options.Refresh, "dns-refresh", 30*time.Second, "`DURATION` after which a gateway's hostname is resolved again, at least 1s")
	f.StringVar(&raw.dnsServer, "dns-server", "", "`ADDRESS:PORT` of a DNS server to ask instead of the system's, for debugging")
	probe := &raw.options.Probe
	f.StringVar((*string)(&probe.Kind), "probe", string(ProbeNone), "`KIND` of probe that tells whether a gateway's address lives: tcp, http or none. One that does not becomes not ready")
	f.StringVar(&probe.Port, "probe-port", "", "`NAME|NUMBER` of the gateway port to probe (default: the port that all traffic goes to, else the lowest TCP port)")
	f.StringVar(&probe.Path, "probe-path", "/", "`PATH` that an http probe asks for; any answer below 400 will do")
	f.DurationVar(&probe.Period, "probe-period", 5*time.Second, "`DURATION` between two probes of an address")
	f.DurationVar(&probe.Timeout, "probe-timeout", 2*time.Second, "`DURATION` after which a probe has failed")
	f.IntVar(&probe.Threshold, "probe-threshold", 3, "`NUMBER` of probes in a row that must fail; one that succeeds makes the address ready again")
}

// Options are what the flags say; the error lists what is wrong with them, by flag.
func (raw *Flags) Options() (Options, error) {
	var wrong []error
	mistake := func(flag string, err error) {
		if err != nil {
			wrong = append(wrong, fmt.Errorf("%s: %w", flag, err))
		}
	}
	options := raw.options
	if raw.Port != "" {
		mistake("--gateway-port", ValidatePort(raw.Port))
	}
	for _, list := range []struct {
		flag  string
		texts []string
		to    *[]netip.Prefix
	}{{"--gateway-deny", raw.deny, &options.Filter.Deny}, {"--gateway-allow", raw.allow, &options.Filter.Allow}} {
		for _, text := range list.texts {
			prefix, err := ParsePrefix(text)
			mistake(list.flag, err)
			*list.to = append(*list.to, prefix)
		}
	}
	mistake("--cluster-domain", ValidateDomain(raw.Domain))
	options.Filter.Domain = raw.Domain
	if options.Refresh < time.Second {
		mistake("--dns-refresh", fmt.Errorf("%v is less than 1s", options.Refresh))
	}
	if raw.dnsServer != "" {
		if _, err := netip.ParseAddrPort(raw.dnsServer); err != nil {
			mistake("--dns-server", fmt.Errorf("%q is not ADDRESS:PORT", raw.dnsServer))
		}
	}
	options.Resolver = NewResolver(raw.dnsServer)
	return options, errors.Join(append(wrong, options.Probe.Validate())...)
}
