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
	var problems []error
	add := func(host string) {
		if !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	for _, name := range p.Names {
		called := svc.Name + "-" + name
		if len(called) > validation.DNS1123LabelMaxLength {
			problems = append(problems, fmt.Errorf("%s has %d characters, more than the %d of a DNS label: rename the Service, or give a shorter --name", called, len(called), validation.DNS1123LabelMaxLength))
			continue
		}
		for _, host := range p.within(called, svc.Namespace) {
			add(host)
		}
	}
	for _, host := range p.within(svc.Name, svc.Namespace) {
		add(host)
	}
	for _, template := range p.HostTemplates {
		for _, host := range p.expand(template, svc) {
			if err := p.validateHost(host, svc); err != nil {
				problems = append(problems, fmt.Errorf("--host-template %s: %w", template, err))
				continue
			}
			add(host)
		}
	}
	more, err := p.annotated(svc)
	problems = append(problems, err)
	for _, host := range more {
		add(host)
	}
	if n := len(hosts); n > record.MaxHosts {
		problems = append(problems, fmt.Errorf("it has %d names: only the first %d are routed: list fewer in the annotation %s", n, record.MaxHosts, HostsAnnotation))
		hosts = hosts[:record.MaxHosts]
	}
	return hosts, errors.Join(problems...)
}

// within are the forms of a Service's name in its namespace that clients use.
func (p Policy) within(name, namespace string) []string {
	short := name + "." + namespace
	return []string{short, short + ".svc", short + ".svc." + p.Domain}
}

// expand is what a template makes for a Service: one name for each name of the cluster that it mentions.
func (p Policy) expand(template string, svc *corev1.Service) (hosts []string) {
	text := strings.NewReplacer("{service}", svc.Name, "{namespace}", svc.Namespace).Replace(template)
	if !strings.Contains(text, "{name}") {
		return []string{strings.ToLower(text)}
	}
	for _, name := range p.Names {
		hosts = append(hosts, strings.ToLower(strings.ReplaceAll(text, "{name}", name)))
	}
	return hosts
}

// ValidateTemplate refuses a template whose names cannot be told apart, or are none.
func (p Policy) ValidateTemplate(template string) error {
	text := strings.NewReplacer("{service}", "a", "{namespace}", "b", "{name}", "c").Replace(template)
	switch {
	case !strings.Contains(template, "{service}") || !strings.Contains(template, "{namespace}"):
		return fmt.Errorf("%.300q must contain {service} and {namespace}, or two Services would have one name", template)
	case len(validation.IsDNS1123Subdomain(strings.ToLower(text))) > 0:
		return fmt.Errorf("%.300q makes no DNS names: give one as {service}.{namespace}.example.com", template)
	}
	return nil
}

// annotated are the names that a Service asks for.
func (p Policy) annotated(svc *corev1.Service) (hosts []string, err error) {
	value := svc.Annotations[HostsAnnotation]
	if len(value) > maxHostsLength {
		return nil, fmt.Errorf("annotation %s is longer than %d bytes, so it is not read: shorten it", HostsAnnotation, maxHostsLength)
	}
	var problems []error
	for host := range strings.SplitSeq(value, ",") {
		if host = strings.ToLower(strings.TrimSpace(host)); host == "" {
			continue
		}
		if err := p.validateHost(host, svc); err != nil {
			problems = append(problems, fmt.Errorf("annotation %s: %w", HostsAnnotation, err))
			continue
		}
		hosts = append(hosts, host)
	}
	return hosts, errors.Join(problems...)
}

// validateHost refuses what is no name, and what may be the name of another Service: those are given to the Service
// that has them, and to no other.
func (p Policy) validateHost(host string, svc *corev1.Service) error {
	if len(validation.IsDNS1123Subdomain(host)) > 0 {
		return fmt.Errorf("%.70q is not a DNS name: correct it", host)
	}
	labels := strings.Split(strings.TrimSuffix(strings.TrimSuffix(host, "."+p.Domain), ".svc"), ".")
	inCluster := strings.HasSuffix(host, ".svc") || host == p.Domain || strings.HasSuffix(host, "."+p.Domain) || len(labels) <= 2
	// A second name in the Service's own namespace is its owner's to give.
	if inCluster && !(len(labels) == 2 && labels[1] == svc.Namespace) {
		return fmt.Errorf("%.70q is, or may be, the name of a Service in another namespace: use a name outside of %s and .svc, with at least two dots", host, p.Domain)
	}
	return nil
}

// Claims are all that an exported Service may have alone: names, and gateway ports that its annotation chooses. The
// oldest Service that claims one has it.
func (p Policy) Claims(svc *corev1.Service) []string {
	hosts, _ := p.Hosts(svc)
	return append(hosts, gateway.Claims(svc)...)
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
			problems = append(problems, fmt.Errorf("%s is a name of %v, which is older: rename one of the two, or correct the annotation %s", host, other, HostsAnnotation))
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
