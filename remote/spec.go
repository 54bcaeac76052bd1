package remote

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
)

// Spec is what the --remote flag says of one remote cluster.
type Spec struct {
	Name       string // a DNS label; the suffix of its mirrors' names
	Kubeconfig string // path
	Context    string // in the kubeconfig; empty: its current one
	UID        types.UID
	Gateway    gateway.Config
}

// ParseSpec reads NAME=KUBECONFIG[,KEY=VALUE]…; the error lists every mistake.
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
		mistake("no kubeconfig is given: write NAME=PATH")
	}
	seen := map[string]bool{}
	for _, field := range fields[1:] {
		key, value, _ := strings.Cut(field, "=")
		if seen[key] && key != "address" {
			mistake("%s= stands twice", key)
		}
		seen[key] = true
		if value == "" {
			mistake("%q is not KEY=VALUE", field)
			continue
		}
		if err := spec.set(key, value); err != nil {
			mistakes = append(mistakes, err)
		}
	}
	return spec, errors.Join(mistakes...)
}

func (s *Spec) set(key, value string) (err error) {
	switch key {
	case "context":
		s.Context = value
	case "uid":
		s.UID = types.UID(value)
	case "gateway":
		s.Gateway.Service, err = ParseObjectName(value)
	case "gateway-port":
		s.Gateway.Port, err = value, gateway.ValidatePort(value)
	case "address":
		var addr netip.Addr
		if addr, err = netip.ParseAddr(value); err != nil {
			return fmt.Errorf("address=%s is not an IP address", value)
		}
		s.Gateway.Addresses = append(s.Gateway.Addresses, addr)
	default:
		return fmt.Errorf("%q is not known: there are context=, gateway=, gateway-port=, address= and uid=", key)
	}
	return err
}

// ParseObjectName reads NAMESPACE/NAME of a Service.
func ParseObjectName(text string) (cache.ObjectName, error) {
	namespace, name, found := strings.Cut(text, "/")
	if !found || len(validation.IsDNS1123Label(namespace)) > 0 || len(validation.IsDNS1123Label(name)) > 0 {
		return cache.ObjectName{}, fmt.Errorf("gateway %q is not NAMESPACE/NAME", text)
	}
	return cache.NewObjectName(namespace, name), nil
}
