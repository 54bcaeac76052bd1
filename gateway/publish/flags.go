package publish

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/plan"
)

// Flags are the flags about publishing, as they are typed.
type Flags struct {
	Namespace      string // of the pod, for the records; empty: not in a pod
	options        Options
	targets        []string
	callers        []string
	gateway, ports string
	service        string // in front of the Gateway
}

// defaultNamespace is that of the records where there is no pod.
const defaultNamespace = "service-mirror"

// defaultAliases is the namespace of aliases that the gateways in deploy/gateways use.
const defaultAliases = "gateway-exports"

// Add adds the flags.
func (raw *Flags) Add(f *pflag.FlagSet) {
	o := &raw.options
	f.StringArrayVar(&o.Names, "name", nil, "`NAME` of this cluster in the --remote of other clusters; repeatable")
	f.StringArrayVar(&raw.targets, "to", nil, "`TARGET` of the routes to exported Services: gateway-api, ingress, or names (Service aliases for a static gateway); repeatable: each port uses the first that can serve it")
	f.StringVar(&raw.gateway, "gateway", "", "`NS/NAME` of the Gateway to attach routes to, for --to gateway-api")
	f.StringVar(&raw.service, "gateway-service", "", "`NS/NAME` of the LoadBalancer Service in front of the Gateway, if its ports differ from those of the listeners")
	f.StringVar(&o.IngressClass, "ingress-class", "", "`NAME` of the IngressClass, for --to ingress")
	f.StringVar(&o.TLSSecret, "tls-secret", "", "`NAME` of the Secret with the TLS certificate, in the namespace of each exported Service, for --to ingress (default: no TLS)")
	f.StringVar(&o.Aliases, "names-namespace", defaultAliases, "`NAMESPACE` of the Service aliases, for --to names; it must be used for nothing else")
	f.StringVar(&o.Domain, "cluster-domain", "cluster.local", "DNS `DOMAIN` of this cluster")
	f.StringArrayVar(&o.HostTemplates, "host-template", nil, "`TEMPLATE` of additional host names of exported Services, with {service}, {namespace} and {name}, such as {service}.{namespace}.example.com; repeatable")
	f.StringArrayVar(&raw.callers, "caller-namespace", nil, "`OWN:CALLERS`: other clusters mirror the namespace OWN to CALLERS, as set by namespace= in their --remote, so that host names of both namespaces are routed; repeatable (default: none)")
	f.StringArrayVar(&o.HostSuffixes, "host-suffix", nil, "DNS `SUFFIX` of additional host names that exported Services may choose with the annotation "+plan.HostsAnnotation+", such as shop.example.com; repeatable (default: only names of their own namespace)")
	f.StringVar(&raw.ports, "ports", "15000-15999", "`FIRST-LAST`: range of gateway ports that are allocated to ports that need one of their own, such as plain TCP")
	f.StringVar(&o.Selector, "export-selector", "service-mirror.io/exported=true", "label `SELECTOR` of exported Services; must not be empty")
	f.StringVar(&o.Records, "record-namespace", "", "`NAMESPACE` of the records that other clusters read (default: the pod's namespace, otherwise "+defaultNamespace+")")
	f.BoolVar(&o.IncludeSystem, "include-system", false, "also publish exported Services in kube-system")
}

// Options are what the flags say; the error lists what is wrong with them, by flag.
func (raw *Flags) Options() (Options, error) {
	o := raw.options
	o.Records = cmp.Or(o.Records, raw.Namespace, defaultNamespace)
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if len(o.Names) == 0 {
		wrong("--name is required: set the name of this cluster in the --remote of other clusters")
	}
	for i, name := range o.Names {
		if len(validation.IsDNS1123Label(name)) > 0 {
			wrong("--name: %.70q is not a DNS label: set the name of this cluster in the --remote of other clusters", name)
		} else if slices.Contains(o.Names[:i], name) {
			wrong("--name: %s is set twice: remove one", name)
		}
	}
	if err := gateway.ValidateDomain(o.Domain); err != nil {
		wrong("--cluster-domain: %w", err)
	}
	if err := o.ValidateTemplates(); err != nil {
		wrong("--host-template: %w", err)
	}
	for _, suffix := range o.HostSuffixes {
		if err := o.ValidateSuffix(suffix); err != nil {
			wrong("--host-suffix: %w", err)
		}
	}
	for _, text := range raw.callers {
		own, callers, _ := strings.Cut(text, ":")
		switch {
		case len(validation.IsDNS1123Label(own)) > 0 || len(validation.IsDNS1123Label(callers)) > 0:
			wrong("--caller-namespace: %.140q is not OWN:CALLERS, two namespace names", text)
		case own == callers || slices.Contains(o.CallerNamespaces[own], callers):
			wrong("--caller-namespace: names in %s are always routed to %s: remove %s", own, callers, text)
		default:
			if o.CallerNamespaces == nil {
				o.CallerNamespaces = map[string][]string{}
			}
			o.CallerNamespaces[own] = append(o.CallerNamespaces[own], callers)
		}
	}
	var err error
	if o.Ports, err = plan.ParsePortRange(raw.ports); err != nil {
		wrong("--ports: %w", err)
	}
	if selector, err := labels.Parse(o.Selector); err != nil {
		wrong("--export-selector: %w", err)
	} else if selector.Empty() {
		wrong("--export-selector: an empty selector would export every Service: set one such as service-mirror.io/exported=true")
	}
	if len(validation.IsDNS1123Label(o.Records)) > 0 {
		wrong("--record-namespace: %.70q is not a valid namespace name", o.Records)
	}
	return o, errors.Join(errors.Join(mistakes...), raw.readTargets(&o))
}

// readTargets reads what depends on --to.
func (raw *Flags) readTargets(o *Options) error {
	var mistakes []error
	wrong := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if len(raw.targets) == 0 {
		wrong("--to is required: set gateway-api, ingress or names")
	}
	for _, text := range raw.targets {
		switch target := plan.Target(text); {
		case !slices.Contains(plan.Targets, target):
			wrong("--to: unknown target %.40q: set gateway-api, ingress or names", text)
		case slices.Contains(o.Targets, target):
			wrong("--to: %s is set twice: remove one", target)
		default:
			o.Targets = append(o.Targets, target)
		}
	}
	namespace, name, _ := strings.Cut(raw.gateway, "/")
	switch {
	case raw.gateway == "" && o.To(plan.ToGatewayAPI):
		wrong("--gateway is required with --to gateway-api: set the NS/NAME of the Gateway")
	case raw.gateway != "" && (len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0):
		wrong("--gateway: %.320q is not NS/NAME of a Gateway", raw.gateway)
	case raw.gateway != "" && !o.To(plan.ToGatewayAPI):
		wrong("--gateway requires --to gateway-api: add that, or remove --gateway")
	}
	o.Gateway = cache.NewObjectName(namespace, name)
	if raw.service != "" {
		namespace, name, _ := strings.Cut(raw.service, "/")
		o.GatewayService = cache.NewObjectName(namespace, name)
		switch {
		case len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0:
			wrong("--gateway-service: %.320q is not NS/NAME of a Service", raw.service)
		case raw.gateway == "":
			wrong("--gateway-service requires --gateway: add that, or remove --gateway-service")
		}
	}
	switch {
	case o.IngressClass == "" && o.To(plan.ToIngress):
		wrong("--ingress-class is required with --to ingress: set the name of the IngressClass")
	case o.IngressClass != "" && len(validation.IsDNS1123Subdomain(o.IngressClass)) > 0:
		wrong("--ingress-class: %.260q is not a valid name", o.IngressClass)
	case o.TLSSecret != "" && len(validation.IsDNS1123Subdomain(o.TLSSecret)) > 0:
		wrong("--tls-secret: %.260q is not a valid name", o.TLSSecret)
	case (o.IngressClass != "" || o.TLSSecret != "") && !o.To(plan.ToIngress):
		wrong("--ingress-class and --tls-secret require --to ingress: add that, or remove them")
	}
	return errors.Join(errors.Join(mistakes...), readNames(o))
}

// readNames reads what is for --to names, and what is not.
func readNames(o *Options) error {
	switch {
	case !o.To(plan.ToNames) && o.Aliases != defaultAliases:
		return errors.New("--names-namespace requires --to names: add that, or remove --names-namespace")
	case !o.To(plan.ToNames):
		o.Aliases = ""
	case len(validation.IsDNS1123Label(o.Aliases)) > 0:
		return fmt.Errorf("--names-namespace: %.70q is not a valid namespace name", o.Aliases)
	case len(o.Targets) == 1 && len(o.HostTemplates)+len(o.HostSuffixes)+len(o.CallerNamespaces) > 0:
		return errors.New("--host-template, --host-suffix and --caller-namespace have no effect with --to names alone: remove them, or add another --to")
	}
	return nil
}
