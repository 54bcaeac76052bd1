package remote

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Spec is what the --remote flag, or a Secret, says of one remote cluster.
type Spec struct {
	Name       string            // a DNS label; a part of its mirrors' names
	Secret     cache.ObjectName  // that configures it; zero: the flags do
	Kubeconfig string            // path; empty: it is in the Secret
	Inline     *Inline           // the kubeconfig in the Secret; nil: there is none that can be used
	Context    string            // in the kubeconfig; empty: its current one
	UID        types.UID         // the expected one, or Unverified; empty: the one that its mirrors record
	Namespaces []string          // that are watched for exported Services; none: all
	Gateways   []gateway.Config  // at least one; the first is that of Services that name none
	Records    string            // namespace of the remote's publisher, whose records are read; empty: none are
	Template   string            // of its mirrors' names; empty: that of all remotes
	Local      map[string]string // local namespaces of its mirrors, by the remote's; of others the same
	Limits     Limits            // zero: DefaultLimits
}

// Unverified, as the UID of a Spec, accepts a cluster whose UID may not be read.
const Unverified types.UID = "unverified"

// watched are the namespaces to watch; NamespaceAll is all of them at once.
func (s *Spec) watched() []string {
	if len(s.Namespaces) == 0 {
		return []string{metav1.NamespaceAll}
	}
	return s.Namespaces
}

// ParseSpec reads NAME=KUBECONFIG[,KEY=VALUE]…, where the value of namespaces= may
// be several names with commas; the error lists every mistake.
func ParseSpec(text string) (Spec, error) {
	fields := strings.Split(text, ",")
	var spec Spec
	var path bool
	spec.Name, spec.Kubeconfig, path = strings.Cut(fields[0], "=")
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	if problems := validation.IsDNS1123Label(spec.Name); len(problems) > 0 {
		mistake("name %.70q is not a DNS label: %s", spec.Name, problems[0])
	}
	if !path || spec.Kubeconfig == "" {
		mistake("no kubeconfig: set NAME=PATH")
	}
	var settings []setting
	last := ""
	for _, field := range fields[1:] {
		key, value, pair := strings.Cut(field, "=")
		more := last == "namespaces" && !pair // its value is a list, and goes on
		if more {
			key, value = last, field
		}
		last = key
		settings = append(settings, setting{text: field, key: key, value: value, more: more})
	}
	mistakes = append(mistakes, spec.apply(settings))
	return spec, errors.Join(mistakes...)
}

// ParseData reads the same keys from the data of a Secret, but for its kubeconfig: the value of one that can be given
// several times has a line for each. The error lists every mistake.
func ParseData(name string, data map[string][]byte) (Spec, error) {
	spec := Spec{Name: name}
	var settings []setting
	for _, key := range slices.Sorted(maps.Keys(data)) {
		if key == KubeconfigKey {
			continue
		}
		for i, value := range DataValues(key, data[key]) {
			settings = append(settings, setting{text: key + "=" + value, key: key, value: value, more: i > 0 && key == "namespaces"})
		}
	}
	return spec, spec.apply(settings)
}

// DataValues are the values of a key in the data of a Secret: its lines and, of namespaces, the items of its list.
func DataValues(key string, content []byte) []string {
	text := strings.TrimSpace(string(content))
	values := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || key == "namespaces" && r == ',' })
	if len(values) == 0 {
		return []string{""}
	}
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	return values
}

// CompareSecrets orders the Secrets of one remote: the first of them configures it.
func CompareSecrets(a, b *corev1.Secret) int {
	return cmp.Or(a.CreationTimestamp.Compare(b.CreationTimestamp.Time), strings.Compare(a.Name, b.Name))
}

// KubeconfigKey is the key of the kubeconfig in the data of a Secret.
const KubeconfigKey = "kubeconfig"

// setting is the value of one key, as text has it.
type setting struct {
	text, key, value string
	more             bool // it continues the list of the one before
}

// apply sets what the settings say. The error lists every mistake.
func (s *Spec) apply(settings []setting) error {
	s.Gateways = make([]gateway.Config, 1)
	var mistakes []error
	mistake := func(format string, args ...any) { mistakes = append(mistakes, fmt.Errorf(format, args...)) }
	seen := map[string]bool{}
	var gateways []gateway.Config
	for _, one := range settings {
		key, value := one.key, one.value
		if seen[key] && !one.more && key != "address" && key != "gateway" && key != "namespace" {
			mistake("%s= is set twice: remove one", key)
		}
		seen[key] = true
		if value == "" {
			mistake("%q is not KEY=VALUE", one.text)
			continue
		}
		if key == "gateway" {
			config, err := parseGateway(value)
			if err == nil && slices.ContainsFunc(gateways, func(other gateway.Config) bool { return other.Service == config.Service }) {
				err = fmt.Errorf("gateway=%v is set twice: remove one", config.Service)
			}
			mistakes = append(mistakes, err)
			gateways = append(gateways, config)
		} else if err := s.set(key, value); err != nil {
			mistakes = append(mistakes, err)
		}
	}
	if len(gateways) > 1 && seen["address"] {
		mistake("address= is ambiguous with several gateways: remove it, or set one gateway")
	}
	first := s.Gateways[0]
	for i, config := range gateways {
		if i > 0 {
			s.Gateways = append(s.Gateways, first)
		}
		s.Gateways[i].Service, s.Gateways[i].API = config.Service, config.API
	}
	return errors.Join(mistakes...)
}

// Complete takes what the Spec does not say of its gateways from shared, and checks their addresses against filter.
func (s *Spec) Complete(shared gateway.Config, filter gateway.Filter) error {
	var mistakes []error
	for i := range s.Gateways {
		config := &s.Gateways[i]
		if config.Service == (cache.ObjectName{}) {
			config.Service, config.API = shared.Service, shared.API
		}
		config.Port = cmp.Or(config.Port, shared.Port)
		config.Default = cmp.Or(config.Default, shared.Default)
		config.Domain = cmp.Or(config.Domain, shared.Domain)
		mistakes = append(mistakes, config.Validate(filter))
	}
	return errors.Join(mistakes...)
}

// Where is where the remote is configured, for people.
func (s *Spec) Where() string {
	if s.Secret == (cache.ObjectName{}) {
		return "--remote " + s.Name
	}
	return "Secret " + s.Secret.String()
}

// Usable tells whether the remote can be connected to: a Secret may have no kubeconfig, or mistakes.
func (s *Spec) Usable() bool { return s.Kubeconfig != "" || s.Inline != nil }

// Same tells whether another Spec differs in nothing but its credentials, which a Remote takes up while it runs.
func (s Spec) Same(other Spec) bool {
	if s.Usable() != other.Usable() {
		return false
	}
	s.Inline, other.Inline = nil, nil
	return reflect.DeepEqual(s, other)
}

func (s *Spec) set(key, value string) (err error) {
	config := &s.Gateways[0]
	switch key {
	case "context":
		s.Context = value
	case "uid":
		s.UID = types.UID(value)
	case "namespaces":
		if len(validation.IsDNS1123Label(value)) > 0 {
			return fmt.Errorf("namespaces= contains %.70q, which is not a valid namespace name", value)
		}
		if slices.Contains(s.Namespaces, value) {
			return fmt.Errorf("namespaces= contains %s twice: remove one", value)
		}
		s.Namespaces = append(s.Namespaces, value)
	case "name":
		s.Template = value
	case "namespace":
		return s.addNamespace(value)
	case "gateway-port":
		config.Port, err = value, prefixed(key, gateway.ValidatePort(value))
	case "default-gateway-port":
		config.Default, err = value, prefixed(key, gateway.ValidatePort(value))
	case "address":
		err = config.ParseAddress(value)
	case "tcp-services":
		config.TCPServices, err = parseConfigMapName(key, value)
	case "udp-services":
		config.UDPServices, err = parseConfigMapName(key, value)
	case "records":
		if s.Records = value; len(validation.IsDNS1123Label(value)) > 0 {
			return fmt.Errorf("records=%.70s is not a valid namespace name", value)
		}
	case "max-services":
		s.Limits.Services, err = parseMaxServices(value)
	case "max-bytes":
		s.Limits.Bytes, err = parseMaxBytes(value)
	case "cluster-domain":
		config.Domain, err = value, gateway.ValidateDomain(value)
	default:
		return fmt.Errorf("unknown key %q: the keys are context=, namespaces=, namespace=, name=, gateway=, gateway-port=, default-gateway-port=, address=, tcp-services=, udp-services=, records=, cluster-domain=, max-services=, max-bytes= and uid=", key)
	}
	return err
}

// addNamespace reads REMOTE:LOCAL.
func (s *Spec) addNamespace(value string) error {
	from, to, pair := strings.Cut(value, ":")
	if !pair || len(validation.IsDNS1123Label(from)) > 0 || len(validation.IsDNS1123Label(to)) > 0 {
		return fmt.Errorf("namespace=%.140s is not REMOTE:LOCAL, two namespace names", value)
	}
	if _, twice := s.Local[from]; twice {
		return fmt.Errorf("namespace= is set twice for %s: remove one", from)
	}
	if s.Local == nil {
		s.Local = map[string]string{}
	}
	s.Local[from] = to
	return nil
}

// prefixed is an error under its key.
func prefixed(key string, err error) error {
	if err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

func parseConfigMapName(key, text string) (cache.ObjectName, error) {
	namespace, name, found := strings.Cut(text, "/")
	if !found || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Subdomain(name)) > 0 {
		return cache.ObjectName{}, fmt.Errorf("%s=%.320s is not NAMESPACE/NAME of a ConfigMap", key, text)
	}
	return cache.NewObjectName(namespace, name), nil
}

// parseGateway reads NAMESPACE/NAME of a gateway Service, or gateway-api:NAMESPACE/NAME of a Gateway.
func parseGateway(text string) (config gateway.Config, err error) {
	if strings.HasPrefix(text, gateway.APIPrefix) {
		if config.Service, config.API, err = gateway.ParseName(text); err != nil {
			err = fmt.Errorf("gateway %.320q is not %sNAMESPACE/NAME", text, gateway.APIPrefix)
		}
		return config, err
	}
	config.Service, err = ParseObjectName(text)
	return config, err
}

// ParseObjectName reads NAMESPACE/NAME of a Service.
func ParseObjectName(text string) (cache.ObjectName, error) {
	namespace, name, found := strings.Cut(text, "/")
	if !found || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0 {
		return cache.ObjectName{}, fmt.Errorf("gateway %q is not NAMESPACE/NAME", text)
	}
	return cache.NewObjectName(namespace, name), nil
}

// ValidateSelector checks which Services are exported. The empty selector would
// export everything.
func ValidateSelector(text string) error {
	selector, err := labels.Parse(text)
	if err == nil && selector.Empty() {
		err = errors.New("an empty selector would mirror every Service")
	}
	return err
}
