package plan

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	"k8s.io/client-go/tools/cache"

	"service-mirror.io/service-mirror/gateway"
	"service-mirror.io/service-mirror/gateway/publish/record"
	mirrors "service-mirror.io/service-mirror/mirror/plan"
)

// HostsAnnotation, on an exported Service, lists further names by which it is called: "bar.example.com, …".
const HostsAnnotation = "service-mirror.io/hosts"

// maxHostsLength is how much of HostsAnnotation is read, in bytes.
const maxHostsLength = 8 << 10

// Hosts are the names that are routed to an exported Service. The error says which of those that it or the operator
// asks for cannot be; the others can.
func (p Policy) Hosts(svc *corev1.Service) (hosts []string, err error) {
	hosts, unmade := p.made(svc)
	more, refused := p.annotated(svc)
	for _, host := range more {
		hosts = appendNew(hosts, host)
	}
	hosts, tooMany := limit(hosts, "list fewer in the annotation "+HostsAnnotation)
	return hosts, errors.Join(unmade, refused, tooMany)
}

// limit cuts names down to as many as a record can have. The error says what to do about more.
func limit(hosts []string, remedy string) ([]string, error) {
	n := len(hosts)
	if n <= record.MaxHosts {
		return hosts, nil
	}
	return hosts[:record.MaxHosts], fmt.Errorf("it has %d names: only the first %d are routed: %s", n, record.MaxHosts, remedy)
}

// Made are the names that an exported Service has by its own: what others list in their annotations takes none of them.
func (p Policy) Made(svc *corev1.Service) []string {
	hosts, _ := p.made(svc)
	return hosts
}

func (p Policy) made(svc *corev1.Service) (hosts []string, err error) {
	called, unmade := p.called(svc)
	problems := []error{unmade}
	for _, short := range p.short(svc, called) {
		for _, host := range p.forms(short) {
			hosts = appendNew(hosts, host)
		}
	}
	more, unexpanded := p.expanded(svc)
	for _, host := range more {
		hosts = appendNew(hosts, host)
	}
	return hosts, errors.Join(append(problems, unexpanded)...)
}

// called are the names that a Service's mirrors have, by --name, and by templates such as {name}-{service}.{namespace}.
func (p Policy) called(svc *corev1.Service) (names []string, err error) {
	var problems []error
	for _, name := range p.Names {
		called := svc.Name + "-" + name
		if len(called) > validation.DNS1123LabelMaxLength {
			problems = append(problems, fmt.Errorf("%s has %d characters, more than the %d of a DNS label: rename the Service, or set a shorter --name", called, len(called), validation.DNS1123LabelMaxLength))
			continue
		}
		names = append(names, called)
	}
	for _, template := range p.HostTemplates {
		for _, host := range p.expand(template, svc) {
			if name, namespace, _ := strings.Cut(host, "."); namespace == svc.Namespace && len(validation.IsDNS1123Label(name)) == 0 {
				names = appendNew(names, name)
			}
		}
	}
	return names, errors.Join(problems...)
}

// short are the short forms of a Service's names, as bar-paris.default: in its own namespace, in which it has its own name,
// too, and in those that callers have its mirrors in. A name of its own there would be that of another Service.
func (p Policy) short(svc *corev1.Service, called []string) (all []string) {
	for _, name := range append(slices.Clip(called), svc.Name) {
		all = appendNew(all, name+"."+svc.Namespace)
	}
	for _, namespace := range p.CallerNamespaces[svc.Namespace] {
		for _, name := range called {
			all = appendNew(all, name+"."+namespace)
		}
	}
	return all
}

// expanded are the names that the operator's templates make.
func (p Policy) expanded(svc *corev1.Service) (hosts []string, err error) {
	var problems []error
	for _, template := range p.HostTemplates {
		for _, host := range p.expand(template, svc) {
			if err := p.validateHost(host, svc); err != nil {
				problems = append(problems, fmt.Errorf("--host-template %s: %w", template, err))
				continue
			}
			hosts = append(hosts, host)
		}
	}
	return hosts, errors.Join(problems...)
}

func appendNew(hosts []string, host string) []string {
	if slices.Contains(hosts, host) {
		return hosts
	}
	return append(hosts, host)
}

// within are the forms of a Service's name in its namespace that clients use.
func (p Policy) within(name, namespace string) []string {
	short := name + "." + namespace
	return p.forms(short)
}

func (p Policy) forms(short string) []string {
	return []string{short, short + ".svc", short + ".svc." + p.Domain}
}

// annotated are the names that a Service asks for.
func (p Policy) annotated(svc *corev1.Service) (hosts []string, err error) {
	value := svc.Annotations[HostsAnnotation]
	if len(value) > maxHostsLength {
		return nil, fmt.Errorf("annotation %s is longer than %d bytes and is ignored: shorten it", HostsAnnotation, maxHostsLength)
	}
	var problems []error
	for host := range strings.SplitSeq(value, ",") {
		if host = strings.ToLower(strings.TrimSpace(host)); host == "" {
			continue
		}
		if err := p.validateAnnotated(host, svc); err != nil {
			problems = append(problems, fmt.Errorf("annotation %s: %w", HostsAnnotation, err))
			continue
		}
		hosts = append(hosts, host)
	}
	return hosts, errors.Join(problems...)
}

// validateAnnotated refuses besides what is neither of the Service's own namespace nor below a suffix that the operator
// lets Services choose from: whoever may annotate a Service must not take any name in the world.
func (p Policy) validateAnnotated(host string, svc *corev1.Service) error {
	if err := p.validateHost(host, svc); err != nil {
		return err
	}
	labels := strings.Split(host, ".")
	own := labels[1] == svc.Namespace && (len(labels) == 2 || labels[2] == "svc") // a second name there is its owner's to give
	if own || slices.ContainsFunc(p.HostSuffixes, func(suffix string) bool { return strings.HasSuffix(host, "."+suffix) }) {
		return nil
	}
	return fmt.Errorf("%.70q does not match any --host-suffix of the publisher: remove it, or add a suffix to the publisher", host)
}

// validateHost refuses what is no name, and what may be the name of another Service, in this cluster or, as a mirror's,
// in others, whose DNS domains are not known: those are given to the Service that has them, and to no other.
func (p Policy) validateHost(host string, svc *corev1.Service) error {
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return fmt.Errorf("%.70q is not a DNS name: correct it", host)
	}
	labels := strings.Split(strings.TrimSuffix(strings.TrimSuffix(host, "."+p.Domain), ".svc"), ".")
	inCluster := strings.HasSuffix(host, ".svc") || p.below(host) || len(labels) <= 2
	if inCluster && !(len(labels) == 2 && labels[1] == svc.Namespace) || ofAnother(strings.Split(host, "."), svc.Namespace) {
		return fmt.Errorf("%.70q could be the name of a Service in another namespace: use a name outside of %s and .svc, with at least two dots", host, p.Domain)
	}
	return nil
}

// ofAnother tells whether a name has the form SERVICE.NAMESPACE.svc.DOMAIN, whatever the domain, with another namespace,
// or is below such a one, as a pod's.
func ofAnother(labels []string, namespace string) bool {
	for i, label := range labels {
		if label == "svc" && i >= 2 && labels[i-1] != namespace {
			return true
		}
	}
	return false
}

// below tells whether a name is the cluster's DNS domain, or in it.
func (p Policy) below(host string) bool {
	return host == p.Domain || strings.HasSuffix(host, "."+p.Domain)
}

// ValidateSuffix refuses a suffix that is none, or whose names are those of Services.
func (p Policy) ValidateSuffix(suffix string) error {
	switch {
	case len(validation.IsDNS1123Subdomain(suffix)) > 0:
		return fmt.Errorf("%.300q is not a DNS name: set one such as shop.example.com", suffix)
	case p.below(suffix) || suffix == "svc" || strings.HasSuffix(suffix, ".svc"):
		return fmt.Errorf("%.300q overlaps with names of Services: set one outside of %s and .svc", suffix, p.Domain)
	}
	return nil
}

// Claims are all that an exported Service may have alone: names, and gateway ports that its annotation chooses. The
// oldest Service that claims one has it; of a name, the oldest of those for which it is Made, if there are any. One that is
// refused claims nothing.
func (p Policy) Claims(svc *corev1.Service) []string {
	if p.refuse(svc) != nil {
		return nil
	}
	hosts, _ := p.Hosts(svc)
	return append(hosts, gateway.Claims(svc)...)
}

// MadeKeys are what the names that an exported Service has by its own are found by: one for all forms of a name in its
// namespace, as a cache has many Services.
func (p Policy) MadeKeys(svc *corev1.Service) (keys []string) {
	if p.refuse(svc) != nil {
		return nil
	}
	called, _ := p.called(svc)
	for _, short := range p.short(svc, called) {
		keys = append(keys, allForms(short))
	}
	expanded, _ := p.expanded(svc)
	return append(keys, expanded...)
}

// MadeKeysOf are the keys of MadeKeys for a name.
func (p Policy) MadeKeysOf(host string) []string {
	keys := []string{host}
	short := strings.TrimSuffix(strings.TrimSuffix(host, "."+p.Domain), ".svc")
	if service, namespace, found := strings.Cut(short, "."); found && slices.Contains(p.within(service, namespace), host) {
		keys = append(keys, allForms(short))
	}
	return keys
}

// allForms is the key for all forms of a name. No name has a space.
func allForms(short string) string { return short + " " }

// Chosen are those of Claims that the Service's annotations make.
func (p Policy) Chosen(svc *corev1.Service) []string {
	made := p.Made(svc)
	return slices.DeleteFunc(p.Claims(svc), func(claim string) bool { return slices.Contains(made, claim) })
}

// Trim cuts an exported Service down to what is published, as its mirrors' rules and the names need it.
func (p Policy) Trim(svc *corev1.Service) *corev1.Service {
	trimmed := mirrors.Policy{CopyAnnotations: []string{HostsAnnotation}}.TrimExported(svc)
	if hosts, found := trimmed.Annotations[HostsAnnotation]; found && len(hosts) > maxHostsLength {
		trimmed.Annotations[HostsAnnotation] = strings.Clone(hosts[:maxHostsLength+1]) // it is still too long
	}
	trimmed.CreationTimestamp = svc.CreationTimestamp // the older claim counts
	if len(svc.Spec.Selector) > 0 {
		trimmed.Spec.Selector = map[string]string{"": ""} // that there is one is all that counts
	}
	return trimmed
}

// held separates the names that this Service has from those of an older one.
func (s Snapshot) held(hosts []string) (own []string, err error) {
	var problems []error
	for _, host := range hosts {
		if other := s.holder(host); other != s.Key {
			problems = append(problems, fmt.Errorf("host name %s already belongs to %v: rename one of the two Services, or correct the annotation %s", host, other, HostsAnnotation))
			continue
		}
		own = append(own, host)
	}
	return own, errors.Join(problems...)
}

func (s Snapshot) holder(claim string) cache.ObjectName {
	if s.Holder != nil {
		if other := s.Holder(claim); other != (cache.ObjectName{}) {
			return other
		}
	}
	return s.Key
}
