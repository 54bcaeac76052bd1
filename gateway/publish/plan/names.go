package plan

import (
	"errors"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// NamespaceLabel, on an alias, is the namespace of the exported Service, which is not its own.
const NamespaceLabel = "service-mirror.io/service-namespace"

// aliasSeparator separates namespace and name in an alias, and may be in neither of the two.
const aliasSeparator = "--"

// AliasOf is the name of the Service of type ExternalName by which a gateway with one static wildcard reaches an
// exported Service. Gateways make it of the Host header or the SNI, NAMESPACE--NAME, and no two Services have the
// same. The error says why a Service can have none.
func AliasOf(key cache.ObjectName) (string, error) {
	for _, part := range []struct{ kind, name string }{{"namespace", key.Namespace}, {"Service", key.Name}} {
		if strings.Contains(part.name, aliasSeparator) {
			return "", fmt.Errorf("%s %s has %q in its name, so its alias could conflict with that of another Service: rename it, or use another --to", part.kind, part.name, aliasSeparator)
		}
	}
	alias := key.Namespace + aliasSeparator + key.Name
	if n := len(alias); n > validation.DNS1123LabelMaxLength {
		return "", fmt.Errorf("its alias %s has %d characters, more than the %d of a DNS label: rename the Service, or use another --to", alias, n, validation.DNS1123LabelMaxLength)
	}
	return alias, nil
}

// throughNames has a port be reached by the Service's alias: whatever a static gateway routes by the name in a request.
// At which of the gateway's ports is for the readers of the record to find out, who see these.
func (d *decision) throughNames(a *assignment) error {
	if !a.named() {
		return errors.New("its requests have no host name, which a static gateway needs for routing")
	}
	if err := d.noAlias(); err != nil {
		return err
	}
	if err := d.known(Alias); err != nil {
		return err
	}
	a.kind, a.shared, a.unsaid = Alias, true, true
	return nil
}

// noAlias is why the Service is to have no alias, whatever is known of others.
func (d *decision) noAlias() error {
	if d.unnamed != nil {
		return d.unnamed
	}
	if len(d.ports) < len(d.snapshot.Service.Spec.Ports) {
		return fmt.Errorf("an alias would also open ports that the annotation %s excludes: remove the annotation, or publish through Gateway API or an ingress controller", gateway.SelectAnnotation)
	}
	return nil
}

// reservedElsewhere has readers find out how a port is reached that needs a gateway port of its own, where only the
// configuration of a static gateway gives any: it is not known here.
func (d *decision) reservedElsewhere(a *assignment) {
	if !d.policy.To(ToNames) || d.policy.To(ToGatewayAPI) || a.kind != "" {
		return
	}
	_, reserved := d.reserved(a.port)
	if reserved || !a.named() {
		a.unsaid, a.problem = true, nil
	}
}

// alias adds the Service's alias, if any port is reached by it. It has no owner, which would have to be in its namespace.
func (d *decision) alias() {
	if !d.aliased() {
		return
	}
	key, namespace := d.snapshot.Key, d.policy.Aliases
	name, _ := AliasOf(key)
	d.plan.Desired = append(d.plan.Desired, &unstructured.Unstructured{Object: map[string]any{
		"apiVersion": "v1",
		"kind":       string(Alias),
		"metadata": map[string]any{
			"namespace":   namespace,
			"name":        name,
			"labels":      map[string]any{mirrors.ManagedByLabel: mirrors.ManagedBy, ServiceLabel: key.Name, NamespaceLabel: key.Namespace},
			"annotations": map[string]any{PublishedAnnotation: namespace + "/" + name},
		},
		"spec": map[string]any{
			"type":            string(corev1.ServiceTypeExternalName),
			"externalName":    d.policy.within(key.Name, key.Namespace)[2],
			"sessionAffinity": string(corev1.ServiceAffinityNone),
		},
	}})
}

// hasAlias tells whether the Service has an alias, by whichever flags.
func (d *decision) hasAlias() bool {
	name, _ := AliasOf(d.snapshot.Key)
	live := d.live(Ref{Alias, name})
	return live != nil && Owned(live)
}

func (d *decision) aliased() bool {
	for _, a := range d.assigned {
		if a.kind == Alias {
			return true
		}
	}
	return false
}

// onlyNames tells that nothing but a static gateway routes.
func (p Policy) onlyNames() bool { return len(p.Targets) == 1 && p.To(ToNames) }

// wildcard are the names by which a static gateway routes to a Service, which it takes apart. One that ends with that of
// the cluster is always a mirror's. The error says which of those that the Service asks for it does not route, and which have
// no place in the record.
func (p Policy) wildcard(svc *corev1.Service) (hosts []string, err error) {
	plain := true
	for _, name := range p.Names {
		if called := svc.Name + "-" + name; len(called) <= validation.DNS1123LabelMaxLength {
			hosts = append(hosts, p.within(called, svc.Namespace)...)
		}
		plain = plain && !strings.HasSuffix(svc.Name, "-"+name)
	}
	if plain {
		hosts = append(hosts, p.within(svc.Name, svc.Namespace)...)
	}
	hosts, err = limit(hosts, "set fewer --name")
	if svc.Annotations[HostsAnnotation] != "" {
		err = errors.Join(err, fmt.Errorf("a static gateway cannot route the names in the annotation %s: remove it, or use another --to", HostsAnnotation))
	}
	return hosts, err
}
