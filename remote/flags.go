package remote

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"service-mirror.io/service-mirror/gateway"
)

// Flags are the flags about remote clusters, as they are typed.
type Flags struct {
	remotes  []string
	from     string
	selector string
	client   ClientOptions
}

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	f.StringArrayVar(&raw.remotes, "remote", nil, "remote cluster, as `NAME=KUBECONFIG[,KEY=VALUE]...`; repeatable. NAME is a DNS label and the suffix of its mirrors' names. "+
		"Keys: context=NAME in the kubeconfig; namespaces=NS,… to watch, ignoring all others; name=TEMPLATE of its mirrors' names, which overrides --name-template; "+
		"namespace=REMOTE:LOCAL, repeatable, for mirrors of the namespace REMOTE that are in LOCAL; gateway=NS/NAME of a Service or gateway=gateway-api:NS/NAME of a Gateway of the Gateway API, gateway-port=NAME|NUMBER and default-gateway-port=NAME|NUMBER, which override the flags of the same names; "+
		"additional gateway= for Services that choose one with the annotation service-mirror.io/gateway; "+
		"address=IP|HOSTNAME, repeatable, which overrides the addresses of the gateway Service; "+
		"tcp-services=NS/NAME and udp-services=NS/NAME of a ConfigMap with reserved gateway ports, in the format of ingress-nginx; "+
		"records=NS, the namespace of the remote's publisher (service-mirror publish), whose records map ports to gateway ports; "+
		"cluster-domain=DOMAIN, which overrides the flag of the same name; "+
		fmt.Sprintf("max-services=NUMBER of exported Services (default %d) and max-bytes=SIZE of one answer and of all cached exports (default %s), above which the remote is not followed; ", DefaultLimits.Services, quantity(DefaultLimits.Bytes))+
		"uid=UID of the expected cluster (the UID of its kube-system namespace), any other is refused; or uid=unverified to accept a cluster whose UID cannot be read")
	f.StringVar(&raw.from, "remotes-from", "", "`NAMESPACE` of Secrets that also configure remotes, and can be added, changed and deleted at any time: the label "+SecretLabel+" is the remote's NAME, and the data contains kubeconfig and the keys of --remote, the values of a repeatable key on separate lines. --remote takes precedence")
	f.StringVar(&raw.selector, "export-selector", "service-mirror.io/exported=true", "label `SELECTOR` of the Services to mirror, evaluated in the remote clusters")
	f.Float32Var(&raw.client.QPS, "kube-api-qps", 0, "maximum `NUMBER` of requests per second to each API server; 0 is no client-side limit, which relies on API Priority and Fairness")
	f.IntVar(&raw.client.Burst, "kube-api-burst", 0, "burst `NUMBER` of requests above --kube-api-qps; 0 is the same as --kube-api-qps")
}

// SecretLabel on a Secret in the namespace of --remotes-from is the name of the remote that it configures.
const SecretLabel = "service-mirror.io/remote"

// From is the namespace of the Secrets that configure remotes; empty: there are none.
func (raw *Flags) From() string { return raw.from }

// Selected takes the values of --remote that are the name of a remote alone, which commands have that concern one
// of those that are configured.
func (raw *Flags) Selected() (names []string) {
	raw.remotes = slices.DeleteFunc(raw.remotes, func(text string) bool {
		selected := len(validation.IsDNS1123Label(text)) == 0
		if selected {
			names = append(names, text)
		}
		return selected
	})
	return names
}

// Options are what the flags set for all remotes; the error lists what is wrong with
// them, by flag. The user agent and the gateway's options are the caller's to add.
func (raw *Flags) Options() (Options, error) {
	var mistakes mistakes
	options := Options{Selector: raw.selector, Client: raw.client}
	mistakes.add("--export-selector", ValidateSelector(raw.selector))
	if raw.from != "" && len(validation.IsDNS1123Label(raw.from)) > 0 {
		mistakes.add("--remotes-from", fmt.Errorf("%.70q is not the name of a namespace: set one such as service-mirror", raw.from))
	}
	if qps := float64(options.Client.QPS); math.IsNaN(qps) || math.IsInf(qps, 0) {
		mistakes.add("--kube-api-qps", fmt.Errorf("%v is not a number of requests per second: set one, or 0 for no limit", options.Client.QPS))
	} else if qps < 0 {
		mistakes.add("--kube-api-qps", fmt.Errorf("%v is negative: set a number of requests per second, or 0 for no limit", options.Client.QPS))
	}
	switch {
	case options.Client.Burst < 0:
		mistakes.add("--kube-api-burst", fmt.Errorf("%d is negative: set a number of requests, or 0 for the same as --kube-api-qps", options.Client.Burst))
	case options.Client.Burst == 0:
		options.Client.Burst = max(1, int(min(options.Client.QPS, 1<<30)))
	}
	return options, errors.Join(mistakes...)
}

// Remotes are the remotes that the flags list. What one does not say of its gateways
// is taken from shared; addresses are checked against filter. The error lists what is
// wrong, by remote.
func (raw *Flags) Remotes(shared gateway.Config, filter gateway.Filter) ([]Spec, error) {
	var specs []Spec
	var mistakes mistakes
	names := map[string]bool{}
	for _, text := range raw.remotes {
		spec, err := ParseSpec(text)
		if err != nil {
			mistakes.add("--remote "+text, err)
			continue
		}
		mistakes.add("--remote "+spec.Name, spec.Complete(shared, filter))
		if names[spec.Name] {
			mistakes.add("--remote "+spec.Name, errors.New("two remotes have the same name: rename one"))
		}
		names[spec.Name] = true
		specs = append(specs, spec)
	}
	return specs, errors.Join(mistakes...)
}

// mistakes are what is wrong with the flags, one line each.
type mistakes []error

// add notes each line of err under its flag.
func (m *mistakes) add(flag string, err error) {
	if err == nil {
		return
	}
	for line := range strings.SplitSeq(err.Error(), "\n") {
		*m = append(*m, fmt.Errorf("%s: %s", flag, line))
	}
}

// Names are the names of remotes.
func Names(specs []Spec) (names []string) {
	for _, spec := range specs {
		names = append(names, spec.Name)
	}
	return names
}
